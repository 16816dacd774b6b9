"""The folder that is shipped: published in one step, and checked byte for byte before anything in it is used."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core import layout
from ..core.answers import task_of
from ..core.arrays import read_arrays
from ..core.errors import InputError, excerpt
from ..core.files import atomic_write, explain_os_error, explain_read_error, sha256
from ..core.inputs import InputKind, is_file, is_folder, open_file, parse_json, read_bytes, read_json
from ..core.records import Record, optional
from ..core.targets import Precision, Target, get_target
from .publish import replace_folder

FORMAT = "vitrim-bundle/1"
_FAMILY = FORMAT.partition("/")[0] + "/"  # begins the format of every version's bundles
_CLAIM = re.compile(rb'"format"\s*:\s*"' + _FAMILY.encode())
_SEAL = "sha256"
_LARGEST_MANIFEST = 16 << 20  # bytes; a real one has a few kB


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
        for name in sorted(_present(folder))
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
    text, data = _parse_manifest(path)
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


def _parse_manifest(path: Path) -> tuple[str, dict[str, Any]]:
    damaged = f"{path} cannot be read; the bundle is damaged: copy it again"
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST_MANIFEST:
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


def verify(folder: str | os.PathLike[str], needs: Sequence[str] = ()) -> Manifest:
    """Check every file of a bundle, and the manifest itself.

    A hash finds damage and mistakes. It does not prove who made a bundle: whoever can change a file can change the
    manifest too, so take bundles only from whom you trust.

    Args:
        folder: the bundle.
        needs: files that must be in it.

    Returns:
        the manifest.

    Raises:
        InputError: a file is missing, changed, a link, or not in the manifest; it is named.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    present = _present(root)
    missing = [name for name in needs if name not in manifest.files]
    if missing:
        raise InputError(f"{root} has no {missing[0]}; export it anew")
    _verify_files(root, present, manifest.files, "bundle")
    extra = sorted(set(present) - set(manifest.files) - {layout.MANIFEST})
    if extra:
        raise InputError(f"{root}: {excerpt(extra[0])} is not in the manifest; remove it or publish the bundle anew")
    return manifest


def verify_files(root: Path, files: Mapping[str, FileEntry], listing: str, what: str) -> None:
    """Check that a folder holds some files as they were published, and nothing else.

    Args:
        root: the folder.
        files: by path in it.
        listing: the file that lists them.
        what: the folder is, for messages.

    Raises:
        InputError: a file is missing, changed, a link, or not listed; it is named.
    """
    present = _present(root)
    _verify_files(root, present, files, what)
    extra = sorted(set(present) - set(files) - {listing})
    if extra:
        raise InputError(f"{root}: {excerpt(extra[0])} is not in {listing}; remove it")


def _verify_files(root: Path, present: Mapping[str, os.stat_result], files: Mapping[str, FileEntry], what: str) -> None:
    for name, entry in files.items():
        called = f"{root}: {excerpt(name)}"
        if os.path.isabs(name) or ".." in Path(name).parts:
            raise InputError(f"{called} is outside the {what}; it is not used")
        if name not in present:
            raise InputError(f"{called} is missing; copy the {what} again")
        found = present[name]
        if not stat.S_ISREG(found.st_mode):
            kind = "a link" if stat.S_ISLNK(found.st_mode) else "no regular file"
            raise InputError(f"{called} is {kind}; it is not used")
        # The size first: it is cheap, and a file of another size need not be read.
        if found.st_size != entry.bytes or sha256(root / name) != entry.sha256:
            raise InputError(f"{called} is not the file that was published (its hash differs); copy the {what} again")


def _present(root: Path) -> dict[str, os.stat_result]:
    """Everything below a folder that is no folder, by its path with slashes; links are not followed.

    Raises:
        InputError: the folder, or one in it, cannot be read, so that nobody knows what lies in it.
    """
    found: dict[str, os.stat_result] = {}
    try:
        for folder, folders, files in os.walk(root, onerror=_raise):  # which keeps errors to itself otherwise
            for name in (*folders, *files):
                path = Path(folder) / name
                status = path.lstat()
                if not stat.S_ISDIR(status.st_mode):
                    found[path.relative_to(root).as_posix()] = status
    except OSError as error:
        raise explain_read_error(error, error.filename or root) from error
    return found


def _raise(error: OSError) -> None:
    raise error


def load_labels(folder: str | os.PathLike[str], manifest: Manifest) -> list[str] | None:
    """Names of the classes in their order, each in one line; None where the bundle has none.

    Raises:
        InputError: the file is no list.
    """
    if layout.LABELS not in manifest.files:
        return None
    path = Path(folder) / layout.LABELS
    found = read_json(path, "list of classes", "vitrim export")
    if not isinstance(found, list):
        raise InputError(f"{path} is no list of names; export the bundle anew")
    return [" ".join(str(label).split()) for label in found]


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


def load_golden(folder: str | os.PathLike[str] | layout.Sized) -> dict[str, np.ndarray]:
    """Golden inputs and outputs: `image` as the graph takes it, `logits` or `features`, perhaps `tokens`,
    `kept_<block>`, `merged_<block>`, `gap_<block>`, and `probabilities` and `classes` where the graph gives them.

    Raises:
        InputError: the file is missing or damaged, lacks the image or the logits, or an array has another form.
    """
    path = (folder if isinstance(folder, layout.Sized) else Path(folder)) / layout.GOLDEN
    try:
        golden = read_arrays(path)
    except InputError as error:
        raise InputError(f"{path} is missing or damaged; copy the bundle again ({error})") from error
    missing = [name for name in ("image", task_of(golden).output) if name not in golden]
    if missing:
        raise InputError(f"{path} is damaged: it has no {missing[0]}; export the bundle anew")
    images = len(golden["image"]) if golden["image"].ndim else 0
    for name, values in golden.items():
        kinds, dimensions, words = _form_of(name)
        if values.dtype.kind not in kinds or values.ndim not in dimensions or len(values) != images or not values.size:
            raise InputError(
                f"{path} is damaged: {excerpt(name)} is {excerpt(str(values.dtype), 40)} "
                f"{excerpt(str(list(values.shape)), 40)}, but must be {words}; export the bundle anew"
            )
    return golden


