"""ONNX files: read without their large weights, and written whole without holding them.

A whole file is the graph's bytes with those of every weight copied into their place::

    ModelProto   ir_version producer... | graph                                           | opset_import metadata...
    GraphProto                            node name | initializer initializer... | input output value_info
    TensorProto                                       dims type name | raw_data: bytes of the data file
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto

from ..core.errors import InputError
from ..core.files import atomic_path, atomic_write, explain_read_error, sha256
from ..core.inputs import InputKind, open_file
from .store import ALIGNMENT, copy_fields, raw_bytes, with_initializers
from .weights import Place, Weights, goes_aside, inner_tensors, is_external, place_of, put_aside, size_of

SINGLE_FILE_LIMIT = 2**31 - 2**24  # protobuf's 2 GB, less room for what is in no weight
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # field numbers in onnx.proto
_BYTES = 2  # protobuf's wire type of what has a length
_PIECE = 1 << 20
SHARED = 1024  # bytes of a weight that another graph may have from this one's file
_SAYS_NO_MORE = {"dims", "data_type", "name", "raw_data"}

Chunk = bytes | TensorProto  # a tensor stands for its data


def read_bare(path: str | os.PathLike[str]) -> tuple[onnx.ModelProto, Weights]:
    """A model of which the large weights that are in files of their own stay there.

    Returns:
        the model, its small weights in it, and where the large ones are, each of them there and whole.

    Raises:
        InputError: no such file, not ONNX, or a weight is not where it says.
    """
    file = Path(path)
    weights = Weights(file.parent, str(file))
    try:
        with open_file(file, InputKind.GRAPH) as stream:
            model = onnx.load(stream, format="protobuf", load_external_data=False)
    except OSError as error:
        raise explain_read_error(error, file) from error
    except (DecodeError, ValueError) as error:
        raise InputError(f"{file} is not a whole ONNX file") from error
    for tensor in filter(is_external, model.graph.initializer):
        weights.find(tensor)
        if not goes_aside(tensor.data_type, size_of(tensor)):
            take_in(tensor, weights)
    for tensor in filter(is_external, inner_tensors(model)):
        take_in(tensor, weights)
    return model, weights


def read_whole(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """A model with all its weights in it, for those who take nothing else.

    Raises:
        InputError: see `read_bare`.
    """
    model, weights = read_bare(path)
    for tensor in filter(is_external, model.graph.initializer):
        take_in(tensor, weights)
    return model


def take_in(tensor: TensorProto, weights: Weights) -> None:
    """An external tensor's data into it, in place."""
    tensor.raw_data = b"".join(_pieces(tensor, weights))
    tensor.ClearField("data_location")
    tensor.ClearField("external_data")


def save(
    model: onnx.ModelProto,
    path: str | os.PathLike[str],
    weights: Weights | None = None,
    *,
    limit: int = SINGLE_FILE_LIMIT,
) -> dict[str, Place]:
    """Write one file, atomically; past protobuf's 2 GB the large weights go to `<name>.data` beside it.

    Weights that are beside the graph are copied piece by piece and never in memory.

    Args:
        model: it is not changed.
        path: of the file.
        weights: where the weights are that the model has beside it.
        limit: bytes that a single file may have.

    Returns:
        by name, where weights of 1 kB and more are now: in the file itself, or the large ones in the one beside it.

    Raises:
        InputError: a weight is not where the model says.
        EnvironmentLackError: the disk refuses.
    """
    chunks = _chunks(model)
    if sum(map(_size, chunks)) >= limit:
        data = Path(f"{os.fspath(path)}.data")
        with atomic_path(data) as temporary, open(temporary, "wb") as out:
            moved = _moved(model, data.name, out, weights)
        chunks = [moved.SerializeToString()]
        places = {tensor.name: place_of(tensor) for tensor in filter(is_external, moved.graph.initializer)}
    else:
        places = _places(chunks, Path(path).name)
    with atomic_path(path) as temporary, open(temporary, "wb") as out:
        _write(chunks, out, weights)
    return places


