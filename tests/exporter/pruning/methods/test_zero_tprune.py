"""Zero-TPrune against a second, plain implementation with loops, and the traps of its description."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import attention_of, budget_for, small_vit
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.budget import parse_budget
from vitrim.exporter.pruning.decisions import Replay
from vitrim.exporter.pruning.methods.evidence import Evidence
from vitrim.exporter.pruning.methods.options import parameters_of
from vitrim.exporter.pruning.methods.page_rank import head_weights, initial_scores, page_rank
from vitrim.exporter.pruning.methods.zero_tprune import ZeroTPrune, importance
from vitrim.exporter.pruning.reference import drop_tokens
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.exporter.runtime.runners import OrtRunner

METHOD = ZeroTPrune()
Parameters, StageOptions = ZeroTPrune.Parameters, ZeroTPrune.StageOptions


def plain_importance(
    a: np.ndarray, alive: list[int], rounds: int, prefix: int, p: ZeroTPrune.Parameters, class_token: bool
) -> dict[int, float]:
    """Section 2.2 to 2.4 of the specification, one token at a time, on the sub-matrix of the survivors."""
    heads, tokens, _ = a.shape
    per_head = []
    for h in range(heads):
        s = dict.fromkeys(alive, 1.0)
        if class_token and p.start == "class_token":
            s[0] = math.sqrt(tokens)
        for _ in range(rounds):
            s = {j: sum(a[h, i, j] * s[i] for i in alive) for j in alive}
        per_head.append({j: s[j] for j in alive if j >= prefix})
    weights = [1.0] * heads
    if p.variance_filter:
        for h in range(heads):
            values = list(per_head[h].values())
            mean = sum(values) / len(values)
            variance = sum((v / mean - 1) ** 2 for v in values) / len(values)
            weights[h] = float(p.variance_filter[0] <= variance <= p.variance_filter[1])
        if not any(weights):
            weights = [1.0] * heads
    patches = [j for j in alive if j >= prefix]
    if p.heads == "mean":
        return {j: sum(w * s[j] for w, s in zip(weights, per_head, strict=True)) / sum(weights) for j in patches}
    return {
        j: math.sqrt(sum(w * s[j] ** 2 for w, s in zip(weights, per_head, strict=True)) / sum(weights)) for j in patches
    }


def plain_select(
    a: np.ndarray,
    k: np.ndarray,
    keep: int,
    o: ZeroTPrune.StageOptions,
    p: ZeroTPrune.Parameters,
    prefix: int,
    class_token: bool,
) -> tuple[list[int], dict[int, int]]:
    """I' -> S -> I with Python lists: what stays, and which of it is handed the size of what went in S."""
    tokens = a.shape[-1]
    alive = list(range(tokens))
    mean_keys, gone = k.mean(axis=0), list[int]()

    def cosine(i: int, j: int) -> float:
        return float(mean_keys[i] @ mean_keys[j] / np.linalg.norm(mean_keys[i]) / np.linalg.norm(mean_keys[j]))

    if o.similar:
        rough = plain_importance(a, alive, 1, prefix, p, class_token)
        rank = sorted(rough, key=lambda j: -rough[j])
        half = len(rank) // 2
        better, worse = rank[:half], rank[half:]
        cost = {i: (1 - max(cosine(i, j) for j in better)) * rough[i] ** p.exponent for i in worse}
        gone = sorted(worse, key=lambda i: cost[i])[: o.similar]
        alive = [j for j in alive if j not in gone]
    final = plain_importance(a, alive, o.iterations, prefix, p, class_token)
    kept = sorted(final, key=lambda j: -final[j])[: keep - prefix]
    target = {i: max(kept, key=lambda j: cosine(i, j)) for i in gone} if p.hand_over else {}
    return list(range(prefix)) + sorted(kept), target


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    heads=st.integers(1, 4),
    patches=st.integers(4, 14),
    prefix=st.integers(0, 3),
    start=st.sampled_from(["class_token", "uniform"]),
    combine=st.sampled_from(["rms", "mean"]),
    vhf=st.sampled_from([(0.01, 0.7), None, (0.2, 0.5)]),
    exponent=st.sampled_from([0.0, 0.5, 1.0]),
    hand_over=st.booleans(),
    iterations=st.integers(1, 6),
    compares=st.booleans(),
    data=st.data(),
)
def test_equals_the_plain_implementation(
    seed: int,
    heads: int,
    patches: int,
    prefix: int,
    start: str,
    combine: str,
    vhf: object,
    exponent: float,
    hand_over: bool,
    iterations: int,
    compares: bool,
    data: st.DataObject,
) -> None:
    kept_patches = data.draw(st.integers(1, patches))
    similar = data.draw(st.integers(0, min(patches - patches // 2, patches - kept_patches)))
    tokens = patches + prefix
    attention = attention_of(seed, 2, heads, tokens)
    keys = torch.randn(2, heads, tokens, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    beyond = {"exponent": exponent, "hand_over": hand_over}
    parameters = Parameters.model_validate({"start": start, "heads": combine, "variance_filter": vhf, **beyond})
    options = StageOptions(similar=similar, iterations=iterations)
    evidence = Evidence(attention, keys, keys, prefix, prefix > 0, compares=compares)
    selection = METHOD.select(evidence, kept_patches + prefix, options, parameters)
    assert selection.kept is not None
    for image in range(2):
        expected, targets = plain_select(
            attention[image].numpy(),
            keys[image].numpy(),
            kept_patches + prefix,
            options,
            parameters,
            prefix,
            prefix > 0,
        )
        found = selection.kept[image].tolist()
        assert (found[:prefix], sorted(found)) == (list(range(prefix)), expected)
        if selection.merge is None:
            assert targets == {}
        else:
            assert selection.merge.rule == "count"
            to = selection.kept[image].gather(0, selection.merge.target[image])
            assert dict(zip(selection.merge.source[image].tolist(), to.tolist(), strict=True)) == targets


def test_a_near_duplicate_hands_over_its_size_and_nothing_else() -> None:
    model = small_vit()
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    budget = budget_for(model, {1: 12}, similar=5)
    silent = budget_for(model, {1: 12}, parameters={"hand_over": False}, similar=5)
    pruned = PrunedViT(model, budget)
    with torch.inference_mode():
        trace_of = pruned.trace(image, tokens=True)
        alone = PrunedViT(model, silent).trace(image, tokens=True)
    assert trace_of.merged[1].shape == (2, 5)
    assert trace_of.kept[1].tolist() == alone.kept[1].tolist()
    assert torch.equal(trace_of.tokens[1], alone.tokens[1])  # only sizes differ so far, which no token shows
    assert float((trace_of.tokens[2] - alone.tokens[2]).abs().max()) > 1e-4
    expected = drop_tokens(model, budget, image, trace_of.kept, trace_of.merged)
    assert trace_of.logits is not None
    torch.testing.assert_close(trace_of.logits, expected, atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        again = pruned.trace(image, Replay(trace_of.kept, trace_of.merged))
    torch.testing.assert_close(again.logits, trace_of.logits, atol=1e-6, rtol=1e-6)


def test_budgets_of_the_first_format_are_the_paper_s() -> None:
    rows = budget_for(small_vit(), {1: 12}, similar=5).model_dump(mode="json")
    for form, beyond in (("vitrim-budget/1", (0.0, False)), ("vitrim-budget/3", (1.0, True))):
        parameters = parameters_of(parse_budget(rows | {"format": form}))
        assert isinstance(parameters, Parameters)
        assert (parameters.exponent, parameters.hand_over) == beyond


def test_all_heads_count_where_none_passes() -> None:
    scores = page_rank(attention_of(5), initial_scores(17, False, torch.ones(1, dtype=torch.float64)), 1)
    weights, _ = head_weights(scores, 0, 17, (100.0, 200.0))
    assert weights.flatten().unique().shape == (1,)
    start = initial_scores(17, False, torch.ones(1, dtype=torch.float64))
    nobody, _ = importance(attention_of(5), start, 1, 1, Parameters(variance_filter=(100.0, 200.0)))
    everybody, _ = importance(attention_of(5), start, 1, 1, Parameters(variance_filter=None))
    torch.testing.assert_close(nobody, everybody)


def test_eir_favours_a_patch_that_one_head_finds_important() -> None:
    attention = torch.full((1, 2, 4, 4), 0.25, dtype=torch.float64)
    attention[0, 0] = torch.tensor([0.1, 0.7, 0.1, 0.1])  # head 0: patch 1 is very important
    attention[0, 1] = torch.tensor([0.1, 0.1, 0.4, 0.4])  # head 1 spreads; means tie patch 1 with nobody
    start = initial_scores(4, False, attention)
    for heads, expected in (("rms", (0.7**2 + 0.1**2) / 2), ("mean", 0.4)):
        parameters = Parameters.model_validate({"heads": heads, "variance_filter": None})
        value = importance(attention, start, 1, 0, parameters)[0][0, 1] / 4
        assert float(value) == pytest.approx(math.sqrt(expected) if heads == "rms" else expected)


def test_scores_report_heads_and_similarity() -> None:
    attention = attention_of(6, batch=2)
    keys = torch.randn(2, 3, 17, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    result = METHOD.score(Evidence(attention, keys, keys, 1, True), Parameters())
    assert result.importance.shape == (2, 16)
    assert float(result.importance.min()) > 0
    assert result.notes["heads_kept"].shape == (2,)
    assert -1 <= float(result.notes["similarity"].min()) <= float(result.notes["similarity"].max()) <= 1


def test_near_ties_are_reported_as_a_small_gap() -> None:
    attention = torch.full((1, 1, 5, 5), 0.2, dtype=torch.float64)
    keys = torch.ones(1, 1, 5, 3, dtype=torch.float64)
    selection = METHOD.select(
        Evidence(attention, keys, keys, 1, True), 3, StageOptions(), Parameters(variance_filter=None)
    )
    assert selection.gap is not None
    assert float(selection.gap[0]) < 1e-12


def test_a_stage_that_similarity_cannot_fill_is_refused() -> None:
    METHOD.check_stage(17, 9, 1, StageOptions(similar=8), Parameters(), "blocks[2]")
    with pytest.raises(InputError, match=r"blocks\[2\]\.similar is 9.*at most 8"):
        METHOD.check_stage(17, 3, 1, StageOptions(similar=9), Parameters(), "blocks[2]")
    with pytest.raises(InputError, match="removes 2 of 16 patches.*at most 2"):
        METHOD.check_stage(17, 15, 1, StageOptions(similar=3), Parameters(), "blocks[2]")


@pytest.mark.slow
def test_a_graph_for_tensorrt_ranks_by_comparison_and_leaves_the_attention_alone() -> None:
    model = small_vit()
    image = np.random.default_rng(1).standard_normal((2, 3, 64, 64), dtype=np.float32)
    budget = budget_for(model, {1: 12, 2: 7}, similar=2)
    pruned = PrunedViT(model, budget, ("logits", "kept"), compares=True)
    graph, _ = rewrite(trace(pruned, 2), get_target("trt-8.5"), {"image": image}, precision="fp16")
    nodes = graph.graph.node
    readers = [
        {reader.op_type for reader in nodes if node.output[0] in reader.input}
        for node in nodes
        if node.op_type == "Softmax"
    ]
    assert readers.count({"Mul"}) == 2  # a matrix for the scores of each stage
    assert all(kinds == {"Mul"} or "Mul" not in kinds for kinds in readers)
    assert sum(node.op_type == "TopK" for node in nodes) == 2 * 3  # what stays, its order when told, what goes
    outputs = OrtRunner(graph.SerializeToString())(image)
    with torch.inference_mode():
        expected = PrunedViT(model, budget).trace(torch.from_numpy(image))
    assert expected.logits is not None
    np.testing.assert_allclose(outputs["logits"], expected.logits.numpy(), atol=1e-5)
    for block in (1, 2):
        assert outputs[f"kept_{block}"].tolist() == expected.kept[block].tolist()
