"""Milliseconds by block: kernels told to blocks by their names and places, and counted by real runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_graphs import chooser

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.runtime.bench.blocks import BlockTimes, ByBlock, Kernel, Run, measure_blocks, parts_of, runs_in
from vitrim.exporter.runtime.commands.bench import random_images

PARTS = {"conv": "embedding", "/a/qkv": "block 0", "softmax": "block 0", "fc": "block 1", "classes": "head"}


def kernels(*names: str) -> list[Kernel]:
    return [Kernel(tuple(name.split(",")), 1.0) for name in names]


def test_kernels_are_told_by_their_nodes_names() -> None:
    found = parts_of(kernels("conv", "/a/qkv", "fc/MatMulAddFusion", "classes/GemmFusion/"), PARTS)
    assert found == ["embedding", "block 0", "block 1", "head"]
    assert parts_of(kernels("unknown,fc", "softmax,FullyConnected_7"), PARTS) == ["block 1", "block 0"]


def test_what_a_runtime_made_of_its_own_is_of_the_part_around_it() -> None:
    found = parts_of(kernels("reorder", "conv", "reshape", "softmax", "reshape_2", "x/y", "fc"), PARTS)
    assert found == ["embedding", "embedding", "embedding", "block 0", "block 0", "block 0", "block 1"]
    assert parts_of(kernels("a", "b"), PARTS) == ["embedding"] * 2


def test_a_profile_has_the_kernels_of_every_run_before_it() -> None:
    def event(category: str, name: str, microseconds: int) -> dict[str, Any]:
        return {"cat": category, "name": name, "dur": microseconds}

    events = [
        event("Session", "session_initialization", 9000),
        event("Node", "conv_kernel_time", 500),
        event("Node", "conv_fence_before", 7),
        event("Session", "model_run", 900),
        event("Node", "conv_kernel_time", 250),
        event("Session", "model_run", 800),
    ]
    assert list(runs_in(events)) == [Run((Kernel(("conv",), 0.5),), 0.9), Run((Kernel(("conv",), 0.25),), 0.8)]


def graphs(folder: Path) -> dict[str, Path]:
    found = {kind: folder / f"{kind}.onnx" for kind in ("dense", "pruned")}
    for path in found.values():
        path.write_bytes(chooser().SerializeToString())
    return found


@pytest.mark.parametrize("target", ["ort-cpu", "openvino"])
def test_real_runtimes_count_every_part(target: str, tmp_path: Path) -> None:
    files = graphs(tmp_path)
    names = [node.name or node.output[0] for node in chooser().graph.node]
    parts = {name: "embedding" if at == 0 else "block 0" for at, name in enumerate(names)}
    found = measure_blocks(files, dict.fromkeys(files, parts), get_target(target), random_images, 1, rounds=5)
    assert found is not None
    assert (found.counted_by, found.rounds) == (get_target(target).runtime, 5)
    for one in found.graphs.values():
        assert list(one.parts) == ["embedding", "block 0"]
        assert 0 <= sum(one.parts.values()) < 2 * one.whole + 0.01  # the first runs, of milliseconds, are not in it
    assert ByBlock.from_json(found.to_json(), "b") == found


def test_what_has_no_blocks_or_is_no_cpu_s_is_not_counted(tmp_path: Path) -> None:
    files = graphs(tmp_path)
    assert measure_blocks(files, {"dense": {"a": "head"}, "pruned": {}}, get_target("ort-cpu"), random_images) is None
    with pytest.raises(EnvironmentLackError, match="counted on a CPU, and ort-cuda is for another device"):
        measure_blocks(files, {}, get_target("ort-cuda"), random_images)
    with pytest.raises(InputError, match="has no parts, or times below 0"):
        BlockTimes.from_json({"parts": {"head": -1.0}, "whole": 1.0}, "b")
