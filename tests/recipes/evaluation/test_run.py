"""`vitrim evaluate`: the same figures to the last bit for any workers, shards and ends; and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin_bundles
from evaluated_bundles import BATCH, PREPROCESS, label, logits, make_bundle, make_photos, pixels
from onnx import TensorProto, helper, numpy_helper

from vitrim import api
from vitrim.exporter.core import layout
from vitrim.exporter.core.errors import EnvironmentLackError, InputError, VitrimError
from vitrim.exporter.core.fidelity import fidelity
from vitrim.exporter.runtime.bundles.manifest import write_manifest
from vitrim.recipes.evaluation.result import Evaluation

ROOT = Path(__file__).resolve().parents[3]
FIGURES = ("answers", "by", "classes", "moved", "bundle_sha256", "images_sha256")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("made")
    return make_bundle(folder / "b"), make_photos(folder / "photos")


def of(found: Evaluation) -> dict[str, Any]:
    return {name: getattr(found, name) for name in FIGURES}


def test_figures_are_numpy_s(made: tuple[Path, Path]) -> None:
    notes: list[str] = []
    found = api.evaluate_bundle(*made, note=notes.append)
    labels = np.array([int(path.parent.name) for path in sorted(made[1].rglob("*.png"))])
    expected = fidelity(logits(made[1], False), logits(made[1], True), labels)
    seen = found.answers
    assert seen.lost is not None
    assert (seen.images, seen.lost, seen.won) == (23, expected.lost, expected.won)
    assert (seen.agreement, seen.accuracy_dense) == (expected.agreement, expected.accuracy_dense)
    assert seen.kl == pytest.approx(expected.kl, rel=1e-4)
    assert sum(one.images for one in found.classes) == 23
    assert (found.by, found.target, found.dense_by) == ("label", "ort-cpu", "onnxruntime-cpu")
    assert notes == ["labels: 5 folders named by number, class = name"]
    assert 0 < seen.lost < 23
    assert 0 < seen.agreement < 1


@pytest.mark.parametrize("shard", [1, 2, 3, 7, 22, 23, 500])
def test_they_are_the_same_to_the_last_bit_for_any_shards(made: tuple[Path, Path], shard: int, tmp_path: Path) -> None:
    assert of(api.evaluate_bundle(*made, shard=shard, out=tmp_path / "e.json")) == of(api.evaluate_bundle(*made))
    assert [path.name for path in tmp_path.iterdir()] == ["e.json"]


@pytest.mark.slow
def test_they_are_the_same_to_the_last_bit_for_any_workers(made: tuple[Path, Path]) -> None:
    assert of(api.evaluate_bundle(*made, workers=2, shard=4)) == of(api.evaluate_bundle(*made))


def test_it_goes_on_where_it_was_killed_and_counts_nothing_twice(made: tuple[Path, Path], tmp_path: Path) -> None:
    """Killed by itself after three shards, and with one of them doubled and the next one torn."""
    code = (
        "import os, sys; from vitrim import api;"
        "api.evaluate_bundle(sys.argv[1], sys.argv[2], shard=4, out=sys.argv[3],"
        " progress=lambda done, of: os.kill(os.getpid(), 9) if done == 12 else None)"
    )
    out, path = tmp_path / "e.json", {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run([sys.executable, "-c", code, *map(str, made), str(out)], env=path, check=False)
    assert done.returncode == -9
    assert not out.exists()
    journal = tmp_path / "e.json.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    journal.write_bytes(b"".join([*lines, lines[2], lines[3][:-5]]))
    notes: list[str] = []
    found = api.evaluate_bundle(*made, out=out, shard=6, note=notes.append)
    assert found.resumed == 12
    assert f"goes on after 12 of 23 images, which {journal} has" in notes
    assert of(found) == of(api.evaluate_bundle(*made))
    assert not journal.exists()
    assert Evaluation.read(out, "evaluation") == found


def test_it_does_not_go_on_with_other_images_or_another_bundle(made: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "e.json"

    def stop(done: int, of: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        api.evaluate_bundle(*made, out=out, shard=4, progress=stop)
    kept = (tmp_path / "e.json.journal").read_bytes()
    other = make_photos(tmp_path / "other", 22)
    with pytest.raises(InputError, match=r"e.json.journal is of other images; name another output, or remove the file"):
        api.evaluate_bundle(made[0], other, out=out)
    with pytest.raises(InputError, match=r"e.json.journal is of another bundle; name another output"):
        api.evaluate_bundle(make_bundle(tmp_path / "b", engine="none"), made[1], out=out)
    assert (tmp_path / "e.json.journal").read_bytes() == kept
    assert api.evaluate_bundle(*made, out=out).resumed == 4


def test_some_images_are_spread_evenly_and_flat_ones_have_no_labels(made: tuple[Path, Path], tmp_path: Path) -> None:
    assert api.evaluate_bundle(*made, count=5).answers.images == 5
    flat = api.evaluate_bundle(made[0], make_photos(tmp_path / "flat", 9, flat=True))
    assert (flat.by, flat.answers.accuracy_dense, flat.mcnemar) == ("dense answer", None, None)
    images = pixels(23)
    labels = [label(image, index) for index, image in enumerate(images)]
    order = np.argsort(labels, kind="stable")
    np.savez(tmp_path / "some.npz", image=images[order], label=np.array(labels)[order])
    packed = api.evaluate_bundle(made[0], tmp_path / "some.npz")
    whole = api.evaluate_bundle(*made)
    assert (packed.answers, packed.classes) == (whole.answers, whole.classes)


def test_a_further_size_has_graphs_and_photos_of_its_own(made: tuple[Path, Path], tmp_path: Path) -> None:
    out, further = make_bundle(tmp_path / "out"), PREPROCESS | {"crop_pct": 0.5}
    for name, other in (("model", "dense"), ("dense", "dense"), ("golden", "golden")):
        end = "npz" if name == "golden" else "onnx"
        (out / f"{name}.4x16.{end}").write_bytes((out / f"{other}.{end}").read_bytes())
    entries = {"preprocess": PREPROCESS, "target": "ort-cpu", "batch": BATCH}
    write_manifest(out, {}, [], sizes={"4x16": {"preprocess": further}}, **entries)
    own = api.evaluate_bundle(out, made[1])
    found = api.evaluate_bundle(out, made[1], size=(4, 16), out=tmp_path / "found.json")
    assert (own.size, found.size) == (None, "4x16")
    assert own.answers.agreement < found.answers.agreement == 1
    assert found.images_sha256 != own.images_sha256
    assert Evaluation.read(tmp_path / "found.json", "evaluation").size == "4x16"
    with pytest.raises(InputError, match="has no graphs for 16x4; it has 8x8, 4x16: export it anew"):
        api.evaluate_bundle(out, made[1], size="16x4")


def test_what_cannot_be_evaluated_is_refused_in_one_line(made: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, photos = made
    headless = make_bundle(tmp_path / "h", "features")
    unsaid = make_bundle(tmp_path / "u", preprocess=None)
    narrow = make_bundle(tmp_path / "n", precision={"name": "bf16", "float32_nodes": []})
    cases: list[tuple[type[VitrimError], str, tuple[Any, ...], dict[str, Any]]] = [
        (InputError, "h has no classifier: only a classifier's answers", (headless, photos), {}),
        (InputError, "u does not say how photos become its input", (unsaid, photos), {}),
        (EnvironmentLackError, "n cannot be evaluated here: onnxruntime runs no bf16", (narrow, photos), {}),
        (InputError, "there is no .*nowhere; give a folder", (bundle, tmp_path / "nowhere"), {}),
        (InputError, "there is no bundle", (tmp_path / "nowhere", photos), {}),
        (InputError, "lies in the bundle", made, {"out": bundle / "e.json"}),
        (InputError, "workers", made, {"workers": 0}),
        (InputError, "^count is 0; it must be at least 1$", made, {"count": 0}),
    ]
    for kind, said, arguments, options in cases:
        with pytest.raises(kind, match=said) as caught:
            api.evaluate_bundle(*arguments, **options)
        assert "\n" not in str(caught.value)
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(InputError, match="notes.json exists and is no evaluation; name another file"):
        api.evaluate_bundle(*made, out=tmp_path / "notes.json")
    (tmp_path / "e.json.journal").write_text("my notes\n")
    with pytest.raises(InputError, match="e.json.journal is no journal of an evaluation"):
        api.evaluate_bundle(*made, out=tmp_path / "e.json")


def test_a_damaged_photo_is_named_and_what_was_done_before_is_kept(made: tuple[Path, Path], tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 8)
    third = sorted(photos.rglob("*.png"))[2]
    third.write_bytes(b"no picture")
    with pytest.raises(InputError, match=rf"{third.name} is not an image that Pillow can read"):
        api.evaluate_bundle(made[0], photos, shard=2, out=tmp_path / "e.json")
    first = json.loads((tmp_path / "e.json.journal").read_bytes().splitlines()[1])
    assert (first["start"], len(first["answers"])) == (0, 2)


def test_without_pillow_it_says_how_to_get_it(made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EnvironmentLackError, match="^pillow is not installed, .*: pip install pillow$"):
        api.evaluate_bundle(*made)


def test_it_needs_no_torch(made: tuple[Path, Path]) -> None:
    code = "import sys; from vitrim import api; print(api.evaluate_bundle(sys.argv[1], sys.argv[2]).answers.images,"
    code += "[name for name in ('torch', 'timm', 'torchvision', 'onnx') if name in sys.modules])"
    path = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, made)], env=path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "23 []"


def dense_of_the_standin() -> bytes:
    """A real graph of what the stand-in's dense one computes: `logits` [2, 4], three times each channel's mean."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["means", "scale"], ["logits"]),
    ]
    ends = [
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, standin_bundles.SHAPE)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, standin_bundles.SHAPE[:2])],
    ]
    made = helper.make_graph(nodes, "g", *ends, [numpy_helper.from_array(np.float32(3), "scale")])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.slow
