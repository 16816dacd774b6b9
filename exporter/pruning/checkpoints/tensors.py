"""A checkpoint file read into one dictionary of tensors, wherever it lies, without running any code from it."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.models import clean_state_dict
from torch import Tensor

from ...core.errors import InputError, excerpt
from ...core.inputs import InputKind, open_file
from ..widths import Widths, parse_widths
from .foreign import looks_like_safetensors, refuse_foreign
from .standins import harmless

# In the metadata of a slimmed checkpoint: its widths, and what a config.json said of its model.
WIDTHS_KEY, DESCRIBED_KEY = "vitrim.widths", "vitrim.described"
_PICKLE_MAGICS = (b"PK\x03\x04", b"\x80")
_DEEPEST = 4  # dictionaries within dictionaries
_EMA = re.compile(r"(^|[._])ema([._]|$)")
# Tensors that a trainer needs to go on; no model is made of them.
_BESIDE = re.compile(r"^(optim|opt_|.*optimizer|.*scaler|amp|.*sched|callbacks|loops|.*rng|.*loss$|metrics)", re.I)


@dataclass(frozen=True)
class Choice:
    """Which tensors are meant where a file holds those of several models.

    Attributes:
        ema: whether averaged weights (EMA) are taken where there are such.
        state: the place of one's, such as `teacher` or `student.backbone`; None leaves it to `ema`.
    """

    ema: bool = True
    state: str | None = None

    def of(self, places: Sequence[str], shown: str) -> str:
        """The one of some places that is meant.

        Args:
            places: at least one, such as `model_ema`; of the file itself it is "".
            shown: the file, for messages.

        Raises:
            InputError: none or several are.
        """
        if self.state is not None:
            found = [place for place in places if f"{place}.".startswith(f"{self.state}.")]
            if not found:
                raise InputError(
                    f"model.state: {shown} has no such tensors at {excerpt(self.state, 80)!r}; it has {listed(places)}"
                )
        else:
            averaged = [place for place in places if _EMA.search(place)]
            found = averaged if self.ema and averaged else [place for place in places if place not in averaged]
            if not found:
                raise InputError(f"{shown} holds averaged weights alone ({listed(places)}); take model.ema out")
        if len(found) > 1:
            example = excerpt(next(place for place in found if place), 80)
            raise InputError(
                f"{shown} holds tensors of several models ({listed(found)}); say which, such as model.state: {example}"
            )
        return found[0]


def listed(places: Sequence[str]) -> str:
    """Places in a file, for a person."""
    return ", ".join(excerpt(place, 80) or "its outermost level" for place in places)


@dataclass(frozen=True)
class Tensors:
    """The tensors of a checkpoint.

    Attributes:
        held: tensors by name, prefixes of DDP and torch.compile taken off.
        place: where in the file they lay, such as `model_ema`; "" for the file itself.
        others: other places that hold such tensors.
    """

    held: dict[str, Tensor]
    place: str = ""
    others: tuple[str, ...] = ()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint of one model, averaged ones where there are such; see `read_tensors`."""
    return read_tensors(path).held


def read_tensors(path: Path, choice: Choice = Choice()) -> Tensors:
    """Read a checkpoint without running any code from it.

    Args:
        path: a .safetensors file, or a PyTorch file of tensors in dictionaries, harmless objects beside them.
        choice: which dictionary, where there are several.

    Raises:
        InputError: truncated, of another kind, or a pickle that would run code; or nobody knows which dictionary.
    """
    refuse_foreign(path)
    shown = excerpt(os.fspath(path), 300)
    loaded = _read_safetensors(path, shown) if is_safetensors(path) else _read_pickle(path, shown)
    if not isinstance(loaded, dict):
        raise InputError(f"{shown} holds a {type(loaded).__name__}, not a state dict; save model.state_dict()")
    found = _plausible(dict(_dictionaries(loaded, set())))
    if not found:
        held = f" (it holds {excerpt(', '.join(map(str, list(loaded)[:5])))})" if loaded else ""
        raise InputError(f"{shown} holds no tensors{held}; save model.state_dict()")
    place = _place(found, choice, shown)
    return Tensors(_cleaned(found[place], shown), place, tuple(other for other in found if other != place))


def is_safetensors(path: Path) -> bool:
    """Whether a checkpoint is to be read as safetensors: by its name, or because it is no pickle.

    Raises:
        InputError: it cannot be read.
    """
    with open_file(path, InputKind.CHECKPOINT) as stream:
        magic = stream.read(16)
    return path.suffix == ".safetensors" or looks_like_safetensors(magic) or not magic.startswith(_PICKLE_MAGICS)


