"""Published and precursor configurations by name.

Keep rates apply to patches; `similar` patches go by similarity first, then `int((patches - similar) * rate)` stay.
`precursor-*` are the configurations of Zero-TPrune's 2022 precursor, whose FLOP counts are reproduced to the digit.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..exporter.errors import InputError


@dataclass(frozen=True)
class StageRule:
    """One stage of a preset.

    Attributes:
        block: 0-based block of a 12-block model.
        rate: share of the patches that stays, of those that similarity left over.
        options: the method's options of the stage.
    """

    block: int
    rate: float
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """A named configuration: method, parameters, stages, and what it is."""

    method: str
    parameters: dict[str, Any]
    stages: Sequence[StageRule]
    about: str
    round_up: bool = False


def _precursor(blocks: Sequence[int], rates: Sequence[float]) -> Preset:
    stages = [StageRule(block, rate, {"iterations": 5}) for block, rate in zip(blocks, rates, strict=True)]
    parameters = {"place": "after_block", "start": "uniform", "variance_filter": None}
    about = f"precursor of Zero-TPrune, after blocks {list(blocks)}, rates {list(rates)}; importance only"
    return Preset("zero_tprune", parameters, stages, about)


def _evit(rate: float) -> Preset:
    stages = [StageRule(block, rate) for block in (3, 6, 9)]
    return Preset("evit", {"place": "before_mlp"}, stages, f"EViT, keep {rate} at blocks 3, 6, 9", round_up=True)


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
