"""Zero-TPrune on photos: every row says which steps are the paper's, and controls have the tokens of the rule."""

from __future__ import annotations

from helpers import small_vit
from photos import OURS, budgets

from vitrim.calibration.tokens.cost import graph_macs
from vitrim.exporter.pruning.methods.zero_tprune import PAPER
from vitrim.exporter.pruning.shape import describe


def test_rows_are_the_rule_its_parts_controls_and_the_paper_s_steps() -> None:
    shape = describe(small_vit(depth=12, img_size=160))
    macs = 0.75 * graph_macs(shape)
    found = budgets(shape, macs)
    ours = found[OURS]
    assert 0.97 * macs < 1e9 * ours.total_gmacs <= macs
    assert [row.block for row in ours.stages] == [3, 6, 8, 10, 11]
    assert all(row.options["similar"] == row.before - row.after for row in ours.stages if row.block < 11)
    same = [title for title, budget in found.items() if budget.tokens == ours.tokens]
    assert {title for title in found if title.startswith("same tokens: ")} < set(same)
    assert len(same) == 12
    papers = [budget for title, budget in found.items() if "the paper's" in title or title.startswith("preset")]
    assert len(papers) == 6
    for budget in papers:
        assert {key: budget.parameters[key] for key in PAPER} == PAPER
    alone = found["the paper's I alone"]
    assert [row.options["similar"] for row in alone.stages if row.block < 11] == [0, 0, 0, 0]
