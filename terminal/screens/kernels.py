"""The table of an engine's kernels, as `vitrim inspect --kernels` shows it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

_COLUMNS = {  # of the table, and what counts there
    "products": ("product", "row product"),
    "fused attention": ("attention",),
    "softmax": ("softmax",),
    "top-k": ("top-k",),
    "pad, slice": ("pad", "slice"),
    "copies": ("copy",),
    "other": ("elementwise", "other"),
}


def print_kernels(result: dict[str, Any], console: Console) -> None:
    """Kernels by block and stage, their totals, the attentions that are not fused, and what was not counted."""
    found = result["kernels"]
    table = Table(title=f"Kernels ({found['tensorrt']}, {found['precision']})", title_justify="left")
    table.add_column("part")
    for column in ("kernels", *_COLUMNS, *(("beyond slicing",) if found["floor"] is not None else ())):
        table.add_column(column, justify="right")
    floor = found["floor"]
    for row in found["parts"]:
        more = [] if floor is None else [_signed(row["beyond_floor"])]
        table.add_row(row["part"] or "unknown", *_cells(row["kernels"], row["does"]), *more)
    does: dict[str, int] = {}
    for row in found["parts"]:
        for name, count in row["does"].items():
            does[name] = does.get(name, 0) + count
    table.add_section()
    table.add_row("all", *_cells(found["total"], does), *([] if floor is None else [_signed(found["total"] - floor)]))
    console.print(table)
    for kind, words in (("floor", "the same plan by slicing"), ("dense", "the dense model")):
        if found[kind] is not None:
            console.print(f"{words}: {found[kind]} kernels")
        elif kind in found["not_built"]:
            console.print(f"{words}: not counted ({found['not_built'][kind]})", soft_wrap=True)
    _attentions(found["layers"]["attention"], console)
    console.print(f"precision: {found['layers']['verdict']}", soft_wrap=True)


def _cells(kernels: int, does: dict[str, int]) -> list[str]:
    counts = [sum(does.get(name, 0) for name in names) for names in _COLUMNS.values()]
    return [str(kernels), *(str(count or "") for count in counts)]


def _signed(count: int | None) -> str:
    return f"{count:+d}" if count else ""


def _attentions(found: dict[str, Any], console: Console) -> None:
    fused, apart = found["fused"], found["not_fused"]
    scores = found.get("scores", 0)
    beside = f"; {scores} softmaxes beside them give a method its scores" if scores else ""
    console.print(f"attention: {fused} of {fused + apart} are one kernel{beside}")
    for one in found.get("unfused", ()):
        console.print(f"not fused: {one['part'] or one['softmax']}: {one['reason']}", soft_wrap=True)
