"""What a command prints at its end: tables, and lines where there is no terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .exporter.core.errors import visible
from .exporter.core.records import finite

if TYPE_CHECKING:
    from .exporter.pruning.budget import Budget
    from .exporter.pruning.families import Family
    from .exporter.pruning.widths import Widths
    from .exporter.runtime.bench.choice import Choice
    from .exporter.runtime.bench.compare import Comparison
    from .exporter.runtime.bench.report import Bench
    from .exporter.runtime.doctor import Check
    from .exporter.runtime.parity import Parity
    from .recipes.pipeline.run import Exported
    from .recipes.report.write import Written


class _Plain(Console):
    """A console on which a text is what it says: no markup, no emoji, and no control characters of names in files."""

    def render_str(self, text: str, **options: Any) -> Text:
        """See `Console.render_str`, which everything that is printed passes."""
        return super().render_str(visible(text), **options)


def console_for(stream: Any) -> Console:
    """A console that neither wraps nor colours where nobody looks at it."""
    return _Plain(file=stream, width=None if stream.isatty() else 120, highlight=False, markup=False, emoji=False)


def print_json(data: Any) -> None:
    """Plain data on standard output."""
    click.echo(json.dumps(finite(data), indent=2, default=str, allow_nan=False))


def print_lines(lines: list[str], console: Console) -> None:
    """Lines that are not wrapped."""
    for line in lines:
        console.print(line, soft_wrap=True)


def percent(value: float) -> str:
    """A share for a person."""
    return f"{100 * value:.1f} %"


def percent_range(interval: tuple[float, float]) -> str:
    """An interval of a share for a person."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def print_export(done: Exported, console: Console) -> None:
    """The end of an export: accuracy, parity and speed on one screen."""
    from .exporter.runtime.lines import engine_state

    if done.widths is not None:
        print_widths(done.widths, console)
    if done.budget is not None:
        print_budget(done.budget, console, done.bench)
    seen = done.fidelity
    table = Table(title=f"Answers on {seen.images} images", title_justify="left")
    for column in ("", "dense", "pruned", "95 % interval"):
        table.add_column(column, justify="left" if not column else "right")
    if seen.accuracy_dense is not None and seen.accuracy_pruned is not None:
        assert seen.accuracy_pruned_interval is not None
        accuracies = (percent(seen.accuracy_dense), percent(seen.accuracy_pruned))
        table.add_row("top-1", *accuracies, percent_range(seen.accuracy_pruned_interval))
    if seen.cosine is not None:
        table.add_row("cosine with dense", "", f"{seen.cosine:.5f}", "")
    if seen.tokens is not None:
        table.add_row("cosine of tokens", "", f"{seen.tokens:.5f}", "")
    agrees = "agrees with dense" if seen.task.by_image else "same nearest image"
    table.add_row(agrees, "", percent(seen.agreement), percent_range(seen.agreement_interval))
    console.print(table)
    if seen.on_calibration_images:
        console.print("These are the calibration images themselves: give more images, or an evaluate section.")
    print_parity(done.parity, console)
    if done.bench is None:
        from .exporter.runtime.bench.report import LATER

        console.print(f"Speed: {LATER}", soft_wrap=True)
    else:
        print_bench(done.bench, console)
    if done.choice is not None:
        print_choice(done.choice, console)
    if done.precision is not None:
        from .recipes.pipeline.readme import precision_words

        console.print(f"Precision: {precision_words(done.precision, seen)}", soft_wrap=True)
    print_lines([] if done.gate is None else done.gate.lines(), console)
    if done.sizes:
        print_sizes(done, console)
    console.print(f"Engine: {engine_state(done.parity, done.engine)}", soft_wrap=True)
    console.print(f"Bundle: {done.folder}")
    if done.report is not None or done.no_report is not None:
        console.print(f"Report: {done.report or done.no_report}", soft_wrap=True, markup=False)
    else:
        console.print(f"To look at it: vitrim report {done.folder} -o report.html", soft_wrap=True, markup=False)


def print_sizes(done: Exported, console: Console) -> None:
    """Every image size of a bundle of several; the first is its own, of which all the rest of the screen is."""
    from .recipes.pipeline.readme import SIZE_COLUMNS, size_rows

    table = Table(title=f"Image sizes; all above is {done.size}", title_justify="left")
    for column in SIZE_COLUMNS:
        table.add_column(column, justify="left" if column in ("size", "parity") else "right")
    for row in size_rows({done.size: done, **done.sizes}):
        table.add_row(*row)
    console.print(table)


