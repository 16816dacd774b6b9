"""The survey of timm: asked once, kept, and read without asking again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.pruning import supported
from vitrim.exporter.pruning.families import Answer
from vitrim.recipes.inspection import surveyed
from vitrim.recipes.inspection.surveyed import survey

DEIT3 = timm.list_models("deit3_small*")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of one test."""
    monkeypatch.setenv("VITRIM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def test_what_was_asked_is_not_asked_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    (family,) = survey("deit3_small", lambda done, total: seen.append((done, total)))
    assert family.prunable == family.slimmable == tuple(DEIT3)
    assert seen == [(index + 1, len(DEIT3)) for index in range(len(DEIT3))]
    (kept,) = cache.iterdir()
    assert kept.name.startswith(f"timm-{timm.__version__}-")

    def stop(*_args: object) -> Answer:
        raise AssertionError("it was asked again")

    monkeypatch.setattr(supported, "listing", stop)
    monkeypatch.setattr(supported, "ask_with_classifier", stop)
    assert survey("deit3_small", stop) == [family]
    with pytest.raises(AssertionError, match="asked again"):
        survey("deit_tiny")


def test_a_run_that_was_stopped_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that are done stay done, and so do others' models of the same file."""
    asked: list[str] = []

    def answer(name: str) -> Answer:
        if name.startswith("swin"):
            raise KeyboardInterrupt
        asked.append(name)
        return Answer(None, None)

    monkeypatch.setattr(supported, "ask_with_classifier", answer)
    with pytest.raises(KeyboardInterrupt):
        survey()
    before = len(asked)
    monkeypatch.setattr(supported, "ask_with_classifier", lambda name: asked.append(name) or Answer("no", "no"))
    found = {family.name: family for family in survey()}
    assert len(asked) == len(set(asked)) == sum(family.models for family in found.values())
    assert 0 < before < len(asked)
    assert found["deit"].prunable
    assert not found["swin_transformer"].prunable
    assert all(family.models == family.pretrained for family in found.values())


@pytest.mark.parametrize("torn", ["", "[]", '{"format": "vitrim-models/0"}', '{"format": "vitrim-models/1"}', "\x00"])
def test_a_torn_file_is_made_anew(cache: Path, torn: str) -> None:
    (family,) = survey("deit_tiny_patch")
    (kept,) = cache.iterdir()
    whole = kept.read_text()
    kept.write_text(torn)
    assert survey("deit_tiny_patch") == [family]
    assert json.loads(kept.read_text()) == json.loads(whole)


def test_other_sources_or_another_timm_are_asked_anew(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survey("deit_tiny_patch")
    monkeypatch.setattr(surveyed, "digest", lambda name: "0" * 64)
    survey("deit_tiny_patch")
    monkeypatch.setattr(surveyed, "version", lambda name: "9.9")
    survey("deit_tiny_patch")
    assert len(list(cache.iterdir())) == 3


def test_answers_that_cannot_be_kept_are_given_and_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise EnvironmentLackError("the disk is full")

    monkeypatch.setattr(surveyed, "atomic_write", full)
    notes: list[str] = []
    found = survey("deit_tiny_patch", note=notes.append)
    assert [family.prunable for family in found] == [("deit_tiny_patch16_224",)]
    assert notes == ["answers are not kept for the next time: the disk is full"]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="no family and no model with 'resnext5000' in its name"):
        survey("resnext5000")
