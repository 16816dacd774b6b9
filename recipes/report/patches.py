"""What becomes of every patch of an image: it stays, it is dropped, or it is merged into another. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...exporter.core.layout import PACKED
from ...exporter.pruning.budget import Budget

DROPPED = -1  # in place of a group's number


@dataclass(frozen=True)
class Fate:
    """Where the patches of some images are after a stage.

    Attributes:
        block: of the stage.
        prefix: tokens before the first patch.
        groups: [n, patches] of every patch the token that it is part of, or `DROPPED`. Numbers are the model's ids of
            tokens, prefix tokens included; patches of one number were merged.
    """

    block: int
    prefix: int
    groups: np.ndarray


def fates_of(budget: Budget | None, golden: Mapping[str, np.ndarray]) -> list[Fate]:
    """Follow every patch through the stages that choose.

    Args:
        budget: the plan; None prunes nothing.
        golden: `kept_<block>` [n, tokens] and, where tokens merge, `merged_<block>` [n, merged], see
            `exporter.pruning.decisions.Trace`.

    Returns:
        one entry a stage, in order; none for a stage whose decisions are not there.
    """
    if budget is None:
        return []
    first, prefix = budget.blocks[0].before, budget.prefix_tokens
    groups: np.ndarray | None = None
    found: list[Fate] = []
    for stage in budget.choosing:
        kept = golden.get(f"kept_{stage.block}")
        if kept is None:
            return found
        merged = golden.get(f"merged_{stage.block}")
        if groups is None:
            groups = np.tile(np.arange(prefix, first), (len(kept), 1))
        pairs = np.full((len(kept), 0), -1) if merged is None else merged
        rows = zip(groups, kept, pairs, strict=True)
        groups = np.stack([_after(row, stays, set_of, first) for row, stays, set_of in rows])
        found.append(Fate(stage.block, prefix, groups))
    return found


def _after(groups: np.ndarray, kept: np.ndarray, pairs: np.ndarray, first: int) -> np.ndarray:
    """The groups of one image after a stage; `first` is the first id past the whole sequence."""
    into = dict(divmod(int(pair), PACKED) for pair in pairs if pair >= 0)
    stays = {int(token) for token in kept}
    known = {*map(int, groups), *into.values()}
    fused = [token for token in stays if token >= first and token not in known]  # of all that leaves
    rest = fused[0] if len(fused) == 1 else DROPPED

    def end(token: int) -> int:
        seen: set[int] = set()
        while token in into and token not in seen:
            seen.add(token)
            token = into[token]
        return token if token in stays else rest

    return np.array([DROPPED if group == DROPPED else end(int(group)) for group in groups])


def survival(fate: Fate) -> np.ndarray:
    """[patches] share of the images in which the token of that very place is still there, alone or merged into."""
    own = np.arange(fate.groups.shape[1]) + fate.prefix
    found: np.ndarray = (fate.groups == own).mean(axis=0)
    return found


def grid_of(patches: int, height: int, width: int) -> tuple[int, int] | None:
    """Rows and columns of the patches of an image; None where they are no grid of square patches."""
    rows = round(math.sqrt(patches * height / width))
    if rows < 1 or patches % rows:
        return None
    columns = patches // rows
    return (rows, columns) if height * columns == width * rows else None
