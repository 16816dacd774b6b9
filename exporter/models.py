"""timm models: loading them safely, and saying which parts vitrim needs and which it does not support."""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from timm.layers import PatchEmbed
from timm.models import vision_transformer as timm_vit
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn

from .errors import EnvironmentLackError, InputError, UnsupportedError

SUPPORTED = "timm's plain VisionTransformer family: ViT, AugReg, DeiT, distilled DeiT, DeiT-III, MAE, DINOv2, CLIP"
_PICKLE_MAGICS = (b"PK\x03\x04", b"\x80")


@dataclass(frozen=True)
class ViTShape:
    """The numbers of a supported model that budgets and costs need.

    Attributes:
        tokens: tokens entering the first block, prefix tokens included.
        prefix_tokens: class, distillation and register tokens.
        class_token: whether token 0 is a class token.
        prefix_pooled: whether the classifier reads prefix tokens only, so that the last block's patches are of no
            use after its attention.
        linear_macs: by block, multiply-accumulates per token of all linear layers of (attention, MLP).
        attention_width: by block, heads * head_dim, which the two attention products cost.
        stem_macs: of the patch embedding, for the whole image.
        head_macs: of the classifier.
    """

    name: str
    depth: int
    width: int
    heads: int
    head_dim: int
    tokens: int
    prefix_tokens: int
    class_token: bool
    prefix_pooled: bool
    classes: int
    image_size: tuple[int, int, int]
    linear_macs: tuple[tuple[int, int], ...]
    attention_width: tuple[int, ...]
    stem_macs: int
    head_macs: int


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the model's input; resolved from timm's data config."""

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a manifest."""
        return asdict(self)


def _weights(module: nn.Module) -> int:
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def describe(model: nn.Module) -> ViTShape:
    """Read a model's dimensions, or say why vitrim does not take it.

    Raises:
        UnsupportedError: naming the model, the part in the way, and what is supported.
    """
    name = str((getattr(model, "pretrained_cfg", None) or {}).get("architecture") or type(model).__name__)

    def refuse(reason: str) -> UnsupportedError:
        return UnsupportedError(f"{name} is not supported: {reason}; vitrim prunes tokens of {SUPPORTED}")

    if type(model) not in (timm_vit.VisionTransformer, VisionTransformerDistilled):
        raise refuse(f"it is a {type(model).__name__}, not a plain VisionTransformer")
    vit: Any = model
    for index, block in enumerate(vit.blocks):
        if type(block) is not timm_vit.Block:
            raise refuse(f"blocks.{index} is a {type(block).__name__}, not timm's pre-norm Block")
        if type(block.attn) is not timm_vit.Attention:
            raise refuse(f"blocks.{index}.attn is a {type(block.attn).__name__}, not timm's plain Attention")
    if vit.num_classes == 0:
        raise refuse("it has no classifier (num_classes is 0); give args: {num_classes: N} with a trained head")
    if not vit.global_pool:
        raise refuse("it has no pooling (global_pool is empty), so it returns tokens instead of logits")
    if type(vit.patch_embed) is not PatchEmbed:
        raise refuse(f"its stem is a {type(vit.patch_embed).__name__}, not timm's PatchEmbed")
    grid = vit.patch_embed.grid_size
    prefix = vit.num_prefix_tokens
    first = vit.blocks[0].attn
    in_chans = next(m.in_channels for m in vit.patch_embed.modules() if isinstance(m, nn.Conv2d))
    height, width = vit.patch_embed.img_size
    conv = next(m for m in vit.patch_embed.modules() if isinstance(m, nn.Conv2d))
    heads = [m for m in (vit.head, getattr(vit, "head_dist", None)) if isinstance(m, nn.Linear)]
    return ViTShape(
        name=name,
        depth=len(vit.blocks),
        width=vit.embed_dim,
        heads=first.num_heads,
        head_dim=first.head_dim,
        tokens=grid[0] * grid[1] + prefix,
        prefix_tokens=prefix,
        class_token=bool(vit.has_class_token),
        prefix_pooled=vit.global_pool == "token" and vit.attn_pool is None,
        classes=vit.num_classes,
        image_size=(in_chans, height, width),
        linear_macs=tuple((_weights(block.attn), _weights(block.mlp)) for block in vit.blocks),
        attention_width=tuple(block.attn.attn_dim for block in vit.blocks),
        stem_macs=grid[0] * grid[1] * conv.weight.numel(),
        head_macs=sum(head.weight.numel() for head in heads),
    )


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
    describe(model)
    if checkpoint is not None:
        _load_checkpoint(model, name, Path(checkpoint))
    return model.eval().requires_grad_(False)


def _hub_error(name: str, error: Exception) -> EnvironmentLackError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return EnvironmentLackError(
        f"cannot fetch the pretrained weights of {name} ({reason}); download them elsewhere and give "
        "model: {checkpoint: FILE.safetensors}"
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint without running any code from it.

    Args:
        path: a .safetensors file, or a PyTorch file that holds tensors only.

    Raises:
        InputError: truncated, of another kind, or a pickle that would run code.
    """
    try:
        with open(path, "rb") as stream:
            magic = stream.read(16)
    except OSError as error:
        raise InputError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    if path.suffix == ".safetensors" or not magic.startswith(_PICKLE_MAGICS):
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


def _load_checkpoint(model: nn.Module, name: str, path: Path) -> None:
    """Load a checkpoint strictly; a foreign one is refused with what differs."""
    state = read_state_dict(path)
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


def fingerprint(model: nn.Module) -> str:
    """Hex SHA-256 over names, shapes, dtypes and bytes of a model's state; the same for the same weights."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key}:{tuple(value.shape)}:{value.dtype};".encode())
        digest.update(value.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def preprocessing(model: nn.Module, overrides: Mapping[str, Any] | None = None) -> Preprocess:
    """The model's own preprocessing from timm's data config, with explicit overrides on top."""
    logging.getLogger("timm").setLevel(logging.ERROR)
    config = timm.data.resolve_data_config({}, model=model)
    shape = describe(model)
    config["input_size"] = shape.image_size  # args such as img_size win over the published config
    config |= {key: value for key, value in (overrides or {}).items() if value is not None}
    return Preprocess(
        input_size=tuple(config["input_size"]),
        mean=tuple(float(value) for value in config["mean"]),
        std=tuple(float(value) for value in config["std"]),
        interpolation=str(config["interpolation"]),
        crop_pct=float(config["crop_pct"]),
        crop_mode=str(config["crop_mode"]),
    )
