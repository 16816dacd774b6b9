"""What a path of a recipe names, listed as a source: photos, folders of them, tar and parquet files, or an .npz."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...exporter.core.errors import InputError
from ...exporter.core.inputs import InputKind, require_file
from ...exporter.core.preprocess import Preprocess
from .arrays import check_labels, open_npz
from .folders import SUFFIXES, Tree, files_in, list_tree
from .labels import Labelled, label_tree
from .packed import PackedPhotos
from .parquets import SUFFIX as PARQUET
from .parquets import list_parquets
from .photos import PhotoFiles, Photos
from .sources import ImageSource, choose
from .tars import TAR, list_tars


def open_images(
    path: str | os.PathLike[str],
    preprocess: Preprocess,
    *,
    classes: int | None = None,
    count: int | None = None,
    every: int = 1,
    offset: int = 0,
    class_file: str | None = None,
    where: str = "images",
    note: Callable[[str], None] = lambda text: None,
) -> ImageSource:
    """List what a path names.

    Args:
        path: folder of photos, folder of class folders, .npz with `image` and optionally `label`, a tar or parquet file
            or a folder of such (see `tars`, `parquets`), or one photo.
        preprocess: the model's.
        classes: outputs of the model, to which folders are placed as `labels.place` says; None gives no labels.
        count: how many images, spread evenly; None takes all.
        every: take every n-th image only ...
        offset: ... from this one on, so that calibration and evaluation can be disjoint.
        class_file: which folder is which class, see `labels.read_classes`.
        where: section of the recipe, for messages.
        note: hears how labels came about and which files are no pictures.

    Raises:
        InputError: nothing there, no image, an .npz of another form, or folders that are no classes.
        EnvironmentLackError: pyarrow is missing, which parquet files need.
    """
    root = Path(path)
    if not os.path.exists(root):
        raise InputError(
            f"{where}.path: there is no {root}; give a folder of photos, a folder of class folders or an .npz"
        )
    if root.suffix == ".npz" and not root.is_dir():
        _refuse_class_file(class_file, root, where)
        return open_npz(root, preprocess, classes=classes, count=count, every=every, offset=offset, note=note)
    found = _listed(root, preprocess, classes, class_file, where)
    chosen = choose(len(found.photos), count=count, every=every, offset=offset)
    if not chosen:
        raise InputError(_nothing(found, len(found.photos), every, offset, where))
    for text in found.notes:
        note(text)
    labels = found.photos.labels
    return found.photos.part(chosen, None if labels is None else labels[chosen])


@dataclass(frozen=True)
class Found:
    """What lies at a path.

    Attributes:
        root: the path.
        photos: all of them.
        notes: for a person: how labels came about, what is no picture.
        skipped: what is no picture, in words; None where there is nothing such.
    """

    root: Path
    photos: Photos
    notes: tuple[str, ...] = ()
    skipped: str | None = None


def _listed(root: Path, preprocess: Preprocess, classes: int | None, class_file: str | None, where: str) -> Found:
    tree = list_tree(root) if root.is_dir() else Tree(root)
    if not tree.pictures:
        if parquets := files_in(root, PARQUET):
            _refuse_class_file(class_file, root, where)
            return _of_parquets(root, parquets, preprocess, classes)
        if tars := files_in(root, TAR):
            return _of_tars(root, tars, preprocess, classes, class_file, where)
    if not root.is_dir():
        _refuse_class_file(class_file, root, where)
        require_file(root, InputKind.PICTURE)
        return Found(root, PhotoFiles([root], None, preprocess))
    found = _labelled(tree, classes, class_file, where)
    return _found(tree, found, PhotoFiles(found.paths, found.labels, preprocess))


def _found(tree: Tree, labelled: Labelled, photos: Photos) -> Found:
    skipped = tree.skipped_words()
    return Found(tree.root, photos, (*([skipped] if skipped else []), *labelled.notes), skipped)


def _labelled(tree: Tree, classes: int | None, class_file: str | None, where: str) -> Labelled:
    return Labelled(tree.pictures, None) if classes is None else label_tree(tree, classes, class_file, where)


def _of_tars(
    root: Path, files: Sequence[Path], preprocess: Preprocess, classes: int | None, class_file: str | None, where: str
) -> Found:
    """Photos in tar files, labelled by `.cls` files beside them, or else as unpacked folders would be."""
    listed = list_tars(files)
    if listed.classes is not None:
        _refuse_class_file(class_file, root, where)
        labels = _checked(listed.classes, classes, f"{root}: .cls")
        return Found(root, PackedPhotos(listed.photos, labels, preprocess))
    tree, at = listed.tree(root)
    found = _labelled(tree, classes, class_file, where)
    return _found(tree, found, PackedPhotos([at[path] for path in found.paths], found.labels, preprocess))


def _of_parquets(root: Path, files: Sequence[Path], preprocess: Preprocess, classes: int | None) -> Found:
    photos, labels = list_parquets(files)
    checked = None if labels is None else _checked(labels, classes, f"{root}: labels")
    notes = ("no labels: no column of integers is named label, labels or cls",) if labels is None else ()
    return Found(root, PackedPhotos(photos, checked, preprocess), notes)


def _checked(labels: np.ndarray, classes: int | None, what: str) -> np.ndarray | None:
    """The labels where the model's classes are asked for; -1, which datasets give where they hide them, is none."""
    if classes is None or (labels == -1).all():
        return None
    return check_labels(labels, len(labels), classes, what)


def _refuse_class_file(class_file: str | None, root: Path, where: str) -> None:
    if class_file is not None:
        raise InputError(f"{where}.classes names class folders, and {root} is none; take it out")


def _nothing(found: Found, pictures: int, every: int, offset: int, where: str) -> str:
    what = "no images" if not pictures else f"only {pictures} images, none left with every: {every}, offset: {offset}"
    ending = "" if found.skipped is None else f"; {found.skipped}"
    return f"{where}.path: {found.root} holds {what} (looked for {', '.join(sorted(SUFFIXES))}){ending}"
