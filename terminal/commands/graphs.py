"""Commands that look into graphs: operators, kernels, and what targets say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..call import Call, as_it_is
from ..complete import complete_target
from ..group import command, size_option
from ..screens.graph import print_inspection, print_lint
from ..screens.kernels import print_kernels


@command("vitrim inspect out/ --target jetpack-5")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--target", shell_complete=complete_target, help="Lint for this target instead of the bundle's own.")
@click.option("--kernels", is_flag=True, help="Show the kernels of the bundle's engine instead, by block and stage.")
@size_option
def inspect(path: Path, kernels: bool, **options: Any) -> Call:
    """Show the operators of PATH (a bundle or any .onnx) before and after the passes, and lint it."""

    def judge(result: dict[str, Any]) -> None:
        if any(finding["severity"] == "error" for finding in result["findings"]):
            raise SystemExit(1)

    show = print_kernels if kernels else print_inspection
    return Call("inspect", (path,), {"kernels": kernels, **options}, show, plain=as_it_is, judge=judge)


@command("vitrim lint model.onnx --target jetpack-5 --target trt-11")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--target",
    "targets",
    multiple=True,
    shell_complete=complete_target,
    help="For this target, in detail; may be repeated.  [default: all]",
)
@click.option(
    "--ask",
    metavar="TARGET",
    shell_complete=complete_target,
    help="Also ask this target's own parser and builder: trt-rtx (without a GPU) or openvino.",
)
def lint(path: Path, targets: tuple[str, ...], ask: str | None) -> Call:
    """Say what targets refuse of PATH (any .onnx, or a bundle), or take and silently compute wrongly.

    Status 1 when a named target refuses it; without --target, when every target does. With --ask, the builder's word
    counts for its target. Shapes that are not static are told in one line, and no target refuses a graph for them.
    """

    def judge(result: dict[str, Any]) -> None:
        refused = {name: bool(verdict["errors"]) for name, verdict in result["targets"].items()}
        if ask is not None:
            refused[result["asked"]["target"]] = result["asked"]["verdict"] != "built"
        if any(refused.values()) if targets or ask else all(refused.values()):
            raise SystemExit(1)

    chosen = targets[0] if len(targets) == 1 else targets or None
    return Call("lint", (path,), {"target": chosen, "ask": ask}, print_lint, plain=as_it_is, judge=judge)
