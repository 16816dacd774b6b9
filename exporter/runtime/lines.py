"""Results for a person, as plain lines: what `vitrim` writes under its tables, and all that run_on_device.py writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.errors import visible
from ..core.gate import Gate
from ..core.latency import LatencyTable
from ..core.layout import Kind
from ..core.outcome import Figure, outcome_of
from .bench.blocks import ByBlock
from .bench.report import Bench, Conditions, Loaded, Prediction, Untimed
from .bench.stats import Distribution
from .parity import Parity
from .tensorrt.family import RTX, family_named
from .tensorrt.identity import EngineIdentity

FORCED = "Published by force: what the recipe requires does not hold"
_THROUGHPUT = "throughput"  # the mode in which several batches run side by side


def bench_lines(bench: Bench) -> list[str]:
    """A benchmark whole: where, a line per graph, and `bench_notes`."""
    device = bench.conditions.gpu or bench.conditions.cpu
    rows = [f"  {name}: {_spread(found)}" for name, found in bench.distributions.items()]
    return [f"{bench.runtime}, batch {bench.batch}, {device}", *rows, *bench_notes(bench)]


def bench_notes(bench: Bench, by_block: bool = False) -> list[str]:
    """What a table of latencies does not hold: modes of an engine, verdict, overhead, energy, clocks, warnings.

    Args:
        bench: the benchmark.
        by_block: a line per block too.
    """
    where = bench.conditions
    lines = [
        f"  pruned, {_mode(name, where)}: {found.reason if isinstance(found, Untimed) else _spread(found, name)}"
        for name, found in (bench.modes or {}).items()
    ]
    if where.device.version:
        lines.append(_loaded(where.device))
    if where.cpu_only:
        lines.append(f"Note: {where.cpu_only}")
    lines.append(f"Speed: {bench.verdict}")
    if bench.overhead is not None:
        lines.append(f"Overhead over free slicing to the same tokens: {bench.overhead:.3f}")
    if bench.prediction is not None:
        lines.append(_predicted(bench.prediction))
    if bench.by_block is not None and by_block:
        lines += block_lines(bench.by_block)
    if bench.energy is not None:
        lines += [f"Energy: {text}" for text in bench.energy.lines()]
    if where.clock_advice:
        lines.append(f"Clocks: {where.clocks}; to lock them: {'; '.join(where.clock_advice)}")
    return [*lines, f"Warning: {bench.warning}"] if bench.warning else lines


def block_lines(found: ByBlock) -> list[str]:
    """Milliseconds by block: dense, pruned, and what they are the sum of."""
    dense, pruned = found.graphs[Kind.DENSE], found.graphs[Kind.PRUNED]
    rows = [
        f"  {part}: {took:.3f} dense, {pruned.parts.get(part, 0.0):.3f} pruned" for part, took in dense.parts.items()
    ]
    slowed = f"counting slows a whole run to {dense.whole:.3f} and {pruned.whole:.3f} ms"
    told = f"{found.statistic} of {found.rounds} runs; {slowed}"
    return [f"Milliseconds by block, counted by {found.counted_by}: {told}", *rows]


def outcome_lines(statistics: Mapping[str, Any], bench: Bench | None = None) -> list[str]:
    """What was asked of a plan's answers, promised and got; nothing where it is not for an outcome.

    Args:
        statistics: of its budget.
        bench: its graphs timed, for a speed-up that was wished for.
    """
    outcome = outcome_of(statistics)
    if outcome is None:
        return []
    known = bench if bench is not None and bench.cpu_only is None else None
    return outcome.lines(None if known is None else Figure(known.speedup, known.speedup_interval))


def promise_lines(statistics: Mapping[str, Any] | None, bench: Bench | None, gate: Gate | None) -> list[str]:
    """What was asked of the answers and what the recipe requires, and whether it holds.

    Args:
        statistics, bench: see `outcome_lines`; None: there is no budget.
        gate: of the recipe's requirements; None: it has none.
    """
    lines = [] if statistics is None else outcome_lines(statistics, bench)
    if gate is None:
        return lines
    return [*lines, *([] if gate.passed else [FORCED]), *gate.lines()]


def _predicted(found: Prediction) -> str:
    """What a latency table predicted, and how far off it is."""
    sides = {
        "ms": f"{found.predicted_ms:.3f} ms, measured {found.measured_ms:.3f}",
        "speedup": f"{found.predicted_speedup:.3f} times dense, measured {found.measured_speedup:.3f}",
    }
    more = f", with {found.correction_ms:+.3f} ms from a first export" if found.correction_ms else ""
    return f"Predicted by the table: {sides[found.judged_by]} ({100 * found.error:+.1f} % in time{more})"


def _mode(name: str, where: Conditions) -> str:
    """A mode, and of throughput how many batches ran side by side."""
    several = where.throughput.requests if name == _THROUGHPUT else None
    return name if several is None else f"{name} of {counted(several, 'request')} side by side"


def _loaded(found: Loaded) -> str:
    """How OpenVINO ran the graphs, such as `OpenVINO 2026.4.1: 1 thread, 1 stream, latency`."""
    counts = ((found.threads, "thread"), (found.streams, "stream"))
    words = [counted(number, what) for number, what in counts if number is not None]
    version = (found.version or "").partition("-")[0]
    return f"OpenVINO {version}: {', '.join([*words, found.hint or 'no hint'])}"


def table_lines(found: LatencyTable) -> list[str]:
    """A latency table: a line per number of tokens, what stages add, and what it is of."""
    rows = [
        f"  {count} tokens: attention {', '.join(f'{form.attention[at]:.3f}' for form in found.forms.values())} ms, "
        f"mlp {found.mlp[at]:.3f} ms"
        for at, count in enumerate(found.counts)
    ]
    return [f"{visible(found.of.model)}: {', '.join(found.forms)}", *rows, *table_notes(found)]


def table_notes(found: LatencyTable) -> list[str]:
    """What a table's rows do not hold: the dense graph, what stages add, and what it is of."""
    of, lines = found.of, []
    for name, form in found.forms.items():
        stages = [f"{method} {cost.of(found.counts[-1]):.3f}" for method, cost in form.stages.items()]
        added = ", ".join(stages) or "nothing"
        lines.append(f"{name}: dense {form.dense:.3f} ms; a stage of all tokens adds {added}")
    lines.append(
        f"On {visible(of.device)} by {of.runtime}, batch {of.batch}, {counted(of.threads, 'thread')}, {of.precision}; "
        f"medians of {found.processes} processes, whose quartiles lie {100 * found.spread:.1f} % apart"
    )
    return lines


