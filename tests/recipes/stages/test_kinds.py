"""Which graphs an export has, and the budget that makes each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import budget_for, small_swin

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.layout import BUDGET
from vitrim.exporter.pruning.budget import write_budget
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.recipes.schema.sections.outputs import ExportSection
from vitrim.recipes.stages.kinds import (
    KINDS,
    budget_of_kind,
    check_tokens,
    outputs_of,
    plan_of,
    sliced,
    unpruned,
    without_stages,
)


class Folders:
    """A view whose stages lie where it was told."""

    def __init__(self, **folders: Path) -> None:
        self.folders = folders

    def folder_if_any(self, stage: str) -> Path | None:
        return self.folders.get(stage)


@pytest.fixture(scope="module")
def budget(vit: Any) -> Any:
    return budget_for(vit, {1: 11, 2: 6}, iterations=7)


def test_without_a_token_plan_no_graph_has_one() -> None:
    assert KINDS == ("dense", "pruned", "floor")
    assert [budget_of_kind(kind, None) for kind in KINDS] == [None] * 3


def test_the_dense_budget_removes_nothing_and_is_the_dense_model(budget: Any, vit: Any) -> None:
    plain = without_stages(budget)
    assert plain == budget_of_kind("dense", budget)
    assert [(row.before, row.after) for row in plain.blocks] == [(17, 17)] * 4
    assert plain.stages == ()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = vit(images)
        assert torch.equal(PrunedViT(vit, plain).trace(images, tokens=True).logits, expected)
        torch.testing.assert_close(PrunedViT(vit, plain)(images), expected, atol=1e-5, rtol=0)
        assert torch.equal(PrunedViT(vit, unpruned(vit))(images), PrunedViT(vit, plain)(images))


def test_the_pruned_budget_is_the_plan_itself(budget: Any) -> None:
    assert budget_of_kind("pruned", budget) is budget


def test_the_floor_has_the_plan_s_counts_and_keeps_the_first_tokens(budget: Any, vit: Any) -> None:
    floor = sliced(budget)
    assert floor == budget_of_kind("floor", budget)
    assert floor.tokens == budget.tokens == (17, 11, 6, 6)
    assert (floor.method, floor.parameters) == ("slice", {"place": budget.place})
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        kept = PrunedViT(vit, floor, ("kept",))(images)
    (second,) = [ids for ids in kept[-1:] if isinstance(ids, torch.Tensor)]
    assert second.tolist() == [[0, 1, 2, 3, 4, 5]] * 2


def test_the_floor_gives_the_tokens_that_are_left() -> None:
    assert outputs_of(ExportSection()) == outputs_of(ExportSection(), "floor") == ("logits",)
    grid = ExportSection(tokens="grid")
    assert [outputs_of(grid, kind)[1:] for kind in KINDS] == [("grid",), ("grid",), ("left",)]


def test_a_model_without_a_sequence_has_no_tokens(vit: Any) -> None:
    check_tokens(ExportSection(tokens="left"), vit)
    check_tokens(ExportSection(), small_swin())
    with pytest.raises(InputError, match=r"export\.tokens: swin_tiny_patch4_window7_224 ends in a map"):
        check_tokens(ExportSection(tokens="left"), small_swin())


def test_a_run_s_plan_is_what_its_calibration_wrote(budget: Any, tmp_path: Path) -> None:
    write_budget(budget, tmp_path / BUDGET)
    assert plan_of(Folders(calibrate=tmp_path)) == budget  # type: ignore[arg-type]
    assert plan_of(Folders()) is None  # type: ignore[arg-type]
