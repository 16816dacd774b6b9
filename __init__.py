"""vitrim: pruned Vision Transformers, exported to the edge and proven right.

The functions of `vitrim.api` are this package's: `vitrim.export("quickstart", "out/")`.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

# `recipes` is also a sub-package, so its function is `vitrim.api.recipes`.
_API = ("export", "calibrate", "inspect", "check", "bench", "compare", "build", "doctor", "recipe", "new")


def __getattr__(name: str) -> Any:
    """The API's functions, imported on first use."""
    import importlib

    if name in _API:
        return getattr(importlib.import_module(f"{__name__}.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
