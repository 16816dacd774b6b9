"""Lists as values of options."""

from __future__ import annotations

import click
import pytest

from vitrim.cli import cli
from vitrim.terminal.values import NAMES, NUMBERS


def test_words_and_numbers_stand_between_commas() -> None:
    assert NAMES.convert("tome, ppt,", None, None) == ("tome", "ppt")
    assert NUMBERS.convert("0.5,.7", None, None) == (0.5, 0.7)
    assert NUMBERS.convert((0.5,), None, None) == (0.5,)  # a default


def test_a_list_that_is_none_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="'half' is no list of numbers, such as 0.5,0.65"):
        cli.main(["sweep", "my.yaml", "-o", "s/", "--ratios", "half"], standalone_mode=False)
