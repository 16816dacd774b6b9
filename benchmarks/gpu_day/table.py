"""The table of what was found, one row per bundle and per form of PyTorch, and everything as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vitrim.exporter.core.layout import Kind
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.runtime.bench.report import Bench
from vitrim.exporter.runtime.bench.stats import Ratio
from vitrim.exporter.runtime.machine.energy import Energy
from vitrim.exporter.runtime.tensorrt.family import family_of

from .plan import CUDA_GRAPH, DENSE, LAUNCHES, TORCH, Step
from .results import Engines, Graphs, Held, InTorch, result_of

HEADER = (
    "model", "batch", "precision", "runtime", "method", "GMACs", "kernels (fused attentions)", "engine MB", "load s",
    "same top class", "error", "ms, dense / pruned / floor, CUDA graph", "speed-up (95 %), CUDA graph",
    "overhead, CUDA graph", "over PyTorch, CUDA graph", "ms, dense / pruned / floor, plain", "speed-up (95 %), plain",
    "overhead, plain", "mJ per image, dense / pruned / floor", "what is missing, and why",
)  # fmt: skip
ORDER = ("export", "build", "parity", "time", "torch", "energy")
Look = Callable[[Step], "dict[str, Any] | None"]
Reason = Callable[[Step], "str | None"]


def table(steps: Sequence[Step], look: Look, reason: Reason) -> list[str]:
    """Lines of the Markdown table.

    Args:
        steps: the plan.
        look: what a step found; None where it did not.
        reason: why not; None where it did.
    """
    fastest = fastest_torch(steps, look)
    cases: dict[tuple[str, ...], list[Step]] = {}
    for step in steps:
        cases.setdefault((step.case, step.variant or "") if step.kind == "torch" else (step.case,), []).append(step)
    rows = [_row(own, look, reason, fastest) for own in cases.values()]
    return [f"| {' | '.join(row)} |" for row in [HEADER, ["---"] * len(HEADER), *rows]]


def fastest_torch(steps: Sequence[Step], look: Look) -> dict[tuple[str, int], float]:
    """By model and batch, the least median of PyTorch in any form, in milliseconds."""
    best: dict[tuple[str, int], float] = {}
    for step in steps:
        found = look(step) if step.kind == "torch" else None
        if found is not None:
            at = (step.model, step.batch)
            times = result_of(step, found).distributions.values()
            best[at] = min(best.get(at, float("inf")), *(one.median for one in times))
    return best


def _row(own: Sequence[Step], look: Look, reason: Reason, fastest: Mapping[tuple[str, int], float]) -> list[str]:
    step = own[0]
    cells = dict.fromkeys(HEADER, "")
    runtime = f"PyTorch, {step.variant}" if step.target == TORCH else family_of(get_target(step.target)).title
    cells.update(model=step.model, batch=str(step.batch), precision=step.precision, runtime=runtime, method=step.method)
    for one in own:
        found = look(one)
        if found is not None:
            cells.update(_CELLS[one.kind](one, result_of(one, found), fastest.get((one.model, one.batch))))
    cells[HEADER[-1]] = _missing(own, reason)
    return [cells[name].replace("|", "/") for name in HEADER]


def _missing(own: Sequence[Step], reason: Reason) -> str:
    """Every reason once, with the kinds of steps that it keeps from being done."""
    reasons: dict[str, list[str]] = {}
    for step in sorted(own, key=lambda one: ORDER.index(one.kind)):
        why = reason(step)
        if why is not None:
            kinds = reasons.setdefault(why.rpartition(" is needed: ")[2], [])
            label = f"{step.kind} ({_launch(step.variant)})" if step.kind == "time" else step.kind
            kinds.extend([label] if label not in kinds else [])
    return "; ".join(f"{', '.join(kinds)}: {why}" for why, kinds in reasons.items())


def _launch(variant: str | None) -> str:
    return "CUDA graph" if variant == CUDA_GRAPH else "plain"


def _export_cells(step: Step, found: Graphs, best: float | None) -> dict[str, str]:
    return {"GMACs": f"{found.gmacs:.3f}"}


def _build_cells(step: Step, found: Engines, best: float | None) -> dict[str, str]:
    return {
        "runtime": f"{family_of(get_target(step.target)).title} {found.tensorrt}",
        "kernels (fused attentions)": "" if found.kernels is None else f"{found.kernels} ({found.fused})",
        "engine MB": f"{found.bytes[Kind.PRUNED] / 1e6:.1f}",
    }


def _parity_cells(step: Step, found: Held, best: float | None) -> dict[str, str]:
    rung = found.rung
    verdict = "" if rung.passed else f"FAILED: {rung.reason}, "
    return {
        "load s": f"{found.load_seconds:.2f}",
        "same top class": f"{verdict}{rung.top1:.1%} of {rung.images}",
        "error": rung.describe_error(),
    }


def _time_cells(step: Step, bench: Bench, best: float | None) -> dict[str, str]:
    launch, may_claim = _launch(step.variant), step.method == DENSE or bench.claimed  # of itself, nothing is claimed
    cells = {
        f"ms, dense / pruned / floor, {launch}": _each([one.median for one in bench.distributions.values()], ".3f"),
        f"speed-up (95 %), {launch}": _ratio(bench.ratios["speedup"]) + ("" if may_claim else " *"),
        f"overhead, {launch}": "" if bench.overhead is None else f"{bench.overhead:.3f}",
    }
    if best is not None and step.variant == CUDA_GRAPH:
        cells["over PyTorch, CUDA graph"] = f"{best / bench.pruned.median:.2f}"
    return cells


def _energy_cells(step: Step, bench: Bench, best: float | None) -> dict[str, str]:
    return {} if bench.energy is None else {HEADER[-2]: _energy(bench.energy)}


def _torch_cells(step: Step, found: InTorch, best: float | None) -> dict[str, str]:
    times = {f"ms, dense / pruned / floor, {_launch(name)}": found.distributions[name] for name in LAUNCHES}
    return {
        **{name: f"{one.median:.3f}" for name, one in times.items()},
        "runtime": f"PyTorch {found.version}, {step.variant}",
        HEADER[-2]: _energy(found.energy),
    }


_CELLS: dict[str, Callable[[Step, Any, float | None], dict[str, str]]] = {
    "export": _export_cells,
    "build": _build_cells,
    "parity": _parity_cells,
    "time": _time_cells,
    "energy": _energy_cells,
    "torch": _torch_cells,
}


def _energy(energy: Energy) -> str:
    if energy.joules_per_image is None:
        return f"not measured: {energy.reason}"
    values = [energy.per_image(name) for name in energy.joules_per_image]
    return " / ".join("not above idle" if value is None else f"{1000 * value:.3g}" for value in values)


def _each(values: Sequence[float], form: str) -> str:
    return " / ".join(format(value, form) for value in values)


def _ratio(ratio: Ratio) -> str:
    low, high = ratio.interval
    return f"{ratio.median:.3f} ({low:.3f} to {high:.3f})"


LEGEND = (
    "A row with the method `dense` times the dense engine against itself: what it is off 1 is noise. Speed-up is dense "
    "over pruned and overhead pruned over floor, paired round by round, of engines in the same precision; a star marks "
    "a speed-up that is not claimed (see `vitrim bench`). Over PyTorch is the fastest median of PyTorch in fp16, in "
    "any form, over the pruned engine's, not paired. Times are of inference alone, without copies.",
)


def raw(steps: Sequence[Step], look: Look, reason: Reason) -> list[dict[str, Any]]:
    """Everything that is known, as plain data."""
    return [{"step": step.to_json(), "result": look(step), "reason": reason(step)} for step in steps]
