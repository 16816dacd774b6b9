"""Keywords of Python's functions as keys of a recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ...exporter.core.errors import InputError, did_you_mean
from .recipe import sections
from .sections.prune import PruneSection, TargetSection
from .sections.section import Section

# The key that a section's bare value is meant for: `images="photos/"`, `precision="fp16"`.
_BARE = {"images": "path", "evaluate": "path", "precision": "name", "engine": "mode", "prune": "preset"}
# Where a key is looked for that names no section; `target` is the export's, since a plan has been made by then.
_EXPORT = ("export", "precision", "parity", "bench", "engine")


def export_keywords(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of an export as recipe data.

    A keyword is a section, with a mapping or the value that matters most (`images="photos/"`), or a key of `export`,
    `precision`, `parity`, `bench` or `engine` (`target="jetpack-6"`, `batch=8`, `runs=200`).

    Raises:
        InputError: there is no such key; close matches are given.
    """
    known = {path: section for path, section in sections() if path and "." not in path}
    data: dict[str, Any] = {}
    for key, value in keywords.items():
        if value is None:
            continue
        if key in known:
            data.setdefault(key, {}).update(_section_data(key, value))
            continue
        holders = [name for name in _EXPORT if key in known[name].model_fields]
        if not holders:
            offered = [*known, *(field for name in _EXPORT for field in known[name].model_fields)]
            raise _unknown(key, offered, "export")
        data.setdefault(holders[0], {})[key] = plain(value)
    return data


def as_settings(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of an export as settings over a recipe: values by key, such as `{"export.batch": 8}`."""
    return {
        f"{section}.{key}": value for section, data in export_keywords(keywords).items() for key, value in data.items()
    }


def prune_keywords(method: str | None, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of pruning as a recipe's `prune` section: its keys, and those of its target (`flops_ratio=0.65`).

    Raises:
        InputError: there is no such key; close matches are given.
    """
    data: dict[str, Any] = {} if method is None else {"method": method}
    for key, value in keywords.items():
        if value is None:
            continue
        if key in PruneSection.model_fields:
            data[key] = plain(value)
        elif key in TargetSection.model_fields:
            data.setdefault("target", {})[key] = plain(value)
        else:
            raise _unknown(key, [*PruneSection.model_fields, *TargetSection.model_fields], "prune")
    return data


def images_keywords(images: Any) -> dict[str, Any]:
    """A path, or a mapping of keys, as a recipe's `images` section."""
    return _section_data("images", images)


def _section_data(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Section):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if name in _BARE:
        return {_BARE[name]: plain(value)}
    first = next(iter(dict(sections())[name].model_fields))
    raise InputError(f"{name}: give a mapping of keys, such as {name}={{{first!r}: ...}}")


def plain(value: Any) -> Any:
    """A value as YAML would have it."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, Section):
        return {key: plain(getattr(value, key)) for key in type(value).model_fields if key in value.model_fields_set}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [plain(inner) for inner in value]
    return value


def _unknown(key: str, offered: Sequence[str], function: str) -> InputError:
    hint = did_you_mean(key, offered)
    return InputError(f"{function} has no keyword {key!r}{hint} (there are {', '.join(dict.fromkeys(offered))})")
