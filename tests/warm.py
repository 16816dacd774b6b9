"""vitrim's command line without the seconds that importing torch takes: every call is a fork of one warm process."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import io
import json
import os
import socket
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
    from vitrim.recipes import new  # noqa: F401
    from vitrim.recipes.inspection import inspect  # noqa: F401
    from vitrim.recipes.pipeline import in_memory, run  # noqa: F401
    from vitrim.recipes.stages import slim  # noqa: F401

    for stage in run.STAGES:  # reads all sources
        digest(stage.__module__.partition(".")[2])
    one_table()
    with contextlib.redirect_stdout(io.StringIO()):  # the exporter imports more when it first runs
        torch.onnx.export(torch.nn.ReLU().eval(), (torch.zeros(1),), dynamo=True, opset_version=20, verbose=False)


def _serve(address: str | None) -> None:
    """Answer whoever began this process; with an address of a socket all who connect, each by a fork of its own."""
    sys.path.pop(0)  # the tests' folder
    get_ready()
    if address is None:
        _answer(sys.stdin, sys.stdout)
        return
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{address}.new")
        listening.listen()
        os.rename(f"{address}.new", address)  # who sees it can connect
        while True:
            connection, _ = listening.accept()
            with connection:
                if os.fork():
                    continue
                listening.close()
                with connection.makefile("r") as calls, connection.makefile("w") as answers:
                    _answer(calls, answers)
                os._exit(0)


def _answer(calls: IO[str], answers: IO[str]) -> None:
    """Answer calls: the number of a new process, or the status in which one ended."""
    for line in calls:
        call = json.loads(line)
        if "wait" in call:
            print(os.waitstatus_to_exitcode(os.waitpid(call["wait"], 0)[1]), file=answers, flush=True)
            continue
        child = os.fork()
        if not child:
            _become(call)
        print(child, file=answers, flush=True)


def _become(call: dict[str, Any]) -> NoReturn:
    """Be the command in place of the server, and end."""
    from vitrim.cli import main

    status = 1
    try:
        os.chdir(call["cwd"])
        if call["cores"]:
            os.sched_setaffinity(0, call["cores"])
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
def _server() -> tuple[IO[str], IO[str]]:
    """Where calls go and answers come from: a server of this process's own, or the one that `$VITRIM_WARM` names."""
    address = os.environ.get("VITRIM_WARM")
    if address is not None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        return connection.makefile("w"), connection.makefile("r")
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.kill)
    assert process.stdin
    assert process.stdout
    return process.stdin, process.stdout


def _ask(**call: object) -> int:
    calls, answers = _server()
    calls.write(json.dumps(call) + "\n")
    calls.flush()
    return int(answers.readline())


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
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    process = _ask(words=words, cwd=place, environment=environment, out=out.name, err=err.name, code=code, cores=cores)
    return Running(words, process, out, err)


def vitrim(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `vitrim WORDS` in a process of its own, see `start`."""
    return start(*words, cwd=cwd).wait()


if __name__ == "__main__":
    _serve(next(iter(sys.argv[1:]), None))
