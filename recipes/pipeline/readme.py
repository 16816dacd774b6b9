"""The page that lies in a bundle: what it is, how well it does, and what to do with it on a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...exporter.core import layout
from ...exporter.core.fidelity import Fidelity
from ...exporter.core.layout import Kind, size_name
from ...exporter.core.preprocess import Preprocess
from ...exporter.core.targets import Target, get_target
from ...exporter.graph.precision.report import PrecisionReport
from ...exporter.pruning.budget import Budget
from ...exporter.pruning.widths import Widths
from ...exporter.runtime.bench.report import LATER
from ...exporter.runtime.lines import FORCED, engine_state, made_by, promise_lines
from ...exporter.runtime.parity import Parity
from ...exporter.runtime.tensorrt.family import TENSORRT, family_of
from ...exporter.runtime.tensorrt.identity import EngineIdentity
from ..schema.recipe import Recipe
from ..stages.golden import input_facts, input_words
from ..stages.slim import summary

if TYPE_CHECKING:
    from .exported import Exported, Reports

TOKENS_WORDS = {
    "left": "`tokens` (those that are left, in the order of their ids, after the final norm)",
    "grid": "`tokens` (the whole grid after the final norm; every patch has the token that it went into)",
}
ON_DEVICE = "pip install openvino numpy"  # all that run_on_device.py needs of a bundle for OpenVINO


def bundle_readme(
    name: str,
    recipe: Recipe,
    preprocess: Preprocess,
    budget: Budget | None,
    widths: Widths | None,
    found: Reports,
    no_engine: str | None,
) -> str:
    """Markdown for a person who finds the folder."""
    parity, fidelity, bench, precision = found.parity, found.fidelity, found.bench, found.precision
    plans = []
    if widths is not None:
        plans.append(f"Slimmed: {summary(widths)}.")
    if budget is not None:
        stages = ", ".join(f"{row.before} to {row.after} at block {row.block}" for row in budget.stages) or "none"
        cost = f"{budget.total_gmacs:.3f} GMACs instead of {budget.gmacs['dense']:.3f}"
        plans.append(f"Method {budget.method}; tokens {stages}. {cost}.")
    accuracy = ""
    if fidelity.accuracy_dense is not None:
        accuracy = f", top-1 {fidelity.accuracy_pruned:.1%} (dense {fidelity.accuracy_dense:.1%})"
    answer, kind = "`logits`", "agreement"
    if fidelity.cosine is not None:
        answer, kind = "`features` (pooled; the model has no classifier)", "agreement of nearest images"
        accuracy = f", mean cosine {fidelity.cosine:.4f}"
    answer += "" if recipe.export.tokens is None else f" and {TOKENS_WORDS[recipe.export.tokens]}"
    if fidelity.tokens is not None:
        accuracy += f", of tokens {fidelity.tokens:.4f}"
    seen = " (the calibration images themselves)" if fidelity.on_calibration_images else ""
    low, high = fidelity.agreement_interval
    merging = any(stage.output.startswith("merged_") for rung in parity.rungs for stage in rung.stages)
    pairs = f", and what merged into what, `merged_<block>` ({layout.PACKED} * source id + target id, or -1)"
    merged = pairs if merging else ""
    kept = f"the surviving token ids `kept_<block>`{merged}"
    told = proof = ""
    if budget is not None and budget.stages:
        told = f", and {kept}" if recipe.export.decisions else ""
        proof = "" if told else f"\n- `{layout.PROOF}`: the graph that was proven, the same one that also gives {kept}"
    ranked = ""
    if recipe.export.top_k is not None:
        ranked = f", and of the {recipe.export.top_k} best classes, best first, `probabilities` and `classes`"
    speed = f"speed: {LATER}" if bench is None else f"{bench.runtime}, batch {recipe.export.batch}: {bench.verdict}"
    verdict = "passed" if parity.passed else "FAILED"
    precise = "" if precision is None else f"\n- {precision_words(precision, fidelity)}"
    target = get_target(recipe.export.target)
    asked = None if budget is None else budget.statistics
    promised = promise_lines(asked, found.bench, found.gate)
    held = "".join(f"\n- {f'**{line}**' if line == FORCED else line}" for line in promised)
    engine = f"- engine: {_engine(parity, no_engine)}{_kernels(found.engine)}"
    if target.no_engine:
        engine = f"- engine: {target.no_engine}"
    engine += _sizes({size_name(preprocess.input_size[1:]): found, **found.sizes}) if found.sizes else ""
    return f"""# {name}, pruned by vitrim

{" ".join(plans)}

- input `image` {input_words(input_facts(recipe.export, preprocess))};
  outputs {answer}{ranked}{told}{proof}
- {kind} with the dense model on {fidelity.images} images{seen}: {fidelity.agreement:.1%} (95 % interval {low:.1%}
  to {high:.1%}){accuracy}{held}
- parity with PyTorch: {verdict}, {_worst(parity)}{precise}
- {speed}
{engine}

