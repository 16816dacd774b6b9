"""timm models: making them, loading their checkpoints safely, and their preprocessing."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from torch import Tensor, nn

from ..core.errors import EnvironmentLackError, InputError, UnsupportedError, excerpt
from ..core.files import atomic_path
from ..core.preprocess import Preprocess, check_constants, check_lengths
from .arguments import args_that_fit, check_args, check_size, check_types
from .checkpoints.layouts import Filter, Fit, filter_of, fit, fit_under
from .checkpoints.opened import Opened, open_checkpoint
from .checkpoints.tensors import DESCRIBED_KEY, WIDTHS_KEY, Choice, Tensors, listed, read_state_dict, widths_in
from .shape import NO_CLASSIFIER, describe, image_size
from .slim import slim
from .units import refuse_slimming
from .widths import Widths

_WEIGHTS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # that are converted to float32
_DESCRIBED = "_vitrim_described"  # of a model: what its slimmed checkpoint has to carry


def create_model(
    name: str | None,
    *,
    args: Mapping[str, Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    pretrained: bool = False,
    random: int | None = None,
    choice: Choice = Choice(),  # noqa: B008
    note: Callable[[str], None] = lambda text: None,
) -> nn.Module:
    """Make a timm model with weights from exactly one source, in eval mode, float32, on the CPU.

    Args:
        name: timm model name, with or without a pretrained tag; None: what lies beside the checkpoint says it.
        args: further keyword arguments of the timm model, such as `img_size` or `global_pool`.
        checkpoint: safetensors or PyTorch file, in a layout that timm's filters know; a folder of timm or
            `transformers`; or a name on the hub, `hf-hub:OWNER/NAME@REVISION`; loaded without running code.
        pretrained: fetch timm's weights from the model hub.
        random: seed for random weights.
        choice: which tensors of the checkpoint, where it holds several models'.
        note: hears what was taken from the checkpoint, resampled and left out, where that is not all of it as it is.

    Raises:
        InputError: unknown name, bad arguments, unreadable or foreign checkpoint.
        EnvironmentLackError: the hub cannot be reached.
        UnsupportedError: the model is of a kind that vitrim does not take.
    """
    if sum((checkpoint is not None, pretrained, random is not None)) != 1:
        raise InputError("model: give exactly one of checkpoint, pretrained: true and random: SEED")
    if name is not None:
        _require_name(name)
    given = dict(args or {})
    check_args(given)
    opened = None
    if checkpoint is not None:
        opened = open_checkpoint(checkpoint, name, given, choice, note)
        name, given = opened.name, opened.args
        check_args(given)
    if name is None:
        raise InputError("model.name is missing; give the name of a timm model")
    if random is not None and not 0 <= random < 1 << 63:
        raise InputError(f"model.random is {excerpt(random, 40)}; a seed lies from 0 to 2^63 - 1")

    timm_name = name

    def make(arguments: Mapping[str, Any] = given) -> nn.Module:
        model: nn.Module = timm.create_model(timm_name, **arguments)
        return model

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        check_size(given, make)
        torch.manual_seed(random or 0)
        try:
            model = timm.create_model(name, pretrained=True, **given) if pretrained else make()
        except MemoryError:
            raise
        except Exception as error:  # timm, and the hub's clients, raise what they please
            if pretrained and not isinstance(error, (TypeError, ValueError, AssertionError, ArithmeticError)):
                raise _hub_error(name, error) from error
            raise _args_error(name, given, error) from error
    check_taken(model)
    _take_size(model, given)
    if given:
        check_types(model, given)
        _try(model, name, given)
    if opened is not None:
        model = _load_checkpoint(model, opened, make, choice, note)
    return model.eval().requires_grad_(False)


def _take_size(model: nn.Module, args: Mapping[str, Any]) -> None:
    """Have a model that does not keep the size of its images say the one that it was made for."""
    size: Any = args.get("img_size")
    if size is None or getattr(getattr(model, "patch_embed", None), "img_size", None) is not None:
        return
    own: Any = getattr(model, "pretrained_cfg", None) or {}
    height, width = (size, size) if isinstance(size, int) else size
    model.pretrained_cfg = {**own, "input_size": (image_size(model)[0], height, width)}  # type: ignore[assignment]


def _require_name(name: str) -> None:
    arch = name.split(".")[0]
    if not timm.is_model(arch):
        close = difflib.get_close_matches(arch[:80], timm.list_models(), 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "; see timm.list_models()"
        raise InputError(f"model.name: timm has no model {excerpt(name)!r}{hint}")


def _args_error(name: str, args: Mapping[str, Any], error: Exception) -> InputError:
    reason = excerpt(" ".join(str(error).split()), 200) or type(error).__name__
    if type(error) not in (TypeError, ValueError, AssertionError, RuntimeError):
        reason = f"{type(error).__name__}: {reason}"
    return InputError(f"model: timm cannot make {excerpt(name)} with args {excerpt(args, 200)}: {reason}")


def _try(model: nn.Module, name: str, args: Mapping[str, Any]) -> None:
    """Refuse arguments that timm makes a model of that runs on no image."""
    was = model.training
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, *image_size(model)))
    except MemoryError:
        raise
    except Exception as error:  # whatever arguments have led to
        raise _args_error(name, args, error) from error
    finally:
        model.train(was)


def check_taken(model: nn.Module) -> None:
    """Refuse a model whose tokens cannot be pruned and whose blocks cannot be slimmed.

    Raises:
        UnsupportedError: naming the part in the way.
    """
    slimmable = refuse_slimming(model) is None
    if slimmable and getattr(model, "num_classes", 0) > 0:
        return
    try:
        describe(model)
    except UnsupportedError as error:
        raise UnsupportedError(f"{error}; it is not slimmed, as {NO_CLASSIFIER}") if slimmable else error from None


def _hub_error(name: str, error: Exception) -> EnvironmentLackError:
    reason = excerpt(" ".join(str(error).split()), 160) or type(error).__name__
    return EnvironmentLackError(
        f"cannot fetch the pretrained weights of {name} ({reason}); download them elsewhere and give "
        "model: {checkpoint: FILE.safetensors}"
    )


def _load_checkpoint(
    model: nn.Module,
    opened: Opened,
    make: Callable[[Mapping[str, Any]], nn.Module],
    choice: Choice,
    note: Callable[[str], None],
) -> nn.Module:
    """Load a checkpoint strictly, slimming the model first if the checkpoint says so; a foreign one is refused."""
    tensors, shown, name, args = opened.tensors, opened.shown, opened.name, opened.args
    for key, value in tensors.held.items():
        _refuse_kind(shown, key, value)
    widths = None if opened.file is None else widths_in(opened.file)
    if widths is not None:
        model = slim(model, widths, str(opened.file))
    filters = filter_of(name) if widths is None else None
    found = fit(tensors, model, filters, choice, shown)
    fitting = None
    if widths is None and (not found.whole or found.resampled):
        fitting = args_that_fit(args, model, found.shapes, _as_it_is(found, tensors.held, make, filters))
    if not found.whole:
        raise InputError(
            f"{shown} is not a checkpoint of {name}: of its {len(tensors.held)} tensors there are "
            f"{'; '.join(_differences(found))}; " + _remedy(model, args, found, fitting)
        )
    wanted = model.state_dict()
    for key, value in found.state.items():
        _refuse_values(shown, key, value, wanted[key])
    model.load_state_dict(found.state, strict=True)
    _take_over(model, opened)
    for text in _notes(tensors, found, None if fitting is None else _advice(args, fitting)):
        note(f"{shown}: {text}")
    return model


def _take_over(model: nn.Module, opened: Opened) -> None:
    """Give a model what no weights say: the epsilon of its norms, and how its photos are made."""
    for module in model.modules():
        if opened.epsilon is not None and isinstance(module, nn.LayerNorm):
            module.eps = opened.epsilon
    if opened.images:
        own: Any = getattr(model, "pretrained_cfg", None) or {}
        model.pretrained_cfg = {**own, **opened.images}  # type: ignore[assignment]
    setattr(model, _DESCRIBED, opened.described)


def _as_it_is(
    found: Fit, held: Mapping[str, Tensor], make: Callable[[Mapping[str, Any]], nn.Module], filters: Filter | None
) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a checkpoint fits the model of other arguments, nothing resampled."""

    def fits(args: Mapping[str, Any]) -> bool:
        with torch.device("meta"):
            other = make(args)
        again = fit_under(found.prefix, held, other, filters)
        return again.whole and not again.resampled

    return fits


