"""The model with a budget applied: an explicit forward over timm's own submodules.

Blocks that remove nothing run as timm's own modules, so a budget without stages is bit-identical to timm. Only a
stage's block is spelled out, because a fused attention does not hand out its matrix. Nothing of timm is replaced
and no state is kept between calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from ..core.errors import UnsupportedError
from .block import Places, Rows, attend, embed, follow, mlp, places_of, run_whole
from .budget import Budget, check_legal
from .methods import get_method
from .methods.base import Evidence, Merge, Selection, parse_parameters, parse_stage
from .shape import describe, image_size, model_name

PACKED = 65536
MASKED = 1e4  # taken from a logit, it leaves exactly 0 of a softmax, and float16 can hold it
Observer = Callable[[int, Evidence], None]
Output = Literal["logits", "kept", "merged", "gap", "tokens"]


@dataclass(frozen=True)
class State:
    """What one block hands to the next.

    Attributes:
        x: [batch, tokens, width].
        ids: [batch, tokens] int64, see `Trace.kept`.
        sizes: [batch, tokens], how many patches each token stands for; None: one each.
        bias: [batch, 1, 1, tokens], log of the sizes, for proportional attention; None: there is none.
        places: of the tokens, where the model's blocks ask for them.
    """

    x: Tensor
    ids: Tensor
    sizes: Tensor | None = None
    bias: Tensor | None = None
    places: Places | None = None


@dataclass(frozen=True)
class Replay:
    """Decisions to follow, by block, as `Trace` names them."""

    kept: Mapping[int, Tensor]
    merged: Mapping[int, Tensor] = field(default_factory=dict)


@dataclass
class Trace:
    """One forward pass in plain sight.

    Attributes:
        logits: [batch, classes].
        kept: by block, [batch, tokens after it] int64 ids of the tokens that stay: their places in the whole sequence.
            They ascend unless the method orders tokens itself. A token that others were merged into keeps its id; one
            that was fused from others gets the next id past the whole sequence.
        merged: by block, [batch, merged] int64, `65536 * source id + target id`, or -1 where the image merged nothing.
        gap: by block, [batch] smallest relative score gap at the stage's cuts.
        tokens: by block, [batch, tokens, width] after the block; filled on request.
    """

    logits: Tensor | None = None
    kept: dict[int, Tensor] = field(default_factory=dict)
    merged: dict[int, Tensor] = field(default_factory=dict)
    gap: dict[int, Tensor] = field(default_factory=dict)
    tokens: dict[int, Tensor] = field(default_factory=dict)


def reduce(x: Tensor, sizes: Tensor | None, selection: Selection) -> tuple[Tensor, Tensor | None]:
    """Merge, drop and fuse tokens as a selection of kept positions says; no scatter.

    Args:
        x: [batch, tokens, width].
        sizes: [batch, tokens], how many patches each token stands for; None: one each.

    Returns:
        [batch, tokens that stay, width], and their sizes [batch, tokens that stay] (None: one each).
    """
    assert selection.kept is not None
    out = rows_of(x, selection.kept)
    left = None if sizes is None else sizes.gather(1, selection.kept)
    merge = selection.merge
    if merge is not None:
        targets = torch.arange(selection.kept.shape[1], device=x.device).view(1, -1, 1)
        target = merge.target if merge.active is None else torch.where(merge.active.unsqueeze(1), merge.target, -1)
        into = (target.unsqueeze(1) == targets).to(x.dtype)  # [batch, kept, merged], at most one 1 a column
        moved = rows_of(x, merge.source)
        if merge.rule == "longest":
            total = out + into @ moved
            longest = (into * moved.norm(dim=-1).unsqueeze(1)).amax(-1, keepdim=True)
            longest = torch.maximum(longest, out.norm(dim=-1, keepdim=True))
            out = total * (longest / total.norm(dim=-1, keepdim=True).clamp_min(1e-12))
        else:
            if sizes is not None:
                into = into * sizes.gather(1, merge.source).unsqueeze(1)
            # Shares are taken on the small matrix, so that only one product and one sum are as wide as the tokens.
            before = 1.0 if left is None else left.unsqueeze(-1)
            total = before + into.sum(-1, keepdim=True)
            out = out * (before / total) + (into / total) @ moved
            left = total.squeeze(-1)
    if selection.fused is not None:
        out = torch.cat([out, selection.fused.unsqueeze(1) @ x], dim=1)
    return out, left


def rows_of(x: Tensor, positions: Tensor) -> Tensor:
    """Rows [batch, n, width] of [batch, tokens, width] at [batch, n] positions."""
    return x.gather(1, positions.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def pack(source: Tensor, target: Tensor) -> Tensor:
    """A merge as one number: `65536 * source id + target id`, which int32 holds for up to 32767 tokens."""
    return source * PACKED + target


class PrunedViT(nn.Module):
    """A timm VisionTransformer that follows a static budget.

    Args:
        model: a supported timm model in eval mode; used as it is, not copied.
        budget: a plan that fits it.
        outputs: what `forward` returns, in this order: `logits`, then per stage `kept` ids and, where tokens merge,
            `merged` pairs (int32 both), `gap`s, and per block `tokens`.

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
        self.name, self.image_size = shape.name, shape.image_size
        method = get_method(budget.method)
        self.method_parameters = parse_parameters(budget.parameters, method.Parameters, "parameters")
        self.stage_options: dict[int, BaseModel] = {
            row.block: parse_stage(row, method.StageOptions) for row in budget.stages
        }
        self.masks = bool(getattr(method, "MASKS_DUPLICATES", False))
        if self.masks and getattr(model, "attn_pool", None) is not None:
            raise UnsupportedError(
                f"{shape.name} pools by attention, which would count the tokens that {budget.method} keeps twice; "
                "take another method"
            )
        if getattr(self.method_parameters, "fuse", False) and places_of(model) is not None:
            raise UnsupportedError(
                f"{shape.name} asks in every block where its tokens stand, and a token fused from many stands nowhere; "
                "take parameters: {fuse: false}"
            )
        check_stage = getattr(method, "check_stage", None)
        for row in budget.stages:
            if check_stage is None or row.after == shape.prefix_tokens:
                continue  # nothing is chosen where no patch stays
            options = self.stage_options[row.block]
            where = f"blocks[{row.block}]"
            check_stage(row.before, row.after, shape.prefix_tokens, options, self.method_parameters, where)

    def output_names(self) -> list[str]:
        """Names of what `forward` returns, in order."""
        stages = [row.block for row in self.budget.stages]
        names: list[str] = []
        for output in self.outputs:
            if output == "logits":
                names.append("logits")
            elif output == "tokens":
                names += [f"tokens_{block}" for block in range(self.shape.depth)]
            elif output == "merged":
                names += [f"merged_{block}" for block in stages if self.merges(block)]
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
            results.append(result.to(torch.int32) if kind in ("kept", "merged") else result)
        return results[0] if len(results) == 1 else tuple(results)

    def chooses(self, block: int) -> bool:
        """Whether a stage has anything to choose: where no patch stays, it has not."""
        return self.budget.blocks[block].after > self.shape.prefix_tokens

    def merges(self, block: int) -> bool:
        """Whether a stage merges tokens into others."""
        merging = getattr(get_method(self.budget.method), "merges", None)
        where = (block, self.shape.depth)
        return bool(
            merging and self.chooses(block) and merging(self.stage_options[block], self.method_parameters, where)
        )

    def trace(
        self, image: Tensor, replay: Replay | None = None, tokens: bool = False, observe: Observer | None = None
    ) -> Trace:
        """Run the model and return every decision beside the logits.

        Args:
            image: [batch, channels, height, width].
            replay: decisions to follow instead of deciding, as `Trace` names them.
            tokens: also return the tokens after every block.
            observe: called with the block and what a stage that chooses sees there.
        """
        model, trace = self.model, Trace()
        x = embed(model, image)
        whole = x.shape[1]
        everywhere = places_of(model)
        state = State(x, torch.arange(whole, device=x.device).expand(x.shape[0], -1), places=everywhere)
        proportional = getattr(self.method_parameters, "proportional", False)
        for row, block in zip(self.budget.blocks, model.blocks, strict=True):
            moved = everywhere is not None and bool(trace.kept)
            if row.is_stage:
                fused_id = whole + len(trace.kept)
                state = self._stage(block, state, row.block, row.after, trace, replay, fused_id, observe)
                if everywhere is not None:
                    state = replace(state, places=follow(everywhere, state.ids, self.shape.prefix_tokens))
            elif state.bias is None and not moved:
                state = replace(state, x=run_whole(model, row.block, state.x, state.places))
            else:
                normed = block.norm1(state.x)
                out, *_ = attend(model, row.block, normed, weights="none", bias=state.bias, places=state.places)
                state = replace(state, x=mlp(block, state.x + out))
            if row.is_stage and state.sizes is not None and (proportional or self.masks):
                bias = (state.sizes - 1) * MASKED if self.masks else state.sizes.log()
                state = replace(state, bias=bias[:, None, None])
            if tokens:
                trace.tokens[row.block] = state.x
        trace.logits = model.forward_head(self._weighted(model.norm(state.x), state.sizes))
        return trace

    def _weighted(self, x: Tensor, sizes: Tensor | None) -> Tensor:
        """Tokens scaled so that their plain average, if the head takes one, is that of the patches behind them."""
        if sizes is None or self.model.global_pool != "avg":
            return x
        prefix = self.shape.prefix_tokens
        share = sizes[:, prefix:] * ((x.shape[1] - prefix) / sizes[:, prefix:].sum(1, keepdim=True))
        return torch.cat([x[:, :prefix], x[:, prefix:] * share.unsqueeze(-1)], dim=1)

    def _stage(
        self,
        block: Any,
        state: State,
        index: int,
        keep: int,
        trace: Trace,
        replay: Replay | None,
        fused_id: int,
        observe: Observer | None,
    ) -> State:
        """One block that removes tokens; its decisions are noted in `trace`."""
        method, options = get_method(self.budget.method), self.stage_options[index]
        chooses = self.chooses(index)
        weights: Rows = "none"
        if chooses and method.NEEDS_ATTENTION:
            weights = "first" if self.shape.class_token and getattr(method, "CLASS_ROW_ONLY", False) else "all"
        out, attention, keys, values = attend(
            self.model, index, block.norm1(state.x), weights=weights, bias=state.bias, places=state.places
        )
        x, ids, sizes = state.x + out, state.ids, state.sizes
        if self.budget.place == "after_block":
            x = mlp(block, x)
        evidence = Evidence(
            attention, keys, values, self.shape.prefix_tokens, self.shape.class_token, (index, self.shape.depth)
        )
        if observe and chooses:
            observe(index, evidence)
        if not chooses:
            selection = Selection(None)
        elif replay is None:
            selection = method.select(evidence, keep, options, self.method_parameters)
        else:
            selection = self._follow(evidence, ids, index, replay, fused_id)
        if selection.kept is None:
            x, ids, sizes = x[:, :keep], ids[:, :keep], None if sizes is None else sizes[:, :keep]
        else:
            if selection.merge is not None:
                trace.merged[index] = self._pairs(ids, selection)
            x, sizes = reduce(x, sizes, selection)
            ids = ids.gather(1, selection.kept)
            if self.masks:  # a token that is kept twice stands side by side with itself; the first counts
                first = torch.ones_like(ids[:, :1], dtype=torch.bool)
                sizes = torch.cat([first, ids[:, 1:] != ids[:, :-1]], dim=1).to(x.dtype)
            if selection.fused is not None:
                ids = torch.cat([ids, torch.full_like(ids[:, :1], fused_id)], dim=1)
        if self.budget.place == "before_mlp":
            x = mlp(block, x)
        trace.kept[index] = ids
        trace.gap[index] = torch.full_like(x[:, 0, 0], float("inf")) if selection.gap is None else selection.gap
        return State(x, ids, sizes, None)

    @staticmethod
    def _pairs(ids: Tensor, selection: Selection) -> Tensor:
        """A selection's merges [batch, merged] in ids of the whole sequence."""
        assert selection.kept is not None
        assert selection.merge is not None
        merge = selection.merge
        pairs = pack(ids.gather(1, merge.source), ids.gather(1, selection.kept.gather(1, merge.target)))
        return pairs if merge.active is None else torch.where(merge.active.unsqueeze(1), pairs, -1)

    def _follow(self, evidence: Evidence, ids: Tensor, index: int, replay: Replay, fused_id: int) -> Selection:
        """The selection that given decisions stand for."""
        method, options = get_method(self.budget.method), self.stage_options[index]
        wanted = replay.kept[index]
        fused = None
        if bool((wanted[:, -1] == fused_id).all()):
            wanted = wanted[:, :-1]
        kept = position_in(ids, wanted)
        if hasattr(method, "fuse"):
            fused = method.fuse(evidence, kept, options, self.method_parameters)
        merge = None
        if index in replay.merged:
            pairs = replay.merged[index]
            active = (pairs >= 0).all(dim=1)
            pairs = pairs.clamp_min(0)
            source, target = pairs // PACKED, pairs % PACKED
            rule = method.merges(options, self.method_parameters, (index, self.shape.depth))
            merge = Merge(position_in(ids, source), position_in(wanted, target), rule, active)
        return Selection(kept, None, merge, fused)


