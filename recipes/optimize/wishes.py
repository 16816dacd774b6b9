"""What is asked of an ONNX file that comes without a recipe: the sections of one that need no model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from ...exporter.core.errors import InputError
from ...exporter.core.preprocess import Preprocess, check_lengths
from ...exporter.core.targets import GROUPS, Target, get_target
from ...exporter.pruning.budget import first_problem
from ..pipeline.engine import check_engine
from ..schema.keywords import export_keywords, plain
from ..schema.load import override
from ..schema.sections.inputs import ImagesSection, PreprocessOverrides
from ..schema.sections.outputs import BenchSection, EngineSection, ExportSection, ParitySection, PrecisionSection
from ..schema.sections.section import Section
from ..stages.precision import check_precision

_IMAGENET = Preprocess((3, 224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.875, "center")
# Keys that need a model that vitrim knows, and what they say without one.
_OF_A_MODEL: dict[str, Any] = {"input": "float32", "top_k": None, "decisions": False, "sizes": []}


class Wishes(Section):
    """Sections of a recipe, all with their defaults; see there."""

    images: ImagesSection | None = Field(default=None, description="Images; null: random ones, from a seed.")
    preprocess: PreprocessOverrides = Field(default_factory=PreprocessOverrides)
    export: ExportSection = Field(default_factory=ExportSection)
    precision: PrecisionSection = Field(default_factory=PrecisionSection)
    parity: ParitySection = Field(default_factory=ParitySection)
    bench: BenchSection = Field(default_factory=BenchSection)
    engine: EngineSection = Field(default_factory=EngineSection)

    @property
    def target(self) -> Target:
        """Where the graph will run."""
        return get_target(self.export.target)

    @property
    def batch(self) -> int | None:
        """What was asked for; None: what the file has."""
        return self.export.batch if "batch" in self.export.model_fields_set else None

    def preprocess_for(self, shape: Sequence[int]) -> Preprocess:
        """How photos become an image of a shape [batch, channels, height, width]: ImageNet's way, or as asked.

        Raises:
            InputError: mean or deviation are not one a channel.
        """
        channels, height, width = (int(size) for size in shape[1:])
        given = {key: value for key, value in self.preprocess.model_dump().items() if value is not None}
        check_lengths(given.get("mean"), given.get("std"), channels, "preprocess")
        own = {"mean": _IMAGENET.mean, "std": _IMAGENET.std} if channels == 3 else {}
        own = own or {"mean": (0.5,) * channels, "std": (0.5,) * channels}
        return Preprocess.from_dict({**_IMAGENET.to_dict(), **own, **given, "input_size": (channels, height, width)})


def wishes_from(keywords: Mapping[str, Any], settings: Sequence[Any] = ()) -> Wishes:
    """Wishes from keywords, such as `target="jetpack-6"`, and settings, such as `"bench.runs=100"`.

    Args:
        keywords: sections, or keys of `export`, `precision`, `parity`, `bench` or `engine`; see `keywords`.
        settings: as `load.override` takes them; they win.

    Raises:
        InputError: no such key, a value that it does not take, or one that an ONNX file alone cannot have.
    """
    given = {key: value for key, value in keywords.items() if value is not None}
    own = {"preprocess": plain(given.pop("preprocess"))} if "preprocess" in given else {}
    data = override({**export_keywords(given), **own}, settings)
    try:
        wishes = Wishes.model_validate(data)
    except ValidationError as error:
        raise InputError(f"optimize: {first_problem(error)}") from error
    _refuse(wishes)
    return wishes


def _refuse(wishes: Wishes) -> None:
    """What only a model has, and what does not fit together."""
    for key, default in _OF_A_MODEL.items():
        if getattr(wishes.export, key) != default:
            raise InputError(f"export.{key} takes a model that vitrim knows; name it with --as, or leave the key out")
    if wishes.export.target in GROUPS:
        raise InputError(f"export.target is the group {wishes.export.target}; take one of it, see `vitrim targets`")
    if wishes.precision.name == "auto":
        raise InputError("precision.name is auto, which tries nothing out of a file alone; name one")
    if wishes.images is not None and (wishes.images.given or wishes.images.generator == "shapes"):
        raise InputError("images: give a path to photos or to an .npz, or the generator noise")
    if wishes.precision.name == "int8" and (wishes.images is None or wishes.images.path is None):
        raise InputError("precision.name is int8, whose ranges are measured on images; give some by --images")
    check_precision(wishes.precision, wishes.target)
    check_engine(wishes.engine, wishes.target)


def files_of(source: str | os.PathLike[str], wishes: Wishes) -> dict[str, Path]:
    """What a run reads, by what a message calls it."""
    found = {"the ONNX file": Path(source)}
    if wishes.images is not None and wishes.images.path is not None:
        found["the images"] = Path(wishes.images.path)
    return found
