"""Hold a bundle's graph and engine against PyTorch's golden outputs. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...core import layout
from ...core.bounds import ATOL, THREADS, TIE, require_within
from ...core.errors import EnvironmentLackError, InputError
from ...core.targets import Precision, Target, get_target
from ..bundles.golden import load_golden
from ..bundles.manifest import open_size
from ..bundles.verify import verify_bundle
from ..choose import require_runtime, run_by, runner_for, unable
from ..parity import Parity, Rung
from ..rungs import close, compare
from ..runners import Outputs, Runner, run_all
from ..shipped import as_proven, hold_answers
from ..tensorrt.runner import TrtRunner, cannot_run


@dataclass(frozen=True)
class GraphCheck:
    """How a bundle's graph is run.

    Attributes:
        target: whose runtime, and execution providers, run it where they start here; None takes onnxruntime on the CPU.
        precision: that the graph holds.
        threads: of the CPU; None takes all cores.
    """

    target: Target | None = None
    precision: Precision = "fp32"
    threads: int | None = None


def check_folder(root: Path | layout.Sized, held_to: Parity, graph: GraphCheck | None = None) -> Parity:
    """Hold a bundle's graph, and its engine where one can run, against the golden outputs.

    Where there is a proof graph, it is held in place of the shipped one, whose answers must then be the proof's; of the
    engine, which is built of the shipped graph, the answers are held.

    Args:
        root: the folder, or the files of one image size in it; hashes are not looked at here.
        held_to: `atol` and `tie`, or `close` where it has one, judge; its rungs come first, and stay as they are.
        graph: run the graph too, and how; None: the engine alone.

    Returns:
        the rungs of `held_to` and those that were made here, with what was not checked and why.

    Raises:
        EnvironmentLackError: nothing can run here, so nothing could be checked.
    """
    golden = load_golden(root)
    images = golden.pop("image")
    result = replace(held_to, cpu_only=None, graph_not_checked=None, engine_not_checked=None, engine=None)
    rungs: list[Rung] = []

    def hold(runner: Runner, whole: bool = True) -> Outputs:
        outputs, name = run_all(runner, images, runner.batch), f"{runner.name} = golden"
        if not whole:
            rungs.append(hold_answers(name, golden, outputs, held_to))
        elif held_to.close:
            limits = held_to.close
            rungs.append(close(name, golden, outputs, cosine=limits.cosine, agreement=limits.agreement))
        else:
            rungs.append(compare(name, golden, outputs, atol=held_to.atol, tie=held_to.tie))
        return outputs

    proven = (root / layout.PROOF).exists()  # else the graph itself tells its decisions
    target = get_target("ort-cpu") if graph is None or graph.target is None else graph.target
    unfit = None if graph is None else unable(target, graph.precision)
    if unfit:
        result = replace(result, graph_not_checked=unfit)
    elif graph is not None:
        place = root / (layout.PROOF if proven else layout.MODEL)
        runner, cpu_only = runner_for(place, target, graph.threads, graph.precision, cached=True)
        result, outputs = replace(result, cpu_only=cpu_only), hold(runner)
        if proven:
            runner, _ = runner_for(root / layout.MODEL, target, graph.threads, graph.precision, cached=True)
            rungs.append(as_proven(runner.name, golden, outputs, run_all(runner, images, runner.batch), held_to))
    wanted = graph is None or target.runtime == "tensorrt"
    no_engine = f"{root} has no {(root / layout.ENGINE).name}: build it first" if wanted else None
    if (root / layout.ENGINE).exists():
        no_engine = cannot_run(root / layout.ENGINE)
        result = replace(result, engine_not_checked=no_engine)
        if no_engine is None:
            with TrtRunner(root / layout.ENGINE, root / layout.MODEL) as trt:
                hold(trt, whole=not proven)
    if not rungs and not held_to.rungs:
        reasons = [reason for reason in (result.graph_not_checked, no_engine) if reason]
        raise EnvironmentLackError(f"nothing was checked: {'; '.join(reasons)}")
    return replace(result, rungs=(*held_to.rungs, *rungs))


def check_bundle(
    folder: str | os.PathLike[str],
    *,
    atol: float | None = None,
    tie: float | None = None,
    threads: int | None = None,
    runtime: str = "auto",
    size: str | int | Sequence[int] | None = None,
) -> Parity:
    """Verify every file of a bundle, then hold it against PyTorch's golden outputs; PyTorch is not needed.

    Args:
        folder: the bundle.
        atol, tie: over those of the bundle's own `parity.json`; either makes the check strict where that one's
            `close` would judge a bundle of another precision by cosine and answers.
        threads: of the CPU; None takes all cores.
        runtime: that runs the graph, beside the engine where there is one: `onnxruntime`, `openvino`, or `auto`: the
            target's own where it runs here, else onnxruntime. `tensorrt` checks the engine alone.
        size: of the images, such as `192x256`, in a bundle of several; None: the bundle's own.

    Raises:
        InputError: a file is missing, changed, or not in the manifest; there is no such runtime or size; or a number is
            out of bounds.
        EnvironmentLackError: nothing can run here.
    """
    require_runtime(runtime)
    for name, value, bounds in (("atol", atol, ATOL), ("tie", tie, TIE), ("threads", threads, THREADS)):
        if value is not None:
            require_within(name, value, *bounds)
    whole = verify_bundle(Path(folder), needs=(layout.PARITY, layout.GOLDEN, layout.MODEL))
    root, manifest = open_size(Path(folder), whole, size)
    own = Parity.read(root / layout.PARITY, "parity report")
    held_to = Parity(
        atol=own.atol if atol is None else atol,
        tie=own.tie if tie is None else tie,
        rungs=(),
        close=own.close if atol is None and tie is None else None,
    )
    target = manifest.resolved_target
    if runtime == "tensorrt":
        if target.no_engine:
            raise InputError(f"{root} has no {(root / layout.ENGINE).name}: {target.no_engine}")
        return check_folder(root, held_to)
    chosen, aside = run_by(target, runtime)
    result = check_folder(root, held_to, GraphCheck(chosen, manifest.precision.name, threads))
    return replace(result, cpu_only=aside) if aside else result
