"""Numbers that a person gives, held between bounds: no slip asks for a billion rounds."""

from __future__ import annotations

import math
import numbers

from .errors import InputError, excerpt

# What may be given.
BATCH = (1, 4096)
CLASSES = (1, 1_000_000)
THREADS = (1, 1024)  # of the CPU
WORKERS = (1, 256)  # processes
PROFILE_PROCESSES, PROFILE_ROUNDS = (1, 256), (1, 10_000)  # of a latency table
PHOTOS = (1, 256)  # of a bundle, in a report
ATOL, TIE = (0.0, 1e6), (0.0, 1.0)  # of parity
SHOWN = 8  # of PHOTOS, where nobody says how many
# Of a timm model's arguments; a list of numbers is held to them entry by entry.
MODEL_ARGS = {
    "depth": (1, 1024),
    "embed_dim": (1, 65_536),
    "img_size": (1, 16_384),
    "in_chans": (1, 1024),
    "num_classes": (0, CLASSES[1]),
    "num_heads": (1, 4096),
    "patch_size": (1, 16_384),
}
OTHER_ARGS = (0, 16_384)  # any other number: ratios, rates, registers


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
