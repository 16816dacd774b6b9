"""The halves of all blocks of a model, each as a module of any number of tokens: what a latency table times."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from .block import Places, look, mix, mlp, places_of, project
from .shape import describe

Half = Literal["attention", "mlp"]
HALVES: tuple[Half, ...] = ("attention", "mlp")


class Halves(nn.Module):
    """One half of every block of a model, in a row.

    Args:
        model: a supported timm model.
        half: `attention`, everything up to the MLP, or `mlp`.

    Attributes:
        name: for messages.
        image_size: tokens and width of the input, all tokens that there are.
        least: the fewest tokens that it takes.
    """

    def __init__(self, model: nn.Module, half: Half) -> None:
        super().__init__()
        shape = describe(model)
        self.model: Any = model
        self.part = half
        self.prefix = shape.prefix_tokens
        self.name = f"{shape.name}, its {half} halves"
        self.image_size = (shape.tokens, shape.width)
        # Patches that turn by their places have to be there; one token is what a classifier may read of the last block.
        self.least = self.prefix + 1 if places_of(model) is not None else 1

    def output_names(self) -> list[str]:
        """Of what `forward` returns."""
        return ["tokens"]

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [batch, tokens, width] to the same."""
        if self.part == "mlp":
            for block in self.model.blocks:
                x = mlp(block, x)
            return x
        places = self._first_places(x.shape[1])
        for index, block in enumerate(self.model.blocks):
            normed = block.norm1(x)
            seen = look(self.model, index, normed, weights="none", places=places)
            x = x + project(block, mix(seen), normed)
        return x

    def _first_places(self, tokens: int) -> Places | None:
        """Places of the first tokens; which ones does not matter for the time."""
        whole = places_of(self.model)
        if whole is None:
            return None
        pairs = None if whole.pairs is None else whole.pairs[:tokens, :tokens]
        return Places(tuple(turn[..., : tokens - self.prefix, :] for turn in whole.rope), pairs)
