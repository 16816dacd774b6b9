"""A checkpoint opened: its tensors by timm's names, and the timm model that lies beside them, where one does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from ...core.errors import InputError, excerpt
from .configs import Described, describe_config, is_kind
from .foreign import refuse_foreign
from .hub import CONFIG, Place, locate
from .images import describe_images
from .names import Renamed, prefix_of, regrid, rename
from .tensors import Choice, Tensors, described_in, read_tensors

Note = Callable[[str], None]
# Of timm's `pretrained_cfg`, what is said of images and classes.
_IMAGES = ("mean", "std", "interpolation", "crop_pct", "crop_mode", "label_names")


@dataclass(frozen=True)
class Opened:
    """A checkpoint, and the model that it is for.

    Attributes:
        tensors: its tensors.
        name: of the timm model.
        args: of it, those that were given included.
        shown: the file or folder, for messages.
        file: with the tensors, if that is one.
        epsilon: of all layer norms; None leaves timm's.
        images: what of timm's data config is said beside the tensors.
    """

    tensors: Tensors
    name: str
    args: dict[str, Any]
    shown: str
    file: Path | None
    epsilon: float | None = None
    images: dict[str, Any] = field(default_factory=dict)

    @property
    def described(self) -> dict[str, Any] | None:
        """What a slimmed checkpoint has to carry of it, as plain data; None where timm's own name says it all."""
        if self.epsilon is None and not self.images:
            return None
        return {"name": self.name, "args": self.args, "epsilon": self.epsilon, "images": self.images}


def open_checkpoint(
    checkpoint: str | os.PathLike[str], name: str | None, args: Mapping[str, Any], choice: Choice, note: Note
) -> Opened:
    """Read a checkpoint wherever it lies, with what lies beside it.

    Args:
        checkpoint: a file, a folder of timm or `transformers`, or a name on the hub.
        name: of the timm model; None: what lies beside the tensors says it.
        args: of it.
        choice: which tensors are meant, where those of several models are there.
        note: hears what was taken and left out.

    Raises:
        InputError: it is no such checkpoint, or no timm model is like it.
        EnvironmentLackError: the hub cannot be reached.
    """
    place = locate(checkpoint, note)
    shown = excerpt(os.fspath(checkpoint), 300)
    tensors = _read(place.weights, choice)
    file = place.weights[0] if len(place.weights) == 1 else None
    prefix = prefix_of(tensors.held)
    if prefix is not None and (place.config is None or not is_kind(place.config)):
        raise InputError(
            f"{shown} has names of `transformers`, and no {CONFIG} of it lies beside it, which says what model it is; "
            "give the folder that save_pretrained wrote"
        )
    if prefix is not None and place.config is not None:
        described = describe_config(place.config, tensors.held, str(place.folder / CONFIG))
        return _of_transformers(
            Opened(tensors, name or described.name, dict(args), shown, file), described, place, note
        )
    found = _of_timm(place, name, file)
    if found is None and name is None:
        raise InputError(f"model.name is missing, and nothing beside {shown} says which timm model it is; give it")
    if found is None:
        return Opened(tensors, str(name), dict(args), shown, file)
    return Opened(tensors, name or found.name, {**found.args, **args}, shown, file, found.epsilon, found.images)


def _read(parts: tuple[Path, ...], choice: Choice) -> Tensors:
    """The tensors of all parts of a checkpoint."""
    for part in parts:
        refuse_foreign(part)
    if len(parts) == 1:
        return read_tensors(parts[0], choice)
    held: dict[str, Tensor] = {}
    for part in parts:
        held |= read_tensors(part, choice).held
    return Tensors(held)


def _of_timm(place: Place, name: str | None, file: Path | None) -> Described | None:
    """The model that timm, or vitrim's slimming, wrote beside the tensors; None where neither did.

    A file that was named together with a model is taken by itself.
    """
    carried = described_in(file) if file is not None else None
    if carried is not None:
        return Described(carried["name"], dict(carried["args"]), carried["epsilon"], images=dict(carried["images"]))
    config = place.config
    if config is None or "architecture" not in config or not (place.named or name is None):
        return None
    own = config.get("pretrained_cfg") if isinstance(config.get("pretrained_cfg"), dict) else config
    assert isinstance(own, dict)
    wanted, shown = config["architecture"], place.folder / CONFIG
    if not isinstance(wanted, str) or not timm.is_model(wanted):
        raise InputError(f"{shown}: architecture is {excerpt(repr(wanted), 60)}, and timm has no such model")
    if name is not None and name.split(".")[0] != wanted:
        raise InputError(f"{shown}: architecture is {wanted}, not {excerpt(name)}; take model.name out")
    args = config.get("model_args") if isinstance(config.get("model_args"), dict) else {}
    classes = config.get("num_classes", own.get("num_classes"))
    images = {key: own[key] for key in _IMAGES if own.get(key) is not None}
    labels = config.get("label_names", own.get("labels"))
    images |= {} if labels is None else {"label_names": labels}
    return Described(wanted, {**({} if classes is None else {"num_classes": classes}), **(args or {})}, images=images)


