"""Which runner runs a graph here: its target's own where that is, else onnxruntime on the CPU, with the reason."""

from __future__ import annotations

import hashlib
import os

from ..core.errors import EnvironmentLackError, InputError
from ..core.targets import RUNTIMES, Precision, Target, get_target
from .caches import graph_hash
from .openvino.runner import OpenVinoRunner, absent, import_openvino
from .providers import provider_options
from .runners import OrtRunner, Runner

# Devices that OpenVINO compiles for in no time: kept, DeiT-S loads at most 0.2 s sooner, and takes its size on disk.
_QUICK = ("CPU",)


def require_runtime(name: str) -> None:
    """Refuse a word that is neither a runtime's nor `auto`.

    Raises:
        InputError: with those that there are.
    """
    if name not in ("auto", *RUNTIMES):
        raise InputError(f"there is no runtime {name!r} (there are auto, {', '.join(RUNTIMES)})")


def run_by(target: Target, runtime: str) -> tuple[Target, str | None]:
    """Whose runtime runs a bundle's graphs: its own target's, or another that is asked for, on the CPU.

    Args:
        target: of the bundle.
        runtime: `onnxruntime` or `openvino`; any other word leaves it to the target.

    Returns:
        the target, and what a time says nothing of, where the graph is for another device than the CPU.

    Raises:
        EnvironmentLackError: OpenVINO is asked for, and missing.
    """
    other = {"onnxruntime": "ort-cpu", "openvino": "openvino"}.get(runtime)
    if runtime == "openvino":
        import_openvino()
    if other is None or runtime == target.runtime:
        return target, None
    why = None if target.is_cpu else f"the graph is for {target.name}, but {runtime} ran it on the CPU, as asked"
    return get_target(other), why


def unable(target: Target, precision: Precision) -> str | None:
    """Why no runtime that is here runs a target's graphs in a precision at all; None where one does."""
    if precision != "bf16":
        return None
    if target.runtime == "openvino":
        return absent(str(target.device))
    return "onnxruntime runs no bf16 graphs"


def not_here(
    model: str | os.PathLike[str] | bytes,
    target: Target,
    threads: int | None = None,
    precision: Precision = "fp32",
) -> str | None:
    """Why the target's own runtime does not run a graph here, so that times taken here say nothing of it.

    Args:
        model, target, threads, precision: see `runner_for`. The graph is only loaded where a provider has to be tried.

    Returns:
        the reason; None where it does.
    """
    if target.runtime == "tensorrt":
        return f"the graph is for {target.name}, which onnxruntime is not"
    if target.runtime == "openvino":
        why = absent(str(target.device))
        return None if why is None else _only_onnxruntime(target, why)
    return None if target.is_cpu else runner_for(model, target, threads, precision)[1]


def runner_for(
    model: str | os.PathLike[str] | bytes,
    target: Target,
    threads: int | None = None,
    precision: Precision = "fp32",
    cached: bool = False,
) -> tuple[Runner, str | None]:
    """A runner of the target's own runtime where that starts on this machine, else onnxruntime's on the CPU.

    Args:
        model: path or serialized ONNX.
        target: whose graph it is.
        threads: of the CPU; None takes all cores.
        precision: that the graph holds.
        cached: whether a runtime that compiles for long may keep what it compiled, see `OpenVinoRunner`.

    Returns:
        the runner, and why only the CPU ran a graph that is meant for something else; None where nothing is amiss.

    Raises:
        InputError: the runtime cannot load the graph.
        EnvironmentLackError: onnxruntime is missing.
    """
    if target.runtime == "tensorrt":
        why = f"the graph is for {target.name}, but only onnxruntime's CPU provider ran it; an engine proves the target"
        return OrtRunner(model, threads=threads), why
    if target.runtime == "onnxruntime" and target.is_cpu:
        return OrtRunner(model, threads=threads), None
    try:
        if target.runtime == "openvino":
            device = str(target.device)
            return OpenVinoRunner(model, device, threads, cached=cached and device not in _QUICK), None
        digest = hashlib.sha256(model).hexdigest() if isinstance(model, bytes) else graph_hash(model)
        options = provider_options(target.providers, digest, precision)
        return OrtRunner(model, target.providers, threads, options=options), None
    except EnvironmentLackError as error:
        return OrtRunner(model, threads=threads), _only_onnxruntime(target, str(error))


def _only_onnxruntime(target: Target, why: str) -> str:
    return f"the graph is for {target.name}, but only onnxruntime's CPU provider ran it: {why}"
