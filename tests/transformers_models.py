"""Small models of `transformers` with random weights, in the layouts that its versions leave."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers

logging.getLogger("transformers").setLevel(logging.ERROR)
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {**{key: SMALL[key] for key in list(SMALL)[:4]}, "vocab_size": 64, "bos_token_id": 0, "eos_token_id": 1}
CLASSES = {"id2label": {0: "cat", 1: "dog", 2: "emu"}, "label2id": {"cat": 0, "dog": 1, "emu": 2}}
RELATIVE = {"use_relative_position_bias": True}
SHARED = {"use_shared_relative_position_bias": True, "use_absolute_position_embeddings": True}
GATED = {"num_register_tokens": 2, "query_bias": False, "value_bias": False, "use_gated_mlp": True}
WINDOWS = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}


def _made(model: str, config: str, **settings: Any) -> Callable[[], Any]:
    """Makes a model of a class with a configuration of another."""

    def make() -> Any:
        return getattr(transformers, model)(getattr(transformers, config)(**settings))

    return make


def _two_towers(model: str, config: str, **settings: Any) -> Callable[[], Any]:
    return _made(model, config, vision_config=SMALL, text_config=TEXT, **settings)


# By what docs/models.md calls them.
CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "ViT": _made("ViTForImageClassification", "ViTConfig", **SMALL, **CLASSES),
    "ViT, tanh GELU": _made("ViTForImageClassification", "ViTConfig", **SMALL, **CLASSES, hidden_act="gelu_new"),
    "DeiT": _made("DeiTForImageClassification", "DeiTConfig", **SMALL, **CLASSES),
    "DeiT, distilled": _made("DeiTForImageClassificationWithTeacher", "DeiTConfig", **SMALL, **CLASSES),
    "BEiT": _made("BeitForImageClassification", "BeitConfig", **SMALL, **CLASSES, **RELATIVE),
    "BEiT, shared": _made(
        "BeitForImageClassification", "BeitConfig", **SMALL, **CLASSES, **SHARED, use_mean_pooling=False
    ),
    "CLIP, image tower and projection": _made(
        "CLIPVisionModelWithProjection", "CLIPVisionConfig", **SMALL, projection_dim=16
    ),
    "CLIP, whole": _two_towers("CLIPModel", "CLIPConfig", projection_dim=16),
    "CLIP, classifier": _two_towers("CLIPForImageClassification", "CLIPConfig", **CLASSES),
    "SigLIP, classifier": _two_towers("SiglipForImageClassification", "SiglipConfig", **CLASSES),
    "Swin": _made("SwinForImageClassification", "SwinConfig", **WINDOWS, **CLASSES),
}
BACKBONES: dict[str, Callable[[], Any]] = {
    "ViT": _made("ViTModel", "ViTConfig", **SMALL),
    "DINOv2": _made("Dinov2Model", "Dinov2Config", **SMALL),
    "DINOv2, gated": _made("Dinov2Model", "Dinov2Config", **SMALL, use_swiglu_ffn=True),
    "DINOv2 with registers": _made("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", **SMALL),
    "DINOv3 ViT": _made("DINOv3ViTModel", "DINOv3ViTConfig", **SMALL, num_register_tokens=4),
    "DINOv3 ViT, gated": _made("DINOv3ViTModel", "DINOv3ViTConfig", **SMALL, **GATED, hidden_act="silu"),
    "CLIP, image tower": _made("CLIPVisionModel", "CLIPVisionConfig", **SMALL),
    "SigLIP, image tower": _made("SiglipVisionModel", "SiglipVisionConfig", **SMALL),
}
MODELS = CLASSIFIERS | {f"{name}, features": make for name, make in BACKBONES.items()}
UNFIT = _made("Dinov2ForImageClassification", "Dinov2Config", **SMALL, **CLASSES)


def large(name: str, **settings: Any) -> Any:
    """A classifier of a kind (ViT, DeiT) that has more blocks or tokens."""
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **CLASSES, **settings})
    return getattr(transformers, f"{name}ForImageClassification")(config)


def drawn(make: Callable[[], Any]) -> Any:
    """A model whose every number is drawn, so that no tensor is another's."""
    model = make()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, value in model.named_parameters():
            one = 1.0 if "norm" in key and key.endswith("weight") else 0.0
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2 + one)
    return model.eval()


def saved(model: Any, folder: Path, form: str = "5.x") -> Path:
    """A folder of a model: with the names that 5.x has in memory, or those of 4.x, which 5.x still writes to files."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    if form == "4.x":
        state = of_four(state)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(model.config.to_dict() | {"architectures": [type(model).__name__]}))
    return folder


# What 5.x has in memory, and 4.x had, by hand.
_FOUR = (
    (r"^((?:vit|deit|beit)\.)?layers\.(\d+)\.", r"\1encoder.layer.\2."),
    (r"^((?:beit)\.)?shared_position_bias\.", r"\1encoder.relative_position_bias."),
    (r"^model\.layer\.", "layer."),
    (r"(encoder\.layer\.\d+)\.relative_position_bias\.", r"\1.attention.attention.relative_position_bias."),
    (r"(encoder\.layer\.\d+\.)attention\.o_proj", r"\1attention.output.dense"),
    (r"(encoder\.layer\.\d+\.)attention\.([qkv])_proj", r"\1attention.attention.\2"),
    (r"(blocks\.\d+\.)attention\.o_proj", r"\1attention.output.dense"),
    (r"(blocks\.\d+\.)attention\.([qkv])_proj", r"\1attention.self.\2"),
    (r"(blocks\.\d+\.)attention\.relative_position_bias\.relative", r"\1attention.self.relative"),
    (r"((?:attention|self)\.)q\.", r"\1query."),
    (r"((?:attention|self)\.)k\.", r"\1key."),
    (r"((?:attention|self)\.)v\.", r"\1value."),
)
_FOUR_MLP = ((r"\.mlp\.fc1\.", ".intermediate.dense."), (r"\.mlp\.fc2\.", ".output.dense."))


def of_four(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names of 4.x, queries and keys apart as they were; DINOv2's gate and other half in one."""
    layered = any(".layernorm_before." in key for key in state)
    made: dict[str, Tensor] = {}
    for key, value in state.items():
        for old, new in (*_FOUR, *(_FOUR_MLP if layered else ())):
            key = re.sub(old, new, key)
        made[key] = value
    for gate in [key for key in made if key.startswith("encoder.") and ".gate_proj." in key]:
        packed = torch.cat((made.pop(gate), made.pop(gate.replace("gate_proj", "up_proj"))))
        made[gate.replace("gate_proj", "weights_in")] = packed
        down = gate.replace("gate_proj", "down_proj")
        made[down.replace("down_proj", "weights_out")] = made.pop(down)
    return made


def written(model: Any, folder: Path) -> dict[str, Tensor]:
    """What the installed version writes of a model."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def outputs(model: Any, images: Tensor) -> Tensor:
    """What a model of `transformers` says of images: logits, or one vector for each."""
    with torch.inference_mode():
        if hasattr(model, "get_image_features"):
            given = model.get_image_features(images)
            found: Tensor = given if isinstance(given, Tensor) else given.pooler_output
            return found
        given = model(images)
        for key in ("logits", "image_embeds"):
            if getattr(given, key, None) is not None:
                return getattr(given, key)  # type: ignore[no-any-return]
        if type(model).__name__ == "ViTModel":  # its pooler has a layer of its own, made for pretraining
            return given.last_hidden_state[:, 0]  # type: ignore[no-any-return]
        return given.pooler_output  # type: ignore[no-any-return]
