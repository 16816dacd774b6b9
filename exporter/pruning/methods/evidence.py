"""What a stage may look at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True)
class Evidence:
    """What a stage may look at, all of the block it sits in.

    Attributes:
        attention: [batch, heads, tokens, tokens] softmax attention, rows sum to 1; its first row alone, [batch, heads,
            1, tokens], for a method that reads no other of a model with a class token; None for one that needs none.
        keys: [batch, heads, tokens, head_dim], after any key normalization.
        values: [batch, heads, tokens, head_dim].
        prefix: prefix tokens at the front, never removed.
        class_token: whether token 0 is a class token.
        block: (0-based block, blocks of the model).
        tokens: [batch, tokens, width], the sequence that tokens will leave: the residual stream where the stage sits.
            None for a method that does not declare that it reads it.
        compares: whether a method had better compare every pair of tokens than sort them, with the same result: so a
            GPU ranks among its other work, where a sort is a kernel of its own. On a CPU it would take longer.
        squares: [batch, tokens], the squares of the values summed over all heads, where they are known already.
        logits: [batch, heads, tokens], what was normalized to the class token's row, where `squares` are known.
        key_squares: [batch, tokens], the squares of the heads' mean key summed, where `squares` are known.
        averaged: whether the classifier averages tokens by their sizes, which then have to be numbers of patches.
    """

    attention: Tensor | None
    keys: Tensor
    values: Tensor
    prefix: int
    class_token: bool
    block: tuple[int, int] = (0, 1)
    tokens: Tensor | None = None
    compares: bool = False
    squares: Tensor | None = None
    logits: Tensor | None = None
    key_squares: Tensor | None = None
    averaged: bool = False

    @property
    def row(self) -> Tensor:
        """Attention [batch, heads, tokens] that the class token pays; without one, what all tokens pay on average."""
        return self.matrix[:, :, 0] if self.class_token else self.matrix.mean(2)

    @property
    def attended(self) -> Tensor:
        """`row` summed over heads: [batch, tokens]."""
        return self.row.sum(1)

    @property
    def lengths(self) -> Tensor:
        """How long every token's value is over all heads [batch, tokens]."""
        if self.squares is not None:
            return self.squares.sqrt()
        return self.values.transpose(1, 2).flatten(2).norm(dim=-1)  # as the tokens lie in memory

    @cached_property
    def significance(self) -> Tensor:
        """Class attention times value norm [batch, tokens], as in ATS and PPT."""
        return self.attended * self.lengths

    @property
    def matrix(self) -> Tensor:
        """The attention of a method that declares which of it it reads.

        Raises:
            ValueError: it declares none.
        """
        if self.attention is None:
            raise ValueError("the method reads the attention matrix, so its class must say reads = 'first' or 'all'")
        return self.attention

    @property
    def stream(self) -> Tensor:
        """`tokens` of a method that declares that it reads them.

        Raises:
            ValueError: it declares that it does not.
        """
        if self.tokens is None:
            raise ValueError("the method reads the tokens themselves, so its class must say reads_tokens = True")
        return self.tokens
