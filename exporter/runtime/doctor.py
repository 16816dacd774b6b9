"""What this machine has, and what is missing and what that costs. Heavy packages are looked at from a child process."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from ..core.cores import usable_cores
from ..core.errors import InputError
from .caches import VARIABLE, cache_root, describe_cache, refuse_foreign_folder
from .finding import Check, is_there, run_python, version_of
from .machine import processor
from .machine.environment import cpu_name
from .machine.environment import version as exact_version
from .machine.gpu import cuda_device
from .machine.jetpack import TABLE, jetpack_of, read_l4t, tensorrt_remedy
from .openvino.findings import examine_openvino
from .providers import TENSORRT, pair_problem
from .tensorrt.family import RTX, RTX_WHEELS, has_rtx_wheel

_PACKAGE = "vitrim.exporter.runtime.tensorrt"  # what child processes import from
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
    ("tensorrt", "no engines of TensorRT itself: graphs can be made for it, but not built, proven or timed here", ""),
)


def examine(
    root: Path = Path("/"), run: Callable[[str], tuple[bool, str]] = run_python, deep: bool = True
) -> list[Check]:
    """Look at this machine.

    Args:
        root: file system root, for tests.
        run: runs Python code in a child process.
        deep: also import timm and list onnxruntime's providers, which takes seconds.
    """
    checks = [Check("python", "ok", platform.python_version()), _processor(root), _instructions(root)]
    checks += [_disk(root), _memory(root)]
    checks += [_package(name, cost, remedy, root) for name, cost, remedy in _PACKAGES]
    checks.append(_rtx(run, deep))
    checks += examine_openvino(root, run, deep)
    checks += _two_onnxruntimes()
    if deep and version_of("timm"):
        checks.append(_timm_imports(run))
    if deep and (version_of("onnxruntime") or version_of("onnxruntime-gpu")):
        checks += _providers(run, root)
    if deep and is_there("tensorrt"):
        checks.append(_engines(run, root))
    if deep and is_there("tensorrt") and read_l4t(root) is not None:
        checks.append(_dla(run))
    checks += _cuda_majors(cuda_device)
    checks.append(_gpu(root))
    checks.append(_jetson(root))
    checks.append(_cache(cache_root()))
    return checks


def _processor(root: Path) -> Check:
    cores = usable_cores(root)
    if cores == 1:
        cost = "benchmarks of one core say little about a machine with more"
        return Check("processor", "info", f"{cpu_name(root)}, 1 core", cost)
    return Check("processor", "info", f"{cpu_name(root)} ({platform.machine()}), {cores} cores")


def _instructions(root: Path) -> Check:
    """What makes narrow numbers fast on this processor, in OpenVINO and in onnxruntime's int8."""
    found = processor.instructions(root)
    if found is None:
        return Check("narrow numbers", "info", "this system does not say what its processor has")
    fast, slow = processor.in_words(found)
    others = f" (also {', '.join(rest)})" if (rest := processor.for_no_precision(found)) else ""
    return Check(
        "narrow numbers", "ok" if fast else "info", (f"fast: {fast}" if fast else "none is fast") + others, slow
    )


def _package(name: str, cost: str, remedy: str, root: Path) -> Check:
    version = version_of(name)
    if version or is_there(name):
        return Check(name, "ok", version or "installed outside pip")
    return Check(name, "problem", "not installed", cost, remedy or tensorrt_remedy(root=root))


def _two_onnxruntimes() -> list[Check]:
    """Both distributions hold the same files: the one that was installed last has overwritten the other."""
    found = {name: exact_version(name) for name in ("onnxruntime", "onnxruntime-gpu")}
    if None in found.values():
        return []
    both = " and ".join(f"{name} {version}" for name, version in found.items())
    cost = "whichever was installed last runs, or neither does"
    remedy = "pip uninstall -y onnxruntime onnxruntime-gpu, then install the one you want"
    return [Check("onnxruntime twice", "problem", both, cost, remedy)]


def _timm_imports(run: Callable[[str], tuple[bool, str]]) -> Check:
    """torch's CPU build with PyPI's torchvision breaks `import timm` (operator torchvision::nms does not exist)."""
    worked, said = run("import timm; print(timm.__version__)")
    pair = f"torch {version_of('torch')}, torchvision {version_of('torchvision')}"
    if worked:
        return Check("import timm", "ok", f"works ({said} with {pair})")
    if "torchvision" not in said:
        return Check("import timm", "problem", said, "no models to export", "pip install --force-reinstall timm")
    build = "cpu" if "+cpu" in str(version_of("torch")) else ""
    index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    return Check(
        "import timm",
        "problem",
        f"{said} ({pair})",
        "no models to export",
        f"install torch and torchvision as a matching pair: pip install --force-reinstall torch torchvision{index}",
    )


