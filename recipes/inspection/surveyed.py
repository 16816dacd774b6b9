"""Every model of timm asked once: answers are kept in vitrim's cache folder, by timm's version and vitrim's sources.

To ask all takes minutes; what is known already needs neither PyTorch nor timm.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from ...exporter.core.errors import EnvironmentLackError, InputError, excerpt
from ...exporter.core.files import atomic_write
from ...exporter.core.sources import digest
from ...exporter.pruning.families import Answer, Family, Known, Model, choose, family_of
from ...exporter.runtime.caches import cache_root, private_folder

FORMAT = "vitrim-models/1"
_DECIDES = "exporter.pruning.supported"  # the module whose sources, and all that they import, decide on an answer


def survey(
    wanted: str = "",
    progress: Callable[[int, int], None] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> list[Family]:
    """What vitrim does with timm's models, by family.

    Args:
        wanted: part of a family's or a model's name; empty takes all that timm has weights for.
        progress: called with (models asked, models to ask); not at all where everything is known.
        note: hears why answers cannot be kept.

    Raises:
        InputError: no family and no model has such a name, or the cache folder is another's.
    """
    place = cache_root() / "models" / f"timm-{version('timm')}-{digest(_DECIDES)[:16]}.json"
    known = _read(place)
    if known is None:
        from ...exporter.pruning.supported import listing

        known = listing()
    chosen = choose(known, wanted)
    if not chosen:
        raise InputError(f"timm {version('timm')} has no family and no model with {excerpt(wanted)!r} in its name")
    total, done = sum(one.answer is None for models in chosen.values() for one in models), 0
    for module, models in chosen.items():
        new: dict[str, Model] = {}
        for one in models:
            if one.answer is None:
                from ...exporter.pruning.supported import ask_with_classifier

                new[one.name] = replace(one, answer=ask_with_classifier(one.name))
                done += 1
                if progress:
                    progress(done, total)
        if new:
            known[module] = [new.get(one.name, one) for one in known[module]]
            chosen[module] = [new.get(one.name, one) for one in models]
            note = _keep(known, place, note)
    return [family_of(module, models) for module, models in chosen.items()]


def _read(place: Path) -> Known | None:
    """What a file of answers holds; None where there is none, or no whole one: then it is made anew."""
    try:
        held = json.loads(place.read_text(encoding="utf-8"))
        if held["format"] != FORMAT:
            return None
        return {
            module: [
                Model(one["name"], one["pretrained"], None if one["answer"] is None else Answer(**one["answer"]))
                for one in models
            ]
            for module, models in held["modules"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _keep(known: Known, place: Path, note: Callable[[str], None]) -> Callable[[str], None]:
    """Write what is known; one that cannot be written is said once.

    Returns:
        who hears of it the next time.
    """
    modules = {module: [asdict(one) for one in models] for module, models in known.items()}
    try:
        private_folder(place.parent)
        atomic_write(place, json.dumps({"format": FORMAT, "modules": modules}) + "\n")
    except EnvironmentLackError as error:
        note(f"answers are not kept for the next time: {error}")
        return lambda text: None
    return note