_OTHERWISE = "name the model that it was saved from, with its args"


def _remedy(model: nn.Module, args: Mapping[str, Any], found: Fit, fitting: Mapping[str, Any] | None) -> str:
    if fitting is not None:
        return f"it fits with {_advice(args, fitting)}"
    named = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    heads = (named,) if isinstance(named, str) else tuple(named)
    parts = {key.rpartition(".")[0] for key in found.missing}
    if parts and parts <= {*heads, "fc_norm"} and parts & set(heads):
        return "it has no classifier, and vitrim makes none up: model.args: {num_classes: 0} takes its features"
    return _OTHERWISE


def _differences(found: Fit) -> list[str]:
    """What does not fit, in words."""
    parts = []
    if found.differing:
        key, theirs, ours = found.differing[0]
        parts.append(f"{len(found.differing)} of other shapes, such as {key} {theirs} where {ours} is wanted")
    if found.missing:
        parts.append(f"{len(found.missing)} missing, such as {found.missing[0]}")
    if found.unknown:
        parts.append(f"{len(found.unknown)} unknown, such as {excerpt(found.unknown[0])}")
    return parts + ([f"timm's filter of its layouts stopped at them ({found.stopped})"] if found.stopped else [])


def _notes(tensors: Tensors, found: Fit, advice: str | None) -> list[str]:
    """What became of a checkpoint that was not taken whole and as it is."""
    texts = []
    if tensors.others or found.prefix:
        told = f", not those at {listed(tensors.others)} (model.state says which)" if tensors.others else ""
        texts.append(f"the tensors at {excerpt(found.place_in(tensors), 80)} are taken{told}")
    if found.resampled:
        changes = ", ".join(f"{key} {before} to {after}" for key, before, after in found.resampled[:2])
        told = f"; {advice} takes them as they are" if advice else ""
        texts.append(f"timm resampled {_some(changes, len(found.resampled) - 2)}{told}")
    for names, why in ((found.unused, "no inference needs it"), (found.outside, "beside the model")):
        if names:
            shown = ", ".join(excerpt(name, 60) for name in names[:2])
            texts.append(f"left out as {why}: {_some(shown, len(names) - 2)}")
    if found.zeros:
        texts.append(f"{', '.join(found.zeros)}: zeros, as the layout has none")
    return texts


