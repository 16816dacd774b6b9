"""This process as a pool: in order, and nothing is begun where there is nothing to do."""

from __future__ import annotations

import pytest
from evaluated_bundles import doubling, refusing

from vitrim.exporter.core.errors import InputError
from vitrim.recipes.pools.pool import InProcess


def test_one_worker_is_this_process_and_begins_nothing_without_items() -> None:
    assert list(InProcess().map(doubling, [3, 1, 2])) == [(3, 6), (1, 2), (2, 4)]
    assert list(InProcess().map(refusing, [])) == []
    with pytest.raises(InputError, match="^there is no work here$"):
        list(InProcess().map(refusing, [1]))
