"""Which runner runs a graph here, and the reason where it is not the target's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_graphs import doubler

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.runtime import choose
from vitrim.exporter.runtime.choose import not_here, require_runtime, run_by, runner_for, unable
from vitrim.exporter.runtime.openvino import runner as openvino_runner


@pytest.mark.parametrize("target", ["trt-8.5", "trt-11"])
def test_onnxruntime_is_no_tensorrt_and_the_graph_is_not_even_loaded(target: str) -> None:
    assert not_here(b"no graph", get_target(target)) == f"the graph is for {target}, which onnxruntime is not"


def test_a_target_is_here_where_its_provider_starts() -> None:
    assert not_here(b"no graph", get_target("ort-cpu")) is None
    assert not_here(doubler(), get_target("openvino")) is None
    for target in ("ort-cuda", "ort-trt", "openvino-gpu", "openvino-npu"):
        assert "but only onnxruntime's CPU provider ran it" in str(not_here(doubler(), get_target(target)))


def test_openvino_runs_what_is_for_it() -> None:
    runner, why = runner_for(doubler(), get_target("openvino"), threads=1)
    assert (runner.name, why) == ("openvino-cpu", None)
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(runner(image)["logits"], image * 2)


def test_only_a_device_that_compiles_for_long_keeps_what_it_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "m.onnx", []
    path.write_bytes(doubler())
    monkeypatch.setenv("VITRIM_CACHE", str(tmp_path / "cache"))
    runner_for(path, get_target("openvino"), threads=1, cached=True)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(choose, "OpenVinoRunner", lambda *given, cached: asked.append((given[1], cached)))
    for target in ("openvino", "openvino-gpu", "openvino-npu"):
        runner_for(path, get_target(target), threads=1, cached=True)
    assert asked == [("CPU", False), ("GPU", True), ("NPU", True)]


def test_without_openvino_onnxruntime_stands_in_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> Any:
        raise EnvironmentLackError(openvino_runner.MISSING)

    assert unable(get_target("openvino"), "bf16") is None
    monkeypatch.setattr(openvino_runner, "import_openvino", gone)
    runner, why = runner_for(doubler(), get_target("openvino"), threads=1)
    assert runner.name == "onnxruntime-cpu"
    assert why == f"the graph is for openvino, but only onnxruntime's CPU provider ran it: {openvino_runner.MISSING}"
    assert unable(get_target("openvino"), "bf16") == openvino_runner.MISSING
    assert unable(get_target("openvino"), "int8") is None


def test_onnxruntime_runs_no_bf16() -> None:
    assert unable(get_target("trt-11"), "bf16") == "onnxruntime runs no bf16 graphs"
    assert unable(get_target("ort-cpu"), "fp16") is None


@pytest.mark.parametrize(
    ("target", "runtime", "by", "aside"),
    [
        ("ort-cpu", "auto", "ort-cpu", False),
        ("ort-cpu", "openvino", "openvino", False),
        ("openvino", "onnxruntime", "ort-cpu", False),
        ("openvino-gpu", "openvino", "openvino-gpu", False),
        ("openvino-gpu", "onnxruntime", "ort-cpu", True),
        ("ort-cuda", "openvino", "openvino", True),
        ("trt-11", "auto", "trt-11", False),
        ("trt-11", "openvino", "openvino", True),
    ],
)
def test_another_runtime_may_be_asked_for_and_a_device_s_graph_is_then_told_apart(
    target: str, runtime: str, by: str, aside: bool
) -> None:
    found, why = run_by(get_target(target), runtime)
    assert found.name == by
    assert why == (f"the graph is for {target}, but {runtime} ran it on the CPU, as asked" if aside else None)


def test_a_runtime_that_is_missing_or_unknown_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> Any:
        raise EnvironmentLackError(openvino_runner.MISSING)

    monkeypatch.setattr(choose, "import_openvino", gone)
    with pytest.raises(EnvironmentLackError, match=r"pip install 'vitrim\[openvino\]'"):
        run_by(get_target("ort-cpu"), "openvino")
    require_runtime("auto")
    with pytest.raises(InputError, match="no runtime 'tvm' .there are auto, onnxruntime, openvino, tensorrt"):
        require_runtime("tvm")
