"""What run_on_device.py does when it is called: `info`, `check`, `build`, `bench`, without vitrim. Torch-free.

It runs on Python 3.8 with numpy and tensorrt, and so does everything that it imports; `standalone` makes it one file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.errors import NotFasterError, ParityError, VitrimError
from ...core.files import atomic_write, explain_os_error
from .. import bundle
from .. import commands as device
from ..machine import gpu
from ..machine.energy import describe
from ..machine.environment import environment
from ..parity import describe_error, describe_failure
from ..tensorrt import plain_build as bare


def main(arguments: Sequence[str], here: Path) -> int:
    """Run a command line.

    Args:
        arguments: without the program's name.
        here: the bundle when none is named.

    Returns:
        the exit status: 0 done, 1 parity failed, 2 not faster than dense, 3 bad input or something missing here,
        130 interrupted.
    """
    bare.install()
    options = _parser(here).parse_args(arguments)
    options.bundle = Path(os.path.abspath(options.bundle))  # now: `build` may take the working directory away
    options.out = None if options.out is None else Path(os.path.abspath(options.out))
    commands = {"info": _info, "check": _check, "build": _build, "bench": _bench}
    try:
        result = commands[options.command](options)
        _write(result, options)
        _judge(options, result)
        if options.command == "build" and _stands_in(options.bundle):
            print('this folder was replaced by the one with the engine: cd "$PWD"', file=sys.stderr)
    except VitrimError as error:
        said = str(error).replace("vitrim build BUNDLE", "python3 run_on_device.py build")
        print(f"run_on_device.py: {said}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("run_on_device.py: interrupted; nothing was published", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"run_on_device.py: {explain_os_error(error, error.filename or 'the output')}", file=sys.stderr)
        return VitrimError.exit_code
    return 0


def _stands_in(folder: Path) -> bool:
    """Whether the working directory is, or was, the bundle: a shell in it would go on in the old one, now gone."""
    here = Path(os.environ.get("PWD") or folder.parent).resolve()
    return folder.resolve() in (here, *here.parents)


def _parser(here: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_on_device.py",
        description="Build, check and time this bundle with this machine's own TensorRT, without vitrim.",
    )
    commands = parser.add_subparsers(dest="command", metavar="info|check|build|bench")
    commands.required = True
    for name, text in (
        ("info", "what machine this is"),
        ("check", "verify every file, and hold the engine against PyTorch's golden outputs"),
        ("build", "build model.engine here, prove it, and put it into the bundle"),
        ("bench", "time dense, pruned and floor, interleaved"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("bundle", nargs="?", type=Path, default=here, help="by default the folder of this file")
        command.add_argument("-o", "--out", type=Path, help="write the result as JSON to this file, outside the bundle")
        command.add_argument("--json", action="store_true", help="print the result as JSON")
        if name in ("check", "bench"):
            command.add_argument(
                "--onnxruntime", action="store_true", help="by onnxruntime on the CPU, where installed"
            )
            command.add_argument("--threads", type=int, help="of onnxruntime; all cores by default")
        if name == "check":
            command.add_argument(
                "--atol", type=float, help="largest error of a logit; the bundle's own limits by default"
            )
        if name == "build":
            command.add_argument("--workspace", type=int, default=1024, help="scratch memory of the builder, MiB")
            command.add_argument("--any-precision", action="store_true", help="keep an engine in another precision")
            command.add_argument("--dla-core", type=int, help="run on this DLA core what can run there")
        if name == "bench":
            command.add_argument("--runs", type=int, default=50, help="interleaved rounds (50)")
            command.add_argument("--warmup", type=float, default=0.5, help="least seconds of warm-up a graph (0.5)")
            command.add_argument("--cuda-graph", action="store_true", help="launch inference as a CUDA graph")
            command.add_argument("--copies", action="store_true", help="time the copies to and from the GPU too")
            command.add_argument("--energy", action="store_true", help="measure joules an image besides")
            command.add_argument("--allow-slower", action="store_true", help="no failure when not faster than dense")
    return parser


def _info(options: argparse.Namespace) -> dict[str, Any]:
    manifest = bundle.verify(options.bundle)
    lack = bare.why_not()
    return {
        "environment": environment(),
        "gpu": gpu.describe(),
        "engines": "can be built here" if lack is None else lack,
        "bundle": device.identity_of(manifest),
        "engine": "built" if "model.engine" in manifest["files"] else "not built",
    }


def _check(options: argparse.Namespace) -> dict[str, Any]:
    return device.check_bundle(
        options.bundle, atol=options.atol, threads=options.threads, onnxruntime=options.onnxruntime
    )


def _build(options: argparse.Namespace) -> dict[str, Any]:
    return device.build_bundle(
        options.bundle, workspace_mib=options.workspace, strict=not options.any_precision, dla_core=options.dla_core
    )


def _bench(options: argparse.Namespace) -> dict[str, Any]:
    return device.bench_bundle(
        options.bundle,
        runs=options.runs,
        warmup=options.warmup,
        threads=options.threads,
        cuda_graph=options.cuda_graph,
        copies=options.copies,
        energy=options.energy,
        runtime="onnxruntime" if options.onnxruntime else "tensorrt",
    )


def _judge(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Fail where the result is a failure."""
    if options.command in ("check", "build") and not result["passed"]:
        raise ParityError(describe_failure(result))
    if options.command == "bench" and not options.allow_slower and result["ratios"]["speedup"]["interval"][0] <= 1:
        raise NotFasterError(f"the pruned graph is {result['verdict']}; allow it with --allow-slower")


