"""Graphs of one folder that have their common weights in one file beside them, each weight once.

::

    out/  dense.onnx  model.onnx  dense.192x256.onnx  model.192x256.onnx  weights-1f0c9a7e55d04b21.data

What only one graph has, such as the position embeddings of its image size, is in that graph's own file.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping

import onnx
from onnx import TensorProto

from .files import SHARED, SINGLE_FILE_LIMIT, take_in
from .store import WeightStore, raw_bytes, with_initializers
from .weights import Place, Weights, goes_aside, is_external, put_aside, size_of


def save_shared(
    graphs: Mapping[str, tuple[onnx.ModelProto, Weights]],
    folder: str | os.PathLike[str],
    *,
    limit: int = SINGLE_FILE_LIMIT,
) -> None:
    """Write graphs whose common weights of 1 kB and more lie once, in a file beside them.

    Args:
        graphs: by the name of its file, each with where the weights are that it has beside it. They are not changed.
        folder: of all of them.
        limit: bytes of a graph's own weights, above which they go to the common file too.

    Raises:
        InputError: a weight is not where a graph says.
        EnvironmentLackError: the disk refuses.
    """
    known: dict[tuple[str, int, int], bytes] = {}
    digests = {
        name: {
            tensor.name: _digest(tensor, weights, known)
            for tensor in model.graph.initializer
            if goes_aside(tensor.data_type, size_of(tensor), SHARED)
        }
        for name, (model, weights) in graphs.items()
    }
    having = Counter(digest for of_graph in digests.values() for digest in set(of_graph.values()))
    places: dict[bytes, Place] = {}
    with WeightStore(folder, least=SINGLE_FILE_LIMIT) as store:
        for name, (model, weights) in graphs.items():
            own, alone = digests[name], _bytes_alone(model, digests[name], having)

            def placed(
                tensor: TensorProto, own: Mapping[str, bytes] = own, weights: Weights = weights, alone: int = alone
            ) -> TensorProto:
                digest = own.get(tensor.name)
                if digest is not None and (having[digest] > 1 or alone >= limit):
                    if digest not in places:
                        places[digest] = store.put(_data(tensor, weights))
                    return put_aside(tensor, places[digest])
                if not is_external(tensor):
                    return tensor
                inside = TensorProto()
                inside.CopyFrom(tensor)
                take_in(inside, weights)
                return inside

            store.save(with_initializers(model, placed), name)


def _data(tensor: TensorProto, weights: Weights) -> bytes:
    """The bytes of a tensor, wherever they are."""
    if not is_external(tensor):
        return raw_bytes(tensor)
    path, place = weights.find(tensor)
    with open(path, "rb") as stream:
        stream.seek(place.offset)
        return stream.read(size_of(tensor))


def _digest(tensor: TensorProto, weights: Weights, known: dict[tuple[str, int, int], bytes]) -> bytes:
    """SHA-256 of a tensor's bytes; of a place in a file it is computed once."""
    if not is_external(tensor):
        return hashlib.sha256(raw_bytes(tensor)).digest()
    path, place = weights.find(tensor)
    key = (str(path), place.offset, size_of(tensor))
    if key not in known:
        known[key] = hashlib.sha256(_data(tensor, weights)).digest()
    return known[key]


def _bytes_alone(model: onnx.ModelProto, own: Mapping[str, bytes], having: Mapping[bytes, int]) -> int:
    """Bytes of the weights that no other graph has."""
    return sum(size_of(tensor) for tensor in model.graph.initializer if having.get(own.get(tensor.name, b"")) == 1)
