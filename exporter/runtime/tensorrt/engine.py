"""TensorRT engines, 8.5 to 11 and for RTX: built, looked into, saved. Torch-free.

Precision is the graph's; how each version takes it stands in `versions.typing_for`, and what the engine then computes
in is read from it (`inspector`) before it is saved. An engine of a float32 graph computes in float32: TF32 is off.

Verified: builds with TensorRT 8.6 on an H100 and, without a GPU, with TensorRT for RTX; the branches by version,
against a stand-in for TensorRT. Unverified: builds with 10 and 11, and on a Jetson; the tests marked `gpu` do one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import EnvironmentLackError, InputError, UnsupportedError, VitrimError
from ...core.files import atomic_path, sha256
from ...core.targets import Precision
from ...core.wiring import Wiring
from ..caches import cache_root, graph_hash, timing_cache_path
from ..machine.jetpack import read_l4t
from .family import Family
from .identity import EngineIdentity, device_identity, sidecar
from .inspector import read_layers
from .inventory import Kernel, inventory
from .kernels import inspector_json
from .network import open_parser, pin_float32, quantized_layers, use_dla
from .options import EngineOptions, refuse_options
from .polygraphy_build import by_polygraphy
from .runner import configure
from .serializer import Parts, Serializer, Settings, releasing
from .summary import LayerSummary, Wanted, summarize, unreadable
from .versions import Typing, capability_of, import_tensorrt, listen, typing_for, version_of
from .wiring import read_wiring


@dataclass(frozen=True)
class _Build:
    """One build: what is asked for, and TensorRT on this machine."""

    options: EngineOptions
    precision: Precision
    family: Family
    trt: Any
    builder: Any
    messages: Any
    version: tuple[int, int]
    device: dict[str, Any]
    capability: tuple[int, int] | None
    typing: Typing


def build_engine(
    onnx: str | os.PathLike[str],
    engine: str | os.PathLike[str],
    options: EngineOptions = EngineOptions(),
    *,
    precision: Precision = "fp32",
    pinned: Collection[str] = (),
    pins_may_miss: bool = False,
    serialize: Serializer = by_polygraphy,
) -> EngineIdentity:
    """Build an engine from a graph with static shapes, look what it computes in, and save it with its identity beside.

    Args:
        onnx: the graph.
        engine: file to write; `<engine>.json` is written too.
        options: how it is built.
        precision: that the graph holds; see `versions.typing_for` for what each version makes of it.
        pinned: ONNX nodes that stay in float32 where typing is weak; elsewhere the graph's own casts say so.
        pins_may_miss: `pinned` is another graph's list; nodes of it that this one has not are left out.
        serialize: builds it from the parsed network.

    Raises:
        EnvironmentLackError: no TensorRT or no GPU.
        InputError: the graph is missing, a pinned node is not in it, or an int8 graph has no Q/DQ pairs.
        UnsupportedError: TensorRT refuses the graph or an option, or layers run in another precision; its reason.
    """
    missing = serialize.missing()
    if missing:
        raise EnvironmentLackError(missing)
    source = sha256(onnx)  # before the build, and an error if the graph is not there
    build = _open(precision, options, serialize.family)
    fallback: list[str] = []
    settings = _settings(build, onnx, fallback)
    try:
        with releasing():
            quantized, wiring, serialized = _serialized(build, onnx, settings, serialize, pinned, pins_may_miss)
    except VitrimError:
        raise
    except Exception as error:  # TensorRT's binding and polygraphy raise types of their own
        reason = build.messages.last() or " ".join(str(error).split())[:240]
        raise UnsupportedError(
            f"{build.family.versioned(build.trt)} cannot build {os.fspath(onnx)}: {reason}; `vitrim inspect` lints the "
            "graph"
        ) from error
    wanted = Wanted(
        precision,
        frozenset(pinned),
        frozenset(quantized),
        build.typing.strong,
        build.family.like or build.version,
        build.capability,
        wiring,
    )
    layers, kernels = _look_into(build, serialized, wanted, onnx)
    return _save(Path(engine), serialized, _identity(build, source, serialized, layers, kernels, fallback))


def _serialized(
    build: _Build,
    onnx: str | os.PathLike[str],
    settings: Settings,
    serialize: Serializer,
    pinned: Collection[str],
    may_miss: bool,
) -> tuple[set[str], Wiring, bytes]:
    """Layers that must run in int8, the network's wiring, and the engine; what TensorRT needs for it ends here."""
    parts = _parse(build, onnx)
    quantized = _mark(build, parts.network, onnx, pinned, may_miss)
    return quantized, read_wiring(parts.network), serialize(build.trt, parts, settings)


def _open(precision: Precision, options: EngineOptions, family: Family) -> _Build:
    """TensorRT as it is here, with everything refused that it or the GPU cannot do."""
    trt = import_tensorrt(family)
    version, device = version_of(trt.__version__), device_identity(family)
    typing, capability = typing_for(version, precision, family), capability_of(device["compute_capability"])
    messages = listen(trt)
    builder = trt.Builder(messages)
    cores = 0 if options.dla_core is None or family.builds_anywhere else int(builder.num_DLA_cores)
    jetson = read_l4t() is not None
    refuse_options(options, precision, version, capability, family=family, dla_cores=cores, jetson=jetson)
    return _Build(options, precision, family, trt, builder, messages, version, device, capability, typing)


