"""The recipe: one YAML file that says what to prune, how, for which target, and what counts as right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ...exporter.core.bounds import ATOL, BATCH, CLASSES, MODEL_ARGS, OTHER_ARGS, THREADS
from ...exporter.core.errors import InputError, excerpt
from ...exporter.core.outcome import MEASURES
from ...exporter.core.preprocess import check_constants
from ...exporter.core.targets import group_of
from ...exporter.pruning.arguments import check_args
from ...exporter.runtime.bench.timing import RUNS, WARMUP
from ...exporter.runtime.tensorrt.options import CAPABILITIES, WORKSPACE_MIB, EngineOptions

IN_MEMORY = "given"  # the key of what Python hands over; a file cannot
# Bounds, so that no slip asks for a billion: far above what anybody runs, and below what a machine would choke on.
MOST_IMAGES, MOST_SEED, MOST_TOKENS = 10_000_000, 2**32 - 1, 1_000_000
MOST_ARRAY_IMAGES = 100_000  # that are held at once
OUTCOME_IMAGES = 512  # that an outcome is decided and judged on, where a recipe does not say how many

_CHOSEN = {"not": {"enum": [None, False]}}  # a key that is given


class Section(BaseModel):
    """A part of a recipe: unknown keys and wrong types are refused.

    Attributes:
        ways: keys of which exactly one is given; `--set` of one of them takes the place of the others.
        beside: by one of the ways, those that it may also stand beside, and then chooses nothing.
        bound: keys that say something of another key's value, by that key; they go when it changes.
        rules: for the JSON Schema, what validators of the section refuse.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    ways: ClassVar[tuple[str, ...]] = ()
    beside: ClassVar[dict[str, tuple[str, ...]]] = {}
    bound: ClassVar[dict[str, tuple[str, ...]]] = {}
    rules: ClassVar[tuple[dict[str, Any], ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Pydantic's schema, with what only validators know: exactly one of the ways, and the section's own rules."""
        given = handler(core)
        schema = handler.resolve_ref_schema(given)
        chosen = {key: {"properties": {key: _CHOSEN}, "required": [key]} for key in cls.ways}
        alone = {key: {"not": {"anyOf": [chosen[other] for other in others]}} for key, others in cls.beside.items()}
        ways = {"oneOf": [{**rule, **alone.get(key, {})} for key, rule in chosen.items()]}
        own = [ways, *cls.rules] if cls.ways else list(cls.rules)
        if own:
            schema["allOf"] = own
        return given

    @model_validator(mode="after")
    def _one_way(self) -> Section:
        found = [key for key in self.ways if getattr(self, key) is not None and getattr(self, key) is not False]
        found = [key for key in found if not set(self.beside.get(key, ())) & set(found)]
        if self.ways and len(found) != 1:
            offered = ", ".join(key for key in self.ways if key != IN_MEMORY)
            raise ValueError(f"give exactly one of {offered}; found {' and '.join(found) or 'none of them'}")
        return self


def file_key(description: str) -> Any:
    """A key that names a file or folder; relative ones start at the recipe's folder."""
    return Field(default=None, description=description, json_schema_extra={"format": "path"})


class PreprocessOverrides(Section):
    """What differs from timm's data config of the model; keys left out keep the model's own."""

    mean: list[Annotated[float, Field(ge=0, le=1)]] | None = Field(
        default=None, min_length=1, description="Mean by channel, on a 0..1 scale."
    )
    std: list[Annotated[float, Field(gt=0, le=1)]] | None = Field(
        default=None, min_length=1, description="Standard deviation by channel, on a 0..1 scale."
    )
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = Field(default=None, description="Resizing.")
    crop_pct: float | None = Field(default=None, ge=0.1, le=1, description="Share of the short side that is cropped.")

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _of_unit_pixels(cls, values: Any, info: ValidationInfo) -> Any:
        if isinstance(values, list) and all(type(value) in (int, float) for value in values):
            try:
                numbers = [float(value) for value in values]
                check_constants(**{"mean": [], "std": [], str(info.field_name): numbers}, where="model.preprocess")
            except (InputError, OverflowError) as error:
                raise ValueError(str(error).removeprefix(f"model.preprocess.{info.field_name} is ")) from error
        return values


def _numbers(least: int, most: int) -> dict[str, Any]:
    """JSON Schema of a number, or a list of them, between bounds."""
    held = {"minimum": least, "maximum": most}
    return {**held, "items": held}


class ModelSection(Section):
    """Which model, and where its weights come from."""

    ways = ("checkpoint", "onnx", "pretrained", "random", "given")
    bound: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(ways, ("sha256", "ema", "state"))
    rules = (
        {"anyOf": [{"properties": {key: {"type": "string"}}, "required": [key]} for key in ("name", "checkpoint")]},
    )

    name: str | None = Field(
        default=None,
        min_length=1,
        description="timm model name; null: what lies beside the checkpoint says it.",
    )
    args: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of the timm model.",
        json_schema_extra={
            "properties": {key: _numbers(*bounds) for key, bounds in MODEL_ARGS.items()},
            "additionalProperties": _numbers(*OTHER_ARGS),
        },
    )
    checkpoint: str | None = file_key(
        "Safetensors or PyTorch file, folder of timm or transformers, or hf-hub:OWNER/NAME@REVISION."
    )
    onnx: str | None = file_key("ONNX file that the model was exported to; its weights are found in the graph.")
    sha256: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="Hash of the checkpoint or ONNX file, which another file must have; null: any is taken.",
    )
    ema: bool = Field(
        default=True, description="Take the checkpoint's averaged weights (EMA) where it holds such; false: the others."
    )
    state: str | None = Field(
        default=None,
        min_length=1,
        description="Which tensors of the checkpoint, where it holds those of several models, such as teacher; null: "
        "the only ones.",
    )
    pretrained: bool = Field(default=False, description="Fetch timm's weights from the model hub.")
    random: int | None = Field(
        default=None, ge=0, le=MOST_SEED, description="Seed of random weights, for trying things out."
    )
    given: bool = Field(default=False, description="A model in memory, handed over in Python.")
    preprocess: PreprocessOverrides = Field(default_factory=PreprocessOverrides)

    @field_validator("args")
    @classmethod
    def _bounded(cls, args: dict[str, Any]) -> dict[str, Any]:
        try:
            check_args(args)
        except InputError as error:
            raise ValueError(str(error).removeprefix("model.args.")) from error
        return args

    @model_validator(mode="after")
    def _named(self) -> ModelSection:
        if self.name is None and self.checkpoint is None:
            raise ValueError("name is missing; give the name of a timm model")
        return self

    @model_validator(mode="after")
    def _of_a_checkpoint(self) -> ModelSection:
        for key, given in (("ema", not self.ema), ("state", self.state is not None)):
            if given and self.checkpoint is None:
                raise ValueError(f"{key} says which weights of a checkpoint and goes with it; take it out")
        return self


