"""What a person sees: progress while a command runs, tables at its end, plain lines where there is no terminal."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table


def console_for(stream: Any) -> Console:
    """A console that neither wraps nor colours where nobody looks at it."""
    return Console(file=stream, width=None if stream.isatty() else 120, highlight=False, markup=False)


class Plain:
    """Stages as plain lines on standard error."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def stage(self, name: str, cached: bool = False) -> None:
        """One line a stage."""
        click.echo(
            f"[{time.monotonic() - self.began:6.1f} s] {name}{' (unchanged, skipped)' if cached else ''}",
            err=True,
        )

    def progress(self, done: int, total: int) -> None:
        """Nothing: a log wants no bars."""

    def note(self, text: str) -> None:
        """One line."""
        click.echo(f"note: {text}", err=True)


class Bars:
    """Stages as progress bars on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self.bars, self.task = progress, TaskID(-1)

    def stage(self, name: str, cached: bool = False) -> None:
        """Finish the last bar and begin another."""
        self.finish()
        label = f"{name} [dim](unchanged)[/dim]" if cached else name
        self.task = self.bars.add_task(label, total=1 if cached else None, completed=1 if cached else 0)

    def progress(self, done: int, total: int) -> None:
        """Move the bar."""
        if self.task >= 0:
            self.bars.update(self.task, completed=done, total=total)

    def note(self, text: str) -> None:
        """One line above the bars."""
        self.bars.console.print(f"[yellow]note:[/yellow] {text}")

    def finish(self) -> None:
        """Fill the last bar and stop its clock."""
        if self.task >= 0:
            total = self.bars.tasks[self.task].total or 1
            self.bars.update(self.task, completed=total, total=total)
            self.bars.stop_task(self.task)


@contextmanager
def listener(silent: bool) -> Iterator[Any]:
    """A listener for a pipeline: bars on a terminal, plain lines elsewhere, nothing when silent."""
    if silent:
        from .recipes.pipeline.listener import Silence

        yield Silence()
        return
    if not sys.stderr.isatty():
        yield Plain()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars = Bars(progress)
        yield bars
        bars.finish()


def show(result: Any, draw: Callable[[Any, Console], None], as_json: bool, quiet: bool) -> None:
    """Print a result as JSON, as `draw` draws it, or not at all."""
    if as_json:
        click.echo(json.dumps(result, indent=2, default=str))
    elif not quiet:
        draw(result, console_for(sys.stdout))


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def exported(result: dict[str, Any], console: Console) -> None:
    """The end of an export: accuracy, parity and speed on one screen."""
    if result["widths"] is not None:
        widths(result["widths"], console)
    if result["budget"] is not None:
        budget(result["budget"], console)
    seen = result["fidelity"]
    table = Table(title=f"Answers on {seen['images']} images", title_justify="left")
    for column in ("", "dense", "pruned"):
        table.add_column(column, justify="left" if not column else "right")
    if "accuracy_dense" in seen:
        table.add_row("top-1", _percent(seen["accuracy_dense"]), _percent(seen["accuracy_pruned"]))
    table.add_row("agrees with dense", "", _percent(seen["agreement"]))
    console.print(table)
    if seen["on_calibration_images"]:
        console.print("These are the calibration images themselves: give more images, or an evaluate section.")
    parity(result["parity"], console)
    benched(result["bench"], console)
    if result["precision"] is not None:
        from .recipes.pipeline.readme import precision_words

        console.print(f"Precision: {precision_words(result['precision'], seen)}")
    console.print(f"Engine: {result['engine']}")
    console.print(f"Bundle: {result['folder']}")


def budget(data: dict[str, Any], console: Console) -> None:
    """A budget's stages and cost."""
    cost, rows = data["gmacs"], [row for row in data["blocks"] if row["before"] != row["after"]]
    title = f"{data['model']}: {data['method']}, {cost['pruned']:.3f} of {cost['dense']:.3f} GMACs"
    table = Table(title=title, title_justify="left")
    for column in ("block", "tokens before", "after", "options"):
        table.add_column(column, justify="right" if column != "options" else "left")
    for row in rows:
        options = ", ".join(f"{k} {v}" for k, v in row.items() if k not in ("block", "before", "after"))
        table.add_row(str(row["block"]), str(row["before"]), str(row["after"]), options)
    console.print(table)


