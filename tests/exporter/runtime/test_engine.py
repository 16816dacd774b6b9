"""TensorRT without TensorRT: identities, versions and messages. Building and running need a GPU and are marked so."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

from vitrim.exporter.errors import EnvironmentLackError, InputError
from vitrim.exporter.files import sha256
from vitrim.exporter.runtime import engine


@pytest.mark.parametrize(
    ("text", "version", "typed"),
    [
        ("8.5.2.2", (8, 5), False),
        ("8.6.1", (8, 6), False),
        ("10.3.0", (10, 3), False),
        ("10.12.0.36", (10, 12), True),
        ("11.4.0.106", (11, 4), True),
    ],
)
def test_networks_are_strongly_typed_from_10_12_on(text: str, version: tuple[int, int], typed: bool) -> None:
    assert engine.version_of(text) == version
    assert engine.is_strongly_typed(version) is typed


def test_the_lack_is_named_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(engine.platform, "machine", lambda: "x86_64")
    assert "pip install 'vitrim[tensorrt]'" in str(engine.why_not())
    monkeypatch.setattr(engine.platform, "machine", lambda: "aarch64")
    assert "sudo apt install python3-libnvinfer" in str(engine.why_not())
    with pytest.raises(EnvironmentLackError, match="TensorRT cannot be imported"):
        engine.build_engine("a.onnx", "a.engine")


def test_a_tensorrt_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = types.ModuleType("tensorrt")
    old.__version__ = "8.2.1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    assert "8.2.1 is too old: vitrim needs 8.5" in str(engine.why_not())


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
    import numpy as np
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
