"""Two runners held against each other on the same images: token decisions and numbers apart. Torch-free.

Near-ties flip between backends and precisions. So decisions are compared first, as sets; numbers are compared where
the decisions agree, or where one side's decisions were replayed on the other; and the end result is told besides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.answers import ranking_error

if TYPE_CHECKING:  # Python 3.8, which run_on_device.py serves, cannot make these
    Outputs = Mapping[str, np.ndarray]
    Replay = Callable[[np.ndarray, dict[str, np.ndarray]], np.ndarray]
else:
    Outputs = Replay = Any
RANKING = ("probabilities", "classes")


@dataclass(frozen=True)
class StageAgreement:
    """How one stage's decisions compare.

    Attributes:
        output: `kept_<block>` or `merged_<block>`.
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
        cosine_mean: mean over the images.
    """

    images: int
    max_abs: float
    mean_abs: float
    cosine_min: float
    cosine_mean: float


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
        unproven: images that decide otherwise and were not replayed: their numbers are held against nothing.
        top1: share of images with the same top class.
        ranked: largest error of a candidate's `probabilities` where its numbers can be held; None where it gives none.
        passed: within the tolerance, and decisions differ only at near-ties.
        first_offender: output that fails first, such as `kept_6` or `logits`.
        smallest_atol: the tolerance that the numbers need, decisions apart; None where none would do.
        smallest_tie: what a near-tie would have to be for all differing decisions to pass; None where none would do.
        reason: why it failed, in words.
        strict: held to an absolute error; else, in another precision, to the cosine and the answers.
    """

    name: str
    images: int
    stages: list[StageAgreement] = field(default_factory=list)
    equal: Errors | None = None
    replayed: Errors | None = None
    end: Errors | None = None
    unproven: int = 0
    top1: float = 0.0
    ranked: float | None = None
    passed: bool = True
    first_offender: str | None = None
    smallest_atol: float | None = None
    smallest_tie: float | None = None
    reason: str = ""
    strict: bool = True

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
    names = [name for name in outputs if name.startswith(("kept_", "merged_"))]
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
        rung.smallest_tie = float(np.nextafter(widest, np.inf)) if widest >= 0 else 0.0
    for stage in rung.stages:
        if stage.largest_gap is not None and stage.largest_gap >= tie:
            reason = (
                f"{stage.first_here} images keep other tokens, with a score gap of {stage.largest_gap:.2g} at the cut"
            )
            return _fail(rung, stage.output, f"{reason} (a near-tie is below {tie:g})", keep=True)
    if rung.smallest_atol is None:
        reason = f"all {rung.images} images keep other tokens, so no numbers can be held against each other"
        return _fail(rung, "logits", reason)
    if rung.ranked is not None and not rung.ranked <= atol:
        reason = f"a class or its probability is {rung.ranked:.3g} off, more than {atol:g}"
        return _fail(rung, "classes", reason, keep=True)
    if not rung.smallest_atol <= atol:
        return _fail(rung, "logits", f"largest error {rung.smallest_atol:.3g} is above {atol:g}", keep=True)
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
    rung = _measured(name, reference, candidate, replay)
    rung.strict = False
    if not rung.passed:
        return rung
    mean = mean_cosine(rung.to_dict())
    assert mean is not None
    if not mean >= cosine:
        whose = "their mean cosine" if rung.equal or rung.replayed else "no image decides alike, and the mean cosine"
        return _fail(rung, "logits", f"{whose} is {mean:.5f}, below {cosine:g}", keep=True)
    noise = max(2 * math.sqrt(agreement * (1 - agreement) / rung.images), 1 / rung.images) if agreement < 1 else 0.0
    if not rung.top1 >= agreement - noise - 1e-9:
        reason = f"the top class agrees on {rung.top1:.1%} of {rung.images} images, below {agreement:.1%}"
        return _fail(rung, "logits", f"{reason} by more than so few can tell" if noise else reason, keep=True)
    return rung


def mean_cosine(rung: Mapping[str, Any]) -> float | None:
    """What `close` judges of a rung as plain data: of the images whose decisions are held, or of all without any."""
    parts = [part for part in (rung.get("equal"), rung.get("replayed")) if part]
    parts = parts or [part for part in (rung.get("end"),) if part]
    if not parts:
        return None
    return float(sum(part["cosine_mean"] * part["images"] for part in parts) / sum(part["images"] for part in parts))


def _unheld(rung: Mapping[str, Any]) -> bool:
    """Whether no image's numbers could be held under equal decisions, so that all are judged as they are."""
    return not rung.get("equal") and not rung.get("replayed")


def describe_error(rung: Mapping[str, Any]) -> str:
    """How far off a rung's numbers are, for a table: the tolerance that they need, or of another precision the cosine.

    Args:
        rung: plain data; of an older vitrim, too.
    """
    if rung.get("strict", True):
        return "-" if rung["smallest_atol"] is None else f"{rung['smallest_atol']:.2g}"
    found = mean_cosine(rung)
    return "-" if found is None else f"cosine {found:.5f}" + (", no decisions alike" if _unheld(rung) else "")


