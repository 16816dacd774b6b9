"""Last hidden tokens held against the reference's, where a graph gives them. Torch-free.

A patch whose token was dropped has that of the patch most like it, and a near-tie between two of those may go the other
way elsewhere. So a token that is not the reference's may be another one of the same image, for few patches.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..core.answers import TOKENS, cosine
from .parity import Rung, TokenErrors
from .spread import LARGEST, NEARER, root_mean_square, spread_of

MOVED = 0.01  # share of the tokens that may be another one of their image


def hold_numbers(rung: Rung, reference: np.ndarray, candidate: np.ndarray, atol: float) -> Rung:
    """A rung with the tokens of the images whose decisions agree held to a tolerance.

    Args:
        rung: that passed so far.
        reference, candidate: [n, tokens, width] float.
        atol: as of `rungs.compare`; here it is a share of what the tokens spread by.
    """
    spread = spread_of(_rows(reference))
    if spread.unproven:
        return _failed(replace(rung, smallest_atol=None), f"of the tokens, {spread.unproven}")
    seen = errors(reference, candidate, atol * spread.least)
    need = seen.worst / spread.least
    rung = replace(rung, tokens=seen)
    if not need <= LARGEST:
        reason = f"a token's error {seen.worst:.3g} is above half of what they spread by"
        return _failed(replace(rung, smallest_atol=None), reason)
    assert rung.smallest_atol is not None
    rung = replace(rung, smallest_atol=max(rung.smallest_atol, need))
    if not need <= atol:
        return _failed(rung, f"a token's error {seen.worst:.3g} is above {atol * spread.least:.3g}")
    if seen.moved > MOVED:
        return _failed(rung, f"{seen.moved:.1%} of the patches have another token of their image, above {MOVED:.0%}")
    return rung


def hold_cosine(rung: Rung, reference: np.ndarray, candidate: np.ndarray, least: float | None) -> Rung:
    """A rung of another precision with its tokens held: nearer to the reference's than the best constant.

    Args:
        rung: that passed so far.
        reference, candidate: [n, tokens, width] float.
        least: mean cosine; None: other decisions may have been made, so that tokens are others by right.
    """
    seen = errors(reference, candidate, 0.0)
    rung = replace(rung, tokens=seen)
    distance, spread = root_mean_square(candidate - reference), spread_of(_rows(reference)).least
    if not distance <= NEARER * spread:
        return _failed(rung, f"{distance:.3g} off in the mean, where the reference's spread by {spread:.3g}")
    if least is not None and not seen.cosine_mean >= least:
        return _failed(rung, f"the tokens' mean cosine is {seen.cosine_mean:.5f}, below {least:g}")
    return rung


def same_tokens(name: str, output: str, logits: np.ndarray, reference: np.ndarray, candidate: np.ndarray) -> Rung:
    """The rung of tokens that must be the same bits.

    Args:
        name: of the rung.
        output: what the model answers with, see `answers.Task`.
        logits: [n, ...] of the reference.
        reference, candidate: [n, tokens, width] float.
    """
    rung = Rung(name, len(logits), output=output, top1=1.0, smallest_atol=0.0, smallest_tie=0.0)
    if reference.shape != candidate.shape or not np.array_equal(reference, candidate):
        rung = replace(rung, smallest_atol=None, smallest_tie=None, top1=0.0)
        return _failed(rung, f"not bit-identical ({list(candidate.shape)}, must be {list(reference.shape)})")
    return replace(rung, tokens=errors(reference, candidate, 0.0))


def errors(reference: np.ndarray, candidate: np.ndarray, within: float) -> TokenErrors:
    """Numeric error of [n, tokens, width] tokens.

    Args:
        reference, candidate: of the same images.
        within: a token farther off than this counts as moved where another one of its image is not.
    """
    far = _apart(reference, candidate)
    moved = np.zeros(far.shape, dtype=bool)
    for image, token in zip(*np.nonzero(~(far <= within)), strict=True) if within else ():
        nearest = float(_apart(reference[image], candidate[image, token]).min())
        if nearest <= within:
            moved[image, token], far[image, token] = True, nearest
    return TokenErrors(
        images=len(reference),
        worst=float(far.max()),
        cosine_mean=mean_cosine(reference, candidate),
        moved=float(moved.mean()),
    )


def mean_cosine(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Mean over all tokens of the cosine of [n, tokens, width] with the reference's; those that are zero do not count.

    Raises:
        ValueError: all are zero.
    """
    found = cosine(_rows(reference), _rows(candidate))
    found = found[~np.isnan(found)]
    if not len(found):
        raise ValueError("the reference's tokens are all zero")
    return float(found.mean())


def _apart(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Root mean square over the width [...] of what [..., width] tokens differ by."""
    found: np.ndarray = np.sqrt(np.square(candidate.astype(np.float64) - reference).mean(axis=-1))
    return found


def _rows(tokens: np.ndarray) -> np.ndarray:
    return tokens.reshape(-1, tokens.shape[-1])


def _failed(rung: Rung, reason: str) -> Rung:
    return replace(rung, passed=False, first_offender=TOKENS, reason=reason)
