"""All that waits for a GPU, in one command: engines built or loaded, held against PyTorch, and timed against it.

    python benchmarks/engines.py                    # prepare what is missing, then run; at most 25 minutes
    python benchmarks/engines.py prepare            # graphs, and engines of TensorRT for RTX: needs PyTorch, no GPU
    python benchmarks/engines.py run                # the rest, from what was prepared: needs a GPU, no PyTorch

Of every method, precision and batch: an engine of TensorRT for RTX and one of the TensorRT that is there, its parity
with the golden outputs, dense, pruned and floor timed in turns with and without CUDA graphs, PyTorch in fp16 (eager and
compiled, with and without CUDA graphs), and energy. Each step is done in a process of its own with a time limit; one
that fails is a reason in the table. What is done is kept under --work and not done again; the folder may be carried to
another machine. Steps that matter most come first, and none is begun that would not end in time.

Written to benchmarks/results/engines.md with the command, and everything as engines.json beside it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import click
from gpu_day.child import StepError, run_child, write_result
from gpu_day.plan import PREPARED, QUICKSTART, ROUNDS, TORCH, Step, Wanted, in_order, plan
from gpu_day.steps import GPU, METER, WORK, kept_weights, newest_target, probe
from gpu_day.table import LEGEND, raw, table
from gpu_day.work import Day, at_once, in_turn, own_command

from vitrim.exporter.core.cores import usable_cores
from vitrim.exporter.core.errors import InputError, VitrimError, excerpt
from vitrim.exporter.core.files import atomic_path, atomic_write, sha256
from vitrim.exporter.core.inputs import is_file
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.runtime.bench.timing import RUNS
from vitrim.exporter.runtime.caches import VARIABLE
from vitrim.exporter.runtime.tensorrt.family import FAMILIES, TENSORRT, family_of

RTX_TARGET = "trt-rtx"
MINUTES = 25.0
PREPARES = 0.5  # share of the time that preparing may take where all is done in one call
PROBE_LIMIT = 120  # seconds


def look_around(work: Path) -> dict[str, Any]:
    """What this machine has; each thing is looked at by a process of its own, as libraries that do not fit may end it.

    Returns:
        `facts`, which results depend on, and `runs` and `builds`: by TensorRT's family, `torch` and `meter` (which
        measures energy), what keeps it from doing so here, or None.
    """
    machine: dict[str, Any] = {"facts": {}, "runs": {}, "builds": {}}
    for name in (GPU, METER, *FAMILIES, TORCH):
        command = [sys.executable, __file__, "--work", str(work), "--probe", name, "--to"]
        try:
            found = run_child(command, PROBE_LIMIT, work / "logs" / f"probe-{name}.log", lambda found: None)
        except StepError as error:
            reason = f"{name} cannot be looked at: {error}"
            found = {} if name == GPU else {"version": None, "runs": reason, "builds": reason}
        if name == GPU:
            machine["facts"].update(found)
        else:
            machine["facts"][name] = found["version"]
            machine["runs"][name], machine["builds"][name] = found["runs"], found["builds"]
    return machine


def keep_weights(work: Path, given: tuple[str, ...], models: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Copy checkpoints into the folder of all results, so that it may be carried.

    Args:
        work: the folder.
        given: texts `MODEL=FILE`; models that have no such text keep what was given before.
        models: all that are wanted.

    Returns:
        by model, the hash of its weights.

    Raises:
        InputError: a text has another form, names another model, or no file that can be read.
    """
    for text in given:
        model, _, file = text.partition("=")
        if model not in models or model == QUICKSTART or not is_file(file):
            raise InputError(f"--checkpoint {text}: give MODEL=FILE, a model of --models and a file that is there")
        for old in kept_weights(work, model):
            old.unlink()
        with atomic_path(work / "weights" / f"{model}{Path(file).suffix}") as fresh:
            shutil.copyfile(file, fresh)
    return tuple((model, sha256(file)) for model in models for file in kept_weights(work, model))


def targets_of(given: tuple[str, ...], machine: dict[str, Any]) -> tuple[str, ...]:
    """Targets whose engines are wanted: those given, or TensorRT for RTX and the TensorRT that is here.

    Raises:
        InputError: one is no TensorRT target.
    """
    own = newest_target(machine["facts"][TENSORRT.name])
    names = given or (RTX_TARGET, *([own] if own else []))
    found = tuple(dict.fromkeys(get_target(name).name for name in names))
    wrong = [name for name in found if get_target(name).runtime != "tensorrt"]
    if wrong:
        raise InputError(f"--targets {wrong[0]}: there are engines of TensorRT targets alone, see `vitrim targets`")
    return found


def require_names(names: tuple[str, ...]) -> None:
    """Refuse what is no name of a model or method: files are named by them.

    Raises:
        InputError: it is none.
    """
    wrong = [name for name in names if not re.fullmatch(r"\w[\w.+-]*", name)]
    if wrong:
        raise InputError(
            f"{excerpt(wrong[0])} is no name of a model or a method: see `vitrim models`, `vitrim methods`"
        )


def do_step(text: str, work: Path) -> dict[str, Any]:
    """Do one step in this process; `text` is the step as JSON."""
    step = Step.from_json(json.loads(text), "--step")
    return WORK[step.kind](step, work).to_json()


def is_prepared(step: Step) -> bool:
    """Whether a step needs no GPU: of engines, those whose builder needs none."""
    if step.kind not in PREPARED or step.target == TORCH:
        return False
    return step.kind == "export" or family_of(get_target(step.target)).builds_anywhere


