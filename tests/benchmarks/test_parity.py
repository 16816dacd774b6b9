"""Parity on many photos: a graph that decides otherwise once, and rows that say where and how near the cut was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import budget_for, small_vit
from parity import BATCH, HEADS, cells, hold

from vitrim.exporter.pruning.torch_runner import TorchRunner
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.exporter.runtime.rungs import compare


def test_a_graph_is_held_on_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that is a hair off and decides otherwise once: PyTorch follows it there."""
    model = small_vit(depth=2)
    budget = budget_for(model, {1: 9}, "evit")
    images = np.random.default_rng(0).standard_normal((11, 3, 64, 64), dtype=np.float32)  # no multiple of the batch
    plain = PrunedViT(model, budget)
    other = images[5:6]
    wanted = {"kept_1": np.arange(9, dtype=np.int32)[None]}

    def graph(batch: np.ndarray) -> dict[str, np.ndarray]:
        found = TorchRunner(plain, BATCH)(batch)
        for row in np.flatnonzero((batch == other).all(axis=(1, 2, 3))):
            forced = TorchRunner(plain, 1)(other, wanted)
            found["kept_1"][row], found["logits"][row] = forced["kept_1"][0], forced["logits"][0]
        return found | {"logits": found["logits"] + np.float32(1e-5)}

    monkeypatch.setattr("parity.trace", lambda pruned, batch: onnx.ModelProto())
    monkeypatch.setattr("parity.rewrite", lambda traced, target, fused_attention: (traced, None))
    monkeypatch.setattr("parity.OrtRunner", lambda serialized: graph)
    rung = hold(model, budget, images, "ort-cpu", "evit")
    assert rung.images == 11
    assert [stage.first_here for stage in rung.stages] == [1]
    assert rung.replayed is not None
    assert (rung.replayed.images, rung.unproven) == (1, 0)
    assert rung.largest_error == pytest.approx(1e-5, rel=0.1)


def test_a_row_says_where_decisions_differ_and_how_near_the_cut_was() -> None:
    rng = np.random.default_rng(0)
    ours = {
        "logits": rng.standard_normal((6, 7)),
        "kept_1": np.tile(np.arange(4, dtype=np.int32), (6, 1)),
        "gap_1": np.full(6, 2e-6),
    }
    theirs = {"logits": ours["logits"] + 1e-5, "kept_1": ours["kept_1"].copy()}
    theirs["kept_1"][2, 3] = 9

    def row(tie: float) -> dict[str, str]:
        rung = compare(
            "a method", ours, theirs, atol=1e-4, tie=tie, replay=lambda chosen, _: {"logits": ours["logits"][chosen]}
        )
        return dict(zip(HEADS, cells(rung, "1:4"), strict=True))

    assert row(1e-4) == {
        "method": "a method",
        "tokens": "1:4",
        "largest error": "1.0e-05",
        "mean error": "1.0e-05",
        "photos that decide otherwise": "1",
        "first at": "kept_1: 1",
        "largest gap": "2.0e-06",
    }
    assert row(1e-6)["method"].startswith("a method (fails: 1 images keep other tokens")
