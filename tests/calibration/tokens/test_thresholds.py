import numpy as np
import pytest
import torch
from helpers import budget_for, small_recipe, small_vit, source_for

from vitrim import api
from vitrim.calibration.images.reading import read_all
from vitrim.calibration.tokens.thresholds import calibrate_thresholds
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.methods.ppt import significance
from vitrim.exporter.pruning.vit import PrunedViT


@pytest.mark.parametrize("quantile", [0.0, 0.25, 0.5, 1.0])
def test_so_many_images_pool_at_every_stage(quantile):
    model = small_vit()
    source = source_for(model, 12)
    budget = budget_for(model, {0: 14, 2: 10, 3: 1}, "ppt")  # the last block keeps the class token only
    found = calibrate_thresholds(model, budget, source, quantile, batch=5)
    assert [set(row.options) for row in found.stages] == [{"threshold"}, {"threshold"}, set()]
    with torch.inference_mode():
        trace = PrunedViT(model, found).trace(torch.from_numpy(read_all(source)))
    for block in (0, 2):
        pooled = (trace.merged[block][:, 0] >= 0).float().mean()
        assert float(pooled) == pytest.approx(quantile, abs=1.5 / 12)
    assert list(found.statistics["variance_quartiles"]) == ["0", "2"]


def test_the_first_threshold_is_the_quantile_of_the_dense_variance():
    model = small_vit()
    source = source_for(model, 8)
    found = calibrate_thresholds(model, budget_for(model, {1: 12, 2: 9}, "ppt"), source, 0.3)
    seen = {}
    pruned = PrunedViT(model, budget_for(model, {1: 12}, "ppt"))
    with torch.inference_mode():
        pruned.trace(torch.from_numpy(read_all(source)), observe=lambda block, e: seen.update({block: significance(e)}))
    expected = np.quantile(seen[1].var(1).numpy(), 0.3)
    assert found.blocks[1].options["threshold"] == pytest.approx(expected, rel=1e-5)


def test_a_recipe_calibrates_and_its_budget_can_be_given_back(tmp_path):
    prune = {"method": "ppt", "parameters": {"quantile": 0.5}, "blocks": [1, 2]}
    budget = api.calibrate(small_recipe(prune=prune), tmp_path / "b.json")
    thresholds = [row.options["threshold"] for row in budget.stages if row.after > 1]
    assert len(set(thresholds)) == len(thresholds) == 2
    assert "variance_quartiles" in budget.statistics
    again = small_recipe() | {"prune": {"budget": str(tmp_path / "b.json")}}
    assert api.calibrate(again, tmp_path / "c.json").blocks == budget.blocks


def test_a_quantile_without_thresholds_is_refused():
    model = small_vit()
    with pytest.raises(InputError, match=r"blocks\[1\] has no threshold, but parameters\.quantile is set"):
        PrunedViT(model, budget_for(model, {1: 12}, "ppt", {"quantile": 0.5}))