def _some(text: str, more: int) -> str:
    return f"{text} and {more} more" if more > 0 else text


def _advice(args: Mapping[str, Any], fitting: Mapping[str, Any]) -> str:
    """Arguments as a recipe writes them, and what weights do not tell."""
    text = ", ".join(f"{key}: {json.dumps(value, default=str)}" for key, value in fitting.items())
    changed = {key for key, value in fitting.items() if key not in args or args[key] != value}
    hint = "; its num_heads is not told by weights, so give it too" if "embed_dim" in changed else ""
    return f"model.args: {{{text}}}{hint}"


def _refuse_kind(shown: str, key: str, value: Tensor) -> None:
    """Refuse a tensor that is no array of numbers in memory."""
    kinds = (
        (value.is_nested, "nested"),
        (value.layout != torch.strided, "sparse"),
        (value.is_quantized, "quantized"),
        (value.device.type != "cpu", f"on {value.device.type}, without numbers"),
    )
    kind = next((word for found, word in kinds if found), None)
    if kind is not None:
        raise InputError(f"{shown}: {excerpt(key)} is {kind}; save plain tensors: value.to_dense().float()")


def _refuse_values(shown: str, key: str, value: Tensor, wanted: Tensor) -> None:
    """Refuse a tensor that the model's own cannot be replaced with, of the same shape."""
    if wanted.is_floating_point() and value.dtype not in _WEIGHTS:
        taken = ", ".join(_type_name(dtype) for dtype in _WEIGHTS)
        raise InputError(f"{shown}: {excerpt(key)} is {_type_name(value.dtype)}, but weights are {taken}; convert it")
    if not wanted.is_floating_point() and value.dtype != wanted.dtype:
        found, own = _type_name(value.dtype), _type_name(wanted.dtype)
        raise InputError(f"{shown}: {excerpt(key)} is {found}, but the model has {own} there; convert it")
    if wanted.is_floating_point() and not value.isfinite().all():
        raise InputError(f"{shown}: {excerpt(key)} holds NaN or Inf; the checkpoint is damaged")
    if value.dtype == torch.float64 and not value.float().isfinite().all():
        raise InputError(f"{shown}: {excerpt(key)} holds numbers past float32; the checkpoint is damaged")


