"""The section of pruning tokens: the method, where its stages sit, and how much goes."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ....exporter.core.errors import excerpt
from ....exporter.core.outcome import MEASURES
from .section import MOST_SEED, MOST_TOKENS, Section, file_key

_TABLED = {"properties": {"table": {"type": "string"}}, "required": ["table"]}
_UNTABLED = ("gflops", "flops_ratio", *MEASURES)  # targets that no latency decides
_NO_TABLE = {"properties": {"table": {"type": "null"}}}
_WISHED = {"properties": {"speedup": {"type": "number"}}, "required": ["speedup"]}


class TargetSection(Section):
    """What the solver has to reach: a cost, or an outcome, which `speedup` may stand beside as a wish."""

    ways = ("gflops", "flops_ratio", "speedup", "latency_ms", *MEASURES)
    beside: ClassVar[dict[str, tuple[str, ...]]] = {"speedup": tuple(MEASURES)}
    bound: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(_UNTABLED, ("table", "correction_ms"))
    rules = (
        {"anyOf": [{"properties": {"latency_ms": {"type": "null"}}}, _TABLED]},
        {"anyOf": [{"properties": {"correction_ms": {"type": "null"}}}, _TABLED]},
        *(
            {"anyOf": [{"properties": {key: {"type": "null"}}}, _NO_TABLE, *([_WISHED] if key in MEASURES else [])]}
            for key in _UNTABLED
        ),
        *(
            {"anyOf": [{"properties": {key: {"type": "null"}}}, {"properties": {"correction_ms": {"type": "null"}}}]}
            for key in MEASURES
        ),
    )

    gflops: float | None = Field(
        default=None, gt=0, le=1e9, description="Multiply-accumulates of the graph in 1e9, scoring included."
    )
    flops_ratio: float | None = Field(
        default=None, gt=0, le=1, description="Share of the dense model's, as papers count."
    )
    speedup: float | None = Field(
        default=None,
        ge=1,
        le=1e6,
        description="Dense over pruned latency: by the table, or without one by a formula for a CPU; beside an outcome "
        "a wish, of which is said whether it is met, by the table too.",
    )
    latency_ms: float | None = Field(
        default=None, gt=0, le=1e9, description="Milliseconds of the pruned graph for a batch; needs the table."
    )
    table: str | None = file_key(
        "With speedup or latency_ms: what `vitrim profile` measured on this machine, or `run_on_device.py table` on "
        "another one, for this export."
    )
    correction_ms: float | None = Field(
        default=None,
        ge=-1e9,
        le=1e9,
        description="With table: milliseconds that it misses of a pruned graph; null: the export measures them, and "
        "solves once more where it was off by over 3 %.",
    )
    agreement: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Least share of images with the dense model's answer: the cheapest plan whose 95 % interval on the "
        "calibration images begins there.",
    )
    top1_drop: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Most top-1 that may be lost, as a share of the images, which need labels: the cheapest plan whose "
        "95 % interval ends there.",
    )
    kl: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="Most mean divergence from the dense model, in nats (of features, mean of 1 - cosine): the "
        "cheapest plan whose 95 % interval ends there.",
    )

    @property
    def outcome(self) -> tuple[str, float] | None:
        """The outcome that is asked for, and its bound; None where a cost is."""
        return next(((name, getattr(self, name)) for name in MEASURES if getattr(self, name) is not None), None)

    @model_validator(mode="after")
    def _tabled(self) -> TargetSection:
        if self.table is None and (self.latency_ms is not None or self.correction_ms is not None):
            key = "latency_ms" if self.latency_ms is not None else "correction_ms"
            raise ValueError(f"{key} needs table: FILE; make one by `vitrim profile RECIPE -o FILE`")
        if self.table is not None and self.speedup is None and self.latency_ms is None:
            raise ValueError("table goes with speedup or latency_ms; take it out")
        if self.outcome is not None and self.correction_ms is not None:
            raise ValueError(f"correction_ms goes with a target in time, and {self.outcome[0]} is none; take it out")
        return self


class SearchSection(Section):
    """Search of the budget on the calibration images, at the cost of the rule's."""

    rules = (
        {
            "if": {"properties": {"by": {"const": "optuna"}}, "required": ["by"]},
            "else": {"properties": {"storage": {"type": "null"}, "seed": {"const": 0}, "stop": {"type": "null"}}},
        },
    )

    trials: int = Field(
        default=0,
        ge=0,
        le=10000,
        description="Plans to judge: at most by climb, all in all by optuna, which goes on where it has fewer. 0 takes "
        "the rule's.",
    )
    by: Literal["climb", "optuna"] = Field(
        default="climb",
        description="climb: small changes that pay, one after the other, in one process. optuna: by what all plans "
        "before showed, in as many processes as there are; the extra `search`.",
    )
    seed: int = Field(default=0, ge=0, le=MOST_SEED, description="With optuna: of what is proposed.")
    stop: Literal["halving", "none"] | None = Field(
        default=None,
        description="With optuna: give plans up early that are not in the best third on the first images, and again on "
        "three times as many, or judge all on all images; null: halving.",
    )
    storage: str | None = Field(
        default=None,
        exclude=True,
        description="With optuna: file of the study, on a disk that all processes share, or a database's URL; null: "
        "beside the output, until it is written.",
    )

    @model_validator(mode="after")
    def _of_optuna(self) -> SearchSection:
        for name in ("storage", "stop", "seed"):
            if self.by == "climb" and getattr(self, name):
                raise ValueError(f"{name} is for by: optuna; climb draws nothing and judges in one process")
        return self


