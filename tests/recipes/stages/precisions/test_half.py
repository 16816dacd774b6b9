"""Half precision in the pipeline: what the recipe names, what the numbers ask for, and what is said of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from listeners import Ears
from onnx import helper

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.precision.misfits import Misfits
from vitrim.exporter.graph.shapes import with_shapes
from vitrim.recipes.schema.sections.outputs import PrecisionSection
from vitrim.recipes.stages.precisions.half import Job, add_to, empty_report, make_half, named_nodes, tell_misfits

IMAGES = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
WEIGHT = np.random.default_rng(1).standard_normal((4, 4)).astype(np.float32)


def chain(factor: float) -> onnx.ModelProto:
    """image @ W times a factor, rectified, and @ W."""
    nodes = [
        helper.make_node("MatMul", ["image", "w"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "middle"),
        helper.make_node("MatMul", ["b", "v"], ["logits"], "last"),
    ]
    held = [onnx.numpy_helper.from_array(v, n) for n, v in (("w", WEIGHT * np.float32(factor)), ("v", WEIGHT))]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 4]) for name in ("image", "logits")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    return with_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))


def job(listener: Any = None, **section: Any) -> Job:
    return Job(PrecisionSection(name="fp16", **section), get_target("trt-11"), IMAGES, 1, listener or Ears())


def test_the_recipe_names_nodes_by_pattern() -> None:
    model = chain(1.0)
    assert named_nodes(PrecisionSection(float32=["*i*dle", "last"]), model) == {"middle", "last"}
    assert named_nodes(PrecisionSection(), model) == set()
    with pytest.raises(
        InputError, match=r"precision\.float32: no node of the graph is called 'none\*'; see `vitrim in"
    ):
        named_nodes(PrecisionSection(float32=["first", "none*"]), model)


def test_numbers_are_measured_on_the_recipe_s_images_alone() -> None:
    assert [piece.shape for piece in job(images=4).measured] == [(4, 4)]
    large = IMAGES.copy()
    large[5] *= 1e5
    for count, found in ((4, {}), (6, {"first", "middle", "last"})):
        made = make_half(
            Job(PrecisionSection(images=count), get_target("trt-11"), large, 1, Ears()), {"pruned": chain(1)}, "fp16"
        )
        assert set(made.report["overflowing"]["pruned"]) == set(found)


@pytest.mark.parametrize(("factor", "side"), [(2e4, "overflowing"), (1e-7, "subnormal"), (1.0, "")])
def test_every_graph_is_guarded_and_reported(factor: float, side: str) -> None:
    ears = Ears()
    made = make_half(job(ears), {"pruned": chain(factor), "floor": chain(1.0)}, "fp16")
    nodes = ["first", "middle", "last"] if side else []
    assert made.report["float32_nodes"] == {"pruned": nodes, "floor": []}
    for each in ("overflowing", "subnormal"):
        assert set(made.report[each]["pruned"]) == (set(nodes) if each == side else set())
        assert made.report[each]["floor"] == {}
    assert made.report["casts"] == {"pruned": 0 if side else 2, "floor": 2}
    assert made.as_half is made.graphs["pruned"]
    tell_misfits(made.report, ears)
    end = {"overflowing": "largest", "subnormal": "smallest"}.get(side)
    assert ears.notes == ([f"3 nodes stay in float32: values come near the {end} that fp16 holds"] if end else [])


def test_one_node_is_told_of_in_the_singular_and_none_where_all_is_float32() -> None:
    ears, report = Ears(), empty_report()
    add_to(report, "pruned", ["a"], Misfits({"a": 7e4}, {}), 2)
    tell_misfits(report, ears)
    tell_misfits({"float32_nodes": {}}, ears)
    assert ears.notes == ["1 node stays in float32: values come near the largest that fp16 holds"]
