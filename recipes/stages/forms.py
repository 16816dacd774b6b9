"""The stage that chooses the attention form of every graph by timing.

All graphs are timed in turns, in every form. Odd rounds choose; even rounds of the forms that were chosen are kept, and
count as the benchmark's own: so that choosing does not flatter the winner, and no round is thrown away.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...exporter.core.layout import TRACED
from ...exporter.core.targets import get_target
from ...exporter.runtime.bench.interleave import interleave
from ...exporter.runtime.bench.stats import FEWEST, Ratio, paired_ratio
from ...exporter.runtime.commands.bench import random_images
from ...exporter.runtime.runners import OrtRunner
from .graphs import forms_for
from .stage import Stage

if TYPE_CHECKING:
    from .view import View

ROUNDS = 30  # at the most; half of them choose
TOGETHER = 256 << 20  # bytes of weights that may be loaded at once; more are timed kind by kind, in half the memory


class Forms(Stage):
    """`forms.json`: by kind, `form`, and where two were timed `fused_speedup` with its interval; `rounds.npz`."""

    name = "forms"
    needs = ("passes",)
    reads = ("export.target", "export.attention", "bench.threads")
    timed = True

    @staticmethod
    def make(view: View, folder: Path) -> None:
        """Time what there is a choice of."""
        section, rewritten = view.recipe.export, view.folder("passes")
        forms = forms_for(get_target(section.target), section.attention)
        kinds = [str(kind) for kind in TRACED if (rewritten / f"{kind}.{forms[0]}.onnx").exists()]
        chosen: dict[str, Any] = {kind: {"form": forms[0]} for kind in kinds}
        rounds: dict[str, np.ndarray] = {}
        if len(forms) > 1:
            graphs = {(kind, form): rewritten / f"{kind}.{form}.onnx" for kind in kinds for form in forms}
            threads = view.recipe.bench.threads
            if sum(weight_bytes(path) for path in graphs.values()) <= TOGETHER:
                chosen, rounds = choose(graphs, threads)
            else:
                for kind in kinds:
                    chosen |= choose({key: path for key, path in graphs.items() if key[0] == kind}, threads)[0]
        (folder / "forms.json").write_text(json.dumps(chosen))
        np.savez(folder / "rounds.npz", **rounds)  # type: ignore[arg-type]


def choose(
    graphs: dict[tuple[str, str], Path], threads: int | None
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Which form each graph runs fastest in.

    Args:
        graphs: by (kind, form); the forms are `decomposed` and `fused`.
        threads: onnxruntime threads.

    Returns:
        by kind `form`, `fused_speedup` and `interval`; and by kind the even rounds of that form, in milliseconds.
    """
    runners = {f"{kind}.{form}": OrtRunner(str(path), threads=threads) for (kind, form), path in graphs.items()}
    runs = {name: partial(one, random_images(one.shape, one.dtype)) for name, one in runners.items()}
    kinds = list(dict.fromkeys(kind for kind, _ in graphs))
    samples = {name: np.empty(0) for name in runs}
    ratios: dict[str, Ratio] = {}
    while len(next(iter(samples.values()))) < ROUNDS:
        more = interleave(runs, 6, warmup=None) if ratios else interleave(runs, 2 * FEWEST, warmup=0.03)
        samples = {name: np.concatenate([samples[name], more[name]]) for name in runs}
        odd = {name: values[1::2] for name, values in samples.items()}
        ratios = {kind: paired_ratio(odd[f"{kind}.decomposed"], odd[f"{kind}.fused"]) for kind in kinds}
        if all(ratio.interval[0] > 1 or ratio.interval[1] < 1 for ratio in ratios.values()):
            break
    chosen = {
        kind: {
            "form": "fused" if ratio.median > 1 else "decomposed",
            "fused_speedup": ratio.median,
            "interval": list(ratio.interval),
        }
        for kind, ratio in ratios.items()
    }
    return chosen, {kind: samples[f"{kind}.{found['form']}"][::2] for kind, found in chosen.items()}


def weight_bytes(graph: Path) -> int:
    """Bytes that a graph's file, and the weights beside it, take."""
    return graph.stat().st_size + sum(path.stat().st_size for path in graph.parent.glob("*.data"))
