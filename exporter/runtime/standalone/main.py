"""What run_on_device.py does when it is called: `info`, `check`, `build`, `bench`, `table`, without vitrim.

Torch-free. It runs on Python 3.8 with numpy and tensorrt, onnxruntime or openvino, and so does everything that it
imports; `standalone` makes it one file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...core import layout
from ...core.errors import NotFasterError, ParityError, VitrimError, visible
from ...core.files import atomic_write, explain_stray_error
from ...core.latency import PROCESSES, ROUNDS, LatencyTable
from ...core.records import Record, finite
from ..bench.report import Bench, TimedBundle
from ..bench.timing import Timing
from ..bundles.manifest import open_size, read_manifest
from ..bundles.place import refuse_inside
from ..bundles.verify import verify_bundle
from ..commands.bench import bench_bundle
from ..commands.build import build_bundle
from ..commands.check import check_bundle
from ..commands.table import make_table
from ..lines import bench_lines, parity_lines, table_lines
from ..machine import gpu
from ..machine.environment import environment
from ..outputs import check_output, output_of
from ..parity import Parity
from ..tensorrt.options import CAPABILITIES, EngineOptions
from ..tensorrt.plain_build import by_tensorrt
from ..tensorrt.rtx_build import builder_for


@dataclass(frozen=True)
class Info(Record):
    """What machine this is, and what of the bundle can be built here.

    Attributes:
        environment: see `machine.environment`.
        gpu: see `machine.gpu.describe`.
        engines: `can be built here`, or why not.
        bundle: which graphs these are.
        engine: `built`, `not built`, or why there is none.
    """

    environment: dict[str, Any]
    gpu: dict[str, str | None]
    engines: str
    bundle: TimedBundle
    engine: str

    def lines(self) -> list[str]:
        """For a person, a line per fact."""
        flat = {**self.environment, **self.gpu, "target": self.bundle.target}
        flat.update(engines=self.engines, engine=self.engine)
        return [f"{key}: {value}" for key, value in flat.items() if value not in (None, [])]


_RESULTS: dict[str, tuple[type[Record], str]] = {
    "info": (Info, "machine report"),
    "check": (Parity, "parity report"),
    "build": (Parity, "parity report"),
    "bench": (Bench, "benchmark"),
    "table": (LatencyTable, "latency table"),
}


def main(arguments: Sequence[str], here: Path) -> int:
    """Run a command line.

    Args:
        arguments: without the program's name.
        here: the bundle when none is named.

    Returns:
        the exit status: 0 done, 1 parity failed, 2 not faster than dense, 3 bad input or something missing here,
        130 interrupted.
    """
    options = _parser(here).parse_args(arguments)
    options.bundle = Path(os.path.abspath(options.bundle))  # now: `build` may take the working directory away
    options.out = None if options.out is None else Path(os.path.abspath(options.out))
    commands = {"info": _info, "check": _check, "build": _build, "bench": _bench, "table": _table}
    try:
        _check_out(options)
        result = commands[options.command](options)
        _check_out(options)  # the command has taken its time
        _write(result, options)
        _judge(result, options)
        if options.command == "build" and _stands_in(options.bundle):
            print('this folder was replaced by the one with the engine: cd "$PWD"', file=sys.stderr)
    except VitrimError as error:
        line = str(error).replace("vitrim build BUNDLE", "python3 run_on_device.py build")
        print(f"run_on_device.py: {visible(line)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("run_on_device.py: interrupted; nothing was published", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"run_on_device.py: {visible(str(explain_stray_error(error)))}", file=sys.stderr)
        return VitrimError.exit_code
    return 0


def _stands_in(folder: Path) -> bool:
    """Whether the working directory is, or was, the bundle: a shell in it would go on in the old one, now gone."""
    here = Path(os.environ.get("PWD") or folder.parent).resolve()
    return folder.resolve() in (here, *here.parents)


def _parser(here: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_on_device.py",
        description="Build, check and time this bundle with what this machine runs it by, without vitrim.",
    )
    commands = parser.add_subparsers(dest="command", metavar="info|check|build|bench|table")
    commands.required = True
    for name, text in (
        ("info", "what machine this is"),
        ("check", "verify every file, and hold the engine, or the graph, against PyTorch's golden outputs"),
        ("build", "build model.engine here with TensorRT, prove it, and put it into the bundle"),
        ("bench", "time dense, pruned and floor, interleaved"),
        ("table", "of a folder of `vitrim profile --pack`: time its graphs, and make the latency table for an export"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("bundle", nargs="?", type=Path, default=here, help="by default the folder of this file")
        command.add_argument("-o", "--out", type=Path, help="write the result as JSON to this file, outside the bundle")
        command.add_argument("--force", action="store_true", help="replace whatever plain file is there")
        command.add_argument("--json", action="store_true", help="print the result as JSON")
        command.add_argument("--size", help="of images, such as 192x256, in a bundle of several; its own by default")
        if name in ("check", "bench"):
            for other, title in (("onnxruntime", "onnxruntime"), ("openvino", "OpenVINO")):
                words = f"by {title} on the CPU, where installed, whatever the bundle is for"
                command.add_argument(f"--{other}", dest="runtime", action="store_const", const=other, help=words)
            command.add_argument("--threads", type=int, help="of the CPU; all cores by default")
        if name == "table":
            command.add_argument(
                "--threads", type=int, help="of the CPU; by default what the folder says, or all cores"
            )
            command.add_argument(
                "--processes", type=int, default=PROCESSES, help="everything is loaded anew in so many"
            )
            command.add_argument("--rounds", type=int, default=ROUNDS, help="of each process")
        if name == "check":
            command.add_argument(
                "--atol", type=float, help="largest error of a logit; the bundle's own limits by default"
            )
        if name == "build":
            command.add_argument(
                "--workspace",
                dest="workspace_mib",
                type=int,
                default=EngineOptions.workspace_mib,
                help="scratch memory of the builder, MiB",
            )
            command.add_argument(
                "--any-precision", dest="strict", action="store_false", help="keep an engine in another precision"
            )
            command.add_argument("--dla-core", type=int, help="run on this DLA core what can run there")
            command.add_argument(
                "--capability",
                dest="capabilities",
                action="append",
                choices=CAPABILITIES,
                default=[],
                help="of GPUs that an engine of TensorRT for RTX is for, may be repeated; 8.0 and newer by default",
            )
        if name == "bench":
            command.add_argument("--runs", type=int, default=Timing.runs, help="interleaved rounds")
            command.add_argument(
                "--warmup", type=float, default=Timing.warmup, help="least seconds of warm-up per graph"
            )
            command.add_argument("--cuda-graph", action="store_true", help="launch inference as a CUDA graph")
            command.add_argument("--copies", action="store_true", help="time the copies to and from the GPU too")
            command.add_argument("--energy", action="store_true", help="also measure energy per image")
            command.add_argument("--allow-slower", action="store_true", help="no failure when not faster than dense")
    return parser


def _info(options: argparse.Namespace) -> Info:
    _, manifest = open_size(options.bundle, verify_bundle(options.bundle), options.size)
    target = manifest.resolved_target
    built = "built" if layout.ENGINE in manifest.files else "not built"
    return Info(
        environment=environment(),
        gpu=gpu.describe(),
        engines=target.no_engine or builder_for(target, by_tensorrt).missing() or "can be built here",
        bundle=TimedBundle.of(manifest),
        engine=target.no_engine or built,
    )


def _check(options: argparse.Namespace) -> Parity:
    how = {"atol": options.atol, "threads": options.threads, "size": options.size}
    return check_bundle(options.bundle, runtime=_runtime(options), **how)


def _build(options: argparse.Namespace) -> Parity:
    given = EngineOptions(**_given(EngineOptions, options))
    return build_bundle(options.bundle, given, serialize=by_tensorrt, note=_note, size=options.size)


def _note(text: str) -> None:
    print(f"run_on_device.py: {text}", file=sys.stderr)


def _bench(options: argparse.Namespace) -> Bench:
    timing = Timing(**_given(Timing, options))
    runtime = _runtime(options)
    return bench_bundle(options.bundle, timing, runtime=runtime, serialize=by_tensorrt, size=options.size)


def _table(options: argparse.Namespace) -> LatencyTable:
    count = (options.threads, options.processes, options.rounds)

    def progress(done: int, total: int) -> None:
        _note(f"{done} of {total}")

    return make_table(options.bundle, *count, progress=progress, serialize=by_tensorrt)


def _runtime(options: argparse.Namespace) -> str:
    """What runs the graphs: for a TensorRT its engine, and nothing in its place, for the others the target's own."""
    if options.runtime:
        return str(options.runtime)
    return "tensorrt" if read_manifest(options.bundle).resolved_target.runtime == "tensorrt" else "auto"


