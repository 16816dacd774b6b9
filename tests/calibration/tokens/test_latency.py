"""Latencies by a table: what they are made of, and what targets make of them."""

from __future__ import annotations

import pytest
from helpers import budget_for, small_vit
from hypothesis import given, settings
from hypothesis import strategies as st
from latency_tables import FAST, MLP, made_table

from vitrim.calibration.tokens.cost import attention_macs
from vitrim.calibration.tokens.latency import MeasuredLatency, counts_for, load_of, same_attention
from vitrim.calibration.tokens.rules import default_rule
from vitrim.calibration.tokens.solve import from_target
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.loads import without_stages
from vitrim.exporter.pruning.budget import Budget
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.work import Work

MODEL = small_vit()  # four blocks, 17 tokens
SHAPE = describe(MODEL)
LATENCY = MeasuredLatency(made_table(), SHAPE)


def test_numbers_of_tokens_are_few_on_a_processor_and_many_on_a_gpu() -> None:
    assert counts_for(197, 1, True) == (1, 40, 79, 119, 158, 197)
    assert counts_for(5, 2, True) == (2, 3, 4, 5)
    assert counts_for(30, 9, False) == (16, 24, 30)
    assert counts_for(197, 1, False)[-2:] == (192, 197)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 400), st.integers(0, 3))
def test_a_whole_half_is_worth_its_own_tokens(tokens: int, block: int) -> None:
    whole = Work(tokens, tokens, tokens, tokens, tokens)
    assert same_attention(SHAPE, block, whole) == pytest.approx(tokens)
    part = Work(tokens, 1, 1, 1, 1)
    assert 0 < same_attention(SHAPE, block, part) <= tokens
    assert attention_macs(SHAPE, block, part) <= attention_macs(SHAPE, block, whole)


def plan(stages: dict[int, int], method: str = "zero_tprune") -> Budget:
    return budget_for(MODEL, stages, method)


def test_a_plan_takes_its_halves_its_stages_and_the_rest() -> None:
    assert LATENCY.milliseconds(plan({})) == pytest.approx(9.5)  # the dense graph in the faster form
    nine = plan({0: 9})  # block 0 asks for 17 and projects nine; the last block reads one
    form = LATENCY.table.forms["fused"]
    first = same_attention(SHAPE, 0, Work(17, 17, 17, 9, 9))
    lasts = [same_attention(SHAPE, 3, Work(count, 1, 1, 1, 1)) for count in (17, 9)]
    saved = FAST * (17 - first + 2 * 8 + lasts[0] - lasts[1]) + MLP * 3 * 8
    assert without_stages(LATENCY.table, form, load_of(SHAPE, nine), load_of(SHAPE, None)) == pytest.approx(
        9.5 - saved / 4
    )
    assert LATENCY.milliseconds(nine) == pytest.approx(9.5 - saved / 4 + 0.25)
    corrected = MeasuredLatency(LATENCY.table, SHAPE, 0.5)
    assert corrected.milliseconds(nine) == pytest.approx(LATENCY.milliseconds(nine) + 0.5)
    assert corrected.milliseconds(plan({})) == pytest.approx(9.5)  # nothing of the dense graph is corrected


def test_a_method_that_is_not_in_the_table_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"does not know tome \(it knows zero_tprune\); add it: .* --method tome"):
        LATENCY.milliseconds(plan({1: 12}, "tome"))


def test_noise_never_makes_fewer_tokens_slower() -> None:
    table = made_table(counts=(1, 5, 9, 13, 17))
    form = table.forms["fused"]
    bent = [5.0 if at == 2 else one for at, one in enumerate(form.attention)]
    noisy = {"fused": type(form)(form.dense, tuple(bent), form.stages)}
    latency = MeasuredLatency(type(table)(**{**vars(table), "forms": noisy}), SHAPE)
    times = [latency.milliseconds(plan({1: after})) for after in range(2, 17)]
    assert times == sorted(times)


@given(st.floats(6.6, 9.2))
def test_a_target_in_milliseconds_is_met_and_nearly_used_up(milliseconds: float) -> None:
    rule = default_rule(SHAPE, "zero_tprune", {}, blocks=[1, 2])
    found = from_target(SHAPE, "zero_tprune", {}, milliseconds, rule, price=LATENCY.price())
    took = LATENCY.milliseconds(found)
    assert took <= milliseconds
    assert took > milliseconds - 0.4  # a patch less, with the share of what its stage adds


def test_targets_that_are_out_of_reach_say_what_is_not() -> None:
    rule = default_rule(SHAPE, "zero_tprune", {}, blocks=[2])
    with pytest.raises(InputError, match=r"asks for 9\.600 ms, but the dense model costs 9\.500; ask for less"):
        from_target(SHAPE, "zero_tprune", {}, 9.6, rule, price=LATENCY.price())
    with pytest.raises(InputError, match=r"asks for 2\.000 ms, but with stages at blocks \[2\] the least is 8\.198"):
        from_target(SHAPE, "zero_tprune", {}, 2.0, rule, price=LATENCY.price())


def test_a_plan_asks_for_its_blocks_tokens_and_its_stages() -> None:
    dense, nine = load_of(SHAPE, None), load_of(SHAPE, plan({0: 9}))
    assert (dense.attention[:3], dense.mlp, dense.before) == ((17, 17, 17), (17, 17, 17, 1), ())
    assert (nine.mlp, nine.before) == ((9, 9, 9, 1), (17,))
    assert 9 < nine.attention[0] < 17
    assert nine.attention[1:3] == pytest.approx((9, 9))


def test_a_gpu_s_stage_works_for_all_its_tokens_to_the_end_of_the_attention() -> None:
    early, late = load_of(SHAPE, plan({0: 9})), load_of(SHAPE, plan({0: 9}), early=False)
    assert late.attention[0] == 17 > early.attention[0]
    assert (late.mlp, late.before, late.attention[1:]) == (early.mlp, early.before, early.attention[1:])
    of_gpu = MeasuredLatency(made_table(target="trt-rtx"), SHAPE)
    assert of_gpu.milliseconds(plan({0: 9})) > LATENCY.milliseconds(plan({0: 9}))
