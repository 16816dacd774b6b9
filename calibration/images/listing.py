"""What a path of a recipe names: a folder of photos, an ImageFolder tree, an .npz or one photo, listed as a source."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ...exporter.core.errors import InputError
from ...exporter.core.inputs import InputKind, require_file
from ...exporter.core.preprocess import Preprocess
from .arrays import open_npz
from .folders import SUFFIXES, Tree, list_tree
from .labels import Labelled, label_tree
from .photos import PhotoFiles
from .sources import ImageSource, choose


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
    """List a folder, an ImageFolder tree or an .npz.

    Args:
        path: folder of photos, folder of class folders, .npz with `image` and optionally `label`, or one photo.
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
    """
    root = Path(path)
    if not os.path.exists(root):
        raise InputError(
            f"{where}.path: there is no {root}; give a folder of photos, a folder of class folders or an .npz"
        )
    if class_file is not None and not root.is_dir():
        raise InputError(f"{where}.classes names class folders, and {root} is none; take it out")
    if root.suffix == ".npz" and not root.is_dir():
        return open_npz(root, preprocess, classes=classes, count=count, every=every, offset=offset, note=note)
    if not root.is_dir():
        require_file(root, InputKind.PICTURE)
        return PhotoFiles([root], None, preprocess)
    tree = list_tree(root)
    found = Labelled(tree.pictures, None) if classes is None else label_tree(tree, classes, class_file, where)
    chosen = choose(len(found.paths), count=count, every=every, offset=offset)
    if not chosen:
        raise InputError(_nothing(tree, len(found.paths), every, offset, where))
    for text in (tree.skipped_words(), *found.notes):
        if text is not None:
            note(text)
    labels = None if found.labels is None else found.labels[chosen]
    return PhotoFiles([found.paths[i] for i in chosen], labels, preprocess)


def _nothing(tree: Tree, pictures: int, every: int, offset: int, where: str) -> str:
    what = "no images" if not pictures else f"only {pictures} images, none left with every: {every}, offset: {offset}"
    skipped = tree.skipped_words()
    ending = "" if skipped is None else f"; {skipped}"
    return f"{where}.path: {tree.root} holds {what} (looked for {', '.join(sorted(SUFFIXES))}){ending}"
