"""timm models: making them, loading their checkpoints safely, and their preprocessing."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import logging
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from torch import Tensor, nn

from ..core.errors import EnvironmentLackError, InputError, excerpt
from ..core.files import atomic_path
from ..core.inputs import InputKind, open_file
from ..core.preprocess import Preprocess, check_constants, check_lengths
from .arguments import args_that_fit, check_args, check_size, check_types
from .foreign import looks_like_safetensors, refuse_foreign
from .shape import describe, image_size
from .slim import refuse_slimming, slim
from .widths import Widths, parse_widths

WIDTHS_KEY = "vitrim.widths"  # in the metadata of a slimmed checkpoint
_PICKLE_MAGICS = (b"PK\x03\x04", b"\x80")
_WEIGHTS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # that are converted to float32


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
        close = difflib.get_close_matches(arch[:80], timm.list_models(), 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "; see timm.list_models()"
        raise InputError(f"model.name: timm has no model {excerpt(name)!r}{hint}")
    if checkpoint is not None:
        _require_checkpoint(Path(checkpoint))
    given = dict(args or {})
    check_args(given)
    if random is not None and not 0 <= random < 1 << 63:
        raise InputError(f"model.random is {excerpt(random, 40)}; a seed lies from 0 to 2^63 - 1")

    def make(arguments: Mapping[str, Any] = given) -> nn.Module:
        model: nn.Module = timm.create_model(name, **arguments)
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
    if given:
        check_types(model, given)
        _try(model, name, given)
    if checkpoint is not None:
        model = _load_checkpoint(model, name, Path(checkpoint), given, make)
    return model.eval().requires_grad_(False)


def _require_checkpoint(path: Path) -> None:
    """Refuse what is no checkpoint before a model is made for it."""
    if not os.path.lexists(path):
        raise InputError(f"model.checkpoint: there is no file {excerpt(os.fspath(path), 300)}")
    refuse_foreign(path)


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
    if refuse_slimming(model) is None and getattr(model, "num_classes", 0) > 0:
        return
    describe(model)


def _hub_error(name: str, error: Exception) -> EnvironmentLackError:
    reason = excerpt(" ".join(str(error).split()), 160) or type(error).__name__
    return EnvironmentLackError(
        f"cannot fetch the pretrained weights of {name} ({reason}); download them elsewhere and give "
        "model: {checkpoint: FILE.safetensors}"
    )


def _is_safetensors(path: Path) -> bool:
    """Whether a checkpoint is to be read as safetensors: by its name, or because it is no pickle.

    Raises:
        InputError: it cannot be read.
    """
    with open_file(path, InputKind.CHECKPOINT) as stream:
        magic = stream.read(16)
    return path.suffix == ".safetensors" or looks_like_safetensors(magic) or not magic.startswith(_PICKLE_MAGICS)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint without running any code from it.

    Args:
        path: a .safetensors file, or a PyTorch file that holds tensors only.

    Raises:
        InputError: truncated, of another kind, or a pickle that would run code.
    """
    refuse_foreign(path)
    shown = excerpt(os.fspath(path), 300)
    if _is_safetensors(path):
        return _read_safetensors(path, shown)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{shown} is a pickle that holds more than tensors, and loading it could run code, so vitrim does not; "
            "convert it where you trust it: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        ) from error
    except Exception as error:  # damaged archives end in errors of every type
        raise InputError(f"{shown} is not a whole PyTorch checkpoint; it may be truncated: fetch it again") from error
    return _unwrap(loaded, path)


def _read_safetensors(path: Path, shown: str) -> dict[str, Tensor]:
    import safetensors.torch

    with _explained(shown):
        return safetensors.torch.load_file(path)


