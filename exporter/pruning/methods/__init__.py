"""One file per pruning method: a class that reads as the paper does, with fixed counts.

`base.Method` says what a method may define and what holds where it does not. Adding one takes its file and its class in
`CLASSES` below; `vitrim methods`, docs/methods.md, recipes, calibration and the exported graph know it from there.
"""

from __future__ import annotations

from ...core.errors import InputError, did_you_mean
from .ats import ATS
from .base import Method
from .evit import EViT
from .frugal import Frugal
from .ppt import PPT
from .random_patches import Random
from .slice_front import Slice
from .tofu import ToFu
from .tome import ToMe
from .uniform import Uniform
from .zero_tprune import ZeroTPrune

CLASSES: tuple[type[Method], ...] = (Frugal, PPT, ToMe, ToFu, ZeroTPrune, EViT, ATS, Random, Uniform, Slice)

METHODS: dict[str, Method] = {method.name: method() for method in CLASSES}
DEFAULT = Frugal.name  # the best measured at equal cost (benchmarks/results/methods.md)
FLOOR = Slice.name  # no plan can run faster than by slicing to its tokens


def get_method(name: str) -> Method:
    """A method by name.

    Raises:
        InputError: there is none; close matches and all names are given.
    """
    if name not in METHODS:
        hint = did_you_mean(name, METHODS)
        raise InputError(f"unknown pruning method {name!r}{hint} (there are {', '.join(METHODS)})")
    return METHODS[name]
