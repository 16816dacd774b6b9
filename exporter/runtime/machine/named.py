"""A machine as latency tables name it: what runs a target's graphs here. Torch-free."""

from __future__ import annotations

from ...core.errors import EnvironmentLackError
from ...core.latency import LatencyTable
from ...core.targets import Target, get_target
from ..tensorrt.family import family_of
from ..tensorrt.versions import import_tensorrt
from . import gpu
from .environment import cpu_name, nvidia_smi, version


def machine_of(target: Target) -> dict[str, str]:
    """This machine as a table names it: `device` and `runtime`."""
    if target.runtime == "tensorrt":
        family = family_of(target)
        try:
            title = family.versioned(import_tensorrt(family))
        except EnvironmentLackError:
            title = f"no {family.title}"
        return {"device": f"{cpu_name()}, {gpu.describe()['gpu']}", "runtime": title}
    found = None if target.is_cpu else nvidia_smi()
    package = "openvino" if target.runtime == "openvino" else "onnxruntime"
    number = version(package) or version(f"{package}-gpu")
    device = cpu_name() if found is None else f"{cpu_name()}, {found['name']}"
    return {"device": device, "runtime": f"{package} {number}"}


def is_of_here(table: LatencyTable) -> bool:
    """Whether a table was measured on this machine, by what it has now."""
    here = machine_of(get_target(table.of.target))
    return (table.of.device, table.of.runtime) == (here["device"], here["runtime"])
