"""Checkpoint files: where in them the tensors are found, which are meant, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ends_in_a_line, small_vit
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.checkpoints.tensors import (
    DESCRIBED_KEY,
    Choice,
    described_in,
    read_state_dict,
    read_tensors,
    widths_in,
)

HERE = {"a.weight": torch.zeros(2), "a.bias": torch.zeros(2), "b.weight": torch.zeros(2)}
THERE = {"a.weight": torch.ones(2), "a.bias": torch.ones(2), "b.weight": torch.ones(2)}


def read(path: Path, held: Any, **choice: Any) -> tuple[str, float]:
    """The place of what was read of an object, and the first number of it."""
    torch.save(held, path)
    found = read_tensors(path, Choice(**choice))
    assert found.held.keys() == HERE.keys()
    return found.place, float(found.held["a.weight"][0])


@pytest.mark.parametrize(
    ("held", "place"),
    [
        (HERE, ""),
        ({**HERE, "epoch": 3}, ""),
        ({"net": HERE, "epoch": 3}, "net"),
        ({"net": {"weights": {"here": HERE}}}, "net.weights.here"),
        ({"state": {"module": {f"module.{key}": value for key, value in HERE.items()}}}, "state.module"),
        ({"model": HERE, "optimizer": {"state": {0: {"step": torch.ones(1), "exp_avg": torch.ones(2)}}}}, "model"),
        ({"model": HERE, "loss_scaler": THERE, "rng_state": THERE, "lr_schedulers": [THERE]}, "model"),
        ({"model": HERE, "center": torch.ones(3)}, "model"),
        ({"model": HERE, "state_dict": HERE}, "model"),  # the very same one
    ],
)
def test_the_one_dictionary_of_tensors_is_found_wherever_it_lies(tmp_path: Path, held: Any, place: str) -> None:
    assert read(tmp_path / "w.pth", held) == (place, 0.0)


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema", "ema_model", "network.ema"])
def test_averaged_weights_are_taken_by_choice(tmp_path: Path, key: str) -> None:
    path, held = tmp_path / "w.pth", {"model": HERE, key: THERE}
    assert read(path, held) == (key, 1.0)
    assert read(path, held, ema=False) == ("model", 0.0)
    assert read(path, held, state="model") == ("model", 0.0)
    assert read_tensors(path).others == ("model",)
    torch.save({key: THERE}, path)
    with pytest.raises(InputError, match=rf"holds averaged weights alone \({key}\); take model\.ema out"):
        read_tensors(path, Choice(ema=False))


def test_several_that_could_be_meant_are_named_with_what_to_give(tmp_path: Path) -> None:
    path, held = tmp_path / "w.pth", {"student": THERE, "teacher": {"net": HERE}}
    torch.save(held, path)
    with pytest.raises(InputError, match=r"models \(student, teacher\.net\); say which, such as model\.state: student"):
        read_tensors(path)
    assert read(path, held, state="teacher") == ("teacher.net", 0.0)
    assert read(path, held, state="teacher.net") == ("teacher.net", 0.0)
    with pytest.raises(InputError, match=r"model\.state: .* no such tensors at 'teach'; it has student, teacher\.net"):
        read_tensors(path, Choice(state="teach"))


def test_dictionaries_that_hold_each_other_are_read_once(tmp_path: Path) -> None:
    held: dict[str, Any] = {f"key{index}": {} for index in range(40)}
    for inner in held.values():
        inner.update({f"key{index}": other for index, other in enumerate(held.values())})
    held["model"] = HERE
    torch.save(held, tmp_path / "w.pth")
    assert read_tensors(tmp_path / "w.pth").place == "model"


class Payload:
    """Runs a command when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"model": Payload(mark)}, tmp_path / "bad.pth")
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(Payload(mark)))
    for name in ("bad.pth", "bad.pkl"):
        with pytest.raises(InputError, match=r"could run code.*safetensors"):
            read_state_dict(tmp_path / name)
    torch.save(small_vit(), tmp_path / "module.pth")
    with pytest.raises(InputError, match="could run code"):
        read_state_dict(tmp_path / "module.pth")
    assert not mark.exists()


def test_a_safetensors_file_may_say_anything_of_itself(tmp_path: Path) -> None:
    """Types that nobody knows, offsets from nowhere, metadata that is no plan: one line each."""
    path = tmp_path / "w.safetensors"
    for header in (
        '{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}',
        '{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[9999999999999],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
        '{"a":5}',
        "[]",
        "{",
        '{"__metadata__":{"vitrim.widths":5}}',
        "[" * 3000,
    ):
        raw = header.encode()
        path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(4))
        with pytest.raises(InputError, match=r"w\.safetensors (is not a whole safetensors|holds what this)"):
            read_state_dict(path)
    for widths in ("", "{", "[]", "5", "{}", "[" * 9000, "9" * 5000, '{"format": "vitrim-widths/1"}'):
        save_file({"a": torch.zeros(1)}, path, metadata={"vitrim.widths": widths})
        with pytest.raises(InputError, match=r"w\.safetensors"):
            widths_in(path)


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.binary(max_size=64), st.sampled_from(("", "PK\x03\x04", "\x80\x02", "{", "<", "\x08\x07\x12")))
def test_any_bytes_end_in_one_line(data: bytes, head: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "w.pth").write_bytes(head.encode("latin-1") + data)
        ends_in_a_line(lambda: read_state_dict(Path(folder) / "w.pth"))


@pytest.mark.parametrize("text", ["{", "5", "{}", '{"name": 1, "args": {}, "epsilon": null, "images": {}}'])
def test_what_names_no_model_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={DESCRIBED_KEY: text})
    with pytest.raises(InputError, match=r"its vitrim\.described (is not JSON|names no model); the checkpoint"):
        described_in(path)


def test_a_checkpoint_carries_its_model_or_none(tmp_path: Path) -> None:
    path, wanted = tmp_path / "w.safetensors", {"name": "a", "args": {}, "epsilon": 1e-12, "images": {}}
    save_file({"a": torch.zeros(1)}, path)
    assert described_in(path) is None
    save_file({"a": torch.zeros(1)}, path, metadata={DESCRIBED_KEY: json.dumps(wanted)})
    assert described_in(path) == wanted
