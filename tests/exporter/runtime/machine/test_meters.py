"""Meters: file trees of a Jetson and of RAPL, and a stand-in for NVML."""

from __future__ import annotations

import itertools
import types
from pathlib import Path
from typing import Any

import pytest

from vitrim.exporter.runtime.machine import meters
from vitrim.exporter.runtime.machine.meters import find_meter


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def monitor(place: str, rails: dict[int, tuple[str, int, int]]) -> dict[str, str]:
    """Files of one INA3221: by channel, label, millivolts and milliamperes."""
    files = {}
    for channel, (label, millivolts, milliamperes) in rails.items():
        files[f"{place}/in{channel}_label"] = f"{label}\n"
        files[f"{place}/in{channel}_input"] = f"{millivolts}\n"
        files[f"{place}/curr{channel}_input"] = f"{milliamperes}\n"
    return files


NANO = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon4"
AGX = "sys/bus/i2c/drivers/ina3221/1-0041/hwmon/hwmon5"


def test_an_orin_nano_measures_the_whole_module_by_one_rail(tmp_path: Path) -> None:
    rails = {1: ("VDD_IN", 5000, 1400), 2: ("VDD_CPU_GPU_CV", 5000, 400), 3: ("VDD_SOC", 5000, 300)}
    root = tree(
        tmp_path, monitor(NANO, rails) | {f"{NANO}/in7_label": "sum of shunt voltages", f"{NANO}/in7_input": "9"}
    )
    meter, reason = find_meter("gpu", root)
    assert reason == ""
    assert meter is not None
    assert (meter.rails, meter.total) == (("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"), ("VDD_IN",))
    assert meter.read() == {"VDD_IN": 7.0, "VDD_CPU_GPU_CV": 2.0, "VDD_SOC": 1.5}
    assert find_meter("cpu", root)[0] is not None
    (root / NANO / "curr1_input").unlink()
    with pytest.raises(OSError, match="curr1_input can no longer be read"):
        meter.read()


def test_an_agx_orin_s_rails_are_added(tmp_path: Path) -> None:
    first = {1: ("VDD_GPU_SOC", 19000, 200), 2: ("VDD_CPU_CV", 19000, 100), 3: ("VIN_SYS_5V0", 5000, 800)}
    second = {1: ("NC", 0, 0), 2: ("VDDQ_VDD2_1V8AO", 5000, 200)}
    meter = meters.jetson_meter(tree(tmp_path, monitor(NANO, first) | monitor(AGX, second)))
    assert meter is not None
    assert "NC" not in meter.rails
    assert meter.total == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
    assert meter.read()["VDD_GPU_SOC"] == pytest.approx(3.8)
    assert meter.read()["VDDQ_VDD2_1V8AO"] == 1.0


def test_the_files_of_jetpack_4(tmp_path: Path) -> None:
    place = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    files = {f"{place}/rail_name_0": "POM_5V_IN", f"{place}/in_power0_input": "2500"}
    files |= {f"{place}/rail_name_1": "POM_5V_GPU", f"{place}/in_power1_input": "700"}
    meter = meters.jetson_meter(tree(tmp_path, files))
    assert meter is not None
    assert (meter.total, meter.read()) == (("POM_5V_IN",), {"POM_5V_IN": 2.5, "POM_5V_GPU": 0.7})


class NVMLError(Exception):
    pass


def nvml(counter: bool, power: bool = True) -> Any:
    """A stand-in for pynvml: millijoules that grow, milliwatts that do not."""
    energies = itertools.count(1000, 500)

    def total(card: str) -> int:
        assert card == "card 0000:65:00.0"
        if not counter:
            raise NVMLError("Not Supported")
        return next(energies)

    def usage(card: str) -> int:
        if not power:
            raise NVMLError("Not Supported")
        return 42_000

    return types.SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByPciBusId=lambda address: f"card {address}",
        nvmlDeviceGetName=lambda card: b"Some GPU",
        nvmlDeviceGetTotalEnergyConsumption=total,
        nvmlDeviceGetPowerUsage=usage,
    )


def test_a_card_measures_energy_or_power_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "pci_address", lambda: "0000:65:00.0")
    meter, _ = find_meter("gpu", tmp_path, lambda: nvml(counter=True))
    assert meter is not None
    assert (meter.name, meter.counts, meter.rails) == ("nvml-energy", True, ("Some GPU",))
    assert [meter.read()["Some GPU"] for _ in range(2)] == [1.5, 2.0]
    meter, _ = find_meter("gpu", tmp_path, lambda: nvml(counter=False))
    assert meter is not None
    assert (meter.name, meter.counts, meter.read()) == ("nvml-power", False, {"Some GPU": 42.0})
    meter, reason = find_meter("gpu", tmp_path, lambda: nvml(counter=False, power=False))
    assert (meter, reason) == (None, "NVML does not report this card's power (Not Supported)")

    def missing() -> Any:
        raise ImportError

    assert "pip install nvidia-ml-py" in find_meter("gpu", tmp_path, missing)[1]


def test_rapl_counters_go_on_after_they_wrap(tmp_path: Path) -> None:
    place = "sys/class/powercap/intel-rapl:0"
    files = {f"{place}/name": "package-0", f"{place}/energy_uj": "9000000", f"{place}/max_energy_range_uj": "10000000"}
    root = tree(tmp_path, files | {"sys/class/powercap/intel-rapl:0:0/name": "core"})
    meter, _ = find_meter("cpu", root)
    assert meter is not None
    assert (meter.rails, meter.read()) == (("package-0",), {"package-0": 9.0})
    (root / place / "energy_uj").write_text("1500000")
    assert meter.read() == {"package-0": 11.5}
    (root / place / "energy_uj").unlink()
    found, reason = find_meter("cpu", root)
    assert found is None
    assert f"sudo chmod a+r {root / place}/energy_uj" in reason