{_on_the_device(target)}"""


SIZE_COLUMNS = ("size", "tokens", "GMACs", "agreement", "parity", "dense ms", "pruned ms", "speed-up")


def size_rows(found: Mapping[str, Reports | Exported]) -> list[tuple[str, ...]]:
    """A row of words for every image size, see `SIZE_COLUMNS`."""
    rows = []
    for size, one in found.items():
        plan, bench = one.budget, one.bench
        tokens = "-" if plan is None else f"{plan.blocks[0].before} to {plan.blocks[-1].before}"
        cost = "-" if plan is None else f"{plan.total_gmacs:.3f} of {plan.gmacs['dense']:.3f}"
        parity = "passed" if one.parity.passed else "FAILED"
        times = ["-", "-", "-"]
        if bench is not None:
            medians = (bench.distributions[str(kind)].median for kind in (Kind.DENSE, Kind.PRUNED))
            times = [*(f"{median:.2f}" for median in medians), f"{bench.speedup:.2f}"]
        rows.append((size, tokens, cost, f"{one.fidelity.agreement:.1%}", parity, *times))
    return rows


def _sizes(found: Mapping[str, Reports | Exported]) -> str:
    """Markdown of all image sizes; the first is the bundle's own."""
    own, further = next(iter(found)), list(found)[1:]
    lines = [SIZE_COLUMNS, ("---",) * len(SIZE_COLUMNS), *size_rows(found)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"""

All of the above is for images of {own}. Further sizes have files with the size in their names, such as
`{layout.of_size(layout.MODEL, further[0])}`, and every command below takes `--size {further[0]}`. Weights that graphs
have in common are in `weights-*.data`: keep it beside them.

{table}"""


def _on_the_device(target: Target) -> str:
    """How the bundle is checked and timed where it will run: by an engine, or by OpenVINO, which builds nothing."""
    if target.runtime == "openvino":
        extras, runtime, install = "openvino", "openvino", f" (`{ON_DEVICE}`)"
    else:
        family = family_of(target)
        extras, runtime = ("device" if family is TENSORRT else f"device,{family.name}"), family.title
        install = ", as on a Jetson" if family is TENSORRT else ""
    build = f"    vitrim build out/   # build model.engine with this machine's {runtime} and prove it\n"
    built = "    python3 out/run_on_device.py build\n"
    if target.no_engine:
        build = built = ""
    vitrim = f"`pip install 'vitrim[{extras}]'`"
    return f"""On the device, without PyTorch ({vitrim}), from the folder above; `out` is this one:

{build}    vitrim check out/   # hold the files against their hashes and the outputs against PyTorch's
    vitrim bench out/   # time the dense and the pruned graph and the plan's floor, interleaved

Without vitrim too, where only Python 3.8 or newer, numpy and {runtime} are installed{install}:

    python3 out/run_on_device.py info
{built}    python3 out/run_on_device.py check
    python3 out/run_on_device.py bench --energy -o bench.json
"""


def _engine(parity: Parity, no_engine: str | None) -> str:
    """The engine's file and what is known of it, or why there is none."""
    if no_engine is not None:
        return f"not built ({no_engine})"
    by = "" if parity.engine is None else f", made {made_by(parity.engine)}"
    state = f"; {engine_state(parity, None)}" if parity.engine_not_checked else ""
    return f"{layout.ENGINE}{by}{state}"


def _kernels(identity: EngineIdentity | None) -> str:
    """An engine's kernels and the attentions that are not one, as far as its builder told."""
    if identity is None or identity.kernels is None or identity.layers is None:
        return ""
    found, kernels = identity.layers.attention, identity.kernels
    stages = sum((kernel.part or "").startswith("stage ") for kernel in kernels)
    pads = sum(kernel.does in ("pad", "slice") for kernel in kernels)
    fused = f"{found.fused} of {found.fused + found.not_fused} attentions are one kernel"
    lines = [f"\n- kernels: {len(kernels)}, {stages} of them in stages, {pads} that only pad or slice; {fused}"]
    lines[-1] += "\n  (`vitrim inspect out/ --kernels` lists them)"
    for reason in dict.fromkeys(one.reason for one in found.unfused):
        where = ", ".join(one.part for one in found.unfused if one.reason == reason and one.part)
        lines += [f"  - {where}: {reason}" if where else f"  - {reason}"]
    return "\n".join(lines)


def _worst(parity: Parity) -> str:
    """How far off the numbers are, in words."""
    worst = parity.smallest_atol
    if worst is None:
        return "which no tolerance would pass"
    if not any(rung.in_proportion for rung in parity.rungs):
        return f"largest error {worst:.2g} where decisions agree"
    output = parity.rungs[0].output
    return f"at an atol of {worst:.2g} in proportion to the {output}' spread, where decisions agree"


def precision_words(report: PrecisionReport, fidelity: Fidelity) -> str:
    """One line on what the graph is in, and what that changed."""
    if report.name == "fp32":
        return str(report.reason)
    seen = fidelity.precision
    assert seen is not None
    worst = max(seen.tokens_changed.values(), default=0.0)
    tokens = f", at most {worst:.1%} of a stage's tokens changed" if seen.tokens_changed else ""
    words = f"{report.name}: the {fidelity.task.answer} of float32 on {seen.agreement:.1%} of the images{tokens}"
    speed = report.speedup_over_fp32
    timed = report.reason if speed is None else f"{speed:.2f} times as fast as float32 here"
    return f"{words}; {timed}"
