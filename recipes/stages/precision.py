"""The stage that writes a precision into an export's graphs, keeps it where it holds and is faster, and says so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ...calibration.images.reading import read_some
from ...calibration.images.sources import ImageSource, choose
from ...exporter.core import layout
from ...exporter.core.errors import InputError, UnsupportedError
from ...exporter.core.preprocess import Preprocess, to_pixels
from ...exporter.core.targets import Target, get_target
from ...exporter.graph.decisions import without_decisions
from ...exporter.graph.files import SINGLE_FILE_LIMIT, read_bare, read_whole
from ...exporter.graph.lint.check import require_fit
from ...exporter.graph.precision.convolutions import is_convolutional
from ...exporter.graph.precision.emulate import emulated
from ...exporter.graph.precision.half import Half
from ...exporter.graph.precision.report import PrecisionReport
from ...exporter.graph.shapes import with_shapes
from ...exporter.graph.store import WeightStore
from ...exporter.graph.weights import size_of
from ...exporter.runtime.bench.report import LATER
from ...exporter.runtime.choose import not_here
from ..listener import Listener
from ..schema.sections.outputs import PrecisionSection
from .graphs import EMULATED, float32_graphs
from .precisions.around import half_for
from .precisions.half import Job, Written, make_half, tell_misfits
from .precisions.int8 import make_convolutions, make_int8
from .stage import Stage
from .trial import trial

if TYPE_CHECKING:
    from ..schema.recipe import Recipe
    from .view import View

SCAN_IMAGES = 256
AGREEMENT = {"fp16": 0.99, "bf16": 0.95, "int8": 0.98}
COSINE = {"fp16": 0.9995, "bf16": 0.99, "int8": 0.99}


@dataclass(frozen=True)
class Limits:
    """What a precision must keep, see `PrecisionSection`."""

    agreement: float
    cosine: float


def limits_of(section: PrecisionSection) -> Limits:
    """The recipe's limits, or those of its precision."""
    agreement = AGREEMENT[section.name] if section.agreement is None else section.agreement
    return Limits(agreement, COSINE[section.name] if section.cosine is None else section.cosine)


def in_manifest(report: PrecisionReport | None) -> dict[str, Any]:
    """A bundle's precision as its manifest says it: the name, and the nodes of its graphs that stay in float32."""
    if report is None:
        return {"name": "fp32", "float32_nodes": []}
    return {"name": report.name, "float32_nodes": list(report.pinned)}


def check_precision(section: PrecisionSection, target: Target) -> None:
    """Refuse what the target does not have.

    Raises:
        InputError: naming the key.
    """
    if section.name == "auto":
        return  # what there is is tried
    if section.name == "fp16" and target.name == "ort-cpu":
        return  # runs, through casts; it is timed, and kept only if asked
    if section.name not in target.precisions:
        known = ", ".join(target.precisions)
        raise InputError(f"precision.name: {target.name} takes no {section.name} graph (it takes {known})")
    if section.tool == "modelopt" and (section.name != "int8" or not target.symmetric):
        raise InputError("precision.tool: modelopt places int8 for TensorRT targets; take onnxruntime here")
    if section.tool == "nncf" and target.runtime != "openvino":
        raise InputError("precision.tool: nncf places int8 for OpenVINO targets; take onnxruntime here")
    if section.around != "auto" and target.runtime != "openvino":
        raise InputError("precision.around is for int8 on OpenVINO targets; take auto here")
    if section.around not in ("auto", "fp32", half_for(target)):
        raise InputError(f"precision.around: {target.name} has no {section.around}; take {half_for(target)} or fp32")


class Precision(Stage):
    """`<kind>.onnx` in another precision, or none where it is not worth it, and `precision.json`."""

    name = "precision"
    needs = ("passes", "forms")
    reads = ("precision", "export.target", "bench.threads")
    takes = ("calibration",)
    timed = True

    @staticmethod
    def wanted(recipe: Recipe) -> bool:
        """Where another one than float32 is asked for."""
        return recipe.precision.name != "fp32"

    @staticmethod
    def make(view: View, folder: Path) -> None:
        """Write the pruned graph and the floor in it."""
        graphs = float32_graphs(view)
        write_precision(
            view.recipe.precision,
            graphs,
            get_target(view.recipe.export.target),
            view.calibration,
            view.preprocess,
            view.recipe.bench.threads,
            folder,
            view.listener,
        )


