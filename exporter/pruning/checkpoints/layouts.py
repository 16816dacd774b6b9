"""A checkpoint's tensors brought into a model's own layout by timm's filters, with what became of each of them."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ...core.errors import excerpt
from .tensors import Choice, Tensors

Filter = Callable[[dict[str, Tensor], nn.Module], Mapping[str, Tensor]]
# What timm gives its filters where it calls them: (module, part of the model's name, options).
_OPTIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("deit", "", {"adapt_layer_scale": True}),
    ("vision_transformer", "flexi", {"interpolation": "bilinear", "antialias": False}),
    ("vision_transformer", "radio", {"interpolation": "bilinear", "antialias": False}),
)
# What training needed, or what a model computes by itself: no inference misses it.
_UNUSED = re.compile(
    r"(^|\.)(mask_token|decoder_\w+|lm_head|projectors|local_cls_norm|n_averaged|relative_position_index"
    r"|relative_coords_table|attn_mask|bias_mask|rope(_embed)?\.(?!freqs$)\w+)(\.|$)"
)
_MOST_PREFIXES = 6  # that are tried out


@dataclass(frozen=True)
class Fit:
    """How a checkpoint fits a model.

    Attributes:
        state: tensors by the model's names.
        prefix: of the names that were taken, such as `model.`.
        missing: names of the model's that the file has nothing for.
        differing: (name, found shape, wanted shape) of those that do not fit.
        unknown: names of the file's that the model has no place for.
        unused: names of the file's that no inference needs.
        outside: names of the file's that belong to something beside the model.
        resampled: (name, shape in the file, shape in the model).
        zeros: names of the model's that timm fills with zeros, as the layout has none of them.
        shapes: by the model's names, shapes in the file.
        stopped: what timm's filter raised, where it could not be used; empty where it could.
    """

    state: dict[str, Tensor]
    prefix: str
    missing: tuple[str, ...]
    differing: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    unknown: tuple[str, ...]
    unused: tuple[str, ...]
    outside: tuple[str, ...]
    resampled: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    zeros: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    stopped: str = ""

    @property
    def complete(self) -> bool:
        """Whether the file has everything that the model wants."""
        return not self.missing and not self.differing

    @property
    def whole(self) -> bool:
        """Whether it also has nothing that the model has no place for."""
        return self.complete and not self.unknown

    def place_in(self, tensors: Tensors) -> str:
        """Where in the file those tensors are that were taken, such as `model.encoder`."""
        return ".".join(part for part in (tensors.place, self.prefix.rstrip(".")) if part)


class _Traced(Tensor):
    """A tensor that knows from which of a file's tensors it was made."""

    sources: frozenset[str]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Hand the names on to what is made."""
        made = super().__torch_function__(func, types, args, kwargs or {})
        sources: frozenset[str] = frozenset().union(*(one.sources for one in _traced((args, kwargs))))
        for one in _traced(made, anew=True):
            one.sources = sources
        return made


def _traced(value: Any, anew: bool = False) -> Iterator[_Traced]:
    if isinstance(value, _Traced) and (anew or hasattr(value, "sources")):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _traced(one, anew)
    elif isinstance(value, dict):
        yield from _traced(tuple(value.values()), anew)


def filter_of(name: str) -> Filter | None:
    """timm's filter of a model's checkpoints, as its own loading step has it; None where it has none.

    Args:
        name: of a timm model.
    """
    module = timm.models.model_entrypoint(name.split(".")[0]).__module__
    found = getattr(sys.modules[module], "checkpoint_filter_fn", None)
    if found is None:
        return None
    options: dict[str, Any] = {}
    for family, part, given in _OPTIONS:
        if module == f"timm.models.{family}" and part in name:
            options |= given
    return lambda state, model: found(state, model, **options)


def fit(tensors: Tensors, model: nn.Module, filters: Filter | None, choice: Choice, shown: str) -> Fit:
    """Find how a checkpoint fits a model; what does not fit best is told by what it returns.

    Args:
        tensors: of the checkpoint.
        model: that they are for; it is only looked at.
        filters: timm's filter for it.
        choice: which tensors are meant, where those of several models are there.
        shown: the file, for messages.

    Raises:
        InputError: several sets of tensors fit.
    """
    bare = fit_under("", tensors.held, model, filters)
    if bare.whole and choice.state in (None, tensors.place):
        return bare
    tried = [bare, *(fit_under(one, tensors.held, model, filters) for one in _prefixes(tensors.held, model))]
    places: dict[str, Fit] = {}
    for one in tried:
        if one.complete and not any(other.complete and _within(one.prefix, other.prefix) for other in tried):
            places[one.place_in(tensors)] = one
    if not places:
        return min(tried, key=lambda one: len(one.missing) + len(one.differing))
    return places[choice.of(list(places), shown)]


def _within(prefix: str, other: str) -> bool:
    """Whether a prefix lies within another that is not empty."""
    return other not in ("", prefix) and prefix.startswith(other)


def _prefixes(held: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    """Prefixes under which names of the model's stand, or most names of the file's, the most frequent first."""
    wanted, counts, firsts = set(model.state_dict()), Counter[str](), Counter[str]()
    for key in held:
        parts = key.split(".")
        firsts[f"{parts[0]}."] += len(parts) > 1
        for at in range(1, len(parts)):
            if ".".join(parts[at:]) in wanted:
                counts[".".join(parts[:at]) + "."] += 1
    counts.update({first: count for first, count in firsts.items() if 2 * count >= len(held) and not counts[first]})
    return [prefix for prefix, count in counts.most_common(_MOST_PREFIXES) if 4 * count >= len(wanted)]


def fit_under(prefix: str, held: Mapping[str, Tensor], model: nn.Module, filters: Filter | None) -> Fit:
    """How the tensors under one prefix fit a model, after timm's filter.

    Args:
        prefix: that their names begin with, which is taken off.
        held: all tensors of the file.
        model: that they are for.
        filters: timm's filter for it.
    """
    chosen = {key[len(prefix) :]: value for key, value in held.items() if key.startswith(prefix)}
    made, stopped = _filtered(chosen, model, filters)
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    sources: dict[str, frozenset[str]] = {key: getattr(value, "sources", frozenset()) for key, value in made.items()}
    state = {key: value.as_subclass(Tensor) for key, value in made.items()}
    missing = sorted(key for key in wanted if key not in state)
    zeros = [key for key in sorted(wanted) if key in state and not sources[key]]
    missing += [key for key in zeros if bool(state[key].any())]  # made up, so not from the file
    differing = [
        (key, tuple(state[key].shape), shape)
        for key, shape in sorted(wanted.items())
        if key in state and tuple(state[key].shape) != shape
    ]
    resampled = [
        (key, tuple(chosen[source].shape), tuple(state[key].shape))
        for key in sorted(wanted.keys() & state.keys())
        for source in sources[key]
        if len(sources[key]) == 1 and not _same_memory(chosen[source], state[key])
    ]
    used = {source for key in wanted.keys() & state.keys() for source in sources[key]}
    tower = "" if missing else _common(used)
    left = sorted(chosen.keys() - used)
    inside = [key for key in left if key.startswith(tower)]
    outside = [key for key in held if not key.startswith(prefix)] + [prefix + key for key in left if key not in inside]
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    shapes |= {key: before for key, before, after in resampled if len(before) == len(after)}
    return Fit(
        {key: state[key] for key in wanted if key in state},
        prefix,
        tuple(missing),
        tuple(differing),
        tuple(key for key in inside if not _UNUSED.search(key)),
        tuple(key for key in inside if _UNUSED.search(key)),
        tuple(outside),
        tuple(resampled),
        tuple(zeros),
        shapes,
        stopped,
    )


def _filtered(chosen: Mapping[str, Tensor], model: nn.Module, filters: Filter | None) -> tuple[dict[str, Tensor], str]:
    """What timm's filter makes of some tensors; where it cannot, the same ones and what it raised."""
    traced: dict[str, Tensor] = {}
    for key, value in chosen.items():
        one = value.detach().as_subclass(_Traced)
        one.sources = frozenset((key,))
        traced[key] = one
    if filters is None:
        return traced, ""
    try:
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # EVA's prints
            warnings.simplefilter("ignore")
            return dict(filters(dict(traced), model)), ""
    except MemoryError:
        raise
    except Exception as error:  # filters expect their own layouts, and raise what they please at others
        return traced, excerpt(f"{type(error).__name__}: {' '.join(str(error).split())}", 80)


def _common(names: Iterable[str]) -> str:
    """The prefix that all names share, such as `visual.`."""
    parts = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return "".join(f"{group[0]}." for group in itertools.takewhile(lambda group: len(set(group)) == 1, parts))


def _same_memory(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
