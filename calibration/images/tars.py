"""Photos in tar files, found once by their offsets: ImageNet's, webdataset's, or a folder of class folders as a tar.

ILSVRC2012_img_train.tar     a tar of tars, one a class
n01440764.tar, ...           a folder of those
shard-000000.tar, ...        webdataset: `key.jpg` beside `key.cls`, which holds the class
val.tar                      folders as `labels` knows them, or photos alone
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from ...exporter.core.errors import InputError, excerpt
from ...exporter.core.inputs import InputKind, open_file
from .folders import Tree, is_leftover, is_picture_name

TAR, CLASS = ".tar", ".cls"
_LARGEST_CLASS = 32  # bytes of a .cls file


@dataclass(frozen=True)
class TarPhoto:
    """One photo in a tar file.

    Attributes:
        file: the outer tar.
        inner: its path in there; a class's own tar counts as a folder of that name.
        offset, size: of its bytes.
    """

    file: Path
    inner: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        """Path of the tar, and the path in it."""
        return f"{self.file}/{self.inner}"

    def bytes(self) -> bytes:
        """The encoded photo.

        Raises:
            InputError: the tar is gone, or shorter than it was.
        """
        with open_file(self.file, InputKind.ARCHIVE) as stream:
            found = _cut(stream, self.offset, self.size)
        if len(found) < self.size:
            raise InputError(f"{self.name}: the tar file has become shorter; fetch it again")
        return found


@dataclass(frozen=True)
class Listed:
    """What tar files hold.

    Attributes:
        photos: in order of the files, then as they lie in them.
        classes: [photos] class indices, where every photo has a `.cls` beside it; else None.
        skipped: paths of what is no picture.
    """

    photos: list[TarPhoto]
    classes: np.ndarray | None
    skipped: list[str]

    def tree(self, root: Path) -> tuple[Tree, dict[Path, TarPhoto]]:
        """The photos as if the tar files were unpacked below a folder, and which photo lies at which path.

        Folders that all photos lie in, such as `val`, are left out; so is that of the photos of one class alone.
        """
        inner = [PurePosixPath(_below(photo, root)) for photo in self.photos]
        levels = zip(*(path.parent.parts for path in inner), strict=False)
        common = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, levels))
        at = {root.joinpath(*path.parts[common:]): photo for path, photo in zip(inner, self.photos, strict=True)}
        tree = Tree(root, skipped=list(self.skipped))
        for place in sorted(at):
            parts = place.relative_to(root).parts
            (tree.folders.setdefault(parts[0], []) if len(parts) > 1 else tree.flat).append(place)
        return tree, at


def list_tars(files: Sequence[Path]) -> Listed:
    """Find every photo of tar files; only headers and `.cls` files are read.

    Raises:
        InputError: one is no tar file, is compressed or cut off.
    """
    photos: list[TarPhoto] = []
    classes: dict[str, int] = {}
    skipped: list[str] = []
    for file in files:
        with open_file(file, InputKind.ARCHIVE) as stream:
            for found in _members(stream, file, 0, ""):
                suffix = PurePosixPath(found.inner).suffix.lower()
                if suffix == CLASS:
                    classes[_key(found)] = _class_of(found, stream)
                elif is_picture_name(PurePosixPath(found.inner)):
                    photos.append(found)
                else:
                    skipped.append(found.inner)
    known = [classes.get(_key(photo)) for photo in photos]
    whole = bool(known) and None not in known
    return Listed(photos, np.array(known, dtype=np.int64) if whole else None, skipped)


def _members(stream: BinaryIO, file: Path, start: int, before: str) -> Iterator[TarPhoto]:
    """Every regular member of a tar, and of the tars in it."""
    stream.seek(start)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                inner = before + str(PurePosixPath(member.name))
                if not member.isreg() or member.issparse() or _aside(inner):
                    continue
                if not before and inner.lower().endswith(TAR):
                    place = stream.tell()
                    yield from _members(stream, file, member.offset_data, inner[: -len(TAR)] + "/")
                    stream.seek(place)
                else:
                    yield TarPhoto(file, inner, member.offset_data, member.size)
    except tarfile.TarError as error:
        advice = "unpack it, or fetch it again; compressed ones cannot be read by index"
        raise InputError(f"{file} is no plain, whole tar file ({excerpt(str(error))}); {advice}") from error


def _aside(inner: str) -> bool:
    return any(is_leftover(part) for part in PurePosixPath(inner).parts)


def _cut(stream: BinaryIO, offset: int, size: int) -> bytes:
    stream.seek(offset)
    return stream.read(size)


def _key(photo: TarPhoto) -> str:
    """What files of one webdataset sample share: the path up to the first dot of the name."""
    folder, _, name = photo.name.rpartition("/")
    return f"{folder}/{name.partition('.')[0]}"


def _class_of(found: TarPhoto, stream: BinaryIO) -> int:
    place = stream.tell()
    text = _cut(stream, found.offset, min(found.size, _LARGEST_CLASS + 1)).decode("ascii", "replace").strip()
    stream.seek(place)
    if not text.isdecimal() or found.size > _LARGEST_CLASS:
        raise InputError(f"{found.name} must hold the index of a class, but holds {excerpt(text, 40)!r}")
    return int(text)


def _below(photo: TarPhoto, root: Path) -> str:
    """Of a folder of tars, each counts as a folder of its name; one tar alone does not."""
    return photo.inner if photo.file == root else f"{photo.file.stem}/{photo.inner}"
