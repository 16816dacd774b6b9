"""Commands that list what there is: recipes, devices, methods, models, targets; what this machine has; caches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..call import Call, as_it_is
from ..complete import complete_model
from ..group import command
from ..screens.console import print_json
from ..screens.lists import print_checks, print_families, print_freed, print_methods, print_recipes, print_targets


@command("vitrim recipes --schema > recipe.schema.json")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a recipe instead.")
def recipes(schema: bool) -> Call:
    """List the recipes that ship."""
    if schema:
        return Call("recipe_schema", (), {}, lambda found, console: print_json(found), plain=as_it_is)
    return Call("recipes", (), {}, print_recipes, plain=as_it_is)


@command("vitrim devices")
def devices() -> Call:
    """List the devices that ship, for --device."""
    return Call("devices", (), {}, print_recipes, plain=as_it_is)


@command("vitrim methods --json")
def methods() -> Call:
    """List the pruning methods: what each does, its parameters, the options of a stage, its presets."""
    return Call("methods", (), {}, print_methods, plain=as_it_is)


@command("vitrim models dinov2")
@click.argument("wanted", default="", shell_complete=complete_model)
def models(wanted: str) -> Call:
    """Say which of timm's models vitrim takes, and why not the others; WANTED is part of a family's or model's name."""

    def plain(families: list[Any]) -> Any:
        return [family.to_dict() for family in families]

    return Call("models", (wanted,) if wanted else (), {}, print_families, plain=plain)


@command("vitrim targets --json")
def targets() -> Call:
    """List the targets: opset, precisions, missing operators, which Jetsons run them, known faults."""
    return Call("targets", (), {}, print_targets, plain=as_it_is)


@command("vitrim doctor --json")
def doctor() -> Call:
    """Say what this machine has, what is missing, what that costs, and how to get it."""

    def plain(checks: list[Any]) -> Any:
        return [check.to_json() for check in checks]

    return Call("doctor", (), {}, print_checks, plain=plain)


@command("vitrim clean out/")
@click.argument("outputs", nargs=-1, type=click.Path(path_type=Path))
def clean(outputs: tuple[Path, ...]) -> Call:
    """Remove the caches of finished stages beside OUTPUTS; without any, all in this folder. Says what that frees."""
    return Call("clean", (outputs,) if outputs else (), {}, print_freed, plain=as_it_is)
