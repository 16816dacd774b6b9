"""From names of class folders to class indices: numbers, WNIDs, names in order, or a file that says it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from ...exporter.core.errors import InputError
from ...exporter.core.inputs import InputKind, read_json, read_text
from .folders import Tree, shown, some

_NUMBER, _WNID = re.compile(r"[0-9]{1,18}"), re.compile(r"(n[0-9]{8})([^0-9].*)?", re.DOTALL)
_SPLIT = re.compile(
    r"(train|training|val|valid|validation|test|testing|dev|eval|evaluation)([-_ ]?(set|data|split|images|[0-9]+))?",
    re.IGNORECASE,
)
_THOUSAND = 1000  # classes of imagenet-1k
_STRAY = 0.1  # share of pictures beside class folders up to which they are strays


@dataclass(frozen=True)
class Placing:
    """Which class every folder is.

    Attributes:
        said: the decision in one line for a person.
        indices: class index by folder name; None where nothing decides.
        by: what decided.
    """

    said: str
    indices: Mapping[str, int] | None = None
    by: Literal["number", "WNID", "name", "file", None] = None


@dataclass(frozen=True)
class Labelled:
    """Pictures of a tree with their class indices.

    Attributes:
        paths: the pictures, in a fixed order.
        labels: [pictures] int64; None where there are none.
        notes: how that came about, for a person.
    """

    paths: list[Path]
    labels: np.ndarray | None
    notes: tuple[str, ...] = ()


def label_tree(tree: Tree, classes: int, file: str | None = None, where: str = "images") -> Labelled:
    """Label the pictures of a tree by its folders.

    Args:
        tree: the listed folder.
        classes: of the model.
        file: a class file, which decides everything.
        where: section of the recipe, for messages.

    Raises:
        InputError: the folders are `train`, `val` and the like, or the class file does not fit.
    """
    given = None if file is None else Placing(f"placed by {file}", read_classes(file, classes, where), "file")
    if not tree.inside:
        if given is not None:
            raise InputError(f"{where}.classes: {tree.root} has no class folders with pictures to place by {file}")
        return Labelled(tree.pictures, None)
    _refuse_splits(tree, given, where)
    placing, name_of = _deciding(tree, classes, given, where)
    if placing.indices is None:
        advice = f"give {where}.classes, a file of the folders' names in class order"
        return Labelled(tree.pictures, None, (f"no labels: {placing.said}; {advice}",))
    if given is None and len(tree.flat) > _STRAY * len(tree.pictures):
        said = f"no labels: {len(tree.flat)} of {len(tree.pictures)} pictures lie beside the class folders"
        return Labelled(tree.pictures, None, (said,))
    notes = [f"labels: {placing.said}"]
    if tree.flat:
        names = some([path.name for path in tree.flat])
        notes.append(f"left out of {tree.root}: {len(tree.flat)} pictures beside the class folders: {names}")
    labels = np.array([placing.indices[name_of(path)] for path in tree.inside], dtype=np.int64)
    return Labelled(tree.inside, labels, tuple(notes))


def place(names: Sequence[str], classes: int) -> Placing:
    """Class indices of folders by what their names are.

    Numbers are the indices. WNIDs stand in timm's list of the model's ImageNet. Other names are taken in order where
    there are as many as classes, and where sorting as text (torchvision) and by the numbers in it (timm) agree.
    """
    if all(_NUMBER.fullmatch(name) for name in names):
        return _by_number(names, classes)
    if all(_WNID.fullmatch(name) for name in names):
        listed = _by_wnid(names, classes)
        if listed is not None:
            return listed
    if len(names) != classes:
        folders = "1 folder does" if len(names) == 1 else f"{len(names)} folders do"
        return Placing(f"{folders} not name the model's {classes} classes")
    order = sorted(names)
    other = sorted(names, key=_natural)
    if order != other:
        one, two = next(pair for pair in zip(order, other, strict=True) if pair[0] != pair[1])
        return Placing(f"the folders' names have two orders, with {shown(one)} before {shown(two)} and after it")
    ends = f"{shown(order[0])} = 0" + (f" to {shown(order[-1])} = {classes - 1}" if classes > 1 else "")
    said = f"{len(names)} folders in order of their names, {ends}"
    return Placing(said, {name: index for index, name in enumerate(order)}, "name")


def _by_number(names: Sequence[str], classes: int) -> Placing:
    found = {name: int(name) for name in names}
    if len(set(found.values())) < len(found):
        return Placing("two folders are the same number, with and without zeros before it")
    highest = max(found.values())
    if highest >= classes:
        from_one = " (do they count from 1?)" if highest == classes and min(found.values()) == 1 else ""
        return Placing(f"the folder {highest} is none of the model's classes 0 to {classes - 1}{from_one}")
    folders = "1 folder" if len(found) == 1 else f"{len(found)} folders"
    return Placing(f"{folders} named by number, class = name", found, "number")


def _by_wnid(names: Sequence[str], classes: int) -> Placing | None:
    """None where timm is not here, or has no ImageNet of so many classes."""
    subset, listed = _synsets(classes)
    if listed is None:
        return None
    known = {name: index for index, name in enumerate(listed)}
    found = {name: name[:9] for name in names}  # without a class's words, as in n02085620-Chihuahua
    foreign = [name for name, wnid in found.items() if wnid not in known]
    if foreign:
        return Placing(f"{len(foreign)} of {len(names)} WNIDs are not in {subset}, such as {shown(foreign[0])}")
    said = f"{len(names)} folders named by WNID, class = place in timm's list of {subset}"
    return Placing(said, {name: known[wnid] for name, wnid in found.items()}, "WNID")


def _synsets(classes: int) -> tuple[str, list[str] | None]:
    """timm's name of the ImageNet of so many classes, and its WNIDs in order.

    The usual thousand are read from the file in its folder: importing timm imports PyTorch.
    """
    found = find_spec("timm")
    if found is None or found.origin is None:
        return "", None
    plain = Path(found.origin).parent / "data" / "_info" / "imagenet_synsets.txt"
    if classes == _THOUSAND and plain.is_file():
        return "imagenet-1k", plain.read_text("utf-8").split()
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": classes})
    return str(subset), None if subset is None else ImageNetInfo(subset).label_names()


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts numbers in a name by their value, and letters of both cases alike."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts if part]


def _deciding(tree: Tree, classes: int, given: Placing | None, where: str) -> tuple[Placing, Callable[[Path], str]]:
    """What places the pictures, and the name of a picture's class folder: its outermost one, or the innermost."""
    depth = len(tree.root.parts)

    def outermost(path: Path) -> str:
        return path.parts[depth]

    def innermost(path: Path) -> str:
        return path.parent.name

    filled = [name for name, paths in tree.folders.items() if paths]
    inner = sorted({innermost(path) for path in tree.inside})
    if given is not None:
        return _by_file(given, filled, inner, where), outermost if _covers(given, filled) else innermost
    whole = sorted({*filled, *tree.empty})
    outer = place(whole if len(whole) == classes else filled, classes)
    if all(len(path.parts) == depth + 2 for path in tree.inside):
        return outer, outermost
    deep = place(inner, classes)
    if outer.by == deep.by == "number":
        return Placing("folders are named by number at two depths"), outermost
    if deep.by is not None and (outer.by is None or (deep.by == "WNID" and outer.by != "WNID")):
        return Placing(f"{deep.said} (the innermost folders)", deep.indices, deep.by), innermost
    if outer.by is None:
        return outer, outermost
    return Placing(f"{outer.said} (the outermost folders)", outer.indices, outer.by), outermost


