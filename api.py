"""The Python API: a function per command, and what a model in hand needs. Heavy parts are imported when one runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .exporter.core.bounds import SHOWN
from .exporter.core.latency import PROCESSES, ROUNDS
from .exporter.runtime.bench.timing import Timing
from .exporter.runtime.tensorrt.options import Compatibility, EngineOptions
from .recipes.sweep.wanted import AGREEMENTS, LOOK, RATIOS, SPEEDUPS

if TYPE_CHECKING:
    from torch import nn

    from .exporter.core.fidelity import Fidelity
    from .exporter.core.latency import LatencyTable
    from .exporter.pruning.budget import Budget
    from .exporter.pruning.families import Family
    from .exporter.pruning.vit import PrunedViT
    from .exporter.pruning.widths import Widths
    from .exporter.runtime.bench.compare import Comparison
    from .exporter.runtime.bench.report import Bench
    from .exporter.runtime.doctor import Check
    from .exporter.runtime.parity import Parity
    from .recipes.evaluation.result import Evaluation
    from .recipes.listener import Listener
    from .recipes.optimize.pack import Optimized
    from .recipes.pipeline.exported import Exported
    from .recipes.profile.run import ProfilePack
    from .recipes.report.write import Written
    from .recipes.schema.recipe import Recipe
    from .recipes.sweep.result import Sweep

RecipeLike = str | os.PathLike[str] | Mapping[str, Any]
Settings = Mapping[str, Any] | Iterable[str | tuple[str, Any]]
Progress = Callable[[int, int], None]
Size = str | int | Sequence[int]  # of images: "192x256", 288, (192, 256)
_GRAPHS = ("onnx", "onnx_graphsurgeon")  # what works with graphs


def recipe(source: RecipeLike, settings: Settings = ()) -> Recipe:
    """A recipe from a file, the name of one that ships, or plain data.

    Args:
        source: path, name, or mapping.
        settings: what to change: values by key, such as `{"export.batch": 8}`, or texts such as `"export.batch=8"`.

    Raises:
        InputError: with the YAML path, what was found and what is allowed.
    """
    from .recipes.schema.load import load_recipe, override, recipe_from

    pairs = _pairs(settings)
    if isinstance(source, Mapping):
        return recipe_from(override(dict(source), pairs))
    return load_recipe(os.fspath(source), pairs)


def _pairs(settings: Settings) -> list[Any]:
    """Settings as texts `key=value`, or as pairs of a key and a plain value."""
    if isinstance(settings, Mapping):
        from .recipes.schema.keywords import plain

        return [(str(key), plain(value)) for key, value in settings.items()]
    return [settings] if isinstance(settings, str) else list(settings)


def prune(
    model: nn.Module,
    method: str | None = None,
    *,
    images: Any = None,
    evaluate: Any = None,
    listener: Listener | None = None,
    **keywords: Any,
) -> PrunedViT:
    """A model that drops or merges tokens, without any training.

    The model itself is used, not copied, and stays as it is: its weights, its modes, and whether they want gradients.

    Args:
        model: a timm model.
        method: see `vitrim methods`; None takes the best measured one.
        images: what decisions are made on, where they need any (an outcome, `mass`, `search`, a `quantile`): a path, a
            DataLoader, or any iterable of tensors. A plan for a cost needs none.
        evaluate: other images, which an outcome is judged on; None: odd ones of `images`, of which even ones decide.
        listener: hears progress.
        keywords: keys of a recipe's `prune`, or of its target: `flops_ratio=0.65`, `gflops=0.81`, `speedup=1.5`,
            `latency_ms=12.0, table="table.json"`, `agreement=0.97`, `keep_rates={3: 0.7}`, `preset="evit-0.7"`,
            `blocks=[3, 6, 9]`, ...

    Returns:
        an nn.Module from images [batch, channels, height, width] to logits [batch, classes], or without a classifier
        to pooled features [batch, width]; its `budget` is the plan.

    Raises:
        UnsupportedError: the model is of a kind whose tokens cannot be pruned.
        InputError: a keyword is unknown, or does not fit the model.
    """
    need_export()
    from .recipes.pipeline.in_memory import prune as run

    return run(model, method, images=images, evaluate=evaluate, listener=listener, **keywords)


def evaluate(
    pruned: nn.Module,
    images: Any,
    reference: nn.Module | None = None,
    *,
    batch: int = 32,
    listener: Listener | None = None,
) -> Fidelity:
    """What pruning costs in answers, in PyTorch: agreement, divergence and accuracy, with 95 % intervals.

    Args:
        pruned: what `prune` made, or any module with the same input and output.
        images: a path, a DataLoader (read as it comes, never held), or any iterable of tensors; with labels, accuracy
            is measured too.
        reference: the dense model; None takes the one that `pruned` was made of.
        batch: images per forward pass, where the images are named by a path.
        listener: hears progress.

    Raises:
        InputError: there are no images, they are not the model's input, or there is no reference.
    """
    need_export()
    from .recipes.pipeline.in_memory import evaluate as run

    return run(pruned, images, reference, batch=batch, listener=listener)


def export(
    source: RecipeLike | nn.Module,
    out: str | os.PathLike[str],
    *,
    settings: Settings = (),
    engine: str | None = None,
    listener: Listener | None = None,
    command: list[str] | None = None,
    force: bool = False,
    report: str | os.PathLike[str] | bool | None = False,
    **keywords: Any,
) -> Exported:
    """Take a model or a recipe all the way to a bundle: traced, rewritten, proven, timed, published in one step.

    Args:
        source: what `prune` made, a timm model, or a recipe: a file, the name of one that ships, or plain data.
        out: folder of the bundle.
        settings: what to change in a recipe: values by key, such as `{"export.batch": 8}`, or `"export.batch=8"`.
        engine: `auto`, `require` or `skip`, over the recipe's.
        listener: hears progress.
        command: for the manifest.
        force: publish even what does not hold what the recipe requires (`require={"agreement": 0.97}`).
        report: True writes the bundle's report beside it, as `<out>.html`, as the command does; a path that ends in
            .html writes it there. By default none is written: in a notebook the result shows its report by itself.
            `report` of the result is the page, `no_report` why it could not be written.
        keywords: keys of a recipe: a section (`images="photos/"`, `precision="fp16"`, `bench={"runs": 100}`) or a key
            of `export`, `precision`, `parity` or `bench` (`target="jetpack-6"`, `batch=8`). Of a model in memory,
            `images` and `evaluate` may be a DataLoader or any iterable of tensors.

    Raises:
        ParityError: a rung of the ladder failed.
        RequirementError: what the recipe requires does not hold; nothing was published.
        NotFasterError: the pruned graph is not faster than the dense one, unless `allow_slower` is given.
        VitrimError: bad input or a lack of this machine.
    """
    if isinstance(source, (str, os.PathLike, Mapping)):
        from .recipes.schema.keywords import as_settings

        chosen = recipe(source, [*_pairs(settings), *_pairs(as_settings(keywords))])
        need_export()
        from .recipes.pipeline.run import export as run

        return run(chosen, out, engine_mode=engine, listener=listener, command=command, force=force, report=report)
    need_export()
    from .recipes.pipeline.in_memory import export_model

    return export_model(
        source, out, keywords, engine_mode=engine, listener=listener, command=command, force=force, report=report
    )


def optimize(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str | None = None,
    recipe: str | os.PathLike[str] | None = None,
    output: str | None = None,
    settings: Settings = (),
    listener: Listener | None = None,
    command: list[str] | None = None,
    **keywords: Any,
) -> Optimized | Exported:
    """Take an ONNX file alone to a bundle: rewritten, proven against the file itself, timed, published in one step.

    The file may be of any model of one float32 image with a row of numbers for an answer. PyTorch is not needed, unless
    the file's model is named: then its weights are found in the graph, the model is proven to answer as the file does,
    and it is pruned and exported like any other.

    Args:
        source: the file.
        out: folder of the bundle.
        model: timm's name of the model in the file, which is to be pruned.
        recipe: that says how; its model is replaced by the file's.
        output: name of the answer, where the file has several outputs.
        settings: values by key, such as `{"bench.runs": 100}`, or `"bench.runs=100"`; they win.
        listener: hears progress.
        command: for the manifest.
        keywords: as of `export` (`target="jetpack-6"`, `precision="int8"`, `images="photos/"`, `batch=8`); how photos
            become inputs, `preprocess={"mean": [...], "std": [...]}`; and with a model, those of `prune`
            (`flops_ratio=0.65`).

    Returns:
        an `Exported` where a model or a recipe is named, else an `Optimized`.

    Raises:
        ParityError: the graph does not answer as the file does, or the recovered model does not.
        NotFasterError: the graph is not faster than the file where its target runs, unless `allow_slower` is given.
        UnsupportedError: the target does not take the graph, or the file is not the model; node or tensor are named.
        VitrimError: bad input or a lack of this machine.
    """
    if model is None and recipe is None:
        need_packages(*_GRAPHS)
        from .recipes.optimize.run import optimize as run

        return run(
            source, out, output=output, settings=_pairs(settings), listener=listener, command=command, **keywords
        )
    need_export()
    from .recipes.optimize.as_recipe import recipe_for
    from .recipes.pipeline.run import export as run_export

    chosen = recipe_for(source, model, recipe, _pairs(settings), keywords)
    return run_export(chosen, out, listener=listener, command=command)


def calibrate(
    source: RecipeLike,
    out: str | os.PathLike[str],
    *,
    settings: Settings = (),
    workers: int | None = None,
    ray: str | None = None,
    listener: Listener | None = None,
    force: bool = False,
) -> Budget:
    """Decide a budget and write it as JSON; see `vitrim.recipes.pipeline.run.calibrate`.

    Args:
        source: a recipe: a file, the name of one that ships, or plain data.
        out: the budget.json to write.
        settings: what to change in it; see `recipe`.
        workers, ray: who judges the plans of a search by Optuna, as in `evaluate_bundle`. On a cluster, the output or
            `prune.search.storage` must be at the same place for every node.
        listener: hears progress.
        force: replace any other plain file, too.
    """
    chosen = recipe(source, settings)
    need_export()
    from .recipes.pipeline.run import calibrate as run
    from .recipes.pools.choose import Crew

    return run(chosen, out, listener, crew=Crew(workers, ray), force=force)


def profile(
    source: RecipeLike,
    out: str | os.PathLike[str],
    *,
    target: str | None = None,
    batch: int | None = None,
    threads: int | None = None,
    methods: Sequence[str] = (),
    processes: int = PROCESSES,
    rounds: int = ROUNDS,
    settings: Settings = (),
    listener: Listener | None = None,
    force: bool = False,
) -> LatencyTable:
    """Measure a table of latencies on this machine, for `prune.target: {latency_ms: ..., table: FILE}`.

    The halves of the blocks are timed at several numbers of tokens, and of every method what its stages add, in turns,
    over several processes.

    Args:
        source: a recipe (a file, the name of one that ships, plain data), or timm's name of a model.
        out: the .json to write; a table that is there is replaced.
        target, batch, threads: over the recipe's `export.target`, `export.batch` and `bench.threads`.
        methods: whose stages are measured; none: the recipe's own, or else the best measured.
        processes: everything is loaded anew in so many; the table has the medians over them.
        rounds: of each process. A script calls it under `if __name__ == "__main__":`, as processes need.
        settings: what to change in the recipe; see `recipe`.
        listener: hears progress.
        force: replace any other plain file, too.

    Raises:
        InputError: there is no table for such a target, precision or recipe.
        EnvironmentLackError: the target's runtime does not run here.
    """
    chosen = _profiled(source, target, batch, threads, settings)
    from .recipes.profile.run import profile as run

    return run(chosen, out, methods, processes=processes, rounds=rounds, listener=listener, force=force)


def pack_profile(
    source: RecipeLike,
    out: str | os.PathLike[str],
    *,
    target: str | None = None,
    batch: int | None = None,
    threads: int | None = None,
    methods: Sequence[str] = (),
    settings: Settings = (),
    listener: Listener | None = None,
) -> ProfilePack:
    """Write a folder whose `run_on_device.py table` measures the table of `profile` on a device without torch.

    Nothing is measured here. The table that the device writes is given as `prune.target.table`.

    Args:
        source, target, batch, threads, methods, settings, listener: see `profile`.
        out: the folder; one that was written so before is replaced.

    Raises:
        InputError: there is no table for such a target, precision or recipe; or something else lies there.
    """
    chosen = _profiled(source, target, batch, threads, settings)
    from .recipes.profile.run import pack_profile as run

    return run(chosen, out, methods, listener=listener)


def _profiled(
    source: RecipeLike, target: str | None, batch: int | None, threads: int | None, settings: Settings
) -> Recipe:
    """The recipe whose graphs are profiled."""
    need_export()
    from .recipes.profile.run import as_recipe

    given = {"export.target": target, "export.batch": batch, "bench.threads": threads}
    own = [(key, value) for key, value in given.items() if value is not None]
    return recipe(as_recipe(source), [*_pairs(settings), *own])


def slim(
    source: RecipeLike,
    out: str | os.PathLike[str],
    *,
    settings: Settings = (),
    listener: Listener | None = None,
    force: bool = False,
) -> Widths:
    """Make a model narrower and write its checkpoint; see `vitrim.recipes.pipeline.run.slim`."""
    chosen = recipe(source, settings)
    need_export()
    from .recipes.pipeline.run import slim as run

    return run(chosen, out, listener, force=force)


def sweep(
    source: RecipeLike | nn.Module,
    images: Any = None,
    *,
    out: str | os.PathLike[str] | None = None,
    methods: Sequence[str] | None = None,
    ratios: Sequence[float] = RATIOS,
    precisions: Sequence[str] | None = None,
    agreements: Sequence[float] = AGREEMENTS,
    speedups: Sequence[float] = SPEEDUPS,
    look: int = LOOK,
    workers: int | None = None,
    ray: str | None = None,
    settings: Settings = (),
    listener: Listener | None = None,
    **keywords: Any,
) -> Sweep:
    """Try methods x budgets x precisions: answers on held-out images, graphs timed in turns with the dense one.

    Every point is looked at on a few images first. A point is stopped where another one that was measured agrees
    clearly more and is as fast as the point could be at best. What is finished is kept, so that the same call goes on
    after any end.

    Args:
        source: a recipe (a file, the name of one that ships, or plain data), or a timm model.
        images: photos, a loader or tensors; a recipe names its own.
        out: folder for `sweep.json`, the table, the Pareto picture, and a recipe for every constraint; None: no files.
        methods: by name; None takes all.
        ratios: shares of the dense model's GMACs.
        precisions: None takes the recipe's own; `auto` takes all that the target has.
        agreements: shares of images with the dense model's answer, for each of which the fastest point is sought.
        speedups: for each the point is sought that agrees most.
        look: images of the first look.
        workers, ray: who makes plans and answers, as in `evaluate_bundle`. Where one is given, each works with one
            thread of PyTorch, so that every figure but the times is the same to the last bit for any number of them.
            Graphs are timed here, one at a time, when they have ended.
        settings: what to change in a recipe.
        listener: hears progress.
        keywords: as of `export` (`target="openvino"`, `batch=8`, `evaluate="val/"`).

    Returns:
        its `points`, their `front`, and `best(agreement=0.98)` or `best(speedup=1.3)`.

    Raises:
        InputError: bad input; `out` is no sweep, or one of something else; no point can be had.
        EnvironmentLackError: something is missing here, no cluster answers, or workers die again and again.
    """
    need_export()
    from .recipes.pools.choose import Crew
    from .recipes.sweep.run import sweep as run
    from .recipes.sweep.wanted import Wanted

    wanted, crew = Wanted(methods, ratios, precisions, agreements, speedups, look), Crew(workers, ray)
    if isinstance(source, (str, os.PathLike, Mapping)):
        from .recipes.schema.keywords import as_settings

        changed = as_settings({"images": images, **keywords})
        return run(recipe(source, [*_pairs(settings), *_pairs(changed)]), out, wanted, crew=crew, listener=listener)
    from .recipes.sweep.in_memory import sweep_model

    return sweep_model(source, images, out, wanted, keywords, listener, crew)


def inspect(
    path: str | os.PathLike[str], target: str | None = None, *, kernels: bool = False, size: Size | None = None
) -> dict[str, Any]:
    """Operators of a bundle's graph before and after the passes, or of any ONNX file, and its lint for a target.

    Args:
        path: a bundle or an .onnx file.
        target: lint for this target; None takes the bundle's own, or `ort-cpu`.
        size: of the images, such as `"192x256"`, in a bundle of several; None: the bundle's own.
        kernels: of a bundle with an engine, list its kernels too. Where TensorRT for RTX is here, the plan's floor and
            the dense model are built beside it, to be counted.

    Returns:
        `operators`, `before` (bundles only), `passes` (bundles only), `static` (see `lint`), `findings`, `target`, and
        where asked for `kernels` (see `vitrim.recipes.inspection.kernels.BundleKernels`).

    Raises:
        InputError: no such file, not ONNX, or no engine whose kernels could be listed.
    """
    need_export()
    from .recipes.inspection.inspect import inspect as run

    return run(path, target, kernels, size)


def lint(
    path: str | os.PathLike[str], target: str | Iterable[str] | None = None, *, ask: str | None = None
) -> dict[str, Any]:
    """What targets refuse of a graph, or take and silently compute wrongly, and what to do about it.

    Args:
        path: any .onnx file (weights in files of their own are hardly read), or a bundle.
        target: one, several, or None for all there are (with `ask`, for that one).
        ask: the target whose own parser and builder are asked as well, `trt-rtx` or `openvino`. They build in memory
            and write nothing.

    Returns:
        `path`, `opset`, `operators`, `static` (one finding on shapes that are not, which no target refuses; or None),
        and `targets`: by name `errors`, `warnings` (their numbers) and `findings`. A bundle's graph has to be static,
        so what is not is an error there. With `ask`, also `asked`: an `Asked` of `recipes.inspection.ask` as plain
        data.

    Raises:
        InputError: no such file, not ONNX, weights missing, no such target, or none that can be asked.
        EnvironmentLackError: what is to be asked is not installed.
    """
    need_export()
    from .recipes.inspection.inspect import lint_file

    return lint_file(path, [target] if isinstance(target, str) else target or (), ask)


def targets() -> list[dict[str, Any]]:
    """Every target that there is, as plain data: opset, precisions, missing operators, Jetsons, known faults."""
    from .exporter.core.targets import TARGETS

    return [target.to_dict() for target in TARGETS.values()]


def check(
    bundle: str | os.PathLike[str],
    *,
    atol: float | None = None,
    tie: float | None = None,
    threads: int | None = None,
    runtime: str = "auto",
    size: Size | None = None,
) -> Parity:
    """Verify a bundle and hold it against PyTorch's golden outputs; see `vitrim.exporter.runtime.commands.check`."""
    from .exporter.runtime.commands.check import check_bundle

    return check_bundle(bundle, atol=atol, tie=tie, threads=threads, runtime=runtime, size=size)


