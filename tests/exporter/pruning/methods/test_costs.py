"""What every method says that its stages add, against what torch counts of the pruned model beyond its own layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import budget_for, small_vit
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vitrim.calibration.tokens.cost import graph_macs, scoring_macs
from vitrim.exporter.pruning.methods import METHODS, get_method
from vitrim.exporter.pruning.methods.base import Method
from vitrim.exporter.pruning.methods.costs import (
    StageSizes,
    absorbing,
    first_row,
    fusing,
    matching,
    merging,
    significance,
)
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.vit import PrunedViT

STAGES = {1: 13, 2: 11}
MODELS: dict[str, dict[str, Any]] = {
    "class token and register": {"reg_tokens": 1},
    "no class token": {"class_token": False, "global_pool": "avg"},
}
FREE = {"class token and register": (), "no class token": ("evit",)}  # the whole matrix is there anyway
VARIANTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("tofu", {}, {"mode": "fuse"}),
    ("frugal", {"features": "keys", "weight": 0.0}, {}),
    ("frugal", {"pairs": "halves"}, {}),
    ("ppt", {}, {"policy": "prune"}),
    ("evit", {"fuse": True}, {}),
    ("zero_tprune", {}, {"similar": 1}),
    ("zero_tprune", {"hand_over": False}, {"similar": 1}),
    ("zero_tprune", {}, {"similar": 2, "iterations": 3}),  # at the second stage nothing is left to rank
    ("zero_tprune", {"variance_filter": None}, {"similar": 1, "iterations": 3}),
]


def counted(model: Any, budget: Any) -> int:
    """Multiply-accumulates for one image as torch counts them: of products, and of lengths of vectors."""

    def of_length(shape: Any, *_: Any, **__: Any) -> int:
        return 2 * torch.Size(shape).numel()

    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.linalg_vector_norm: of_length})
    pruned = PrunedViT(model, budget)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        pruned(torch.zeros(1, *pruned.image_size))
    return counter.get_total_flops() // 2


def beside_the_model(model: Any, budget: Any) -> int:
    """What torch counts beyond the layers and attention products of the model."""
    return counted(model, budget) - graph_macs(describe(model), budget)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_every_method_s_count_is_what_torch_counts(kind: str) -> None:
    model = small_vit(depth=3, **MODELS[kind])
    defaults: list[tuple[str, dict[str, Any], dict[str, Any]]] = [(name, {}, {}) for name in METHODS]
    for method, parameters, options in defaults + VARIANTS:
        budget = budget_for(model, STAGES, method, parameters, **options)
        found = scoring_macs(describe(model), budget)
        assert found == beside_the_model(model, budget), (method, parameters, options)
        assert (found == 0) == (method in ("slice", "uniform", "random", *FREE[kind]) and not parameters)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("frugal", {"pairs": "halves", "exponent": 0.0, "weight": 0.0, "share": 0.0}), ("ppt", {"policy": "pool"})],
)
def test_a_class_row_that_nothing_reads_is_not_counted(
    method: str, parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph leaves it out; torch would compute it, so the method is run without it."""
    monkeypatch.setattr(type(get_method(method)), "reads", "none")
    model = small_vit(depth=3)
    budget = budget_for(model, STAGES, method, parameters)
    assert scoring_macs(describe(model), budget) == beside_the_model(model, budget) > 0


def test_a_stage_that_chooses_nothing_adds_nothing() -> None:
    model = small_vit()
    with_final, without = (budget_for(model, stages, "tome") for stages in ({1: 13, 3: 1}, {1: 13}))
    assert scoring_macs(describe(model), with_final) == scoring_macs(describe(model), without)


def test_the_parts_by_hand() -> None:
    stage = StageSizes(before=197, after=162, prefix=1, heads=3, head_dim=64, width=192)
    assert (stage.patches, stage.removed) == (196, 35)
    assert first_row(stage) == 192 * 197
    assert first_row(StageSizes(197, 162, 1, 3, 64, 192, class_token=False)) == 0
    assert significance(stage) == 2 * 192 * 197
    assert matching(stage) == 64 * (197 + 98 * 98)
    assert merging(stage, None) == 0
    assert merging(stage, "mean") == 162 * 35 * 192
    assert merging(stage, "longest") == 162 * 35 * 192 + (35 + 2 * 162) * 192
    assert fusing(stage) == 197 * 192
    frugal: Method = get_method("frugal")
    whole = frugal.scoring_macs(stage, frugal.StageOptions(), frugal.Parameters())
    assert whole == 2 * 192 * 197 + 192 * 197 * 197 + 162 * 35 * 192 + 2 * 162 * 192
    first = frugal.scoring_macs(stage, frugal.StageOptions(), frugal.Parameters(**frugal.before["vitrim-budget/1"]))
    assert first == 2 * 192 * 197 + 64 * (197 + 98 * 98) + 162 * 35 * 192
    assert matching(stage, 192) == 3 * matching(stage)
    assert absorbing(stage, 64) == 64 * 197 * 197


@given(st.integers(2, 300), st.integers(0, 5))
def test_a_matching_takes_about_a_quarter_of_all_pairs(patches: int, prefix: int) -> None:
    stage = StageSizes(before=patches + prefix, after=patches + prefix - 1, prefix=prefix, heads=1, head_dim=1, width=1)
    pairs = matching(stage) - stage.before
    assert pairs == (patches // 2) * (patches - patches // 2)
