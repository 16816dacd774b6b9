"""Every ONNX operator, asked of the real parser and builder, and the table of the target held against the answers.

    python benchmarks/operators.py
    python benchmarks/operators.py --target openvino

Graphs of one node each: ONNX's own backend tests, and a few by hand for operators that those leave out. Each is asked
as it is and with all inputs but the first as constants, and then with other element types for its first input. A few
minutes; no GPU. Written to benchmarks/results/operators.md, or operators_TARGET.md, with the command.
"""

from __future__ import annotations

import re
import shlex
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnx.defs
from onnx import TensorProto, helper, numpy_helper

from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.core.targets import Target, get_target
from vitrim.exporter.graph.lint.check import lint
from vitrim.exporter.graph.lint.facts import DEFAULT_DOMAINS, type_name
from vitrim.exporter.graph.lint.static import split
from vitrim.exporter.runtime.ask import Asker

KINDS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8", "INT32", "INT64", "BOOL")
OLDEST = 13  # opset that graphs declare at least: what they mean changed little from there on
F, I64 = TensorProto.FLOAT, TensorProto.INT64


@dataclass(frozen=True)
class Case:
    """A graph of one node, and what was said of it.

    Attributes:
        op: its operator.
        kind: element type of its first input.
        built: by the real thing.
        reason: else why not.
        table: errors of the table.
    """

    op: str
    kind: str
    built: bool
    reason: str
    table: tuple[str, ...]


@click.command()
@click.option("--target", "name", default="trt-rtx", show_default=True)
@click.option("--only", multiple=True, metavar="OPERATOR", help="These operators alone; nothing is written.")
@click.option("--out", type=click.Path(path_type=Path), help="A page in benchmarks/results by default.")
def main(name: str, only: tuple[str, ...], out: Path | None) -> None:
    """Ask about every operator and write the tables."""
    warnings.filterwarnings("ignore", module="onnx")  # numpy warns in ONNX's own references
    target = get_target(name)
    cases: list[Case] = []
    with Asker(target) as asker:
        for models in models_by_operator(target, only):
            found = [ask(asker, target, variants) for variants in models]
            base = next((variants for variants, case in zip(models, found, strict=True) if case.built), None)
            found += [ask(asker, target, variants) for variants in of_other_types(base or models[0], target)]
            click.echo(f"{found[0].op}: {sum(case.built for case in found)} of {len(found)} built")
            cases += found
    lines = [f"`python {shlex.join(sys.argv)}`", "", *report(cases, target, asker.title)]
    if not only:
        page = "operators.md" if target.rtx else f"operators_{target.name}.md"
        atomic_write(out or Path("benchmarks/results") / page, "\n".join(lines) + "\n")
    click.echo("\n".join(disagreements(cases)))


def models_by_operator(target: Target, only: Iterable[str]) -> Iterator[list[list[onnx.ModelProto]]]:
    """For each operator of the target's opset its graphs, each in its variants."""
    from onnx.backend.test.case.node import collect_testcases

    found: dict[str, list[list[onnx.ModelProto]]] = defaultdict(list)
    for case in collect_testcases():
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].domain in DEFAULT_DOMAINS and declared(case.model, nodes[0], target):
            found[nodes[0].op_type].append([case.model, *with_constants(case.model, case.data_sets)])
    for model in by_hand(target):
        found[model.graph.node[-1].op_type].append([model])
    for op in sorted(found):
        if not only or op in only:
            yield found[op]


def declared(model: onnx.ModelProto, node: onnx.NodeProto, target: Target) -> bool:
    """Let a graph declare an opset that the target takes; whether its operator is there in it."""
    entry = next(entry for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS)
    entry.version = min(max(entry.version, OLDEST), target.opset)
    model.ir_version = 10
    return bool(onnx.defs.has(node.op_type, max_inclusive_version=entry.version))


def with_constants(model: onnx.ModelProto, data: Any) -> list[onnx.ModelProto]:
    """The graph with all inputs but the first as constants, where it has more than one and the test has its data."""
    if len(model.graph.input) < 2 or not data:
        return []
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    values = dict(zip((value.name for value in model.graph.input), data[0][0], strict=False))
    for value in list(changed.graph.input)[1:]:
        given = values.get(value.name)
        if isinstance(given, np.ndarray) and value.type.tensor_type.elem_type:
            tensor = numpy_helper.from_array(given, value.name)
            if tensor.data_type == value.type.tensor_type.elem_type:
                changed.graph.initializer.append(tensor)
                changed.graph.input.remove(value)
    return [changed]


