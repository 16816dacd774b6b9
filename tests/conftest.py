"""Fixtures that several tests share: small models, budgets, and the real weights and photos where they are."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from warm import COLLECTING, one_table

# PyTorch is imported by those who need it: who hands out the tests to workers does not, and they wait for it.
if "PYTEST_XDIST_WORKER" in os.environ:  # a core for each worker, and for what it starts
    os.environ["OMP_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % len(cores)]})

gc.set_threshold(*COLLECTING)

ROOT = Path(__file__).resolve().parent.parent
WHOLE_EXPORTS = {"made", "walked", "quantized"}  # fixtures that make one


def real_data() -> Path | None:
    """The folder with real weights and photos: $VITRIM_DATA, or `shared/data` beside the checkout."""
    candidates = [os.environ.get("VITRIM_DATA"), ROOT.parent / "shared" / "data"]
    return next((Path(path) for path in candidates if path and Path(path).is_dir()), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes a whole export through a fixture is slow; what is slow comes first, see `in_halves`."""
    for item in items:
        if WHOLE_EXPORTS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    items[:] = in_halves(items)


def pytest_runtest_teardown() -> None:
    """What a test leaves alive, and caches keep for others, is not looked through for garbage again: by now seconds."""
    gc.collect(1)
    gc.freeze()


def in_halves(items: list[pytest.Item]) -> list[pytest.Item]:
    """Tests so that each of two workers, who get half of the list each, begins with half of the slow ones.

    Slow tests of one folder stay together, as they share what it makes. What is fast comes last, so both end together.
    """
    slow: dict[Path, list[pytest.Item]] = {}
    fast = [item for item in items if item.get_closest_marker("slow") is None]
    for item in items:
        if item.get_closest_marker("slow") is not None:
            slow.setdefault(item.path.parent, []).append(item)
    halves: tuple[list[pytest.Item], list[pytest.Item]] = ([], [])
    for group in sorted(slow.values(), key=len, reverse=True):
        min(halves, key=len).extend(group)
    cut = max(0, len(items) // 2 - len(halves[0]))
    return [*halves[0], *fast[:cut], *halves[1], *fast[cut:]]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The real data, or skip with the reason."""
    folder = real_data()
    if folder is None:
        pytest.skip("no real weights and photos here: set VITRIM_DATA to a folder that has them")
    return folder


@pytest.fixture(scope="session", autouse=True)
def shared_stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Stages that many tests need alike, such as traces of the small model, are made once for all of them."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITRIM_STAGES", str(root / "stages"))
        yield root / "stages"


@pytest.fixture(scope="session", autouse=True)
def threads_and_one_table_of_translations() -> None:
    """PyTorch keeps to its cores; and a fifth of an export's time."""
    import torch

    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else max(1, min(2, os.cpu_count() or 1)))
    one_table()
    gc.freeze()  # exports see that this program freezes by itself and thaw nothing, see `pytest_runtest_teardown`


@pytest.fixture(scope="session")
def vit() -> Any:
    """A ViT of 4 blocks, 16 patches and a class token."""
    from helpers import small_vit

    return small_vit()
