"""A commented recipe for a model, every value the default or what the user says."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..calibration.tokens.cost import dense_plan, model_macs
from ..calibration.units.cost import unit_cost
from ..exporter.core.bounds import CLASSES, require_within
from ..exporter.core.errors import InputError, did_you_mean, excerpt
from ..exporter.core.targets import PRECISIONS, group_of
from ..exporter.pruning.checkpoints.hub import is_hub_name
from ..exporter.pruning.load import create_model
from ..exporter.pruning.methods import DEFAULT
from ..exporter.pruning.shape import describe, refuse_pruning
from .schema.load import parse_yaml, validate
from .stages.precision import check_precision

_TEMPLATE = """# {title}: {size}, {dense:.2f} GMACs dense. Keys left out keep their default.
model:
{weights}

images:
{images}
  count: 64                   # spread evenly over the folder; what is left over measures agreement

{plan}
export:
{target}# cpu, openvino, ort-cuda, trt-rtx, jetpack-5, -6.0, -6, -7, -7.2, trt-11; see `vitrim targets`
  batch: 1
  # input: uint8              # pixels [batch, height, width, 3] in, the normalization folded in
  # top_k: 5                  # probabilities and classes of the best beside the logits

precision:
{precision}# fp16, bf16, int8, or auto: the fastest that holds; see docs/precision.md

parity: {{atol: 1.0e-4}}
bench: {{runs: 50}}
"""
_PRUNE = """prune:
{chosen}# see `vitrim methods`
  target: {{gflops: {gflops}}}      # or flops_ratio: 0.65, speedup: 1.5, agreement: 0.98; or a preset, mass, budget
  # blocks: {blocks}         # where tokens go; null lets the rule decide
  # search: {{trials: 100}}     # search on the images, a few minutes
"""
_SLIM = """# Its tokens cannot be pruned: {reason}.
slim:                         # {units}; see docs/slimming.md
{target}# or gflops: 1.5, parameters_ratio: 0.8
  # finetune: {{epochs: 10}}    # with many images: train what is left, the dense model as its teacher
"""


def new_recipe(
    name: str,
    folder: Path,
    target: str = "ort-cpu",
    precision: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    classes: int | None = None,
) -> str:
    """See `vitrim.api.new`; `folder` is the one that the file will lie in."""
    targets, names = group_of(target), (*PRECISIONS, "auto")
    if precision is None:
        precision = "fp32" if len(targets) == 1 else "auto"
    if precision not in names:
        hint = did_you_mean(precision, names)
        raise InputError(
            f"precision.name: there is no precision {excerpt(precision)!r}{hint} (there are {', '.join(names)})"
        )
    if classes is not None:
        require_within("classes", classes, *CLASSES)
    args = {} if classes is None else {"num_classes": classes}
    if is_hub_name(name) or os.path.isdir(name):
        title, model, weights = _of_itself(name, args, checkpoint, folder)
    else:
        title, model = name, create_model(name, args=args, random=0)
        weights = f"  name: {name}\n" + _weights(checkpoint, folder)
    size, dense, plan = _plan(model)
    if classes is not None:
        weights += "\n" + _line(f"args: {{num_classes: {classes}}}", "the checkpoint's head")
    text = _TEMPLATE.format(
        title=title,
        size=size,
        dense=dense,
        weights=weights,
        images=_line(
            f"path: {'photos/' if images is None else _path(images, folder, 'images')}",
            "a folder of photos, of class folders (for accuracy), or an .npz; from this file's folder",
        ),
        plan=plan,
        target=_key(f"target: {target}"),
        precision=_key(f"name: {precision}"),
    )
    recipe = validate(parse_yaml(text, "the recipe"), "the recipe")
    check_precision(recipe.precision, targets[0])
    return text


def _plan(model: Any) -> tuple[str, float, str]:
    """A model's size in words, its dense GMACs, and the section that prunes its tokens, or where they stay slims it."""
    reason = refuse_pruning(model)
    if reason is None:
        shape = describe(model)
        dense = model_macs(shape, dense_plan(shape)) / 1e9
        text = _PRUNE.format(
            chosen=_key(f"method: {DEFAULT}"),
            gflops=f"{0.65 * dense:.2f}" if dense > 1 else f"{0.65 * dense:.2g}",
            blocks=[shape.depth * (index + 1) // 4 for index in range(3)],
        )
        return f"{shape.depth} blocks, {shape.tokens} tokens", dense, text
    cost = unit_cost(model, "macs")
    least = cost.of([min(1, heads) for heads in cost.heads], [min(16, neurons) for neurons in cost.neurons])
    ratio = max(0.8, math.ceil(50 * (1 + least / cost.dense)) / 100)  # where little can go, half of that
    units = "fewer heads and neurons" if any(cost.heads) else "fewer neurons; its heads cannot leave"
    text = _SLIM.format(reason=reason, units=units, target=_key(f"target: {{flops_ratio: {ratio:.2g}}}"))
    return f"{len(cost.neurons)} blocks that can be slimmed", cost.dense / 1e9, text


def _of_itself(
    place: str, args: Mapping[str, Any], checkpoint: str | os.PathLike[str] | None, folder: Path
) -> tuple[str, Any, str]:
    """Title, model and lines of a folder of transformers or timm, or a name on the hub, which says its model itself."""
    if checkpoint is not None:
        raise InputError(f"{excerpt(place)} has weights of its own; take --checkpoint out")
    model = create_model(None, args=args, checkpoint=place)
    written = json.dumps(place) if is_hub_name(place) else _path(place, folder, "checkpoint")
    line = _line(f"checkpoint: {written}", "what lies beside the weights says which model it is")
    return excerpt(Path(place).name), model, line


def _weights(checkpoint: str | os.PathLike[str] | None, folder: Path) -> str:
    if checkpoint is None:
        return _line(
            "pretrained: true", "fetch timm's weights; or checkpoint: FILE.safetensors, or random: SEED to try"
        )
    return _line(f"checkpoint: {_path(checkpoint, folder, 'checkpoint')}", "safetensors or a PyTorch state dict")


def _path(path: str | os.PathLike[str], folder: Path, what: str) -> str:
    """A path as a recipe in `folder` writes it: absolute ones as they are, others from there; InputError: not there."""
    if not os.path.exists(path):
        raise InputError(f"no {what} at {os.fspath(path)}; name a file or folder that is there")
    found = os.fspath(path) if os.path.isabs(path) else os.path.relpath(path, folder)
    return json.dumps(found, ensure_ascii=False)  # as YAML quotes it


def _line(key: str, comment: str) -> str:
    return f"{_key(key)}# {comment}"


def _key(key: str) -> str:
    """A key and its value, padded to where comments start."""
    return f"  {key} ".ljust(30)
