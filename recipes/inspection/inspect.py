"""A look into a graph: operators before and after the passes, what each pass did, and its lint for any target."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from ...exporter.core import layout
from ...exporter.core.errors import InputError, excerpt
from ...exporter.core.inputs import is_folder, read_json
from ...exporter.core.layout import Kind
from ...exporter.core.records import Record
from ...exporter.core.targets import TARGETS, get_target
from ...exporter.graph.files import read_bare
from ...exporter.graph.lint.check import lint, lint_all, operator_table
from ...exporter.graph.lint.facts import Finding, all_nodes, opset_of
from ...exporter.graph.lint.static import one_finding, split
from ...exporter.graph.weights import all_graphs
from ...exporter.runtime.ask import askable
from ...exporter.runtime.bench.report import Bench
from ...exporter.runtime.bundles.manifest import open_size
from ...exporter.runtime.bundles.verify import verify_bundle
from .ask import ask_builder

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


def lint_file(path: str | os.PathLike[str], targets: Iterable[str] = (), ask: str | None = None) -> dict[str, Any]:
    """See `vitrim.api.lint`."""
    root, names, asked = Path(path), list(targets), None if ask is None else get_target(ask)
    if asked is not None:
        askable(asked)
        names.append(asked.name)
    wanted = list(TARGETS.values()) if not names or "all" in names else [get_target(name) for name in names]
    if is_folder(root):
        verify_bundle(root)
        root = root / layout.MODEL
    model, own = read_graph(root), is_folder(path)
    found = lint_all(model, wanted, foreign=True)
    static = one_finding(model, (one for findings in found.values() for one in split(findings)[1]))
    result = {
        "path": str(path),
        "opset": opset_of(model),
        "operators": operator_table(model),
        "static": None if static is None else static.to_dict(),
        "targets": {name: _verdict(findings if own else split(findings)[0]) for name, findings in found.items()},
    }
    if asked is not None:
        result["asked"] = ask_builder(model, root, asked, split(found[asked.name])[0]).to_json()
    return result


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


def _before(root: layout.Sized, timed: bool) -> dict[str, Any]:
    """What a bundle's pruned graph was before the passes, and what they did, in the attention form that it has."""
    place = root / layout.PASSES
    reports = read_json(place, "report of the passes", "vitrim export")
    keys = [key for key in reports if key.startswith(f"{Kind.PRUNED}.")] if isinstance(reports, dict) else []
    if len(keys) != 1 and timed:  # only what is timed has a choice of forms
        form = (Bench.read(root / layout.BENCH, "benchmark").attention or {}).get(Kind.PRUNED)
        keys = [f"{Kind.PRUNED}.{form.get('form')}"] if isinstance(form, dict) else []
    if not isinstance(reports, dict) or len(keys) != 1 or keys[0] not in reports:
        named = excerpt(keys[0]) if keys else f"{Kind.PRUNED}.*"
        raise InputError(f"{place} has no {named}, which the graph is in; export the bundle anew")
    found = _Passes.from_json(reports[keys[0]], f"{place}: {excerpt(keys[0])}").to_json()
    return {"before": found["operators_before"], "passes": found["passes"]}


def inspect(
    path: str | os.PathLike[str],
    target: str | None = None,
    kernels: bool = False,
    size: str | int | Sequence[int] | None = None,
) -> dict[str, Any]:
    """See `vitrim.api.inspect`."""
    root = Path(path)
    result: dict[str, Any] = {}
    if kernels and not is_folder(root):
        raise InputError(f"{root} is no bundle, whose engine's kernels could be listed")
    if size is not None and not is_folder(root):
        raise InputError(f"{root} is no bundle, whose sizes could be chosen from; leave size out")
    if is_folder(root):
        files, manifest = open_size(root, verify_bundle(root), size)
        model = read_graph(files / layout.MODEL)
        name = target or manifest.resolved_target.name
        result = _before(files, timed=layout.BENCH in manifest.files)
    else:
        model, name = read_graph(root), target or "ort-cpu"
    found = lint(model, get_target(name), foreign=True)
    refused, wishes = split(found)
    static = one_finding(model, wishes)
    if kernels:
        from .kernels import bundle_kernels

        result["kernels"] = bundle_kernels(files, manifest).to_json()
    return result | {
        "operators": operator_table(model),
        "opset": opset_of(model),
        "target": name,
        "static": None if static is None else static.to_dict(),
        "findings": [one.to_dict() for one in (found if is_folder(root) else refused)],
    }
