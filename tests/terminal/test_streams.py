"""Standard streams that are closed, full, or read no further: the status stays, and nothing is a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

VITRIM = f"{sys.executable} -m vitrim.cli"


def run(line: str) -> tuple[int, str]:
    """Status and standard error of a line for bash, whose pipes keep the status of their first part."""
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "{} targets | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}",
        "{} targets --json | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}",
        "{} targets | true; exit ${{PIPESTATUS[0]}}",
        "{} --help | true; exit ${{PIPESTATUS[0]}}",
        "(trap '' PIPE; {} targets) | true; exit ${{PIPESTATUS[0]}}",
        "{} targets >&-",
        "{} targets --json >&-",
        "{} --help >&-",
        "{} targets 2>&- | cat >/dev/null; exit ${{PIPESTATUS[0]}}",
        "{} targets >&- 2>&- <&-",
        "PYTHONIOENCODING=ascii {} recipes",
    ],
)
def test_a_stream_without_a_reader_is_no_failure(line: str) -> None:
    assert run(line.format(VITRIM)) == (0, "")


@pytest.mark.slow
def test_a_failure_stays_one_without_a_reader() -> None:
    assert run(f"{VITRIM} check none >&- 2>&-") == (3, "")
    assert run(f"{VITRIM} check none --json | true; exit ${{PIPESTATUS[0]}}")[0] == 3


@pytest.mark.slow
def test_a_file_never_gets_the_number_of_a_closed_stream() -> None:
    code = (
        "from vitrim.terminal.streams import open_streams; import os, tempfile; open_streams();"
        "file = tempfile.TemporaryFile(); print('to nowhere', flush=True); os.write(1, b'to nowhere');"
        "assert file.fileno() > 2; assert not file.read()"
    )
    assert run(f'{sys.executable} -c "{code}" >&-') == (0, "")
