"""Which products of a graph bear int8, found by running it: the worst get a finer form until answers hold.

A product can have one scale a tensor (`tensor`, the fastest), one a token (`token`), or stay in float32 (`float`). All
start with one a tensor. Where that does not hold, each product's part of the damage is measured in every form (the
divergence of the outputs with only this one quantized), or with one scale a tensor alone where one a token is fine for
all. Every refinement then saves so much damage for so much time; the ones that save most for their time are made, as
few as do, found by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...core.fidelity import Fidelity, fidelity
from .judge import Judge

Run = Callable[["Layout", np.ndarray], np.ndarray]


_LEAST = 1e-9  # of a cost


@dataclass(frozen=True)
class Costs:
    """What the finer forms of a product take over one scale a tensor, in any unit of time.

    Attributes:
        token: a scale per token.
        floats: float32.
    """

    token: float = 0.5
    floats: float = 1.0


@dataclass(frozen=True)
class Layout:
    """In which form each product is; those in neither set have one scale a tensor.

    Attributes:
        token: names of products with a scale per token.
        floats: names of products in float32.
    """

    token: frozenset[str] = frozenset()
    floats: frozenset[str] = frozenset()


@dataclass
class Found:
    """What the scan found.

    Attributes:
        layout: the forms.
        kept: share of the answers that is kept, see `Judge.kept`.
        agreement: share of these images with the float32 graph's answer.
        kl: mean divergence of the outputs from the float32 graph's.
        holds: whether as much is kept as is wanted.
        alone: by form and product, divergence with only this one quantized; empty where nothing had to be ranked.
        tried: how many layouts were run.
    """

    layout: Layout
    kept: float
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
            "kept": self.kept,
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
    judge: Judge,
    *,
    per_token: bool,
    costs: Mapping[str, Costs] | None = None,
    rough: Run | None = None,
    few: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """Find the cheapest forms that keep the answers.

    Args:
        products: names of all that may be quantized.
        run: (layout, images) -> logits [n, classes], or features [n, width].
        images: [n, ...] as the graph takes them.
        judge: of the answers on them.
        per_token: whether the runtime has the form with a scale per token.
        costs: what the finer forms of every product cost; None: alike, and a scale per token half of float32.
        rough: like `run`, for single products, which are only ranked; None: the same.
        few: images that single products are judged on.
        progress: called with (layouts tried, a guess at how many there will be).
    """
    every = frozenset(products)
    seen: dict[Layout, tuple[float, Fidelity]] = {}
    total = 1

    def told() -> None:
        if progress:
            progress(min(state.tried, total), total)

    def holds(layout: Layout) -> bool:
        if layout not in seen:
            logits = run(layout, images)
            seen[layout] = judge.kept(logits), fidelity(judge.float32, logits, None, judge.task)
            state.tried += 1
            told()
        return seen[layout][0] >= judge.wanted

    def damage(form: str) -> dict[str, float]:
        kls = {}
        for name in products:
            rest = every - {name}
            layout = Layout(frozenset({name}), rest) if form == "token" else Layout(floats=rest)
            kls[name] = fidelity(judge.float32[:few], (rough or run)(layout, images[:few]), None, judge.task).kl
            state.tried += 1
            told()
        state.alone[form] = kls
        return kls

    state = Found(Layout(), 0.0, 0.0, 0.0, False)
    layout = Layout()
    if not holds(layout):
        fine = per_token and holds(Layout(token=every))
        total += len(products) * (2 if per_token and not fine else 1) + 8
        tensor = damage("tensor")
        # Where a scale a token is fine for all of them, what damage it leaves to each needs no measurement.
        token = dict.fromkeys(products, 0.0) if fine else damage("token") if per_token else tensor
        known = costs or {}
        steps = refinements({name: (tensor[name], token[name], known.get(name, Costs())) for name in products})
        layout = after(steps, _fewest(len(steps), lambda n: holds(after(steps, n))))
    state.layout, state.holds = layout, holds(layout)
    state.kept, counted = seen[layout]
    state.agreement, state.kl = counted.agreement, counted.kl
    total = state.tried
    told()
    return state


def refinements(products: Mapping[str, tuple[float, float, Costs]]) -> list[tuple[str, str]]:
    """(product, finer form) in the order in which they save most damage for their time.

    Args:
        products: by name, damage with one scale a tensor, damage with one a token, and costs.

    Returns:
        up to two steps a product, `token` before `float`; the first is left out where float32 at once saves more for
        its time.
    """
    steps: list[tuple[float, str, str]] = []
    for name, (tensor, token, cost) in products.items():
        saved, whole = (tensor - token) / cost.token, tensor / cost.floats
        if token < tensor and saved > whole:
            steps.append((saved, name, "token"))
            whole = token / max(cost.floats - cost.token, _LEAST)
            whole = min(whole, saved)  # never before the step that it follows
        steps.append((whole, name, "float"))
    return [(name, form) for _, name, form in sorted(steps, key=lambda step: -step[0])]


def after(steps: Sequence[tuple[str, str]], count: int) -> Layout:
    """The forms after the first refinements."""
    form = dict(steps[:count])
    token = frozenset(name for name, last in form.items() if last == "token")
    return Layout(token, frozenset(form) - token)


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