def bench(
    bundle: str | os.PathLike[str],
    *,
    runs: int = Timing.runs,
    warmup: float = Timing.warmup,
    threads: int | None = Timing.threads,
    runtime: str = "auto",
    cuda_graph: bool = Timing.cuda_graph,
    copies: bool = Timing.copies,
    energy: bool = Timing.energy,
    by_block: bool = False,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    force: bool = False,
    note: Callable[[str], None] | None = None,
    size: Size | None = None,
) -> Bench:
    """Time a bundle's dense, pruned and floor graphs, interleaved; see `vitrim.exporter.runtime.commands.bench`.

    Args:
        bundle: the folder.
        runs, warmup, threads, cuda_graph, copies, energy: see `vitrim.exporter.runtime.bench.timing.Timing`.
        runtime: `tensorrt`, `onnxruntime`, `openvino`, or `auto`: the engine where there is one that runs here, else
            the target's own.
        by_block: count also what each block of the dense and the pruned graph takes; needs the package onnx.
        out: a JSON file outside the bundle to write the result to, for `compare`; a benchmark there is replaced.
        progress: called with (rounds done, rounds).
        force: replace any other plain file, too.
        note: told what is replaced.
        size: of the images, such as `"192x256"`, in a bundle of several; None: the bundle's own.
    """
    from .exporter.runtime.bench.report import Bench
    from .exporter.runtime.bundles.place import refuse_inside
    from .exporter.runtime.commands.bench import bench_bundle
    from .exporter.runtime.outputs import check_output, output_of

    kind = output_of(Bench, "benchmark")
    if out is not None:
        refuse_inside(out, bundle)
        replaced = check_output(out, kind, force=force)
        if replaced and note:
            note(replaced)
    timing = Timing(runs, warmup, threads, cuda_graph, copies, energy)
    blocks = _blocks_in(Path(bundle), size) if by_block else None
    result = bench_bundle(bundle, timing, runtime=runtime, progress=progress, blocks=blocks, size=size)
    if out is not None:
        check_output(out, kind, force=force)  # the benchmark has taken its time
        result.write(out)
    return result