def of_other_types(variants: list[onnx.ModelProto], target: Target) -> list[list[onnx.ModelProto]]:
    """A graph's variants with other element types for its first input, and for all that must have the same."""
    graph, node = variants[0].graph, variants[0].graph.node[-1]
    schema = onnx.defs.get_schema(node.op_type, target.opset, "")
    own = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    if len(graph.node) > 1 or not node.input or not own.get(node.input[0]):
        return []
    first = schema.inputs[0]
    allowed = {each[7:-1].upper() for each in first.types} - {type_name(own[node.input[0]])}
    kinds = [TensorProto.DataType.Value(kind) for kind in KINDS if kind in allowed]
    return [[retyped(model, schema, first.type_str, kind) for model in variants] for kind in kinds]


def retyped(model: onnx.ModelProto, schema: Any, variable: str, kind: int) -> onnx.ModelProto:
    """The graph with an element type for everything that a type variable of its operator's stands for."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph, node = changed.graph, changed.graph.node[0]
    names = set(_of_variable(node.input, schema.inputs, variable)) | set(
        _of_variable(node.output, schema.outputs, variable)
    )
    for value in (*graph.input, *graph.output):
        if value.name in names:
            value.type.tensor_type.elem_type = kind
    for tensor in graph.initializer:
        if tensor.name in names:
            values = numpy_helper.to_array(tensor).astype(np.float32).ravel()
            tensor.CopyFrom(helper.make_tensor(tensor.name, kind, tensor.dims, _fit(values, kind)))
    return changed


def _of_variable(names: Iterable[str], formal: Any, variable: str) -> list[str]:
    last = len(formal) - 1
    return [name for place, name in enumerate(names) if name and formal[min(place, last)].type_str == variable]


def _fit(values: np.ndarray, kind: int) -> list[Any]:
    """Numbers that an element type holds."""
    if kind == TensorProto.BOOL:
        return [bool(value) for value in values]
    if kind in (F, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16):
        return [float(value) for value in values]
    return [int(value) for value in np.clip(np.nan_to_num(values), 0, 127)]


def by_hand(target: Target) -> Iterator[onnx.ModelProto]:
    """Graphs for operators that ONNX's tests leave out, or test with several outputs or sequences only."""
    value, node = helper.make_tensor_value_info, helper.make_node
    x, picture = [value("x", F, [2, 3])], [value("p", F, [1, 2, 4, 4])]
    heads = [value(name, F, [1, 6, 197, 64]) for name in "qkv"]
    y, sequence = value("y", F, [2, 3]), helper.make_tensor_sequence_value_info("y", F, None)
    made = node("SequenceConstruct", ["x", "x"], ["s"])
    step = helper.make_graph(
        [node("Add", ["before", "x"], ["after"]), node("Identity", ["on"], ["still"])],
        "step",
        [value("number", I64, []), value("on", TensorProto.BOOL, []), value("before", F, [2, 3])],
        [value("still", TensorProto.BOOL, []), value("after", F, [2, 3])],
    )
    chains: list[tuple[list[onnx.NodeProto], list[Any], Any]] = [
        ([node("Attention", ["q", "k", "v"], ["y"])], heads, value("y", F, [1, 6, 197, 64])),
        ([node("GlobalLpPool", ["p"], ["y"])], picture, value("y", F, [1, 2, 1, 1])),
        ([node("LayerNormalization", ["x", "three"], ["y"])], x, y),
        ([node("Loop", ["i", "yes", "x"], ["y"], body=step)], x, y),
        ([node("MaxRoiPool", ["p", "rois"], ["y"], pooled_shape=[2, 2])], picture, value("y", F, [1, 2, 2, 2])),
        ([node("Multinomial", ["x"], ["y"])], x, value("y", TensorProto.INT32, [2, 1])),
        ([node("OneHot", ["n", "i", "two"], ["y"])], [value("n", I64, [4])], value("y", F, [4, 4])),
        ([node("Optional", ["x"], ["y"])], x, y),
        ([node("RandomNormal", [], ["y"], shape=[2, 3])], x, y),
        ([node("RandomNormalLike", ["x"], ["y"])], x, y),
        ([node("RandomUniform", [], ["y"], shape=[2, 3])], x, y),
        ([node("SequenceConstruct", ["x", "x"], ["y"])], x, sequence),
        ([node("SequenceEmpty", [], ["y"])], x, sequence),
        ([made, node("SequenceAt", ["s", "i"], ["y"])], x, y),
        ([made, node("SequenceErase", ["s", "i"], ["y"])], x, sequence),
        ([made, node("SequenceLength", ["s"], ["y"])], x, value("y", I64, [])),
        ([made, node("ConcatFromSequence", ["s"], ["y"], axis=0)], x, value("y", F, [4, 3])),
    ]
    constants = {
        "i": np.array(4),
        "rois": np.array([[0, 0, 0, 3, 3]], np.float32),
        "three": np.ones(3, np.float32),
        "two": np.array([0, 1], np.float32),
        "yes": np.array(True),
    }
    for chain, given, out in chains:
        weights = [numpy_helper.from_array(constants[name], name) for name in chain[-1].input if name in constants]
        graph = helper.make_graph(chain, "g", given, [out], weights)
        opset = min(23, target.opset)
        yield helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def ask(asker: Asker, target: Target, variants: list[onnx.ModelProto]) -> Case:
    """What the real thing says of the first variant that it builds, or of the last; and the table of the same."""
    for model in variants:
        answer = asker.ask(model.SerializeToString())
        if answer.built:
            break
    node = model.graph.node[-1]
    values = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    values |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    kind = type_name(values[node.input[0]]) if node.input and values.get(node.input[0]) else "-"
    reason = answer.ended or (answer.refused[0].what if answer.refused else "")
    errors = [one for one in split(lint(model, target, foreign=True))[0] if one.severity == "error"]
    return Case(node.op_type, kind, answer.built, reason, tuple(dict.fromkeys(one.what for one in errors)))


