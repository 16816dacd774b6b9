"""Tables of operators: what follows from what, and a sample of them held against the real things."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.defs
import pytest
from onnx import TensorProto, helper, numpy_helper

from vitrim.exporter.core.operators import (
    INTEGER_OPERATORS,
    LACKS_OPENVINO,
    LACKS_RTX,
    NOWHERE,
    REFUSES_OPENVINO,
    REFUSES_RTX,
)
from vitrim.exporter.core.targets import TARGETS, get_target
from vitrim.exporter.graph.lint.check import lint
from vitrim.exporter.graph.lint.static import split
from vitrim.exporter.runtime.ask import Asker

F, H, B, I32, I64, U8 = (
    getattr(TensorProto, name) for name in ("FLOAT", "FLOAT16", "BFLOAT16", "INT32", "INT64", "UINT8")
)


def test_every_name_is_an_operator_of_onnx() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain}
    newest = {"BitCast", "CausalConvWithState", "CumProd", "FlexAttention", "LinearAttention"}  # of a newer onnx
    for target in TARGETS.values():
        assert target.lacks - known <= newest
    for table, lacks in ((REFUSES_RTX, LACKS_RTX), (REFUSES_OPENVINO, LACKS_OPENVINO)):
        refused = {op for _, operators in table for op in operators}
        assert refused <= known
        assert refused.isdisjoint(lacks)


def test_no_tensorrt_has_what_none_has() -> None:
    assert INTEGER_OPERATORS < NOWHERE
    for target in TARGETS.values():
        assert (target.lacks >= NOWHERE) == (target.runtime == "tensorrt" or target.name == "ort-trt")


def one(
    op: str, kind: int, shapes: list[list[int]], out: list[int] | None = None, to: int = 0, **rest: object
) -> bytes:
    """A graph of one node: inputs of one type, and arrays as constants; the rest are attributes."""
    arrays = {name: array for name, array in rest.items() if isinstance(array, np.ndarray)}
    attributes = {name: value for name, value in rest.items() if name not in arrays}
    if op == "Cast":
        attributes["to"] = to
    names = [f"x{number}" for number in range(len(shapes))]
    values = [helper.make_tensor_value_info(name, kind, shape) for name, shape in zip(names, shapes, strict=True)]
    several = {"TopK": ["y", "i"]}.get(op, ["y"])
    node = helper.make_node(op, [*names, *arrays], several, name="node", **attributes)
    y = helper.make_tensor_value_info("y", to or kind, shapes[0] if out is None else out)
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph([node], "g", values, [y], weights)
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10).SerializeToString()
    )


HEADS = [1, 6, 197, 64]
GRAPHS = {  # of vitrim's own operators, and of others that are there, are not, or not for every type
    "Add": one("Add", F, [[2, 3], [2, 3]]),
    "Attention fp16": one("Attention", H, [HEADS] * 3),
    "Attention fp32": one("Attention", F, [HEADS] * 3),
    "BitwiseAnd": one("BitwiseAnd", I32, [[2], [2]]),
    "Cast of uint8": one("Cast", U8, [[2]], to=F),
    "Celu fp16": one("Celu", H, [[2, 3]]),
    "CumSum": one("CumSum", F, [[2, 3]], axis=np.array(1)),
    "Det": one("Det", F, [[3, 3]], []),
    "Equal": one("Equal", I64, [[2], [2]], to=TensorProto.BOOL),
    "Erf": one("Erf", H, [[2]]),
    "Gather": one("Gather", F, [[4, 3]], [2, 3], at=np.array([0, 2])),
    "Gelu": one("Gelu", B, [[2, 3]]),
    "HardSwish bf16": one("HardSwish", B, [[2, 3]]),
    "LayerNormalization": one("LayerNormalization", F, [[2, 3]], scale=np.ones(3, np.float32)),
    "MatMul": one("MatMul", H, [[2, 3], [3, 4]], [2, 4]),
    "Mul of uint8": one("Mul", U8, [[2], [2]]),
    "NonZero": one("NonZero", F, [[2, 3]], [2, 6], I64),
    "ReduceMax": one("ReduceMax", F, [[2, 3]], [2, 1], axes=np.array([1])),
    "Relu int32": one("Relu", I32, [[2]]),
    "ScatterND add": one("ScatterND", F, [[4]], at=np.array([[0]]), new=np.ones(1, np.float32), reduction="add"),
    "Softmax": one("Softmax", F, [[2, 3]], axis=-1),
    "TopK 3840": one("TopK", F, [[1, 5000]], [1, 3840], k=np.array([3840])),
    "TopK 3841": one("TopK", F, [[1, 5000]], [1, 3841], k=np.array([3841])),
    "TopK unsorted": one("TopK", F, [[1, 9]], [1, 2], k=np.array([2]), sorted=0),
    "float64": one("Exp", TensorProto.DOUBLE, [[2]]),
}


OWN_RULES = ["NonZero", "ScatterND add", "float64"]  # vitrim's, of every target, whatever that takes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "package", "built", "beyond"),
    [("trt-rtx", "tensorrt_rtx", 15, []), ("openvino", "openvino", 23, OWN_RULES)],
)
def test_the_table_says_what_the_real_thing_says(name: str, package: str, built: int, beyond: list[str]) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed here")
    target, table, real = get_target(name), {}, {}
    with Asker(target) as asker:
        for graph, data in GRAPHS.items():
            real[graph] = asker.ask(data).built
            findings = split(lint(onnx.load_from_string(data), target))[0]
            table[graph] = all(finding.severity != "error" for finding in findings)
    assert {graph for graph in GRAPHS if table[graph] != real[graph]} == set(beyond)
    assert sum(real.values()) == built