def _blocks_in(root: Path, size: Size | None) -> Callable[[Path], dict[str, str]]:
    """What tells the nodes of the graphs of a bundle's image size to their blocks."""
    need_packages(*_GRAPHS)
    from .exporter.core.layout import BUDGET
    from .exporter.graph.blocks import blocks_of
    from .exporter.pruning.budget import read_budget
    from .exporter.runtime.bundles.manifest import open_size, read_manifest

    budget = open_size(root, read_manifest(root), size)[0] / BUDGET
    after = read_budget(budget).behind_blocks if budget.exists() else ()
    return partial(blocks_of, after=after)


def evaluate_bundle(
    bundle: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    count: int | None = None,
    classes: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    ray: str | None = None,
    threads: int | None = None,
    runtime: str = "auto",
    out: str | os.PathLike[str] | None = None,
    shard: int = 100,
    progress: Progress | None = None,
    force: bool = False,
    note: Callable[[str], None] | None = None,
    size: Size | None = None,
) -> Evaluation:
    """Hold a bundle's pruned graph, or its engine, against its dense graph, and both against labels where known.

    Needs no torch. Every figure is the same to the last bit for any number of workers and any size of shards.

    Args:
        bundle: the folder.
        images: a folder of photos or of class folders, tar or parquet files, or an .npz.
        count: how many images, spread evenly; None takes all.
        classes: a file that says which class folder is which class; see `images.classes` of a recipe.
        workers: processes, or actors of a cluster; None is one, or all that the cluster has room for. More than one
            process need `if __name__ == "__main__":` in a script.
        ray: a cluster of Ray that does the work: `auto` ($RAY_ADDRESS, or the one that runs here), `HOST:PORT`, or
            `local` to start one here. Bundle and images must lie at the same paths on every node.
        threads: of the CPU, for each worker; None shares the cores out, and is one on a cluster.
        runtime: `tensorrt`, `onnxruntime`, `openvino`, or `auto`: the bundle's engine where it has one that runs here,
            else the target's own runtime where that is here, else onnxruntime. An engine is held against the dense
            graph, which onnxruntime runs on the CPU.
        out: a JSON file outside the bundle to write the result to; an evaluation there is replaced. Beside it,
            `<out>.journal` keeps every shard that is done, so that the same call goes on after any end.
        shard: images that are kept as one.
        progress: called with (images done, images).
        force: replace any other plain file, too.
        note: told what a person should know.
        size: of the bundle's graphs, such as `"192x256"`, where it has several; None: the bundle's own.

    Raises:
        InputError: the bundle or an image cannot be used, or the journal is of others.
        EnvironmentLackError: pillow is not installed, nothing runs the graphs here, no cluster answers, workers die, or
            a place cannot be written.
    """
    from importlib.util import find_spec

    from .exporter.core.errors import EnvironmentLackError

    if find_spec("PIL") is None:
        raise EnvironmentLackError("pillow is not installed, which reading photos needs: pip install pillow")
    from .recipes.evaluation.run import Wanted, evaluate
    from .recipes.pools.choose import Crew

    listed = None if classes is None else os.fspath(classes)
    wanted = Wanted(Path(bundle), Path(images), count, listed, Crew(workers, ray), threads, shard, runtime, size)
    heard: dict[str, Any] = {"progress": progress, "note": note}
    return evaluate(wanted, out, force=force, **{name: one for name, one in heard.items() if one is not None})


