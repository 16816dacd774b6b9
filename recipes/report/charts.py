"""Charts of what a plan costs: tokens and GMACs by block, latencies, where the time goes, answers on many images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ...exporter.core.layout import Kind
from ...exporter.pruning.budget import Budget
from ...exporter.runtime.bench.blocks import ByBlock
from ...exporter.runtime.bench.compare import Row
from ...exporter.runtime.bench.report import Bench
from ...exporter.runtime.bench.stats import Distribution
from ..evaluation.result import ClassAnswers, Evaluation
from . import svg

_LEFT, _RIGHT = 66.0, svg.WIDTH - 10.0


def blocks(budget: Budget) -> Markup:
    """Tokens before and after every block as bars."""
    most, height = max(row.before for row in budget.blocks), 17
    scale = svg.linear(0, most, 0, 250)
    parts: list[Markup] = []
    for row in budget.blocks:
        y = 8 + row.block * height
        words = str(row.after) if not row.is_stage else f"{row.before} → {row.after}"
        parts += [
            svg.text(0, y + 10, f"block {row.block}", "small"),
            svg.bar(46, y, scale(row.before), 12, "rail"),
            svg.bar(46, y, scale(row.after), 12, "stage" if row.is_stage else "bar", f"block {row.block}: {words}"),
            svg.text(svg.WIDTH, y + 10, words, "small", "end"),
        ]
    first, last = budget.blocks[0].before, budget.blocks[-1].after
    alt = f"Tokens by block: {first} enter the first, {last} leave the last; {len(budget.stages)} stages remove some."
    return svg.picture(16 + len(budget.blocks) * height, alt, *parts)


def costs(by_block: dict[str, list[float]]) -> Markup:
    """GMACs of every block: dense behind, pruned with what its stage costs in front."""
    dense, pruned, scoring = by_block["dense"], by_block["pruned"], by_block["scoring"]
    # A stage in a last block works for tokens that the dense model's last block is not asked for.
    most, height = max(*dense, *(rest + more for rest, more in zip(pruned, scoring, strict=True))), 17
    scale = svg.linear(0, most, 0, 220)
    parts: list[Markup] = []
    for block, (whole, rest, more) in enumerate(zip(dense, pruned, scoring, strict=True)):
        y = 8 + block * height
        words = f"{rest:.3f}" + (f" + {more:.3f}" if more >= 5e-4 else " + <0.001" if more else "")
        parts += [
            svg.text(0, y + 10, f"block {block}", "small"),
            svg.bar(46, y, scale(whole), 12, "rail", f"dense: {whole:.4f} GMACs"),
            svg.bar(46, y, scale(rest), 12, "bar", f"pruned: {rest:.4f} GMACs"),
            svg.bar(46 + scale(rest), y, scale(more), 12, "stage", f"choosing and merging: {more:.4f} GMACs"),
            svg.text(svg.WIDTH, y + 10, words, "small", "end"),
        ]
    alt = f"GMACs by block: {sum(dense):.3f} dense, {sum(pruned):.3f} pruned and {sum(scoring):.3f} for its stages."
    return svg.picture(16 + len(dense) * height, alt, *parts)


def times(found: ByBlock) -> Markup:
    """Milliseconds of every block, embedding and head: the dense graph's above the pruned one's."""
    dense, pruned = found.graphs[Kind.DENSE].parts, found.graphs[Kind.PRUNED].parts
    rows = [(part, dense.get(part, 0.0), pruned.get(part, 0.0)) for part in {**dense, **pruned}]
    scale, height = svg.linear(0, max(max(whole, less) for _, whole, less in rows), 0, 185), 17
    parts: list[Markup] = []
    for at, (part, whole, less) in enumerate(rows):
        y = 8 + at * height
        parts += [
            svg.text(0, y + 10, part, "small"),
            svg.bar(66, y, scale(whole), 6, "dense", f"{part}, dense: {whole:.3f} ms"),
            svg.bar(66, y + 6.5, scale(less), 6, "pruned", f"{part}, pruned: {less:.3f} ms"),
            svg.text(svg.WIDTH, y + 10, f"{whole:.3f} → {less:.3f}", "small", "end"),
        ]
    alt = f"Milliseconds by block: {sum(dense.values()):.3f} in all dense, {sum(pruned.values()):.3f} pruned."
    return svg.picture(16 + len(rows) * height, alt, *parts)


def latencies(bench: Bench) -> Markup:
    """Every graph's latencies: from the fastest to a high percentile, with the interval of the median."""
    found = bench.distributions
    low = min(one.min for one in found.values())
    high = max(_end(one) for one in found.values())
    margin = (high - low) * 0.05 or 1.0
    scale, height = svg.linear(low - margin, high + margin, _LEFT, _RIGHT), 30
    bottom = 10.0 + height * len(found)
    parts = [svg.axis(scale, svg.ticks(low, high), 4, bottom, bench.unit)]
    for at, (name, one) in enumerate(found.items()):
        y = 22.0 + at * height
        left, right = one.median_interval
        parts += [
            svg.text(0, y + 4, name, "name"),
            svg.line(scale(one.min), y, scale(_end(one)), y, f"whisker {_class(name)}"),
            svg.bar(scale(left) - 1, y - 6, scale(right) - scale(left) + 2, 12, _class(name), _spread(one)),
            svg.text(scale(one.median), y - 9, f"{one.median:.2f}", "small", "middle"),
        ]
        parts += [svg.line(scale(one.p90), y - 4, scale(one.p90), y + 4, f"whisker {_class(name)}")] if one.p90 else []
    alt = "Latencies in milliseconds. " + "; ".join(f"{name}: {_spread(one)}" for name, one in found.items())
    return svg.picture(bottom + 20, alt, *parts)


