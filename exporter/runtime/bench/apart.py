"""Graphs timed in turns in this process, as ratios to one of them: one measurement of several. Torch-free.

Where a process has its memory decides how fast it is, so one process is one sample, however many rounds it takes: a
table takes the median over several.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...core.errors import EnvironmentLackError
from ...core.targets import get_target
from ..choose import runner_for
from ..commands.bench import random_images
from ..tensorrt.runner import TrtRunner
from .interleave import interleave

if TYPE_CHECKING:  # Python 3.8, which run_on_device.py serves, cannot make it
    Measured = tuple[dict[str, float], float]
FIRST = 2  # rounds that only warm up


def clock_of(threads: int, on_cpu: bool) -> Literal["processor", "wall"]:
    """What time is taken by: `processor` seconds of this program where one thread computes it all, else `wall`."""
    return "processor" if threads == 1 and on_cpu else "wall"


def measuring(
    base: str, target: str, threads: int, rounds: int, engines: str | None = None
) -> Callable[[tuple[int, Mapping[str, str]]], Measured]:
    """`time_here` of some graphs, as work for a process of its own."""
    return partial(time_here, base=base, target=target, threads=threads, rounds=rounds, engines=engines)


def time_here(
    item: tuple[int, Mapping[str, str]], base: str, target: str, threads: int, rounds: int, engines: str | None = None
) -> Measured:
    """Time graphs in this process, in turns.

    Args:
        item: a seed of all orders, and by name the files. What is loaded first lies elsewhere in memory.
        base: name of the one that the others are held against.
        target: whose runtime runs them.
        threads: of the processor.
        rounds: each times every graph once, in an order drawn anew.
        engines: of a TensorRT target, the folder with `<name>.engine` of every graph: those are timed, without copies.

    Returns:
        by name, the median of the ratios to `base` in the same round; and the median milliseconds of that one.

    Raises:
        EnvironmentLackError: the target's runtime does not run here.
    """
    chosen = get_target(target)
    calls: dict[str, Callable[[], object]] = {}
    seed, graphs = item
    with ExitStack() as stack:
        for name in map(str, np.random.default_rng(seed).permutation(sorted(graphs))):
            if engines is not None:
                calls[name] = _engine(Path(engines) / f"{name}.engine", Path(graphs[name]), stack)
                continue
            runner, missing = runner_for(graphs[name], chosen, threads)
            if missing is not None:
                raise EnvironmentLackError(missing)
            calls[name] = partial(runner, random_images(runner.shape, runner.dtype))
        clock = time.process_time_ns if clock_of(threads, chosen.is_cpu) == "processor" else time.perf_counter_ns
        taken = interleave(calls, rounds + FIRST, None, clock=clock, seed=seed)
    samples = {name: found[FIRST:] for name, found in taken.items()}
    ratios = {name: float(np.median(found / samples[base])) for name, found in samples.items()}
    return ratios, float(np.median(samples[base]))


def _engine(engine: Path, graph: Path, stack: ExitStack) -> Callable[[], object]:
    """An engine's inference without copies, as benchmarks time it."""
    runner = stack.enter_context(TrtRunner(engine, graph))
    runner.upload(random_images(runner.shape, runner.dtype))
    return runner.infer
