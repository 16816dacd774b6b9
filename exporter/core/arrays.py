"""Files of arrays that a user names: plain arrays alone, and no more of them than memory holds."""

from __future__ import annotations

import os
import warnings
import zipfile
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from .errors import InputError, excerpt
from .inputs import InputKind, open_file

if TYPE_CHECKING:
    Arrays = dict[str, np.ndarray]
else:
    Arrays = dict  # Python 3.8, which run_on_device.py serves, has no dict[...]


def read_arrays(path: str | os.PathLike[str]) -> Arrays:
    """All arrays of an .npz by name; objects, which are pickles that could run code, are refused.

    Raises:
        InputError: the file cannot be read, is no whole .npz, holds something else than arrays, or more than this
            machine's memory.
    """
    name = os.fspath(path)
    with open_file(path, InputKind.ARRAYS) as stream:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # files of Python 2, names that stand twice: said below, or no fault
                found = _members(stream, name)
        except (InputError, KeyboardInterrupt):
            raise
        except Exception as error:  # zipfile, its decompressors and numpy raise what they meet in a damaged file
            reason = excerpt(str(error), 100) or type(error).__name__
            raise InputError(f"{name} is not a whole .npz of plain arrays ({reason})") from error
    for key, value in found.items():
        if not isinstance(value, np.ndarray):
            raise InputError(f"{name} is not a whole .npz of plain arrays ({excerpt(key)} is none)")
    return found


def _members(stream: BinaryIO, name: str) -> Arrays:
    with zipfile.ZipFile(stream) as packed:
        size, memory = sum(entry.file_size for entry in packed.infolist()), _memory()
    if size > memory:
        raise InputError(f"{name} holds {size} bytes of arrays, more than this machine's memory of {memory}")
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def _memory() -> int:
    """Bytes of this machine's memory; where it does not say, as many as a file of arrays may have."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return InputKind.ARRAYS.largest
