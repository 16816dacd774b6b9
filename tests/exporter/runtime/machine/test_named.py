"""How tables name a machine."""

from __future__ import annotations

from typing import Any

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.runtime.machine.environment import cpu_name
from vitrim.exporter.runtime.machine.named import machine_of


def test_a_cpu_is_named_with_the_version_of_what_runs_there() -> None:
    here = machine_of(get_target("ort-cpu"))
    assert (here["device"], here["runtime"].partition(".")[0]) == (cpu_name(), "onnxruntime 1")
    assert machine_of(get_target("openvino"))["runtime"].startswith("openvino ")


def test_a_tensorrt_is_named_with_its_gpu_where_it_is(fake_trt: Any) -> None:
    assert machine_of(get_target("jetpack-6"))["runtime"] == "no TensorRT"
    fake_trt.install("10.3.0")
    here = machine_of(get_target("jetpack-6"))
    assert here["runtime"] == "TensorRT 10.3.0"
    assert here["device"].startswith(f"{cpu_name()}, ")
