"""The pipeline: the only place that strings the stages from a recipe to a published bundle."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...exporter.core.errors import EnvironmentLackError, InputError, NotFasterError, ParityError
from ...exporter.core.files import sha256
from ...exporter.core.targets import Target, get_target
from ...exporter.graph.files import read_bare, save
from ...exporter.pruning.budget import Budget, read_budget, write_budget
from ...exporter.pruning.load import fingerprint, save_slimmed
from ...exporter.pruning.shape import describe
from ...exporter.pruning.widths import Widths, write_widths
from ...exporter.runtime import bundle
from ...exporter.runtime.commands import bench_graphs, check_folder
from ...exporter.runtime.parity import describe_failure
from ...exporter.runtime.standalone import pack as standalone
from ...exporter.runtime.tensorrt import engine
from .calibrate import make_plan
from .golden import ends_of, golden_of, input_facts
from .graphs import choose_forms, rewrite_all, trace_all
from .load import dump_recipe
from .open import Sources, first_images, open_model, open_sources, preprocess_of
from .parity import climb, measure_fidelity, steadiest
from .precision import PROOF, check_precision, in_manifest, limits_of, write_precision
from .provenance import versions
from .readme import bundle_readme
from .recipe import Recipe, SlimSection
from .slim import Slimmed, load_slim, make_slim
from .stage import Listener, Silence, StageCache, content_key


@dataclass(frozen=True)
class Exported:
    """What an export made.

    Attributes:
        folder: the published bundle.
        budget: the token plan; None where tokens are not pruned.
        widths: what slimming kept; None where the model was not slimmed.
        parity: `parity.json`.
        fidelity: `fidelity.json`.
        bench: `bench.json`.
        precision: `precision.json`; None where float32 was asked for.
        engine: why no engine was built, or None when there is one.
    """

    folder: Path
    budget: Budget | None
    widths: Widths | None
    parity: dict[str, Any]
    fidelity: dict[str, Any]
    bench: dict[str, Any]
    precision: dict[str, Any] | None
    engine: str | None


@dataclass
class _Run:
    """What the stages of one run share."""

    recipe: Recipe
    dense: Any
    model: Any
    widths: Widths | None
    sources: Sources
    target: Target
    cache: StageCache
    listener: Listener
    dense_weights: str
    weights: str


def calibrate(recipe: Recipe, out: str | os.PathLike[str], listener: Listener | None = None) -> Budget:
    """Decide a budget and write it.

    Args:
        recipe: the recipe; only `model`, `images`, `slim`, `prune` and `export.batch` matter.
        out: the budget.json to write.
        listener: hears progress.

    Raises:
        VitrimError: one line for a person.
    """
    path = Path(out)
    if recipe.prune is None:
        raise InputError("the recipe has no prune section, so there is no token budget to decide; see `vitrim slim`")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the budget file to write, such as {path / 'budget.json'}")
    run = _open(recipe, path.parent / f".{path.name}.cache", listener or Silence())
    try:
        budget = _calibrate(run)
    finally:
        shutil.rmtree(run.cache.root, ignore_errors=True)
    assert budget is not None
    write_budget(budget, path)
    return budget


def slim(recipe: Recipe, out: str | os.PathLike[str], listener: Listener | None = None) -> Widths:
    """Make the model narrower and write its checkpoint, with the plan of widths beside it.

    The checkpoint says its own widths: `model: {name: ..., checkpoint: FILE}` takes it like any other. What fine-tuning
    has done is kept beside it until it is whole, so a run that was stopped goes on.

    Args:
        recipe: the recipe; only `model`, `images` and `slim` matter.
        out: the .safetensors to write; the plan goes to the same name with .json.
        listener: hears progress.

    Raises:
        VitrimError: one line for a person.
    """
    path = Path(out)
    if recipe.slim is None:
        raise InputError("the recipe has no slim section; give one, such as --set slim.target.flops_ratio=0.8")
    if path.is_dir() or path.suffix != ".safetensors":
        raise InputError(f"{path} is no name for a checkpoint; give a file such as {path.with_suffix('')}.safetensors")
    run = _open(recipe, path.parent / f".{path.name}.cache", listener or Silence())
    assert run.widths is not None
    save_slimmed(run.model, run.widths, path)
    write_widths(run.widths, path.with_suffix(".json"))
    shutil.rmtree(run.cache.root, ignore_errors=True)
    return run.widths


def export(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    engine_mode: str | None = None,
    listener: Listener | None = None,
    command: Sequence[str] | None = None,
) -> Exported:
    """Take a recipe all the way to a bundle.

    The bundle appears in one step. A failed proof publishes nothing; a graph that is not faster is published, so that
    its benchmark can be read, and the command fails.

    Args:
        recipe: see `vitrim.recipes.pipeline.load`.
        out: folder of the bundle.
        engine_mode: `auto`, `require` or `skip`, over the recipe's.
        listener: hears progress.
        command: for the manifest.

    Raises:
        ParityError: a rung of the ladder failed.
        NotFasterError: the pruned graph is not faster than the dense one, unless the recipe allows it.
        VitrimError: bad input or a lack of this machine.
    """
    final, listener = Path(os.path.abspath(out)), listener or Silence()
    mode = engine_mode or recipe.engine.mode
    bundle.refuse_foreign(final)
    lack = engine.why_not() if mode != "skip" else "skipped by the recipe"
    if mode == "require" and lack:
        raise EnvironmentLackError(f"an engine is required, but {lack}")
    target = get_target(recipe.export.target)
    if lack is None and target.runtime != "tensorrt":
        lack = f"the target {target.name} is no TensorRT target"
    bundle.sweep(final)
    run = _open(recipe, final.parent / f".{final.name}.cache", listener)
    budget = _calibrate(run)
    if budget is not None and not budget.stages and run.widths is None:
        listener.note("this budget removes nothing: the graph is the dense model")
    staging = bundle.staging_folder(final)
    try:
        result = _make(run, budget, staging, lack, list(command or sys.argv))
        bundle.publish(staging, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    done = Exported(final, budget, run.widths, **result, engine=lack)
    works = run.widths is not None or (budget is not None and budget.stages)
    if not recipe.bench.allow_slower and works and result["bench"]["ratios"]["speedup"]["interval"][0] <= 1:
        error = NotFasterError(
            f"{final} is published, but the pruned graph is {result['bench']['verdict']}; "
            "allow it with --set bench.allow_slower=true"
        )
        error.result = done
        raise error
    return done


def _open(recipe: Recipe, cache: Path, listener: Listener) -> _Run:
    target = get_target(recipe.export.target)
    listener.stage("model and images")
    dense = open_model(recipe)
    if recipe.prune is not None:
        describe(dense)  # tokens of some models that can be slimmed cannot be pruned
    ends_of(recipe, dense)  # refuses early what does not fit the model
    check_precision(recipe.precision, target)
    sources, stages, weights = open_sources(recipe, dense), StageCache(cache), fingerprint(dense)
    stages.sweep()
    if recipe.slim is None:
        return _Run(recipe, dense, dense, None, sources, target, stages, listener, weights, weights)
    slimmed = _slim(recipe.slim, dense, weights, sources, stages, listener)
    fresh = fingerprint(slimmed.model)
    return _Run(recipe, dense, slimmed.model, slimmed.widths, sources, target, stages, listener, weights, fresh)


def _slim(
    section: SlimSection, dense: Any, weights: str, sources: Sources, cache: StageCache, listener: Listener
) -> Slimmed:
    images = sources.calibration
    key = {
        "weights": weights,
        "images": images.fingerprint(),
        "slim": section.model_dump(mode="json"),
        "file": sha256(section.widths) if section.widths else None,
        "versions": versions(),
    }
    checkpoint = cache.root / f"finetune-{content_key(key)}.pt"
    folder = cache.run(
        "slim", key, lambda folder: make_slim(section, dense, images, folder, checkpoint, listener), listener
    )
    return load_slim(dense, folder)


def _calibrate(run: _Run) -> Budget | None:
    if run.recipe.prune is None:
        return None
    recipe, images, prune = run.recipe, run.sources.calibration, run.recipe.prune
    key = {
        "weights": run.weights,
        "images": images.fingerprint(),
        "dense": run.dense_weights,
        "prune": prune.model_dump(mode="json"),
        "batch": recipe.export.batch,
        "file": sha256(prune.budget) if prune.budget else None,
        "versions": versions(),
    }

    def make(folder: Path) -> None:
        budget = make_plan(recipe, run.model, images, folder, run.listener, run.dense)
        (folder / "importance.npy").unlink(missing_ok=True)
        write_budget(budget, folder / "budget.json")

    return read_budget(run.cache.run("calibrate", key, make, run.listener) / "budget.json")


def _make(run: _Run, budget: Budget | None, staging: Path, lack: str | None, command: list[str]) -> dict[str, Any]:
    """Everything between the budget and a finished staging folder."""
    recipe, cache, listener, batch = run.recipe, run.cache, run.listener, run.recipe.export.batch
    kept = {"method", "parameters", "prefix_tokens", "blocks"}
    plan = None if budget is None else budget.model_dump(mode="json", include=kept)
    preprocess = preprocess_of(recipe, run.model).to_dict()
    metadata = {"recipe": recipe.model_dump(mode="json"), "preprocess": preprocess, "versions": versions()}
    trace_key = {"weights": run.weights, "dense": run.dense_weights, "plan": plan, "batch": batch, "metadata": metadata}
    traced = cache.run(
        "trace",
        trace_key,
        lambda folder: trace_all(run.dense, run.model, budget, batch, metadata, folder, listener),
        listener,
    )
    images = first_images(run.sources.evaluation, max(recipe.parity.images, recipe.parity.golden), batch)
    rewrite_key = {"trace": traced.name, "target": run.target.name, "attention": recipe.export.attention}
    rewritten = cache.run(
        "passes",
        rewrite_key,
        lambda folder: rewrite_all(
            traced,
            run.target,
            steadiest(run.model, budget, images, batch),
            recipe.export.attention,
            folder,
            listener,
            ends_of(recipe, run.model),
        ),
        listener,
    )
    forms_key = {"passes": rewritten.name, "threads": recipe.bench.threads}
    tried = cache.run("forms", forms_key, lambda folder: _forms(run, rewritten, folder), listener)
    forms = json.loads((tried / "forms.json").read_text())
    chosen = {kind: rewritten / f"{kind}.{forms[kind]['form']}.onnx" for kind in forms}
    precision, graphs, proof = _precision(run, chosen, rewritten.name)
    bench_key = {"passes": rewritten.name, "forms": forms, "bench": recipe.bench.model_dump(mode="json")}
    bench_key |= {"precision": {kind: f"{path.parent.name}/{path.name}" for kind, path in graphs.items()}}
    timed = cache.run(
        "bench", bench_key, lambda folder: _bench(run, forms, graphs, chosen, precision, folder), listener
    )
    parity_key = {
        "passes": rewritten.name,
        "form": forms["pruned"]["form"],
        "precision": f"{graphs['pruned'].parent.name}/{graphs['pruned'].name}",
        "limits": recipe.precision.model_dump(mode="json"),
        "parity": recipe.parity.model_dump(mode="json"),
        "images": run.sources.evaluation.fingerprint(),
    }
    proven = cache.run(
        "parity",
        parity_key,
        lambda folder: _prove(run, budget, images, traced / "pruned.onnx", chosen["pruned"], proof, folder),
        listener,
    )
    parity = json.loads((proven / "parity.json").read_text())
    if not parity["passed"]:
        raise ParityError(describe_failure(parity))
    fidelity_key = parity_key | {"dense": forms["dense"]["form"]}
    answered = cache.run(
        "fidelity",
        fidelity_key,
        lambda folder: _fidelity(run, graphs | {"pruned": proof}, folder),
        listener,
    )
    listener.stage("bundle")
    fidelity = json.loads((answered / "fidelity.json").read_text())
    bench = json.loads((timed / "bench.json").read_text())
    _fill(staging, graphs, proven, timed, answered, rewritten)
    if precision:
        (staging / "precision.json").write_text(json.dumps(precision, indent=1))
    if budget is not None:
        write_budget(budget, staging / "budget.json")
    if run.widths is not None:
        write_widths(run.widths, staging / "widths.json")
    (staging / "recipe.yaml").write_text(dump_recipe(recipe))
    manifest_precision = in_manifest(precision)
    if lack is None:
        listener.stage("engine")
        pinned = manifest_precision["float32_nodes"]
        engine.build_engine(
            staging / "model.onnx",
            staging / "model.engine",
            precision=manifest_precision["name"],
            pinned=pinned,
            pins_may_miss=True,
            workspace_mib=recipe.engine.workspace_mib,
        )
        parity = check_folder(staging, recipe.parity.atol, recipe.parity.tie, run.recipe.bench.threads, parity)
        (staging / "parity.json").write_text(json.dumps(parity, indent=2))
        if not parity["passed"]:
            raise ParityError(describe_failure(parity))
    text = bundle_readme(recipe, run.model, budget, run.widths, parity, fidelity, bench, lack, precision)
    (staging / "README.md").write_text(text)
    standalone.write(staging)
    bundle.write_manifest(
        staging,
        versions(),
        command,
        preprocess=preprocess,
        target=run.target.name,
        batch=batch,
        input=input_facts(recipe, run.model),
        precision=manifest_precision,
        engine=lack or "built",
    )
    return {"parity": parity, "fidelity": fidelity, "bench": bench, "precision": precision}


def _forms(run: _Run, rewritten: Path, folder: Path) -> None:
    forms = choose_forms(rewritten, run.target, run.recipe.export.attention, run.recipe.bench.threads)
    (folder / "forms.json").write_text(json.dumps(forms))


def _precision(run: _Run, chosen: dict[str, Path], passes: str) -> tuple[dict[str, Any] | None, dict[str, Path], Path]:
    """What writing it found, the graphs by kind (in it, and the pruned one in wider ones), and what proves it."""
    section = run.recipe.precision
    if section.name == "fp32":
        return None, chosen, chosen["pruned"]
    images, threads = run.sources.calibration, run.recipe.bench.threads
    preprocess = preprocess_of(run.recipe, run.model)
    key = {
        "passes": passes,
        "graphs": {kind: str(path.name) for kind, path in chosen.items()},
        "precision": section.model_dump(mode="json"),
        "images": images.fingerprint(),
        "threads": threads,
    }
    float32 = {kind: path for kind, path in chosen.items() if kind != "dense"}
    folder = run.cache.run(
        "precision",
        key,
        lambda folder: write_precision(section, float32, run.target, images, preprocess, threads, folder, run.listener),
        run.listener,
    )
    written = {path.stem: path for path in folder.glob("*.onnx") if path.name != PROOF}
    graphs = chosen | written | ({"fp32": chosen["pruned"]} if written else {})
    proof = folder / PROOF if (folder / PROOF).exists() else graphs["pruned"]
    return json.loads((folder / "precision.json").read_text()), graphs, proof


def _bench(
    run: _Run,
    forms: dict[str, Any],
    graphs: dict[str, Path],
    float32: dict[str, Path],
    precision: dict[str, Any] | None,
    folder: Path,
) -> None:
    section = run.recipe.bench
    name = in_manifest(precision)["name"]
    held = {"pruned": name, "floor": name, "fp16": "fp16"}
    if name == "bf16":  # onnxruntime has no kernels: the tokens are timed in float32, the precision on the device
        graphs, held = float32, {}
    result = bench_graphs(
        graphs, section.runs, section.warmup, section.threads, run.listener.progress, run.target, held
    )
    result["attention"] = forms
    (folder / "bench.json").write_text(json.dumps(result, indent=2))


def _prove(
    run: _Run,
    budget: Budget | None,
    images: np.ndarray,
    traced: Path,
    float32: Path,
    proof: Path,
    folder: Path,
) -> None:
    section, batch, ends = run.recipe.parity, run.recipe.export.batch, ends_of(run.recipe, run.model)
    strict = {"onnx: as traced": traced, f"onnx: rewritten for {run.target.name}": float32}
    precise = None
    if proof != float32:
        precise = (f"onnx: in {run.recipe.precision.name}", proof, limits_of(run.recipe.precision))
    threads = run.recipe.bench.threads
    cut = None if run.widths is None else (run.dense, run.widths)
    result, reference = climb(
        run.model,
        budget,
        images,
        batch,
        strict,
        section,
        run.target,
        threads,
        run.listener,
        ends.preprocess,
        cut,
        precise,
    )
    (folder / "parity.json").write_text(json.dumps(result, indent=2))
    count = -(-max(section.golden, 1) // batch) * batch
    first = {name: value[:count] for name, value in reference.items()}
    golden: dict[str, Any] = golden_of(images[:count], first, ends)
    np.savez(folder / "golden.npz", **golden)


def _fidelity(run: _Run, graphs: dict[str, Path], folder: Path) -> None:
    source, threads = run.sources.evaluation, run.recipe.bench.threads
    preprocess = preprocess_of(run.recipe, run.model)
    dense, pruned, float32 = graphs["dense"], graphs["pruned"], graphs.get("fp32")
    result = measure_fidelity(dense, pruned, source, threads, run.listener.progress, preprocess, float32)
    result["on_calibration_images"] = not run.sources.disjoint
    (folder / "fidelity.json").write_text(json.dumps(result, indent=2))


_NAMES = {"pruned": "model", "dense": "dense", "floor": "floor", "fp32": "model.fp32", "fp16": "model.fp16"}


def _fill(staging: Path, graphs: dict[str, Path], proven: Path, timed: Path, answered: Path, rewritten: Path) -> None:
    """Copy finished files into the staging folder, graphs whole."""
    for kind, path in graphs.items():
        model, weights = read_bare(path)
        save(model, staging / f"{_NAMES[kind]}.onnx", weights)
    for source in (
        proven / "parity.json",
        proven / "golden.npz",
        timed / "bench.json",
        answered / "fidelity.json",
    ):
        shutil.copyfile(source, staging / source.name)
    shutil.copyfile(rewritten / "passes.json", staging / "passes.json")


__all__ = ["Exported", "calibrate", "export", "slim"]
