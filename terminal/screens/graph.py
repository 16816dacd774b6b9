"""A graph: its operators, its passes, what targets say of it, and what a builder said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console


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