def shares(evaluation: Evaluation) -> Markup:
    """Agreement and top-1 of both graphs, with 95 % intervals."""
    seen = evaluation.answers
    found: list[tuple[str, str, float, tuple[float, float]]] = [
        ("agrees with dense", "pruned", seen.agreement, seen.agreement_interval)
    ]
    for name, kind, value, interval in (
        ("top-1, dense", "dense", seen.accuracy_dense, seen.accuracy_dense_interval),
        ("top-1, pruned", "pruned", seen.accuracy_pruned, seen.accuracy_pruned_interval),
    ):
        found += [] if value is None or interval is None else [(name, kind, value, interval)]
    low = min(interval[0] for *_, interval in found)
    high = max(interval[1] for *_, interval in found)
    margin = (high - low) * 0.05 or 0.01
    scale, height = svg.linear(low - margin, high + margin, 8, svg.WIDTH - 46.0), 34
    bottom = 8.0 + height * len(found)
    shown = [value / 100 for value in svg.ticks(100 * low, 100 * high, 4)]
    parts = [svg.axis(lambda value: scale(value / 100), [100 * value for value in shown], 4, bottom, "%")]
    for at, (name, kind, value, (left, right)) in enumerate(found):
        y = 30.0 + at * height
        words = f"{name}: {100 * value:.2f} % ({100 * left:.2f} to {100 * right:.2f})"
        parts += [
            svg.text(8, y - 11, name, "small"),
            svg.line(scale(left), y, scale(right), y, f"whisker {kind}"),
            svg.dot(scale(value), y, kind, words),
            svg.text(scale(right) + 7, y + 4, f"{100 * value:.1f} %", "small"),
        ]
    alt = "; ".join(f"{name} {100 * value:.2f} %" for name, _, value, _ in found)
    return svg.picture(bottom + 20, f"Shares of {seen.images} images: {alt}.", *parts)


def classes(rows: Sequence[ClassAnswers], names: Sequence[str]) -> Markup:
    """Of each class what the dense graph had right, and the pruned one; without labels what agrees.

    Args:
        rows: of classes.
        names: of the same classes.
    """
    scale, height = svg.linear(0, 1, 0, svg.WIDTH - 70.0), 32
    parts: list[Markup] = []
    for at, (row, name) in enumerate(zip(rows, names, strict=True)):
        y = 14.0 + at * height
        dense, pruned = (row.right_dense, row.right_pruned) if row.right_dense is not None else (row.images, None)
        kept = row.agreeing if pruned is None else pruned
        words = f"{dense} → {kept} of {row.images}"
        parts += [
            svg.text(0, y, svg.cut(name, 52), "small"),
            svg.bar(0, y + 4, scale((dense or 0) / row.images), 10, "rail", f"{name}: {words}"),
            svg.bar(0, y + 4, scale(kept / row.images), 10, "bar", f"{name}: {words}"),
            svg.text(svg.WIDTH, y + 13, words, "small", "end"),
        ]
    told = "; ".join(f"{name} {row.change:+.0%}" for row, name in zip(rows, names, strict=True))
    return svg.picture(10 + height * len(rows), f"The classes that lost most: {told}.", *parts)