def widths(data: dict[str, Any], console: Console) -> None:
    """What slimming kept of every block, and what it saves."""
    (dense, slimmed), (whole, left) = data["costs"]["gmacs"], data["costs"]["parameters"]
    share = f"{left / 1e6:.2f} of {whole / 1e6:.2f} million parameters"
    console.print(f"{data['model']}: slimmed to {slimmed:.3f} of {dense:.3f} GMACs, {share}")  # wider than the table
    table = Table()
    for column in ("block", "heads", "neurons"):
        table.add_column(column, justify="left" if column == "block" else "right")
    for row in data["blocks"]:
        heads, neurons = f"{len(row['heads'])} of {row['heads_before']}", f"{len(row['neurons'])} of"
        table.add_row(row["block"], heads, f"{neurons} {row['neurons_before']}")
    console.print(table)


def parity(result: dict[str, Any], console: Console) -> None:
    """The ladder, a line a rung."""
    from .exporter.runtime.parity import describe_error

    limits = result.get("close")
    held = f"cosine {limits['cosine']:g}, agreement {limits['agreement']:.0%}" if limits else f"atol {result['atol']:g}"
    table = Table(title=f"Parity: {'passed' if result['passed'] else 'FAILED'} ({held})", title_justify="left")
    for column in ("rung", "images", "same tokens", "largest error", "top-1", ""):
        table.add_column(column, justify="left" if column in ("rung", "") else "right")
    for rung in result["rungs"]:
        same = min((stage["same_images"] for stage in rung["stages"]), default=None)
        table.add_row(
            rung["name"],
            str(rung["images"]),
            "-" if same is None else _percent(same),
            describe_error(rung),
            _percent(rung["top1"]),
            "ok" if rung["passed"] else f"FAILED at {rung['first_offender']}",
        )
    console.print(table)
    skipped = [result.get(f"{what}_not_checked") for what in ("graph", "engine")]
    for reason in (result.get("cpu_only"), *skipped):
        if reason:
            console.print(f"Note: {reason}")


def built(result: dict[str, Any], console: Console) -> None:
    """The ladder of a bundle with its new engine, and what that engine computes in."""
    parity(result, console)
    engine = result["engine"]
    layers, options = engine["layers"], ("version_compatible", "hardware_compatible")
    console.print(f"Engine: {engine['precision']}, {engine['typing']}; {layers['verdict']}")
    seen = layers["attention"]
    if seen["not_fused"]:
        console.print(f"Attention: {seen['fused']} fused, {seen['not_fused']} not: {seen['reason']}")
    elif seen["fused"]:
        console.print(f"Attention: {seen['fused']} fused")
    if engine["dla_core"] is not None:
        left = engine["dla_fallback"]
        console.print(f"DLA core {engine['dla_core']}: {len(left)} layers run on the GPU ({', '.join(left[:5])})")
    given = [f"{key} {engine[key]}" for key in options if engine[key]]
    if given:
        console.print(f"Built {', '.join(given)}")


def benched(result: dict[str, Any], console: Console) -> None:
    """Latencies and what may be claimed."""
    where = result["environment"]
    table = Table(title=f"{where['runtime']}, batch {result['batch']}, {where['cpu']}", title_justify="left")
    for column in ("graph", "median ms", "95 % interval", "images/s"):
        table.add_column(column, justify="left" if column == "graph" else "right")
    for name, values in result["distributions"].items():
        low, high = values["median_interval"]
        rate = result["images_per_second"][name]
        table.add_row(name, f"{values['median']:.2f}", f"{low:.2f} to {high:.2f}", f"{rate:.1f}")
    console.print(table)
    if where.get("cpu_only"):
        console.print(f"Note: {where['cpu_only']}")
    console.print(f"Speed: {result['verdict']}")
    if result["overhead"] is not None:
        console.print(f"Overhead over free slicing to the same tokens: {result['overhead']:.3f}")
    for name, found in result.get("modes", {}).items():
        console.print(f"pruned, {name}: {found.get('reason') or format(found['median'], '.3f') + ' ms'}")
    if "energy" in result:
        from .exporter.runtime.machine.energy import describe

        for line in describe(result["energy"]):
            console.print(f"Energy: {line}")
    if where.get("clock_advice"):
        console.print(f"Clocks: {where['clocks']}; to lock them: {'; '.join(where['clock_advice'])}")
    if where.get("warning"):
        console.print(f"Warning: {where['warning']}")


