"""Rungs: decisions and numbers apart, near-ties, the first offender, and the tolerance that would have passed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vitrim.exporter.core.answers import FEATURES
from vitrim.exporter.runtime.parity import Parity, Rung
from vitrim.exporter.runtime.rungs import close, compare, cosine, errors, exact


def ladder(rungs: Sequence[Rung], atol: float, tie: float) -> Parity:
    """All of them, as a run has them."""
    return Parity(atol, tie, tuple(rungs))


def answering(logits: np.ndarray) -> Any:
    """A replay that gives these logits, of the images that it is asked for where there are more."""
    return lambda images, _: {"logits": logits[images] if len(logits) > len(images) else logits}


def outputs(count: int = 4, gap: float = 0.5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "logits": rng.standard_normal((count, 5)).astype(np.float32),
        "kept_10": np.tile(np.arange(3, dtype=np.int32), (count, 1)),
        "kept_2": np.tile(np.arange(6, dtype=np.int32), (count, 1)),
        "gap_2": np.full(count, gap, np.float32),
        "gap_10": np.full(count, gap, np.float32),
    }


def test_equal_runners_pass_and_stages_stand_in_block_order() -> None:
    reference = outputs()
    rung = compare("same", reference, reference, atol=1e-6, tie=1e-5)
    assert rung.passed
    assert [stage.output for stage in rung.stages] == ["kept_2", "kept_10"]
    assert (rung.smallest_atol, rung.top1) == (0.0, 1.0)
    assert rung.equal is not None
    assert rung.equal.images == 4


def test_decisions_are_compared_as_sets() -> None:
    reference, candidate = outputs(), outputs()
    candidate["kept_2"] = candidate["kept_2"][:, ::-1]
    assert compare("order", reference, candidate, atol=1e-6, tie=0).passed


def test_whose_a_masked_duplicate_is_decides_nothing() -> None:
    reference, candidate = ({**outputs(), "kept_2": np.tile(np.array(ids, np.int32), (4, 1))} for ids in DUPLICATES)
    rung = compare("duplicates", reference, candidate, atol=1e-6, tie=0)
    assert rung.passed
    assert (rung.stages[0].same_images, rung.stages[0].same_tokens) == (1.0, 1.0)
    candidate["kept_2"][0, -1] = 7
    rung = compare("another token", reference, candidate, atol=1e-6, tie=0)
    assert not rung.passed
    assert rung.stages[0].differing == 1
    assert rung.stages[0].same_tokens == pytest.approx((3 + 4 / 5) / 4)
    candidate["kept_2"][0, -1] = -1  # no token has this id, and it stands for no duplicate
    assert not compare("no token", reference, candidate, atol=1e-6, tie=0).passed


DUPLICATES = ([0, 3, 3, 3, 5, 9], [0, 3, 5, 5, 9, 9])


def test_merges_into_other_tokens_are_other_decisions() -> None:
    reference = outputs(gap=0.5) | {"merged_2": np.tile(np.array([65536 * 7 + 1, 65536 * 8 + 2], np.int32), (4, 1))}
    candidate = dict(reference) | {"merged_2": reference["merged_2"][:, ::-1].copy()}
    rung = compare("order", reference, candidate, atol=1e-6, tie=0)
    assert rung.passed
    assert [stage.output for stage in rung.stages] == ["kept_2", "merged_2", "kept_10"]
    candidate["merged_2"][1, 0] = 65536 * 8 + 1
    rung = compare("another target", reference, candidate, atol=1e-6, tie=1e-5)
    assert (rung.passed, rung.first_offender) == (False, "merged_2")


def test_a_numeric_error_names_the_smallest_tolerance() -> None:
    reference, candidate = outputs(), outputs()
    candidate["logits"] = candidate["logits"] + np.float32(3e-3)
    rung = compare("off", reference, candidate, atol=1e-4, tie=1e-5)
    assert not rung.passed
    assert rung.first_offender == "logits"
    assert rung.smallest_atol == pytest.approx(3e-3, rel=1e-3)
    assert compare("ok", reference, candidate, atol=rung.smallest_atol, tie=1e-5).passed
    result = ladder([rung], 1e-4, 1e-5)
    assert result.passed is False
    assert result.first_offender == "off: logits"
    named = float(result.failure.rpartition("would pass the numbers is ")[2])
    assert 3e-3 < named < 3.02e-3
    assert compare("as named", reference, candidate, atol=named, tie=1e-5).passed


def test_a_decision_that_is_no_near_tie_fails_at_its_stage() -> None:
    reference, candidate = outputs(gap=0.5), outputs()
    candidate["kept_2"] = candidate["kept_2"].copy()
    candidate["kept_2"][1, 5] = 9
    candidate["kept_10"] = candidate["kept_10"].copy()
    candidate["kept_10"][1, 0] = 9
    rung = compare("flip", reference, candidate, atol=1e-4, tie=1e-3)
    assert rung.first_offender == "kept_2"
    first, second = rung.stages
    assert (first.differing, first.first_here, first.largest_gap) == (1, 1, 0.5)
    assert first.same_images == 0.75
    assert first.same_tokens == pytest.approx((3 + 5 / 6) / 4)
    assert (second.differing, second.first_here, second.largest_gap) == (1, 0, None)


def test_a_near_tie_may_flip_and_is_replayed() -> None:
    reference, candidate = outputs(gap=1e-7), outputs()
    candidate["kept_10"] = candidate["kept_10"].copy()
    candidate["kept_10"][3, 0] = 9
    candidate["logits"] = candidate["logits"].copy()
    candidate["logits"][3] += 1
    seen = {}

    def replay(images: np.ndarray, kept: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen["images"], seen["kept"] = images.tolist(), kept["kept_10"].tolist()
        return {"logits": candidate["logits"][3:] - np.float32(1e-5)}

    rung = compare("tie", reference, candidate, atol=1e-4, tie=1e-5, replay=replay)
    assert rung.passed
    assert seen == {"images": [3], "kept": [[9, 1, 2]]}
    assert rung.equal is not None
    assert rung.equal.images == 3
    assert rung.replayed is not None
    assert rung.replayed.max_abs == pytest.approx(1e-5, rel=0.2)
    assert rung.end is not None
    assert rung.end.max_abs > 0.9
    assert rung.unproven == 0
    assert rung.smallest_tie == pytest.approx(1e-7, rel=1e-3)
    without = compare("no replay", reference, candidate, atol=1e-4, tie=1e-5)
    assert without.passed
    assert (without.replayed, without.unproven) == (None, 1)
    assert rung.end.cosine_min < rung.end.cosine_mean < 1


def test_the_smallest_tie_is_named_and_passes() -> None:
    reference, candidate = outputs(gap=0.0123456), outputs()
    candidate["kept_2"] = candidate["kept_2"].copy()
    candidate["kept_2"][1, 5] = 9
    rung = compare("flip", reference, candidate, atol=1e-4, tie=1e-5)
    line = ladder([rung], 1e-4, 1e-5).failure
    named = float(line.rpartition("would pass the decisions is ")[2])
    assert named == 0.0124
    assert "would pass the numbers" not in line
    assert rung.smallest_tie is not None
    for tie in (named, rung.smallest_tie):
        assert compare("as named", reference, candidate, atol=1e-4, tie=tie).passed
    del reference["gap_2"]  # nothing says that it was a near-tie
    rung = compare("no gap", reference, candidate, atol=1e-4, tie=1e9)
    assert (rung.passed, rung.smallest_tie) == (False, None)
    json.dumps(rung.to_json() | {"stages": []}, allow_nan=False)


def test_a_gap_that_is_no_number_is_no_near_tie() -> None:
    reference, candidate = outputs(gap=np.nan), outputs()
    candidate["kept_2"] = candidate["kept_2"] + np.int32(1)
    assert not compare("nan gap", reference, candidate, atol=1, tie=1).passed


def test_numbers_that_were_never_compared_do_not_pass() -> None:
    reference, candidate = outputs(gap=1e-9), outputs()
    candidate["kept_2"] = candidate["kept_2"] + np.int32(1)
    candidate["logits"] = candidate["logits"] + 1000
    rung = compare("nothing proven", reference, candidate, atol=1e-4, tie=1e-5)
    assert not rung.passed
    assert "no numbers can be held against each other" in rung.reason
    nobody = {name: value[:0] for name, value in outputs().items()}
    assert "no images" in compare("none", nobody, nobody, atol=1, tie=1).reason


def test_a_replay_that_yields_nan_fails() -> None:
    reference, candidate = outputs(gap=1e-9), outputs()
    candidate["kept_2"] = candidate["kept_2"].copy()
    candidate["kept_2"][0, 0] = 9
    rung = compare("nan", reference, candidate, atol=1, tie=1, replay=answering(candidate["logits"][:1] * np.nan))
    assert "NaN or Inf under the candidate's decisions" in rung.reason


def test_a_replayed_error_counts() -> None:
    reference, candidate = outputs(gap=1e-7), outputs()
    candidate["kept_2"] = candidate["kept_2"].copy()
    candidate["kept_2"][0, 0] = 9
    rung = compare("bad", reference, candidate, atol=1e-4, tie=1e-5, replay=answering(candidate["logits"][:1] + 0.25))
    assert not rung.passed
    assert rung.smallest_atol == pytest.approx(0.25)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_are_failures_that_no_tolerance_passes(bad: float) -> None:
    reference, candidate = outputs(), outputs()
    candidate["logits"] = candidate["logits"].copy()
    candidate["logits"][0, 0] = bad
    rung = compare("nan", reference, candidate, atol=1e9, tie=1)
    assert not rung.passed
    assert rung.smallest_atol is None
    assert "NaN or Inf" in rung.reason


def test_missing_outputs_and_other_shapes() -> None:
    reference, candidate = outputs(), outputs()
    del candidate["kept_2"]
    assert compare("missing", reference, candidate, atol=1, tie=1).first_offender == "kept_2"
    candidate = outputs()
    candidate["logits"] = candidate["logits"][:, :4]
    assert "[4, 4] instead of [4, 5]" in compare("shape", reference, candidate, atol=1, tie=1).reason
    candidate = outputs()
    candidate["kept_2"] = candidate["kept_2"][:, :5]
    rung = compare("another budget", reference, candidate, atol=1, tie=1)
    assert (rung.first_offender, rung.reason) == ("kept_2", "kept_2 has the shape [4, 5] instead of [4, 6]")
    candidate = outputs()
    del candidate["logits"]
    assert compare("no logits", reference, candidate, atol=1, tie=1).first_offender == "logits"


def test_exact_means_every_bit() -> None:
    logits = outputs()["logits"]
    assert exact("id", logits, logits.copy()).passed
    other = logits.copy()
    other[0, 0] = np.nextafter(other[0, 0], np.float32(9))
    rung = exact("id", logits, other)
    assert rung.reason == "not bit-identical (largest error 1.49e-08), as it must be at any tolerance"
    assert rung.smallest_atol is None
    assert "NaN" in exact("id", logits, logits * np.nan).reason
    assert "shape" in exact("id", logits, logits[:, :2]).reason
    result = ladder([exact("id", logits, logits), rung], 1e-4, 1e-5)
    assert result.smallest_atol is None  # no tolerance passes this ladder
    json.dumps(ladder([exact("id", logits, logits * np.nan)], 1e-4, 1e-5).to_json(), allow_nan=False)


def test_zero_rows_have_no_cosine_and_never_a_good_one() -> None:
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    assert np.isnan(cosine(zero, zero)[0])
    assert cosine(one, zero)[0] == 0
    assert np.isnan(cosine(zero, one)[0])
    seen = errors(np.concatenate([zero, one]), np.concatenate([one, one]))
    assert seen is not None
    assert (seen.cosine_min, seen.cosine_mean) == (pytest.approx(1), pytest.approx(1))
    none = errors(zero, zero)
    assert none is not None
    assert none.cosine_mean == 0  # nothing is proven by it
    assert cosine(one, 5 * one)[0] == pytest.approx(1)


LIMITS = {"cosine": 0.9995, "agreement": 0.99}


def test_another_precision_is_judged_by_cosine_and_answers() -> None:
    reference, candidate = outputs(16), outputs(16)
    candidate["logits"] = candidate["logits"] * np.float32(1.01) + np.float32(1e-3)
    rung = close("half", reference, candidate, **LIMITS)
    assert (rung.passed, rung.strict, rung.unproven) == (True, False, 0)
    assert not compare("half", reference, candidate, atol=1e-4, tie=1e-5).passed
    candidate["logits"] = candidate["logits"] + np.float32(0.5)
    rung = close("half", reference, candidate, **LIMITS)
    assert (rung.passed, rung.first_offender) == (False, "logits")
    assert rung.reason.startswith("their mean cosine is 0.")
    assert rung.describe_error().startswith("cosine 0.")


@pytest.mark.parametrize(
    ("images", "agreement", "noise"), [(4, 0.99, 1), (8, 0.99, 1), (64, 0.99, 2), (1000, 0.99, 16), (8, 1.0, 0)]
)
def test_agreement_allows_what_so_few_images_cannot_tell(images: int, agreement: float, noise: int) -> None:
    """Two standard errors of a share, and one image: of 1000 images at 0.99 those are 10 and 6 more."""
    reference = {"logits": np.tile(np.array([[2.0, 1.999, 0, 0]], np.float32), (images, 1))}
    reference["logits"][:, 2:] += np.linspace(0, 1, images, dtype=np.float32)[:, None]
    for others, passed in ((noise, True), (noise + 1, False)):
        candidate = {"logits": reference["logits"].copy()}
        candidate["logits"][:others, 1] = 2.001
        rung = close("half", reference, candidate, cosine=0.999, agreement=agreement)
        assert rung.passed is passed, rung.reason
    assert rung.reason.endswith("below 100.0%" if agreement == 1 else "by more than so few can tell")


def test_without_an_image_that_decides_alike_all_are_judged_as_they_are() -> None:
    reference, candidate = outputs(8, gap=1e-7), outputs(8)
    candidate["kept_2"] = candidate["kept_2"] + 1
    rung = close("half", reference, candidate, **LIMITS)
    assert (rung.passed, rung.unproven, rung.equal) == (True, 8, None)
    assert rung.describe_error() == "cosine 1.00000, no decisions alike"
    candidate["logits"] = candidate["logits"] + np.float32(0.3)
    rung = close("half", reference, candidate, **LIMITS)
    assert not rung.passed
    assert rung.reason.startswith("no image decides alike, and the mean cosine is 0.9")
    # ... but where their decisions can be replayed, the numbers are held under those.
    replayed = close("half", reference, candidate, **LIMITS, replay=answering(candidate["logits"]))
    assert (replayed.passed, replayed.unproven) == (True, 0)


def test_classes_that_do_not_exist_are_refused_in_any_precision() -> None:
    reference = outputs()
    order = np.argsort(-reference["logits"], axis=1)[:, :2]
    shares = np.exp(reference["logits"]) / np.exp(reference["logits"]).sum(1, keepdims=True)
    ranking = {"probabilities": np.take_along_axis(shares, order, 1), "classes": order}
    assert close("half", reference | ranking, reference | ranking, **LIMITS).passed
    wrong = close("half", reference | ranking, reference | ranking | {"classes": order + 4}, **LIMITS)
    assert (wrong.passed, wrong.first_offender) == (False, "classes")


def rounded(seed: int = 1, spread: float = 0.05) -> dict[str, np.ndarray]:
    """A candidate of another precision: it rounds, and keeps other tokens of every second image."""
    candidate = outputs()
    noise = np.random.default_rng(seed).standard_normal(candidate["logits"].shape).astype(np.float32)
    candidate["logits"] = candidate["logits"] + spread * noise
    candidate["kept_2"] = candidate["kept_2"].copy()
    candidate["kept_2"][::2, 5] = 9
    return candidate


def test_close_replays_decisions() -> None:
    reference, candidate = outputs(), rounded()
    candidate["logits"][::2] = np.roll(candidate["logits"][::2], 2, axis=1)  # other tokens, another answer
    asked = []

    def replay(images: np.ndarray, kept: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        asked.append((images.tolist(), kept["kept_2"][:, 5].tolist()))
        return {"logits": candidate["logits"][images] + np.float32(1e-3)}

    rung = close("replayed", reference, candidate, cosine=0.99, agreement=0.5, replay=replay)
    assert rung.passed, rung.reason
    assert asked == [([0, 2], [9, 9])]
    assert rung.unproven == 0
    assert rung.equal is not None
    assert rung.replayed is not None
    assert rung.replayed.cosine_min > 0.999
    assert (rung.equal.images, rung.replayed.images) == (2, 2)
    assert rung.end is not None
    assert rung.end.cosine_min < 0.9
    bad = close("bad", reference, candidate, cosine=0.99, agreement=0, replay=answering(-candidate["logits"]))
    assert (bad.passed, bad.first_offender) == (False, "logits")
    both = (rung.equal.cosine_mean - 1) / 2  # each half of the images counts for what it is
    assert float(bad.reason.split()[4].rstrip(",")) == pytest.approx(both, abs=1e-5)
    nan = close("nan", reference, candidate, cosine=0, agreement=0, replay=answering(np.full((2, 5), np.nan)))
    assert "NaN or Inf under the candidate's decisions" in nan.reason


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_close_never_passes_nan(bad: float) -> None:
    reference, candidate = outputs(), outputs()
    candidate["logits"] = candidate["logits"].copy()
    candidate["logits"][1, 2] = bad
    rung = close("nan", reference, candidate, cosine=-1, agreement=0)
    assert (rung.passed, rung.strict) == (False, False)
    assert "the candidate's logits hold NaN or Inf" in rung.reason
    assert not close("nan cosine", reference, outputs(), cosine=np.nan, agreement=0).passed
    assert not close("nan share", reference, outputs(), cosine=0, agreement=np.nan).passed


def test_a_ladder_s_tolerance_is_that_of_its_strict_rungs() -> None:
    reference, candidate = outputs(), outputs()
    candidate["logits"] = candidate["logits"] + np.float32(1e-6)
    strict = compare("strict", reference, candidate, atol=1e-4, tie=1e-5)
    loose = close("int8", reference, rounded(), cosine=0.99, agreement=1)
    assert loose.smallest_atol is not None
    assert loose.smallest_atol > 0.01
    result = ladder([strict, loose], 1e-4, 1e-5)
    assert result.passed
    assert strict.smallest_atol is not None
    assert result.smallest_atol == strict.smallest_atol < 1e-5
    assert result.smallest_tie == 0
    assert [rung.strict for rung in result.rungs] == [True, False]
    failed = close("int8", reference, rounded(), cosine=0.999999, agreement=1)
    line = ladder([strict, failed], 1e-4, 1e-5).failure
    assert line.startswith("parity failed at 'int8', first at logits: their mean cosine is 0.99")
    assert "would pass" not in line  # no tolerance is asked of it


SCALES = st.floats(-30, 30).map(lambda power: 10.0**power)
TOLERANCES = st.floats(-10, 9).map(lambda power: 10.0**power)
SHAPES = st.tuples(st.integers(2, 12), st.integers(2, 12))


@settings(max_examples=300, deadline=None)
@given(SHAPES, st.integers(0, 2**32 - 1), SCALES, st.floats(0, 3))
def test_scaled_models_pass_and_fail_alike(shape: tuple[int, int], seed: int, scale: float, offset: float) -> None:
    """Float32's rounding passes at any scale, an error of a hundredth of the spread at none."""
    draw = np.random.default_rng(seed)
    logits, noise = draw.standard_normal(shape) + offset, draw.uniform(-1, 1, shape)
    reference = {"logits": (logits * scale).astype(np.float32)}
    spread = np.sqrt(min(logits.var(axis=0).mean(), logits.var(axis=1).mean()))
    # What an atol allows follows the spread over classes, so an error of 2 % of a far smaller one over images passes.
    assume(spread > 0.05 * np.sqrt(logits.var(axis=1).mean()))
    noise *= spread / np.abs(noise).max()
    for error, passed in ((1e-6, True), (0.02, False)):
        candidate = {"logits": ((logits + error * noise) * scale).astype(np.float32)}
        rung = compare("scaled", reference, candidate, atol=1e-4, tie=0)
        assert rung.passed is passed, rung.reason
        assert rung.smallest_atol is not None
        equal = np.array_equal(reference["logits"], candidate["logits"])  # a small error may be lost in float32
        assert (rung.smallest_atol == 0) is equal
        for atol, again in ((rung.smallest_atol, True), (rung.smallest_atol * 0.999, equal)):
            assert compare("as named", reference, candidate, atol=atol, tie=0).passed is again
        assert passed is False or close("scaled", reference, candidate, cosine=0.99, agreement=0.0).passed


