"""Runs in Weights & Biases, as $WANDB_PROJECT, $WANDB_MODE and the others say."""

from __future__ import annotations

import re
from typing import Any

from ...exporter.core.errors import EnvironmentLackError, excerpt
from .facts import Facts

_STRANGE = re.compile(r"[^A-Za-z0-9_.-]")  # in an artifact's name


class WandbTracker:
    """A run of Weights & Biases: the one that is active, which stays so, or a new one.

    Raises:
        EnvironmentLackError: wandb is not installed, or no run can be begun.
    """

    def __init__(self) -> None:
        try:
            import wandb
        except ImportError as error:
            raise EnvironmentLackError("wandb is not installed: pip install 'vitrim[wandb]'") from error
        self._wandb: Any = wandb
        self._own = wandb.run is None
        try:
            self._run: Any = wandb.init() if self._own else wandb.run
        except Exception as error:
            raise EnvironmentLackError(f"Weights & Biases begins no run: {excerpt(str(error), 200)}") from error

    def metrics(self, values: dict[str, float]) -> None:
        """Keep numbers by name."""
        self._run.summary.update(values)

    def facts(self, facts: Facts) -> None:
        """Keep a bundle's parameters, metrics, tags and reports; a new run takes its name."""
        self._run.config.update({**facts.parameters, **facts.tags}, allow_val_change=True)
        self._run.summary.update(facts.metrics)
        if self._own:
            self._run.name = facts.name
        kept = self._wandb.Artifact(_STRANGE.sub("_", facts.name) or "bundle", type="vitrim-reports")
        for file in facts.files:
            kept.add_file(str(file))
        self._run.log_artifact(kept)

    def end(self, error: BaseException | None) -> None:
        """End a run of our own, as failed where something was raised."""
        if error is not None:
            self._run.summary.update({"error": excerpt(str(error) or type(error).__name__, 500)})
        if self._own:
            self._run.finish(exit_code=0 if error is None else 1)
