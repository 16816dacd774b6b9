"""The static token budget: how many tokens every block sees, for every image alike.

A budget is a small JSON file that a person can read, diff and edit::

    {"format": "vitrim-budget/3", "method": "zero_tprune", "prefix_tokens": 1,
     "parameters": {"place": "before_mlp"},
     "blocks": [{"block": 0, "before": 197, "after": 197},
                {"block": 1, "before": 197, "after": 138, "similar": 10, "iterations": 30}, ...]}

A *stage* is a block whose `after` is smaller than its `before`. What else a stage's row says belongs to the
method (`vitrim.exporter.pruning.methods`). This module is plain data: it imports neither torch nor timm.
"""

from __future__ import annotations

import json
import os
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..core.errors import InputError, excerpt
from ..core.files import atomic_write
from ..core.inputs import read_json

FORMAT: Literal["vitrim-budget/3"] = "vitrim-budget/3"  # parameters that older ones leave out may mean something else
Place = Literal["before_queries", "before_mlp", "after_block"]
PLACES = get_args(Place)


class BlockTokens(BaseModel):
    """Tokens entering and leaving one block; further keys are the method's options for a stage."""

    model_config = ConfigDict(extra="allow", frozen=True)

    block: int = Field(ge=0, strict=True)
    before: int = Field(ge=1, strict=True)
    after: int = Field(ge=1, strict=True)

    @property
    def is_stage(self) -> bool:
        """Whether this block removes tokens."""
        return self.after != self.before

    @property
    def options(self) -> dict[str, Any]:
        """The method's own keys of this row."""
        return dict(self.model_extra or {})


class Budget(BaseModel):
    """A static token plan with the method that fills it and where it came from.

    Attributes:
        model: timm name, free text for a reader.
        method: name of the pruning method, see `vitrim.exporter.pruning.methods`.
        parameters: the method's parameters; `place` says where in a block a stage sits.
        prefix_tokens: class, distillation and register tokens, which are never removed.
        blocks: one row per block, in order.
        gmacs: predicted multiply-accumulates in 1e9; informative. `dense` and `paper` are those of the dense model and
            of the plan as papers count; `pruned` is what the graph computes, and `scoring` what it adds to choose.
        statistics: the calibration figures behind the plan; informative.
        provenance: hashes and versions; informative.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal["vitrim-budget/1", "vitrim-budget/2", "vitrim-budget/3"] = FORMAT
    model: str = ""
    method: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    prefix_tokens: int = Field(ge=0, strict=True)
    blocks: tuple[BlockTokens, ...] = Field(min_length=1)
    gmacs: dict[str, float] = Field(default_factory=dict)
    statistics: dict[str, Any] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)

    @property
    def place(self) -> Place:
        """Where a stage removes tokens: before the queries, between attention and MLP, or after the whole block."""
        place: Place = self.parameters.get("place", "before_mlp")
        return place

    @property
    def stages(self) -> tuple[BlockTokens, ...]:
        """The rows that remove tokens."""
        return tuple(row for row in self.blocks if row.is_stage)

    @property
    def choosing(self) -> tuple[BlockTokens, ...]:
        """The stages that choose patches; one that keeps prefix tokens only has nothing to choose."""
        return tuple(row for row in self.stages if row.after > self.prefix_tokens)

    @property
    def behind_blocks(self) -> frozenset[int]:
        """Blocks whose stage stands behind them."""
        return frozenset(row.block for row in self.stages) if self.place == "after_block" else frozenset()

    def chooses(self, block: int) -> bool:
        """Whether a stage at some block would have anything to choose."""
        return self.blocks[block].after > self.prefix_tokens

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens after every block."""
        return tuple(row.after for row in self.blocks)

    @property
    def total_gmacs(self) -> float:
        """What the pruned graph costs, scoring included, in 1e9 multiply-accumulates."""
        return self.gmacs["pruned"] + self.gmacs.get("scoring", 0.0)

    def plan(self) -> list[tuple[int, int]]:
        """Tokens in the attention and in the MLP of every block."""
        after_block = self.place == "after_block"
        return [(row.before, row.before if after_block else row.after) for row in self.blocks]


