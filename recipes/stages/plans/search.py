"""`prune.search`: the rule's plan made better at its cost, by one process or by all that share a study."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....calibration.tokens.neighbours import Frame
from ....calibration.tokens.search import LARGEST, search
from ....exporter.core.errors import InputError
from ....exporter.pruning.budget import Budget
from ....exporter.pruning.load import fingerprint
from ...pools.choose import Crew, open_pool
from ..provenance import versions
from ..stage import short_hash

if TYPE_CHECKING:
    from ....calibration.tokens.cost import Price
    from ...schema.sections.prune import PruneSection
    from .planning import Planning

HALVING = "halving"


def check_crew(prune: PruneSection, crew: Crew) -> None:
    """Refuse workers for what one process does.

    Raises:
        InputError: there is no search by Optuna.
    """
    if not crew.in_process and not (prune.search.trials and prune.search.by == "optuna"):
        raise InputError(
            "workers (and ray) judge the plans of a search by Optuna; set prune.search.trials=100 and "
            "prune.search.by=optuna, or leave them out"
        )


def best_plan(plan: Planning, ruled: Budget, limit: float, price: Price | None) -> Budget:
    """What a search makes of the rule's plan, with its figures in the statistics.

    Args:
        plan: the section, the model and the images.
        ruled: the rule's plan.
        limit: its cost, which no plan may pass.
        price: what plans cost; None: multiply-accumulates.
    """
    section = plan.prune.search
    budget, figures = (_climbed if section.by == "climb" else _studied)(plan, ruled, limit, price)
    told = {"by": section.by, **figures}
    of_rule, of_best = figures["kl_of_rule"], figures["kl_of_best"]
    plan.listener.note(
        f"search: {figures['judged']} plans; divergence {of_rule:.6f} by the rule, {of_best:.6f} the best"
    )
    return budget.model_copy(update={"statistics": ruled.statistics | {"search": told}})


def _climbed(plan: Planning, ruled: Budget, limit: float, price: Price | None) -> tuple[Budget, dict[str, Any]]:
    images, progress = plan.images_for("prune.search"), plan.listener.progress
    trials = plan.prune.search.trials
    found = search(plan.model, images, ruled, limit, trials, progress, price=price, shape=plan.shape)
    return found.budget, found.summary()


def _studied(plan: Planning, ruled: Budget, limit: float, price: Price | None) -> tuple[Budget, dict[str, Any]]:
    from ....calibration.tokens.study import Task, search_by_study

    section, source, crew = plan.prune.search, plan.images_for("prune.search"), plan.crew
    stop = section.stop or HALVING
    frame = Frame(plan.shape, ruled, limit, ruled.statistics.get("multiple", 1), price)
    name = short_hash(_what_decides(plan, frame) | {"seed": section.seed, "stop": stop})
    kept = section.storage or _own(plan, name)
    task = Task(
        model=plan.model,
        source=source,
        largest=LARGEST,
        frame=frame,
        name=f"vitrim-{name}",
        trials=section.trials,
        seed=section.seed,
        halving=stop == HALVING,
        storage=kept,
        threads=crew.threads_each,
    )
    pool = open_pool(crew, cores=crew.threads_each or 1, note=plan.listener.note)
    found = search_by_study(task, pool, plan.listener.progress, plan.listener.note, here=crew.in_process)
    workers = {"workers": crew.asked, **({"ray": True} if crew.ray is not None else {})}
    return found.budget, found.summary() | {"seed": section.seed, "stop": stop, **workers}


def _own(plan: Planning, name: str) -> str | None:
    """The journal beside the output; None where there is no output, and nothing outlives the process."""
    place: Path | None = None if plan.study is None else plan.study(name)
    return None if place is None else str(place)


def _what_decides(plan: Planning, frame: Frame) -> dict[str, Any]:
    """All that a study's figures depend on, but for its seed and its rungs; more trials are the same study."""
    price, like = frame.price, frame.like
    return {
        "model": fingerprint(plan.model),
        "images": plan.images_for("prune.search").fingerprint(),
        "largest": LARGEST,
        "rule": like.model_dump(mode="json", include={"method", "parameters", "prefix_tokens", "blocks"}),
        "limit": frame.limit,
        "multiple": frame.multiple,
        "price": None if price is None else [price.unit, price.dense, price.of(like)],
        "versions": versions() | {"optuna": _version("optuna")},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
