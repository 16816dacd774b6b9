"""What a bundle says of itself: every file with its hash, the target, the graphs; sealed by a hash of all that."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ...core import layout
from ...core.errors import InputError
from ...core.files import atomic_write, explain_read_error, sha256
from ...core.inputs import InputKind, is_file, is_folder, parse_json, read_bytes
from ...core.records import Record, optional
from ...core.targets import Precision, Target, get_target

FORMAT = "vitrim-bundle/1"
FAMILY = FORMAT.partition("/")[0] + "/"  # begins the format of every version's bundles
_SEAL = "sha256"
LARGEST_MANIFEST = 16 << 20  # bytes; a real one has a few kB


@dataclass(frozen=True)
class FileEntry(Record):
    """A file of a bundle: SHA-256 in hexadecimal, and size."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class GraphPrecision(Record):
    """What a bundle's graphs are written in, and the nodes in them that stay in float32."""

    name: Precision = "fp32"
    float32_nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SizeEntry(Record):
    """What a bundle's manifest says of one further image size; see `Manifest`, whose fields these are."""

    preprocess: dict[str, Any] | None = optional()
    input: dict[str, Any] | None = optional()
    precision: GraphPrecision = GraphPrecision()
    engine: str | None = optional()
    bench: str | None = optional()


@dataclass(frozen=True)
class Manifest(Record):
    """What a bundle is, and the hash of every file in it.

    Attributes:
        format: of the bundle; this vitrim knows `FORMAT`.
        created: time, UTC.
        command: that exported it.
        versions: by package, of what decided the outcome; None where one was not installed.
        files: every file but the manifest itself.
        preprocess: how an image becomes the model's input, see `core.preprocess`.
        target: that it was exported for, see `core.targets`.
        batch: of its graphs.
        input: of its graphs: name, dtype, layout, shape, and where normalization happens.
        precision: of its graphs but the dense one, which is float32.
        engine: `built`, or why there is none.
        bench: where the graphs are to be timed; None where `bench.json` is in the bundle.
        sizes: by further image size, what differs there; None where the bundle has one size.
        extra: what a newer vitrim added.
    """

    format: str
    created: str
    command: tuple[str, ...]
    versions: dict[str, str | None]
    files: dict[str, FileEntry]
    preprocess: dict[str, Any] | None = optional()
    target: str | None = optional()
    batch: int | None = optional()
    input: dict[str, Any] | None = optional()
    precision: GraphPrecision = GraphPrecision()
    engine: str | None = optional()
    bench: str | None = optional()
    sizes: dict[str, SizeEntry] | None = optional()
    extra: dict[str, Any] | None = optional()

    def to_json(self) -> dict[str, Any]:
        """Plain data; what a newer vitrim added stands after the rest."""
        found = super().to_json()
        extra = found.pop("extra", {})
        return {**found, **extra}

    @classmethod
    def from_json(cls, data: object, where: str) -> Manifest:
        """The manifest that `to_json` wrote, or a newer vitrim; see `Record.from_json`."""
        if not isinstance(data, Mapping):
            return super().from_json(data, where)
        known = {one.name for one in fields(cls)} - {"extra"}
        extra = {key: value for key, value in data.items() if key not in known}
        own = {key: value for key, value in data.items() if key in known}
        return replace(super().from_json(own, where), extra=extra or None)

    @property
    def resolved_target(self) -> Target:
        """The target as data; `ort-cpu` where the manifest does not say."""
        return get_target(self.target or "ort-cpu")

    @property
    def own_size(self) -> str:
        """The image size of the files without one in their names."""
        told = (self.preprocess or {}).get("input_size")
        return layout.size_name(told[1:]) if isinstance(told, (list, tuple)) and len(told) == 3 else "one size"

    def of(self, size: str | None) -> Manifest:
        """What the manifest says of an image size, as if the bundle had no other: its files by their plain names.

        Args:
            size: see `layout.size_name`; None, or the bundle's own, is the manifest as it is.

        Raises:
            InputError: the bundle has no such size; those that it has are named.
        """
        if size is None or size == self.own_size:
            return self
        entry = (self.sizes or {}).get(size)
        if entry is None:
            has = ", ".join([self.own_size, *(self.sizes or {})])
            raise InputError(f"the bundle has no graphs for {size}; it has {has}: export it anew with export.sizes")
        plain = ((layout.by_size(name, size) or _shared(name), one) for name, one in self.files.items())
        files = {name: one for name, one in plain if name is not None}
        own = {one.name: getattr(entry, one.name) for one in fields(entry)}
        return replace(self, files=files, **own)

    def with_engine(self, size: str | None) -> Manifest:
        """The manifest of a bundle that has an engine of a size now."""
        if size is None or size == self.own_size:
            return replace(self, engine="built")
        sizes = dict(self.sizes or {})
        return replace(self, sizes={**sizes, size: replace(sizes[size], engine="built")})


