"""What a token plan costs: multiply-accumulates in closed form, and latency by an affine model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...exporter.core.errors import InputError
from ...exporter.pruning.budget import BlockTokens, Budget
from ...exporter.pruning.methods import get_method
from ...exporter.pruning.methods.costs import StageSizes
from ...exporter.pruning.methods.options import parameters_of, parse_stage
from ...exporter.pruning.work import Work, work_of

if TYPE_CHECKING:
    from ...exporter.pruning.shape import ViTShape

Plan = Sequence[tuple[int, int]]


def dense_plan(shape: ViTShape) -> list[tuple[int, int]]:
    """Tokens in the attention and MLP of every block when nothing is removed."""
    return [(shape.tokens, shape.tokens)] * shape.depth


def block_macs(shape: ViTShape, block: int, attention_tokens: int, mlp_tokens: int) -> int:
    """Multiply-accumulates of one block: linear layers, and the products Q K^T and A V."""
    attention, mlp = shape.linear_macs[block]
    products = 2 * attention_tokens * attention_tokens * shape.attention_width[block]
    return attention * attention_tokens + products + mlp * mlp_tokens


def model_macs(shape: ViTShape, plan: Plan) -> int:
    """Multiply-accumulates of patch embedding, blocks and classifier for one image.

    This is the count that papers print as "GFLOPs" (DeiT-S dense: 4.5989e9). Scoring is counted apart, see
    `scoring_macs`; bias, normalization and activation are not counted.

    Args:
        shape: the model.
        plan: by block, tokens in (attention, MLP).
    """
    blocks = sum(block_macs(shape, index, *tokens) for index, tokens in enumerate(plan))
    return shape.stem_macs + blocks + shape.head_macs


def work_macs(shape: ViTShape, block: int, work: Work) -> int:
    """Multiply-accumulates of one block of a graph: linear layers, and the products Q K^T and A V."""
    return attention_macs(shape, block, work) + shape.linear_macs[block][1] * work.mlp


def attention_macs(shape: ViTShape, block: int, work: Work) -> int:
    """Of `work_macs`, the half before the MLP."""
    attention, keys, queries = shape.linear_macs[block][0], shape.key_macs[block], shape.query_macs[block]
    products = 2 * work.rows * work.keys * shape.attention_width[block]
    projection = (attention - keys - queries) * work.projected
    return keys * work.keys + queries * work.queries + products + projection


def graph_macs(shape: ViTShape, budget: Budget | None = None) -> int:
    """Multiply-accumulates of a graph for one image: what `model_macs` counts, less what no graph computes.

    The last block of a model whose classifier reads prefix tokens only asks for those alone, in the dense graph, too;
    and a stage that only drops asks and projects nothing for what goes, see `work`. Scoring is counted apart.

    Args:
        shape: the model.
        budget: its plan; None: nothing is removed.
    """
    blocks = sum(work_macs(shape, block, work_of(shape, budget, block)) for block in range(shape.depth))
    return shape.stem_macs + blocks + shape.head_macs


def total_macs(shape: ViTShape, budget: Budget) -> int:
    """What the pruned graph costs, scoring included."""
    return graph_macs(shape, budget) + scoring_macs(shape, budget)


def scoring_macs(shape: ViTShape, budget: Budget) -> int:
    """Multiply-accumulates that a method's scores and merges add to the model's own, see `methods.costs`."""
    method, total = get_method(budget.method), 0
    parameters = parameters_of(budget)
    for row in budget.choosing:
        total += method.scoring_macs(stage_sizes(shape, row), parse_stage(method, row), parameters)
    return total


def stage_sizes(shape: ViTShape, row: BlockTokens) -> StageSizes:
    """What a stage's cost depends on, of a budget's row."""
    return StageSizes(
        before=row.before,
        after=row.after,
        prefix=shape.prefix_tokens,
        heads=shape.attention_width[row.block] // shape.head_dim,
        head_dim=shape.head_dim,
        width=shape.width,
        class_token=shape.class_token,
        block=(row.block, shape.depth),
    )


def gmacs(shape: ViTShape, budget: Budget, dense: int | None = None) -> dict[str, float]:
    """Predicted cost for `budget.json`, in 1e9 multiply-accumulates.

    `dense` and `paper` are counts as papers print them, see `model_macs`: ratios are of `dense`. What the pruned graph
    computes is `pruned` and, beside it, `scoring`.

    Args:
        shape: the model.
        budget: its plan.
        dense: cost of the model that it is compared with, where that is a wider one.
    """
    return {
        "dense": round((dense or model_macs(shape, dense_plan(shape))) / 1e9, 6),
        "pruned": round(graph_macs(shape, budget) / 1e9, 6),
        "scoring": round(scoring_macs(shape, budget) / 1e9, 6),
        "paper": round(model_macs(shape, budget.plan()) / 1e9, 6),
    }


def gmacs_by_block(shape: ViTShape, budget: Budget) -> dict[str, list[float]]:
    """What every block of the dense and the pruned graph costs, and what its stage adds, in 1e9; see `gmacs`."""
    blocks, method = range(shape.depth), get_method(budget.method)
    parameters, scoring = parameters_of(budget), [0] * shape.depth
    for row in budget.choosing:
        scoring[row.block] = method.scoring_macs(stage_sizes(shape, row), parse_stage(method, row), parameters)
    counts = {
        "dense": [work_macs(shape, block, work_of(shape, None, block)) for block in blocks],
        "pruned": [work_macs(shape, block, work_of(shape, budget, block)) for block in blocks],
        "scoring": scoring,
    }
    return {name: [round(count / 1e9, 6) for count in found] for name, found in counts.items()}


@dataclass(frozen=True)
class Price:
    """What budgets cost, as a target counts it.

    Attributes:
        of: what a budget's graph costs; grows with every token that stays.
        unit: that a person reads it in.
        scale: of one unit.
        dense: what the dense model costs, as a target counts it.
        unpruned: what the graph costs with nothing removed.
    """

    of: Callable[[Budget], float]
    unit: str
    scale: float
    dense: float
    unpruned: float

    def says(self, cost: float) -> str:
        """A cost for a person."""
        return f"{cost / self.scale:.3f}"


def macs_price(shape: ViTShape) -> Price:
    """Multiply-accumulates of a model's budgets, scoring included."""
    dense, unpruned = model_macs(shape, dense_plan(shape)), graph_macs(shape)
    return Price(lambda budget: total_macs(shape, budget), "GMACs", 1e9, dense, unpruned)


