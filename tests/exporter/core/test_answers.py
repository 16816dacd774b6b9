"""Fidelity: what is counted on images, and what is expected of images like them."""

from __future__ import annotations

import numpy as np
import pytest

from vitrim.exporter.core.answers import expected_agreement, fidelity


def test_expected_agreement_tries_every_change_on_every_gap() -> None:
    draw = np.random.default_rng(0)
    reference = draw.standard_normal((40, 6)).astype(np.float32)
    logits = reference + 0.3 * draw.standard_normal((40, 6)).astype(np.float32)
    turned = 0
    for one in reference:
        gap = np.sort(one)[-1] - np.sort(one)[-2]
        for other, theirs in zip(reference, logits, strict=True):
            first, second = np.argsort(-other)[:2]
            change = (theirs[first] - theirs[second]) - (other[first] - other[second])
            turned += gap + change < 0
    assert expected_agreement(reference, logits) == pytest.approx(1 - turned / 1600, abs=1e-9)


def test_it_is_1_where_nothing_changes_and_close_to_what_many_images_count() -> None:
    draw = np.random.default_rng(1)
    reference = draw.standard_normal((4000, 2))
    assert expected_agreement(reference, reference) == 1
    logits = reference + 0.2 * draw.standard_normal((4000, 2))
    counted = fidelity(reference, logits, None)["agreement"]
    assert 0.85 < counted < 0.97
    few = [expected_agreement(reference[i : i + 100], logits[i : i + 100]) for i in range(0, 4000, 100)]
    counts = [fidelity(reference[i : i + 100], logits[i : i + 100], None)["agreement"] for i in range(0, 4000, 100)]
    assert np.mean(few) == pytest.approx(counted, abs=0.01)
    assert np.std(few) < 0.8 * np.std(counts)  # steadier on a hundred images