def _read_pickle(path: Path, shown: str) -> object:
    try:
        with warnings.catch_warnings(), harmless(path):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL ([\w.]+\w)", str(error))
        named = f", such as {excerpt(name[1], 80)}," if name else ""
        raise InputError(
            f"{shown} is a pickle that holds more than tensors{named or ','} and loading it could run code, so vitrim "
            "does not; convert it where you trust it: safetensors.torch.save_file(model.state_dict(), "
            "'weights.safetensors')"
        ) from error
    except Exception as error:  # damaged archives end in errors of every type
        raise InputError(f"{shown} is not a whole PyTorch checkpoint; it may be truncated: fetch it again") from error


def _read_safetensors(path: Path, shown: str) -> dict[str, Tensor]:
    import safetensors.torch

    with _explained(shown):
        return safetensors.torch.load_file(path)


@contextlib.contextmanager
def _explained(shown: str) -> Iterator[None]:
    """What safetensors raises, as one line on the file."""
    import safetensors

    try:
        yield
    except safetensors.SafetensorError as error:
        reason = excerpt(str(error), 120)
        raise InputError(
            f"{shown} is not a whole safetensors file ({reason}); it may be truncated: fetch it again"
        ) from error
    except (KeyError, AttributeError, ValueError, RuntimeError, OSError) as error:  # types that this PyTorch has not
        reason = excerpt(f"{type(error).__name__}: {error}", 120)
        raise InputError(f"{shown} holds what this PyTorch cannot read ({reason}); save it in float32") from error


def _dictionaries(
    held: Mapping[Any, Any], seen: set[int], place: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(place, tensors) of every dictionary that holds some, each once, what trainers keep beside a model's left out."""
    seen.add(id(held))
    tensors = {str(key): value for key, value in held.items() if isinstance(value, Tensor)}
    if tensors:
        yield place, tensors
    if depth < _DEEPEST:
        for key, value in held.items():
            if isinstance(value, dict) and id(value) not in seen and not _BESIDE.match(str(key)):
                yield from _dictionaries(value, seen, f"{place}.{key}" if place else str(key), depth + 1)


def _plausible(found: Mapping[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Without those that hold less than half of the tensors that the largest holds: they are no model beside it."""
    most = max(map(len, found.values()), default=0)
    return {place: tensors for place, tensors in found.items() if 2 * len(tensors) >= most}


def _place(found: Mapping[str, dict[str, Tensor]], choice: Choice, shown: str) -> str:
    """The dictionary that is meant; the place that was named may lie deeper than dictionaries do, as a prefix."""
    state = choice.state
    above = [] if state is None else [place for place in found if not place or f"{state}.".startswith(f"{place}.")]
    return max(above, key=len) if above else choice.of(list(found), shown)


def _cleaned(tensors: Mapping[str, Tensor], shown: str) -> dict[str, Tensor]:
    """Without the prefixes of DDP and torch.compile."""
    cleaned: dict[str, Tensor] = {}
    for key, value in tensors.items():
        ((name, _),) = clean_state_dict({key: value}).items()
        if name in cleaned:
            raise InputError(f"{shown} holds {excerpt(name)} twice, with and without `module.`; save one of them")
        cleaned[name] = value
    return cleaned


def widths_in(path: Path) -> Widths | None:
    """The widths that a slimmed checkpoint carries; None for any other checkpoint.

    Raises:
        InputError: it is no whole file, or carries something else under their name.
    """
    found = _carried(path, WIDTHS_KEY)
    return None if found is None else parse_widths(found, str(path))


def described_in(path: Path) -> dict[str, Any] | None:
    """What a slimmed checkpoint carries of its model, `name`, `args`, `epsilon` and `images`; None of others.

    Raises:
        InputError: it is no whole file, or carries something else under their name.
    """
    found = _carried(path, DESCRIBED_KEY)
    kinds = {"name": str, "args": dict, "epsilon": (float, type(None)), "images": dict}
    if found is None or (
        isinstance(found, dict)
        and found.keys() == kinds.keys()
        and all(isinstance(found[key], kind) for key, kind in kinds.items())  # type: ignore[arg-type]
    ):
        return found
    raise InputError(f"{path}: its {DESCRIBED_KEY} names no model; the checkpoint is damaged")


def _carried(path: Path, key: str) -> Any:
    """What the metadata of a safetensors file hold under a key; None where there is nothing."""
    import safetensors

    if not is_safetensors(path):
        return None
    with _explained(excerpt(os.fspath(path), 300)), safetensors.safe_open(path, "pt") as opened:
        text = (opened.metadata() or {}).get(key)
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its {key} is not JSON; the checkpoint is damaged") from error