def _engines(run: Callable[[str], tuple[bool, str]], root: Path) -> Check:
    """Whether the TensorRT that is installed can build here; in a child, because it may take the process with it."""
    worked, said = run(
        f"from {_PACKAGE}.polygraphy_build import by_polygraphy; print(by_polygraphy.missing() or 'works')"
    )
    if worked and said == "works":
        return Check("tensorrt engines", "ok", "can be built here")
    remedy = "check nvidia-smi" if "no GPU" in said else tensorrt_remedy(said, root)
    return Check("tensorrt engines", "problem", said, "no engines are built, proven or timed here", remedy)


def _rtx(run: Callable[[str], tuple[bool, str]], deep: bool) -> Check:
    """TensorRT for RTX, which builds on any machine and runs on a GPU; a machine that does without has no problem."""
    cost = "the target trt-rtx gets graphs, but no engines"
    if not is_there(RTX.module):
        if not has_rtx_wheel():
            return Check(RTX.title, "info", f"not installed: {RTX_WHEELS}", cost, "build on one of those")
        return Check(RTX.title, "info", f"not installed; it builds without a GPU ({RTX_WHEELS})", cost, RTX.remedy)
    if deep:
        worked, said = run(f"from {_PACKAGE}.versions import state_of_rtx; print(state_of_rtx())")
        if not worked or not said.startswith(RTX.title):
            return Check(RTX.title, "problem", said, cost, RTX.remedy)
        return Check(RTX.title, "ok", said)
    version = next(filter(None, (exact_version(f"{RTX.module}_cu{major}") for major in (13, 12))), None)
    return Check(RTX.title, "ok", version or "installed outside pip")


def _dla(run: Callable[[str], tuple[bool, str]]) -> Check:
    """DLA cores of a Jetson, as TensorRT counts them; in a child, like engines."""
    code = f"from {_PACKAGE} import versions as trt; print(trt.dla_cores(trt.import_tensorrt()))"
    worked, said = run(code)
    if not worked or not said.isdigit():
        return Check("dla", "info", f"unknown ({said})", "vitrim build --dla-core may not work")
    if said == "0":
        return Check("dla", "info", "none that TensorRT can use", "vitrim build --dla-core is refused")
    return Check("dla", "ok", f"{said} cores; layers of a ViT mostly fall back to the GPU")


def _cuda_majors(ask: Callable[[], dict[str, str] | None]) -> list[Check]:
    """TensorRT's wheels are built for one CUDA major each, which the driver must know."""
    found = {major: exact_version(f"tensorrt_cu{major}") for major in (11, 12, 13)}
    found = {major: version for major, version in found.items() if version}
    if not found:
        return []
    wheels = " and ".join(f"tensorrt_cu{major} {version}" for major, version in found.items())
    if len(found) > 1:
        cost = "both hold the module tensorrt, and whichever was installed last runs"
        names = " ".join(f"tensorrt_cu{major}" for major in found)
        return [
            Check("tensorrt twice", "problem", wheels, cost, f"pip uninstall -y {names}, then install the one you want")
        ]
    (major,) = found
    cuda = (ask() or {}).get("cuda")
    if cuda is None:
        return [Check("tensorrt and cuda", "info", f"{wheels}; no driver that says its CUDA version")]
    wheels += f", and a driver for CUDA {cuda}"
    if int(cuda.partition(".")[0]) >= major:
        return [Check("tensorrt and cuda", "ok", wheels)]
    remedy = f"pip install tensorrt-cu{cuda.partition('.')[0]} instead, or update the driver"
    return [
        Check("tensorrt and cuda", "problem", wheels, "no engines: the driver is too old for this TensorRT", remedy)
    ]


