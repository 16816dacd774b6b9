"""Memory goes back to the system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vitrim.exporter.core.memory import give_back_memory, machine_memory


def test_the_machine_says_how_much_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine_memory()
    assert found is None or 1 << 28 < found < 1 << 50
    monkeypatch.delattr(os, "sysconf")
    assert machine_memory() is None


def resident() -> int:
    """Megabytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 >> 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_was_freed_is_given_back() -> None:
    """Many small arrays, of which every second one goes: their pages are free and still held."""
    kept = [np.ones(1 << 13) for _ in range(4096)]  # 64 kB each, below the limit from which pages are mapped alone
    more = [np.ones(1 << 13) for _ in range(4096)]
    loop: list[object] = [more]
    loop.append(loop)  # a cycle, as exporters leave them
    last = np.ones(1 << 13)  # above them all: the heap cannot shrink by itself
    before = resident()
    del more, loop
    give_back_memory()
    assert before - resident() > 150
    assert len(kept) == 4096
    assert last[0] == 1


NEW_ALONE = """
import gc, weakref
from vitrim.exporter.core.memory import only_new_garbage

class Loop:
    def __init__(self):
        self.me = self

old = weakref.ref(Loop())
gc.disable()
with only_new_garbage():
    with only_new_garbage():  # one in another
        new = weakref.ref(Loop())
    gc.collect()
    print(old() is None, new() is None)
gc.collect()
print(old() is None, gc.get_freeze_count() < 1000)
"""

FROZEN = """
import gc
from vitrim.exporter.core.memory import only_new_garbage
import numpy

gc.freeze()
count = gc.get_freeze_count()
with only_new_garbage():
    pass
print(gc.get_freeze_count() == count > 1000)
"""


@pytest.mark.parametrize(("code", "told"), [(NEW_ALONE, "False True True True"), (FROZEN, "True")])
def test_garbage_is_looked_for_among_what_is_new_alone(code: str, told: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert " ".join(done.stdout.split()) == told
