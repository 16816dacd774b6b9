"""The kernels of a bundle's engine, beside those of the same plan by slicing and of the dense model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_graphsurgeon as gs

from ...exporter.core import layout
from ...exporter.core.errors import EnvironmentLackError, InputError
from ...exporter.core.layout import Kind
from ...exporter.core.records import Record
from ...exporter.core.targets import Precision
from ...exporter.graph.files import read_whole, save
from ...exporter.graph.precision.float32_nodes import wide_nodes
from ...exporter.graph.precision.half import to_half
from ...exporter.graph.shapes import with_shapes
from ...exporter.runtime.bundles.manifest import Manifest
from ...exporter.runtime.tensorrt.engine import build_engine
from ...exporter.runtime.tensorrt.identity import EngineIdentity, read_identity
from ...exporter.runtime.tensorrt.inventory import Kernel, beyond, by_part, place_of
from ...exporter.runtime.tensorrt.options import EngineOptions
from ...exporter.runtime.tensorrt.polygraphy_build import by_polygraphy
from ...exporter.runtime.tensorrt.rtx_build import builder_for
from ...exporter.runtime.tensorrt.serializer import Serializer
from ...exporter.runtime.tensorrt.summary import LayerSummary


@dataclass(frozen=True)
class PartKernels(Record):
    """Kernels of one part of a model.

    Attributes:
        part: see `wiring.Wiring.parts`; None for kernels whose part is unknown.
        kernels: how many there are.
        does: how many do what, see `inventory.Kernel`.
        beyond_floor: how many more than by slicing, of a block with the stage in it: on the last line of a block; None
            on its other line, and where the floor was not built.
    """

    part: str | None
    kernels: int
    does: dict[str, int]
    beyond_floor: int | None


@dataclass(frozen=True)
class BundleKernels(Record):
    """The kernels of a bundle's engine.

    Attributes:
        tensorrt: that built it, family and version.
        precision: of the graph.
        total: how many there are.
        floor, dense: kernels of the same plan by slicing, and of the dense model, in the same precision; None where
            they were not built.
        not_built: why not, by kind.
        parts: by part, in the order of the model.
        layers: what they compute in, and the attentions.
        kernels: each of them.
    """

    tensorrt: str
    precision: str
    total: int
    floor: int | None
    dense: int | None
    not_built: dict[str, str]
    parts: tuple[PartKernels, ...]
    layers: LayerSummary
    kernels: tuple[Kernel, ...]


def bundle_kernels(root: layout.Sized, manifest: Manifest) -> BundleKernels:
    """See `vitrim.api.inspect`; the others are built to be counted, where that needs no GPU.

    Args:
        root: the files of one image size of a bundle, which have been verified.
        manifest: what it says of them.

    Raises:
        InputError: the bundle has no engine, or one that was built before kernels were kept.
    """
    if not (root / layout.ENGINE).exists():
        raise InputError(
            f"{root} has no {(root / layout.ENGINE).name}, whose kernels could be listed: vitrim build {root}"
        )
    own = read_identity(root / layout.ENGINE)
    if own.kernels is None or own.layers is None:
        raise InputError(f"{root / layout.ENGINE} was built before kernels were kept: vitrim build {root}")
    builder, name = builder_for(manifest.resolved_target, by_polygraphy), manifest.precision.name
    pinned = manifest.precision.float32_nodes
    counts: dict[str, tuple[Kernel, ...]] = {}
    not_built: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Callable[[], Path]] = {
            Kind.FLOOR: lambda: _graph(root, Kind.FLOOR),
            Kind.DENSE: lambda: _dense(_graph(root, Kind.DENSE), name, Path(folder)),
        }
        for kind, find in ways.items():
            try:
                counts[kind] = count_kernels(find(), Path(folder), name, pinned, builder).kernels or ()
            except (InputError, EnvironmentLackError) as error:
                not_built[kind] = str(error)
    title = f"{builder.family.title} {own.tensorrt}"
    return found_kernels(title, name, own.kernels, own.layers, counts, not_built)


def found_kernels(
    tensorrt: str,
    precision: str,
    kernels: tuple[Kernel, ...],
    layers: LayerSummary,
    others: Mapping[str, tuple[Kernel, ...]],
    not_built: dict[str, str],
) -> BundleKernels:
    """What is told of an engine's kernels.

    Args:
        tensorrt, precision, kernels, layers, not_built: see `BundleKernels`.
        others: by kind, the kernels of the floor and of the dense model, as far as they were built.
    """
    floor, dense = others.get(Kind.FLOOR), others.get(Kind.DENSE)
    return BundleKernels(
        tensorrt=tensorrt,
        precision=precision,
        total=len(kernels),
        floor=None if floor is None else len(floor),
        dense=None if dense is None else len(dense),
        not_built=not_built,
        parts=_parts(kernels, floor),
        layers=layers,
        kernels=kernels,
    )


def count_kernels(
    onnx: Path, folder: Path, precision: Precision, pinned: Sequence[str], builder: Serializer
) -> EngineIdentity:
    """Build an engine only to look into it.

    Args:
        onnx: the graph, in `precision`.
        folder: for the engine, which is thrown away.
        pinned: nodes that stay in float32; those that the graph has not are left out.
        builder: one that needs no GPU.

    Raises:
        EnvironmentLackError: the builder needs one, or is not here.
    """
    if not builder.family.builds_anywhere:
        raise EnvironmentLackError(f"{builder.family.title} builds on a GPU alone, which is not done to count kernels")
    options, engine = EngineOptions(timing_cache=False, strict=False), folder / "counted.engine"
    identity = build_engine(
        onnx, engine, options, precision=precision, pinned=pinned, pins_may_miss=True, serialize=builder
    )
    engine.unlink()
    return identity


def _graph(root: layout.Sized, kind: Kind) -> Path:
    path = root / kind.filename
    if not path.exists():
        raise InputError(f"{root} has no {path.name}")
    return path


def _dense(path: Path, precision: Precision, folder: Path) -> Path:
    """The dense graph, which bundles hold in float32, in the precision of the others."""
    if precision == "fp32":
        return path
    if precision == "int8":
        raise InputError("the bundle has the dense model in float32 alone, and int8 would need images")
    model = with_shapes(read_whole(path))
    save(to_half(model, precision, wide_nodes(gs.import_onnx(model))).model, folder / path.name)
    return folder / path.name


def _parts(kernels: Sequence[Kernel], floor: Sequence[Kernel] | None) -> tuple[PartKernels, ...]:
    more = {} if floor is None else beyond(kernels, floor)
    parts = by_part(kernels)
    last = {place_of(part): part for part in parts}
    rows: list[PartKernels] = []
    for part, does in parts.items():
        place = place_of(part)
        counts = {str(name): count for name, count in does.items()}
        ends = floor is not None and last[place] == part
        rows.append(PartKernels(part, does.total(), counts, more.get(place, 0) if ends else None))
    return tuple(rows)
