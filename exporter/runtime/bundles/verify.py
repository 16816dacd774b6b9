"""A bundle, or another listed folder, checked byte for byte before anything in it is used."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...core import layout
from ...core.errors import InputError, excerpt
from ...core.files import sha256
from .manifest import FileEntry, Manifest, files_in, read_manifest


def verify_bundle(folder: str | os.PathLike[str], needs: Sequence[str] = ()) -> Manifest:
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
    present = files_in(root)
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
    present = files_in(root)
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