def _write(result: dict[str, Any], options: argparse.Namespace) -> None:
    """The result to a file and to the screen."""
    text = json.dumps(result, indent=2, default=str)
    if options.out is not None:
        bundle.refuse_inside(options.out, options.bundle)
        atomic_write(options.out, text + "\n")
    if options.json:
        print(text)
    else:
        print("\n".join(_lines(options.command, result)))


def _lines(command: str, result: dict[str, Any]) -> list[str]:
    """The result for a person."""
    if command == "info":
        flat = {**result["environment"], **result["gpu"], "engines": result["engines"], "engine": result["engine"]}
        return [f"{key}: {value}" for key, value in flat.items() if value not in (None, [])]
    if command == "bench":
        return _bench_lines(result)
    lines = [
        f"{rung['name']}: {'ok' if rung['passed'] else 'FAILED'}, {rung['images']} images, "
        f"top-1 {rung['top1']:.1%}, error {describe_error(rung)}"
        for rung in result["rungs"]
    ]
    if command == "build":
        lines.append(f"engine: {result['engine']['layers']['verdict']}")
    skipped = {what: result.get(f"{what}_not_checked") for what in ("graph", "engine")}
    return [*lines, *(f"the {what} was not checked: {why}" for what, why in skipped.items() if why)]


def _bench_lines(result: dict[str, Any]) -> list[str]:
    where = result["environment"]
    lines = [f"{where['runtime']}, batch {result['batch']}, {where.get('gpu') or where['cpu']}"]
    for name, found in {**result["distributions"], **result.get("modes", {})}.items():
        if "reason" in found:
            lines.append(f"  {name}: {found['reason']}")
            continue
        low, high = found["median_interval"]
        tail = "".join(f", {key} {found[key]:.3f}" for key in ("p95", "p99") if key in found)
        label = name if name in result["distributions"] else f"pruned, {name}"
        lines.append(f"  {label}: {found['median']:.3f} ms (95 % interval {low:.3f} to {high:.3f}{tail})")
    lines.append(f"Speed: {result['verdict']}")
    if result["overhead"] is not None:
        lines.append(f"Overhead over free slicing to the same tokens: {result['overhead']:.3f}")
    spent = result.get("energy")
    if spent:
        lines += [f"Energy: {text}" for text in describe(spent)]
    if where.get("clock_advice"):
        lines.append(f"Clocks: {where['clocks']}; to lock them: {'; '.join(where['clock_advice'])}")
    return [*lines, f"Warning: {where['warning']}"] if where.get("warning") else lines
