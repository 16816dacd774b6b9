"""ModelOpt's scales in vitrim's Q/DQ pairs; what needs ModelOpt itself is skipped where it is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import budget_for

from vitrim.exporter.core.errors import EnvironmentLackError, InputError, UnsupportedError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.lint.check import lint
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.precision.modelopt import with_modelopt
from vitrim.exporter.graph.precision.qdq import quantizable, restored
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.exporter.runtime.runners import OrtRunner, run_all

needs_modelopt = pytest.mark.skipif(
    importlib.util.find_spec("modelopt") is None,
    reason="ModelOpt is not installed: pip install 'vitrim[modelopt]' in an environment of its own",
)
IMAGES = np.random.default_rng(0).standard_normal((10, 3, 64, 64), dtype=np.float32)


@pytest.fixture(scope="module")
def traced(vit: Any) -> onnx.ModelProto:
    """A pruned ViT, batch 4: 10 images are no whole batches of it."""
    return trace(PrunedViT(vit, budget_for(vit, {1: 12, 2: 8})), 4)


@pytest.fixture(scope="module")
def graph(traced: onnx.ModelProto) -> onnx.ModelProto:
    """The same for TensorRT 10.3."""
    return rewrite(traced, get_target("trt-10.3"))[0]


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a package `modelopt` before every other one: a function of the source of its `quantize` module, or None."""

    def write(source: str | None) -> None:
        folder = tmp_path / "modelopt" / "onnx" / "quantization"
        folder.mkdir(parents=True)
        for package in (folder, *list(folder.parents)[:2]):
            (package / "__init__.py").touch()
        if source is not None:
            (folder / "quantize.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)

    return write


def logits(model: onnx.ModelProto) -> np.ndarray:
    runner = OrtRunner(model.SerializeToString())
    return run_all(runner, IMAGES, runner.batch)["logits"]


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)


def behind_pairs(model: onnx.ModelProto) -> set[str]:
    """Names of the products of which both sides went through int8."""
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    pairs = {
        node.name: [makers.get(name) == "DequantizeLinear" for name in node.input]
        for node in model.graph.node
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear")
    }
    assert all(all(sides) for sides in pairs.values() if any(sides))
    return {name for name, sides in pairs.items() if any(sides)}


def zero_points(model: onnx.ModelProto) -> list[np.ndarray]:
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return [values[node.input[2]] for node in model.graph.node if node.op_type.endswith("izeLinear")]


@pytest.mark.slow
def test_without_modelopt_the_remedy_is_said(graph: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentLackError, match=r"pip install 'vitrim\[modelopt\]' in an environment") as caught:
        with_modelopt(graph, quantizable(graph), [IMAGES], "minmax")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_percentile_is_refused(graph: onnx.ModelProto) -> None:
    with pytest.raises(InputError, match=r"^precision.calibrator: ModelOpt has no percentile; take minmax or entropy"):
        with_modelopt(graph, quantizable(graph), [IMAGES], "percentile")


def test_half_an_installation_is_told_apart(graph: onnx.ModelProto, stub: Any) -> None:
    stub(None)
    with pytest.raises(EnvironmentLackError, match=r"No module named 'modelopt.onnx.quantization.quantize'\): pip"):
        with_modelopt(graph, quantizable(graph), [IMAGES], "minmax")


def test_its_failure_is_one_line(graph: onnx.ModelProto, stub: Any, capfd: pytest.CaptureFixture[str]) -> None:
    stub("def quantize(**options):\n    print('much')\n    raise ValueError('no such graph')\n")
    with pytest.raises(UnsupportedError, match=r"^ModelOpt fails on this graph: ValueError: no such graph; take"):
        with_modelopt(graph, quantizable(graph), [IMAGES], "minmax")
    assert capfd.readouterr() == ("", "")


def test_what_it_leaves_in_float_stays_so(graph: onnx.ModelProto, stub: Any) -> None:
    stub("import shutil\ndef quantize(onnx_path, output_path, **_):\n    shutil.copy(onnx_path, output_path)\n")
    products = quantizable(graph)
    same = with_modelopt(graph, products, [IMAGES], "minmax")
    assert same.graph.node == graph.graph.node
    assert np.array_equal(logits(restored(same, graph, products)), logits(graph))


def test_it_is_given_whole_batches_and_exact_names(graph: onnx.ModelProto, stub: Any) -> None:
    stub(
        "import re, shutil, onnx\n"
        "def quantize(onnx_path, output_path, calibration_data, nodes_to_quantize, calibration_method, **rest):\n"
        "    names = [node.name for node in onnx.load(onnx_path).graph.node]\n"
        "    assert calibration_data.shape == (12, 3, 64, 64) and calibration_method == 'entropy'\n"
        "    assert all(sum(bool(re.match(p, name)) for name in names) == 1 for p in nodes_to_quantize)\n"
        "    assert len({len(name) for name in names}) == 1 and len(set(names)) == len(names)\n"
        "    assert rest['calibration_eps'] == ['cpu'] and rest['high_precision_dtype'] == 'fp32'\n"
        "    shutil.copy(onnx_path, output_path)\n"
    )
    with_modelopt(graph, quantizable(graph), [IMAGES], "entropy")


@needs_modelopt
@pytest.mark.slow
@pytest.mark.parametrize(("target", "calibrator"), [("trt-10.3", "minmax"), ("trt-8.5", "entropy")])
def test_a_graph_for_tensorrt(
    traced: onnx.ModelProto, target: str, calibrator: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = rewrite(traced, get_target(target))[0]
    before = graph.SerializeToString(deterministic=True)
    products = quantizable(graph)[1:]
    quantized = with_modelopt(graph, products, [IMAGES], calibrator)
    assert capfd.readouterr() == ("", "")
    assert graph.SerializeToString(deterministic=True) == before
    assert behind_pairs(quantized) == set(products)
    assert all(not zeros.any() and zeros.dtype == np.int8 for zeros in zero_points(quantized))
    assert quantized.opset_import == graph.opset_import
    assert quantized.metadata_props == graph.metadata_props
    assert lint(quantized, get_target(target)) == []
    reference = logits(graph)
    assert cosines(reference, logits(quantized)).min() > 0.999
    assert behind_pairs(restored(quantized, graph, products[:2])) == set(products[2:])
    assert np.array_equal(logits(restored(quantized, graph, products)), reference)
