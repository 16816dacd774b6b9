"""Published and precursor configurations by name; every method declares its own."""

from __future__ import annotations

from ...exporter.core.errors import InputError, did_you_mean
from ...exporter.pruning.methods import METHODS
from ...exporter.pruning.plan import Preset

PRESETS: dict[str, Preset] = {preset.name: preset for method in METHODS.values() for preset in method.presets}


def get_preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        InputError: there is none; close matches and all names are given.
    """
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS)
        raise InputError(f"prune.preset: there is no preset {name!r}{hint} (there are {', '.join(PRESETS)})")
    return PRESETS[name]
