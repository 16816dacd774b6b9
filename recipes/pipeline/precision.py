"""The stage that writes a precision into an export's graphs, keeps it where it holds and is faster, and says so."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ...calibration.images.sources import ImageSource, choose, read_some
from ...exporter.core import layout
from ...exporter.core.answers import expected_agreement
from ...exporter.core.errors import InputError, UnsupportedError
from ...exporter.core.preprocess import Preprocess, to_pixels
from ...exporter.core.targets import Target, get_target
from ...exporter.graph.decisions import without_decisions
from ...exporter.graph.files import read_whole
from ...exporter.graph.lint.check import require_fit
from ...exporter.graph.precision.emulate import emulated
from ...exporter.graph.precision.equalize import channel_maxima, equalize, normalized_products
from ...exporter.graph.precision.float32_nodes import wide_nodes
from ...exporter.graph.precision.half import LARGEST, OLDEST_QDQ, to_half
from ...exporter.graph.precision.integer import to_integer
from ...exporter.graph.precision.qdq import product_sizes, quantizable, restored, with_dynamic, with_qdq
from ...exporter.graph.precision.ranges import largest_activations, overflowing, quantization_ranges
from ...exporter.graph.precision.report import PrecisionReport
from ...exporter.graph.precision.sensitivity import Costs, Found, Layout, scan
from ...exporter.graph.shapes import with_shapes
from ...exporter.graph.store import WeightStore
from ...exporter.runtime.bench.interleave import interleave
from ...exporter.runtime.bench.report import LATER
from ...exporter.runtime.bench.stats import paired_ratio
from ...exporter.runtime.commands.bench import random_images
from ...exporter.runtime.runners import OrtRunner, not_here, run_all, runner_for
from .graphs import EMULATED, float32_graphs
from .listener import Listener
from .recipe import PrecisionSection
from .stage import Stage

if TYPE_CHECKING:
    from .recipe import Recipe
    from .view import View

SCAN_IMAGES = 256
TRIAL_ROUNDS = 25
# Measured on two cores with AVX512-VNNI, on ViT-Ti and DeiT-S: a scale per token by the value, float32 by the product.
TOKEN_NS, FLOAT_NS = 0.37, 0.01
CLEARLY = 0.98  # of the time of the static form, which another form must stay below
HARDLY_NEGATIVE = 0.25  # of the largest value, how far below zero an activation may go to count as one-sided
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
    if section.name == "fp16" and target.name == "ort-cpu":
        return  # runs, through casts; it is timed, and kept only if asked
    if section.name not in target.precisions:
        known = ", ".join(target.precisions)
        raise InputError(f"precision.name: {target.name} takes no {section.name} graph (it takes {known})")
    if section.tool == "modelopt" and (section.name != "int8" or not target.symmetric):
        raise InputError("precision.tool: modelopt places int8 for TensorRT targets; take onnxruntime here")


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
        graphs = {kind: path for kind, path in float32_graphs(view).items() if kind != "dense"}
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
        graphs: `pruned`, its `proof`, and with a token plan `floor`: float32 graphs for the target.
        target: where they will run.
        source: calibration images.
        preprocess: of the images, for graphs that take their pixels.
        threads: onnxruntime threads of the trial.
        folder: where the files go.
        listener: hears progress and what the user should know.

    `precision.json` holds `asked`, `name` (what the graphs are in), `reason`, `float32_nodes` by graph, and what was
    measured on the way.

    Raises:
        UnsupportedError: the graph is not fit for the target in this precision.
    """
    models = {kind: with_shapes(read_whole(path)) for kind, path in graphs.items() if kind != "proof"}
    proven = graphs["proof"] != graphs["pruned"]
    if proven:  # which the pruned one in this precision is a part of
        models["pruned"] = with_shapes(read_whole(graphs["proof"]))
    images = _feeds(source, SCAN_IMAGES, models["pruned"], preprocess)
    if section.name == "int8":
        written, report = _int8(section, models, target, images, threads, listener)
    else:
        written, report = _half(section, models, images, listener)
    if proven:
        written["proof"] = written["pruned"]
        written |= {kind: without_decisions(written[kind])[0] for kind in ("pruned", "fp16") if kind in written}
    report = {"asked": section.name, "name": section.name, **report}
    trial = _trial(graphs["pruned"], written["pruned"], target, threads, section.name)
    report |= trial
    faster = trial["speedup_over_fp32"] is None or trial["interval"][0] > 1
    if not faster and not section.keep_slower:
        report |= {"name": "fp32", "float32_nodes": {}}
        report["reason"] = (
            f"{section.name} runs {trial['speedup_over_fp32']:.2f} times as fast as float32 here (95 % interval "
            f"{trial['interval'][0]:.2f} to {trial['interval'][1]:.2f}), so the graph stays in float32; keep it by "
            "precision.keep_slower=true"
        )
        listener.note(report["reason"])
        written = {}
    elif trial["speedup_over_fp32"] is None:
        report["reason"] = f"not timed against float32, because {trial['not_timed']}; {LATER}"
    with WeightStore(folder) as store:
        for kind, model in written.items():
            model.metadata_props.add(key="vitrim.precision", value="fp16" if kind == "fp16" else section.name)
            require_fit(model, target, f"the {kind} graph in {section.name}")
            store.save(model, f"{kind}.onnx")
        for kind in ("pruned", "proof") if target.runtime == "tensorrt" else ():
            if kind in written:
                store.save(emulated(written[kind]), f"{kind}{EMULATED}")
    PrecisionReport.from_json(report, layout.PRECISION).write(folder / layout.PRECISION)


