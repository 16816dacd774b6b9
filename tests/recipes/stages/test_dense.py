"""The dense model's graph: what timm's own forward gives, whatever plan it will stand beside."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import small_recipe

from vitrim.exporter.runtime.runners import OrtRunner
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.schema.sections.outputs import ExportSection
from vitrim.recipes.stages.dense import Dense
from vitrim.recipes.stages.stage import stage_key


def key_of(**sections: Any) -> str:
    return stage_key(Dense, recipe_from(small_recipe(**sections)), {"dense": "a"}, {}, {})


def test_its_key_knows_that_tokens_go_and_not_which() -> None:
    first = key_of()
    assert key_of(prune={"target": {"flops_ratio": 0.5}}) == key_of(prune={"method": "evit"}) == first
    narrow = {"slim": {"target": {"flops_ratio": 0.8}}}
    assert key_of(**narrow) == first
    others = ({**narrow, "prune": None}, {"export": {"batch": 2}}, {"export": {"tokens": "left"}})
    assert len({first, *(key_of(**sections) for sections in others)}) == 4


@pytest.mark.slow
@pytest.mark.parametrize("prunes", [True, False])
def test_it_computes_what_timm_does(tmp_path: Path, vit: Any, prunes: bool) -> None:
    section = ExportSection(batch=2, tokens="left")
    view: Any = SimpleNamespace(dense=vit, recipe=SimpleNamespace(export=section, prunes=prunes))
    Dense.make(view, tmp_path)
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    found = OrtRunner(str(tmp_path / "dense.onnx"), threads=1)(images)
    with torch.inference_mode():
        wanted = vit.forward_features(torch.from_numpy(images))
        np.testing.assert_allclose(found["tokens"], wanted.numpy(), atol=1e-4)
        np.testing.assert_allclose(found["logits"], vit.forward_head(wanted).numpy(), atol=1e-4)
