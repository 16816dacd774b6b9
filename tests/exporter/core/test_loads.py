"""What plans ask of blocks, and what that takes by a table: all without torch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from latency_tables import FAST, MLP, made_table

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.latency import StageCost
from vitrim.exporter.core.loads import Load, halves_of, stage_cost, with_stages, without_stages

DENSE = Load((17.0,) * 4, (17.0,) * 4)
STAGED = (Load(DENSE.attention, DENSE.mlp, (17, 12, 8)), Load(DENSE.attention, DENSE.mlp, (17, 16, 14)))


def test_halves_lie_on_straight_lines_between_the_counts() -> None:
    table = made_table()
    form, load = table.forms["fused"], Load((17.0, 9.0, 3.0, 1.0), (5.0, 5.0, 5.0, 1.0))
    assert halves_of(table, form, load) == pytest.approx(1 + FAST * 30 / 4 + 1 + MLP * 16 / 4)
    assert without_stages(table, form, load, DENSE) == pytest.approx(9.5 - FAST * 38 / 4 - MLP * 52 / 4)
    assert without_stages(table, form, DENSE, DENSE) == 9.5


def test_no_time_falls_as_tokens_grow() -> None:
    table = made_table(counts=(1, 5, 9, 13, 17))
    bent = replace(table.forms["fused"], attention=(1.0, 5.0, 2.0, 6.0, 7.0))
    took = [halves_of(table, bent, Load((float(count),), (1.0,))) for count in range(1, 18)]
    assert took == sorted(took)
    assert took[8] == took[4]


@given(st.floats(0, 1), st.floats(0.001, 0.05))
def test_what_stages_cost_is_found_in_two_plans(fixed: float, slope: float) -> None:
    cost = StageCost(fixed, slope)
    found = stage_cost([(load, sum(map(cost.of, load.before))) for load in STAGED])
    assert (found.fixed, found.per_token) == (pytest.approx(fixed, abs=1e-9), pytest.approx(slope))


def test_stages_that_noise_makes_cheap_cost_by_stage_or_by_token_alone() -> None:
    assert stage_cost([(STAGED[0], 0.6)]) == StageCost(pytest.approx(0.2), 0.0)
    falling = stage_cost([(STAGED[0], 0.9), (STAGED[1], 0.3)])
    assert falling == StageCost(pytest.approx(0.2), 0.0)
    steep = stage_cost([(STAGED[0], 0.1), (STAGED[1], 0.9)])
    assert steep.fixed == 0
    assert steep.per_token > 0
    assert stage_cost([(STAGED[0], -0.3), (STAGED[1], -0.3)]).fixed == pytest.approx(-0.1)


def test_a_table_is_filled_with_what_was_left_of_measured_graphs() -> None:
    bare, load = made_table(stages={}), Load((17.0, 17.0, 9.0, 1.0), (17.0, 9.0, 9.0, 1.0), (17,))
    took = {name: without_stages(bare, form, load, DENSE) + 0.4 for name, form in bare.forms.items()}
    table = with_stages(bare, DENSE, {"zero_tprune": [(load, took)]})
    assert [form.stages["zero_tprune"].of(17) for form in table.forms.values()] == [pytest.approx(0.4)] * 2
    assert replace(table, forms=bare.forms) == bare


def test_a_load_is_read_as_it_was_written() -> None:
    assert Load.from_json(STAGED[0].to_json(), "p") == STAGED[0]
    with pytest.raises(InputError, match=r"p: before\[0\] is 1\.5, but must be a whole number"):
        Load.from_json({"attention": [1.0], "mlp": [1.0], "before": [1.5]}, "p")
