"""Widths on a screen, number by number."""

from __future__ import annotations

from helpers import random_widths, small_vit
from printed import printed, rows_of

from vitrim.terminal.screens.plan import print_widths


def test_widths_are_printed_with_their_cost() -> None:
    model = small_vit()
    widths = random_widths(model).model_copy(
        update={"model": "small", "costs": {"gmacs": (2.0, 1.5), "parameters": (4e6, 3e6)}}
    )
    page = printed(print_widths, widths)
    assert "small: slimmed to 1.500 of 2.000 GMACs, 3.00 of 4.00 million parameters" in page
    assert rows_of(page) == [
        [row.block, f"{len(row.heads)} of 3", f"{len(row.neurons)} of 192"] for row in widths.blocks
    ]
