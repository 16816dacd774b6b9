"""What a model's `config.json` says: the timm model that it is, with its arguments, or why timm has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import timm

from ...core.errors import InputError, excerpt
from .names import Style

_ACTIVATIONS = {
    "gelu": None,  # timm's own
    "quick_gelu": "quick_gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_NAMED = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1152: "so400m", 1280: "huge", 1536: "giant"}
# Of the classes of `transformers`, those whose outputs a timm model has.
_CLASSES = ("ForImageClassification", "ForImageClassificationWithTeacher", "Model", "ModelWithProjection")


@dataclass(frozen=True)
class Described:
    """A timm model that stands in a file beside its weights.

    Attributes:
        name: of the timm model.
        args: of it, but for its number of classes, which the weights tell.
        epsilon: of all its layer norms; None leaves timm's.
        style: how its tensors are named, if that is as in `transformers`; None where it is as in timm.
        images: what of timm's data config is said beside it, such as `mean`; and `label_names`.
        resampled: whether the model takes images of any size, its positions resampled or computed as it runs.
        unfit: why timm has no such classifier; empty where it has.
    """

    name: str
    args: dict[str, Any] = field(default_factory=dict)
    epsilon: float | None = None
    style: Style | None = None
    images: dict[str, Any] = field(default_factory=dict)
    resampled: bool = False
    unfit: str = ""


class Config:
    """A config.json, whose values are asked for with their types.

    Args:
        data: of the file, or a part of it.
        shown: the file, for messages.
    """

    def __init__(self, data: Mapping[str, Any], shown: str) -> None:
        self.data, self.shown = data, shown

    def number(self, key: str, default: float | None = None) -> float:
        """A number.

        Raises:
            InputError: it is none, or not there.
        """
        value = self.data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"{self.shown}: {key} is {excerpt(repr(value), 40)}; a number is wanted")
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number above 0."""
        value = self.number(key, default)
        if value != int(value) or not 0 < value < 1 << 24:
            raise InputError(f"{self.shown}: {key} is {excerpt(value, 40)}; a whole number above 0 is wanted")
        return int(value)

    def size(self, key: str, default: int | None = None) -> int | list[int]:
        """One side, or height and width."""
        value = self.data.get(key, default)
        if isinstance(value, list) and len(value) == 2:
            pair = [Config({key: one}, self.shown).whole(key) for one in value]
            return pair[0] if pair[0] == pair[1] else pair
        return self.whole(key, default)

    def wholes(self, key: str) -> list[int]:
        """A list of whole numbers above 0."""
        value = self.data.get(key)
        if not isinstance(value, list) or not value:
            raise InputError(f"{self.shown}: {key} is {excerpt(repr(value), 40)}; a list of numbers is wanted")
        return [Config({key: one}, self.shown).whole(key) for one in value]

    def flag(self, key: str, default: bool = False) -> bool:
        """Whether something is on."""
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            raise InputError(f"{self.shown}: {key} is {excerpt(repr(value), 40)}; true or false is wanted")
        return value

    def only(self, key: str, wanted: bool) -> None:
        """Refuse a model whose switch stands otherwise than timm's models have it."""
        if self.flag(key, wanted) is not wanted:
            raise InputError(f"{self.shown}: {key} is {str(not wanted).lower()}, and timm has no such model")

    def part(self, key: str) -> Config:
        """The settings of a part, such as the image tower; these themselves where there is no such part."""
        value = self.data.get(key)
        return Config(value, self.shown) if isinstance(value, dict) else self


def describe_config(data: Mapping[str, Any], names: Mapping[str, Any], shown: str) -> Described:
    """The timm model of a `config.json` of `transformers`.

    Args:
        data: of the file.
        names: of the tensors beside it.
        shown: the file, for messages.

    Raises:
        InputError: it names a model, or a setting, that timm does not have.
    """
    config, kind = Config(data, shown), str(data.get("model_type"))
    if isinstance(data.get("auto_map"), dict) and any(str(key).startswith("AutoModel") for key in data["auto_map"]):
        raise InputError(f"{shown}: auto_map says that the model is code of its own, which vitrim does not run")
    if kind not in _KINDS:
        raise InputError(
            f"{shown}: model_type is {excerpt(kind, 40)}, which vitrim takes from no config.json (it takes "
            f"{', '.join(sorted(_KINDS))}); save the weights of a timm model and give model.name"
        )
    classes = [str(one) for one in data.get("architectures") or ()]
    if classes and not classes[0].endswith(_CLASSES):
        raise InputError(
            f"{shown}: architectures says {excerpt(classes[0], 60)}; an image classifier or its backbone is wanted"
        )
    classified = any(key.startswith(("classifier.", "cls_classifier.")) for key in names)
    return _KINDS[kind](config, classified, names)


