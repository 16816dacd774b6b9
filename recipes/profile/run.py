"""`vitrim profile`: a table of measured latencies, for targets that are milliseconds or a speed-up."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm import is_model

from ...calibration.tokens.latency import load_of
from ...exporter.core.bounds import PROFILE_PROCESSES, PROFILE_ROUNDS, require_within
from ...exporter.core.errors import EnvironmentLackError, InputError
from ...exporter.core.files import explain_os_error
from ...exporter.core.inputs import is_file
from ...exporter.core.latency import PACKER, PROCESSES, ROUNDS, LatencyTable
from ...exporter.core.memory import only_new_garbage
from ...exporter.core.records import Record
from ...exporter.core.targets import Target
from ...exporter.pruning.budget import Budget
from ...exporter.pruning.methods import DEFAULT
from ...exporter.pruning.shape import ViTShape, describe
from ...exporter.runtime import publish
from ...exporter.runtime.bench import profile as profiles
from ...exporter.runtime.bench.profile import Profile
from ...exporter.runtime.bundles.place import refuse_in_bundle
from ...exporter.runtime.commands.table import time_profile
from ...exporter.runtime.outputs import refuse_over_inputs
from ...exporter.runtime.standalone import pack as standalone
from ..listener import Listener, Silence
from ..pipeline.engine import engine_missing
from ..pipeline.recover import open_model
from ..schema.load import shipped
from ..schema.own_files import TABLE, check_file, inputs_of
from ..schema.recipe import Recipe
from ..stages.graphs import forms_for
from ..stages.plans.tables import model_of, one_target, threads_of
from .graphs import ProfileGraphs, profile_graphs, reference_plans


def as_recipe(source: Any) -> Any:
    """What names a recipe as it is; timm's name of a model as plain data, with random weights: they take as long."""
    if not isinstance(source, (str, os.PathLike)):
        return source
    name = os.fspath(source)
    if is_file(Path(name)) or name in shipped() or not is_model(name.partition(".")[0]):
        return source
    return {
        "model": {"name": name.partition(".")[0], "random": 0},
        "images": {"generator": "noise", "count": 1},
        "prune": {"target": {"flops_ratio": 0.7}},
    }


@dataclass(frozen=True)
class ProfilePack(Record):
    """A folder that makes a latency table on a device without torch.

    Attributes:
        folder: where it lies.
        target: whose device it is for.
        graphs: that are timed there.
        bytes: of all files.
    """

    folder: str
    target: str
    graphs: int
    bytes: int

    @property
    def name(self) -> str:
        """Of the folder, which it has on the device too."""
        return Path(self.folder).name


@only_new_garbage()
def profile(
    recipe: Recipe,
    out: str | os.PathLike[str],
    methods: Sequence[str] = (),
    *,
    processes: int = PROCESSES,
    rounds: int = ROUNDS,
    listener: Listener | None = None,
    force: bool = False,
) -> LatencyTable:
    """Measure a table and write it.

    Args:
        recipe: its `model`, `prune`, `export` and `bench.threads` matter; it needs no images.
        out: the .json to write; a table that is there is replaced.
        methods: whose stages are measured; none: the recipe's own, or else the best measured.
        processes: everything is loaded anew in so many; the table has the medians over them.
        rounds: of each.
        listener: hears progress.
        force: replace any other plain file, too.

    Raises:
        InputError: the recipe's target, precision or slimming has no table.
        EnvironmentLackError: the target's runtime does not run here.
    """
    path, listener = Path(out), listener or Silence()
    require_within("processes", processes, *PROFILE_PROCESSES)
    require_within("rounds", rounds, *PROFILE_ROUNDS)
    target = one_target(recipe)
    why = engine_missing(target, "auto") if target.runtime == "tensorrt" else None
    if why is not None:
        raise EnvironmentLackError(f"{why}; for another machine: {PACKER}")
    reads = _read_by(recipe)
    check_file(path, TABLE, reads, force, listener)
    with tempfile.TemporaryDirectory(prefix="vitrim-") as folder:
        known, graphs = _made(recipe, methods, Path(folder), listener)
        listener.stage("profile")
        table = time_profile(known, graphs.files, threads_of(recipe), processes, rounds, listener.progress)
    check_file(path, TABLE, reads, force)  # it has taken its time
    table.write(path)
    return table


