"""One walk through the stages: what is opened once, released, keyed and shared."""

from __future__ import annotations

from dataclasses import replace

import torch
from helpers import small_recipe

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.pruning.load import fingerprint
from vitrim.recipes.pipeline.walk import Run
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.stages.calibrate import Calibrate
from vitrim.recipes.stages.precision import Precision
from vitrim.recipes.stages.rewrite import Rewrite


def test_a_model_is_opened_once_and_again_where_it_was_released(walked: Run) -> None:
    first = walked.dense()
    assert walked.dense() is first
    assert walked.model() is first  # not slimmed
    walked.release()
    again = walked.dense()
    assert again is not first
    assert fingerprint(again) == fingerprint(first)


def test_a_walk_of_another_recipe_shares_what_is_opened_and_has_done_nothing(walked: Run) -> None:
    other = walked.of(recipe_from(small_recipe(export={"batch": 2})), get_target("trt-10"))
    assert other.dense() is walked.dense()
    assert other.sources is walked.sources
    assert (other.folders, other.keys, other.made) == ({}, {}, set())
    assert other.target is get_target("trt-10")
    assert walked.folders


def test_a_key_follows_what_a_stage_reads_and_nothing_else(walked: Run) -> None:
    other = replace(walked, recipe=recipe_from(small_recipe(export={"target": "trt-10"})))
    assert other.key_of(Calibrate) != walked.key_of(Calibrate)  # tokens are multiples for TensorRT
    assert other.key_of(Rewrite) != walked.key_of(Rewrite)
    timed = replace(walked, recipe=recipe_from(small_recipe(bench={"runs": 6})))
    assert timed.key_of(Rewrite) == walked.key_of(Rewrite)


def test_a_stage_that_is_not_wanted_or_is_kept_is_not_made(walked: Run) -> None:
    before = dict(walked.folders)
    assert not Precision.wanted(walked.recipe)
    walked.do(Precision)
    walked.do(Calibrate)
    assert walked.folders == before
    assert not walked.made


def test_another_size_is_another_content(walked: Run) -> None:
    sized = replace(walked, size=(48, 80), _models={}, _contents={})
    assert sized.dense()(torch.zeros(1, 3, 48, 80)).shape == (1, 10)
    assert sized.content("dense") != walked.content("dense")
    assert walked.own_size == "64x64"
