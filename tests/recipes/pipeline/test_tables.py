"""Which recipes a latency table may be of, and which tables a recipe refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import small_recipe, small_vit
from latency_tables import made_table

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.pruning.shape import describe
from vitrim.recipes.pipeline.load import recipe_from
from vitrim.recipes.pipeline.sections.prune import TargetSection
from vitrim.recipes.pipeline.tables import (
    check_recipe,
    conditions_of,
    export_of,
    machine_of,
    measured_latency,
    model_of,
    one_target,
    uses_table,
)


def tabled(table: Path, **sections: Any) -> Any:
    prune = {"target": {"speedup": 1.3, "table": str(table)}}
    return recipe_from(small_recipe(**{"prune": prune, "bench": {"threads": 1}, **sections}))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"export": {"target": "cpu"}}, "export.target leaves it open; name one of ort-cpu, openvino"),
        ({"export": {"target": "jetpack-6"}}, "timed by onnxruntime or OpenVINO, and trt-10.3 runs engines"),
        ({"precision": {"name": "int8"}}, "of fp32 graphs, and precision.name is int8; take fp32 here"),
        ({"precision": {"name": "auto"}}, "precision.name is auto"),
        ({"slim": {"target": {"flops_ratio": 0.8}}}, "run `vitrim slim`, and give its checkpoint"),
    ],
)
def test_there_is_no_table_of_these(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        one_target(recipe_from(small_recipe(**sections)))


def test_a_table_is_of_the_model_the_machine_and_the_export() -> None:
    recipe, shape = recipe_from(small_recipe(bench={"threads": 1}, export={"batch": 3})), describe(small_vit())
    of = conditions_of(shape, get_target("ort-cpu"), recipe)
    assert (of.tokens, of.batch, of.threads, of.precision, of.target) == (17, 3, 1, "fp32", "ort-cpu")
    assert of.runtime.startswith("onnxruntime 1.")
    assert machine_of(get_target("openvino"))["device"] == of.device
    assert not uses_table(recipe)
    check_recipe(recipe)  # that names none


def test_a_recipe_refuses_the_table_of_another(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    recipe = tabled(path)
    assert uses_table(recipe)
    with pytest.raises(InputError, match="t.json"):
        check_recipe(recipe)  # there is none yet
    fits = machine_of(get_target("ort-cpu")) | export_of(recipe)
    made_table(**fits).write(path)
    check_recipe(recipe)
    for change, said in (
        ({"runtime": "onnxruntime 0.1"}, "is a table of runtime onnxruntime 0.1, but here it is onnxruntime 1."),
        ({"device": "a Pi"}, "is a table of device a Pi"),
        ({"batch": 2}, "is a table of batch 2, but here it is 1; make one that fits: vitrim profile RECIPE"),
        ({"threads": 7}, "is a table of threads 7, but here it is 1"),
        ({"target": "openvino"}, "is a table of target openvino"),
    ):
        made_table(**(fits | change)).write(path)
        with pytest.raises(InputError, match=said):
            check_recipe(recipe)
    made_table(**fits).write(path)
    with pytest.raises(InputError, match="export.target leaves it open"):
        check_recipe(tabled(path, export={"target": "cpu"}))


def test_the_model_has_to_be_the_table_s(tmp_path: Path) -> None:
    shape, section = describe(small_vit()), TargetSection(latency_ms=8.0, table=str(tmp_path / "t.json"))
    fits = machine_of(get_target("ort-cpu")) | model_of(shape)
    made_table(**fits).write(tmp_path / "t.json")
    assert measured_latency(section, shape).table.dense == 9.5
    corrected = section.model_copy(update={"correction_ms": 0.5})
    assert measured_latency(corrected, shape).correction == 0.5
    for change in ({"model": "vit_huge"}, {"tokens": 18}, {"gmacs": 9.0}):
        made_table(**(fits | change)).write(tmp_path / "t.json")
        with pytest.raises(InputError, match=f"is a table of {next(iter(change))}"):
            measured_latency(section, shape)
