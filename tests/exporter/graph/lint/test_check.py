"""Lint on strangers' graphs: what a target refuses, silently gets wrong, or what is not static."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from vitrim import api
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.targets import ALIASES, TARGETS, get_target
from vitrim.exporter.graph.lint.check import compare_tables, lint, lint_all, operator_table


def graph(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list]],
    outputs: dict[str, tuple[int, list]],
    opset: int = 18,
    **weights: np.ndarray,
) -> onnx.ModelProto:
    values = [
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in group.items()]
        for group in (inputs, outputs)
    ]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    return helper.make_model(
        helper.make_graph(nodes, "g", values[0], values[1], constants), opset_imports=[helper.make_opsetid("", opset)]
    )


F, I64, D = TensorProto.FLOAT, TensorProto.INT64, TensorProto.DOUBLE


def whats(model: onnx.ModelProto, target: str) -> list[str]:
    return [f"{finding.op}: {finding.what}" for finding in lint(model, get_target(target))]


def test_a_clean_graph_has_no_findings() -> None:
    model = graph([helper.make_node("Relu", ["x"], ["y"])], {"x": (F, [1, 4])}, {"y": (F, [1, 4])}, 17)
    for target in TARGETS:
        assert lint(model, get_target(target)) == []


def test_dynamic_shapes_and_operators_are_found() -> None:
    model = graph(
        [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Shape", ["x"], ["s"])],
        {"x": (F, ["batch", 4])},
        {"n": (I64, [2, None]), "s": (I64, [2])},
    )
    found = whats(model, "ort-cpu")
    assert "NonZero: its size depends on data" in found
    assert "Shape: a static graph computes no shapes" in found
    assert "value: its shape [batch, 4] is not static" in found


@pytest.mark.parametrize(
    ("target", "words"), [("trt-8.5", "silently wrong"), ("trt-8.6", "silently wrong"), ("trt-10.3", "plugin")]
)
def test_a_scatter_that_adds_is_silently_wrong_on_tensorrt_8(target: str, words: str) -> None:
    node = helper.make_node("ScatterElements", ["x", "i", "u"], ["y"], name="merge", axis=0, reduction="add")
    model = graph([node], {"x": (F, [4]), "u": (F, [2])}, {"y": (F, [4])}, 16, i=np.array([1, 1]))
    finding = next(finding for finding in lint(model, get_target(target)) if finding.op == "ScatterElements")
    assert finding.node == "merge"
    assert words in finding.what
    assert "one-hot" in finding.remedy


def test_topk_rules() -> None:
    node = helper.make_node("TopK", ["x", "k"], ["v", "i"], name="pick")
    outputs = {"v": (F, [1, None]), "i": (I64, [1, None])}
    computed = graph([node], {"x": (F, [1, 9]), "k": (I64, [1])}, outputs)
    assert "TopK: K is not an initializer" in whats(computed, "trt-8.5")
    large = graph([node], {"x": (F, [1, 9000])}, {"v": (F, [1, 4000]), "i": (I64, [1, 4000])}, k=np.array([4000]))
    assert "TopK: K = 4000 is above 3840" in whats(large, "trt-10.3")
    assert whats(large, "ort-cpu") == []
    assert "value: int64 input or output" in whats(large, "trt-8.5")


def test_opset_missing_operators_float64_and_foreign_domains() -> None:
    nodes = [helper.make_node("Gelu", ["x"], ["y"], name="act"), helper.make_node("Neg", ["z"], ["w"])]
    model = graph(nodes, {"x": (F, [2]), "z": (D, [2])}, {"y": (F, [2]), "w": (D, [2])}, 20)
    found = whats(model, "trt-8.6")
    assert "value: opset 20 is above trt-8.6's 17" in found
    assert "Gelu: trt-8.6 has no Gelu" in found
    assert "value: float64, which TensorRT computes in float32, with what is beyond it clamped" in found
    assert "value: float64" in whats(model, "ort-cpu")
    odd = graph([helper.make_node("Magic", ["x"], ["y"], domain="com.x")], {"x": (F, [2])}, {"y": (F, [2])})
    odd.opset_import.append(helper.make_opsetid("com.x", 1))
    assert "Magic: operator of the domain com.x" in whats(odd, "ort-cpu")


def test_operator_table_counts() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    assert operator_table(graph(nodes, {"x": (F, [1])}, {"y": (F, [1])})) == {"Relu": 2}


def test_tables_are_compared_with_the_largest_change_first() -> None:
    rows = compare_tables({"Mul": 60, "Gelu": 12, "Conv": 1}, {"Mul": 51, "Erf": 12, "Conv": 1})
    assert rows == [("Erf", 0, 12), ("Gelu", 12, 0), ("Mul", 60, 51), ("Conv", 1, 1)]


def test_k_may_be_a_constant_node() -> None:
    k = helper.make_node("Constant", [], ["k"], value=onnx.numpy_helper.from_array(np.array([3])))
    outputs = {"v": (F, [1, 3]), "i": (TensorProto.INT32, [1, 3])}
    nodes = [k, helper.make_node("TopK", ["x", "k"], ["v", "j"]), helper.make_node("Cast", ["j"], ["i"], to=6)]
    assert whats(graph(nodes, {"x": (F, [1, 9])}, outputs, 17), "trt-8.5") == []


def test_a_shape_that_is_computed_is_found_where_it_is_used() -> None:
    nodes = [
        helper.make_node("Where", ["c", "a", "b"], ["s"], name="choose"),
        helper.make_node("Reshape", ["x", "s"], ["y"], name="shape"),
    ]
    model = graph(nodes, {"x": (F, [4]), "c": (TensorProto.BOOL, [2])}, {"y": (F, [2, 2])}, a=np.ones(2), b=np.ones(2))
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array([2, 2]), "a"))
    model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.array([4, 1]), "b"))
    found = [f for f in lint(model, get_target("ort-cpu")) if f.node == "shape"]
    assert [f.what for f in found] == ["its shape is computed (s)"]


def test_operators_inside_branches_are_found() -> None:
    make = helper.make_node
    value = helper.make_tensor_value_info("o", F, [4])
    inner = make("ScatterElements", ["x", "i", "u"], ["o"], name="inner", reduction="add")
    branches = [helper.make_graph([each], "b", [], [value]) for each in (inner, make("Identity", ["x"], ["o"]))]
    nodes = [make("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1], name="branch")]
    inputs = {"x": (F, [4]), "u": (F, [2]), "c": (TensorProto.BOOL, [])}
    model = graph(nodes, inputs, {"y": (F, [4])}, 18, i=np.array([1, 1]))
    found = {f.node: f.what for f in lint(model, get_target("trt-8.6"))}
    assert found["branch"] == "the graph is not straight-line"
    assert found["inner"].startswith("silently wrong: reduction=add")
    assert operator_table(model) == {"If": 1, "ScatterElements": 1, "Identity": 1}


def test_shapes_that_contradict_do_not_hide_the_rest() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("NonZero", ["x"], ["n"], name="sizes")]
    outputs = {"y": (F, [1, 3]), "n": (I64, [2, 4])}
    model = graph(nodes, {"x": (F, [1, 4])}, outputs, w=np.ones((5, 3), np.float32))
    found = whats(model, "ort-cpu")
    assert any(what.startswith("value: shapes cannot be inferred") for what in found)
    assert "NonZero: its size depends on data" in found


def test_float64_weights_and_empty_values_are_found() -> None:
    nodes = [helper.make_node("Cast", ["w"], ["f"], to=1), helper.make_node("Add", ["x", "f"], ["y"])]
    model = graph(nodes, {"x": (F, [2]), "e": (F, [0, 3])}, {"y": (F, [2])}, w=np.ones(2))
    found = {(f.node, f.what) for f in lint(model, get_target("ort-cpu"))}
    assert found == {("w", "float64"), ("e", "it holds nothing (a dimension is 0)")}


def test_attention_is_known_to_tensorrt_11_and_not_before() -> None:
    node = helper.make_node("Attention", ["x", "x", "x"], ["y"], q_num_heads=2, kv_num_heads=2)
    model = graph([node], {"x": (F, [1, 3, 8])}, {"y": (F, [1, 3, 8])}, 23)
    assert whats(model, "trt-11") == whats(model, "ort-cpu") == []
    assert "Attention: trt-10.13 has no Attention" in whats(model, "trt-10")


def test_targets_by_name_alias_and_typo() -> None:
    for alias, name in ALIASES.items():
        assert get_target(alias) is TARGETS[name]
    with pytest.raises(InputError, match="did you mean jetpack-6"):
        get_target("jetpak-6")
    assert get_target("trt-8.5").lacks >= {"LayerNormalization", "Gelu"}


def test_functions_are_linted_inside() -> None:
    body = [helper.make_node("NonZero", ["a"], ["b"], name="inside")]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "Find", ["a"], ["b"], body, opsets[:1])
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Find", ["x"], ["y"], domain="own")]
    inner = helper.make_graph(nodes, "g", [value("x", F, [4])], [value("y", I64, [1, None])])
    model = helper.make_model(inner, functions=[function], opset_imports=opsets)
    for target in TARGETS:
        found = whats(model, target)
        assert "NonZero: its size depends on data" in found
        assert not [what for what in found if "domain own" in what]
    assert len(model.functions) == 1  # the caller's model stays as it is


def test_onnxruntime_s_own_operators_are_no_error_there() -> None:
    """What only the runtime can infer is one warning, at the operator itself and not at everything behind it."""
    nodes = [
        helper.make_node("FastGelu", ["x"], ["g"], name="gelu", domain="com.microsoft"),
        helper.make_node("Relu", ["g"], ["r"]),
        helper.make_node("Relu", ["r"], ["y"]),
    ]
    model = graph(nodes, {"x": (F, [2, 4])}, {"y": (F, [2, 4])})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    for target in ("ort-cpu", "ort-cuda"):
        (finding,) = lint(model, get_target(target))
        assert (finding.severity, finding.node) == ("warning", "gelu")
    assert "FastGelu: operator of the domain com.microsoft" in whats(model, "trt-11")
    assert any(finding.node == "r" for finding in lint(model, get_target("trt-11")))


def test_all_targets_at_once_are_the_same_as_one_by_one() -> None:
    nodes = [helper.make_node("Gelu", ["x"], ["y"], name="act")]
    model = graph(nodes, {"x": (F, [2, "n"])}, {"y": (F, [2, "n"])}, 20)
    assert lint_all(model, TARGETS.values()) == {name: lint(model, get_target(name)) for name in TARGETS}


@pytest.mark.parametrize("seed", range(60))
def test_damaged_graphs_end_in_findings_or_in_one_error(seed: int, tmp_path: Path) -> None:
    """Bytes are overwritten: the file is refused in one line, or whatever is left of the graph is linted."""
    nodes = [
        helper.make_node("TopK", ["x", "k"], ["v", "i"], name="pick"),
        helper.make_node("ReduceMean", ["v"], ["m"], axes=[-1]),
        helper.make_node("QuantizeLinear", ["m", "s", "z"], ["y"]),
    ]
    weights = {"k": np.array([3]), "s": np.array(0.1, np.float32), "z": np.array(0, np.int8)}
    whole = bytearray(
        graph(nodes, {"x": (F, [1, 9])}, {"y": (TensorProto.INT8, [1, 1])}, 17, **weights).SerializeToString()
    )
    draw = np.random.default_rng(seed)
    for position in draw.integers(0, len(whole), 4):
        whole[position] = draw.integers(0, 256)
    path = tmp_path / "damaged.onnx"
    path.write_bytes(bytes(whole) if seed % 3 else bytes(whole[: draw.integers(1, len(whole))]))
    try:
        said = set(api.lint(path)["targets"])
    except InputError as error:
        said = {str(error)}
    assert said == set(TARGETS) or [len(text.splitlines()) for text in said] == [1]


def test_topk_that_does_not_sort_is_a_matter_of_the_target() -> None:
    pick = helper.make_node("TopK", ["x", "k"], ["y", "i"], sorted=0)
    model = graph([pick], {"x": (F, [1, 9])}, {"y": (F, [1, 2])}, 17, k=np.array([2]))
    assert whats(model, "trt-11") == ["TopK: TensorRT takes sorted=1 only"]
    assert whats(model, "trt-rtx") == whats(model, "ort-cpu") == []


def test_tensorrt_gives_one_output_of_a_normalization() -> None:
    norm = helper.make_node("LayerNormalization", ["x", "w"], ["y", "mean"])
    model = graph([norm], {"x": (F, [2, 3])}, {"y": (F, [2, 3]), "mean": (F, [2, 1])}, 17, w=np.ones(3, np.float32))
    what = "LayerNormalization: TensorRT gives the first output of LayerNormalization only"
    assert whats(model, "trt-10.13") == [what]
    assert whats(model, "ort-cpu") == []
