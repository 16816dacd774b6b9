"""What a CPU gives: dense and pruned graphs by onnxruntime and OpenVINO in every precision, speed and answers.

    python benchmarks/cpu.py --data DATA

DATA is as for benchmarks/measure.py. Precisions are calibrated on photos of even classes; `agrees` is the share of odd
ones with the top class of the dense float32 model, `keeps` with that of the pruned graph in float32, `tokens` the
largest share of a stage's tokens that the precision changed. Speed is over onnxruntime's dense float32 graph, medians
of the ratios of interleaved rounds with 95 % intervals; `overhead` over the floor in the same precision. DeiT-S has
random weights, so only its speed is told. Written to benchmarks/results/cpu.md with the command.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from measure import (
    MODELS,
    Row,
    all_answers,
    budget_of,
    command,
    kept_file,
    kept_json,
    load_model,
    open_subject,
    plan_of,
)

from vitrim.calibration.images.listing import open_images
from vitrim.calibration.tokens.cost import graph_macs
from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.core.targets import Precision, get_target
from vitrim.exporter.graph.decisions import without_decisions
from vitrim.exporter.graph.files import save
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.budget import Budget
from vitrim.exporter.pruning.load import create_model, preprocessing
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.whole import deployable
from vitrim.exporter.runtime.bench.interleave import repeat
from vitrim.exporter.runtime.bench.stats import Ratio, paired_ratio
from vitrim.exporter.runtime.choose import runner_for
from vitrim.exporter.runtime.commands.bench import random_images
from vitrim.exporter.runtime.machine.environment import environment
from vitrim.exporter.runtime.rungs import compare_decisions, stage_names
from vitrim.exporter.runtime.runners import run_all
from vitrim.recipes.listener import Silence
from vitrim.recipes.schema.sections.outputs import PrecisionSection
from vitrim.recipes.stages.kinds import budget_of_kind
from vitrim.recipes.stages.precision import write_precision

SMALL = "DeiT-S"
DENSE = "dense"
COLUMNS: tuple[tuple[str, Precision], ...] = (
    ("ort-cpu", "fp32"),
    ("ort-cpu", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
_HEAD = (
    "| model | batch | threads | method | runtime | precision | ms | over dense fp32 of onnxruntime | overhead "
    "| agrees | keeps | tokens |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass(frozen=True)
class Given:
    """What the command line says."""

    data: Path
    cache: Path
    ratio: float
    rounds: int


@dataclass(frozen=True)
class Case:
    """One graph of the table."""

    method: str
    target: str
    precision: Precision

    @property
    def name(self) -> str:
        """For files and samples."""
        return f"{self.method}.{self.target}.{self.precision}"


def model_of(label: str, given: Given) -> Any:
    """DeiT-S with random weights, or one with its own."""
    return create_model("deit_small_patch16_224", random=0) if label == SMALL else load_model(label, given.data)


def budget_for(label: str, method: str, given: Given) -> Budget | None:
    """The method's plan at the share of the dense model's cost; None: the dense model."""
    if method == DENSE:
        return None
    shape = describe(model_of(label, given))
    return budget_of(shape, Row(method, method), given.ratio * graph_macs(shape))


def folder_of(label: str, batch: int, case: Case, given: Given) -> Path:
    """The graphs of a case: `pruned.onnx`, with its decisions `proof.onnx`, and `floor.onnx`; made where not kept."""
    plan = plan_of(budget_for(label, case.method, given))
    folder = kept_file(given.cache, "", kind="cpu", label=label, batch=batch, case=case.name, plan=plan)
    if (folder / "done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    if case.precision == "fp32":
        _float32(label, batch, case, given, folder)
    else:
        _narrow(label, batch, case, given, folder)
    (folder / "done").touch()
    return folder


def _float32(label: str, batch: int, case: Case, given: Given, folder: Path) -> None:
    model, budget = model_of(label, given), budget_for(label, case.method, given)
    kinds = {"pruned": budget} if budget is None else {"pruned": budget, "floor": budget_of_kind("floor", budget)}
    for kind, plan in kinds.items():
        outputs = ("logits", "kept", "merged") if kind == "pruned" and plan is not None else ("logits",)
        traced = trace(deployable(model, plan, outputs), batch)
        whole, _ = rewrite(traced, get_target(case.target), fused_attention=case.target == "ort-cpu")
        if kind == "pruned":
            save(whole, folder / "proof.onnx")
            whole, _ = without_decisions(whole)
        save(whole, folder / f"{kind}.onnx")


def _narrow(label: str, batch: int, case: Case, given: Given, folder: Path) -> None:
    wide = folder_of(label, batch, Case(case.method, case.target, "fp32"), given)
    graphs = {path.stem: path for path in wide.glob("*.onnx")}
    graphs["dense"] = folder_of(label, batch, Case(DENSE, case.target, "fp32"), given) / "pruned.onnx"
    preprocess = preprocessing(model_of(label, given))
    photos = given.data / "imagenet_sample"
    source = open_images(photos, preprocess, classes=1000, every=2, offset=0, count=64 if label == SMALL else 256)
    section = PrecisionSection(name=case.precision, keep_slower=True, agreement=0.0 if label == SMALL else None)
    write_precision(section, graphs, get_target(case.target), source, preprocess, 1, folder, Silence())


def answers_of(label: str, case: Case, given: Given) -> dict[str, Any]:
    """Agreement with the dense model and with float32, and tokens that changed, on photos of odd classes."""
    subject = open_subject(label, given.data, given.cache)
    dense = all_answers({label: (subject, None)}, given.data, given.cache, 1)[label]
    proof = folder_of(label, 1, case, given) / "proof.onnx"
    wide = folder_of(label, 1, Case(case.method, case.target, "fp32"), given) / "proof.onnx"
    what = {"kind": "cpu answers", "label": label, "case": case.name, "folder": proof.parent.name}

    def work() -> dict[str, Any]:
        images = np.load(subject.images)
        target = get_target(case.target)
        ours, theirs = (run_all(runner_for(path, target)[0], images, 1) for path in (proof, wide))
        table, _ = compare_decisions(theirs, ours, stage_names(theirs))
        top = ours["logits"].argmax(1)
        return {
            "agrees": float((top == dense.argmax(1)).mean()),
            "keeps": float((top == theirs["logits"].argmax(1)).mean()),
            "tokens": max((1 - stage.same_tokens for stage in table), default=0.0),
        }

    return kept_json(kept_file(given.cache, ".json", **what), work)


def times_of(label: str, batch: int, threads: int, cases: list[Case], given: Given) -> dict[str, Any]:
    """Milliseconds, and ratios with intervals, of all cases and their floors, in turns."""
    folders = {case: folder_of(label, batch, case, given) for case in cases}
    what = {"kind": "cpu times", "folders": [folder.name for folder in folders.values()], "threads": threads}

    def work() -> dict[str, Any]:
        def make() -> dict[str, Callable[[], object]]:
            calls: dict[str, Callable[[], object]] = {}
            for case, folder in folders.items():
                for kind in ("pruned", "floor"):
                    if (folder / f"{kind}.onnx").exists():
                        runner, why = runner_for(folder / f"{kind}.onnx", get_target(case.target), threads)
                        assert why is None, why
                        calls[f"{case.name} {kind}"] = partial(runner, random_images(runner.shape, runner.dtype))
            return calls

        samples, _ = repeat(make, given.rounds if batch == 1 else max(given.rounds // 2, 12), 3, 0.1)
        base = samples[f"{cases[0].name} pruned"]
        found: dict[str, Any] = {}
        for case in cases:
            own, floor = samples[f"{case.name} pruned"], samples.get(f"{case.name} floor")
            found[case.name] = {
                "ms": float(np.median(own)),
                "speed": paired_ratio(base, own).to_json(),
                "overhead": None if floor is None else paired_ratio(own, floor).to_json(),
            }
        return found

    return kept_json(kept_file(given.cache, ".json", **what, rounds=given.rounds), work)


def _ratio(data: dict[str, Any] | None, digits: int) -> str:
    if data is None:
        return "-"
    ratio = Ratio.from_json(data, "a kept ratio")
    low, high = ratio.interval
    return f"{ratio.median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--models", default=(SMALL, *MODELS), multiple=True, help="[default: all]")
@click.option("--methods", default=("evit", "frugal", "zero_tprune"), multiple=True, show_default=True)
@click.option("--ratio", default=0.65, show_default=True, help="Share of the dense model's multiply-accumulates.")
@click.option("--without", type=click.Choice(["bf16", "int8"]), multiple=True, help="To look for int8 takes minutes.")
@click.option("--batches", default=(1, 8), multiple=True, type=int, show_default=True)
@click.option("--threads", "counts", default=(1, 2), multiple=True, type=int, show_default=True)
@click.option("--rounds", default=36, show_default=True, help="Interleaved ones, half as many of larger batches.")
@click.option("--cache", default=Path("benchmarks/.cache/cpu"), type=click.Path(path_type=Path), show_default=True)
@click.option("--out", default=Path("benchmarks/results/cpu.md"), type=click.Path(path_type=Path), show_default=True)
def main(
    data: Path,
    models: tuple[str, ...],
    methods: tuple[str, ...],
    ratio: float,
    without: tuple[str, ...],
    batches: tuple[int, ...],
    counts: tuple[int, ...],
    rounds: int,
    cache: Path,
    out: Path,
) -> None:
    """Measure and write the table."""
    given = Given(data, cache, ratio, rounds)
    columns = [column for column in COLUMNS if column[1] not in without]
    cases = [Case(method, *column) for method in (DENSE, *methods) for column in columns]
    lines = [f"`{command(data)}`", "", _HEAD]
    for label in models:
        told = {} if label == SMALL else {case: answers_of(label, case, given) for case in cases}
        for batch in batches:
            for threads in counts:
                timed = times_of(label, batch, threads, cases, given)
                for case in cases:
                    lines.append(_line(label, batch, threads, case, timed[case.name], told.get(case)))
                    click.echo(lines[-1])
                atomic_write(out, "\n".join(lines) + "\n")
    where = environment()
    lines += ["", f"Machine: {where['cpu']}, {where['cores']} cores; {', '.join(where['instructions'] or [])}."]
    atomic_write(out, "\n".join(lines) + "\n")


def _line(label: str, batch: int, threads: int, case: Case, timed: dict[str, Any], told: dict[str, Any] | None) -> str:
    shares = ["-"] * 3 if told is None else [f"{100 * told[key]:.1f}" for key in ("agrees", "keeps", "tokens")]
    runtime = get_target(case.target).runtime
    cells = [f"{timed['ms']:.2f}", _ratio(timed["speed"], 2), _ratio(timed["overhead"], 3), *shares]
    return f"| {label} | {batch} | {threads} | {case.method} | {runtime} | {case.precision} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
