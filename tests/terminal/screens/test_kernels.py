"""The table of kernels that a person reads."""

from __future__ import annotations

import io

from kernel_lists import kernel_list
from rich.console import Console

from vitrim.exporter.runtime.tensorrt.inventory import inventory
from vitrim.exporter.runtime.tensorrt.summary import Wanted, summarize
from vitrim.recipes.inspection.kernels import found_kernels
from vitrim.terminal.screens.kernels import print_kernels


def page(method: str, floor: bool, **not_built: str) -> str:
    layers, wiring = kernel_list(method, "fp16")
    found = found_kernels(
        "TensorRT for RTX 1.7.1",
        "fp16",
        inventory(layers, wiring),
        summarize(layers, Wanted("fp16", wiring=wiring)),
        {"floor": inventory(*kernel_list("floor", "fp16"))} if floor else {},
        not_built,
    )
    console = Console(width=200, record=True, file=io.StringIO())
    print_kernels({"kernels": found.to_json()}, console)
    return console.export_text()


def cells(text: str, part: str) -> list[str]:
    line = next(line for line in text.splitlines() if f"│ {part}" in line)
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_kernels_by_stage_with_totals_and_what_is_beyond_slicing() -> None:
    text = page("evit", floor=True, dense="no images")
    assert "Kernels (TensorRT for RTX 1.7.1, fp16)" in text
    assert cells(text, "embedding") == ["embedding", "3", "1", "", "", "", "", "1", "1", ""]
    assert cells(text, "stage 1") == ["stage 1", "7", "1", "", "1", "2", "1", "", "2", "+4"]
    assert cells(text, "all") == ["all", "76", "29", "6", "3", "6", "2", "1", "29", "+11"]
    assert "the same plan by slicing: 65 kernels" in text
    assert "the dense model: not counted (no images)" in text
    assert "attention: 6 of 6 are one kernel; 3 softmaxes beside them give a method its scores" in text


def test_without_a_floor_there_is_no_such_column() -> None:
    text = page("zero_tprune", floor=False)
    assert "beyond slicing" not in text
    assert len(cells(text, "all")) == 9
    reason = "its probabilities are read by node_matmul_2 as well, so they must be written"
    assert f"not fused: block 1: {reason}" in text


def kernels_of(text: str) -> str:
    return cells(text, "all")[1]


def test_every_kernel_is_in_the_table() -> None:
    for method, count in (("frugal", "117"), ("tome", "106")):
        text = page(method, floor=True)
        rows = [line for line in text.splitlines() if line.startswith("│") and "all" not in line]
        assert sum(int(line.split("│")[2]) for line in rows) == int(kernels_of(text)) == int(count)
