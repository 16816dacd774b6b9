"""Zero-TPrune's benchmark: its rows are the rule, the rule without a part, and what it is held against."""

from __future__ import annotations

import numpy as np
from helpers import small_vit
from measure import budget_of
from zero_tprune import ROWS, paired

from vitrim.calibration.tokens.cost import graph_macs
from vitrim.exporter.pruning.shape import describe


def test_rows_cost_the_same_and_differ_in_what_they_say() -> None:
    shape = describe(small_vit(depth=12, img_size=224))
    macs = 0.75 * graph_macs(shape)
    found = {row.title: budget_of(shape, row, macs) for row in ROWS}
    assert all(0.97 * macs < 1e9 * budget.total_gmacs <= macs for budget in found.values())
    rule = found["Zero-TPrune, vitrim's rule"]
    assert [row.block for row in rule.stages] == [3, 6, 8, 10, 11]
    changed = {
        title: {name for name in budget.parameters if budget.parameters[name] != rule.parameters[name]}
        for title, budget in found.items()
        if budget.method == "zero_tprune"
    }
    assert list(changed.values()) == [set(), {"hand_over"}, {"exponent"}, {"exponent", "hand_over"}]


def test_a_difference_is_paired_and_signed() -> None:
    first = np.random.default_rng(0).random(400)
    assert paired(first + 0.5, first, 1) == "+0.5 (+0.5 to +0.5)"
    assert paired(first, first + 0.25, 2) == "-0.25 (-0.25 to -0.25)"
