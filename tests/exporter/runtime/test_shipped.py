"""What is shipped without its decisions is held against what was proven with them."""

from __future__ import annotations

import numpy as np
import pytest

from vitrim.exporter.runtime.parity import Limits, Parity
from vitrim.exporter.runtime.shipped import as_proven, hold_answers, only_answers

STRICT = Parity(1e-4, 1e-3, ())
CLOSE = Parity(1e-4, 1e-3, (), Limits(0.999, 0.9))


def outputs(count: int = 6) -> dict[str, np.ndarray]:
    logits = np.random.default_rng(0).standard_normal((count, 5)).astype(np.float32)
    return {"logits": logits, "kept_1": np.zeros((count, 2), np.int32), "gap_1": np.full(count, 0.5, np.float32)}


def changed(reference: dict[str, np.ndarray], rows: slice, by: float) -> dict[str, np.ndarray]:
    logits = reference["logits"].copy()
    logits[rows] += by
    return {"logits": logits}


@pytest.mark.parametrize("held_to", [STRICT, CLOSE])
def test_the_same_bits_are_the_proof_s(held_to: Parity) -> None:
    proof = outputs()
    rung = as_proven("onnx", proof, proof, only_answers(proof), held_to)
    assert (rung.name, rung.passed, rung.strict) == ("onnx: model.onnx = proof.onnx", True, True)
    assert (rung.smallest_atol, rung.images, rung.top1, rung.stages) == (0.0, 6, 1.0, ())


def test_other_bits_are_held_to_the_limits() -> None:
    proof = outputs()
    assert as_proven("onnx", proof, proof, changed(proof, slice(None), 5e-5), STRICT).passed
    rung = as_proven("onnx", proof, proof, changed(proof, slice(1), 2e-4), STRICT)
    assert (rung.passed, rung.first_offender, rung.strict) == (False, "logits", True)
    rung = as_proven("onnx", proof, proof, changed(proof, slice(1), 2e-4), CLOSE)
    assert (rung.passed, rung.strict) == (True, False)


def test_a_graph_whose_logits_alone_are_the_proof_s_is_not_proven() -> None:
    ranked = {"probabilities": np.full((6, 1), 0.9, np.float32), "classes": np.zeros((6, 1), np.int32)}
    proof = outputs() | ranked
    rung = as_proven("onnx", proof, proof, {"logits": proof["logits"]}, STRICT)
    assert (rung.passed, rung.first_offender) == (False, "probabilities")


def test_images_at_a_near_tie_may_decide_otherwise() -> None:
    reference = outputs()
    reference["gap_1"][:2] = 1e-4
    other = changed(reference, slice(2), 1.0)
    rung = hold_answers("engine = golden", reference, other, STRICT)
    assert (rung.passed, rung.images, rung.unproven) == (True, 6, 2)
    assert rung.equal is not None
    assert rung.equal.images == 4
    assert not hold_answers("engine = golden", reference, changed(reference, slice(3), 1.0), STRICT).passed


def test_where_every_image_has_a_near_tie_all_are_held() -> None:
    reference = outputs()
    reference["gap_1"][:] = 0
    assert hold_answers("engine = golden", reference, only_answers(reference), STRICT).passed
    rung = hold_answers("engine = golden", reference, changed(reference, slice(1), 1.0), STRICT)
    assert (rung.passed, rung.unproven) == (False, 0)


def test_a_gap_that_is_no_number_is_no_near_tie() -> None:
    reference = outputs()
    reference["gap_1"][:] = np.nan
    assert not hold_answers("engine = golden", reference, changed(reference, slice(1), 1.0), STRICT).passed
