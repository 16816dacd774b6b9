"""int8 in the pipeline: what is around the products on every target, what stays in float32, the floor like the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from int8_graphs import graphs, job, logits, minus, traced

from vitrim.exporter.core.answers import expected_agreement
from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.core.targets import TARGETS, get_target
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.precision.emulate import emulated
from vitrim.exporter.graph.precision.misfits import quantized_products
from vitrim.exporter.graph.precision.qdq import quantizable
from vitrim.exporter.runtime.rungs import cosine
from vitrim.recipes.stages.precisions.around import OPENVINO, ORT, TENSORRT
from vitrim.recipes.stages.precisions.half import Written
from vitrim.recipes.stages.precisions.int8 import make_int8, runtime_of

FLOAT16 = onnx.TensorProto.FLOAT16
ON_TENSORRT = [name for name, target in TARGETS.items() if target.symmetric]
ELSEWHERE = ["ort-cpu", "ort-cuda", "openvino"]


def test_every_target_has_a_way_of_its_runtime() -> None:
    ways = {name: runtime_of(target) for name, target in TARGETS.items()}
    assert [name for name, way in ways.items() if way is OPENVINO] == ["openvino", "openvino-gpu", "openvino-npu"]
    assert [name for name, way in ways.items() if way is ORT] == ["ort-cpu", "ort-cuda"]
    assert [name for name, way in ways.items() if way is TENSORRT] == ON_TENSORRT


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
def test_around_int8_all_is_float32_where_no_half_is(target: str) -> None:
    models = graphs(target, 1.4e-6, 5.5e4)
    around = {"around": "fp32"} if target == "openvino" else {}
    made = make_int8(job(target, **around), models, 0.9)
    assert set(made.graphs) == {"pruned", "floor"}
    assert made.as_half is None
    assert made.report["float32_nodes"] == {}
    assert not {"overflowing", "subnormal", "casts"} & made.report.keys()
    for model in made.graphs.values():
        assert halves(model) == set()
        wanted_op = "QuantizeLinear" if target == "openvino" else "MatMulInteger"
        assert any(wanted_op in node.op_type for node in model.graph.node)
    wanted, found = logits(models["pruned"]), logits(made.graphs["pruned"])
    assert np.isfinite(found).all()
    assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ort-cpu", "trt-11"])
def test_int8_is_judged_by_the_dense_models_answers(target: str, tmp_path: Path) -> None:
    found = graphs(target, 1.0, 1.0, kinds=("dense", "pruned", "floor"))
    mean = logits(found["dense"]).mean(0)
    models = {kind: minus(model, mean) for kind, model in found.items()}  # else all images are of one class
    dense = models.pop("dense")
    onnx.save(dense, tmp_path / "dense.onnx")
    made = make_int8(replace(job(target), dense=tmp_path / "dense.onnx"), models, 0.9)
    theirs, before, after = logits(dense), logits(models["pruned"]), logits(made.graphs["pruned"])
    kept, shared = made.report["scan"]["kept"], expected_agreement(theirs, before)
    assert 0.3 < shared < 0.95
    around = 1e-6 if target == "ort-cpu" else 0.03  # fp16, which the scan has not
    assert kept == pytest.approx(min(expected_agreement(theirs, after) / shared, 1), abs=around)
    assert kept > expected_agreement(before, after) + 1e-3


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
