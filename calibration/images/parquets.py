"""Photos in parquet files as Hugging Face's datasets have them: a column of encoded images, and one of labels.

A row group is read whole, so neighbours are read for nothing more; two are kept.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...exporter.core.errors import EnvironmentLackError, InputError, excerpt
from ...exporter.core.inputs import InputKind, require_file

SUFFIX = ".parquet"
IMAGES, LABELS = ("image", "img", "jpg", "png"), ("label", "labels", "cls")  # in this order
_BYTES = "bytes"  # the encoded image's field, beside its path


@dataclass(frozen=True)
class ParquetPhoto:
    """One photo in a parquet file.

    Attributes:
        file: the parquet file.
        column: that holds it.
        group: row group.
        row: in the group.
        index: row in the file.
    """

    file: Path
    column: str
    group: int
    row: int
    index: int

    @property
    def name(self) -> str:
        """The file and the row in it."""
        return f"{self.file}[{self.index}]"

    def bytes(self) -> bytes:
        """The encoded photo.

        Raises:
            InputError: the file cannot be read any more, or the row holds no image.
        """
        held = _group(self.file, self.group, self.column)[self.row].as_py()
        found = held.get(_BYTES) if isinstance(held, dict) else held
        if not isinstance(found, bytes) or not found:
            raise InputError(f"{self.name}: {self.column} holds no encoded image; give a dataset that has them inside")
        return found


def list_parquets(files: Sequence[Path]) -> tuple[list[ParquetPhoto], np.ndarray | None]:
    """Find every row of parquet files; of the columns only the labels are read.

    Args:
        files: of one dataset, in order.

    Returns:
        the photos, and [photos] integers of the column of labels, None where a file has none.

    Raises:
        InputError: a file is damaged, or has no column of images.
        EnvironmentLackError: pyarrow is not installed.
    """
    photos: list[ParquetPhoto] = []
    labels: list[np.ndarray | None] = []
    for file in files:
        opened = _opened(file)
        names = opened.schema_arrow.names
        column = next((name for name in IMAGES if name in names), None)
        if column is None:
            found = excerpt(", ".join(names), 100)
            raise InputError(f"{file} has the columns {found}; images are looked for in {', '.join(IMAGES)}")
        at = 0
        for group in range(opened.num_row_groups):
            rows = opened.metadata.row_group(group).num_rows
            photos += [ParquetPhoto(file, column, group, row, at + row) for row in range(rows)]
            at += rows
        label = next((name for name in LABELS if name in names), None)
        labels.append(None if label is None else _labels(file, opened, label))
    known = [one for one in labels if one is not None]
    return photos, np.concatenate(known) if known and len(known) == len(labels) else None


def _labels(file: Path, opened: Any, column: str) -> np.ndarray | None:
    """Integers of a column; None of one that holds something else.

    Raises:
        InputError: a label is missing.
    """
    held = opened.read(columns=[column]).column(column)
    if held.null_count:
        raise InputError(f"{file}: {column} has {held.null_count} rows without a label; take them out")
    found = np.asarray(held.to_numpy())
    return found.astype(np.int64) if found.dtype.kind in "iu" else None


def _opened(file: Path) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise EnvironmentLackError(f"{file} needs pyarrow: pip install 'vitrim[parquet]'") from error
    require_file(file, InputKind.ARCHIVE)
    try:
        return parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{file} is no whole parquet file ({excerpt(str(error), 120)}); fetch it again") from error


@functools.lru_cache(maxsize=2)
def _group(file: Path, group: int, column: str) -> Any:
    """A column's values in a row group."""
    return _opened(file).read_row_group(group, columns=[column]).column(column)
