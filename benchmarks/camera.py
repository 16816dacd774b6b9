"""Pixels in against preprocessed floats in: nodes and paired latency through onnxruntime on this machine's CPU.

    python benchmarks/camera.py

Random weights: latency does not depend on them. Whole dense graphs as an export makes them, the same images for both.
The float graph's normalization is not timed: it is what a caller does before. The second table times the patch
embedding alone, in the forms that it could have. Written to benchmarks/results/camera.md.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.core.preprocess import from_pixels
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.io import Ends, rewrite_ends
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.load import create_model, preprocessing
from vitrim.exporter.pruning.whole import deployable
from vitrim.exporter.runtime.bench.interleave import repeat
from vitrim.exporter.runtime.bench.stats import Ratio, paired_ratio
from vitrim.exporter.runtime.machine.environment import environment
from vitrim.exporter.runtime.runners import OrtRunner

SIDE, PATCH = 224, 16
STEMS = {
    "float": "Conv, Reshape, Transpose on float32 NCHW: the reference",
    "rows": "Cast, Reshape, Transpose, Reshape, MatMul: what vitrim writes",
    "rows of bytes": "Reshape, Transpose, Reshape, Cast, MatMul: TensorRT takes no uint8 but at a Cast",
    "einsum": "Cast, Reshape, Einsum, Reshape: a node less",
    "one channel": "Cast, Reshape to [batch, 1, height, 3 width], Conv with a kernel [patch, 3 patch]",
    "planes": "Cast, Transpose to NCHW, Conv",
    "planes of bytes": "Transpose to NCHW, Cast, Conv",
}


def draw(batch: int) -> np.ndarray:
    """Random pixels [batch, side, side, 3] uint8."""
    return np.random.default_rng(0).integers(0, 256, (batch, SIDE, SIDE, 3), dtype=np.uint8)


def stem(kind: str, batch: int, width: int) -> bytes:
    """A patch embedding with a class token and positions, in one of the forms, as ONNX; all give the same numbers."""
    rng = np.random.default_rng(0)
    high = SIDE // PATCH
    tokens, row = high * high, 3 * PATCH
    weight, bias = rng.standard_normal((width, 3, PATCH, PATCH)) * 1e-4, rng.standard_normal(width)
    positions = rng.standard_normal((1, tokens + 1, width))
    held: dict[str, np.ndarray] = {"class": np.zeros((batch, 1, width), np.float32)}
    nodes: list[onnx.NodeProto] = []

    def node(op: str, inputs: list[str], **attrs: object) -> str:
        nodes.append(helper.make_node(op, inputs, [f"v{len(nodes)}"], **attrs))
        return f"v{len(nodes) - 1}"

    def hold(values: np.ndarray) -> str:
        held[f"c{len(held)}"] = values
        return f"c{len(held) - 1}"

    def view(x: str, *shape: int) -> str:
        return node("Reshape", [x, hold(np.array(shape, np.int64))])

    def cast(x: str) -> str:
        return node("Cast", [x], to=TensorProto.FLOAT)

    def convolved(x: str, kernel: np.ndarray) -> str:
        size = list(kernel.shape[2:])
        inputs = [x, hold(kernel.astype(np.float32)), hold(bias.astype(np.float32))]
        x = node("Conv", inputs, kernel_shape=size, strides=size)
        return node("Transpose", [view(x, batch, width, tokens)], perm=[0, 2, 1])

    if kind.startswith("rows"):
        x = cast("image") if kind == "rows" else "image"
        x = node("Transpose", [view(x, batch, high, PATCH, high, row)], perm=[0, 1, 3, 2, 4])
        x = view(x, batch, tokens, PATCH * row)
        x = x if kind == "rows" else cast(x)
        matrix = weight.transpose(2, 3, 1, 0).reshape(-1, width).astype(np.float32)
        x = node("MatMul", [x, hold(matrix)])
        positions[:, 1:] += bias
    elif kind == "einsum":
        x = view(cast("image"), batch, high, PATCH, high, row)
        cube = weight.transpose(2, 3, 1, 0).reshape(PATCH, row, width).astype(np.float32)
        x = node("Einsum", [x, hold(cube)], equation="bhpwq,pqd->bhwd")
        x = view(x, batch, tokens, width)
        positions[:, 1:] += bias
    elif kind == "one channel":
        x = convolved(
            view(cast("image"), batch, 1, SIDE, 3 * SIDE), weight.transpose(0, 2, 3, 1).reshape(width, 1, PATCH, row)
        )
    elif kind == "planes":
        x = convolved(node("Transpose", [cast("image")], perm=[0, 3, 1, 2]), weight)
    elif kind == "planes of bytes":
        x = convolved(cast(node("Transpose", ["image"], perm=[0, 3, 1, 2])), weight)
    else:
        x = convolved("image", weight)
    x = node("Add", [node("Concat", ["class", x], axis=1), hold(positions.astype(np.float32))])
    shape = [batch, 3, SIDE, SIDE] if kind == "float" else [batch, SIDE, SIDE, 3]
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT if kind == "float" else TensorProto.UINT8, shape)
    out = helper.make_tensor_value_info(x, TensorProto.FLOAT, [batch, tokens + 1, width])
    weights = [numpy_helper.from_array(values, name) for name, values in held.items()]
    graph = helper.make_graph(nodes, "stem", [given], [out], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def compare_forms(
    graphs: dict[str, bytes], images: dict[str, np.ndarray], rounds: int
) -> dict[str, tuple[float, Ratio]]:
    """Median ms of each graph, and of `float` over it, with its interval; outputs are held against `float`'s first."""
    outputs = {kind: next(iter(OrtRunner(graph)(images[kind]).values())) for kind, graph in graphs.items()}
    for kind, found in outputs.items():
        np.testing.assert_allclose(found, outputs["float"], atol=1e-4, err_msg=kind)

    def make() -> dict[str, Callable[[], object]]:
        return {kind: partial(OrtRunner(graph), images[kind]) for kind, graph in graphs.items()}

    samples, _ = repeat(make, rounds, 3, 0.3)
    return {kind: (float(np.median(v)), paired_ratio(samples["float"], v)) for kind, v in samples.items()}


