"""What a tracker keeps of a bundle: its recipe as parameters, its reports as metrics and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...exporter.core import layout
from ..report.sources import BundleFacts, read_bundle

# Graphs, engines, golden images and the script stay out: they are large, or carry the user's photos.
KEPT = (
    layout.MANIFEST,
    layout.README,
    layout.RECIPE,
    layout.BUDGET,
    layout.WIDTHS,
    layout.PARITY,
    layout.FIDELITY,
    layout.BENCH,
    layout.PRECISION,
    layout.GATE,
    layout.CHOICE,
    layout.PASSES,
)


@dataclass(frozen=True)
class Facts:
    """Of one bundle.

    Attributes:
        name: of its folder.
        parameters: the recipe's values by key such as `prune.target.gflops`; what is null is left out.
        metrics: by name such as `agreement` or `pruned.median_ms`.
        tags: versions and the target.
        files: reports to keep.
    """

    name: str
    parameters: dict[str, Any]
    metrics: dict[str, float]
    tags: dict[str, str]
    files: tuple[Path, ...]


def facts_of(folder: Path) -> Facts:
    """Read a bundle.

    Raises:
        InputError: it is damaged, or no bundle.
    """
    found = read_bundle(folder)
    recipe = yaml.safe_load(found.recipe) if found.recipe else {}
    return Facts(
        name=found.name,
        parameters=dict(_flat(recipe or {})),
        metrics={key: float(value) for key, value in _metrics(found) if value is not None},
        tags=_tags(found),
        files=tuple(folder / name for name in KEPT if (folder / name).is_file()),
    )


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        elif value is not None:
            yield f"{before}{key}", value


def _metrics(found: BundleFacts) -> Iterator[tuple[str, float | None]]:
    yield "parity.passed", found.parity.passed
    yield "parity.smallest_atol", found.parity.smallest_atol
    if found.budget is not None:
        yield from ((f"gmacs.{kind}", value) for kind, value in found.budget.gmacs.items())
        yield "tokens.last", found.budget.blocks[-1].after
    if found.fidelity is not None:
        one = found.fidelity
        yield from (("agreement", one.agreement), ("agreement.low", one.agreement_interval[0]))
        yield from (("kl", one.kl), ("cosine", one.cosine))
        yield from (("top1.dense", one.accuracy_dense), ("top1.pruned", one.accuracy_pruned))
    if found.bench is not None:
        yield from (("speedup", found.bench.speedup), ("overhead", found.bench.overhead))
        yield from ((f"{kind}.median_ms", times.median) for kind, times in found.bench.distributions.items())


def _tags(found: BundleFacts) -> dict[str, str]:
    manifest = found.manifest
    versions = {f"version.{name}": version for name, version in manifest.versions.items() if version}
    return {"target": manifest.target or "ort-cpu", "precision": manifest.precision.name, **versions}
