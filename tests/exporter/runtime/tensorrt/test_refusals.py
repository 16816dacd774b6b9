"""What parsers and builders say, made readable, and the node that it is about."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vitrim.exporter.runtime.tensorrt.refusals import Refusal, of_builder, of_parser, plain

NO_DRIVER = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
    "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient for CUDA runtime "
    "version))"
)


@pytest.mark.parametrize(
    ("said", "reads"),
    [
        ("false", "it has no such operator"),
        ('softcap == 0.0 && "Setting softcap is not supported."', "Setting softcap is not supported."),
        ('(mode == "a" && "It only takes a and " "b.")', "It only takes a and b."),
        (
            "ITensor::getDimensions: Error Code 4: Shape Error (one changes (all) of it.)  ITensor::getDimensions: "
            "Error Code 4: API Usage Error (Output shape can not be computed for node n.)",
            "one changes (all) of it.",
        ),
        (
            "Assertion failed: creator && getVersion(creator) == Version::kV3ONE: NonZero plugin was not found.",
            "NonZero plugin was not found.",
        ),
        (
            f"Invalid Node - m1 ITensor::getDimensions: Error Code 4: API Usage Error (m1: PROD takes no UInt8. In "
            f"validateTypes at /_src/optimizer/common/nodes/elementWiseNode.cpp:72) {NO_DRIVER}",
            "m1: PROD takes no UInt8.",
        ),
        (
            "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([myelin_graph.h:1295: attach] Exception: "
            "decompose.cpp:59: CHECK(op->is_decomposable()) failed. Attention has no kernel. (See https://a.b/c for "
            "shapes.) Alternatively, mark it)",
            "Attention has no kernel.",
        ),
        ("nothing of all that", "nothing of all that"),
    ],
)
def test_a_complaint_is_read_without_what_only_its_authors_need(said: str, reads: str) -> None:
    assert plain(said) == reads


def error(node: str, op: str, desc: str, func: str = "parseNode", file: str = "a.cpp", inside: Any = ()) -> Any:
    values = {"node_name": node, "node_operator": op, "desc": desc, "func": func, "file": file}
    values |= {"code": "ErrorCode.UNSUPPORTED_NODE", "local_function_stack": list(inside)}
    values |= {"local_function_stack_size": len(inside)}
    return SimpleNamespace(**{name: lambda value=value: value for name, value in values.items()})


def test_every_complaint_of_a_parser_is_one_refusal() -> None:
    errors = [
        error("det", "Det", "false"),
        error("", "", "no int16", "importInput", "x"),
        error("f", "F", "a", "g", "b", "h"),
    ]
    assert of_parser([*errors, errors[0]]) == [
        Refusal("parser", "det", "Det", "it has no such operator", "UNSUPPORTED_NODE", "false"),
        Refusal("parser", "x", "value", "no int16", "UNSUPPORTED_NODE", "no int16"),
        Refusal("parser", "f", "F", "a", "UNSUPPORTED_NODE", "a", ("h",)),
    ]
    assert of_parser([error("", "", "no")])[0].node == "graph"


@pytest.mark.parametrize(
    ("line", "node"),
    [
        ("b: Error Code 4: API Usage Error (ITopKLayer top: top: K exceeds 3840. In check at /_src/a.cpp:1)", "/top"),
        ("b: Error Code 2: Internal Error (failed. node_of_y_2 has no runners that implement it)", "nms"),
        ("b: Error Code 4: API Usage Error (Tensor out has datatype FP8)", "cast"),
        ("b: Error Code 4: API Usage Error (Output shape can not be computed for node a.)", "a"),
        ("b: Error Code 1: Myelin (a graph of out and top is no good)", "graph"),
    ],
)
def test_a_builder_s_complaint_is_laid_at_the_node_that_it_names(line: str, node: str) -> None:
    names = {"top": "/top", "node_of_y": "nms", "out": "cast", "a": "a"}
    (found,) = of_builder(["something before", line, NO_DRIVER], names)
    assert (found.by, found.node, found.said) == ("builder", node, line)
    assert found.code == line.partition("Error Code ")[2][0]


def test_what_is_said_does_not_begin_with_the_node_once_more() -> None:
    (found,) = of_parser(
        [error("m1", "Mul", "Invalid Node - m1 f: Error Code 4: API Usage Error (m1: takes no UInt8.)")]
    )
    assert (found.node, found.what) == ("m1", "takes no UInt8.")


def test_a_builder_without_a_word_gives_no_reason() -> None:
    assert of_builder([NO_DRIVER], {}) == [
        Refusal("builder", "graph", "", "it gives no reason", "", "it gives no reason")
    ]