@settings(max_examples=300, deadline=None)
@given(
    SHAPES, st.integers(0, 2**32 - 1), SCALES, st.floats(-1e3, 1e3), st.floats(-10, 9).map(lambda power: 10.0**power)
)
def test_what_answers_nothing_never_passes(
    shape: tuple[int, int], seed: int, scale: float, offset: float, atol: float
) -> None:
    """Zeros, constants, the mean of the images or of the classes, and other images' logits; at any tolerance."""
    draw = np.random.default_rng(seed)
    logits = ((draw.standard_normal(shape) + offset) * scale).astype(np.float32)
    reference, images, classes = {"logits": logits}, logits.mean(axis=0), logits.mean(axis=1)
    for name, candidate in {
        "zero": np.zeros_like(logits),
        "constant": np.full_like(logits, logits.mean()),
        "reads no image": np.broadcast_to(images, shape),
        "knows no class": np.broadcast_to(classes[:, None], shape),
        "other images": np.roll(logits, 1, axis=0),
        "other classes": np.roll(logits, 1, axis=1),
    }.items():
        given_out = {"logits": np.ascontiguousarray(candidate)}
        assert not compare(name, reference, given_out, atol=atol, tie=1).passed, name
        assert not exact(name, logits, given_out["logits"]).passed
        if name not in ("other images", "other classes"):
            assert not close(name, reference, given_out, cosine=0.0, agreement=0.0).passed, name


