"""A graph held against the graph before it, on real inputs, as DESIGN asks: numbers and decisions apart.

::

    before --run--> outputs, TopK indices ---replayed---\\
    after  --------------------------run-----------------+--> outputs, TopK values: equal?

1. plain: floats within 1e-5 of the output's largest value and a tenth of its spread, integers equal; of last hidden
   tokens, the root mean square of each token's error;
2. a TopK may rightly order near-ties differently after a pass that rounds differently, and everything behind it then
   differs. Where 1 fails, the decisions of the graph before are replayed in the graph after: its own scores must
   agree in sorted order, and its outputs as in 1. A pass that spoils scores or outputs fails either way.

onnxruntime's own rewrites are off: they fuse both graphs into the same one, and so would hide what a pass did.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
import onnx.helper

from ..core.answers import TOKENS
from ..core.errors import ParityError, UnsupportedError
from .session import Session
from .surgery import copy_of
from .weights import Weights

RELATIVE = 1e-5  # of the largest value: a pass changes the order of a few float32 operations, nothing more
SPREAD = 0.1  # of the standard deviation: values that differ by little beside their size are still told apart
_SCORES = 1e-4  # of the largest score: far above rounding, far below what a wrong score differs by

Arrays = Mapping[str, np.ndarray]


class Line:
    """A line of graphs, each held against the one before it on the same inputs.

    Args:
        first: the graph that the line begins with.
        feeds: real inputs; None: nothing is run, and every graph is taken as it is.
        weights: where the weights are that the graphs have beside them.

    Raises:
        UnsupportedError: onnxruntime refuses the graph or the inputs.
    """

    def __init__(self, first: onnx.ModelProto, feeds: Arrays | None, weights: Weights | None = None) -> None:
        self.last, self.feeds, self.weights = first, feeds, weights
        self._outputs = run_once(first, feeds, weights) if feeds else None

    def hold(self, name: str, model: onnx.ModelProto) -> tuple[float | None, int]:
        """Hold the next graph against the last one; where it holds, it is the last one then.

        Args:
            name: of the pass between them.
            model: with inferred shapes.

        Returns:
            the largest absolute error of an output, None without inputs, and how many TopK ordered near-ties
            differently.

        Raises:
            ParityError: the outputs differ; the pass, the output and the error are named.
            UnsupportedError: onnxruntime refuses the graph; the pass is named.
        """
        if not self.feeds or self._outputs is None:
            self.last = model
            return None, 0
        try:
            outputs = run_once(model, self.feeds, self.weights)
        except UnsupportedError as error:
            raise UnsupportedError(f"after the pass '{name}': {error}") from error
        try:
            found = hold_against(name, self._outputs, outputs), 0
        except ParityError:
            replayed = hold_with_decisions(name, self.last, model, self.feeds, self.weights)
            if replayed is None:
                raise
            found = replayed
        self.last, self._outputs = model, outputs
        return found


def run_once(model: onnx.ModelProto, feeds: Arrays, weights: Weights | None = None) -> dict[str, np.ndarray]:
    """Outputs by name from onnxruntime on the CPU, of the graph as it is written.

    Args:
        model: of static shapes.
        feeds: inputs by name.
        weights: where the weights are that the model has beside it.

    Raises:
        UnsupportedError: onnxruntime refuses the graph or the inputs.
    """
    return Session(model, optimized=False, weights=weights)(feeds)


def hold_against(name: str, before: Arrays, after: Arrays) -> float:
    """Largest absolute error over float outputs; integer outputs must be equal.

    Raises:
        ParityError: naming the pass, the output and the error.
    """
    worst = 0.0
    for output, old in before.items():
        new = after.get(output)
        if new is None or new.shape != old.shape or new.dtype != old.dtype:
            raise ParityError(f"pass '{name}' changed the output {output}: its shape, type or name differ")
        if old.dtype.kind != "f":
            if not np.array_equal(old, new):
                raise ParityError(f"pass '{name}' changed the decisions in {output}")
            continue
        error = _largest(old, new) if output != TOKENS else _worst_row(old, new)
        limit = _limit(old)
        if not error <= limit:
            raise ParityError(f"pass '{name}' changed the output {output} by {error:.3g}, more than {limit:.3g}")
        worst = max(worst, error)
    return worst


def hold_with_decisions(
    name: str, before: onnx.ModelProto, after: onnx.ModelProto, feeds: Arrays, weights: Weights | None = None
) -> tuple[float, int] | None:
    """Case 2: the same with every TopK of `after` deciding as the one in `before`.

    Returns:
        the largest absolute error and how many TopK ordered near-ties differently; None where no decision differs,
        the two graphs rank different things, or their scores differ by more than rounding.

    Raises:
        ParityError: the outputs differ with equal decisions too; the pass, the output and the error are named.
    """
    old, new = _rankings(before), _rankings(after)
    if not old or set(old) != set(new):
        return None
    watched = [*old, *old.values()]
    seen = run_once(with_outputs(before, watched), feeds, weights)
    own = run_once(with_outputs(after, list(new)), feeds, weights)
    sizes = {index: own[index].shape for index in new}
    replayed = {index: seen[index][tuple(map(slice, size))] for index, size in sizes.items()}
    flips = sum(not np.array_equal(own[index], replayed[index]) for index in replayed)
    if not flips:
        return None
    outputs = {output.name for output in before.graph.output}
    pinned = with_outputs(_pinned(after, replayed), list(new.values()))
    result = run_once(pinned, {**feeds, **replayed}, weights)
    for index, values in new.items():
        expected = seen[old[index]][tuple(map(slice, sizes[index]))].astype(np.float64)
        if not _largest(expected, result[values]) <= _SCORES * max(float(np.abs(expected).max(initial=0)), 1e-30):
            return None
    result |= {output: replayed[output] for output in outputs & set(replayed)}
    return hold_against(name, {output: seen[output] for output in outputs}, result), flips


def _limit(old: np.ndarray) -> float:
    """Largest error that rounding may make of an output; none where it is all zero."""
    wide = old[np.isfinite(old)].astype(np.float64)
    if not wide.size:
        return 0.0
    size, spread = float(np.abs(wide).max()), float(wide.std())
    return RELATIVE * size if spread <= RELATIVE * size else min(RELATIVE * size, SPREAD * spread)


def _largest(old: np.ndarray, new: np.ndarray) -> float:
    """Largest absolute difference; equal infinities do not differ."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(old.astype(np.float64) - new.astype(np.float64))
    return float(np.where(old == new, 0.0, difference).max(initial=0))