def print_choice(choice: Choice, console: Console) -> None:
    """What was tried, and what was kept."""
    from .exporter.runtime.lines import counted

    threads = counted(choice.threads, "thread")
    table = Table(title=f"Tried on {choice.cpu}, {threads}, batch {choice.batch}", title_justify="left")
    for column in ("target", "precision", "answers kept", "median ms", "speed", ""):
        table.add_column(column, justify="left" if column in ("target", "precision", "") else "right")
    for row in choice.tried:
        if row.median is None or row.speed is None or row.agreement is None:
            table.add_row(row.target, row.precision, "-", "-", "-", row.refused)
            continue
        kept = (row.target, row.precision) == (choice.target, choice.precision)
        cells = (percent(row.agreement), f"{row.median:.2f}", f"{row.speed:.2f}", "kept" if kept else "")
        table.add_row(row.target, row.precision, *cells)
    console.print(table)


def print_budget(budget: Budget, console: Console, bench: Bench | None = None) -> None:
    """A budget's stages and cost, and what was asked of its answers; `bench` is of its graphs."""
    from .exporter.runtime.lines import outcome_lines

    cost = budget.gmacs
    title = f"{budget.model}: {budget.method}, {budget.total_gmacs:.3f} of {cost['dense']:.3f} GMACs"
    if "paper" in cost:
        title += f" (scoring {cost['scoring']:.3f}; as papers count, {cost['paper']:.3f})"
    table = Table(title=title, title_justify="left")
    for column in ("block", "tokens before", "after", "options"):
        table.add_column(column, justify="right" if column != "options" else "left")
    for row in budget.stages:
        options = ", ".join(f"{key} {value}" for key, value in row.options.items())
        table.add_row(str(row.block), str(row.before), str(row.after), options)
    console.print(table)
    print_lines(outcome_lines(budget.statistics, bench), console)


def print_widths(widths: Widths, console: Console) -> None:
    """What slimming kept of every block, and what it saves."""
    (dense, slimmed), (whole, left) = widths.costs["gmacs"], widths.costs["parameters"]
    share = f"{left / 1e6:.2f} of {whole / 1e6:.2f} million parameters"
    console.print(f"{widths.model}: slimmed to {slimmed:.3f} of {dense:.3f} GMACs, {share}")  # wider than the table
    table = Table()
    for column in ("block", "heads", "neurons"):
        table.add_column(column, justify="left" if column == "block" else "right")
    for row in widths.blocks:
        heads = f"{len(row.heads)} of {row.heads_before}" if row.heads_before else "whole"
        neurons = f"{len(row.neurons)} of {row.neurons_before}"
        table.add_row(row.block, heads, neurons)
    console.print(table)


def print_parity(parity: Parity, console: Console) -> None:
    """The ladder, a line per rung; and the engine, where one was built."""
    from .exporter.core.answers import LOGITS
    from .exporter.runtime.lines import parity_notes

    held = f"atol {parity.atol:g}"
    if parity.close:
        held = f"cosine {parity.close.cosine:g}, agreement {parity.close.agreement:.0%}"
    table = Table(title=f"Parity: {'passed' if parity.passed else 'FAILED'} ({held})", title_justify="left")
    same = next((rung.task.short for rung in parity.rungs), LOGITS.short)
    for column in ("rung", "images", "same tokens", "largest error", same, ""):
        table.add_column(column, justify="left" if column in ("rung", "") else "right")
    for rung in parity.rungs:
        table.add_row(
            rung.name,
            str(rung.images),
            "-" if rung.same_images is None else percent(rung.same_images),
            rung.describe_error(),
            percent(rung.top1),
            "ok" if rung.passed else f"FAILED at {rung.first_offender}",
        )
    console.print(table)
    print_lines(parity_notes(parity), console)


def print_blocks(bench: Bench, console: Console) -> None:
    """`print_bench`, and milliseconds by block where they were counted."""
    print_bench(bench, console, by_block=True)


