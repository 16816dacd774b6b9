"""Rungs of a parity ladder: two runners held against each other, token decisions and numbers apart. Torch-free.

Near-ties flip between backends and precisions. So decisions are compared first, as sets; numbers are compared where
the decisions agree, or where one side's decisions were replayed on the other; and the end result is reported as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.answers import LOGITS, TOKENS, Task, cosine, ranking_error, task_of
from ..core.layout import is_decision
from .parity import Errors, Rung, StageAgreement
from .spread import LARGEST, NEARER, Spread, root_mean_square, spread_of
from .tokens import hold_cosine, hold_numbers

if TYPE_CHECKING:  # Python 3.8, which run_on_device.py serves, cannot make these
    Outputs = Mapping[str, np.ndarray]
    Replay = Callable[[np.ndarray, dict[str, np.ndarray]], Outputs]
else:
    Outputs = Replay = Any
RANKING = ("probabilities", "classes")


def errors(reference: np.ndarray, candidate: np.ndarray) -> Errors | None:
    """Numeric error of [n, classes] logits or [n, width] features; None for no images.

    Images without any reference have no cosine.
    """
    if len(reference) == 0:
        return None
    difference = np.abs(reference.astype(np.float64) - candidate)
    cosines = cosine(reference, candidate)
    cosines = cosines[~np.isnan(cosines)] if not np.isnan(cosines).all() else np.zeros(1)
    return Errors(
        len(reference),
        float(difference.max()),
        float(difference.mean()),
        float(cosines.min()),
        float(cosines.mean()),
    )


def stage_names(outputs: Outputs) -> list[str]:
    """`kept_<block>` and `merged_<block>` outputs in the order of their blocks."""
    return sorted(filter(is_decision, outputs), key=lambda name: (block_of(name), name))


def block_of(name: str) -> int:
    """The block of an output such as `kept_3`."""
    return int(name.rpartition("_")[2])


def compare_decisions(
    reference: Outputs, candidate: Outputs, stages: Sequence[str]
) -> tuple[list[StageAgreement], np.ndarray]:
    """Compare kept tokens, and pairs of merged ones, as sets: a duplicate is masked, so whose it is changes nothing.

    Returns:
        per stage agreement; [n] bool, whether an image agrees everywhere.
    """
    count = len(reference[task_of(reference).output])
    agreeing = np.ones(count, dtype=bool)
    table: list[StageAgreement] = []
    for name in stages:
        sets = [
            (np.unique(ours), np.unique(theirs)) for ours, theirs in zip(reference[name], candidate[name], strict=True)
        ]
        same = np.array([np.array_equal(ours, theirs) for ours, theirs in sets], dtype=bool)
        common = [
            len(np.intersect1d(ours, theirs, assume_unique=True)) / max(len(ours), len(theirs), 1)
            for ours, theirs in sets
        ]
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
        reference: `logits` [n, classes] or `features` [n, width], `kept_<block>` [n, tokens], `merged_<block>` [n,
            merged] where tokens merge, and `gap_<block>` [n]; `probabilities` and `classes`, if there, must be given by
            the candidate too, and so must `tokens` [n, tokens, width].
        candidate: `logits` or `features`, `kept_<block>` and `merged_<block>`; perhaps the others.
        atol: largest error of a logit or a probability, decisions being equal or replayed; for logits whose spread is
            not ordinary it is a share of that, see `spread`.
        tie: a decision may differ where the reference's relative gap at the cut is below this.
        replay: (image indices, candidate's decisions on those images) -> the reference's logits, and tokens where there
            are such, under them.
    """
    found = _measured(name, reference, candidate, replay)
    rung = _judged(found.rung, reference, atol, tie)
    return rung if found.tokens is None or not rung.passed else hold_numbers(rung, *found.tokens, atol)


def _judged(rung: Rung, reference: Outputs, atol: float, tie: float) -> Rung:
    """A measured rung with its decisions and its answers held to a tolerance."""
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
    if not rung.has_held_numbers:
        reason = f"all {rung.images} images keep other tokens, so no numbers can be held against each other"
        return _hopeless(rung, rung.output, reason)
    if rung.smallest_atol is None:
        worst, spread = rung.largest_error, spread_of(reference[rung.output]).least
        reason = (
            f"largest error {worst:.3g} is above half of {spread:.3g}, by which the reference's {rung.output} spread"
        )
        return _hopeless(rung, rung.output, f"{reason}: a constant could be as near, so no tolerance passes it")
    if rung.ranked is not None and not rung.ranked <= atol:
        return _failed(rung, "classes", f"a class or its probability is {rung.ranked:.3g} off, more than {atol:g}")
    if not rung.smallest_atol <= atol:
        share = f", which is {atol:g} for {rung.output} that spread as these do" if rung.in_proportion else ""
        reason = f"largest error {rung.smallest_atol * rung.unit:.3g} is above {atol * rung.unit:.3g}{share}"
        return _failed(rung, rung.output, reason)
    return rung


