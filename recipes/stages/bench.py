"""The stage that times the finished graphs: dense, pruned and the floor of the plan, interleaved.

A graph whose target does not run here is not timed: what a CPU takes for it says nothing of the device.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...exporter.core import layout
from ...exporter.core.files import sha256
from ...exporter.core.layout import Kind
from ...exporter.core.targets import get_target
from ...exporter.graph.blocks import blocks_of
from ...exporter.runtime.bench.blocks import ROUNDS
from ...exporter.runtime.bench.timing import Timing
from ...exporter.runtime.choose import not_here, unable
from ...exporter.runtime.commands.bench import Graph, bench_graphs, count_blocks
from .graphs import final_graphs
from .kinds import plan_of
from .precision import in_manifest
from .stage import Stage

if TYPE_CHECKING:
    from ..schema.recipe import Recipe
    from .view import View


class Bench(Stage):
    """`bench.json`; nothing where the target does not run here, unless the recipe asks for it by `bench.here`."""

    name = "bench"
    needs = ("calibrate", "passes", "forms", "precision")
    reads = ("bench.runs", "bench.warmup", "bench.threads", "bench.here", "export.target")
    timed = True

    @staticmethod
    def wanted(recipe: Recipe) -> bool:
        """Not where a TensorRT target's graph would only be timed by onnxruntime."""
        return recipe.bench.here or get_target(recipe.export.target).runtime != "tensorrt"

    @staticmethod
    def make(view: View, folder: Path) -> None:
        """Time every graph once per round; rounds that the choice of forms has just timed count too."""
        section, graphs = view.recipe.bench, final_graphs(view)
        target = get_target(view.recipe.export.target)
        if not section.here and not_here(graphs.float32["pruned"], target, section.threads):
            return
        name = in_manifest(graphs.precision)["name"]
        timed, held = graphs.final, {Kind.PRUNED: name, Kind.FLOOR: name, Kind.FP16: "fp16"}
        if unable(target, name):  # the tokens are timed in float32, the precision on the device
            timed, held = graphs.float32, {}
        earlier = None
        if timed == graphs.float32 and view.made_now("forms"):
            with np.load(view.folder("forms") / "rounds.npz") as rounds:
                earlier = {kind: rounds[kind] for kind in rounds.files} or None
        result = bench_graphs(
            {kind: Graph(path, held.get(Kind(kind), "fp32")) for kind, path in timed.items() if kind != Kind.PROOF},
            Timing(section.runs, section.warmup, section.threads),
            target,
            view.listener.progress,
            earlier,
        )
        if result.cpu_only is None and target.is_cpu:
            budget, files = plan_of(view), {kind: Graph(path) for kind, path in timed.items()}
            blocks = partial(blocks_of, after=() if budget is None else budget.behind_blocks)
            counted = count_blocks(files, blocks, target, section.threads, min(section.runs, ROUNDS))
            result = replace(result, by_block=counted)
        forms = json.loads((view.folder("forms") / "forms.json").read_text())
        replace(result, attention=forms).write(folder / layout.BENCH)

    @staticmethod
    def result_key(folder: Path, key: str) -> str:
        """What was timed: made anew, the same key has other times."""
        file = folder / layout.BENCH
        return f"{key}-{sha256(file)}" if file.exists() else key