def _worst_row(old: np.ndarray, new: np.ndarray) -> float:
    """Largest root mean square of a difference over the last axis: of as many numbers, some round by far more."""
    return float(np.sqrt(np.square(old.astype(np.float64) - new).mean(axis=-1)).max(initial=0))


def _rankings(model: onnx.ModelProto) -> dict[str, str]:
    """By name of a TopK's indices, the name of its values."""
    return {node.output[1]: node.output[0] for node in model.graph.node if node.op_type == "TopK" and node.output[0]}


def with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """A copy that gives out more of its values."""
    copied = copy_of(model)
    graph = copied.graph
    shown = {output.name for output in graph.output}
    known = {value.name: value for value in graph.value_info}
    graph.output.extend(known[name] for name in dict.fromkeys(names) if name not in shown and name in known)
    return copied


def only_until(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """The part of a model that makes some values, which it gives out instead of its outputs.

    Args:
        model: with inferred shapes; it is not changed.
        names: values that nodes make.
    """
    cut = copy_of(model)
    graph, wanted, nodes = cut.graph, set(names), []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            nodes.append(node)
    known = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    for field, kept in (("node", nodes[::-1]), ("output", [known[n] for n in names]), ("initializer", weights)):
        del getattr(graph, field)[:]
        getattr(graph, field).extend(kept)
    return cut


def _pinned(model: onnx.ModelProto, decisions: Arrays) -> onnx.ModelProto:
    """A copy that reads TopK's indices from its inputs."""
    copied = copy_of(model)
    graph = copied.graph
    for node in graph.node:
        if node.op_type == "TopK" and node.output[1] in decisions:
            node.output[1] = f"{node.output[1]}_own"
    kept = [output for output in graph.output if output.name not in decisions]
    del graph.output[:]
    graph.output.extend(kept)
    for name, value in decisions.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(name, kind, value.shape))
    return copied
