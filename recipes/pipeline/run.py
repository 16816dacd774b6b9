"""The pipeline: the only place that strings the stages from a recipe to a published bundle."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...exporter.core import layout
from ...exporter.core.errors import InputError, NotFasterError, RequirementError
from ...exporter.core.fidelity import Fidelity as Answers
from ...exporter.core.fidelity import doubt_labels
from ...exporter.core.files import sha256
from ...exporter.core.gate import Gate as Requirements
from ...exporter.core.layout import size_name
from ...exporter.core.memory import give_back_memory, only_new_garbage
from ...exporter.core.preprocess import Preprocess
from ...exporter.core.targets import Target, get_target, group_of
from ...exporter.graph.precision.report import PrecisionReport
from ...exporter.pruning.budget import Budget, format_budget, read_budget, write_budget
from ...exporter.pruning.load import fingerprint, save_slimmed
from ...exporter.pruning.shape import describe, model_name
from ...exporter.pruning.widths import Widths, read_widths, write_widths
from ...exporter.runtime import bundle, publish
from ...exporter.runtime.bench.choice import Choice
from ...exporter.runtime.bench.report import Bench as Benchmark
from ...exporter.runtime.outputs import refuse_over_inputs
from ...exporter.runtime.parity import Parity as Ladder
from ...exporter.runtime.runners import OrtRunner
from ..pools.choose import ALONE, Crew
from ..report.beside import PageBeside, page_beside
from .auto import candidates, decide, is_open
from .bench import Bench
from .cache import StageCache, cache_of
from .calibrate import Calibrate, check_prune
from .dense import Dense
from .engine import check_engine, engine_missing
from .fidelity import Fidelity
from .forms import Forms
from .gate import Gate, check_require
from .golden import check_ends, ends_of
from .kinds import check_tokens
from .listener import Listener, Silence, tell_published
from .open import NOTHING, Given, Sources, open_sources, preprocess_of
from .outcome import judge, refuse_unlabelled
from .own_files import BUDGET, SLIMMED, WIDTHS, check_file, inputs_of
from .pack import Reports, pack, plain_reports
from .parity import Parity
from .precision import Precision, check_precision
from .predicted import Predicted, corrected
from .provenance import versions
from .recipe import Recipe
from .recover import open_model
from .reference import Reference
from .rewrite import Rewrite
from .search import check_crew
from .sizes import Size, check_sizes, of_size, resized, size_run, sizes_of, with_sizes, without_sizes
from .slim import Slim, load_slim
from .stage import Stage, stage_key
from .tables import check_recipe, uses_table
from .trace import Trace
from .view import View

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
    parity: Ladder
    fidelity: Answers
    bench: Benchmark | None
    precision: PrecisionReport | None
    engine: str | None
    choice: Choice | None = None
    gate: Requirements | None = None
    size: str = ""
    sizes: Mapping[str, Reports] = field(default_factory=dict)
    report: Path | None = None
    no_report: str | None = None

    def runner(self, size: str | None = None) -> OrtRunner:
        """The pruned graph behind onnxruntime on the CPU, of a further size where one is named: call it with a batch.

        Raises:
            InputError: there is no such size.
        """
        files, _ = bundle.open_size(self.folder, bundle.read_manifest(self.folder), size)
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


@dataclass
class Run:
    """One walk through the stages.

    Attributes:
        recipe, given: what is asked for, and what Python hands over.
        cache: of finished stages.
        listener: hears progress.
        target: where the graphs will run.
        name, preprocess, classes: of the model.
        sources: the images.
        folders: by name of a stage, its result.
        keys: by name of a stage, what the stages behind it are keyed by.
        made: names of the stages that were not taken from the cache.
        crew: who does what several workers can do.
        size: of images, height and width, where it is not the model's own.
    """

    recipe: Recipe
    given: Given
    cache: StageCache
    listener: Listener
    target: Target
    name: str
    preprocess: Preprocess
    classes: int
    sources: Sources
    folders: dict[str, Path] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    crew: Crew = ALONE
    size: Size | None = None
    _models: dict[str, Any] = field(default_factory=dict)
    _contents: dict[str, str] = field(default_factory=dict)

    def dense(self) -> Any:
        """The model as it came; opened again where it was released."""
        if "dense" not in self._models:
            model = open_model(self.recipe, self.given)
            self._models["dense"] = model if self.size is None else resized(model, self.size)
        return self._models["dense"]

    def model(self) -> Any:
        """The model whose tokens are pruned: what slimming left of it, or the same one."""
        if "slim" not in self.folders:
            return self.dense()
        if "model" not in self._models:
            self._models["model"] = load_slim(self.dense(), self.folders["slim"]).model
        return self._models["model"]

    @property
    def own_size(self) -> str:
        """The size of its images, as bundles write it."""
        return size_name(self.preprocess.input_size[1:])

    def release(self) -> None:
        """Let go of PyTorch's models, and of their memory."""
        if self._models:
            self._models.clear()
            give_back_memory()

    def of(self, recipe: Recipe, target: Target) -> Run:
        """A run of the same model and images for another recipe, with nothing done; what is opened is shared."""
        return replace(self, recipe=recipe, target=target, folders={}, keys={}, made=set())

    def view(self, stage: type[Stage], key: str = "") -> View:
        """The run as a stage sees it."""
        return View(self, stage, key)

    def key_of(self, stage: type[Stage]) -> str:
        """The key of a stage in the cache; those that it needs are done."""
        contents: dict[str, str] = {name: self.content(name) for name in stage.takes}
        return stage_key(stage, self.recipe, contents, self.keys, versions())

    def do(self, stage: type[Stage], fill: Callable[[Path], None] | None = None) -> None:
        """Make a stage, or take it from the cache; skip it where the recipe does not want it.

        Args:
            stage: which.
            fill: fills its folder with what somebody else has made of the same recipe; None: it is made here.
        """
        if not stage.wanted(self.recipe):
            return
        key = self.key_of(stage)
        folder = self.cache.find(stage, key)
        self.listener.stage(stage.name, cached=folder is not None)
        if folder is None:
            own = fill or (lambda fresh: stage.make(self.view(stage, key), fresh))
            folder = self.cache.make(stage, key, own)
            self.made.add(stage.name)
            give_back_memory()
        self.folders[stage.name], self.keys[stage.name] = folder, stage.result_key(folder, key)
        stage.judge(folder)
        if stage.last_of_torch:
            self.release()

    def content(self, name: str) -> str:
        """Hash of an input; of each input once."""
        if name not in self._contents:
            self._contents[name] = self._hash(name)
        return self._contents[name]

    def _hash(self, name: str) -> str:
        if name == "model" and "slim" in self.folders:
            return sha256(self.folders["slim"] / "slim.safetensors")
        if name in ("model", "dense"):  # two sizes may have equal weights
            return fingerprint(self.dense()) + ("" if self.size is None else size_name(self.size))
        if name == "plan":
            return "" if self.given.plan is None else format_budget(self.given.plan)
        source = self.sources.calibration if name == "calibration" else self.sources.evaluation
        return source.fingerprint()


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
        recipe: see `vitrim.recipes.pipeline.load`.
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
    bundle.refuse_foreign(final)
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
        bundle.publish(staging, final)
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
