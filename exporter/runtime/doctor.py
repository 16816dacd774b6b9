"""What this machine has, and what each lack costs. Torch-free: heavy packages are looked at from a child process."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from .jetpack import TABLE, jetpack_of, read_l4t


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        state: `ok`, `lack`, or `info`.
        found: what is there.
        cost: what does not work without it.
        remedy: how to get it.
    """

    name: str
    state: Literal["ok", "lack", "info"]
    found: str
    cost: str = ""
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


_PACKAGES = (
    (
        "torch",
        "no calibration, tracing or export; checking and benchmarking a bundle work",
        "pip install 'vitrim[export]'",
    ),
    ("timm", "no models to export", "pip install 'vitrim[export]'"),
    ("onnx", "no tracing, passes or lint", "pip install 'vitrim[export]'"),
    ("onnx_graphsurgeon", "no graph passes", "pip install 'vitrim[export]'"),
    ("onnxruntime", "graphs cannot be run or benchmarked on this machine's CPU", "pip install onnxruntime"),
    ("polygraphy", "no TensorRT engines", "pip install 'vitrim[device]'"),
    ("tensorrt", "no engines: graphs can be made for TensorRT, but not built, proven or timed here", ""),
)


def run_python(code: str, timeout: float = 120) -> tuple[bool, str]:
    """Run code in a child Python; (worked, last line of what it printed or said)."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {timeout:.0f} s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, lines[-1][:160] if lines else ""


def examine(
    root: Path = Path("/"), run: Callable[[str], tuple[bool, str]] = run_python, deep: bool = True
) -> list[Check]:
    """Look at this machine.

    Args:
        root: file system root, for tests.
        run: runs Python code in a child process.
        deep: also import timm and list onnxruntime's providers, which takes seconds.
    """
    checks = [
        Check("python", "ok" if sys.version_info >= (3, 10) else "lack", platform.python_version()),
        Check("processor", "info", f"{platform.machine()}, {os.cpu_count()} cores"),
        _disk(),
        _memory(root),
    ]
    checks += [_package(name, cost, remedy) for name, cost, remedy in _PACKAGES]
    if deep and _version("timm"):
        checks.append(_timm_imports(run))
    if deep and (_version("onnxruntime") or _version("onnxruntime-gpu")):
        checks.append(_providers(run))
    checks.append(_gpu())
    checks.append(_jetson(root))
    return checks


def _version(package: str) -> str | None:
    for name in (package, package.replace("_", "-"), f"{package}-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _package(name: str, cost: str, remedy: str) -> Check:
    version = _version(name)
    if version:
        return Check(name, "ok", version)
    if name == "tensorrt":
        jetson = platform.machine() == "aarch64"
        remedy = (
            "JetPack brings it: sudo apt install python3-libnvinfer" if jetson else "pip install 'vitrim[tensorrt]'"
        )
    return Check(name, "lack", "not installed", cost, remedy)


def _timm_imports(run: Callable[[str], tuple[bool, str]]) -> Check:
    """torch's CPU build with PyPI's torchvision breaks `import timm` (operator torchvision::nms does not exist)."""
    worked, said = run("import timm; print(timm.__version__)")
    if worked:
        return Check("import timm", "ok", f"works ({said})")
    return Check(
        "import timm",
        "lack",
        said,
        "no models to export",
        "install torch and torchvision as a matching pair: pip install --force-reinstall torch torchvision",
    )


def _providers(run: Callable[[str], tuple[bool, str]]) -> Check:
    worked, said = run("import onnxruntime as o; print(' '.join(o.get_available_providers()))")
    if not worked:
        return Check("onnxruntime providers", "lack", said, "onnxruntime cannot be used", "reinstall onnxruntime")
    if "CUDAExecutionProvider" in said:
        return Check("onnxruntime providers", "ok", said)
    cost = "the target ort-cuda cannot be run here"
    return Check("onnxruntime providers", "info", said, cost, "pip install onnxruntime-gpu (instead of onnxruntime)")


def _gpu() -> Check:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Check("nvidia gpu", "lack", "no nvidia-smi", "no engines and no GPU benchmark on this machine")
    query = [tool, "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("nvidia gpu", "lack", f"nvidia-smi does not answer ({error})", "no GPU benchmark")
    if done.returncode != 0:
        return Check("nvidia gpu", "lack", (done.stderr or done.stdout).strip()[:160], "no GPU benchmark")
    return Check("nvidia gpu", "ok", "; ".join(done.stdout.strip().splitlines()))


def _jetson(root: Path) -> Check:
    l4t = read_l4t(root)
    if l4t is None:
        return Check("jetson", "info", "not a Jetson")
    row = jetpack_of(l4t)
    name = f"L4T {l4t[0]}.{l4t[1]}"
    if row is None:
        newest = TABLE[-1].name
        return Check(
            "jetson",
            "lack",
            f"{name}: unknown to this vitrim",
            f"the table ends at JetPack {newest}",
            "name a target",
        )
    return Check(
        "jetson",
        "ok",
        f"{name} = JetPack {row.name}: TensorRT {row.tensorrt}, CUDA {row.cuda}, target {row.target}",
    )


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    if free < 2:
        return Check(
            "disk",
            "lack",
            f"{free:.1f} GiB free here",
            "an export of DeiT-B needs about 2 GiB",
            "free some space",
        )
    return Check("disk", "ok", f"{free:.0f} GiB free here")


def _memory(root: Path) -> Check:
    try:
        lines = (root / "proc" / "meminfo").read_text(encoding="utf-8").splitlines()
        total = next(int(line.split()[1]) for line in lines if line.startswith("MemTotal")) / 2**20
    except (OSError, StopIteration, ValueError, IndexError):
        return Check("memory", "info", "unknown")
    if total < 3:
        return Check(
            "memory",
            "lack",
            f"{total:.1f} GiB",
            "exporting DeiT-S needs about 3 GiB",
            "export on another machine",
        )
    return Check("memory", "ok", f"{total:.0f} GiB")