def save_beside(
    model: onnx.ModelProto, path: str | os.PathLike[str], places: Mapping[str, Place], weights: Weights | None = None
) -> None:
    """Write a graph that has its large weights in a file that is there, such as another graph's own, atomically.

    The graph holds that file's hash, so that two graphs which differ only in their weights differ in their own bytes.

    Args:
        model: it is not changed.
        path: of the file, beside that of the weights.
        places: of equal weights, by name; others go into the graph.
        weights: where the weights are that the model has beside it.

    Raises:
        InputError: a weight is not where the model says.
        EnvironmentLackError: the disk refuses.
    """

    def kept(tensor: TensorProto) -> TensorProto:
        place = places.get(tensor.name)
        if place is not None:
            return put_aside(tensor, place)
        if not is_external(tensor):
            return tensor
        assert weights is not None, f"nobody said where {tensor.name} is"
        inside = TensorProto()
        inside.CopyFrom(tensor)
        take_in(inside, weights)
        return inside

    lean = with_initializers(model, kept)
    held = sorted({place.file for place in places.values()})
    lean.graph.doc_string = "; ".join(f"weights in {name}, sha256 {sha256(Path(path).parent / name)}" for name in held)
    atomic_write(path, lean.SerializeToString())


def _places(chunks: Sequence[Chunk], name: str) -> dict[str, Place]:
    """Where a file of such chunks has the data of its tensors."""
    places, offset = {}, 0
    for chunk in chunks:
        if not isinstance(chunk, bytes):
            places[chunk.name] = Place(name, offset, _size(chunk))
        offset += _size(chunk)
    return places


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _chunks(model: onnx.ModelProto) -> list[Chunk]:
    """A model as protobuf writes it."""
    tensors = [chunk for each in model.graph.initializer for chunk in _field(_INITIALIZER, _tensor(each))]
    before, after = _around(model.graph, _INITIALIZER)
    graph = _field(_GRAPH, [before, *tensors, after])
    before, after = _around(model, _GRAPH)
    return [before, *graph, after]


def _around(message: Message, number: int) -> tuple[bytes, bytes]:
    """The bytes of a message before and after one of its fields."""
    names = {field.number: field.name for field in message.DESCRIPTOR.fields}
    parts = []
    for skipped in (lambda each: each >= number, lambda each: each <= number):
        part = type(message)()
        copy_fields(message, part, {name for each, name in names.items() if skipped(each)})
        parts.append(part.SerializeToString())
    return parts[0], parts[1]


def _field(number: int, content: Sequence[Chunk]) -> list[Chunk]:
    return [_varint(number << 3 | _BYTES) + _varint(sum(map(_size, content))), *content]


def _tensor(tensor: TensorProto) -> list[Chunk]:
    if not is_external(tensor) and not _is_plain(tensor):
        return [tensor.SerializeToString()]
    header = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    return [header.SerializeToString(), *_field(_RAW_DATA, [tensor])]


def _is_plain(tensor: TensorProto) -> bool:
    """Whether a tensor that may be shared says nothing but its type, shape, name and data, in that order."""
    says = {field.name for field, _ in tensor.ListFields()}
    size = size_of(tensor)
    return goes_aside(tensor.data_type, size, SHARED) and says <= _SAYS_NO_MORE and len(tensor.raw_data) == size


def _size(chunk: Chunk) -> int:
    return len(chunk) if isinstance(chunk, bytes) else size_of(chunk)


def _write(chunks: Sequence[Chunk], out: BinaryIO, weights: Weights | None) -> None:
    for chunk in chunks:
        if isinstance(chunk, bytes):
            out.write(chunk)
        else:
            for piece in _pieces(chunk, weights):
                out.write(piece)


def _pieces(tensor: TensorProto, weights: Weights | None) -> Iterator[bytes]:
    """The data of a tensor, wherever it is."""
    if not is_external(tensor):
        yield raw_bytes(tensor)
        return
    if weights is None:
        raise InputError(f"the weight {tensor.name} is in a file beside the graph; say where that is")
    path, place = weights.find(tensor)
    left = size_of(tensor)
    with open_file(path, InputKind.CHECKPOINT) as stream:
        stream.seek(place.offset)
        while left and (piece := stream.read(min(left, _PIECE))):
            left -= len(piece)
            yield piece


def _moved(model: onnx.ModelProto, name: str, out: BinaryIO, weights: Weights | None) -> onnx.ModelProto:
    """The model with its large weights in a file of its own."""

    def moved(tensor: TensorProto) -> TensorProto:
        size = size_of(tensor)
        if not is_external(tensor) and not goes_aside(tensor.data_type, size):
            return tensor
        offset = -(-out.tell() // ALIGNMENT) * ALIGNMENT
        out.seek(offset)
        _write([tensor], out, weights)
        return put_aside(tensor, Place(name, offset, size))

    return with_initializers(model, moved)