def write(day: Day, steps: list[Step], out: Path) -> None:
    """The table, and everything beside it."""
    look, reason = partial(_found, day), partial(_reason, day)
    where = (day.machine or {}).get("facts", {})
    machine = ", ".join(f"{name} {value or 'none'}" for name, value in where.items())
    lines = [f"`python {shlex.join(sys.argv)}`", "", f"Machine: {machine}.", ""]
    lines += [*table(steps, look, reason), "", *LEGEND]
    atomic_write(out, "\n".join(lines) + "\n")
    whole = {"machine": where, "steps": raw(steps, look, reason)}
    atomic_write(out.with_suffix(".json"), json.dumps(whole, indent=1) + "\n")


def _found(day: Day, step: Step) -> dict[str, Any] | None:
    return day.keep.found(step) if day.is_done(step) else None


def _reason(day: Day, step: Step) -> str | None:
    return None if day.is_done(step) else day.why_not(step)


def prepare(day: Day, steps: list[Step], jobs: int) -> None:
    """Graphs, and engines that need no GPU, several at once; the stages that bundles share go when all are made."""
    from vitrim.recipes.pipeline.cache import SHARED, StageCache

    stages = day.work / "stages"
    threads = str(max(1, usable_cores() // jobs))
    own = day.environment
    day.environment = {**own, SHARED: str(stages), "OMP_NUM_THREADS": threads}
    at_once(day, steps, jobs)
    if all(day.is_done(step) for step in steps if step.kind == "export"):
        StageCache(stages).clear()
    day.environment = own


def do_all(day: Day, phase: str, steps: list[Step], jobs: int, minutes: float | None, out: Path) -> None:
    """Prepare, run, or both; the table is written after every step that needs the GPU."""
    began = time.monotonic()
    whole = float("inf") if minutes is None else 60 * minutes
    kept = {step.name for step in steps if (day.keep.of(step) is not None and not day.keep.found(step))}
    ordered = in_order(steps, kept)
    if phase != "run":
        day.deadline = began + whole * (1.0 if phase == "prepare" else PREPARES)
        prepare(day, [step for step in ordered if is_prepared(step)], jobs)
    if phase != "prepare":
        day.deadline = began + whole
        rest = ordered if phase == "run" else [step for step in ordered if step.kind != "export"]
        in_turn(day, rest, lambda: write(day, steps, out))


@click.command()
@click.argument("phase", default="all", type=click.Choice(["all", "prepare", "run"]))
@click.option("--models", default=("deit_small_patch16_224", QUICKSTART), multiple=True, show_default=True)
@click.option("--checkpoint", "checkpoints", multiple=True, help="MODEL=FILE, kept; without, weights are random.")
@click.option("--methods", default=("evit", "frugal", "zero_tprune"), multiple=True, show_default=True)
@click.option("--precisions", default=("fp16", "int8"), multiple=True, show_default=True)
@click.option("--batches", default=(1, 64, 8), multiple=True, type=click.IntRange(1), show_default=True)
@click.option("--targets", multiple=True, help="[default: trt-rtx, and that of the TensorRT that is installed]")
@click.option("--ratio", default=0.65, show_default=True, help="Share of the dense model's GMACs.")
@click.option("--rounds", default=ROUNDS, type=click.IntRange(*RUNS), show_default=True, help="Of a timing.")
@click.option("--minutes", type=click.FloatRange(0.1), help="[default: 25; preparing alone has no limit]")
@click.option("--jobs", default=max(1, usable_cores() // 3), type=click.IntRange(1), help="Exports at once.")
@click.option("--work", default=Path("benchmarks/.cache/engines"), type=click.Path(path_type=Path), show_default=True)
@click.option(
    "--out", default=Path("benchmarks/results/engines.md"), type=click.Path(path_type=Path), show_default=True
)
@click.option("--step", hidden=True, help="Do this step in this process ...")
@click.option("--probe", "thing", hidden=True, help="... or look what the machine has of this ...")
@click.option("--to", type=click.Path(path_type=Path), hidden=True, help="... and write what was found here.")
def main(
    phase: str,
    models: tuple[str, ...],
    checkpoints: tuple[str, ...],
    methods: tuple[str, ...],
    precisions: tuple[str, ...],
    batches: tuple[int, ...],
    targets: tuple[str, ...],
    ratio: float,
    rounds: int,
    minutes: float | None,
    jobs: int,
    work: Path,
    out: Path,
    step: str | None,
    thing: str | None,
    to: Path | None,
) -> None:
    """Do what is not done, and write the table."""
    if to is not None:
        write_result(to, partial(probe, thing) if thing else partial(do_step, str(step), work))
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the children end, too
    work = Path(os.path.abspath(work))
    try:
        require_names((*models, *methods, *precisions))
        machine = look_around(work)
        named = keep_weights(work, checkpoints, models)
        wanted = Wanted(models, methods, precisions, batches, targets_of(targets, machine), ratio, named, rounds)
        steps = plan(wanted)
        cache = {VARIABLE: str(work / "cache")}  # of timings, so that an engine that is built anew takes seconds
        day = Day(work, machine, 0.0, own_command(work), cache, exports=phase != "run", say=click.echo)
        limit = minutes or (None if phase == "prepare" else MINUTES)
        do_all(day, phase, steps, jobs, limit, out)
    except VitrimError as error:
        raise click.ClickException(str(error)) from error
    done = sum(day.is_done(one) for one in steps)
    click.echo(f"{done} of {len(steps)} steps are done")
    if phase != "prepare":
        click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
