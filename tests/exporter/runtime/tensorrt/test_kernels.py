"""The builder's log as the engine inspector's JSON: lines of TensorRT for RTX 1.7, and what is read from them."""

from __future__ import annotations

import json

from vitrim.exporter.runtime.tensorrt.inspector import read_layers
from vitrim.exporter.runtime.tensorrt.kernels import inspector_json, is_kernel

ATTENTION = (
    "Name: _gemm_mha_v2_myl0_11, LayerType: kgen, Inputs: [ { Name: q_myl0, Dimensions: [3,17,16], Strides: "
    "[16,48,1], StrideOrder: [1,2,0], Datatype: Half, Format: (Arbitrary) Format with stride order = [1,2,0] }, {"
    " Name: k_myl0, Dimensions: [3,16,17], Strides: [16,1,48], StrideOrder: [1,0,2], Datatype: Half, Format: "
    "(Arbitrary) Format with stride order = [1,0,2] }], Constants: [], Outputs: [ { Name: o_myl0, Dimensions: "
    "[3,17,16], Strides: [16,48,1], StrideOrder: [1,2,0], Datatype: Int8, Format: (Arbitrary) Format with stride "
    "order = [1,2,0] }], TacticName: _gemm_mha_v2_0x42ed719bd49f97e7d7c779be16b1be26, StreamId: 0, Metadata: "
    "[ONNX Layer: node_MatMul_83][ONNX Layer: node_Softmax_84]"
)
PATCHES = (
    "Name: node_conv2d_myl0_1, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [1,4,64,64], Strides: "
    "[16384,1,256,4], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], Constants: "
    "[ { Name: w, Dimensions: [48,4,16,16], Strides: [1024,1,64,4], StrideOrder: [3,0,2,1], Datatype: Half, "
    "Format: (NHWC) Channel major format }, { Name: b, Dimensions: [1], Strides: [1], StrideOrder: [0], Datatype:"
    " Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: y, Dimensions: [1,48,4,4], Strides: "
    "[768,1,192,48], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], TacticName: "
    "__myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: node_conv2d]"
)
FIRST = (  # takes constants alone, and has neither a tactic nor nodes
    "Name: __myl_Conc_myl0_3, LayerType: kgen, Inputs: [], Constants: [ { Name: c, Dimensions: [], Strides: [], "
    "StrideOrder: [], Datatype: Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: z, "
    "Dimensions: [1], Strides: [1], StrideOrder: [0], Datatype: Int64, Format: (Linear) Row major linear format "
    "}], StreamId: 0"
)


def test_a_line_is_a_layer_with_its_tensors_kernel_and_nodes() -> None:
    attention, patches = read_layers(inspector_json([ATTENTION, PATCHES]))
    assert (attention.name, attention.kind) == ("_gemm_mha_v2_myl0_11", "kgen")
    assert attention.tactic == "_gemm_mha_v2_0x42ed719bd49f97e7d7c779be16b1be26"
    assert attention.nodes == ("node_MatMul_83", "node_Softmax_84")
    assert [(tensor.name, tensor.shape, tensor.precision) for tensor in attention.inputs] == [
        ("q_myl0", (3, 17, 16), "fp16"),
        ("k_myl0", (3, 16, 17), "fp16"),
    ]
    assert [(tensor.shape, tensor.precision) for tensor in attention.outputs] == [((3, 17, 16), "int8")]
    assert attention.fused_attention
    assert (patches.kind, patches.nodes) == ("correlation", ("node_conv2d",))
    assert [tensor.name for tensor in patches.inputs] == ["x"]  # constants are none
    assert [tensor.shape for tensor in patches.outputs] == [(1, 48, 4, 4)]


def test_what_a_line_does_not_say_is_empty() -> None:
    (layer,) = json.loads(inspector_json([FIRST]))["Layers"]
    assert layer["Inputs"] == []
    assert layer["Outputs"][0]["Dimensions"] == [1]
    assert (layer["TacticName"], layer["Metadata"]) == ("", "")


def test_what_orders_two_streams_is_no_kernel() -> None:
    """The builder lists it with them where it runs a part of an engine beside another."""
    order = [FIRST.replace("LayerType: kgen", f"LayerType: {kind}") for kind in ("signal", "wait")]
    assert [is_kernel(line) for line in (ATTENTION, *order, PATCHES)] == [True, False, False, True]
    assert len(json.loads(inspector_json([ATTENTION, *order, PATCHES]))["Layers"]) == 2


def test_other_lines_are_no_layers() -> None:
    lines = ["[MemUsageChange] Init builder kernel library", "Name: nothing more", ATTENTION, ""]
    assert [layer["Name"] for layer in json.loads(inspector_json(lines))["Layers"]] == ["_gemm_mha_v2_myl0_11"]
    assert json.loads(inspector_json([])) == {"Layers": []}
