"""What a method's class says is checked at import: unknown names, wrong types, missing and unfit parts."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
from pydantic import ConfigDict, Field

from vitrim.exporter.pruning import methods
from vitrim.exporter.pruning.methods.base import Method, Placement, Threshold
from vitrim.exporter.pruning.methods.selection import Selection
from vitrim.exporter.pruning.plan import Preset, StagePlan

HOME = Path(methods.__file__).parent


def select(self: Any, evidence: Any, keep: int, options: Any, parameters: Any) -> Selection:
    return Selection(None)


def make(**said: Any) -> type[Method]:
    """A method class that says what a plain one does, and `said` over it; None leaves a part out."""
    whole = {"name": "plain", "about": "keeps the first", "select": select, **said}
    return type("Plain", (Method,), {key: value for key, value in whole.items() if value is not None})


def written(file: str, *changes: tuple[str, str]) -> types.ModuleType:
    """A copy of a method's file as an import would run it, with some words changed."""
    text = (HOME / file).read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    module = types.ModuleType(f"{methods.__name__}.copied")
    module.__package__ = methods.__name__
    exec(compile(text, f"copied {file}", "exec"), module.__dict__)
    return module


def test_a_class_that_says_little_gets_the_rest() -> None:
    method = make()()
    assert (method.reads, method.paper, method.presets, method.threshold) == ("none", "", (), None)
    assert (method.has_scores, method.merges) == (False, False)
    assert method.Parameters().model_dump() == {"place": "before_mlp"}
    assert method.largest_removal(197, 1, method.Parameters()) == 196
    assert method.placement.blocks(12) is None


def test_a_copy_of_a_method_runs_and_one_with_a_misspelt_name_does_not() -> None:
    assert written("ats.py").ATS.masks_duplicates
    wrong = (
        r"class ATS in vitrim\.exporter\.pruning\.methods\.copied: {} is nothing that a method has; did you mean {}\?"
    )
    for misspelt in ("MASK_DUPLICATES", "mask_duplicates", "masks_duplicate", "Masks_duplicates"):
        with pytest.raises(TypeError, match=wrong.format(misspelt, "masks_duplicates")):
            written("ats.py", ("masks_duplicates = True", f"{misspelt} = True"))
    with pytest.raises(TypeError, match=wrong.format("mask_duplicates", "masks_duplicates")):
        written("ats.py", ("masks_duplicates = True", "mask_duplicates: bool"))  # not even without a value
    with pytest.raises(TypeError, match=wrong.format("scores", "score")):
        written("ats.py", ("def score(self", "def scores(self"))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"masks_duplicates": 1}, r"masks_duplicates is 1: input should be a valid boolean"),
        ({"masks_duplicates": "yes"}, r"masks_duplicates is 'yes': input should be a valid boolean"),
        ({"reads": "row"}, r"reads is 'row': input should be 'none', 'first' or 'all'"),
        ({"about": b"x"}, r"about is b'x': input should be a valid string"),
        ({"placement": (0.25, 0.5)}, r"placement is \(0\.25, 0\.5\): input should be a.* instance of Placement"),
        (
            {"placement": Placement(sized_by="count")},
            r"placement\.sized_by is 'count': input should be 'rates' or 'counts'",
        ),
        ({"placement": Placement(at="all")}, r"placement\.at is 'all': input should be"),
        (
            {"presets": (Preset("p", "plain", "", (StagePlan("3", keep=0.5),)),)},
            r"presets\[0\]\.stages\[0\]\.block is '3': input should be a valid integer",
        ),
        ({"presets": {}}, r"presets is \{\}: input should be a valid tuple"),
        ({"name": None}, r"name is missing"),
        ({"about": None}, r"about is missing"),
        ({"select": None}, r"select is missing"),
        ({"name": "Plain One"}, r"name is 'Plain One'; take small letters"),
        ({"about": "two\nlines"}, r"about must be one line"),
        ({"has_scores": True}, r"has_scores follows from the rest of the class; leave it out"),
        ({"score": 3}, r"score is 3, but must be a plain function with self"),
        ({"score": staticmethod(lambda evidence, parameters: None)}, r"must be a plain function with self"),
        (
            {"score": lambda self, seen, parameters: None},
            r"score\(self, seen, parameters\) must be score\(self, evidence, parameters\)",
        ),
        (
            {"select": lambda self, evidence, keep: None},
            r"select\(self, evidence, keep\) must be select\(self, evidence, keep, options, parameters\)",
        ),
        ({"Parameters": dict}, r"Parameters must be a class that inherits from Method\.Parameters"),
        ({"StageOptions": Method.Parameters}, r"StageOptions must be a class that inherits from Method\.StageOptions"),
        ({"by_similarity": True}, r"by_similarity is True, but StageOptions has no similar"),
        ({"statistic": lambda self, evidence, parameters: None}, r"threshold and statistic belong together"),
        ({"fuses": lambda self, parameters: True}, r"fuses and fuse belong together"),
        ({"placement": Placement(at=(0.5, 1.5))}, r"placement\.at is \(0\.5, 1\.5\): give shares of the depth"),
        ({"searchable": ("place",)}, r"searchable names 'place', which is no parameter that is a float"),
        ({"searchable": ("exponent",)}, r"searchable names 'exponent', which is no parameter that is a float"),
        ({"presets": (Preset("p", "other", "", ()),)}, r"the preset p is of the method 'other'"),
        (
            {"presets": (Preset("p", "plain", "", (), {"plaec": 1}),)},
            r"the preset p, parameters: plaec is not a known key",
        ),
        (
            {"presets": (Preset("p", "plain", "", (StagePlan(3, keep=0.5, options={"seed": 1}),)),)},
            r"the preset p, stages\[0\]\.options: seed is not a known key",
        ),
    ],
)
def test_what_is_wrong_is_named(said: dict[str, Any], reason: str) -> None:
    with pytest.raises(TypeError, match=rf"the method class Plain in .*: .*{reason}"):
        make(**said)


