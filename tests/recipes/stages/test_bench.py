"""The stage that times graphs: which ones, in what, with which rounds, and what it adds to the result."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import small_recipe
from small_graphs import doubler

from vitrim.exporter.graph.precision.report import PrecisionReport
from vitrim.exporter.runtime.bench.blocks import BlockTimes, ByBlock
from vitrim.exporter.runtime.bench.report import Bench as Benchmark
from vitrim.exporter.runtime.bench.report import report
from vitrim.exporter.runtime.bench.timing import Timing
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.stages import bench
from vitrim.recipes.stages.graphs import Graphs

FLOAT32 = {kind: Path(f"{kind}.32.onnx") for kind in ("dense", "pruned", "floor", "proof")}
COUNTED = ByBlock("onnxruntime", 7, dict.fromkeys(("dense", "pruned"), BlockTimes({"block 0": 1.0}, 2.0)))
FORMS = {"dense": {"form": "fused"}, "pruned": {"form": "decomposed"}}
ROUNDS = {"dense": np.array([2.0, 2.1]), "pruned": np.array([1.0, 1.1])}


def narrower(name: Any, *more: str) -> Graphs:
    """Graphs in a precision, the wider ones beside them."""
    final = FLOAT32 | {kind: Path(f"{kind}.{name}.onnx") for kind in ("pruned", "floor", *more)}
    final |= {"fp32": FLOAT32["pruned"], "proof": Path(f"proof.{name}.onnx")}
    return Graphs(FLOAT32, final, final, PrecisionReport(name, name, {}, None, None))


@pytest.fixture
def timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the stage on graphs that nobody times; gives what it would have timed."""
    (tmp_path / "forms").mkdir()
    (tmp_path / "forms" / "forms.json").write_text(json.dumps(FORMS))
    seen: dict[str, Any] = {}

    def bench_graphs(graphs: Any, timing: Timing, target: Any, progress: Any, earlier: Any) -> Benchmark:
        held = {kind: (graph.path.name, graph.precision) for kind, graph in graphs.items()}
        seen.update(graphs=held, timing=timing, target=target.name, earlier=earlier)
        return report({"dense": 2 + np.arange(9.0), "pruned": 1 + np.arange(9.0)}, 1, {"cpu": "x", "runtime": "test"})

    def count_blocks(graphs: Any, blocks: Any, target: Any, threads: int, rounds: int) -> ByBlock:
        seen["counted"] = ({kind: graphs[kind].path.name for kind in ("dense", "pruned")}, threads, rounds)
        return COUNTED

    def run(
        graphs: Graphs,
        made_now: bool = False,
        rounds: dict[str, np.ndarray] = ROUNDS,
        target: str = "trt-10.3",
        here: bool = True,
    ) -> dict[str, Any]:
        np.savez(tmp_path / "forms" / "rounds.npz", **rounds)
        view: Any = SimpleNamespace(
            recipe=SimpleNamespace(
                bench=SimpleNamespace(runs=7, warmup=0.25, threads=3, here=here), export=SimpleNamespace(target=target)
            ),
            folder=lambda stage: tmp_path / stage,
            made_now=lambda stage: made_now,
            listener=SimpleNamespace(progress=None),
        )
        monkeypatch.setattr(bench, "final_graphs", lambda view: graphs)
        bench.Bench.make(view, tmp_path)
        made = tmp_path / "bench.json"
        return seen | {"result": Benchmark.read(made, "benchmark") if made.exists() else None}

    monkeypatch.setattr(bench, "bench_graphs", bench_graphs)
    monkeypatch.setattr(bench, "count_blocks", count_blocks)
    monkeypatch.setattr(bench, "plan_of", lambda view: None)
    return run


def test_it_times_as_the_recipe_says_and_writes_which_forms_there_are(timed: Any) -> None:
    seen = timed(Graphs(FLOAT32, FLOAT32, FLOAT32, None))
    assert seen["timing"] == Timing(7, 0.25, 3)
    assert seen["target"] == "trt-10.3"
    assert seen["graphs"] == {kind: (f"{kind}.32.onnx", "fp32") for kind in ("dense", "pruned", "floor")}
    assert seen["result"].attention == FORMS
    assert seen["result"].dense.median == 6.0


@pytest.mark.parametrize("target", ["trt-8.5", "trt-11", "ort-cuda", "ort-trt"])
def test_what_is_for_another_machine_is_not_timed(timed: Any, tmp_path: Path, target: str) -> None:
    """This machine's onnxruntime has neither CUDA nor TensorRT."""
    path = tmp_path / "pruned.onnx"
    path.write_bytes(doubler())
    seen = timed(Graphs({"pruned": path}, {"pruned": path}, {"pruned": path}, None), target=target, here=False)
    assert seen == {"result": None}


@pytest.mark.parametrize(
    ("target", "here", "wanted"),
    [("ort-cpu", False, True), ("ort-cuda", False, True), ("jetpack-6", False, False), ("jetpack-6", True, True)],
)
def test_the_stage_is_left_out_where_nothing_can_be_timed(target: str, here: bool, wanted: bool) -> None:
    recipe = recipe_from(small_recipe(export={"target": target}, bench={"here": here}))
    assert bench.Bench.wanted(recipe) is wanted


def test_rounds_that_have_just_been_timed_count_and_old_ones_do_not(timed: Any) -> None:
    float32 = Graphs(FLOAT32, FLOAT32, FLOAT32, None)
    earlier = timed(float32, made_now=True)["earlier"]
    assert {kind: values.tolist() for kind, values in earlier.items()} == {"dense": [2.0, 2.1], "pruned": [1.0, 1.1]}
    assert timed(float32, made_now=False)["earlier"] is None
    assert timed(float32, made_now=True, rounds={})["earlier"] is None


def test_rounds_of_other_graphs_never_count(timed: Any) -> None:
    assert timed(narrower("fp16"), made_now=True)["earlier"] is None


def test_every_graph_is_timed_in_what_it_is_in(timed: Any) -> None:
    assert timed(narrower("int8", "fp16"))["graphs"] == {
        "dense": ("dense.32.onnx", "fp32"),
        "pruned": ("pruned.int8.onnx", "int8"),
        "floor": ("floor.int8.onnx", "int8"),
        "fp16": ("fp16.int8.onnx", "fp16"),
        "fp32": ("pruned.32.onnx", "fp32"),
    }


def test_bf16_is_timed_in_float32_here(timed: Any) -> None:
    seen = timed(narrower("bf16"), made_now=True)
    assert seen["graphs"] == {kind: (f"{kind}.32.onnx", "fp32") for kind in ("dense", "pruned", "floor")}
    assert seen["earlier"] is not None


def test_time_is_counted_by_block_where_a_cpu_is_what_it_is_for(timed: Any) -> None:
    seen = timed(narrower("int8"), target="ort-cpu")
    assert seen["counted"] == ({"dense": "dense.32.onnx", "pruned": "pruned.int8.onnx"}, 3, 7)
    assert seen["result"].by_block == COUNTED
    assert timed(Graphs(FLOAT32, FLOAT32, FLOAT32, None), target="trt-10.3")["result"].by_block is None
