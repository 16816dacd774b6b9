"""Files of arrays that a user names: plain arrays alone, and no more of them than memory holds."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from .errors import InputError, excerpt
from .inputs import InputKind, open_file
from .memory import machine_memory

if TYPE_CHECKING:
    Arrays = dict[str, np.ndarray]
else:
    Arrays = dict  # Python 3.8, which run_on_device.py serves, has no dict[...]

_BARE = b"\x93NUMPY"  # begins an .npy


def read_arrays(path: str | os.PathLike[str], choose: Callable[[Sequence[str]], Iterable[str]] | None = None) -> Arrays:
    """Arrays of an .npz by name; objects, which are pickles that could run code, are refused.

    Args:
        path: the file.
        choose: of the names of all arrays, those that are read; it may raise `InputError`. None reads all.

    Raises:
        InputError: the file cannot be read, is no whole .npz, holds something else than arrays, or more than this
            machine's memory.
    """
    name = os.fspath(path)
    with open_file(path, InputKind.ARRAYS) as stream:
        if stream.read(len(_BARE)) == _BARE:
            raise InputError(f"{name} is a bare array, not an .npz; save it with np.savez(FILE, image=...)")
        stream.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # files of Python 2, names that stand twice: said below, or no fault
                found = _members(stream, name, choose)
        except (InputError, KeyboardInterrupt):
            raise
        except Exception as error:  # zipfile, its decompressors and numpy raise what they meet in a damaged file
            reason = excerpt(str(error), 100) or type(error).__name__
            raise InputError(f"{name} is not a whole .npz of plain arrays ({reason})") from error
    for key, value in found.items():
        if not isinstance(value, np.ndarray):
            raise InputError(f"{name} is not a whole .npz of plain arrays ({excerpt(key)} is none)")
    return found


def _members(stream: BinaryIO, name: str, choose: Callable[[Sequence[str]], Iterable[str]] | None) -> Arrays:
    with zipfile.ZipFile(stream) as packed:
        sizes = {entry.filename: entry.file_size for entry in packed.infolist()}
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as archive:
        keys = list(archive.files if choose is None else choose(archive.files))
        size = sum(sizes.get(f"{key}.npy", sizes.get(key, 0)) for key in keys)
        memory = machine_memory() or InputKind.ARRAYS.largest
        if size > memory:
            raise InputError(f"{name} holds {size} bytes of arrays, more than this machine's memory of {memory}")
        return {key: archive[key] for key in keys}
