"""`vitrim evaluate`: images in shards, shards to workers, answers into a journal, and figures of them all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ... import __version__
from ...calibration.images.listing import open_images
from ...calibration.images.sources import ImageSource
from ...exporter.core import layout
from ...exporter.core.answers import LOGITS
from ...exporter.core.bounds import THREADS, require_within
from ...exporter.core.errors import EnvironmentLackError, InputError
from ...exporter.core.fidelity import doubt_labels
from ...exporter.core.files import sha256
from ...exporter.core.preprocess import Preprocess
from ...exporter.runtime.bundles.golden import load_golden
from ...exporter.runtime.bundles.manifest import Manifest, open_size
from ...exporter.runtime.bundles.place import refuse_inside
from ...exporter.runtime.bundles.verify import verify_bundle
from ...exporter.runtime.choose import require_runtime, run_by, unable
from ...exporter.runtime.outputs import Output, check_output, output_of
from ...exporter.runtime.tensorrt.runner import cannot_run
from ..pools.choose import ALONE, Crew, open_pool
from .journal import Journal
from .judge import Judge, Task
from .result import FORMAT, Evaluation, as_integers, by_class, figures, in_order, moved
from .shards import SHARD, Answer, cut

RESULT = output_of(Evaluation, "evaluation")
Note = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What is to be evaluated, and how.

    Attributes:
        bundle: the folder.
        images: see `open_images`.
        count: images, spread evenly; None takes all.
        classes: which class folder is which class, see `labels.read_classes`.
        crew: who does it.
        threads: of the CPU, for each worker; None shares the cores out, and is one on a cluster.
        shard: images that are kept, and lost, as one.
        runtime: `tensorrt`, `onnxruntime`, `openvino`, or `auto`: the bundle's engine where it has one that runs here,
            else the target's own runtime where that is here, else onnxruntime.
        size: of the bundle's graphs, see `layout.size_name`; None: the bundle's own.
    """

    bundle: Path
    images: Path
    count: int | None = None
    classes: str | None = None
    crew: Crew = ALONE
    threads: int | None = None
    shard: int = SHARD
    runtime: str = "auto"
    size: str | int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        require_runtime(self.runtime)
        for name, value in (("count", self.count), ("shard", self.shard)):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        if self.threads is not None:
            require_within("threads", self.threads, *THREADS)

    @property
    def threads_each(self) -> int | None:
        """Threads of a worker; None takes all cores."""
        return self.crew.threads_each if self.threads is None else self.threads


def evaluate(
    wanted: Wanted,
    out: str | os.PathLike[str] | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, of: None,
    note: Note = lambda text: None,
    force: bool = False,
) -> Evaluation:
    """Hold a bundle's pruned graph, or its engine, against its dense graph, image by image.

    Args:
        wanted: what, and how.
        out: a JSON file to write; beside it `<out>.journal` keeps what is done until the file is written, so that the
            same command goes on after any end.
        progress: called with (images done, images).
        note: hears what a person should know.
        force: replace whatever plain file is at `out`.

    Raises:
        InputError: the bundle or the images cannot be used; or a journal is there of others.
        EnvironmentLackError: nothing runs the graphs here, workers die, or a place cannot be written.
    """
    begun = time.perf_counter()
    whole = verify_bundle(wanted.bundle, needs=(layout.Kind.DENSE.filename, layout.MODEL, layout.GOLDEN))
    files, manifest = open_size(wanted.bundle, whole, wanted.size)
    place = None if out is None else _journal_of(Path(out), wanted, force, note)
    task = _task(wanted, files, manifest, note)
    judge = Judge(task)  # here too: what is wrong with the graphs is told before any worker starts
    asked = Asked(judge.batch, judge.dense.name, judge.pruned.name, judge.cpu_only)
    make: Callable[[], Judge] = (lambda: judge) if wanted.crew.in_process else partial(Judge, task)
    if not wanted.crew.in_process:
        judge.close()
    hashes = {"bundle": sha256(wanted.bundle / layout.MANIFEST), "images": task.source.fingerprint()}
    head = {"version": __version__, **hashes, "dense by": asked.dense_by, "pruned by": asked.pruned_by}
    head |= {} if files.size is None else {"size": files.size}
    with closing(judge), nullcontext() if place is None else Journal(place, head) as journal:
        answers = _kept(journal, len(task.source), note)
        resumed, images = len(answers), len(task.source)
        pool = open_pool(wanted.crew, cores=wanted.threads_each or 1, gpus=_gpus(manifest, asked), note=note)
        for shard, found in pool.map(make, cut(images, wanted.shard, asked.batch, answers)):
            if journal is not None:
                journal.add(shard.start, found)
            answers |= {index: one for index, one in enumerate(found, shard.start) if index not in answers}
            progress(len(answers), images)
        target = manifest.resolved_target.name
        result = _result(wanted, task, asked, target, hashes, in_order(answers, images))
        result = replace(result, resumed=resumed, seconds=time.perf_counter() - begun)
        if out is not None and journal is not None:
            check_output(out, RESULT, force=force)  # the evaluation has taken its time
            result.write(out)
            journal.remove()
    doubtful = doubt_labels(result.answers, task.classes)
    if doubtful:
        note(doubtful)
    return result


