"""vitrim's command line without the seconds that importing torch takes: every call is a fork of one warm process."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SERVER = """
import json, os, sys, traceback
from vitrim.cli import main
from vitrim.recipes.pipeline import in_memory, inspect, new, run, slim  # what is heavy, before the process is copied
from vitrim.exporter.runtime.commands import bench, check
import torch

with open(os.devnull, "w") as nowhere:  # the exporter imports more when it first runs
    sys.stdout, printed = nowhere, sys.stdout
    torch.onnx.export(torch.nn.ReLU(), (torch.zeros(1),), dynamo=True, opset_version=20, verbose=False)
    sys.stdout = printed

for line in sys.stdin:
    call = json.loads(line)
    if "wait" in call:
        _, status = os.waitpid(call["wait"], 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        continue
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
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
"""


@functools.cache
def _server() -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.kill)
    return process


def _ask(**call: object) -> int:
    server = _server()
    assert server.stdin
    assert server.stdout
    server.stdin.write(json.dumps(call) + "\n")
    server.stdin.flush()
    return int(server.stdout.readline())


@dataclass(frozen=True)
class Running:
    """A command at work: its process, and where its output goes."""

    words: tuple[str, ...]
    process: int
    out: IO[str]
    err: IO[str]

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Wait until it has ended, and read what it printed."""
        status = _ask(wait=self.process)
        with self.out, self.err:
            return subprocess.CompletedProcess(self.words, status, self.out.read(), self.err.read())


def start(*words: str, cwd: Path | None = None) -> Running:
    """Begin `vitrim WORDS` in a process of its own.

    Args:
        words: of the command line.
        cwd: its working folder.
    """
    out, err = (tempfile.NamedTemporaryFile("r") for _ in range(2))  # noqa: SIM115  closed by `wait`
    place, environment = str(cwd or Path.cwd()), dict(os.environ)
    process = _ask(words=words, cwd=place, environment=environment, out=out.name, err=err.name)
    return Running(words, process, out, err)


def vitrim(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `vitrim WORDS` in a process of its own, see `start`."""
    return start(*words, cwd=cwd).wait()
