"""Tables of what there is: targets, methods, models, recipes, what this machine has, caches."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table

from .console import print_lines

if TYPE_CHECKING:
    from rich.console import Console

    from ...exporter.pruning.families import Family
    from ...exporter.runtime.doctor import Check


def print_targets(result: list[dict[str, Any]], console: Console) -> None:
    """The table of targets, then what a person should know of each."""
    table = Table()
    for column in ("target", "also", "opset", "precisions", "typing", "Jetsons"):
        table.add_column(column, justify="right" if column == "opset" else "left")
    for row in result:
        jetsons = ", ".join(f"{name} ({chip['capability']})" for name, chip in row["jetsons"].items())
        also, precisions = ", ".join(row["aliases"]), " ".join(row["precisions"])
        table.add_row(row["name"], also, str(row["opset"]), precisions, row["typing"] or "-", jetsons or "-")
    console.print(table)
    common = set.intersection(*(set(row["lacks"]) for row in result if row["runtime"] == "tensorrt"))
    for row in result:
        console.print(f"{row['name']}: {row['notes']}", soft_wrap=True)
        missing = [op for op in row["lacks"] if not common.issubset(row["lacks"]) or op not in common]
        if missing:
            console.print(f"    lacks {', '.join(missing)}", soft_wrap=True)
        for kind, operators in row["refuses"].items():
            console.print(f"    refuses {', '.join(operators)} of {kind.lower()}", soft_wrap=True)
        for fault in row["faults"]:
            console.print(f"    {fault['what']} ({fault['link']})", soft_wrap=True)
    console.print(f"No TensorRT has {', '.join(sorted(common))}", soft_wrap=True)


def print_methods(result: list[dict[str, Any]], console: Console) -> None:
    """What every method does, then what can be said to it; what all of them take is said once."""
    table = Table("method", "tokens", "what it does", "described in")
    for row in result:
        name = f"{row['name']} (default)" if row["default"] else row["name"]
        table.add_row(name, "merged" if row["merges"] else "dropped", row["about"], row["paper"] or "-")
    console.print(table)
    common = [field for field in result[0]["parameters"] if all(field in row["parameters"] for row in result)]
    own = [(row["name"], [field for field in row["parameters"] if field not in common]) for row in result]
    _print_keys("prune.parameters", [("all", common), *own], console)
    _print_keys("Options of a stage, in its row of a budget", [(row["name"], row["stage"]) for row in result], console)
    for row in result:
        if row["presets"]:
            console.print(f"Presets of {row['name']}: {', '.join(row['presets'])}", soft_wrap=True)


def _print_keys(title: str, owners: list[tuple[str, list[dict[str, Any]]]], console: Console) -> None:
    """Keys by their owner, with what they take and mean."""
    table = Table("method", "key", "values", "default", "meaning", title=title, title_justify="left")
    for owner, fields in owners:
        for field in fields:
            table.add_row(owner, field["name"], field["values"], json.dumps(field["default"]), field["meaning"])
    console.print(table)


def print_freed(result: dict[str, int], console: Console) -> None:
    """What every cache took."""
    for cache, size in result.items():
        console.print(f"removed {cache}: {size / 1e6:.1f} MB", soft_wrap=True)
    if not result:
        console.print("no cache of vitrim's is here")


def print_families(families: list[Family], console: Console) -> None:
    """Families of models, those that vitrim takes first."""
    from ...exporter.pruning.families import totals

    table = Table("family", "models", "tokens prunable", "slimmable", "why not the others")
    for family in sorted(families, key=lambda one: (-len(one.prunable), -len(one.slimmable), one.name)):
        models = f"{family.models} ({len(family.headless)} without a head)" if family.headless else ""
        # What a model's kind refuses, it refuses for both; only what differs is said of slimming by itself.
        known = {reason.partition(",")[0] for reason in family.refused}
        other = {reason: n for reason, n in family.unslimmable.items() if reason.partition(",")[0] not in known}
        reasons = [f"{n}: {reason}" for reason, n in family.refused.items()]
        reasons += [f"not slimmed, {n}: {reason}" for reason, n in other.items()]
        prunable, slimmable = (str(len(names) or "-") for names in (family.prunable, family.slimmable))
        table.add_row(family.name, models or str(family.models), prunable, slimmable, "; ".join(reasons))
    console.print(table)
    found = totals(families)
    with_weights = "" if found["pretrained"] == found["models"] else f", {found['pretrained']} of them"
    print_lines(
        [
            f"{found['models']} models{with_weights} with pretrained weights: tokens of {found['prunable']} can be "
            f"pruned, {found['slimmable']} can be slimmed, {found['both']} of these both; {found['neither']} neither.",
            "timm does not say how often a model is used, so each counts once.",
        ],
        console,
    )


def print_recipes(result: dict[str, str], console: Console) -> None:
    """Recipes by name."""
    table = Table()
    table.add_column("recipe")
    table.add_column("what it does")
    for name, text in result.items():
        table.add_row(name, text)
    console.print(table)


def print_checks(checks: list[Check], console: Console) -> None:
    """A line per finding."""
    table = Table()
    for column in ("", "what", "found", "without it", "how to get it"):
        table.add_column(column)
    marks = {"ok": "ok", "problem": "PROBLEM", "info": "-"}
    for check in checks:
        table.add_row(marks[check.state], check.name, check.found, check.cost, check.remedy)
    console.print(table)
