"""Asking in a process of its own: it may die, or come to no end, and the next graph is answered all the same."""

from __future__ import annotations

import sys

import pytest
from small_graphs import doubler

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.runtime import ask
from vitrim.exporter.runtime.ask import Asker, askable

RTX = get_target("trt-rtx")


@pytest.fixture
def wheel() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed here")


@pytest.mark.parametrize("name", ["ort-cpu", "trt-11", "openvino-gpu"])
def test_only_a_builder_that_needs_no_gpu_can_be_asked(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} cannot be asked, only openvino and trt-rtx: their builders run"):
        askable(get_target(name))


def test_without_the_wheel_one_line_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(EnvironmentLackError, match=r"cannot be imported .*pip install 'vitrim\[rtx\]'"):
        Asker(RTX)


@pytest.mark.usefixtures("wheel")
def test_one_process_answers_until_it_dies_and_the_next_graph_gets_another() -> None:
    with Asker(RTX) as asker:
        assert asker.ask(doubler()).built
        first = asker._child
        assert first is not None
        assert asker.ask(doubler(3)).built
        assert asker._child is first
        first.process.kill()
        died = asker.ask(doubler())
        assert (died.built, died.late, died.ended) == (False, False, "its process died of it (signal 9)")
        assert asker.ask(doubler()).built
    assert first.process.poll() == -9


@pytest.mark.usefixtures("wheel")
def test_what_comes_to_no_end_is_ended() -> None:
    with Asker(RTX, seconds=0.01) as asker:
        found = asker.ask(doubler())
    assert (found.built, found.late, found.ended) == (False, True, "it came to no end within 0.01 s")


@pytest.mark.usefixtures("wheel")
def test_a_process_that_cannot_work_at_all_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "_PACKAGE", "vitrim.nothing_here")
    said = "asks TensorRT for RTX 1.* fails .*nothing_here.*doctor"
    with Asker(RTX) as asker, pytest.raises(EnvironmentLackError, match=said):
        asker.ask(doubler())


def test_openvino_is_asked_like_it() -> None:
    pytest.importorskip("openvino")
    with Asker(get_target("openvino")) as asker:
        assert asker.title.startswith("OpenVINO 20")
        assert asker.ask(doubler()).built
        assert not asker.ask(doubler()[:-30]).built
