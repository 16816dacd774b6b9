"""A step that fails, crashes, hangs or says nonsense is one line, and leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from gpu_day import child
from gpu_day.child import StepError, run_child, write_result

from vitrim.exporter.core.errors import InputError, UnsupportedError


def run(code: str, tmp_path: Path, limit: float = 30, check: Any = lambda found: None, **more: Any) -> dict[str, Any]:
    return run_child([sys.executable, "-c", f"import os, sys\n{code}"], limit, tmp_path / "step.log", check, **more)


def test_a_result_comes_back(tmp_path: Path) -> None:
    code = "print('noise'); open(sys.argv[-1], 'w').write('{\"a\": [1, 2]}')"
    assert run(code, tmp_path) == {"a": [1, 2]}
    assert (tmp_path / "step.log").read_text() == "noise\n"
    code = "open(sys.argv[-1], 'w').write('{\"a\": \"' + os.environ['VITRIM_X'] + '\"}')"
    assert run(code, tmp_path, environment={"VITRIM_X": "b"}) == {"a": "b"}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise MemoryError('no room')", "it ended with 1: MemoryError: no room; see step.log"),
        ("os.abort()", "it was ended by SIGABRT: .*; see step.log"),
        ("os.kill(os.getpid(), 11)", "it was ended by SIGSEGV: it said nothing; see step.log"),
        ("sys.exit(0)", "its result cannot be read .*No such file"),
        ("open(sys.argv[-1], 'w').write('{')", "its result cannot be read"),
        ("open(sys.argv[-1], 'wb').write(bytes([255, 254]))", "its result cannot be read"),
        ("open(sys.argv[-1], 'w').write('[1]')", "its result is no object"),
        ("open(sys.argv[-1], 'w').write('9' * 5_000_000)", "its result is larger than 4194304 bytes"),
        ("open(sys.argv[-1], 'w').write('{\"failed\": \"no GPU\\\\nhere\"}')", "^no GPU here$"),
    ],
)
def test_what_goes_wrong_is_one_line(code: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=said) as refused:
        run(code, tmp_path)
    assert "\n" not in str(refused.value)


def test_a_result_that_is_none_is_refused(tmp_path: Path) -> None:
    def check(found: dict[str, Any]) -> None:
        raise InputError("it names no file")

    with pytest.raises(StepError, match="its result is none: it names no file"):
        run("open(sys.argv[-1], 'w').write('{}')", tmp_path, check=check)


def test_a_step_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    code = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(inner.pid, flush=True)
time.sleep(600)
"""
    began = time.monotonic()
    with pytest.raises(StepError, match="it took more than 2 s; see step.log"):
        run(code, tmp_path, limit=2)
    assert time.monotonic() - began < 20
    assert_ends(int((tmp_path / "step.log").read_text()))


def test_a_step_can_be_stopped(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StepError, match="^stopped$"):
        run("import time; time.sleep(600)", tmp_path, stop=stop)


def assert_ends(pid: int) -> None:
    """A process is gone, or dead and waiting for its parent to look."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return
        if state == "Z":
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail(f"process {pid} outlived its step")


def test_the_child_tells_what_a_person_can_act_on_and_no_more(tmp_path: Path) -> None:
    def refuse() -> dict[str, Any]:
        raise UnsupportedError("TensorRT 10.3 refuses it")

    def fail() -> dict[str, Any]:
        raise KeyError("a fault of ours")

    write_result(tmp_path / "a.json", lambda: {"a": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None}
    write_result(tmp_path / "b.json", refuse)
    with pytest.raises(StepError, match="^TensorRT 10.3 refuses it$"):
        child._read(tmp_path / "b.json", lambda found: None)
    with pytest.raises(KeyError):
        write_result(tmp_path / "c.json", fail)
    assert not (tmp_path / "c.json").exists()
