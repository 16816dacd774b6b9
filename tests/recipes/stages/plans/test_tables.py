"""Which recipes a latency table may be of, and which tables a recipe refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import small_recipe, small_vit
from latency_tables import made_table

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.runtime.machine.named import machine_of
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.schema.sections.prune import TargetSection
from vitrim.recipes.stages.plans.tables import (
    check_recipe,
    export_of,
    measured_latency,
    measures_here,
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
    assert export_of(recipe) == {"precision": "fp32", "batch": 3, "threads": 1}
    assert model_of(shape) == {"model": "vit_tiny_patch16_224", "tokens": 17, "gmacs": pytest.approx(0.00234, rel=0.5)}
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


def test_a_table_that_a_device_made_is_solved_on_and_not_measured_here(tmp_path: Path) -> None:
    path, shape = tmp_path / "t.json", describe(small_vit())
    here = machine_of(get_target("ort-cpu")) | export_of(tabled(path)) | model_of(shape)
    there = here | {"device": "a Pi", "runtime": "onnxruntime 0.1"}
    replace(made_table(**here), packed=True).write(path)
    assert check_recipe(tabled(path)) is None
    assert measures_here(tabled(path))

    replace(made_table(**there), packed=True).write(path)
    said = check_recipe(tabled(path))
    assert said is not None
    assert "is of a Pi by onnxruntime 0.1, not of this machine: the plan is predicted for that one, and neither" in said
    assert uses_table(tabled(path))
    assert not measures_here(tabled(path))
    section = TargetSection(latency_ms=8.0, table=str(path))
    assert measured_latency(section, shape).table.of.device == "a Pi"
    with pytest.raises(InputError, match="is a table of batch 1, but here it is 2"):
        check_recipe(tabled(path, export={"batch": 2}))
    with pytest.raises(InputError, match="is a table of threads 1, but here it is 3"):
        check_recipe(tabled(path, bench={"threads": 3}))
    assert check_recipe(tabled(path, bench={})) is not None  # all cores, which there are others
    with pytest.raises(InputError, match="is a table of target ort-cpu, but here it is openvino"):
        check_recipe(tabled(path, export={"target": "openvino"}))

    made_table(**there).write(path)
    with pytest.raises(InputError, match=r"is a table of device a Pi.*for another machine: vitrim profile .* --pack"):
        check_recipe(tabled(path))
    with pytest.raises(InputError, match="is a table of device a Pi"):
        measured_latency(section, shape)


def test_a_table_of_a_jetson_is_taken_without_its_tensorrt_here(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    of = {"target": "trt-10.3", "device": "ARMv8, Orin", "runtime": "TensorRT 10.3.0", "threads": 12}
    replace(made_table(**of), packed=True).write(path)
    recipe = tabled(path, export={"target": "jetpack-6"})
    assert "is of ARMv8, Orin by TensorRT 10.3.0" in str(check_recipe(recipe))
    assert not measures_here(recipe)


def test_an_export_times_no_engine_so_it_measures_no_prediction_of_one(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    recipe = tabled(path, export={"target": "jetpack-6"})
    made_table(target="trt-10.3", **(machine_of(get_target("jetpack-6")) | export_of(recipe))).write(path)
    assert check_recipe(recipe) is None
    assert not measures_here(recipe)
