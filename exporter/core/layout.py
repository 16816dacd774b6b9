"""What lies in a bundle, and under which name: the graphs by kind, and every other file."""

from __future__ import annotations

import re
from enum import Enum


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
_DECISION = re.compile("(kept|merged)_[0-9]{1,4}")
_WEIGHTS = re.compile(r"weights-[0-9a-f]{16}\.data|(dense|model|floor|model\.fp(16|32))\.onnx\.data")


def is_decision(output: str) -> bool:
    """Whether an output says what a stage decided: `kept_<block>` or `merged_<block>`."""
    return _DECISION.fullmatch(output) is not None


def is_own_name(name: str) -> bool:
    """Whether this vitrim may give a file of a bundle such a name, below the bundle's folder."""
    return name in _NAMES or _WEIGHTS.fullmatch(name) is not None
