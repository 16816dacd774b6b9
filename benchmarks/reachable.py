"""What the best reachable plan of `frugal` loses at a cost, and whether a plan found on one model holds on another.

    python benchmarks/reachable.py --data DATA --trials 200
    python benchmarks/reachable.py --data DATA --trials 400      # goes on from there

DATA is described at the top of measure.py. For DeiT-Ti and ViT-Ti and every cost, Optuna searches placement, counts,
the stages' weights and the exponent from two starts: the rule's plan, of at most four stages, and the one that the
preset `frugal-8` places, of at most eight. Plans are tuned on some photos of even classes. Rules, plans found, and the
plans found on the other model are then held against the dense model on even classes that no search saw, and on all
photos of odd classes, in PyTorch. So are simple rules that the plans suggest, on odd classes only where they are better
than the rule on even ones, on both models: nothing is chosen by the odd ones. It needs `pip install 'vitrim[search]'`.
A study lies in --cache and goes on after any end. Written to results/reachable.json and .md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from measure import MODELS, Subject, all_answers, as_subject, command, interval, load_model, open_subject, tokens_of

import vitrim
from vitrim.calibration.images.listing import open_images
from vitrim.calibration.images.sources import ImageSource, choose
from vitrim.calibration.tokens.presets import get_preset
from vitrim.calibration.tokens.rules import default_rule
from vitrim.calibration.tokens.solve import from_target
from vitrim.exporter.core.answers import divergence, same_top
from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.pruning.budget import Budget
from vitrim.exporter.pruning.load import preprocessing
from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.methods.options import parse_parameters
from vitrim.exporter.pruning.shape import ViTShape

METHOD = "frugal"
COSTS = (0.81, 0.70, 0.60)  # GMACs
STARTS = {4: None, 8: [stage.block for stage in get_preset("frugal-8").stages]}  # by stages: blocks, or the rule's
RULE, FOUND, OTHER = "rule", "found", "found on the other model"
EVEN, ODD = "even", "odd"  # photos: of even classes that no search saw, and of odd ones


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
class Derived:
    """A simple rule that plans found suggest.

    Attributes:
        name: for the table.
        blocks: of the stages, of which the rule that it is held against has as many.
        weights: of the stages, see `rules.Rule`; of those that are left out, 1.
        exponent: of the method.
    """

    name: str
    blocks: Sequence[int]
    weights: Sequence[float] = ()
    exponent: float = 0.75

    def budget(self, shape: ViTShape, gmacs: float) -> Budget:
        """Its largest budget within a cost."""
        parameters = parse_parameters(get_method(METHOD), {"exponent": self.exponent}).model_dump(mode="json")
        rule = default_rule(shape, METHOD, parameters, blocks=self.blocks)
        weights = [*self.weights, *[1.0] * (len(self.blocks) - len(self.weights))]
        stages = tuple(replace(stage, weight=weight) for stage, weight in zip(rule.stages, weights, strict=True))
        return from_target(shape, METHOD, parameters, 1e9 * gmacs, replace(rule, stages=stages))


FOUR, EIGHT = (3, 5, 7, 9), tuple(range(3, 11))
DERIVED = (
    Derived("4 stages, exponent 1", FOUR, exponent=1.0),
    Derived("8 stages, exponent 1", EIGHT, exponent=1.0),
    Derived("4 stages, weights falling to 0.25", FOUR, (1.0, 0.75, 0.5, 0.25)),
    Derived("8 stages, weights falling to 0.3, exponent 1", EIGHT, np.linspace(1.0, 0.3, 8).tolist(), exponent=1.0),
    Derived("4 stages from block 2", (2, 4, 6, 8)),
    Derived("8 stages from block 2", range(2, 10)),
)


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

    def photos(self, label: str, count: int) -> dict[str, Subject]:
        """A model with so many photos of even classes that no search saw, and with all of odd ones."""
        source, model = self.even(label), load_model(label, self.data)
        rest, photos = unseen(len(source), self.images, count), source.fingerprint()
        even = as_subject(label, model, source, rest, self.cache, photos=photos, unseen=rest.tolist())
        return {EVEN: even, ODD: open_subject(label, self.data, self.cache)}


@dataclass(frozen=True)
class Measure:
    """What plans lose on photos that no search saw.

    Attributes:
        tuning: of the searches.
        photos: by label and kind.
        rules: that plans are held against.
        processes: that measure answers.
    """

    tuning: Tuning
    photos: Mapping[str, Mapping[str, Subject]]
    rules: Mapping[Case, Budget]
    processes: int

    def rows(self, plans: Sequence[tuple[Case, str, Budget]]) -> list[dict[str, Any]]:
        """All plans on the photos of their models."""
        even, odd = (self.lost([(case, plan) for case, _, plan in plans], which) for which in (EVEN, ODD))
        return [row(*about, {EVEN: one, ODD: other}) for about, one, other in zip(plans, even, odd, strict=True)]

    def derived(self, costs: Sequence[float]) -> list[dict[str, Any]]:
        """`DERIVED` on all models; at costs where one is better than the rule on even photos, on odd ones, too."""
        plans = [
            (rule, Case(label, gmacs, len(rule.blocks)), rule.budget(self.photos[label][EVEN].shape, gmacs))
            for rule in DERIVED
            for gmacs in costs
            for label in self.photos
        ]
        even = self.lost([(case, plan) for _, case, plan in plans], EVEN)
        rows = [row(case, rule.name, plan, {EVEN: one}) for (rule, case, plan), one in zip(plans, even, strict=True)]
        better = [all(other[EVEN]["kl_above_rule"][2] < 0 for other in rows if same(one, other)) for one in rows]
        again = [index for index, holds in enumerate(better) if holds]
        odd = self.lost([plans[index][1:] for index in again], ODD)
        for index, found in zip(again, odd, strict=True):
            rows[index][ODD] = found
        return rows

    def lost(self, plans: Sequence[tuple[Case, Budget]], which: str) -> list[dict[str, Any]]:
        """What every plan loses on photos of a kind, see `figures`."""
        wanted: dict[Any, tuple[Subject, Budget | None]] = {}
        for index, (case, plan) in enumerate(plans):
            subject = self.photos[case.label][which]
            wanted |= {index: (subject, plan), case: (subject, self.rules[case]), case.label: (subject, None)}
        found = all_answers(wanted, self.tuning.data, self.tuning.cache, self.processes)
        return [
            figures(found[case.label], found[index], found[case], self.photos[case.label][which].labels)
            for index, (case, _) in enumerate(plans)
        ]


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rows are of one rule at one cost, on whatever model."""
    return (one["plan"], one["gmacs"]) == (other["plan"], other["gmacs"])


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
    told = {"cost": budget.total_gmacs, "tokens": tokens_of(budget.stages), "exponent": exponent}
    return about | told | {"search": budget.statistics.get("search"), **by_photos}


