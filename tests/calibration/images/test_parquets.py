"""Photos in parquet files as Hugging Face's datasets have them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from packed_photos import photo, unpacked
from pyarrow import parquet

from vitrim.calibration.images.listing import open_images
from vitrim.calibration.images.parquets import list_parquets
from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.core.preprocess import Preprocess

PREPROCESS = Preprocess((3, 8, 8), (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0, "center")


def written(path: Path, first: int = 0, rows: int = 5, group: int = 2, **columns: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    images = [{"bytes": photo(first + row), "path": f"{row}.png"} for row in range(rows)]
    table = {"image": images, "label": [(first + row) % 3 for row in range(rows)], **columns}
    parquet.write_table(
        pyarrow.table({key: one for key, one in table.items() if one is not None}), path, row_group_size=group
    )
    return path


def opened(path: Path, classes: int | None = 3, **options: Any) -> tuple[Any, list[str]]:
    notes: list[str] = []
    return open_images(path, PREPROCESS, classes=classes, note=notes.append, **options), notes


def test_rows_of_several_files_are_the_photos(tmp_path: Path) -> None:
    for shard in range(2):
        written(tmp_path / "data" / f"train-0000{shard}-of-00002.parquet", 5 * shard)
    found, said = opened(tmp_path / "data")
    plain = open_images(unpacked(tmp_path / "plain", {f"{index}.png": photo(index) for index in range(10)}), PREPROCESS)
    assert (len(found), said) == (10, [])
    assert found.labels.tolist() == [index % 3 for index in range(10)]
    assert all(np.array_equal(found.read(index), plain.read(index)) for index in (9, 0, 4, 5))
    assert found.names[6] == f"{tmp_path}/data/train-00001-of-00002.parquet[1]"
    some, _ = opened(tmp_path / "data", every=2, offset=1)
    assert np.array_equal(some.read(2), plain.read(5))


def test_labels_that_are_hidden_or_absent_are_none(tmp_path: Path) -> None:
    assert opened(written(tmp_path / "x.parquet", label=[-1] * 5))[0].labels is None
    found, said = opened(written(tmp_path / "y.parquet", label=["a"] * 5))
    assert found.labels is None
    assert said == ["no labels: no column of integers is named label, labels or cls"]
    assert opened(written(tmp_path / "z.parquet"), classes=None)[0].labels is None
    with pytest.raises(InputError, match="labels reaches from 0 to 2, but the model's classes are 0 to 1"):
        opened(tmp_path / "z.parquet", classes=2)
    with pytest.raises(InputError, match="label has 1 rows without a label"):
        opened(written(tmp_path / "n.parquet", label=[0, None, 1, 2, 0]))


def test_what_has_no_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has the columns label, text; images are looked for in image, img"):
        opened(written(tmp_path / "x.parquet", image=None, text=["a"] * 5))
    links, _ = opened(written(tmp_path / "y.parquet", image=["http://a"] * 5))
    with pytest.raises(InputError, match=r"y\.parquet\[0\]: image holds no encoded image"):
        links.read(0)
    (tmp_path / "z.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"z\.parquet is no whole parquet file"):
        opened(tmp_path / "z.parquet")
    with pytest.raises(InputError, match=r"images\.classes names class folders, and .*x\.parquet is none"):
        opened(tmp_path / "x.parquet", class_file="names.txt")


def test_a_missing_pyarrow_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "x.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EnvironmentLackError, match=r"pip install 'vitrim\[parquet\]'"):
        list_parquets([path])
