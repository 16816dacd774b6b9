"""Checkpoints as trainers and other libraries leave them, rebuilt from small timm models."""

from __future__ import annotations

import argparse
import re
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

State = dict[str, Tensor]
TINY = {"img_size": 32, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 7}


@dataclass(frozen=True)
class Layout:
    """A layout.

    Attributes:
        save: makes what is saved of the tensors of a model.
        name, args: the timm model.
        said: what the note, or the refusal, says of it; empty where nothing is said.
        options: of `create_model`.
        legacy: whether it is saved as PyTorch did before 1.6.
        by_timm: whether timm's own loading step takes the file, too.
        projection: whether the classifier has no bias.
    """

    save: Callable[[State], Any]
    name: str = "vit_tiny_patch16_224"
    args: dict[str, Any] | None = None
    said: str = ""
    options: dict[str, Any] | None = None
    legacy: bool = False
    by_timm: bool = True
    projection: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        return {**TINY, **({} if self.args is None else self.args)}


def model_of(name: str, seed: int = 0, **args: Any) -> Any:
    """A small model whose every number is drawn, so that no tensor is another's."""
    model: Any = timm.create_model(name, **args)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.is_floating_point() and not key.startswith("rope"):
                value.copy_(torch.randn(value.shape, generator=generator) * 0.2 + (1.0 if "norm" in key else 0.0))
    return model.eval()


SETTINGS: dict[str, type] = {
    "easydict.EasyDict": dict,
    "mmengine.logging.history_buffer.HistoryBuffer": object,
    "omegaconf.dictconfig.DictConfig": object,
    "pytorch_lightning.utilities.parsing.AttributeDict": dict,
    "yacs.config.CfgNode": dict,
}


def _method(module: str, name: str) -> Callable[[Any], float]:
    def method(self: Any) -> float:
        return 0.0

    method.__module__, method.__qualname__, method.__name__ = module, name, name.rpartition(".")[2]
    return method


@contextmanager
def trainers() -> Iterator[dict[str, Any]]:
    """Classes of packages that are not installed, by name, for as long as something of theirs is saved."""
    before, classes = dict(sys.modules), {}
    try:
        for path, base in SETTINGS.items():
            module, _, name = path.rpartition(".")
            parts = module.split(".")
            for at in range(len(parts)):
                sys.modules.setdefault(".".join(parts[: at + 1]), types.ModuleType(parts[at]))
            methods = {"__module__": module, "__qualname__": name}
            classes[path] = type(name, (base,), methods | {"mean": _method(module, f"{name}.mean")})
            setattr(sys.modules[module], name, classes[path])
        yield classes
    finally:
        for path in sys.modules.keys() - before.keys():
            del sys.modules[path]


def of_trainer(path: str, /, **held: Any) -> Any:
    """An object of a trainer's class: a dictionary of its kind, or one with attributes."""
    module, _, name = path.rpartition(".")
    made = getattr(sys.modules[module], name)()
    if isinstance(made, dict):
        made.update(held)
    made.__dict__.update(held)
    return made


def renamed(state: State, *rules: tuple[str, str], prefix: str = "") -> State:
    """Tensors under other names."""
    found = {}
    for key, value in state.items():
        name = key
        for old, new in rules:
            name = re.sub(old, new, name)
        found[prefix + name] = value
    return found


def other(state: State) -> State:
    """Tensors of the same names and shapes that are not those wanted."""
    return {key: value + 1 for key, value in state.items()}


def adam(state: State) -> dict[str, Any]:
    """What AdamW keeps."""
    moments = {
        at: {"step": torch.tensor(9.0), "exp_avg": value, "exp_avg_sq": value}
        for at, value in enumerate(other(state).values())
    }
    return {"state": moments, "param_groups": [{"lr": np.float64(1e-3), "params": list(range(len(state)))}]}


def arguments_of_a_trainer() -> argparse.Namespace:
    return argparse.Namespace(lr=1e-3, output_dir=PosixPath("/runs"), device=torch.device("cpu"), seed=np.int64(5))


def timm_train(state: State) -> dict[str, Any]:
    return {
        "epoch": 3,
        "arch": "vit_tiny_patch16_224",
        "state_dict": other(state),
        "optimizer": adam(state),
        "args": arguments_of_a_trainer(),
        "state_dict_ema": state,
        "amp_scaler": {"scale": torch.tensor(65536.0)},
        "metric": np.float64(81.5),
        "version": 2,
    }