def _class(name: str) -> str:
    return name if name in (Kind.DENSE, Kind.PRUNED, Kind.FLOOR) else "other"


def _end(one: Distribution) -> float:
    """Where a whisker ends: outliers of a benchmark would squeeze everything else."""
    return one.p95 or one.p90 or one.max


def _spread(one: Distribution) -> str:
    low, high = one.median_interval
    return f"median {one.median:.3f} ms (95 % interval {low:.3f} to {high:.3f}), from {one.min:.3f} to {one.max:.3f}"


@dataclass(frozen=True)
class Step:
    """A part of the way from the dense median to the pruned one, in milliseconds."""

    name: str
    start: float
    end: float


def steps(bench: Bench) -> list[Step]:
    """Where the time goes, from medians: what removing tokens saves, and what choosing them, or a precision, costs."""
    dense, pruned = bench.dense.median, bench.pruned.median
    wide = bench.distributions.get(Kind.FP32)
    if wide is not None:
        found = [Step("fewer tokens, in float32", dense, wide.median), Step("narrower numbers", wide.median, pruned)]
    elif Kind.FLOOR in bench.distributions:
        floor = bench.distributions[Kind.FLOOR].median
        found = [Step("fewer tokens", dense, floor), Step("choosing them", floor, pruned)]
    else:
        found = [Step("pruning", dense, pruned)]
    return [Step("dense", 0, dense), *found, Step("pruned", 0, pruned)]


def waterfall(bench: Bench) -> Markup:
    """`steps` as bars, each beginning where the one before ended."""
    found, height = steps(bench), 30
    scale = svg.linear(0, max(max(one.start, one.end) for one in found), 4, svg.WIDTH - 60.0)
    parts: list[Markup] = []
    for at, one in enumerate(found):
        left, right = sorted((scale(one.start), scale(one.end)))
        change, y = one.end - one.start, 14.0 + at * height
        whole = one.start == 0
        kind = _class(one.name) if whole else ("saved" if change < 0 else "added")
        words = f"{one.end:.2f} ms" if whole else f"{change:+.2f} ms"
        parts += [
            svg.text(4, y, one.name, "small"),
            svg.bar(left, y + 3, right - left, 11, kind),
            svg.text(right + 4, y + 13, words, "small"),
        ]
    told = "; ".join(f"{one.name} {one.end - one.start:+.2f} ms" for one in found[1:-1])
    alt = f"From {bench.dense.median:.2f} ms dense to {bench.pruned.median:.2f} ms pruned: {told}."
    return svg.picture(10 + height * len(found), alt, *parts)


def speedups(rows: Sequence[Row]) -> Markup:
    """Speed-up over dense on every machine, with its interval; hollow where it is not claimed."""
    low = min(1.0, *(row.speedup_interval[0] for row in rows))
    high = max(1.0, *(row.speedup_interval[1] for row in rows))
    scale, height = svg.linear(low, high + (high - low) * 0.05, 8, svg.WIDTH - 40.0), 34
    bottom = 8.0 + height * len(rows)
    parts = [
        svg.axis(scale, svg.ticks(low, high), 4, bottom, "x"),
        svg.line(scale(1), 4, scale(1), bottom, "limit"),
    ]
    for at, row in enumerate(rows):
        y = 30.0 + at * height
        left, right = row.speedup_interval
        parts += [
            svg.text(8, y - 11, svg.cut(row.name, 52), "small"),
            svg.line(scale(left), y, scale(right), y, "whisker pruned"),
            svg.dot(scale(row.speedup), y, "pruned" if row.claimed else "hollow", f"{row.speedup:.2f}"),
            svg.text(scale(right) + 7, y + 4, f"{row.speedup:.2f}", "small"),
        ]
    alt = "Speed-up over the dense graph: " + "; ".join(f"{row.name} {row.speedup:.2f}" for row in rows)
    return svg.picture(bottom + 20, alt, *parts)