# What the validators of `PruneSection` refuse, as JSON Schema.
_RATES = {
    "propertyNames": {"pattern": "^[0-9]+$"},
    "additionalProperties": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
}


_REMOVED = {
    "anyOf": [
        {"type": "null"},
        {"type": "integer", "minimum": 1},
        {"type": "array", "items": {"minimum": 0}, "contains": {"minimum": 1}},
    ]
}


_PLACES = {"items": {"minimum": 0}, "uniqueItems": True}  # of a model's blocks, or its classes


class PruneSection(Section):
    """How tokens are pruned, and how much."""

    ways = ("target", "preset", "keep_rates", "remove", "mass", "budget", "given")
    rules = ({"properties": {"keep_rates": _RATES, "remove": _REMOVED, "blocks": _PLACES}},)

    method: str | None = Field(
        default=None, description="Pruning method; null: the preset's, or else the best measured, see `vitrim methods`."
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="The method's parameters, see docs/methods.md."
    )
    target: TargetSection | None = Field(default=None, description="Let the solver find the tokens.")
    preset: str | None = Field(default=None, description="A published or precursor configuration by name.")
    keep_rates: dict[int, float] | None = Field(
        default=None, description="Share of the patches that stays, by block (0-based)."
    )
    remove: int | list[int] | None = Field(
        default=None,
        description="Tokens that every stage removes, or a list with a number for each.",
        json_schema_extra={"maximum": MOST_TOKENS, "items": {"maximum": MOST_TOKENS}},
    )
    inflection: float = Field(
        default=0.0,
        ge=-1,
        le=1,
        description="With remove: how much more the last stages remove than the first; -1 starts with twice as many.",
    )
    mass: float | None = Field(default=None, gt=0, lt=1, description="Keep the tokens holding this importance mass.")
    budget: str | None = file_key("A budget.json, perhaps edited by hand.")
    given: bool = Field(default=False, description="A budget in memory, handed over in Python.")
    blocks: list[int] | None = Field(default=None, min_length=1, description="Blocks of the stages; null: the rule's.")
    stages: int | None = Field(
        default=None,
        ge=1,
        le=4,
        description="How many stages the solver places when blocks is null; null: 3, or what the method's paper has.",
    )
    final: bool = Field(
        default=True, description="Drop all patches before the last MLP where only prefix tokens are classified (free)."
    )
    similar: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Share of a stage's removal that goes by similarity; null: the rule's.",
    )
    iterations: int | None = Field(default=None, ge=1, le=100, description="PageRank iterations; null: the rule's.")
    quantile: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="With mass: the share of images for which the tokens must suffice.",
    )
    multiple: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="With target or mass: the tokens after a stage, prefix tokens included, are multiples of it, or of "
        "its largest divisor that meets the target. null: 8 for TensorRT, 1 elsewhere.",
    )
    search: SearchSection = Field(default_factory=SearchSection)

    @field_validator("keep_rates")
    @classmethod
    def _rates(cls, rates: dict[int, float] | None) -> dict[int, float] | None:
        for block, rate in (rates or {}).items():
            if block < 0 or not 0 < rate <= 1:
                raise ValueError(f"block {block} has rate {rate}; blocks count from 0 and rates lie in (0, 1]")
        return rates

    @field_validator("remove")
    @classmethod
    def _removes(cls, remove: int | list[int] | None) -> int | list[int] | None:
        counts = remove if isinstance(remove, list) else [remove or 0]
        if max(counts, default=0) > MOST_TOKENS:
            raise ValueError(f"{excerpt(max(counts), 40)} is above {MOST_TOKENS}; no model has as many tokens")
        if remove is not None and (not any(counts) or min(counts) < 0):
            raise ValueError(f"{remove} removes nothing; give a number above 0, or a list of numbers from 0 up")
        return remove
