"""Make a latency table of a folder that `vitrim profile --pack` wrote, on the device that it is of. Torch-free."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from ...core.bounds import PROFILE_PROCESSES, PROFILE_ROUNDS, THREADS, require_within
from ...core.cores import session_threads, usable_cores
from ...core.errors import EnvironmentLackError
from ...core.latency import PROCESSES, ROUNDS, LatencyTable
from ...core.targets import Precision, Target, get_target
from ..bench.profile import Profile, read_profile, table_of
from ..tensorrt.engine import build_engine
from ..tensorrt.options import EngineOptions
from ..tensorrt.polygraphy_build import by_polygraphy
from ..tensorrt.rtx_build import builder_for
from ..tensorrt.serializer import Serializer
from ..tensorrt.versions import runtime_missing


def make_table(
    folder: str | os.PathLike[str],
    threads: int | None = None,
    processes: int = PROCESSES,
    rounds: int = ROUNDS,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    serialize: Serializer = by_polygraphy,
) -> LatencyTable:
    """Time the graphs of a folder on this machine, and make the table of it, for exports that are made elsewhere.

    Args:
        folder: that `vitrim profile --pack` wrote; every file of it is verified first.
        threads: of the processor; None: what the folder says, or all cores.
        processes: everything is loaded anew in so many; the table has the medians over them.
        rounds: of each.
        progress: called with (parts done, parts): engines built, then parts timed.
        serialize: builds engines, of a TensorRT target.

    Raises:
        InputError: the folder is none, or damaged; a number is out of bounds.
        EnvironmentLackError: the target's runtime does not run here.
        UnsupportedError: TensorRT refuses a graph.
    """
    require_within("processes", processes, *PROFILE_PROCESSES)
    require_within("rounds", rounds, *PROFILE_ROUNDS)
    if threads is not None:
        require_within("threads", threads, *THREADS)
    root = Path(os.path.abspath(folder))
    profile = read_profile(root)
    files = {name: root / f"{name}.onnx" for name in profile.names}
    count = session_threads(threads or profile.threads) or usable_cores()
    return time_profile(profile, files, count, processes, rounds, progress, serialize, packed=True)


def time_profile(
    profile: Profile,
    files: Mapping[str, Path],
    threads: int,
    processes: int,
    rounds: int,
    progress: Callable[[int, int], None],
    serialize: Serializer = by_polygraphy,
    packed: bool = False,
) -> LatencyTable:
    """`bench.profile.table_of`, of a TensorRT target on engines that are built for it, and thrown away after."""
    target = get_target(profile.target)
    with ExitStack() as stack:
        engines = None
        if target.runtime == "tensorrt":
            engines = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vitrim-")))
            build_all(files, engines, target, profile.precision, progress, serialize)
        return table_of(profile, files, threads, processes, rounds, progress, engines, packed)


def build_all(
    files: Mapping[str, Path],
    engines: Path,
    target: Target,
    precision: Precision,
    progress: Callable[[int, int], None],
    serialize: Serializer,
) -> None:
    """An engine of every graph, `<name>.engine`: static shapes, as an export's engines have, so no profile is chosen.

    Unverified on a GPU: a stand-in for TensorRT took the calls.

    Raises:
        EnvironmentLackError: no TensorRT or no GPU.
        UnsupportedError: TensorRT refuses a graph.
    """
    chosen = builder_for(target, serialize)
    missing = chosen.missing() or runtime_missing(chosen.family)
    if missing:
        raise EnvironmentLackError(missing)
    for done, (name, graph) in enumerate(files.items()):
        options = EngineOptions(strict=False)
        build_engine(graph, engines / f"{name}.engine", options, precision=precision, serialize=chosen)
        progress(done + 1, len(files))
