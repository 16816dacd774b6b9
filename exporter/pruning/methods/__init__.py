"""One file per pruning method: its scores and its static reduction, as the paper writes them.

A method is a module with

* `Parameters` and `StageOptions`: pydantic models of what a budget may say to it (`extra="forbid"`);
* `NEEDS_ATTENTION`: whether a stage must materialize the attention matrix;
* `CLASS_ROW_ONLY = True` where only the class token's row of it is read, if there is a class token;
* `select(evidence, keep, options, parameters) -> Selection`: which tokens stay, with fixed counts;
* optionally `score(evidence, parameters) -> Scores`: how a block of the dense model is judged, for calibration;
* optionally `check_stage(before, keep, prefix, options, parameters, where)`: refuse a stage that it cannot fill;
* where tokens merge, `merges(options, parameters, block) -> rule`: how, or None for a stage that only drops, and a
  `proportional` parameter if a token's size counts in the attention that follows;
* `MASKS_DUPLICATES = True` where a stage may keep a token twice: the second is masked in all that follows;
* where the rest becomes one more token, `fuse(evidence, kept, options, parameters) -> weights`.

Adding one takes its file and its line in `METHODS`.
"""

from __future__ import annotations

import difflib
import importlib
from types import ModuleType

from ...core.errors import InputError

# name -> (module, what it does)
METHODS: dict[str, tuple[str, str]] = {
    "zero_tprune": ("zero_tprune", "attention-graph importance, then key similarity; drops tokens"),
    "ppt": ("ppt", "every image prunes or pools, by how peaked its significance is; drops or merges tokens"),
    "tome": ("tome", "the most similar tokens are averaged; merges tokens"),
    "frugal": ("frugal", "vitrim's own: merges patches that are alike and matter little; merges tokens"),
    "tofu": ("tofu", "ToMe's matching: early blocks drop what is matched, later ones fuse it"),
    "evit": ("evit", "top-k by the class token's attention; drops tokens or fuses them into one"),
    "ats": ("ats", "significance sampled along its running sum, duplicates masked; drops tokens"),
    "random": ("random_patches", "control: the same number of tokens, drawn once at random"),
    "uniform": ("uniform", "control: evenly spaced patches"),
    "slice": ("slice_front", "control: the first tokens, at no cost; the floor of every token plan"),
}


def get_method(name: str) -> ModuleType:
    """Import a method's module.

    Raises:
        InputError: no such method; close matches and all names are given.
    """
    if name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise InputError(f"unknown pruning method {name!r}{hint} (there are {', '.join(METHODS)})")
    return importlib.import_module(f"{__name__}.{METHODS[name][0]}")
