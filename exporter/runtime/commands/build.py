"""Build a bundle's engine with this machine's TensorRT, prove it, and publish the bundle with it. Torch-free."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core import layout
from ...core.errors import EnvironmentLackError, InputError
from ..bundles.manifest import Manifest, open_size, read_manifest, renew_manifest
from ..bundles.place import publish_bundle, refuse_foreign, refuse_inside
from ..bundles.verify import verify_bundle
from ..marked import cache_folder, locked
from ..parity import Parity
from ..publish import discard, staging_folder, sweep
from ..tensorrt.engine import build_engine
from ..tensorrt.options import EngineOptions
from ..tensorrt.polygraphy_build import by_polygraphy
from ..tensorrt.rtx_build import builder_for
from ..tensorrt.serializer import Serializer
from .check import check_folder

_NEEDS = (layout.PARITY, layout.GOLDEN, layout.MODEL)


def build_bundle(
    folder: str | os.PathLike[str],
    options: EngineOptions = EngineOptions(),
    *,
    serialize: Serializer = by_polygraphy,
    note: Callable[[str], None] | None = None,
    size: str | int | Sequence[int] | None = None,
) -> Parity:
    """Build a bundle's engine on this machine, prove it against the golden outputs, and publish the bundle with it.

    The precision, and what stays in float32, is what the bundle's manifest says of its graph. An engine of TensorRT for
    RTX that no GPU here can run is published unproven: `engine_not_checked` of the result says why.

    Args:
        folder: the bundle.
        options: how the engine is built.
        serialize: builds it from the parsed network, where the bundle is not for TensorRT for RTX.
        note: told who else is at work on the bundle, while that is waited for.
        size: of the images, such as `192x256`, in a bundle of several; None: the bundle's own.

    Raises:
        InputError: no engine belongs to the target; the bundle has no such size, is damaged, or lies in another one, or
            a cache folder beside it is not vitrim's.
        EnvironmentLackError: no TensorRT or no GPU.
        UnsupportedError: TensorRT refuses the graph or an option, or layers run in another precision.

    Returns:
        the bundle's rungs and the engine's, with its identity; it is published only if they passed.
    """
    root = Path(os.path.abspath(folder))
    if os.path.lexists(root):  # else a run that was killed may have left it aside, which `sweep` mends
        target = read_manifest(root).resolved_target
        if target.no_engine:
            raise InputError(f"{root} needs no build: {target.no_engine}")
        serialize = builder_for(target, serialize)
    if options.timing_cache:
        refuse_inside(options.timing_cache, root)
    missing = serialize.missing()
    if missing:
        verify_bundle(root, needs=_NEEDS)
        raise EnvironmentLackError(missing)
    with locked(cache_folder(root), note or (lambda text: None)):
        sweep(root)
        manifest = verify_bundle(root, needs=_NEEDS)
        refuse_foreign(root)
        return _build(root, manifest, options, serialize, size)


def _build(root: Path, manifest: Manifest, options: EngineOptions, serialize: Serializer, size: Any) -> Parity:
    """The engine of a bundle that is whole and held, and the bundle with it."""
    wanted, own_manifest = open_size(root, manifest, size)
    staging = staging_folder(root)
    try:
        shutil.copytree(root, staging, dirs_exist_ok=True)
        files = layout.Sized(staging, wanted.size)
        identity = build_engine(
            files / layout.MODEL,
            files / layout.ENGINE,
            options,
            precision=own_manifest.precision.name,
            pinned=own_manifest.precision.float32_nodes,
            pins_may_miss=True,  # they are those of all the bundle's graphs
            serialize=builder_for(manifest.resolved_target, serialize),
        )
        own = Parity.read(files / layout.PARITY, "parity report")
        result = replace(check_folder(files, _without_engine(own)), engine=identity.brief())
        if result.passed:
            result.write(files / layout.PARITY)
            renew_manifest(staging, manifest.with_engine(files.size))
            publish_bundle(staging, root)
    finally:
        discard(staging, root)
    return result


def _without_engine(parity: Parity) -> Parity:
    """A ladder without the rungs of an engine that was there before, whose place the new one takes."""
    return replace(parity, rungs=tuple(rung for rung in parity.rungs if not rung.name.startswith("tensorrt-")))
