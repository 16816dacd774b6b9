"""Writes the graphs of one folder so that they share their weights, and share them with the folder before.

::

    trace/   dense.onnx        pruned.onnx        weights-1f0c....data
    passes/  dense.fused.onnx  pruned.fused.onnx  weights-1f0c....data, a link; weights-7be2....data, new ones

A data file is named after what it holds and never changes once it has its name, so folders may share it by hard links,
two files of one name are equal, and a graph's own bytes tell which weights it has.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import TensorProto, numpy_helper

from ..core.files import atomic_write, explain_os_error, link, ordinary_mode
from .weights import LEAST, Place, Weights, goes_aside, is_external, place_of, put_aside, size_of

ALIGNMENT = 4096  # ONNX asks for it: a page, so that a tensor can be mapped
PENDING = "weights-pending.data"  # stands in a graph until the file has its name
_OURS = re.compile(r"weights-[0-9a-f]{16}\.data")


class WeightStore:
    """The weights and graphs of a folder that is being written; a context manager.

    Leaving it without an error names the data file and writes the graphs; with one, nothing is left.

    Args:
        folder: made if it is not there.
        least: bytes of a tensor that goes into the data file.

    Raises:
        EnvironmentLackError: the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], least: int = LEAST) -> None:
        self.folder, self.least = Path(folder), least
        self._places: dict[bytes, Place] = {}
        self._taken: dict[str, Path] = {}
        self._graphs: dict[str, onnx.ModelProto] = {}
        self._content = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._end = 0

    def __enter__(self) -> WeightStore:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_os_error(error, self.folder) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            if self._file is not None:
                self._file.close()
                Path(self._file.name).unlink(missing_ok=True)

    def put(self, data: Any) -> Place:
        """Write some bytes, unless equal ones are there.

        Args:
            data: a buffer.

        Raises:
            EnvironmentLackError: the disk refuses.
        """
        digest = hashlib.sha256(data).digest()
        if digest not in self._places:
            length, offset = memoryview(data).nbytes, -(-self._end // ALIGNMENT) * ALIGNMENT
            try:
                file = self._opened()
                file.seek(offset)
                file.write(data)
            except OSError as error:
                raise explain_os_error(error, self.folder) from error
            self._content.update(digest)
            self._places[digest] = Place(PENDING, offset, length)
            self._end = offset + length
        return self._places[digest]

    def share(self, model: onnx.ModelProto, name: str, weights: Weights) -> None:
        """Take a graph that a store has written; what later graphs have in common with it stays in its file.

        Args:
            model, name, weights: see `save`.

        Raises:
            InputError, EnvironmentLackError: see `save`.
        """
        self.save(model, name, weights)
        for tensor in filter(is_external, model.graph.initializer):
            held = weights.array(tensor).reshape(-1).view(np.uint8).data
            self._places.setdefault(hashlib.sha256(held).digest(), place_of(tensor))

    def save(self, model: onnx.ModelProto, name: str, weights: Weights | None = None) -> None:
        """Take a graph, to be written with the others.

        Args:
            model: its large tensors go into the data file; it is not changed.
            name: of its file.
            weights: where those are that it has beside it already; a folder that a store has written is linked to,
                anything else copied.

        Raises:
            InputError: a weight is not where the graph says.
            EnvironmentLackError: the disk refuses.
        """
        self._graphs[name] = with_initializers(model, lambda tensor: self._kept(tensor, weights))

    def _kept(self, tensor: TensorProto, weights: Weights | None) -> TensorProto:
        if not is_external(tensor):
            if not goes_aside(tensor.data_type, size_of(tensor), self.least):
                return tensor
            return put_aside(tensor, self.put(raw_bytes(tensor)))
        file = place_of(tensor).file
        if file == PENDING or (weights is None and file in self._taken):
            return tensor
        source = weights or Weights(self.folder)
        path, place = source.find(tensor)
        if _OURS.fullmatch(place.file):
            self._taken[place.file] = path
            return tensor
        with open(path, "rb") as stream:
            stream.seek(place.offset)
            return put_aside(tensor, self.put(stream.read(place.length)))

    def _opened(self) -> BinaryIO:
        if self._file is None:
            handle, name = tempfile.mkstemp(prefix=".weights-", suffix=".tmp", dir=self.folder)
            os.close(handle)
            self._file = open(name, "wb")  # noqa: SIM115  closed when the store is left
        return self._file

    def _publish(self) -> None:
        """Write everything under its name; what a failure leaves behind is removed, but for what was there before."""
        final = self.folder / f"weights-{self._content.hexdigest()[:16]}.data"
        at, made = self.folder, list[Path]()
        try:
            for name, source in self._taken.items():
                at = self.folder / name
                if not at.exists():  # else it is of equal content, or it would have another name
                    made.append(at)
                    link(source, at)
            if self._file is not None:
                at = final
                made += [] if at.exists() else [at]
                self._name_file(at)
            for name, model in self._graphs.items():
                at = self.folder / name
                made += [] if at.exists() else [at]
                atomic_write(at, _settled(model, final.name).SerializeToString())
        except BaseException as error:
            for path in made:
                path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise explain_os_error(error, at) from error
            raise

    def _name_file(self, final: Path) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        os.chmod(self._file.name, ordinary_mode(0o444))  # other folders may share it
        os.replace(self._file.name, final)


def _settled(model: onnx.ModelProto, file: str) -> onnx.ModelProto:
    """A graph whose weights are in a file that has its name now; changed in place."""
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value == PENDING:
                entry.value = file
    return model


def raw_bytes(tensor: TensorProto) -> bytes:
    """The bytes of a tensor that holds its own data, as `raw_data` has them."""
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    return bytes(numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data)


def with_initializers(model: onnx.ModelProto, change: Callable[[TensorProto], TensorProto]) -> onnx.ModelProto:
    """A model with other initializers, each made of its own, one by one. It is not changed."""
    lean = onnx.ModelProto()
    copy_fields(model, lean, {"graph"})
    copy_fields(model.graph, lean.graph, {"initializer"})
    for tensor in model.graph.initializer:
        lean.graph.initializer.append(change(tensor))
    return lean


def copy_fields(source: Message, target: Message, without: set[str]) -> None:
    """Fields of one message into an empty one of its type, but for some."""
    for field, value in source.ListFields():
        if field.name in without:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        elif isinstance(value, (bool, int, float, str, bytes)):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).extend(value)
