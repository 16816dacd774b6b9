"""Numbers that a person gives, held between bounds: no slip asks for a billion rounds."""

from __future__ import annotations

import math
import numbers

from .errors import InputError, excerpt

# What may be given.
BATCH = (1, 4096)
CLASSES = (1, 1_000_000)
THREADS = (1, 1024)  # of onnxruntime
ATOL, TIE = (0.0, 1e6), (0.0, 1.0)  # of parity


def require_within(name: str, value: object, least: float, most: float) -> None:
    """Refuse what is no number, or lies outside of its bounds.

    Args:
        name: of the option, for the message.
        value: that was given; a whole number where both bounds are.
        least, most: the bounds, both allowed.

    Raises:
        InputError: it is something else; with the bounds.
    """
    whole = isinstance(least, int) and isinstance(most, int)
    kind: type = numbers.Integral if whole else numbers.Real
    fits = isinstance(value, kind) and not isinstance(value, bool)
    if not fits or not least <= value <= most:  # type: ignore[operator]  # nan is not between
        given = "a whole number" if whole else "a number"
        raise InputError(f"{name} is {excerpt(value, 40)}; give {given} from {_shown(least)} to {_shown(most)}")


def _shown(bound: float) -> str:
    return str(bound) if isinstance(bound, int) or not math.isfinite(bound) else f"{bound:g}"
