"""Rungs for what is shipped where it does not tell its decisions: a graph, and an engine of it. Torch-free.

Decisions are proven on `proof.onnx`, of which such a graph is a part. Here its answers are held: against those of the
proof graph, to the bit where they are the same bits, and of an engine against PyTorch's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..core import layout
from ..core.answers import TASKS, TOKENS, task_of
from .parity import Parity, Rung
from .rungs import RANKING, close, compare, exact

if TYPE_CHECKING:  # Python 3.8, which run_on_device.py serves, cannot make it
    from .rungs import Outputs


def only_answers(outputs: Outputs) -> dict[str, np.ndarray]:
    """Of a graph's outputs the logits or features, and perhaps tokens, classes and their probabilities."""
    return {name: values for name, values in outputs.items() if name in (*TASKS, TOKENS, *RANKING)}


def as_proven(runner: str, reference: Outputs, proof: Outputs, shipped: Outputs, held_to: Parity) -> Rung:
    """Hold the shipped graph's answers against those of the proof graph on the same runner.

    Args:
        runner: for the rung's name.
        reference: what the proof graph was held against; its `gap_<block>` are read.
        proof, shipped: outputs of the two graphs.
        held_to: its limits judge where the answers are not the same bits.
    """
    name, answers = f"{runner}: {layout.MODEL} = {layout.PROOF}", only_answers(proof)
    if all(output in shipped and np.array_equal(values, shipped[output]) for output, values in answers.items()):
        task = task_of(proof)
        rung = exact(name, proof[task.output], shipped[task.output], task)
        return replace(rung, ranked=0.0) if "classes" in answers else rung
    gaps = {output: values for output, values in reference.items() if output.startswith("gap_")}
    return hold_answers(name, {**answers, **gaps}, shipped, held_to)


def hold_answers(name: str, reference: Outputs, candidate: Outputs, held_to: Parity) -> Rung:
    """Hold a candidate that does not tell its decisions against the reference.

    Where the limits are strict, numbers are held on the images of which no decision is a near-tie, so that none can be
    another one; the other images count as unproven. Where every image has a near-tie, all are held. Of another
    precision all images are held as they are, other decisions included. Both are harder than with decisions told.

    Args:
        name: of the rung.
        reference: `logits` or `features`, perhaps `probabilities` and `classes`, and `gap_<block>` of the stages.
        candidate: `logits` or `features`, perhaps `probabilities` and `classes`.
        held_to: its limits judge.
    """
    ours, theirs = only_answers(reference), only_answers(candidate)
    if held_to.close:
        decided = not any(output.startswith("gap_") for output in reference)
        limits = held_to.close
        return close(name, ours, theirs, cosine=limits.cosine, agreement=limits.agreement, decided=decided)
    clear = np.ones(len(ours[task_of(ours).output]), dtype=bool)
    for output, gaps in reference.items():
        if output.startswith("gap_"):
            clear &= ~(gaps < held_to.tie)
    if not clear.any():
        clear[:] = True
    ours, theirs = ({output: values[clear] for output, values in each.items()} for each in (ours, theirs))
    rung = compare(name, ours, theirs, atol=held_to.atol, tie=held_to.tie)
    return replace(rung, images=len(clear), unproven=int((~clear).sum()))
