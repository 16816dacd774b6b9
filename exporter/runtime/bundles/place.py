"""Where a bundle may be published, and what may be written beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core import layout
from ...core.errors import InputError
from ...core.files import explain_os_error, explain_read_error, sha256
from ...core.inputs import InputKind, open_file
from ..publish import replace_folder
from .manifest import FAMILY, LARGEST_MANIFEST, parse_manifest, raise_error

_CLAIM = re.compile(rb'"format"\s*:\s*"' + FAMILY.encode())


def publish_bundle(staging: Path, final: Path) -> None:
    """Put a finished bundle in place of `final` in one step; a reader sees the old bundle or the new one.

    Raises:
        InputError: `final` is something else than a bundle.
        EnvironmentLackError: the file system refuses.
    """
    refuse_foreign(final)
    replace_folder(staging, final, refuse_foreign)


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
        _, data = parse_manifest(final / layout.MANIFEST)
    except InputError as error:
        raise InputError(
            f"{final} is not replaced: its {layout.MANIFEST} cannot be read; remove the folder yourself"
        ) from error
    # Other programs have a manifest.json too.
    if not str(data.get("format", "")).startswith(FAMILY):
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
    for parent, folders, names in os.walk(folder, onerror=raise_error):
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
            return _CLAIM.search(stream.read(LARGEST_MANIFEST)) is not None
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