@contextlib.contextmanager
def _explained(shown: str) -> Iterator[None]:
    """What safetensors raises, as one line on the file."""
    import safetensors

    try:
        yield
    except safetensors.SafetensorError as error:
        reason = excerpt(str(error), 120)
        raise InputError(
            f"{shown} is not a whole safetensors file ({reason}); it may be truncated: fetch it again"
        ) from error
    except (KeyError, AttributeError, ValueError, RuntimeError, OSError) as error:  # types that this PyTorch has not
        reason = excerpt(f"{type(error).__name__}: {error}", 120)
        raise InputError(f"{shown} holds what this PyTorch cannot read ({reason}); save it in float32") from error


def _unwrap(loaded: object, path: Path) -> dict[str, Tensor]:
    """Find the state dict in what training scripts save around it."""
    shown = excerpt(os.fspath(path), 300)
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict):
        raise InputError(f"{shown} holds a {type(loaded).__name__}, not a state dict; save model.state_dict()")
    tensors: dict[str, Tensor] = {}
    for key, value in loaded.items():
        name = str(key).removeprefix("module.")
        if isinstance(value, Tensor):
            if name in tensors:
                raise InputError(f"{shown} holds {excerpt(name)} twice, with and without `module.`; save one of them")
            tensors[name] = value
    if not tensors:
        held = f" (it holds {excerpt(', '.join(map(str, list(loaded)[:5])))})" if loaded else ""
        raise InputError(f"{shown} holds no tensors{held}; save model.state_dict()")
    return tensors


def _load_checkpoint(
    model: nn.Module,
    name: str,
    path: Path,
    args: Mapping[str, Any],
    make: Callable[[Mapping[str, Any]], nn.Module],
) -> nn.Module:
    """Load a checkpoint strictly, slimming the model first if the checkpoint says so; a foreign one is refused."""
    state, shown = read_state_dict(path), excerpt(os.fspath(path), 300)
    for key, value in state.items():
        _refuse_kind(shown, key, value)
    widths = widths_in(path)
    if widths is not None:
        model = slim(model, widths, str(path))
    wanted = model.state_dict()
    differences = _differences(
        {key: tuple(value.shape) for key, value in wanted.items()},
        {key: tuple(value.shape) for key, value in state.items()},
    )
    if differences:
        fitting = args_that_fit(args, model, state, make) if widths is None else None
        raise InputError(
            f"{shown} is not a checkpoint of {name}: of its {len(state)} tensors there are {'; '.join(differences)}; "
            + (f"it fits with {_advice(args, fitting)}" if fitting else _OTHERWISE)
        )
    for key, value in state.items():
        _refuse_values(shown, key, value, wanted[key])
    model.load_state_dict(state, strict=True)
    return model


_OTHERWISE = "name the model that it was saved from, with its args"


def _differences(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> list[str]:
    """What does not fit, in words."""
    missing = sorted(wanted.keys() - found.keys())
    extra = sorted(found.keys() - wanted.keys())
    differing = sorted(key for key in wanted.keys() & found.keys() if wanted[key] != found[key])
    parts = []
    if differing:
        key = differing[0]
        parts.append(f"{len(differing)} of other shapes, such as {key} {found[key]} where {wanted[key]} is wanted")
    if missing:
        parts.append(f"{len(missing)} missing, such as {missing[0]}")
    if extra:
        parts.append(f"{len(extra)} unknown, such as {excerpt(extra[0])}")
    return parts


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
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(state, temporary, metadata={WIDTHS_KEY: widths.model_dump_json()})


def widths_in(path: Path) -> Widths | None:
    """The widths that a slimmed checkpoint carries; None for any other checkpoint.

    Raises:
        InputError: it is no whole file, or carries something else under their name.
    """
    import safetensors

    if not _is_safetensors(path):
        return None
    with _explained(excerpt(os.fspath(path), 300)), safetensors.safe_open(path, "pt") as opened:
        text = (opened.metadata() or {}).get(WIDTHS_KEY)
    if text is None:
        return None
    try:
        return parse_widths(json.loads(text), str(path))
    except (ValueError, RecursionError) as error:
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