def compare(results: Iterable[str | os.PathLike[str]]) -> Comparison:
    """Lay benchmarks of several devices side by side; see `vitrim.exporter.runtime.bench.compare`.

    Args:
        results: bundles, or files that `bench` wrote.
    """
    from .exporter.runtime.bench.compare import compare as run

    return run(list(results))


def report(
    sources: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    images: Literal["golden", "none"] = "golden",
    count: int = SHOWN,
    force: bool = False,
    note: Callable[[str], None] | None = None,
) -> Written:
    """Write one offline HTML page about bundles, benchmarks, sweeps and evaluations, and the same as JSON beside it.

    Needs no torch.

    Args:
        sources: bundles, folders of sweeps, or files that `bench` or `evaluate_bundle` wrote.
        out: the page, a file that ends in .html and lies in no bundle; a report there is replaced.
        images: `golden` shows photos that lie in the bundle, with what became of their patches; `none` shows no photo.
        count: photos of each bundle, changed answers first.
        force: replace any other plain file, too.
        note: told what is replaced.

    Raises:
        InputError: a source is nothing that a report is of, or damaged; the page cannot be put there.
        EnvironmentLackError: jinja2 or pillow is not installed.
    """
    from .exporter.core.errors import InputError
    from .recipes.report.write import write_report

    if images not in ("golden", "none"):
        raise InputError(f"images is {images!r}; it can be 'golden' or 'none'")
    shown = 0 if images == "none" else count
    return write_report(list(sources), out, photos=shown, force=force, note=note)


