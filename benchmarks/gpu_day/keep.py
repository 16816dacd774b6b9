"""What steps have found, kept in a folder so that nothing is done twice."""

from __future__ import annotations

import hashlib
import json
import statistics
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.records import Record, optional

from .plan import GUESSES, Step
from .results import result_of

SLACK = 1.25  # an estimate is the median times this


@dataclass(frozen=True)
class Outcome(Record):
    """How a step went.

    Attributes:
        step: what was done.
        key: of everything that the result depends on.
        seconds: that it took.
        result: what it found; None where it failed.
        reason: why it failed, in one line.
    """

    step: Step
    key: str
    seconds: float
    result: dict[str, Any] | None = optional()
    reason: str | None = optional()

    def __post_init__(self) -> None:
        if (self.result is None) == (self.reason is None):
            raise ValueError("has neither a result nor a reason, or both")


def digest(*parts: Any) -> str:
    """A short hash of plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


@dataclass
class Keep:
    """The folder of finished steps.

    Args:
        root: the folder; may not exist.
    """

    root: Path
    _known: dict[str, Outcome | None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def path(self, step: Step) -> Path:
        """The file of a step."""
        return self.root / f"{step.name}.json"

    def of(self, step: Step) -> Outcome | None:
        """How a step went the last time; None where it was never done, or its file cannot be read."""
        with self._lock:
            if step.name not in self._known:
                self._known[step.name] = self._read(self.path(step))
            return self._known[step.name]

    def _read(self, path: Path) -> Outcome | None:
        if not path.exists():
            return None
        try:
            found = Outcome.read(path, "step", "benchmarks/engines.py")
            if found.result is not None:
                result_of(found.step, found.result)
            return found
        except InputError:  # of another version, or damaged: then it is done again
            return None

    def found(self, step: Step) -> dict[str, Any] | None:
        """What a step found; None where it failed or was never done."""
        outcome = self.of(step)
        return None if outcome is None else outcome.result

    def put(self, outcome: Outcome) -> None:
        """Keep how a step went."""
        with self._lock:
            self._known[outcome.step.name] = outcome
            outcome.write(self.path(outcome.step))

    def estimate(self, step: Step) -> float:
        """Seconds that a step will take, from those of its kind that are done, of its own model if there are some."""
        with self._lock:
            done = [one for one in self._known.values() if one is not None and one.result is not None]
        alike = [one for one in done if (one.step.kind, one.step.variant) == (step.kind, step.variant)]
        own = [one.seconds for one in alike if (one.step.model, one.step.batch) == (step.model, step.batch)]
        own = own or [one.seconds for one in alike if one.step.model == step.model] or [one.seconds for one in alike]
        return SLACK * statistics.median(own) if own else float(GUESSES[step.kind])

    def key(self, step: Step, facts: Mapping[str, Any]) -> str:
        """The key of a step's result: the step, what its needs have made, and the facts that it depends on.

        Args:
            step: whose needs are done.
            facts: of the code or the machine.
        """
        made = [(self.found(other) or {}).get("sha256") for other in step.needs]
        return digest(step.to_json(), made, dict(facts))
