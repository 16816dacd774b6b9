"""One export of the small model, for every test that looks at what stages and bundles hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import small_recipe

from vitrim import api
from vitrim.recipes.listener import Silence
from vitrim.recipes.pipeline.cache import cache_of
from vitrim.recipes.pipeline.run import do_all, open_run
from vitrim.recipes.pipeline.walk import Run
from vitrim.recipes.schema.load import recipe_from


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The small recipe's bundle, and what its export returned."""
    out = tmp_path_factory.mktemp("run") / "out"
    return out, api.export(small_recipe(), out)


@pytest.fixture(scope="session")
def walked(made: tuple[Path, Any]) -> Run:
    """The run behind that bundle, all its stages found in the cache."""
    run = open_run(recipe_from(small_recipe()), cache_of(made[0]), Silence())
    do_all(run)
    assert not run.made
    return run
