"""TensorRT without TensorRT: branches by version against a stand-in, identities, messages.

What a stand-in cannot show (that TensorRT takes these calls, and what it computes) is unverified here: building and
running on a GPU is in the tests marked `gpu`.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_layers import quantized

from vitrim.exporter.core.errors import InputError, UnsupportedError
from vitrim.exporter.core.files import sha256
from vitrim.exporter.runtime import caches
from vitrim.exporter.runtime.machine import gpu
from vitrim.exporter.runtime.tensorrt import engine
from vitrim.exporter.runtime.tensorrt.identity import EngineIdentity
from vitrim.exporter.runtime.tensorrt.options import EngineOptions
from vitrim.exporter.runtime.tensorrt.polygraphy_build import by_polygraphy
from vitrim.exporter.runtime.tensorrt.runner import TrtRunner

EXPLICIT_BATCH, STRONGLY_TYPED = 1, 2


WORDS = {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16", "int8": "Int8"}
WEAK16 = {"FP16", "OBEY_PRECISION_CONSTRAINTS"}


def onnx_in(folder: Path) -> Path:
    """A file for the stand-in's parser, which takes any."""
    path = folder / "m.onnx"
    path.write_bytes(b"graph")
    return path


@pytest.mark.parametrize(
    ("version", "precision", "network", "flags"),
    [
        ("8.5.2", "fp32", EXPLICIT_BATCH, set()),
        ("8.5.2", "fp16", EXPLICIT_BATCH, WEAK16),
        ("8.5.2", "int8", EXPLICIT_BATCH, WEAK16 | {"INT8"}),
        ("8.6.1", "fp16", EXPLICIT_BATCH, WEAK16),
        ("8.6.1", "int8", EXPLICIT_BATCH, WEAK16 | {"INT8"}),
        ("10.3.0", "fp32", 0, set()),
        ("10.3.0", "fp16", STRONGLY_TYPED, set()),
        ("10.3.0", "int8", STRONGLY_TYPED, set()),
        ("10.3.0", "bf16", STRONGLY_TYPED, set()),
        ("10.16.1", "fp32", STRONGLY_TYPED, set()),
        ("10.16.1", "int8", STRONGLY_TYPED, set()),
        ("11.4.1", "fp16", STRONGLY_TYPED, set()),
        ("11.4.1", "bf16", STRONGLY_TYPED, set()),
    ],
)
def test_networks_and_flags_of_each_version(
    fake_trt: Any, tmp_path: Path, version: str, precision: Any, network: int, flags: set[str]
) -> None:
    seen = fake_trt.install(version)
    seen.inspection = fake_trt.inspection(WORDS[precision])
    seen.layers = quantized(fake_trt.Layer, fake_trt.DataType) if precision == "int8" else None
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    identity = engine.build_engine(onnx, plan, EngineOptions(workspace_mib=64), precision=precision)
    assert (seen.network.flags, seen.config.flags) == (network, flags)  # TF32, on by default, is off
    assert seen.config.limits == {"workspace": 64 << 20}
    assert seen.config.profiling_verbosity == "detailed"
    assert identity.engine_sha256 == sha256(plan)
    assert identity.onnx_sha256 == sha256(onnx)
    assert (identity.tensorrt, identity.machine) == (version, platform.machine())
    assert (identity.precision, identity.layers.precisions) == (precision, {precision: 2})
    assert EngineIdentity.read(tmp_path / "m.engine.json", "identity") == identity


@pytest.mark.parametrize("version", ["8.5.2", "8.6.1", "9.3.0"])
def test_bf16_is_refused_where_the_graph_cannot_ask_for_it(fake_trt: Any, tmp_path: Path, version: str) -> None:
    fake_trt.install(version)
    with pytest.raises(UnsupportedError, match=f"bf16 needs TensorRT 10.*but here is {version[:3]}"):
        engine.build_engine(onnx_in(tmp_path), tmp_path / "m.engine", precision="bf16")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_int8_without_q_dq_pairs_is_refused(fake_trt: Any, tmp_path: Path) -> None:
    fake_trt.install("8.6.1")  # where it would calibrate without data
    with pytest.raises(InputError, match="no matrix product in it takes Q/DQ pairs"):
        engine.build_engine(onnx_in(tmp_path), tmp_path / "m.engine", precision="int8")