def is_kind(data: Mapping[str, Any]) -> bool:
    """Whether a config.json is of a model of `transformers`, taken or not, and not timm's."""
    return "model_type" in data and "architecture" not in data


def _name(stem: str, width: int, tail: str) -> str:
    """A timm model by its width; the base one where none is as wide, as arguments say the rest."""
    found = stem.format(_NAMED.get(width, "base")) + tail
    return found if timm.is_model(found) else stem.format("base") + tail


def _ratio(width: int, hidden: int) -> float:
    """The `mlp_ratio` of which timm makes as many hidden neurons."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _plain(config: Config, hidden: int | None = None) -> dict[str, Any]:
    """What all plain ViTs have."""
    width = config.whole("hidden_size")
    return {
        "img_size": config.size("image_size", 224),
        "patch_size": config.size("patch_size", 16),
        "in_chans": config.whole("num_channels", 3),
        "embed_dim": width,
        "depth": config.whole("num_hidden_layers"),
        "num_heads": config.whole("num_attention_heads"),
        "mlp_ratio": _ratio(width, hidden or config.whole("intermediate_size")),
    }


def _activation(config: Config, default: str = "gelu", fixed: bool = False) -> dict[str, Any]:
    """The activation as an argument; fixed: the timm model takes no other than its own."""
    value = config.data.get("hidden_act", default)
    if value not in _ACTIVATIONS or (fixed and value != "gelu"):
        raise InputError(f"{config.shown}: hidden_act is {excerpt(repr(value), 40)}, and timm has no such model")
    found = _ACTIVATIONS[value]
    return {} if found is None else {"act_layer": found}


def _vit(config: Config, classified: bool, names: Mapping[str, Any]) -> Described:
    args = {**_plain(config), "qkv_bias": config.flag("qkv_bias", True), **_activation(config)}
    name = _name("vit_{}_patch16_", args["embed_dim"], "224")
    return Described(name, args, config.number("layer_norm_eps", 1e-12), Style())


def _deit(config: Config, classified: bool, names: Mapping[str, Any]) -> Described:
    distilled = any(key.startswith("distillation_classifier.") for key in names)
    args = {**_plain(config), "qkv_bias": config.flag("qkv_bias", True), **_activation(config)}
    if not distilled:
        args["reg_tokens"] = 1  # the distillation token is there and no classifier reads it
    name = _name("deit_{}_", args["embed_dim"], "distilled_patch16_224" if distilled else "patch16_224")
    return Described(name, args, config.number("layer_norm_eps", 1e-12), Style(distilled=distilled))


def _beit(config: Config, classified: bool, names: Mapping[str, Any]) -> Described:
    mean = config.flag("use_mean_pooling", True)
    _activation(config, fixed=True)
    args = {
        **_plain(config),
        "global_pool": "avg" if mean else "token",
        "init_values": config.number("layer_scale_init_value", 0.1) or None,
        "use_abs_pos_emb": config.flag("use_absolute_position_embeddings"),
        "use_rel_pos_bias": config.flag("use_relative_position_bias"),
        "use_shared_rel_pos_bias": config.flag("use_shared_relative_position_bias"),
    }
    name = _name("beit_{}_patch16_", args["embed_dim"], "224")
    return Described(name, args, config.number("layer_norm_eps", 1e-12), Style())


def _dinov2(config: Config, classified: bool, names: Mapping[str, Any]) -> Described:
    registers = config.whole("num_register_tokens", 4) if config.data["model_type"] != "dinov2" else 0
    gated = config.flag("use_swiglu_ffn")
    width = config.whole("hidden_size")
    hidden = int(width * config.number("mlp_ratio", 4))
    if gated:
        hidden = 2 * ((int(hidden * 2 / 3) + 7) // 8 * 8)
    args = {
        **_plain(config, hidden),
        "qkv_bias": config.flag("qkv_bias", True),
        "init_values": 1e-5,  # that there are such factors; the file has them
        **({} if gated else _activation(config)),
        **({"reg_tokens": registers} if registers else {}),
    }
    tail = "reg4_dinov2" if registers else "dinov2"
    name = f"vit_giant_patch14_{tail}" if gated else _name("vit_{}_patch14_", width, tail)
    unfit = "its classifier reads the class token beside the mean of the patches, and timm has no such model"
    epsilon, style = (
        config.number("layer_norm_eps", 1e-6),
        Style(registers=bool(registers), gated="packed" if gated else ""),
    )
    return Described(name, args, epsilon, style, resampled=True, unfit=unfit if classified else "")


def _dinov3(config: Config, classified: bool, names: Mapping[str, Any]) -> Described:
    for key, wanted in (("key_bias", False), ("proj_bias", True), ("mlp_bias", True)):
        config.only(key, wanted)
    biased, gated = config.flag("query_bias", True), config.flag("use_gated_mlp")
    config.only("value_bias", biased)
    if gated:
        if config.data.get("hidden_act") not in ("silu", "swish"):
            raise InputError(f"{config.shown}: hidden_act of a gated MLP is no silu, and timm has no such model")
    else:
        _activation(config, fixed=True)
    args = {
        **_plain(config),
        "qkv_bias": biased,
        "num_reg_tokens": config.data.get("num_register_tokens", 0),
        "rope_temperature": config.number("rope_theta", 100.0),
        "global_pool": "token",
        "init_values": 1e-5,  # that there are such factors; the file has them
        **({"swiglu_mlp": True, "swiglu_align_to": 8} if gated else {}),
    }
    name = _name("vit_{}_patch16_", args["embed_dim"], "dinov3_qkvb" if biased else "dinov3")
    style = Style(scale="gamma_{}", gated="split" if gated else "")
    return Described(name, args, config.number("layer_norm_eps", 1e-5), style, resampled=True)


def _clip(config: Config, classified: bool, names: Mapping[str, Any]) -> Described:
    config = config.part("vision_config")
    args = {**_plain(config), **_activation(config, "quick_gelu")}
    if classified:
        args |= {"global_pool": "avg", "final_norm": False, "fc_norm": False}
    width, patch = args["embed_dim"], args["patch_size"]
    quick = "quickgelu_" if args.get("act_layer") == "quick_gelu" else ""
    name = _name("vit_{}_" + f"patch{patch}_clip_{quick}", width, "224")
    name = name if timm.is_model(name) else f"vit_base_patch16_clip_{quick}224"
    style = Style(dropped=("post_layernorm.",) if classified else ())
    return Described(name, args, config.number("layer_norm_eps", 1e-5), style)


def _siglip(config: Config, classified: bool, names: Mapping[str, Any]) -> Described:
    config = config.part("vision_config")
    args = {**_plain(config), **_activation(config, "gelu_pytorch_tanh")}
    if classified:
        args |= {"global_pool": "avg", "fc_norm": False}
    else:
        config.only("vision_use_head", True)
    name = _name("vit_{}_patch16_siglip_", args["embed_dim"], "256")
    style = Style(dropped=("head.",) if classified else ())
    return Described(name, args, config.number("layer_norm_eps", 1e-6), style)


def _swin(config: Config, classified: bool, names: Mapping[str, Any]) -> Described:
    _activation(config, fixed=True)
    config.only("use_absolute_embeddings", False)
    epsilon = config.number("layer_norm_eps", 1e-5)
    if epsilon != 1e-5:  # the norms of its stem and between its stages have that whatever it is
        raise InputError(f"{config.shown}: layer_norm_eps is {epsilon}, and timm has no such Swin; it has 1e-05")
    depths, width = config.wholes("depths"), config.whole("embed_dim")
    args = {
        "img_size": config.size("image_size", 224),
        "patch_size": config.whole("patch_size", 4),
        "in_chans": config.whole("num_channels", 3),
        "embed_dim": width,
        "depths": depths,
        "num_heads": config.wholes("num_heads"),
        "window_size": config.whole("window_size", 7),
        "mlp_ratio": config.number("mlp_ratio", 4.0),
        "qkv_bias": config.flag("qkv_bias", True),
    }
    size = {128: "base", 192: "large"}.get(width, "small" if depths[2:3] == [18] else "tiny")
    return Described(f"swin_{size}_patch4_window7_224", args, epsilon, Style())


_KINDS: dict[str, Callable[[Config, bool, Mapping[str, Any]], Described]] = {
    "vit": _vit,
    "deit": _deit,
    "beit": _beit,
    "dinov2": _dinov2,
    "dinov2_with_registers": _dinov2,
    "dinov3_vit": _dinov3,
    "clip": _clip,
    "clip_vision_model": _clip,
    "siglip": _siglip,
    "siglip_vision_model": _siglip,
    "swin": _swin,
}
