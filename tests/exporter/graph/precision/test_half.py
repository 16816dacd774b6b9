"""Half precision: types by inference, numbers as onnxruntime and as ONNX's reference round them, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from helpers import budget_for, small_vit
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.io import Ends, rewrite_ends
from vitrim.exporter.graph.lint.check import lint
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.precision.float32_nodes import carrying_nodes, is_residual, wide_nodes
from vitrim.exporter.graph.precision.half import to_half
from vitrim.exporter.graph.precision.misfits import misfits
from vitrim.exporter.graph.precision.qdq import quantizable, with_qdq
from vitrim.exporter.graph.precision.ranges import extents_of, quantization_ranges
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.whole import deployable
from vitrim.exporter.runtime.rungs import cosine
from vitrim.exporter.runtime.runners import OrtRunner, run_all

METHODS = ["zero_tprune", "ppt", "tome", "frugal", "ats"]
TARGETS = ["ort-cpu", "trt-8.5", "trt-10.3", "trt-11"]
FLOAT, FLOAT16, BFLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16
HALVES = {"fp16": FLOAT16, "bf16": BFLOAT16}


def typed(model: onnx.ModelProto, half: Any = "fp16", **options: Any) -> onnx.ModelProto:
    return to_half(model, half, wide_nodes(gs.import_onnx(model)), **options).model


def unfit(model: onnx.ModelProto, target: str) -> list[str]:
    """Findings, but for the warning that onnxruntime's CPU provider is slower in half precision."""
    slow = "computes float16 through casts"
    return [str(f) for f in lint(model, get_target(target)) if slow not in f.what]


def check_ways_to_decisions(model: onnx.ModelProto, types: dict[str, int], low: int) -> int:
    """Above every TopK and ArgMax all is float32 up to the tokens or to what a projection answers, with its bias.

    Returns:
        how many of those were crossed.
    """
    residual = {node.name for node in gs.import_onnx(model).nodes if is_residual(node)}
    makers = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    stack = [node.input[0] for node in model.graph.node if node.op_type in ("TopK", "ArgMax")]
    seen, crossed = set(), 0
    while stack:
        name = stack.pop()
        if name in seen or name in weights or types[name] not in (FLOAT, low):
            continue
        seen.add(name)
        node = makers[name]
        assert types[name] == FLOAT, f"{name} of {node.name} is rounded on its way to a decision"
        if node.op_type in ("LayerNormalization", "Softmax") or node.name.startswith("norm_"):
            continue
        if node.op_type == "Cast" and types[node.input[0]] == low:
            above = makers[node.input[0]]
            if above.op_type == "Add" and above.name not in residual:
                biased = [given for given in above.input if given not in weights]
                assert len(biased) == 1, above.name
                above = makers[biased[0]]
            if above.name not in residual:
                assert above.op_type == "MatMul", above.name
                assert len(weights[above.input[1]].dims) == 2
            crossed += 1
            continue
        stack += [given for given in node.input if given]
    return crossed


@pytest.mark.slow
@pytest.mark.parametrize(("target", "half"), [(t, "fp16") for t in TARGETS] + [("trt-10.3", "bf16")])
@pytest.mark.parametrize("method", METHODS)
def test_types(method: str, target: str, half: Any, graphs: Any, types_of: Any) -> None:
    model, low = graphs(method, target), HALVES[half]
    before = model.SerializeToString()
    result = to_half(model, half, wide_nodes(gs.import_onnx(model)))
    assert model.SerializeToString() == before
    onnx.checker.check_model(result.model, full_check=True)
    assert result.model.opset_import[0].version == model.opset_import[0].version <= get_target(target).opset
    types, dims = types_of(result.model), {tensor.name: tensor.dims for tensor in result.model.graph.initializer}
    ends = (*result.model.graph.input, *result.model.graph.output)
    assert [types[value.name] for value in ends][:2] == [FLOAT, FLOAT]
    found: dict[str, set[int]] = {}
    for node in result.model.graph.node:
        kinds = {types[name] for name in (*node.input, *node.output) if name and types[name] in (FLOAT, low)}
        assert node.op_type == "Cast" or len(kinds) <= 1, node.name
        found.setdefault("norm" if node.name.startswith("norm_") else node.op_type, set()).update(kinds)
        if node.op_type != "Cast" and types[node.output[0]] in (FLOAT, low):
            assert (types[node.output[0]] == FLOAT) == (node.name in result.float32_nodes), node.name
    normalization = "norm" if target == "trt-8.5" else "LayerNormalization"
    assert found["Softmax"] == found[normalization] == {FLOAT}
    assert all(kinds == {FLOAT} for op, kinds in found.items() if op.startswith("Reduce"))
    if method in ("ppt", "tome", "frugal"):
        assert found["Log"] == {FLOAT}
    products = [n for n in result.model.graph.node if n.op_type in ("MatMul", "Gemm", "Conv")]
    own = [n for n in products if {48, 144, 192} & set(dims.get(n.input[1], []))]
    assert len(own) == 2 * (6 if method == "ats" else 4) + 2
    scoring = [node for node in own if node.name not in carrying_nodes(gs.import_onnx(model))]
    assert [(types[n.input[1]], *dims[n.input[1]]) for n in scoring] == [(low, 48, 48)] * 2 * (method == "ats")
    own = [node for node in own if node not in scoring]
    conv = FLOAT if half == "bf16" else low  # bfloat16 in a Conv came with opset 22
    assert {types[n.input[1]] for n in own if n.op_type == "Conv"} == {conv}
    assert {types[n.input[1]] for n in own if n.op_type != "Conv"} == {low}
    crossed = check_ways_to_decisions(result.model, types, low)
    assert (crossed > 0) == (method != "zero_tprune")  # which looks at softmaxes only
    assert unfit(result.model, target) == []
    assert len(result.model.SerializeToString()) < (0.6 if half == "fp16" else 0.75) * len(before)


