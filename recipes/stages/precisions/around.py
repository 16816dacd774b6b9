"""How each runtime takes int8 products, and what the rest of the graph computes in there.

::

    onnxruntime  integer products, or scales that are measured whole      the rest: float32
    TensorRT     signed pairs with constant scales                        fp16, by types or by a flag
    OpenVINO     pairs, per token where the scan says so                  bf16 (fp16 on GPUs) or float32
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from ....exporter.core.answers import task_of
from ....exporter.core.targets import Target
from ....exporter.graph.precision.around import Around, fp16_around, half_around
from ....exporter.graph.precision.emulate import emulated
from ....exporter.graph.precision.half import OLDEST_QDQ, Half
from ....exporter.graph.precision.integer import to_integer
from ....exporter.graph.precision.judge import Judge
from ....exporter.graph.precision.qdq import Scheme, with_dynamic
from ....exporter.graph.precision.sensitivity import Found, Layout, scan
from ....exporter.graph.precision.token_scales import with_token_scales
from ....exporter.graph.shapes import with_shapes
from ....exporter.runtime.choose import not_here, runner_for, unable
from ....exporter.runtime.runners import OrtRunner, Outputs, run_all
from ..trial import fastest
from .half import Job, Written, add_to, empty_report, make_half
from .products import Floor, Maker, Write, costs_of

Run = Callable[[Layout, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Scanned:
    """What a runtime's graphs are finished from.

    Attributes:
        job: see there.
        make: the pruned graph's products.
        judge: of the answers on the job's images.
        named: nodes that the recipe keeps in float32.
        floor: the floor's products.
    """

    job: Job
    make: Maker
    judge: Judge
    named: Collection[str]
    floor: Floor | None

    def scan(self, run: Run, *, per_token: bool, rough: Run | None = None) -> Found:
        """The cheapest forms of the products that keep the answers of a graph that `run` runs."""
        found = scan(
            self.make.products,
            run,
            self.job.images,
            self.judge,
            per_token=per_token,
            costs=costs_of(self.make.model, self.make.products),
            rough=rough,
            progress=self.job.listener.progress,
        )
        if not found.holds:
            self.job.listener.note(f"with every product in float32 only {found.kept:.1%} of the answers are kept")
        return found


@dataclass(frozen=True)
class Runtime:
    """How a runtime takes int8.

    Attributes:
        scheme: of the pairs.
        write: a graph with pairs in the runtime's own form, see `Maker`.
        logits: (job, graph, images) -> logits, by what stands for the runtime here.
        finish: everything -> the graphs, with what the scan `found` in the report.
    """

    scheme: Scheme
    write: Write
    logits: Callable[[Job, onnx.ModelProto, np.ndarray], np.ndarray]
    finish: Callable[[Scanned, dict[str, onnx.ModelProto]], Written]


def _answer(outputs: Outputs) -> np.ndarray:
    return outputs[task_of(outputs).output]


def _by_ort(job: Job, model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    runner = OrtRunner(model.SerializeToString(), threads=job.threads)
    return _answer(run_all(runner, images, runner.batch))


def _by_target(job: Job, model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    runner = runner_for(model.SerializeToString(), job.target, job.threads)[0]
    return _answer(run_all(runner, images, runner.batch))


def _onnxruntime(scanned: Scanned, models: dict[str, onnx.ModelProto]) -> Written:
    """With the scan's forms, or with dynamic scales where those hold and win."""
    job, make, floor = scanned.job, scanned.make, scanned.floor
    found = scanned.scan(lambda layout, images: _by_ort(job, make(layout), images), per_token=True)
    candidates = {"static": make(found.layout)}
    if make.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1:
        # In a batch, an image's answer would depend on the others.
        dynamic = _dynamic(make, found.layout)
        if scanned.judge.holds(_by_ort(job, dynamic, job.images)):
            candidates["dynamic"] = dynamic
    choice = len(candidates) > 1 and not_here(make.model.SerializeToString(), job.target, job.threads) is None
    form, timed = fastest(candidates, job.target, job.threads) if choice else ("static", {})
    graphs = {"pruned": candidates[form]}
    if floor is not None:
        own = floor.layout(found.layout, scanned.named)
        graphs["floor"] = _dynamic(floor.make, own) if form == "dynamic" else floor.make(own)
    return Written(graphs, {"found": found, "form": form, "forms_timed": timed, "float32_nodes": {}})


def _dynamic(make: Maker, layout: Layout) -> onnx.ModelProto:
    return with_dynamic(make.model, [name for name in make.products if name not in layout.floats])


