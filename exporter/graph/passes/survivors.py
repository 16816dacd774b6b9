"""Nothing may be left that the target cannot take: an operator that it lacks, or a scatter.

It comes before the opset is lowered, which would refuse such a node without the reason why a pass had to leave it.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from ...core.errors import UnsupportedError
from .base import Context, Pass, PassReport


@dataclass(frozen=True)
class Survivors(Pass):
    """Refuses; it changes nothing."""

    name: str

    def run(self, model: onnx.ModelProto, context: Context) -> tuple[onnx.ModelProto, PassReport]:
        """See `Pass`."""
        target = context.target
        for node in model.graph.node:
            name = node.name or node.output[0]
            why = context.reasons.get(name, "no pass knows this form")
            if node.op_type.startswith("Scatter"):
                raise UnsupportedError(
                    f"node {name} ({node.op_type}) cannot be written without a scatter: {why}; "
                    "a scatter is wrong or missing on most TensorRT versions"
                )
            if node.op_type in target.lacks:
                raise UnsupportedError(f"node {name}: {target.name} has no {node.op_type}, and it must stay: {why}")
        return model, PassReport(self.name)


NO_SURVIVORS = Survivors("no scatter, and nothing that the target lacks")
