"""Between ONNX models and graphs of onnx-graphsurgeon."""

from __future__ import annotations

import onnx
import onnx_graphsurgeon as gs

from .passes import lower_opset
from .passes.fused_attention import FUSED_OPSET


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy, so that the caller's model stays as it is."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def export_graph(graph: gs.Graph, like: onnx.ModelProto) -> onnx.ModelProto:
    """Back to ONNX, with the metadata, opset and IR version of the model it came from."""
    model = gs.export_onnx(graph, do_type_check=False)
    model.ir_version = like.ir_version
    del model.opset_import[:]
    model.opset_import.extend(like.opset_import)
    del model.metadata_props[:]
    model.metadata_props.extend(like.metadata_props)
    if any(node.op_type == "Attention" for node in model.graph.node):
        lower_opset.raise_to(model, FUSED_OPSET)
    return model