def build(
    bundle: str | os.PathLike[str],
    *,
    workspace_mib: int = EngineOptions.workspace_mib,
    timing_cache: str | os.PathLike[str] | Literal[False] | None = EngineOptions.timing_cache,
    version_compatible: bool = EngineOptions.version_compatible,
    hardware_compatible: Compatibility | None = EngineOptions.hardware_compatible,
    capabilities: Sequence[str] = EngineOptions.capabilities,
    dla_core: int | None = EngineOptions.dla_core,
    strict: bool = EngineOptions.strict,
    note: Callable[[str], None] | None = None,
    size: Size | None = None,
) -> Parity:
    """Build a bundle's engine with this machine's TensorRT and prove it; `engine` in the result is its identity.

    Args:
        bundle: the folder; it is published anew, with the engine, if the proof passes. An engine of TensorRT for RTX
            that no GPU here can run is published unproven: `engine_not_checked` of the result says why.
        workspace_mib, timing_cache, version_compatible, hardware_compatible, capabilities, dla_core, strict: see
            `vitrim.exporter.runtime.tensorrt.options.EngineOptions`.
        note: told who else is at work on the bundle, while that is waited for.
        size: of the images, such as `"192x256"`, in a bundle of several; None: the bundle's own.
    """
    from .exporter.runtime.commands.build import build_bundle

    options = EngineOptions(
        workspace_mib, timing_cache, version_compatible, hardware_compatible, tuple(capabilities), dla_core, strict
    )
    return build_bundle(bundle, options, note=note, size=size)