def _gpus(manifest: Manifest, asked: Asked) -> float:
    """GPUs of a worker in a cluster: one where the bundle is for a GPU that runs it here."""
    return 0.0 if manifest.resolved_target.is_cpu or asked.cpu_only else 1.0


@dataclass(frozen=True)
class Asked:
    """What runs the graphs here.

    Attributes:
        batch: images of a whole batch of both.
        dense_by, pruned_by: runners' names.
        cpu_only: why only the CPU runs a graph that is meant for something else.
    """

    batch: int
    dense_by: str
    pruned_by: str
    cpu_only: str | None


def _kept(journal: Journal | None, images: int, note: Note) -> dict[int, Answer]:
    """By index, the answers that a journal has."""
    if journal is None or not journal.answers:
        return {}
    found = {index: one for index, one in journal.answers.items() if index < images}
    note(f"goes on after {len(found)} of {images} images, which {journal.path} has")
    return found


def _result(
    wanted: Wanted, task: Task, asked: Asked, target: str, hashes: Mapping[str, str], answers: Sequence[Answer]
) -> Evaluation:
    labels = as_integers(task.source.labels)
    return Evaluation(
        format=FORMAT,
        bundle=str(wanted.bundle),
        bundle_sha256=hashes["bundle"],
        images=str(wanted.images),
        images_sha256=hashes["images"],
        target=target,
        dense_by=asked.dense_by,
        pruned_by=asked.pruned_by,
        answers=figures(answers, labels),
        by="dense answer" if labels is None else "label",
        classes=by_class(answers, labels),
        moved=moved(answers, task.source.names, labels),
        cpu_only=asked.cpu_only,
        workers=wanted.crew.asked,
        ray=wanted.crew.ray,
        count=wanted.count,
        class_file=wanted.classes,
        runtime=None if wanted.runtime == "auto" else wanted.runtime,
        version=__version__,
        size=task.size,
    )


def _journal_of(out: Path, wanted: Wanted, force: bool, note: Note) -> Path:
    """The journal beside an output; both places are looked at before any work."""
    refuse_inside(out, wanted.bundle)
    replaced = check_output(out, RESULT, force=force, inputs={"the images": wanted.images})
    if replaced:
        note(replaced)
    place = out.with_name(f"{out.name}.journal")
    # What is in a file there is the journal's own question.
    check_output(place, Output("journal", lambda path: None, place.name), inputs={"the images": wanted.images})
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _task(wanted: Wanted, files: layout.Sized, manifest: Manifest, note: Note) -> Task:
    """The images, and how the bundle's graphs take them."""
    root, target = files.root, manifest.resolved_target
    if manifest.preprocess is None:
        raise InputError(f"{root} does not say how photos become its input; export it anew")
    engine = _takes_engine(wanted, files, manifest, note)
    chosen, aside = (target, None) if engine else run_by(target, wanted.runtime)
    unfit = None if engine else unable(chosen, manifest.precision.name)
    if unfit:
        raise EnvironmentLackError(f"{root} cannot be evaluated here: {unfit}")
    preprocess = Preprocess.from_dict(manifest.preprocess)
    golden = load_golden(files)
    if LOGITS.output not in golden:
        raise InputError(f"{root} has no classifier: only a classifier's answers can be evaluated")
    classes = golden[LOGITS.output].shape[1]
    source: ImageSource = open_images(
        wanted.images, preprocess, classes=classes, count=wanted.count, class_file=wanted.classes, note=note
    )
    about = (chosen.name, manifest.precision.name, wanted.threads_each, engine, aside)
    return Task(root, source, preprocess, classes, *about, files.size)


def _takes_engine(wanted: Wanted, files: layout.Sized, manifest: Manifest, note: Note) -> bool:
    """Whether the bundle's engine answers.

    Raises:
        InputError: TensorRT is asked for, and the bundle has no engine.
        EnvironmentLackError: it is asked for, and does not run here.
    """
    if wanted.runtime not in ("auto", "tensorrt"):
        return False
    asked, place = wanted.runtime == "tensorrt", files / layout.ENGINE
    if layout.ENGINE not in manifest.files:
        if asked:
            how = manifest.resolved_target.no_engine or "build it first"
            raise InputError(f"{wanted.bundle} has no {place.name}: {how}")
        return False
    why = cannot_run(place)
    if why and asked:
        raise EnvironmentLackError(why)
    if why:
        note(f"{place.name} is not evaluated, but the graph that it was built from: {why}")
    return why is None
