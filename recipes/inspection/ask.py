"""The verdict of a target's own parser and builder on a graph, node by node, beside that of vitrim's table."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import onnx

from ...exporter.core.records import Record
from ...exporter.core.targets import Target
from ...exporter.graph.lint.cut import Values, alone, cut, name_nodes, typed_values
from ...exporter.graph.lint.facts import Finding, all_nodes
from ...exporter.runtime.ask import SECONDS, Asker
from ...exporter.runtime.verdict import Answer, Refusal

Verdict = Literal["built", "refused", "ended"]
_ROUNDS = 64  # of asking about what is left
_ALONE = 64  # nodes that are asked about one by one, where nobody names one
_SILENT = "takes it"


@dataclass(frozen=True)
class Difference(Record):
    """A node of which table and builder do not say the same.

    Attributes:
        node, op: which.
        table: what the table has against it.
        builder: what parser or builder have against it.
    """

    node: str
    op: str
    table: str
    builder: str


@dataclass(frozen=True)
class Asked(Record):
    """What the real thing says of a graph.

    Attributes:
        target: whose parser and builder were asked.
        verdict: `built`; `refused`; `ended` where its process died of the graph or came to no end.
        answer: to the whole graph.
        refused: everything that stands in the way. What was found in the graph without the nodes before it in this
            list may follow from that they were taken out.
        complete: whether all nodes were asked about; else those behind a refused one were not.
        agreed: nodes that the table refuses, too.
        differences: between the table and the real thing.
    """

    target: str
    verdict: Verdict
    answer: Answer
    refused: tuple[Refusal, ...] = ()
    complete: bool = True
    agreed: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()


def ask_builder(
    model: onnx.ModelProto,
    path: str | os.PathLike[str],
    target: Target,
    findings: Iterable[Finding],
    seconds: float = SECONDS,
) -> Asked:
    """Hand a graph to a target's parser and builder, in a process of their own, and lay the table's verdict beside.

    A parser stops at some nodes and a builder at any, so refused nodes are taken out and the rest is asked about.

    Args:
        model: of `path`, without its large weights; it is changed.
        path: the file.
        target: whose they are.
        findings: of the table, for this target.
        seconds: that each answer may take.

    Raises:
        InputError: that target has none that can be asked here.
        EnvironmentLackError: it is not installed; says how to get it.
    """
    with Asker(target, seconds) as asker:
        whole = _Graph(model, os.path.abspath(path))
        first = asker.ask(model.SerializeToString(), whole.place)
        refused, complete = _ask_on(asker, whole, first)
    verdict: Verdict = "built" if first.built else "ended" if first.ended else "refused"
    agreed, differences = compare(whole, findings, refused, complete)
    return Asked(target.name, verdict, replace(first, refused=()), refused, complete, agreed, differences)


@dataclass
class _Graph:
    """A graph that is asked about, and what is looked up in it."""

    model: onnx.ModelProto
    place: str
    known: dict[str, str] = field(init=False)
    ops: dict[str, str] = field(init=False)
    around: dict[str, set[str]] = field(init=False)
    _values: Values | None = None

    def __post_init__(self) -> None:
        self.known = name_nodes(self.model)
        self.ops = {node.name: node.op_type for node in all_nodes(self.model.graph)}
        self.around = {}
        for node in all_nodes(self.model.graph):
            for value in (*node.input, *node.output):
                self.around.setdefault(value, set()).add(node.name)

    @property
    def values(self) -> Values:
        """See `typed_values`; looked up when a node is refused."""
        if self._values is None:
            self._values = typed_values(self.model)
        return self._values


def _ask_on(asker: Asker, graph: _Graph, answer: Answer) -> tuple[tuple[Refusal, ...], bool]:
    """Everything that is refused, and whether nothing was left unasked."""
    found: dict[Refusal, None] = {}
    for _ in range(_ROUNDS):
        if answer.built:
            return tuple(found), True
        new = [each for refusal in _refusals(answer) for each in _traced(asker, graph, refusal, answer.late)]
        found.update(dict.fromkeys(new))
        names, values = {refusal.node for refusal in new}, graph.values
        if not cut(graph.model, names, values):
            return tuple(found), names >= {node.name for node in graph.model.graph.node}
        answer = asker.ask(graph.model.SerializeToString(), graph.place)
    return tuple(found), False


def _refusals(answer: Answer) -> tuple[Refusal, ...]:
    return (Refusal("process", "graph", "", answer.ended),) if answer.ended else answer.refused


def _traced(asker: Asker, graph: _Graph, refusal: Refusal, late: bool) -> Iterator[Refusal]:
    """A refusal with its operator; where nobody names a node, at those that are refused alone, too."""
    if refusal.node != "graph":
        yield replace(refusal, op=refusal.op or graph.ops.get(refusal.node, "value"))
        return
    guilty = []
    for name in [] if late else _suspects(graph, refusal):
        model = alone(graph.model, name, graph.values)
        answer = None if model is None else asker.ask(model.SerializeToString(), graph.place)
        if answer is not None and not answer.built and not answer.late:
            (first, *_) = _refusals(answer)
            guilty.append(replace(first, node=name, op=graph.ops[name]))
    yield from guilty or [refusal]


def _suspects(graph: _Graph, refusal: Refusal) -> list[str]:
    """Nodes whose operator a complaint names; where it names none, one of each kind."""
    words = set(re.findall(r"\w+", refusal.said))
    nodes = [node for node in graph.model.graph.node if node.op_type != "Constant"]
    named = [node.name for node in nodes if node.op_type in words]
    kinds: dict[tuple[object, ...], str] = {}
    for node in nodes:
        attributes = tuple(sorted(each.SerializeToString() for each in node.attribute))
        types = tuple(graph.values[name].type.SerializeToString() for name in node.input if name in graph.values)
        kinds.setdefault((node.op_type, attributes, types), node.name)
    return (named or list(kinds.values()))[:_ALONE]


def compare(
    graph: _Graph, findings: Iterable[Finding], refused: Iterable[Refusal], complete: bool
) -> tuple[tuple[str, ...], tuple[Difference, ...]]:
    """Nodes that both refuse, and those of which they say different things.

    Args:
        graph: as it was asked about.
        findings: the table's; its warnings refuse nothing.
        refused: by parser and builder.
        complete: whether what they do not refuse was asked about; else it is no difference.
    """
    table = [finding for finding in findings if finding.severity == "error"]
    real = {graph.known.get(each.node, each.node): each for each in refused}
    places = {id(finding): _places(graph, finding) for finding in table}
    agreed = {node for held in places.values() for node in held & real.keys()}
    differences = [
        Difference(node, each.op, _SILENT, f"{each.by}: {each.what}")
        for node, each in real.items()
        if node not in agreed
    ]
    if complete:
        differences += [
            Difference(finding.node, finding.op, finding.what, _SILENT)
            for finding in table
            if places[id(finding)].isdisjoint(agreed)
        ]
    return tuple(sorted(agreed)), tuple(dict.fromkeys(differences))


def _places(graph: _Graph, finding: Finding) -> set[str]:
    """Where a builder would refuse what a finding is about: its node, or those around its value."""
    around = graph.around.get(finding.node, set()) if finding.op == "value" else set()
    return {finding.node, *(graph.known.get(name, name) for name in around)}