class WholeModel(nn.Module):
    """A model without a token plan, dense or slimmed, behind the interface of `PrunedViT`: timm's own forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.name, self.image_size = model_name(model), image_size(model)

    def output_names(self) -> list[str]:
        """Names of what `forward` returns."""
        return ["logits"]

    def forward(self, image: Tensor) -> Tensor:
        """Logits [batch, classes] of [batch, channels, height, width] images."""
        logits: Tensor = self.model(image)
        return logits

    def trace(self, image: Tensor, replay: Replay | None = None, tokens: bool = False) -> Trace:
        """The logits; there are no decisions to return or to follow."""
        return Trace(self(image))


Deployable = PrunedViT | WholeModel


def deployable(model: nn.Module, budget: Budget | None, outputs: tuple[Output, ...] = ("logits",)) -> Deployable:
    """A model with its token plan, or as it is where there is none."""
    return WholeModel(model) if budget is None else PrunedViT(model, budget, outputs)


def position_in(ids: Tensor, wanted: Tensor) -> Tensor:
    """Positions [batch, n] of `wanted` [batch, n] among `ids` [batch, tokens]; 0 for one that is not there."""
    return (ids.unsqueeze(1) == wanted.unsqueeze(2)).to(torch.uint8).argmax(2)


class TorchRunner:
    """A pruned (or, with a budget without stages, dense) model behind the runner interface.

    Attributes:
        name: shown in parity tables.
        batch: images per call.
    """

    def __init__(self, pruned: Deployable, batch: int, name: str = "torch") -> None:
        self.pruned, self.batch, self.name = pruned.eval(), batch, name

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, decisions: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Run [batch, 3, height, width] float32 images.

        Args:
            image: the images.
            decisions: `kept_<block>` and `merged_<block>` to follow instead of deciding.

        Returns:
            logits, kept_<block> and merged_<block> (int32), and gap_<block>.
        """
        replay = None if decisions is None else replay_of(decisions)
        trace = self.pruned.trace(torch.from_numpy(np.ascontiguousarray(image)), replay)
        assert trace.logits is not None
        result = {"logits": trace.logits.numpy()}
        for kind in ("kept", "merged"):
            found = getattr(trace, kind).items()
            result |= {f"{kind}_{block}": ids.to(torch.int32).numpy() for block, ids in found}
        return result | {f"gap_{block}": gap.numpy() for block, gap in trace.gap.items()}


def replay_of(decisions: Mapping[str, np.ndarray]) -> Replay:
    """Decisions by output name, as a runner returns them, in the form that `PrunedViT.trace` follows."""
    parts: dict[str, dict[int, Tensor]] = {"kept": {}, "merged": {}}
    for name, ids in decisions.items():
        kind, _, block = name.partition("_")
        parts[kind][int(block)] = torch.from_numpy(np.ascontiguousarray(ids)).long()
    return Replay(**parts)