@only_new_garbage()
def pack_profile(
    recipe: Recipe,
    out: str | os.PathLike[str],
    methods: Sequence[str] = (),
    *,
    listener: Listener | None = None,
) -> ProfilePack:
    """Write a folder whose `run_on_device.py table` measures the table on a device without torch.

    Args:
        recipe, methods: see `profile`.
        out: the folder; one that was written so before is replaced.
        listener: hears progress.

    Raises:
        InputError: the recipe's target, precision or slimming has no table; something else lies there.
    """
    final, listener = Path(os.path.abspath(out)), listener or Silence()
    target = one_target(recipe)
    refuse_over_inputs(final, inputs_of(_read_by(recipe)))
    _refuse_other(final)
    publish.sweep(final)
    staging = publish.staging_folder(final)
    try:
        with tempfile.TemporaryDirectory(prefix="vitrim-") as folder:
            known, graphs = _made(recipe, methods, Path(folder), listener)
            for path in sorted(graphs.folder.iterdir()):
                shutil.move(path, staging / path.name)
        standalone.write(staging)
        profiles.list_files(staging, known)
        size = sum(path.stat().st_size for path in staging.iterdir())
        publish.replace_folder(staging, final, _refuse_other)
    except OSError as error:
        raise explain_os_error(error, final) from error
    finally:
        publish.discard(staging, final)
    return ProfilePack(str(final), target.name, len(known.graphs), size)


def _read_by(recipe: Recipe) -> Recipe:
    """A recipe without the table that it names, which it is made for."""
    return recipe.model_copy(update={"prune": None}).within(recipe.folder, recipe.file)


def _refuse_other(final: Path) -> None:
    """Refuse to replace what is no such folder."""
    refuse_in_bundle(final)
    if os.path.lexists(final) and (final.is_symlink() or not final.is_dir() or not _may_go(final)):
        raise InputError(f"{final} is there and no folder of `vitrim profile --pack`; remove it, or name another one")


def _may_go(folder: Path) -> bool:
    return not any(folder.iterdir()) or profiles.is_profile(folder)


def _made(recipe: Recipe, methods: Sequence[str], folder: Path, listener: Listener) -> tuple[Profile, ProfileGraphs]:
    """The graphs of a recipe's table, in a folder, and what they are."""
    listener.stage("model")
    target, model = one_target(recipe), open_model(recipe, note=listener.note)
    named = list(methods) or [recipe.prune.method if recipe.prune and recipe.prune.method else DEFAULT]
    plans = {method: reference_plans(model, method, recipe.prune) for method in named}
    listener.stage("trace")
    batch, forms = recipe.export.batch, forms_for(target, recipe.export.attention)
    graphs = profile_graphs(model, target, batch, forms, plans, folder, listener.progress)
    return profile_of(recipe, describe(model), target, graphs), graphs


def profile_of(recipe: Recipe, shape: ViTShape, target: Target, graphs: ProfileGraphs) -> Profile:
    """What the graphs of a table are, for whoever times them."""

    def loads(plans: Sequence[Budget]) -> tuple[Any, ...]:
        return tuple(load_of(shape, plan, not target.compares) for plan in plans)

    return Profile(
        format=profiles.FORMAT,
        **model_of(shape),
        target=target.name,
        precision="fp32",  # see `one_target`
        batch=recipe.export.batch,
        threads=recipe.bench.threads,
        counts=graphs.counts,
        forms=graphs.forms,
        dense=load_of(shape, None),
        plans={method: loads(plans) for method, plans in graphs.plans.items()},
        graphs=graphs.bytes,
        files={},
    )
