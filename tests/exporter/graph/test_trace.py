"""torch to ONNX: the caller's module stays as it was, no weight is copied, and a folder gets the same graph."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers import budget_for, small_vit
from onnx import numpy_helper

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.graph.files import read_bare, read_whole
from vitrim.exporter.graph.store import WeightStore
from vitrim.exporter.graph.trace import OPSET, sharing_copy, trace, trace_into
from vitrim.exporter.graph.weights import is_external
from vitrim.exporter.pruning.whole import deployable

METADATA = {"kind": "pruned"}


@pytest.fixture(scope="module")
def vit() -> Any:
    return small_vit(depth=2, embed_dim=192)


def pruned(vit: Any, *outputs: str) -> Any:
    return deployable(vit, budget_for(vit, {0: 12, 1: 8}), outputs or ("logits", "kept"))


@pytest.fixture(scope="module")
def whole(vit: Any) -> onnx.ModelProto:
    return trace(pruned(vit), 1, METADATA)


@pytest.mark.slow
def test_a_graph_says_what_it_takes_and_gives(vit: Any) -> None:
    model = trace(pruned(vit), 2, {"kind": "pruned", "recipe": {"b": 1, "a": [2]}})
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == [
        "image",
        "logits",
        "kept_0",
        "kept_1",
    ]
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [2, 3, 64, 64]
    assert model.opset_import[0].version == OPSET
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told == {"vitrim.kind": "pruned", "vitrim.recipe": '{"a": [2], "b": 1}'}
    notes = [node.doc_string or node.metadata_props for node in model.graph.node]
    assert not any(notes)
    assert str(Path(__file__).parents[3]).encode() not in model.SerializeToString()


def test_the_caller_s_module_stays_as_it_was(vit: Any) -> None:
    module, seen = pruned(vit).train(), []
    handle = module.register_forward_hook(lambda *_: seen.append(1))
    parameters = dict(module.named_parameters())
    next(iter(parameters.values())).requires_grad_(False)
    before = {name: (value.data_ptr(), value._version, value.requires_grad) for name, value in parameters.items()}
    modes = [part.training for part in module.modules()]
    hooks = [len(part._forward_hooks) for part in module.modules()]
    trace(module, 1)
    after = {n: (v.data_ptr(), v._version, v.requires_grad) for n, v in module.named_parameters()}
    assert after == before
    assert [part.training for part in module.modules()] == modes
    assert any(modes)
    assert [len(part._forward_hooks) for part in module.modules()] == hooks
    assert all(value.grad is None for value in parameters.values())
    handle.remove()
    module.eval()
    next(iter(parameters.values())).requires_grad_(True)


def test_the_copy_that_is_exported_shares_every_tensor(vit: Any) -> None:
    module = pruned(vit).eval()
    copied = sharing_copy(module)
    assert copied is not module
    for (name, old), (_, new) in zip(module.state_dict().items(), copied.state_dict().items(), strict=True):
        assert old.data_ptr() == new.data_ptr(), name
    copied.train()
    assert not module.training


@pytest.mark.slow
def test_a_folder_gets_the_same_graph_and_its_weights_once(vit: Any, whole: onnx.ModelProto, tmp_path: Path) -> None:
    with WeightStore(tmp_path) as store:
        trace_into(store, "pruned.onnx", pruned(vit), 1, METADATA)
        trace_into(store, "dense.onnx", deployable(vit, None, ("logits",)), 1)
    assert read_whole(tmp_path / "pruned.onnx").SerializeToString() == whole.SerializeToString()
    (data,) = tmp_path.glob("*.data")
    bare, _ = read_bare(tmp_path / "pruned.onnx")
    outside = [tensor for tensor in bare.graph.initializer if is_external(tensor)]
    size = sum(4 * int(np.prod(tensor.dims)) for tensor in outside)
    assert len(outside) == 2 * 4 + 1  # four products per block and the patch embedding; the others are small
    last = 4 * 3 * 192 * 192  # of the dense graph's last block queries stand apart, the pruned one's is a stage
    assert size + last <= data.stat().st_size < size + last + 4096 * (len(outside) + 2)  # nothing else is new


@pytest.mark.slow
def test_graphs_do_not_depend_on_earlier_ones(vit: Any, whole: onnx.ModelProto) -> None:
    trace(deployable(vit, None, ("logits",)), 2)
    assert trace(pruned(vit), 1, METADATA).SerializeToString() == whole.SerializeToString()


def test_weights_are_those_of_the_module(vit: Any) -> None:
    model = trace(deployable(vit, None, ("logits",)), 1)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(held["model.patch_embed.proj.weight"], vit.patch_embed.proj.weight.detach().numpy())


class Stubborn(torch.nn.Module):
    """A module that no exporter takes: what it does depends on data."""

    name, image_size = "stubborn", (3, 8, 8)

    def output_names(self) -> list[str]:
        return ["logits"]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image if image.sum() > 0 else -image


def test_a_module_that_cannot_be_exported_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"^PyTorch \S+ cannot export stubborn: [^\n]*$"):
        trace(Stubborn(), 1)
    with pytest.raises(UnsupportedError, match="cannot export stubborn"), WeightStore(tmp_path) as store:
        trace_into(store, "m.onnx", Stubborn(), 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threshold", [0, 700, 500_000])
def test_the_collector_is_as_it_was(threshold: int, vit: Any, monkeypatch: Any) -> None:
    before, seen = gc.get_threshold(), []

    def fails(*_: Any, **__: Any) -> None:
        seen.append(gc.get_threshold()[0])
        raise RuntimeError("no")

    monkeypatch.setattr(torch.onnx, "export", fails)
    try:
        gc.set_threshold(threshold, 11, 12)
        with pytest.raises(UnsupportedError, match="no"):
            trace(pruned(vit), 1)
        assert gc.get_threshold()[:2] == (threshold, 11)
    finally:
        gc.set_threshold(*before)
    assert seen == [{0: 0, 700: 100_000, 500_000: 500_000}[threshold]]
