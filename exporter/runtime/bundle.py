"""The folder that is shipped: published in one step, and checked byte for byte before anything in it is used."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import atomic_write, explain_os_error, sha256

MANIFEST = "manifest.json"
FORMAT = "vitrim-bundle/1"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def write_manifest(folder: Path, versions: Mapping[str, Any], command: Sequence[str], **extra: Any) -> None:
    """Write `manifest.json` with the SHA-256 and size of every other file of the folder."""
    files = {
        str(path.relative_to(folder)): {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    data = {
        "format": FORMAT,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": list(command),
        "versions": dict(versions),
        "files": files,
        **extra,
    }
    atomic_write(folder / MANIFEST, json.dumps(data, indent=2) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle.

    Raises:
        InputError: the folder is no bundle.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise InputError(f"there is no bundle {folder}; `vitrim export RECIPE -o {folder}` makes one")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder} is not a bundle: it has no {MANIFEST}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read; the bundle is damaged: copy it again") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("files"), dict):
        raise InputError(
            f"{path} is not a manifest of the format {FORMAT}; the bundle is damaged or newer than this vitrim"
        )
    return data


def verify(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Check every file of a bundle against its manifest.

    A hash finds damage and mistakes. It does not prove who made a bundle: whoever can change a file can change the
    manifest too, so take bundles only from whom you trust.

    Returns:
        the manifest.

    Raises:
        InputError: a file is missing, changed, a link, or not in the manifest; it is named.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    present = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or not path.is_dir()}
    for name, entry in manifest["files"].items():
        path = root / name
        if os.path.isabs(name) or ".." in Path(name).parts or path.is_symlink():
            raise InputError(f"{root}: {name} is a link or lies outside the bundle; it is not used")
        if name not in present:
            raise InputError(f"{root}: {name} is missing; copy the bundle again")
        if not isinstance(entry, dict) or sha256(path) != entry.get("sha256"):
            raise InputError(
                f"{root}: {name} is not the file that was published (its hash differs); copy the bundle again"
            )
    extra = sorted(present - set(manifest["files"]) - {MANIFEST})
    if extra:
        raise InputError(f"{root}: {extra[0]} is not in the manifest; remove it or publish the bundle anew")
    return manifest


def load_golden(folder: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Golden inputs and outputs: `image`, `logits`, `kept_<block>`, `gap_<block>`.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = Path(folder) / "golden.npz"
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path} is missing or damaged; copy the bundle again") from error


def refuse_foreign(final: Path) -> None:
    """Refuse to replace anything that is not a bundle.

    Raises:
        InputError: `final` is a file, a link, or a folder with other content.
    """
    if final.is_symlink() or (final.exists() and not final.is_dir()):
        raise InputError(f"{final} is a file or a link; name a folder for the bundle")
    if not final.is_dir() or (final / MANIFEST).is_file():
        return
    try:
        content = next(final.iterdir(), None)
    except OSError as error:
        raise explain_os_error(error, final) from error
    if content is not None:
        raise InputError(f"{final} exists and is not a vitrim bundle (it holds {content.name}); name another folder")


def staging_folder(final: Path) -> Path:
    """A new empty folder beside `final`, on the same file system.

    Raises:
        EnvironmentLackError: the place cannot be written.
    """
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{final.name}.{os.getpid()}.", suffix=".staging", dir=final.parent))
    except OSError as error:
        raise explain_os_error(error, final) from error


def sweep(final: Path) -> None:
    """Remove staging folders that killed runs left beside `final`; those of live processes stay."""
    for path in final.parent.glob(f".{final.name}.*.staging"):
        owner = path.name.split(".")[-3]
        if not (owner.isdigit() and _alive(int(owner))):
            shutil.rmtree(path, ignore_errors=True)
    retired = final.parent / f".{final.name}.retired"
    if retired.is_dir():
        if final.exists():
            shutil.rmtree(retired, ignore_errors=True)
        else:  # killed between the two renames of a system without exchange: the old bundle comes back
            retired.rename(final)


def _alive(process: int) -> bool:
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def publish(staging: Path, final: Path) -> None:
    """Put a finished folder in place of `final` in one step; a reader sees the old bundle or the new one.

    Linux exchanges the two names atomically. Elsewhere the old one is renamed away first, and `sweep` brings it back
    if the process dies in between.

    Raises:
        InputError: `final` is something else than a bundle.
        EnvironmentLackError: the file system refuses.
    """
    refuse_foreign(final)
    try:
        _sync(staging)
        os.chmod(staging, 0o755)
        if not final.exists():
            staging.rename(final)
        elif _exchange(staging, final):
            shutil.rmtree(staging, ignore_errors=True)
        else:
            retired = final.parent / f".{final.name}.retired"
            shutil.rmtree(retired, ignore_errors=True)
            final.rename(retired)
            staging.rename(final)
            shutil.rmtree(retired, ignore_errors=True)
    except OSError as error:
        raise explain_os_error(error, final) from error


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        if path.is_file() or (path.is_dir() and hasattr(os, "O_DIRECTORY")):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names atomically; False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))