def _feeds(source: ImageSource, count: int, model: onnx.ModelProto, preprocess: Preprocess) -> np.ndarray:
    """The first images as a graph takes them."""
    images = read_some(source, choose(len(source), count=min(count, len(source))))
    pixels = model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    return to_pixels(images, preprocess) if pixels else images


def _named(section: PrecisionSection, model: onnx.ModelProto) -> set[str]:
    """Nodes that the recipe keeps in float32."""
    names = [node.name for node in model.graph.node]
    found: set[str] = set()
    for pattern in section.float32:
        fitting = fnmatch.filter(names, pattern)
        if not fitting:
            raise InputError(f"precision.float32: no node of the graph is called {pattern!r}; see `vitrim inspect`")
        found |= set(fitting)
    return found


def _half(
    section: PrecisionSection, models: dict[str, onnx.ModelProto], images: np.ndarray, listener: Listener
) -> tuple[dict[str, onnx.ModelProto], dict[str, Any]]:
    """fp16 or bf16: what overflows on the images stays in float32."""
    half: Any = section.name
    written, nodes, overflow, casts = {}, {}, {}, {}
    for index, (kind, model) in enumerate(models.items()):
        wide = wide_nodes(gs.import_onnx(model)) | (_named(section, model) if kind == "pruned" else set())
        writers = {name: node.name for node in model.graph.node for name in node.output}
        largest = largest_activations(model, [images[: section.images]])
        overflow[kind] = overflowing(largest, writers, LARGEST[half] / section.headroom, wide)
        typed = to_half(model, half, wide | set(overflow[kind]), half_io=section.half_io)
        written[kind], nodes[kind], casts[kind] = typed.model, list(typed.float32_nodes), typed.casts
        listener.progress(index + 1, len(models))
    report = {"float32_nodes": nodes, "overflowing": overflow, "casts": casts}
    if overflow["pruned"]:
        listener.note(f"{len(overflow['pruned'])} nodes stay in float32: their activations come near {half}'s limit")
    return written, report


