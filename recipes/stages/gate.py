"""The stage that holds what was measured against what the recipe requires; what fails is not published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...exporter.core import layout
from ...exporter.core.errors import InputError
from ...exporter.core.fidelity import Fidelity
from ...exporter.core.gate import gate_of
from ...exporter.core.outcome import AGREEMENT, TOP1_DROP, Figure
from ...exporter.runtime.bench.report import LATER, Bench
from .bench import Bench as BenchStage
from .stage import Stage

if TYPE_CHECKING:
    from ..schema.recipe import Recipe
    from .view import View

SPEEDUP, OVERHEAD = "speedup", "overhead"


class Gate(Stage):
    """`gate.json`; nothing where the recipe requires nothing."""

    name = "gate"
    needs = ("fidelity", "bench")
    reads = ("require",)
    timed = True  # as it judges what was timed

    @staticmethod
    def wanted(recipe: Recipe) -> bool:
        """Where something is required."""
        return bool(recipe.require.given)

    @staticmethod
    def make(view: View, folder: Path) -> None:
        """Read what the stages before have measured."""
        required = view.recipe.require.given
        answers = Fidelity.read(view.folder("fidelity") / layout.FIDELITY, "fidelity report")
        timed = view.folder_if_any("bench")
        file = None if timed is None else timed / layout.BENCH
        bench = Bench.read(file, "benchmark") if file is not None and file.exists() else None
        found = {measure.name: measure.read(answers) for measure in (AGREEMENT, TOP1_DROP) if measure.name in required}
        speeds, why = speeds_of(bench)
        gate_of(required, {**found, **speeds}, why).write(folder / layout.GATE)


def speeds_of(bench: Bench | None) -> tuple[dict[str, Figure], dict[str, str]]:
    """Speed-up and overhead of a benchmark; of what it does not say, why not."""
    if bench is None or bench.cpu_only is not None:
        why = LATER if bench is None else "only a CPU ran it, which says nothing of its target"
        return {}, dict.fromkeys((SPEEDUP, OVERHEAD), why)
    found = {
        key: Figure(ratio.median, ratio.interval) for key, ratio in bench.ratios.items() if key in (SPEEDUP, OVERHEAD)
    }
    return found, {OVERHEAD: "without a token plan there is no floor"}


def check_require(recipe: Recipe) -> None:
    """Refuse before any work what no run could judge.

    Raises:
        InputError: naming the key.
    """
    required = recipe.require.given
    speeds = [key for key in (SPEEDUP, OVERHEAD) if key in required]
    if speeds and not BenchStage.wanted(recipe):
        raise InputError(
            f"require.{speeds[0]} is judged by timing, but {recipe.export.target} is timed on its device and not here; "
            "take it out"
        )
    if OVERHEAD in required and recipe.prune is None:
        raise InputError("require.overhead is over the floor of a token plan, but the recipe has no prune section")
