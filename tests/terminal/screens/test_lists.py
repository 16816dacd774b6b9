"""Tables of what there is."""

from __future__ import annotations

import json

from click.testing import CliRunner
from printed import printed, rows_of

from vitrim import api
from vitrim.cli import cli
from vitrim.terminal.screens.lists import print_freed


def test_methods_are_listed_with_what_can_be_said_to_them() -> None:
    page = CliRunner().invoke(cli, ["methods"]).output
    cells = rows_of(page)
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
    assert printed(print_freed, freed).splitlines() == [
        f"removed {next(iter(freed))}: 2.3 MB",
        "removed /b/.x.cache: 0.0 MB",
    ]
    assert printed(print_freed, {}) == "no cache of vitrim's is here\n"
