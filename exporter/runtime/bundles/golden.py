"""Golden inputs and outputs of a bundle, and the names of its classes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...core import layout
from ...core.answers import task_of
from ...core.arrays import read_arrays
from ...core.errors import InputError, excerpt
from ...core.inputs import read_json
from .manifest import Manifest

_FORMS = (
    (r"image", "fu", range(2, 5), "images [n, ...]"),
    (r"logits|probabilities", "f", (2,), "numbers [n, classes]"),
    (r"features", "f", (2,), "numbers [n, width]"),
    (r"tokens", "f", (3,), "numbers [n, tokens, width]"),
    (r"classes", "iu", (2,), "whole numbers [n, classes]"),
    (r"(kept|merged)_[0-9]{1,4}", "iu", (2,), "whole numbers [n, tokens]"),
    (r"gap_[0-9]{1,4}", "f", (1,), "numbers [n]"),
    (r"(kept|merged|gap)_.*", "", (), "named by a block"),
)


def load_golden(folder: str | os.PathLike[str] | layout.Sized) -> dict[str, np.ndarray]:
    """Golden inputs and outputs: `image` as the graph takes it, `logits` or `features`, perhaps `tokens`,
    `kept_<block>`, `merged_<block>`, `gap_<block>`, and `probabilities` and `classes` where the graph gives them.

    Raises:
        InputError: the file is missing or damaged, lacks the image or the logits, or an array has another form.
    """
    path = (folder if isinstance(folder, layout.Sized) else Path(folder)) / layout.GOLDEN
    try:
        golden = read_arrays(path)
    except InputError as error:
        raise InputError(f"{path} is missing or damaged; copy the bundle again ({error})") from error
    missing = [name for name in ("image", task_of(golden).output) if name not in golden]
    if missing:
        raise InputError(f"{path} is damaged: it has no {missing[0]}; export the bundle anew")
    images = len(golden["image"]) if golden["image"].ndim else 0
    for name, values in golden.items():
        kinds, dimensions, words = _form_of(name)
        if values.dtype.kind not in kinds or values.ndim not in dimensions or len(values) != images or not values.size:
            raise InputError(
                f"{path} is damaged: {excerpt(name)} is {excerpt(str(values.dtype), 40)} "
                f"{excerpt(str(list(values.shape)), 40)}, but must be {words}; export the bundle anew"
            )
    return golden


def _form_of(name: str) -> tuple[str, Sequence[int], str]:
    """What a golden array of a name must be: kinds of types, dimensions, and both in words."""
    found = next((form for form in _FORMS if re.fullmatch(form[0], name, re.DOTALL)), None)
    return ("biufcSUVmM", range(1, 65), "an array [n, ...]") if found is None else found[1:]


def load_labels(folder: str | os.PathLike[str], manifest: Manifest) -> list[str] | None:
    """Names of the classes in their order, each in one line; None where the bundle has none.

    Raises:
        InputError: the file is no list.
    """
    if layout.LABELS not in manifest.files:
        return None
    path = Path(folder) / layout.LABELS
    found = read_json(path, "list of classes", "vitrim export")
    if not isinstance(found, list):
        raise InputError(f"{path} is no list of names; export the bundle anew")
    return [" ".join(str(label).split()) for label in found]