def _measured(name: str, reference: Outputs, candidate: Outputs, replay: Replay | None) -> Rung:
    """A rung with everything measured and nothing judged, but for what cannot be compared at all."""
    rung = Rung(name, len(reference["logits"]))
    stages = stage_names(reference)
    ranking = [name for name in RANKING if name in reference]
    wrong = _unlike(reference, candidate, ["logits", *ranking, *stages])
    if wrong:
        return _fail(rung, *wrong)
    logits, others = reference["logits"], candidate["logits"]
    rung.stages, agreeing = compare_decisions(reference, candidate, stages)
    rung.top1 = float((logits.argmax(1) == others.argmax(1)).mean())
    rung.end = errors(logits, others)
    rung.equal = errors(logits[agreeing], others[agreeing])
    differing = np.flatnonzero(~agreeing)
    rung.unproven = len(differing)
    held, proven = logits, agreeing
    if len(differing) and replay is not None:
        replayed = replay(differing, {stage: candidate[stage][differing] for stage in stages})
        if not np.isfinite(replayed).all():
            return _fail(rung, "logits", "the reference's logits hold NaN or Inf under the candidate's decisions")
        rung.replayed, rung.unproven = errors(replayed, others[differing]), 0
        held, proven = logits.copy(), np.ones_like(agreeing)
        held[differing] = replayed
    if all(name in candidate for name in RANKING) and proven.any():
        ranked = ranking_error(held[proven], *(candidate[name][proven] for name in RANKING))
        if not math.isfinite(ranked):
            return _fail(rung, "classes", "a class does not exist or comes twice, or a probability is no number")
        rung.ranked = ranked
    compared = [part.max_abs for part in (rung.equal, rung.replayed) if part]
    if rung.ranked is not None:
        compared.append(rung.ranked)
    rung.smallest_atol = max(compared, default=None)
    return rung


def _unlike(reference: Outputs, candidate: Outputs, names: Sequence[str]) -> tuple[str, str] | None:
    """What keeps two runners from being compared at all: (output, reason); None where nothing does."""
    if len(reference["logits"]) == 0:
        return "logits", "there are no images to compare"
    for name in names:
        if name not in candidate:
            return name, f"the candidate has no output {name}"
        ours, theirs = reference[name].shape, candidate[name].shape
        if ours != theirs:
            return name, f"{name} has the shape {list(theirs)} instead of {list(ours)}"
    for side, values in (("reference", reference["logits"]), ("candidate", candidate["logits"])):
        if not np.isfinite(values).all():
            return "logits", f"the {side}'s logits hold NaN or Inf"
    return None


def _fail(rung: Rung, offender: str, reason: str, keep: bool = False) -> Rung:
    rung.passed, rung.first_offender, rung.reason = False, offender, reason
    if not keep:
        rung.smallest_atol = rung.smallest_tie = None
    return rung


def exact(name: str, reference: np.ndarray, candidate: np.ndarray) -> Rung:
    """The rung that must agree to the bit: the dense model against a budget that removes nothing."""
    rung = Rung(name, len(reference))
    wrong = _unlike({"logits": reference}, {"logits": candidate}, ["logits"])
    if wrong:
        return _fail(rung, *wrong)
    rung.equal = rung.end = errors(reference, candidate)
    rung.top1 = float((reference.argmax(1) == candidate.argmax(1)).mean())
    if not np.array_equal(reference, candidate):
        worst = float(np.abs(reference.astype(np.float64) - candidate).max())
        return _fail(rung, "logits", f"not bit-identical (largest error {worst:.3g}), as it must be at any tolerance")
    rung.smallest_atol = rung.smallest_tie = 0.0
    return rung


def ladder(
    rungs: Sequence[Rung],
    atol: float,
    tie: float,
    extra: Mapping[str, Any] | None = None,
    before: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """`parity.json`: all rungs, and the first one that failed.

    `smallest_atol` and `smallest_tie` are what the strict rungs need; None where some rung fails at any, or none is.

    Args:
        rungs: in order.
        atol, tie: that the strict ones were held to.
        extra: more entries.
        before: rungs of an earlier `parity.json`, which come first.
    """
    told = [*before, *(rung.to_dict() for rung in rungs)]
    failed = next((rung for rung in told if not rung["passed"]), None)
    strict = [rung for rung in told if rung.get("strict", True)]
    needs = {key: [rung[key] for rung in strict if key in rung] for key in ("smallest_atol", "smallest_tie")}
    return {
        "passed": failed is None,
        "atol": atol,
        "tie": tie,
        "first_offender": f"{failed['name']}: {failed['first_offender']}" if failed else None,
        **{key: None if None in values else max(values, default=None) for key, values in needs.items()},
        "rungs": told,
        **(extra or {}),
    }


def describe_failure(result: Mapping[str, Any]) -> str:
    """One line for a person: which rung and layer, by how much, and which tolerance would pass."""
    rung = next(rung for rung in result["rungs"] if not rung["passed"])
    hints = []
    atol, tie = rung["smallest_atol"], rung.get("smallest_tie")
    if rung.get("strict", True) and atol is not None and atol > result["atol"]:
        hints.append(f"the smallest atol that would pass the numbers is {_at_least(atol)}")
    if rung.get("strict", True) and tie is not None and tie > result["tie"]:
        hints.append(f"the smallest tie that would pass the decisions is {_at_least(tie)}")
    failed = f"parity failed at '{rung['name']}', first at {rung['first_offender']}: {rung['reason']}"
    return "; ".join([failed, *hints])


def _at_least(value: float) -> str:
    """Three digits, rounded up: a tolerance that is copied from a message must do."""
    text = f"{value:.3g}"
    if float(text) < value:
        step = 10.0 ** (math.floor(math.log10(value)) - 2)
        text = f"{float(text) + step:.3g}"
    return text
