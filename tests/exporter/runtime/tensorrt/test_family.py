"""The two TensorRTs: which one a target has, and what each needs."""

from __future__ import annotations

import dataclasses
import sys
import types

import pytest

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.targets import TARGETS
from vitrim.exporter.runtime.tensorrt.family import (
    FAMILIES,
    RTX,
    TENSORRT,
    family_named,
    family_of,
    has_rtx_wheel,
)


def test_one_target_is_of_tensorrt_for_rtx() -> None:
    assert [name for name, target in TARGETS.items() if family_of(target) is RTX] == ["trt-rtx"]
    assert family_of(TARGETS["ort-cpu"]) is TENSORRT  # whose bundles `vitrim build` takes as well


def test_a_family_is_found_by_its_name() -> None:
    assert [family_named(name) for name in FAMILIES] == [TENSORRT, RTX]
    with pytest.raises(InputError, match=r"no TensorRT family 'jetson' \(there are tensorrt, rtx\)"):
        family_named("jetson")


def test_a_module_is_imported_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("no_such_tensorrt")
    other = dataclasses.replace(RTX, module="no_such_tensorrt")
    with pytest.raises(ModuleNotFoundError, match="no_such_tensorrt"):
        other.import_module()
    monkeypatch.setitem(sys.modules, "no_such_tensorrt", stand_in)
    assert other.import_module() is stand_in


@pytest.mark.parametrize(
    ("system", "machine", "there"),
    [
        ("Linux", "x86_64", True),
        ("Linux", "aarch64", True),
        ("Windows", "AMD64", True),
        ("Windows", "ARM64", False),
        ("Darwin", "arm64", False),
        ("Darwin", "x86_64", False),
    ],
)
def test_platforms_with_wheels(system: str, machine: str, there: bool) -> None:
    assert has_rtx_wheel(system, machine) is there
