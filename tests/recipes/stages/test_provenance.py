"""Where a plan comes from: versions of what decides, the model, the images, and the sections that said how."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest
from helpers import small_vit, source_for

import vitrim
from vitrim.recipes.schema.sections.prune import PruneSection
from vitrim.recipes.schema.sections.slim import SlimSection
from vitrim.recipes.stages.provenance import provenance, versions


def test_versions_are_the_installed_ones() -> None:
    found = versions()
    assert found.pop("vitrim") == vitrim.__version__
    assert set(found) == {"torch", "timm", "onnx", "onnxscript", "onnxruntime", "onnx-graphsurgeon", "numpy"}
    for package in ("torch", "timm", "onnx", "numpy"):
        assert found[package] == metadata.version(package)


def test_what_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package == "onnxscript":
            raise metadata.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    assert (versions()["onnxscript"], versions()["timm"]) == (None, "1.0")


def test_it_names_the_model_the_images_and_only_what_differs_from_the_defaults(vit: Any) -> None:
    source = source_for(vit, 5)
    section = PruneSection(method="evit", keep_rates={1: 0.5})
    found = provenance(vit, source, prune=section)
    assert set(found) == {"model_sha256", "images_sha256", "images", "prune", "versions"}
    assert (found["images"], found["images_sha256"]) == (5, source.fingerprint())
    assert found["prune"] == {"method": "evit", "keep_rates": {"1": 0.5}}
    assert found["versions"] == versions()


def test_a_plan_that_needed_no_images_names_none(vit: Any) -> None:
    found = provenance(vit, None, slim=SlimSection(widths="w.json"))
    assert set(found) == {"model_sha256", "slim", "versions"}
    assert found["slim"] == {"widths": "w.json"}


def test_another_model_or_other_images_are_told_apart(vit: Any) -> None:
    first = provenance(vit, source_for(vit, 5))
    assert provenance(small_vit(), source_for(vit, 5)) == first  # the same weights
    assert provenance(small_vit(seed=1), None)["model_sha256"] != first["model_sha256"]
    assert provenance(vit, source_for(vit, 5, seed=1))["images_sha256"] != first["images_sha256"]
