"""A look into a graph: operators before and after the passes, what each pass did, and its lint."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from ..exporter.errors import InputError
from ..exporter.lint import lint, operator_table
from ..exporter.runtime import bundle
from ..exporter.targets import get_target


def read_onnx(path: Path) -> onnx.ModelProto:
    """An ONNX model.

    Raises:
        InputError: no such file, or not ONNX.
    """
    try:
        model = onnx.load(path)
    except (DecodeError, ValueError) as error:
        raise InputError(f"{path} is not a whole ONNX file") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    if not model.graph.node:
        raise InputError(f"{path} holds no graph; is it an ONNX file?")
    return model


def inspect(path: str | os.PathLike[str], target: str | None = None) -> dict[str, Any]:
    """See `vitrim.api.inspect`."""
    root = Path(path)
    result: dict[str, Any] = {}
    if root.is_dir():
        manifest = bundle.verify(root)
        model = read_onnx(root / "model.onnx")
        name = target or manifest.get("target", "ort-cpu")
        form = json.loads((root / "bench.json").read_text())["attention"]["pruned"]["form"]
        reports = json.loads((root / "passes.json").read_text())[f"pruned.{form}"]
        result = {"before": reports["operators_before"], "passes": reports["passes"]}
    else:
        model, name = read_onnx(root), target or "ort-cpu"
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), None)
    findings = [finding.to_dict() for finding in lint(model, get_target(name))]
    return result | {"operators": operator_table(model), "opset": opset, "target": name, "findings": findings}
