"""What stays in float32: scores and softmaxes, and nothing of what costs time."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper

from vitrim.exporter.graph.io import Ends, rewrite_ends
from vitrim.exporter.graph.precision.float32_nodes import carrying_nodes, is_projection, wide_nodes
from vitrim.exporter.graph.precision.qdq import with_qdq
from vitrim.exporter.graph.precision.ranges import quantization_ranges
from vitrim.exporter.graph.shapes import with_shapes

METHODS = ["zero_tprune", "ppt", "tome", "frugal", "ats"]
TARGETS = ["ort-cpu", "trt-8.5", "trt-11"]
make = helper.make_node


def products(graph: gs.Graph) -> dict[str, gs.Node]:
    """By name, products with a weight that answer with a row for every token, or with the classes."""
    return {
        node.name: node
        for node in graph.nodes
        if node.op in ("MatMul", "Gemm", "Conv")
        and isinstance(node.inputs[1], gs.Constant)
        and node.inputs[1].shape[0] in (48, 144, 192, 7)
    }


def is_of_one(node: gs.Node) -> bool:
    """Whether a product is of tokens with themselves."""
    turned = node.inputs[1].inputs
    return bool(turned) and turned[0].op == "Transpose" and turned[0].inputs[0] is node.inputs[0]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", METHODS)
def test_scores_stay_and_products_do_not(method: str, target: str, graphs: Any) -> None:
    graph = gs.import_onnx(graphs(method, target))
    wide = wide_nodes(graph)
    scoring = set(products(graph)) - carrying_nodes(graph)
    assert len(scoring) == 2 * (method == "ats")  # which chooses by a query of its own, before the tokens ask
    assert len(products(graph)) == 2 * (6 if method == "ats" else 4) + 2
    assert not wide & set(products(graph))
    heavy = [node for node in graph.nodes if node.op == "MatMul" and np.prod(node.outputs[0].shape) > 3 * 8 * 8 - 1]
    compared = [node.name for node in heavy if is_of_one(node)]
    assert len(compared) == (method == "frugal")
    assert set(compared) <= wide
    products_of_two = [node for node in heavy if not is_projection(node) and not is_of_one(node)]
    assert sum(node.name in wide for node in products_of_two) == 0  # nor q k' and attention by v
    for node in graph.nodes:
        alone = ("Softmax", "LayerNormalization", "TopK", "ArgMax", "Log", "Sqrt")
        if node.op in alone or node.op.startswith("Reduce"):
            assert node.name in wide, node.name


@pytest.mark.slow
@pytest.mark.parametrize(("method", "target"), [("zero_tprune", "ort-cpu"), ("ats", "trt-11")])
def test_sums_by_products_with_constants_are_scores(method: str, target: str, graphs: Any) -> None:
    """zero_tprune sums tokens, and a TensorRT graph of ats has running sums, as products with constants."""
    graph = gs.import_onnx(graphs(method, target))
    sums = [
        node.name
        for node in graph.nodes
        if node.op == "MatMul" and any(isinstance(t, gs.Constant) for t in node.inputs)
        if node.name not in products(graph)
    ]
    assert len(sums) == {"zero_tprune": 6, "ats": 2}[method]
    assert set(sums) <= wide_nodes(graph)
    assert not set(sums) & carrying_nodes(graph)


@pytest.mark.slow
def test_quantized_products_still_end_the_way_up(graphs: Any, noise: Any) -> None:
    """Weights behind a pair are weights, or the whole residual stream would stay in float32."""
    model = graphs("tome", "trt-11")
    names = [node.name for node in gs.import_onnx(model).nodes if node.op == "MatMul" and is_projection(node)]
    quantized = with_qdq(model, quantization_ranges(model, [noise(2)], "minmax", symmetric=True), names, "tensorrt")
    plain, wide = wide_nodes(gs.import_onnx(model)), wide_nodes(gs.import_onnx(quantized))
    assert {name for name in wide if "Linear" not in name} == plain


def test_pixels_stay_until_they_are_tokens(families: Any) -> None:
    model, preprocess = families("qk_norm")
    model, _ = rewrite_ends(model, Ends(preprocess, pixels=True))
    graph = gs.import_onnx(model)
    embedding = next(node for node in graph.nodes if node.op == "MatMul" and tuple(node.inputs[1].shape) == (768, 48))
    positions = next(node for node in graph.nodes if node.op == "Add")
    wide = wide_nodes(graph)
    assert {embedding.name, positions.name, graph.inputs[0].outputs[0].name} <= wide
    sums = [node.name for node in graph.nodes if node.op == "Add" and node is not positions]
    assert len(sums) == 13  # a bias of each of nine products, and two residuals a block
    assert not wide & set(sums)


@pytest.mark.parametrize(("scalar", "stays"), [(1e-12, True), (1e9, True), (1e-3, False), (0.0, False)])
def test_scalars_that_half_cannot_hold(scalar: float, stays: bool, make_precise: Any) -> None:
    nodes = [make("Mul", ["x", "w"], ["a"], "gain"), make("Max", ["a", "s"], ["y"], "floor")]
    model = make_precise(nodes, w=np.ones(4, np.float32), s=np.array(scalar, np.float32))
    assert wide_nodes(gs.import_onnx(model)) == ({"floor"} if stays else set())


def test_ids_that_become_floats_stay(make_precise: Any) -> None:
    """2049 is no fp16 number and 257 no bf16 one."""
    nodes = [
        make("Cast", ["x"], ["i"], "whole", to=onnx.TensorProto.INT64),
        make("Cast", ["i"], ["f"], "float", to=onnx.TensorProto.FLOAT),
        make("Add", ["f", "x"], ["y"], "sum"),
    ]
    assert wide_nodes(gs.import_onnx(make_precise(nodes))) == {"whole", "float"}


def test_comparisons_decide(make_precise: Any) -> None:
    nodes = [
        make("MatMul", ["x", "w"], ["a"], "projection"),
        make("Mul", ["a", "a"], ["score"], "square"),
        make("Greater", ["score", "s"], ["b"], "compare"),
        make("Where", ["b", "score", "x"], ["y"], "choose"),
    ]
    model = make_precise(nodes, w=np.eye(4, dtype=np.float32), s=np.array(0.5, np.float32))
    assert wide_nodes(gs.import_onnx(model)) == {"square", "compare"}


def test_the_bias_of_a_softmax_stays_but_not_its_product(make_precise: Any) -> None:
    nodes = [
        make("MatMul", ["x", "w"], ["k"], "projection"),
        make("Mul", ["k", "k"], ["size"], "sizes"),
        make("MatMul", ["k", "t"], ["qk"], "product"),
        make("Add", ["qk", "size"], ["logit"], "add"),
        make("Softmax", ["logit"], ["p"], "softmax"),
        make("Mul", ["p", "x"], ["y"], "after"),
    ]
    model = make_precise(nodes, w=np.eye(4, dtype=np.float32), t=np.eye(4, dtype=np.float32))
    assert wide_nodes(gs.import_onnx(model)) == {"sizes", "add", "softmax"}


def test_what_moves_is_as_narrow_as_what_it_moves(make_precise: Any) -> None:
    """For OpenVINO: a cast behind a move gives the same numbers; what moves a score, or a mixture, moves float32."""
    nodes = [
        make("MatMul", ["x", "w"], ["a"], "projection"),
        make("Add", ["a", "b"], ["k"], "bias"),
        make("Transpose", ["k"], ["t"], "turn"),
        make("Mul", ["t", "t"], ["s"], "score"),
        make("Transpose", ["s"], ["r"], "turn_score"),
        make("Concat", ["r", "k"], ["c"], "mixture", axis=0),
        make("Greater", ["c", "c"], ["g"], "compare"),
        make("Where", ["g", "c", "c"], ["z"], "choose"),
        make("ReduceSum", ["z", "axis"], ["v"], "sum", keepdims=1),
        make("Add", ["k", "v"], ["y"], "add"),
    ]
    model = make_precise(nodes, w=np.eye(4, dtype=np.float32), b=np.ones(4, np.float32), axis=np.array([0, 1]))
    decides = {"score", "turn_score", "mixture", "compare", "sum"}
    assert wide_nodes(gs.import_onnx(model), inner_float32=True) == decides
    assert wide_nodes(gs.import_onnx(model)) == decides | {"turn"}


def test_a_query_that_only_a_score_reads_is_a_projection_and_a_sum_of_scores_is_none(make_precise: Any) -> None:
    nodes = [
        make("LayerNormalization", ["x", "gain"], ["n"], "norm"),
        make("Slice", ["n", "zero", "one"], ["first"], "first"),
        make("MatMul", ["first", "w"], ["p"], "ask"),
        make("Add", ["p", "b"], ["q"], "bias"),
        make("Mul", ["q", "q"], ["s"], "score"),
        make("MatMul", ["s", "w"], ["r"], "running_sum"),
        make("TopK", ["r", "two"], ["best", "at"], "topk"),
        make("Gather", ["n", "at"], ["c"], "gather", axis=1),
        make("ReduceSum", ["c", "two"], ["v"], "sum", keepdims=1),
        make("Squeeze", ["v", "two"], ["u"], "narrow"),
        make("Add", ["u", "x"], ["y"], "add"),
    ]
    ones = {"gain": np.ones(4, np.float32), "b": np.ones(4, np.float32), "w": np.eye(4, dtype=np.float32)}
    whole = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2])}
    graph = gs.import_onnx(make_precise(nodes, **ones, **whole))
    assert wide_nodes(graph, inner_float32=True) == {"norm", "first", "score", "running_sum", "topk", "sum"}


@pytest.mark.parametrize("read", [False, True])
def test_a_softmax_is_narrow_where_the_runtime_widens_it_and_no_score_reads_it(read: bool, make_graph: Any) -> None:
    """OpenVINO then keeps product, sum, softmax and product as one; what is added to the logits stays float32."""
    given = {name: np.zeros((1, 2, 4, 8), np.float32) for name in "qv"} | {"k": np.zeros((1, 2, 8, 4), np.float32)}
    nodes = [
        make("MatMul", ["q", "k"], ["l"], name="product"),
        make("Log", ["n"], ["b"], name="sizes"),
        make("Add", ["l", "b"], ["m"], name="add"),
        make("Softmax", ["m"], ["p"], name="softmax"),
        make("MatMul", ["p", "v"], ["o"], name="attention"),
    ]
    if read:
        nodes.append(make("TopK", ["p", "one"], ["best", "at"], name="topk"))
    given |= {"n": np.ones((1, 1, 1, 4), np.float32), "v": np.zeros((1, 2, 4, 8), np.float32)}
    graph = gs.import_onnx(with_shapes(make_graph(nodes, given, {"o": (np.float32, (1, 2, 4, 8))}, one=np.array([1]))))
    inside = set() if read else {"add", "softmax"}
    assert wide_nodes(graph) - wide_nodes(graph, inner_float32=True) == inside
    assert "sizes" in wide_nodes(graph, inner_float32=True)


@pytest.fixture
def make_precise() -> Any:
    """(nodes, weights) -> a graph from x to y, both [2, 4]."""

    def build(nodes: list[onnx.NodeProto], **weights: np.ndarray) -> onnx.ModelProto:
        ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 4]) for name in "xy"]
        held = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
        return with_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))

    return build


def test_the_logits_of_a_second_attention_matrix_round_as_those_of_the_first(make_graph: Any) -> None:
    """The softmax behind them and the score stay; a product of any other name that only decides stays, too."""
    given = {name: np.zeros((1, 2, 8, 4), np.float32) for name in "qkv"}
    nodes = [
        make("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2], name="keys"),
        make("MatMul", ["q", "kt"], ["l"], name="product"),
        make("Softmax", ["l"], ["p"], name="softmax"),
        make("MatMul", ["p", "v"], ["o"], name="attention"),
        make("Transpose", ["q"], ["qt"], perm=[0, 1, 3, 2], name="apart_Transpose_1"),
        make("MatMul", ["k", "qt"], ["m"], name="apart_MatMul_2"),
        make("Softmax", ["m"], ["t"], axis=2, name="apart_Softmax_3"),
        make("MatMul", ["t", "v"], ["s"], name="score"),
        make("TopK", ["s", "two"], ["best", "at"], name="topk"),
        make("GatherElements", ["o", "at"], ["logits"], axis=3, name="gather"),
    ]
    out = {"logits": (np.float32, (1, 2, 8, 2))}
    graph = gs.import_onnx(with_shapes(make_graph(nodes, given, out, two=np.array([2]))))
    assert wide_nodes(graph) == {"softmax", "apart_Softmax_3", "score", "topk"}


def test_tokens_that_are_compared_do_not_draw_all_sums_before_them_into_float32(make_precise: Any) -> None:
    """A residual sum ends the way up from a score, scaled and with a bias or not; a sum of scores does not."""
    nodes = [
        make("MatMul", ["x", "w"], ["a"], "projection"),
        make("Add", ["a", "b"], ["c"], "bias"),
        make("Mul", ["c", "b"], ["d"], "layer_scale"),
        make("Add", ["x", "d"], ["e"], "residual"),
        make("Mul", ["e", "e"], ["f"], "square"),
        make("Add", ["f", "e"], ["g"], "sum"),
        make("Greater", ["g", "e"], ["h"], "compare"),
        make("Where", ["h", "e", "x"], ["y"], "choose"),
    ]
    model = make_precise(nodes, w=np.eye(4, dtype=np.float32), b=np.ones(4, np.float32))
    assert wide_nodes(gs.import_onnx(model)) == {"square", "sum", "compare"}
