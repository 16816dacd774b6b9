"""Latency of pruned graphs through onnxruntime, paired with the dense graph's, and the cost that gives a wished one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import kept_file, kept_json, plan_of

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.files import save
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.budget import Budget
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.exporter.runtime.bench.interleave import repeat
from vitrim.exporter.runtime.bench.stats import paired_ratio
from vitrim.exporter.runtime.runners import OrtRunner
from vitrim.recipes.stages.kinds import KINDS, budget_of_kind

LEAST, MOST = 0.35, 0.98  # shares of the dense cost that are tried
SLOPES = (0.4, 1.6)  # of a latency's share over the cost's; other ones are noise


@dataclass(frozen=True)
class Bench:
    """How latency is measured.

    Attributes:
        batch: images.
        threads: of onnxruntime; None: all cores.
        rounds: interleaved ones, at least.
        repeats: how often sessions are made anew, over which the rounds are spread.
        near: relative half width of the speed-up's interval that is narrow enough; until then rounds go on.
        most: times the rounds, at most.
    """

    batch: int = 1
    threads: int | None = None
    rounds: int = 60
    repeats: int = 3
    near: float = 0.005
    most: int = 4


def measured(
    model: Any, label: str, budget: Budget, bench: Bench, cache: Path, folder: Path, kinds: Sequence[str] = KINDS
) -> dict[str, Any]:
    """A budget's latency, kept by what it is of.

    Args:
        folder: where graphs lie for the time being; the dense one is made once.
        kinds: which graphs run in turns; without the floor there is no overhead.

    Returns:
        `speedup` over dense and, with the floor, `overhead` over it as ratios with intervals; `milliseconds` of the
        pruned graph; `nodes` of it.
    """
    what = {"kind": "latency", "label": label, "plan": plan_of(budget), "bench": asdict(bench), "kinds": [*kinds]}
    return kept_json(kept_file(cache, ".json", **what), lambda: _measure(model, label, budget, bench, folder, kinds))


def _measure(
    model: Any, label: str, budget: Budget, bench: Bench, folder: Path, kinds: Sequence[str]
) -> dict[str, Any]:
    paths, nodes = {}, 0
    for kind in kinds:
        paths[kind] = folder / (f"{label}.{bench.batch}.dense.onnx" if kind == "dense" else f"{kind}.onnx")
        if kind != "dense" or not paths[kind].exists():
            pruned = PrunedViT(model, budget_of_kind(kind, budget))
            graph, _ = rewrite(trace(pruned, bench.batch), get_target("ort-cpu"), fused_attention=True)
            save(graph, paths[kind])
            nodes = len(graph.graph.node) if kind == "pruned" else nodes
    size = (bench.batch, *PrunedViT(model, budget).image_size)
    image = np.random.default_rng(0).standard_normal(size, dtype=np.float32)

    def make() -> dict[str, Callable[[], object]]:
        return {kind: partial(OrtRunner(str(path), threads=bench.threads), image) for kind, path in paths.items()}

    samples = enough(lambda: repeat(make, bench.rounds, bench.repeats)[0], bench)
    found = {"speedup": paired_ratio(samples["dense"], samples["pruned"]).to_json()}
    if "floor" in samples:
        found["overhead"] = paired_ratio(samples["pruned"], samples["floor"]).to_json()
    return found | {"milliseconds": float(np.median(samples["pruned"])), "nodes": nodes}


def enough(sample: Callable[[], dict[str, np.ndarray]], bench: Bench) -> dict[str, np.ndarray]:
    """Rounds until the interval of dense over pruned is narrow, or there are too many: other work makes it wide."""
    samples = sample()
    for _ in range(bench.most - 1):
        ratio = paired_ratio(samples["dense"], samples["pruned"])
        if np.ptp(ratio.interval) <= 2 * bench.near * ratio.median:
            break
        more = sample()
        samples = {kind: np.concatenate([samples[kind], more[kind]]) for kind in samples}
    return samples


def share_for(speedup: float, points: Sequence[tuple[float, float]]) -> float:
    """The share of the dense cost at which a speed-up is to be expected.

    Latency is nearly affine in the cost, so the line of least squares through all points is followed, which noise of
    one of them moves little.

    Args:
        speedup: wished for.
        points: (share, speed-up) that were measured; at least one.
    """
    shares, times = np.array([(share, 1 / fast) for share, fast in points]).T
    slope = 0.9
    if np.ptp(shares) > 1e-3:
        slope = float(np.clip(np.polyfit(shares, times, 1)[0], *SLOPES))
    share = shares.mean() + (1 / speedup - times.mean()) / slope
    return float(np.clip(share, LEAST, MOST))


def matched_share(
    speedup: float, first: float, measure: Callable[[float], float], tries: int = 4, near: float = 0.004
) -> float:
    """The share of the dense cost at which a row runs as fast as wished.

    Args:
        speedup: wished for.
        first: share to begin with.
        measure: the speed-up at a share.
        tries: at most.
        near: relative distance that is near enough.
    """
    points: list[tuple[float, float]] = []
    share = first
    for _ in range(tries):
        points.append((share, measure(share)))
        share = share_for(speedup, points)
        if abs(points[-1][1] / speedup - 1) < near:
            break
    return share