def _int8(
    section: PrecisionSection,
    models: dict[str, onnx.ModelProto],
    target: Target,
    images: np.ndarray,
    threads: int | None,
    listener: Listener,
) -> tuple[dict[str, onnx.ModelProto], dict[str, Any]]:
    """int8 products: forms by the scan on the pruned graph, the floor's like it by position."""
    pruned = models["pruned"]
    equalized, count = _equalized(pruned, images[: section.images]) if section.equalize else (pruned, 0)
    products = quantizable(equalized)
    named, limit = _named(section, pruned), limits_of(section).agreement
    wanted = [name for name in products if name not in named]
    make = _Maker(section, target, equalized, wanted, images)
    reference = _logits(pruned, images, threads)
    found = scan(
        wanted,
        lambda layout, some: _logits(make(layout), some, threads),
        images,
        reference,
        limit,
        per_token=not target.symmetric,
        costs=costs_of(equalized, wanted),
        progress=listener.progress,
    )
    if not found.holds:
        listener.note(f"with every product in float32 only {found.expected:.1%} of the top classes hold")
    candidates = {"static": make(found.layout)}
    alone = pruned.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    if not target.symmetric and alone:  # in a batch, an image's answer would depend on the others
        dynamic = with_dynamic(equalized, [name for name in wanted if name not in found.layout.floats])
        if expected_agreement(reference, _logits(dynamic, images, threads)) >= limit:
            candidates["dynamic"] = dynamic
    choice = len(candidates) > 1 and not_here(pruned.SerializeToString(), target, threads) is None
    form, timed = _fastest(candidates, threads) if choice else ("static", {})
    written = {"pruned": candidates[form]}
    if "floor" in models:
        written["floor"] = _floor(section, target, models["floor"], found.layout, products, images, form)
    report: dict[str, Any] = {
        "products": len(products),
        "equalized": count,
        "form": form,
        "forms_timed": timed,
        "scan": found.to_dict(),
        "scan_images": len(images),
        "float32_nodes": {},
    }
    if target.symmetric:
        written, report["float32_nodes"] = _typed_around(written, target)
        half, more = _half(section.model_copy(update={"name": "fp16"}), {"pruned": pruned}, images, listener)
        written["fp16"], report["float32_nodes"]["fp16"] = half["pruned"], more["float32_nodes"]["pruned"]
    _tell(found, len(products), listener)
    return written, report


def costs_of(model: onnx.ModelProto, products: list[str]) -> dict[str, Costs]:
    """Nanoseconds that the finer forms of products take more, roughly: only their ratios are used."""
    sizes = product_sizes(model, products)
    return {
        name: Costs(TOKEN_NS * rows * (2 * inner + columns), FLOAT_NS * rows * inner * columns)
        for name, (rows, inner, columns) in sizes.items()
    }


def _tell(found: Found, products: int, listener: Listener) -> None:
    floats, tokens = len(found.layout.floats), len(found.layout.token)
    if floats or tokens:
        listener.note(f"int8: of {products} products {floats} stay in float32, {tokens} have a scale per token")


@dataclass
class _Maker:
    """Builds the graph of a layout from ranges and Q/DQ pairs that are made once."""

    section: PrecisionSection
    target: Target
    model: onnx.ModelProto
    products: list[str]
    images: np.ndarray
    lowest: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        section, symmetric = self.section, self.target.symmetric
        pieces = [self.images[: section.images]]
        if section.tool == "modelopt":
            from ...exporter.graph.precision.modelopt import with_modelopt

            self.quantized = with_modelopt(self.model, self.products, pieces, section.calibrator)
            return
        ranges = quantization_ranges(
            self.model, pieces, section.calibrator, percentile=section.percentile, symmetric=symmetric
        )
        scheme: Any = "tensorrt" if symmetric else "onnxruntime"
        self.quantized = with_qdq(self.model, ranges, self.products, scheme)
        reads = {node.name: node.input[0] for node in self.model.graph.node}
        for name in self.products:
            low, high = (float(np.min(value)) for value in ranges[reads[name]].range_value)
            if -low <= HARDLY_NEGATIVE * high:
                self.lowest[name] = low

    def __call__(self, layout: Layout) -> onnx.ModelProto:
        graph = restored(self.quantized, self.model, layout.floats) if layout.floats else self.quantized
        return with_shapes(graph) if self.target.symmetric else to_integer(graph, layout.token, self.lowest)


