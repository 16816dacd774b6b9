"""The list of passes: each once, each with a name, and in an order that the passes themselves ask for."""

from __future__ import annotations

from vitrim.exporter.graph.passes.base import Pass, PatternPass
from vitrim.exporter.graph.passes.table import PASSES


def test_every_pass_has_a_name_of_its_own() -> None:
    names = [each.name for each in PASSES]
    assert len(names) == len(set(names)) == 27
    assert all(isinstance(each, Pass) for each in PASSES)


def test_the_order() -> None:
    place = {each.name: index for index, each in enumerate(PASSES)}
    assert place["constants folded"] == 0  # what the patterns match is constant by then
    assert place["gather without expanded indices"] < place["prefix tokens inside the index"]
    assert place["qkv split once"] < place["one scale per attention"] < place["fused Attention"]
    assert (
        place["one scale per attention"]
        < place["scores read a matrix of their own"]
        < place["one-row products as sums"]
    )
    assert place["qkv split once"] < place["qkv split by heads"]
    assert place["fused Attention"] < place["mean before the transpose"]
    assert place["first extreme by comparing"] < place["positions compared as floats"]  # which reads its places
    last = [each.name for each in PASSES[-3:]]
    refusal, opset = "no scatter, and nothing that the target lacks", "opset at most the target's"
    assert last == ["constants folded again", refusal, opset]


def test_patterns_say_where_they_begin() -> None:
    patterns = [each for each in PASSES if isinstance(each, PatternPass)]
    assert len(patterns) == 23
    assert all(each.roots for each in patterns)
