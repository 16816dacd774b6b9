"""What a file is that was given as a checkpoint and is none, and what to do about it."""

from __future__ import annotations

import json
import os
import re
import zipfile
from pathlib import Path

from ...core.errors import InputError, excerpt
from ...core.inputs import InputKind, open_file, read_bytes

_HEAD = 4096  # bytes that tell most kinds
_LONGEST_HEADER = 100_000_000  # bytes that safetensors allow
_UNPACK = "unpack it and name the checkpoint inside"
_CONVERT = "load it where it was made and save its weights with safetensors"
# By their first bytes: what it is, and what to do.
_MAGICS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a git-LFS pointer, not the weights", "fetch them with: git lfs pull"),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x93NUMPY", "a NumPy array", "save a whole state dict: safetensors.numpy.save_file({name: array, ...}, FILE)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, such as Keras writes", "give PyTorch weights of the timm model"),
    (b"GGUF", "a GGUF file of a language model", "give PyTorch weights of the timm model"),
    (b"ftrt", "a TensorRT engine", "give the PyTorch weights that it was made from"),
    (b"ptrt", "a TensorRT engine", "give the PyTorch weights that it was made from"),
    (b"%PDF", "a PDF document", "name the checkpoint"),
    (b"\x89PNG", "a picture", "name the checkpoint"),
    (b"\xff\xd8\xff", "a picture", "name the checkpoint"),
    (b"GIF8", "a picture", "name the checkpoint"),
    (b"RIFF", "a picture or a sound", "name the checkpoint"),
    (b"\x7fELF", "a program", "name the checkpoint"),
)
_ONNX = re.compile(rb"\x08[\x01-\x1f](\x12|\x1a|\x22|\x2a|\x30|\x3a|\x42)", re.DOTALL)  # ir_version and a field


def refuse_foreign(path: Path) -> None:
    """Refuse a file that is no checkpoint, by what it is; what may be a checkpoint passes.

    Raises:
        InputError: naming what the file is and what to do; or it cannot be read.
    """
    if os.path.isdir(path):
        raise InputError(f"{_shown(path)} is a folder; {_in_folder(path)}")
    with open_file(path, InputKind.CHECKPOINT) as stream:
        head = stream.read(_HEAD)
    found = _told_by(head, path)
    if found is not None:
        what, remedy = found
        raise InputError(f"{_shown(path)} is {what}; {remedy}")


def looks_like_safetensors(head: bytes) -> bool:
    """Whether a file begins as safetensors do: with the length of a JSON object, and the object."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _LONGEST_HEADER


def _shown(path: Path) -> str:
    return excerpt(os.fspath(path), 300)


def _told_by(head: bytes, path: Path) -> tuple[str, str] | None:
    """What a file is and what to do; None for what may be a checkpoint."""
    if not head:
        return "empty", "fetch it again"
    if looks_like_safetensors(head):
        return None
    for magic, what, remedy in _MAGICS:
        if head.startswith(magic):
            return what, remedy
    if head[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model", "give PyTorch weights of the timm model"
    if head.startswith(b"PK"):
        return _zip(path)
    if path.suffix == ".safetensors" and head.startswith(b"\x80"):
        return "a PyTorch pickle under the name of safetensors", "rename it to .pth"
    if path.suffix == ".pb":
        return "a TensorFlow graph", "give PyTorch weights of the timm model"
    if _ONNX.match(head):
        return "an ONNX graph", "give the PyTorch weights that it was made from"
    return _text(head, path)


def _text(head: bytes, path: Path) -> tuple[str, str] | None:
    """A web page, JSON or other text."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "a text file in UTF-16", "name the checkpoint"
    text = head.decode("utf-8", errors="ignore").lstrip("\ufeff \t\r\n")
    if any(char < " " and char not in "\t\r\n\f\x1b" for char in text) or len(text.encode()) < len(head) - 16:
        return None
    if not text:
        return "a file of blanks", "fetch it again"
    if text[:300].lower().startswith(("<!doctype", "<html", "<?xml", "<head", "<svg", "<")):
        return (
            "a web page, not weights",
            "the download got a page, such as one that asks to log in; fetch the file itself (on Hugging Face: "
            "/resolve/ in the link, not /blob/)",
        )
    if text.startswith("{"):
        return _json(path)
    return f"a text file that begins with {excerpt(text, 40)!r}", "name the checkpoint, or fetch it again"


def _json(path: Path) -> tuple[str, str]:
    try:
        data = json.loads(read_bytes(path, InputKind.JSON))
    except (InputError, ValueError, RecursionError):
        data = None
    if isinstance(data, dict) and isinstance(data.get("weight_map"), dict):
        parts = sorted({str(part) for part in data["weight_map"].values()})
        return (
            f"the index of a checkpoint in {len(parts)} files, such as {excerpt(parts[0]) if parts else 'none'}",
            "give it under its own name, which ends in .index.json, with those files beside it",
        )
    return "a JSON file", "name the checkpoint"


def _zip(path: Path) -> tuple[str, str] | None:
    """What a zip archive is that PyTorch's checkpoints are not; None for one of those."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError):
        return "a PyTorch file without its end, or a damaged archive: it may be truncated", "fetch it again"
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return (
            "a TorchScript archive, which holds a program",
            "save its weights where you trust it: "
            "safetensors.torch.save_file(torch.jit.load(FILE).state_dict(), 'weights.safetensors')",
        )
    if "archive_format" in inner or any(name.endswith("models/model.json") for name in names):
        return "a program of torch.export", _CONVERT
    if "data.pkl" in inner:
        if path.suffix == ".safetensors":
            return "a PyTorch file under the name of safetensors", "rename it to .pth"
        return None
    if any(name.endswith("model.weights.h5") for name in names):
        return "a Keras model", "give PyTorch weights of the timm model"
    if names and all(name.endswith(".npy") for name in names):
        return (
            "an archive of NumPy arrays (.npz)",
            "save them with safetensors.numpy.save_file({name: array, ...}, FILE)",
        )
    if not names:
        return "an empty zip archive", "fetch it again"
    held = ", ".join(excerpt(name, 40) for name in names[:3])
    return f"a zip archive of {held}{', ...' if len(names) > 3 else ''}, not a PyTorch checkpoint", _UNPACK


def _in_folder(path: Path) -> str:
    """What to name instead of a folder."""
    try:
        names = sorted(name for name in os.listdir(path) if name.endswith((".safetensors", ".pth", ".pt", ".bin")))
    except OSError:
        names = []
    return f"name the file in it, such as {excerpt(names[0])}" if names else "name the checkpoint itself"