@dataclass(frozen=True)
class LatencyModel:
    """Latency as a share of the dense graph's, by a formula: `intercept + slope * MACs / dense MACs`.

    It knows neither the machine nor what stages cost; `latency.MeasuredLatency` does.

    The defaults were measured with onnxruntime on a CPU at batch 1 (rms 1 %): weights stream from memory and
    every node costs something however few tokens there are. From batch 8 on latency follows MACs.

    Attributes:
        intercept: share of the dense latency that does not shrink.
        slope: share that shrinks with MACs.
    """

    intercept: float = 0.126
    slope: float = 0.874

    @classmethod
    def for_batch(cls, batch: int) -> LatencyModel:
        """The measured defaults: an intercept of 0.126 at batch 1 that falls to none at batch 8."""
        intercept = 0.126 * max(0.0, (8 - batch) / 7)
        return cls(intercept, 1 - intercept)

    def speedup(self, mac_ratio: float) -> float:
        """The speed-up at a share of the dense graph's MACs."""
        return 1.0 / (self.intercept + self.slope * mac_ratio)

    def mac_ratio(self, speedup: float) -> float:
        """The share of the dense MACs that gives a speed-up.

        Raises:
            InputError: no token budget reaches it.
        """
        ratio = (1.0 / speedup - self.intercept) / self.slope
        if not 0 < ratio <= 1:
            most = "any" if self.intercept <= 0 else f"{1 / self.intercept:.2f}"
            raise InputError(
                f"prune.target.speedup is {speedup}: the latency model allows at least 1 and below {most} here"
            )
        return ratio
