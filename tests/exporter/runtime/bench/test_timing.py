"""How graphs are timed by default, and that a command line may ask for it without waiting."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict

import pytest

from vitrim import api
from vitrim.exporter.runtime.bench.timing import Timing
from vitrim.recipes.schema.sections.outputs import BenchSection


def test_every_way_to_ask_for_a_benchmark_has_the_same_defaults() -> None:
    wanted = asdict(Timing())
    asked = {name: one.default for name, one in inspect.signature(api.bench).parameters.items() if name in wanted}
    assert asked == wanted
    assert list(asked) == list(wanted)  # it hands them on in this order
    section = BenchSection().model_dump()
    assert {name: section[name] for name in ("runs", "warmup", "threads")} == {
        name: wanted[name] for name in ("runs", "warmup", "threads")
    }


def test_nothing_heavy_is_imported_for_them() -> None:
    code = """
import sys
from vitrim.exporter.runtime.bench import timing
heavy = {"numpy", "torch", "onnx", "onnxruntime", "tensorrt", "polygraphy", "pydantic", "rich"}
print(sorted(heavy & set(sys.modules)), timing.Timing().runs)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] 50\n"


def test_settings_of_a_benchmark_do_not_change_while_it_runs() -> None:
    with pytest.raises(FrozenInstanceError):
        Timing().runs = 3  # type: ignore[misc]
