"""Rows by positions, and positions by ids."""

from __future__ import annotations

import torch

from vitrim.exporter.pruning.rows import position_in, rows_of

X = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [4.0, 3.0], [8.0, 6.0]]])


def test_rows_and_positions_are_each_other_s_inverse() -> None:
    ids = torch.tensor([[5, 7, 9, 11]])
    assert position_in(ids, torch.tensor([[9, 5, 6]])).tolist() == [[2, 0, 0]]  # 6 is not there
    assert rows_of(X, torch.tensor([[3, 0]])).tolist() == [[[8.0, 6.0], [1.0, 0.0]]]
