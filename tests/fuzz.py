"""Fuzzed inputs, and what a reader owes to them: a result, or one short line; never another exception, never a wait.

Examples are few and the same each time. For many new ones: `VITRIM_FUZZ=5000 pytest --hypothesis-seed=1 FILE`.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from vitrim.exporter.core.errors import VitrimError, visible

MANY = os.environ.get("VITRIM_FUZZ")
_PHASES = [Phase.explicit, Phase.generate]  # shrinking takes longer than looking at what failed
_LONGEST = 1200  # characters of a message: a path or two, and what was found


def fuzz(examples: int) -> settings:
    """Settings of a fuzz test that has so many examples."""
    return settings(
        max_examples=examples if MANY is None else int(MANY),
        derandomize=MANY is None,
        database=None,
        deadline=None,
        phases=_PHASES,
        suppress_health_check=list(HealthCheck),
    )


def held(use: Callable[..., Any], *given: Any, longest: int = _LONGEST) -> Any:
    """What a use gives; None where it refuses in one short line that does nothing to a terminal."""
    try:
        return use(*given)
    except VitrimError as error:
        text = str(error)
        assert text == visible(text), text
        assert 0 < len(text) <= longest, text
        return None


EXTREMES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e-320, 1e308, -1e308, 10**18, 2**31, 2**63 - 1, 2**63, -(2**63) - 1,
    10**400, float("nan"), float("inf"), -float("inf"),
    "", "0", "nan", "\x1b[31mred\n", "\ud800", "a\0b", "é\u202e", "x" * 500,
    "²", "../..", [], {}, [[]], [None], {"": None}, {"a": {"b": [1]}},
]  # fmt: skip
anything = st.sampled_from(EXTREMES) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def mangled(draw: Any, data: Any) -> Any:
    """Plain data of which some values are others, gone, doubled, renamed, or in a list of their own."""
    whole = [copy.deepcopy(data)]
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(_places(whole)))
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "wrap", "double", "rename"]))
        if holder is whole and action in ("remove", "double"):
            action = "replace"
        _change(holder, key, action, copy.deepcopy(draw(anything)))
    return whole[0]


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in ((value, key), *_places(value[key]))]


def _change(holder: Any, key: Any, action: str, new: Any) -> None:
    if action == "remove":
        del holder[key]
    elif action == "wrap":
        holder[key] = [holder[key]]
    elif action == "double" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    elif action == "rename" and isinstance(holder, dict):
        holder[str(new)[:40] if not isinstance(new, int) else "renamed"] = holder.pop(key)
    else:
        holder[key] = new


def json_file(path: Path, data: Any, tail: bytes = b"") -> Path:
    """Data as JSON, with what Python writes beyond JSON (NaN) and a tail of bytes."""
    path.write_bytes(json.dumps(data).encode() + tail)
    return path


@st.composite
def broken(draw: Any, whole: bytes) -> bytes:
    """Bytes of which some are others, gone, doubled or new."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        place, length = draw(st.integers(0, len(data))), draw(st.integers(0, 16))
        new = draw(st.binary(max_size=8) | st.just(b"\xff" * 9) | st.just(b"\x00" * 8) | st.just(bytes(data[:length])))
        data[place : place + length] = new
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.integers(0, 4)) == 0 else bytes(data)
