"""What every way to build an engine is given, and TensorRT's words for it."""

from __future__ import annotations

import inspect
import types
from dataclasses import asdict, fields

import pytest

from vitrim.exporter.runtime.tensorrt import plain_build, polygraphy_build, rtx_build
from vitrim.exporter.runtime.tensorrt.options import COMPATIBILITY_FROM
from vitrim.exporter.runtime.tensorrt.plain_build import by_tensorrt
from vitrim.exporter.runtime.tensorrt.polygraphy_build import by_polygraphy
from vitrim.exporter.runtime.tensorrt.rtx_build import by_rtx
from vitrim.exporter.runtime.tensorrt.serializer import Serializer, Settings, compatibility_level

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
