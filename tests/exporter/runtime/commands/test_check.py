"""A bundle held against PyTorch's outputs: what ran, what could not, and how close it must be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from small_bundles import CLOSE, doubling, half, named
from small_graphs import chooser

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.graph.decisions import without_decisions
from vitrim.exporter.runtime.bench.timing import Timing
from vitrim.exporter.runtime.bundles.golden import load_golden
from vitrim.exporter.runtime.bundles.manifest import write_manifest
from vitrim.exporter.runtime.commands.bench import bench_bundle
from vitrim.exporter.runtime.commands.check import GraphCheck, check_bundle, check_folder
from vitrim.exporter.runtime.parity import Parity
from vitrim.exporter.runtime.runners import OrtRunner, run_all

QUICK = Timing(runs=6, warmup=0, threads=1)


def multiplied(root: Path, factor: float, **entries: Any) -> Path:
    """The bundle with golden outputs that its graphs, which double, do not give."""
    golden = dict(np.load(root / "golden.npz"))
    golden["logits"] = golden["logits"] * np.float32(factor)
    np.savez(root / "golden.npz", **golden)
    write_manifest(root, {"vitrim": "0"}, ["vitrim"], **entries)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("target", "said"), [("ort-cpu", None), ("trt-10.3", "the graph is for trt-10.3")])
def test_check_and_bench_say_when_only_the_cpu_ran(target: str, said: str | None, tmp_path: Path) -> None:
    root = doubling(tmp_path / "b", target=target)
    checked = check_bundle(root)
    timed = bench_bundle(root, QUICK)
    assert checked.passed
    assert timed.runtime == "onnxruntime-cpu"
    for found in (checked.cpu_only, timed.environment["cpu_only"]):
        assert found is None if said is None else str(found).startswith(said)


def test_a_graph_of_another_precision_is_judged_by_cosine_and_answers(tmp_path: Path) -> None:
    root = half(tmp_path / "b")
    result = check_bundle(root)
    (rung,) = result.rungs
    assert (result.passed, result.close, result.smallest_atol) == (True, CLOSE, None)
    assert (rung.strict, rung.unproven, rung.stages[0].differing) == (False, 1, 1)
    for stricter in ({"atol": 1e-6}, {"tie": 1e-6}):
        strict = check_bundle(root, **stricter)
        assert (strict.passed, strict.rungs[0].strict, strict.close) == (False, True, None)
    assert check_bundle(root, atol=0.1).passed


def test_a_bundle_in_which_nothing_decides_alike_must_be_close_as_it_is(tmp_path: Path) -> None:
    (rung,) = check_bundle(half(tmp_path / "alike", ties=8)).rungs
    assert (rung.passed, rung.unproven, rung.equal) == (True, 8, None)
    wrong = np.random.default_rng(2).standard_normal((8, 5)).astype(np.float32)
    result = check_bundle(half(tmp_path / "wrong", ties=8, logits=wrong))
    assert not result.passed
    assert result.rungs[0].reason.startswith("no image decides alike, and the mean cosine is")


def test_onnxruntime_is_not_asked_for_bf16(tmp_path: Path) -> None:
    root = doubling(tmp_path / "b", precision={"name": "bf16", "float32_nodes": []}, target="trt-10.13")
    with pytest.raises(
        EnvironmentLackError, match="nothing was checked: onnxruntime runs no bf16 graphs; .* no model.e"
    ):
        check_bundle(root)
    with pytest.raises(EnvironmentLackError, match="onnxruntime runs no bf16 graphs, and no engine is timed"):
        bench_bundle(root, QUICK)


def test_a_check_that_can_check_nothing_does_not_pass(recorder: Any, tmp_path: Path) -> None:
    folder = named(tmp_path / "b")
    assert check_bundle(folder, runtime="tensorrt").passed
    recorder.reason = "TensorRT finds no GPU"
    with pytest.raises(EnvironmentLackError, match="nothing was checked: TensorRT finds no GPU"):
        check_bundle(folder, runtime="tensorrt")


def off_by(root: Path) -> float:
    """The largest difference of a bundle's golden logits from what `doubling` gives."""
    golden = load_golden(root)
    return float(np.abs(golden["logits"] - 2 * golden["image"]).max())


def test_a_graph_that_gives_other_outputs_fails_by_the_limits_that_hold(tmp_path: Path) -> None:
    root = multiplied(doubling(tmp_path / "b"), 1.5)
    worst = off_by(root)
    (rung,) = check_bundle(root).rungs
    assert (rung.passed, rung.first_offender, rung.name) == (False, "logits", "onnxruntime-cpu = golden")
    assert (rung.largest_error, rung.smallest_atol) == (pytest.approx(worst, rel=1e-6), None)
    assert "a constant could be as near, so no tolerance passes it" in rung.reason
    assert not check_bundle(root, atol=1e6).passed


