"""What a latency table is measured on, here or as a folder for a device, and the table that comes of it. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ...core import layout
from ...core.errors import InputError
from ...core.inputs import is_folder
from ...core.latency import FORMAT as TABLE
from ...core.latency import PACKER, PROCESSES, ROUNDS, Conditions, FormTimes, LatencyTable
from ...core.loads import Load, with_stages
from ...core.records import Record
from ...core.targets import Precision, get_target
from ..bundles.manifest import FileEntry, entries_of
from ..bundles.verify import verify_files
from ..machine.environment import environment
from ..machine.named import machine_of
from .apart import clock_of
from .turns import Samples, measure

FORMAT: Literal["vitrim-profile/1"] = "vitrim-profile/1"
FILE = "profile.json"
DENSE = "dense"


@dataclass(frozen=True)
class Profile(Record):
    """Graphs of a model for a target, and what they are; `profile.json` of a folder for a device.

    Attributes:
        format: of the file.
        model, tokens, gmacs, target, precision, batch: see `core.latency.Conditions`.
        threads: of the processor; None: all cores of the machine that times them.
        counts: numbers of tokens of the halves.
        forms: of attention.
        dense: load of the dense graph.
        plans: by method, loads of the plans whose graphs are numbered.
        graphs: by name, `<half>.<tokens>.<form>`, `dense.<form>` and `<method>.<number>.<form>`, bytes of its weights.
        files: of a folder for a device, all but this one.
    """

    format: Literal["vitrim-profile/1"]
    model: str
    tokens: int
    gmacs: float
    target: str
    precision: Precision
    batch: int
    threads: int | None
    counts: tuple[int, ...]
    forms: tuple[str, ...]
    dense: Load
    plans: dict[str, tuple[Load, ...]]
    graphs: dict[str, int]
    files: dict[str, FileEntry]

    def __post_init__(self) -> None:
        lacking = [name for name in self.names if name not in self.graphs]
        if lacking:
            raise ValueError(f"has no graph {lacking[0]}")
        if any(os.sep in name or "/" in name for name in self.graphs):
            raise ValueError("has a graph in another folder")

    @property
    def names(self) -> list[str]:
        """Of the graphs that a table is made of."""
        halves = [f"attention.{count}.{form}" for count in self.counts for form in self.forms]
        mlp = [f"mlp.{count}.{self.forms[0]}" for count in self.counts]
        plans = [
            f"{name}.{at}.{form}" for name, own in self.plans.items() for at in range(len(own)) for form in self.forms
        ]
        return [*halves, *mlp, *(f"{DENSE}.{form}" for form in self.forms), *plans]

    def conditions(self, threads: int) -> Conditions:
        """What a table of it is of, on this machine."""
        here = machine_of(get_target(self.target))
        of = (self.model, self.tokens, self.gmacs, self.target, here["device"], here["runtime"])
        return Conditions(*of, self.precision, self.batch, threads)


def table_of(
    profile: Profile,
    files: Mapping[str, Path],
    threads: int,
    processes: int = PROCESSES,
    rounds: int = ROUNDS,
    progress: Callable[[int, int], None] = lambda done, total: None,
    engines: Path | None = None,
    packed: bool = False,
) -> LatencyTable:
    """Time the graphs of a profile here, in turns, and make the table.

    Args:
        profile: what they are.
        files: by name.
        threads: of the processor.
        processes: everything is loaded anew in so many.
        rounds: of each.
        progress: called with (parts done, parts).
        engines: of a TensorRT target, see `build_all`.
        packed: see `LatencyTable`.

    Raises:
        EnvironmentLackError: the target's runtime does not run here.
    """
    target, base = get_target(profile.target), f"{DENSE}.{profile.forms[0]}"
    of = profile.conditions(threads)
    samples = measure(files, base, target, threads, processes, rounds, progress, sizes=profile.graphs, engines=engines)

    def row(half: str, form: str) -> tuple[float, ...]:
        return tuple(samples.milliseconds(f"{half}.{count}.{form}") for count in profile.counts)

    bare = LatencyTable(
        format=TABLE,
        of=of,
        counts=profile.counts,
        mlp=row("mlp", profile.forms[0]),
        forms={
            form: FormTimes(samples.milliseconds(f"{DENSE}.{form}"), row("attention", form), {})
            for form in profile.forms
        },
        clock=clock_of(threads, target.is_cpu),
        processes=processes,
        rounds=rounds,
        spread=round(samples.spread, 4),
        environment=environment(threads),
        packed=packed,
    )
    return with_stages(bare, profile.dense, _took(profile, samples))


def _took(profile: Profile, samples: Samples) -> dict[str, list[tuple[Load, dict[str, float]]]]:
    """By method, the loads of its plans and what their graphs took by form."""
    return {
        method: [
            (load, {form: samples.milliseconds(f"{method}.{at}.{form}") for form in profile.forms})
            for at, load in enumerate(loads)
        ]
        for method, loads in profile.plans.items()
    }


def list_files(folder: Path, profile: Profile) -> None:
    """Write the profile of a folder for a device whose other files are all there, with their hashes."""
    replace(profile, files=entries_of(folder, FILE)).write(folder / FILE)


def read_profile(folder: Path) -> Profile:
    """The profile of a folder for a device, every file of it verified.

    Raises:
        InputError: it is none, or damaged.
    """
    if not is_folder(folder) or not (folder / FILE).is_file():
        raise InputError(f"{folder} has no {FILE}, so no table can be made of it; make such a folder: {PACKER}")
    found = Profile.read(folder / FILE, "profile", PACKER)
    verify_files(folder, found.files, FILE, "folder")
    lacking = [name for name in found.names if f"{name}.onnx" not in found.files]
    if lacking:
        raise InputError(f"{folder} has no {lacking[0]}.onnx; make it anew: {PACKER}")
    return found


def is_profile(folder: Path) -> bool:
    """Whether a folder is one for a device that vitrim wrote, and nothing else is in it."""
    try:
        found = Profile.read(folder / FILE, "profile", PACKER)
    except InputError:
        return False
    names = {path.name for path in folder.iterdir()}
    return layout.STANDALONE in found.files and names <= {FILE, *found.files}
