"""A latency table on a screen."""

from __future__ import annotations

from io import StringIO

from latency_tables import made_table
from rich.console import Console

from vitrim.recipes.profile.run import ProfilePack
from vitrim.terminal.screens.latency import print_pack, print_table


def test_a_table_shows_its_halves_its_stages_and_what_it_is_of() -> None:
    console = Console(file=StringIO(), width=120)
    print_table(made_table(), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "small: milliseconds by tokens" in shown
    assert all(word in shown for word in ("attention, decomposed", "attention, fused", "4.400", "6.100"))
    assert "fused: dense 9.500 ms; a stage of all tokens adds zero_tprune 0.250" in shown
    assert "On a processor by onnxruntime 1, batch 1, 1 thread, fp32; medians of 2 processes" in shown
    assert "quartiles lie 1.0 % apart" in shown


def test_a_folder_for_a_device_says_what_to_do_with_it() -> None:
    console = Console(file=StringIO(), width=120)
    print_pack(ProfilePack("/somewhere/pack", "jetpack-6", 61, 1000), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "wrote /somewhere/pack, 61 graphs for jetpack-6. On the device:" in shown
    assert "python3 pack/run_on_device.py table -o table.json" in shown
    assert "--set prune.target.table=table.json" in shown
