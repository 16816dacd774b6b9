"""How `transformers` makes a model's input of a photo, as timm's data config says it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...core.errors import InputError, excerpt
from .configs import Config

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # of Pillow
_BY_SHORT_SIDE = ("CLIP", "ChineseCLIP", "Bit")  # processors to whom a bare number is the short side


def describe_images(data: Mapping[str, Any], shown: str) -> dict[str, Any]:
    """What a `preprocessor_config.json` says, in the terms of timm's data config.

    Args:
        data: of the file.
        shown: it, for messages.

    Returns:
        mean, std, interpolation, crop_pct, crop_mode, and `size`, the [height, width] of what comes out.

    Raises:
        InputError: it does something that timm's transforms do not.
    """
    if data.get("do_rescale", True) is False or not math.isclose(
        Config(data, shown).number("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-3
    ):
        raise InputError(f"{shown}: rescale_factor is not 1/255; pixels have to come on a 0..1 scale")
    resample = data.get("resample", 2)
    if type(resample) is not int or resample not in _RESAMPLE:
        raise InputError(f"{shown}: resample is {excerpt(repr(resample), 40)}, which timm's transforms do not do")
    normalizes = data.get("do_normalize", True) is not False
    found: dict[str, Any] = {"interpolation": _RESAMPLE[resample]}
    for key, name, none in (("mean", "image_mean", 0.0), ("std", "image_std", 1.0)):
        values = data.get(name)
        if not normalizes:
            found[key] = (none, none, none)
        elif isinstance(values, list) and values and all(type(one) in (int, float) for one in values):
            found[key] = tuple(float(one) for one in values)
        elif values is not None:
            raise InputError(f"{shown}: {name} is {excerpt(repr(values), 40)}; numbers by channel are wanted")
    return found | _geometry(data, shown)


def _geometry(data: Mapping[str, Any], shown: str) -> dict[str, Any]:
    """How a photo is resized and cropped; nothing where that is not said."""
    if data.get("do_resize", True) is False or data.get("size") is None:
        return {}
    kind = str(data.get("image_processor_type") or data.get("feature_extractor_type") or "")
    before, short = _size(data["size"], kind.startswith(_BY_SHORT_SIDE), "size", shown)
    after = before
    if data.get("do_center_crop") and data.get("crop_size") is not None:
        after, _ = _size(data["crop_size"], False, "crop_size", shown)
    elif short:
        raise InputError(f"{shown}: size is a short side and do_center_crop is off, so images come in every shape")
    ratios = {_crop_pct(inner, outer) for inner, outer in zip(after, before, strict=True)}
    if len(ratios) > 1 or max(ratios) > 1:
        raise InputError(f"{shown}: crop_size {list(after)} of size {list(before)} is no share of it that timm crops")
    return {"crop_pct": ratios.pop(), "crop_mode": "center" if short else "squash", "size": list(after)}


def _size(value: Any, short: bool, key: str, shown: str) -> tuple[tuple[int, int], bool]:
    """((height, width), whether they are those of the short side alone)."""
    sides: list[Any] = [value, value]
    if isinstance(value, dict) and "shortest_edge" in value and "longest_edge" not in value:
        sides, short = [value["shortest_edge"]] * 2, True
    elif isinstance(value, dict):
        sides, short = [value.get("height"), value.get("width")], False
    if not all(type(one) is int and 0 < one < 1 << 16 for one in sides):
        raise InputError(
            f"{shown}: {key} is {excerpt(repr(value), 60)}; height and width, or shortest_edge, are wanted"
        )
    return (sides[0], sides[1]), short


def _crop_pct(inner: int, outer: int) -> float:
    """The share of which timm, which rounds down, makes the very size that is resized to."""
    share = inner / outer
    return share if math.floor(inner / share) == outer else inner / (outer + 0.5)
