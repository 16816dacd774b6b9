"""Latencies of a bundle, and of several side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from .console import print_lines

if TYPE_CHECKING:
    from rich.console import Console

    from ...exporter.runtime.bench.compare import Comparison
    from ...exporter.runtime.bench.report import Bench


def print_blocks(bench: Bench, console: Console) -> None:
    """`print_bench`, and milliseconds by block where they were counted."""
    print_bench(bench, console, by_block=True)


def print_bench(bench: Bench, console: Console, by_block: bool = False) -> None:
    """Latencies and what may be claimed."""
    from ...exporter.runtime.lines import bench_notes

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
