"""What the real thing says of a graph, and how a process that asks it is spoken to. Torch-free.

Parsers end their process on some graphs, so `ask` runs them in a process of its own. That reads requests from standard
input, each a line of JSON (`size`, `place`) and then `size` bytes of a model, and writes an `Answer` as a line of JSON
for each.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..core.records import Record


@dataclass(frozen=True)
class Refusal(Record):
    """One node, or input, that stands in the way.

    Attributes:
        by: who refuses it; `process` where the one that asks them died of it, or came to no end.
        node: its name; `graph` where nobody names any.
        op: operator; `value` of an input, empty where it is not known.
        what: why, for a person.
        code: the parser's, such as `UNSUPPORTED_NODE`; the builder's number of an error.
        said: word for word.
        inside: local functions that the node is in, the outermost first.
    """

    by: Literal["parser", "builder", "process"]
    node: str
    op: str
    what: str
    code: str = ""
    said: str = ""
    inside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer(Record):
    """What parser and builder say of a graph.

    Attributes:
        by: whose they are, with the version.
        parsed: whether the parser took it.
        built: whether the builder made something of it that can run.
        refused: what stands in the way; empty where it was built.
        kernels: of what was built.
        size: of an engine, in bytes; 0 where none is made.
        seconds: it took.
        assumed: sizes that stood in for open ones, and values that stood in for those of inputs that decide sizes.
        warnings: that were given.
        ended: how the process ended, where it did without an answer.
        late: whether it did because it came to no end.
    """

    by: str
    parsed: bool = False
    built: bool = False
    refused: tuple[Refusal, ...] = ()
    kernels: int = 0
    size: int = 0
    seconds: float = 0.0
    assumed: dict[str, tuple[int, ...]] | None = None
    warnings: tuple[str, ...] = ()
    ended: str = ""
    late: bool = False


def serve(answer: Callable[[bytes, str], Answer]) -> None:
    """Answer requests from standard input until it ends.

    Args:
        answer: of a serialized model, and of the file that it is of.
    """
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print there is no answer
    while True:
        line = sys.stdin.buffer.readline()
        if not line:
            return
        request = json.loads(line)
        found = answer(sys.stdin.buffer.read(request["size"]), request["place"])
        with os.fdopen(os.dup(out), "w", encoding="utf-8") as stream:
            stream.write(json.dumps(found.to_json()) + "\n")