def lightning(state: State) -> dict[str, Any]:
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**renamed(state, prefix="model."), "criterion.weight": torch.ones(7)},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.8), "dirpath": "/runs"}},
        "optimizer_states": [adam(state)],
        "lr_schedulers": [{"last_epoch": 3}],
        "hyper_parameters": {"lr": 1e-3, "root": PosixPath("/data")},
    }


def lightning_with_settings(state: State) -> dict[str, Any]:
    settings = of_trainer("omegaconf.dictconfig.DictConfig", _metadata=None, _content={"lr": 1e-3})
    kept = of_trainer("pytorch_lightning.utilities.parsing.AttributeDict", lr=1e-3, settings=settings)
    return lightning(state) | {"hyper_parameters": kept}


def swin_official(state: State) -> dict[str, Any]:
    """Downsampling at the end of a stage, a plain head, buffers saved; settings of yacs beside."""
    found = renamed(
        state, (r"^layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample"), (r"^head\.fc\.", "head.")
    )
    for stage in range(2):
        found[f"layers.{stage}.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
        for block in range(2):
            found[f"layers.{stage}.blocks.{block}.attn.relative_position_index"] = torch.zeros(49, 49).long()
    settings = of_trainer("yacs.config.CfgNode", MODEL="swin")
    return {"model": found, "optimizer": adam(state), "config": settings, "max_accuracy": 81.2}


def mae_pretrained(state: State) -> dict[str, Any]:
    found = {key: value for key, value in state.items() if not key.startswith(("head", "fc_norm"))}
    found |= {"norm.weight": torch.ones(48), "norm.bias": torch.ones(48), "mask_token": torch.ones(1, 1, 24)}
    found |= {"decoder_embed.weight": torch.ones(24, 48), "decoder_blocks.0.norm1.weight": torch.ones(24)}
    return {"model": found | {"decoder_pos_embed": torch.ones(1, 5, 24), "decoder_pred.bias": torch.ones(768)}}


def mae_finetuned(state: State) -> dict[str, Any]:
    return {"model": state, "optimizer": adam(state), "epoch": 99, "args": arguments_of_a_trainer()}


TEXT = {
    "positional_embedding": torch.ones(77, 64), "text_projection": torch.ones(64, 7), "logit_scale": torch.tensor(4.6),
    "token_embedding.weight": torch.ones(10, 64), "ln_final.weight": torch.ones(64),
    "transformer.resblocks.0.ln_1.weight": torch.ones(64),
}  # fmt: skip


def open_clip(state: State) -> State:
    """OpenCLIP's and OpenAI's names of a ViT, the projection a matrix, a text tower beside."""
    found = renamed(
        {key: value for key, value in state.items() if not key.startswith("head")},
        ("^patch_embed.proj", "conv1"), ("^norm_pre", "ln_pre"), (r"^norm\.", "ln_post."),
        (r"^blocks\.", "transformer.resblocks."), (r"norm(\d)", r"ln_\1"), (r"qkv\.", "in_proj_"),
        (r"attn\.proj", "attn.out_proj"), (r"mlp\.fc1", "mlp.c_fc"), (r"mlp\.fc2", "mlp.c_proj"),
        prefix="visual.",
    )  # fmt: skip
    found["visual.class_embedding"] = found.pop("visual.cls_token")[0, 0]
    found["visual.positional_embedding"] = found.pop("visual.pos_embed")[0]
    return {**found, "visual.proj": state["head.weight"].T.contiguous(), **TEXT}


def open_clip_training(state: State) -> dict[str, Any]:
    return {
        "epoch": 32,
        "name": "run",
        "state_dict": renamed(open_clip(state), prefix="module."),
        "optimizer": adam({}),
    }


def open_clip_timm(state: State) -> State:
    """OpenCLIP around a timm ViT: the trunk, and a projection without bias as its head."""
    trunk = {key: value for key, value in state.items() if not key.startswith("head")}
    text = renamed(TEXT, prefix="text.")
    return {**renamed(trunk, prefix="visual.trunk."), "visual.head.proj.weight": state["head.weight"], **text}


def eva(state: State) -> State:
    """EVA-02's official names."""
    found = renamed(
        state, (r"mlp\.fc1_g", "mlp.w1"), (r"mlp\.fc1_x", "mlp.w2"), (r"mlp\.fc2", "mlp.w3"),
        (r"mlp\.norm", "mlp.ffn_ln"), (r"attn\.norm", "attn.inner_attn_ln"), (r"([qv])_proj\.bias", r"\1_bias"),
    )  # fmt: skip
    return found | {"rope.freqs_cos": torch.ones(4, 16), "rope.freqs_sin": torch.ones(4, 16)}


def beit(state: State) -> dict[str, Any]:
    index = {f"blocks.{block}.attn.relative_position_index": torch.zeros(5, 5).long() for block in range(2)}
    return {"model": {**state, **index}}


def deit3(state: State) -> dict[str, Any]:
    return {"model": renamed(state, (r"ls(\d)\.gamma", r"gamma_\1"))}


def mmengine(state: State) -> dict[str, Any]:
    """A log that names its own methods, as mmengine's does."""
    name = "mmengine.logging.history_buffer.HistoryBuffer"
    methods = {"mean": sys.modules["mmengine.logging.history_buffer"].HistoryBuffer.mean}
    log = {"train/loss": of_trainer(name, _log_history=np.arange(3.0), statistics_methods=methods)}
    settings = of_trainer("easydict.EasyDict", lr=1e-3)
    return {"meta": {"epoch": 3, "cfg": settings, "seed": np.int64(3)}, "state_dict": state, "message_hub": log}


def dino(state: State) -> dict[str, Any]:
    def network(held: State) -> State:
        return {**renamed(held, prefix="module.backbone."), "module.head.mlp.0.weight": torch.ones(8, 48)}

    loss = {"center": torch.zeros(1, 8)}
    return {"student": network(other(state)), "teacher": network(state), "dino_loss": loss, "optimizer": adam(state)}


def without_head(state: State) -> State:
    return {key: value for key, value in state.items() if not key.startswith("head")}


def reshaped(*, grid: int) -> Callable[[State], State]:
    """The table of positions of larger images."""

    def save(state: State) -> State:
        generator = torch.Generator().manual_seed(1)
        return {**state, "pos_embed": torch.randn(1, 1 + grid * grid, 48, generator=generator)}

    return save


SWIN = {
    "img_size": 56, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "num_classes": 7, "window_size": 7,
    "depth": None,
}  # fmt: skip
EVA02 = {"img_size": 28}
LOADS: dict[str, Layout] = {
    "timm, state dict": Layout(lambda state: state),
    "timm's train.py, with EMA": Layout(timm_train, said=r"state_dict_ema are taken, not those at state_dict"),
    "timm's train.py, without EMA": Layout(
        lambda state: timm_train(state) | {"state_dict": state, "state_dict_ema": other(state)},
        said=r"tensors at state_dict are taken, not those at state_dict_ema",
        options={"ema": False},
        by_timm=False,
    ),
    "EMA beside the model (`model_ema`)": Layout(
        lambda state: {"model": other(state), "model_ema": renamed(state, prefix="module.")},
        said="model_ema are taken, not those at model",
    ),
    "DDP": Layout(lambda state: renamed(state, prefix="module.")),
    "torch.compile": Layout(lambda state: renamed(state, prefix="_orig_mod.")),
    "torch.compile around DDP": Layout(lambda state: {"state_dict": renamed(state, prefix="_orig_mod.module.")}),
    "DDP around torch.compile": Layout(lambda state: {"model": renamed(state, prefix="module._orig_mod.")}),
    "SWA (`AveragedModel`)": Layout(
        lambda state: {**renamed(state, prefix="module."), "n_averaged": torch.tensor(9)},
        said="left out as no inference needs it: n_averaged",
        by_timm=False,
    ),
    "Lightning": Layout(
        lightning,
        said=r"at state_dict\.model are taken.*left out as beside the model: criterion\.weight",
        by_timm=False,
    ),
    "Lightning, hyperparameters of its own and OmegaConf's classes": Layout(
        lightning_with_settings, said=r"state_dict\.model are taken", by_timm=False
    ),
    "Lightning with torch.compile": Layout(
        lambda state: {"state_dict": renamed(state, prefix="model._orig_mod.")},
        said=r"state_dict\.model\._orig_mod are taken",
        by_timm=False,
    ),
    "mmengine's file around a timm model": Layout(mmengine, by_timm=False),
    "DINO, student and teacher, fine-tuned": Layout(
        dino,
        said=r"teacher\.backbone are taken, not those at student.*beside the model: head\.mlp\.0\.weight",
        options={"state": "teacher"},
        by_timm=False,
    ),
    "DeiT (Facebook)": Layout(lambda state: {"model": state}, "deit_tiny_patch16_224", legacy=True),
    "DeiT, distilled (Facebook)": Layout(lambda state: {"model": state}, "deit_tiny_distilled_patch16_224"),
    "DeiT-III (Facebook)": Layout(deit3, "deit3_small_patch16_224"),
    "MAE, fine-tuned (Facebook)": Layout(mae_finetuned, "vit_base_patch16_224", {"global_pool": "avg"}),
    "OpenCLIP, image tower and projection": Layout(
        open_clip,
        "vit_base_patch16_clip_224",
        said=r"left out as beside the model: .*head\.bias: zeros, as the layout has none",
        projection=True,
    ),
    "OpenCLIP, training file": Layout(
        open_clip_training, "vit_base_patch16_clip_224", said="head.bias: zeros", projection=True
    ),
    "OpenCLIP around a timm ViT": Layout(
        open_clip_timm, said="beside the model: text.*head.bias: zeros", projection=True
    ),
    "EVA-02 (official)": Layout(
        lambda state: {"module": eva(state)},
        "eva02_tiny_patch14_224",
        EVA02,
        said="left out as no inference needs it: rope.freqs_cos, rope.freqs_sin",
    ),
    "EVA-02-CLIP, image tower": Layout(
        lambda state: {**renamed(eva(state), prefix="visual."), **renamed(TEXT, prefix="text.")},
        "eva02_base_patch16_clip_224",
        said="as beside the model: text",
    ),
    "BEiT (official)": Layout(beit, "beit_base_patch16_224", said="relative_position_index"),
    "BEiT v2 (official)": Layout(
        lambda state: {"module": beit(state)["model"]}, "beitv2_base_patch16_224", said="relative_position_index"
    ),
    "Swin (official)": Layout(
        swin_official,
        "swin_tiny_patch4_window7_224",
        SWIN,
        said=r"no inference needs it: layers\.0.*relative_position_index, .* and 4 more",
    ),
    "timm, of larger images": Layout(
        reshaped(grid=4),
        said=r"resampled pos_embed \(1, 17, 48\) to \(1, 5, 48\); model\.args: \{img_size: 64.*\} takes them as they",
    ),
}
REFUSED: dict[str, Layout] = {
    "MAE, pretrained (Facebook)": Layout(
        mae_pretrained,
        "vit_base_patch16_224",
        {"global_pool": "avg"},
        said=r"has no classifier, and vitrim makes none up: model\.args: \{num_classes: 0\} takes its features",
    ),
    "DINOv2, backbone (Facebook)": Layout(
        lambda state: {**without_head(state), "mask_token": torch.zeros(1, 48)},
        "vit_small_patch14_dinov2",
        {"img_size": 28},
        said=r"2 missing, such as head\.bias; it has no classifier, .*num_classes: 0",
    ),
    "DINO, student and teacher": Layout(
        dino, said=r"tensors of several models \(student, teacher\); say which, such as model\.state: student"
    ),
    "timm, another number of classes": Layout(
        lambda state: state | {"head.weight": torch.ones(5, 48), "head.bias": torch.ones(5)},
        said=r"2 of other shapes.*it fits with model\.args: \{.*num_classes: 5",
    ),
    "timm, another number of channels": Layout(
        lambda state: state | {"patch_embed.proj.weight": torch.ones(48, 4, 16, 16)},
        said=r"it fits with model\.args: \{.*in_chans: 4",
    ),
    "DeiT, distilled, as a plain one": Layout(
        lambda state: {**state, "dist_token": torch.ones(1, 1, 48), "head_dist.bias": torch.ones(7)},
        said=r"2 unknown, such as dist_token; name the model that it was saved from",
    ),
    "AugReg, ImageNet-21k with a representation layer": Layout(
        lambda state: {**state, "pre_logits.fc.weight": torch.ones(48, 48)},
        said=r"1 unknown, such as pre_logits\.fc\.weight",
    ),
    "torchvision": Layout(
        lambda state: renamed(state, (r"^blocks\.(\d)", r"encoder.layers.encoder_layer_\1"), ("^head", "heads.head")),
        said=r"missing, such as blocks\.0.*name the model that it was saved from",
    ),
    "a pickled model": Layout(
        lambda state: model_of("vit_tiny_patch16_224", **TINY), said="such as .*, and loading it"
    ),
}


def save(layout: Layout, path: Path) -> Any:
    """Write a layout's file, and return the model that it is of."""
    args = {key: value for key, value in layout.arguments.items() if value is not None}
    model = model_of(layout.name, **args)
    if layout.projection:
        torch.nn.init.zeros_(model.head.bias)
    with trainers():
        torch.save(layout.save(dict(model.state_dict())), path, _use_new_zipfile_serialization=not layout.legacy)
    return model
