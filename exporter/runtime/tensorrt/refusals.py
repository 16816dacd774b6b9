"""What a parser or a builder says against a graph, as a line for each node. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..verdict import Refusal

_LONGEST = 400
_NO_DRIVER = re.compile(r"\[[^\[\]]*catchCudaError[^\[\]]*\] Error Code \d+: Cuda Runtime \(.*?cudaError 35[^)]*\)\)")
_NOISE = (
    _NO_DRIVER,
    re.compile(r"\s*In [\w:<>~() ]{1,80}? at [\w./]+:\d+"),  # where in its sources
    re.compile(r"\)\s+ITensor::\w+: Error Code .*$"),  # what follows from it
    re.compile(r"^Invalid Node - \S+ "),
    re.compile(r"^(\[[^\]]*\]|[\w:]+:?) Error Code \d+: "),
    re.compile(r"^Assertion failed: .*?(?<!:): "),  # the condition; what follows is for people
    re.compile(r"^Myelin \(.*\bfailed\. "),
    re.compile(r"\(See http\S+[^)]*\).*$"),
)
_SAID = re.compile(r'&& ((?:"[^"]*"\s*)+)')  # one text may be written in several
_WRAPPED = re.compile(r"^\w+( \w+)* Error \((.*?)\)?$")
_NOT_ASKED_FOR = "false"  # all that the check of an operator without an importer says


def of_parser(errors: Iterable[Any]) -> list[Refusal]:
    """Everything that a parser has against a graph.

    Args:
        errors: TensorRT's `ParserError`s.
    """
    found = []
    for error in errors:
        said = " ".join(str(error.desc()).split())
        node, op = str(error.node_name()), str(error.node_operator())
        if not node and error.func() == "importInput":
            node, op = str(error.file()), "value"  # that is where it names the input
        code = str(error.code()).rpartition(".")[2]
        inside = tuple(map(str, error.local_function_stack() or ())) if error.local_function_stack_size() else ()
        found.append(Refusal("parser", node or "graph", op, _about(plain(said), node), code, said, inside))
    return list(dict.fromkeys(found))


def of_builder(errors: Iterable[str], nodes: Mapping[str, str]) -> list[Refusal]:
    """What a builder has against a graph: its last word that names a node, or its last.

    Args:
        errors: its log's errors, each in one line.
        nodes: ONNX nodes by what the log may call them: names of layers and of their tensors.
    """
    said = [line for line in errors if not _NO_DRIVER.fullmatch(line)] or ["it gives no reason"]
    named = [(line, name) for line in said for name in [_named(line, nodes)] if name]
    line, name = named[-1] if named else (said[-1], "")
    code = re.search(r"Error Code (\d+)", line)
    return [Refusal("builder", nodes.get(name, "graph"), "", plain(line), code[1] if code else "", line)]


def _about(what: str, node: str) -> str:
    """A complaint that does not begin with the name of its node."""
    head = f"{node}: "
    return what[len(head) :] if node and what.startswith(head) else what


def _named(line: str, names: Collection[str]) -> str:
    """The longest name that a line speaks of, such as `node NAME`, `ITopKLayer NAME`, `NAME: ` or `NAME has`."""
    there = [name for name in names if name in line]
    return max((name for name in there if _speaks_of(line, name)), key=len, default="")


def _speaks_of(line: str, name: str) -> bool:
    word = re.escape(name)
    before, after = r"(?:[Nn]ode|[Tt]ensor|\w+Layer) ", r"(?::|(?:_\d+)? has) "
    return re.search(rf"{before}{word}(?![\w/])|(?<![\w./]){word}{after}", line) is not None


def plain(said: str) -> str:
    """A complaint without what only TensorRT's authors can read."""
    if said == _NOT_ASKED_FOR:
        return "it has no such operator"
    quoted = _SAID.search(said)
    found = "".join(re.findall('"([^"]*)"', quoted[1])) if quoted else said
    for noise in _NOISE:
        found = noise.sub("", found).strip()
    inner = _WRAPPED.match(found)
    return (inner[2] if inner else found or said)[:_LONGEST]
