"""The onnxruntime runner: batches, and clear words for what it cannot load or run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_graphs import doubler

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.runtime.runners import OrtRunner, run_all, whole_batches


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_any_number_of_images_runs_through_a_fixed_batch(count: int) -> None:
    runner = OrtRunner(doubler(), threads=1)
    images = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    seen: list[tuple[int, int]] = []
    outputs = run_all(runner, images, runner.batch, lambda done, total: seen.append((done, total)))
    np.testing.assert_array_equal(outputs["logits"], images * 2)
    assert seen[-1] == (count, count)


def test_wrong_shape_or_type_is_named() -> None:
    runner = OrtRunner(doubler())
    with pytest.raises(InputError, match=r"takes float32 \[2, 3\], but got float32 \[1, 3\]"):
        runner(np.zeros((1, 3), np.float32))
    with pytest.raises(InputError, match="but got float64"):
        runner(np.zeros((2, 3)))
    with pytest.raises(InputError, match="no images"):
        run_all(runner, np.zeros((0, 3), np.float32), 2)


def test_dynamic_and_damaged_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="static shape"):
        OrtRunner(doubler("n"))
    path = tmp_path / "m.onnx"
    path.write_bytes(doubler()[:-30])
    with pytest.raises(InputError, match=r"cannot load .*m\.onnx"):
        OrtRunner(path)
    with pytest.raises(InputError, match=r"cannot read .*none\.onnx: no such file"):
        OrtRunner(tmp_path / "none.onnx")


def test_a_missing_provider_is_an_error_not_a_fallback() -> None:
    with pytest.raises(EnvironmentLackError, match=r"has no CUDAExecutionProvider .*vitrim\[gpu\]"):
        OrtRunner(doubler(), providers=("CUDAExecutionProvider",))


def test_a_provider_that_cannot_start_is_an_error_not_a_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    # A GPU build of onnxruntime on a machine without CUDA lists the provider, then quietly runs on the CPU.
    import onnxruntime

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda model, options, providers: real(model, options, providers[1:])
    )
    with pytest.raises(EnvironmentLackError, match=r"cannot start it .*fell back to CPUExecutionProvider"):
        OrtRunner(doubler(), providers=("CUDAExecutionProvider", "CPUExecutionProvider"))


def small(kind: int, op: str, **more: object) -> bytes:
    image = helper.make_tensor_value_info("image", kind, [2, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [2, 3])
    node = helper.make_node(op, ["image"], ["logits"], **more)
    graph = helper.make_graph([node], "g", [image], [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_the_input_type_is_the_graph_s() -> None:
    runner = OrtRunner(small(TensorProto.UINT8, "Cast", to=TensorProto.FLOAT))
    assert runner.dtype == np.uint8
    np.testing.assert_array_equal(runner(np.full((2, 3), 200, np.uint8))["logits"], np.full((2, 3), 200, np.float32))
    with pytest.raises(InputError, match=r"takes uint8 \[2, 3\], but got float32"):
        runner(np.zeros((2, 3), np.float32))
    with pytest.raises(InputError, match=r"is a tensor\(int64\)"):
        OrtRunner(small(TensorProto.INT64, "Cast", to=TensorProto.FLOAT))


def test_a_graph_that_fails_while_running_is_one_line() -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("image", "logits")]
    where = helper.make_tensor("where", TensorProto.INT64, [2], [0, 7])  # row 7 of 2
    graph = helper.make_graph(
        [helper.make_node("Gather", ["image", "where"], ["logits"], axis=0)], "g", values[:1], values[1:], [where]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(InputError, match="fails to run the graph: .*out of data bounds") as caught:
        OrtRunner(model.SerializeToString())(np.zeros((2, 3), np.float32))
    assert "\n" not in str(caught.value)


@given(st.integers(0, 1000), st.integers(1, 100))
def test_whole_batches_are_the_fewest_that_hold_all(count: int, batch: int) -> None:
    found = whole_batches(count, batch)
    assert found % batch == 0
    assert count <= found < count + batch
