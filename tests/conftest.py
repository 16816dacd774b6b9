"""Fixtures that several tests share: small models, budgets, and the real weights and photos where they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import small_vit

torch.set_num_threads(max(1, min(2, os.cpu_count() or 1)))

ROOT = Path(__file__).resolve().parent.parent


def real_data() -> Path | None:
    """The folder with real weights and photos: $VITRIM_DATA, or `shared/data` beside the checkout."""
    candidates = [os.environ.get("VITRIM_DATA"), ROOT.parent / "shared" / "data"]
    return next((Path(path) for path in candidates if path and Path(path).is_dir()), None)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The real data, or skip with the reason."""
    folder = real_data()
    if folder is None:
        pytest.skip("no real weights and photos here: set VITRIM_DATA to a folder that has them")
    return folder


@pytest.fixture(scope="session")
def vit() -> Any:
    """A ViT of 4 blocks, 16 patches and a class token."""
    return small_vit()
