"""The model with a budget applied: an explicit forward over timm's own submodules.

Blocks that remove nothing run as timm's own modules. Spelled out are a stage's block, because a fused attention does
not hand out its matrix, and the last one where the classifier reads prefix tokens only: it then runs for those alone,
with the same logits but for rounding (`work`). Where all tokens are wanted it runs for all, and a budget without stages
is bit-identical to timm. Nothing of timm is replaced, no mode or `requires_grad` is changed, no state is kept between
calls, and gradients flow through what stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core.answers import TOKENS
from ..core.errors import InputError, UnsupportedError
from ..core.layout import PACKED
from .block import (
    Places,
    Seen,
    ask,
    between,
    embed,
    follow,
    look,
    mix,
    mlp,
    places_of,
    project,
    run_first,
    run_whole,
)
from .budget import Budget
from .decisions import Decision, Replay, Trace
from .methods import get_method
from .methods.evidence import Evidence
from .methods.options import check_budget, parameters_of, parse_stage
from .methods.ranking import ascending, order_of
from .methods.selection import Merge, Selection
from .reduce import MASKED, first_of_each, merged_pairs, reduce
from .rows import position_in, rows_of
from .shape import check_fits_model, describe, with_all_read
from .unmerge import way
from .work import Form, form_of, rows_read

Observer = Callable[[int, Evidence], None]
Output = Literal["logits", "kept", "merged", "gap", "tokens", "left", "grid"]


@dataclass(frozen=True)
class State:
    """What one block hands to the next.

    Attributes:
        x: [batch, tokens, width].
        ids: [batch, tokens] int64, see `Trace.kept`.
        fresh: id of the next token that is fused from others.
        sizes: [batch, tokens], how many patches each token stands for; None: one each.
        bias: [batch, 1, 1, tokens], log of the sizes, for proportional attention; None: there is none.
        places: of the tokens, where the model's blocks ask for them.
        everywhere: places of the whole sequence.
        home: [batch, tokens of the whole sequence] int64, the positions of what stands for each, see `unmerge`; None:
            nobody asks.
        margin: [batch], the smallest difference of cosines by which a home was chosen; None: none was.
    """

    x: Tensor
    ids: Tensor
    fresh: int
    sizes: Tensor | None = None
    bias: Tensor | None = None
    places: Places | None = None
    everywhere: Places | None = None
    home: Tensor | None = None
    margin: Tensor | None = None


def tells_tokens(outputs: tuple[Output, ...]) -> bool:
    """Whether a model's last hidden tokens are among its outputs, so that all of its last block is of use."""
    return "left" in outputs or "grid" in outputs


