"""Cores that a process may use, by its affinity and its container, and the threads that follow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vitrim.exporter.core import cores


def limited(folder: Path, name: str, text: str) -> Path:
    path = folder / "sys/fs/cgroup" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("cpu.max", "150000 100000", 2),
        ("cpu.max", "50000 100000", 1),
        ("cpu.max", "max 100000", 8),
        ("cpu/cpu.cfs_quota_us", "300000", 3),
        ("cpu/cpu.cfs_quota_us", "-1", 8),
        ("none", "", 8),
    ],
)
def test_a_container_s_share_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    root = limited(tmp_path, name, text)
    assert cores.usable_cores(root) == expected
    assert cores.session_threads(None, root) == (expected if expected < 8 else 0)


def test_what_was_asked_for_is_what_there_is(tmp_path: Path) -> None:
    assert cores.session_threads(3, limited(tmp_path, "cpu.max", "100000 100000")) == 3


def test_an_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert cores.session_threads(None, tmp_path) == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert cores.session_threads(None, tmp_path) == 0


@pytest.mark.parametrize(("text", "expected"), [("3", 3), ("0", 0), ("2,4", 0), ("", 0), ("-1", 0)])
def test_sessions_hold_to_the_variable_that_numpy_and_torch_hold_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert cores.session_threads(None, tmp_path) == expected
    assert cores.session_threads(5, tmp_path) == 5