def close(
    name: str,
    reference: Outputs,
    candidate: Outputs,
    *,
    cosine: float,
    agreement: float,
    replay: Replay | None = None,
    decided: bool = True,
) -> Rung:
    """Hold a candidate of another precision against the reference: it rounds, so neither a tolerance nor ties judge it.

    Args:
        name, reference, candidate, replay: as in `compare`.
        cosine: least mean cosine of an image's logits, decisions being equal or replayed. Where no image's are, as
            without a replay may be, all images' logits must have it as they are, which is harder. Whatever it is, the
            logits must be nearer to the reference's than the best constant.
        agreement: least share of images with the same answer, see `Task`, decisions being what they are. What so few
            images cannot tell is allowed: two standard errors of such a share, and one image; at 1 nothing is.
        decided: whether decisions that are not told are the reference's; else its tokens need not have the cosine.
    """
    found = _measured(name, reference, candidate, replay)
    rung = replace(found.rung, strict=False)
    if not rung.passed:
        return rung
    mean = rung.mean_cosine
    assert mean is not None
    if not mean >= cosine:
        whose = "their mean cosine" if rung.has_held_numbers else "no image decides alike, and the mean cosine"
        return _failed(rung, rung.output, f"{whose} is {mean:.5f}, below {cosine:g}")
    distance, spread = root_mean_square(found.others - found.logits), spread_of(reference[rung.output]).least
    if not distance <= NEARER * spread:
        reason = f"the {rung.output} are {distance:.3g} off in the mean, where the reference's spread by {spread:.3g}"
        return _failed(rung, rung.output, f"{reason}: a constant could be as near")
    noise = max(2 * math.sqrt(agreement * (1 - agreement) / rung.images), 1 / rung.images) if agreement < 1 else 0.0
    if not rung.top1 >= agreement - noise - 1e-9:
        reason = f"the {rung.task.answer} agrees on {rung.top1:.1%} of {rung.images} images, below {agreement:.1%}"
        return _failed(rung, rung.output, f"{reason} by more than so few can tell" if noise else reason)
    if found.tokens is None:
        return rung
    return hold_cosine(rung, *found.tokens, cosine if decided and rung.has_held_numbers else None)


@dataclass(frozen=True)
class _Measured:
    """A rung with everything measured and nothing judged, but for what cannot be compared at all.

    Attributes:
        rung: that.
        logits, others: [n, classes] of the reference and of the candidate where its numbers are held; all of them where
            they are held nowhere.
        tokens: [n, tokens, width] of both for the same images; None where the reference has none.
    """

    rung: Rung
    logits: np.ndarray
    others: np.ndarray
    tokens: tuple[np.ndarray, np.ndarray] | None = None


def _measured(name: str, reference: Outputs, candidate: Outputs, replay: Replay | None) -> _Measured:
    stages = stage_names(reference)
    ranking = [name for name in RANKING if name in reference]
    task = task_of(reference)
    answer = task.output
    rung, nothing = Rung(name, len(reference.get(answer, ())), output=answer), np.empty((0, 0))
    tokens = reference.get(TOKENS)
    told = [] if tokens is None else [TOKENS]
    wrong = _unlike(reference, candidate, [answer, *told, *ranking, *stages], answer)
    if wrong:
        return _Measured(_hopeless(rung, *wrong), nothing, nothing)
    logits, others = reference[answer], candidate[answer]
    spread = spread_of(logits)
    table, agreeing = compare_decisions(reference, candidate, stages)
    differing = np.flatnonzero(~agreeing)
    rung = replace(
        rung,
        stages=tuple(table),
        top1=float(task.same(logits, others).mean()),
        end=errors(logits, others),
        equal=errors(logits[agreeing], others[agreeing]),
        unproven=len(differing),
        unit=spread.unit,
    )
    held, proven = logits, agreeing
    if len(differing) and replay is not None:
        again = replay(differing, {stage: candidate[stage][differing] for stage in stages})
        replayed = again[answer]
        if not np.isfinite(replayed).all():
            words = f"the reference's {answer} hold NaN or Inf under the candidate's decisions"
            return _Measured(_hopeless(rung, answer, words), nothing, nothing)
        rung = replace(rung, replayed=errors(replayed, others[differing]), unproven=0)
        held, proven = logits.copy(), np.ones_like(agreeing)
        held[differing] = replayed
        if tokens is not None:
            tokens = tokens.copy()
            tokens[differing] = again[TOKENS]
    if all(name in candidate for name in RANKING) and proven.any():
        ranked = ranking_error(held[proven], *(candidate[name][proven] for name in RANKING))
        if not math.isfinite(ranked):
            words = "a class does not exist or comes twice, or a probability is no number"
            return _Measured(_hopeless(rung, "classes", words), nothing, nothing)
        rung = replace(rung, ranked=ranked)
    rung = replace(rung, smallest_atol=_smallest_atol(rung, spread))
    where = proven if proven.any() else ~proven
    pair = None if tokens is None else (tokens[where], candidate[TOKENS][where])
    return _Measured(rung, held[where], others[where], pair)


