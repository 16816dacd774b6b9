"""What a pruning method is, what a stage shows it, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ...core.errors import InputError
from ..budget import Place
from ..plan import Preset
from .costs import StageSizes
from .declared import check_class

Reads = Literal["none", "first", "all"]
MergeRule = Literal["mean", "as_long", "longest", "count"]


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


def power(values: Tensor, exponent: float) -> Tensor:
    """Values to a power; as they are to the first, which would be a node."""
    return values if exponent == 1 else values**exponent


def _powered(worth: Tensor | None, exponent: float) -> Tensor | None:
    return power(worth, exponent) if worth is not None and exponent else None


def _product(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Of two factors, of which None is 1."""
    return other if one is None else one if other is None else one * other


class Weighing(NamedTuple):
    """What tokens count where they merge.

    Attributes:
        worth: [batch, tokens], above 0, what the tokens before the merge are worth; None: nothing is known of it.
        weight: exponent of their worth by which they count in the mean; 0: not by worth.
        sized: whether they count by their sizes, too.
        share: exponent of a token's worth, over that of the one it goes into, by which it hands on its size; 0: all
            of it.
    """

    worth: Tensor | None = None
    weight: float = 0.0
    sized: bool = True
    share: float = 0.0

    @property
    def is_plain(self) -> bool:
        """Whether sizes are all that counts."""
        return self.sized and not self.weight and not self.share

    def mass(self, sizes: Tensor | None, worth: Tensor | None) -> Tensor | None:
        """What some tokens count in a mean, by their sizes and worth (None: one each)."""
        return _product(sizes if self.sized else None, _powered(worth, self.weight))

    def shares(self, worth: Tensor | None) -> Tensor | None:
        """What some tokens hand on of their sizes, times the same of the ones they go into (None: all of it)."""
        return _powered(worth, self.share)

    def handed(self, sizes: Tensor | None, worth: Tensor | None) -> Tensor | None:
        """The sizes that some tokens hand on (None: one each), see `shares`."""
        return _product(sizes, self.shares(worth))


BY_SIZE = Weighing()


@dataclass(frozen=True)
class Merge:
    """Tokens that do not stay but live on in ones that do.

    Attributes:
        source: [batch, merged] int64 positions in the current sequence.
        target: [batch, merged] int64 positions among the kept tokens.
        rule: `mean` averages; `as_long` gives the mean's direction the length of the kept token; `longest` that of the
            longest (MLERP), and keeps no sizes; `count` leaves the kept token as it is, which only counts for more.
        active: [batch] bool, images that merge; the others drop the sources. None: all merge.
        weighing: what tokens count in a mean, and how they hand on their sizes; `longest` and `count` have none.
    """

    source: Tensor
    target: Tensor
    rule: MergeRule = "mean"
    active: Tensor | None = None
    weighing: Weighing = BY_SIZE


@dataclass(frozen=True)
class Selection:
    """Which tokens stay, and what becomes of the others.

    Attributes:
        kept: [batch, keep] int64 positions in the current sequence, prefix tokens first, see `Method.orders`. None
            stands for the first tokens, which a slice takes without a gather.
        gap: [batch] float32, the smallest relative distance between two scores on either side of a cut; below
            about 1e-5 two backends may rightly decide differently. None where nothing was compared.
        merge: what is merged into the kept tokens; None: the others are dropped.
        fused: [batch, tokens] weights of one more token, appended last; None: there is none.
        place: where tokens go, for a stage that merges by one product instead of gathers, see `moves.Moves.place`;
            `kept` and `merge` then only tell it. None: `kept` and `merge` say where they go.
        stays: [batch, tokens - front] bool, beside `place`, see `moves.Moves.stays`.
    """

    kept: Tensor | None
    gap: Tensor | None = None
    merge: Merge | None = None
    fused: Tensor | None = None
    place: Tensor | None = None
    stays: Tensor | None = None


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
