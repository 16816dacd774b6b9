"""vitrim's command line without the seconds that importing torch takes: every call is a fork of one warm process."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import io
import json
import os
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

COLLECTING = (100_000, 20, 50)  # thresholds: a graph is many small objects, to look through all often costs a tenth


def one_table() -> None:
    """Let PyTorch's exporter make its table from operators to ONNX, and its list of composite ones, once in a process.

    It makes both for every graph. Here no test registers an operator.
    """
    from torch.export import decomp_utils, exported_program
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))  # type: ignore[assignment,method-assign]
    composite = functools.cache(exported_program._collect_all_valid_cia_ops)
    exported_program._collect_all_valid_cia_ops = decomp_utils._collect_all_valid_cia_ops = composite


def get_ready() -> None:
    """Do what every command does first, before the process is copied."""
    gc.set_threshold(*COLLECTING)
    import torch

    from vitrim.exporter.core.sources import digest
    from vitrim.exporter.runtime.commands import bench, check  # noqa: F401
    from vitrim.recipes.pipeline import in_memory, inspect, new, run, slim  # noqa: F401

    for stage in run.STAGES:  # reads all sources
        digest(stage.__module__.partition(".")[2])
    one_table()
    with contextlib.redirect_stdout(io.StringIO()):  # the exporter imports more when it first runs
        torch.onnx.export(torch.nn.ReLU().eval(), (torch.zeros(1),), dynamo=True, opset_version=20, verbose=False)


def _serve() -> None:
    """Answer calls: the number of a new process, or the status in which one ended."""
    sys.path.pop(0)  # the tests' folder
    get_ready()
    for line in sys.stdin:
        call = json.loads(line)
        if "wait" in call:
            print(os.waitstatus_to_exitcode(os.waitpid(call["wait"], 0)[1]), flush=True)
            continue
        child = os.fork()
        if not child:
            _become(call)
        print(child, flush=True)


def _become(call: dict[str, Any]) -> NoReturn:
    """Be the command in place of the server, and end."""
    from vitrim.cli import main

    status = 1
    try:
        os.chdir(call["cwd"])
        os.environ.clear()
        os.environ.update(call["environment"])
        for number, name in ((0, os.devnull), (1, call["out"]), (2, call["err"])):
            os.dup2(os.open(name, os.O_RDWR), number)
        sys.argv = ["vitrim" if call["code"] is None else "-c", *call["words"]]
        if call["code"] is None:
            main()
        else:
            exec(call["code"], {"__name__": "__main__"})
            status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@functools.cache
def _server() -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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


def start(*words: str, cwd: Path | None = None, code: str | None = None) -> Running:
    """Begin `vitrim WORDS` in a process of its own.

    Args:
        words: of the command line.
        cwd: its working folder.
        code: of Python, to run in place of vitrim's command line.
    """
    out, err = (tempfile.NamedTemporaryFile("r") for _ in range(2))  # noqa: SIM115  closed by `wait`
    place, environment = str(cwd or Path.cwd()), dict(os.environ)
    process = _ask(words=words, cwd=place, environment=environment, out=out.name, err=err.name, code=code)
    return Running(words, process, out, err)


def vitrim(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `vitrim WORDS` in a process of its own, see `start`."""
    return start(*words, cwd=cwd).wait()


if __name__ == "__main__":
    _serve()
