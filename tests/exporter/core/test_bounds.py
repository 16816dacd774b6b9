"""Numbers that are given: within bounds, or refused in one line with the bounds; in Python as on the command line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from vitrim import api
from vitrim.cli import cli
from vitrim.exporter.core.bounds import require_within
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.runtime.bench.timing import Timing
from vitrim.exporter.runtime.tensorrt.options import EngineOptions


def test_what_is_between_passes_and_the_rest_is_told_the_bounds() -> None:
    for value in (5, 100, np.int64(7)):
        require_within("runs", value, 5, 100)
    for value in (0, 0.0, 0.5, np.float32(1)):
        require_within("tie", value, 0.0, 1.0)
    for strange in (4, 101, 10**12, 10**5000, 7.0, True, "7", None, math.nan, [7]):
        with pytest.raises(InputError, match=r"^runs is .{1,40}; give a whole number from 5 to 100$"):
            require_within("runs", strange, 5, 100)
    for strange in (-0.001, math.nan, math.inf, -math.inf, "0.5", False, 1j, 10**400):
        with pytest.raises(InputError, match=r"^tie is .{1,40}; give a number from 0 to 1$"):
            require_within("tie", strange, 0.0, 1.0)


REFUSED: list[tuple[str, dict[str, Any], list[str]]] = [
    ("bench", {"warmup": math.nan}, ["--warmup", "nan"]),
    ("bench", {"warmup": math.inf}, ["--warmup", "inf"]),
    ("bench", {"warmup": 1e9}, ["--warmup", "1e9"]),
    ("bench", {"warmup": -1.0}, ["--warmup", "-1"]),
    ("bench", {"runs": 10**12}, ["--runs", str(10**12)]),
    ("bench", {"runs": 4}, ["--runs", "4"]),
    ("bench", {"threads": 10**9}, ["--threads", str(10**9)]),
    ("bench", {"threads": 0}, ["--threads", "0"]),
    ("check", {"threads": -1}, ["--threads", "-1"]),
    ("check", {"atol": math.nan}, ["--atol", "nan"]),
    ("check", {"atol": -1e-4}, ["--atol", "-1e-4"]),
    ("check", {"atol": math.inf}, ["--atol", "inf"]),
    ("check", {"tie": math.nan}, []),
    ("check", {"tie": 1.5}, []),
    ("build", {"workspace_mib": 10**9}, ["--workspace", str(10**9)]),
    ("build", {"workspace_mib": 15}, ["--workspace", "15"]),
    ("build", {"dla_core": 10**9}, ["--dla-core", str(10**9)]),
    ("build", {"dla_core": -1}, ["--dla-core", "-1"]),
]


@pytest.mark.parametrize(("command", "keywords", "options"), REFUSED)
def test_the_api_and_the_command_line_refuse_the_same(
    command: str, keywords: dict[str, Any], options: list[str], tmp_path: Path
) -> None:
    (name,) = keywords
    with pytest.raises(InputError, match=f"^{name} is .*; give a"):
        getattr(api, command)(tmp_path / "none", **keywords)  # before the bundle is looked for
    if options:
        done = CliRunner().invoke(cli, [command, str(tmp_path / "none"), *options])
        assert done.exit_code != 0
        said = str(done.exception) if isinstance(done.exception, InputError) else done.output
        assert any(word in said for word in (f"{name} is", "is not in the range"))


def test_a_billion_classes_or_images_at_once_are_refused() -> None:
    with pytest.raises(InputError, match="classes is 1000000000; give a whole number from 1 to 1000000"):
        api.new("vit_tiny_patch16_224", classes=10**9)
    with pytest.raises(InputError, match="batch is 1000000000; give a whole number from 1 to 4096"):
        api.evaluate(torch.nn.Identity(), [], torch.nn.Identity(), batch=10**9)


def test_defaults_are_within_their_own_bounds() -> None:
    assert (Timing().runs, Timing(5, 0, 1).warmup, EngineOptions(16, dla_core=0).workspace_mib) == (50, 0, 16)
