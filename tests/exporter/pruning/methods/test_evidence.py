"""What a stage may look at, and what is said where a method looks at more than it declares."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import make_evidence

from vitrim.exporter.pruning.methods import METHODS, get_method
from vitrim.exporter.pruning.methods.base import Method


def test_an_unread_attention_is_explained() -> None:
    unread = make_evidence(0, 2, 6, 1)
    unread = replace(unread, attention=None)
    with pytest.raises(ValueError, match="so its class must say reads = 'first' or 'all'"):
        get_method("evit").select(unread, 4, Method.StageOptions(), get_method("evit").Parameters())


@pytest.mark.parametrize("name", METHODS)
def test_what_methods_say_they_read_is_what_they_read(name: str) -> None:
    """With less attention than a method asks for it fails; with just that it decides as with all of it."""
    method, whole = get_method(name), make_evidence(5, 3, 12, 1)
    whole = replace(whole, tokens=whole.keys[:, 0] if method.reads_tokens else None)
    assert whole.attention is not None
    given = {"none": None, "first": whole.attention[:, :, :1], "all": whole.attention}
    arguments = (9, method.StageOptions(), method.Parameters())
    expected = method.select(whole, *arguments).kept
    found = method.select(replace(whole, attention=given[method.reads]), *arguments).kept
    assert (found is None and expected is None) or torch.equal(found, expected)
    if method.reads != "none":
        with pytest.raises(ValueError, match="must say reads"):
            method.select(replace(whole, attention=None), *arguments)
    if method.reads_tokens:
        with pytest.raises(ValueError, match="must say reads_tokens"):
            method.select(replace(whole, tokens=None), *arguments)


def test_a_row_is_the_class_token_s_or_what_all_pay_on_average() -> None:
    evidence = make_evidence(1, 2, 6, 1)
    assert evidence.attention is not None
    assert torch.equal(evidence.row, evidence.attention[:, :, 0])
    assert torch.equal(replace(evidence, class_token=False).row, evidence.attention.mean(2))
    torch.testing.assert_close(evidence.attended, evidence.attention[:, :, 0].sum(1))


def test_lengths_are_of_all_heads_together_however_they_are_known() -> None:
    evidence = make_evidence(2, 2, 6, 1)
    expected = evidence.values.square().sum(dim=(1, 3)).sqrt()
    torch.testing.assert_close(evidence.lengths, expected)
    torch.testing.assert_close(replace(evidence, squares=expected.square()).lengths, expected)
    torch.testing.assert_close(evidence.significance, evidence.attended * expected)
