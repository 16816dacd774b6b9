"""Blocks, stages and readers of probabilities, found in networks: small ones made here, and real parsed ones."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import budget_for, small_vit

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.core.wiring import Probabilities, Wiring
from vitrim.exporter.runtime.tensorrt.family import RTX
from vitrim.exporter.runtime.tensorrt.versions import builder_missing, listen
from vitrim.exporter.runtime.tensorrt.wiring import read_wiring

TOKENS, SQUARE = (1, 9, 16), (1, 2, 9, 9)


class Network:
    """A parsed network with layers by name, in order; each has one output, named like it."""

    def __init__(self) -> None:
        self.layers: list[Any] = []
        self.shapes: dict[str, tuple[int, ...]] = {"image": TOKENS}

    num_layers = property(lambda self: len(self.layers))

    def get_layer(self, index: int) -> Any:
        return self.layers[index]

    def add(self, name: str, kind: str, *inputs: str, shape: tuple[int, ...] = TOKENS, metadata: str = "") -> str:
        taken = [SimpleNamespace(name=one, shape=self.shapes[one]) for one in inputs]
        made = SimpleNamespace(name=name, shape=shape)
        self.shapes[name] = shape
        layer = SimpleNamespace(name=name, type=f"LayerType.{kind}", num_inputs=len(taken), num_outputs=1)
        layer.metadata = metadata
        layer.get_input, layer.get_output = taken.__getitem__, lambda number: made
        self.layers.append(layer)
        return name

    def weigh(self, name: str, x: str) -> str:
        """A product with a weight."""
        self.add(f"{name}.w", "CONSTANT", shape=(16, 16))
        return self.add(name, "MATRIX_MULTIPLY", x, f"{name}.w")

    def attend(self, name: str, x: str, sizes: str = "") -> str:
        """An attention with its norm and its skip; tokens count by their sizes, where there are some."""
        normed = self.add(f"{name}.norm", "NORMALIZATION", x)
        q, k, v = (self.weigh(f"{name}.{part}", normed) for part in "qkv")
        scores = self.add(f"{name}.scores", "MATRIX_MULTIPLY", q, k, shape=SQUARE)
        if sizes:
            logs = self.add(f"{name}.logs", "SHUFFLE", self.add(f"{name}.log", "UNARY", sizes), shape=(1, 1, 1, 9))
            scores = self.add(f"{name}.by_size", "ELEMENTWISE", scores, logs, shape=SQUARE)
        chances = self.add(f"{name}.softmax", "SOFTMAX", scores, shape=SQUARE)
        cast = self.add(f"{name}.cast", "CAST", chances, shape=SQUARE)
        out = self.weigh(f"{name}.proj", self.add(f"{name}.values", "MATRIX_MULTIPLY", cast, v))
        return self.add(f"{name}.add", "ELEMENTWISE", x, out)

    def mlp(self, name: str, x: str) -> str:
        """An MLP with its norm and its skip."""
        inside = self.weigh(f"{name}.fc1", self.add(f"{name}.norm", "NORMALIZATION", x))
        return self.add(f"{name}.add", "ELEMENTWISE", self.weigh(f"{name}.fc2", inside), x)


def pruned() -> Network:
    """Two blocks, tokens dropped in the first by what reads its probabilities, the class token alone in the last."""
    network = Network()
    x = network.attend("a0", network.add("embed", "CONVOLUTION", "image"))
    scores = network.add("rank", "REDUCE", "a0.softmax", shape=(1, 9))
    x = network.mlp("m0", network.add("gather", "GATHER", x, network.add("topk", "TOPK", scores, shape=(1, 5))))
    x = network.attend("a1", x)
    x = network.mlp("m1", network.add("first", "SLICE", x))
    network.weigh("classes", network.add("last", "NORMALIZATION", x))
    return network


def test_nodes_belong_to_blocks_stages_and_the_ends() -> None:
    parts = read_wiring(pruned()).parts
    assert {name: part for name, part in parts.items() if name[0] not in "am"} == {
        "embed": "embedding",
        "rank": "stage 0",
        "topk": "stage 0",
        "gather": "stage 0",
        "first": "stage 1",
        "last": "head",
        "classes": "head",
    }
    assert {part for name, part in parts.items() if name.startswith(("a0", "m0"))} == {"block 0"}
    assert {part for name, part in parts.items() if name.startswith(("a1", "m1"))} == {"block 1"}
    assert "a0.q.w" not in parts


def test_probabilities_are_read_by_the_values_and_by_whoever_else() -> None:
    found = read_wiring(pruned())
    assert found.softmaxes == {
        "a0.softmax": Probabilities("a0.values", ("rank",)),
        "a1.softmax": Probabilities("a1.values", ()),
    }
    assert {"embed", "a0.scores", "m1.fc2", "classes"} <= found.products
    assert len(found.products) == 2 + 2 * 8


def test_a_row_of_probabilities_beside_an_attention_weighs_no_values() -> None:
    network = Network()
    q = network.weigh("q", "image")
    network.add("row", "SOFTMAX", network.add("scores", "MATRIX_MULTIPLY", q, "image"))
    network.add("mean", "REDUCE", "row")
    network.weigh("after", "row")  # constants are no values
    assert read_wiring(network).softmaxes == {"row": Probabilities(None, ("mean", "after"))}


def test_a_bias_that_two_blocks_share_is_no_skip() -> None:
    network = Network()
    bias = network.add("bias", "UNARY", "image", shape=(1, 1, 1, 9))
    x = network.attend("a0", network.add("embed", "CONVOLUTION", "image"))
    scored = network.add("biased", "ELEMENTWISE", network.weigh("w0", x), bias)
    later = network.weigh("w1", network.add("s", "SOFTMAX", scored))
    network.add("again", "ELEMENTWISE", later, bias)  # `bias` is before both, as a residual stream is
    assert set(read_wiring(network).parts.values()) == {"block 0", "head", "embedding"}


def test_sizes_that_a_later_stage_adds_to_are_no_skip_around_the_blocks_between() -> None:
    network = Network()
    x = network.attend("a0", network.add("embed", "CONVOLUTION", "image"))
    sizes = network.add("sizes0", "REDUCE", "a0.softmax", shape=(1, 9))
    for block in (1, 2):
        x = network.attend(f"a{block}", network.mlp(f"m{block - 1}", x), sizes)
    heirs = network.add("heirs", "TOPK", network.add("alike", "MATRIX_MULTIPLY", "a2.q", "a2.k", shape=SQUARE))
    more = network.add("more", "REDUCE", network.add("into", "ELEMENTWISE", heirs, sizes), shape=(1, 9))
    grown = network.add("sizes2", "ELEMENTWISE", network.add("stay", "GATHER", sizes, heirs, shape=(1, 9)), more)
    network.mlp("m3", network.attend("a3", network.mlp("m2", x), grown))
    parts = read_wiring(network).parts
    assert {name: parts[name] for name in ("sizes0", "alike", "heirs", "into", "more", "sizes2")} == {
        "sizes0": "stage 0",
        **dict.fromkeys(("alike", "heirs", "into", "more", "sizes2"), "stage 2"),
    }
    assert [{parts[f"a{block}.softmax"], parts[f"m{block}.fc1"]} for block in range(4)] == [
        {f"block {block}"} for block in range(4)
    ]


def test_layers_are_named_after_their_onnx_nodes_and_helpers_after_none() -> None:
    network = Network()
    network.add("ONNXTRT_Broadcast_3", "SHUFFLE", "image")
    network.add("node_7", "MATRIX_MULTIPLY", "image", "ONNXTRT_Broadcast_3", metadata="[ONNX Layer: node]")
    network.add("mlp", "MATRIX_MULTIPLY", "node_7", "image")  # 8.5 has no metadata
    assert read_wiring(network) == Wiring(products=frozenset({"node", "mlp"}))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "options"), [("evit", {}), ("zero_tprune", {"similar": 3})])
def test_a_real_network_is_seen_through(method: str, options: dict[str, int], tmp_path: Path) -> None:
    """Weights of a random model's norms are one tensor, so names say nothing of blocks; the structure does."""
    reason = builder_missing(RTX)
    if reason:
        pytest.skip(reason)
    from vitrim.exporter.graph.files import save
    from vitrim.exporter.graph.passes.rewrite import rewrite
    from vitrim.exporter.graph.trace import trace
    from vitrim.exporter.pruning.vit import PrunedViT

    vit = small_vit()
    pruned = PrunedViT(vit, budget_for(vit, {0: 11, 2: 7}, method, **options), compares=True)
    model, _ = rewrite(trace(pruned, 1), get_target("trt-rtx"))
    save(model, tmp_path / "m.onnx")
    trt = RTX.import_module()
    messages = listen(trt)
    network = trt.Builder(messages).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, messages)
    assert parser.parse_from_file(str(tmp_path / "m.onnx"))
    found = read_wiring(network)
    ops = {node.name: node.op_type for node in model.graph.node}
    assert {node for node, op in ops.items() if op in ("MatMul", "Gemm", "Conv")} == found.products
    assert {found.parts[node] for node, op in ops.items() if op == "TopK"} == {"stage 0", "stage 2"}
    by_part = {
        part: [node for node in found.products if found.parts[node] == part] for part in set(found.parts.values())
    }
    assert [len(by_part[f"block {number}"]) for number in range(4)] == [6, 6, 6, 6]
    assert [len(by_part[part]) for part in ("embedding", "head")] == [1, 1]
    readers = [found.softmaxes[node] for node, op in ops.items() if op == "Softmax"]
    assert sum(read.values is not None for read in readers) == 4
    assert sum(bool(read.others) for read in readers) == 2
