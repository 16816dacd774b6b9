"""What one stage may see of a run: what it declares, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from ...calibration.images.sources import ImageSource
    from ...exporter.core.preprocess import Preprocess
    from ...exporter.pruning.budget import Budget
    from ..listener import Listener
    from ..pipeline.walk import Run
    from ..pools.choose import Crew
    from ..schema.recipe import Recipe
    from .stage import Stage


class UndeclaredError(AssertionError):
    """A stage looked at something that its declaration does not name: its cache key would miss it."""


class View:
    """A run as one stage sees it.

    Attributes:
        listener: hears progress and what the user should know.
    """

    def __init__(self, run: Run, stage: type[Stage], key: str = "") -> None:
        self._run, self._stage, self._key = run, stage, key
        self.listener: Listener = run.listener

    @property
    def recipe(self) -> Recipe:
        """The recipe, of which only the declared keys can be read."""
        return cast("Recipe", Declared(self._run.recipe, self._stage, ""))

    def folder(self, stage: str) -> Path:
        """The result of a stage that is needed."""
        folder = self.folder_if_any(stage)
        assert folder is not None, f"{stage} is not wanted by this recipe"
        return folder

    def folder_if_any(self, stage: str) -> Path | None:
        """The result of a stage that is needed; None where the recipe does not want it."""
        self._require(stage in self._stage.needs, f"the result of {stage}")
        return self._run.folders.get(stage)

    def made_now(self, stage: str) -> bool:
        """Whether a needed stage was made in this run, not taken from the cache."""
        self._require(stage in self._stage.needs, f"the result of {stage}")
        return stage in self._run.made

    def lasting_file(self, name: str, suffix: str) -> Path:
        """A file of the stage that outlives a run that was stopped in it; bound to the stage's key."""
        return self._run.cache.root / f"{name}-{self._key}{suffix}"

    def study_file(self, name: str) -> Path:
        """The journal of a search, which is bound to its name alone: a search that asks for more plans goes on."""
        return self._run.cache.root / f"search-{name}.journal"

    @property
    def crew(self) -> Crew:
        """Who does the work, of which no result depends but in the order of what is tried."""
        return self._run.crew

    @property
    def model(self) -> Any:
        """The model whose tokens are pruned."""
        return self._take("model", lambda: self._run.model())

    @property
    def dense(self) -> Any:
        """The model as it came."""
        return self._take("dense", lambda: self._run.dense())

    @property
    def plan(self) -> Budget | None:
        """A budget that Python hands over; None where it has to be decided."""
        return cast("Budget | None", self._take("plan", lambda: self._run.given.plan))

    @property
    def calibration(self) -> ImageSource:
        """Images that decisions are made on."""
        return cast("ImageSource", self._take("calibration", lambda: self._run.sources.calibration))

    @property
    def evaluation(self) -> ImageSource:
        """Images that answers are measured on."""
        return cast("ImageSource", self._take("evaluation", lambda: self._run.sources.evaluation))

    @property
    def disjoint(self) -> bool:
        """Whether no image is for both."""
        self._require({"calibration", "evaluation"} <= set(self._stage.takes), "whether the images are disjoint")
        return self._run.sources.disjoint

    @property
    def preprocess(self) -> Preprocess:
        """How images become inputs: part of the content of both image sources."""
        self._require({"calibration", "evaluation"} & set(self._stage.takes) != set(), "the preprocessing")
        return self._run.preprocess

    def _take(self, name: str, get: Callable[[], Any]) -> Any:
        self._require(name in self._stage.takes, f"the input {name}")
        return get()

    def _require(self, declared: bool, what: str) -> None:
        if not declared:
            raise UndeclaredError(f"the stage {self._stage.name} uses {what} and does not declare it")


class Declared:
    """A section of a recipe of which only some keys can be read."""

    def __init__(self, section: Any, stage: type[Stage], path: str) -> None:
        self._section, self._stage, self._path = section, stage, path

    def __getattr__(self, name: str) -> Any:
        path = f"{self._path}.{name}" if self._path else name
        value = getattr(self._section, name)
        if any(path == key or path.startswith(f"{key}.") for key in self._stage.reads):
            return value
        if any(key.startswith(f"{path}.") for key in self._stage.reads):
            return None if value is None else Declared(value, self._stage, path)
        raise UndeclaredError(f"the stage {self._stage.name} reads {path} of the recipe and does not declare it")
