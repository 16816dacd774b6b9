"""The files that commands write, by kind, and those that a recipe reads, which no command writes."""

from __future__ import annotations

from pathlib import Path

from ...exporter.core.errors import InputError
from ...exporter.core.latency import read_table
from ...exporter.pruning.budget import read_budget
from ...exporter.pruning.checkpoints.hub import is_hub_name
from ...exporter.pruning.widths import read_widths
from ...exporter.runtime.outputs import Output, check_output
from ..listener import Listener
from .recipe import Recipe, named_files


def _read_slimmed(path: Path) -> None:
    from ...exporter.pruning.checkpoints.tensors import widths_in

    if widths_in(path) is None:
        raise InputError(f"{path} carries no widths, so `vitrim slim` did not write it")


BUDGET = Output("budget", read_budget, "budget.json")
WIDTHS = Output("plan of widths", read_widths, "slim.json")
SLIMMED = Output("slimmed checkpoint", _read_slimmed, "slim.safetensors")
TABLE = Output("latency table", lambda path: read_table(str(path)), "table.json")
RECIPE = Output("recipe", None, "recipe.yaml")  # its comments and edits are a user's


def inputs_of(recipe: Recipe) -> dict[str, Path]:
    """Files and folders that a run of a recipe reads, by what a message calls them."""
    found = {} if recipe.file is None else {"the recipe": recipe.file}
    for section, path, key in named_files(recipe.model_dump(mode="json")):
        if not is_hub_name(section[key]):
            found[f"the recipe's {path}.{key}"] = Path(section[key])
    return found


def check_file(path: Path, kind: Output, recipe: Recipe, force: bool, listener: Listener | None = None) -> None:
    """Refuse to write a file that is not a run's to write, and say what it replaces.

    Raises:
        InputError, EnvironmentLackError: see `vitrim.exporter.runtime.outputs.check_output`.
    """
    replaced = check_output(path, kind, force=force, inputs=inputs_of(recipe))
    if replaced is not None and listener is not None:
        listener.note(replaced)