def test_a_graph_that_is_a_little_off_passes_at_the_tolerance_that_is_named(tmp_path: Path) -> None:
    root = multiplied(doubling(tmp_path / "b"), 1.05)
    worst = off_by(root)
    (rung,) = check_bundle(root).rungs
    assert (rung.passed, rung.smallest_atol) == (False, pytest.approx(worst, rel=1e-6))
    assert not check_bundle(root, atol=worst * 0.999).passed
    assert check_bundle(root, atol=worst * 1.001).passed


@pytest.mark.parametrize(
    ("logits", "words"),
    [
        (np.zeros((4, 3)), "the reference gives all classes the same logit"),
        (np.tile([[1.0, 2, 3]], (4, 1)), "the reference gives every image the same logits"),
        (np.full((4, 3), np.nan), "the reference's logits hold NaN or Inf"),
    ],
)
def test_golden_outputs_that_prove_nothing_are_refused(tmp_path: Path, logits: np.ndarray, words: str) -> None:
    root = doubling(tmp_path / "b")
    image = load_golden(root)["image"]
    np.savez(root / "golden.npz", image=image, logits=logits.astype(np.float32))
    write_manifest(root, {"vitrim": "0"}, ["vitrim"])
    (rung,) = check_bundle(root, atol=1e6, tie=1).rungs
    assert (rung.passed, rung.smallest_atol) == (False, None)
    assert re.match(f"unproven: {words}", rung.reason), rung.reason


def test_the_bundle_s_own_limits_hold_where_none_are_given(tmp_path: Path) -> None:
    root = doubling(tmp_path / "b")
    own = check_bundle(root)
    assert (own.atol, own.tie, own.close) == (1e-3, 1e-3, None)
    given = check_bundle(root, tie=0.5)
    assert (given.atol, given.tie) == (1e-3, 0.5)
    assert [rung.name for rung in own.rungs] == ["onnxruntime-cpu = golden"]  # those of the export are not run again


def test_without_an_engine_and_without_onnxruntime_there_is_nothing_to_check(tmp_path: Path) -> None:
    root = doubling(tmp_path / "b")
    with pytest.raises(EnvironmentLackError) as caught:
        check_bundle(root, runtime="tensorrt")
    assert str(caught.value) == f"nothing was checked: {root} has no model.engine: build it first"


def test_a_damaged_bundle_is_not_run(tmp_path: Path) -> None:
    root = doubling(tmp_path / "b")
    (root / "model.onnx").write_bytes((root / "dense.onnx").read_bytes() + b" ")
    with pytest.raises(InputError, match=r"model\.onnx is not the file that was published"):
        check_bundle(root)


def test_an_engine_that_cannot_run_here_is_said_beside_what_could(recorder: Any, tmp_path: Path) -> None:
    recorder.reason = "TensorRT finds no GPU"
    root = doubling(tmp_path / "b")
    (root / "model.engine").write_bytes(b"engine")
    write_manifest(root, {"vitrim": "0"}, ["vitrim"])
    result = check_bundle(root)
    assert result.passed
    assert result.engine_not_checked == "TensorRT finds no GPU"
    assert [rung.name for rung in result.rungs] == ["onnxruntime-cpu = golden"]
    recorder.reason = None
    again = check_folder(root, Parity(10.0, 1e-3, ()), GraphCheck())  # the recorder's engine answers what it is given
    assert again.engine_not_checked is None
    assert [rung.name for rung in again.rungs] == ["onnxruntime-cpu = golden", "tensorrt-10.3.0 = golden"]


def test_rungs_that_were_there_come_first_and_stay(recorder: Any, tmp_path: Path) -> None:
    root = named(tmp_path / "b")
    (first,) = Parity.read(doubling(tmp_path / "d") / "parity.json", "parity report").rungs
    result = check_folder(root, Parity(1e-4, 1e-5, (first,), graph_not_checked="before"))
    assert result.rungs[0] == first
    assert [rung.name for rung in result.rungs[1:]] == ["tensorrt-10.3.0 = golden"]
    assert result.graph_not_checked is None  # of this check, not of an older one


def test_a_golden_file_without_the_kept_tokens_proves_no_decision(tmp_path: Path) -> None:
    root = half(tmp_path / "b")
    golden = dict(np.load(root / "golden.npz"))
    for gone in (["kept_1"], ["kept_1", "gap_1"]):
        np.savez(root / "golden.npz", **{name: value for name, value in golden.items() if name not in gone})
        write_manifest(root, {}, [], precision={"name": "fp16", "float32_nodes": []}, batch=2)
        for limits in ({}, {"atol": 10.0}):
            (rung,) = (result := check_bundle(root, **limits)).rungs
            assert (result.passed, rung.first_offender, rung.smallest_atol) == (False, "kept_1", None)
            assert "unproven: the reference has no kept_1 to hold it against" in result.failure


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("parity.json", "[]"),
        ("parity.json", '{"atol": "small", "tie": 1, "rungs": []}'),
        ("parity.json", '{"atol": NaN, "tie": 1, "rungs": []}'),
        ("parity.json", '{"atol": -1, "tie": 1, "rungs": []}'),
        ("parity.json", '{"atol": 1, "tie": 1, "rungs": [3]}'),
        ("golden.npz", "no archive"),
        ("model.onnx", "no graph"),
    ],
)
def test_a_bundle_that_was_sealed_again_over_other_content_is_one_line(file: str, text: str, tmp_path: Path) -> None:
    root = doubling(tmp_path / "b")
    (root / file).write_text(text)
    write_manifest(root, {}, [])
    with pytest.raises(InputError, match=file.replace(".", r"\.")) as caught:
        check_bundle(root)
    assert "\n" not in str(caught.value)


