"""Published and precursor configurations by name.

Keep rates apply to patches; `similar` patches go by similarity first, then `int((patches - similar) * rate)` stay.
`precursor-*` are the configurations of Zero-TPrune's 2022 precursor, whose FLOP counts are reproduced to the digit.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...exporter.core.errors import InputError


@dataclass(frozen=True)
class StageRule:
    """One stage of a preset.

    Attributes:
        block: 0-based block of a 12-block model.
        rate: share of the patches that stays, of those that similarity left over.
        options: the method's options of the stage.
        remove: tokens that go instead of a rate, at most what one matching can merge.
    """

    block: int
    rate: float
    options: dict[str, Any] = field(default_factory=dict)
    remove: int | None = None


@dataclass(frozen=True)
class Preset:
    """A named configuration.

    Attributes:
        method: the pruning method.
        parameters: its parameters.
        stages: where it prunes and how much.
        about: what it is, in a line.
        round_up: whether kept patches are rounded up.
        fused: tokens that every stage adds (EViT's fused one).
    """

    method: str
    parameters: dict[str, Any]
    stages: Sequence[StageRule]
    about: str
    round_up: bool = False
    fused: int = 0


def _precursor(blocks: Sequence[int], rates: Sequence[float]) -> Preset:
    stages = [StageRule(block, rate, {"iterations": 5}) for block, rate in zip(blocks, rates, strict=True)]
    parameters = {"place": "after_block", "start": "uniform", "variance_filter": None}
    about = f"precursor of Zero-TPrune, after blocks {list(blocks)}, rates {list(rates)}; importance only"
    return Preset("zero_tprune", parameters, stages, about)


def _evit(rate: float) -> Preset:
    stages = [StageRule(block, rate) for block in (3, 6, 9)]
    return Preset("evit", {"place": "before_mlp"}, stages, f"EViT, keep {rate} at blocks 3, 6, 9", round_up=True)


def _evit_fused(rate: float) -> Preset:
    plain = _evit(rate)
    return replace(plain, parameters={"fuse": True}, about=f"{plain.about}, the rest fused into one token", fused=1)


def _ppt(remove: int, threshold: float) -> Preset:
    stages = [StageRule(block, 1.0, remove=remove) for block in (3, 6, 9)]
    about = f"PPT, {remove} tokens at blocks 3, 6, 9, threshold {threshold:g} (published for DeiT-S at r = 50)"
    return Preset("ppt", {"threshold": threshold}, stages, about)


def _tome(remove: int) -> Preset:
    stages = [StageRule(block, 1.0, remove=remove) for block in range(12)]
    return Preset("tome", {}, stages, f"ToMe, {remove} tokens in every block")


PRESETS: dict[str, Preset] = {
    "zero-tprune": Preset(
        "zero_tprune",
        {"place": "after_block"},
        [
            StageRule(0, 1.0, {"similar": 10, "iterations": 30}),
            StageRule(2, 0.9, {"similar": 10, "iterations": 5}),
            StageRule(5, 0.8, {"similar": 10, "iterations": 5}),
            StageRule(8, 0.7, {"similar": 10, "iterations": 1}),
            StageRule(10, 1.0, {"similar": 10, "iterations": 1}),
        ],
        "the paper's default as far as it is known (its per-layer configurations are unpublished)",
    ),
    "precursor-987": _precursor([2, 5, 8], [0.9, 0.8, 0.7]),
    "precursor-999": _precursor([2, 5, 8], [0.9, 0.9, 0.9]),
    "precursor-888": _precursor([2, 5, 8], [0.8, 0.8, 0.8]),
    "precursor-777": _precursor([2, 5, 8], [0.7, 0.7, 0.7]),
    "precursor-666": _precursor([2, 5, 8], [0.6, 0.6, 0.6]),
    "precursor-989999": _precursor([2, 5, 8, 9, 10, 11], [0.9, 0.8, 0.9, 0.9, 0.9, 0.9]),
    "precursor-887777": _precursor([2, 5, 8, 9, 10, 11], [0.8, 0.8, 0.7, 0.7, 0.7, 0.7]),
    "evit-0.9": _evit(0.9),
    "evit-0.8": _evit(0.8),
    "evit-0.7": _evit(0.7),
    "evit-0.6": _evit(0.6),
    "evit-0.5": _evit(0.5),
    **{f"evit-fused-{rate}": _evit_fused(rate) for rate in (0.9, 0.8, 0.7, 0.6, 0.5)},
    "ppt-50": _ppt(50, 7e-5),
    **{f"tome-{remove}": _tome(remove) for remove in (8, 11, 13, 16)},
}


def get_preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        InputError: there is none; close matches and all names are given.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise InputError(f"prune.preset: there is no preset {name!r}{hint} (there are {', '.join(PRESETS)})")
    return PRESETS[name]


def kept_patches(patches: int, rule: StageRule, round_up: bool) -> int:
    """Patches after a stage: similarity first, then the rate, truncated as the precursor does (or rounded up)."""
    left = patches - int(rule.options.get("similar", 0))
    # The tolerance keeps 0.7 * 10 = 7.000000000000001 from rounding up to 8.
    return math.ceil(left * rule.rate - 1e-9) if round_up else int(left * rule.rate + 1e-9)
