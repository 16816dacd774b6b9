"""What a reader of a benchmark must know about the machine. Everything is read, nothing is changed. Torch-free."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from ...core.cores import ROOT, session_threads, usable_cores
from ...core.sysfs import read_number, read_text
from .jetpack import jetpack_of, read_l4t
from .processor import instructions

_GLANCE = 0.2  # seconds over which other work is looked at
_BUSY_SHARE = 0.15  # of the cores taken by others, from which on a benchmark is warned about


def environment(threads: int | None = None, root: Path = ROOT) -> dict[str, Any]:
    """The machine as it is now; takes a fraction of a second, in which other work is looked at.

    Args:
        threads: that the benchmark uses; None for as many as `session_threads` says.
        root: of the file system, for tests.
    """
    with Watch(root) as watch:
        time.sleep(_GLANCE)
    cores = usable_cores(root)
    found: dict[str, Any] = {
        "cpu": cpu_name(root),
        "instructions": instructions(root),
        "cores": cores,
        "threads": session_threads(threads, root) or cores,
        "load_average": load_average(),
        "other_cores": watch.other_cores,
        "stolen_cores": watch.stolen_cores,
        "governor": read_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "frequency_mhz": frequency(root),
        "temperature_c": temperature(root),
        "throttle_events": throttle_events(root),
        "platform": _platform(),
        "python": platform.python_version(),
        "onnxruntime": version("onnxruntime") or version("onnxruntime-gpu"),
        "openvino": version("openvino"),
        "tensorrt": version("tensorrt"),
    }
    gpu = nvidia_smi()
    if gpu:
        found["gpu_state"] = gpu
    jetson = jetson_state(root)
    if jetson:
        found["jetson"] = jetson
    found["clocks"], found["clock_advice"] = clocks(found)
    return found


def clocks(found: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Whether clocks are locked, and the commands that would lock them; vitrim itself changes none.

    Args:
        found: `governor`, and where there are some, `jetson` and `gpu_state`, as `environment` returns them.

    Returns:
        `locked`, `floating` or `unknown`; commands, empty when locked. An NVIDIA card does not say whether its clocks
        are locked, so it is `unknown` unless the processor's governor says that they float.
    """
    jetson, card = found.get("jetson"), found.get("gpu_state")
    if jetson:
        fastest = jetson.get("fastest_mode") or 0
        commands = [f"sudo nvpmodel -m {fastest}"] if "MAXN" not in (jetson.get("power_mode") or "") else []
        commands += ["sudo jetson_clocks"] if jetson["clocks"] != "locked" else []
        return jetson["clocks"], commands
    commands = []
    floating = found.get("governor") not in (None, "performance")
    if floating:
        commands.append("sudo cpupower frequency-set -g performance")
    if card and card.get("sm_clock_max_mhz", "").isdigit():
        highest = card["sm_clock_max_mhz"]
        commands.append(f"sudo nvidia-smi -lgc {highest},{highest}   (and after: sudo nvidia-smi -rgc)")
    return "floating" if floating else "unknown", commands


def _platform() -> str:
    """Like `platform.platform()`, which starts a process to learn what nobody asks for here.

    Starting one disturbs a benchmark.
    """
    parts = (platform.system(), platform.release(), platform.machine(), "with", "".join(platform.libc_ver()))
    return "-".join(parts) if parts[-1] else "-".join(parts[:3])


class Watch:
    """Measures, between entry and exit, how many cores other processes used and how many a hypervisor took away.

    Attributes:
        other_cores: mean number of cores that others kept busy; None where the system does not say.
        stolen_cores: mean number of cores that the host of a virtual machine gave to somebody else.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.other_cores: float | None = None
        self.stolen_cores: float | None = None

    def __enter__(self) -> Watch:
        self._begin = (_cpu_seconds(self.root), time.process_time(), time.perf_counter())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        (before, own, clock), after = self._begin, _cpu_seconds(self.root)
        wall = time.perf_counter() - clock
        if before is None or after is None or wall <= 0:
            return
        ours = time.process_time() - own
        self.other_cores = round(max(after[0] - before[0] - ours, 0.0) / wall, 2)
        self.stolen_cores = round(max(after[1] - before[1], 0.0) / wall, 2)


def busy(found: Mapping[str, Any]) -> str | None:
    """A warning when other work was running; by what others used where that was seen, else by the load average."""
    cores, others, stolen = found["cores"], found.get("other_cores"), found.get("stolen_cores") or 0.0
    advice = "take absolute times with care"
    if others is None:
        load = found["load_average"][0]
        return (
            f"the machine was busy (load average {load:.1f} on {cores} cores): {advice}" if load > cores / 2 else None
        )
    if others + stolen <= max(_BUSY_SHARE * cores, 0.2):
        return None
    host = f", and its host took {stolen:.1f} away" if stolen >= 0.1 else ""
    return f"the machine was busy (other programs used {others:.1f} of {cores} cores{host}): {advice}"


def load_average() -> list[float]:
    """Over 1, 5 and 15 minutes; the programs of vitrim count too."""
    return [round(value, 2) for value in (os.getloadavg() if hasattr(os, "getloadavg") else (0.0, 0.0, 0.0))]


def cpu_name(root: Path = ROOT) -> str:
    """Model name of the processor; of a Jetson, the board's."""
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        if line.lower().startswith(("model name", "hardware")):
            return line.partition(":")[2].strip()
    board = (read_text(root / "proc/device-tree/model") or "").strip("\x00\n ")
    return board or platform.processor() or platform.machine()


