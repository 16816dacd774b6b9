"""Which products of a graph bear int8, found by running it: the worst go back to a finer form until answers hold.

A product can have one scale a tensor (`tensor`, the fastest), one a token (`token`), or stay in float32 (`float`). All
start with one a tensor. Where that does not hold, each product's part of the damage is measured (the divergence of the
outputs with only this one quantized), and the worst for their cost get the finer form: as few as do, by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..exporter.fidelity import expected_agreement, fidelity

_WORTH = 0.8  # of the damage that one scale a tensor does: what a scale a token must leave less than, to be used

Run = Callable[["Layout", np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Layout:
    """In which form each product is; those in neither set have one scale a tensor.

    Attributes:
        token: names of products with a scale a token.
        floats: names of products in float32.
    """

    token: frozenset[str] = frozenset()
    floats: frozenset[str] = frozenset()


@dataclass
class Found:
    """What the scan found.

    Attributes:
        layout: the forms.
        expected: share of images like these with the float32 graph's top class, see `expected_agreement`.
        agreement: share of these images with it.
        kl: mean divergence of the outputs from the float32 graph's.
        holds: whether the wanted agreement was reached.
        alone: by form and product, divergence with only this one quantized; empty where nothing had to be ranked.
        tried: how many layouts were run.
    """

    layout: Layout
    expected: float
    agreement: float
    kl: float
    holds: bool
    alone: dict[str, dict[str, float]] = field(default_factory=dict)
    tried: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the damage of single products, the worst first."""
        worst = {form: dict(sorted(kls.items(), key=lambda item: -item[1])) for form, kls in self.alone.items()}
        return {
            "float32": sorted(self.layout.floats),
            "scale_a_token": sorted(self.layout.token),
            "expected_agreement": self.expected,
            "agreement": self.agreement,
            "kl": self.kl,
            "holds": self.holds,
            "alone_kl": worst,
            "layouts_tried": self.tried,
        }


def scan(
    products: Sequence[str],
    run: Run,
    images: np.ndarray,
    reference: np.ndarray,
    wanted: float,
    *,
    per_token: bool,
    costs: Mapping[str, float] | None = None,
    few: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """Find the cheapest forms that keep the answers.

    Layouts are judged by the agreement that is expected of images like these: what is counted on them would depend on
    the few that turn, and forms that were chosen by it would not do as well on others.

    Args:
        products: names of all that may be quantized.
        run: (layout, images) -> logits [n, classes].
        images: [n, ...] as the graph takes them.
        reference: [n, classes] logits of the float32 graph on them.
        wanted: least share of images with the same top class.
        per_token: whether the runtime has the form with a scale a token.
        costs: multiply-accumulates of every product: the most damage for the least cost goes first. None: all alike.
        few: images that single products are judged on.
        progress: called with (layouts tried, a guess at how many there will be).
    """
    every = frozenset(products)
    seen: dict[Layout, Mapping[str, float]] = {}
    total = 1

    def told() -> None:
        if progress:
            progress(min(state.tried, total), total)

    def judge(layout: Layout) -> bool:
        if layout not in seen:
            logits = run(layout, images)
            seen[layout] = fidelity(reference, logits, None) | {"expected": expected_agreement(reference, logits)}
            state.tried += 1
            told()
        return bool(seen[layout]["expected"] >= wanted)

    def rank(form: str) -> list[str]:
        kls = {}
        for name in products:
            rest = every - {name}
            layout = Layout(frozenset({name}), rest) if form == "token" else Layout(floats=rest)
            kls[name] = float(fidelity(reference[:few], run(layout, images[:few]), None)["kl"])
            state.tried += 1
            told()
        state.alone[form] = kls
        return sorted(products, key=lambda name: -kls[name] / (costs or {}).get(name, 1.0))

    state = Found(Layout(), 0.0, 0.0, 0.0, False)
    layout = Layout()
    if not judge(layout):
        total += len(products) * (2 if per_token else 1) + 12
        worst = rank("tensor")
        finest = Layout(every)
        holds = per_token and judge(finest)
        if holds:
            layout = Layout(frozenset(worst[: _fewest(len(worst), lambda n: judge(Layout(frozenset(worst[:n]))))]))
        elif per_token and seen[finest]["kl"] < _WORTH * seen[layout]["kl"]:
            worst_token = rank("token")

            def without(n: int) -> Layout:
                floats = frozenset(worst_token[:n])
                return Layout(every - floats, floats)

            gone = without(_fewest(len(products), lambda n: judge(without(n)))).floats
            left = [name for name in worst if name not in gone]
            tokens = _fewest(len(left), lambda n: judge(Layout(frozenset(left[:n]), gone)))
            layout = Layout(frozenset(left[:tokens]), gone)
        else:
            count = _fewest(len(worst), lambda n: judge(Layout(floats=frozenset(worst[:n]))))
            layout = Layout(floats=frozenset(worst[:count]))
    state.layout, state.holds = layout, judge(layout)
    state.expected, state.agreement, state.kl = (seen[layout][key] for key in ("expected", "agreement", "kl"))
    total = state.tried
    told()
    return state


def _fewest(most: int, holds: Callable[[int], bool]) -> int:
    """The smallest number up to `most` that holds, by bisection: more is taken to hold wherever fewer does."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
