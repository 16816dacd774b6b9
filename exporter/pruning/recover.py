"""A timm model with the weights of another program's graph, which knows neither their names nor their layout.

The model says which layers it runs in which order, and the graph which weights it computes with in which order. Both
are the same network, so the two lists pair up, or the first pair that does not says what is wrong. Class tokens and
positions may be folded into each other in many ways; their sum is what the first normalization reads of a black image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from timm.layers import LayerScale
from torch import Tensor, nn

from ..core.errors import UnsupportedError

_LAYERS = {nn.Conv2d: "convolution", nn.Linear: "product", nn.LayerNorm: "norm"}
_PREFIX = ("cls_token", "dist_token", "reg_token")  # in timm's order
_SAME = 1e-5  # of a black image's tokens, where nothing is left that could explain a difference


class Part(Protocol):
    """Weights of a layer of a graph, see `vitrim.exporter.graph.parameters.Part`."""

    @property
    def kind(self) -> str: ...
    @property
    def nodes(self) -> tuple[str, ...]: ...
    @property
    def weight(self) -> np.ndarray: ...
    @property
    def bias(self) -> np.ndarray | None: ...
    @property
    def scale(self) -> np.ndarray | None: ...
    @property
    def epsilon(self) -> float | None: ...


@dataclass(frozen=True)
class Called:
    """A layer that a model runs.

    Attributes:
        name: in the model.
        module: it.
        given: what it reads of the image that the model was run on.
    """

    name: str
    module: nn.Module
    given: Tensor


def calls_of(model: Any, image: Tensor) -> list[Called]:
    """The layers with weights, in the order in which a model runs them on an image."""
    names: dict[Any, str] = {module: name for name, module in model.named_modules()}
    called: list[Called] = []

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        called.append(Called(names[module], module, given[0].detach()))

    def note_product(module: Any, given: tuple[Tensor, ...]) -> None:
        called.append(Called(f"{names[module]}.qkv", module.qkv, given[0].detach()))

    kinds = (*_LAYERS, LayerScale)
    modules: list[nn.Module] = list(names)
    hooks = [module.register_forward_pre_hook(note) for module in modules if isinstance(module, kinds)]
    hooks += [module.register_forward_pre_hook(note_product) for module in modules if _biased_apart(module)]
    try:
        with torch.inference_mode():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return called


def _biased_apart(module: Any) -> bool:
    """Whether an attention has biases of its own for its product, which it then does not call as a module."""
    return isinstance(getattr(module, "qkv", None), nn.Linear) and getattr(module, "q_bias", None) is not None


def _scales(model: Any) -> dict[str, str]:
    """By a product's name, that of the layer scale behind it, where a block holds that itself."""
    found = {}
    for name, _ in model.named_parameters():
        block, _, own = name.rpartition(".")
        if own in ("gamma_1", "gamma_2"):
            found[f"{block}.{'attn.proj' if own == 'gamma_1' else 'mlp.fc2'}"] = name
    return found


def recover(model: Any, parts: Sequence[Part], tokens: np.ndarray, image_size: tuple[int, int, int]) -> None:
    """Give a model the weights of a graph, in place.

    Args:
        model: of timm, in eval mode on the CPU; all its weights are replaced.
        parts: of the graph, in its order.
        tokens: [tokens, width], what the graph's first normalization reads of an image of zeros.
        image_size: channels, height and width.

    Raises:
        UnsupportedError: a layer of the model has no counterpart, or one of the graph; both are named.
    """
    black = torch.zeros(1, *image_size)
    filled: set[str] = set()
    left = iter(parts)
    calls, scales = calls_of(model, black), _scales(model)
    for place, call in enumerate(calls):
        if isinstance(call.module, LayerScale):
            continue
        part = _next(left, call)
        behind = calls[place + 1] if place + 1 < len(calls) else None
        gamma = scales.get(call.name)
        if behind is not None and isinstance(behind.module, LayerScale):
            gamma = f"{behind.name}.gamma"
        filled |= _fill(model, call, part, gamma)
    rest = next(left, None)
    if rest is not None:
        raise UnsupportedError(f"the file has more than the model: node {rest.nodes[0]} with {_shape(rest)}")
    filled |= _fill_tokens(model, tokens, black)
    missing = [name for name, _ in model.named_parameters() if name not in filled]
    if missing:
        raise UnsupportedError(f"{missing[0]} of the model is not recovered: vitrim does not know its place in a graph")


def _shape(part: Part) -> str:
    return f"{'x'.join(map(str, part.weight.shape))} weights"


