"""What became of an ONNX file, on a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .bench import print_bench
from .console import print_lines
from .parity import print_parity

if TYPE_CHECKING:
    from rich.console import Console

    from ...recipes.optimize.pack import Optimized


def print_optimized(done: Optimized, console: Console) -> None:
    """What was done, whether it is equal, and whether it is faster."""
    from ...exporter.runtime.lines import engine_state
    from ...recipes.optimize.pack import precision_line

    for one in done.passes:
        before, after = one["nodes"]
        console.print(f"{one['name']}: {one['count']}, {before} to {after} nodes", soft_wrap=True)
    if not done.passes:
        console.print("No pass found anything to change.")
    print_lines([f"Pass {line}" for line in done.left_out], console)
    print_parity(done.parity, console)
    if done.bench is not None:
        print_bench(done.bench, console)
        console.print("dense is the file as it came, pruned the optimised graph.")
    else:
        console.print(f"Speed: {done.verdict}", soft_wrap=True)
    if done.precision is not None:
        console.print(f"Precision: {precision_line(done.precision)}", soft_wrap=True)
    console.print(f"Engine: {engine_state(done.parity, done.engine)}", soft_wrap=True)
    console.print(f"Bundle: {done.folder}")
