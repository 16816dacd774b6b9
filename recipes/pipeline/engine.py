"""The engine of a bundle that is being made: whether one is built here, and its proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...exporter.core import layout
from ...exporter.core.errors import EnvironmentLackError, InputError, ParityError
from ...exporter.core.targets import Target
from ...exporter.runtime.commands.check import check_folder
from ...exporter.runtime.parity import Parity
from ...exporter.runtime.tensorrt.engine import build_engine
from ...exporter.runtime.tensorrt.identity import EngineIdentity
from ...exporter.runtime.tensorrt.options import EngineOptions
from ...exporter.runtime.tensorrt.polygraphy_build import by_polygraphy
from ...exporter.runtime.tensorrt.rtx_build import builder_for
from ..schema.sections.outputs import EngineSection


def check_engine(section: EngineSection, target: Target) -> None:
    """Refuse compute capabilities of a target whose engines are for the GPU that they are built on.

    Raises:
        InputError: naming the key.
    """
    if section.capabilities and target.rtx is None:
        raise InputError(f"engine.capabilities: those are for the target trt-rtx, and the target is {target.name}")


def engine_missing(target: Target, mode: str) -> str | None:
    """Why no engine is built of a target's graphs here; None where one is.

    Raises:
        EnvironmentLackError: the mode requires one.
    """
    why = target.no_engine
    if why is None:
        why = builder_for(target, by_polygraphy).missing() if mode != "skip" else "skipped by the recipe"
    if mode == "require" and why:
        raise EnvironmentLackError(f"an engine is required, but {why}")
    if why is None and target.runtime != "tensorrt":
        return f"the target {target.name} is no TensorRT target"
    return why


def build_into(
    staging: Path | layout.Sized, target: Target, section: EngineSection, precision: Mapping[str, Any]
) -> EngineIdentity:
    """Build the engine of a folder's graph into it, and hold it against the golden outputs like the graph before it.

    Args:
        staging: with the graph, `golden.npz` and `parity.json`, which gets the engine's rungs; perhaps those of one of
            several image sizes.
        target, section: of the graph.
        precision: as a manifest has it.

    Raises:
        ParityError: the engine fails where the graph passed.
    """
    identity = build_engine(
        staging / layout.MODEL,
        staging / layout.ENGINE,
        EngineOptions(workspace_mib=section.workspace_mib, capabilities=tuple(section.capabilities)),
        precision=precision["name"],
        pinned=precision["float32_nodes"],
        pins_may_miss=True,
        serialize=builder_for(target, by_polygraphy),
    )
    held = check_folder(staging, Parity.read(staging / layout.PARITY, "parity report"))
    parity = replace(held, engine=identity.brief())
    parity.write(staging / layout.PARITY)
    if not parity.passed:
        raise ParityError(parity.failure)
    return identity
