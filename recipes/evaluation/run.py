"""`vitrim evaluate`: images in shards, shards to workers, answers into a journal, and figures of them all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
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
from ...exporter.runtime import bundle
from ...exporter.runtime.choose import unable
from ...exporter.runtime.outputs import Output, check_output, output_of
from ..pools.choose import Crew, open_pool
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
        workers: processes, or actors of a cluster; None is this process, or all that the cluster has room for.
        ray: address of a cluster of Ray, see `pools.by_ray`; None: this machine.
        threads: of the CPU, for each; None shares the cores out, and is one on a cluster.
        shard: images that are kept, and lost, as one.
        size: of the bundle's graphs, see `layout.size_name`; None: the bundle's own.
    """

    bundle: Path
    images: Path
    count: int | None = None
    classes: str | None = None
    workers: int | None = None
    ray: str | None = None
    threads: int | None = None
    shard: int = SHARD
    size: str | int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        self.crew  # noqa: B018 (holds the number of workers to its bounds)
        for name, value in (("count", self.count), ("shard", self.shard)):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        if self.threads is not None:
            require_within("threads", self.threads, *THREADS)

    @property
    def threads_each(self) -> int | None:
        """Threads of a worker; None takes all cores."""
        return self.crew.threads_each if self.threads is None else self.threads

    @property
    def crew(self) -> Crew:
        """Who does it."""
        return Crew(self.workers, self.ray)

    @property
    def in_process(self) -> bool:
        """Whether this process does the work."""
        return self.crew.in_process


def evaluate(
    wanted: Wanted,
    out: str | os.PathLike[str] | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, of: None,
    note: Note = lambda text: None,
    force: bool = False,
) -> Evaluation:
    """Hold a bundle's pruned graph against its dense one, image by image.

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
    whole = bundle.verify(wanted.bundle, needs=(layout.Kind.DENSE.filename, layout.MODEL, layout.GOLDEN))
    files, manifest = bundle.open_size(wanted.bundle, whole, wanted.size)
    place = None if out is None else _journal_of(Path(out), wanted, force, note)
    task = _task(wanted, files, manifest, note)
    made = judge = Judge(task)  # here too: what is wrong with the graphs is told before any worker starts
    asked = Asked(judge.batch, judge.dense.name, judge.pruned.name, judge.cpu_only)
    make: Callable[[], Judge] = (lambda: made) if wanted.in_process else partial(Judge, task)
    del judge
    hashes = {"bundle": sha256(wanted.bundle / layout.MANIFEST), "images": task.source.fingerprint()}
    head = {"version": __version__, **hashes, "dense by": asked.dense_by, "pruned by": asked.pruned_by}
    head |= {} if files.size is None else {"size": files.size}
    with nullcontext() if place is None else Journal(place, head) as journal:
        answers = _kept(journal, len(task.source), note)
        resumed, images = len(answers), len(task.source)
        pool = open_pool(
            wanted.workers, wanted.ray, cores=wanted.threads_each or 1, gpus=_gpus(manifest, asked), note=note
        )
        for shard, found in pool.map(make, cut(images, wanted.shard, asked.batch, answers)):
            if journal is not None:
                journal.add(shard.start, found)
            answers |= {index: one for index, one in enumerate(found, shard.start) if index not in answers}
            progress(len(answers), images)
        result = _result(wanted, task, asked, hashes, in_order(answers, images))
        result = replace(result, resumed=resumed, seconds=time.perf_counter() - begun)
        if out is not None and journal is not None:
            check_output(out, RESULT, force=force)  # the evaluation has taken its time
            result.write(out)
            journal.remove()
    doubtful = doubt_labels(result.answers, task.classes)
    if doubtful:
        note(doubtful)
    return result


def _gpus(manifest: bundle.Manifest, asked: Asked) -> float:
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
    wanted: Wanted, task: Task, asked: Asked, hashes: Mapping[str, str], answers: Sequence[Answer]
) -> Evaluation:
    labels = as_integers(task.source.labels)
    return Evaluation(
        format=FORMAT,
        bundle=str(wanted.bundle),
        bundle_sha256=hashes["bundle"],
        images=str(wanted.images),
        images_sha256=hashes["images"],
        target=task.target,
        dense_by=asked.dense_by,
        pruned_by=asked.pruned_by,
        answers=figures(answers, labels),
        by="dense answer" if labels is None else "label",
        classes=by_class(answers, labels),
        moved=moved(answers, task.source.names, labels),
        cpu_only=asked.cpu_only,
        workers=1 if wanted.in_process else wanted.workers,
        ray=wanted.ray,
        size=task.size,
    )


def _journal_of(out: Path, wanted: Wanted, force: bool, note: Note) -> Path:
    """The journal beside an output; both places are looked at before any work."""
    bundle.refuse_inside(out, wanted.bundle)
    replaced = check_output(out, RESULT, force=force, inputs={"the images": wanted.images})
    if replaced:
        note(replaced)
    place = out.with_name(f"{out.name}.journal")
    # What is in a file there is the journal's own question.
    check_output(place, Output("journal", lambda path: None, place.name), inputs={"the images": wanted.images})
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _task(wanted: Wanted, files: layout.Sized, manifest: bundle.Manifest, note: Note) -> Task:
    """The images, and how the bundle's graphs take them."""
    root, target = files.root, manifest.resolved_target
    if manifest.preprocess is None:
        raise InputError(f"{root} does not say how photos become its input; export it anew")
    unfit = unable(target, manifest.precision.name)
    if unfit:
        raise EnvironmentLackError(f"{root} cannot be evaluated here: {unfit}")
    preprocess = Preprocess.from_dict(manifest.preprocess)
    golden = bundle.load_golden(files)
    if LOGITS.output not in golden:
        raise InputError(f"{root} has no classifier: only a classifier's answers can be evaluated")
    classes = golden[LOGITS.output].shape[1]
    source: ImageSource = open_images(
        wanted.images, preprocess, classes=classes, count=wanted.count, class_file=wanted.classes, note=note
    )
    how = (target.name, manifest.precision.name, wanted.threads_each)
    return Task(root, source, preprocess, classes, *how, files.size)
