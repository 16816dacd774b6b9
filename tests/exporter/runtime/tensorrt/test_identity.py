"""What an engine is bound to: one that was not built here from this graph is never loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fuzz import fuzz, held, json_file, mangled
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.files import sha256
from vitrim.exporter.runtime.tensorrt.identity import EngineIdentity, check_identity, sidecar

OLD = Path(__file__).parents[3] / "data" / "0.1.0"


def test_files_of_0_1_0_load() -> None:
    data = json.loads((OLD / "engine.json").read_text())
    found = EngineIdentity.from_json(data, "engine.json")
    assert json.loads(json.dumps(found.to_json())) == data
    assert found.layers is not None
    assert (found.precision, found.layers.passed, found.dla_fallback) == ("fp16", True, None)


def test_an_engine_from_elsewhere_is_never_loaded(tmp_path: Path) -> None:
    plan, onnx = tmp_path / "model.engine", tmp_path / "model.onnx"
    plan.write_bytes(b"native code")
    onnx.write_bytes(b"graph")
    here = {"tensorrt": "10.3.0", "gpu": "Orin", "machine": "aarch64"}
    with pytest.raises(InputError, match=r"no readable model\.engine\.json"):
        check_identity(plan, onnx, here)
    identity = {"engine_sha256": sha256(plan), "onnx_sha256": sha256(onnx), **here}
    sidecar(plan).write_text(json.dumps(identity | {"dla_core": "0"}))
    with pytest.raises(InputError, match=r'no readable model\.engine\.json.*dla_core is "0", but must be a whole'):
        check_identity(plan, onnx, here)
    sidecar(plan).write_text(json.dumps(identity))
    check_identity(plan, onnx, here)
    with pytest.raises(InputError, match=r"built for tensorrt 10\.3\.0, but here it is 11\.4"):
        check_identity(plan, onnx, here | {"tensorrt": "11.4"})
    check_identity(plan, onnx, here | {"driver": "999"})  # engines outlive an update of the driver
    with pytest.raises(InputError, match="built for gpu Orin, but here it is H200"):
        check_identity(plan, onnx, here | {"gpu": "H200"})
    portable = {"compute_capability": "8.6", "hardware_compatible": "ampere_plus", "version_compatible": True}
    sidecar(plan).write_text(json.dumps(identity | portable))
    check_identity(plan, onnx, here | {"gpu": "H200", "compute_capability": "9.0", "tensorrt": "11.4.1"})
    with pytest.raises(InputError, match=r"compute_capability 8\.6, but here it is 7\.5"):
        check_identity(plan, onnx, here | {"gpu": "T4", "compute_capability": "7.5"})
    with pytest.raises(InputError, match=r"tensorrt 10\.3\.0, but here it is 10\.0\.1"):  # older
        check_identity(plan, onnx, here | {"compute_capability": "8.6", "tensorrt": "10.0.1"})
    same = portable | {"hardware_compatible": "same_compute_capability"}
    sidecar(plan).write_text(json.dumps(identity | same))
    check_identity(plan, onnx, here | {"gpu": "A10", "compute_capability": "8.6"})
    with pytest.raises(InputError, match="compute_capability"):
        check_identity(plan, onnx, here | {"gpu": "H200", "compute_capability": "9.0"})
    sidecar(plan).write_text(json.dumps(identity))
    onnx.write_bytes(b"another graph")
    with pytest.raises(InputError, match="from another graph"):
        check_identity(plan, onnx, here)
    plan.write_bytes(b"changed code")
    with pytest.raises(InputError, match="its hash differs"):
        check_identity(plan, onnx, here)


HERE = {"tensorrt": "10.3.0", "gpu": "Orin", "compute_capability": "8.7", "machine": "aarch64"}


@fuzz(150)
@given(data=mangled(json.loads((OLD / "engine.json").read_text())), tail=st.just(b"") | st.binary(max_size=4))
def test_any_json_is_an_identity_or_one_line(data: Any, tail: bytes, tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(b"engine")
    json_file(sidecar(tmp_path / "e"), data, tail)
    assert held(check_identity, tmp_path / "e", tmp_path / "e", HERE) is None  # it is no engine of this graph
    if isinstance(data, dict):
        digest = sha256(tmp_path / "e")
        json_file(sidecar(tmp_path / "e"), {**data, "engine_sha256": digest, "onnx_sha256": digest}, tail)
        held(check_identity, tmp_path / "e", tmp_path / "e", HERE)


RTX = {"family": "rtx", "tensorrt": "1.7.1.116", "machine": "x86_64", "precision": "fp16"}
GPU = {"tensorrt": "1.7.1.116", "machine": "x86_64", "gpu": "RTX 4090", "compute_capability": "8.9"}


@pytest.mark.parametrize(
    ("built", "here", "refused"),
    [
        ({}, {}, None),
        ({"gpu": "RTX 3090", "compute_capability": "8.6"}, {}, None),  # where it was built is not what it is for
        ({"machine": "AMD64"}, {}, None),  # Windows
        ({}, {"driver": "999", "gpu": "B200", "compute_capability": "12.0"}, None),
        ({}, {"compute_capability": "7.5"}, r"compute_capability 8\.0 and newer, but here it is 7\.5"),
        (
            {"compute_capability": "7.5"},
            {"compute_capability": "7.5"},
            r"capability 8\.0 and newer, but here it is 7\.5",
        ),
        ({}, {"compute_capability": None}, "but here it is None"),
        ({"capabilities": ["8.6", "8.9"]}, {}, None),
        ({"capabilities": ["8.6"], "compute_capability": "8.9"}, {}, r"capability 8\.6, but here it is 8\.9"),
        ({}, {"tensorrt": "1.8.0.1"}, r"tensorrt 1\.7\.1\.116, but here it is 1\.8\.0\.1"),
        ({}, {"machine": "aarch64"}, "machine x86_64, but here it is aarch64"),
    ],
)
def test_an_engine_of_tensorrt_for_rtx_is_bound_to_its_version_and_capabilities(
    built: dict[str, Any], here: dict[str, Any], refused: str | None, tmp_path: Path
) -> None:
    plan, onnx = tmp_path / "model.engine", tmp_path / "model.onnx"
    plan.write_bytes(b"engine")
    onnx.write_bytes(b"graph")
    identity = {"engine_sha256": sha256(plan), "onnx_sha256": sha256(onnx), **RTX, **built}
    sidecar(plan).write_text(json.dumps(identity))
    if refused is None:
        assert check_identity(plan, onnx, GPU | here).family == "rtx"
    else:
        with pytest.raises(InputError, match=refused):
            check_identity(plan, onnx, GPU | here)
    onnx.write_bytes(b"another graph")
    with pytest.raises(InputError, match="from another graph"):
        check_identity(plan, onnx, GPU)


def test_an_older_identity_is_of_tensorrt_itself() -> None:
    found = EngineIdentity.read(OLD / "engine.json", "identity")
    assert (found.family, found.capabilities) == ("tensorrt", None)
    assert found.capability_words == found.compute_capability