def test_an_engine_in_another_precision_is_refused_and_not_saved(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.16.1")
    seen.inspection = fake_trt.inspection("Float")
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    with pytest.raises(UnsupportedError, match=r"not fp16: 2 of 2 matrix layers .*/blocks\.0/mlp/MatMul.*not saved"):
        engine.build_engine(onnx, plan, precision="fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    identity = engine.build_engine(onnx, plan, EngineOptions(strict=False), precision="fp16")
    assert (identity.layers.passed, identity.layers.wrong_share) == (False, 1.0)
    seen.inspection = json.dumps({"Layers": ["a", "b"], "Bindings": []})
    with pytest.raises(InputError, match="without details of its layers"):
        engine.build_engine(onnx, plan, precision="fp16")
    layers = engine.build_engine(onnx, plan, EngineOptions(strict=False), precision="fp16").layers
    assert (layers.passed, "without details" in layers.verdict) == (False, True)
    seen.inspection = fake_trt.inspection("Half")
    assert engine.build_engine(onnx, plan, precision="fp16").layers.passed


def test_attention_that_is_not_fused_is_told_in_the_identity(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    seen.inspection = fake_trt.inspection("Float", fused=False)
    found = engine.build_engine(onnx_in(tmp_path), tmp_path / "m.engine").layers.attention
    assert (found.fused, found.not_fused) == (0, 1)
    assert found.reason == "attention in float32 is never fused: it needs fp16, bf16 or int8"


def test_a_timing_cache_is_read_again_but_never_a_stale_one(
    fake_trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = fake_trt.install("10.3.0")
    onnx, plan, folder = onnx_in(tmp_path), tmp_path / "m.engine", tmp_path / "timings"

    def loaded() -> bytes:
        engine.build_engine(onnx, plan, EngineOptions(timing_cache=folder))
        return bytes(seen.config.loaded)

    assert [loaded(), loaded()] == [b"", b"timed "]
    monkeypatch.setattr(gpu, "driver", lambda root=None: "999.1")
    assert loaded() == b""  # another driver
    onnx.write_bytes(b"another graph")
    assert loaded() == b""
    onnx.with_name("m.onnx.data").write_bytes(b"other weights")
    assert loaded() == b""
    seen = fake_trt.install("10.3.1")
    assert loaded() == b""
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 5
    assert all(name.endswith(".cache") for name in names)  # no locks, nothing half-written
    engine.build_engine(onnx, plan, EngineOptions(timing_cache=False))
    assert len(list(folder.iterdir())) == 5
    engine.build_engine(onnx, plan)
    assert list((caches.cache_root() / "timing").iterdir())


def test_a_cache_folder_that_others_may_write_to_is_refused(
    fake_trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_trt.install("10.3.0")
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(InputError, match="no cache folder of your own"):
        engine.build_engine(onnx_in(tmp_path), tmp_path / "m.engine", EngineOptions(timing_cache=folder))
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="no cache folder of your own"):
        caches.private_folder(tmp_path / "link")
    monkeypatch.delenv("VITRIM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert caches.cache_root() == tmp_path / "xdg" / "vitrim"


def test_portable_engines_by_version(fake_trt: Any, tmp_path: Path) -> None:
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    seen = fake_trt.install("8.6.1")
    engine.build_engine(onnx, plan, EngineOptions(version_compatible=True, hardware_compatible="ampere_plus"))
    # The lean runtime inside would be host code, which the loader forbids.
    assert seen.config.flags == {"VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"}
    assert seen.config.hardware_compatibility_level == 1
    assert [runtime.engine_host_code_allowed for runtime in seen.runtimes] == [False]
    seen = fake_trt.install("11.4.1")
    engine.build_engine(onnx, plan, EngineOptions(hardware_compatible="same_compute_capability"))
    assert (seen.config.flags, seen.config.hardware_compatibility_level) == (set(), 2)
    fake_trt.install("8.5.2")
    with pytest.raises(UnsupportedError, match=r"came with TensorRT 8\.6, but here is 8\.5"):
        engine.build_engine(onnx, plan, EngineOptions(version_compatible=True))
    with pytest.raises(UnsupportedError, match=r"ampere_plus came with TensorRT 8\.6"):
        engine.build_engine(onnx, plan, EngineOptions(hardware_compatible="ampere_plus"))
    fake_trt.install("10.3.0")
    with pytest.raises(UnsupportedError, match=r"same_compute_capability came with TensorRT 10\.9"):
        engine.build_engine(onnx, plan, EngineOptions(hardware_compatible="same_compute_capability"))


def test_a_dla_takes_what_it_can_and_the_rest_is_named(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    seen.inspection, seen.dla = fake_trt.inspection("Half"), 2
    seen.on_dla = lambda layer: layer.name == "/blocks.0/topk"
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    identity = engine.build_engine(onnx, plan, EngineOptions(dla_core=1), precision="fp16")
    assert (seen.config.default_device_type, seen.config.DLA_core, seen.config.flags) == ("dla", 1, {"GPU_FALLBACK"})
    assert (identity.dla_core, identity.dla_fallback) == (1, ("/blocks.0/norm", "/blocks.0/norm_1"))
    assert seen.runtimes[-1].DLA_core == 1
    TrtRunner(plan, onnx).close()
    assert seen.runtimes[-1].DLA_core == 1
    with pytest.raises(InputError, match="no DLA core 2 here; there are 2"):
        engine.build_engine(onnx, plan, EngineOptions(dla_core=2), precision="fp16")
    with pytest.raises(UnsupportedError, match="fp16 and int8 only, but the graph is fp32"):
        engine.build_engine(onnx, plan, EngineOptions(dla_core=0))
    seen.on_dla = lambda layer: False
    with pytest.raises(UnsupportedError, match="none of the graph's layers runs on a DLA"):
        engine.build_engine(onnx, plan, EngineOptions(dla_core=0), precision="fp16")
    seen.dla = 0
    with pytest.raises(UnsupportedError, match="finds no DLA here"):
        engine.build_engine(onnx, plan, EngineOptions(dla_core=0), precision="fp16")


def test_pinned_nodes_stay_float32_on_8(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("8.5.2")
    seen.inspection = fake_trt.inspection("Half")
    (tmp_path / "m.onnx").write_bytes(b"graph")
    pinned = {"/blocks.0/norm", "/blocks.0/topk", "/blocks.0/weight"}
    engine.build_engine(tmp_path / "m.onnx", tmp_path / "m.engine", precision="fp16", pinned=pinned)
    norm, norm_1, topk, weight = seen.network.layers
    assert [layer.precision for layer in (norm, norm_1, topk, weight)] == [fake_trt.DataType.FLOAT] * 3 + [None]
    assert topk.output_types == {0: fake_trt.DataType.FLOAT}  # the indices stay integers
    with pytest.raises(InputError, match="no node /blocks.9/norm"):
        engine.build_engine(
            tmp_path / "m.onnx", tmp_path / "m.engine", precision="fp16", pinned={"/blocks.9/norm", "/blocks.0/norm"}
        )
    engine.build_engine(  # dense and floor have not every node of the pruned graph
        tmp_path / "m.onnx", tmp_path / "m.engine", precision="fp16", pinned={"/blocks.9/norm"}, pins_may_miss=True
    )


def test_refusals_are_one_line_and_leave_nothing(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("8.6.1")
    with pytest.raises(InputError, match=r"none\.onnx"):
        engine.build_engine(tmp_path / "none.onnx", tmp_path / "m.engine")
    (tmp_path / "m.onnx").write_bytes(b"graph")
    seen.complaint = "No importer registered\nfor op: Gelu"
    with pytest.raises(
        UnsupportedError, match=r"8\.6\.1 refuses .* node 7: No importer registered for op: Gelu; `vitrim"
    ):
        engine.build_engine(tmp_path / "m.onnx", tmp_path / "m.engine")
    seen.complaint, seen.failure = None, "Could not find any implementation for node X"
    with pytest.raises(UnsupportedError, match="cannot build .* any implementation for node X"):
        engine.build_engine(tmp_path / "m.onnx", tmp_path / "m.engine")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


MISSING = by_polygraphy.missing()
GPU = pytest.mark.skipif(MISSING is not None, reason=f"no engine can be built here: {MISSING}")


def half(graph: Path, made: Path) -> None:
    """The graph in fp16 with float32 inputs and outputs."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(graph), keep_io_types=True)
    onnx.save(model, made)


def with_pairs(graph: Path, made: Path, image: np.ndarray) -> None:
    """The graph with Q/DQ pairs around its MLPs' products, symmetric."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Once(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{onnx.load(graph).graph.input[0].name: image}]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    constants = {value.name for value in onnx.load(graph).graph.initializer}
    products = [
        node.name
        for node in onnx.load(graph).graph.node
        if node.op_type in ("MatMul", "Gemm") and constants & set(node.input)
    ]
    quantize_static(
        graph,
        made,
        Once(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        nodes_to_quantize=products,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )


def pruned_graph(folder: Path) -> tuple[Any, Path, np.ndarray]:
    """A small pruned model in PyTorch, its graph for the oldest target, and a batch of images."""
    from helpers import budget_for, small_vit

    from vitrim.exporter.core.targets import get_target
    from vitrim.exporter.graph.files import save
    from vitrim.exporter.graph.passes.rewrite import rewrite
    from vitrim.exporter.graph.trace import trace
    from vitrim.exporter.pruning.torch_runner import TorchRunner
    from vitrim.exporter.pruning.vit import PrunedViT

    model = small_vit()
    pruned = PrunedViT(model, budget_for(model, {1: 11, 2: 6}, similar=2), ("logits", "kept"))
    graph, _ = rewrite(trace(pruned, 2), get_target("trt-8.5"))
    save(graph, folder / "m.onnx")
    image = np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32)
    return TorchRunner(pruned, 2), folder / "m.onnx", image


@pytest.mark.slow
def test_the_graphs_of_the_gpu_tests_are_what_they_say(tmp_path: Path) -> None:
    import onnx

    _, graph, image = pruned_graph(tmp_path)
    half(graph, tmp_path / "half.onnx")
    types_there = {value.data_type for value in onnx.load(tmp_path / "half.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types_there
    assert onnx.TensorProto.FLOAT not in types_there
    with_pairs(graph, tmp_path / "int8.onnx", image)
    kinds = [node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node]
    assert kinds.count("QuantizeLinear") >= 12


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_build_run_and_compare_on_a_gpu(tmp_path: Path, cuda_graph: bool) -> None:
    from vitrim.exporter.runtime.rungs import compare

    torch_runner, graph, image = pruned_graph(tmp_path)
    identity = engine.build_engine(graph, tmp_path / "m.engine")
    assert set(identity.layers.precisions) <= {"fp32"}
    with TrtRunner(tmp_path / "m.engine", graph, cuda_graph=cuda_graph) as opened:
        found = [opened(image) for _ in range(3)][-1]
    rung = compare("engine", torch_runner(image), found, atol=1e-2, tie=1e-3)
    assert rung.passed, rung.reason


@pytest.mark.gpu
@GPU
def test_fp16_runs_in_fp16_on_a_gpu(tmp_path: Path) -> None:
    torch_runner, graph, image = pruned_graph(tmp_path)
    half(graph, tmp_path / "half.onnx")
    identity = engine.build_engine(tmp_path / "half.onnx", tmp_path / "m.engine", precision="fp16")
    assert identity.layers.passed, identity.layers.verdict
    assert identity.layers.precisions.get("fp16") or identity.layers.opaque
    with TrtRunner(tmp_path / "m.engine", tmp_path / "half.onnx") as opened:
        logits = opened(image)["logits"]
    assert np.abs(logits - torch_runner(image)["logits"]).mean() < 5e-2


@pytest.mark.gpu
@GPU
def test_int8_runs_in_int8_on_a_gpu(tmp_path: Path) -> None:
    torch_runner, graph, image = pruned_graph(tmp_path)
    with_pairs(graph, tmp_path / "int8.onnx", image)
    # Not strict: this graph's other parts are float32 where typing is strong, which an exported one's are not.
    made, plan, options = tmp_path / "int8.onnx", tmp_path / "m.engine", EngineOptions(strict=False)
    identity = engine.build_engine(made, plan, options, precision="int8")
    assert identity.layers.precisions.get("int8") or identity.layers.opaque, identity.layers
    with TrtRunner(tmp_path / "m.engine", tmp_path / "int8.onnx") as opened:
        logits = opened(image)["logits"]
    assert np.corrcoef(logits.ravel(), torch_runner(image)["logits"].ravel())[0, 1] > 0.9
