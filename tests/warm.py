"""vitrim's command line without the seconds that importing torch takes: every call is a fork of one warm process."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SERVER = """
import json, os, sys, traceback
from vitrim.cli import main
from vitrim.recipes.pipeline import in_memory, inspect, new, run, slim  # what is heavy, before the process is copied
from vitrim.exporter.runtime.commands import bench, check

for line in sys.stdin:
    call = json.loads(line)
    child = os.fork()
    if not child:
        status = 1
        try:
            os.chdir(call["cwd"])
            os.environ.clear()
            os.environ.update(call["environment"])
            for number, name in ((0, os.devnull), (1, call["out"]), (2, call["err"])):
                os.dup2(os.open(name, os.O_RDWR), number)
            sys.argv = ["vitrim", *call["words"]]
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@functools.cache
def _server() -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.kill)
    return process


def vitrim(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `vitrim WORDS` in a process of its own.

    Args:
        words: of the command line.
        cwd: its working folder.
    """
    server = _server()
    assert server.stdin
    assert server.stdout
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        call = {
            "words": words,
            "cwd": str(cwd or Path.cwd()),
            "environment": dict(os.environ),
            "out": out.name,
            "err": err.name,
        }
        server.stdin.write(json.dumps(call) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(words, status, out.read(), err.read())