def _tensorrt(scanned: Scanned, models: dict[str, onnx.ModelProto]) -> Written:
    """fp16 around the products, and the pruned graph in fp16 beside it."""
    job, make, floor = scanned.job, scanned.make, scanned.floor
    found = scanned.scan(lambda layout, images: _by_ort(job, make(layout), images), per_token=False)
    by_flag, headroom = job.target.opset < OLDEST_QDQ, job.section.headroom
    around = {"pruned": fp16_around(make, found.layout, job.measured, headroom, scanned.named, by_flag=by_flag)}
    if floor is not None:
        own, named = floor.layout(found.layout, scanned.named), floor.names(scanned.named)
        around["floor"] = fp16_around(floor.make, own, job.measured, headroom, named, by_flag=by_flag)
    half = make_half(job, {"pruned": models["pruned"]}, "fp16")
    written = _around_written(around, found)
    for key, own_report in half.report.items():
        written.report[key]["fp16"] = own_report["pruned"]
    return replace(written, graphs={**written.graphs, "fp16": half.graphs["pruned"]})


def _around_written(around: dict[str, Around], found: Found) -> Written:
    report: dict[str, Any] = {**empty_report(), "found": found, "form": "static", "forms_timed": {}}
    for kind, each in around.items():
        add_to(report, kind, each.float32_nodes, each.found, each.casts)
    return Written({kind: each.model for kind, each in around.items()}, report, around["pruned"].as_half)


def _openvino(scanned: Scanned, models: dict[str, onnx.ModelProto]) -> Written:
    """Half precision around the products where it is faster and holds, else float32."""
    job, make, floor = scanned.job, scanned.make, scanned.floor
    half, timed = _half_of(scanned)
    found = None if half is None else _scan_around(scanned, half)
    if half is None or found is None or (not found.holds and job.section.around == "auto"):
        found = scanned.scan(lambda layout, images: _by_target(job, make(layout), images), per_token=True)
        graphs = {"pruned": make(found.layout)}
        if floor is not None:
            graphs["floor"] = floor.make(floor.layout(found.layout, scanned.named))
        told = {"form": "static", "around": "fp32", "forms_timed": timed, "float32_nodes": {}}
        return Written(graphs, {"found": found, **told})
    around = {"pruned": _half_around(make, found.layout, half, scanned.named)}
    if floor is not None:
        own, named = floor.layout(found.layout, scanned.named), floor.names(scanned.named)
        around["floor"] = _half_around(floor.make, own, half, named)
    written = _around_written(around, found)
    return replace(written, report={**written.report, "around": half, "forms_timed": timed})


def half_for(target: Target) -> Half:
    """The half precision that a target's int8 graphs have around the products."""
    return "bf16" if "bf16" in target.precisions else "fp16"


def _half_of(scanned: Scanned) -> tuple[Half | None, dict[str, float]]:
    """The half precision to try, None for float32, and what was timed to find out."""
    job, make = scanned.job, scanned.make
    asked, half = job.section.around, half_for(job.target)
    if asked != "auto":
        return (None if asked == "fp32" else half), {}
    if not_here(make.model.SerializeToString(), job.target, job.threads) is not None:
        return None, {}
    candidates = {half: _half_around(make, Layout(), half, scanned.named).model, "fp32": make(Layout())}
    form, timed = fastest(candidates, job.target, job.threads)
    if form != half:
        return None, timed
    without = _run_around(scanned, half)(Layout(floats=frozenset(make.products)), job.images)
    return (half if scanned.judge.holds(without) else None), timed


def _run_around(scanned: Scanned, half: Half) -> Run:
    """Runs the pruned graph with half precision around its products."""

    def run(layout: Layout, images: np.ndarray) -> np.ndarray:
        graph = _half_around(scanned.make, layout, half, scanned.named).model
        target = scanned.job.target
        return _by_target(scanned.job, emulated(graph) if unable(target, half) else graph, images)

    return run


def _scan_around(scanned: Scanned, half: Half) -> Found:
    job, make = scanned.job, scanned.make
    return scanned.scan(
        _run_around(scanned, half),
        per_token=True,
        rough=lambda layout, images: _by_target(job, make(layout), images),
    )


def _half_around(make: Maker, layout: Layout, half: Half, named: Collection[str]) -> Around:
    job = make.job
    inner = half in job.target.inner_float32
    return half_around(make(layout), make.extents, job.section.headroom, half, named, inner)


ORT = Runtime(
    "onnxruntime", lambda graph, layout, lowest: to_integer(graph, layout.token, lowest), _by_ort, _onnxruntime
)
TENSORRT = Runtime("tensorrt", lambda graph, layout, lowest: with_shapes(graph), _by_ort, _tensorrt)
OPENVINO = Runtime(
    "onnxruntime",
    lambda graph, layout, lowest: with_token_scales(graph, layout.token, lowest),
    _by_target,
    _openvino,
)
