"""A look into a graph: operators before and after the passes, what each pass did, and its lint for any target."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.external_data_helper
from google.protobuf.message import DecodeError
from onnx import TensorProto

from ...exporter.core import layout
from ...exporter.core.errors import InputError
from ...exporter.core.targets import TARGETS, get_target
from ...exporter.graph.lint.check import lint, lint_all, operator_table
from ...exporter.graph.lint.facts import Finding, all_graphs, all_nodes, opset_of
from ...exporter.runtime import bundle
from ...exporter.runtime.bench.report import Bench

_INTEGERS = {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64}
_READ_FLOATS, _READ_INTEGERS = 2**16, 2**22  # elements: scales, then shapes, axes and zero points


def read_graph(path: Path) -> onnx.ModelProto:
    """An ONNX model to look at: of weights in files of their own, only small and integer ones are read.

    Raises:
        InputError: no such file, not ONNX, or its weights are not where it says.
    """
    try:
        model = onnx.load(path, load_external_data=False)
        empty = not model.graph.node
        if not all(isinstance(text, str) for text in _texts(model)):  # what is not UTF-8 comes as bytes
            raise ValueError("a name is not text")
        for tensor in () if empty else _tensors(model):
            if tensor.data_location == TensorProto.EXTERNAL:
                _read_external(tensor, path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except (DecodeError, ValueError) as error:
        raise InputError(f"{path} is not a whole ONNX file") from error
    if empty:
        raise InputError(f"{path} holds no graph; is it an ONNX file?")
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


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    for graph in all_graphs(model.graph):
        yield from graph.initializer
        yield from (each.t for node in graph.node if node.op_type == "Constant" for each in node.attribute)


def _read_external(tensor: TensorProto, path: Path) -> None:
    """Take a small tensor in, and see that a large one is there."""
    info = onnx.external_data_helper.ExternalDataInfo(tensor)
    folder, count = path.parent.resolve(), int(np.prod(tensor.dims, dtype=np.int64))
    file = (folder / info.location).resolve()
    if not file.is_relative_to(folder):
        raise InputError(f"{path} wants its weights from {info.location}, outside its own folder; save it anew")
    size = file.stat().st_size if file.is_file() else -1
    if size < (info.offset or 0) + (info.length or 1):
        fault = "is missing" if size < 0 else "is too short"
        raise InputError(f"{path} keeps its weights in {info.location}, which {fault}; put the whole file beside it")
    if count <= (_READ_INTEGERS if tensor.data_type in _INTEGERS else _READ_FLOATS):
        onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def lint_file(path: str | os.PathLike[str], targets: Iterable[str] = ()) -> dict[str, Any]:
    """See `vitrim.api.lint`."""
    root, names = Path(path), list(targets)
    wanted = list(TARGETS.values()) if not names or "all" in names else [get_target(name) for name in names]
    if root.is_dir():
        bundle.verify(root)
        root = root / layout.MODEL
    model = read_graph(root)
    found = lint_all(model, wanted)
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


def inspect(path: str | os.PathLike[str], target: str | None = None) -> dict[str, Any]:
    """See `vitrim.api.inspect`."""
    root = Path(path)
    result: dict[str, Any] = {}
    if root.is_dir():
        manifest = bundle.verify(root)
        model = read_graph(root / layout.MODEL)
        name = target or manifest.resolved_target.name
        form = (Bench.read(root / layout.BENCH, "benchmark").attention or {})["pruned"]["form"]
        reports = json.loads((root / layout.PASSES).read_text())[f"pruned.{form}"]
        result = {"before": reports["operators_before"], "passes": reports["passes"]}
    else:
        model, name = read_graph(root), target or "ort-cpu"
    findings = [finding.to_dict() for finding in lint(model, get_target(name))]
    return result | {"operators": operator_table(model), "opset": opset_of(model), "target": name, "findings": findings}
