"""Which graphs there are: attention forms to choose from, and what a run has chosen, in the precision asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...exporter.core import layout
from ...exporter.core.errors import UnsupportedError
from ...exporter.core.layout import Kind
from ...exporter.core.targets import Target
from ...exporter.graph.precision.report import PrecisionReport

if TYPE_CHECKING:
    from .view import View

EMULATED = ".emulated.onnx"  # ends the name of a graph that rounds like the real one and that a CPU can hold


@dataclass(frozen=True)
class Graphs:
    """The finished graphs, by kind. The `proof` tells what its stages decided; it may be the `pruned` one itself.

    Attributes:
        float32: in the chosen attention form.
        final: in the precision that was kept; with `fp32`, and perhaps `fp16`, the pruned one in wider ones.
        held: of `final` the pruned one and its proof, or what stands for them where onnxruntime's CPU provider runs
            them to prove them.
        precision: what was decided; None where float32 was asked for.
    """

    float32: dict[str, Path]
    final: dict[str, Path]
    held: dict[str, Path]
    precision: PrecisionReport | None


def float32_graphs(view: View) -> dict[str, Path]:
    """By kind, the graph in the attention form that was chosen, `proof` included."""
    forms = json.loads((view.folder("forms") / "forms.json").read_text())
    chosen = {kind: found["form"] for kind, found in forms.items()}
    found = {kind: view.folder("passes") / f"{kind}.{form}.onnx" for kind, form in chosen.items()}
    proof = view.folder("passes") / f"{Kind.PROOF}.{chosen['pruned']}.onnx"
    return found | {"proof": proof if proof.exists() else found["pruned"]}


def final_graphs(view: View) -> Graphs:
    """The finished graphs of a run."""
    float32, folder = float32_graphs(view), view.folder_if_any("precision")
    if folder is None:
        return Graphs(float32, float32, float32, None)
    written = {path.stem: path for path in folder.glob("*.onnx") if not path.name.endswith(EMULATED)}
    final = float32 | ({"fp32": float32["pruned"], "proof": written["pruned"]} if written else {}) | written
    emulated = {kind: folder / f"{final[kind].stem}{EMULATED}" for kind in ("pruned", "proof")}
    held = {kind: path if path.exists() else final[kind] for kind, path in emulated.items()}
    return Graphs(float32, final, held, PrecisionReport.read(folder / layout.PRECISION, "precision report"))


def forms_for(target: Target, attention: str) -> tuple[str, ...]:
    """Attention forms to make: onnxruntime may run a fused one, TensorRT fuses by itself."""
    if target.runtime != "onnxruntime" or "Attention" in target.lacks:
        if attention == "fused":
            raise UnsupportedError(f"export.attention is fused, but {target.name} gets no Attention operator; use auto")
        return ("decomposed",)
    return {"auto": ("decomposed", "fused"), "decomposed": ("decomposed",), "fused": ("fused",)}[attention]
