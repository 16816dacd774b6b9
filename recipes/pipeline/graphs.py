"""Which graphs there are: attention forms to choose from, and what a run has chosen, in the precision asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...exporter.core import layout
from ...exporter.core.errors import UnsupportedError
from ...exporter.core.targets import Target
from ...exporter.graph.precision.report import PrecisionReport

if TYPE_CHECKING:
    from .view import View

PROOF = "proof.onnx"  # the pruned graph as onnxruntime's CPU provider can hold it, rounding like the real one


@dataclass(frozen=True)
class Graphs:
    """The finished graphs.

    Attributes:
        float32: by kind, in the chosen attention form.
        final: by kind, in the precision that was kept; with `fp32`, and perhaps `fp16`, the pruned one in wider ones.
        proof: what stands for the pruned one where it is run by onnxruntime to be proven.
        precision: what was decided; None where float32 was asked for.
    """

    float32: dict[str, Path]
    final: dict[str, Path]
    proof: Path
    precision: PrecisionReport | None


def float32_graphs(view: View) -> dict[str, Path]:
    """By kind, the graph in the attention form that was chosen."""
    forms = json.loads((view.folder("forms") / "forms.json").read_text())
    return {kind: view.folder("passes") / f"{kind}.{found['form']}.onnx" for kind, found in forms.items()}


def final_graphs(view: View) -> Graphs:
    """The finished graphs of a run."""
    float32, folder = float32_graphs(view), view.folder_if_any("precision")
    if folder is None:
        return Graphs(float32, float32, float32["pruned"], None)
    written = {path.stem: path for path in folder.glob("*.onnx") if path.name != PROOF}
    final = float32 | written | ({"fp32": float32["pruned"]} if written else {})
    proof = folder / PROOF if (folder / PROOF).exists() else final["pruned"]
    return Graphs(float32, final, proof, PrecisionReport.read(folder / layout.PRECISION, "precision report"))


def forms_for(target: Target, attention: str) -> tuple[str, ...]:
    """Attention forms to make: onnxruntime may run a fused one, TensorRT fuses by itself."""
    if target.runtime != "onnxruntime" or "Attention" in target.lacks:
        if attention == "fused":
            raise UnsupportedError(f"export.attention is fused, but {target.name} has no Attention operator; use auto")
        return ("decomposed",)
    return {"auto": ("decomposed", "fused"), "decomposed": ("decomposed",), "fused": ("fused",)}[attention]