def test_all_zero_logits_do_not_pass_for_a_small_head() -> None:
    logits = outputs()["logits"] * np.float32(3e-5)
    reference = {"logits": logits}
    zero = compare("zero", reference, {"logits": np.zeros_like(logits)}, atol=1e-4, tie=0)
    assert (zero.passed, zero.smallest_atol) == (False, None)
    assert zero.reason.endswith("a constant could be as near, so no tolerance passes it")
    little = compare("little", reference, {"logits": logits * np.float32(1.01)}, atol=1e-4, tie=0)
    assert not little.passed
    assert "which is 0.0001 for logits that spread as these do" in little.reason
    assert little.describe_error().endswith(f" x {little.unit:.2g}")
    assert compare("same", reference, {"logits": logits * np.float32(1 + 1e-6)}, atol=1e-4, tie=0).passed


@pytest.mark.parametrize(
    ("logits", "words"),
    [
        (np.zeros((4, 5)), "gives all classes the same logit"),
        (np.full((4, 5), 7.0), "gives all classes the same logit"),
        (np.arange(4.0)[:, None] + np.zeros(5), "gives all classes the same logit"),
        (np.tile(np.arange(5.0), (4, 1)), "gives every image the same logits"),
        (1e6 + 1e-3 * np.arange(20.0).reshape(4, 5), "gives all classes the same logit"),
        (np.ones((4, 1)), "gives every image the same logits"),
        (np.ones((1, 1)), "one image and one class are one number"),
        (np.ones((4, 0)), "must be [images, classes]"),
        (np.full((4, 5), np.inf), "hold NaN or Inf"),
    ],
)
def test_a_reference_that_proves_nothing_is_refused(logits: np.ndarray, words: str) -> None:
    same = {"logits": logits.astype(np.float32)}
    for rung in (
        compare("c", same, same, atol=1e9, tie=1),
        close("c", same, same, cosine=0.0, agreement=0.0),
        exact("c", same["logits"], same["logits"]),
    ):
        assert (rung.passed, rung.smallest_atol) == (False, None)
        assert rung.reason.startswith("unproven: ")
        assert words in rung.reason