_FORMS = (
    (r"image", "fu", range(2, 5), "images [n, ...]"),
    (r"logits|probabilities", "f", (2,), "numbers [n, classes]"),
    (r"features", "f", (2,), "numbers [n, width]"),
    (r"tokens", "f", (3,), "numbers [n, tokens, width]"),
    (r"classes", "iu", (2,), "whole numbers [n, classes]"),
    (r"(kept|merged)_[0-9]{1,4}", "iu", (2,), "whole numbers [n, tokens]"),
    (r"gap_[0-9]{1,4}", "f", (1,), "numbers [n]"),
    (r"(kept|merged|gap)_.*", "", (), "named by a block"),
)


def _form_of(name: str) -> tuple[str, Sequence[int], str]:
    """What a golden array of a name must be: kinds of types, dimensions, and both in words."""
    found = next((form for form in _FORMS if re.fullmatch(form[0], name, re.DOTALL)), None)
    return ("biufcSUVmM", range(1, 65), "an array [n, ...]") if found is None else found[1:]


def refuse_foreign(final: Path) -> None:
    """Refuse to replace anything that is not a bundle, or holds files that vitrim did not write, or lies in a bundle.

    A bundle whose files are damaged may be replaced; that is how it is mended. What has no manifest is not walked
    through.

    Raises:
        InputError: `final` is a file, a link, a folder with other content, or a place in a bundle.
    """
    refuse_in_bundle(final)
    try:
        if final.is_symlink() or (final.exists() and not final.is_dir()):
            raise InputError(f"{final} is a file or a link; name a folder for the bundle")
        content = min((path.name for path in final.iterdir()), default=None) if final.is_dir() else None
    except OSError as error:
        raise explain_os_error(error, final) from error
    if content is None:
        return
    if not os.path.lexists(final / layout.MANIFEST):
        raise InputError(f"{final} exists and is not a vitrim bundle (it holds {content}); name another folder")
    try:
        _, data = _parse_manifest(final / layout.MANIFEST)
    except InputError as error:
        raise InputError(
            f"{final} is not replaced: its {layout.MANIFEST} cannot be read; remove the folder yourself"
        ) from error
    # Other programs have a manifest.json too.
    if not str(data.get("format", "")).startswith(_FAMILY):
        raise InputError(
            f"{final} exists and is not a vitrim bundle (its {layout.MANIFEST} is another's); name another folder"
        )
    files = data.get("files")
    try:
        foreign = _first_foreign(final, files if isinstance(files, dict) else {})
    except OSError as error:
        raise explain_read_error(error, error.filename or final) from error
    if foreign is not None:
        raise InputError(f"{final} is not replaced: {foreign} in it is not vitrim's; move it, or name another folder")


def _first_foreign(folder: Path, files: Mapping[str, Any]) -> str | None:
    """The first thing below a bundle that its manifest does not have, or has by a name that is not vitrim's and with
    another hash; None where there is none.
    """
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in sorted([*links, *names]):
            path = Path(parent, name)
            inside = path.relative_to(folder).as_posix()
            if inside != layout.MANIFEST and not (inside in files and _may_go(path, inside, files[inside])):
                return inside
    return None


def _may_go(path: Path, name: str, entry: object) -> bool:
    """Whether a file is vitrim's: by a name that it writes, or, of another version's, by its hash."""
    if layout.is_own_name(name):
        return True
    if path.is_symlink() or not path.is_file() or not isinstance(entry, Mapping):
        return False
    return path.stat().st_size == entry.get("bytes") and sha256(path) == entry.get("sha256")


def is_bundle(folder: Path) -> bool:
    """Whether a folder was published as a bundle, be it whole or damaged."""
    try:
        with open_file(folder / layout.MANIFEST, InputKind.JSON) as stream:
            return _CLAIM.search(stream.read(_LARGEST_MANIFEST)) is not None
    except (InputError, OSError):
        return False


def refuse_in_bundle(path: str | os.PathLike[str]) -> None:
    """Refuse to write into any bundle, also through links: its files would no longer be those of its manifest.

    Raises:
        InputError: a folder that the path lies in is a bundle.
    """
    try:
        parents = Path(path).resolve().parents
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a zero byte
        raise InputError(f"{os.fspath(path)} is no path that can be written: {str(error).lower()}") from error
    for folder in parents:
        if is_bundle(folder):
            raise InputError(
                f"{os.fspath(path)} lies in the bundle {folder}, which stays as it was published; "
                "name a place outside it"
            )


def refuse_inside(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Refuse to write into a bundle: its files would no longer be those of its manifest.

    Raises:
        InputError: the path lies in the folder.
    """
    if Path(folder).resolve() in Path(path).resolve().parents:
        raise InputError(
            f"{os.fspath(path)} lies in the bundle, which stays as it was published; name a file outside it"
        )
    refuse_in_bundle(path)


def publish(staging: Path, final: Path) -> None:
    """Put a finished bundle in place of `final` in one step; a reader sees the old bundle or the new one.

    Raises:
        InputError: `final` is something else than a bundle.
        EnvironmentLackError: the file system refuses.
    """
    refuse_foreign(final)
    replace_folder(staging, final, refuse_foreign)
