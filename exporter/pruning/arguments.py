"""Arguments of timm's models: which are taken, and which ones a checkpoint asks for."""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..core.bounds import MODEL_ARGS, OTHER_ARGS
from ..core.errors import EnvironmentLackError, InputError, excerpt
from ..core.memory import machine_memory

if TYPE_CHECKING:
    from torch import nn

# Said elsewhere in a recipe, or the way to files and weights that nobody has looked at.
_ELSEWHERE = {
    "model_name": "model.name",
    "pretrained": "model.pretrained",
    "checkpoint_path": "model.checkpoint",
    "pretrained_cfg": "model.name",
    "pretrained_cfg_overlay": "model.preprocess",
    "cache_dir": "the environment variable HF_HOME",
    "scriptable": "nothing: vitrim exports by itself",
    "exportable": "nothing: vitrim exports by itself",
    "no_jit": "nothing: vitrim exports by itself",
    "features_only": "nothing: a classifier is exported",
    "out_indices": "nothing: a classifier is exported",
}
_SMALL = 2048  # numbers up to this make no model that has to be weighed before it is made
_DEEPEST = 4
_WORDS: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number"}


def check_args(args: Mapping[str, Any]) -> None:
    """Refuse arguments that no model has, or that say what a recipe says elsewhere.

    Raises:
        InputError: naming the argument, its value and the limit.
    """
    for key, value in args.items():
        at = f"model.args.{excerpt(str(key))}"
        if key in _ELSEWHERE:
            raise InputError(f"{at} is not taken: that is said by {_ELSEWHERE[key]}; take it out")
        _check_value(str(key), value, at)


def _check_value(key: str, value: Any, at: str, depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise InputError(f"{at} is nested too deeply; an argument is a number, a word, or a list of them")
    if isinstance(value, Mapping):
        for inner, one in value.items():
            _check_value(str(inner), one, f"{at}.{excerpt(str(inner))}", depth + 1)
    elif isinstance(value, (list, tuple)):
        for one in value:
            _check_value(key, one, at, depth + 1)
    elif key in MODEL_ARGS and type(value) is not int and value is not None:
        raise InputError(f"{at} is {excerpt(repr(value), 40)}; give {_WORDS[int]}")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        least, most = MODEL_ARGS.get(key, OTHER_ARGS)
        if not least <= value <= most:
            raise InputError(f"{at} is {excerpt(value, 40)}; it lies from {least} to {most}")


def check_types(model: nn.Module, args: Mapping[str, Any]) -> None:
    """Refuse a text where the model wants a number, and the like: to Python, the text "false" is true.

    Raises:
        InputError: naming the argument and what it wants.
    """
    hints = typing.get_type_hints(type(model).__init__)
    for key, value in args.items():
        hint = hints.get(key)
        choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
        wanted = [one for one in choices if one in _WORDS]
        if len(wanted) != 1 or value is None:
            continue
        taken = (int, float) if wanted[0] is float else wanted[0]
        pairs = any(typing.get_origin(one) is tuple for one in choices)
        listed = pairs and isinstance(value, (list, tuple))
        if not listed and (not isinstance(value, taken) or isinstance(value, bool) is not (wanted[0] is bool)):
            raise InputError(f"model.args.{excerpt(key)} is {excerpt(repr(value), 40)}; give {_WORDS[wanted[0]]}")


def check_size(args: Mapping[str, Any], make: Callable[[], nn.Module]) -> None:
    """Refuse a model that this machine cannot hold, before it is made; only large numbers are weighed.

    Args:
        args: of the model.
        make: makes it, on PyTorch's device without memory.

    Raises:
        EnvironmentLackError: saying how much it takes.
    """
    if all(number <= _SMALL for number in _numbers(args)):
        return
    import torch

    try:
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in make().parameters()) * 4
    except Exception:  # what is wrong, or cannot be made there, is told when it is made in earnest
        return
    there = machine_memory()
    if there is not None and size > 0.8 * there:
        raise EnvironmentLackError(
            f"model.args asks for a model of {size / 1e9:.1f} GB, and this machine has {there / 1e9:.1f} GB; "
            "ask for less"
        )


