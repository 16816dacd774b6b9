"""What commands print for a person, number by number, and as JSON."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import random_widths, small_vit

from vitrim import api, cli_output
from vitrim.cli import cli
from vitrim.exporter.core.fidelity import Fidelity
from vitrim.exporter.runtime.bench.report import TimedBundle, Untimed, report
from vitrim.exporter.runtime.bench.stats import summarize
from vitrim.exporter.runtime.machine.energy import Energy, GraphEnergy
from vitrim.exporter.runtime.parity import Errors, Limits, Parity, Rung
from vitrim.recipes.report.write import Written


def rows_of(page: str) -> list[list[str]]:
    """Cells of all tables of a page, without the lines between them."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in page.splitlines() if "│" in line]


def printed(draw: Any, *results: Any) -> str:
    """What a function prints where there is no terminal."""
    stream = io.StringIO()
    draw(*results, cli_output.console_for(stream))
    return stream.getvalue()


def test_what_bench_and_compare_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that a benchmark may hold, on the screen; and two of them side by side."""
    pruned = np.linspace(4.9, 5.1, 60)
    where = {"cpu": "Orin", "runtime": "tensorrt-8.5.2", "clocks": "floating", "clock_advice": ["sudo jetson_clocks"]}
    spent = GraphEnergy(median=0.25, range=(0.24, 0.26), above_idle=True, with_idle=0.3, watts=9.0)
    result = replace(
        report({"dense": 2 * pruned, "pruned": pruned}, 2, where),
        modes={"plain": summarize(pruned), "cuda_graph": Untimed("it cannot be recorded")},
        energy=Energy({"pruned": spent}, idle_watts=3.5, meter="ina3221", counted=("VDD_IN",)),
        bundle=TimedBundle(precision="fp16", graph_sha256="a"),
    )
    monkeypatch.setattr(api, "bench", lambda bundle, **options: result)
    page = CliRunner().invoke(cli, ["bench", "out", "--energy"])
    for line in (
        "pruned, plain: 5.000 ms",
        "pruned, cuda_graph: it cannot be recorded",
        "Energy: pruned 0.25 J per image above idle (0.24 to 0.26)",
        "Energy: idle 3.50 W, by ina3221: VDD_IN",
        "Clocks: floating; to lock them: sudo jetson_clocks",
    ):
        assert line in page.output
    for name in "ab":
        result.write(tmp_path / f"{name}.json")
    page = CliRunner().invoke(cli, ["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert page.exit_code == 0
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in page.output.splitlines() if "│" in line]
    assert ["runtime", "tensorrt-8.5.2", "tensorrt-8.5.2"] in cells
    assert ["J/image", "0.25", "0.25"] in cells
    assert ["over dense", "2.00", "2.00"] in cells
    assert "no difference is claimed between b.json and a.json" in page.output
    assert "Warning: b.json: its clocks were floating: sudo jetson_clocks" in page.output


def test_methods_are_listed_with_what_can_be_said_to_them() -> None:
    page = CliRunner().invoke(cli, ["methods"]).output
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in page.splitlines() if "│" in line]
    assert ["frugal (default)", "merged"] in [row[:2] for row in cells]
    assert ["zero_tprune", "dropped"] in [row[:2] for row in cells]
    assert [row[:4] for row in cells if row[1:2] == ["place"]] == [
        ["all", "place", "before_queries, before_mlp,", '"before_mlp"']  # said once, on two lines
    ]
    assert ["", "", "after_block", ""] in [row[:4] for row in cells]
    assert ["frugal", "exponent", "number from 0 to 4", "0.75"] in [row[:4] for row in cells]
    assert ["random", "seed", "whole number from 0", "0"] in [row[:4] for row in cells]
    assert "Presets of ppt: ppt-50" in page
    listed = json.loads(CliRunner().invoke(cli, ["methods", "--json"]).output)
    assert listed == api.methods()
    assert [row["name"] for row in listed if row["default"]] == ["frugal"]
    (ppt,) = [row for row in listed if row["name"] == "ppt"]
    assert ppt["presets"] == {
        "ppt-50": "PPT, 50 tokens at blocks 3, 6, 9, threshold 7e-05 (published for DeiT-S at r = 50)"
    }
    quantile = next(field for field in ppt["parameters"] if field["name"] == "quantile")
    assert (quantile["values"], quantile["default"]) == ("number from 0 to 1 or null", None)


def test_what_is_freed_is_said_in_megabytes() -> None:
    freed = {"/a/" + "long/" * 40 + ".out.cache": 2_340_000, "/b/.x.cache": 0}
    assert printed(cli_output.print_freed, freed).splitlines() == [
        f"removed {next(iter(freed))}: 2.3 MB",
        "removed /b/.x.cache: 0.0 MB",
    ]
    assert printed(cli_output.print_freed, {}) == "no cache of vitrim's is here\n"


def test_a_ladder_is_printed_a_line_a_rung() -> None:
    right = Errors(4, 2e-5, 1e-6, 1.0, 1.0)
    rungs = (
        Rung("torch: a", 4, equal=right, top1=1.0, passed=True),
        Rung("onnx: b", 4, top1=0.75, passed=False, first_offender="kept_3", reason="off"),
    )
    page = printed(cli_output.print_parity, Parity(1e-4, 1e-5, rungs))
    assert "Parity: FAILED (atol 0.0001)" in page
    first, second = (row for row in rows_of(page) if row[0] in ("torch: a", "onnx: b"))
    assert (first[:3], first[-2:]) == (["torch: a", "4", "-"], ["100.0 %", "ok"])
    assert second[-2:] == ["75.0 %", "FAILED at kept_3"]
    close = printed(cli_output.print_parity, Parity(1e-4, 1e-5, rungs[:1], Limits(0.9995, 0.98)))
    assert "Parity: passed (cosine 0.9995, agreement 98%)" in close


def test_widths_are_printed_with_their_cost() -> None:
    model = small_vit()
    widths = random_widths(model).model_copy(
        update={"model": "small", "costs": {"gmacs": (2.0, 1.5), "parameters": (4e6, 3e6)}}
    )
    page = printed(cli_output.print_widths, widths)
    assert "small: slimmed to 1.500 of 2.000 GMACs, 3.00 of 4.00 million parameters" in page
    assert rows_of(page) == [
        [row.block, f"{len(row.heads)} of 3", f"{len(row.neurons)} of 192"] for row in widths.blocks
    ]


def test_an_export_for_another_machine_says_where_to_time_it() -> None:
    seen = Fidelity(images=40, agreement=0.75, kl=0.1)
    parts = {"widths": None, "budget": None, "bench": None, "precision": None, "engine": None}
    parts |= {"choice": None, "gate": None, "size": "64x64", "sizes": {}, "report": None, "no_report": None}
    done = SimpleNamespace(fidelity=seen, parity=Parity(1e-4, 1e-5, ()), folder="out", **parts)
    page = printed(cli_output.print_export, done)
    assert "\nSpeed: to be timed on the device: python3 run_on_device.py bench\n" in page
    assert "median ms" not in page
    assert "Image sizes" not in page
    assert page.endswith("\nBundle: out\nTo look at it: vitrim report out -o report.html\n")
    done.no_report = "not written: jinja2 not installed"
    assert printed(cli_output.print_export, done).endswith("\nReport: not written: jinja2 not installed\n")
    done.report, done.no_report = Path("out.html"), None
    assert printed(cli_output.print_export, done).endswith("\nBundle: out\nReport: out.html\n")
    done.sizes = {"48x80": done}
    page = printed(cli_output.print_export, done)
    assert "Image sizes; all above is 64x64" in page
    assert rows_of(page)[-2:] == [[size, "-", "-", "75.0%", "passed", "-", "-", "-"] for size in ("64x64", "48x80")]


def test_findings_of_a_kind_are_one_line() -> None:
    def finding(node: str, op: str = "Gelu", what: str = "not known") -> dict[str, Any]:
        return {"severity": "error", "what": what, "remedy": "lower it", "op": op, "node": node}

    found = [finding(f"n{index}") for index in range(5)] + [finding("m", "Mod", "slow")]
    verdict = {"errors": 6, "warnings": 0, "findings": found}
    one = {"path": "m.onnx", "opset": 17, "operators": {"Gelu": 5, "Mod": 1}, "targets": {"trt-11": verdict}}
    assert printed(cli_output.print_lint, one).splitlines() == [
        "m.onnx: opset 17, 6 nodes, for trt-11",
        "error: Gelu x5 n0, n1, n2 and 2 more: not known; lower it",
        "error: Mod m: slow; lower it",
    ]
    clean = {"errors": 0, "warnings": 0, "findings": []}
    page = printed(cli_output.print_lint, one | {"targets": {"trt-11": verdict, "ort-cpu": clean}})
    assert ["trt-11", "refused", "6", "0", "5 x Gelu: not known; Mod: slow"] in rows_of(page)
    assert ["ort-cpu", "taken", "0", "0", ""] in rows_of(page)


def test_operators_are_counted_before_and_after() -> None:
    passes = [
        {"name": "static_topk", "count": 2, "max_abs": 1.5e-7, "skipped": ["/topk: why"]},
        {"name": "idle", "count": 0, "max_abs": None, "skipped": []},
    ]
    result = {"opset": 17, "before": {"Add": 2, "Erf": 1}, "operators": {"Add": 3}, "passes": passes}
    page = printed(cli_output.print_inspection, result | {"findings": [], "target": "trt-8.5"})
    assert rows_of(page) == [["Add", "2", "3"], ["Erf", "1", "0"], ["all", "3", "3"]]
    assert page.splitlines()[-3:] == [
        "pass: static_topk: 2 rewritten, outputs moved by 1.5e-07",
        "pass: static_topk: left /topk: why",
        "lint for trt-8.5: clean",
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_names_from_files_do_nothing_to_a_terminal(terminal: bool) -> None:
    """No escape sequences, no markup, no pictures for words, wherever a name stands."""
    evil = "[red]a[/red][link=http://x]\x1b[2Jb\x1b]0;t\x07 :smile: \u202e"
    seen = r"[red]a[/red][link=http://x]\x1b[2Jb\x1b]0;t\x07 :smile: \u202e"
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    console = cli_output.console_for(stream)
    console.width = 300
    finding = {"severity": "error", "what": evil, "remedy": evil, "op": evil, "node": evil}
    inspection = {"opset": 17, "before": {evil: 1}, "operators": {evil: 2}, "passes": [], "findings": [finding]}
    cli_output.print_inspection(inspection | {"target": evil}, console)
    cli_output.print_recipes({evil: evil}, console)
    cli_output.print_lines([evil], console)
    cli_output.print_freed({evil: 1}, console)
    page = stream.getvalue()
    assert page.count(seen) >= 8
    assert not set(page) & {"\x07", "\u202e", "\U0001f604"}
    assert "\x1b[2J" not in page
    assert "\x1b]" not in page
    assert terminal or "\x1b" not in page


def test_json_is_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    cli_output.print_json({"folder": Path("out"), "a": [1, None]})
    assert json.loads(capsys.readouterr().out) == {"folder": "out", "a": [1, None]}


def test_what_a_builder_was_asked_is_a_line_for_each_thing_that_it_said() -> None:
    answer = {"by": "TensorRT for RTX 1.7", "ended": "its process died of it (signal 11)", "assumed": {"x": (1, 3)}}
    refused = [{"by": "builder", "node": node, "op": "Attention", "what": "no kernel."} for node in ("a", "b")]
    difference = {"node": "c", "op": "If", "table": "not straight-line", "builder": "takes it"}
    asked = {"verdict": "ended", "answer": answer, "refused": refused, "complete": False, "differences": [difference]}
    assert printed(cli_output.print_asked, asked).splitlines() == [
        "TensorRT for RTX 1.7: its process died of it (signal 11); its parts were asked about one by one",
        "TensorRT for RTX 1.7, builder: Attention x2 a, b: no kernel.",
        "not asked: what lies behind that",
        "assumed: x [1, 3], which is open; fix it to ask about another",
        "differs: If c: the table says: not straight-line; the real thing says: takes it",
    ]
    alone = asked | {"refused": [{"by": "process", "node": "graph", "op": "", "what": "it died"}], "differences": []}
    assert printed(cli_output.print_asked, alone).splitlines()[0] == "TensorRT for RTX 1.7, process: graph: it died"


def test_a_report_is_named_with_what_is_not_in_it() -> None:
    written = Written("r.html", "r.json", 123456, 1, ("out: no dense graph",))
    assert printed(cli_output.print_report, written).splitlines() == [
        "Report: r.html (123 kB, 1 photo), data: r.json",
        "Note: out: no dense graph",
    ]
