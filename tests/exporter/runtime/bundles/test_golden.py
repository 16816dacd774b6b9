"""Golden arrays and names of classes: held against, or one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import fuzz, held
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.core import layout
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.records import finite
from vitrim.exporter.runtime.bundles.golden import load_golden, load_labels
from vitrim.exporter.runtime.bundles.manifest import (
    read_manifest,
    write_manifest,
)
from vitrim.exporter.runtime.rungs import close, compare


def test_golden_never_unpickles(tmp_path: Path) -> None:
    np.savez(tmp_path / "golden.npz", image=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="damaged"):
        load_golden(tmp_path)
    np.savez(tmp_path / "golden.npz", image=np.zeros(3))
    with pytest.raises(InputError, match="it has no logits"):
        load_golden(tmp_path)
    with open(tmp_path / "golden.npz", "wb") as stream:
        np.save(stream, np.zeros(3))  # one array, no archive
    with pytest.raises(InputError, match="damaged"):
        load_golden(tmp_path)
    np.savez(tmp_path / "golden.npz", image=np.zeros((2, 3)), logits=np.ones((2, 4)))
    assert load_golden(tmp_path)["image"].shape == (2, 3)
    (tmp_path / "golden.npz").write_bytes((tmp_path / "golden.npz").read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged"):
        load_golden(tmp_path)


GOLDEN: dict[str, Any] = {
    "image": np.zeros((4, 3, 2, 2), np.float32),
    "logits": np.ones((4, 5), np.float32),
    "kept_1": np.tile(np.arange(3), (4, 1)),
    "gap_1": np.ones(4, np.float32),
    "probabilities": np.ones((4, 2), np.float32),
    "classes": np.tile(np.arange(2, dtype=np.int32), (4, 1)),
}


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("image", np.array(["a", "b"]), "image is <U1 [2], but must be images [n, ...]"),
        ("image", np.float32(1), "image is float32 [], but must be images"),
        ("image", np.zeros((0, 3), np.float32), "image is float32 [0, 3]"),
        ("logits", np.ones(4, np.float32), "logits is float32 [4], but must be numbers [n, classes]"),
        ("logits", np.array("text"), "logits is <U4 []"),
        ("logits", np.ones((4, 5), np.complex64), "logits is complex64 [4, 5]"),
        ("logits", np.ones((3, 5), np.float32), "logits is float32 [3, 5]"),
        ("kept_1", np.ones((4, 3), np.float32), "kept_1 is float32 [4, 3], but must be whole numbers [n, tokens]"),
        ("kept_x", np.ones((4, 3), np.int64), "kept_x is int64 [4, 3], but must be named by a block"),
        ("kept_²", np.ones((4, 3), np.int64), "kept_² is int64 [4, 3], but must be named by a block"),
        ("gap_1", np.ones((4, 1), np.float32), "gap_1 is float32 [4, 1], but must be numbers [n]"),
        ("classes", np.ones((4, 2), bool), "classes is bool [4, 2]"),
    ],
)
def test_a_golden_array_of_another_form_is_named(name: str, values: np.ndarray, said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / layout.GOLDEN, **GOLDEN)
    assert set(load_golden(tmp_path)) == set(GOLDEN)
    np.savez(tmp_path / layout.GOLDEN, **(GOLDEN | {name: values}))
    with pytest.raises(InputError, match="golden.npz is damaged: ") as caught:
        load_golden(tmp_path)
    assert said in str(caught.value) or "logits is float32 [4, 5]" in str(
        caught.value
    )  # of as many images as there are


def use_golden(folder: Path) -> None:
    golden = load_golden(folder)
    candidate = {name: values for name, values in GOLDEN.items() if name not in ("image", "gap_1")}
    json.dumps(finite(compare("a", golden, candidate, atol=1e-3, tie=1e-3).to_json()), allow_nan=False)
    json.dumps(finite(close("a", golden, candidate, cosine=0.9, agreement=0.9).to_json()), allow_nan=False)


kinds = st.sampled_from(["?", "i1", "u8", "i8", "f2", "f4", "f8", "c8", "U3", "S2", "M8[s]", "m8[s]", "V4"])


shapes = st.sampled_from([(), (0,), (4,), (4, 0), (4, 3), (4, 5), (5, 5), (4, 3, 2, 2), (1,) * 20])


@fuzz(100)
@given(data=st.data())
def test_any_golden_arrays_are_held_against_or_one_line(data: Any, tmp_path: Path) -> None:
    golden = dict(GOLDEN)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from([*GOLDEN, "kept_2", "merged_1", "gap_x", "kept_", "other", "kept_10000"]))
        golden[name] = np.zeros(data.draw(shapes), data.draw(kinds))
        if data.draw(st.booleans()):
            golden.pop(data.draw(st.sampled_from(sorted(golden))))
    values = data.draw(st.sampled_from([None, np.nan, np.inf, -1, 10**9]))
    if values is not None and "logits" in golden and golden["logits"].dtype in (np.float32, np.float64):
        golden["logits"] = np.full_like(golden["logits"], values)
    np.savez(tmp_path / layout.GOLDEN, **golden)
    with np.errstate(all="raise"):
        held(use_golden, tmp_path)


def test_names_of_classes_are_in_one_line_each_and_may_be_missing(tmp_path: Path) -> None:
    write_manifest(tmp_path, {}, [])
    assert load_labels(tmp_path, read_manifest(tmp_path)) is None
    for text, wanted in (('["cat", "great\\nwhite", 3]', ["cat", "great white", "3"]), ('{"a": 1}', None)):
        (tmp_path / "labels.json").write_text(text)
        write_manifest(tmp_path, {}, [])
        if wanted is None:
            with pytest.raises(InputError, match=r"labels.json is no list of names; export the bundle anew"):
                load_labels(tmp_path, read_manifest(tmp_path))
        else:
            assert load_labels(tmp_path, read_manifest(tmp_path)) == wanted
