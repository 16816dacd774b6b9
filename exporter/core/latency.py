"""A table of measured latencies: what the parts of a model's graph take by their number of tokens, on one machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from .errors import InputError, excerpt
from .records import Record, optional

FORMAT: Literal["vitrim-latency/1"] = "vitrim-latency/1"
LATENCY = "latency"  # its key in the statistics of a budget
PACKER = "vitrim profile RECIPE -o FOLDER --pack"  # makes what measures a table on another machine
PROCESSES, ROUNDS = 6, 10  # that a table takes by default: where a process has its memory decides how fast it is


@dataclass(frozen=True)
class StageCost(Record):
    """What a stage that chooses patches adds to its block: `fixed + per_token * tokens before it`, in milliseconds."""

    fixed: float
    per_token: float

    def of(self, before: int) -> float:
        """Milliseconds of a stage that so many tokens enter."""
        return self.fixed + self.per_token * before


@dataclass(frozen=True)
class FormTimes(Record):
    """Graphs in one attention form, in milliseconds.

    Attributes:
        dense: the whole graph with nothing removed.
        attention: of all blocks together, the halves up to the MLP, by `LatencyTable.counts`.
        stages: by method.
    """

    dense: float
    attention: tuple[float, ...]
    stages: dict[str, StageCost]


@dataclass(frozen=True)
class Conditions(Record):
    """What a table is of, and a recipe that solves on it has to be of, too.

    Attributes:
        model: timm's name.
        tokens: that enter its first block.
        gmacs: multiply-accumulates of the dense graph in 1e9, which tell input sizes, classes and widths apart.
        target: whose graphs they are.
        device: processor, and GPU where that runs them.
        runtime: with its version.
        precision, batch: of the graphs.
        threads: of the processor.
    """

    model: str
    tokens: int
    gmacs: float
    target: str
    device: str
    runtime: str
    precision: str
    batch: int
    threads: int


@dataclass(frozen=True)
class PlanLatency(Record):
    """What a table says of a plan that was solved on it, as `latency` in the statistics of a budget.

    Attributes:
        predicted_ms, dense_ms: of the plan's graph, the correction included, and of the dense one.
        correction_ms: see the recipe's `prune.target`.
        table: what that was of.
    """

    predicted_ms: float
    dense_ms: float
    correction_ms: float
    table: Conditions


@dataclass(frozen=True)
class LatencyTable(Record):
    """What `vitrim profile` writes, and `run_on_device.py table`.

    Attributes:
        format: of the file.
        of: what was timed, and where.
        counts: numbers of tokens, ascending; the last one is all that there are.
        mlp: of all blocks together, the MLP halves, by `counts`, in milliseconds.
        forms: by attention form, what depends on it.
        clock: `processor`: seconds that this program computed, which other programs do not lengthen; `wall`.
        processes, rounds: everything was loaded anew in so many processes, and timed in turns so often in each.
        spread: typical distance of the quartiles of what the processes measured, as a share.
        environment: the machine, for a reader.
        packed: made by `run_on_device.py table`, for exports that are made elsewhere.
    """

    format: Literal["vitrim-latency/1"]
    of: Conditions
    counts: tuple[int, ...]
    mlp: tuple[float, ...]
    forms: dict[str, FormTimes]
    clock: Literal["processor", "wall"]
    processes: int
    rounds: int
    spread: float
    environment: dict[str, Any]
    packed: bool = optional(False)

    def __post_init__(self) -> None:
        if len(self.counts) < 2 or list(self.counts) != sorted(set(self.counts)):
            raise ValueError("has counts that do not ascend, or fewer than two")
        if not self.forms:
            raise ValueError("has no forms")
        rows = [self.mlp, *(form.attention for form in self.forms.values())]
        if any(len(row) != len(self.counts) or min(row) <= 0 for row in rows):
            raise ValueError("has not one time above 0 for each of its counts")

    @property
    def dense(self) -> float:
        """Milliseconds of the dense graph in the form that is fastest."""
        return min(form.dense for form in self.forms.values())

    def require(self, where: str, maker: str, **wanted: Any) -> None:
        """Refuse a table that is of something else.

        Args:
            where: its file.
            maker: the command that makes one that fits.
            wanted: by name, attributes of `Conditions` as they have to be.

        Raises:
            InputError: naming the first that differs, in the order of the class.
        """
        for name in (one.name for one in fields(self.of)):
            found = getattr(self.of, name)
            if name in wanted and found != wanted[name]:
                raise InputError(
                    f"{where} is a table of {name} {excerpt(str(found), 80)}, but here it is "
                    f"{excerpt(str(wanted[name]), 80)}; make one that fits: {maker}"
                )


def latency_of(statistics: Mapping[str, Any]) -> PlanLatency | None:
    """What a table says of a plan, from its budget's statistics; None where it was not solved on one.

    Raises:
        InputError: what stands there is damaged.
    """
    data = statistics.get(LATENCY)
    return None if data is None else PlanLatency.from_json(data, f"budget.json: statistics.{LATENCY}")


def read_table(path: str) -> LatencyTable:
    """The table of a file.

    Raises:
        InputError: it cannot be read, or is none.
    """
    return LatencyTable.read(path, "latency table", "vitrim profile RECIPE -o FILE")
