"""Small models and budgets that the tests build from."""

from __future__ import annotations

from typing import Any

import torch

SMALL = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 4, "num_heads": 3, "num_classes": 7}


def small_vit(name: str = "vit_tiny_patch16_224", seed: int = 0, sharp: float = 4.0, **args: Any) -> Any:
    """A small random ViT whose attention is not near-uniform, so that decisions are no near-ties."""
    from vitrim.exporter.models import create_model

    model: Any = create_model(name, args={**SMALL, **args}, random=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(sharp)
        for key, value in model.named_parameters():
            if key.endswith(("gamma", "bias", "token", "q_norm.weight", "k_norm.weight")):
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
    from vitrim.exporter.budget import parse_budget
    from vitrim.exporter.models import describe

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
    from vitrim.exporter.trace import quiet, strip_exporter_notes

    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(), (x,), dynamo=True, opset_version=20, input_names=["x"], output_names=["y"], verbose=False
        )
    assert program is not None
    model = program.model_proto
    strip_exporter_notes(model)
    return model
