"""Engines built through polygraphy: its configuration, the timing cache, and that it stays silent."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from polygraphy.logger import G_LOGGER

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.runtime.tensorrt.polygraphy_build import by_polygraphy
from vitrim.exporter.runtime.tensorrt.serializer import Parts, Settings


def build(settings: Settings) -> bytes:
    trt: Any = sys.modules["tensorrt"]

    class Logger:
        def log(self, severity: int, text: str) -> None:
            self.said = text

    builder = trt.Builder(Logger())
    network = builder.create_network(1)
    return by_polygraphy(trt, Parts(builder, network, trt.OnnxParser(network, None)), settings)


def test_every_setting_is_in_the_configuration(fake_trt: Any) -> None:
    seen = fake_trt.install("8.6.1")
    engine = build(Settings(True, True, True, 7 << 20, True, "ampere_plus"))
    assert engine[:6] == b"\x93NUMPY"
    assert seen.config.flags == {
        "FP16",
        "INT8",
        "OBEY_PRECISION_CONSTRAINTS",
        "VERSION_COMPATIBLE",
        "EXCLUDE_LEAN_RUNTIME",
    }
    assert seen.config.limits == {"workspace": 7 << 20}
    assert (seen.config.hardware_compatibility_level, seen.config.profiling_verbosity) == (1, "detailed")


@pytest.mark.parametrize("version", ["8.5.2", "10.3.0", "11.4.1"])
def test_without_settings_float32_is_float32_and_nothing_else_is_set(fake_trt: Any, version: str) -> None:
    seen = fake_trt.install(version)
    build(Settings())
    assert (seen.config.flags, seen.config.limits) == (set(), {"workspace": 1 << 30})  # TF32 was on
    assert seen.config.hardware_compatibility_level is None


def test_the_finished_configuration_is_changed_last(fake_trt: Any) -> None:
    seen = fake_trt.install("8.6.1")
    found: list[Any] = []

    def change(builder: Any, network: Any, config: Any) -> None:
        found.append((network is seen.network, config is seen.config, set(config.flags)))

    build(Settings(fp16=True, change=change))
    assert found == [(True, True, {"FP16"})]


def test_a_timing_cache_is_written_and_read_again_without_locks(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    cache = tmp_path / "a.cache"
    for known, written in ((None, b"timed "), (b"older ", b"older timed ")):
        if known is not None:
            cache.write_bytes(known)
        build(Settings(timing_cache=cache))
        assert (seen.config.loaded or b"") == (known or b"")
        assert cache.read_bytes() == written
    assert [path.name for path in tmp_path.iterdir()] == ["a.cache"]


def test_a_cache_that_is_no_file_is_not_waited_for(fake_trt: Any, tmp_path: Path) -> None:
    fake_trt.install("10.3.0")
    os.mkfifo(tmp_path / "a.cache")
    with pytest.raises(InputError, match=r"a\.cache: it is a FIFO; give the timing cache itself"):
        build(Settings(timing_cache=tmp_path / "a.cache"))


def test_a_failed_build_leaves_no_cache(fake_trt: Any, tmp_path: Path) -> None:
    fake_trt.install("10.3.0").failure = "no Gelu"
    with pytest.raises(RuntimeError, match="Invalid Engine"):
        build(Settings(timing_cache=tmp_path / "a.cache"))
    assert list(tmp_path.iterdir()) == []


def test_polygraphy_says_nothing_and_gets_its_voice_back(fake_trt: Any, capfd: pytest.CaptureFixture[str]) -> None:
    fake_trt.install("10.3.0")
    before = G_LOGGER.module_severity.get()
    assert before < G_LOGGER.CRITICAL
    inside: list[Any] = []

    def change(builder: Any, network: Any, config: Any) -> None:
        G_LOGGER.error("not to be seen")
        inside.append(G_LOGGER.module_severity.get())

    build(Settings(change=change))
    assert capfd.readouterr() == ("", "")
    assert inside == [G_LOGGER.CRITICAL]
    assert G_LOGGER.module_severity.get() == before


def test_polygraphy_is_named_where_it_is_missing(fake_trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_trt.install("10.3.0")
    assert by_polygraphy.missing() is None
    monkeypatch.setitem(sys.modules, "polygraphy.backend.trt", None)
    assert by_polygraphy.missing() == "polygraphy is not installed: pip install 'vitrim[device]'"
