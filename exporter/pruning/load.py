"""timm models: making them, loading their checkpoints safely, and their preprocessing."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from torch import Tensor, nn

from ..core.errors import EnvironmentLackError, InputError
from ..core.files import atomic_path, explain_read_error
from ..core.preprocess import Preprocess, check_constants, check_lengths
from .shape import describe, image_size
from .slim import refuse_slimming, slim
from .widths import Widths, parse_widths

WIDTHS_KEY = "vitrim.widths"  # in the metadata of a slimmed checkpoint
_PICKLE_MAGICS = (b"PK\x03\x04", b"\x80")


def create_model(
    name: str,
    *,
    args: Mapping[str, Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    pretrained: bool = False,
    random: int | None = None,
) -> nn.Module:
    """Make a timm model with weights from exactly one source, in eval mode, float32, on the CPU.

    Args:
        name: timm model name, with or without a pretrained tag.
        args: further keyword arguments of the timm model, such as `img_size` or `global_pool`.
        checkpoint: safetensors or PyTorch state dict; loaded without running code.
        pretrained: fetch timm's weights from the model hub.
        random: seed for random weights.

    Raises:
        InputError: unknown name, bad arguments, unreadable or foreign checkpoint.
        EnvironmentLackError: the hub cannot be reached.
        UnsupportedError: the model is of a kind that vitrim does not take.
    """
    if sum((checkpoint is not None, pretrained, random is not None)) != 1:
        raise InputError("model: give exactly one of checkpoint, pretrained: true and random: SEED")
    arch = name.split(".")[0]
    if not timm.is_model(arch):
        close = difflib.get_close_matches(arch, timm.list_models(), 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "; see timm.list_models()"
        raise InputError(f"model.name: timm has no model {name!r}{hint}")
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise InputError(f"model.checkpoint: there is no file {os.fspath(checkpoint)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random or 0)
        try:
            model = timm.create_model(name, pretrained=pretrained, **dict(args or {}))
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            if pretrained and isinstance(error, RuntimeError):
                raise _hub_error(name, error) from error
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"model: timm cannot make {name} with args {dict(args or {})}: {reason}") from error
        except OSError as error:
            raise _hub_error(name, error) from error
        except Exception as error:  # hub clients raise types of their own
            if not pretrained:
                raise
            raise _hub_error(name, error) from error
    check_taken(model)
    if checkpoint is not None:
        model = _load_checkpoint(model, name, Path(checkpoint))
    return model.eval().requires_grad_(False)


def check_taken(model: nn.Module) -> None:
    """Refuse a model whose tokens cannot be pruned and whose blocks cannot be slimmed.

    Raises:
        UnsupportedError: naming the part in the way.
    """
    if refuse_slimming(model) is None and getattr(model, "num_classes", 0) > 0:
        return
    describe(model)


def _hub_error(name: str, error: Exception) -> EnvironmentLackError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return EnvironmentLackError(
        f"cannot fetch the pretrained weights of {name} ({reason}); download them elsewhere and give "
        "model: {checkpoint: FILE.safetensors}"
    )


def _is_safetensors(path: Path) -> bool:
    """Whether a checkpoint is to be read as safetensors: by its name, or because it is no pickle.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            magic = stream.read(16)
    except OSError as error:
        raise explain_read_error(error, path) from error
    return path.suffix == ".safetensors" or not magic.startswith(_PICKLE_MAGICS)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint without running any code from it.

    Args:
        path: a .safetensors file, or a PyTorch file that holds tensors only.

    Raises:
        InputError: truncated, of another kind, or a pickle that would run code.
    """
    if _is_safetensors(path):
        import safetensors
        import safetensors.torch

        try:
            return safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise InputError(
                f"{path} is not a whole safetensors file ({error}); it may be truncated: fetch it again"
            ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is a pickle that holds more than tensors, and loading it could run code, so vitrim does not; "
            "convert it where you trust it: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise InputError(f"{path} is not a whole PyTorch checkpoint; it may be truncated: fetch it again") from error
    return _unwrap(loaded, path)


def _unwrap(loaded: object, path: Path) -> dict[str, Tensor]:
    """Find the state dict in what training scripts save around it."""
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict):
        raise InputError(f"{path} holds a {type(loaded).__name__}, not a state dict; save model.state_dict()")
    tensors = {str(key).removeprefix("module."): value for key, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"{path} holds no tensors; save model.state_dict()")
    return tensors


def _load_checkpoint(model: nn.Module, name: str, path: Path) -> nn.Module:
    """Load a checkpoint strictly, slimming the model first if the checkpoint says so; a foreign one is refused."""
    state = read_state_dict(path)
    widths = widths_in(path)
    if widths is not None:
        model = slim(model, widths, str(path))
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    missing = sorted(wanted.keys() - found.keys())
    extra = sorted(found.keys() - wanted.keys())
    differing = sorted(key for key in wanted.keys() & found.keys() if wanted[key] != found[key])
    if missing or extra or differing:
        parts = []
        if differing:
            key = differing[0]
            parts.append(f"{len(differing)} of other shapes, such as {key} {found[key]} where {wanted[key]} is wanted")
        if missing:
            parts.append(f"{len(missing)} missing, such as {missing[0]}")
        if extra:
            parts.append(f"{len(extra)} unknown, such as {extra[0]}")
        raise InputError(
            f"{path} is not a checkpoint of {name}: of its {len(found)} tensors there are {'; '.join(parts)}; "
            "name the model that it was saved from, with its args"
        )
    bad = next(
        (key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()),
        None,
    )
    if bad is not None:
        raise InputError(f"{path}: {bad} holds NaN or Inf; the checkpoint is damaged")
    model.load_state_dict(state, strict=True)
    return model


def save_slimmed(model: nn.Module, widths: Widths, path: str | os.PathLike[str]) -> None:
    """Write a slimmed model as safetensors that say their own widths, so that they load like any checkpoint."""
    import safetensors.torch

    state = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(state, temporary, metadata={WIDTHS_KEY: widths.model_dump_json()})


def widths_in(path: Path) -> Widths | None:
    """The widths that a slimmed checkpoint carries; None for any other checkpoint.

    Raises:
        InputError: it carries something else under their name.
    """
    import safetensors

    if not _is_safetensors(path):
        return None
    with safetensors.safe_open(path, "pt") as opened:
        text = (opened.metadata() or {}).get(WIDTHS_KEY)
    if text is None:
        return None
    try:
        return parse_widths(json.loads(text), str(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: its {WIDTHS_KEY} is not JSON; the checkpoint is damaged") from error


def fingerprint(model: nn.Module) -> str:
    """Hex SHA-256 over names, shapes, dtypes and bytes of a model's state; the same for the same weights."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key}:{tuple(value.shape)}:{value.dtype};".encode())
        digest.update(value.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


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
