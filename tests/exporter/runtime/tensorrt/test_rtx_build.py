"""Engines of TensorRT for RTX: by its real builder, where it is installed, and by a stand-in what it is told.

The real builder needs no GPU. What runs an engine (the step on the device, numbers, times) is unverified here.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import onnx
import pytest
from small_graphs import chooser

from vitrim.exporter.core.errors import EnvironmentLackError, InputError, UnsupportedError
from vitrim.exporter.core.files import sha256
from vitrim.exporter.core.targets import TARGETS, get_target
from vitrim.exporter.runtime.machine import gpu
from vitrim.exporter.runtime.tensorrt.engine import build_engine
from vitrim.exporter.runtime.tensorrt.identity import EngineIdentity, read_identity
from vitrim.exporter.runtime.tensorrt.options import CAPABILITIES, EngineOptions
from vitrim.exporter.runtime.tensorrt.polygraphy_build import by_polygraphy
from vitrim.exporter.runtime.tensorrt.rtx_build import builder_for, by_rtx, capabilities
from vitrim.exporter.runtime.tensorrt.runner import TrtRunner

real = pytest.mark.skipif(by_rtx.missing() is not None, reason=str(by_rtx.missing()))


def built(onnx_file: Path, precision: Any = "fp32", **options: Any) -> EngineIdentity:
    """An engine beside a graph."""
    pinned = options.pop("pinned", ())
    return build_engine(
        onnx_file,
        onnx_file.with_suffix(".engine"),
        EngineOptions(**options),
        precision=precision,
        pinned=pinned,
        pins_may_miss=True,
        serialize=by_rtx,
    )


@pytest.fixture(scope="module")
def decider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of two nodes, one of which decides."""
    path = tmp_path_factory.mktemp("graph") / "g.onnx"
    onnx.save(chooser(), path)
    return path


@real
def test_an_engine_is_bound_to_version_capabilities_and_graph_alone(decider: Path) -> None:
    found = built(decider)
    assert found == read_identity(decider.with_suffix(".engine"))
    assert (found.family, found.capabilities, found.precision) == ("rtx", (), "fp32")
    assert found.onnx_sha256 == sha256(decider)
    assert str(found.tensorrt).startswith("1.")
    assert found.typing == "strongly typed: the graph's types are the engine's"
    assert built(decider, capabilities=("8.6", "12.0")).capabilities == ("8.6", "12.0")


@real
def test_every_capability_that_vitrim_names_is_one_of_the_builder_s() -> None:
    import tensorrt_rtx

    assert len(capabilities(tensorrt_rtx, CAPABILITIES)) == len(CAPABILITIES)


@real
def test_what_the_parser_refuses_is_told_by_node(tmp_path: Path) -> None:
    model = chooser()
    model.graph.node[0].op_type = "NonMaxSuppressionOfMine"
    path = tmp_path / "g.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedError, match=r"TensorRT for RTX 1\.\S+ refuses .*NonMaxSuppressionOfMine") as caught:
        built(path)
    assert "\n" not in str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["g.onnx"]


@real
def test_an_engine_is_not_run_without_a_gpu(decider: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built(decider)
    monkeypatch.setattr(gpu, "cuda_device", lambda: None)
    with pytest.raises(EnvironmentLackError, match="builds engines here, but running one needs a GPU"):
        TrtRunner(decider.with_suffix(".engine"), decider)


def test_a_target_has_its_builder() -> None:
    assert builder_for(get_target("trt-rtx"), by_polygraphy) is by_rtx
    others = [target for name, target in TARGETS.items() if name != "trt-rtx"]
    assert {builder_for(target, by_polygraphy) for target in others} == {by_polygraphy}


def test_capabilities_are_the_builder_s_words() -> None:
    levels = types.SimpleNamespace(NONE=0, CURRENT=1, SM80="a", SM86="b", SM120="c")
    trt: Any = types.SimpleNamespace(ComputeCapability=levels, __version__="1.2.0")
    assert capabilities(trt, ("12.0", "8.6")) == ["c", "b"]
    with pytest.raises(InputError, match=r"RTX 1\.2\.0 builds for 8\.0, 8\.6, 12\.0, but not for '12\.1'"):
        capabilities(trt, ("8.0", "12.1"))


def test_what_the_builder_is_told(fake_trt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = fake_trt.install("1.7.1.116", name="tensorrt_rtx")
    monkeypatch.setattr(gpu, "cuda_device", lambda: None)
    path = tmp_path / "m.onnx"
    path.write_bytes(b"graph")
    found = built(path, "fp16", workspace_mib=64, capabilities=("8.6", "12.0"))
    assert seen.network.flags == 1 << 1  # strongly typed
    assert (seen.config.flags, seen.config.loaded) == (set(), None)  # no TF32, no timing cache
    assert (seen.config.limits, seen.config.profiling_verbosity) == ({"workspace": 64 << 20}, "detailed")
    assert (seen.config.num_compute_capabilities, seen.config.capabilities) == (2, {0: "86", 1: "120"})
    assert not seen.runtimes  # nothing is loaded, which would need a GPU
    assert found.layers is not None
    assert (found.layers.layers, found.layers.precisions) == (1, {"fp16": 1})
    with pytest.raises(UnsupportedError, match="not bf16: 1 of 1 matrix layers"):
        built(path, "bf16")


def test_a_failed_build_says_the_builder_s_reason(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("1.7.1.116", name="tensorrt_rtx")
    path = tmp_path / "m.onnx"
    path.write_bytes(b"graph")
    seen.failure = "Could not find any implementation for node /topk"
    with pytest.raises(UnsupportedError, match=r"TensorRT for RTX 1\.7\.1\.116 cannot build .*Could not find any impl"):
        built(path)


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    said = str(by_rtx.missing())
    assert said.startswith("TensorRT for RTX cannot be imported")
    assert said.endswith("pip install 'vitrim[rtx]'") or "NVIDIA has wheels for" in said
    assert "\n" not in said
    with pytest.raises(EnvironmentLackError, match="TensorRT for RTX cannot be imported"):
        built(Path("m.onnx"))