def frequency(root: Path = ROOT) -> float | None:
    """Present clock of the first core, MHz."""
    kilohertz = read_number(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    if kilohertz is not None:
        return kilohertz / 1000
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        if line.startswith("cpu MHz"):
            with contextlib.suppress(ValueError):
                return float(line.partition(":")[2])
    return None


def temperature(root: Path = ROOT) -> float | None:
    """Hottest thermal zone, degrees Celsius."""
    zones = (read_number(path) for path in (root / "sys/class/thermal").glob("thermal_zone*/temp"))
    values = [value / 1000 for value in zones if value is not None]
    return max((value for value in values if 0 < value < 150), default=None)  # unused zones say -256 or 0


def throttle_events(root: Path = ROOT) -> int | None:
    """How often cores have been slowed down for heat since the start; compare two readings."""
    counters = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    values = [value for value in map(read_number, counters) if value is not None]
    return int(sum(values)) if values else None


_GPU_FIELDS = {
    "name": "name",
    "driver": "driver_version",
    "temperature_c": "temperature.gpu",
    "power_w": "power.draw",
    "power_limit_w": "power.limit",
    "sm_clock_mhz": "clocks.sm",
    "sm_clock_max_mhz": "clocks.max.sm",
    "throttle_reasons": "clocks_throttle_reasons.active",
    "utilization_percent": "utilization.gpu",
}


def nvidia_smi() -> dict[str, str] | None:
    """State of the first GPU that nvidia-smi lists; None without the tool. Values are nvidia-smi's own words."""
    line = query_gpu(list(_GPU_FIELDS.values()))
    if line is None:  # the reasons have a new name, and nvidia-smi answers nothing when it does not know one field
        line = query_gpu([field.replace("throttle_reasons", "event_reasons") for field in _GPU_FIELDS.values()])
    return dict(zip(_GPU_FIELDS, line, strict=True)) if line else None


def query_gpu(fields: list[str]) -> list[str] | None:
    """Fields of the first GPU by nvidia-smi; None where the tool is missing, hangs, or does not know a field."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    values = [value.strip() for value in (done.stdout.strip().splitlines() or [""])[0].split(",")]
    return values if done.returncode == 0 and len(values) == len(fields) else None


def jetson_state(root: Path = ROOT) -> dict[str, Any] | None:
    """L4T, JetPack, power mode and whether the GPU's clock is locked; None on other machines."""
    l4t = read_l4t(root)
    if l4t is None:
        return None
    row = jetpack_of(l4t)
    clocks = [
        {name: read_number(folder / f"{name}_freq") for name in ("min", "max", "cur")}
        for folder in (root / "sys/class/devfreq").glob("*")
        if any(word in folder.name for word in ("gpu", "gv11b", "ga10b", "gb10b", "nvgpu"))
    ]
    clock = next((one for one in clocks if one["cur"] is not None), None)
    locked = None if clock is None else clock["min"] == clock["max"]
    return {
        "l4t": f"{l4t[0]}.{l4t[1]}",
        "jetpack": row.name if row else None,
        "power_mode": _power_mode(),
        "fastest_mode": _fastest_mode(root),
        "gpu_clock_mhz": None if clock is None or clock["cur"] is None else clock["cur"] / 1e6,
        "clocks": {None: "unknown", True: "locked", False: "floating"}[locked],
        "throttling": _throttling(root),
        "overcurrent_events": _overcurrent_events(root),
    }


def _fastest_mode(root: Path) -> int | None:
    """Number of the power mode without limits: 0 on most boards, not so on an Orin Nano of JetPack 6.2."""
    found = re.search(r"POWER_MODEL\s+ID=(\d+)\s+NAME=\S*MAXN", read_text(root / "etc/nvpmodel.conf") or "")
    return int(found[1]) if found else None


def _throttling(root: Path) -> list[str]:
    """Units that are slowed down for heat right now, as Jetsons report it; names unverified on a board."""
    return sorted(
        kind
        for folder in (root / "sys/class/thermal").glob("cooling_device*")
        for kind in [read_text(folder / "type") or ""]
        if "throttle-alert" in kind and read_number(folder / "cur_state")
    )


def _overcurrent_events(root: Path) -> int | None:
    """How often an Orin was slowed down for under-voltage or over-current since the start; compare two readings."""
    values = [read_number(path) for path in (root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")]
    known = [value for value in values if value is not None]
    return int(sum(known)) if known else None


def _power_mode() -> str | None:
    tool = shutil.which("nvpmodel")
    if tool is None:
        return None
    try:
        done = subprocess.run([tool, "-q"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [line.partition(":")[2].strip() for line in done.stdout.splitlines() if "NV Power Mode" in line]
    return lines[0] if lines else None


def version(package: str) -> str | None:
    """Installed version of a distribution, without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_seconds(root: Path) -> tuple[float, float] | None:
    """Seconds that all processes computed, and seconds stolen by the host, since the start."""
    text = read_text(root / "proc/stat") or ""
    fields = text.partition("\n")[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    user, nice, system, _idle, _wait, interrupts, soft, steal = (int(field) for field in fields[1:9])
    tick = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    return (user + nice + system + interrupts + soft) / tick, steal / tick