def triton(bundle: str | os.PathLike[str], repository: str | os.PathLike[str], *, name: str | None = None) -> Path:
    """Write a bundle as a model of a Triton Inference Server's repository; see `exporter.runtime.triton`.

    Args:
        bundle: the folder.
        repository: the folder that the server takes models from.
        name: of the model; the bundle's by default.

    Returns:
        the model's folder.
    """
    from .exporter.runtime.triton import write_model

    return write_model(bundle, repository, name)


def track(tracker: str | None, listener: Listener | None = None) -> AbstractContextManager[Listener]:
    """A listener for `export` and `optimize` that keeps the run in MLflow or Weights & Biases.

        with vitrim.track("mlflow") as listener:
            vitrim.export("my.yaml", "out/", listener=listener)

    Kept are the recipe as parameters, what the bundle's reports found as metrics, seconds of every stage, and the
    reports as files; no graphs and no images. A run that is active is taken, else one is begun and ended.

    Args:
        tracker: `mlflow` or `wandb`; their own environment variables say where and how.
        listener: that hears everything, too.

    Raises:
        InputError: there is no such tracker.
        EnvironmentLackError: its package is missing, or no run can be begun.
    """
    from .recipes.listener import Silence
    from .recipes.tracking.tracker import tracked

    return tracked(tracker, listener or Silence())


