"""Charts and tables of what was proven, of what computes in which precision, and of an engine's kernels."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from ...exporter.graph.precision.report import PrecisionReport
from ...exporter.runtime.parity import Parity, Rung
from ...exporter.runtime.tensorrt.identity import EngineIdentity
from ...exporter.runtime.tensorrt.inventory import by_part
from . import svg

_LEAST, _MOST = 1e-9, 1.0  # of the logarithmic axis


@dataclass(frozen=True)
class Step:
    """A rung as a point: how far off, and how far off it may be.

    Attributes:
        rung: of the ladder.
        value, limit: absolute errors of a logit; of another precision, 1 less the mean cosine. None: not to be told.
    """

    rung: Rung
    value: float | None
    limit: float | None


def ladder_steps(parity: Parity) -> list[Step]:
    """Every rung with its error and its limit, on one scale."""
    found: list[Step] = []
    for rung in parity.rungs:
        if rung.strict:
            error = None if rung.smallest_atol is None else rung.smallest_atol * rung.unit
            found.append(Step(rung, error, parity.atol * rung.unit))
        else:
            cosine = rung.mean_cosine
            limit = None if parity.close is None else 1 - parity.close.cosine
            found.append(Step(rung, None if cosine is None else max(1 - cosine, 0.0), limit))
    return found


def ladder(parity: Parity) -> Markup:
    """Errors of all rungs on a logarithmic axis, each against its limit."""
    steps, height = ladder_steps(parity), 34
    scale = svg.logarithmic(_LEAST, _MOST, 10, svg.WIDTH - 62.0)
    bottom = 8.0 + height * len(steps)
    powers = [10.0**power for power in range(-9, 1, 3)]
    parts = [svg.axis(scale, powers, 4, bottom, "")]
    for at, one in enumerate(steps):
        y = 30.0 + at * height
        kind = "passed" if one.rung.passed else "failed"
        parts.append(svg.text(10, y - 11, svg.cut(one.rung.name, 50), "small"))
        if one.limit is not None:
            parts.append(svg.line(scale(one.limit), y - 7, scale(one.limit), y + 7, "limit"))
        if one.value is not None:
            parts.append(svg.dot(scale(one.value), y, kind, words(one)))
        parts.append(svg.text(svg.WIDTH, y + 4, words(one), "small", "end"))
    alt = "Errors against limits. " + "; ".join(
        f"{one.rung.name}: {words(one)}, {'passed' if one.rung.passed else 'failed'}" for one in steps
    )
    return svg.picture(bottom + 20, alt, *parts)


def words(step: Step) -> str:
    """How far off a rung is, for a label."""
    if step.value is None:
        return "none"
    if step.value == 0:
        return "0"
    return f"{step.value:.1e}" if step.rung.strict else f"1−cos {step.value:.0e}"


@dataclass(frozen=True)
class Reason:
    """Why some nodes of the pruned graph stay in float32.

    Attributes:
        words: the reason.
        nodes: each with the damage that put it there, where that was measured.
    """

    words: str
    nodes: tuple[tuple[str, str], ...]


def precision_map(report: PrecisionReport) -> list[Reason]:
    """The nodes of the pruned graph that stay in float32, by reason."""
    pinned = list(report.float32_nodes.get("pruned", ()))
    large, small = (dict((found or {}).get("pruned", {})) for found in (report.overflowing, report.subnormal))
    alone = dict((report.scan or {}).get("alone_kl", {}))
    scanned = [name for name in (report.scan or {}).get("float32", []) if isinstance(name, str)]
    told = {*large, *small, *scanned}
    rows = [
        Reason("values too large for half precision", tuple((name, f"{value:.3g}") for name, value in large.items())),
        Reason("values too small for half precision", tuple((name, f"{value:.3g}") for name, value in small.items())),
        Reason(
            "changes too many answers in int8",
            tuple((name, f"KL {alone[name]:.2g}" if name in alone else "") for name in scanned),
        ),
        Reason(
            "chooses tokens or normalizes: rounding would change decisions",
            tuple((name, "") for name in pinned if name not in told),
        ),
    ]
    return [row for row in rows if row.nodes]


def precision_bars(report: PrecisionReport) -> Markup | None:
    """How many nodes stay in float32, by reason; None where none do."""
    rows = precision_map(report)
    if not rows:
        return None
    scale, height = svg.linear(0, max(len(row.nodes) for row in rows), 0, svg.WIDTH - 40.0), 32
    parts: list[Markup] = []
    for at, row in enumerate(rows):
        y, count = 12.0 + at * height, len(row.nodes)
        parts += [
            svg.text(0, y, row.words, "small"),
            svg.bar(0, y + 4, scale(count), 11, "bar"),
            svg.text(scale(count) + 5, y + 14, count, "small"),
        ]
    alt = "Nodes in float32: " + "; ".join(f"{len(row.nodes)} because it {row.words}" for row in rows)
    return svg.picture(8 + height * len(rows), alt, *parts)


def kernels(engine: EngineIdentity) -> list[tuple[str, int, str]]:
    """(part, kernels, what they do) of an engine, in the order of the model; empty where it was not told."""
    counts = by_part(engine.kernels or ())
    return [
        (part or "unknown", sum(does.values()), ", ".join(f"{count} {name}" for name, count in does.most_common()))
        for part, does in counts.items()
    ]


def kernel_bars(rows: list[tuple[str, int, str]]) -> Markup:
    """Kernels by part as bars; stages in another colour than blocks."""
    scale, height = svg.linear(0, max(count for _, count, _ in rows), 0, 240), 17
    parts: list[Markup] = []
    for at, (part, count, does) in enumerate(rows):
        y = 8.0 + at * height
        parts += [
            svg.text(0, y + 10, part, "small"),
            svg.bar(74, y, scale(count), 12, "stage" if part.startswith("stage") else "bar", does),
            svg.text(80 + scale(count), y + 10, count, "small"),
        ]
    alt = f"{sum(count for _, count, _ in rows)} kernels: " + "; ".join(f"{part} {count}" for part, count, _ in rows)
    return svg.picture(16 + height * len(rows), alt, *parts)