def check_legal(
    budget: Budget,
    *,
    depth: int,
    tokens: int,
    prefix_tokens: int,
    prefix_pooled: bool = False,
    where: str = "budget",
) -> None:
    """Refuse a plan that the model cannot follow.

    Args:
        budget: the plan.
        depth: blocks of the model.
        tokens: tokens that enter its first block, prefix tokens included.
        prefix_tokens: its class, distillation and register tokens.
        prefix_pooled: whether its classifier reads prefix tokens only; then the last block may drop all patches.
        where: file name for the message.

    Raises:
        InputError: naming the row, the value and the limit.
    """
    if budget.prefix_tokens != prefix_tokens:
        raise InputError(
            f"{where}: prefix_tokens is {budget.prefix_tokens}, but the model has {prefix_tokens} prefix tokens, "
            f"which are never removed; set prefix_tokens to {prefix_tokens}"
        )
    if len(budget.blocks) != depth:
        raise InputError(f"{where}: has {len(budget.blocks)} rows under blocks, but the model has {depth} blocks")
    if budget.place not in PLACES:
        allowed = ", ".join(map(repr, PLACES))
        raise InputError(f"{where}: parameters.place is {budget.place!r}; allowed are {allowed}")
    expected = tokens
    for index, row in enumerate(budget.blocks):
        at = f"{where}: blocks[{index}]"
        if row.block != index:
            raise InputError(f"{at}.block is {row.block}; rows stand in order, so it must be {index}")
        if row.before != expected:
            source = "the model's token count" if index == 0 else f"blocks[{index - 1}].after"
            raise InputError(f"{at}.before is {row.before}, but {source} is {expected}; make them equal")
        if row.after > row.before:
            raise InputError(f"{at}.after is {row.after}, more than its before {row.before}; a block cannot add tokens")
        least = prefix_tokens if prefix_pooled and index == depth - 1 else prefix_tokens + 1
        if row.after < least:
            raise InputError(
                f"{at}.after is {row.after}, which would drop prefix tokens or leave no patch: the model has "
                f"{prefix_tokens} prefix tokens, so keep at least {least}"
            )
        if not row.is_stage and row.options:
            raise InputError(f"{at} removes nothing, so {sorted(row.options)} have no meaning there; delete them")
        expected = row.after


def parse_budget(data: object, where: str = "budget") -> Budget:
    """Validate plain data as a budget.

    Raises:
        InputError: with the key, what was found and what is allowed.
    """
    if not isinstance(data, dict):
        raise InputError(f"{where}: must be a JSON object with the keys method, prefix_tokens and blocks")
    try:
        return Budget.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{where}: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    """The first problem of a pydantic error as `key.path: found ..., reason`, and how many more there are."""
    problems = ordered_problems(error)
    first = problems[0]
    path = ""
    for part in first["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    path = excerpt(path, 120)
    reason = first["msg"][:1].lower() + first["msg"][1:]
    if first["type"] == "missing":
        text = f"{path} is missing"
    elif first["type"] == "extra_forbidden":
        text = f"{path} is not a known key"
    elif first["type"] == "value_error":
        text = f"{path or 'top level'}: {first['ctx']['error']}"
    else:
        found = first.get("input")
        text = f"{path} is {excerpt(repr(found) if isinstance(found, str) else found, 63)}: {reason}"
    more = len(problems) - 1
    text = excerpt(text, 400)
    return text + (f" (and {more} more problem{'s' if more > 1 else ''})" if more else "")


def ordered_problems(error: ValidationError) -> list[Any]:
    """A pydantic error's problems, misspelt keys first: they explain what seems to be missing."""
    return sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")


def read_budget(path: str | os.PathLike[str]) -> Budget:
    """Read and validate a budget file; its fit to a model is checked by `check_legal`.

    Raises:
        InputError: the file cannot be read, is not JSON or not a budget.
    """
    return parse_budget(read_json(path, "budget", "vitrim calibrate"), os.fspath(path))


def format_budget(budget: Budget) -> str:
    """JSON text with one line per block, so that two budgets can be diffed."""
    data = budget.model_dump(mode="json")
    rows = ",\n".join("    " + json.dumps(row) for row in data.pop("blocks"))
    head: list[str] = []
    for key, value in data.items():
        text = json.dumps(value, indent=2, ensure_ascii=False).replace("\n", "\n  ")
        head.append(f"  {json.dumps(key)}: {text}")
        if key == "prefix_tokens":
            head.append('  "blocks": [\n' + rows + "\n  ]")
    return "{\n" + ",\n".join(head) + "\n}\n"


def write_budget(budget: Budget, path: str | os.PathLike[str]) -> None:
    """Write a budget atomically."""
    atomic_write(path, format_budget(budget))