class ImagesSection(Section):
    """Which images; none of them is needed to be labelled."""

    ways = ("path", "generator", "given")
    bound: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(("generator", "given"), ("classes",))
    rules = (
        {
            "not": {
                "properties": {"generator": {"type": "string"}, "count": {"type": "null"}},
                "required": ["generator", "count"],
            }
        },
    )

    path: str | None = file_key(
        "Folder of photos, folder of class folders, tar or parquet file or a folder of such, .npz or one photo."
    )
    classes: str | None = file_key(
        "Which folder is which class: names in class order, one a line or as a JSON list, or a JSON mapping from names "
        "to indices; null: numbers are indices, WNIDs are ImageNet's, other names go in order."
    )
    generator: Literal["shapes", "noise"] | None = Field(
        default=None, description="Make images instead: the quickstart's labelled shapes, or normal noise."
    )
    given: bool = Field(default=False, description="Images in memory, handed over in Python.")
    seed: int = Field(default=0, ge=0, le=MOST_SEED, description="Seed of the generator.")
    count: int | None = Field(
        default=64,
        ge=1,
        le=MOST_IMAGES,
        description="How many, spread evenly over the source; null takes all. Left out beside a target by outcome: "
        f"{OUTCOME_IMAGES}.",
    )
    every: int = Field(default=1, ge=1, le=MOST_IMAGES, description="Take every n-th image only ...")
    offset: int = Field(
        default=0,
        ge=0,
        le=MOST_IMAGES,
        description="... from this one on: disjoint halves are every 2, offset 0 and 1.",
    )

    @model_validator(mode="after")
    def _some(self) -> ImagesSection:
        if self.generator and self.count is None:
            raise ValueError("count must be a number when images are generated")
        if self.classes is not None and self.path is None:
            raise ValueError("classes names class folders and goes with path; take it out")
        return self