class PrunedViT(nn.Module):
    """A timm VisionTransformer that follows a static budget.

    Args:
        model: a supported timm model in eval mode; used as it is, not copied. Dropout that it may have for training is
            left out of the blocks that are stages.
        budget: a plan that fits it.
        outputs: what `forward` returns, in this order: `logits` (without a classifier these are named `features`, and
            are those), then per stage `kept` ids and, where tokens merge, `merged` pairs (int32 both), `gap`s, and per
            block `tokens`. Besides, the tokens after the final norm, named `tokens`: those that are `left`, in the
            order of their ids, or put back onto the whole `grid`.
        compares: see `Evidence.compares`; one projection then makes the queries of all tokens with keys and values, and
            what nobody reads is left out after the attention, which takes a GPU fewer kernels.

    Raises:
        UnsupportedError: the model is of a kind that vitrim does not take.
        InputError: the budget does not fit the model or its method.
    """

    def __init__(
        self, model: nn.Module, budget: Budget, outputs: tuple[Output, ...] = ("logits",), compares: bool = False
    ) -> None:
        super().__init__()
        shape = with_all_read(describe(model)) if tells_tokens(outputs) else describe(model)
        check_fits_model(budget, shape)
        self.model: Any = model
        self.budget = budget
        self.outputs, self.compares = outputs, compares
        self.shape = shape
        self.name, self.image_size = shape.name, shape.image_size
        self.method = get_method(budget.method)
        check_budget(self.method, budget)
        self.method_parameters = parameters_of(budget)
        self.stage_options = {row.block: parse_stage(self.method, row) for row in budget.stages}
        if self.method.masks_duplicates and getattr(model, "attn_pool", None) is not None:
            raise UnsupportedError(
                f"{shape.name} pools by attention, which would count the tokens that {budget.method} keeps twice; "
                "take another method"
            )
        if self.method.fuses(self.method_parameters) and places_of(model) is not None:
            raise UnsupportedError(
                f"{shape.name} asks in every block where its tokens stand, and a token fused from many stands nowhere; "
                "take parameters: {fuse: false}"
            )

    def output_names(self) -> list[str]:
        """Names of what `forward` returns, in order."""
        stages = [row.block for row in self.budget.stages]
        names: list[str] = []
        for output in self.outputs:
            if output == "logits":
                names.append(self.shape.output)
            elif output in ("left", "grid"):
                names.append(TOKENS)
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
            if name in (self.shape.output, TOKENS):
                whole = trace.logits if name == self.shape.output else trace.final
                assert whole is not None
                results.append(whole)
                continue
            kind, _, block = name.partition("_")
            result = getattr(trace, kind)[int(block)]
            results.append(result.to(torch.int32) if kind in ("kept", "merged") else result)
        return results[0] if len(results) == 1 else tuple(results)

    def merges(self, block: int) -> bool:
        """Whether a stage merges tokens into others."""
        where = (block, self.shape.depth)
        rule = self.method.merge_rule(self.stage_options[block], self.method_parameters, where)
        return rule is not None and self.budget.chooses(block)

    def forward_features(self, image: Tensor, unmerge: bool = False) -> Tensor:
        """Tokens after the final norm, as timm's method of that name gives all of them.

        With average pooling the head weighs merged tokens by size; that is not in here.

        Args:
            image: [batch, channels, height, width].
            unmerge: every patch gets the token that stands for it, see `unmerge`.

        Returns:
            [batch, tokens left, width], or with `unmerge` [batch, tokens of the dense model, width].

        Raises:
            InputError: no patch is left for `unmerge`.
        """
        if unmerge and self.budget.blocks[-1].after <= self.shape.prefix_tokens:
            raise InputError(
                "forward_features(unmerge=True): the plan's last block drops every patch; "
                "make one that does not: prune(..., final=False)"
            )
        state = self._run(image, features=True, unmerge=unmerge)[0]
        return self._arranged(self.model.norm(state.x), state)

    def trace(
        self, image: Tensor, replay: Replay | None = None, tokens: bool = False, observe: Observer | None = None
    ) -> Trace:
        """Run the model and return every decision beside the answer.

        Args:
            image: [batch, channels, height, width].
            replay: decisions to follow instead of deciding, as `Trace` names them.
            tokens: also return the tokens after every block; the last one then runs for all of them.
            observe: called with the block and what a stage that chooses sees there.
        """
        state, trace = self._run(image, replay, tokens, observe, unmerge="grid" in self.outputs)
        normed = self.model.norm(state.x)
        trace.logits = self._answer(normed, state)
        if tells_tokens(self.outputs):
            trace.final, trace.margin = self._arranged(normed, state), state.margin
        return trace

    def start(self, image: Tensor, unmerge: bool = False) -> State:
        """What the first block gets of [batch, channels, height, width] images; with `unmerge` homes are followed."""
        x, everywhere = embed(self.model, image), places_of(self.model)
        ids = torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)
        return State(x, ids, x.shape[1], places=everywhere, everywhere=everywhere, home=ids if unmerge else None)

    def step(
        self,
        block: int,
        state: State,
        replay: Replay | None = None,
        observe: Observer | None = None,
        features: bool = False,
    ) -> tuple[State, Decision | None]:
        """What one block makes of what it gets, and what it decided; None where it removes nothing.

        The state may come from another budget of the same method that agrees with this one in all blocks before. All
        tokens of the last block are made only where they are wanted as `features`, see `work`.
        """
        form = form_of(self.shape, self.budget, block, features, not self.compares)
        if not self.budget.blocks[block].is_stage:
            return replace(state, x=self._kept_block(block, form, state)), None
        return self._stage(block, form, state, replay, observe)

    def finish(self, state: State) -> Tensor:
        """Logits [batch, classes], or features [batch, width], of what the last block gives."""
        return self._answer(self.model.norm(state.x), state)

    def _answer(self, normed: Tensor, state: State) -> Tensor:
        """What `finish` gives of the same tokens after the final norm."""
        logits: Tensor = self.model.forward_head(self._weighted(normed, state.sizes))
        return logits

    def _arranged(self, normed: Tensor, state: State) -> Tensor:
        """Tokens where their homes are, or else in the order of their ids."""
        if not self.budget.stages:
            return normed
        if state.home is not None:
            return rows_of(normed, state.home)
        return normed if self.method.orders else rows_of(normed, order_of(state.ids))

    def _run(
        self,
        image: Tensor,
        replay: Replay | None = None,
        tokens: bool = False,
        observe: Observer | None = None,
        features: bool = False,
        unmerge: bool = False,
    ) -> tuple[State, Trace]:
        """All blocks: the tokens after them (`features`: all of the last one), and what was decided; see `trace`."""
        trace, state = Trace(), self.start(image, unmerge)
        for row in self.budget.blocks:
            state, decision = self.step(row.block, state, replay, observe, features or tokens)
            if decision is not None:
                trace.note(row.block, decision)
            if tokens:
                trace.tokens[row.block] = self._in_order(state)
        return state, trace

    def _kept_block(self, index: int, form: Form, state: State) -> Tensor:
        """One block that removes nothing: timm's own, unless tokens count by size or have left their places."""
        if form == "read":
            return self._read(index, state)
        if state.bias is None and state.places is state.everywhere:
            return run_whole(self.model, index, state.x, state.places)
        block = self.model.blocks[index]
        normed = block.norm1(state.x)
        seen = look(self.model, index, normed, weights="none", bias=state.bias, places=state.places)
        return mlp(block, state.x + project(block, mix(seen), normed))

    def _read(self, index: int, state: State) -> Tensor:
        """The last block for the tokens that the classifier reads."""
        count = self.shape.read_tokens
        return run_first(self.model, index, state.x, count, state.bias, state.places, asks=self.compares)

    def _stage(
        self,
        index: int,
        form: Form,
        state: State,
        replay: Replay | None,
        observe: Observer | None,
    ) -> tuple[State, Decision]:
        """One block that removes tokens."""
        block, keep, everywhere = self.model.blocks[index], self.budget.blocks[index].after, state.everywhere
        if form == "read":
            reduced = replace(self._reduced(state, Selection(None), keep), x=self._read(index, state))
            return reduced, self._decision(state, reduced, Selection(None))
        normed = block.norm1(state.x)
        seen = look(
            self.model,
            index,
            normed,
            weights=rows_read(self.method, self.shape.class_token) if self.budget.chooses(index) else "none",
            bias=state.bias,
            places=state.places,
            squares=self.compares and self.method.lengths,
            asks=form != "chosen",
        )
        x = state.x
        if form == "merged":
            x = x + project(block, mix(seen), normed)
            x = mlp(block, x) if self.budget.place == "after_block" else x
        selection = self._chosen(index, keep, replace(state, x=x), seen, replay, observe)
        reduced = self._homed(self._reduced(replace(state, x=x), selection, keep), state, normed, selection)
        if everywhere is not None:
            reduced = replace(reduced, places=follow(everywhere, reduced.ids, self.shape.prefix_tokens))
        if form == "chosen":
            places = between(everywhere, reduced.places, reduced.ids, state.ids)
            out = ask(self.model, index, block.norm1(reduced.x), seen, bias=state.bias, places=places)
            reduced = replace(reduced, x=reduced.x + out)
        elif form == "dropped":
            kept = selection.kept
            mixed, asked = (
                tokens[:, :keep] if kept is None else rows_of(tokens, kept) for tokens in (mix(seen), normed)
            )
            reduced = replace(reduced, x=reduced.x + project(block, mixed, asked))
        if form != "merged" or self.budget.place != "after_block":
            reduced = replace(reduced, x=mlp(block, reduced.x))
        return reduced, self._decision(state, reduced, selection)

    def _chosen(
        self, index: int, keep: int, state: State, seen: Seen, replay: Replay | None, observe: Observer | None
    ) -> Selection:
        """What a stage selects from what its block's tokens show."""
        if not self.budget.chooses(index):
            return Selection(None)
        where, known = (index, self.shape.depth), {} if seen.first is None else seen.first._asdict()
        prefix, class_token = self.shape.prefix_tokens, self.shape.class_token
        tokens = state.x if self.method.reads_tokens else None
        evidence = Evidence(
            seen.attention,
            seen.keys,
            seen.values,
            prefix,
            class_token,
            where,
            tokens,
            self.compares,
            averaged=self.model.global_pool == "avg",
            **known,
        )
        if observe:
            observe(index, evidence)
        return self._choose(index, keep, state, evidence, replay)

    def _decision(self, before: State, after: State, selection: Selection) -> Decision:
        """What a stage tells of its selection."""
        gap = torch.full_like(after.x[:, 0, 0], float("inf")) if selection.gap is None else selection.gap
        return Decision(self._ids_in_order(after), merged_pairs(before.ids, selection), gap)

    def _choose(self, index: int, keep: int, state: State, evidence: Evidence, replay: Replay | None) -> Selection:
        """The method's selection, or the one that given decisions stand for."""
        options, parameters = self.stage_options[index], self.method_parameters
        if replay is None:
            selection = self.method.select(evidence, keep, options, parameters)
            merges, fuses = selection.merge is not None, selection.fused is not None
            if (merges, fuses) != (self.merges(index), self.method.fuses(parameters)):
                raise ValueError(f"{self.method.name}.select and its merge_rule or fuses disagree at block {index}")
            return selection
        wanted = replay.kept[index]
        if bool((wanted[:, -1] == state.fresh).all()):
            wanted = wanted[:, :-1]
        kept = position_in(state.ids, wanted)
        fused = self.method.fuse(evidence, kept, options, parameters)
        if index not in replay.merged:
            return Selection(kept, None, None, fused)
        pairs = replay.merged[index]
        active = (pairs >= 0).all(dim=1)
        pairs = pairs.clamp_min(0)
        source, target = position_in(state.ids, pairs // PACKED), position_in(wanted, pairs % PACKED)
        rule = self.method.merge_rule(options, parameters, evidence.block)
        assert rule is not None, f"block {index} merges nothing under this budget"
        weighing = self.method.weighing(evidence, parameters)
        return Selection(kept, None, Merge(source, target, rule, active, weighing), fused)

    def _reduced(self, state: State, selection: Selection, keep: int) -> State:
        """The sequence that a selection leaves, and what later attention has to know of it, but for its places."""
        x, ids, sizes = state.x, state.ids, state.sizes
        if selection.kept is None:
            x, ids, sizes = x[:, :keep], ids[:, :keep], None if sizes is None else sizes[:, :keep]
        else:
            x, sizes = reduce(x, sizes, selection)
            ids = ids.gather(1, selection.kept)
            if self.method.masks_duplicates:
                sizes = first_of_each(ids, x.dtype)
            if selection.fused is not None:
                ids = torch.cat([ids, torch.full_like(ids[:, :1], state.fresh)], dim=1)
        bias = None
        if sizes is not None and self.method.masks_duplicates:
            bias = ((sizes - 1) * MASKED)[:, None, None]
        elif sizes is not None and self.method.proportional(self.method_parameters):
            bias = sizes.log()[:, None, None]
        return State(x, ids, state.fresh + 1, sizes, bias, everywhere=state.everywhere)

    def _homed(self, reduced: State, before: State, normed: Tensor, selection: Selection) -> State:
        """The state after a stage with the homes that those before it have now."""
        if before.home is None:
            return reduced
        where, margin = way(normed, selection, reduced.x.shape[1], self.shape.prefix_tokens)
        least = margin if before.margin is None else torch.minimum(margin, before.margin)
        return replace(reduced, home=where.gather(1, before.home), margin=least)

    def _ids_in_order(self, state: State) -> Tensor:
        """Ids as decisions tell them: ascending, unless the order is the method's own."""
        return state.ids if self.method.orders else ascending(state.ids)

    def _in_order(self, state: State) -> Tensor:
        """Tokens in the order of those ids."""
        return state.x if self.method.orders else rows_of(state.x, order_of(state.ids))

    def _weighted(self, x: Tensor, sizes: Tensor | None) -> Tensor:
        """Tokens scaled so that their plain average, if the head takes one, is that of the patches behind them."""
        if sizes is None or self.model.global_pool != "avg":
            return x
        prefix = self.shape.prefix_tokens
        share = sizes[:, prefix:] * ((x.shape[1] - prefix) / sizes[:, prefix:].sum(1, keepdim=True))
        return torch.cat([x[:, :prefix], x[:, prefix:] * share.unsqueeze(-1)], dim=1)
