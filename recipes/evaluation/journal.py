"""What has been judged so far: a line of JSON a shard, written to the disk before the next begins.

    {"format": "vitrim-evaluation-journal/1", "bundle": SHA-256, "images": SHA-256, ...}
    {"start": 100, "answers": [[dense, pruned, 1 where they agree else 0, divergence], ...]}

A shard that stands there twice counts once. See `recipes.pools.lines` for what a killed process leaves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ..pools.lines import Kind, Lines
from .shards import Answer

FORMAT = "vitrim-evaluation-journal/1"
_WORDS = {"bundle": "another bundle", "images": "other images", "version": "another version of vitrim"}
_KIND = Kind(FORMAT, "journal of an evaluation", _WORDS)


class Journal:
    """An open journal, which nobody else writes meanwhile.

    Args:
        path: the file; a new one is begun where there is none.
        head: what the answers depend on, by name, as texts.

    Attributes:
        answers: by index of the image.

    Raises:
        InputError: the file is no journal, of something else, damaged, or in use.
        EnvironmentLackError: it cannot be written.
    """

    def __init__(self, path: Path, head: Mapping[str, str]) -> None:
        self.path, self.answers = path, dict[int, Answer]()
        self._lines = Lines(path, _KIND, head)
        try:
            for index, data in enumerate(self._lines.found):
                self._take(*self._shard(data, index))
        except BaseException:
            self._lines.close()
            raise

    def _shard(self, data: Mapping[str, Any], index: int) -> tuple[int, list[Answer]]:
        start, rows = data.get("start"), data.get("answers")
        found = [_answer(row) for row in rows] if isinstance(rows, list) else [None]
        if type(start) is not int or start < 0 or None in found:
            raise self._lines.damaged(index)
        return start, [one for one in found if one is not None]

    def _take(self, start: int, found: list[Answer]) -> None:
        for index, answer in enumerate(found, start):
            self.answers.setdefault(index, answer)

    def add(self, start: int, found: list[Answer]) -> None:
        """Keep a shard.

        Args:
            start: index of its first image.
            found: of its images, in order.

        Raises:
            EnvironmentLackError: the file cannot be written.
        """
        rows = [[one.dense, one.pruned, int(one.same), one.kl] for one in found]
        self._lines.append({"start": start, "answers": rows})
        self._take(start, found)

    def remove(self) -> None:
        """Delete the file: what it held is in the result."""
        self._lines.remove()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()


def _answer(row: object) -> Answer | None:
    """The answer of a row; None where it is none."""
    if not isinstance(row, list) or [type(value) for value in row] != [int, int, int, float]:
        return None
    dense, pruned, same, kl = row
    fits = dense >= 0 and pruned >= 0 and same in (0, 1) and math.isfinite(kl)
    return Answer(dense, pruned, bool(same), kl) if fits else None
