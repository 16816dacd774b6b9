"""The shipped recipe that does most fits every target: clean, static, at its opset, and computes what was traced."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from vitrim import api
from vitrim.exporter.core.targets import TARGETS, get_target
from vitrim.exporter.graph.files import read_whole
from vitrim.exporter.graph.lint.check import lint, operator_table
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.verify import RELATIVE, run_once
from vitrim.recipes.listener import Silence
from vitrim.recipes.pipeline.cache import cache_of
from vitrim.recipes.pipeline.run import do_all, open_run
from vitrim.recipes.stages.calibrate import Calibrate
from vitrim.recipes.stages.dense import Dense
from vitrim.recipes.stages.graphs import forms_for
from vitrim.recipes.stages.reference import Reference, widest_gap_batch
from vitrim.recipes.stages.slim import Slim
from vitrim.recipes.stages.trace import Trace

FEW = ("images.count=16", "evaluate.count=8", "parity.images=8", "slim.repair=false")


@pytest.fixture(scope="module", params=["quickstart-slim"])
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Its graphs as traced, by kind, with an image whose decisions are no near-ties."""
    chosen = api.recipe(request.param)
    recipe = api.recipe(request.param, [each for each in FEW if chosen.slim is not None or "slim." not in each])
    run = open_run(recipe, cache_of(tmp_path_factory.mktemp(request.param) / "out"), Silence())
    do_all(run, (Slim, Calibrate, Reference, Dense, Trace))
    image = widest_gap_batch(run.folders["reference"], recipe.export.batch)
    graphs = {path.stem: read_whole(path) for path in run.folders["trace"].glob("*.onnx")}
    return {"graphs": graphs, "feeds": {"image": image}, "outputs": run_once(graphs["pruned"], {"image": image})}


def is_static(model: onnx.ModelProto) -> bool:
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    return all(dim.HasField("dim_value") for value in values for dim in value.type.tensor_type.shape.dim)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_the_pruned_graph_fits_and_computes_what_was_traced(traced: dict[str, Any], name: str) -> None:
    target = get_target(name)
    for form in forms_for(target, "auto"):
        graph, _ = rewrite(traced["graphs"]["pruned"], target, fused_attention=form == "fused")
        assert [str(finding) for finding in lint(graph, target)] == []
        assert graph.opset_import[0].version <= target.opset
        assert is_static(graph)
        table = operator_table(graph)
        assert target.lacks.isdisjoint(table)
        assert not [op for op in table if op.startswith("Scatter")]
        for output, value in run_once(graph, traced["feeds"]).items():
            old = traced["outputs"][output]
            scale = np.abs(old).max() if old.dtype.kind == "f" else 1
            np.testing.assert_allclose(value, old, rtol=0, atol=RELATIVE * scale if old.dtype.kind == "f" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "floor"])
@pytest.mark.parametrize("name", ["trt-8.5", "trt-11"])
def test_so_do_the_graphs_that_it_is_timed_against(traced: dict[str, Any], name: str, kind: str) -> None:
    target, before = get_target(name), traced["graphs"][kind]
    graph, _ = rewrite(before, target)
    assert [str(finding) for finding in lint(graph, target)] == []
    old, new = (run_once(each, traced["feeds"])["logits"] for each in (before, graph))
    np.testing.assert_allclose(new, old, rtol=0, atol=RELATIVE * np.abs(old).max())


@pytest.mark.slow
def test_operators_by_target_are_the_expected_ones(traced: dict[str, Any]) -> None:
    """From one traced graph: what each version adds is used, what it lacks is gone, and nothing else changes."""
    traces = traced["graphs"]["pruned"]
    tables = {name: operator_table(rewrite(traces, get_target(name))[0]) for name in ("trt-8.5", "trt-8.6", "trt-10.3")}
    before = operator_table(traces)
    norms, gelus = before["LayerNormalization"], before["Gelu"]
    old, middle, new = tables.values()
    assert (old.get("LayerNormalization"), old.get("Gelu"), old["Erf"]) == (None, None, gelus)
    assert (middle["LayerNormalization"], middle.get("Gelu"), middle["Erf"]) == (norms, None, gelus)
    assert (new["LayerNormalization"], new["Gelu"], new.get("Erf")) == (norms, gelus, None)
    assert old["Sqrt"] - middle.get("Sqrt", 0) == norms
    assert old["ReduceMean"] - middle.get("ReduceMean", 0) == 2 * norms
    for op in ("Conv", "Softmax", "MatMul", "TopK", "Gather"):
        assert old.get(op) == middle.get(op) == new.get(op)
