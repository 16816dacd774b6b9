"""What a sweep is asked for. Imports nothing heavy, so that a command line may show the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...exporter.core.errors import InputError

RATIOS = (0.5, 0.6, 0.7, 0.8)
AGREEMENTS = (0.99, 0.98, 0.95)
SPEEDUPS = (1.2, 1.3, 1.5)
LOOK = 64


@dataclass(frozen=True)
class Wanted:
    """The grid of a sweep, and the constraints that it is to find the best recipe for.

    Attributes:
        methods: by name; None takes all.
        ratios: shares of the dense model's GMACs, as papers count.
        precisions: None takes the recipe's own.
        agreements: least shares of images with the dense model's answer: the fastest point is sought.
        speedups: least speeds over the dense graph: the point that agrees most is sought.
        look: evaluation images of a first look at every point.

    Raises:
        InputError: a number is out of bounds, or there is nothing to sweep.
    """

    methods: Sequence[str] | None = None
    ratios: Sequence[float] = RATIOS
    precisions: Sequence[str] | None = None
    agreements: Sequence[float] = AGREEMENTS
    speedups: Sequence[float] = SPEEDUPS
    look: int = LOOK

    def __post_init__(self) -> None:
        for name in ("methods", "ratios", "precisions"):
            if getattr(self, name) is not None and not len(getattr(self, name)):
                raise InputError(f"{name} is empty, so there is nothing to sweep; name one, or leave it out")
        for name, values, most in (
            ("ratios", self.ratios, 1.0),
            ("agreements", self.agreements, 1.0),
            ("speedups", self.speedups, 1e6),
        ):
            wrong = next((value for value in values if not 0 < value <= most), None)
            if wrong is not None:
                raise InputError(f"{name} has {wrong:g}; give numbers above 0 and up to {most:g}")
        if self.look < 1:
            raise InputError(f"look is {self.look}; it must be at least 1")
