"""From a recipe's `slim` section to a narrower model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...calibration.images.sources import ImageSource
from ...calibration.units.cost import UnitCost, costs_of, unit_cost
from ...calibration.units.finetune import finetune
from ...calibration.units.masks import learn_masks
from ...calibration.units.moments import Moments, second_moments
from ...calibration.units.rates import learn_rates
from ...calibration.units.redundancy import after_repair
from ...calibration.units.repair import repair
from ...calibration.units.scores import UnitScores, taylor
from ...calibration.units.select import check_reachable, global_values, narrow, threshold_values
from ...exporter.core import layout
from ...exporter.core.errors import InputError
from ...exporter.pruning.load import save_slimmed
from ...exporter.pruning.shape import model_name
from ...exporter.pruning.slim import check_fit, parts_of, slim, unfused_heads, whole_widths
from ...exporter.pruning.widths import Widths, read_widths, write_widths
from ..listener import Listener
from ..schema.sections.slim import SlimSection
from .provenance import provenance
from .stage import Stage

if TYPE_CHECKING:
    from ..schema.recipe import Recipe
    from .view import View

FILE = "slim.safetensors"  # of the stage, beside its plan of widths


@dataclass(frozen=True)
class Slimmed:
    """A narrower model and what it kept."""

    model: Any
    widths: Widths


def target_of(section: SlimSection, model: Any) -> tuple[UnitCost, float]:
    """The cost that a recipe limits, and its limit.

    Raises:
        InputError: the limit is no limit.
    """
    target = section.target
    assert target is not None
    if target.parameters_ratio is not None:
        cost = unit_cost(model, "parameters")
        return cost, target.parameters_ratio * cost.dense
    cost = unit_cost(model, "macs")
    limit = target.gflops * 1e9 if target.gflops is not None else (target.flops_ratio or 0.0) * cost.dense
    if limit >= cost.dense:
        raise InputError(
            f"slim.target asks for {limit / 1e9:.3f} GMACs, but the dense model costs {cost.dense / 1e9:.3f}; "
            "ask for less"
        )
    return cost, limit


def judge(
    section: SlimSection, model: Any, source: ImageSource, listener: Listener
) -> tuple[UnitScores, dict[str, Any]]:
    """Scores of all units as the recipe wants them, and figures for the plan."""
    for label in section.classes or ():
        if not 0 <= label < model.num_classes:
            raise InputError(f"slim.classes has {label}, but the model's classes are 0 to {model.num_classes - 1}")
    if section.classes is not None and source.labels is None:
        raise InputError("slim.classes needs labelled images: give a folder of class folders")
    if section.method == "taylor":
        return taylor(model, source, classes=section.classes, progress=listener.progress), {}
    masks = learn_masks(model, source, model.num_classes, **section.masks.model_dump(), progress=listener.progress)
    return masks.scores(section.classes), {"mask_losses": [round(loss, 4) for loss in masks.losses]}


def decide(
    section: SlimSection,
    model: Any,
    cost: UnitCost,
    limit: float,
    source: ImageSource,
    moments: Moments | None,
    listener: Listener,
) -> Widths:
    """Widths of a model that costs no more than a limit, with the figures behind them as statistics."""
    scores, statistics = judge(section, model, source, listener)
    if moments is not None and scores.losses:
        scores = after_repair(model, scores, moments)
    if section.rule == "global":
        values = global_values(scores, cost)
    else:
        rates = learn_rates(
            model,
            scores,
            cost,
            limit,
            source,
            heads=section.heads,
            neurons=section.neurons,
            **section.thresholds.model_dump(),
            progress=listener.progress,
        )
        values = threshold_values(scores, (rates.heads, rates.neurons))
        statistics["rates"] = {"heads": rates.heads, "neurons": rates.neurons}
        statistics["constraint"] = {"soft_cost": rates.cost[-1], "multiplier": rates.multiplier[-1]}
    parts = parts_of(model)
    widths = narrow(parts, values, cost, limit, multiple=section.multiple, heads=section.heads, neurons=section.neurons)
    return widths.model_copy(update={"method": section.method, "statistics": statistics})


def slim_in_rounds(section: SlimSection, model: Any, source: ImageSource, listener: Listener) -> Slimmed:
    """Slim to the target in equal parts of the cost; every round judges what the one before left, repaired.

    Masks and rates are learned at length, so their paper's methods take one round.
    """
    cost, limit = target_of(section, model)
    if not section.neurons and not any(cost.heads):
        raise InputError(
            f"slim.neurons is false, but no head of {model_name(model)} can leave, so nothing may go; take it out"
        )
    check_reachable(cost, limit, section.multiple, section.heads, section.neurons)
    moments = second_moments(model, source, listener.progress) if section.repair else None
    rounds = section.rounds if (section.method, section.rule) == ("taylor", "global") else 1
    current = Slimmed(model, whole_widths(parts_of(model)))
    for number in range(1, rounds + 1):
        now = replace(cost, heads=current.widths.heads, neurons=current.widths.neurons)
        part_way = cost.dense - (cost.dense - limit) * number / rounds
        left = None if moments is None else moments.of_kept(model, current.widths)
        widths = decide(section, current.model, now, part_way, source, left, listener)
        current = slimmed_to(model, current.widths.followed_by(widths), moments)
    return current


def slimmed_to(model: Any, widths: Widths, moments: Moments | None) -> Slimmed:
    """A narrower copy of a model, repaired where there are moments to do so."""
    slimmed = slim(model, widths)
    if moments is not None:
        repair(model, slimmed, widths, moments)
    return Slimmed(slimmed, widths)


def slim_by(section: SlimSection, model: Any, source: ImageSource, listener: Listener) -> Slimmed:
    """The narrower model that a recipe asks for, not fine-tuned.

    Raises:
        InputError: the section does not fit the model or the images; naming the key.
        UnsupportedError: the model cannot be slimmed.
    """
    if section.widths is None:
        done = slim_in_rounds(section, model, source, listener)
        facts: dict[str, Any] = {"provenance": provenance(model, source, slim=section)}
    else:
        widths, facts = read_widths(section.widths), {}
        check_fit(parts_of(model), widths, section.widths)
        moments = second_moments(model, source, listener.progress) if section.repair else None
        done = slimmed_to(model, widths, moments)
    facts |= {"costs": costs_of(model, done.widths), "model": model_name(model)}
    return Slimmed(done.model, done.widths.model_copy(update=facts))


def make_slim(
    section: SlimSection, model: Any, source: ImageSource, folder: Path, checkpoint: Path, listener: Listener
) -> None:
    """Write `widths.json` and `slim.safetensors`.

    Args:
        section: the recipe's.
        model: the dense model; it is not changed.
        source: calibration images.
        folder: where the files go.
        checkpoint: of fine-tuning, outside of the folder, so that it outlives a run that was stopped.
        listener: hears progress.
    """
    limit = unfused_heads(parts_of(model))
    if limit:
        listener.note(f"{limit}; slimming keeps the head size")
    done = slim_by(section, model, source, listener)
    slimmed, widths = done.model, done.widths
    if section.finetune.epochs:
        losses = finetune(
            model, slimmed, source, checkpoint, **section.finetune.model_dump(), progress=listener.progress
        )
        widths.statistics["finetune_losses"] = [round(loss, 5) for loss in losses]
    write_widths(widths, folder / layout.WIDTHS)
    save_slimmed(slimmed, widths, folder / FILE)
    checkpoint.unlink(missing_ok=True)


class Slim(Stage):
    """A narrower model: `widths.json` and `slim.safetensors`."""

    name = "slim"
    reads = ("slim",)
    takes = ("dense", "calibration")

    @staticmethod
    def wanted(recipe: Recipe) -> bool:
        """Where there is a slim section."""
        return recipe.slim is not None

    @staticmethod
    def make(view: View, folder: Path) -> None:
        """Decide widths, slim, repair, and perhaps fine-tune."""
        section = view.recipe.slim
        assert section is not None
        make_slim(section, view.dense, view.calibration, folder, view.lasting_file("finetune", ".pt"), view.listener)


def summary(widths: Widths) -> str:
    """One line for a person."""
    dense, narrow_macs = widths.costs["gmacs"]
    whole, left = widths.costs["parameters"]
    heads, neurons = sum(row.heads_before for row in widths.blocks), sum(row.neurons_before for row in widths.blocks)
    return (
        (f"{sum(widths.heads)} of {heads} heads, " if heads else "") + f"{sum(widths.neurons)} of {neurons} neurons; "
        f"{left / 1e6:.2f} of {whole / 1e6:.2f} million parameters, {narrow_macs:.3f} of {dense:.3f} GMACs"
    )