@pytest.mark.slow
def test_a_value_is_cast_once(graphs: Any, types_of: Any) -> None:
    model = typed(graphs("frugal"))
    casts = [(node.input[0], node.attribute[0].i) for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == len(set(casts))
    makers = {name: node for node in model.graph.node for name in node.output}
    types = types_of(model)
    for node in model.graph.node:  # nor is it cast there and back
        above = makers.get(node.input[0]) if node.op_type == "Cast" else None
        if above is not None and above.op_type == "Cast":
            assert not {types[name] for name in (above.input[0], node.input[0], node.output[0])} <= {FLOAT, FLOAT16}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_numbers_on_onnxruntime(method: str, graphs: Any, noise: Any) -> None:
    model, images = graphs(method), noise(4)
    runners = [OrtRunner(m.SerializeToString(), threads=1) for m in (model, typed(model))]
    old, new = (run_all(runner, images, 1) for runner in runners)
    assert new["logits"].dtype == np.float32
    same = np.all([(np.sort(old[key]) == np.sort(new[key])).all(1) for key in ("kept_0", "kept_1")], axis=0)
    assert same.sum() >= 3  # one may hold a near-tie
    assert cosine(old["logits"], new["logits"])[same].min() > 0.9999
    assert np.abs(old["logits"] - new["logits"]).max() > 0


@pytest.mark.parametrize(
    ("method", "target"), [("zero_tprune", "trt-8.5"), ("ppt", "trt-11"), ("frugal", "trt-8.5"), ("ats", "trt-11")]
)
def test_numbers_with_every_operation_rounded(
    method: str, target: str, graphs: Any, noise: Any, as_written: Any
) -> None:
    """onnxruntime's CPU provider computes in float32 between casts; the reference evaluator does not."""
    model, image = graphs(method, target), noise(1, seed=1)
    old, new = as_written(model, image), as_written(typed(model), image)
    assert np.sort(old["kept_1"]).tolist() == np.sort(new["kept_1"]).tolist()
    assert cosine(old["logits"], new["logits"]).min() > 0.9999
    low = typed(model, half_io=True)
    given = as_written(low, image.astype(np.float16))
    assert given["logits"].dtype == np.float16
    assert cosine(old["logits"], given["logits"]).min() > 0.9999


@pytest.mark.parametrize(("method", "target"), [("tome", "trt-10.3"), ("zero_tprune", "trt-11")])
def test_bfloat16_numbers(method: str, target: str, graphs: Any, noise: Any, as_written: Any) -> None:
    model, image = graphs(method, target), noise(1, seed=3)
    old, new = as_written(model, image), as_written(typed(model, "bf16"), image)
    assert len(np.intersect1d(old["kept_1"], new["kept_1"])) >= 7
    assert cosine(old["logits"], new["logits"]).min() > 0.99


def test_half_ends(graphs: Any, types_of: Any) -> None:
    model = graphs("tome")
    model = rewrite_ends(model, Ends(None, top_k=3))[0]  # type: ignore[arg-type]
    for half_io in (False, True):
        result = typed(model, half_io=half_io)
        onnx.checker.check_model(result, full_check=True)
        types, wanted = types_of(result), FLOAT16 if half_io else FLOAT
        assert types["image"] == types["logits"] == types["probabilities"] == wanted
        assert types["kept_0"] == types["classes"] == onnx.TensorProto.INT32
        assert [o.name for o in result.graph.output] == [o.name for o in model.graph.output]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qk_norm", "swiglu", "pool", "bias", "rotary", "swin"])
def test_other_families(family: str, families: Any, noise: Any) -> None:
    model, preprocess = families(family)
    images = noise(1, preprocess.input_size[1])
    result = typed(model)
    old, new = (OrtRunner(m.SerializeToString(), threads=1)(images)["logits"] for m in (model, result))
    assert cosine(old, new).min() > 0.9999
    assert unfit(result, "ort-cpu") == []


def test_pixels_stay_float32_until_they_are_tokens(families: Any, types_of: Any) -> None:
    model, preprocess = families("qk_norm")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    model, _ = rewrite_ends(model, Ends(preprocess, pixels=True))
    result = typed(model, half_io=True)
    types = types_of(result)
    weight = next(t for t in result.graph.initializer if list(t.dims) == [768, 48])
    assert (types["image"], weight.data_type) == (onnx.TensorProto.UINT8, FLOAT)
    assert quantizable(model) == quantizable(families("qk_norm")[0])
    old, new = (OrtRunner(m.SerializeToString(), threads=1)(pixels)["logits"] for m in (model, result))
    assert new.dtype == np.float16
    assert cosine(old, new).min() > 0.9999


def scaled(model: onnx.ModelProto, product: str, factor: float) -> onnx.ModelProto:
    """A product's weight times a factor."""
    weight = next(node.input[1] for node in model.graph.node if node.name == product)
    tensor = next(t for t in model.graph.initializer if t.name == weight)
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(factor), weight))
    return model


