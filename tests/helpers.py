"""Small models and budgets that the tests build from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

SMALL = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 4, "num_heads": 3, "num_classes": 7}


def small_vit(name: str = "vit_tiny_patch16_224", seed: int = 0, sharp: float = 4.0, **args: Any) -> Any:
    """A small random ViT whose attention is not near-uniform, so that decisions are no near-ties."""
    from vitrim.exporter.pruning.load import create_model

    model: Any = create_model(name, args={**SMALL, **args}, random=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for block in model.blocks:
            attn = block.attn
            for layer in (attn.qkv,) if attn.qkv is not None else (attn.q_proj, attn.k_proj, attn.v_proj):
                layer.weight.mul_(sharp)
        for key, value in model.named_parameters():
            if "gamma" in key or key.endswith(("bias", "bias_table", "token", "q_norm.weight", "k_norm.weight")):
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3 + (0.5 if "gamma" in key else 0.1))
        model.head.weight.normal_(generator=generator)
    return model


def make_rows(depth: int, tokens: int, stages: dict[int, int], **options: Any) -> list[dict[str, Any]]:
    """Rows of a budget: `stages` maps a block to the tokens after it."""
    rows = []
    for block in range(depth):
        after = stages.get(block, tokens)
        rows.append({"block": block, "before": tokens, "after": after} | (options if after != tokens else {}))
        tokens = after
    return rows


def budget_for(
    model: Any, stages: dict[int, int], method: str = "zero_tprune", parameters: Any = None, **options: Any
) -> Any:
    """A budget for a model: `stages` maps a block to the tokens after it."""
    from vitrim.exporter.pruning.budget import parse_budget
    from vitrim.exporter.pruning.shape import describe

    shape = describe(model)
    return parse_budget(
        {
            "model": shape.name,
            "method": method,
            "parameters": parameters or {},
            "prefix_tokens": shape.prefix_tokens,
            "blocks": make_rows(shape.depth, shape.tokens, stages, **options),
        }
    )


def export_module(module: torch.nn.Module, x: torch.Tensor) -> Any:
    """A module as the pipeline traces one: dynamo, opset 20, input `x`, output `y`."""
    from vitrim.exporter.graph.trace import quiet, strip_exporter_notes

    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(), (x,), dynamo=True, opset_version=20, input_names=["x"], output_names=["y"], verbose=False
        )
    assert program is not None
    model = program.model_proto
    strip_exporter_notes(model)
    return model


SMALL_SWIN = {
    "img_size": 56, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "num_classes": 7, "window_size": 7,
}  # fmt: skip


def small_swin(seed: int = 0) -> Any:
    """A small random Swin of four blocks, the second and fourth shifted, with biases that are not zero."""
    from vitrim.exporter.pruning.load import create_model

    model: Any = create_model("swin_tiny_patch4_window7_224", args=SMALL_SWIN, random=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.endswith(("bias", "bias_table")) and value.numel():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    return model


def random_widths(model: Any, seed: int = 0) -> Any:
    """Random heads and neurons of every block, at least one of each that can leave."""
    from vitrim.exporter.pruning.slim import parts_of
    from vitrim.exporter.pruning.widths import Widths

    draw = np.random.default_rng(seed)

    def some(whole: int) -> list[int]:
        if not whole:
            return []
        return sorted(int(unit) for unit in draw.choice(whole, draw.integers(1, whole + 1), replace=False))

    rows = [
        {
            "block": part.path,
            "heads_before": part.heads,
            "heads": some(part.heads),
            "neurons_before": part.neurons,
            "neurons": some(part.neurons),
        }
        for part in parts_of(model)
    ]
    return Widths.model_validate({"blocks": rows})


def source_for(model: Any, count: int = 6, labelled: bool = True, seed: int = 0) -> Any:
    """Noise images of a model's size, with random labels or none."""
    from vitrim.calibration.images.in_memory import ArrayImages
    from vitrim.exporter.pruning.load import preprocessing

    preprocess = preprocessing(model)
    draw = np.random.default_rng(seed)
    images = draw.standard_normal((count, *preprocess.input_size), dtype=np.float32)
    labels = draw.integers(0, model.num_classes, count) if labelled else None
    return ArrayImages(images, labels, preprocess, f"noise({seed})")


def small_recipe(**sections: Any) -> dict[str, Any]:
    """A recipe that runs in seconds; sections are laid over its own, None takes one out."""
    args = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 4, "num_heads": 3, "num_classes": 10}
    recipe: dict[str, Any] = {
        "model": {"name": "vit_tiny_patch16_224", "args": args, "random": 0},
        "images": {"generator": "shapes", "count": 6},
        "evaluate": {"generator": "shapes", "count": 12, "seed": 9},
        "prune": {"method": "zero_tprune", "target": {"flops_ratio": 0.7}},
        "parity": {"images": 4, "golden": 2},
        "bench": {"runs": 5, "warmup": 0, "allow_slower": True},
    }
    for name, values in sections.items():
        recipe[name] = None if values is None else recipe.get(name, {}) | values
    return recipe


def make_evidence(seed: int, heads: int, patches: int, prefix: int, block: tuple[int, int] = (0, 1)) -> Any:
    """Random evidence of two images in float64."""
    from vitrim.exporter.pruning.methods.evidence import Evidence

    generator = torch.Generator().manual_seed(seed)
    tokens = patches + prefix

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(2, heads, *shape, generator=generator, dtype=torch.float64)

    attention = (draw(tokens, tokens) * 2).softmax(-1)
    return Evidence(attention, draw(tokens, 5), draw(tokens, 5), prefix, prefix > 0, block)


def attention_of(seed: int, batch: int = 1, heads: int = 3, tokens: int = 17, sharp: float = 2.0) -> torch.Tensor:
    """Random softmax attention [batch, heads, tokens, tokens] in float64."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(batch, heads, tokens, tokens, generator=generator, dtype=torch.float64) * sharp).softmax(-1)


def ends_in_a_line(run: Callable[[], object]) -> None:
    """Whatever it is given, it ends in a result, or in one line of a bearable length that a terminal can show."""
    from fuzz import held

    held(run, longest=799)


def attended(model: Any, index: int, x: torch.Tensor, **given: Any) -> tuple[torch.Tensor, Any]:
    """What a block's attention adds to all its tokens, normalized, and what they have shown each other."""
    from vitrim.exporter.pruning.block import look, mix, project

    seen = look(model, index, x, **given)
    return project(model.blocks[index], mix(seen), x), seen
