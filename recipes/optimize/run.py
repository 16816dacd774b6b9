"""An ONNX file alone, from the file to a bundle: passes, precision, proof against the file itself, benchmark.

Nothing here knows a model, and nothing needs PyTorch. The file's own answers, by onnxruntime, are the reference.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...calibration.images.in_memory import ArrayImages
from ...calibration.images.listing import open_images
from ...calibration.images.photos import Photos
from ...calibration.images.reading import read_some
from ...calibration.images.sources import ImageSource, choose
from ...exporter.core import layout
from ...exporter.core.errors import EnvironmentLackError, InputError, NotFasterError, ParityError
from ...exporter.core.layout import Kind
from ...exporter.core.targets import Precision
from ...exporter.graph.lint.check import operator_table, require_fit
from ...exporter.graph.opened import ANSWER, IMAGE, Opened, file_runner, open_model
from ...exporter.graph.passes.base import PassReport
from ...exporter.graph.passes.fused_attention import FUSED_ATTENTION
from ...exporter.graph.passes.rewrite import rewrite
from ...exporter.graph.precision.report import PrecisionReport
from ...exporter.graph.store import WeightStore
from ...exporter.runtime import publish
from ...exporter.runtime.bench.report import Bench
from ...exporter.runtime.bench.timing import Timing
from ...exporter.runtime.bundles.place import publish_bundle, refuse_foreign
from ...exporter.runtime.choose import not_here, runner_for, unable
from ...exporter.runtime.commands.bench import Graph, bench_graphs
from ...exporter.runtime.outputs import refuse_over_inputs
from ...exporter.runtime.parity import Limits, Parity, Rung
from ...exporter.runtime.rungs import close, compare
from ...exporter.runtime.runners import Outputs, run_all, whole_batches
from ..listener import Listener, Silence, tell_published
from ..pipeline.engine import engine_missing
from ..stages.forms import choose as choose_form
from ..stages.graphs import EMULATED, forms_for
from ..stages.precision import limits_of, write_precision
from .pack import Optimized, Parts, pack_optimized
from .wishes import Wishes, files_of, wishes_from


def optimize(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    output: str | None = None,
    settings: Sequence[Any] = (),
    listener: Listener | None = None,
    command: Sequence[str] | None = None,
    **keywords: Any,
) -> Optimized:
    """See `vitrim.api.optimize`."""
    wishes, listener = wishes_from(keywords, settings), listener or Silence()
    final = Path(os.path.abspath(out))
    refuse_over_inputs(final, files_of(source, wishes))
    refuse_foreign(final)
    no_engine = engine_missing(wishes.target, wishes.engine.mode)
    publish.sweep(final)
    listener.stage("the ONNX file")
    opened = open_model(source, wishes.batch, output)
    images = open_source(wishes, opened, listener)
    with tempfile.TemporaryDirectory(prefix="vitrim-") as work:
        run = Work(wishes, opened, images, Path(work), listener)
        parts = run.parts()
        if not parts.parity.passed:
            raise ParityError(parts.parity.failure)
        listener.stage("bundle")
        staging = publish.staging_folder(final)
        try:
            done = pack_optimized(wishes, opened, parts, Path(source), staging, no_engine, list(command or sys.argv))
            publish_bundle(staging, final)
        finally:
            publish.discard(staging, final)
    tell_published(listener, final)
    done = done.at(final)
    if done.bench is not None and done.bench.fails and not wishes.bench.allow_slower:
        error = NotFasterError(
            f"{final} is published, but the optimised graph is {done.verdict}; allow it with --allow-slower"
        )
        error.result = done
        raise error
    return done


@dataclass(frozen=True)
class Images:
    """Images of a run.

    Attributes:
        source: what ranges are measured on.
        first: [n, channels, height, width] float32 in whole batches, for the proof.
        named: whether they were given.
    """

    source: ImageSource
    first: np.ndarray
    named: bool


def open_source(wishes: Wishes, opened: Opened, listener: Listener) -> Images:
    """The images that were named, or random ones.

    Raises:
        InputError: they are not the model's input.
        EnvironmentLackError: photos, without what turns them into inputs.
    """
    section, batch = wishes.images, opened.shape[0]
    count = whole_batches(max(wishes.parity.images, wishes.parity.golden), batch)
    preprocess = wishes.preprocess_for(opened.shape)
    if section is None or section.path is None:
        seed = 0 if section is None else section.seed
        noise = np.random.default_rng(seed).standard_normal((count, *opened.shape[1:]), dtype=np.float32)
        return Images(ArrayImages(noise, None, preprocess, f"noise(seed={seed})"), noise, False)
    source = open_images(
        section.path,
        preprocess,
        count=section.count,
        every=section.every,
        offset=section.offset,
        note=listener.note,
    )
    if isinstance(source, Photos) or (isinstance(source, ArrayImages) and source.pixels.dtype == np.uint8):
        _require_photos(opened)
        if wishes.preprocess.mean is None:
            listener.note("photos are normalized with ImageNet's mean and deviation; the file cannot say its own")
    found = read_some(source, choose(len(source), count=min(count, len(source))))
    return Images(source, np.resize(found, (whole_batches(len(found), batch), *found.shape[1:])), True)


def _require_photos(opened: Opened) -> None:
    """Photos go to colour or gray images with channels first, by timm's transform."""
    if opened.shape[1] not in (1, 3):
        raise InputError(f"the input is {list(opened.shape)}, whose channels do not come first; give images as an .npz")
    try:
        import timm.data  # noqa: F401
    except ImportError as error:
        raise EnvironmentLackError(
            "photos become inputs by timm's transform, and timm is not installed: pip install 'vitrim[model]', or give "
            "preprocessed images in an .npz"
        ) from error