def _type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def save_slimmed(model: nn.Module, widths: Widths, path: str | os.PathLike[str]) -> None:
    """Write a slimmed model as safetensors that say their own widths, so that they load like any checkpoint."""
    import safetensors.torch

    state = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    metadata = {WIDTHS_KEY: widths.model_dump_json()}
    described = getattr(model, _DESCRIBED, None)
    if described is not None:
        metadata[DESCRIBED_KEY] = json.dumps(described)
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(state, temporary, metadata=metadata)


def load_slimmed(model: nn.Module, widths: Widths, path: str | os.PathLike[str]) -> nn.Module:
    """The slimmed model that `save_slimmed` wrote, in eval mode and without gradients.

    Args:
        model: that it was made of, which stays as it is.
        widths: that it was slimmed to.
        path: of the file.
    """
    slimmed = slim(model, widths)
    slimmed.load_state_dict(read_state_dict(Path(path)), strict=True)
    return slimmed.eval().requires_grad_(False)


def fingerprint(model: nn.Module) -> str:
    """Hex SHA-256 over names, shapes, dtypes and bytes of a model's state, and what a config.json said of it."""
    digest = hashlib.sha256()
    described = getattr(model, _DESCRIBED, None)
    if described is not None:
        digest.update(json.dumps(described, sort_keys=True).encode())
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key}:{tuple(value.shape)}:{value.dtype};".encode())
        digest.update(value.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def labels_of(model: nn.Module) -> list[str] | None:
    """Names of a model's classes in their order, as its files said them; None where they did not."""
    own: Any = getattr(model, "pretrained_cfg", None) or {}
    found = own.get("label_names")
    whole = isinstance(found, (list, tuple)) and len(found) == getattr(model, "num_classes", 0)
    return [str(name) for name in found] if whole else None


def preprocessing(model: nn.Module, overrides: Mapping[str, Any] | None = None) -> Preprocess:
    """The model's own preprocessing from timm's data config, with explicit overrides on top.

    Raises:
        InputError: means or deviations that are not of pixels on a 0..1 scale, or overrides that are not one a channel.
    """
    logging.getLogger("timm").setLevel(logging.ERROR)
    config = timm.data.resolve_data_config({}, model=model)
    config["input_size"] = image_size(model)  # args such as img_size win over the published config
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    check_lengths(given.get("mean"), given.get("std"), config["input_size"][0])
    config |= given
    check_constants(config["mean"], config["std"])
    return Preprocess(
        input_size=tuple(config["input_size"]),
        mean=tuple(float(value) for value in config["mean"]),
        std=tuple(float(value) for value in config["std"]),
        interpolation=str(config["interpolation"]),
        crop_pct=float(config["crop_pct"]),
        crop_mode=str(config["crop_mode"]),
    )
