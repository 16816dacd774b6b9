"""What an error is held against: the spread of logits over classes and over images."""

from __future__ import annotations

import numpy as np
import pytest

from vitrim.exporter.runtime.spread import root_mean_square, spread_of

LOGITS = np.array([[1.0, -1.0], [3.0, 1.0]], np.float32)  # each image deviates by 1, and so does each class


def test_both_spreads_are_root_mean_squares() -> None:
    found = spread_of(LOGITS)
    assert (found.classes, found.images, found.magnitude, found.least) == (1.0, 1.0, 3.0, 1.0)
    assert (spread_of(LOGITS[:1]).images, spread_of(LOGITS[:, :1]).classes) == (None, None)
    assert root_mean_square(np.array([3.0, 4.0])) == pytest.approx(np.sqrt(12.5))


@pytest.mark.parametrize(
    ("scale", "unit"), [(1e-9, 1e-8), (0.05, 0.5), (0.1, 1.0), (1.0, 1.0), (10.0, 1.0), (20.0, 2.0), (1e4, 1e3)]
)
def test_a_tolerance_is_absolute_for_ordinary_logits_and_a_share_of_others(scale: float, unit: float) -> None:
    assert spread_of(LOGITS.astype(np.float64) * scale).unit == pytest.approx(unit)
    one_class = spread_of((LOGITS.astype(np.float64) * scale)[:, :1])
    assert one_class.unit == pytest.approx(unit)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_what_differs_by_rounding_alone_proves_nothing(kind: type) -> None:
    eps = max(np.finfo(kind).eps, np.finfo(np.float32).eps)
    close = (1 + eps * LOGITS.astype(np.float64)).astype(kind)
    assert "the same logit" in str(spread_of(close).unproven)
    assert spread_of(LOGITS.astype(kind)).unproven is None