def test_one_class_and_one_image_are_held_by_what_there_is() -> None:
    one_class = {"logits": np.array([[0.3], [-1.2], [0.8]], np.float32)}
    assert compare("class", one_class, one_class, atol=1e-4, tie=0).passed
    assert not compare("class", one_class, {"logits": np.zeros((3, 1), np.float32)}, atol=1e9, tie=0).passed
    one_image = {"logits": one_class["logits"].T.copy()}
    assert compare("image", one_image, one_image, atol=1e-4, tie=0).passed
    assert not compare("image", one_image, {"logits": np.zeros((1, 3), np.float32)}, atol=1e9, tie=0).passed


def test_a_tie_at_the_top_is_no_answer() -> None:
    reference = {"logits": np.array([[3.0, 1, 0], [2, 2, 0], [0, 1, 5]], np.float32)}
    candidate = {"logits": np.array([[3.0, 3, 0], [2, 1.999, 0], [0, 1, 5]], np.float32)}
    assert compare("ties", reference, candidate, atol=1e-4, tie=0).top1 == pytest.approx(2 / 3)


def features_of(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"features" if name == "logits" else name: values for name, values in found.items()}


def test_features_are_held_as_logits_are_and_say_what_they_are() -> None:
    reference, candidate = features_of(outputs()), features_of(outputs())
    assert compare("same", reference, reference, atol=1e-6, tie=0).output == "features"
    candidate["features"] = candidate["features"] + np.float32(1e-3)
    rung = compare("off", reference, candidate, atol=1e-4, tie=0)
    assert (rung.passed, rung.first_offender) == (False, "features")
    missing = compare("none", reference, outputs(), atol=1e-4, tie=0)
    assert missing.reason == "the candidate has no output features"
    assert not exact("bits", reference["features"], candidate["features"], FEATURES).passed


def test_features_in_another_precision_must_keep_their_neighbours() -> None:
    draw = np.random.default_rng(0)
    reference = {"features": draw.standard_normal((40, 8)).astype(np.float32)}
    near = {"features": reference["features"] + 1e-3 * draw.standard_normal((40, 8)).astype(np.float32)}
    far = {"features": reference["features"] + 0.5 * draw.standard_normal((40, 8)).astype(np.float32)}
    assert close("near", reference, near, cosine=0.999, agreement=0.98).passed
    rung = close("far", reference, far, cosine=0.5, agreement=0.98)
    assert rung.reason.startswith("the nearest image agrees on")
    assert rung.top1 < 0.9
