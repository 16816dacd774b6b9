"""Files of arrays: plain ones are read, and whatever else they hold is said in one line."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import broken, fuzz, held
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.core import arrays
from vitrim.exporter.core.arrays import read_arrays
from vitrim.exporter.core.errors import InputError


def packed(**members: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **members)
    return stream.getvalue()


def header(text: str) -> bytes:
    """A .npy member with a header of its own, and 16 bytes of data."""
    line = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + b"\0" * 16


def test_plain_arrays_come_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(packed(image=np.arange(6).reshape(2, 3), name=np.array(["a"]), one=np.float32(2)))
    found = read_arrays(tmp_path / "a.npz")
    assert {key: value.shape for key, value in found.items()} == {"image": (2, 3), "name": (1,), "one": ()}
    assert found["image"].sum() == 15


def test_what_is_no_archive_of_plain_arrays_is_one_line(tmp_path: Path) -> None:
    whole = packed(image=np.ones((2, 3)))
    cases: dict[str, bytes] = {
        "empty": b"",
        "truncated": whole[:-20],
        "pickled": pickle.dumps({"image": 1}),
        "objects": packed(image=np.array([{"a": 1}], dtype=object)),
        "html": b"<!DOCTYPE html><html>\x1b[31m</html>",
    }
    headers = {
        "giant": "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000000)}",
        "negative": "{'descr': '<f8', 'fortran_order': False, 'shape': (-3,)}",
        "code": "__import__('os').system('true')",
        "deep": "[" * 500 + "]" * 500,
        "long": "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",)}",
        "torn": "{'descr': '<f8', 'fortran_order': False, 'shape': (3,",
        "strange": "{'descr': [('a', 'O')], 'fortran_order': False, 'shape': (1,)}",
    }
    for name, text in headers.items():
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("image.npy", header(text))
        cases[name] = stream.getvalue()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("image.txt", "no array")
    cases["text"] = stream.getvalue()
    for name, data in cases.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(data)
        with pytest.raises(InputError, match="is not a whole .npz of plain arrays") as caught:
            read_arrays(path)
        assert str(caught.value).isprintable(), name
        assert len(str(caught.value)) < 400, name


def test_a_bare_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(3))
    with pytest.raises(InputError, match=r"a\.npy is a bare array, not an \.npz"):
        read_arrays(tmp_path / "a.npy")


def test_only_what_is_chosen_is_read_and_held_against_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.npz").write_bytes(packed(image=np.ones(3), large=np.zeros(10**6)))
    monkeypatch.setattr(arrays, "machine_memory", lambda: 10**6)
    assert list(read_arrays(tmp_path / "a.npz", lambda names: [name for name in names if name != "large"])) == ["image"]

    def none(names: object) -> list[str]:
        raise InputError(f"none of {names}")

    with pytest.raises(InputError, match=r"none of \['image', 'large'\]"):
        read_arrays(tmp_path / "a.npz", none)


def test_more_than_memory_holds_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bomb.npz").write_bytes(packed(image=np.zeros(10**6)))
    assert (tmp_path / "bomb.npz").stat().st_size < 20_000
    monkeypatch.setattr(arrays, "machine_memory", lambda: 10**6)
    with pytest.raises(InputError, match=r"holds 80001\d\d bytes of arrays, more than this machine's memory"):
        read_arrays(tmp_path / "bomb.npz")


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(InputError, match="is a FIFO"):
        read_arrays(tmp_path / "a.npz")


WHOLE = packed(image=np.ones((2, 3), np.float32), label=np.arange(2)) + b""
STORED = io.BytesIO()
np.savez(STORED, image=np.ones((2, 3), np.float32), text=np.array(["é"]))


@fuzz(80)
@given(data=st.sampled_from([WHOLE, STORED.getvalue()]).flatmap(broken))
def test_broken_bytes_give_arrays_or_one_line(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.npz"
    path.write_bytes(data)
    for value in (held(read_arrays, path) or {}).values():
        assert isinstance(value, np.ndarray)
