"""Where caches lie that are bound to versions, GPU and graph: a key in the name, so that a stale one is never read.

Torch-free. TensorRT's timing caches may hold compiled kernels, and onnxruntime's engine caches are native code, so a
cache folder must be one that nobody else can write to.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ..core.errors import InputError
from ..core.files import explain_os_error, explain_read_error, sha256
from ..core.inputs import InputKind, open_file

VARIABLE = "VITRIM_CACHE"
_METADATA_PROPS = 14  # of ONNX's ModelProto
_VARINT, _BYTES = 0, 2  # of protobuf's wire format


def cache_root() -> Path:
    """The cache folder: $VITRIM_CACHE, else vitrim in $XDG_CACHE_HOME, else in ~/.cache. It may not exist yet."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vitrim"


def cache_key(**parts: Any) -> str:
    """A file name for what a cache is bound to: the version that a person looks for, and a hash of everything."""
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9.]+", "_", str(parts.get("tensorrt") or "unknown"))
    return f"{readable}-{digest[:24]}"


def private_folder(path: Path) -> Path:
    """Make a folder that only this user may write to.

    Raises:
        InputError: it is a link, another's, or anyone may write to it: what lies in it could be anybody's code.
        EnvironmentLackError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise explain_os_error(error, path) from error
    refuse_foreign_folder(path)
    return path


def refuse_foreign_folder(path: Path) -> None:
    """Refuse a cache folder that is another's.

    Raises:
        InputError: it is a link, not this user's, or anyone may write to it.
    """
    found = path.lstat()
    foreign = hasattr(os, "getuid") and found.st_uid != os.getuid()
    if not stat.S_ISDIR(found.st_mode) or foreign or found.st_mode & stat.S_IWOTH:
        raise InputError(
            f"{path} is no cache folder of your own (others own it, or may write to it): name another in {VARIABLE}"
        )


def graph_hash(path: str | os.PathLike[str]) -> str:
    """What a graph's caches are bound to: SHA-256 of the file without its metadata, and of the weights beside it.

    Metadata says where a graph came from, such as its recipe, and changes nothing that a runtime compiles.

    Raises:
        InputError: the file cannot be read.
    """
    weights = Path(f"{os.fspath(path)}.data")
    try:
        own = _hash_without_metadata(path)
    except OSError as error:
        raise explain_read_error(error, path) from error
    return hashlib.sha256((own + sha256(weights)).encode()).hexdigest() if weights.exists() else own


def _hash_without_metadata(path: str | os.PathLike[str]) -> str:
    """Hash of an ONNX file's fields but `metadata_props`, in their order; of the whole file where it is no ONNX."""
    digest = hashlib.sha256()
    size = os.path.getsize(path)
    with open_file(path, InputKind.GRAPH) as file:
        while file.tell() < size:
            tag = _read_varint(file)
            field, kind = divmod(tag, 8)
            if kind not in (_VARINT, _BYTES):
                return sha256(path)
            length = _read_varint(file)
            if length < 0:
                return sha256(path)
            if field == _METADATA_PROPS:
                file.seek(length, os.SEEK_CUR)
                continue
            digest.update(f"{tag}:{length};".encode())
            left = length if kind == _BYTES else 0
            while left > 0:
                piece = file.read(min(left, 1 << 20))
                if not piece:
                    return sha256(path)
                digest.update(piece)
                left -= len(piece)
    return digest.hexdigest()


def _read_varint(file: BinaryIO) -> int:
    """A number of protobuf's wire format; -1 at the end of the file."""
    number, shift = 0, 0
    while True:
        byte = file.read(1)
        if not byte or shift > 63:
            return -1
        number |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return number
        shift += 7


def timing_cache_path(folder: Path, device: Mapping[str, Any], graph: str) -> Path:
    """The timing cache of one graph on one TensorRT build, GPU and driver.

    Args:
        folder: of timing caches; made if it is not there.
        device: `engine.device_identity()`.
        graph: see `graph_hash`.

    Raises:
        InputError: others may write to the folder.
        EnvironmentLackError: the folder cannot be made.
    """
    bound = {key: device.get(key) for key in ("tensorrt", "gpu", "compute_capability", "driver", "cuda", "machine")}
    return private_folder(folder) / f"{cache_key(graph=graph, **bound)}.cache"


def describe_cache(root: Path) -> dict[str, Any]:
    """Files and bytes of a cache folder, for a report; zero where it is not there."""
    files = [path.stat().st_size for path in root.rglob("*") if path.is_file()] if root.is_dir() else []
    return {"folder": str(root), "files": len(files), "bytes": sum(files)}
