"""From a budget to graphs for a target: dense, pruned and the free-slicing floor, each traced and rewritten."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...exporter.core.errors import UnsupportedError
from ...exporter.core.targets import Target
from ...exporter.graph.files import read_bare
from ...exporter.graph.io import Ends, rewrite_ends
from ...exporter.graph.lint.check import operator_table, require_fit
from ...exporter.graph.passes.base import PassReport
from ...exporter.graph.passes.rewrite import rewrite
from ...exporter.graph.store import WeightStore
from ...exporter.graph.trace import trace_into
from ...exporter.pruning.budget import Budget
from ...exporter.pruning.vit import Output, deployable
from ...exporter.runtime.bench.interleave import interleave
from ...exporter.runtime.bench.stats import paired_ratio
from ...exporter.runtime.runners import OrtRunner
from .stage import Listener

KINDS = ("dense", "pruned", "floor")
TRIAL_ROUNDS = 15
TRIAL_SECONDS = 12.0


def kinds_of(budget: Budget | None) -> tuple[str, ...]:
    """The graphs of an export: without a token plan there is no floor to it."""
    return KINDS if budget is not None else KINDS[:2]


def without_stages(budget: Budget) -> Budget:
    """The same budget with nothing removed: the dense model."""
    first = budget.blocks[0].before
    rows = [type(row)(block=row.block, before=first, after=first) for row in budget.blocks]
    return budget.model_copy(update={"blocks": tuple(rows)})


def sliced(budget: Budget) -> Budget:
    """The same token counts by slicing the first tokens: the least time that the plan can take."""
    rows = [type(row)(block=row.block, before=row.before, after=row.after) for row in budget.blocks]
    return budget.model_copy(update={"method": "slice", "parameters": {"place": budget.place}, "blocks": tuple(rows)})


def budget_of(kind: str, budget: Budget | None) -> Budget | None:
    """The budget that makes the dense, pruned or floor graph; None: the model as it is."""
    if budget is None:
        return None
    return {"dense": without_stages, "pruned": lambda b: b, "floor": sliced}[kind](budget)


def trace_all(
    dense: Any,
    model: Any,
    budget: Budget | None,
    batch: int,
    metadata: Mapping[str, Any],
    folder: Path,
    listener: Listener,
) -> None:
    """Write `<kind>.onnx` as traced, before any pass, their weights in one file beside them.

    Args:
        dense: the model as it came.
        model: the model whose tokens are pruned: the same one, or what slimming left of it.
        budget: the token plan; None: tokens are not pruned.
        batch: of the graphs.
        metadata: goes into each graph.
        folder: where they go.
        listener: hears progress.
    """
    kinds = kinds_of(budget)
    with WeightStore(folder) as store:
        for index, kind in enumerate(kinds):
            outputs: tuple[Output, ...] = ("logits", "kept", "merged") if kind == "pruned" else ("logits",)
            plan = budget_of(kind, budget)
            own = dict(metadata) | {"kind": kind, "budget": None if plan is None else plan.model_dump(mode="json")}
            source = deployable(dense if kind == "dense" else model, plan, outputs)
            trace_into(store, f"{kind}.onnx", source, batch, own)
            listener.progress(index + 1, len(kinds))
    gc.collect()  # the exporter leaves cycles
    give_back_memory()


def rewrite_all(
    traced: Path, target: Target, image: np.ndarray, attention: str, folder: Path, listener: Listener, ends: Ends
) -> None:
    """Write `<kind>.<form>.onnx` for every wanted attention form, and `passes.json` with the reports.

    Weights stay in the file of the traced graphs, which the folder then has, too; those that passes make go to another.

    Raises:
        UnsupportedError: the rewritten graph does not lint clean for the target.
    """
    forms = forms_for(target, attention)
    reports: dict[str, Any] = {}
    kinds = [kind for kind in KINDS if (traced / f"{kind}.onnx").exists()]
    with WeightStore(folder) as store:
        for index, kind in enumerate(kinds):
            rewritten, weights = read_bare(traced / f"{kind}.onnx")
            before = operator_table(rewritten)
            passes: list[PassReport] = []
            for form in forms:  # the fused form goes on where the decomposed one ended
                fused = form == "fused"
                rewritten, more = rewrite(rewritten, target, {"image": image}, fused_attention=fused, weights=weights)
                passes = [*passes, *(report for report in more if report.count or not passes)]
                if not any(prop.key == "vitrim.target" for prop in rewritten.metadata_props):
                    rewritten.metadata_props.add(key="vitrim.target", value=target.name)
                finished, ended = rewrite_ends(rewritten, ends, image, weights)
                require_fit(finished, target, f"the {kind} graph")
                store.save(finished, f"{kind}.{form}.onnx", weights)
                reports[f"{kind}.{form}"] = {
                    "passes": [report.to_dict() for report in (*passes, *ended)],
                    "operators_before": before,
                    "operators_after": operator_table(finished),
                }
            listener.progress(index + 1, len(kinds))
    gc.collect()  # graphs of nodes and tensors are cycles
    give_back_memory()
    (folder / "passes.json").write_text(json.dumps(reports, indent=1))


def give_back_memory() -> None:
    """Hand what is free to the system: glibc keeps a session's weights for later, hundreds of MB."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def forms_for(target: Target, attention: str) -> tuple[str, ...]:
    """Attention forms to make: onnxruntime may run a fused one, TensorRT fuses by itself."""
    if target.runtime != "onnxruntime" or "Attention" in target.lacks:
        if attention == "fused":
            raise UnsupportedError(f"export.attention is fused, but {target.name} has no Attention operator; use auto")
        return ("decomposed",)
    return {"auto": ("decomposed", "fused"), "decomposed": ("decomposed",), "fused": ("fused",)}[attention]


def choose_forms(rewritten: Path, target: Target, attention: str, threads: int | None) -> dict[str, Any]:
    """Which attention form each graph runs fastest in, measured.

    Returns:
        by kind: `form`, and where both were timed `fused_speedup` with its interval.
    """
    forms = forms_for(target, attention)
    kinds = [kind for kind in KINDS if (rewritten / f"{kind}.{forms[0]}.onnx").exists()]
    if len(forms) == 1:
        return {kind: {"form": forms[0]} for kind in kinds}
    chosen: dict[str, Any] = {}
    for kind in kinds:
        runners = {form: OrtRunner(str(rewritten / f"{kind}.{form}.onnx"), threads=threads) for form in forms}
        image = np.zeros(runners["fused"].shape, dtype=runners["fused"].dtype)
        runs = {form: partial(runner, image) for form, runner in runners.items()}
        once = interleave(runs, 1, warmup=0.05)
        rounds = int(np.clip(TRIAL_SECONDS * 1000 / 3 / sum(float(v[0]) for v in once.values()), TRIAL_ROUNDS, 60))
        samples = interleave(runs, rounds, warmup=0.1)
        ratio = paired_ratio(samples["decomposed"], samples["fused"])
        form = "fused" if ratio["median"] > 1 else "decomposed"
        chosen[kind] = {"form": form, "fused_speedup": ratio["median"], "interval": ratio["interval"]}
        del runners, runs  # the sessions of one kind at a time
        give_back_memory()
    return chosen