def proven(folder: Path, shipped_times: float = 1.0) -> Path:
    """A bundle that tells its decisions by a proof graph; the shipped one's weights may be other ones."""
    folder.mkdir()
    proof, image = chooser(), np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    (folder / "proof.onnx").write_bytes(proof.SerializeToString())
    shipped, _ = without_decisions(proof)
    weights = onnx.numpy_helper.to_array(shipped.graph.initializer[0]) * np.float32(shipped_times)
    shipped.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w"))
    (folder / "model.onnx").write_bytes(shipped.SerializeToString())
    golden = run_all(OrtRunner(proof.SerializeToString()), image, 2)
    np.savez(folder / "golden.npz", image=image, **golden)
    Parity(1e-4, 1e-4, ()).write(folder / "parity.json")
    write_manifest(folder, {"vitrim": "0"}, ["vitrim"])
    return folder


def test_decisions_are_held_on_the_proof_graph_and_answers_on_the_shipped_one(tmp_path: Path) -> None:
    golden, shipped = check_bundle(proven(tmp_path / "b")).rungs
    assert [golden.name, shipped.name] == ["onnxruntime-cpu = golden", "onnxruntime-cpu: model.onnx = proof.onnx"]
    assert ([stage.output for stage in golden.stages], golden.passed) == (["kept_1"], True)
    assert (shipped.passed, shipped.smallest_atol) == (True, 0.0)
    result = check_bundle(proven(tmp_path / "other", 1.01))
    assert [rung.passed for rung in result.rungs] == [True, False]
    assert result.first_offender == "onnxruntime-cpu: model.onnx = proof.onnx: logits"


def test_without_its_proof_graph_a_bundle_does_not_pass(tmp_path: Path) -> None:
    root = proven(tmp_path / "b")
    (root / "proof.onnx").unlink()
    with pytest.raises(InputError, match=r"proof\.onnx is missing"):
        check_bundle(root)
    write_manifest(root, {"vitrim": "0"}, ["vitrim"])
    (rung,) = check_bundle(root).rungs
    assert (rung.passed, rung.reason) == (False, "the candidate has no output kept_1")


def test_an_engine_of_the_shipped_graph_is_held_by_its_answers(recorder: Any, tmp_path: Path) -> None:
    root = named(tmp_path / "b", "proof.onnx")
    golden = dict(np.load(root / "golden.npz")) | {"kept_1": np.zeros((2, 3), np.int32)}
    np.savez(root / "golden.npz", **golden)
    write_manifest(root, {}, [], target="jetpack-6", batch=2)
    (rung,) = check_bundle(root, runtime="tensorrt").rungs
    assert (rung.name, rung.passed, rung.stages) == ("tensorrt-10.3.0 = golden", True, ())
    (root / "proof.onnx").unlink()
    write_manifest(root, {}, [], target="jetpack-6", batch=2)
    (rung,) = check_bundle(root, runtime="tensorrt").rungs
    assert (rung.passed, rung.first_offender) == (False, "kept_1")


@pytest.mark.parametrize(("target", "aside"), [("ort-cpu", False), ("openvino", False), ("trt-10.3", True)])
def test_openvino_checks_any_bundle(tmp_path: Path, target: str, aside: bool) -> None:
    result = check_bundle(doubling(tmp_path / "b", target=target), threads=1, runtime="openvino")
    assert [(rung.name, rung.passed) for rung in result.rungs] == [("openvino-cpu = golden", True)]
    assert result.cpu_only == (
        f"the graph is for {target}, but openvino ran it on the CPU, as asked" if aside else None
    )


def test_onnxruntime_checks_a_bundle_for_openvino(tmp_path: Path) -> None:
    root = doubling(tmp_path / "b", target="openvino")
    assert [rung.name for rung in check_bundle(root).rungs] == ["openvino-cpu = golden"]
    assert [rung.name for rung in check_bundle(root, runtime="onnxruntime").rungs] == ["onnxruntime-cpu = golden"]
    with pytest.raises(InputError, match=r"has no model\.engine: none belongs to openvino"):
        check_bundle(root, runtime="tensorrt")
    with pytest.raises(InputError, match="there is no runtime 'ort'"):
        check_bundle(root, runtime="ort")
    bf16 = doubling(tmp_path / "bf16", precision={"name": "bf16", "float32_nodes": []}, target="openvino")
    with pytest.raises(EnvironmentLackError, match="^nothing was checked: onnxruntime runs no bf16 graphs$"):
        check_bundle(bf16, runtime="onnxruntime")
