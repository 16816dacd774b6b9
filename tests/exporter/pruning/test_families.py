"""What is known of families: who is meant, and how they are counted."""

from __future__ import annotations

from vitrim.exporter.pruning.families import Answer, Model, choose, family_of, totals

TAKEN, PRUNED, SLIMMED = Answer(None, None, headless=True), Answer(None, "it is a Y"), Answer("it is a Z", None)
NONE = Answer("it is a Z", "it is a Y")
KNOWN = {
    "one": [Model("a_1", True, TAKEN), Model("a_2", False, PRUNED)],
    "two": [Model("b_1", True, SLIMMED), Model("b_2", True, NONE), Model("one_b", False, NONE)],
    "three": [Model("c", False, NONE)],
}


def test_without_a_name_models_with_weights_are_meant() -> None:
    found = {module: [one.name for one in models] for module, models in choose(KNOWN).items()}
    assert found == {"one": ["a_1"], "two": ["b_1", "b_2"]}


def test_a_name_is_a_familys_or_a_models() -> None:
    found = {module: [one.name for one in models] for module, models in choose(KNOWN, "one").items()}
    assert found == {"one": ["a_1", "a_2"], "two": ["one_b"]}
    assert choose(KNOWN, "d") == {}


def test_a_family_says_who_is_taken_and_why_others_are_not() -> None:
    first, second = (family_of(name, KNOWN[name]) for name in ("one", "two"))
    assert (first.models, first.pretrained, first.prunable, first.slimmable) == (2, 1, ("a_1", "a_2"), ("a_1",))
    assert (first.headless, first.refused, first.unslimmable) == (("a_1",), {}, {"it is a Y": 1})
    assert first.example is None
    assert (second.prunable, second.slimmable, second.example) == ((), ("b_1",), "b_2")
    assert (second.refused, second.unslimmable) == ({"it is a Z": 3}, {"it is a Y": 2})


def test_totals_count_a_model_that_is_taken_twice_once() -> None:
    found = totals([family_of(name, models) for name, models in KNOWN.items()])
    assert found == {"models": 6, "pretrained": 3, "prunable": 2, "slimmable": 2, "both": 1, "neither": 3}
