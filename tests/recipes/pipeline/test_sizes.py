"""Further image sizes: what a recipe may ask for, and one bundle of them all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import small_recipe

from vitrim import api
from vitrim.exporter.core import layout
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.graph.files import read_bare
from vitrim.exporter.graph.weights import is_external, size_of
from vitrim.exporter.pruning.budget import read_budget
from vitrim.exporter.runtime.bundles.golden import load_golden
from vitrim.exporter.runtime.bundles.manifest import read_manifest
from vitrim.exporter.runtime.bundles.verify import verify_bundle
from vitrim.exporter.runtime.parity import Parity
from vitrim.recipes.pipeline.sizes import check_sizes, sizes_of, without_sizes
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.schema.portable import dump_recipe, portable

SIZE = "48x80"  # 15 patches; the small model's own has 16


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A bundle of two sizes, and what its export returned."""
    out = tmp_path_factory.mktemp("sizes") / "out"
    return out, api.export(small_recipe(require={"agreement": 0.01}), out, sizes=[(48, 80)])


@pytest.mark.slow
def test_a_bundle_has_the_graphs_plans_and_proofs_of_every_size(several: tuple[Path, Any]) -> None:
    out, result = several
    own = {"model.onnx", "proof.onnx", "dense.onnx", "floor.onnx", "budget.json", "golden.npz", "parity.json"}
    own |= {"fidelity.json", "bench.json", "gate.json", "passes.json", "float_nodes.json"}
    sized = {layout.of_size(name, SIZE) for name in own}
    (weights,) = (path.name for path in out.glob("weights-*.data"))
    once = {"recipe.yaml", "README.md", "manifest.json", "run_on_device.py", weights}
    assert {path.name for path in out.iterdir()} == own | sized | once
    manifest = verify_bundle(out)
    assert list(manifest.sizes) == [SIZE]
    assert manifest.own_size == result.size == "64x64"
    assert manifest.input["shape"] == [1, 3, 64, 64]
    other = manifest.of(SIZE)
    assert other.input["shape"] == [1, 3, 48, 80]
    assert other.preprocess["input_size"] == [3, 48, 80]
    assert set(other.files) == own | once - {"manifest.json"}
    assert other.files["model.onnx"] == manifest.files["model.48x80.onnx"]
    plan = read_budget(out / "budget.48x80.json")
    assert (plan.blocks[0].before, read_budget(out / "budget.json").blocks[0].before) == (16, 17)
    assert plan == result.sizes[SIZE].budget
    for budget in (plan, result.budget):  # the same share of each size's own GMACs
        assert 0.65 < budget.total_gmacs / budget.gmacs["dense"] <= 0.7
    golden = load_golden(layout.Sized(out, SIZE))
    assert golden["image"].shape == (2, 3, 48, 80)
    for name, shape in (("dense", [1, 3, 48, 80]), ("model", [1, 3, 48, 80]), ("floor", [1, 3, 48, 80])):
        (image,) = onnx.load(out / f"{name}.48x80.onnx", load_external_data=False).graph.input
        assert [dim.dim_value for dim in image.type.tensor_type.shape.dim] == shape
    assert Parity.read(out / "parity.48x80.json", "parity report").passed
    assert result.sizes[SIZE].gate.passed
    assert result.to_json()["sizes"][SIZE]["bench"]["speedup"] > 0
    assert result.runner(SIZE)(golden["image"][:1])["logits"] == pytest.approx(golden["logits"][:1], abs=1e-4)
    assert f"| {SIZE} | 16 to {plan.blocks[-1].before} |" in (out / "README.md").read_text()


@pytest.mark.slow
def test_a_weight_of_several_graphs_lies_once_and_positions_are_each_size_s_own(several: tuple[Path, Any]) -> None:
    out, _ = several
    (data,) = out.glob("weights-*.data")
    places: dict[tuple[int, int], set[str]] = {}
    for path in out.glob("*.onnx"):
        bare, weights = read_bare(path)
        for tensor in (one for one in bare.graph.initializer if is_external(one)):
            file, place = weights.find(tensor)
            assert file == data
            places.setdefault((place.offset, place.length), set()).add(path.name)
        inside = sum(size_of(tensor) for tensor in bare.graph.initializer if not is_external(tensor))
        assert path.stat().st_size < inside + 70_000
    whole = json.loads(json.dumps(sorted(map(len, places.values()))))
    assert min(whole) >= 2
    assert max(whole) == 8  # both sizes, four graphs of each
    at = {offset: data.read_bytes()[offset : offset + length] for offset, length in places}
    assert len(set(at.values())) == len(at)


