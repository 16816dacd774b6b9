"""Files that are no checkpoints: each is named for what it is, with what to do."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SMALL
from safetensors.torch import save
from torch import nn

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.checkpoints.foreign import refuse_foreign
from vitrim.exporter.pruning.checkpoints.tensors import read_state_dict
from vitrim.exporter.pruning.load import create_model

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 22\n"
INDEX = json.dumps({"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return stream.getvalue()


def saved(write: Callable[[io.BytesIO], None]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("w.pth")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"abc"))
    return stream.getvalue()


def onnx_graph() -> bytes:
    import onnx

    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [x])
    return bytes(onnx.helper.make_model(graph).SerializeToString())


def torch_zip() -> bytes:
    return saved(lambda stream: torch.save({"a": torch.zeros(1000)}, stream))


FILES: list[tuple[str, Callable[[], bytes], str]] = [
    ("w.safetensors", lambda: b"", "is empty; fetch it again"),
    ("w.pth", lambda: b"", "is empty; fetch it again"),
    ("w.bin", lambda: b"\n \n", "is a file of blanks; fetch it again"),
    ("w.safetensors", lambda: LFS, "is a git-LFS pointer, not the weights; fetch them with: git lfs pull"),
    ("w.pth", lambda: LFS, "is a git-LFS pointer"),
    ("w.safetensors", lambda: b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page, not weights"),
    ("w.pth", lambda: b"\n\n <HTML>", "is a web page.*/resolve/"),
    ("w.pth", lambda: b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
    ("w.pth", onnx_graph, "is an ONNX graph; give the PyTorch weights that it was made from"),
    ("w.onnx", onnx_graph, "is an ONNX graph"),
    ("w.safetensors", onnx_graph, "is an ONNX graph"),
    ("w.pb", lambda: b"\x08\x01\x12\x05abcde", "is a TensorFlow graph"),
    ("w.pth", lambda: zipped(), "is an empty zip archive"),
    ("w.pth", lambda: zipped("readme.txt", "b"), r"is a zip archive of readme\.txt, b, not a PyTorch"),
    ("w.pth", lambda: zipped("a\x1b[31mb"), r"is a zip archive of a\\x1b\[31mb, not"),
    ("w.npz", lambda: saved(lambda stream: np.savez(stream, a=np.zeros(3))), r"is an archive of NumPy arrays"),
    ("w.keras", lambda: zipped("config.json", "model.weights.h5"), "is a Keras model"),
    ("w.npy", lambda: saved(lambda stream: np.save(stream, np.zeros(3))), "is a NumPy array"),
    ("w.h5", lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file, such as Keras writes"),
    ("w.tflite", lambda: b"\x1c\0\0\0TFL3" + bytes(100), "is a TensorFlow Lite model"),
    ("w.gguf", lambda: b"GGUF\3\0\0\0", "is a GGUF file"),
    ("w.plan", lambda: b"ftrt\0\0\0\0", "is a TensorRT engine"),
    ("w.pth.gz", lambda: gzip.compress(b"abc"), "is a gzip archive; unpack it"),
    ("w.xz", lambda: lzma.compress(b"abc"), "is an xz archive"),
    ("w.bz2", lambda: bz2.compress(b"abc"), "is a bzip2 archive"),
    ("w.tar", tarred, "is a tar archive; unpack it and name the checkpoint inside"),
    ("w.png", lambda: b"\x89PNG\r\n\x1a\n", "is a picture"),
    ("w.pdf", lambda: b"%PDF-1.7", "is a PDF document"),
    ("index.json", lambda: INDEX.encode(), r"index of a checkpoint in 2 files, such as model-1"),
    ("w.json", lambda: b'{"weight_map": 5}', "is a JSON file; name the checkpoint"),
    ("w.json", lambda: b'{"a": ' + b"[" * 9000, "is a JSON file"),
    ("w.txt", lambda: b"See the releases page.\n", r"is a text file that begins with 'See the releases page\.'"),
    ("w.txt", lambda: "größer\x1b[31m".encode() * 2000, r"is a text file that begins with 'größer\\\\x1b"),
    ("w.txt", lambda: "abc".encode("utf-16"), "is a text file in UTF-16"),
    ("w.safetensors", torch_zip, r"is a PyTorch file under the name of safetensors; rename it to \.pth"),
    ("w.safetensors", lambda: pickle.dumps({"a": 1}), "is a PyTorch pickle under the name of safetensors; rename"),
    ("w.pth", lambda: torch_zip()[:-300], "without its end.*truncated; fetch it again"),
    ("w.pth", lambda: torch_zip()[:40], "truncated"),
    ("w.safetensors", lambda: b"\x40\0\0\0\0\0\0\0{" + bytes(5), "is not a whole safetensors file.*truncated: fetch"),
    ("w.bin", lambda: bytes(range(144, 256)) * 9, "is not a whole safetensors file"),
    ("w.pth", lambda: pickle.dumps({"a": 1}, 2)[:-3], "truncated: fetch it again"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "said"), FILES)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, name: str, make: Callable[[], bytes], said: str) -> None:
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(InputError, match=said) as caught:
        create_model("vit_tiny_patch16_224", args=SMALL, checkpoint=path)
    assert str(caught.value).isprintable()


def test_a_torchscript_archive_is_told_how_to_give_its_weights(tmp_path: Path) -> None:
    layer = nn.Linear(2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch lets go of TorchScript
        torch.jit.trace(layer, torch.zeros(1, 2)).save(str(tmp_path / "w.pt"))
    with pytest.raises(InputError, match=r"is a TorchScript archive.*torch\.jit\.load\(FILE\)\.state_dict\(\)"):
        create_model("vit_tiny_patch16_224", args=SMALL, checkpoint=tmp_path / "w.pt")


def test_a_program_of_torch_export_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.pt2").write_bytes(zipped("w/archive_format", "w/models/model.json"))
    with pytest.raises(InputError, match=r"is a program of torch\.export"):
        refuse_foreign(tmp_path / "w.pt2")


def test_a_folder_says_which_file_in_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; name the checkpoint itself"):
        create_model("vit_tiny_patch16_224", args=SMALL, checkpoint=tmp_path)
    (tmp_path / "weights.safetensors").touch()
    with pytest.raises(InputError, match=r"is a folder; name the file in it, such as weights\.safetensors"):
        create_model("vit_tiny_patch16_224", args=SMALL, checkpoint=tmp_path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_a_header_whose_length_looks_like_a_pickle_passes(tmp_path: Path, name: str) -> None:
    """Every 32nd safetensors file begins with the byte of a pickle: its header's length."""
    state = {"a": torch.zeros(2)}
    data = next(made for made in (save(state, {"x": "y" * n}) for n in range(200)) if made[:1] == b"\x80")
    (tmp_path / name).write_bytes(data)
    refuse_foreign(tmp_path / name)
    assert list(read_state_dict(tmp_path / name)) == ["a"]


def test_a_whole_checkpoint_passes(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(torch_zip())
    refuse_foreign(tmp_path / "w.pth")
