"""Weights that lie beside their graph, read one by one when somebody looks at them.

::

    folder/
      dense.onnx, pruned.onnx         nodes, shapes, and every constant that a pass or a check may want to know
      weights-1f0c9a7e55d04b21.data   large tensors, each once, at multiples of 4,096 bytes

It is ONNX's own external data: a tensor names a file of the graph's folder, an offset and a length. A graph is small
this way, so it can be copied, checked and rewritten for nothing, and protobuf's 2 GB do not bind it.
"""

from __future__ import annotations

import mmap
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
from onnx import AttributeProto, TensorProto, numpy_helper

from ..core.errors import InputError, excerpt
from ..core.inputs import InputKind, open_file

LEAST = 2**16  # bytes of a tensor that is worth a place of its own
# Integers stay in the graph, however many: shapes, axes and indices are what passes and lint read.
_STAY = frozenset(
    {TensorProto.BOOL, TensorProto.STRING, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64}
    | {TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64}
)
_BITS = {"INT2": 2, "UINT2": 2, "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6}


@dataclass(frozen=True)
class Place:
    """Where the bytes of a tensor are.

    Attributes:
        file: name of a file in the graph's folder.
        offset: of the first byte.
        length: in bytes.
    """

    file: str
    offset: int
    length: int


def goes_aside(data_type: int, size: int, least: int = LEAST) -> bool:
    """Whether a tensor of some type and bytes lies beside the graph."""
    return size >= least and data_type not in _STAY


def is_external(tensor: TensorProto) -> bool:
    """Whether a tensor's data is beside the graph."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def size_of(tensor: TensorProto) -> int:
    """Bytes of a tensor's data as its type and shape tell it; 0 for strings and types that this onnx does not know."""
    unknown = tensor.data_type not in TensorProto.DataType.values()
    if unknown or tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        return 0
    bits = _bits(tensor) or 8 * np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    return -(-prod(tensor.dims) * bits // 8)


def _bits(tensor: TensorProto) -> int:
    """Bits of a value, 0 where that is whole bytes."""
    return _BITS.get(TensorProto.DataType.Name(tensor.data_type), 0)


def place_of(tensor: TensorProto) -> Place:
    """The place that an external tensor names."""
    told = {entry.key: entry.value for entry in tensor.external_data}
    return Place(told.get("location", ""), int(told.get("offset", 0)), int(told.get("length", size_of(tensor))))


def put_aside(tensor: TensorProto, place: Place) -> TensorProto:
    """The same tensor with its data at a place."""
    aside = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    aside.data_location = TensorProto.EXTERNAL
    for key, value in (("location", place.file), ("offset", place.offset), ("length", place.length)):
        aside.external_data.add(key=key, value=str(value))
    return aside


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and those of its branches and loops."""
    yield graph
    for node in graph.node:
        for each in node.attribute:
            if each.type == AttributeProto.GRAPH:
                yield from all_graphs(each.g)
            for inner in each.graphs if each.type == AttributeProto.GRAPHS else ():
                yield from all_graphs(inner)


def inner_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Initializers of branches and loops, and the values of Constant nodes."""
    for depth, graph in enumerate(all_graphs(model.graph)):
        yield from graph.initializer if depth else ()
        yield from (
            each.t
            for node in graph.node
            if node.op_type == "Constant"
            for each in node.attribute
            if each.name == "value"
        )


def _size_at(path: Path) -> tuple[int, str]:
    """Bytes of a file, and what is wrong with it; empty where nothing is."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return 0, "is missing"
    except OSError as error:
        return 0, f"cannot be read ({(error.strerror or str(error)).lower()})"
    if stat.S_ISREG(found.st_mode):
        return found.st_size, ""
    return 0, "is missing" if stat.S_ISDIR(found.st_mode) else "is no regular file"


class Weights:
    """The weights that lie in a graph's folder.

    Args:
        folder: of the graph.
        graph: what messages call it: its path.
    """

    def __init__(self, folder: Path, graph: str = "the graph") -> None:
        self.folder, self.graph = folder.resolve(), graph
        self._maps: dict[Path, mmap.mmap] = {}

    def find(self, tensor: TensorProto) -> tuple[Path, Place]:
        """The file that holds an external tensor, and where in it.

        Raises:
            InputError: the file is not there, is too short, or lies outside of the folder; or the place is none.
        """
        try:
            place, wanted = place_of(tensor), size_of(tensor)
            path = (self.folder / place.file).resolve()
        except (OSError, RuntimeError, TypeError, ValueError) as error:  # RuntimeError: links in a circle
            raise InputError(
                f"{self.graph} does not say where its weight {excerpt(str(tensor.name))} is; save it anew"
            ) from error
        told = excerpt(place.file)
        if not path.is_relative_to(self.folder):
            raise InputError(f"{self.graph} wants its weights from {told}, outside its own folder; save it anew")
        size, fault = _size_at(path)
        if not fault and (place.offset < 0 or size < place.offset + place.length):
            fault = "is too short"
        if fault:
            raise InputError(f"{self.graph} keeps its weights in {told}, which {fault}; put the whole file beside it")
        if place.length < wanted or (place.length and not wanted) or any(dim < 0 for dim in tensor.dims):
            raise InputError(
                f"{self.graph} gives its weight {excerpt(str(tensor.name))} {place.length} bytes, which do not fit its "
                "type and shape"
            )
        return path, place

    def array(self, tensor: TensorProto) -> np.ndarray:
        """The values of a tensor; those of an external one are a read-only view of its file.

        Raises:
            InputError: see `find`.
        """
        if not is_external(tensor):
            return np.asarray(numpy_helper.to_array(tensor))
        path, place = self.find(tensor)
        size = size_of(tensor)
        if not size:
            return np.asarray(numpy_helper.to_array(TensorProto(data_type=tensor.data_type, dims=tensor.dims)))
        if _bits(tensor):
            packed = TensorProto(data_type=tensor.data_type, dims=tensor.dims)
            packed.raw_data = self._map(path)[place.offset : place.offset + size]
            return np.asarray(numpy_helper.to_array(packed))
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        values = np.frombuffer(self._map(path), dtype, prod(tensor.dims), place.offset)
        return values.reshape(tuple(tensor.dims))

    def _map(self, path: Path) -> mmap.mmap:
        if path not in self._maps:
            with open_file(path, InputKind.CHECKPOINT) as stream:
                self._maps[path] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[path]
