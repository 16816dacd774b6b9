"""What lies in a bundle, and under which name: the graphs by kind, and every other file.

A bundle of several image sizes has these files for its own size, the recipe's, and once more for every further one:
`model.onnx`, and `model.192x256.onnx` for images of 192 rows and 256 columns.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from .errors import InputError, excerpt


class Kind(str, Enum):
    """A graph of an export: what it is of, and in which precision.

    A kind is also its name, as a key of a benchmark or of a report: `Kind.DENSE == "dense"`.
    """

    DENSE = "dense"  # the model as it came, in float32
    PRUNED = "pruned"  # the product, in the precision asked for
    PROOF = "proof"  # the product with its stages' decisions as outputs, where it does not have them itself
    FLOOR = "floor"  # the same token counts by slicing: the least time that the plan can take
    FP32 = "fp32"  # the pruned graph in float32, where the product is narrower
    FP16 = "fp16"  # the pruned graph in fp16, where the product is int8

    @property
    def filename(self) -> str:
        """Its file in a bundle."""
        return _FILES[self]

    def __str__(self) -> str:
        return str(self.value)


_FILES = {
    Kind.DENSE: "dense.onnx",
    Kind.PRUNED: "model.onnx",
    Kind.PROOF: "proof.onnx",
    Kind.FLOOR: "floor.onnx",
    Kind.FP32: "model.fp32.onnx",
    Kind.FP16: "model.fp16.onnx",
}
TRACED = (Kind.DENSE, Kind.PRUNED, Kind.FLOOR)  # made from PyTorch; without a token plan there is no floor
WIDER = (Kind.FP16, Kind.FP32)  # the pruned graph in wider precisions, timed beside it

PACKED = 65536  # a merge in `merged_<block>` is `PACKED * source id + target id`

MANIFEST = "manifest.json"
MODEL = Kind.PRUNED.filename
PROOF = Kind.PROOF.filename
ENGINE = "model.engine"
ENGINE_IDENTITY = f"{ENGINE}.json"  # what the engine is bound to, and what it computes in
GOLDEN = "golden.npz"
BUDGET = "budget.json"
WIDTHS = "widths.json"
RECIPE = "recipe.yaml"
README = "README.md"
PASSES = "passes.json"
PARITY = "parity.json"
BENCH = "bench.json"
FIDELITY = "fidelity.json"
PRECISION = "precision.json"
GATE = "gate.json"  # where the recipe requires something: what held
CHOICE = "choice.json"  # where the target or the precision was chosen by trying
FLOAT_NODES = "float_nodes.json"  # what any quantizer is to leave in float
LABELS = "labels.json"  # names of the classes in their order, where the model's files say them
STANDALONE = "run_on_device.py"
_NAMES = frozenset(
    {
        *(kind.filename for kind in Kind),
        *(MANIFEST, ENGINE, ENGINE_IDENTITY, GOLDEN, BUDGET, WIDTHS, RECIPE, README, PASSES, PARITY, BENCH, FIDELITY),
        *(PRECISION, GATE, CHOICE, FLOAT_NODES, LABELS, STANDALONE),
    }
)
# Of these, every further image size has its own; a bundle of several sizes holds the others once.
_BY_SIZE = frozenset(
    {
        *(kind.filename for kind in Kind),
        *(ENGINE, ENGINE_IDENTITY, GOLDEN, BUDGET, PASSES, PARITY, BENCH, FIDELITY, PRECISION, GATE, FLOAT_NODES),
    }
)
_SIZE = re.compile("[1-9][0-9]{0,4}x[1-9][0-9]{0,4}")
_OF_SIZE = re.compile(rf"([a-z_]+)\.({_SIZE.pattern})\.([a-z0-9.]+)")
_DECISION = re.compile("(kept|merged)_[0-9]{1,4}")
_COMMON_WEIGHTS = re.compile(r"weights-[0-9a-f]{16}\.data")
_WEIGHTS = re.compile(rf"{_COMMON_WEIGHTS.pattern}|(dense|model|floor|model\.fp(16|32))\.onnx\.data")


def is_decision(output: str) -> bool:
    """Whether an output says what a stage decided: `kept_<block>` or `merged_<block>`."""
    return _DECISION.fullmatch(output) is not None


def is_own_name(name: str) -> bool:
    """Whether this vitrim may give a file of a bundle such a name, below the bundle's folder."""
    found = _OF_SIZE.fullmatch(name)
    of_a_size = found is not None and f"{found[1]}.{found[3]}" in _BY_SIZE
    return name in _NAMES or of_a_size or _WEIGHTS.fullmatch(name) is not None


def is_common_weights(name: str) -> bool:
    """Whether a file holds weights that several graphs of a folder have in common."""
    return _COMMON_WEIGHTS.fullmatch(name) is not None


def size_name(size: str | int | Sequence[int]) -> str:
    """An image size as bundles write it, `HEIGHTxWIDTH`.

    Args:
        size: such a text, a side of a square (288 or "288"), or height and width.

    Raises:
        InputError: it is none of these.
    """
    given: Any = size
    text = given if isinstance(given, str) else "x".join(map(str, [given] if isinstance(given, int) else given))
    text = text if "x" in text else f"{text}x{text}"
    if _SIZE.fullmatch(text) is None:
        raise InputError(f"{excerpt(str(size), 40)!r} is no image size; write height and width, such as 192x256")
    return text


def of_size(name: str, size: str) -> str:
    """What a file of a further size is called: `model.fp16.onnx` of 192x256 is `model.192x256.fp16.onnx`."""
    first, _, rest = name.partition(".")
    return f"{first}.{size}.{rest}"


def is_sized(name: str) -> bool:
    """Whether a bundle of several sizes has such a file for each: a plain name of one, or a further size's."""
    found = _OF_SIZE.fullmatch(name)
    return (name if found is None else f"{found[1]}.{found[3]}") in _BY_SIZE


def by_size(name: str, size: str) -> str | None:
    """The other way: what a file of a further size is called in a bundle of one; None of another size's file."""
    found = _OF_SIZE.fullmatch(name)
    plain = None if found is None or found[2] != size else f"{found[1]}.{found[3]}"
    return plain if plain in _BY_SIZE else None


class Sized:
    """The files of one image size in a bundle: `/` gives the path of a file by its name in a bundle of one size.

    Args:
        root: the bundle's folder.
        size: a further one, see `size_name`; None: the bundle's own.
    """

    def __init__(self, root: Path, size: str | None = None) -> None:
        self.root, self.size = root, size

    def __truediv__(self, name: str) -> Path:
        return self.root / (name if self.size is None or name not in _BY_SIZE else of_size(name, self.size))

    def __fspath__(self) -> str:
        return os.fspath(self.root)

    def __str__(self) -> str:
        return str(self.root)
