"""What a report is of: bundles, benchmarks that other machines made, sweeps, evaluations. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ...exporter.core import layout
from ...exporter.core.errors import InputError
from ...exporter.core.fidelity import Fidelity
from ...exporter.core.files import sha256
from ...exporter.core.gate import Gate
from ...exporter.core.inputs import InputKind, is_folder, read_text
from ...exporter.graph.precision.report import PrecisionReport
from ...exporter.pruning.budget import Budget, read_budget
from ...exporter.runtime.bench.compare import Comparison, compare, read_bench
from ...exporter.runtime.bench.report import Bench, TimedBundle
from ...exporter.runtime.bundles.golden import load_golden, load_labels
from ...exporter.runtime.bundles.manifest import Manifest
from ...exporter.runtime.bundles.verify import verify_bundle
from ...exporter.runtime.lines import promise_lines
from ...exporter.runtime.parity import Parity
from ...exporter.runtime.tensorrt.identity import EngineIdentity, read_identity
from ..evaluation.result import Evaluation, is_evaluation, read_evaluation
from ..sweep.result import Sweep, is_sweep, read_sweep


@dataclass(frozen=True)
class BundleFacts:
    """What lies in a bundle, read and verified.

    Attributes:
        folder, manifest: its own.
        recipe: its text.
        golden: see `load_golden`.
        parity, fidelity: proof and answers.
        budget, bench, precision, engine, gate: None where the bundle has none.
        labels: names of the classes; None where the bundle has none.
    """

    folder: Path
    manifest: Manifest
    recipe: str
    golden: dict[str, np.ndarray]
    parity: Parity
    fidelity: Fidelity | None
    budget: Budget | None
    bench: Bench | None
    precision: PrecisionReport | None
    engine: EngineIdentity | None
    gate: Gate | None = None
    labels: list[str] | None = None

    @property
    def promises(self) -> list[str]:
        """What was asked of the answers and what was required, and whether it holds: lines for a person.

        Of a bundle of several image sizes the first line says which one all of this is about.
        """
        others = ", ".join(self.manifest.sizes or {})
        told = f"Image size {self.manifest.own_size}; of its further sizes ({others}) nothing is shown"
        lines = [told] if others else []
        asked = None if self.budget is None else self.budget.statistics
        return [*lines, *promise_lines(asked, self.bench, self.gate)]

    @property
    def name(self) -> str:
        """The folder's own, for titles."""
        return self.folder.resolve().name

    @cached_property
    def sha256(self) -> str:
        """Of the manifest, and so of all."""
        return sha256(self.folder / layout.MANIFEST)


@dataclass(frozen=True)
class Sources:
    """Everything that a report is made of.

    Attributes:
        bundles: in the order that they were named.
        benches: every benchmark by its name, those of the bundles too.
        comparison: of the benchmarks; None where there are fewer than two.
        sweeps: by the folder's name, or of a second one of that name by its path.
        evaluations: by the file's name, in the same way.
    """

    bundles: tuple[BundleFacts, ...]
    benches: dict[str, Bench]
    comparison: Comparison | None
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)

    def evaluated(self, evaluation: Evaluation) -> BundleFacts | None:
        """The bundle that an evaluation is of; None where it is not in the report, or another one by now."""
        return next((one for one in self.bundles if one.sha256 == evaluation.bundle_sha256), None)

    def counted(self, facts: BundleFacts) -> list[Bench]:
        """Benchmarks that have the time by block of a bundle's own graphs."""
        own = TimedBundle.of(facts.manifest)
        of = (own.graph_sha256, own.dense_sha256)
        found = [one for one in self.benches.values() if one.by_block is not None and one.bundle is not None]
        return [one for one in found if one.bundle and (one.bundle.graph_sha256, one.bundle.dense_sha256) == of]


def read_sources(paths: Sequence[str | os.PathLike[str]]) -> Sources:
    """Read what a report is of.

    Args:
        paths: bundles, sweeps, and files that `vitrim bench -o`, `run_on_device.py bench -o` or `vitrim evaluate -o`
            wrote.

    Raises:
        InputError: nothing is named, or something is neither, or damaged.
    """
    if not paths:
        raise InputError(
            "name a bundle, a sweep, or a file of `vitrim bench BUNDLE -o FILE` or `vitrim evaluate BUNDLE -o FILE`, "
            "to report on"
        )
    bundles, timed = list[BundleFacts](), list[str | os.PathLike[str]]()
    sweeps, evaluations = dict[str, Sweep](), dict[str, Evaluation]()
    for path in paths:
        name = Path(path).resolve().name
        if not is_folder(Path(path)):
            if is_evaluation(path):
                evaluations[os.fspath(path) if name in evaluations else name] = read_evaluation(path)
            else:
                timed.append(path)
            continue
        if is_sweep(Path(path)):
            sweeps[os.fspath(path) if name in sweeps else name] = read_sweep(Path(path))
            continue
        found = read_bundle(Path(path))
        bundles.append(found)
        timed += [] if found.bench is None else [path]
    comparison = compare(timed) if len(timed) > 1 else None
    names = [row.name for row in comparison.rows] if comparison else [Path(path).name for path in timed]
    benches = {name: read_bench(path) for name, path in zip(names, timed, strict=True)}
    return Sources(tuple(bundles), benches, comparison, sweeps, evaluations)


def read_bundle(folder: Path) -> BundleFacts:
    """A bundle's facts, every file of it verified.

    Raises:
        InputError: it is damaged, or no bundle.
    """
    manifest = verify_bundle(folder, needs=(layout.PARITY, layout.GOLDEN, layout.MODEL))
    has = set(manifest.files).__contains__
    return BundleFacts(
        folder=folder,
        manifest=manifest,
        recipe=read_text(folder / layout.RECIPE, InputKind.RECIPE) if has(layout.RECIPE) else "",
        golden=load_golden(folder),
        parity=Parity.read(folder / layout.PARITY, "parity report"),
        fidelity=Fidelity.read(folder / layout.FIDELITY, "fidelity report") if has(layout.FIDELITY) else None,
        budget=read_budget(folder / layout.BUDGET) if has(layout.BUDGET) else None,
        bench=read_bench(folder) if has(layout.BENCH) else None,
        precision=PrecisionReport.read(folder / layout.PRECISION, "precision report")
        if has(layout.PRECISION)
        else None,
        engine=read_identity(folder / layout.ENGINE) if has(layout.ENGINE) else None,
        gate=Gate.read(folder / layout.GATE, "gate") if has(layout.GATE) else None,
        labels=load_labels(folder, manifest),
    )