def write_precision(
    section: PrecisionSection,
    graphs: dict[str, Path],
    target: Target,
    source: ImageSource,
    preprocess: Preprocess,
    threads: int | None,
    folder: Path,
    listener: Listener,
) -> None:
    """Write `<kind>.onnx` in another precision, or nothing where it is not worth it, and `precision.json`.

    Args:
        section: the recipe's.
        graphs: `pruned`, with a token plan `floor`, `proof` where that is another, and `dense`, by whose answers int8
            is judged: float32 graphs for the target.
        target: where they will run.
        source: calibration images.
        preprocess: of the images, for graphs that take their pixels.
        threads: onnxruntime threads of the trial.
        folder: where the files go.
        listener: hears progress and what the user should know.

    `precision.json` holds `asked`, `name` (what the graphs are in), `reason`, `float32_nodes` by graph, and what was
    measured on the way.

    Raises:
        UnsupportedError: the graph is not fit for the target in this precision, or too large for int8.
    """
    half: Half = "bf16" if section.name == "bf16" else "fp16"
    proven = "proof" in graphs and graphs["proof"] != graphs["pruned"]
    sources = {kind: path for kind, path in graphs.items() if kind not in ("proof", "dense")}
    if proven:  # which the pruned one in this precision is a part of
        sources["pruned"] = graphs["proof"]
    read = _whole if section.name == "int8" else read_bare
    loaded = {kind: read(path) for kind, path in sources.items()}
    models = {kind: with_shapes(model) for kind, (model, _) in loaded.items()}
    images = _feeds(source, SCAN_IMAGES, models["pruned"], preprocess)
    job = Job(section, target, images, threads, listener, loaded["pruned"][1], graphs.get("dense"))
    if section.name == "int8" and is_convolutional(models["pruned"]):
        made = make_convolutions(job, models["pruned"], limits_of(section).agreement)
    elif section.name == "int8":
        made = make_int8(job, models, limits_of(section).agreement)
    else:
        made = make_half(job, models, half)
    if proven:
        made = _with_proof(made)
    tell_misfits(made.report, listener)
    report = {"asked": section.name, "name": section.name, **made.report}
    report |= _save_and_time(job, made, graphs["pruned"], folder)
    if report["speedup_over_fp32"] is None:
        report["reason"] = f"not timed against float32, because {report['not_timed']}; {LATER}"
    elif report["interval"][0] <= 1 and not section.keep_slower:
        for path in (*folder.glob("*.onnx"), *folder.glob("*.data")):
            path.unlink()
        report |= {"name": "fp32", "float32_nodes": {}, "reason": _slower(section, report)}
        listener.note(report["reason"])
    PrecisionReport.from_json(report, layout.PRECISION).write(folder / layout.PRECISION)


def _whole(path: Path) -> tuple[onnx.ModelProto, None]:
    """A graph with all its weights in it: onnxruntime's quantizer takes nothing else.

    Raises:
        UnsupportedError: it would be too large for that.
    """
    size = sum(map(size_of, read_bare(path)[0].graph.initializer))
    if size >= SINGLE_FILE_LIMIT:
        raise UnsupportedError(
            f"precision.name: the graph has {size / 1e9:.1f} GB of weights, and onnxruntime's quantizer takes at most "
            "2 GB; take fp16"
        )
    return read_whole(path), None


def _with_proof(made: Written) -> Written:
    """Graphs that tell no decisions, out of pruned ones that do, of which one is the proof."""
    kinds: tuple[str, ...] = ("pruned", "fp16")
    shipped = {kind: without_decisions(made.graphs[kind])[0] for kind in kinds if kind in made.graphs}
    return replace(made, graphs={**made.graphs, "proof": made.graphs["pruned"], **shipped})


def _save_and_time(job: Job, made: Written, float32: Path, folder: Path) -> dict[str, Any]:
    """Save the graphs, time the pruned one, and save what is to prove both where the CPU alone can run them.

    Returns:
        what `trial` returns.
    """
    section, target, threads = job.section, job.target, job.threads
    with WeightStore(folder) as store:
        for kind, model in made.graphs.items():
            model.metadata_props.add(key="vitrim.precision", value="fp16" if kind == "fp16" else section.name)
            require_fit(model, target, f"the {kind} graph in {section.name}")
            store.save(model, f"{kind}.onnx", job.weights)
        if made.as_half is not None and not_here(float32, target, threads) is not None:
            proof = emulated(made.as_half)
            stands_for = {"pruned": proof}
            if "proof" in made.graphs:
                stands_for = {"proof": proof, "pruned": without_decisions(proof)[0]}
            for kind, model in stands_for.items():
                store.save(model, f"{kind}{EMULATED}", job.weights)
    return trial(float32, folder / "pruned.onnx", target, threads, section.name)


def _slower(section: PrecisionSection, report: dict[str, Any]) -> str:
    """Why the graph stays in float32."""
    low, high = report["interval"]
    return (
        f"{section.name} runs {report['speedup_over_fp32']:.2f} times as fast as float32 here (95 % interval "
        f"{low:.2f} to {high:.2f}), so the graph stays in float32; keep it by precision.keep_slower=true"
    )


def _feeds(source: ImageSource, count: int, model: onnx.ModelProto, preprocess: Preprocess) -> np.ndarray:
    """The first images as a graph takes them."""
    images = read_some(source, choose(len(source), count=min(count, len(source))))
    pixels = model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    return to_pixels(images, preprocess) if pixels else images
