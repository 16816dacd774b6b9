"""The graphs of an export: the dense model, the pruned one, and the floor of its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...exporter.core.errors import InputError
from ...exporter.core.layout import BUDGET, TRACED
from ...exporter.pruning.budget import BlockTokens, Budget, read_budget
from ...exporter.pruning.methods import FLOOR
from ...exporter.pruning.shape import describe, model_name
from ...exporter.pruning.vit import Output

if TYPE_CHECKING:
    from ..schema.sections.outputs import ExportSection
    from .view import View

KINDS = tuple(map(str, TRACED))


def unpruned(model: Any) -> Budget:
    """The plan that removes nothing, where there is no other yet: the dense model."""
    shape = describe(model)
    rows = _all_stay(shape.depth, shape.tokens)
    return Budget(model=shape.name, method=FLOOR, prefix_tokens=shape.prefix_tokens, blocks=rows)


def without_stages(budget: Budget) -> Budget:
    """The same budget with nothing removed: the dense model."""
    return budget.model_copy(update={"blocks": _all_stay(len(budget.blocks), budget.blocks[0].before)})


def _all_stay(depth: int, tokens: int) -> tuple[BlockTokens, ...]:
    return tuple(BlockTokens(block=block, before=tokens, after=tokens) for block in range(depth))


def sliced(budget: Budget) -> Budget:
    """The same token counts by slicing the first tokens: the least time that the plan can take."""
    rows = [type(row)(block=row.block, before=row.before, after=row.after) for row in budget.blocks]
    return budget.model_copy(update={"method": FLOOR, "parameters": {"place": budget.place}, "blocks": tuple(rows)})


def budget_of_kind(kind: str, budget: Budget | None) -> Budget | None:
    """The budget that makes the dense, pruned or floor graph; None: the model as it is."""
    if budget is None:
        return None
    return {"dense": without_stages, "pruned": lambda b: b, "floor": sliced}[kind](budget)


def outputs_of(section: ExportSection, kind: str = "pruned") -> tuple[Output, ...]:
    """What a graph answers with: the floor gives the tokens that are left, as no graph can for less."""
    if section.tokens is None:
        return ("logits",)
    return ("logits", "left" if kind == "floor" else section.tokens)


def check_tokens(section: ExportSection, model: Any) -> None:
    """Refuse last hidden tokens of a model that ends in another form.

    Raises:
        InputError: it has no sequence of tokens.
    """
    if section.tokens is not None and not hasattr(model, "num_prefix_tokens"):
        raise InputError(f"export.tokens: {model_name(model)} ends in a map, not in a sequence of tokens; take it out")


def plan_of(view: View) -> Budget | None:
    """The budget of a run; None where its tokens are not pruned."""
    folder = view.folder_if_any("calibrate")
    return None if folder is None else read_budget(folder / BUDGET)