def _settings(build: _Build, onnx: str | os.PathLike[str], fallback: list[str]) -> Settings:
    """What the builder is set to; what a DLA does not take is added to `fallback` while it builds."""
    options, cache = build.options, None
    if options.timing_cache is not False and not build.family.builds_anywhere:
        folder = Path(options.timing_cache or cache_root() / "timing")
        cache = timing_cache_path(folder, build.device, graph_hash(onnx))

    def to_dla(builder: Any, network: Any, config: Any) -> None:
        assert options.dla_core is not None
        fallback.extend(use_dla(build.trt, network, config, options.dla_core))

    return Settings(
        fp16=build.typing.fp16_flag,
        int8=build.typing.int8_flag,
        obey_pins=build.typing.fp16_flag,
        workspace=options.workspace_mib << 20,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        capabilities=options.capabilities,
        timing_cache=cache,
        change=None if options.dla_core is None else to_dla,
    )


def _parse(build: _Build, onnx: str | os.PathLike[str]) -> Parts:
    """The graph as a network."""
    parts = open_parser(build.trt, build.builder, build.messages, build.typing, build.family)
    if not parts.parser.parse_from_file(os.fspath(onnx)):
        name = build.family.versioned(build.trt)
        raise UnsupportedError(f"{name} refuses {os.fspath(onnx)}: {_parser_says(parts.parser)}")
    return parts


def _parser_says(parser: Any) -> str:
    """The parser's first complaint, with the node where the version names it."""
    if not parser.num_errors:
        return "the file cannot be read as an ONNX graph"
    error = parser.get_error(0)
    where = f"node {error.node()}"
    with contextlib.suppress(Exception):  # names came with 10
        where = f"{error.node_operator()} {error.node_name()}".strip() or where
    return f"{where}: {' '.join(str(error.desc()).split())[:200]}; `vitrim inspect` lints the graph"


def _mark(
    build: _Build, network: Any, onnx: str | os.PathLike[str], pinned: Collection[str], may_miss: bool
) -> set[str]:
    """Pin what stays in float32.

    Returns:
        the layers that must run in int8.
    """
    if build.typing.fp16_flag:
        pin_float32(build.trt, network, pinned, may_miss)
    quantized = quantized_layers(build.trt, network) if build.precision == "int8" else set()
    if build.precision == "int8" and not quantized:
        raise InputError(f"{os.fspath(onnx)} is to be int8, but no matrix product in it takes Q/DQ pairs")
    return quantized


def _look_into(
    build: _Build, serialized: bytes, wanted: Wanted, onnx: str | os.PathLike[str]
) -> tuple[LayerSummary, tuple[Kernel, ...]]:
    """See what the layers of the engine that was just built compute in, and what each of its kernels is."""
    try:
        found = read_layers(_layers_json(build, serialized))
    except InputError as error:
        if build.options.strict:
            raise
        return unreadable(str(error)), ()
    layers = summarize(found, wanted)
    if build.options.strict and not layers.passed:
        raise UnsupportedError(
            f"the engine of {os.fspath(onnx)} is not {wanted.precision}: {layers.verdict}; it is not saved "
            "(--any-precision saves it all the same)"
        )
    return layers, inventory(found, wanted.wiring)


def _layers_json(build: _Build, serialized: bytes) -> str:
    """The engine's layers: of the loaded engine, or as the builder listed them where it builds without a GPU."""
    trt = build.trt
    if build.family.builds_anywhere:
        return inspector_json(build.messages.kernels)
    messages = listen(trt)
    runtime = trt.Runtime(messages)
    configure(runtime, build.options.dla_core)
    loaded = runtime.deserialize_cuda_engine(serialized)
    if loaded is None:
        raise UnsupportedError(f"TensorRT {trt.__version__} cannot load what it built ({messages.last()})")
    return str(loaded.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def _identity(
    build: _Build,
    source: str,
    serialized: bytes,
    layers: LayerSummary,
    kernels: tuple[Kernel, ...],
    fallback: Collection[str],
) -> EngineIdentity:
    options = build.options
    return EngineIdentity(
        engine_sha256=hashlib.sha256(serialized).hexdigest(),
        onnx_sha256=source,
        **build.device,
        family=build.family.name,
        capabilities=options.capabilities if build.family.builds_anywhere else None,
        precision=build.precision,
        typing=build.typing.why,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        dla_core=options.dla_core,
        dla_fallback=None if options.dla_core is None else tuple(fallback),
        layers=layers,
        kernels=kernels or None,
    )


def _save(path: Path, serialized: bytes, identity: EngineIdentity) -> EngineIdentity:
    """Write the engine, and its identity beside it."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(serialized)
    identity.write(sidecar(path))
    return identity
