"""The judge of a precision: whose answers count, as a share of what float32 has of them."""

from __future__ import annotations

import numpy as np
import pytest

from vitrim.exporter.core.answers import FEATURES, expected_agreement
from vitrim.exporter.graph.precision.judge import Judge

RNG = np.random.default_rng(0)
DENSE = RNG.normal(size=(400, 10))
FLOAT32 = DENSE + RNG.normal(size=DENSE.shape, scale=0.2)
NARROW = FLOAT32 + RNG.normal(size=DENSE.shape, scale=0.3)


def test_without_a_dense_model_the_float32_answers_count() -> None:
    judge = Judge(FLOAT32, 0.7)
    assert judge.kept(NARROW) == expected_agreement(FLOAT32, NARROW) < 1
    assert judge.kept(FLOAT32) == 1
    assert judge.holds(NARROW)
    assert not Judge(FLOAT32, 0.99).holds(NARROW)


def test_with_one_it_is_the_share_of_its_answers_over_that_in_float32() -> None:
    judge = Judge(FLOAT32, 0.9, DENSE)
    shared, left = (expected_agreement(DENSE, outputs) for outputs in (FLOAT32, NARROW))
    assert left < shared < 0.9
    assert judge.kept(NARROW) == pytest.approx(left / shared)
    assert judge.kept(FLOAT32) == 1


def test_noise_costs_fewer_of_the_dense_models_answers_than_of_the_graphs_own() -> None:
    assert Judge(FLOAT32, 0, DENSE).kept(NARROW) > Judge(FLOAT32, 0).kept(NARROW) + 0.02


def test_nearer_to_the_dense_model_than_float32_is_no_more_than_all() -> None:
    assert Judge(FLOAT32, 1, DENSE).kept(DENSE) == 1
    assert Judge(FLOAT32, 1, DENSE).holds((DENSE + FLOAT32) / 2)


def test_of_features_neighbours_count() -> None:
    judge = Judge(FLOAT32, 0.9, DENSE, FEATURES)
    assert judge.kept(FLOAT32) == 1
    assert judge.kept(NARROW) == pytest.approx(FEATURES.expected(DENSE, NARROW) / FEATURES.expected(DENSE, FLOAT32))


def test_where_float32_shares_no_answer_none_can_be_lost() -> None:
    dense, turned = np.eye(2)[[0, 1]], np.eye(2)[[1, 0]] * 9
    judge = Judge(turned, 0.98, dense)
    assert expected_agreement(dense, turned) == 0
    assert judge.kept(turned) == 1
