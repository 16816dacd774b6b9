"""Costs against published counts: the precursor's notebook to the digit, PPT's, EViT's and ToMe's to 0.1 %."""

from __future__ import annotations

import math
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import budget_for, small_vit
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vitrim.calibration.tokens.budgets import from_preset, make_budget
from vitrim.calibration.tokens.cost import (
    LatencyModel,
    dense_plan,
    gmacs,
    gmacs_by_block,
    graph_macs,
    model_macs,
    scoring_macs,
)
from vitrim.calibration.tokens.presets import get_preset
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.load import create_model
from vitrim.exporter.pruning.plan import StagePlan
from vitrim.exporter.pruning.shape import ViTShape, describe
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.exporter.pruning.whole import WholeModel

sys.path.insert(0, str(Path(__file__).parent))
from published_counts import fvcore_count, torchprofile_count


@cache
def deit(size: str) -> ViTShape:
    return describe(create_model(f"deit_{size}_patch16_224", random=0))


@pytest.mark.parametrize(("size", "printed"), [("tiny", 1.2537), ("small", 4.5989), ("base", 17.5638)])
def test_dense_counts(size: str, printed: float) -> None:
    assert model_macs(deit(size), dense_plan(deit(size))) / 1e9 == pytest.approx(printed, abs=5e-5)


# METHODS' section 2.9: model, preset (None removes nothing), whether PageRank was counted, the notebook's raw count.
NOTEBOOK = [
    ("small", "precursor-987", False, 3_554_802_816),
    ("small", "precursor-987", True, 3_555_252_911),
    ("small", "precursor-888", True, 3_344_264_343),
    ("small", "precursor-777", True, 2_872_848_497),
    ("small", "precursor-666", True, 2_478_182_118),
    ("base", None, True, 17_583_322_359),
    ("base", "precursor-999", False, 15_020_374_272),
    ("base", "precursor-987", False, 13_628_340_480),
    ("tiny", None, True, 1_258_993_335),
    ("tiny", "precursor-999", True, 1_064_203_751),
    ("tiny", "precursor-987", False, 962_559_552),
    ("tiny", "precursor-989999", True, 987_525_244),
    ("tiny", "precursor-887777", False, 848_572_032),
]


@pytest.mark.parametrize("preset", ["tome-8", "evit-0.7", "precursor-987"])
def test_blocks_add_up_to_the_graph(preset: str) -> None:
    shape = deit("tiny")
    budget = from_preset(shape, get_preset(preset))
    found = gmacs_by_block(shape, budget)
    outside = (shape.stem_macs + shape.head_macs) / 1e9
    assert sum(found["dense"]) + outside == pytest.approx(graph_macs(shape) / 1e9, abs=1e-5)
    assert sum(found["pruned"]) + outside == pytest.approx(graph_macs(shape, budget) / 1e9, abs=1e-5)
    assert sum(found["scoring"]) == pytest.approx(scoring_macs(shape, budget) / 1e9, abs=1e-5)
    stages = {row.block for row in budget.choosing}
    assert {block for block, cost in enumerate(found["scoring"]) if cost} <= stages


@pytest.mark.parametrize(("size", "preset", "page_rank", "printed"), NOTEBOOK)
def test_the_thirteen_raw_counts_of_the_precursor(size: str, preset: str | None, page_rank: bool, printed: int) -> None:
    shape = deit(size)
    if preset is None:
        plan, final, scored = dense_plan(shape), shape.tokens, [shape.tokens] * 3
    else:
        budget = from_preset(shape, get_preset(preset))
        plan, final = budget.plan(), budget.tokens[-1]
        scored = [row.before for row in budget.stages]
    # The notebook's last row counts PageRank where its label says so; see METHODS 2.9.
    if preset == "precursor-887777":
        page_rank = False
    assert fvcore_count(shape, plan, final, scored if page_rank else ()) == printed


@pytest.mark.parametrize(
    ("rate", "dropped", "fused", "printed"),
    [
        (0.9, (178, 161, 145), (179, 163, 148), 4.022),
        (0.8, (158, 127, 102), (159, 129, 105), 3.477),
        (0.7, (139, 98, 69), (140, 100, 72), 3.029),
        (0.6, (119, 72, 44), (120, 74, 46), 2.635),
        (0.5, (99, 50, 26), (100, 52, 28), 2.309),
    ],
)
def test_evit_tokens_and_gmacs(rate: float, dropped: tuple[int, ...], fused: tuple[int, ...], printed: float) -> None:
    """Tokens of the preset, which drops; and the published cost of the variant that fuses what it drops."""
    budget = from_preset(deit("small"), get_preset(f"evit-{rate}"))
    assert tuple(row.after for row in budget.stages) == dropped
    stages = [StagePlan(block, tokens - 1) for block, tokens in zip((3, 6, 9), fused, strict=True)]
    with_fused = make_budget(deit("small"), "evit", {"place": "before_mlp"}, stages)
    assert with_fused.gmacs["paper"] == pytest.approx(printed, rel=1e-3)


@pytest.mark.parametrize(("size", "printed"), [("tiny", 0.800801903), ("small", 2.944411999), ("base", 11.26)])
def test_ppt_printed_gmacs(size: str, printed: float) -> None:
    """r = 50 at blocks 3, 6, 9: tokens 147, 97, 49; counted as its authors' tool does, matching included."""
    stages = [StagePlan(3, 146), StagePlan(6, 96), StagePlan(9, 48)]
    budget = make_budget(deit(size), "evit", {"place": "before_mlp"}, stages)
    count = torchprofile_count(deit(size), budget.plan(), 49, matched=(197, 147, 97))
    assert count / 1e9 == pytest.approx(printed, rel=1e-3)