_TABLED = {"properties": {"table": {"type": "string"}}, "required": ["table"]}
_UNTABLED = ("gflops", "flops_ratio", *MEASURES)  # targets that no latency decides


class TargetSection(Section):
    """What the solver has to reach: a cost, or an outcome, which `speedup` may stand beside as a wish."""

    ways = ("gflops", "flops_ratio", "speedup", "latency_ms", *MEASURES)
    beside: ClassVar[dict[str, tuple[str, ...]]] = {"speedup": tuple(MEASURES)}
    bound: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(_UNTABLED, ("table", "correction_ms"))
    rules = (
        {"anyOf": [{"properties": {"latency_ms": {"type": "null"}}}, _TABLED]},
        {"anyOf": [{"properties": {"correction_ms": {"type": "null"}}}, _TABLED]},
        *(
            {"anyOf": [{"properties": {key: {"type": "null"}}}, {"properties": {"table": {"type": "null"}}}]}
            for key in _UNTABLED
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
        "a wish, of which is said whether it is met.",
    )
    latency_ms: float | None = Field(
        default=None, gt=0, le=1e9, description="Milliseconds of the pruned graph for a batch; needs the table."
    )
    table: str | None = file_key(
        "With speedup or latency_ms: what `vitrim profile` measured, on this machine and for this export."
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
        if self.table is not None and (self.outcome or (self.speedup is None and self.latency_ms is None)):
            raise ValueError("table goes with speedup or latency_ms; take it out")
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


class SlimTargetSection(Section):
    """How narrow the model gets."""

    ways = ("gflops", "flops_ratio", "parameters_ratio")

    gflops: float | None = Field(
        default=None, gt=0, le=1e9, description="Multiply-accumulates in 1e9, as papers count them."
    )
    flops_ratio: float | None = Field(default=None, gt=0, lt=1, description="Share of the dense model's.")
    parameters_ratio: float | None = Field(default=None, gt=0, lt=1, description="Share of the dense model's weights.")


class MasksSection(Section):
    """X-Pruner's class-wise masks, learned on labelled images with frozen weights."""

    epochs: int = Field(default=10, ge=1, le=1000, description="Passes over the images; the paper has 50.")
    lr: float = Field(default=1.0, gt=0, le=1e6, description="Step of SGD with momentum 0.9 on the masks.")
    sparse: float = Field(
        default=0.1, ge=0, le=1e6, description="Weight of the masks' sum of squares (mean over classes)."
    )
    smooth: float = Field(
        default=1e-5, ge=0, le=1e6, description="Weight of their absolute second differences along the units."
    )


class ThresholdsSection(Section):
    """X-Pruner's layer-wise pruning rates, learned under a constraint on the cost."""

    epochs: int = Field(default=10, ge=1, le=1000, description="Passes over the images; the paper has 80.")
    lr: float = Field(default=0.1, gt=0, le=1e6, description="Step of Adam on the logits of the rates.")


class FinetuneSection(Section):
    """Training of the slimmed model on the calibration images, with the dense model as its teacher."""

    epochs: int = Field(default=0, ge=0, le=10000, description="Passes over the images; 0 trains nothing.")
    lr: float = Field(default=1e-4, gt=0, le=1e6, description="AdamW's first step; falls to 0 along a cosine.")
    batch: int = Field(default=32, ge=BATCH[0], le=BATCH[1], description="Images per step.")


class SlimSection(Section):
    """Narrower blocks: fewer heads and MLP neurons, before any token is pruned."""

    ways = ("target", "widths")
    rules = (
        {
            "not": {
                "properties": {"heads": {"const": False}, "neurons": {"const": False}},
                "required": ["heads", "neurons"],
            }
        },
        {"properties": {"classes": _PLACES}},
    )

    method: Literal["taylor", "xpruner"] = Field(
        default="taylor", description="Zero-shot Taylor scores, or X-Pruner's masks learned on labelled images."
    )
    rule: Literal["global", "thresholds"] = Field(
        default="global", description="One threshold for all units, or a learned pruning rate for every layer."
    )
    target: SlimTargetSection | None = Field(default=None, description="How narrow the model gets.")
    widths: str | None = file_key("A widths.json, perhaps edited by hand.")
    heads: bool = Field(default=True, description="Whether heads may go.")
    neurons: bool = Field(default=True, description="Whether MLP neurons may go.")
    multiple: int = Field(
        default=16, ge=8, le=256, multiple_of=8, description="MLPs keep whole multiples of so many neurons."
    )
    classes: list[int] | None = Field(
        default=None, min_length=1, description="Judge units by these classes only; the model will see no others."
    )
    rounds: int = Field(
        default=3,
        ge=1,
        le=64,
        description="Equal parts in which units go; each is judged anew on what the one before left, repaired. "
        "With taylor and the global rule; others take one.",
    )
    repair: bool = Field(
        default=True, description="Fit what stays to what left by least squares on the calibration images."
    )
    masks: MasksSection = Field(default_factory=MasksSection)
    thresholds: ThresholdsSection = Field(default_factory=ThresholdsSection)
    finetune: FinetuneSection = Field(default_factory=FinetuneSection)

    @model_validator(mode="after")
    def _some_units(self) -> SlimSection:
        if not self.heads and not self.neurons:
            raise ValueError("heads and neurons are both false, so nothing may go; allow one of them")
        return self


class ExportSection(Section):
    """For which target the graph is made."""

    target: str = Field(
        default="ort-cpu",
        description="Where the graph will run, see `vitrim targets`; cpu: the fastest of those for a CPU, by trying.",
    )
    batch: int = Field(default=1, ge=BATCH[0], le=BATCH[1], description="Fixed batch size of the graph.")
    attention: Literal["auto", "decomposed", "fused"] = Field(
        default="auto",
        description="onnxruntime's fused Attention: only where it measures faster, never, or always.",
    )
    input: Literal["float32", "uint8"] = Field(
        default="float32",
        description="Preprocessed images [batch, channels, height, width], or RGB pixels [batch, height, width, "
        "channels] with the normalization folded into the patch embedding.",
    )
    top_k: int | None = Field(
        default=None,
        ge=1,
        le=CLASSES[1],
        description="Also give the k best classes and their probabilities; null: logits only.",
    )
    tokens: Literal["left", "grid"] | None = Field(
        default=None,
        description="Also give the last hidden tokens, after the final norm: those that are left, or the whole grid, "
        "where every patch has the token that it went into.",
    )
    decisions: bool = Field(
        default=False,
        description="The shipped graph also gives what its stages decided; false: only a proof graph beside it does.",
    )

    @property
    def compares(self) -> bool:
        """See `Target.compares`."""
        return group_of(self.target)[0].compares

    @property
    def token_multiple(self) -> int:
        """See `Target.token_multiple`."""
        return group_of(self.target)[0].token_multiple


class PrecisionSection(Section):
    """What the pruned graph computes in; the dense graph that it is timed against stays in float32."""

    name: Literal["fp32", "fp16", "bf16", "int8", "auto"] = Field(
        default="fp32",
        description="int8: the products with a weight; the rest is fp16 on TensorRT; see around. auto: the "
        "fastest that holds, by trying; so is a target that is a group, unless a precision is named.",
    )
    images: int = Field(
        default=64, ge=1, le=MOST_ARRAY_IMAGES, description="Calibration images that ranges are measured on."
    )
    half_io: bool = Field(default=False, description="Half-precision inputs and outputs instead of float32 ones.")
    headroom: float = Field(
        default=4.0,
        ge=1,
        le=65_504,
        description="fp16, and fp16 around int8: activations above 65504 over this, or all below 6.1e-5 times this, "
        "stay in float32.",
    )
    float32: list[str] = Field(
        default_factory=list, description="Further nodes that stay in float32, as patterns such as node_MatMul_9*."
    )
    calibrator: Literal["minmax", "percentile", "entropy"] = Field(
        default="minmax", description="int8: how an activation's range comes from what it is on the images."
    )
    percentile: float = Field(default=99.999, gt=50, le=100, description="With calibrator: percentile.")
    equalize: bool = Field(default=True, description="int8: even out channels between normalizations and weights.")
    agreement: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Least share of images with the float32 graph's top class (of features, its nearest other image); "
        "int8 gives layers back to float32 until it holds. null: 0.98 for int8, 0.99 for fp16, 0.95 for bf16.",
    )
    cosine: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Least mean cosine of logits, or of features, with PyTorch's. null: 0.9995 for fp16, 0.99 for bf16 "
        "and int8.",
    )
    keep_slower: bool = Field(
        default=False, description="Keep the precision even where the graph is timed here and is not faster in it."
    )
    tool: Literal["onnxruntime", "modelopt", "nncf"] = Field(
        default="onnxruntime",
        description="What places Q/DQ pairs; modelopt for TensorRT, an extra of its own, nncf for OpenVINO.",
    )
    around: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        default="auto",
        description="int8 on OpenVINO: what the rest of the graph is in; auto: bf16 (fp16 on a GPU) where it is "
        "timed faster here and holds the agreement, else fp32.",
    )


