"""int8 in the pipeline: what is around the products on every target, what stays in float32, the floor like the rest."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import budget_for, small_vit
from listeners import Ears
from small_graphs import stretched

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.core.targets import TARGETS, get_target
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.precision.emulate import emulated
from vitrim.exporter.graph.precision.misfits import quantized_products
from vitrim.exporter.graph.precision.qdq import quantizable
from vitrim.exporter.graph.surgery import copy_of
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.vit import deployable
from vitrim.exporter.runtime.rungs import cosine
from vitrim.exporter.runtime.runners import OrtRunner, run_all
from vitrim.recipes.pipeline.half import Job, Written
from vitrim.recipes.pipeline.int8 import costs_of, counterparts, make_int8
from vitrim.recipes.pipeline.kinds import budget_of_kind
from vitrim.recipes.pipeline.recipe import PrecisionSection

FLOAT16 = onnx.TensorProto.FLOAT16
IMAGES = np.random.default_rng(0).standard_normal((32, 3, 64, 64), dtype=np.float32)
ON_TENSORRT = [name for name, target in TARGETS.items() if target.symmetric]
ELSEWHERE = [name for name in TARGETS if name not in ON_TENSORRT]


@functools.cache
def traced(kind: str, compares: bool, batch: int = 1) -> onnx.ModelProto:
    model = small_vit(depth=2)
    budget = budget_of_kind(kind, budget_for(model, {0: 12, 1: 8}))
    return trace(deployable(model, budget, ("logits", "kept")[: 1 + (kind == "pruned")], compares), batch)


def graphs(target: str, *factors: float) -> dict[str, onnx.ModelProto]:
    """A pruned graph of two blocks and its floor, which on a CPU makes its queries apart."""
    found = {
        kind: rewrite(traced(kind, get_target(target).symmetric), get_target(target))[0] for kind in ("pruned", "floor")
    }
    return {kind: stretched(copy_of(model), *factors) for kind, model in found.items()}


def job(target: str, **section: Any) -> Job:
    return Job(PrecisionSection(name="int8", images=8, **section), get_target(target), IMAGES, 1, Ears())


def logits(model: onnx.ModelProto) -> np.ndarray:
    return run_all(OrtRunner(model.SerializeToString(), threads=1), IMAGES, 1)["logits"]


def halves(model: onnx.ModelProto) -> set[str]:
    """Names of all that is float16."""
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    found = {value.name for value in values if value.type.tensor_type.elem_type == FLOAT16}
    found |= {tensor.name for tensor in model.graph.initializer if tensor.data_type == FLOAT16}
    casts = [node for node in model.graph.node if node.op_type == "Cast" and node.attribute[0].i == FLOAT16]
    return found | {node.name for node in casts}


def check_report(made: Written, target: str) -> None:
    """The same words for the same thing as in half precision, of every graph."""
    report, by_flag = made.report, get_target(target).opset < 19
    for kind, model in made.graphs.items():
        over, under = report["overflowing"][kind], report["subnormal"][kind]
        assert max(over.values()) > 65504
        assert 0 < min(under.values()) < 2.0**-14
        names = {node.name for node in model.graph.node}
        stay = set(report["float32_nodes"][kind])
        assert stay <= names
        writers = {n.name for n in model.graph.node if n.op_type not in ("QuantizeLinear", "DequantizeLinear")}
        assert {*over, *under} & writers <= stay
        assert (report["casts"][kind] == 0) == (by_flag and kind != "fp16")
        assert bool(halves(model)) == (not by_flag or kind == "fp16")


@pytest.mark.slow
@pytest.mark.parametrize("target", ON_TENSORRT)
def test_a_graph_beyond_fp16_on_both_sides_keeps_its_answers(target: str) -> None:
    models = graphs(target, 1.4e-6, 5.5e4)
    made = make_int8(job(target, agreement=0.0), models, 0.0)
    assert set(made.graphs) == {"pruned", "floor", "fp16"}
    check_report(made, target)
    wanted, held = logits(models["pruned"]), logits(emulated(made.as_half))  # type: ignore[arg-type]
    assert (held.argmax(1) == wanted.argmax(1)).all()
    assert cosine(wanted, held).min() > 0.999
    products = quantizable(models["pruned"])
    harmed = set(products[2:4] + products[6:8])
    whole = set(products) - (harmed if get_target(target).opset < 19 else set())
    assert set(quantized_products(made.graphs["pruned"])) == whole
    assert harmed <= set(made.report["float32_nodes"]["pruned"])


@pytest.mark.slow
@pytest.mark.parametrize("target", ELSEWHERE)
def test_around_int8_all_is_float32_on_onnxruntime(target: str) -> None:
    models = graphs(target, 1.4e-6, 5.5e4)
    made = make_int8(job(target), models, 0.9)
    assert set(made.graphs) == {"pruned", "floor"}
    assert made.as_half is None
    assert made.report["float32_nodes"] == {}
    assert not {"overflowing", "subnormal", "casts"} & made.report.keys()
    for model in made.graphs.values():
        assert halves(model) == set()
        assert any("MatMulInteger" in node.op_type for node in model.graph.node)
    wanted, found = logits(models["pruned"]), logits(made.graphs["pruned"])
    assert np.isfinite(found).all()
    assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2])
def test_dynamic_scales_are_not_for_batches(batch: int) -> None:
    """An image's answer would depend on the others."""
    model, _ = rewrite(traced("pruned", False, batch), get_target("ort-cpu"))
    report = make_int8(job("ort-cpu", agreement=0.0), {"pruned": model}, 0.0).report
    assert set(report["forms_timed"]) == ({"static", "dynamic"} if batch == 1 else set())
    assert batch == 1 or report["form"] == "static"


