"""What every way from a recipe's `prune` section to a budget may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ....calibration.images.sources import ImageSource
from ....calibration.tokens.presets import get_preset
from ....calibration.tokens.rules import Rule, default_rule
from ....calibration.tokens.scores import Decisions, gather
from ....exporter.core.errors import InputError
from ....exporter.pruning.methods import DEFAULT, get_method
from ....exporter.pruning.methods.base import Method
from ....exporter.pruning.methods.options import parse_parameters
from ....exporter.pruning.plan import Preset
from ....exporter.pruning.shape import ViTShape
from ...listener import Listener
from ...pools.choose import ALONE, Crew
from ...schema.sections.prune import PruneSection


@dataclass(frozen=True)
class Planning:
    """What every way to a budget may look at.

    Attributes:
        prune: the recipe's section.
        multiple: of which numbers of tokens should be multiples.
        batch: of the graph.
        model: the model whose tokens go, perhaps slimmed.
        shape: of it.
        dense: the model before it was slimmed, or `model` itself.
        whole: shape of it.
        source: calibration images; None where Python gave none.
        folder: where the streamed scores go.
        listener: hears progress.
        crew: who judges plans of a search.
        study: where a search's journal lies, by its name; None: nowhere.
    """

    prune: PruneSection
    multiple: int
    batch: int
    model: Any
    shape: ViTShape
    dense: Any
    whole: ViTShape
    source: ImageSource | None
    folder: Path
    listener: Listener
    crew: Crew = ALONE
    study: Callable[[str], Path] | None = None

    @property
    def preset(self) -> Preset | None:
        """The preset that the section names."""
        return None if self.prune.preset is None else get_preset(self.prune.preset)

    @property
    def method(self) -> Method:
        """The preset's method, else the section's, else the best measured."""
        return get_method(self.preset.method if self.preset else self.prune.method or DEFAULT)

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Of the method, every default spelled out; the section's stand over the preset's."""
        given = dict(self.preset.parameters if self.preset else {}) | self.prune.parameters
        return parse_parameters(self.method, given, "prune.parameters").model_dump(mode="json")

    @cached_property
    def rule(self) -> Rule:
        """Where stages sit that the section does not place itself."""
        prune = self.prune
        return default_rule(
            self.shape,
            self.method.name,
            self.parameters,
            blocks=prune.blocks,
            stages=prune.stages,
            similar=prune.similar,
            iterations=prune.iterations,
            final=prune.final and prune.remove is None,
        )

    def images_for(self, what: str) -> ImageSource:
        """The calibration images.

        Raises:
            InputError: there are none; `what` needs them.
        """
        if self.source is None:
            raise InputError(f"{what} is decided on images: give images=, a folder or a loader")
        return self.source

    @cached_property
    def scores(self) -> Decisions | None:
        """The method's scores on the dense model; None where it has none, or there are no images."""
        if not self.method.has_scores or self.source is None:
            return None
        path, progress = self.folder / "importance.npy", self.listener.progress
        return gather(self.model, self.source, self.method.name, self.parameters, path, progress=progress)