def doctor(deep: bool = True) -> list[Check]:
    """What this machine has, and what is missing and what that costs; see `vitrim.exporter.runtime.doctor`."""
    from .exporter.runtime.doctor import examine

    return examine(deep=deep)


def clean(outputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = ()) -> dict[str, int]:
    """Remove the caches of finished stages that lie beside outputs.

    Args:
        outputs: one or several bundles, budgets or checkpoints whose caches go; none: all caches in the working folder,
            and the one that $VITRIM_STAGES names.

    Returns:
        by cache, the bytes that it took.

    Raises:
        InputError: what lies in a cache's place is not vitrim's.
    """
    from .recipes.pipeline.cache import clean as run

    return run([outputs] if isinstance(outputs, (str, os.PathLike)) else outputs)


def recipes() -> dict[str, str]:
    """Recipes that ship, by name, with the first line of each."""
    from .recipes.schema.load import shipped

    return {name: _first_line(path) for name, path in shipped().items()}


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def methods() -> list[dict[str, Any]]:
    """Every pruning method, as plain data.

    Returns:
        by method `name`, `about`, `paper` (None: described nowhere else), whether it `merges` tokens or drops them,
        whether it is the `default`, its `parameters` and a budget row's options of a `stage` (each `name`, `values`,
        `default` and `meaning`), and its `presets` by name.
    """
    need_export()
    from .exporter.pruning.methods.catalogue import catalogue

    return catalogue()