def test_parameters_must_be_whole() -> None:
    class Undescribed(Method.Parameters):
        strength: float = 1.0

    class Needed(Method.Parameters):
        strength: float = Field(description="how much")

    class Open(Method.Parameters):
        model_config = ConfigDict(extra="allow")

    for model, reason in (
        (Undescribed, r"Parameters\.strength has no description; write Field"),
        (Needed, r"Parameters\.strength has no default"),
        (Open, r"Parameters\.model_config has extra='allow'; leave it 'forbid'"),
    ):
        with pytest.raises(TypeError, match=reason):
            make(Parameters=model)


def test_a_threshold_must_name_what_there_is() -> None:
    class Parameters(Method.Parameters):
        quantile: float | None = Field(default=None, description="share of the images")

    class StageOptions(Method.StageOptions):
        threshold: float | None = Field(default=None, description="below which an image pools")

    def statistic(self: Any, evidence: Any, parameters: Any) -> Any:
        return evidence.keys.mean()

    said = {"Parameters": Parameters, "StageOptions": StageOptions, "statistic": statistic}
    assert make(threshold=Threshold("threshold", "quantile", "mean"), **said).threshold is not None
    with pytest.raises(TypeError, match=r"threshold\.option is 'treshold', but StageOptions has threshold"):
        make(threshold=Threshold("treshold", "quantile", "mean"), **said)
    with pytest.raises(TypeError, match=r"threshold\.quantile is 'share', but Parameters has place, quantile"):
        make(threshold=Threshold("threshold", "share", "mean"), **said)


def test_helpers_may_be_private_and_an_heir_is_checked_as_well() -> None:
    first = make(_half=lambda self: 2)
    with pytest.raises(TypeError, match="class Heir in .*: keeps is nothing that a method has"):
        type("Heir", (first,), {"keeps": 1})


def test_every_problem_of_a_kind_is_told_at_once() -> None:
    with pytest.raises(TypeError, match=r"raeds is nothing .* reads\?.*; nmae is nothing .* name\?"):
        make(raeds="all", nmae="x")
