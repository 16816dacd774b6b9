"""OpenVINO's runner: the graph's own types, clear words for what it cannot load or run, a cache that is bound."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_graphs import doubler

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.runtime.openvino.runner import OpenVinoRunner, devices, the_core
from vitrim.exporter.runtime.runners import OrtRunner, run_all


def typed(half: int) -> bytes:
    """A product in a half type, then a ranking in float32 of what it makes."""
    draw = np.random.default_rng(0)
    weight = draw.standard_normal((64, 64), dtype=np.float32)
    low = numpy_helper.to_array(numpy_helper.from_array(weight)).astype(helper.tensor_dtype_to_np_dtype(half))
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=half),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Cast", ["y"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("TopK", ["wide", "k"], ["logits", "kept_0"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [2, 64])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [2, 8]),
            helper.make_tensor_value_info("kept_0", TensorProto.INT64, [2, 8]),
        ],
        [numpy_helper.from_array(low, "w"), numpy_helper.from_array(np.array([8]), "k")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def precisions(runner: OpenVinoRunner) -> Counter[tuple[str, str]]:
    """(kind of layer, its precision) of what is really computed."""
    found: Counter[tuple[str, str]] = Counter()
    for layer in runner.compiled.get_runtime_model().get_ordered_ops():
        facts = layer.get_rt_info()
        found[facts["layerType"].value, facts["runtimePrecision"].value] += 1
    return found


def test_batches_and_names_are_those_of_the_graph() -> None:
    runner = OpenVinoRunner(doubler(), threads=1)
    assert (runner.name, runner.batch, runner.shape, runner.dtype) == ("openvino-cpu", 2, (2, 3), np.float32)
    images = np.arange(21, dtype=np.float32).reshape(7, 3)
    np.testing.assert_array_equal(run_all(runner, images, runner.batch)["logits"], images * 2)
    first, second = (runner(images[start : start + 2])["logits"] for start in (0, 2))
    np.testing.assert_array_equal(first, images[:2] * 2)  # not overwritten by the run after it
    np.testing.assert_array_equal(second, images[2:4] * 2)


def test_products_run_in_bf16_where_the_graph_says_so_and_rankings_in_float32() -> None:
    runner = OpenVinoRunner(typed(TensorProto.BFLOAT16), threads=1)
    found = precisions(runner)
    assert ("TopK", "f32") in found
    fast = "BF16" in runner.conditions["device"]["capabilities"]
    products = {precision for kind, precision in found if kind in ("FullyConnected", "MatMul")}
    assert products == {"bf16" if fast else "f32"}
    image = np.random.default_rng(1).standard_normal((2, 64), dtype=np.float32)
    outputs, exact = runner(image), OrtRunner(typed(TensorProto.FLOAT))(image)
    assert outputs["kept_0"].dtype == np.int64
    assert np.abs(outputs["logits"] - exact["logits"]).max() < 0.2
    assert (outputs["kept_0"] == exact["kept_0"]).mean() > 0.5


def test_a_float32_graph_stays_float32() -> None:
    runner = OpenVinoRunner(typed(TensorProto.FLOAT), threads=1)
    assert not [precision for _, precision in precisions(runner) if precision in ("bf16", "f16")]
    image = np.random.default_rng(1).standard_normal((2, 64), dtype=np.float32)
    np.testing.assert_allclose(
        runner(image)["logits"], OrtRunner(typed(TensorProto.FLOAT))(image)["logits"], rtol=1e-5, atol=1e-5
    )


def test_a_reader_is_told_threads_streams_and_hint() -> None:
    told = OpenVinoRunner(doubler(), threads=1).conditions["device"]
    assert (told["threads"], told["streams"], told["hint"]) == (1, 1, "latency")
    side = OpenVinoRunner(doubler(), threads=1, hint="throughput")
    assert side.conditions["device"]["hint"] == "throughput"
    assert side.conditions["device"]["requests"] >= 1
    side.rate(np.zeros((2, 3), np.float32), 5)
    with pytest.raises(InputError, match="but got float64"):
        side.rate(np.zeros((2, 3)), 1)


def test_wrong_graphs_and_images_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"takes float32 \[2, 3\], but got float32 \[1, 3\]"):
        OpenVinoRunner(doubler())(np.zeros((1, 3), np.float32))
    with pytest.raises(InputError, match="static shape"):
        OpenVinoRunner(doubler("n"))
    path = tmp_path / "m.onnx"
    path.write_bytes(doubler()[:-30])
    with pytest.raises(InputError, match=r"OpenVINO cannot load .*m\.onnx: "):
        OpenVinoRunner(path)
    with pytest.raises(InputError, match=r"cannot read .*none\.onnx: no such file"):
        OpenVinoRunner(tmp_path / "none.onnx")


@pytest.mark.parametrize("device", ["GPU", "NPU"])
def test_a_missing_device_is_an_error_not_a_fallback(device: str) -> None:
    if device in devices(the_core()):
        pytest.skip(f"this machine has OpenVINO's {device}")
    with pytest.raises(EnvironmentLackError, match=rf"finds no {device} here \(only CPU\)"):
        OpenVinoRunner(doubler(), device)


SIGNAL = """
import os, signal, sys
from pathlib import Path
from vitrim.exporter.runtime.openvino.runner import OpenVinoRunner, capabilities

graph, heard = Path(sys.argv[1]).read_bytes(), []
first = OpenVinoRunner(graph)
second = OpenVinoRunner(graph)
capabilities()
del first
del second
signal.signal(signal.SIGUSR1, lambda *given: heard.append(given[0]))
os.kill(os.getpid(), signal.SIGUSR1)
print(len(heard))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")
def test_a_signal_after_runners_have_ended_does_not_end_the_process(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(doubler())
    done = subprocess.run([sys.executable, "-c", SIGNAL, path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_what_is_compiled_is_kept_under_a_key_of_graph_and_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITRIM_CACHE", str(tmp_path / "cache"))
    one, other = tmp_path / "one.onnx", tmp_path / "other.onnx"
    one.write_bytes(typed(TensorProto.FLOAT))
    other.write_bytes(typed(TensorProto.BFLOAT16))
    image = np.random.default_rng(1).standard_normal((2, 64), dtype=np.float32)

    def folders() -> list[Any]:
        return sorted((tmp_path / "cache" / "openvino").glob("*/*.blob"))

    fresh = OpenVinoRunner(one, threads=1, cached=True)(image)
    assert len(folders()) == 1
    again = OpenVinoRunner(one, threads=1, cached=True)(image)
    np.testing.assert_array_equal(fresh["logits"], again["logits"])
    assert len(folders()) == 1
    OpenVinoRunner(other, threads=1, cached=True)
    assert len({path.parent for path in folders()}) == 2
