"""The choice of attention forms by timing, and the rounds that it hands on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitrim.exporter.core.targets import TARGETS
from vitrim.recipes.stages import forms
from vitrim.recipes.stages.forms import ROUNDS, choose, weight_bytes
from vitrim.recipes.stages.graphs import forms_for

TIMES = {"dense.decomposed": 8.0, "dense.fused": 5.0, "pruned.decomposed": 4.0, "pruned.fused": 5.0}


class Runner:
    """A graph that takes the milliseconds that its file's name stands for."""

    shape, dtype = (1, 3, 4, 4), np.dtype(np.float32)

    def __init__(self, path: str, threads: int | None) -> None:
        self.name = Path(path).stem

    def __call__(self, image: np.ndarray) -> str:
        return self.name


def timed(noise: float, asked: list[int]) -> Any:
    draw = np.random.default_rng(0)

    def interleave(runs: dict[str, partial[str]], rounds: int, warmup: float | None) -> dict[str, np.ndarray]:
        assert (warmup is None) == (len(asked) > 0)  # what has just run is warm
        asked.append(rounds)
        return {name: TIMES[run()] + noise * draw.random(rounds) for name, run in runs.items()}

    return interleave


GRAPHS = {(kind, form): Path(f"{kind}.{form}.onnx") for kind in ("dense", "pruned") for form in ("decomposed", "fused")}


def test_a_clear_choice_takes_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(forms, "OrtRunner", Runner)
    monkeypatch.setattr(forms, "interleave", timed(0.1, asked))
    chosen, rounds = choose(GRAPHS, 1)
    assert {kind: found["form"] for kind, found in chosen.items()} == {"dense": "fused", "pruned": "decomposed"}
    assert chosen["dense"]["fused_speedup"] == pytest.approx(8 / 5, rel=0.05)
    assert chosen["dense"]["interval"][0] > 1
    assert chosen["pruned"]["interval"][1] < 1
    assert asked == [12]
    assert {kind: len(values) for kind, values in rounds.items()} == {"dense": 6, "pruned": 6}
    assert rounds["dense"].max() < 5.2
    assert rounds["pruned"].max() < 4.2


def test_what_cannot_be_told_apart_takes_all_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(forms, "OrtRunner", Runner)
    monkeypatch.setattr(forms, "interleave", timed(50.0, asked))
    _, rounds = choose(GRAPHS, 1)
    assert sum(asked) == ROUNDS
    assert all(len(values) == ROUNDS // 2 for values in rounds.values())


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "ort-cpu"])
def test_a_cpu_s_times_choose_no_form_for_another_target(target: str) -> None:
    assert forms_for(TARGETS[target], "auto") == ("decomposed",)


def test_weights_beside_a_graph_count(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"x" * 10)
    assert weight_bytes(tmp_path / "a.onnx") == 10
    (tmp_path / "trace.data").write_bytes(b"x" * 100)
    assert weight_bytes(tmp_path / "a.onnx") == 110
