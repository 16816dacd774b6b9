"""One walk of a recipe through the stages: what is opened, what is done, and under which keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...exporter.core import layout
from ...exporter.core.files import sha256
from ...exporter.core.layout import size_name
from ...exporter.core.memory import give_back_memory
from ...exporter.core.preprocess import Preprocess
from ...exporter.core.targets import Target
from ...exporter.pruning.budget import format_budget
from ...exporter.pruning.load import fingerprint, load_slimmed
from ...exporter.pruning.resize import Size, resized
from ...exporter.pruning.widths import read_widths
from ..listener import Listener
from ..pools.choose import ALONE, Crew
from ..schema.recipe import Recipe
from ..stages.provenance import versions
from ..stages.slim import FILE as SLIMMED
from ..stages.stage import Stage, stage_key
from ..stages.view import View
from .cache import StageCache
from .open import Given, Sources
from .recover import open_model


@dataclass
class Run:
    """One walk through the stages.

    Attributes:
        recipe, given: what is asked for, and what Python hands over.
        cache: of finished stages.
        listener: hears progress.
        target: where the graphs will run.
        name, preprocess, classes: of the model.
        sources: the images.
        folders: by name of a stage, its result.
        keys: by name of a stage, what the stages behind it are keyed by.
        made: names of the stages that were not taken from the cache.
        crew: who does what several workers can do.
        size: of images, height and width, where it is not the model's own.
    """

    recipe: Recipe
    given: Given
    cache: StageCache
    listener: Listener
    target: Target
    name: str
    preprocess: Preprocess
    classes: int
    sources: Sources
    folders: dict[str, Path] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    crew: Crew = ALONE
    size: Size | None = None
    _models: dict[str, Any] = field(default_factory=dict)
    _contents: dict[str, str] = field(default_factory=dict)

    def dense(self) -> Any:
        """The model as it came; opened again where it was released."""
        if "dense" not in self._models:
            model = open_model(self.recipe, self.given)
            self._models["dense"] = model if self.size is None else resized(model, self.size)
        return self._models["dense"]

    def model(self) -> Any:
        """The model whose tokens are pruned: what slimming left of it, or the same one."""
        if "slim" not in self.folders:
            return self.dense()
        if "model" not in self._models:
            folder = self.folders["slim"]
            self._models["model"] = load_slimmed(self.dense(), read_widths(folder / layout.WIDTHS), folder / SLIMMED)
        return self._models["model"]

    @property
    def own_size(self) -> str:
        """The size of its images, as bundles write it."""
        return size_name(self.preprocess.input_size[1:])

    def release(self) -> None:
        """Let go of PyTorch's models, and of their memory."""
        if self._models:
            self._models.clear()
            give_back_memory()

    def of(self, recipe: Recipe, target: Target) -> Run:
        """A run of the same model and images for another recipe, with nothing done; what is opened is shared."""
        return replace(self, recipe=recipe, target=target, folders={}, keys={}, made=set())

    def view(self, stage: type[Stage], key: str = "") -> View:
        """The run as a stage sees it."""
        return View(self, stage, key)

    def key_of(self, stage: type[Stage]) -> str:
        """The key of a stage in the cache; those that it needs are done."""
        contents: dict[str, str] = {name: self.content(name) for name in stage.takes}
        return stage_key(stage, self.recipe, contents, self.keys, versions())

    def do(self, stage: type[Stage], fill: Callable[[Path], None] | None = None) -> None:
        """Make a stage, or take it from the cache; skip it where the recipe does not want it.

        Args:
            stage: which.
            fill: fills its folder with what somebody else has made of the same recipe; None: it is made here.
        """
        if not stage.wanted(self.recipe):
            return
        key = self.key_of(stage)
        folder = self.cache.find(stage, key)
        self.listener.stage(stage.name, cached=folder is not None)
        if folder is None:
            own = fill or (lambda fresh: stage.make(self.view(stage, key), fresh))
            folder = self.cache.make(stage, key, own)
            self.made.add(stage.name)
            give_back_memory()
        self.folders[stage.name], self.keys[stage.name] = folder, stage.result_key(folder, key)
        stage.judge(folder)
        if stage.last_of_torch:
            self.release()

    def content(self, name: str) -> str:
        """Hash of an input; of each input once."""
        if name not in self._contents:
            self._contents[name] = self._hash(name)
        return self._contents[name]

    def _hash(self, name: str) -> str:
        if name == "model" and "slim" in self.folders:
            return sha256(self.folders["slim"] / SLIMMED)
        if name in ("model", "dense"):  # two sizes may have equal weights
            return fingerprint(self.dense()) + ("" if self.size is None else size_name(self.size))
        if name == "plan":
            return "" if self.given.plan is None else format_budget(self.given.plan)
        source = self.sources.calibration if name == "calibration" else self.sources.evaluation
        return source.fingerprint()
