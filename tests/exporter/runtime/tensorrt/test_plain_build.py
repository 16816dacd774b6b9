"""Engines built with tensorrt alone: every setting, the timing cache, and what a failure leaves."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.runtime.tensorrt.plain_build import by_tensorrt
from vitrim.exporter.runtime.tensorrt.serializer import Parts, Settings

STANDIN = Path(__file__).parents[1] / "standin"
SHAPE = [2, 4, 2, 2]


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The stand-in that builds without polygraphy, as 8.6.1; `log()` is what was asked of its builder."""
    monkeypatch.setenv("STANDIN_VERSION", "8.6.1")
    monkeypatch.setenv("STANDIN_LOG", str(tmp_path / "log"))
    spec = importlib.util.spec_from_file_location("standin_tensorrt", STANDIN / "tensorrt.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.log = lambda: [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    return module


def parts(standin: Any, **graph: Any) -> Parts:
    class Logger:
        said: list[str]

        def log(self, severity: Any, text: str) -> None:
            self.said = [text]

    builder = standin.Builder(Logger())
    network = builder.create_network(0)
    network.graph = {"shape": SHAPE, **graph}
    return Parts(builder, network, None)


def test_every_option_is_handed_on(standin: Any) -> None:
    network, took = standin.Builder(None).create_network(0), []
    network.graph = {"shape": SHAPE}

    def change(builder: Any, network: Any, config: Any) -> None:
        took.append((config.flags, config.hardware_compatibility_level, config.profiling_verbosity, config.pools))

    settings = Settings(True, True, True, 7, hardware_compatible="ampere_plus", change=change)
    made = by_tensorrt(standin, Parts(standin.Builder(None), network, None), settings)
    assert json.loads(made) == network.graph
    flags, level = standin.BuilderFlag, standin.HardwareCompatibilityLevel.AMPERE_PLUS
    detailed = standin.ProfilingVerbosity.DETAILED
    wanted = {flags.FP16, flags.INT8, flags.OBEY_PRECISION_CONSTRAINTS}
    assert took == [(wanted, level, detailed, {"WORKSPACE": 7})]


def test_without_settings_float32_is_float32_and_nothing_else_is_set(standin: Any) -> None:
    by_tensorrt(standin, parts(standin), Settings())
    (asked,) = standin.log()
    assert (asked["flags"], asked["pools"], asked["timings"]) == ([], {"WORKSPACE": 1 << 30}, None)  # TF32 was on


def test_portable_engines_leave_the_lean_runtime_out(standin: Any) -> None:
    took: list[set[str]] = []

    class Flag(str):
        name = property(str)

    class Flags:
        TF32, VERSION_COMPATIBLE, EXCLUDE_LEAN_RUNTIME = map(
            Flag, ("TF32", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME")
        )

    standin.BuilderFlag = Flags

    def change(builder: Any, network: Any, config: Any) -> None:
        took.append({flag.name for flag in config.flags})

    by_tensorrt(standin, parts(standin), Settings(version_compatible=True, change=change))
    assert took == [{"VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"}]


def test_a_timing_cache_is_written_and_read_again(standin: Any, tmp_path: Path) -> None:
    cache = tmp_path / "a.cache"
    settings = Settings(timing_cache=cache)
    by_tensorrt(standin, parts(standin), settings)
    assert cache.read_bytes() == b"timings"
    cache.write_bytes(b"older")
    by_tensorrt(standin, parts(standin), settings)
    assert [asked["timings"] for asked in standin.log()] == ["", "older"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.cache", "log"]  # nothing half-written


def test_a_cache_that_is_no_file_is_not_waited_for(standin: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.cache")
    with pytest.raises(InputError, match=r"a\.cache: it is a FIFO; give the timing cache itself"):
        by_tensorrt(standin, parts(standin), Settings(timing_cache=tmp_path / "a.cache"))


def test_a_failed_build_is_an_error_and_leaves_no_cache(standin: Any, tmp_path: Path) -> None:
    whole = parts(standin, fails="no Gelu")
    with pytest.raises(RuntimeError, match="^it gives no reason$"):
        by_tensorrt(standin, whole, Settings(timing_cache=tmp_path / "a.cache"))
    assert whole.builder.logger.said == ["no Gelu"]  # which is what is told of it
    assert not (tmp_path / "a.cache").exists()


def test_what_is_missing_is_tensorrt_s_own(monkeypatch: pytest.MonkeyPatch, fake_trt: Any) -> None:
    fake_trt.install("10.3.0")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "polygraphy", None)
        patch.setitem(sys.modules, "polygraphy.backend.trt", None)
        assert by_tensorrt.missing() is None
    fake_trt.install("8.2.1")
    assert "8.2.1 is too old" in str(by_tensorrt.missing())