class ParitySection(Section):
    """When two runners count as equal."""

    atol: float = Field(
        default=1e-4,
        gt=0,
        le=ATOL[1],
        description="Largest error of a logit, decisions being equal: absolute where the logits spread by 0.1 to 10, "
        "and in proportion to their spread elsewhere.",
    )
    tie: float = Field(
        default=1e-4,
        ge=0,
        lt=1,
        description="Relative score gap at the cut below which decisions may differ.",
    )
    images: int = Field(default=32, ge=1, le=MOST_ARRAY_IMAGES, description="Images that the ladder is climbed with.")
    golden: int = Field(
        default=8,
        ge=1,
        le=MOST_ARRAY_IMAGES,
        description="Images whose outputs travel in the bundle (at least one batch).",
    )


class BenchSection(Section):
    """How the dense, pruned and free-slicing graphs are timed."""

    runs: int = Field(
        default=50, ge=RUNS[0], le=RUNS[1], description="Interleaved rounds, each timing every graph once."
    )
    warmup: float = Field(default=0.5, ge=WARMUP[0], le=WARMUP[1], description="Least seconds of warm-up per graph.")
    threads: int | None = Field(
        default=None, ge=THREADS[0], le=THREADS[1], description="onnxruntime threads; null: all cores."
    )
    allow_slower: bool = Field(default=False, description="Do not fail when the pruned graph is not faster.")
    here: bool = Field(
        default=False,
        description="Time a graph that is for another machine on this one's CPU all the same; nothing is judged by it.",
    )