@pytest.mark.parametrize(
    ("r", "size", "printed"),
    [(8, "tiny", 0.924), (8, "small", 3.416), (8, "base", 13.104), (13, "small", 2.703), (16, "small", 2.291)],
)
def test_tome_printed_gmacs(r: int, size: str, printed: float) -> None:
    stages, tokens = [], 197
    for block in range(12):
        tokens -= min(r, (tokens - 1) // 2)
        stages.append(StagePlan(block, tokens - 1))
    budget = make_budget(deit(size), "evit", {"place": "before_mlp"}, stages)
    assert budget.gmacs["paper"] == pytest.approx(printed, rel=1e-3)
    assert tokens == {8: 101, 13: 41, 16: 11}[r]


# Plan, method, parameters, further arguments of the model, and what the method itself multiplies.
COUNTED: list[tuple[dict[int, int], str, dict[str, Any], dict[str, Any], int]] = [
    ({}, "uniform", {}, {}, 0),
    ({0: 12, 2: 7}, "uniform", {}, {}, 0),
    ({0: 12, 2: 7, 3: 1}, "uniform", {"place": "after_block"}, {}, 0),  # what only drops is dropped early all the same
    ({0: 12, 3: 7}, "slice", {}, {}, 0),  # the last block is a stage that chooses
    ({0: 12, 2: 7}, "evit", {}, {}, (17 + 12) * 48),
    ({0: 12, 2: 7}, "evit", {"fuse": True}, {}, 2 * (17 + 12) * 48),
    ({0: 12, 2: 7}, "evit", {"fuse": True, "place": "after_block"}, {}, 2 * (17 + 12) * 48),
    ({0: 12, 2: 7}, "evit", {}, {"class_token": False, "global_pool": "avg"}, 0),  # reads the whole matrix
    ({0: 12, 2: 7}, "uniform", {}, {"name": "deit_tiny_distilled_patch16_224"}, 0),
    ({0: 12, 2: 7}, "uniform", {}, {"reg_tokens": 3}, 0),
]


def counted(model: torch.nn.Module) -> float:
    """PyTorch's own count, which knows the products of attention where they are not fused."""
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 64, 64))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(("stages", "method", "parameters", "args", "scoring"), COUNTED)
def test_a_graph_s_count_is_what_pytorch_counts(
    stages: dict[int, int], method: str, parameters: dict[str, Any], args: dict[str, Any], scoring: int
) -> None:
    model = small_vit(**args)
    shape, budget = describe(model), budget_for(model, stages, method, parameters)
    assert graph_macs(shape, budget) + scoring == counted(PrunedViT(model, budget))
    if not stages:
        assert graph_macs(shape) == graph_macs(shape, budget) == counted(WholeModel(model))


def test_deit_tiny_s_last_block_asks_for_one_token() -> None:
    """Of 29 M for queries, rows and projection and 58 M for the MLP one in 197 is left; keys and values stay."""
    shape = deit("tiny")
    saved = 196 * (2 * 192 * 192 + 2 * 197 * 192 + 2 * 192 * 768)
    assert model_macs(shape, dense_plan(shape)) - graph_macs(shape) == saved == 87_080_448


def test_scoring_is_counted_apart() -> None:
    shape = deit("small")
    stages = [StagePlan(3, 146, options={"similar": 10, "iterations": 30})]
    budget = make_budget(shape, "zero_tprune", {}, stages)
    filters = 2 * 2 * 6 * 197  # the sums of two rankings and of their squares
    ranked = 31 * 6 * 197 * 197 + filters + 64 * (197 + 98 * 98)
    assert scoring_macs(shape, budget) == ranked + 64 * 10 * 146  # ten that go look for the one that stays
    assert scoring_macs(shape, make_budget(shape, "zero_tprune", {"hand_over": False}, stages)) == ranked
    assert gmacs(shape, budget)["scoring"] < 0.002 * gmacs(shape, budget)["dense"] * 1.01
    assert scoring_macs(shape, make_budget(shape, "evit", {}, [StagePlan(3, 146)])) == 197 * 384
    assert scoring_macs(shape, make_budget(shape, "uniform", {}, [StagePlan(3, 146)])) == 0


def speedup(model: LatencyModel, mac_ratio: float) -> float:
    """Dense over pruned latency, straight from the model's description."""
    return 1 / (model.intercept + model.slope * mac_ratio)


def test_latency_model_is_the_measured_one() -> None:
    model = LatencyModel.for_batch(1)
    assert speedup(model, 1 / 1.534) == pytest.approx(1.437, abs=0.005)
    assert speedup(LatencyModel.for_batch(8), 1 / 1.534) == pytest.approx(1.534)
    assert model.mac_ratio(model.speedup(0.6)) == pytest.approx(0.6)
    assert speedup(model, 0.6) == pytest.approx(model.speedup(0.6))
    with pytest.raises(InputError, match=r"speedup is 9: the latency model allows at least 1 and below 7\.94"):
        model.mac_ratio(9)
    assert math.isclose(LatencyModel.for_batch(3).intercept, 0.09)