def test_an_engine_answers_in_place_of_its_graph(tmp_path: Path) -> None:
    """By a stand-in for TensorRT whose engine gives two thirds of the dense logits."""
    folder = standin_bundles.make(tmp_path / "b", scale=2.0)
    np.savez(folder / "golden.npz", **standin_bundles.golden(2.0))  # type: ignore[arg-type]
    (folder / "dense.onnx").write_bytes(dense_of_the_standin())
    preprocess = {**PREPROCESS, "input_size": [4, 2, 2], "mean": [0.5] * 4, "std": [0.5] * 4}
    write_manifest(folder, {}, [], target="jetpack-5", batch=2, preprocess=preprocess)
    images = np.random.default_rng(3).standard_normal((7, 4, 2, 2)).astype(np.float32)
    np.savez(tmp_path / "some.npz", image=images)
    given = (folder, tmp_path / "some.npz")
    with pytest.raises(InputError, match="b has no model.engine: build it first"):
        api.evaluate_bundle(*given, runtime="tensorrt")
    with pytest.raises(InputError, match="there is no runtime 'cuda'"):
        api.evaluate_bundle(*given, runtime="cuda")

    cudart = standin_bundles.compiled_cudart(tmp_path)
    there = {**os.environ, **standin_bundles.standin_environment(cudart, tmp_path, "8.6.1")}
    there["PYTHONPATH"] = os.pathsep.join([str(standin_bundles.STANDIN), str(ROOT.parent)])
    build = [sys.executable, str(folder / layout.STANDALONE), "build"]
    subprocess.run(build, env=there, check=True, capture_output=True)
    code = (
        "import sys, json; from vitrim import api\n"
        "for runtime in ('auto', 'tensorrt'):\n"
        "    print(json.dumps(api.evaluate_bundle(sys.argv[1], sys.argv[2], runtime=runtime).to_json()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, given)], env=there, check=True, capture_output=True, text=True
    )
    means = images.mean(axis=(2, 3))
    wanted = fidelity(3 * means, 2 * means, None)
    for line, asked in zip(done.stdout.splitlines(), (None, "tensorrt"), strict=True):
        found = Evaluation.from_json(json.loads(line), "line")
        assert (found.dense_by, found.pruned_by, found.cpu_only) == ("onnxruntime-cpu", "tensorrt-8.6.1", None)
        assert found.answers.kl == pytest.approx(wanted.kl, rel=1e-5)
        assert (found.answers.agreement, found.runtime, found.target) == (wanted.agreement, asked, "trt-8.5")
    notes: list[str] = []  # and here, where there is no TensorRT
    with pytest.raises(EnvironmentLackError, match="^TensorRT "):
        api.evaluate_bundle(*given, runtime="tensorrt")
    with pytest.raises(InputError, match="onnxruntime cannot load"):  # the stand-in's graph, which is none
        api.evaluate_bundle(*given, note=notes.append)
    assert any("model.engine is not evaluated, but the graph that it was built from: TensorRT " in one for one in notes)


def test_another_runtime_is_taken_where_it_is_asked_for(tmp_path: Path) -> None:
    given = make_bundle(tmp_path / "b", target="jetpack-6"), make_photos(tmp_path / "photos", 4)
    own, asked = (api.evaluate_bundle(*given, runtime=name) for name in ("auto", "onnxruntime"))
    assert of(own) == of(asked)
    assert own.cpu_only is not None
    assert asked.cpu_only == f"the graph is for {own.target}, but onnxruntime ran it on the CPU, as asked"
    assert own.target == asked.target
    assert asked.command[-2:] == ["--runtime", "onnxruntime"]