def _of_transformers(opened: Opened, described: Described, place: Place, note: Note) -> Opened:
    """A checkpoint of `transformers` as one of timm."""
    shown, given, style = opened.shown, opened.args, described.style
    assert style is not None
    _require_same(opened.name, described.name, place.folder)
    renamed = rename(opened.tensors.held, prefix_of(opened.tensors.held) or "", style, shown)
    wanted = given.get("num_classes")
    if described.unfit and wanted != 0:
        raise InputError(f"{shown}: {described.unfit}; its features are taken with model.args: {{num_classes: 0}}")
    held, headless = dict(renamed.held), []
    if wanted == 0:
        headless = [key for key in held if key.startswith(("head.", "head_dist."))]
        held = {key: value for key, value in held.items() if key not in headless}
    images = {} if place.images is None else describe_images(place.images, f"the images' config of {shown}")
    size = images.pop("size", None)
    args = {**described.args, "num_classes": len(held["head.weight"]) if "head.weight" in held else 0, **given}
    if described.resampled:
        args["img_size"] = given.get("img_size", size or described.args["img_size"])
        _regrid(held, args, shown, note)
    labels = _labels(place.config or {})
    if labels is not None and len(labels) == args["num_classes"]:
        images["label_names"] = labels
    for text in _said(renamed, headless, place, described, size, args):
        note(f"{shown}: {text}")
    tensors = replace(opened.tensors, held=held)
    return replace(opened, tensors=tensors, args=args, epsilon=described.epsilon, images=images)


def _require_same(name: str, own: str, folder: Path) -> None:
    """Refuse a name of another family than the one that a config.json says."""
    module = timm.models.model_entrypoint(name.split(".")[0]).__module__
    if module != timm.models.model_entrypoint(own).__module__:
        raise InputError(f"{folder / CONFIG} says a model such as {own}, not {excerpt(name)}; take model.name out")


def _regrid(held: dict[str, Tensor], args: Mapping[str, Any], shown: str, note: Note) -> None:
    """Positions for the image size, in place, as the model makes them when it runs."""
    table = held.get("pos_embed")
    if table is None:
        return
    sizes, patches = (_pair(args[key]) for key in ("img_size", "patch_size"))
    registers = "reg_token" in held
    grid = sizes[0] // patches[0], sizes[1] // patches[1]
    held["pos_embed"] = regrid(table, 0 if registers else 1, grid, registers)
    if held["pos_embed"] is not table:
        note(f"{shown}: positions are resampled as `transformers` does, for images of {sizes[0]} x {sizes[1]}")


def _pair(value: Any) -> tuple[int, int]:
    return (value[0], value[1]) if isinstance(value, (list, tuple)) else (value, value)


def _labels(config: Mapping[str, Any]) -> list[str] | None:
    """Names of the classes, in their order; None where there are none but numbers."""
    named = config.get("id2label")
    if not isinstance(named, dict):
        return None
    names = [named.get(str(index)) for index in range(len(named))]
    if any(not isinstance(name, str) for name in names) or names == [f"LABEL_{at}" for at in range(len(names))]:
        return None
    return [str(name) for name in names]


def _said(
    renamed: Renamed, headless: list[str], place: Place, described: Described, size: Any, args: Mapping[str, Any]
) -> list[str]:
    """What became of a checkpoint of `transformers`, in words."""
    texts = []
    for names, why in (
        (renamed.left_out, "no inference needs it, or beside the model"),
        (headless, "num_classes is 0"),
    ):
        if names:
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            texts.append(f"left out as {why}: {', '.join(excerpt(name, 60) for name in names[:2])}{more}")
    if renamed.made_up:
        texts.append(f"{', '.join(renamed.made_up)}: zeros, as the layout has none")
    if place.images is None:
        texts.append(f"no preprocessor_config.json lies beside it, so photos are made as {described.name} has them")
    elif size is not None and tuple(size) != _pair(args["img_size"]):
        height, width = _pair(args["img_size"])
        texts.append(f"its preprocessing makes photos of {size[0]} x {size[1]}; {height} x {width} are made here")
    return texts
