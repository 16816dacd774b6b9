"""What a budget says to its method: keys, values, and stages that a method cannot fill."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import make_rows

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.budget import Budget, parse_budget
from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.methods.options import check_budget, parse_parameters, parse_stage


def budget(method: str, stages: dict[int, int], parameters: Any = None, **options: Any) -> Budget:
    rows = make_rows(4, 17, stages, **options)
    return parse_budget(
        {"model": "m", "method": method, "parameters": parameters or {}, "prefix_tokens": 1, "blocks": rows}
    )


def test_parameters_are_typed_and_have_their_defaults() -> None:
    found = parse_parameters(get_method("frugal"), {"exponent": 2})
    assert found.model_dump() == get_method("frugal").Parameters().model_dump() | {"exponent": 2.0}
    assert found.exponent == 2.0
    stage = parse_stage(get_method("random"), budget("random", {1: 9}, seed=5).blocks[1])
    assert stage.model_dump() == {"seed": 5}


@pytest.mark.parametrize(
    ("method", "data", "said"),
    [
        ("evit", {"fuze": True}, "parameters.fuze is not a known key (known keys: place, fuse)"),
        ("frugal", {"exponent": 5}, "parameters.exponent is 5"),
        ("frugal", {"exponent": "much"}, "parameters.exponent is 'much'"),
        ("slice", {"place": "somewhere"}, "parameters.place is 'somewhere'"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(method: str, data: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_parameters(get_method(method), data)
    assert str(caught.value).startswith(said)
    known = ", ".join(get_method(method).Parameters.model_fields)
    assert str(caught.value).endswith(f"(known keys: {known})")


def test_parameters_are_named_where_they_stand() -> None:
    with pytest.raises(InputError, match=r"^prune\.parameters\.seed is not a known key \(known keys: place\)$"):
        parse_parameters(get_method("random"), {"seed": 1}, "prune.parameters")


def test_a_row_s_key_is_named_with_its_block() -> None:
    with pytest.raises(InputError) as caught:
        check_budget(get_method("slice"), budget("slice", {2: 9}, seed=1))
    assert str(caught.value) == "blocks[2].seed is not a known key (known keys: none)"
    with pytest.raises(InputError, match=r"^blocks\[2\]\.seed is -1"):
        check_budget(get_method("random"), budget("random", {2: 9}, seed=-1))


def test_a_stage_that_the_method_cannot_fill_is_named() -> None:
    check_budget(get_method("tome"), budget("tome", {1: 9}))
    with pytest.raises(InputError, match=r"^blocks\[1\] removes 9 of 17 tokens, .* of tome removes at most 8"):
        check_budget(get_method("tome"), budget("tome", {1: 8}))
    with pytest.raises(InputError, match=r"^blocks\[2\] keeps 1 patch; with parameters\.fuse"):
        check_budget(get_method("evit"), budget("evit", {1: 9, 2: 2}, {"fuse": True}))


def test_where_no_patch_stays_nothing_is_chosen_and_nothing_refused() -> None:
    check_budget(get_method("evit"), budget("evit", {3: 1}, {"fuse": True}))
    check_budget(get_method("tome"), budget("tome", {3: 1}))