def _next(left: Iterator[Part], call: Called) -> Part:
    """The graph's counterpart of a layer."""
    module: Any = call.module
    kind = next(word for base, word in _LAYERS.items() if isinstance(module, base))
    wanted = "x".join(map(str, module.weight.shape))
    part = next(left, None)
    if part is None:
        raise UnsupportedError(f"{call.name}.weight ({wanted}) is not in the file, which ends before it")
    if part.kind != kind or part.weight.shape != tuple(module.weight.shape):
        raise UnsupportedError(
            f"{call.name}.weight ({kind}, {wanted}) is not in the file: in its place, at node {part.nodes[0]}, is a "
            f"{part.kind} with {_shape(part)}"
        )
    return part


def _fill(model: Any, call: Called, part: Part, gamma: str | None) -> set[str]:
    """Weights of a layer, and of the layer scale behind it; where only one of the two has a scale, it is folded."""
    module: Any = call.module
    weight, bias, filled = part.weight, part.bias, {f"{call.name}.weight"}
    if gamma is not None:
        _set(model.get_parameter(gamma), np.ones(len(weight), np.float32) if part.scale is None else part.scale)
        filled.add(gamma)
    elif part.scale is not None:
        weight = weight * part.scale[:, None]
        bias = None if bias is None else bias * part.scale
    _set(module.weight, weight)
    if part.epsilon is not None:
        module.eps = part.epsilon
    holder = call.name.removesuffix(".qkv")
    if module.bias is not None:
        _set(module.bias, np.zeros(len(weight), np.float32) if bias is None else bias)
        filled.add(f"{call.name}.bias")
    elif holder != call.name and _biased_apart(model.get_submodule(holder)):
        # Keys have none: what it adds to all scores of a query, the softmax takes away.
        thirds = np.split(np.zeros(len(weight), np.float32) if bias is None else bias, 3)
        for name, values in (("q_bias", thirds[0]), ("v_bias", thirds[2])):
            _set(model.get_parameter(f"{holder}.{name}"), values)
            filled.add(f"{holder}.{name}")
    elif bias is not None and np.any(bias):
        raise UnsupportedError(f"{call.name} has no bias, but node {part.nodes[0]} of the file has one")
    return filled


def _set(parameter: Any, values: np.ndarray) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.array(values, dtype=np.float32)).reshape(parameter.shape))


def _fill_tokens(model: Any, tokens: np.ndarray, black: Tensor) -> set[str]:
    """Prefix tokens and positions, so that the first normalization reads what the graph's does."""
    named = {name: getattr(model, name, None) for name in (*_PREFIX, "pos_embed")}
    own = {name: value for name, value in named.items() if isinstance(value, nn.Parameter)}
    for value in own.values():
        _set(value, np.zeros(value.shape, np.float32))
    found = _first_norm(calls_of(model, black)).given[0].numpy()
    if found.ndim != 2:
        raise UnsupportedError("the tokens of this model are no row but a grid; its weights cannot be recovered")
    if found.shape != tokens.shape:
        raise UnsupportedError(
            f"the model has {list(found.shape)} tokens before its first normalization, and the file "
            f"{list(tokens.shape)}"
        )
    rest = tokens - found
    prefixes = [name for name in _PREFIX if name in own]
    count = sum(own[name].shape[1] for name in prefixes)
    positions = own.get("pos_embed")
    if positions is not None and positions.numel() == rest.size:
        _set(positions, rest)
        return set(own)
    at = 0
    for name in prefixes:
        size = own[name].shape[1]
        _set(own[name], rest[at : at + size])
        at += size
    if positions is not None and positions.numel() == rest[count:].size:
        _set(positions, rest[count:])
    elif positions is not None or np.abs(rest[count:]).max(initial=0) > _SAME * max(1.0, float(np.abs(tokens).max())):
        raise UnsupportedError("pos_embed of the model does not fit what the file adds to its patches")
    return set(own)


def _first_norm(calls: Sequence[Called]) -> Called:
    found = next((call for call in calls if isinstance(call.module, nn.LayerNorm)), None)
    if found is None:
        raise UnsupportedError("the model has no LayerNorm, by which a file's tokens are recognized")
    return found


def first_difference(model: Any, image: Tensor, values: Callable[[], Sequence[np.ndarray]]) -> tuple[int, str, float]:
    """Where a model begins to differ from a graph.

    Args:
        model: recovered.
        image: [batch, channels, height, width].
        values: what the graph's normalizations read of it, in order.

    Returns:
        the number of the normalization before which they differ most in proportion to one before, its name in the
        model, and the difference.
    """
    norms = [call for call in calls_of(model, image) if isinstance(call.module, nn.LayerNorm)]
    found = [
        float(np.abs(call.given.numpy() - value).max() / max(1e-12, float(np.abs(value).max())))
        if call.given.shape == value.shape
        else float("inf")
        for call, value in zip(norms, values(), strict=True)
    ]
    first = next((place for place, error in enumerate(found) if error > 1e-3), len(found) - 1)
    return first, norms[first].name, found[first]
