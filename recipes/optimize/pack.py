"""What an ONNX file became, put into a bundle's folder, and the page that says so."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...exporter.core import layout
from ...exporter.core.files import sha256
from ...exporter.core.layout import Kind
from ...exporter.graph.files import read_bare, save
from ...exporter.graph.opened import Opened
from ...exporter.graph.precision.report import PrecisionReport
from ...exporter.runtime.bench.report import LATER, Bench
from ...exporter.runtime.bundles.manifest import write_manifest
from ...exporter.runtime.lines import engine_state
from ...exporter.runtime.parity import Parity
from ...exporter.runtime.standalone import pack as standalone
from ..pipeline.engine import build_into
from ..schema.portable import portable_command
from ..stages.precision import in_manifest
from ..stages.provenance import versions
from .wishes import Wishes


@dataclass(frozen=True)
class Parts:
    """What was made of a file.

    Attributes:
        graphs: by kind, their files: `dense` is the file as it came, `pruned` what became of it.
        golden: images and the file's own answers.
        passes: reports, by graph and attention form.
        left_out: passes that do not hold on this graph, a line each.
        parity: every rung of the proof.
        precision: what was decided; None where float32 was asked for.
        bench: both graphs timed on this machine; None where the target does not run here.
        named: whether the images were given, and not random.
    """

    graphs: dict[Kind, Path]
    golden: dict[str, np.ndarray]
    passes: dict[str, Any]
    left_out: tuple[str, ...]
    parity: Parity
    precision: PrecisionReport | None
    bench: Bench | None
    named: bool


@dataclass(frozen=True)
class Optimized:
    """What an ONNX file became.

    Attributes:
        folder: the published bundle.
        source: name and SHA-256 of the file.
        input, output: what the file calls the ends that a bundle calls `image` and `logits`.
        passes: of those that changed something, their reports.
        left_out: passes that do not hold on this graph, a line each.
        parity: every rung of the proof, against the file itself.
        precision: what was decided; None where float32 was asked for.
        bench: `dense` is the file as it came, `pruned` the optimised graph; None where their target does not run here.
        engine: why no engine was built, or None when there is one.
    """

    folder: Path
    source: dict[str, str]
    input: str
    output: str
    passes: tuple[dict[str, Any], ...]
    left_out: tuple[str, ...]
    parity: Parity
    precision: PrecisionReport | None
    bench: Bench | None
    engine: str | None

    def at(self, folder: Path) -> Optimized:
        """The same, published there."""
        return replace(self, folder=folder)

    @property
    def verdict(self) -> str:
        """What may be said of the speed: `dense` is the file."""
        if self.bench is None:
            return LATER
        return self.bench.verdict.replace("than dense", "than the file").replace("as dense", "as the file")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "folder": str(self.folder),
            "source": self.source,
            "input": self.input,
            "output": self.output,
            "passes": list(self.passes),
            "left_out": list(self.left_out),
            "parity": self.parity.to_json(),
            "precision": None if self.precision is None else self.precision.to_json(),
            "bench": None if self.bench is None else self.bench.to_json(),
            "engine": self.engine or "built",
        }


def pack_optimized(
    wishes: Wishes, opened: Opened, parts: Parts, source: Path, staging: Path, no_engine: str | None, command: list[str]
) -> Optimized:
    """Fill a staging folder.

    Args:
        wishes, opened, parts: what was asked for, of what, and what it became.
        source: the file.
        staging: empty.
        no_engine: why no engine is built here; None: build it.
        command: that asked for the bundle.

    Raises:
        ParityError: the engine fails where the graph passed.
    """
    came = {"name": source.name, "sha256": sha256(source)}
    ends = {"input": opened.input, "output": opened.output}
    _write(parts, {"source": came, **ends, "target": wishes.target.name, "versions": versions()}, staging)
    precision, parity = in_manifest(parts.precision), parts.parity
    if no_engine is None:
        build_into(staging, wishes.target, wishes.engine, precision)
        parity = Parity.read(staging / layout.PARITY, "parity report")
    done = Optimized(
        staging,
        came,
        opened.input,
        opened.output,
        tuple(one for report in parts.passes.values() for one in report["passes"] if one["count"]),
        parts.left_out,
        parity,
        parts.precision,
        parts.bench,
        no_engine,
    )
    (staging / layout.README).write_text(page(done, wishes, opened, parts.named))
    standalone.write(staging)
    write_manifest(
        staging,
        versions(),
        portable_command(command),
        target=wishes.target.name,
        batch=opened.shape[0],
        input=_input(opened),
        precision=precision,
        engine=no_engine or "built",
        bench=LATER if parts.bench is None else None,
        source={**came, **ends},
    )
    return done


def _write(parts: Parts, facts: dict[str, Any], staging: Path) -> None:
    """The graphs, with what a reader of a file alone should know, and every report."""
    for kind, path in parts.graphs.items():
        model, weights = read_bare(path)
        for key, value in {**facts, "kind": str(kind)}.items():
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            model.metadata_props.add(key=f"vitrim.{key}", value=text)
        save(model, staging / kind.filename, weights)
    np.savez(staging / layout.GOLDEN, **parts.golden)  # type: ignore[arg-type]
    (staging / layout.PASSES).write_text(json.dumps(parts.passes, indent=1))
    reports = {layout.PARITY: parts.parity, layout.BENCH: parts.bench, layout.PRECISION: parts.precision}
    for name, report in reports.items():
        if report is not None:
            report.write(staging / name)


def _input(opened: Opened) -> dict[str, Any]:
    return {
        "name": "image",
        "dtype": "float32",
        "layout": "as the file has it",
        "shape": list(opened.shape),
        "normalization": "before the graph, as for the file",
    }


def precision_line(report: PrecisionReport) -> str:
    """What the graph is in, and what that gave."""
    if report.name == "fp32":
        return str(report.reason)
    speed = report.speedup_over_fp32
    return f"{report.name}; {report.reason if speed is None else f'{speed:.2f} times as fast as float32 here'}"


def page(done: Optimized, wishes: Wishes, opened: Opened, named: bool) -> str:
    """Markdown for a person who finds the folder."""
    passes = ", ".join(f"{one['name']} ({one['count']})" for one in done.passes) or "none changed anything"
    left = "".join(f"\n- {line}" for line in done.left_out)
    images = f"{done.parity.rungs[0].images} {'images' if named else 'random images'}"
    worst = done.parity.smallest_atol
    proof = f"on {images}, {'no tolerance would pass' if worst is None else f'at an atol of {worst:.2g}'}"
    answer = [opened.shape[0], opened.size]
    precise = "" if done.precision is None else f"\n- precision: {precision_line(done.precision)}"
    build = "" if wishes.target.no_engine else "    python3 out/run_on_device.py build\n"
    return f"""# {done.source["name"]}, optimised by vitrim for {wishes.target.name}

`model.onnx` is the optimised graph, `dense.onnx` the file as it came, with a fixed batch. Reports call them `pruned`
and `dense`, as those of pruned models do; nothing was pruned here.

- input `image` {list(opened.shape)} float32, the file's `{done.input}`
- output `logits` {answer}, the file's `{done.output}`
- passes: {passes}{left}
- parity with the file itself by onnxruntime: {"passed" if done.parity.passed else "FAILED"} {proof}{precise}
- speed: {done.verdict}
- engine: {engine_state(done.parity, done.engine)}

On the device, without vitrim:

{build}    python3 out/run_on_device.py check
    python3 out/run_on_device.py bench -o bench.json
"""