def _covers(placing: Placing, names: Sequence[str]) -> bool:
    return placing.indices is not None and set(names) <= placing.indices.keys()


def _by_file(given: Placing, outer: Sequence[str], inner: Sequence[str], where: str) -> Placing:
    if _covers(given, outer) or _covers(given, inner):
        used = outer if _covers(given, outer) else inner
        return Placing(f"{len(used)} folders {given.said}", given.indices, given.by)
    assert given.indices is not None
    foreign = [name for name in outer if name not in given.indices]
    raise InputError(
        f"{where}.classes: {len(foreign)} of {len(outer)} folders are not {given.said}: {some(foreign)}; "
        "add their names, or take the folders away"
    )


def _refuse_splits(tree: Tree, given: Placing | None, where: str) -> None:
    """Refuse `train`, `val` and the like as classes, unless a class file names them."""
    filled = [name for name, paths in tree.folders.items() if paths]
    splits = [name for name in filled if _SPLIT.fullmatch(name)]
    if not splits or (len(splits) == 1 and len(filled) > 1) or (given is not None and _covers(given, filled)):
        return
    offered = " or ".join(str(tree.root / name) for name in splits[:2])
    raise InputError(f"{where}.path: {tree.root} holds {' and '.join(splits)}, which are no classes; give {offered}")


def read_classes(file: str, classes: int, where: str = "images") -> dict[str, int]:
    """A class file: names in class order, one a line or as a JSON list, or a JSON mapping from names to indices.

    Returns:
        class index by name.

    Raises:
        InputError: it cannot be read, has another form, or does not fit the model's classes.
    """
    if file.lower().endswith(".json"):
        data = read_json(file, "list of class names", "vitrim")
    else:
        text = read_text(file, InputKind.CLASSES).lstrip("\ufeff")  # which Windows' editor puts first
        data = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(data, list):
        return _listed(data, classes, f"{where}.classes: {file}")
    if isinstance(data, dict):
        return _mapped(data, classes, f"{where}.classes: {file}")
    raise InputError(f"{where}.classes: {file} is no JSON list of names and no mapping from names to indices")


def _listed(names: list[object], classes: int, where: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise InputError(f"{where}: entry {index} is no name; list the folders' names in class order")
        if name in found:
            raise InputError(f"{where}: {shown(name)} stands twice; list every folder's name once, in class order")
        found[name] = index
    if len(found) != classes:
        raise InputError(
            f"{where} has {len(found)} names, and the model {classes} classes; a JSON mapping from names to indices "
            "may have fewer"
        )
    return found


def _mapped(data: dict[str, object], classes: int, where: str) -> dict[str, int]:
    """Names to indices; also indices to names, as model configurations have them."""
    if data and all(isinstance(value, str) and _NUMBER.fullmatch(key) for key, value in data.items()):
        turned: dict[str, object] = {str(name): int(index) for index, name in data.items()}
        if len(turned) < len(data):
            raise InputError(f"{where}: two indices have the same name; give every folder's name its own")
        data = turned
    for name, index in data.items():
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < classes:
            raise InputError(
                f"{where}: {shown(name)} is {shown(str(index))}; indices are integers from 0 to {classes - 1}"
            )
    if not data:
        raise InputError(f"{where} names no class")
    return {name: index for name, index in data.items() if isinstance(index, int)}