def report(cases: list[Case], target: Target, title: str) -> list[str]:
    """Lines of the page."""
    operators: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        operators[case.op].append(case)
    agreed = sum(case.built == (not case.table) for case in cases)
    lines = [
        f"{title} and onnx {onnx.__version__}: {len(cases)} graphs of {len(operators)} operators, opset {OLDEST} to "
        f"{target.opset}, without a GPU. {sum(case.built for case in cases)} were built. The table for {target.name} "
        f"says the same of {agreed}; of the others it refuses {sum(c.built and bool(c.table) for c in cases)} that "
        f"were built and takes {sum(not c.built and not c.table for c in cases)} that were not.",
        "",
        "| operator | built | types built | types refused | why not, most often |",
        "| --- | --- | --- | --- | --- |",
    ]
    for op, rows in operators.items():
        built = {case.kind for case in rows if case.built}
        refused = {case.kind for case in rows} - built
        reasons = Counter(case.reason for case in rows if not case.built).most_common(1)
        why = _cell(reasons[0][0]) if reasons else ""
        lines.append(
            f"| {op} | {sum(c.built for c in rows)} of {len(rows)} | {_types(built)} | {_types(refused)} | {why} |"
        )
    return [*lines, *disagreements(cases)]


def _types(kinds: set[str]) -> str:
    return " ".join(sorted(kind.lower() for kind in kinds)) or "-"


def disagreements(cases: list[Case]) -> list[str]:
    """Lines of the page on graphs of which table and real thing say different things."""
    stricter = Counter(_kind(what) for case in cases if case.built for what in case.table)
    silent = Counter((case.op, case.kind, case.reason) for case in cases if not case.built and not case.table)
    lines = ["", "Built, but refused by the table:", "", "| graphs | what the table says |", "| --- | --- |"]
    lines += [f"| {count} | {_cell(what)} |" for what, count in stricter.most_common()]
    lines += [
        "",
        "Refused, but taken by the table:",
        "",
        "| operator | type | graphs | why |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {op} | {kind.lower()} | {count} | {_cell(why)} |" for (op, kind, why), count in sorted(silent.items())
    ]
    return lines


def _kind(what: str) -> str:
    """What the table says, without names and without what an inference said."""
    return re.sub(r" \(\w+\)$|: \[.*", "", what)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")[:140]


if __name__ == "__main__":
    main()