class EngineSection(Section):
    """The TensorRT engine."""

    mode: Literal["auto", "require", "skip"] = Field(
        default="auto",
        description="Build where TensorRT is, and a GPU where it needs one; fail without them; or never.",
    )
    workspace_mib: int = Field(
        default=1024,
        ge=WORKSPACE_MIB[0],
        le=WORKSPACE_MIB[1],
        description="Scratch memory that the builder may use, in MiB.",
    )
    capabilities: list[str] = Field(
        default=[],
        description="Compute capabilities of GPUs that an engine of TensorRT for RTX is for; none: 8.0 and newer.",
        json_schema_extra={"items": {"enum": [*CAPABILITIES, *map(float, CAPABILITIES)]}, "uniqueItems": True},
    )

    @field_validator("capabilities", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """8.6 is a number to YAML."""
        return [str(one) if isinstance(one, float) else one for one in value] if isinstance(value, list) else value

    @field_validator("capabilities")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        try:
            EngineOptions(capabilities=tuple(value))
        except InputError as error:
            raise ValueError(str(error)) from error
        return value


class RequireSection(Section):
    """What a bundle must show, or it is not published: measured figures, without a margin."""

    agreement: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Least share of the evaluation images with the dense model's answer.",
    )
    top1_drop: float | None = Field(
        default=None, ge=-1, le=1, description="Most top-1 that may be lost on them, as a share; they need labels."
    )
    speedup: float | None = Field(
        default=None, gt=0, le=1e6, description="Least speed-up over the dense graph, as measured here."
    )
    overhead: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="Most overhead over the floor of the plan, as measured here; 1 is free.",
    )

    @property
    def given(self) -> dict[str, float]:
        """What is required, by key."""
        return {key: value for key, value in self.model_dump().items() if value is not None}