def counted(number: int, what: str) -> str:
    """A number of things, such as `2 threads`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _spread(found: Distribution, mode: str = "") -> str:
    unit = "ms a batch" if mode == _THROUGHPUT else "ms"
    low, high = found.median_interval
    tail = "".join(f", {name} {at:.3f}" for name, at in (("p95", found.p95), ("p99", found.p99)) if at is not None)
    return f"{found.median:.3f} {unit} (95 % interval {low:.3f} to {high:.3f}{tail})"


def parity_lines(parity: Parity) -> list[str]:
    """A line per rung, then `parity_notes`."""
    rungs = [
        f"{rung.name}: {'ok' if rung.passed else 'FAILED'}, {rung.images} images, {rung.task.short} {rung.top1:.1%}, "
        f"error {rung.describe_error()}"
        for rung in parity.rungs
    ]
    return [*rungs, *parity_notes(parity)]


def parity_notes(parity: Parity) -> list[str]:
    """What a table of rungs does not hold: what was not checked, and the engine."""
    return [f"Note: {note}" for note in parity.notes] + (engine_lines(parity.engine) if parity.engine else [])


def engine_lines(engine: EngineIdentity) -> list[str]:
    """What an engine computes in, how it was built, and what runs elsewhere."""
    layers = engine.layers
    lines = [f"Engine: {engine.precision}, {engine.typing}; {layers.verdict if layers else 'not looked into'}"]
    if layers and layers.attention.not_fused:
        seen = layers.attention
        lines.append(f"Attention: {seen.fused} fused, {seen.not_fused} not: {seen.reason}")
    elif layers and layers.attention.fused:
        lines.append(f"Attention: {layers.attention.fused} fused")
    if engine.dla_core is not None:
        left = engine.dla_fallback or ()
        lines.append(f"DLA core {engine.dla_core}: {len(left)} layers run on the GPU ({', '.join(left[:5])})")
    given = ["version-compatible"] if engine.version_compatible else []
    given += [f"hardware-compatible ({engine.hardware_compatible})"] if engine.hardware_compatible else []
    given += [made_by(engine)] if engine.family == RTX.name else []
    return [*lines, f"Built {', '.join(given)}"] if given else lines


def made_by(engine: EngineIdentity) -> str:
    """What built an engine, and for which GPUs."""
    gpus = f"GPUs of compute capability {engine.capability_words}" if engine.family == RTX.name else engine.gpu
    return f"by {family_named(engine.family).title} {engine.tensorrt} for {gpus or 'an unnamed GPU'}"


def engine_state(parity: Parity, no_engine: str | None) -> str:
    """What became of a bundle's engine, in words.

    Args:
        parity: of the bundle.
        no_engine: why none was built; None where one was.
    """
    if no_engine is not None:
        return no_engine
    return "built, but not run here: its numbers and times are unproven" if parity.engine_not_checked else "built"
