"""What an evaluation found, on a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from .console import percent, percent_range

if TYPE_CHECKING:
    from rich.console import Console

    from ...recipes.evaluation.result import ClassAnswers, Evaluation

_WORST = 5  # classes that are shown


def print_evaluation(found: Evaluation, console: Console) -> None:
    """Figures of all images, then the classes that lost most."""
    seen, sized = found.answers, "" if found.size is None else f", as {found.size}"
    table = Table(title=f"Answers on {seen.images:,} images of {found.images}{sized}", title_justify="left")
    for column in ("", "figure", "95 % interval"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("agrees with dense", percent(seen.agreement), percent_range(seen.agreement_interval))
    spread = "" if seen.kl_interval is None else f"{seen.kl_interval[0]:.5f} to {seen.kl_interval[1]:.5f}"
    table.add_row("divergence, nats", f"{seen.kl:.5f}", spread)
    if seen.accuracy_dense is not None and seen.accuracy_pruned is not None:
        assert seen.accuracy_dense_interval is not None
        assert seen.accuracy_pruned_interval is not None
        assert found.top1_change is not None
        assert found.top1_change_interval is not None
        table.add_row("top-1, dense", percent(seen.accuracy_dense), percent_range(seen.accuracy_dense_interval))
        table.add_row("top-1, pruned", percent(seen.accuracy_pruned), percent_range(seen.accuracy_pruned_interval))
        change = percent_range(found.top1_change_interval)
        table.add_row("top-1, pruned less dense", percent(found.top1_change), change)
    console.print(table)
    if found.mcnemar is not None:
        turned = f"{seen.lost} images turned wrong, {seen.won} right"
        console.print(f"{turned}: McNemar's exact p = {found.mcnemar:.3g}", soft_wrap=True)
    worst = [one for one in found.worst[:_WORST] if one.change < 0]
    if len(found.classes) > 1 and worst:
        said = ", ".join(f"{one.index} ({_words(one)})" for one in worst)
        console.print(f"Classes that lost most: {said}", soft_wrap=True)
    if found.cpu_only:
        console.print(found.cpu_only, soft_wrap=True)
    again = f", {found.resumed:,} images of an earlier run" if found.resumed else ""
    console.print(f"Run by {found.dense_by}, {found.pruned_by} in {found.seconds:.1f} s{again}", soft_wrap=True)


def _words(one: ClassAnswers) -> str:
    if one.right_dense is None or one.right_pruned is None:
        return f"{one.agreeing} of {one.images} agree"
    return f"{one.right_dense} to {one.right_pruned} right of {one.images}"
