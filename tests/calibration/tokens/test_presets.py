"""Published configurations: every one is a method's, under one name, and fits the models that it was published for."""

from __future__ import annotations

from functools import cache

import pytest
import timm
import torch

from vitrim.calibration.tokens.budgets import from_preset
from vitrim.calibration.tokens.presets import PRESETS, get_preset
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.methods import METHODS
from vitrim.exporter.pruning.shape import ViTShape, describe


@cache
def deit(size: str) -> ViTShape:
    with torch.device("meta"):  # a shape needs no weights
        return describe(timm.create_model(f"deit_{size}_patch16_224"))


def test_every_preset_has_a_name_of_its_own() -> None:
    declared = [preset for method in METHODS.values() for preset in method.presets]
    assert len(PRESETS) == len(declared)
    assert all(PRESETS[preset.name] is preset for preset in declared)
    assert all(preset.method in METHODS for preset in declared)


def test_a_preset_is_what_its_paper_says() -> None:
    evit = get_preset("evit-0.7")
    assert (evit.method, [(stage.block, stage.keep) for stage in evit.stages]) == (
        "evit",
        [(3, 0.7), (6, 0.7), (9, 0.7)],
    )
    ppt = get_preset("ppt-50")
    assert (ppt.method, [stage.block for stage in ppt.stages]) == ("ppt", [3, 6, 9])


@pytest.mark.parametrize(("name", "hint"), [("evit-07", "; did you mean evit-0.7?"), ("nothing like it", "")])
def test_an_unknown_name_is_answered_with_the_names(name: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        get_preset(name)
    assert str(caught.value) == f"prune.preset: there is no preset '{name}'{hint} (there are {', '.join(PRESETS)})"


def test_every_preset_fits_every_size() -> None:
    for name, preset in PRESETS.items():
        for size in ("tiny", "small", "base"):
            budget = from_preset(deit(size), preset)
            assert budget.gmacs["pruned"] < budget.gmacs["dense"], name