def page(kept: Mapping[str, Any]) -> str:
    """The tables, one a model and cost."""
    lines = ["# The best plans of `frugal` within reach, and whether they hold on another model", ""]
    lines += [f"`{kept['command']}`", "", about(kept), ""]
    heads = [
        "plan",
        "GMACs",
        "tokens",
        "exponent",
        "plans judged",
        "KL tuned on",
        "KL even unseen",
        "above its rule (95 %)",
    ]
    heads += ["KL odd", "above its rule (95 %)", "agreement % odd (95 %)", "above its rule, points", "top-1 %"]
    for label, gmacs in dict.fromkeys((one["model"], one["gmacs"]) for one in kept["rows"]):
        rows = [one for one in kept["rows"] if (one["model"], one["gmacs"]) == (label, gmacs)]
        lines += [f"## {label}, {gmacs:.2f} GMACs", "", f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
        lines += [f"| {' | '.join(cells(one, rows))} |" for one in rows]
        best = min(rows, key=lambda one: one[EVEN]["kl"])
        lines += ["", f"Least KL on even photos: {named(best)}; on odd ones {_percent(best[ODD]['agreement'])} %.", ""]
    return "\n".join([*lines, *of_derived(kept["derived"])])


def of_derived(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The table of rules that the plans suggest."""
    yield "## Simple rules that the plans found suggest"
    yield ""
    yield (
        "Held against the rule of as many stages. On odd photos only what is better on even ones on every model, by an "
        "interval without 0."
    )
    yield ""
    heads = ["GMACs", "rule", "model", "tokens", "KL even unseen", "above the rule (95 %)", "KL odd"]
    heads += ["above the rule (95 %)", "agreement % odd (95 %)"]
    yield f"| {' | '.join(heads)} |"
    yield "| --- " * len(heads) + "|"
    for one in rows:
        shown = [f"{one['gmacs']:.2f}", one["plan"], one["model"], one["tokens"]]
        for photos in (EVEN, ODD):
            found = one.get(photos)
            shown += [f"{found['kl']:.4f}", _spread(found["kl_above_rule"])] if found else ["", ""]
        shown.append(_percent(one[ODD]["agreement"]) if ODD in one else "")
        yield f"| {' | '.join(shown)} |"
    yield ""


def about(kept: Mapping[str, Any]) -> str:
    """What the numbers are, in words."""
    even, odd = (kept["rows"][0][photos]["images"] for photos in (EVEN, ODD))
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
    shown = [named(one), f"{one['cost']:.4f}", one["tokens"], f"{one['exponent']:.3g}"]
    shown += [str(found["judged"]) if one["plan"] == FOUND else "", tuned]
    for photos in (EVEN, ODD):
        shown += [f"{one[photos]['kl']:.4f}", "" if one["plan"] == RULE else _spread(one[photos]["kl_above_rule"])]
    agreement, above = one["odd"]["agreement"], one["odd"]["agreement_above_rule"]
    shown += [_percent(agreement), "" if one["plan"] == RULE else _percent(above)]
    return [*shown, "" if one["odd"]["top1"] is None else f"{100 * one['odd']['top1']:.1f}"]


def named(one: Mapping[str, Any]) -> str:
    """What a plan is and where its search began."""
    return f"{one['plan']}, {one['stages']} stages" if one["plan"] == RULE else f"{one['plan']}, from {one['stages']}"


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
        click.echo(f"{case}: {tokens_of(found[case].stages)} {found[case].statistics['search']}")
    if search_only:
        return
    measure = Measure(tuning, {label: tuning.photos(label, others) for label in MODELS}, rules, processes)
    rows = measure.rows(list(plans_of(cases, rules, found)))
    derived = measure.derived(costs)
    about = {"command": command(data), "trials": trials, "images": images}
    kept = about | {"load": round(os.getloadavg()[2], 1), "cores": os.cpu_count(), "rows": rows, "derived": derived}
    atomic_write(out.with_suffix(".json"), json.dumps(kept, indent=2) + "\n")
    atomic_write(out, page(kept))
    click.echo(page(kept))


if __name__ == "__main__":
    main()
