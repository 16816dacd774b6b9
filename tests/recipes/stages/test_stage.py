"""Stages as declarations: their keys follow from what they declare, and what they do not declare they cannot see."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from helpers import small_recipe

from vitrim.exporter.core import sources
from vitrim.recipes.pipeline.run import STAGES
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.schema.recipe import Recipe, sections
from vitrim.recipes.schema.sections.outputs import ExportSection
from vitrim.recipes.stages.stage import Input, Stage, plain_value, stage_key

CONTENTS = {name: name for name in ("model", "dense", "plan", "calibration", "evaluation")}


class Example(Stage):
    name: ClassVar[str] = "example"
    needs: ClassVar[tuple[str, ...]] = ("trace",)
    reads: ClassVar[tuple[str, ...]] = ("bench.runs", "prune", "slim.target")
    takes: ClassVar[tuple[Input, ...]] = ("calibration",)


Example.__module__ = "vitrim.recipes.stages.trace"  # whose code it is taken to run


def key_of(recipe: dict[str, Any], contents: Any = None, results: Any = None, versions: Any = None) -> str:
    given = {"torch": "1"} if versions is None else versions
    return stage_key(Example, recipe_from(recipe), contents or CONTENTS, results or {"trace": "a"}, given)


def test_a_key_changes_with_what_is_declared_and_with_nothing_else() -> None:
    first = key_of(small_recipe())
    assert len(first) == 16
    assert key_of(small_recipe()) == first
    assert key_of(small_recipe(bench={"warmup": 3, "threads": 1}, parity={"atol": 1.0})) == first
    assert key_of(small_recipe(), CONTENTS | {"evaluation": "x", "model": "x"}) == first
    assert key_of(small_recipe(), None, {"trace": "a", "forms": "b"}) == first
    others = [
        key_of(small_recipe(bench={"runs": 6})),
        key_of(small_recipe(prune={"target": {"flops_ratio": 0.8}})),
        key_of(small_recipe(slim={"target": {"flops_ratio": 0.8}})),
        key_of(small_recipe(), CONTENTS | {"calibration": "x"}),
        key_of(small_recipe(), None, {"trace": "b"}),
        key_of(small_recipe(), None, None, {"torch": "2"}),
    ]
    assert len({first, *others}) == 7


def test_a_key_changes_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    first = key_of(small_recipe())
    monkeypatch.setattr("vitrim.recipes.stages.stage.digest", lambda name: f"other code of {name}")
    assert key_of(small_recipe()) != first


def test_files_count_by_their_content(tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in files:
        path.write_text("the same")
    values = [plain_value(recipe_from(small_recipe() | {"prune": {"budget": str(path)}}), "prune") for path in files]
    assert values[0] == values[1]
    files[1].write_text("another")
    again = plain_value(recipe_from(small_recipe() | {"prune": {"budget": str(files[1])}}), "prune")
    assert again != values[0]


def test_the_declarations_of_all_stages_name_what_there_is() -> None:
    keys = {f"{path}.{name}" if path else name for path, section in sections() for name in section.model_fields}
    keys |= {name for name, value in vars(Recipe).items() if isinstance(value, property)}
    keys |= {f"export.{name}" for name, value in vars(ExportSection).items() if isinstance(value, property)}
    before: set[str] = set()
    for stage in STAGES:
        assert set(stage.reads) <= keys, stage.name
        assert set(stage.needs) <= before, f"{stage.name} needs a stage that comes later, or none"
        assert set(stage.takes) <= set(CONTENTS), stage.name
        assert stage.name.isalpha()
        assert stage.name.islower()
        before.add(stage.name)
    assert len(before) == len(STAGES)


def test_a_stage_is_keyed_by_the_code_that_it_runs() -> None:
    """Each by its own: what a pass does is none of the trace's business, and the other way round."""
    code = {stage.name: set(sources.closure(stage.__module__.partition(".")[2])) for stage in STAGES}
    passes = "exporter.graph.passes.qkv_split"
    assert {name for name, modules in code.items() if passes in modules} == {"passes", "parity"}
    methods = "exporter.pruning.methods.frugal"
    assert {name for name, modules in code.items() if methods in modules} >= {"calibrate", "reference", "trace"}
    assert "exporter.runtime.bench.stats" in code["bench"]
    assert "exporter.runtime.bench.stats" not in code["trace"] | code["calibrate"] | code["reference"]
    for name, modules in code.items():
        assert not [module for module in modules if module.endswith("pipeline.run")], name
