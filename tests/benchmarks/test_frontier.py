"""The frontier: what is out of reach is said, points have intervals, and the picture has all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frontier import GMACS, LOOKS, ROWS, Point, plans, plot, point, table
from helpers import small_vit
from measure import Row, Subject

from vitrim.calibration.tokens.cost import dense_plan, graph_macs, model_macs
from vitrim.exporter.core.answers import divergence
from vitrim.exporter.pruning.shape import describe


def test_a_cost_out_of_reach_is_said_and_the_others_are_planned() -> None:
    shape = describe(small_vit(depth=12))
    subject = Subject("small", shape, Path("none"), "", None)
    dense, unpruned = model_macs(shape, dense_plan(shape)) / 1e9, graph_macs(shape) / 1e9
    row = Row("late", "evit", blocks=(10,))
    found, missing = plans(subject, [row], [0.5 * dense, 0.99 * unpruned])
    assert list(found) == [(row, 0.99 * unpruned)]
    assert len(missing) == 1
    assert missing[0].startswith(f"- small, late, {0.5 * dense:g} GMACs: prune.target asks for ")


def test_a_point_is_the_mean_and_its_interval() -> None:
    shape = describe(small_vit(depth=12))
    subject = Subject("small", shape, Path("none"), "", None)
    cost = 0.9 * model_macs(shape, dense_plan(shape)) / 1e9
    (plan,) = plans(subject, [ROWS[0]], [cost])[0].values()
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((200, 7))
    pruned = dense + 0.2 * rng.standard_normal((200, 7))
    found = point(ROWS[0], plan, dense, pruned)
    assert found.agreement == (dense.argmax(1) == pruned.argmax(1)).mean()
    assert found.kl == divergence(dense, pruned).mean()
    assert found.agreement_interval[0] < found.agreement < found.agreement_interval[1]
    assert found.kl_interval[0] < found.kl < found.kl_interval[1]
    lines = list(table("small", 200, 1.25, [found]))
    assert lines[0] == "## small, 200 photos, dense 1.2500 GMACs"
    assert lines[4].startswith(
        f"| {ROWS[0].title} | {found.gmacs:.4f} | {found.tokens} | {100 * found.agreement:.1f} ("
    )


@pytest.mark.slow
def test_the_picture_holds_every_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    assert len(ROWS) <= len(LOOKS)
    points = [
        Point(row.title, cost, "3:9", 0.9, (0.8, 0.95), 0.05, (0.03, 0.08)) for row in ROWS for cost in reversed(GMACS)
    ]
    lines: list[tuple[list[float], list[float]]] = []
    plain = Axes.plot

    def recorded(self: Any, x: list[float], y: list[float], *rest: Any, **more: Any) -> Any:
        lines.append((list(x), list(y)))
        return plain(self, x, y, *rest, **more)

    monkeypatch.setattr(Axes, "plot", recorded)
    plot(tmp_path / "frontier.png", {"small": {"dense": 1.2, "images": 9, "points": points}})
    assert lines.count((sorted(GMACS), [90.0] * len(GMACS))) == len(ROWS)
    assert lines.count((sorted(GMACS), [0.05] * len(GMACS))) == len(ROWS)
    assert lines[-1] == ([1.2], [100])
    assert (tmp_path / "frontier.png").stat().st_size > 1000
