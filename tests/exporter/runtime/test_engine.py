"""TensorRT without TensorRT: branches by version against a stand-in, identities, messages.

What a stand-in cannot show (that TensorRT takes these calls, and what it computes) is unverified here: building and
running on a GPU is the one test marked `gpu`.
"""

from __future__ import annotations

import ctypes
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitrim.exporter.errors import EnvironmentLackError, InputError, UnsupportedError
from vitrim.exporter.files import sha256
from vitrim.exporter.runtime import engine, gpu, trt

EXPLICIT_BATCH, STRONGLY_TYPED = 1, 2


@pytest.mark.parametrize(
    ("text", "version", "typed", "typed_fp16", "flag"),
    [
        ("8.5.2.2", (8, 5), False, False, True),
        ("8.6.1", (8, 6), False, False, True),
        ("9.3.0", (9, 3), False, False, True),
        ("10.3.0", (10, 3), False, True, False),
        ("10.11.0.33", (10, 11), False, True, False),
        ("10.12.0.36", (10, 12), True, True, False),
        ("11.4.0.106", (11, 4), True, True, False),
    ],
)
def test_typing_goes_by_version(text: str, version: tuple[int, int], typed: bool, typed_fp16: bool, flag: bool) -> None:
    assert engine.version_of(text) == version
    assert engine.is_strongly_typed(version) is typed
    fp16 = trt.typing_for(version, "fp16")
    assert (fp16.strong, fp16.fp16_flag) == (typed_fp16, flag)
    assert not trt.typing_for(version, "fp32").fp16_flag


def test_a_version_that_cannot_be_read() -> None:
    with pytest.raises(EnvironmentLackError, match="'main' cannot be read"):
        engine.version_of("main")


@pytest.mark.parametrize(
    ("version", "precision", "flags", "fp16", "constraints"),
    [
        ("8.5.2", "fp32", EXPLICIT_BATCH, False, None),
        ("8.6.1", "fp16", EXPLICIT_BATCH, True, "obey"),
        ("10.3.0", "fp32", 0, False, None),
        ("10.3.0", "fp16", STRONGLY_TYPED, False, None),
        ("10.16.1", "fp32", STRONGLY_TYPED, False, None),
        ("11.4.1", "fp16", STRONGLY_TYPED, False, None),
    ],
)
def test_networks_and_flags_of_each_version(
    fake_trt: Any, tmp_path: Path, version: str, precision: Any, flags: int, fp16: bool, constraints: str | None
) -> None:
    seen = fake_trt.install(version)
    (tmp_path / "m.onnx").write_bytes(b"graph")
    identity = engine.build_engine(tmp_path / "m.onnx", tmp_path / "m.engine", precision=precision, workspace_mib=64)
    assert seen.network.flags == flags
    assert (seen.config["fp16"], seen.config["precision_constraints"]) == (fp16, constraints)
    assert seen.config["memory_pool_limits"] == {"workspace": 64 << 20}
    assert identity["engine_sha256"] == sha256(tmp_path / "m.engine")
    assert identity["onnx_sha256"] == sha256(tmp_path / "m.onnx")
    assert (identity["tensorrt"], "compute_capability" in identity, "driver" in identity) == (version, True, True)
    assert json.loads((tmp_path / "m.engine.json").read_text()) == identity


