"""What `vitrim doctor` says of OpenVINO and of the devices that it finds. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ...core.sysfs import read_text
from ..finding import Check, is_there, version_of
from .runner import devices, the_core

_PRECISIONS = ("FP32", "FP16", "BF16", "INT8")
_INTEL = "0x8086"
_DRIVERS = {
    "GPU": "an Intel GPU needs the packages intel-opencl-icd and ocl-icd-libopencl1, or Intel's driver for Windows",
    "NPU": "an Intel NPU needs Intel's linux-npu-driver (from GitHub), or Intel's driver for Windows",
}


def examine_openvino(root: Path, run: Callable[[str], tuple[bool, str]], deep: bool) -> list[Check]:
    """The package, its devices, and the package that quantizes for it; a machine that does without has no problem.

    Args:
        root: of the file system, for tests.
        run: runs Python code in a child process.
        deep: also load OpenVINO and ask it for devices, which takes a second.
    """
    install = "pip install 'vitrim[openvino]'"
    if not is_there("openvino"):
        cost = "the targets openvino, openvino-gpu and openvino-npu get graphs, but those are not run here"
        return [Check("openvino", "info", "not installed", cost, install)]
    checks = [Check("openvino", "ok", version_of("openvino") or "installed outside pip")]
    if not is_there("nncf"):
        checks.append(Check("nncf", "info", "not installed", "no int8 by NNCF", install))
    else:
        checks.append(Check("nncf", "ok", version_of("nncf") or "installed outside pip"))
    return [*checks, *_devices(root, run)] if deep else checks


def tell_devices() -> str:
    """By device, its name and the precisions that OpenVINO says are fast, as a line of JSON."""
    core = the_core()
    found = {}
    for device in devices(core):
        fast = map(str, core.get_property(device, "OPTIMIZATION_CAPABILITIES"))
        found[device] = {"name": str(core.get_property(device, "FULL_DEVICE_NAME")), "fast": sorted(fast)}
    return json.dumps(found)


def _devices(root: Path, run: Callable[[str], tuple[bool, str]]) -> list[Check]:
    worked, said = run("from vitrim.exporter.runtime.openvino.findings import tell_devices; print(tell_devices())")
    if not worked:
        remedy = "pip install --force-reinstall openvino"
        return [Check("openvino devices", "problem", said, "OpenVINO cannot be used", remedy)]
    found = json.loads(said)
    words = [
        f"{device}: {facts['name'].strip()} ({', '.join(one for one in _PRECISIONS if one in facts['fast'])})"
        for device, facts in found.items()
    ]
    checks = [Check("openvino devices", "ok", "; ".join(words) or "none")]
    return checks + [_missing(device, root) for device in _DRIVERS if device not in found]


def _missing(device: str, root: Path) -> Check:
    """Of a device that OpenVINO does not find: a problem where the kernel knows one."""
    cost = f"the target openvino-{device.lower()} cannot be run here"
    seen = _gpu(root) if device == "GPU" else _npu(root)
    if seen:
        return Check(
            f"openvino {device}", "problem", f"there is {seen}, but OpenVINO finds none", cost, _DRIVERS[device]
        )
    return Check(f"openvino {device}", "info", "none", cost, _DRIVERS[device])


def _gpu(root: Path) -> str | None:
    """A graphics card of Intel's, as the kernel names it."""
    cards = sorted((root / "sys/class/drm").glob("card[0-9]*"))
    return next((card.name for card in cards if (read_text(card / "device/vendor") or "").strip() == _INTEL), None)


def _npu(root: Path) -> str | None:
    """An accelerator that Intel's driver serves."""
    found = sorted((root / "sys/class/accel").glob("accel[0-9]*"))
    return next((one.name for one in found if (read_text(one / "device/vendor") or "").strip() == _INTEL), None)