class Recipe(Section):
    """Everything that one export needs. Relative paths start at the recipe's folder.

    Attributes:
        folder: where relative paths start; those of a recipe in use are absolute.
        file: that it was read from; None where it came from Python.
    """

    rules = ({"anyOf": [{"properties": {key: {"type": "object"}}, "required": [key]} for key in ("slim", "prune")]},)

    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _file: Path | None = PrivateAttr(default=None)

    model: ModelSection
    images: ImagesSection
    evaluate: ImagesSection | None = Field(
        default=None,
        description="Images for agreement and accuracy; null: those of `images` that it leaves over.",
    )
    slim: SlimSection | None = Field(default=None, description="Make the model narrower first.")
    prune: PruneSection | None = Field(default=None, description="Prune its tokens.")
    export: ExportSection = Field(default_factory=ExportSection)
    precision: PrecisionSection = Field(default_factory=PrecisionSection)
    parity: ParitySection = Field(default_factory=ParitySection)
    bench: BenchSection = Field(default_factory=BenchSection)
    engine: EngineSection = Field(default_factory=EngineSection)
    require: RequireSection = Field(
        default_factory=RequireSection, description="What must hold, or the export fails and publishes nothing."
    )

    @property
    def outcome(self) -> tuple[str, float] | None:
        """The outcome that tokens are pruned for, and its bound; None where there is none."""
        target = None if self.prune is None else self.prune.target
        return None if target is None else target.outcome

    @property
    def folder(self) -> Path:
        """Where relative paths start."""
        return self._folder

    @property
    def file(self) -> Path | None:
        """The file that it was read from."""
        return self._file

    def within(self, folder: Path, file: Path | None = None) -> Recipe:
        """The recipe as one of a folder, and of a file in it."""
        other = self.model_copy()
        other._folder, other._file = folder, file
        return other

    @model_validator(mode="before")
    @classmethod
    def _enough_images(cls, data: Any) -> Any:
        """More images where an outcome is decided on them, and nobody says how many."""
        prune = data.get("prune") if isinstance(data, dict) else None
        target = prune.get("target") if isinstance(prune, dict) else None
        if not isinstance(target, dict) or all(target.get(name) is None for name in MEASURES):
            return data
        sections = {name: data[name] for name in ("images", "evaluate") if isinstance(data.get(name), dict)}
        return {**data, **{name: {"count": OUTCOME_IMAGES, **section} for name, section in sections.items()}}

    @model_validator(mode="after")
    def _something_to_do(self) -> Recipe:
        if self.slim is None and self.prune is None:
            raise ValueError("give prune (fewer tokens), slim (fewer heads and neurons) or both")
        return self


def json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, as published in recipes/schema.json."""
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "vitrim recipe"
    return schema


def sections(section: type[Section] = Recipe, prefix: str = "") -> Iterator[tuple[str, type[Section]]]:
    """Every section of a recipe by its path, such as `prune.target`; the recipe itself has an empty one."""
    yield prefix, section
    for name, field in section.model_fields.items():
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, Section):
                yield from sections(inner, f"{prefix}.{name}" if prefix else name)


def file_keys() -> list[tuple[str, str]]:
    """(path of the section, key) of everything in a recipe that names a file or folder."""
    return [
        (path, name)
        for path, section in sections()
        for name, field in section.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("format") == "path"
    ]
