"""An opset in which a convolution may be bfloat16: 22 instead of the one that graphs are traced in.

::

    pixels --Conv-- patches   (20)   =>   pixels --Conv-- patches   (22)

1. the graph embeds by a convolution and will be written in bfloat16. An operator that may not have the type in the
   graph's opset stays in float32, and this one is 4 to 7 % of a pruned graph's time on a CPU.

On TensorRT it stays as it is: there a cast of the pixels is a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from ..surgery import copy_of
from .base import Context, Pass, PassReport
from .lower_opset import declared

SINCE = 22


@dataclass(frozen=True)
class Bf16Convolution(Pass):
    """Case 1; no node changes."""

    name: str

    def run(self, model: onnx.ModelProto, context: Context) -> tuple[onnx.ModelProto, PassReport]:
        """See `Pass`."""
        wanted = context.target.runtime == "openvino" and context.precision == "bf16" and context.target.opset >= SINCE
        convolves = any(node.op_type == "Conv" for node in model.graph.node)
        if not wanted or not convolves or declared(model).version >= SINCE:
            return model, PassReport(self.name)
        raised = copy_of(model)
        declared(raised).version = SINCE
        return raised, PassReport(self.name, 1)


BF16_CONVOLUTION = Bf16Convolution("opset of bfloat16 convolutions")
