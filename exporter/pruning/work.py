"""Which tokens the parts of a block work for: no more than somebody reads afterwards.

Where the classifier reads prefix tokens only, the last block needs one query: keys and values of all tokens, and the
attention row, projection and MLP of the tokens that are read. A stage that only drops asks nothing for what goes: it
chooses from keys, values and the first token's row, and then the tokens that stay ask alone. Both are exact.

Where the budget's place is `before_queries`, a stage that merges does the same: what goes is merged as it enters the
block, and the merged tokens ask. That is another result than that of merging what the attention has made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .budget import Budget
from .methods import get_method
from .methods.base import Method, Reads
from .methods.options import parameters_of, parse_stage
from .shape import ViTShape

Form = Literal["whole", "read", "chosen", "dropped", "merged"]


@dataclass(frozen=True)
class Work:
    """Tokens of one block, by part.

    Attributes:
        keys: with a key and a value.
        queries: with a query; the first one is made twice where a choice needs its row before the others ask.
        rows: with a row of attention.
        projected: whose mixed values are projected.
        mlp: in the MLP.
    """

    keys: int
    queries: int
    rows: int
    projected: int
    mlp: int


def rows_read(method: Method, class_token: bool) -> Reads:
    """The rows of a stage's attention matrix that its method needs: without a class token there is no first one."""
    return "all" if method.reads == "first" and not class_token else method.reads


def form_of(shape: ViTShape, budget: Budget, block: int, features: bool = False, early: bool = True) -> Form:
    """How a block runs.

    Args:
        shape: the model.
        budget: that fits it.
        block: which.
        features: whether the tokens after the last block are wanted, not the logits alone.
        early: whether a stage leaves out what goes as soon as it can. A GPU runs more kernels then, so its graphs
            drop after the attention, unless the budget says `before_queries`.

    Returns:
        `whole`: a block of all its tokens; `read`: the last block, for the tokens that the classifier reads; else a
        stage: `chosen` before its tokens ask, `dropped` after they asked and before they are projected, or `merged`,
        which needs all of them to the end of the attention. A method that reads the whole attention matrix chooses
        after all have asked, whatever the budget's place is.
    """
    row = budget.blocks[block]
    free = not (row.is_stage and budget.chooses(block))
    if free and block == shape.depth - 1 and shape.read_tokens and not features:
        return "read"
    if not row.is_stage:
        return "whole"
    before = budget.place == "before_queries"
    if not early and not before:
        return "merged"
    if not budget.chooses(block):
        return "chosen"
    method = get_method(budget.method)
    parameters, options = parameters_of(budget), parse_stage(method, row)
    rule = method.merge_rule(options, parameters, (block, shape.depth))
    whole = rows_read(method, shape.class_token) == "all"
    mixes = method.reads_tokens or method.fuses(parameters) or rule not in (None, "count")
    if mixes and (whole or not before):
        return "merged"
    return "dropped" if whole else "chosen"


def work_of(shape: ViTShape, budget: Budget | None, block: int, early: bool = True) -> Work:
    """Tokens that the parts of a block of a CPU's graph work for; without a budget, of the dense one.

    Args:
        shape: the model.
        budget: that fits it.
        block: which.
        early: see `form_of`; a GPU's graph may not be.
    """
    if budget is None:
        reads = shape.read_tokens if block == shape.depth - 1 else 0
        return Work(shape.tokens, *(reads or shape.tokens,) * 4)
    row, form = budget.blocks[block], form_of(shape, budget, block, early=early)
    before, after = row.before, row.after
    if form == "read":
        return Work(before, *(shape.read_tokens,) * 4)
    if form == "chosen":
        first = int(budget.chooses(block) and rows_read(get_method(budget.method), shape.class_token) == "first")
        return Work(before, after + first, after, after, after)
    if form == "dropped":
        return Work(before, before, before, after, after)
    return Work(before, before, before, before, before if budget.place == "after_block" else after)
