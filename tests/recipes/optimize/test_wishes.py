"""What is asked of a file alone: keywords, settings, and what only a model can have."""

from __future__ import annotations

from typing import Any

import pytest

from vitrim.exporter.core.errors import InputError
from vitrim.recipes.optimize.wishes import Wishes, files_of, wishes_from


def test_keywords_and_settings_are_a_recipe_s() -> None:
    found = wishes_from({"target": "trt-11", "precision": "fp16", "batch": 4, "runs": 9}, ["bench.runs=7"])
    assert (found.target.name, found.precision.name, found.batch, found.bench.runs) == ("trt-11", "fp16", 4, 7)
    assert Wishes().batch is None
    named = wishes_from({"images": "a.npz"})
    assert {name: str(path) for name, path in files_of("m.onnx", named).items()} == {
        "the ONNX file": "m.onnx",
        "the images": "a.npz",
    }


def test_photos_become_inputs_imagenet_s_way_or_as_asked() -> None:
    plain = Wishes().preprocess_for((1, 3, 32, 48))
    assert (plain.input_size, plain.mean) == ((3, 32, 48), (0.485, 0.456, 0.406))
    assert Wishes().preprocess_for((1, 1, 8, 8)).std == (0.5,)
    asked = wishes_from({"preprocess": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5], "crop_pct": 1.0}})
    assert asked.preprocess_for((1, 3, 8, 8)).std == (0.25, 0.5, 0.5)
    with pytest.raises(InputError, match=r"preprocess\.mean has 3 values, but the model 1 channel"):
        asked.preprocess_for((1, 1, 8, 8))


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"sizes": [96]}, r"^export\.sizes takes a model that vitrim knows; name it with --as"),
        ({"top_k": 5}, r"^export\.top_k takes a model that vitrim knows; name it with --as"),
        ({"target": "cpu"}, "^export.target is the group cpu"),
        ({"precision": "auto"}, "^precision.name is auto"),
        ({"precision": "int8"}, "^precision.name is int8, whose ranges are measured on images; give some by --images"),
        ({"precision": "bf16"}, r"ort-cpu takes no bf16 graph"),
        ({"prune": {"method": "frugal"}}, "^optimize: prune"),
        ({"bogus": 1}, "has no keyword 'bogus'"),
        ({"images": {"generator": "shapes"}}, "^images: give a path"),
    ],
)
def test_what_a_file_alone_cannot_have_is_one_line(keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        wishes_from(keywords)
    assert "\n" not in str(error.value)
