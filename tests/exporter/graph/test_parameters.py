"""A Transformer's weights found in its graph, whatever the exporter made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from foreign_files import vit_file
from onnx import TensorProto, helper

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.opened import open_model
from vitrim.exporter.graph.parameters import parts_of
from vitrim.exporter.graph.passes.rewrite import rewrite


@pytest.mark.parametrize("opset", [14, 17])
def test_a_vit_is_its_layers_in_order(tmp_path: Path, opset: int) -> None:
    path, model = vit_file(tmp_path / "vit.onnx", opset=opset)
    opened = open_model(path)
    parts = parts_of(opened.folded, opened.weights)
    block = ["norm", "product", "product", "norm", "product", "product"]
    assert [part.kind for part in parts] == ["convolution", *block, *block, "norm", "product"]
    state = model.state_dict()
    np.testing.assert_array_equal(parts[2].weight, state["blocks.0.attn.qkv.weight"].numpy())
    np.testing.assert_array_equal(parts[2].bias, state["blocks.0.attn.qkv.bias"].numpy())
    np.testing.assert_array_equal(parts[1].weight, state["blocks.0.norm1.weight"].numpy())
    assert parts[1].epsilon == pytest.approx(1e-6)


def test_a_patch_embedding_is_one_as_a_product_too(tmp_path: Path) -> None:
    path, model = vit_file(tmp_path / "vit.onnx")
    opened = open_model(path)
    rewritten, _ = rewrite(opened.folded, get_target("openvino"), weights=opened.weights)
    assert not any(node.op_type == "Conv" for node in rewritten.graph.node)
    part, other = parts_of(rewritten, opened.weights)[0], parts_of(opened.folded, opened.weights)[0]
    assert (part.kind, part.weight.shape) == ("convolution", other.weight.shape)
    np.testing.assert_array_equal(part.weight, model.state_dict()["patch_embed.proj.weight"].numpy())
    np.testing.assert_array_equal(part.bias, other.bias)


def separate(order: str) -> onnx.ModelProto:
    """An attention of separate products, written in some order."""
    draw = np.random.default_rng(0)
    held = {f"w{name}": draw.standard_normal((4, 4)).astype(np.float32) for name in "qkv"}
    nodes = [helper.make_node("MatMul", ["x", f"w{name}"], [name], name=name) for name in order]
    nodes += [
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("IsNaN", ["shares"], ["odd"]),
        helper.make_node("Where", ["odd", "zero", "shares"], ["sure"]),
        helper.make_node("MatMul", ["sure", "v"], ["y"]),
    ]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in held.items()]
    tensors.append(onnx.numpy_helper.from_array(np.float32(0), "zero"))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4]) for name in "xy"]
    return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors))


@pytest.mark.parametrize("order", ["qkv", "kvq", "vqk"])
def test_queries_keys_and_values_are_told_by_their_place(order: str) -> None:
    model = separate(order)
    (part,) = parts_of(model)
    assert part.nodes == ("q", "k", "v")
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(part.weight, np.concatenate([held[f"w{name}"].T for name in "qkv"]))


def test_a_graph_without_weights_is_refused() -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy"]
    model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:]))
    with pytest.raises(UnsupportedError, match="no product with a weight"):
        parts_of(model)