def test_pinned_nodes_stay_float32_on_8(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("8.5.2")
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


def test_an_engine_is_loaded_without_host_code_and_runs(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    onnx, plan = tmp_path / "m.onnx", tmp_path / "m.engine"
    onnx.write_bytes(b"graph")
    engine.build_engine(onnx, plan)
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    before = fake_trt.DeviceArray.alive
    with engine.TrtRunner(plan, onnx) as runner:
        assert seen.runtimes[-1].engine_host_code_allowed is False
        assert (runner.batch, runner.shape, runner.outputs, runner.name) == (2, (2, 3), ["logits"], "tensorrt-10.3.0")
        first = runner(image)["logits"]
        runner(image + 1)
        np.testing.assert_array_equal(first, 2 * image)  # a copy, not the buffer of the next run
        for wrong in (image[:1], image.astype(np.float64)):
            with pytest.raises(InputError, match=r"takes float32 \[2, 3\]"):
                runner(wrong)
        assert fake_trt.DeviceArray.alive == before + 2
    assert fake_trt.DeviceArray.alive == before
    runtimes = len(seen.runtimes)
    plan.write_bytes(plan.read_bytes() + b"\0")
    with pytest.raises(InputError, match="its hash differs"):
        engine.TrtRunner(plan, onnx)
    assert len(seen.runtimes) == runtimes  # refused before TensorRT saw it
    plan.write_bytes(b"no plan of this TensorRT")
    identity = json.loads(engine.sidecar(plan).read_text()) | {"engine_sha256": sha256(plan)}
    engine.sidecar(plan).write_text(json.dumps(identity))
    with pytest.raises(InputError, match=r"10\.3\.0 cannot load .*build it on this machine"):
        engine.TrtRunner(plan, onnx)


def test_dynamic_engines_are_refused(fake_trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_trt.install("10.3.0")
    onnx, plan = tmp_path / "m.onnx", tmp_path / "m.engine"
    onnx.write_bytes(b"graph")
    engine.build_engine(onnx, plan)
    monkeypatch.setattr(fake_trt.Engine, "get_tensor_shape", lambda self, name: (-1, 3))
    with pytest.raises(InputError, match="shapes must be static"):
        engine.TrtRunner(plan, onnx)


def jetson(root: Path) -> Path:
    (root / "etc").mkdir()
    (root / "etc" / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 1\n")
    return root


def test_the_lack_is_named_with_a_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(trt, "_SYSTEM_ROOT", tmp_path)
    assert "pip install 'vitrim[tensorrt]'" in str(engine.why_not())
    jetson(tmp_path)
    assert "sudo apt install python3-libnvinfer" in str(engine.why_not())
    with pytest.raises(EnvironmentLackError, match="TensorRT cannot be imported"):
        engine.build_engine("a.onnx", "a.engine")
    assert "nvidia-l4t-dla-compiler" in trt.tensorrt_remedy("libnvdla_compiler.so: cannot open", tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", types.ModuleType("tensorrt"))
    assert "is empty, its libraries are missing" in str(engine.why_not())


def test_a_tensorrt_that_is_too_old_is_refused(fake_trt: Any) -> None:
    fake_trt.install("8.2.1")
    assert "8.2.1 is too old: vitrim needs 8.5" in str(engine.why_not())


def test_without_a_gpu_tensorrt_s_own_reason_is_told(fake_trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_trt.install("8.6.0")

    def no_gpu(logger: Any) -> None:  # as 8.6.0 does it, measured
        logger.log(2, "CUDA initialization failure with error: 35. Please check your CUDA installation: http://x")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(sys.modules["tensorrt"], "Builder", no_gpu)
    assert str(engine.why_not()).startswith(
        "TensorRT 8.6.0 finds no GPU (CUDA initialization failure with error: 35): check nvidia-smi"
    )


class Driver:
    """CUDA's driver library, answering for an Orin."""

    def __init__(self, failing: int = 0) -> None:
        self.failing = failing

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.failing

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        name.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: ctypes.c_int) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0

    def cuDriverGetVersion(self, value: Any) -> int:  # noqa: N802
        value._obj.value = 12060
        return 0


def test_the_gpu_is_asked_of_the_driver(tmp_path: Path) -> None:
    assert gpu.cuda_device(Driver) == {"gpu": "Orin", "compute_capability": "8.7", "cuda": "12.6"}
    assert gpu.cuda_device(lambda: Driver(failing=100)) is None

    def missing() -> None:
        raise OSError("libcuda.so.1")

    assert gpu.cuda_device(missing) is None
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    version = tmp_path / "proc/driver/nvidia/version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan\n")
    assert gpu.driver(tmp_path) == "570.86.15"
    version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release\n")
    assert gpu.driver(tmp_path) == "540.4.0"


def test_an_engine_from_elsewhere_is_never_loaded(tmp_path: Path) -> None:
    plan, onnx = tmp_path / "model.engine", tmp_path / "model.onnx"
    plan.write_bytes(b"native code")
    onnx.write_bytes(b"graph")
    here = {"tensorrt": "10.3.0", "gpu": "Orin", "machine": "aarch64"}
    with pytest.raises(InputError, match=r"no readable model\.engine\.json"):
        engine.check_identity(plan, onnx, here)
    identity = {"engine_sha256": sha256(plan), "onnx_sha256": sha256(onnx), **here}
    engine.sidecar(plan).write_text(json.dumps(identity))
    engine.check_identity(plan, onnx, here)
    with pytest.raises(InputError, match=r"built for tensorrt 10\.3\.0, but here it is 11\.4"):
        engine.check_identity(plan, onnx, here | {"tensorrt": "11.4"})
    engine.check_identity(plan, onnx, here | {"driver": "999"})  # engines outlive an update of the driver
    with pytest.raises(InputError, match="built for gpu Orin, but here it is H200"):
        engine.check_identity(plan, onnx, here | {"gpu": "H200"})
    onnx.write_bytes(b"another graph")
    with pytest.raises(InputError, match="from another graph"):
        engine.check_identity(plan, onnx, here)
    plan.write_bytes(b"changed code")
    with pytest.raises(InputError, match="its hash differs"):
        engine.check_identity(plan, onnx, here)


@pytest.mark.gpu
@pytest.mark.skipif(engine.why_not() is not None, reason=f"no engine can be built here: {engine.why_not()}")
def test_build_run_and_compare_on_a_gpu(tmp_path: Path) -> None:
    from helpers import budget_for, small_vit

    from vitrim.exporter.passes.pipeline import rewrite
    from vitrim.exporter.pruned import PrunedViT, TorchRunner
    from vitrim.exporter.runtime.parity import compare
    from vitrim.exporter.targets import get_target
    from vitrim.exporter.trace import save, trace

    model = small_vit()
    pruned = PrunedViT(model, budget_for(model, {1: 11, 2: 6}, similar=2), ("logits", "kept"))
    graph, _ = rewrite(trace(pruned, 2), get_target("trt-8.5"))
    save(graph, tmp_path / "m.onnx")
    engine.build_engine(tmp_path / "m.onnx", tmp_path / "m.engine")
    image = np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32)
    found = engine.TrtRunner(tmp_path / "m.engine", tmp_path / "m.onnx")(image)
    rung = compare("engine", TorchRunner(pruned, 2)(image), found, atol=1e-2, tie=1e-3)
    assert rung.passed, rung.reason