def _numbers(value: Any) -> list[float]:
    if isinstance(value, Mapping):
        return [number for one in value.values() for number in _numbers(one)]
    if isinstance(value, (list, tuple)):
        return [number for one in value for number in _numbers(one)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def args_that_fit(
    args: Mapping[str, Any],
    model: Any,
    shapes: Mapping[str, tuple[int, ...]],
    fits: Callable[[Mapping[str, Any]], bool],
) -> dict[str, Any] | None:
    """The arguments with which a model would take a checkpoint as it is; tried out, so None where none were found.

    Args:
        args: that the model was made with.
        model: a timm model that the checkpoint does not fit, or only resampled.
        shapes: of the checkpoint's tensors, by the model's names.
        fits: tries arguments out.
    """
    try:
        guessed = {**args, **_guess(model, shapes)}
        if guessed == dict(args):
            return None
        check_args(guessed)
        return guessed if fits(guessed) else None
    except Exception:  # a guess that no model is made from is no advice
        return None


Shapes = Mapping[str, tuple[int, ...]]
# Of a tensor's axis, the argument that says its size.
_SIZES = (
    ("head.weight", "num_classes", 0),
    ("head.fc.weight", "num_classes", 0),
    ("patch_embed.proj.weight", "embed_dim", 0),
    ("patch_embed.proj.weight", "in_chans", 1),
    ("patch_embed.proj.weight", "patch_size", 2),
)
# Of a tensor that is there or not, the argument that says so.
_SWITCHES = (
    ("cls_token", "class_token"),
    ("blocks.0.attn.qkv.bias", "qkv_bias"),
    ("blocks.0.attn.q_norm.weight", "qk_norm"),
)
_WINDOWS = "layers.0.blocks.0.attn.relative_position_bias_table"  # Swin's, (2 * window - 1)^2 rows
_BETWEEN = tuple(f"{name}.relative_position_bias_table" for name in ("blocks.0.attn", "rel_pos_bias"))  # BEiT's
_SCALE, _FIRST, _BLOCK = "blocks.0.ls1.gamma", "blocks.0.mlp.fc1.weight", re.compile(r"^blocks\.(\d{1,4})\.")


def _guess(model: Any, theirs: Shapes) -> dict[str, Any]:
    """What the shapes of a checkpoint say of the ViT that it belongs to, where that is not what the model is."""
    mine = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found: dict[str, Any] = {}
    for key, argument, axis in _SIZES:
        size = theirs.get(key, ())[axis : axis + 1]
        if size and size != mine.get(key, ())[axis : axis + 1]:
            found[argument] = size[0]
    for key, argument in _SWITCHES:
        if (key in theirs) != (key in mine):
            found[argument] = key in theirs
    if (_SCALE in theirs) != (_SCALE in mine):
        found["init_values"] = 1e-5 if _SCALE in theirs else None
    if "fc_norm.weight" in theirs or ("cls_token" not in theirs and getattr(model, "global_pool", "") == "token"):
        found["global_pool"] = "avg"
    if _depth(theirs) not in (0, _depth(mine)):
        found["depth"] = _depth(theirs)
    if theirs.get("reg_token", (1, 0))[1:2] != mine.get("reg_token", (1, 0))[1:2]:
        found["reg_tokens"] = theirs.get("reg_token", (1, 0))[1]
    ratio = _mlp_ratio(theirs)
    if ratio and ratio != _mlp_ratio(mine):
        found["mlp_ratio"] = ratio
    tables = theirs.get(_WINDOWS, ()), mine.get(_WINDOWS, ())
    if tables[0] and tables[0][:1] != tables[1][:1]:
        found["window_size"] = (math.isqrt(tables[0][0]) + 1) // 2
    size_of_image = _image_size(model, theirs)
    return found if size_of_image is None else found | {"img_size": size_of_image}


def _depth(shapes: Shapes) -> int:
    return 1 + max((int(match[1]) for match in map(_BLOCK.match, shapes) if match), default=-1)


def _mlp_ratio(shapes: Shapes) -> float:
    hidden, width = shapes.get(_FIRST, (0, 0))
    return hidden / width if width else 0.0


def _image_size(model: Any, shapes: Shapes) -> int | None:
    """The side of the pictures that a table of positions is for; None where it is the model's own, or no square."""
    stem = shapes.get("patch_embed.proj.weight", ())
    side = _grid(model, shapes)
    if len(stem) != 4 or not side:
        return None
    size = side * stem[2]
    own = getattr(getattr(model, "patch_embed", None), "img_size", None)
    return size if own is not None and (size, size) != tuple(own) else None


def _grid(model: Any, shapes: Shapes) -> int:
    """Patches along a side, by the table of positions; 0 where there is none, or no square."""
    table = shapes.get("pos_embed", ())
    if len(table) != 3:
        rows = next((shapes[key][0] - 3 for key in _BETWEEN if len(shapes.get(key, ())) == 2), 0)
        return (math.isqrt(max(rows, 0)) + 1) // 2 if rows > 0 else 0  # (2 * side - 1)^2 and three of the class token's
    prefix = int("cls_token" in shapes) + int("dist_token" in shapes) + shapes.get("reg_token", (1, 0, 0))[1]
    rows = table[1] if getattr(model, "no_embed_class", False) else table[1] - prefix
    side = math.isqrt(max(rows, 0))
    return side if side * side == rows else 0
