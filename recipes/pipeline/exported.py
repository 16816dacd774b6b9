"""What an export found and made, as results: of every image size, and of the whole bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...exporter.core import layout
from ...exporter.core.fidelity import Fidelity
from ...exporter.core.gate import Gate
from ...exporter.graph.precision.report import PrecisionReport
from ...exporter.pruning.budget import Budget
from ...exporter.pruning.widths import Widths
from ...exporter.runtime.bench.choice import Choice
from ...exporter.runtime.bench.report import Bench
from ...exporter.runtime.bundles.manifest import open_size, read_manifest
from ...exporter.runtime.parity import Parity
from ...exporter.runtime.runners import OrtRunner
from ...exporter.runtime.tensorrt.identity import EngineIdentity
from ..schema.recipe import Recipe


@dataclass(frozen=True)
class Reports:
    """What the stages found, as a bundle holds it.

    Attributes:
        parity: every rung of the proof.
        fidelity: what pruning costs in answers.
        bench: the graphs timed on this machine; None where their target does not run here.
        precision: what was decided; None where float32 was asked for.
        engine: what the engine is; None where none was built.
        gate: whether what the recipe requires holds; None where it requires nothing.
        budget: the token plan; None where tokens are not pruned.
        sizes: of a bundle's own image size, what was found at the further ones, by their names.
    """

    parity: Parity
    fidelity: Fidelity
    bench: Bench | None
    precision: PrecisionReport | None
    engine: EngineIdentity | None = None
    gate: Gate | None = None
    budget: Budget | None = None
    sizes: Mapping[str, Reports] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return plain_reports(self)


@dataclass(frozen=True)
class Exported:
    """What an export made.

    Attributes:
        folder: the published bundle.
        recipe: that it was made from.
        budget: the token plan; None where tokens are not pruned.
        widths: what slimming kept; None where the model was not slimmed.
        parity: every rung of the proof.
        fidelity: what pruning costs in answers.
        bench: the graphs timed on this machine; None where their target does not run here.
        precision: what was decided; None where float32 was asked for.
        engine: why no engine was built, or None when there is one.
        choice: what was tried, where the recipe left the target or the precision open.
        gate: whether what the recipe requires holds; None where it requires nothing.
        size: of the images, such as `224x224`.
        sizes: by further image size, what was found there.
        report: the page that was written of the bundle; None where none was asked for, or could be written.
        no_report: why one that was asked for was not written.
    """

    folder: Path
    recipe: Recipe
    budget: Budget | None
    widths: Widths | None
    parity: Parity
    fidelity: Fidelity
    bench: Bench | None
    precision: PrecisionReport | None
    engine: str | None
    choice: Choice | None = None
    gate: Gate | None = None
    size: str = ""
    sizes: Mapping[str, Reports] = field(default_factory=dict)
    report: Path | None = None
    no_report: str | None = None

    def runner(self, size: str | None = None) -> OrtRunner:
        """The pruned graph behind onnxruntime on the CPU, of a further size where one is named: call it with a batch.

        Raises:
            InputError: there is no such size.
        """
        files, _ = open_size(self.folder, read_manifest(self.folder), size)
        return OrtRunner(files / layout.MODEL)

    def _repr_html_(self) -> str | None:
        """The report of the bundle, for a notebook; see `recipes.report`."""
        from ..report.write import in_frame

        return in_frame(self.folder, photos=4)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        sizes = {size: found.to_json() for size, found in self.sizes.items()}
        return {
            "folder": str(self.folder),
            "widths": None if self.widths is None else self.widths.model_dump(mode="json"),
            **plain_reports(self),
            "engine": self.engine or "built",
            **({} if self.choice is None else {"choice": self.choice.to_json()}),
            **({"size": self.size, "sizes": sizes} if sizes else {}),
            "report": None if self.report is None else str(self.report),
            **({} if self.no_report is None else {"no_report": self.no_report}),
        }


def plain_reports(found: Reports | Exported) -> dict[str, Any]:
    """What was found at one image size, as plain data."""
    return {
        "budget": None if found.budget is None else found.budget.model_dump(mode="json"),
        "parity": found.parity.to_json(),
        "fidelity": found.fidelity.to_json(),
        "bench": None if found.bench is None else found.bench.to_json(),
        "precision": None if found.precision is None else found.precision.to_json(),
        **({} if found.gate is None else {"gate": found.gate.to_json()}),
    }