def _cache(root: Path) -> Check:
    """The folder of timing caches and of onnxruntime's engines; made when something is first kept."""
    seen = describe_cache(root)
    size = f"{root}: {seen['files']} files, {seen['bytes'] / 2**20:.0f} MiB"
    standing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    remedy = f"set {VARIABLE} to a folder of your own"
    if not os.access(standing, os.W_OK):
        return Check("cache folder", "problem", f"{root} cannot be written", "engines need --no-timing-cache", remedy)
    try:
        if root.exists():
            refuse_foreign_folder(root)
    except InputError:
        return Check("cache folder", "problem", f"{root} may be written by others", "caches in it are refused", remedy)
    return Check("cache folder", "ok", size)


def _providers(run: Callable[[str], tuple[bool, str]], root: Path) -> list[Check]:
    worked, said = run("import onnxruntime as o; print(' '.join([o.__version__, *o.get_available_providers()]))")
    if not worked:
        return [Check("onnxruntime providers", "problem", said, "onnxruntime cannot be used", "reinstall onnxruntime")]
    own, _, names = said.partition(" ")
    remedy = "pip install onnxruntime-gpu (instead of onnxruntime)"
    if read_l4t(root) is not None:
        remedy = "take NVIDIA's own wheel for your JetPack; the registry's onnxruntime-gpu is not for Jetson"
    if "CUDAExecutionProvider" not in names:
        cost = "the targets ort-cuda and ort-trt cannot be run here"
        return [Check("onnxruntime providers", "info", names, cost, remedy)]
    return [Check("onnxruntime providers", "ok", names), _tensorrt_provider(run, own, names, root, remedy)]


def _tensorrt_provider(run: Callable[[str], tuple[bool, str]], own: str, names: str, root: Path, remedy: str) -> Check:
    """Whether onnxruntime's TensorRT provider finds a TensorRT that it was built for."""
    cost = "the target ort-trt cannot be run here"
    if TENSORRT not in names:
        return Check("onnxruntime tensorrt", "info", "no such provider in this onnxruntime", cost, remedy)
    worked, here = run("from vitrim.exporter.runtime.providers import tensorrt_library; print(tensorrt_library())")
    if not worked or here == "None":
        found = "TensorRT's libraries are not found" if worked else here
        remedy = f"{tensorrt_remedy(root=root)}; put the folder of libnvinfer.so on LD_LIBRARY_PATH"
        return Check("onnxruntime tensorrt", "problem", found, cost, remedy)
    problem = pair_problem(own, here)
    if problem:
        mismatch, _, remedy = problem.partition(": ")
        return Check("onnxruntime tensorrt", "problem", mismatch, cost, remedy)
    return Check("onnxruntime tensorrt", "ok", f"onnxruntime {own} with TensorRT {here}")


def _gpu(root: Path) -> Check:
    tool = shutil.which("nvidia-smi")
    if tool is None and read_l4t(root) is not None:
        return Check("nvidia gpu", "ok", "the Jetson's own")
    device = None if tool else cuda_device()
    if device and "gpu" in device:  # as in containers without the tool
        cost = "the state of the GPU (clocks, heat) is not recorded beside a benchmark"
        return Check(
            "nvidia gpu", "info", f"{device['gpu']}, but no nvidia-smi", cost, "install the driver's utilities"
        )
    if tool is None:
        cost = f"no engines but those of {RTX.title}, and no GPU benchmark on this machine"
        remedy = "build and bench on a machine with a GPU"
        return Check("nvidia gpu", "problem", "no nvidia-smi", cost, remedy)
    query = [tool, "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    cost, remedy = "no engines and no GPU benchmark", "reboot if the driver was updated, else install it again"
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("nvidia gpu", "problem", f"nvidia-smi does not answer ({error})", cost, remedy)
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[:160] or f"nvidia-smi ended with code {done.returncode}"
        return Check("nvidia gpu", "problem", said, cost, remedy)
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
            "problem",
            f"{name}: unknown to this vitrim",
            f"the table ends at JetPack {newest}",
            "name a target",
        )
    return Check(
        "jetson",
        "ok",
        f"{name} = JetPack {row.name}: TensorRT {row.tensorrt}, CUDA {row.cuda}, target {row.target}",
    )


def _disk(root: Path) -> Check:
    """Of the present folder; with another root, of that."""
    free = shutil.disk_usage(Path.cwd() if root == Path("/") else root).free / 2**30
    if free < 2:
        return Check(
            "disk",
            "problem",
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
            "problem",
            f"{total:.1f} GiB",
            "exporting DeiT-S needs about 3 GiB",
            "export on another machine",
        )
    return Check("memory", "ok", f"{total:.0f} GiB")