def _shared(name: str) -> str | None:
    """The name of a file that all sizes of a bundle share; None of one that is a size's own."""
    return None if layout.is_sized(name) else name


def seal(data: Mapping[str, Any]) -> str:
    """A manifest's text with the hash of all the rest as its last entry, so that no byte of it can change unseen."""
    rest = {key: value for key, value in data.items() if key != _SEAL}
    digest = hashlib.sha256(json.dumps(rest, indent=2).encode()).hexdigest()
    return json.dumps({**rest, _SEAL: digest}, indent=2) + "\n"


def write_manifest(folder: Path, versions: Mapping[str, Any], command: Sequence[str], **entries: Any) -> None:
    """Write `manifest.json` with the SHA-256 and size of every other file of the folder.

    Args:
        folder: whose files are listed.
        versions: by package.
        command: that made them.
        entries: further fields of `Manifest`, as plain data.
    """
    plain = {"format": FORMAT, "created": "", "command": list(command), "versions": dict(versions), "files": {}}
    renew_manifest(folder, Manifest.from_json({**plain, **entries}, layout.MANIFEST))


def renew_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a manifest with the files that are there now, and the present time."""
    files = entries_of(folder, layout.MANIFEST)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    atomic_write(folder / layout.MANIFEST, seal(replace(manifest, created=now, files=files).to_json()))


def entries_of(folder: Path, listing: str) -> dict[str, FileEntry]:
    """Hash and size of every file of a folder, but of the one that will list them."""
    return {
        name: FileEntry(sha256(folder / name), (folder / name).stat().st_size)
        for name in sorted(files_in(folder))
        if name != listing and is_file(folder / name)
    }


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle, its own hash checked.

    Raises:
        InputError: the folder is no bundle, or its manifest was changed.
    """
    path = folder / layout.MANIFEST
    if not is_folder(folder):
        raise InputError(f"there is no bundle {folder}; `vitrim export RECIPE -o {folder}` makes one")
    text, data = parse_manifest(path)
    if data.get("format") != FORMAT or not isinstance(data.get("files"), dict):
        raise InputError(
            f"{path} is not a manifest of the format {FORMAT}; the bundle is damaged or newer than this vitrim"
        )
    try:
        whole = text == seal(data)
    except (RecursionError, ValueError):
        whole = False
    if not whole:
        raise InputError(f"{path} is not the file that was published (its hash differs); copy the bundle again")
    return Manifest.from_json({key: value for key, value in data.items() if key != _SEAL}, os.fspath(path))


def parse_manifest(path: Path) -> tuple[str, dict[str, Any]]:
    damaged = f"{path} cannot be read; the bundle is damaged: copy it again"
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_MANIFEST:
            raise InputError(
                f"{path} is a link, no regular file or far too large; the bundle is damaged: copy it again"
            )
        text = read_bytes(path, InputKind.JSON).decode()  # bytes, so that line ends are not translated
        data = parse_json(text, os.fspath(path), "the bundle is damaged: copy it again")
    except FileNotFoundError as error:
        raise InputError(f"{path.parent} is not a bundle: it has no {path.name}") from error
    except (OSError, ValueError) as error:
        raise InputError(damaged) from error
    if not isinstance(data, dict):
        raise InputError(damaged)
    return text, data


def open_size(
    root: Path, manifest: Manifest, size: str | int | Sequence[int] | None = None
) -> tuple[layout.Sized, Manifest]:
    """The files of an image size in a bundle, and what its manifest says of them.

    Args:
        root: the bundle.
        manifest: its own.
        size: see `layout.size_name`; None: the bundle's own.

    Raises:
        InputError: there is no such size, or the text is none.
    """
    name = None if size is None else layout.size_name(size)
    found = manifest.of(name)
    return layout.Sized(root, None if found is manifest else name), found


def files_in(root: Path) -> dict[str, os.stat_result]:
    """Everything below a folder that is no folder, by its path with slashes; links are not followed.

    Raises:
        InputError: the folder, or one in it, cannot be read, so that nobody knows what lies in it.
    """
    found: dict[str, os.stat_result] = {}
    try:
        for folder, folders, files in os.walk(root, onerror=raise_error):  # which keeps errors to itself otherwise
            for name in (*folders, *files):
                path = Path(folder) / name
                status = path.lstat()
                if not stat.S_ISDIR(status.st_mode):
                    found[path.relative_to(root).as_posix()] = status
    except OSError as error:
        raise explain_read_error(error, error.filename or root) from error
    return found


def raise_error(error: OSError) -> None:
    raise error