def compared(result: dict[str, Any], console: Console) -> None:
    """Benchmarks side by side, a column each; what may be claimed of two of them, and what may not."""
    rows = result["rows"]
    table = Table("", *(row["name"] for row in rows))
    for title, key, digits in (
        ("device", "device", ""),
        ("runtime", "runtime", ""),
        ("precision", "precision", ""),
        ("batch", "batch", ""),
        ("median ms", "median", ".3f"),
        ("95 % interval", "median_interval", ".3f"),
        ("p95 ms", "p95", ".3f"),
        ("p99 ms", "p99", ".3f"),
        ("images/s", "images_per_second", ".1f"),
        ("over dense", "speedup", ".2f"),
        ("95 % interval", "speedup_interval", ".2f"),
        ("claimed", "claimed", ""),
        ("overhead", "overhead", ".3f"),
        ("J/image", "joules_per_image", ".4g"),
        ("clocks", "clocks", ""),
    ):
        table.add_row(title, *(_cell(row[key], digits) for row in rows))
    console.print(table)
    for pair in result["pairs"]:
        console.print(pair["verdict"])
    for warning in result["warnings"]:
        console.print(f"Warning: {warning}")


def _cell(value: Any, digits: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " to ".join(format(one, digits) for one in value) if isinstance(value, list) else format(value, digits)


def inspected(result: dict[str, Any], console: Console) -> None:
    """Operators before and after, passes, lint."""
    before, after = result.get("before"), result["operators"]
    table = Table(title=f"Operators (opset {result['opset']})", title_justify="left")
    for column in ("operator", *(("traced",) if before else ()), "here"):
        table.add_column(column, justify="left" if column == "operator" else "right")
    for name in sorted({*after, *(before or {})}, key=lambda op: (-after.get(op, 0), op)):
        counts = ([str(before.get(name, 0))] if before else []) + [str(after.get(name, 0))]
        table.add_row(name, *counts)
    totals = ([str(sum(before.values()))] if before else []) + [str(sum(after.values()))]
    table.add_row("all", *totals)
    console.print(table)
    for entry in result.get("passes", []):
        if entry["count"]:
            error = "" if entry["max_abs"] is None else f", outputs moved by {entry['max_abs']:.2g}"
            console.print(f"pass: {entry['name']}: {entry['count']} rewritten{error}")
        for skipped in entry["skipped"]:
            console.print(f"pass: {entry['name']}: left {skipped}")
    _findings(result["findings"], result["target"], console)


_NAMED = 3  # nodes of a kind of finding that are named on the screen; --json has them all


def _findings(findings: list[dict[str, Any]], target: str, console: Console) -> None:
    """A line a kind of finding, with how many nodes have it."""
    kinds: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for finding in findings:
        kinds.setdefault((finding["severity"], finding["what"], finding["remedy"]), []).append(finding)
    for (severity, what, remedy), rows in kinds.items():
        ops = ", ".join(f"{op} x{n}" if n > 1 else op for op, n in Counter(row["op"] for row in rows).most_common())
        more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        nodes = ", ".join(row["node"] for row in rows[:_NAMED])
        console.print(f"{severity}: {ops} {nodes}{more}: {what}; {remedy}", soft_wrap=True)
    if not findings:
        console.print(f"lint for {target}: clean")


def linted(result: dict[str, Any], console: Console) -> None:
    """One target in detail, several as a matrix with what each refuses most."""
    found = result["targets"]
    nodes = sum(result["operators"].values())
    if len(found) == 1:
        ((name, verdict),) = found.items()
        console.print(f"{result['path']}: opset {result['opset']}, {nodes} nodes, for {name}")
        _findings(verdict["findings"], name, console)
        return
    table = Table(title=f"{result['path']}: opset {result['opset']}, {nodes} nodes", title_justify="left")
    for column in ("target", "", "errors", "warnings", "mostly"):
        table.add_column(column, justify="right" if column in ("errors", "warnings") else "left")
    for name, verdict in found.items():
        severity = "error" if verdict["errors"] else "warning"
        rows = [row for row in verdict["findings"] if row["severity"] == severity]
        kinds = Counter(f"{row['op']}: {row['what']}" for row in rows).most_common(2)
        mostly = "; ".join(f"{n} x {what}" if n > 1 else what for what, n in kinds)
        word = "refused" if verdict["errors"] else "taken"
        table.add_row(name, word, str(verdict["errors"]), str(verdict["warnings"]), mostly)
    console.print(table)
    console.print("In detail: the same with --target NAME", soft_wrap=True)


def targets(result: list[dict[str, Any]], console: Console) -> None:
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
        lacks = [op for op in row["lacks"] if op not in common]
        if lacks:
            console.print(f"    lacks {', '.join(lacks)}", soft_wrap=True)
        for fault in row["faults"]:
            console.print(f"    {fault['what']} ({fault['link']})", soft_wrap=True)
    console.print(f"No TensorRT has {', '.join(sorted(common))}", soft_wrap=True)


def methods(result: list[dict[str, Any]], console: Console) -> None:
    """What every method does, then what can be said to it; what all of them take is said once."""
    table = Table("method", "tokens", "what it does", "described in")
    for row in result:
        name = f"{row['name']} (default)" if row["default"] else row["name"]
        table.add_row(name, "merged" if row["merges"] else "dropped", row["about"], row["paper"] or "-")
    console.print(table)
    common = [field for field in result[0]["parameters"] if all(field in row["parameters"] for row in result)]
    own = [(row["name"], [field for field in row["parameters"] if field not in common]) for row in result]
    _keys("prune.parameters", [("all", common), *own], console)
    _keys("Options of a stage, in its row of a budget", [(row["name"], row["stage"]) for row in result], console)
    for row in result:
        if row["presets"]:
            console.print(f"Presets of {row['name']}: {', '.join(row['presets'])}", soft_wrap=True)


def _keys(title: str, owners: list[tuple[str, list[dict[str, Any]]]], console: Console) -> None:
    """Keys by their owner, with what they take and mean."""
    table = Table("method", "key", "values", "default", "meaning", title=title, title_justify="left")
    for owner, fields in owners:
        for field in fields:
            table.add_row(owner, field["name"], field["values"], json.dumps(field["default"]), field["meaning"])
    console.print(table)


def families(result: list[dict[str, Any]], console: Console) -> None:
    """Families of models, those that vitrim takes first."""
    table = Table("family", "models", "tokens prunable", "slimmable", "why not the others")
    for family in sorted(result, key=lambda row: (-len(row["prunable"]), -len(row["slimmable"]), row["name"])):
        count = str(len(family["prunable"])) if family["prunable"] else "-"
        models = str(family["models"])
        models += f" ({len(family['headless'])} without a head, give yours)" if family["headless"] else ""
        slimmable = str(len(family["slimmable"])) if family["slimmable"] else "-"
        # What a model's kind refuses, it refuses for both; only what differs is said of slimming by itself.
        known = {reason.partition(",")[0] for reason in family["refused"]}
        other = {reason: n for reason, n in family["unslimmable"].items() if reason.partition(",")[0] not in known}
        reasons = [f"{n}: {reason}" for reason, n in family["refused"].items()]
        reasons += [f"not slimmed, {n}: {reason}" for reason, n in other.items()]
        table.add_row(family["name"], models, count, slimmable, "; ".join(reasons))
    console.print(table)


def shipped(result: dict[str, str], console: Console) -> None:
    """Recipes by name."""
    table = Table()
    table.add_column("recipe")
    table.add_column("what it does")
    for name, text in result.items():
        table.add_row(name, text)
    console.print(table)


def doctor(checks: list[dict[str, Any]], console: Console) -> None:
    """One line a finding."""
    table = Table()
    for column in ("", "what", "found", "without it", "how to get it"):
        table.add_column(column)
    marks = {"ok": "ok", "lack": "LACK", "info": "-"}
    for check in checks:
        table.add_row(marks[check["state"]], check["name"], check["found"], check["cost"], check["remedy"])
    console.print(table)
