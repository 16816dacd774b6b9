"""Rungs of a parity ladder: two runners held against each other, token decisions and numbers apart. Torch-free.

Near-ties flip between backends and precisions. So decisions are compared first, as sets; numbers are compared where
the decisions agree, or where one side's decisions were replayed on the other; and the end result is reported as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.answers import ranking_error
from .parity import Errors, Rung, StageAgreement

if TYPE_CHECKING:  # Python 3.8, which run_on_device.py serves, cannot make these
    Outputs = Mapping[str, np.ndarray]
    Replay = Callable[[np.ndarray, dict[str, np.ndarray]], np.ndarray]
else:
    Outputs = Replay = Any
RANKING = ("probabilities", "classes")


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of the rows of two [n, classes] arrays; 1 where both are zero."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = (np.abs(a).max(axis=1) == 0) & (np.abs(b).max(axis=1) == 0)
    return np.where(both_zero, 1.0, (a * b).sum(axis=1) / np.maximum(norms, 1e-300))


def errors(reference: np.ndarray, candidate: np.ndarray) -> Errors | None:
    """Numeric error of [n, classes] logits; None for no images."""
    if len(reference) == 0:
        return None
    difference = np.abs(reference.astype(np.float64) - candidate)
    cosines = cosine(reference, candidate)
    return Errors(
        len(reference),
        float(difference.max()),
        float(difference.mean()),
        float(cosines.min()),
        float(cosines.mean()),
    )


def stage_names(outputs: Outputs) -> list[str]:
    """`kept_<block>` and `merged_<block>` outputs in the order of their blocks."""
    names = [name for name in outputs if re.fullmatch("(kept|merged)_[0-9]{1,4}", name)]
    return sorted(names, key=lambda name: (block_of(name), name))


def block_of(name: str) -> int:
    """The block of an output such as `kept_3`."""
    return int(name.rpartition("_")[2])


def compare_decisions(
    reference: Outputs, candidate: Outputs, stages: Sequence[str]
) -> tuple[list[StageAgreement], np.ndarray]:
    """Compare kept tokens, and pairs of merged ones, as sets.

    Returns:
        per stage agreement; [n] bool, whether an image agrees everywhere.
    """
    count = len(reference["logits"])
    agreeing = np.ones(count, dtype=bool)
    table: list[StageAgreement] = []
    for name in stages:
        ours, theirs = np.sort(reference[name], axis=1), np.sort(candidate[name], axis=1)
        same = (ours == theirs).all(axis=1)
        common = [len(np.intersect1d(a, b)) / max(len(a), 1) for a, b in zip(ours, theirs, strict=True)]
        first = agreeing & ~same
        gaps = reference.get(f"gap_{block_of(name)}")
        # Without a gap, or with one that is no number, nothing says that it was a near-tie.
        at_cut = np.full(count, np.inf) if gaps is None else np.where(np.isfinite(gaps), gaps, np.inf)
        table.append(
            StageAgreement(
                output=name,
                same_images=float(same.mean()),
                same_tokens=float(np.mean(common)),
                differing=int((~same).sum()),
                first_here=int(first.sum()),
                largest_gap=float(at_cut[first].max()) if first.any() else None,
            )
        )
        agreeing &= same
    return table, agreeing


def compare(
    name: str,
    reference: Outputs,
    candidate: Outputs,
    *,
    atol: float,
    tie: float,
    replay: Replay | None = None,
) -> Rung:
    """Hold a candidate against the reference.

    Args:
        name: of the rung.
        reference: `logits` [n, classes], `kept_<block>` [n, tokens], `merged_<block>` [n, merged] where tokens
            merge, and `gap_<block>` [n]; `probabilities` and `classes`, if there, must be given by the candidate too.
        candidate: `logits`, `kept_<block>` and `merged_<block>`; perhaps `probabilities` and `classes`.
        atol: largest absolute error of a logit or a probability, decisions being equal or replayed.
        tie: a decision may differ where the reference's relative gap at the cut is below this.
        replay: (image indices, candidate's decisions on those images) -> the reference's logits under them.
    """
    rung = _measured(name, reference, candidate, replay)
    if not rung.passed:
        return rung
    widest = max((stage.largest_gap for stage in rung.stages if stage.largest_gap is not None), default=-1.0)
    if math.isfinite(widest):
        rung = replace(rung, smallest_tie=float(np.nextafter(widest, np.inf)) if widest >= 0 else 0.0)
    for stage in rung.stages:
        if stage.largest_gap is not None and stage.largest_gap >= tie:
            reason = (
                f"{stage.first_here} images keep other tokens, with a score gap of {stage.largest_gap:.2g} at the cut"
            )
            return _failed(rung, stage.output, f"{reason} (a near-tie is below {tie:g})")
    if rung.smallest_atol is None:
        reason = f"all {rung.images} images keep other tokens, so no numbers can be held against each other"
        return _hopeless(rung, "logits", reason)
    if rung.ranked is not None and not rung.ranked <= atol:
        return _failed(rung, "classes", f"a class or its probability is {rung.ranked:.3g} off, more than {atol:g}")
    if not rung.smallest_atol <= atol:
        return _failed(rung, "logits", f"largest error {rung.smallest_atol:.3g} is above {atol:g}")
    return rung


def close(
    name: str,
    reference: Outputs,
    candidate: Outputs,
    *,
    cosine: float,
    agreement: float,
    replay: Replay | None = None,
) -> Rung:
    """Hold a candidate of another precision against the reference: it rounds, so neither a tolerance nor ties judge it.

    Args:
        name, reference, candidate, replay: as in `compare`.
        cosine: least mean cosine of an image's logits, decisions being equal or replayed. Where no image's are, as
            without a replay may be, all images' logits must have it as they are, which is harder.
        agreement: least share of images with the same top class, decisions being what they are. What so few images
            cannot tell is allowed: two standard errors of such a share, and one image; at 1 nothing is.
    """
    rung = replace(_measured(name, reference, candidate, replay), strict=False)
    if not rung.passed:
        return rung
    mean = rung.mean_cosine
    assert mean is not None
    if not mean >= cosine:
        whose = "their mean cosine" if rung.has_held_numbers else "no image decides alike, and the mean cosine"
        return _failed(rung, "logits", f"{whose} is {mean:.5f}, below {cosine:g}")
    noise = max(2 * math.sqrt(agreement * (1 - agreement) / rung.images), 1 / rung.images) if agreement < 1 else 0.0
    if not rung.top1 >= agreement - noise - 1e-9:
        reason = f"the top class agrees on {rung.top1:.1%} of {rung.images} images, below {agreement:.1%}"
        return _failed(rung, "logits", f"{reason} by more than so few can tell" if noise else reason)
    return rung


def _measured(name: str, reference: Outputs, candidate: Outputs, replay: Replay | None) -> Rung:
    """A rung with everything measured and nothing judged, but for what cannot be compared at all."""
    stages = stage_names(reference)
    ranking = [name for name in RANKING if name in reference]
    rung = Rung(name, len(reference["logits"]))
    wrong = _unlike(reference, candidate, ["logits", *ranking, *stages])
    if wrong:
        return _hopeless(rung, *wrong)
    logits, others = reference["logits"], candidate["logits"]
    table, agreeing = compare_decisions(reference, candidate, stages)
    differing = np.flatnonzero(~agreeing)
    rung = replace(
        rung,
        stages=tuple(table),
        top1=float((logits.argmax(1) == others.argmax(1)).mean()),
        end=errors(logits, others),
        equal=errors(logits[agreeing], others[agreeing]),
        unproven=len(differing),
    )
    held, proven = logits, agreeing
    if len(differing) and replay is not None:
        replayed = replay(differing, {stage: candidate[stage][differing] for stage in stages})
        if not np.isfinite(replayed).all():
            return _hopeless(rung, "logits", "the reference's logits hold NaN or Inf under the candidate's decisions")
        rung = replace(rung, replayed=errors(replayed, others[differing]), unproven=0)
        held, proven = logits.copy(), np.ones_like(agreeing)
        held[differing] = replayed
    if all(name in candidate for name in RANKING) and proven.any():
        ranked = ranking_error(held[proven], *(candidate[name][proven] for name in RANKING))
        if not math.isfinite(ranked):
            return _hopeless(rung, "classes", "a class does not exist or comes twice, or a probability is no number")
        rung = replace(rung, ranked=ranked)
    compared = [part.max_abs for part in (rung.equal, rung.replayed) if part]
    return replace(rung, smallest_atol=max([*compared, *([] if rung.ranked is None else [rung.ranked])], default=None))


def _unlike(reference: Outputs, candidate: Outputs, names: Sequence[str]) -> tuple[str, str] | None:
    """What keeps two runners from being compared at all: (output, reason); None where nothing does."""
    if len(reference["logits"]) == 0:
        return "logits", "there are no images to compare"
    unheld = [name for name in stage_names(candidate) if name not in reference]
    if unheld:
        return unheld[0], f"the reference has no {unheld[0]}, so what the candidate keeps is held against nothing"
    for name in names:
        if name not in candidate:
            return name, f"the candidate has no output {name}"
        ours, theirs = reference[name], candidate[name]
        if ours.shape != theirs.shape:
            return name, f"{name} has the shape {list(theirs.shape)} instead of {list(ours.shape)}"
        kinds = "iu" if name not in ("logits", "probabilities") else "f"
        if theirs.dtype.kind not in kinds:
            return name, f"{name} is {theirs.dtype}, which it cannot be"
    for side, values in (("reference", reference["logits"]), ("candidate", candidate["logits"])):
        if not np.isfinite(values).all():
            return "logits", f"the {side}'s logits hold NaN or Inf"
    return None


def _failed(rung: Rung, offender: str, reason: str) -> Rung:
    """It fails, and some tolerance would pass it."""
    return replace(rung, passed=False, first_offender=offender, reason=reason)


def _hopeless(rung: Rung, offender: str, reason: str) -> Rung:
    """It fails at any tolerance."""
    return replace(_failed(rung, offender, reason), smallest_atol=None, smallest_tie=None)


def exact(name: str, reference: np.ndarray, candidate: np.ndarray) -> Rung:
    """The rung that must agree to the bit: the dense model against a budget that removes nothing."""
    rung = Rung(name, len(reference))
    wrong = _unlike({"logits": reference}, {"logits": candidate}, ["logits"])
    if wrong:
        return _hopeless(rung, *wrong)
    seen = errors(reference, candidate)
    rung = replace(rung, equal=seen, end=seen, top1=float((reference.argmax(1) == candidate.argmax(1)).mean()))
    if not np.array_equal(reference, candidate):
        worst = float(np.abs(reference.astype(np.float64) - candidate).max())
        reason = f"not bit-identical (largest error {worst:.3g}), as it must be at any tolerance"
        return _hopeless(rung, "logits", reason)
    return replace(rung, smallest_atol=0.0, smallest_tie=0.0)
