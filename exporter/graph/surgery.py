"""Between ONNX models and graphs of onnx-graphsurgeon, where weights beside the graph stay until somebody looks.

onnx-graphsurgeon keeps a tensor as it came until its `values` are read, and writes it back as it came; but it would
read external data from the working directory, and hold on to what was read. So such tensors get values of another kind
here, and `peek` looks at them without keeping them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.importers.onnx_importer import get_numpy_type, get_onnx_tensor_shape
from onnx_graphsurgeon.ir.tensor import LazyValues

from ..core.errors import InputError
from .weights import Place, Weights, is_external, place_of


class AsideValues(LazyValues):
    """Values beside the graph.

    Args:
        tensor: that names their place.
        weights: where that is; None: nobody said.
    """

    def __init__(self, tensor: onnx.TensorProto, weights: Weights | None) -> None:
        super().__init__(tensor)
        self.weights = weights

    def load(self) -> np.ndarray:
        """A read-only view of the file.

        Raises:
            InputError: it is not there.
        """
        if self.weights is None:
            raise InputError(f"the weight {self.tensor.name} is in a file beside the graph; say where that is")
        return self.weights.array(self.tensor)

    @property
    def place(self) -> Place:
        """Where the values are: equal for equal ones, as far as one store wrote them."""
        return place_of(self.tensor)


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy, so that the caller's model stays as it is."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def import_graph(model: onnx.ModelProto, weights: Weights | None = None) -> gs.Graph:
    """A model as a graph with links both ways.

    Args:
        model: it is not changed.
        weights: where the weights are that the model has beside it.
    """
    graph = gs.import_onnx(model)
    graph.import_domains = [onnx.helper.make_opsetid(entry.domain, entry.version) for entry in model.opset_import]
    for constant in _constants(graph):
        values = constant._values
        if isinstance(values, LazyValues) and is_external(values.tensor):
            constant._values = AsideValues(values.tensor, weights)
    return graph


class LastGraph:
    """The graph of the last model, for whoever reads that one next: to read one is slow."""

    def __init__(self) -> None:
        self._model: onnx.ModelProto | None = None
        self._graph: gs.Graph | None = None
        self._read: onnx.ModelProto | None = None  # whose shapes the graph has

    def take(self, model: onnx.ModelProto, weights: Weights | None = None) -> gs.Graph:
        """What `import_graph` gives; it is the caller's, who may change it."""
        graph = self._graph if self._model is model else None
        self._model = self._graph = None
        if graph is None:
            graph = import_graph(model, weights)
        elif self._read is not model:
            _take_shapes(graph, model)
        self._read = model
        return graph

    def leave(self, model: onnx.ModelProto, graph: gs.Graph) -> None:
        """Keep a graph that is as it was read from a model, or as it was written to one."""
        self._model, self._graph = model, graph


def _take_shapes(graph: gs.Graph, model: onnx.ModelProto) -> None:
    """Give a graph's values the types and shapes that the model has, whose shapes were inferred since."""
    tensors = graph.tensors()
    for value in (*model.graph.value_info, *model.graph.output):
        tensor = tensors.get(value.name)
        if isinstance(tensor, gs.Variable) and value.type.HasField("tensor_type"):
            tensor.dtype, tensor.shape = _dtype(value.type.tensor_type.elem_type), get_onnx_tensor_shape(value)


@functools.cache
def _dtype(code: int) -> Any:
    """As onnx-graphsurgeon has types: numpy's, or ONNX's number where numpy has no equal."""
    found = get_numpy_type(code)
    return code if found is None else found


def _constants(graph: gs.Graph) -> Iterator[gs.Constant]:
    """Initializers and the values of Constant nodes, those of branches and loops too."""
    for part in (graph, *graph.subgraphs(recursive=True)):
        held = (*part.tensors().values(), *(value for node in part.nodes for value in node.attrs.values()))
        yield from (tensor for tensor in held if isinstance(tensor, gs.Constant))


def export_graph(graph: gs.Graph, like: onnx.ModelProto) -> onnx.ModelProto:
    """Back to ONNX, with the opsets of the graph, and the metadata and IR version of the model it came from."""
    model = gs.export_onnx(graph, do_type_check=False)
    model.ir_version = like.ir_version
    del model.metadata_props[:]
    model.metadata_props.extend(like.metadata_props)
    return model


def raise_opset(graph: gs.Graph, version: int) -> None:
    """Declare a higher opset; between 20 and 23 the operators that vitrim emits only gained types."""
    graph.opset = max(graph.opset, version)
    for entry in graph.import_domains:
        if entry.domain in ("", "ai.onnx"):
            entry.version = graph.opset


def aside(tensor: gs.Tensor) -> AsideValues | None:
    """A constant's values if they are beside the graph, else None."""
    values = tensor._values if isinstance(tensor, gs.Constant) else None
    return values if isinstance(values, AsideValues) else None


def peek(tensor: gs.Constant) -> np.ndarray:
    """A constant's values; what is beside the graph stays there.

    Raises:
        InputError: they are not where the graph says.
    """
    values = aside(tensor)
    return values.load() if values is not None else np.asarray(tensor.values)
