"""What a pruning method is; a stage shows it `Evidence`, and it answers with a `Selection`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ...core.errors import InputError
from ..budget import Place
from ..plan import Preset
from .costs import StageSizes
from .declared import check_class
from .evidence import Evidence
from .selection import BY_SIZE, MergeRule, Selection, Weighing

Reads = Literal["none", "first", "all"]


@dataclass(frozen=True)
class Scores:
    """How a method judges the patches of one block of the dense model, for calibration.

    Attributes:
        importance: [batch, patches], not negative; their share of the sum is the importance mass.
        notes: further figures by name, [batch] each, such as the share of heads that passed a filter.
    """

    importance: Tensor
    notes: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Placement:
    """Where stages go when a recipe leaves it open, and how they share the removal.

    Attributes:
        at: as shares of the depth, or in every block; None: where `vitrim.calibration.tokens.rules` places them.
        sized_by: `rates`: a stage keeps a share of its patches; `counts`: it removes a number of them.
        similar: share of the removal that goes by similarity, at these places and at those that a recipe names; None:
            what the rules say.
    """

    at: tuple[float, ...] | Literal["every block"] | None = None
    sized_by: Literal["rates", "counts"] = "rates"
    similar: float | None = None

    def blocks(self, depth: int) -> tuple[int, ...] | None:
        """The blocks in a model of some depth; None where the method does not say."""
        if self.at == "every block":
            return tuple(range(depth))
        return None if self.at is None else tuple(sorted({int(share * depth + 1e-9) for share in self.at}))


@dataclass(frozen=True)
class Threshold:
    """A threshold of every stage that calibration can set: a quantile over images of the method's `statistic`.

    Attributes:
        option: key of the stage's row that it goes to.
        quantile: parameter with the share of the images that lies below; null in it: nothing is calibrated.
        measures: what the statistic is, in a word.
    """

    option: str
    quantile: str
    measures: str


class Method:
    """A pruning method. It has no state; `METHODS` holds one instance of every class.

    A class says what differs from what stands here. What it says is checked when it is made, so a misspelt name or a
    wrong type fails at import.

    Attributes:
        name: as budgets and recipes have it.
        about: what it does, in a line.
        paper: where it is described, with the section; empty: nowhere else.
        reads: rows of the attention matrix that a stage needs: `none`, the `first` (the class token's; a model without
            a class token hands out all), or `all`.
        lengths: whether it reads how long values are, so that a stage may hand out `Evidence.squares`.
        reads_tokens: whether a stage needs the tokens themselves, see `Evidence.tokens`.
        hands_over: whether tokens that its merges name only hand over their sizes.
        masks_duplicates: whether a stage may keep a token twice; the second is masked in all that follows.
        by_similarity: whether a share of a stage's removal can go by similarity: `StageOptions.similar` patches.
        rounds_up: whether keep rates given by hand round up.
        placement: where stages go and how they are sized.
        threshold: what calibration can set by a quantile of `statistic`; None: nothing.
        orders: whether the order of the kept tokens is the method's own. Where it is not, they stand as they rank,
            which saves a sort: neither attention nor pooling asks for an order. What is told of them is ascending.
        presets: published configurations.
        before: by an older format of budgets, parameters as they were for those that do not name them, where their
            defaults have changed since.
        searchable: numbers among its parameters that a search may scale.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    paper: ClassVar[str] = ""
    reads: ClassVar[Reads] = "none"
    lengths: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = False
    hands_over: ClassVar[bool] = False
    masks_duplicates: ClassVar[bool] = False
    by_similarity: ClassVar[bool] = False
    rounds_up: ClassVar[bool] = False
    placement: ClassVar[Placement] = Placement()
    threshold: ClassVar[Threshold | None] = None
    presets: ClassVar[tuple[Preset, ...]] = ()
    orders: ClassVar[bool] = True
    before: ClassVar[dict[str, dict[str, Any]]] = {}
    searchable: ClassVar[tuple[str, ...]] = ()

    class Parameters(BaseModel):
        """What a budget may say that holds for all stages; every field has a default and a description."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        place: Place = Field(
            default="before_mlp",
            description="where in a block tokens go: before they ask, between attention and MLP, or at its end",
        )

    class StageOptions(BaseModel):
        """What one stage's row may say; every field has a default and a description."""

        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init_subclass__(cls) -> None:
        """Check what a method says of itself.

        Raises:
            TypeError: naming the class, the attribute and what is wrong with it.
        """
        super().__init_subclass__()
        check_class(cls, Method)

    def select(self, evidence: Evidence, keep: int, options: Any, parameters: Any) -> Selection:
        """Which tokens stay at a stage; every method has its own.

        Args:
            evidence: of the block.
            keep: tokens after the stage, prefix and fused ones included.
            options: the stage's `StageOptions`.
            parameters: the method's `Parameters`.
        """
        raise NotImplementedError(f"{self.name} has no select")

    def score(self, evidence: Evidence, parameters: Any) -> Scores:
        """How the patches of a block of the dense model are judged, for calibration; see `has_scores`."""
        raise NotImplementedError(f"{self.name} has no scores")

    def statistic(self, evidence: Evidence, parameters: Any) -> Tensor:
        """What a stage compares with its threshold, [batch]; of methods that have a `threshold`."""
        raise NotImplementedError(f"{self.name} has no threshold")

    def stage_options(self, patches: int, kept: int, similar: float, iterations: int | None) -> dict[str, Any]:
        """What a rule writes into the row of a stage.

        Args:
            patches: before the stage.
            kept: patches after it.
            similar: share of the removal that goes by similarity.
            iterations: rounds of scoring; None takes the method's default.
        """
        return {}

    def largest_removal(self, tokens: int, prefix: int, parameters: Any) -> int:
        """How many of some tokens one stage can remove."""
        return tokens - prefix

    def check_stage(self, before: int, keep: int, prefix: int, options: Any, parameters: Any, where: str) -> None:
        """Refuse a stage that the method cannot fill; not asked where no patch stays.

        Raises:
            InputError: naming the row, the value and the limit.
        """
        most = self.largest_removal(before, prefix, parameters)
        if before - keep > most:
            raise InputError(
                f"{where} removes {before - keep} of {before} tokens, but one stage of {self.name} removes at most "
                f"{most}; keep at least {before - most}"
            )

    def merge_rule(self, options: Any, parameters: Any, block: tuple[int, int]) -> MergeRule | None:
        """How a stage merges what goes into what stays; None: it only drops.

        Args:
            block: (0-based block, blocks of the model).
        """
        return None

    def weighing(self, evidence: Evidence, parameters: Any) -> Weighing:
        """What tokens count where they merge; by default their sizes."""
        return BY_SIZE

    def proportional(self, parameters: Any) -> bool:
        """Whether a token counts by its size in later attention, by log(size) on its logits."""
        return False

    def fuses(self, parameters: Any) -> bool:
        """Whether every stage sums what goes into one more token."""
        return False

    def fuse(self, evidence: Evidence, kept: Tensor, options: Any, parameters: Any) -> Tensor | None:
        """Weights [batch, tokens] of that token, from what is not at `kept`; None: there is none."""
        return None

    def scoring_macs(self, stage: StageSizes, options: Any, parameters: Any) -> int:
        """Multiply-accumulates that a stage adds to the model's own, for one image: of its scores and its merges.

        `costs` says what is counted and has the parts that methods share; not asked where no patch stays.
        """
        return 0

    @property
    def has_scores(self) -> bool:
        """Whether the method can judge the patches of a dense model."""
        return type(self).score is not Method.score

    @property
    def merges(self) -> bool:
        """Whether tokens merge; else all that goes is dropped, or fused into one."""
        return type(self).merge_rule is not Method.merge_rule and not self.hands_over
