"""Findings, operators and what a builder said, a line for each kind."""

from __future__ import annotations

from typing import Any

from printed import printed, rows_of

from vitrim.terminal.screens.graph import print_asked, print_inspection, print_lint


def test_findings_of_a_kind_are_one_line() -> None:
    def finding(node: str, op: str = "Gelu", what: str = "not known") -> dict[str, Any]:
        return {"severity": "error", "what": what, "remedy": "lower it", "op": op, "node": node}

    found = [finding(f"n{index}") for index in range(5)] + [finding("m", "Mod", "slow")]
    verdict = {"errors": 6, "warnings": 0, "findings": found}
    one = {"path": "m.onnx", "opset": 17, "operators": {"Gelu": 5, "Mod": 1}, "targets": {"trt-11": verdict}}
    assert printed(print_lint, one).splitlines() == [
        "m.onnx: opset 17, 6 nodes, for trt-11",
        "error: Gelu x5 n0, n1, n2 and 2 more: not known; lower it",
        "error: Mod m: slow; lower it",
    ]
    clean = {"errors": 0, "warnings": 0, "findings": []}
    page = printed(print_lint, one | {"targets": {"trt-11": verdict, "ort-cpu": clean}})
    assert ["trt-11", "refused", "6", "0", "5 x Gelu: not known; Mod: slow"] in rows_of(page)
    assert ["ort-cpu", "taken", "0", "0", ""] in rows_of(page)


def test_operators_are_counted_before_and_after() -> None:
    passes = [
        {"name": "static_topk", "count": 2, "max_abs": 1.5e-7, "skipped": ["/topk: why"]},
        {"name": "idle", "count": 0, "max_abs": None, "skipped": []},
    ]
    result = {"opset": 17, "before": {"Add": 2, "Erf": 1}, "operators": {"Add": 3}, "passes": passes}
    page = printed(print_inspection, result | {"findings": [], "target": "trt-8.5"})
    assert rows_of(page) == [["Add", "2", "3"], ["Erf", "1", "0"], ["all", "3", "3"]]
    assert page.splitlines()[-3:] == [
        "pass: static_topk: 2 rewritten, outputs moved by 1.5e-07",
        "pass: static_topk: left /topk: why",
        "lint for trt-8.5: clean",
    ]


def test_what_a_builder_was_asked_is_a_line_for_each_thing_that_it_said() -> None:
    answer = {"by": "TensorRT for RTX 1.7", "ended": "its process died of it (signal 11)", "assumed": {"x": (1, 3)}}
    refused = [{"by": "builder", "node": node, "op": "Attention", "what": "no kernel."} for node in ("a", "b")]
    difference = {"node": "c", "op": "If", "table": "not straight-line", "builder": "takes it"}
    asked = {"verdict": "ended", "answer": answer, "refused": refused, "complete": False, "differences": [difference]}
    assert printed(print_asked, asked).splitlines() == [
        "TensorRT for RTX 1.7: its process died of it (signal 11); its parts were asked about one by one",
        "TensorRT for RTX 1.7, builder: Attention x2 a, b: no kernel.",
        "not asked: what lies behind that",
        "assumed: x [1, 3], which is open; fix it to ask about another",
        "differs: If c: the table says: not straight-line; the real thing says: takes it",
    ]
    alone = asked | {"refused": [{"by": "process", "node": "graph", "op": "", "what": "it died"}], "differences": []}
    assert printed(print_asked, alone).splitlines()[0] == "TensorRT for RTX 1.7, process: graph: it died"
