"""What the best reachable plan of `frugal` loses at a cost, and whether a plan found on one model holds on another.

    python benchmarks/reachable.py --data DATA --trials 200
    python benchmarks/reachable.py --data DATA --trials 400      # goes on from there

DATA is described at the top of measure.py. For DeiT-Ti and ViT-Ti and every cost, Optuna searches placement, counts,
the stages' weights and the exponent from two starts: the rule's plan, of at most four stages, and the one that the
preset `frugal-8` places, of at most eight. Plans are tuned on some photos of even classes. Rules, plans found, and the
plans found on the other model are then held against the dense model on even classes that no search saw, and on all
photos of odd classes, in PyTorch. Nothing is chosen by the odd ones. It needs `pip install 'vitrim[search]'`. A study
lies in --cache and goes on after any end. Written to results/reachable.json and .md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from measure import MODELS, Subject, all_answers, as_subject, command, interval, load_model, open_subject, tokens_of

import vitrim
from vitrim.calibration.images.listing import open_images
from vitrim.calibration.images.sources import ImageSource, choose
from vitrim.calibration.tokens.presets import get_preset
from vitrim.exporter.core.answers import divergence, same_top
from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.pruning.budget import Budget
from vitrim.exporter.pruning.load import preprocessing

METHOD = "frugal"
COSTS = (0.81, 0.70, 0.60)  # GMACs
STARTS = {4: None, 8: [stage.block for stage in get_preset("frugal-8").stages]}  # by stages: blocks, or the rule's
RULE, FOUND, OTHER = "rule", "found", "found on the other model"


@dataclass(frozen=True)
class Case:
    """One search.

    Attributes:
        label: of the model, of `MODELS`.
        gmacs: that a plan may cost.
        stages: of the plan that it starts at, and so the most that a plan may have.
    """

    label: str
    gmacs: float
    stages: int


@dataclass(frozen=True)
class Tuning:
    """What all searches have in common.

    Attributes:
        data: weights and photos.
        images: photos of even classes that plans are judged on.
        trials: plans of a search.
        cache: where studies lie.
    """

    data: Path
    images: int
    trials: int
    cache: Path

    def even(self, label: str, count: int | None = None) -> ImageSource:
        """Photos of even classes, as a model takes them."""
        about = preprocessing(load_model(label, self.data))
        return open_images(self.data / "imagenet_sample", about, classes=1000, every=2, count=count)

    def rule(self, case: Case) -> Budget:
        """The plan that a search starts at."""
        return self._planned(case)

    def found(self, case: Case) -> Budget:
        """The best plan of a search, which goes on where it was."""
        study = self.cache / f"{case.label}-{case.gmacs:g}-{case.stages}-{self.images}.journal"
        study.parent.mkdir(parents=True, exist_ok=True)
        search = {"by": "optuna", "stop": "halving", "trials": self.trials, "storage": str(study)}
        return self._planned(case, images=self.even(case.label, self.images), search=search)

    def _planned(self, case: Case, **more: Any) -> Budget:
        model, blocks = load_model(case.label, self.data), STARTS[case.stages]
        return vitrim.prune(model, METHOD, gflops=case.gmacs, blocks=blocks, **more).budget

    def unseen(self, label: str, count: int) -> Subject:
        """A model with even photos that no search saw, spread evenly over those."""
        source = self.even(label)
        rest = unseen(len(source), self.images, count)
        photos = source.fingerprint()
        return as_subject(
            label, load_model(label, self.data), source, rest, self.cache, photos=photos, unseen=rest.tolist()
        )


def unseen(total: int, tuned: int, count: int) -> np.ndarray:
    """Indices of at most so many photos that are none of the tuned ones, spread evenly over those."""
    rest = np.setdiff1d(np.arange(total), choose(total, count=tuned))
    return rest[choose(len(rest), count=count)]


def plans_of(
    cases: Sequence[Case], rules: Mapping[Case, Budget], found: Mapping[Case, Budget]
) -> Iterator[tuple[Case, str, Budget]]:
    """All plans that are measured: a case's rule, what was found there, and what was found on the other model."""
    for case in cases:
        yield case, RULE, rules[case]
        yield case, FOUND, found[case]
        for other in cases:
            if other.label != case.label and (other.gmacs, other.stages) == (case.gmacs, case.stages):
                yield case, OTHER, found[other]


