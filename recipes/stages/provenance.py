"""Where a decision came from: weights, images, settings and the versions of what decided it."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from ... import __version__
from ...calibration.images.sources import ImageSource
from ..schema.sections.section import Section


def versions() -> dict[str, str | None]:
    """Versions of what decides the outcome."""
    found: dict[str, str | None] = {"vitrim": __version__}
    for package in ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "onnx-graphsurgeon", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def provenance(model: Any, source: ImageSource | None, **section: Section) -> dict[str, Any]:
    """What a plan was decided on.

    Args:
        model: the model that was looked at.
        source: the calibration images; None: it needed none.
        section: the recipe's section that decided, by its name.
    """
    from ...exporter.pruning.load import fingerprint  # PyTorch, which only a plan needs

    return {
        "model_sha256": fingerprint(model),
        **({} if source is None else {"images_sha256": source.fingerprint(), "images": len(source)}),
        **{name: value.model_dump(mode="json", exclude_defaults=True) for name, value in section.items()},
        "versions": versions(),
    }