def _equalized(model: onnx.ModelProto, images: np.ndarray) -> tuple[onnx.ModelProto, int]:
    tensors = [node.inputs[0].name for node in normalized_products(gs.import_onnx(model))]
    even, count = equalize(model, channel_maxima(model, tensors, [images])) if tensors else (model, 0)
    return with_shapes(even), count


def _floor(
    section: PrecisionSection,
    target: Target,
    model: onnx.ModelProto,
    layout: Layout,
    products: list[str],
    images: np.ndarray,
    form: str,
) -> onnx.ModelProto:
    """The free-slicing graph with the forms of the pruned one: products correspond by their order."""
    own = quantizable(model)
    if len(own) != len(products):
        raise UnsupportedError(f"the floor has {len(own)} products to quantize, the pruned graph {len(products)}")
    names = dict(zip(products, own, strict=True))
    if form == "dynamic":
        return with_dynamic(model, own)
    make = _Maker(section, target, model, own, images[:8])
    return make(Layout(frozenset(names[n] for n in layout.token), frozenset(names[n] for n in layout.floats)))


def _typed_around(
    graphs: dict[str, onnx.ModelProto], target: Target
) -> tuple[dict[str, onnx.ModelProto], dict[str, list[str]]]:
    """fp16 around the int8 products of a TensorRT graph; before opset 19 flags say so, and some nodes are pinned."""
    nodes: dict[str, list[str]] = {}
    typed = dict(graphs)
    for kind, model in graphs.items():
        graph = gs.import_onnx(model)
        wide = wide_nodes(graph)
        if target.opset < OLDEST_QDQ:
            nodes[kind] = sorted(wide)
            continue
        half = to_half(model, "fp16", wide)
        typed[kind], nodes[kind] = half.model, list(half.float32_nodes)
    return typed, nodes


def _logits(model: onnx.ModelProto, images: np.ndarray, threads: int | None) -> np.ndarray:
    runner = OrtRunner(model.SerializeToString(), threads=threads)
    return run_all(runner, images, runner.batch)["logits"]


def _fastest(candidates: dict[str, onnx.ModelProto], threads: int | None) -> tuple[str, dict[str, float]]:
    """The candidate with the lowest median, timed in turns; the first one unless another is clearly faster."""
    runners = {name: OrtRunner(model.SerializeToString(), threads=threads) for name, model in candidates.items()}
    medians = {name: float(np.median(samples)) for name, samples in _samples(runners).items()}
    first = next(iter(medians))
    best = min(medians, key=lambda name: medians[name])
    return best if medians[best] < CLEARLY * medians[first] else first, medians


def _samples(runners: dict[str, OrtRunner]) -> dict[str, np.ndarray]:
    first = next(iter(runners.values()))
    image = random_images(first.shape, first.dtype)
    return interleave({name: partial(runner, image) for name, runner in runners.items()}, TRIAL_ROUNDS, warmup=0.1)


def _trial(
    float32: Path, model: onnx.ModelProto, target: Target, threads: int | None, precision: Any
) -> dict[str, Any]:
    """How much faster than the float32 graph, where the target's runtime is here."""
    nothing = {"speedup_over_fp32": None, "interval": None}
    if target.runtime != "onnxruntime":
        return {**nothing, "not_timed": f"{target.name} does not run here"}
    plain, cpu_only = runner_for(float32, target, threads)
    if cpu_only:
        return {**nothing, "not_timed": cpu_only}
    runners = {"fp32": plain, precision: runner_for(model.SerializeToString(), target, threads, precision)[0]}
    samples = _samples(runners)
    ratio = paired_ratio(samples["fp32"], samples[precision])
    return {"speedup_over_fp32": ratio.median, "interval": list(ratio.interval)}
