"""The cost at which a row is as fast as wished, found under noise; and what is kept of a measurement."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import budget_for, small_vit
from hypothesis import given
from hypothesis import strategies as st
from timing import LEAST, MOST, Bench, enough, matched_share, measured, share_for

from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.exporter.runtime.bench.interleave import repeat


@given(st.floats(0.05, 0.3), st.floats(0.6, 1.2), st.floats(1.1, 1.9))
def test_an_affine_latency_is_met_at_once(intercept: float, slope: float, speedup: float) -> None:
    def measure(share: float) -> float:
        return 1 / (intercept + slope * share)

    expected = float(np.clip((1 / speedup - intercept) / slope, LEAST, MOST))
    assert share_for(speedup, [(0.5, measure(0.5)), (0.8, measure(0.8))]) == pytest.approx(expected, abs=1e-9)
    seen: list[float] = []

    def counted(share: float) -> float:
        seen.append(share)
        return measure(share)

    assert matched_share(speedup, 0.65, counted) == pytest.approx(expected, abs=0.006)
    assert len(seen) <= (3 if LEAST < expected < MOST else 4)


@pytest.mark.parametrize("seed", range(8))
def test_noise_of_a_percent_moves_the_cost_by_about_a_percent(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def measure(share: float) -> float:
        return float((1 + 0.01 * rng.standard_normal()) / (0.15 + 0.85 * share))

    found = matched_share(1.4, 0.55, measure)
    assert found == pytest.approx((1 / 1.4 - 0.15) / 0.85, rel=0.025)


def test_one_outlier_does_not_lead_astray() -> None:
    """Two points so near that noise turns their slope around: the slope is held within what latency can have."""
    share = share_for(1.4, [(0.650, 1.40), (0.652, 1.45)])
    assert share == pytest.approx(0.651 + (1 / 1.4 - (1 / 1.40 + 1 / 1.45) / 2) / 0.4)
    assert share_for(9.0, [(0.6, 1.5)]) == LEAST
    assert share_for(0.5, [(0.6, 1.5)]) == MOST


@pytest.mark.parametrize(("noise", "times"), [(0.0005, 1), (0.2, 4)])
def test_rounds_go_on_while_they_vary(noise: float, times: int) -> None:
    rng = np.random.default_rng(0)

    def sample() -> dict[str, np.ndarray]:
        return {kind: 1 + noise * rng.standard_normal(60) for kind in ("dense", "pruned", "floor")}

    found = enough(sample, Bench(rounds=60, near=0.005, most=4))
    assert {kind: len(values) for kind, values in found.items()} == dict.fromkeys(
        ("dense", "pruned", "floor"), 60 * times
    )


def relu(*shape: int) -> onnx.ModelProto:
    """A graph that takes images as a model's does."""
    image, same = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("image", "y"))
    nodes = [onnx.helper.make_node("Relu", ["image"], ["x"]), onnx.helper.make_node("Abs", ["x"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "g", [image], [same])
    return onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 20)])


def test_a_measurement_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_vit(depth=2)
    budget = budget_for(model, {1: 9}, "evit")
    bench = Bench(batch=2, threads=1, rounds=8, repeats=2, most=1)
    traced: list[tuple[int, int]] = []

    def trace(pruned: PrunedViT, batch: int) -> onnx.ModelProto:
        traced.append((pruned.budget.tokens[-1], batch))
        return relu(batch, *pruned.image_size)

    monkeypatch.setattr("timing.trace", trace)
    monkeypatch.setattr("timing.rewrite", lambda graph, target, fused_attention: (graph, None))
    monkeypatch.setattr("timing.repeat", partial(repeat, warmup=0.01))

    def measure(**kinds: Any) -> Any:
        return measured(model, "small", budget, bench, tmp_path / "cache", tmp_path, **kinds)

    found = measure()
    assert traced == [(17, 2), (9, 2), (9, 2)]
    assert set(found) == {"speedup", "overhead", "milliseconds", "nodes"}
    assert found["speedup"]["pairs"] == 8
    assert found["speedup"]["interval"][0] <= found["speedup"]["median"] <= found["speedup"]["interval"][1]
    assert found["nodes"] == 2
    assert found["milliseconds"] > 0
    assert measure() == found
    assert len(traced) == 3  # nothing was made again
    assert set(measure(kinds=("dense", "pruned"))) == {"speedup", "milliseconds", "nodes"}
    assert traced[3:] == [(9, 2)]  # the dense graph lies there
