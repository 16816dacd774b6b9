"""Runs in MLflow, wherever $MLFLOW_TRACKING_URI and $MLFLOW_EXPERIMENT_NAME say."""

from __future__ import annotations

from itertools import islice
from typing import Any

from ...exporter.core.errors import EnvironmentLackError, excerpt
from .facts import Facts

_LONGEST = 500  # characters of a parameter, in any version
_AT_ONCE = 100  # parameters in one call


class MlflowTracker:
    """A run of MLflow: the one that is active, which stays so, or a new one.

    Raises:
        EnvironmentLackError: mlflow is not installed, or no run can be begun.
    """

    def __init__(self) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise EnvironmentLackError("mlflow is not installed: pip install 'vitrim[mlflow]'") from error
        self._mlflow: Any = mlflow
        self._own = mlflow.active_run() is None
        try:
            if self._own:
                mlflow.start_run()
        except Exception as error:
            raise EnvironmentLackError(f"MLflow begins no run: {excerpt(str(error), 200)}") from error

    def metrics(self, values: dict[str, float]) -> None:
        """Keep numbers by name."""
        self._mlflow.log_metrics(values)

    def facts(self, facts: Facts) -> None:
        """Keep a bundle's parameters, metrics, tags and reports; a new run takes its name."""
        left = iter({key: str(value)[:_LONGEST] for key, value in facts.parameters.items()}.items())
        while some := dict(islice(left, _AT_ONCE)):
            self._mlflow.log_params(some)
        self._mlflow.log_metrics(facts.metrics)
        self._mlflow.set_tags({**facts.tags, **({"mlflow.runName": facts.name} if self._own else {})})
        for file in facts.files:
            self._mlflow.log_artifact(str(file), artifact_path=facts.name)

    def end(self, error: BaseException | None) -> None:
        """End a run of our own, as failed where something was raised."""
        if error is not None:
            self._mlflow.set_tag("error", excerpt(str(error) or type(error).__name__, _LONGEST))
        if self._own:
            self._mlflow.end_run("FINISHED" if error is None else "FAILED")
