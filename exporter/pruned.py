"""The model with a budget applied: an explicit forward over timm's own submodules.

Blocks that remove nothing run as timm's own modules, so a budget without stages is bit-identical to timm. Only a
stage's block is spelled out, because a fused attention does not hand out its matrix. Nothing of timm is replaced
and no state is kept between calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from .budget import Budget, check_legal
from .methods import get_method
from .methods.stage import Evidence, Selection, parse_parameters, parse_stage
from .models import describe

Output = Literal["logits", "kept", "gap", "tokens"]


@dataclass
class Trace:
    """One forward pass in plain sight.

    Attributes:
        logits: [batch, classes].
        kept: by block, [batch, tokens after it] int64 original token ids, ascending.
        gap: by block, [batch] smallest relative score gap at the stage's cuts.
        tokens: by block, [batch, tokens, width] after the block; filled on request.
    """

    logits: Tensor | None = None
    kept: dict[int, Tensor] = field(default_factory=dict)
    gap: dict[int, Tensor] = field(default_factory=dict)
    tokens: dict[int, Tensor] = field(default_factory=dict)


def attend(attn: Any, x: Tensor, *, weights: bool = True) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """timm's `Attention.forward` spelled out over its submodules, with what a stage wants to see.

    Args:
        attn: a timm `Attention`.
        x: [batch, tokens, width], already normalized.
        weights: materialize the attention matrix (as timm does without fused attention).

    Returns:
        the block's attention output [batch, tokens, width], the softmax attention [batch, heads, tokens, tokens]
        (None without `weights`), keys and values [batch, heads, tokens, head_dim].
    """
    batch, tokens, _ = x.shape
    qkv = attn.qkv(x).reshape(batch, tokens, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    q, k = attn.q_norm(q), attn.k_norm(k)
    attention = None
    if weights:
        attention = ((q * attn.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        out = attention @ v
    else:
        out = nn.functional.scaled_dot_product_attention(q, k, v)
    out = attn.norm(out.transpose(1, 2).reshape(batch, tokens, attn.attn_dim))
    if attn.gate is not None:
        out = out * attn.gate(x).sigmoid()
    return attn.proj(out), attention, k, v


def take(x: Tensor, selection: Selection, keep: int) -> Tensor:
    """The selected rows of [batch, tokens, width], in the selection's order."""
    if selection.kept is None:
        return x[:, :keep]
    return x.gather(1, selection.kept.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


class PrunedViT(nn.Module):
    """A timm VisionTransformer that follows a static budget.

    Args:
        model: a supported timm model in eval mode; used as it is, not copied.
        budget: a plan that fits it.
        outputs: what `forward` returns, in this order: `logits`, then per stage `kept` ids (int32), `gap`s, and
            per block `tokens`.

    Raises:
        UnsupportedError: the model is of a kind that vitrim does not take.
        InputError: the budget does not fit the model or its method.
    """

    def __init__(self, model: nn.Module, budget: Budget, outputs: tuple[Output, ...] = ("logits",)) -> None:
        super().__init__()
        shape = describe(model)
        check_legal(
            budget,
            depth=shape.depth,
            tokens=shape.tokens,
            prefix_tokens=shape.prefix_tokens,
            prefix_pooled=shape.prefix_pooled,
        )
        self.model: Any = model
        self.budget = budget
        self.outputs = outputs
        self.shape = shape
        method = get_method(budget.method)
        self.method_parameters = parse_parameters(budget.parameters, method.Parameters, "parameters")
        self.stage_options: dict[int, BaseModel] = {
            row.block: parse_stage(row, method.StageOptions) for row in budget.stages
        }
        check_stage = getattr(method, "check_stage", None)
        for row in budget.stages:
            if check_stage is None or row.after == shape.prefix_tokens:
                continue  # nothing is chosen where no patch stays
            options = self.stage_options[row.block]
            check_stage(row.before, row.after, shape.prefix_tokens, options, f"blocks[{row.block}]")

    def output_names(self) -> list[str]:
        """Names of what `forward` returns, in order."""
        stages = [row.block for row in self.budget.stages]
        names: list[str] = []
        for output in self.outputs:
            if output == "logits":
                names.append("logits")
            elif output == "tokens":
                names += [f"tokens_{block}" for block in range(self.shape.depth)]
            else:
                names += [f"{output}_{block}" for block in stages]
        return names

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run [batch, channels, height, width] images; see `outputs`."""
        trace = self.trace(image, tokens="tokens" in self.outputs)
        results: list[Tensor] = []
        for name in self.output_names():
            kind, _, block = name.partition("_")
            value = getattr(trace, kind)
            result = value if kind == "logits" else value[int(block)]
            results.append(result.to(torch.int32) if kind == "kept" else result)
        return results[0] if len(results) == 1 else tuple(results)

    def trace(self, image: Tensor, replay: Mapping[int, Tensor] | None = None, tokens: bool = False) -> Trace:
        """Run the model and return every decision beside the logits.

        Args:
            image: [batch, channels, height, width].
            replay: by block, [batch, tokens after] original token ids to keep instead of deciding.
            tokens: also return the tokens after every block.
        """
        model, trace = self.model, Trace()
        x = embed(model, image)
        ids = torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)
        for row, block in zip(self.budget.blocks, model.blocks, strict=True):
            if row.is_stage:
                wanted = None if replay is None else replay[row.block]
                x, ids, gap = self._stage(block, x, ids, row.block, row.after, wanted)
                trace.kept[row.block] = ids
                if gap is not None:
                    trace.gap[row.block] = gap
            else:
                x = block(x)
            if tokens:
                trace.tokens[row.block] = x
        trace.logits = model.forward_head(model.norm(x))
        return trace

    def _stage(
        self, block: Any, x: Tensor, ids: Tensor, index: int, keep: int, wanted: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One block that removes tokens; returns its tokens, their original ids and the gap at the cut."""
        method = get_method(self.budget.method)
        chooses = keep > self.shape.prefix_tokens  # where no patch stays, there is nothing to score
        weights = chooses and method.NEEDS_ATTENTION
        out, attention, keys, values = attend(block.attn, block.norm1(x), weights=weights)
        x = x + block.ls1(out)
        if self.budget.place == "after_block":
            x = x + block.ls2(block.mlp(block.norm2(x)))
        if not chooses:
            selection = Selection(None)
        elif wanted is None:
            evidence = Evidence(attention, keys, values, self.shape.prefix_tokens, self.shape.class_token)
            selection = method.select(evidence, keep, self.stage_options[index], self.method_parameters)
        else:
            selection = Selection((ids.unsqueeze(1) == wanted.unsqueeze(2)).to(torch.uint8).argmax(2))
        ids = ids[:, :keep] if selection.kept is None else ids.gather(1, selection.kept)
        x = take(x, selection, keep)
        if self.budget.place == "before_mlp":
            x = x + block.ls2(block.mlp(block.norm2(x)))
        gap = torch.full_like(x[:, 0, 0], float("inf")) if selection.gap is None else selection.gap
        return x, ids, gap


def embed(model: Any, image: Tensor) -> Tensor:
    """Everything before the first block, as timm's `forward_features` does it."""
    return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(image))))


class TorchRunner:
    """A pruned (or, with a budget without stages, dense) model behind the runner interface.

    Attributes:
        name: shown in parity tables.
        batch: images per call.
    """

    def __init__(self, pruned: PrunedViT, batch: int, name: str = "torch") -> None:
        self.pruned, self.batch, self.name = pruned.eval(), batch, name

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, replay: Mapping[int, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Run [batch, 3, height, width] float32 images; returns logits, kept_<block> (int32) and gap_<block>."""
        wanted = None if replay is None else {b: torch.from_numpy(ids).long() for b, ids in replay.items()}
        trace = self.pruned.trace(torch.from_numpy(np.ascontiguousarray(image)), wanted)
        assert trace.logits is not None
        result = {"logits": trace.logits.numpy()}
        result |= {f"kept_{block}": ids.to(torch.int32).numpy() for block, ids in trace.kept.items()}
        return result | {f"gap_{block}": gap.numpy() for block, gap in trace.gap.items()}
