"""The shipped graph is the part of the proof graph that answers."""

from __future__ import annotations

import numpy as np
import onnx
from small_graphs import chooser, doubler

from vitrim.exporter.graph.decisions import tells_decisions, without_decisions
from vitrim.exporter.runtime.runners import OrtRunner


def test_nodes_that_only_tell_decisions_go() -> None:
    proof = chooser()
    before = proof.SerializeToString()
    shipped, report = without_decisions(proof)
    onnx.checker.check_model(shipped, full_check=True)
    assert [tells_decisions(model) for model in (proof, shipped)] == [True, False]
    assert [node.name for node in shipped.graph.node] == ["/head"]
    assert [tensor.name for tensor in shipped.graph.initializer] == ["w"]
    assert [value.name for value in (*shipped.graph.output, *shipped.graph.value_info)] == ["logits"]
    assert (report.count, report.nodes, report.name) == (1, (2, 1), "decision outputs left out")
    assert proof.SerializeToString() == before
    image = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    ours, theirs = (OrtRunner(model.SerializeToString())(image)["logits"] for model in (proof, shipped))
    np.testing.assert_array_equal(ours, theirs)


def test_a_graph_that_tells_none_stays_as_it_is() -> None:
    model = onnx.load_from_string(doubler())
    shipped, report = without_decisions(model)
    assert shipped == model
    assert (report.count, report.nodes) == (0, (1, 1))