def _given(cls: type[Any], options: argparse.Namespace) -> dict[str, Any]:
    """Of parsed options, those that are fields of a dataclass."""
    return {one.name: getattr(options, one.name) for one in fields(cls) if hasattr(options, one.name)}


def _judge(result: Record, options: argparse.Namespace) -> None:
    """Fail where the result is a failure."""
    if isinstance(result, Parity) and not result.passed:
        raise ParityError(result.failure)
    if isinstance(result, Bench) and not options.allow_slower and result.fails:
        raise NotFasterError(f"the pruned graph is {result.verdict}; allow it with --allow-slower")


def _check_out(options: argparse.Namespace) -> None:
    """Refuse a file that must stay as it is."""
    if options.out is not None:
        refuse_inside(options.out, options.bundle)
        record, label = _RESULTS[options.command]
        check_output(options.out, output_of(record, label), force=options.force)


def _write(result: Record, options: argparse.Namespace) -> None:
    """The result to a file and to the screen."""
    text = json.dumps(finite(result.to_json()), indent=2, default=str, allow_nan=False)
    if options.out is not None:
        atomic_write(options.out, text + "\n")
    print(text if options.json else "\n".join(_lines(result)))


def _lines(result: Record) -> list[str]:
    """The result for a person."""
    if isinstance(result, Bench):
        return bench_lines(result)
    if isinstance(result, Parity):
        return parity_lines(result)
    if isinstance(result, LatencyTable):
        return table_lines(result)
    assert isinstance(result, Info)
    return result.lines()