@pytest.mark.parametrize("half", ["fp16", "bf16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 3.4e38, 7e4])
def test_a_weight_beyond_the_type_is_refused_by_name(value: float, half: Any, graphs: Any) -> None:
    model = graphs()
    product = quantizable(model)[5]
    weight = next(node.input[1] for node in model.graph.node if node.name == product)
    tensor = next(t for t in model.graph.initializer if t.name == weight)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[0, 0] = value
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, weight))
    wide = wide_nodes(gs.import_onnx(model))
    if half == "bf16" and value == 7e4:
        assert to_half(model, half, wide).casts > 0
        return
    with pytest.raises(UnsupportedError, match=f"the weight {weight} holds .*, which {half} cannot"):
        to_half(model, half, wide)
    assert product in to_half(model, half, wide | {product}).float32_nodes


def test_what_overflows_is_found_named_and_kept(graphs: Any, noise: Any, as_written: Any) -> None:
    model, image = graphs("zero_tprune", "trt-11"), noise(1)
    product = quantizable(model)[2]  # fc1 of the first block
    model = scaled(model, product, 5e5)
    wide = wide_nodes(gs.import_onnx(model))
    assert not np.isfinite(as_written(to_half(model, "fp16", wide).model, image)["logits"]).all()
    extents = extents_of(model, [image])
    found = misfits(model, extents, "fp16", 1.0, wide)
    assert found.overflowing[product] > 65504
    assert found.subnormal == {}
    result = to_half(model, "fp16", wide | found.nodes)
    assert found.nodes <= set(result.float32_nodes)
    old, new = as_written(model, image), as_written(result.model, image)
    assert np.isfinite(new["logits"]).all()
    assert cosine(old["logits"], new["logits"]).min() > 0.9999
    assert misfits(model, extents, "bf16", 1.0, wide).nodes == set()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["trt-10.3", "trt-11"])
@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_half_around_int8(half: Any, target: str, graphs: Any, noise: Any, types_of: Any, as_written: Any) -> None:
    model, images = graphs("tome", target), noise(4)
    ranges = quantization_ranges(model, [images], "minmax", symmetric=True)
    quantized = with_qdq(model, ranges, quantizable(model), "tensorrt")
    result = typed(quantized, half)
    onnx.checker.check_model(result, full_check=True)
    assert unfit(result, target) == []
    types = types_of(result)
    pairs = [node for node in result.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) == 4 * 8
    assert {types[node.input[1]] for node in pairs} == {HALVES[half]}
    products = [node for node in result.graph.node if node.name in quantizable(model)]
    assert {types[node.output[0]] for node in products} == {HALVES[half]}
    if half == "fp16":
        old, new = (as_written(m, images[:1])["logits"] for m in (quantized, result))
        assert cosine(old, new).min() > 0.99


def test_old_opsets_and_other_domains_stay_in_float32(graphs: Any, noise: Any, types_of: Any) -> None:
    model = graphs("zero_tprune", "trt-8.5")
    ranges = quantization_ranges(model, [noise(2)], "minmax", symmetric=True)
    result = typed(with_qdq(model, ranges, quantizable(model), "tensorrt"))
    onnx.checker.check_model(result, full_check=True)
    types = types_of(result)
    pairs = [node for node in result.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {types[node.input[1]] for node in pairs} == {FLOAT}


@pytest.mark.slow
@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    st.sampled_from(METHODS),
    st.integers(9, 16),
    st.integers(0, 3),
    st.sampled_from(["fp16", "int8"]),
    st.sampled_from(["trt-8.5", "trt-11"]),
    st.integers(0, 99),
)
def test_any_small_budget(method: str, first: int, gone: int, precision: str, target: str, seed: int) -> None:
    vit = small_vit(seed=seed, depth=2, embed_dim=24)
    pruned = deployable(vit, budget_for(vit, {0: first, 1: first - gone}, method), ("logits", "kept"))
    model, _ = rewrite(trace(pruned, 1), get_target(target))
    images = np.random.default_rng(seed).standard_normal((2, 3, 64, 64), dtype=np.float32)
    if precision == "int8":
        ranges = quantization_ranges(model, [images], "minmax", symmetric=True)
        model = with_qdq(model, ranges, quantizable(model), "tensorrt")
    result = typed(model)
    onnx.checker.check_model(result, full_check=True)
    assert unfit(result, target) == []
    found = OrtRunner(result.SerializeToString(), threads=1)(images[:1])
    assert np.isfinite(found["logits"]).all()
    assert found["kept_0"].shape == (1, first)