@dataclass
class Work:
    """One walk from an opened file to what a bundle holds.

    Attributes:
        wishes, opened, images: what is asked for, and of what.
        folder: for graphs on the way.
        listener: hears progress.
    """

    wishes: Wishes
    opened: Opened
    images: Images
    folder: Path
    listener: Listener

    def parts(self) -> Parts:
        """Do everything in order."""
        self.listener.stage("reference")
        expected = {ANSWER: self.reference()}
        self.listener.stage("passes")
        dense, float32, passes, left_out = self.rewritten(self.images.first[: self.opened.shape[0]])
        final, held, precision = float32, float32, None
        if self.wishes.precision.name != "fp32":
            self.listener.stage("precision")
            final, held, precision = self.narrowed(float32)
        self.listener.stage("parity")
        parity = self.climb(expected, float32, held)
        graphs = {Kind.DENSE: dense, Kind.PRUNED: final}
        if final != float32:
            graphs[Kind.FP32] = float32
        bench = None
        if parity.passed:
            self.listener.stage("bench")
            bench = self.timed(graphs, precision)
        count = min(len(self.images.first), whole_batches(self.wishes.parity.golden, self.opened.shape[0]))
        golden = {"image": self.images.first[:count], ANSWER: expected[ANSWER][:count]}
        return Parts(graphs, golden, passes, left_out, parity, precision, bench, self.images.named)

    def reference(self) -> np.ndarray:
        """The file's own answers, [n, numbers]."""
        run, batch = file_runner(self.opened), self.opened.shape[0]
        return run_all(run, self.images.first, batch, self.listener.progress)[ANSWER]

    def rewritten(self, image: np.ndarray) -> tuple[Path, Path, dict[str, Any], tuple[str, ...]]:
        """The file with static shapes, and rewritten for the target in the attention form that is faster here.

        Returns:
            both graphs' files, the reports of the passes, and which of them do not hold on this graph.
        """
        target, weights = self.wishes.target, self.opened.weights
        model, left_out, graphs = self.opened.folded, list[str](), dict[tuple[str, str], Path]()
        reports: dict[str, Any] = {}
        passes: list[PassReport] = []
        with WeightStore(self.folder / "passes") as store:
            store.save(self.opened.model, Kind.DENSE.filename, weights)
            for form in forms_for(target, self.wishes.export.attention):
                fused = form == "fused"
                rewritten, more = rewrite(
                    model,
                    target,
                    {IMAGE: image},
                    fused_attention=fused,
                    precision=self.wishes.precision.name,  # type: ignore[arg-type]  # auto was refused
                    weights=weights,
                    left_out=left_out.append,
                )
                if fused and not any(each.count for each in more if each.name == FUSED_ATTENTION.name):
                    break
                model, passes = rewritten, [*passes, *(each for each in more if each.count or not passes)]
                require_fit(model, target, "the graph")
                store.save(model, f"pruned.{form}.onnx", weights)
                graphs["pruned", form] = self.folder / "passes" / f"pruned.{form}.onnx"
                reports[form] = {
                    "passes": [report.to_dict() for report in passes],
                    "operators_before": operator_table(self.opened.model),
                    "operators_after": operator_table(model),
                }
        left_out = list(dict.fromkeys(left_out))  # both forms may say the same
        for text in left_out:
            self.listener.note(text)
        chosen = self.faster_form(graphs)
        dense = self.folder / "passes" / Kind.DENSE.filename
        return dense, graphs["pruned", chosen], {f"pruned.{chosen}": reports[chosen]}, tuple(left_out)

    def faster_form(self, graphs: dict[tuple[str, str], Path]) -> str:
        """The attention form that runs faster here, of those that this graph has.

        Raises:
            InputError: it has not the one that was asked for.
        """
        if not graphs:
            raise InputError("export.attention is fused, but no attention of this graph fits onnxruntime's; take auto")
        if len(graphs) == 1:
            return next(iter(graphs))[1]
        return str(choose_form(graphs, self.wishes.bench.threads)[0]["pruned"]["form"])

    def narrowed(self, float32: Path) -> tuple[Path, Path, PrecisionReport]:
        """The graph in the precision asked for, and what stands for it where a CPU proves it."""
        folder, wishes = self.folder / "precision", self.wishes
        preprocess = wishes.preprocess_for(self.opened.shape)
        folder.mkdir()
        if not self.images.named:
            self.listener.note(f"{wishes.precision.name}: ranges are measured on random images; give your own")
        threads = wishes.bench.threads
        sources = {"pruned": float32}
        write_precision(
            wishes.precision, sources, wishes.target, self.images.source, preprocess, threads, folder, self.listener
        )
        report = PrecisionReport.read(folder / layout.PRECISION, "precision report")
        made, emulated = folder / "pruned.onnx", folder / f"pruned{EMULATED}"
        final = made if made.exists() else float32
        return final, emulated if emulated.exists() else final, report

    def climb(self, expected: Outputs, float32: Path, held: Path) -> Parity:
        """The ladder: the graph with all passes, and in its precision, against the file's own answers."""
        section, target, threads = self.wishes.parity, self.wishes.target, self.wishes.bench.threads
        cpu_only, limits = None, None

        def run(path: Path) -> Outputs:
            nonlocal cpu_only
            runner, cpu_only = runner_for(path, target, threads)
            return run_all(runner, self.images.first, runner.batch, self.listener.progress)

        name = f"onnx: rewritten for {target.name}"
        rungs: list[Rung] = [compare(name, expected, run(float32), atol=section.atol, tie=section.tie)]
        if held != float32:
            wanted = limits_of(self.wishes.precision)
            limits = Limits(wanted.cosine, wanted.agreement)
            name = f"onnx: in {self.wishes.precision.name}"
            rungs.append(close(name, expected, run(held), cosine=limits.cosine, agreement=limits.agreement))
        return Parity(section.atol, section.tie, tuple(rungs), limits, cpu_only)

    def timed(self, graphs: dict[Kind, Path], precision: PrecisionReport | None) -> Bench | None:
        """The file and the graph made of it, interleaved; None where the target does not run here."""
        section, target = self.wishes.bench, self.wishes.target
        away = target.runtime == "tensorrt" or not_here(graphs[Kind.DENSE], target, section.threads) is not None
        if away and not section.here:
            return None
        name: Precision = "fp32" if precision is None else precision.name
        kept = {Kind.PRUNED: name}
        if unable(target, name):
            kept, graphs = {}, {Kind.DENSE: graphs[Kind.DENSE], Kind.PRUNED: graphs[Kind.FP32]}
        timed = {str(kind): Graph(path, kept.get(kind, "fp32")) for kind, path in graphs.items()}
        timing = Timing(section.runs, section.warmup, section.threads)
        return bench_graphs(timed, timing, target, self.listener.progress)
