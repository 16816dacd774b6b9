"""The onnxruntime runner: batches, and clear words for what it cannot load or run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from vitrim.exporter.errors import EnvironmentLackError, InputError
from vitrim.exporter.runtime.runners import OrtRunner, run_all


def doubler(batch: int | str = 2) -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3]) for name in ("image", "logits")]
    graph = helper.make_graph([helper.make_node("Add", ["image", "image"], ["logits"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


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
    with pytest.raises(InputError, match="cannot load"):
        OrtRunner(tmp_path / "none.onnx")


def test_a_missing_provider_is_an_error_not_a_fallback() -> None:
    with pytest.raises(EnvironmentLackError, match=r"has no CUDAExecutionProvider .*vitrim\[gpu\]"):
        OrtRunner(doubler(), providers=("CUDAExecutionProvider",))
