"""Which steps there are, which come first, and which need which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from vitrim.exporter.core.records import Record, optional

TORCH, QUICKSTART, DENSE = "torch", "quickstart", "dense"
EAGER, COMPILED = "eager", "compiled"
ROUNDS = 300
PLAIN, CUDA_GRAPH = "plain", "cuda_graph"
LAUNCHES = (CUDA_GRAPH, PLAIN)
PREPARED = ("export", "build")  # what needs no GPU, of a target whose builder needs none
LIMITS = {"export": 1800, "build": 420, "parity": 180, "time": 240, "energy": 240, "torch": 420}  # seconds at most
GUESSES = {"export": 60, "build": 15, "parity": 10, "time": 20, "energy": 35, "torch": 60}  # before one was done


StepKind = Literal["export", "build", "parity", "time", "energy", "torch"]


@dataclass(frozen=True)
class Step(Record):
    """One thing to do.

    Attributes:
        kind: what.
        model: name of a timm model, or `quickstart`.
        batch: images per inference.
        target: whose graphs; `torch` for PyTorch itself.
        method: pruning method; `dense` removes nothing.
        precision: of the graph.
        ratio: share of the dense model's GMACs.
        variant: how a timing launches, or which form of PyTorch is timed.
        checkpoint: hash of the weights; None: random ones, or the quickstart's own.
        rounds: of a timing.
    """

    kind: StepKind
    model: str
    batch: int
    target: str
    method: str = DENSE
    precision: str = "fp16"
    ratio: float = 0.65
    variant: str | None = optional()
    checkpoint: str | None = optional()
    rounds: int = ROUNDS

    @property
    def case(self) -> str:
        """Name of the bundle that it is about."""
        return f"{self.model}-{self.method}-{self.precision}-b{self.batch}-{self.target}"

    @property
    def name(self) -> str:
        """Names it among all, and its files."""
        return "-".join(part for part in (self.kind, self.case, self.variant) if part)

    def but(self, kind: StepKind) -> Step:
        """The step of another kind about the same bundle."""
        return replace(self, kind=kind, variant=None, rounds=ROUNDS)

    def of(self, method: str) -> Step:
        """The same about another method's bundle; what is dense has all of the GMACs, whatever is asked for."""
        return replace(self, method=method, ratio=1.0 if method == DENSE else self.ratio)

    @property
    def needs(self) -> tuple[Step, ...]:
        """Steps whose results it works with."""
        if self.kind in ("time", "energy"):
            return tuple(self.but("build").of(method) for method in dict.fromkeys((DENSE, self.method)))
        before: dict[str, StepKind] = {"build": "export", "parity": "build"}
        return (self.but(before[self.kind]),) if self.kind in before else ()


@dataclass(frozen=True)
class Wanted:
    """What is asked for; the first of each comes first.

    Attributes:
        models, methods, precisions, batches: of every combination there is a bundle.
        targets: whose engines.
        ratio: share of the dense model's GMACs.
        checkpoints: hash of the weights by model.
        rounds: of every timing.
    """

    models: tuple[str, ...]
    methods: tuple[str, ...]
    precisions: tuple[str, ...]
    batches: tuple[int, ...]
    targets: tuple[str, ...]
    ratio: float = 0.65
    checkpoints: tuple[tuple[str, str], ...] = ()
    rounds: int = ROUNDS

    def cases(self) -> Iterator[Step]:
        """An export of every combination of precision, model, batch and target, in order."""
        weights = dict(self.checkpoints)
        for precision in self.precisions:
            for model in self.models:
                for batch in self.batches:
                    for target in self.targets:
                        at = Step("export", model, batch, target, DENSE, precision, self.ratio)
                        yield replace(at, checkpoint=weights.get(model))


def plan(wanted: Wanted) -> list[Step]:
    """All steps, what matters most first; a step comes after those that it needs.

    Of every combination, dense comes first: what it is itself, as an engine and in PyTorch, is what methods are held
    against. Energy, which takes long and of which nothing else depends, comes last.
    """
    steps: dict[Step, None] = {}
    methods = tuple(dict.fromkeys((DENSE, *wanted.methods)))
    for case in wanted.cases():
        for one in map(case.of, methods):
            timings = [replace(one, kind="time", variant=launch, rounds=wanted.rounds) for launch in LAUNCHES]
            steps.update(dict.fromkeys([one, one.but("build"), one.but("parity"), *timings]))
            if one.method == DENSE:
                steps.update(dict.fromkeys(torch_steps(one, wanted.rounds)))
    for case in wanted.cases():
        steps.update(dict.fromkeys(case.but("energy").of(method) for method in methods))
    return list(steps)


def torch_steps(dense: Step, rounds: int) -> list[Step]:
    """PyTorch's own, once for all targets and precisions: it is fp16."""
    own = replace(dense, kind="torch", target=TORCH, precision="fp16", rounds=rounds)
    return [replace(own, variant=form) for form in (EAGER, COMPILED)]


def in_order(steps: Iterable[Step], failed: Iterable[str]) -> list[Step]:
    """What failed before, and what needs it, comes last: a step that hangs shall not take the others' time again.

    Args:
        steps: from `plan`.
        failed: names of steps.
    """
    late = set(failed)

    def is_late(step: Step) -> bool:
        return step.name in late or any(is_late(other) for other in step.needs)

    return sorted(steps, key=is_late)


def chains(steps: Iterable[Step]) -> list[list[Step]]:
    """Steps by bundle, in order: those of one bundle go one after the other, those of two may go at once."""
    found: dict[str, list[Step]] = {}
    for step in steps:
        found.setdefault(step.case, []).append(step)
    return list(found.values())
