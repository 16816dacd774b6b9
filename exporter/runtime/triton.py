"""A bundle as a model of NVIDIA's Triton Inference Server: its folder of a model repository. Torch-free."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from ..core import layout
from ..core.errors import InputError, UnsupportedError, excerpt
from ..core.files import explain_os_error
from . import publish
from .bundles.golden import load_labels
from .bundles.manifest import Manifest
from .bundles.place import refuse_in_bundle
from .bundles.verify import verify_bundle
from .choose import unable
from .runners import OrtRunner

CONFIG = "config.pbtxt"
_WRITTEN = "# Written by vitrim"  # begins every configuration of ours
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_TYPES = {
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
}
_LABELS = "labels.txt"


def write_model(folder: str | os.PathLike[str], repository: str | os.PathLike[str], name: str | None = None) -> Path:
    """Write a bundle's graph, or its engine where it has one, as a model that Triton loads.

    The batch is a part of the graph's shapes, so `max_batch_size` is 0 and a request holds a whole batch.

    Args:
        folder: the bundle.
        repository: the folder that `tritonserver --model-repository` names; other models in it stay.
        name: of the model; the bundle's own by default. A model of that name that vitrim wrote is replaced.

    Returns:
        the model's folder: `config.pbtxt`, `labels.txt` where the bundle has names of its classes, and `1/`.

    Raises:
        InputError: the bundle is damaged, the name does not fit, or a folder of that name is not vitrim's.
        UnsupportedError: Triton has nothing that runs the bundle.
        EnvironmentLackError: onnxruntime is missing, or the place cannot be written.
    """
    source = Path(os.path.abspath(folder))
    manifest = verify_bundle(source, (layout.MODEL,))
    final = Path(os.path.abspath(repository)) / _checked(name or source.name)
    refuse_in_bundle(final)
    _refuse_other(final)
    by_engine = _takes_engine(source, manifest)
    labels = load_labels(source, manifest)
    text = _config(source, manifest, final.name, by_engine, labels is not None)
    publish.sweep(final)
    staging = publish.staging_folder(final)
    try:
        _fill(source, manifest, staging / "1", by_engine)
        (staging / CONFIG).write_text(text, encoding="utf-8")
        if labels is not None:
            (staging / _LABELS).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        publish.replace_folder(staging, final, _refuse_other)
    except OSError as error:
        raise explain_os_error(error, final) from error
    finally:
        publish.discard(staging, final)
    return final


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InputError(f"{excerpt(name)!r} is no name for a model; give letters, digits, _, . and -, such as deit")
    return name


def _refuse_other(final: Path) -> None:
    """Refuse to replace what vitrim did not write."""
    if not os.path.lexists(final):
        return
    try:
        ours = not final.is_symlink() and (final / CONFIG).read_text("utf-8", "replace").startswith(_WRITTEN)
    except OSError:
        ours = False
    if not ours:
        raise InputError(f"{final} is there and not written by vitrim; remove it, or give the model another name")


def _takes_engine(source: Path, manifest: Manifest) -> bool:
    """Whether the engine is what Triton runs.

    Raises:
        UnsupportedError: neither the engine nor the graph can be run.
    """
    target = manifest.resolved_target
    if target.runtime == "tensorrt" and layout.ENGINE in manifest.files:
        if target.name == "trt-rtx":
            raise UnsupportedError(
                f"{source}: Triton has no TensorRT for RTX; export for a target of TensorRT or onnxruntime"
            )
        return True
    why = unable(manifest.resolved_target, manifest.precision.name)
    if manifest.precision.name == "bf16":
        raise UnsupportedError(f"{source}: {why or 'Triton runs no bf16 graphs'}; export it in fp32, fp16 or int8")
    return False


def _fill(source: Path, manifest: Manifest, version: Path, by_engine: bool) -> None:
    """Copy what is run into the folder of the model's only version, under the names that Triton looks for."""
    version.mkdir()
    if by_engine:
        shutil.copyfile(source / layout.ENGINE, version / "model.plan")
        return
    for name in manifest.files:
        if name in (layout.MODEL, f"{layout.MODEL}.data") or layout.is_common_weights(name):
            shutil.copyfile(source / name, version / name)


def _config(source: Path, manifest: Manifest, name: str, by_engine: bool, labelled: bool) -> str:
    """Triton's model configuration, as protobuf text."""
    session = OrtRunner(source / layout.MODEL, threads=1).session
    image = session.get_inputs()[0]
    on_gpu = by_engine or not manifest.resolved_target.is_cpu
    blocks = [
        f"{_WRITTEN} from a bundle for {manifest.target}. The batch is a part of the shapes.",
        f"name: {json.dumps(name)}",
        f"platform: {json.dumps('tensorrt_plan' if by_engine else 'onnxruntime_onnx')}",
        "max_batch_size: 0",
        _tensor("input", image),
        *(_tensor("output", value, labelled and value.name == "logits") for value in session.get_outputs()),
        f"instance_group [ {{ count: 1 kind: {'KIND_GPU' if on_gpu else 'KIND_CPU'} }} ]",
        _warmup(image),
    ]
    return "\n".join(blocks) + "\n"


def _tensor(role: str, value: Any, labelled: bool = False) -> str:
    label = f" label_filename: {json.dumps(_LABELS)}" if labelled else ""
    return f"{role} [ {{ name: {json.dumps(value.name)} {_typed(value)}{label} }} ]"


def _warmup(value: Any) -> str:
    """One run on zeros when the model is loaded, so that the first request does not wait for it."""
    tensor = f"key: {json.dumps(value.name)} value {{ {_typed(value)} zero_data: true }}"
    return f'model_warmup [ {{ name: "zeros" inputs {{ {tensor} }} }} ]'


def _typed(value: Any) -> str:
    if value.type not in _TYPES:
        raise UnsupportedError(f"{value.name} is a {value.type}, of which vitrim knows no name in Triton")
    return f"data_type: {_TYPES[value.type]} dims: [ {', '.join(map(str, value.shape))} ]"