@pytest.mark.slow
def test_every_command_takes_a_size(several: tuple[Path, Any], tmp_path: Path) -> None:
    out, result = several
    assert [rung.images for rung in api.check(out, size=SIZE).rungs] == [2, 2]
    assert api.check(out, size=SIZE).passed
    assert api.check(out).passed
    timed = api.bench(out, runs=5, warmup=0, size=[48, 80])
    manifest = read_manifest(out)
    assert timed.bundle.graph_sha256 == manifest.files["model.48x80.onnx"].sha256
    assert api.bench(out, runs=5, warmup=0, size="64x64").bundle.graph_sha256 == manifest.files["model.onnx"].sha256
    assert (
        api.inspect(out, size=SIZE)["before"]
        == json.loads((out / "passes.48x80.json").read_text())[
            f"pruned.{result.sizes[SIZE].bench.attention['pruned']['form']}"
        ]["operators_before"]
    )
    pixels = np.random.default_rng(0).integers(0, 256, (4, 48, 80, 3), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", image=pixels)
    found = api.evaluate_bundle(out, tmp_path / "some.npz", size=SIZE)
    assert (found.size, found.answers.images) == (SIZE, 4)
    for call in (api.check, api.bench, api.inspect):
        with pytest.raises(InputError, match="has no graphs for 80x48; it has 64x64, 48x80: export it anew with exp"):
            call(out, size=(80, 48))
    with pytest.raises(InputError, match=r"^'48 x 80' is no image size; write height and width, such as 192x256$"):
        api.check(out, size="48 x 80")


@pytest.mark.slow
def test_run_on_device_takes_a_size(several: tuple[Path, Any], tmp_path: Path) -> None:
    stripped = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(several[0] / "run_on_device.py"), "check", "--size", SIZE, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=stripped, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(json.dumps(api.check(several[0], size=SIZE).to_json()))


@pytest.mark.slow
def test_an_own_size_is_what_a_bundle_of_one_size_has_and_nothing_is_made_twice(several: tuple[Path, Any]) -> None:
    out, result = several
    heard: list[tuple[str, bool]] = []

    class Heard:
        def stage(self, name: str, cached: bool = False) -> None:
            heard.append((name, cached))

        def progress(self, done: int, total: int) -> None:
            pass

        def note(self, text: str) -> None:
            pass

    recipe = without_sizes(result.recipe)
    alone = api.export(recipe.model_dump(mode="json"), out.parent / "out", listener=Heard())
    assert {name for name, cached in heard if not cached} == {"model and images", "bundle"}
    assert alone.budget == result.budget
    assert not list(out.glob("*.data"))
    assert "sizes" not in json.loads((out / "manifest.json").read_text())
    assert "sizes" not in (out / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"slim": {"target": {"flops_ratio": 0.8}}}, "slim once .* name that as model.checkpoint, and take slim out"),
        ({"prune": {"target": {"gflops": 0.02}}}, "prune.target.gflops is the cost at one image size; give"),
        ({"prune": {"target": None, "budget": "b.json"}}, "prune.budget is a plan for one image size; give"),
        (
            {"prune": {"target": None, "given": True}},
            "prune.given in memory, .* timm.s model itself, and give prune.target",
        ),
        ({"prune": {"target": {"speedup": 1.5, "table": "t.json"}}}, "prune.target.table is measured at one image"),
        ({"images": {"generator": None, "given": True}}, "images in memory are of one size; give images.path"),
    ],
)
def test_what_is_of_one_size_alone_is_refused_before_any_work(sections: dict[str, Any], words: str) -> None:
    recipe = recipe_from(small_recipe(**sections, export={"sizes": [96]}))
    with pytest.raises(InputError, match=f"^export.sizes: .*{words}"):
        check_sizes(recipe)
    check_sizes(without_sizes(recipe))


def test_images_that_fit_no_further_size_are_refused_before_any_work(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", image=np.zeros((6, 3, 64, 64), np.float32))
    recipe = small_recipe(images={"generator": None, "path": str(tmp_path / "some.npz")}, evaluate=None)
    with pytest.raises(InputError, match=r"^images of 96x96: .*some\.npz"):
        api.export(recipe, tmp_path / "out", sizes=[96])
    assert [path.name for path in tmp_path.iterdir()] == ["some.npz"]


def test_a_recipe_says_sizes_as_pairs_or_sides_and_one_without_says_nothing_of_them() -> None:
    recipe = recipe_from(small_recipe(export={"sizes": [[48, 80], 96]}))
    assert sizes_of(recipe) == [(48, 80), (96, 96)]
    assert portable(recipe)["export"]["sizes"] == [[48, 80], 96]
    assert "sizes" not in dump_recipe(without_sizes(recipe))
    assert without_sizes(recipe).folder == recipe.folder
    for wrong, words in (
        ([96, [96, 96]], "export.sizes: .*96x96 stands twice"),
        ([0], "export.sizes"),
        ([[1, 2, 3]], "export.sizes"),
        (["96x96"], "export.sizes"),
    ):
        with pytest.raises(InputError, match=words):
            recipe_from(small_recipe(export={"sizes": wrong}))
