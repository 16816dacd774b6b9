"""The model of a graph, behind one interface: with its token plan, or as it is where there is none."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..core.answers import TOKENS
from .block import embed, places_of, run_first, run_whole
from .budget import Budget
from .decisions import Replay, Trace
from .shape import image_size, model_name, output_of, read_tokens
from .vit import Output, PrunedViT, tells_tokens


class WholeModel(nn.Module):
    """A model without a token plan, dense or slimmed, behind the interface of `PrunedViT`.

    timm's own forward; the last block of a model whose classifier reads prefix tokens only runs for those alone.

    Args:
        model: of timm.
        outputs: see `PrunedViT`; of a model without a plan `left` and `grid` are the same.
        compares: see `PrunedViT`.
    """

    def __init__(self, model: nn.Module, outputs: tuple[Output, ...] = ("logits",), compares: bool = False) -> None:
        super().__init__()
        self.model: Any = model
        self.compares, self.tells_tokens = compares, tells_tokens(outputs)
        self.name, self.image_size = model_name(model), image_size(model)
        self.read_tokens = 0 if self.tells_tokens else read_tokens(model)
        self.output = output_of(model)

    def output_names(self) -> list[str]:
        """Names of what `forward` returns."""
        return [self.output, TOKENS] if self.tells_tokens else [self.output]

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits [batch, classes], or features [batch, width], of [batch, channels, height, width] images.

        Where tokens are told, those [batch, tokens, width] after the final norm stand beside them.
        """
        if self.tells_tokens:
            tokens = self.forward_features(image)
            return self.model.forward_head(tokens), tokens
        if not self.read_tokens:
            return self.model(image)
        x, places, last = embed(self.model, image), places_of(self.model), len(self.model.blocks) - 1
        for index in range(last):
            x = run_whole(self.model, index, x, places)
        x = run_first(self.model, last, x, self.read_tokens, places=places, asks=self.compares)
        return self.model.forward_head(self.model.norm(x))

    def forward_features(self, image: Tensor) -> Tensor:
        """What timm's method of that name gives."""
        features: Tensor = self.model.forward_features(image)
        return features

    def trace(self, image: Tensor, replay: Replay | None = None, tokens: bool = False) -> Trace:
        """The answer; there are no decisions to return or to follow."""
        found = self(image)
        return Trace(found[0], final=found[1]) if self.tells_tokens else Trace(found)


Deployable = PrunedViT | WholeModel


def deployable(
    model: nn.Module, budget: Budget | None, outputs: tuple[Output, ...] = ("logits",), compares: bool = False
) -> Deployable:
    """A model with its token plan, or as it is where there is none."""
    return WholeModel(model, outputs, compares) if budget is None else PrunedViT(model, budget, outputs, compares)