def _smallest_atol(rung: Rung, spread: Spread) -> float | None:
    """What the numbers of a rung need; None where nothing is held, or a constant could be as near."""
    if not rung.has_held_numbers or not rung.largest_error <= LARGEST * spread.least:
        return None
    return max(rung.largest_error / rung.unit, rung.ranked or 0.0)


def _unlike(reference: Outputs, candidate: Outputs, names: Sequence[str], answer: str) -> tuple[str, str] | None:
    """What keeps two runners from being compared at all: (output, reason); None where nothing does."""
    logits = reference[answer]
    if len(logits) == 0:
        return answer, "unproven: there are no images to compare"
    if logits.ndim != 2 or not logits.shape[1]:
        across = "classes" if answer == LOGITS.output else "width"
        return answer, f"unproven: the reference's {answer} are {list(logits.shape)}, and must be [images, {across}]"
    unheld = [name for name in stage_names(candidate) if name not in reference]
    if unheld:
        return unheld[0], f"unproven: the reference has no {unheld[0]} to hold it against"
    reason = next((reason for name in names if (reason := _unlike_shape(reference, candidate, name))), None)
    if reason:
        return reason
    if not np.isfinite(logits).all():
        return answer, f"unproven: the reference's {answer} hold NaN or Inf"
    for output in (name for name in names if name in (answer, TOKENS)):
        if not np.isfinite(candidate[output]).all():
            return output, f"the candidate's {output} hold NaN or Inf"
    flat = spread_of(logits).unproven
    return (answer, flat) if flat else None


def _unlike_shape(reference: Outputs, candidate: Outputs, name: str) -> tuple[str, str] | None:
    if name not in candidate:
        return name, f"the candidate has no output {name}"
    ours, theirs = reference[name], candidate[name]
    if ours.shape != theirs.shape:
        return name, f"{name} has the shape {list(theirs.shape)} instead of {list(ours.shape)}"
    if theirs.dtype.kind not in ("iu" if is_decision(name) or name == "classes" else "f"):
        return name, f"{name} is {theirs.dtype}, which it cannot be"
    return None


def _failed(rung: Rung, offender: str, reason: str) -> Rung:
    """It fails, and some tolerance would pass it."""
    return replace(rung, passed=False, first_offender=offender, reason=reason)


def _hopeless(rung: Rung, offender: str, reason: str) -> Rung:
    """It fails at any tolerance."""
    return replace(_failed(rung, offender, reason), smallest_atol=None, smallest_tie=None)


def exact(name: str, reference: np.ndarray, candidate: np.ndarray, task: Task = LOGITS) -> Rung:
    """The rung that must agree to the bit: the dense model against a budget that removes nothing."""
    answer = task.output
    rung = Rung(name, len(reference), output=answer)
    wrong = _unlike({answer: reference}, {answer: candidate}, [answer], answer)
    if wrong:
        return _hopeless(rung, *wrong)
    seen = errors(reference, candidate)
    rung = replace(rung, equal=seen, end=seen, top1=float(task.same(reference, candidate).mean()))
    if not np.array_equal(reference, candidate):
        worst = float(np.abs(reference.astype(np.float64) - candidate).max())
        reason = f"not bit-identical (largest error {worst:.3g}), as it must be at any tolerance"
        return _hopeless(rung, answer, reason)
    return replace(rung, smallest_atol=0.0, smallest_tie=0.0)