def devices() -> dict[str, str]:
    """Devices that ship, by name, with the first line of each."""
    from .recipes.schema.load import devices as known

    return {name: _first_line(path) for name, path in known().items()}


def device(name: str) -> dict[str, Any]:
    """What a device changes in a recipe, as settings.

        vitrim.export("vit-base", "out/", settings=vitrim.device("jetson-orin"))

    Args:
        name: of a device that ships, see `devices`, or a YAML file of a recipe's sections.

    Raises:
        InputError: there is no such device.
    """
    from .recipes.schema.load import device_settings

    return device_settings(name)


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe."""
    from .recipes.schema.recipe import json_schema

    return json_schema()


def models(
    wanted: str = "", progress: Progress | None = None, note: Callable[[str], None] = lambda text: None
) -> list[Family]:
    """Which of timm's models vitrim takes, by family; see `vitrim.exporter.pruning.families`.

    Asking all of timm takes minutes, once: answers are kept for each version of timm in vitrim's cache folder.

    Args:
        wanted: part of a family's or a model's name; empty takes all models that timm has weights for.
        progress: called with (models asked, models to ask); not at all where all is known.
        note: hears why answers cannot be kept.

    Raises:
        InputError: no family and no model has such a name, or the cache folder is another's.
    """
    need_export()
    from .recipes.inspection.surveyed import survey

    return survey(wanted, progress, note)


def new(
    model: str,
    out: str | os.PathLike[str] | None = None,
    *,
    target: str = "ort-cpu",
    precision: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    force: bool = False,
) -> str:
    """A commented recipe for a timm model, as text.

    Args:
        model: timm's name, a folder of transformers or timm, or a name on the hub (`hf-hub:OWNER/NAME`).
        out: a file to write it to, too; paths in the recipe start at its folder.
        target: where the graph will run, see `vitrim.targets`.
        precision: of the target; fp32 where it is left out, and of a group of targets all are tried.
        checkpoint: weights; timm's own are fetched where it is left out.
        images: photos; a folder to be named later where it is left out.
        classes: of the checkpoint's head, where it is not the model's own number.
        force: replace a plain file that is there.

    Raises:
        InputError: timm has no such model, there is no such target, precision, checkpoint or image, or the file exists.
        UnsupportedError: vitrim does not take the model.
    """
    need_export()
    from .exporter.core.files import atomic_write
    from .exporter.runtime.outputs import check_output
    from .recipes.new import new_recipe
    from .recipes.schema.own_files import RECIPE

    named = {"the checkpoint": checkpoint, "the images": images}
    inputs = {name: path for name, path in named.items() if path is not None}
    if out is not None:
        check_output(out, RECIPE, force=force, inputs=inputs)
    folder = Path.cwd() if out is None else Path(os.path.abspath(out)).parent
    text = new_recipe(model, folder, target, precision, checkpoint, images, classes)
    if out is None:
        return text
    check_output(out, RECIPE, force=force, inputs=inputs)
    atomic_write(out, text)
    return text


def need_export() -> None:
    """Say how to get what an export needs, where it is missing.

    Raises:
        EnvironmentLackError: torch, timm or onnx is not installed.
    """
    need_packages("torch", "timm", "onnxscript", *_GRAPHS, extra="export")


def need_packages(*names: str, extra: str = "optimize") -> None:
    """Say how to get packages that are missing.

    Raises:
        EnvironmentLackError: one is not installed.
    """
    from importlib.util import find_spec

    from .exporter.core.errors import EnvironmentLackError

    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise EnvironmentLackError(
            f"{', '.join(missing)} not installed, which making a graph needs: pip install 'vitrim[{extra}]'"
        )
