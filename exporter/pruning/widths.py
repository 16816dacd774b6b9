"""The plan of a slimmed model: which heads and MLP neurons every block keeps.

A plan is a JSON file with one line per block::

    {"format": "vitrim-widths/1", "model": "vit_tiny_patch16_224", "method": "taylor", "blocks": [
      {"block": "blocks.0", "heads_before": 3, "heads": [0, 2], "neurons_before": 768, "neurons": [0, 3, ...]},
      ...]}

Where the heads of a block cannot leave, `heads_before` is 0 and `heads` is empty.

This module is plain data: it imports neither torch nor timm.
"""

from __future__ import annotations

import json
import os
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..core.errors import InputError
from ..core.files import atomic_write
from ..core.inputs import read_json
from .budget import first_problem

FORMAT: Literal["vitrim-widths/1"] = "vitrim-widths/1"


class BlockWidths(BaseModel):
    """One block: the indices of the heads and neurons that stay, out of how many that could leave."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    block: str = Field(min_length=1)
    heads_before: int = Field(ge=0, strict=True)
    heads: tuple[int, ...]
    neurons_before: int = Field(ge=1, strict=True)
    neurons: tuple[int, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _indices(self) -> BlockWidths:
        for kind, kept, whole in (
            ("heads", self.heads, self.heads_before),
            ("neurons", self.neurons, self.neurons_before),
        ):
            if not whole and kept:
                raise ValueError(f"{self.block}: {kind} must be [], as {kind}_before is 0: none can leave")
            outside = whole and not (kept and 0 <= kept[0] <= kept[-1] < whole)
            if outside or list(kept) != sorted(set(kept)):
                limits = f"different indices from 0 to {whole - 1}, ascending, at least one"
                raise ValueError(f"{self.block}: {kind} must be {limits}")
        return self


class Widths(BaseModel):
    """What every block keeps, and where the plan came from.

    Attributes:
        model: timm name, free text for a reader.
        method: how units were judged, `taylor` or `xpruner`.
        blocks: one row per block, in order.
        costs: `gmacs` and `parameters`, each as [dense, slimmed]; informative.
        statistics: figures behind the plan; informative.
        provenance: hashes and versions; informative.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal["vitrim-widths/1"] = FORMAT
    model: str = ""
    method: str = ""
    blocks: tuple[BlockWidths, ...] = Field(min_length=1)
    costs: dict[str, tuple[float, float]] = Field(default_factory=dict)
    statistics: dict[str, Any] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)

    @property
    def heads(self) -> tuple[int, ...]:
        """Heads that stay, by block."""
        return tuple(len(row.heads) for row in self.blocks)

    @property
    def neurons(self) -> tuple[int, ...]:
        """Neurons that stay, by block."""
        return tuple(len(row.neurons) for row in self.blocks)

    def followed_by(self, later: Widths) -> Widths:
        """What a model keeps that is slimmed to these widths and then to `later`, told by the units of the first one.

        All other figures are those of `later`.
        """
        rows = [
            row.model_copy(
                update={
                    "heads": tuple(row.heads[index] for index in then.heads),
                    "neurons": tuple(row.neurons[index] for index in then.neurons),
                }
            )
            for row, then in zip(self.blocks, later.blocks, strict=True)
        ]
        return later.model_copy(update={"blocks": tuple(rows)})


def parse_widths(data: object, where: str = "widths") -> Widths:
    """Validate plain data as a plan of widths.

    Raises:
        InputError: with the key, what was found and what is allowed.
    """
    if not isinstance(data, dict):
        raise InputError(f"{where}: must be a JSON object with the key blocks, as `vitrim slim` writes it")
    try:
        return Widths.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{where}: {first_problem(error)}") from error


def read_widths(path: str | os.PathLike[str]) -> Widths:
    """Read and validate a file of widths; its fit to a model is checked by `vitrim.exporter.pruning.slim`.

    Raises:
        InputError: the file cannot be read, is not JSON or no plan of widths.
    """
    return parse_widths(read_json(path, "plan of widths", "vitrim slim"), os.fspath(path))


def format_widths(widths: Widths) -> str:
    """JSON text with one line per block, so that two plans can be diffed."""
    data = widths.model_dump(mode="json")
    rows = ",\n".join("    " + json.dumps(row) for row in data.pop("blocks"))
    entries = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in data.items()]
    entries.insert(3, '  "blocks": [\n' + rows + "\n  ]")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def write_widths(widths: Widths, path: str | os.PathLike[str]) -> None:
    """Write a plan of widths atomically."""
    atomic_write(path, format_widths(widths))
