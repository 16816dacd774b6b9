"""The kernels of a bundle's engine, beside its floor's and the dense model's."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_graphsurgeon as gs
import pytest
from kernel_lists import kernel_list
from small_bundles import named
from small_graphs import chooser

from vitrim import api
from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.graph.precision.float32_nodes import wide_nodes
from vitrim.exporter.graph.precision.half import to_half
from vitrim.exporter.runtime.bundles.manifest import write_manifest
from vitrim.exporter.runtime.bundles.verify import verify_bundle
from vitrim.exporter.runtime.tensorrt.engine import build_engine
from vitrim.exporter.runtime.tensorrt.family import RTX
from vitrim.exporter.runtime.tensorrt.inventory import inventory
from vitrim.exporter.runtime.tensorrt.polygraphy_build import by_polygraphy
from vitrim.exporter.runtime.tensorrt.rtx_build import by_rtx
from vitrim.exporter.runtime.tensorrt.summary import Wanted, summarize
from vitrim.exporter.runtime.tensorrt.versions import builder_missing
from vitrim.recipes.inspection.kernels import BundleKernels, bundle_kernels, count_kernels, found_kernels


def choosing(folder: Path) -> Path:
    """A bundle in fp16 with one product, its floor without the ranking, and its engine."""
    folder.mkdir()
    model = chooser()
    narrow = to_half(model, "fp16", wide_nodes(gs.import_onnx(model))).model
    (folder / "dense.onnx").write_bytes(model.SerializeToString())
    (folder / "model.onnx").write_bytes(narrow.SerializeToString())
    del narrow.graph.output[1:]
    ranking = next(node for node in narrow.graph.node if node.op_type == "TopK")
    last = [node for node in narrow.graph.node if set(ranking.output) & set(node.input)]
    for node in (ranking, *last):
        narrow.graph.node.remove(node)
    (folder / "floor.onnx").write_bytes(narrow.SerializeToString())
    passes = {"pruned.decomposed": {"passes": [], "operators_before": {}, "operators_after": {}}}
    (folder / "passes.json").write_text(json.dumps(passes))
    build_engine(folder / "model.onnx", folder / "model.engine", precision="fp16", serialize=by_rtx)
    write_manifest(folder, {}, [], target="trt-rtx", batch=2, precision={"name": "fp16", "float32_nodes": []})
    return folder


@pytest.mark.slow
def test_an_engine_s_kernels_are_listed_beside_those_of_floor_and_dense(tmp_path: Path) -> None:
    reason = builder_missing(RTX)
    if reason:
        pytest.skip(reason)
    root = choosing(tmp_path / "out")
    found = bundle_kernels(root, verify_bundle(root))
    assert found.tensorrt.startswith("TensorRT for RTX ")
    assert (found.precision, found.not_built) == ("fp16", {})
    assert found.total == len(found.kernels) == sum(row.kernels for row in found.parts)
    assert found.dense == found.total  # the same graph
    assert found.floor is not None
    assert found.floor < found.total
    (row,) = found.parts  # no blocks in it
    assert (row.part, row.beyond_floor, row.does["top-k"]) == (None, found.total - found.floor, 1)
    told = api.inspect(root, kernels=True)["kernels"]
    assert BundleKernels.from_json(json.loads(json.dumps(told)), "x") == found


def test_what_has_no_kernels_to_list_is_one_line(tmp_path: Path) -> None:
    bare = named(tmp_path / "bare", engine=False)
    with pytest.raises(InputError, match=r"has no model.engine, whose kernels could be listed: vitrim build"):
        bundle_kernels(bare, verify_bundle(bare))
    (tmp_path / "old").mkdir()
    old = tmp_path / "old"
    for name in ("model.onnx", "model.engine"):
        (old / name).write_text(name)
    (old / "model.engine.json").write_text(json.dumps({"engine_sha256": "a", "onnx_sha256": "b"}))
    write_manifest(old, {}, [], target="trt-rtx")
    with pytest.raises(InputError, match="was built before kernels were kept: vitrim build"):
        bundle_kernels(old, verify_bundle(old))
    with pytest.raises(InputError, match="is no bundle"):
        api.inspect(tmp_path / "m.onnx", kernels=True)


def test_no_gpu_is_kept_busy_to_count_kernels(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLackError, match="builds on a GPU alone, which is not done to count kernels"):
        count_kernels(tmp_path / "m.onnx", tmp_path, "fp32", (), by_polygraphy)


@pytest.mark.parametrize(("method", "beyond"), [("evit", [4, 4, 3]), ("zero_tprune", [19, 20, 18])])
def test_what_is_beyond_the_floor_stands_on_the_last_line_of_a_block(method: str, beyond: list[int]) -> None:
    layers, wiring = kernel_list(method, "fp16")
    floor = inventory(*kernel_list("floor", "fp16"))
    summary = summarize(layers, Wanted("fp16", wiring=wiring))
    found = found_kernels("RTX", "fp16", inventory(layers, wiring), summary, {"floor": floor}, {})
    lines = {row.part: row.beyond_floor for row in found.parts}
    assert [lines[f"stage {block}"] for block in (1, 3, 4)] == beyond
    assert [lines[f"block {block}"] for block in (1, 3, 4)] == [None, None, None]
    assert sum(count or 0 for count in lines.values()) == found.total - len(floor)
