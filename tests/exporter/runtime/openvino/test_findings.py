"""What doctor says of OpenVINO: its devices, and which of those that the kernel knows it does not find."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vitrim.exporter.runtime.finding import Check, run_python
from vitrim.exporter.runtime.openvino import findings
from vitrim.exporter.runtime.openvino.findings import examine_openvino

CPU = {"CPU": {"name": "AMD EPYC ", "fast": ["BF16", "FP32", "INT8", "WINOGRAD"]}}
ARC = {"GPU": {"name": "Intel Arc A770", "fast": ["FP16", "FP32", "INT8"]}}


def examined(root: Path, said: str, worked: bool = True) -> dict[str, Check]:
    return {check.name: check for check in examine_openvino(root, lambda code: (worked, said), deep=True)}


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "is_there", lambda package: True)


def test_devices_are_named_with_what_is_fast(tmp_path: Path) -> None:
    found = examined(tmp_path, json.dumps(CPU | ARC))
    devices = found["openvino devices"]
    assert (devices.state, devices.found) == (
        "ok",
        "CPU: AMD EPYC (FP32, BF16, INT8); GPU: Intel Arc A770 (FP32, FP16, INT8)",
    )
    assert "openvino GPU" not in found
    assert (found["openvino NPU"].state, found["openvino NPU"].found) == ("info", "none")
    assert "linux-npu-driver" in found["openvino NPU"].remedy


@pytest.mark.parametrize(("device", "place"), [("GPU", "drm/card1"), ("NPU", "accel/accel0")])
def test_a_device_that_the_kernel_knows_and_openvino_does_not_is_a_problem(
    tmp_path: Path, device: str, place: str
) -> None:
    vendor = tmp_path / "sys/class" / place / "device" / "vendor"
    vendor.parent.mkdir(parents=True)
    vendor.write_text("0x8086\n")
    found = examined(tmp_path, json.dumps(CPU))[f"openvino {device}"]
    assert (found.state, found.found) == ("problem", f"there is {Path(place).name}, but OpenVINO finds none")
    assert found.cost == f"the target openvino-{device.lower()} cannot be run here"
    vendor.write_text("0x10de\n")  # another maker's
    assert examined(tmp_path, json.dumps(CPU))[f"openvino {device}"].state == "info"


def test_an_openvino_that_does_not_load_is_a_problem(tmp_path: Path) -> None:
    found = examined(tmp_path, "ImportError: libopenvino.so", worked=False)["openvino devices"]
    assert (found.state, found.found) == ("problem", "ImportError: libopenvino.so")


def test_a_machine_without_it_has_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "is_there", lambda package: False)
    (found,) = examine_openvino(tmp_path, lambda code: (False, ""), deep=True)
    assert (found.state, found.remedy) == ("info", "pip install 'vitrim[openvino]'")


def test_the_child_answers() -> None:
    pytest.importorskip("openvino")
    asked: list[str] = []
    examine_openvino(Path("/"), lambda code: (bool(asked.append(code)), ""), deep=True)
    worked, said = run_python(asked[0])
    assert worked, said
    assert "FP32" in json.loads(said)["CPU"]["fast"]
