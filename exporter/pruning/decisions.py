"""What the stages of a pruned model decided, and decisions to follow instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Decision:
    """What one stage decided; the fields are those of `Trace`, for this block."""

    kept: Tensor
    merged: Tensor | None
    gap: Tensor


@dataclass(frozen=True)
class Replay:
    """Decisions to follow, by block, as `Trace` names them."""

    kept: Mapping[int, Tensor]
    merged: Mapping[int, Tensor] = field(default_factory=dict)


@dataclass
class Trace:
    """One forward pass in plain sight.

    Attributes:
        logits: [batch, classes]; of a model without a classifier its features [batch, width].
        kept: by block, [batch, tokens after it] int64 ids of the tokens that stay: their places in the whole sequence.
            They ascend unless the method orders tokens itself. A token that others were merged into keeps its id; one
            that was fused from others gets the next id past the whole sequence.
        merged: by block, [batch, merged] int64, `65536 * source id + target id`, or -1 where the image merged nothing.
        gap: by block, [batch] smallest relative score gap at the stage's cuts.
        tokens: by block, [batch, tokens, width] after the block; filled on request.
        final: [batch, tokens, width] after the final norm, where they are an output of the model.
        margin: [batch], the smallest difference of cosines that sent a patch's token home, see `unmerge`; None where
            nothing was chosen.
    """

    logits: Tensor | None = None
    kept: dict[int, Tensor] = field(default_factory=dict)
    merged: dict[int, Tensor] = field(default_factory=dict)
    gap: dict[int, Tensor] = field(default_factory=dict)
    tokens: dict[int, Tensor] = field(default_factory=dict)
    final: Tensor | None = None
    margin: Tensor | None = None

    def note(self, block: int, decision: Decision) -> None:
        """Add what a stage decided."""
        self.kept[block], self.gap[block] = decision.kept, decision.gap
        if decision.merged is not None:
            self.merged[block] = decision.merged