def print_bench(bench: Bench, console: Console, by_block: bool = False) -> None:
    """Latencies and what may be claimed."""
    from .exporter.runtime.lines import bench_notes

    device = bench.conditions.cpu
    table = Table(title=f"{bench.runtime}, batch {bench.batch}, {device}", title_justify="left")
    for column in ("graph", "median ms", "95 % interval", "images/s"):
        table.add_column(column, justify="left" if column == "graph" else "right")
    rates = bench.images_per_second
    for name, found in bench.distributions.items():
        low, high = found.median_interval
        table.add_row(name, f"{found.median:.2f}", f"{low:.2f} to {high:.2f}", f"{rates[name]:.1f}")
    console.print(table)
    print_lines(bench_notes(bench, by_block), console)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Benchmarks side by side, a column each; what may be claimed of two of them, and what may not."""
    rows = comparison.rows
    table = Table("", *(row.name for row in rows))
    for title, attribute, digits in (
        ("device", "device", ""),
        ("runtime", "runtime", ""),
        ("precision", "precision", ""),
        ("batch", "batch", ""),
        ("threads", "threads", ""),
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
        table.add_row(title, *(_cell(getattr(row, attribute), digits) for row in rows))
    console.print(table)
    print_lines([pair.verdict for pair in comparison.pairs], console)
    print_lines([f"Warning: {warning}" for warning in comparison.warnings], console)


def _cell(value: Any, digits: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " to ".join(format(one, digits) for one in value) if isinstance(value, tuple) else format(value, digits)


def print_inspection(result: dict[str, Any], console: Console) -> None:
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
    _not_static(result, console)
    _findings(result["findings"], result["target"], console)


def _not_static(result: dict[str, Any], console: Console) -> None:
    """The one line on shapes that are not static, which no target refuses."""
    found = result.get("static")
    if found:
        console.print(f"not static: {found['what']}; {found['remedy']}", soft_wrap=True)


_NAMED = 3  # nodes of a kind of finding that are named on the screen; --json has them all


def _kinds(rows: list[dict[str, Any]], *keys: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Rows that say the same of several nodes: what they say, and which operators and nodes they are."""
    kinds: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(tuple(row[key] for key in keys), []).append(row)
    for said, group in kinds.items():
        ops = ", ".join(f"{op} x{n}" if n > 1 else op for op, n in Counter(row["op"] for row in group).most_common())
        more = f" and {len(group) - _NAMED} more" if len(group) > _NAMED else ""
        yield said, f"{ops} {', '.join(row['node'] for row in group[:_NAMED])}{more}".strip()


def _findings(findings: list[dict[str, Any]], target: str, console: Console) -> None:
    """A line per kind of finding, with how many nodes have it."""
    for (severity, what, remedy), where in _kinds(findings, "severity", "what", "remedy"):
        console.print(f"{severity}: {where}: {what}; {remedy}", soft_wrap=True)
    if not findings:
        console.print(f"lint for {target}: clean")


def print_lint(result: dict[str, Any], console: Console) -> None:
    """One target in detail, several as a matrix with what each refuses most; then what a builder was asked."""
    _print_table(result, console)
    if "asked" in result:
        print_asked(result["asked"], console)


def print_asked(asked: dict[str, Any], console: Console) -> None:
    """What parser and builder say of a graph, a line per kind of refusal, and where the table says something else."""
    answer, name = asked["answer"], asked["answer"]["by"]
    if asked["verdict"] == "built":
        size, seconds = answer["size"] / 1e6, answer["seconds"]
        if size:
            made = f"{answer['kernels']} kernels, an engine of {size:.1f} MB, in {seconds:.1f} s"
            console.print(f"{name} builds it ({made}; what it computes needs a GPU)", soft_wrap=True)
        else:
            made = f"{answer['kernels']} layers, in {seconds:.1f} s"
            console.print(f"{name} compiles it for the CPU ({made})", soft_wrap=True)
    if answer["ended"] and all(row["by"] != "process" for row in asked["refused"]):
        console.print(f"{name}: {answer['ended']}; its parts were asked about one by one", soft_wrap=True)
    for (by, what), where in _kinds(asked["refused"], "by", "what"):
        console.print(f"{name}, {by}: {where}: {what}", soft_wrap=True)
    if not asked["complete"]:
        console.print("not asked: what lies behind that", soft_wrap=True)
    for key, sizes in (answer["assumed"] or {}).items():
        console.print(f"assumed: {key} {list(sizes)}, which is open; fix it to ask about another", soft_wrap=True)
    for (table, real), where in _kinds(asked["differences"], "table", "builder"):
        console.print(f"differs: {where}: the table says: {table}; the real thing says: {real}", soft_wrap=True)
    if not asked["differences"] and asked["complete"]:
        console.print(f"the table for {asked['target']} says the same", soft_wrap=True)


def _print_table(result: dict[str, Any], console: Console) -> None:
    found = result["targets"]
    nodes = sum(result["operators"].values())
    if len(found) == 1:
        ((name, verdict),) = found.items()
        console.print(f"{result['path']}: opset {result['opset']}, {nodes} nodes, for {name}", soft_wrap=True)
        _not_static(result, console)
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
    _not_static(result, console)
    console.print("In detail: the same with --target NAME", soft_wrap=True)


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
    from .exporter.pruning.families import totals

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


def print_report(written: Written, console: Console) -> None:
    """Where a report is, how large, and what is not in it."""
    shown = f"{written.photos} photo{'' if written.photos == 1 else 's'}"
    lines = [f"Report: {written.page} ({written.bytes / 1000:.0f} kB, {shown}), data: {written.data}"]
    print_lines([*lines, *(f"Note: {words}" for words in written.notes)], console)
