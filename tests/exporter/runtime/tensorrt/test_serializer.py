"""What every way to build an engine is given, and TensorRT's words for it."""

from __future__ import annotations

import gc
import inspect
import types
import weakref
from dataclasses import asdict, fields

import pytest

from vitrim.exporter.runtime.tensorrt import plain_build, polygraphy_build, rtx_build
from vitrim.exporter.runtime.tensorrt.options import COMPATIBILITY_FROM
from vitrim.exporter.runtime.tensorrt.plain_build import by_tensorrt
from vitrim.exporter.runtime.tensorrt.polygraphy_build import by_polygraphy
from vitrim.exporter.runtime.tensorrt.rtx_build import by_rtx
from vitrim.exporter.runtime.tensorrt.serializer import Parts, Serializer, Settings, compatibility_level, releasing

RTX_ALONE = {"capabilities"}


def test_every_way_to_build_takes_every_setting_that_its_family_has() -> None:
    every = {one.name for one in fields(Settings)}
    portable = {"version_compatible", "hardware_compatible", "timing_cache"}  # refused, see options
    flags = {"fp16", "int8", "obey_pins"}  # of weak typing
    for module, wanted in (
        (plain_build, every - RTX_ALONE),
        (polygraphy_build, every - RTX_ALONE),
        (rtx_build, every - portable - flags),
    ):
        source = inspect.getsource(module)
        assert {name for name in every if f"settings.{name}" in source} == wanted, module.__name__


def test_each_of_them_is_called_as_the_protocol_says() -> None:
    for made in (by_tensorrt, by_polygraphy, by_rtx):
        for name in ("__call__", "missing"):
            assert inspect.signature(getattr(type(made), name)) == inspect.signature(getattr(Serializer, name))


def test_nothing_is_asked_for_by_default() -> None:
    wanted = {one.name: False for one in fields(Settings) if one.type == "bool"}
    assert len(wanted) == 4
    said = asdict(Settings())
    assert {name: said[name] for name in wanted} == wanted
    assert said["workspace"] == 1024 * 1024 * 1024
    assert (said["hardware_compatible"], said["timing_cache"], said["change"]) == (None, None, None)


def test_every_compatibility_has_a_word_of_tensorrt_s() -> None:
    levels = types.SimpleNamespace(AMPERE_PLUS="a", SAME_COMPUTE_CAPABILITY="s")
    trt = types.SimpleNamespace(HardwareCompatibilityLevel=levels)
    assert [compatibility_level(trt, wanted) for wanted in COMPATIBILITY_FROM] == ["a", "s"]
    assert compatibility_level(types.SimpleNamespace(), None) is None  # 8.5 has no such levels
    with pytest.raises(AttributeError):
        compatibility_level(types.SimpleNamespace(HardwareCompatibilityLevel=levels), "other")  # type: ignore[arg-type]


class Held:
    """Something of TensorRT's that says when it goes."""

    def __init__(self, name: str, gone: list[str]) -> None:
        weakref.finalize(self, gone.append, name)


def test_what_a_failed_build_holds_goes_at_once_the_parser_last() -> None:
    gone: list[str] = []

    def parse(parts: Parts) -> None:
        raise KeyError("refused")

    def build() -> None:
        parts = Parts(Held("builder", gone), Held("network", gone), Held("parser", gone))
        try:
            parse(parts)
        except KeyError as error:
            raise RuntimeError("cannot build") from error

    gc.disable()
    try:
        with pytest.raises(RuntimeError) as caught, releasing():
            build()
        assert gone == ["builder", "network", "parser"]
        assert caught.value.__cause__ is not None  # it is kept, and holds nothing
    finally:
        gc.enable()
