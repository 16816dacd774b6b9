"""The block of every node, in graphs of models whose tokens go early, between attention and MLP, and behind a block."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import budget_for
from small_graphs import doubler

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.blocks import blocks_of
from vitrim.exporter.graph.files import save
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.whole import deployable

# By method: products with weights that a block of a stage has, which projects keys and queries apart where tokens go
# before they ask.
METHODS = {"evit": 6, "zero_tprune": 4}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_block_has_its_products_and_its_stage(method: str, vit: Any, tmp_path: Path) -> None:
    budget = budget_for(vit, {0: 11, 2: 7}, method)
    if method == "zero_tprune":
        budget = budget.model_copy(update={"parameters": budget.parameters | {"place": "after_block"}})
        assert budget.behind_blocks == {0, 2}
    traced = trace(deployable(vit, budget, ("logits",)), 1)
    model, _ = rewrite(traced, get_target("ort-cpu"), fused_attention=method == "evit")
    save(model, tmp_path / "m.onnx")
    parts = blocks_of(tmp_path / "m.onnx", budget.behind_blocks)
    assert set(parts.values()) == {"embedding", *(f"block {at}" for at in range(4)), "head"}
    weights = {one.name for one in model.graph.initializer if len(one.dims) >= 2 and min(one.dims[-2:]) >= 8}
    weighed = Counter(
        parts[node.name] for node in model.graph.node if node.op_type == "MatMul" and weights & set(node.input)
    )
    staged = METHODS[method]
    # The last block is asked for the class token alone, so its keys are projected apart.
    assert [weighed[f"block {at}"] for at in range(4)] == [staged, 4, staged, 5]
    assert {parts[node.name] for node in model.graph.node if node.op_type == "TopK"} == {"block 0", "block 2"}


def test_a_graph_without_blocks_has_none(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(doubler())
    assert blocks_of(tmp_path / "m.onnx") == {}
    with pytest.raises(InputError, match=r"n\.onnx"):
        blocks_of(tmp_path / "n.onnx")
