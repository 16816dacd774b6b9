"""Graphs with int8 products: the form of every product, and what the rest of the graph computes in.

On onnxruntime's own providers the rest is float32. On TensorRT it is fp16: by the graph's types, or before opset 19 by
a flag, which lets the builder choose fp16 for every node that is not pinned. On OpenVINO it is bf16 where that is
faster and holds. Everywhere the same nodes stay in float32 as in a graph that is half precision throughout.
"""

from __future__ import annotations

from functools import partial

import onnx

from ....exporter.core.answers import task_of
from ....exporter.core.errors import UnsupportedError
from ....exporter.core.targets import Target
from ....exporter.graph.files import read_whole
from ....exporter.graph.precision.convolutions import BETWEEN, PRODUCTS, products_of, with_whole_qdq
from ....exporter.graph.precision.judge import Judge
from ....exporter.graph.precision.qdq import quantizable
from ....exporter.graph.precision.ranges import quantization_ranges
from ....exporter.graph.precision.sensitivity import Layout, scan
from .around import OPENVINO, ORT, TENSORRT, Runtime, Scanned
from .half import Job, Written, named_nodes
from .products import Floor, Maker, equalized, smoother


def runtime_of(target: Target) -> Runtime:
    """How a target takes int8: onnxruntime's TensorRT provider as TensorRT does."""
    return {"onnxruntime": ORT, "openvino": OPENVINO, "tensorrt": TENSORRT}[
        "tensorrt" if target.symmetric else target.runtime
    ]


def make_int8(job: Job, models: dict[str, onnx.ModelProto], limit: float) -> Written:
    """Float32 graphs with int8 products: forms by the scan on the pruned graph, the floor's like it by place.

    Args:
        job: see there.
        models: `pruned`, and `floor` where there is one, with inferred shapes.
        limit: least share of the answers to keep, see `Judge`.

    Returns:
        the graphs; for TensorRT also the pruned one in `fp16`.

    Raises:
        InputError: the recipe names a node that there is not, or an activation is NaN or infinite.
        UnsupportedError: the floor's products do not stand for the pruned graph's, or a weight is no number.
    """
    pruned, runtime = models["pruned"], runtime_of(job.target)
    own = job.section.equalize and job.section.tool != "nncf"  # which evens out by itself
    even, count = equalized(pruned, job.measured) if own else (pruned, 0)
    products, named = quantizable(even), named_nodes(job.section, pruned)
    judge = _judge(job, pruned, runtime, limit)
    make = _maker(job, even, [name for name in products if name not in named], runtime, judge)
    floor = Floor.of(make, models["floor"], products) if "floor" in models else None
    scanned = Scanned(job, make, judge, named, floor)
    made = runtime.finish(scanned, models)
    found = made.report.pop("found")
    floats, tokens = len(found.layout.floats), len(found.layout.token)
    if floats or tokens:
        job.listener.note(f"int8: of {len(products)} products {floats} are no int8, {tokens} have a scale per token")
    count = len(products) * make.smooth if job.section.tool == "nncf" else count
    report = {"products": len(products), "equalized": count, "scan": found.to_dict(), "scan_images": len(job.images)}
    return Written(made.graphs, {**report, **made.report}, made.as_half)


def _judge(job: Job, model: onnx.ModelProto, runtime: Runtime, limit: float) -> Judge:
    """Of answers on the job's images: the dense model's where its graph is there, else the float32 graph's."""
    dense = None if job.dense is None else runtime.logits(job, read_whole(job.dense), job.images)
    task = task_of({output.name for output in model.graph.output})
    return Judge(runtime.logits(job, model, job.images), limit, dense, task)


def _maker(job: Job, model: onnx.ModelProto, products: list[str], runtime: Runtime, judge: Judge) -> Maker:
    """The pairs of the pruned graph; of NNCF's with and without SmoothQuant the nearer ones."""
    make = partial(Maker, job, model, products, runtime.scheme, runtime.write, job.measured)
    if job.section.tool != "nncf" or not job.section.equalize:
        return make()
    some = job.images[: job.section.images]
    reference = judge.float32[: len(some)]
    return smoother(make(), make(smooth=True), lambda graph: runtime.logits(job, graph, some), reference, judge.task)


def make_convolutions(job: Job, model: onnx.ModelProto, limit: float) -> Written:
    """A float32 graph of convolutions with int8 ones, see `graph.precision.convolutions`; some of them by the scan.

    Args:
        job: see there.
        model: with inferred shapes and all its weights in it.
        limit: least share of the answers to keep, see `Judge`.

    Raises:
        InputError: the recipe names a node that there is not, or an activation is NaN or infinite.
        UnsupportedError: no product holds the limit.
    """
    section, runtime, named = job.section, runtime_of(job.target), named_nodes(job.section, model)
    symmetric = runtime.scheme == "tensorrt"
    every = products_of(model)
    products = [name for name in every[1:-1] if name not in named]
    ranges = quantization_ranges(
        model,
        job.measured,
        section.calibrator,
        percentile=section.percentile,
        symmetric=symmetric,
        operators=(*PRODUCTS, *BETWEEN),
    )

    def made(layout: Layout) -> onnx.ModelProto:
        narrow = [name for name in products if name not in layout.floats]
        return with_whole_qdq(model, ranges, narrow, symmetric=symmetric) if narrow else model

    found = scan(
        products,
        lambda layout, images: runtime.logits(job, made(layout), images),
        job.images,
        _judge(job, model, runtime, limit),
        per_token=False,
        progress=job.listener.progress,
    )
    if len(found.layout.floats) == len(products):
        raise UnsupportedError(
            f"precision.name is int8, but no product of this graph holds {limit:.0%} of the top classes in it; lower "
            "precision.agreement, or take fp16"
        )
    if found.layout.floats:
        job.listener.note(f"int8: {len(found.layout.floats)} of {len(products)} products stay in float32")
    floats = [name for name in every if name not in products or name in found.layout.floats]
    report = {"products": len(products), "form": "static", "float32_nodes": {"pruned": floats}}
    return Written({"pruned": made(found.layout)}, {**report, "scan": found.to_dict(), "scan_images": len(job.images)})