def told(lines: list[str], out: Path) -> None:
    """Show the last line and keep what there is."""
    click.echo(lines[-1])
    atomic_write(out, "\n".join(lines) + "\n")


@click.command()
@click.option("--models", default=("vit_tiny_patch16_224", "deit_small_patch16_224"), multiple=True, show_default=True)
@click.option("--batches", default=(1, 8), multiple=True, type=int, show_default=True)
@click.option("--runs", default=60, show_default=True, help="Interleaved rounds of whole graphs; five times for stems.")
@click.option("--note", default="", help="A line for the page, such as what else ran.")
@click.option("--out", default=Path("benchmarks/results/camera.md"), type=click.Path(path_type=Path))
def main(models: tuple[str, ...], batches: tuple[int, ...], runs: int, note: str, out: Path) -> None:
    """Measure and write both tables."""
    lines = [f"`python {shlex.join(sys.argv)}`", "", *([note, ""] if note else [])]
    lines += ["Whole graphs: float32 NCHW in against uint8 NHWC in.", ""]
    lines += ["| model | batch | nodes, float | nodes, uint8 | ms, float | ms, uint8 | float / uint8 (95 %) |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for name in models:
        for batch in batches:
            model = create_model(name, random=0)
            preprocess, pixels = preprocessing(model), draw(batch)
            images = from_pixels(pixels, preprocess)
            before, _ = rewrite(trace(deployable(model, None), batch), get_target("ort-cpu"))
            after, _ = rewrite_ends(before, Ends(preprocess, True), images)
            graphs = {"float": before.SerializeToString(), "uint8": after.SerializeToString()}
            times = compare_forms(graphs, {"float": images, "uint8": pixels}, runs)
            ratio = times["uint8"][1]
            lines.append(
                f"| {name} | {batch} | {len(before.graph.node)} | {len(after.graph.node)} | {times['float'][0]:.2f} "
                f"| {times['uint8'][0]:.2f} | {ratio.median:.3f} "
                f"({ratio.interval[0]:.3f} to {ratio.interval[1]:.3f}) |"
            )
            told(lines, out)
    lines += ["", f"The patch embedding alone, patch {PATCH} of {SIDE}, class token and positions included.", ""]
    lines += ["| form | width | batch | ms | float / it (95 %) |", "| --- | --- | --- | --- | --- |"]
    for width in (192, 384):
        for batch in batches:
            pixels = draw(batch)
            planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32)
            forms = {kind: stem(kind, batch, width) for kind in STEMS}
            times = compare_forms(forms, {kind: planes if kind == "float" else pixels for kind in STEMS}, 5 * runs)
            for kind, (milliseconds, ratio) in times.items():
                interval = f"{ratio.interval[0]:.3f} to {ratio.interval[1]:.3f}"
                lines.append(f"| {kind} | {width} | {batch} | {milliseconds:.2f} | {ratio.median:.3f} ({interval}) |")
                told(lines, out)
    lines += ["", *(f"- {kind}: {words}" for kind, words in STEMS.items())]
    machine = environment()
    lines += ["", f"Machine: {machine['cpu']}, {machine['threads']} threads."]
    atomic_write(out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
