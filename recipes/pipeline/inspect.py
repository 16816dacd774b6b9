"""A look into a graph: operators before and after the passes, what each pass did, and its lint for any target."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from ...exporter.core import layout
from ...exporter.core.errors import InputError, excerpt
from ...exporter.core.inputs import is_folder, read_json
from ...exporter.core.records import Record
from ...exporter.core.targets import TARGETS, get_target
from ...exporter.graph.files import read_bare
from ...exporter.graph.lint.check import lint, lint_all, operator_table
from ...exporter.graph.lint.facts import Finding, all_nodes, opset_of
from ...exporter.graph.weights import all_graphs
from ...exporter.runtime import bundle
from ...exporter.runtime.bench.report import Bench

_LARGEST_OPSET = 9999  # of any domain; ONNX's own is below 30


def read_graph(path: Path) -> onnx.ModelProto:
    """An ONNX model to look at: large weights in files of their own stay there.

    Raises:
        InputError: no such file, not ONNX, an opset that no ONNX has, or its weights are not where it says.
    """
    model, _ = read_bare(path)
    if not model.graph.node:
        raise InputError(f"{path} holds no graph; is it an ONNX file?")
    if not all(isinstance(text, str) for text in _texts(model)):  # what is not UTF-8 comes as bytes
        raise InputError(f"{path} is not a whole ONNX file")
    opsets = [*model.opset_import, *(entry for function in model.functions for entry in function.opset_import)]
    strange = next((entry.version for entry in opsets if not 1 <= entry.version <= _LARGEST_OPSET), None)
    if strange is not None:
        raise InputError(f"{path} declares the opset {strange}, which there is not; export it anew")
    return model


def _texts(model: onnx.ModelProto) -> Iterator[str]:
    """Every name that a look into the graph may meet."""
    yield from (model.graph.name, *(entry.domain for entry in model.opset_import))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        yield from (value.name, *(dim.dim_param for dim in value.type.tensor_type.shape.dim))
    yield from (tensor.name for graph in all_graphs(model.graph) for tensor in graph.initializer)
    for node in (*all_nodes(model.graph), *(node for function in model.functions for node in function.node)):
        yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
        yield from (each.name for each in node.attribute)


def lint_file(path: str | os.PathLike[str], targets: Iterable[str] = ()) -> dict[str, Any]:
    """See `vitrim.api.lint`."""
    root, names = Path(path), list(targets)
    wanted = list(TARGETS.values()) if not names or "all" in names else [get_target(name) for name in names]
    if is_folder(root):
        bundle.verify(root)
        root = root / layout.MODEL
    model = read_graph(root)
    found = lint_all(model, wanted, foreign=True)
    return {
        "path": str(path),
        "opset": opset_of(model),
        "operators": operator_table(model),
        "targets": {target.name: _verdict(found[target.name]) for target in wanted},
    }


def _verdict(findings: list[Finding]) -> dict[str, Any]:
    errors = sum(finding.severity == "error" for finding in findings)
    return {
        "errors": errors,
        "warnings": len(findings) - errors,
        "findings": [finding.to_dict() for finding in findings],
    }


@dataclass(frozen=True)
class _PassLine(Record):
    """What one pass did, as `PassReport.to_dict` writes it."""

    name: str
    count: int
    nodes: tuple[int, int]
    max_abs: float | None
    near_ties: int
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class _Passes(Record):
    """What the passes made of one graph, an entry of `passes.json`."""

    passes: tuple[_PassLine, ...]
    operators_before: dict[str, int]
    operators_after: dict[str, int]


def _before(root: Path) -> dict[str, Any]:
    """What a bundle's graph was before the passes, and what they did."""
    forms = Bench.read(root / layout.BENCH, "benchmark").attention or {}
    form, place = forms.get("pruned"), root / layout.PASSES
    key = f"pruned.{form.get('form')}" if isinstance(form, dict) else "pruned"
    reports = read_json(place, "report of the passes", "vitrim export")
    if not isinstance(reports, dict) or key not in reports:
        raise InputError(f"{place} has no {excerpt(key)}, which {layout.BENCH} names; export the bundle anew")
    found = _Passes.from_json(reports[key], f"{place}: {excerpt(key)}").to_json()
    return {"before": found["operators_before"], "passes": found["passes"]}


def inspect(path: str | os.PathLike[str], target: str | None = None) -> dict[str, Any]:
    """See `vitrim.api.inspect`."""
    root = Path(path)
    result: dict[str, Any] = {}
    if is_folder(root):
        manifest = bundle.verify(root)
        model = read_graph(root / layout.MODEL)
        name = target or manifest.resolved_target.name
        result = _before(root)
    else:
        model, name = read_graph(root), target or "ort-cpu"
    findings = [finding.to_dict() for finding in lint(model, get_target(name), foreign=True)]
    return result | {"operators": operator_table(model), "opset": opset_of(model), "target": name, "findings": findings}
