"""Two runners held against each other on the same images: token decisions and numbers apart. Torch-free.

Near-ties flip between backends and precisions. So decisions are compared first, as sets; numbers are compared where
the decisions agree, or where one side's decisions were replayed on the other; and the end result is told besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

Outputs = Mapping[str, np.ndarray]
Replay = Callable[[np.ndarray, dict[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class StageAgreement:
    """How one stage's decisions compare.

    Attributes:
        output: `kept_<block>`.
        same_images: share of images with the same set of tokens.
        same_tokens: mean share of the tokens in common.
        differing: images that differ.
        first_here: images whose first difference is at this stage.
        largest_gap: of those, the largest relative score gap at the reference's cut; None where nothing differs.
    """

    output: str
    same_images: float
    same_tokens: float
    differing: int
    first_here: int
    largest_gap: float | None


@dataclass(frozen=True)
class Errors:
    """Numeric error of logits over some images.

    Attributes:
        images: how many.
        max_abs: largest absolute error.
        mean_abs: mean absolute error.
        cosine_min: smallest cosine of an image's logits.
    """

    images: int
    max_abs: float
    mean_abs: float
    cosine_min: float


@dataclass
class Rung:
    """One step of the ladder: a candidate held against the reference.

    Attributes:
        name: what is compared.
        images: how many images.
        stages: decisions, by stage.
        equal: numeric error where all decisions agree; None where they never do.
        replayed: numeric error of the others, the candidate's decisions replayed on the reference.
        end: error over all images as they are.
        top1: share of images with the same top class.
        passed: within the tolerance, and decisions differ only at near-ties.
        first_offender: output that fails first, such as `kept_6` or `logits`.
        smallest_atol: the tolerance that would have passed; None where none would.
        reason: why it failed, in words.
    """

    name: str
    images: int
    stages: list[StageAgreement] = field(default_factory=list)
    equal: Errors | None = None
    replayed: Errors | None = None
    end: Errors | None = None
    top1: float = 0.0
    passed: bool = True
    first_offender: str | None = None
    smallest_atol: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


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
    return Errors(
        len(reference),
        float(difference.max()),
        float(difference.mean()),
        float(cosine(reference, candidate).min()),
    )


def stage_names(outputs: Outputs) -> list[str]:
    """`kept_<block>` outputs in the order of their blocks."""
    return sorted((name for name in outputs if name.startswith("kept_")), key=lambda name: int(name[5:]))


def compare_decisions(
    reference: Outputs, candidate: Outputs, stages: Sequence[str]
) -> tuple[list[StageAgreement], np.ndarray]:
    """Compare kept tokens as sets.

    Returns:
        per stage agreement; [n] bool, whether an image agrees everywhere.
    """
    count = len(reference["logits"])
    agreeing = np.ones(count, dtype=bool)
    table: list[StageAgreement] = []
    for name in stages:
        ours, theirs = np.sort(reference[name], axis=1), np.sort(candidate[name], axis=1)
        same = (ours == theirs).all(axis=1)
        common = [len(np.intersect1d(a, b)) / len(a) for a, b in zip(ours, theirs, strict=True)]
        first = agreeing & ~same
        gaps = reference.get(f"gap_{name[5:]}")
        at_cut = np.full(count, np.inf) if gaps is None else gaps
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
        reference: `logits` [n, classes], `kept_<block>` [n, tokens] and `gap_<block>` [n].
        candidate: `logits` and `kept_<block>`.
        atol: largest absolute error of a logit, decisions being equal or replayed.
        tie: a decision may differ where the reference's relative gap at the cut is below this.
        replay: (image indices, candidate's kept ids of those images) -> the reference's logits under them.
    """
    rung = Rung(name, len(reference["logits"]))
    stages = stage_names(reference)
    absent = [stage for stage in stages if stage not in candidate]
    if absent:
        return _fail(rung, absent[0], f"the candidate has no output {absent[0]}")
    logits, others = reference["logits"], candidate["logits"]
    if logits.shape != others.shape:
        return _fail(rung, "logits", f"logits have the shape {list(others.shape)} instead of {list(logits.shape)}")
    for side, values in (("reference", logits), ("candidate", others)):
        if not np.isfinite(values).all():
            return _fail(rung, "logits", f"the {side}'s logits hold NaN or Inf")
    rung.stages, agreeing = compare_decisions(reference, candidate, stages)
    rung.top1 = float((logits.argmax(1) == others.argmax(1)).mean())
    rung.end = errors(logits, others)
    rung.equal = errors(logits[agreeing], others[agreeing])
    differing = np.flatnonzero(~agreeing)
    if len(differing) and replay is not None:
        replayed = replay(differing, {stage: candidate[stage][differing] for stage in stages})
        rung.replayed = errors(replayed, others[differing])
    worst = max((part.max_abs for part in (rung.equal, rung.replayed) if part), default=0.0)
    rung.smallest_atol = worst
    for stage in rung.stages:
        if stage.largest_gap is not None and stage.largest_gap >= tie:
            reason = (
                f"{stage.first_here} images keep other tokens, with a score gap of {stage.largest_gap:.2g} at the cut"
            )
            return _fail(rung, stage.output, f"{reason} (a near-tie is below {tie:g})", keep_atol=True)
    if not worst <= atol:
        return _fail(rung, "logits", f"largest error {worst:.3g} is above {atol:g}", keep_atol=True)
    return rung


def _fail(rung: Rung, offender: str, reason: str, keep_atol: bool = False) -> Rung:
    rung.passed, rung.first_offender, rung.reason = False, offender, reason
    if not keep_atol:
        rung.smallest_atol = None
    return rung


def exact(name: str, reference: np.ndarray, candidate: np.ndarray) -> Rung:
    """The rung that must agree to the bit: the dense model against a budget that removes nothing."""
    rung = Rung(name, len(reference), equal=errors(reference, candidate), end=errors(reference, candidate))
    rung.top1 = float((reference.argmax(1) == candidate.argmax(1)).mean())
    rung.smallest_atol = rung.end.max_abs if rung.end else None
    if not np.array_equal(reference, candidate):
        return _fail(rung, "logits", "not bit-identical", keep_atol=True)
    return rung


def ladder(rungs: Sequence[Rung], atol: float, tie: float, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`parity.json`: all rungs, and the first one that failed."""
    failed = next((rung for rung in rungs if not rung.passed), None)
    return {
        "passed": failed is None,
        "atol": atol,
        "tie": tie,
        "first_offender": f"{failed.name}: {failed.first_offender}" if failed else None,
        "smallest_atol": max((rung.smallest_atol for rung in rungs if rung.smallest_atol is not None), default=None),
        "rungs": [rung.to_dict() for rung in rungs],
        **(extra or {}),
    }


def describe_failure(result: Mapping[str, Any]) -> str:
    """One line for a person: which rung and layer, by how much, and which tolerance would pass."""
    rung = next(rung for rung in result["rungs"] if not rung["passed"])
    smallest = rung["smallest_atol"]
    hint = f"; the smallest atol that would pass the numbers is {smallest:.3g}" if smallest is not None else ""
    return f"parity failed at '{rung['name']}', first at {rung['first_offender']}: {rung['reason']}{hint}"
