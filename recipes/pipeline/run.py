"""The pipeline: the only place that strings the stages from a recipe to a published bundle."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from ...exporter.core import layout
from ...exporter.core.errors import InputError, NotFasterError, RequirementError
from ...exporter.core.fidelity import doubt_labels
from ...exporter.core.gate import Gate as Requirements
from ...exporter.core.layout import size_name
from ...exporter.core.memory import only_new_garbage
from ...exporter.core.targets import get_target, group_of
from ...exporter.pruning.budget import Budget, read_budget, write_budget
from ...exporter.pruning.load import save_slimmed
from ...exporter.pruning.shape import describe, model_name
from ...exporter.pruning.widths import Widths, read_widths, write_widths
from ...exporter.runtime import publish
from ...exporter.runtime.bench.choice import Choice
from ...exporter.runtime.bundles.place import publish_bundle, refuse_foreign
from ...exporter.runtime.outputs import refuse_over_inputs
from ..listener import Listener, Silence, tell_published
from ..pools.choose import ALONE, Crew
from ..report.beside import PageBeside, page_beside
from ..schema.own_files import BUDGET, SLIMMED, WIDTHS, check_file, inputs_of
from ..schema.recipe import Recipe
from ..stages.bench import Bench
from ..stages.calibrate import Calibrate, check_prune
from ..stages.dense import Dense
from ..stages.fidelity import Fidelity
from ..stages.forms import Forms
from ..stages.gate import Gate, check_require
from ..stages.golden import check_ends, ends_of
from ..stages.kinds import check_tokens
from ..stages.parity import Parity
from ..stages.plans.outcome import judge, refuse_unlabelled
from ..stages.plans.search import check_crew
from ..stages.plans.tables import check_recipe, uses_table
from ..stages.precision import Precision, check_precision
from ..stages.predicted import Predicted
from ..stages.reference import Reference
from ..stages.rewrite import Rewrite
from ..stages.slim import Slim
from ..stages.stage import Stage
from ..stages.trace import Trace
from .auto import candidates, decide, is_open
from .cache import StageCache, cache_of
from .correct import corrected
from .engine import check_engine, engine_missing
from .exported import Exported
from .open import NOTHING, Given, open_sources, preprocess_of
from .pack import pack
from .recover import open_model
from .sizes import check_sizes, of_size, size_run, sizes_of, with_sizes, without_sizes
from .walk import Run

# Everything between a recipe and a bundle, in order. Each stage declares what it needs, from which its key follows.
STAGES: tuple[type[Stage], ...] = (
    Slim,  # fewer heads and neurons
    Calibrate,  # images -> token budget
    Reference,  # what PyTorch says
    Dense,  # PyTorch -> ONNX: the model as it came
    Trace,  # PyTorch -> ONNX: pruned, floor
    Rewrite,  # passes for the target
    Forms,  # which attention form is faster here
    Precision,  # fp16, bf16, int8
    Parity,  # graphs against PyTorch
    Fidelity,  # pruned answers against dense ones
    Bench,  # milliseconds
    Predicted,  # what a latency table said of them
    Gate,  # whether what the recipe requires holds
)


def open_run(recipe: Recipe, cache: StageCache, listener: Listener, given: Given = NOTHING) -> Run:
    """Open what a recipe names, and refuse early what does not fit together.

    Raises:
        VitrimError: one line for a person.
    """
    target = group_of(recipe.export.target)[0]
    check_precision(recipe.precision, target)
    check_engine(recipe.engine, target)
    check_require(recipe)
    if recipe.prune is not None:
        check_prune(recipe.prune)
    elsewhere = check_recipe(recipe)
    if elsewhere is not None:
        listener.note(elsewhere)
    if recipe.slim is not None and recipe.slim.widths is not None:
        read_widths(recipe.slim.widths)
    listener.stage("model and images")
    dense = open_model(recipe, given, listener.note)
    if recipe.prune is not None:
        describe(dense)  # tokens of some models that can be slimmed cannot be pruned
    check_tokens(recipe.export, dense)
    preprocess, classes = preprocess_of(recipe, dense), int(dense.num_classes)
    check_ends(ends_of(recipe.export, preprocess), classes)
    sources = open_sources(recipe, preprocess, classes, given, listener.note)
    refuse_unlabelled(recipe, {"images": sources.calibration, "evaluate": sources.evaluation}, classes)
    name, models = model_name(dense), {"dense": dense}
    return Run(recipe, given, cache, listener, target, name, preprocess, classes, sources, _models=models)


def do_all(run: Run, stages: Iterable[type[Stage]] = STAGES) -> None:
    """Do stages in order."""
    run.cache.sweep()
    for stage in stages:
        run.do(stage)


@only_new_garbage()
def calibrate(
    recipe: Recipe,
    out: str | os.PathLike[str],
    listener: Listener | None = None,
    *,
    crew: Crew = ALONE,
    force: bool = False,
) -> Budget:
    """Decide a budget and write it. One for an outcome is judged as well, on the images kept apart.

    Args:
        recipe: the recipe; only `model`, `images`, `evaluate`, `slim`, `prune`, `export.batch` and `export.target`
            matter.
        out: the budget.json to write; a budget that is there is replaced.
        listener: hears progress.
        crew: who judges the plans of a search by Optuna.
        force: replace any other plain file, too, that the run does not read.

    Raises:
        VitrimError: one line for a person.
    """
    path, listener = Path(out), listener or Silence()
    if recipe.prune is None:
        raise InputError("the recipe has no prune section, so there is no token budget to decide; see `vitrim slim`")
    check_file(path, BUDGET, recipe, force, listener)
    check_crew(recipe.prune, crew)
    cache = cache_of(path)
    run = replace(open_run(recipe, cache, listener), crew=crew)
    with cache.locked(listener.note):
        done = False
        try:
            do_all(run, (Slim, Calibrate))
            budget = read_budget(run.folders["calibrate"] / layout.BUDGET)
            models, sources = (run.dense(), run.model()), run.sources
            budget = judge(budget, models, sources.evaluation, sources.disjoint, listener)
            check_file(path, BUDGET, recipe, force)  # much may have happened meanwhile
            write_budget(budget, path)
            done = True
        finally:
            cache.clear(but_unfinished=not done)
    return budget


@only_new_garbage()
def slim(
    recipe: Recipe, out: str | os.PathLike[str], listener: Listener | None = None, *, force: bool = False
) -> Widths:
    """Make the model narrower and write its checkpoint, with the plan of widths beside it.

    The checkpoint says its own widths: `model: {name: ..., checkpoint: FILE}` takes it like any other. What fine-tuning
    has done is kept beside it until it is whole, so a run that was stopped goes on.

    Args:
        recipe: the recipe; only `model`, `images` and `slim` matter.
        out: the .safetensors to write; the plan goes to the same name with .json. What `slim` wrote there is replaced.
        listener: hears progress.
        force: replace any other plain files, too, that the run does not read.

    Raises:
        VitrimError: one line for a person.
    """
    path, listener = Path(out), listener or Silence()
    if recipe.slim is None:
        raise InputError("the recipe has no slim section; give one, such as --set slim.target.flops_ratio=0.8")
    if path.suffix != ".safetensors":
        raise InputError(f"{path} is no name for a checkpoint; give a file such as {path}.safetensors")
    plan = path.with_suffix(".json")
    check_file(path, SLIMMED, recipe, force, listener)
    check_file(plan, WIDTHS, recipe, force, listener)
    cache = cache_of(path)
    run = open_run(recipe, cache, listener)
    with cache.locked(listener.note):
        do_all(run, (Slim,))
        widths = read_widths(run.folders["slim"] / layout.WIDTHS)
        model = run.model()
        check_file(path, SLIMMED, recipe, force)
        check_file(plan, WIDTHS, recipe, force)
        save_slimmed(model, widths, path)
        write_widths(widths, plan)
        cache.clear()
    return widths


@only_new_garbage()
def export(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    engine_mode: str | None = None,
    listener: Listener | None = None,
    command: Sequence[str] | None = None,
    given: Given = NOTHING,
    force: bool = False,
    report: str | os.PathLike[str] | bool | None = False,
) -> Exported:
    """Take a recipe all the way to a bundle.

    The bundle appears in one step. A failed proof publishes nothing, nor does what the recipe requires and does not
    get; a graph that is not faster is published, so that its benchmark can be read, and the command fails.

    Args:
        recipe: see `vitrim.recipes.schema.load`.
        out: folder of the bundle.
        engine_mode: `auto`, `require` or `skip`, over the recipe's.
        listener: hears progress.
        command: for the manifest.
        given: what Python hands over instead of naming it in the recipe.
        force: publish even what does not hold what the recipe requires; the bundle says so.
        report: True writes the bundle's report beside it, as `<out>.html`; a path writes it there.

    Raises:
        ParityError: a rung of the ladder failed.
        RequirementError: what the recipe requires does not hold.
        NotFasterError: the pruned graph is not faster than the dense one where its target runs, unless the recipe
            allows it. Of a target that does not run here nothing is judged.
        VitrimError: bad input or a lack of this machine.
    """
    final, listener = Path(os.path.abspath(out)), listener or Silence()
    mode = engine_mode or recipe.engine.mode
    refuse_over_inputs(final, inputs_of(recipe))
    refuse_foreign(final)
    page = page_beside(final, report, inputs_of(recipe))
    check_recipe(recipe)
    check_sizes(recipe)
    open_choice, sizes = is_open(recipe), sizes_of(recipe)
    first = without_sizes(recipe)
    if open_choice:
        first = candidates(first)[0].recipe(first)
    target = get_target(first.export.target)
    no_engine = engine_missing(target, mode)
    cache = cache_of(final, keeps=open_choice or uses_table(first) or bool(sizes))
    run = open_run(first, cache, listener, given)
    more = {size_name(size): size_run(run, size) for size in sizes}  # refuses before any work what a size cannot have
    with run.cache.locked(listener.note):
        publish.sweep(final)
        choice = None
        if open_choice:
            run, choice = decide(run.of(without_sizes(recipe), target), STAGES)
            no_engine = engine_missing(run.target, mode)
        do_all(run)
        run = corrected(run, do_all, (Slim, Calibrate))
        _refuse_failed(run, final, force)
        more = {name: do_size(other.of(run.recipe, run.target), final, force) for name, other in more.items()}
        run = replace(run, recipe=with_sizes(run.recipe, recipe.export.sizes))
        done = _publish(run, final, no_engine, list(command or sys.argv), choice, more)
        if page is not None:
            done = _reported(run, done, page)
        if sizes and not open_choice:  # else former results of what was tried stay, too
            run.cache.keep_only({path.name for one in (run, *more.values()) for path in one.folders.values()}, ())
    slower = _slower(done)
    if slower is not None and not recipe.bench.allow_slower:
        error = NotFasterError(f"{final} is published, but {slower}; allow it with --set bench.allow_slower=true")
        error.result = done
        raise error
    return done


def _reported(run: Run, done: Exported, page: PageBeside) -> Exported:
    """A bundle with its page written, or why it is not: the bundle is whole all the same."""
    run.listener.stage("report")
    run.release()  # the page runs the dense graph
    failed = page.write()
    return replace(done, report=None if failed else page.path, no_report=failed)


def _slower(done: Exported) -> str | None:
    """Which pruned graph is not faster than the dense one, and what it is; None where all are, or nothing is judged."""
    if done.widths is None and (done.budget is None or not done.budget.stages):
        return None
    if done.bench is not None and done.bench.fails:
        return f"the pruned graph is {done.bench.verdict}"
    slow = ((size, found.bench) for size, found in done.sizes.items())
    return next(
        (f"at {size} the pruned graph is {bench.verdict}" for size, bench in slow if bench is not None and bench.fails),
        None,
    )


def do_size(run: Run, final: Path, force: bool) -> Run:
    """All stages of a run for a further image size."""
    run.listener.note(f"images of {run.own_size}")
    with of_size(run.own_size):
        do_all(run)
        _refuse_failed(run, final, force)
    run.release()
    return run


def gate_of(run: Run) -> Requirements | None:
    """Whether what the recipe requires holds; None where it requires nothing."""
    folder = run.folders.get(Gate.name)
    return None if folder is None else Requirements.read(folder / layout.GATE, "gate")


def _refuse_failed(run: Run, final: Path, force: bool) -> None:
    """End a run whose results are not what the recipe requires, or say that they are published by force."""
    gate = gate_of(run)
    if gate is None or gate.passed:
        return
    if not force:
        raise RequirementError(
            f"{final} is not published: {gate.failure}; publish it all the same by vitrim export --force"
        )
    run.listener.note(f"published by force, though it does not hold: {gate.failure}")


def _publish(
    run: Run,
    final: Path,
    no_engine: str | None,
    command: list[str],
    choice: Choice | None = None,
    more: Mapping[str, Run] = MappingProxyType({}),
) -> Exported:
    """Pack the results, those of further image sizes by their names too, and put the bundle in place."""
    run.listener.stage("bundle")
    staging = publish.staging_folder(final)
    try:
        found = pack(run, staging, no_engine, command, choice, more)
        publish_bundle(staging, final)
    finally:
        publish.discard(staging, final)
    budget = read_budget(final / layout.BUDGET) if "calibrate" in run.folders else None
    widths = read_widths(run.folders["slim"] / layout.WIDTHS) if "slim" in run.folders else None
    if budget is not None and not budget.stages and widths is None:
        run.listener.note("this budget removes nothing: the graph is the dense model")
    doubtful = doubt_labels(found.fidelity, run.classes)
    if doubtful is not None and run.recipe.model.random is None:
        run.listener.note(doubtful)
    tell_published(run.listener, final)
    reports = (found.parity, found.fidelity, found.bench, found.precision)
    return Exported(
        final, run.recipe, budget, widths, *reports, no_engine, choice, found.gate, run.own_size, found.sizes
    )
