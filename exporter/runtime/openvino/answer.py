"""One graph, read and compiled in memory by OpenVINO for the CPU, and what was said to it. Torch-free.

`python -c "from vitrim.exporter.runtime.openvino.answer import serve; serve()"` answers requests, see `verdict`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from ...core.errors import excerpt
from .. import verdict
from ..verdict import Answer, Refusal
from .runner import AS_WRITTEN, reason_of, the_core, title

_NO_RULE = re.compile(r"No conversion rule found for operations: (.*)")
_FAILED = re.compile(r"^-- (\w+)-\d+ with a message:\n(.*?)(?=^-- |^Summary:|\Z)", re.DOTALL | re.MULTILINE)
_NODE = re.compile(r"<Node\(\w+\): ([^>]*)>")
_LONGEST = 400


def answer(model: bytes, place: str) -> Answer:
    """Read and compile a model; nothing is written.

    Args:
        model: serialized; its large weights may be in files.
        place: the file that it is of, beside which those lie. The working folder of this process becomes that one,
            because OpenVINO looks for them there.

    Raises:
        EnvironmentLackError: OpenVINO is not there.
    """
    began, core = time.perf_counter(), the_core()
    by = title()
    if place and Path(place).parent.is_dir():
        os.chdir(Path(place).parent)
    try:
        read = core.read_model(model)
    except RuntimeError as error:
        return Answer(by, refused=tuple(of_reader(str(error))), seconds=_since(began))
    try:
        compiled = core.compile_model(read, "CPU", AS_WRITTEN)
    except RuntimeError as error:
        refusal = Refusal("builder", "graph", "", reason_of(error), said=excerpt(str(error), _LONGEST))
        return Answer(by, parsed=True, refused=(refusal,), seconds=_since(began))
    layers = compiled.get_runtime_model().get_ordered_ops()
    return Answer(by, parsed=True, built=True, kernels=len(layers), seconds=_since(began))


def of_reader(said: str) -> list[Refusal]:
    """What OpenVINO's reader has against a graph: operators without a rule, and nodes whose rule failed."""
    return [*_without_rule(said), *_failed(said)] or [
        Refusal("parser", "graph", "", reason_of(RuntimeError(said)), said=excerpt(said, _LONGEST))
    ]


def _without_rule(said: str) -> Iterator[Refusal]:
    found = _NO_RULE.search(said)
    for name in found[1].split(",") if found else []:
        op = name.strip().partition("-")[0]
        yield Refusal("parser", "graph", op, f"it has no rule to convert {op}", said=op)


def _failed(said: str) -> Iterator[Refusal]:
    for op, text in _FAILED.findall(said):
        node, lines = _NODE.search(text), [line.strip() for line in text.splitlines() if line.strip()]
        what = excerpt(_NODE.sub("", lines[-1]) if lines else text, _LONGEST)
        yield Refusal("parser", node[1] if node else "graph", op, what, said=excerpt(f"{op}: {text}", _LONGEST))


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 3)


def serve() -> None:
    """Answer requests from standard input until it ends, see `verdict.serve`."""
    verdict.serve(answer)
