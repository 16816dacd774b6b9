"""A judge is lost when its process has ended, or has given no sign from elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from vitrim.calibration.tokens.owner import LEASE, UNSIGNED, Owner, is_lost


def test_this_process_is_not_lost_and_one_of_its_number_before_it_is() -> None:
    mine = Owner.here()
    assert mine.pid == os.getpid()
    assert not is_lost({**mine.mark(), "seen": 0.0}, 0.0)  # a living process may take its time
    assert is_lost({**mine.mark(), "started": "1"}, None)


def test_a_killed_process_is_lost_at_once() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = {**Owner.here().mark(), "pid": process.pid, "started": started(process.pid)}
    assert not is_lost(mark, None)
    process.kill()
    deadline = time.time() + 10
    while not is_lost(mark, None):  # a zombie until it is waited for, and lost all the same
        assert time.time() < deadline
    process.communicate()
    assert is_lost(mark, None)


def started(pid: int) -> str:
    from vitrim.calibration.tokens.owner import _started

    found = _started(pid)
    assert found is not None
    return found


def test_elsewhere_the_last_sign_counts() -> None:
    mark = {"host": "another", "pid": os.getpid(), "started": "1", "seen": time.time()}
    assert not is_lost(mark, 0.0)
    assert is_lost({**mark, "seen": time.time() - LEASE - 1}, time.time())


def test_a_trial_that_nobody_signed_is_lost_after_a_while() -> None:
    assert not is_lost(None, time.time())
    assert is_lost(None, time.time() - UNSIGNED - 1)
    assert is_lost(None, None)