@pytest.mark.slow
@pytest.mark.parametrize("target", ["trt-8.5", "trt-11", "ort-cpu"])
def test_what_the_recipe_names_is_float32_in_every_graph(target: str) -> None:
    models = graphs(target, 1.0, 1.0)
    products = {kind: quantizable(model) for kind, model in models.items()}
    # The projection of the first block, which has its query apart only in the floor of a CPU's graph.
    names = {kind: products[kind][2 if kind == "floor" and target == "ort-cpu" else 1] for kind in models}
    made = make_int8(job(target, float32=[names["pruned"]]), models, 0.0)
    for kind, name in names.items():
        node = next(node for node in made.graphs[kind].graph.node if node.name == name)
        assert node.op_type == "MatMul"
        weight = next(tensor for tensor in made.graphs[kind].graph.initializer if tensor.name == node.input[1])
        assert weight.data_type == onnx.TensorProto.FLOAT
        assert (name in made.report["float32_nodes"].get(kind, ())) == (target != "ort-cpu")


@pytest.mark.slow
def test_a_floor_with_other_products_is_refused() -> None:
    models = graphs("trt-11", 1.0, 1.0)
    products = quantizable(models["floor"])
    cut = next(node for node in models["floor"].graph.node if node.name == products[3])
    weight = next(tensor for tensor in models["floor"].graph.initializer if tensor.name == cut.input[1])
    models["floor"].graph.initializer.remove(weight)
    models["floor"].graph.input.append(onnx.helper.make_tensor_value_info(cut.input[1], 1, list(weight.dims)))
    with pytest.raises(
        UnsupportedError, match="the floor has 7 products to quantize with .* columns, the pruned graph 8 with "
    ):
        make_int8(job("trt-11"), models, 0.0)


def test_products_stand_for_those_of_the_same_columns() -> None:
    apart = {"kv": 96, "q": 48, "proj": 48, "fc1": 192}
    whole = {"qkv": 144, "o": 48, "up": 192}
    assert counterparts(whole, apart) == {"qkv": ("kv", "q"), "o": ("proj",), "up": ("fc1",)}
    assert counterparts(apart, whole) == {"kv": ("qkv",), "q": ("qkv",), "proj": ("o",), "fc1": ("up",)}
    assert counterparts(apart, apart) == {name: (name,) for name in apart}
    with pytest.raises(UnsupportedError, match="the floor has 1 products to quantize with 144 columns, the pruned"):
        counterparts(apart, {"qkv": 144})


@pytest.mark.slow
def test_costs_grow_with_the_product() -> None:
    model = graphs("ort-cpu", 1.0, 1.0)["pruned"]
    products = quantizable(model)
    costs = costs_of(model, products)
    first, second = costs[products[2]], costs[products[3]]  # 12 rows, 48 x 192 and 192 x 48
    assert (first.floats, second.floats) == pytest.approx((0.01 * 12 * 48 * 192,) * 2)
    assert (first.token, second.token) == pytest.approx((0.37 * 12 * (96 + 192), 0.37 * 12 * (384 + 48)))
