"""Last hidden tokens are held beside the answers: numbers, few that are another one of their image, cosine."""

from __future__ import annotations

import numpy as np
import pytest

from vitrim.exporter.core.answers import TOKENS
from vitrim.exporter.runtime.parity import Parity, Rung
from vitrim.exporter.runtime.rungs import close, compare
from vitrim.exporter.runtime.shipped import as_proven, hold_answers, only_answers
from vitrim.exporter.runtime.tokens import errors, mean_cosine, same_tokens

LIMITS = {"cosine": 0.99, "agreement": 0.9}


def outputs(count: int = 4, tokens: int = 50) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "logits": draw.standard_normal((count, 5)).astype(np.float32),
        TOKENS: draw.standard_normal((count, tokens, 6)).astype(np.float32),
        "kept_1": np.tile(np.arange(6, dtype=np.int32), (count, 1)),
        "gap_1": np.full(count, 0.5, np.float32),
    }


def changed(reference: dict[str, np.ndarray], where: tuple[int, ...], by: float) -> dict[str, np.ndarray]:
    tokens = reference[TOKENS].copy()
    tokens[where] += np.float32(by)
    return reference | {TOKENS: tokens}


def test_numbers_are_held_to_the_tolerance() -> None:
    reference = outputs()
    rung = compare("same", reference, reference, atol=1e-4, tie=1e-5)
    assert rung.tokens is not None
    assert (rung.passed, rung.smallest_atol, rung.tokens.worst, rung.tokens.moved) == (True, 0.0, 0.0, 0.0)
    assert Rung.from_json(rung.to_json(), "parity.json") == rung
    near = compare("near", reference, changed(reference, (1, 7), 5e-5), atol=1e-4, tie=1e-5)
    assert near.passed
    assert near.smallest_atol == pytest.approx(5e-5 / 0.874, rel=0.01)  # of their spread
    far = compare("far", reference, changed(reference, (1, 7), 0.01), atol=1e-4, tie=1e-5)
    assert (far.passed, far.first_offender) == (False, TOKENS)
    assert Parity(1e-4, 1e-5, (far,)).failure.startswith(
        "parity failed at 'far', first at tokens: a token's error 0.01 is above "
    )
    wild = compare("wild", reference, changed(reference, (1, 7), 9.0), atol=1e3, tie=1e-5)
    assert (wild.passed, wild.smallest_atol) == (False, None)


def test_few_patches_may_have_another_token_of_their_image() -> None:
    reference = outputs()
    tokens = reference[TOKENS].copy()
    tokens[0, 3], tokens[2, 4] = tokens[0, 9], tokens[2, 1]
    rung = compare("near-ties", reference, reference | {TOKENS: tokens}, atol=1e-4, tie=1e-5)
    assert rung.tokens is not None
    assert (rung.passed, rung.tokens.moved, rung.smallest_atol) == (True, 2 / 200, 0.0)
    tokens[3, 0] = tokens[3, 1]
    rung = compare("too many", reference, reference | {TOKENS: tokens}, atol=1e-4, tie=1e-5)
    assert (rung.passed, rung.first_offender) == (False, TOKENS)
    assert rung.reason == "1.5% of the patches have another token of their image, above 1%"
    tokens[0, 3] = reference[TOKENS][1, 3]  # of another image
    assert errors(reference[TOKENS], tokens, 1e-4).worst > 0.5


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (None, "the candidate has no output tokens"),
        (np.zeros((4, 49, 6), np.float32), "tokens has the shape"),
        (np.full((4, 50, 6), np.nan, np.float32), "the candidate's tokens hold NaN or Inf"),
        (np.zeros((4, 50, 6), np.int32), "tokens is int32"),
    ],
)
def test_what_cannot_be_compared_fails(other: np.ndarray | None, reason: str) -> None:
    reference = outputs()
    candidate = {name: value for name, value in reference.items() if name != TOKENS}
    rung = compare("odd", reference, candidate | ({} if other is None else {TOKENS: other}), atol=1, tie=1e-5)
    assert (rung.passed, rung.first_offender, rung.smallest_atol) == (False, TOKENS, None)
    assert rung.reason.startswith(reason)


def test_other_decisions_are_replayed_for_tokens_too() -> None:
    reference = outputs()
    reference["gap_1"][2] = 1e-6
    candidate = changed(reference, (2,), 1.0)
    candidate["kept_1"] = candidate["kept_1"].copy()
    candidate["kept_1"][2, 5] = 9
    asked = {name: candidate[name][2:3] for name in ("logits", TOKENS)}
    assert compare("replayed", reference, candidate, atol=1e-4, tie=1e-5, replay=lambda *_: asked).passed
    assert compare("left out", reference, candidate, atol=1e-4, tie=1e-5).passed
    asked[TOKENS] = asked[TOKENS] + 1
    assert not compare("off", reference, candidate, atol=1e-4, tie=1e-5, replay=lambda *_: asked).passed


def test_another_precision_is_held_by_the_cosine() -> None:
    reference = outputs()
    assert close("half", reference, changed(reference, (0,), 0.01), **LIMITS).passed
    rung = close("off", reference, changed(reference, (0,), 1.0), **LIMITS)
    assert (rung.passed, rung.first_offender) == (False, TOKENS)
    assert close("undecided", reference, changed(reference, (0,), 1.0), **LIMITS, decided=False).passed
    flat = reference | {TOKENS: np.zeros_like(reference[TOKENS])}
    assert not close("constant", reference, flat, **LIMITS, decided=False).passed


def test_what_is_shipped_gives_the_proof_s_tokens() -> None:
    proof, held_to = outputs(), Parity(1e-4, 1e-5, ())
    assert set(only_answers(proof)) == {"logits", TOKENS}
    assert as_proven("onnx", proof, proof, only_answers(proof), held_to).smallest_atol == 0.0
    assert not as_proven("onnx", proof, proof, changed(proof, (0, 0), 0.01), held_to).passed
    assert not hold_answers("engine", proof, changed(proof, (0, 0), 0.01), held_to).passed


def test_dense_tokens_must_be_the_same_bits() -> None:
    tokens = outputs()[TOKENS]
    rung = same_tokens("identity", "features", tokens[:, 0], tokens, tokens.copy())
    assert (rung.passed, rung.images, rung.output) == (True, 4, "features")
    rung = same_tokens("identity", "logits", tokens[:, 0], tokens, np.nextafter(tokens, 9))
    assert (rung.passed, rung.first_offender, rung.smallest_atol) == (False, TOKENS, None)


def test_the_mean_cosine_is_of_tokens_that_there_are() -> None:
    tokens = outputs()[TOKENS]
    half = tokens.copy()
    half[:, ::2] = 0
    assert mean_cosine(tokens, -tokens) == pytest.approx(-1)
    assert mean_cosine(half, tokens) == pytest.approx(1)
    with pytest.raises(ValueError, match="all zero"):
        mean_cosine(np.zeros_like(tokens), tokens)
