"""Work in a process of its own: its result comes back, and whatever becomes of it is an error of this one."""

from __future__ import annotations

import os
import signal
import time

import pytest

from vitrim.exporter.graph.apart import ApartError, run_apart


def test_what_it_gives_comes_back_and_nothing_here_is_changed() -> None:
    held = [1]

    def work() -> bytes:
        held.append(2)
        return b"x" * 3_000_000 + str(os.getpid()).encode()

    found = run_apart(work)
    assert found[:3_000_000] == b"x" * 3_000_000
    assert int(found[3_000_000:]) != os.getpid()
    assert held == [1]
    assert run_apart(lambda: b"") == b""


def test_what_it_raises_is_raised_here() -> None:
    with pytest.raises(RuntimeError, match="^no such shape$"):
        run_apart(lambda: _raise("no such shape"))


def _raise(text: str) -> bytes:
    raise ValueError(text)


def test_a_process_that_dies_hangs_or_wants_all_memory_is_told_of(capfd: pytest.CaptureFixture[str]) -> None:
    def die() -> bytes:
        os.write(2, b"Assertion failed")
        os.kill(os.getpid(), signal.SIGABRT)
        return b""

    with pytest.raises(ApartError, match=rf"ends on this graph \(signal {signal.SIGABRT:d}\)"):
        run_apart(die)
    assert capfd.readouterr().err == ""

    def hang() -> bytes:
        time.sleep(60)
        return b""

    began = time.monotonic()
    with pytest.raises(ApartError, match=r"within 0\.2 s"):
        run_apart(hang, seconds=0.2)
    assert time.monotonic() - began < 10
    if os.path.exists("/proc/self/statm"):
        with pytest.raises(ApartError, match="it wants all memory"):
            run_apart(lambda: bytes(1 << 30), memory=1 << 28)