def figures(dense: np.ndarray, pruned: np.ndarray, ruled: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
    """What a plan loses, and by how much more than the rule's: means with paired 95 % intervals.

    Args:
        dense, pruned, ruled: [n, classes] logits: of the dense model, of the plan, of the rule's plan.
        labels: [n] class indices, where they are known.
    """
    lost, agrees = divergence(dense, pruned), same_top(dense, pruned).astype(float)
    more = lost - divergence(dense, ruled)
    gained = agrees - same_top(dense, ruled)
    return {
        "images": len(dense),
        "kl": float(lost.mean()),
        "kl_above_rule": [float(more.mean()), *interval(more)],
        "agreement": [float(agrees.mean()), *interval(agrees)],
        "agreement_above_rule": [float(gained.mean()), *interval(gained)],
        "top1": None if labels is None else float((pruned.argmax(1) == labels).mean()),
    }


def row(case: Case, kind: str, budget: Budget, by_photos: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A plan of a table."""
    exponent = budget.parameters["exponent"]
    about = {"model": case.label, "gmacs": case.gmacs, "stages": case.stages, "plan": kind}
    told = {"cost": budget.total_gmacs, "tokens": tokens_of(budget), "exponent": exponent}
    return about | told | {"search": budget.statistics.get("search"), **by_photos}


def page(kept: Mapping[str, Any]) -> str:
    """The tables, one a model and cost."""
    lines = ["# The best plans of `frugal` within reach, and whether they hold on another model", ""]
    lines += [f"`{kept['command']}`", "", about(kept), ""]
    heads = ["plan", "tokens", "exponent", "plans judged", "KL tuned on", "KL even unseen", "above its rule (95 %)"]
    heads += ["KL odd", "above its rule (95 %)", "agreement % odd (95 %)", "above its rule, points", "top-1 %"]
    for label, gmacs in dict.fromkeys((one["model"], one["gmacs"]) for one in kept["rows"]):
        rows = [one for one in kept["rows"] if (one["model"], one["gmacs"]) == (label, gmacs)]
        lines += [f"## {label}, {gmacs:.2f} GMACs", "", f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
        lines += [f"| {' | '.join(cells(one, rows))} |" for one in rows]
        lines.append("")
    return "\n".join(lines)


def about(kept: Mapping[str, Any]) -> str:
    """What the numbers are, in words."""
    even, odd = (kept["rows"][0][photos]["images"] for photos in ("even", "odd"))
    return (
        f"Searches of {kept['trials']} plans, tuned on {kept['images']} photos of even classes by halving; measured on "
        f"{even} even ones that no search saw, and on {odd} odd ones. A search from four stages has at most four, one "
        "from eight at most eight; a plan is held against the rule that its search began at. Load of the machine at "
        f"the end: {kept['load']} on {kept['cores']} cores."
    )


def cells(one: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row's cells.

    Args:
        rows: of its table; the search from its rule says what that rule loses on the photos that were tuned on.
    """
    found = next(other for other in rows if other["plan"] == FOUND and other["stages"] == one["stages"])["search"]
    tuned = {RULE: f"{found['kl_of_rule']:.4f}", FOUND: f"{found['kl_of_best']:.4f}"}.get(one["plan"], "")
    name = f"{one['plan']}, {one['stages']} stages" if one["plan"] == RULE else f"{one['plan']}, from {one['stages']}"
    shown = [name, one["tokens"], f"{one['exponent']:.3g}"]
    shown += [str(found["judged"]) if one["plan"] == FOUND else "", tuned]
    for photos in ("even", "odd"):
        shown += [f"{one[photos]['kl']:.4f}", "" if one["plan"] == RULE else _spread(one[photos]["kl_above_rule"])]
    agreement, above = one["odd"]["agreement"], one["odd"]["agreement_above_rule"]
    shown += [_percent(agreement), "" if one["plan"] == RULE else _percent(above)]
    return [*shown, "" if one["odd"]["top1"] is None else f"{100 * one['odd']['top1']:.1f}"]


def _spread(values: Sequence[float]) -> str:
    mean, low, high = values
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def _percent(values: Sequence[float]) -> str:
    mean, low, high = (100 * value for value in values)
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="Weights and photos.")
@click.option("--trials", default=200, show_default=True, help="Plans of a search.")
@click.option("--images", default=128, show_default=True, help="Photos of even classes that are tuned on, up to 256.")
@click.option("--unseen", "others", default=200, show_default=True, help="Further photos of even classes.")
@click.option("--gmacs", "costs", default=COSTS, multiple=True, show_default=True)
@click.option("--processes", default=1, show_default=True, help="That measure answers, of one thread each.")
@click.option("--search-only", is_flag=True, help="Measure nothing yet.")
@click.option("--cache", default=Path("benchmarks/.cache"), type=click.Path(path_type=Path), show_default=True)
@click.option(
    "--out", default=Path("benchmarks/results/reachable.md"), type=click.Path(path_type=Path), show_default=True
)
def main(
    data: Path,
    trials: int,
    images: int,
    others: int,
    costs: tuple[float, ...],
    processes: int,
    search_only: bool,
    cache: Path,
    out: Path,
) -> None:
    """Search what is not searched yet, measure what is not measured yet, and write the tables."""
    tuning = Tuning(data, images, trials, cache)
    cases = [Case(label, gmacs, stages) for gmacs in costs for label in MODELS for stages in STARTS]
    rules, found = {case: tuning.rule(case) for case in cases}, dict[Case, Budget]()
    for case in cases:
        found[case] = tuning.found(case)
        click.echo(f"{case}: {tokens_of(found[case])} {found[case].statistics['search']}")
    if search_only:
        return
    rows = measured(tuning, list(plans_of(cases, rules, found)), others, processes)
    about = {"command": command(data), "trials": trials, "images": images}
    kept = about | {"load": round(os.getloadavg()[2], 1), "cores": os.cpu_count(), "rows": rows}
    atomic_write(out.with_suffix(".json"), json.dumps(kept, indent=2) + "\n")
    atomic_write(out, page(kept))
    click.echo(page(kept))


def measured(
    tuning: Tuning,
    plans: Sequence[tuple[Case, str, Budget]],
    others: int,
    processes: int,
) -> list[dict[str, Any]]:
    """All rows: every plan on the photos of its model that no search saw."""
    data, cache = tuning.data, tuning.cache
    photos = {
        label: {"even": tuning.unseen(label, others), "odd": open_subject(label, data, cache)}
        for label in dict.fromkeys(case.label for case, _, _ in plans)
    }
    both = ("even", "odd")
    wanted: dict[tuple[str, Case, str], tuple[Subject, Budget | None]]
    wanted = {(which, case, kind): (photos[case.label][which], plan) for case, kind, plan in plans for which in both}
    answers = all_answers(wanted, data, cache, processes)
    dense = {(which, label): (photos[label][which], None) for label in photos for which in both}
    truth = all_answers(dense, data, cache, processes)

    def lost(case: Case, kind: str, which: str) -> dict[str, Any]:
        pruned, ruled = answers[which, case, kind], answers[which, case, RULE]
        return figures(truth[which, case.label], pruned, ruled, photos[case.label][which].labels)

    return [row(case, kind, plan, {which: lost(case, kind, which) for which in both}) for case, kind, plan in plans]


if __name__ == "__main__":
    main()
