"""The pictures of a folder and of the folders in it, and what lies there that is no picture."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from ...exporter.core.files import explain_read_error

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
# What systems and archivers leave behind; some of it, such as @eaDir, holds small copies of the pictures.
_LEFTOVERS = {
    "__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information", "lost+found",
    "__pycache__",
}  # fmt: skip
_NAMED, _LONGEST = 3, 60


@dataclass
class Tree:
    """What a folder holds.

    Attributes:
        root: the folder.
        flat: pictures in it.
        folders: by name of a folder in it, the pictures below that, at any depth.
        empty: names of folders that hold nothing at all.
        skipped: what is no picture, by its path below the root; folders end in a slash.
    """

    root: Path
    flat: list[Path] = field(default_factory=list)
    folders: dict[str, list[Path]] = field(default_factory=dict)
    empty: set[str] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)

    @property
    def inside(self) -> list[Path]:
        """Pictures in folders, in order of the folders."""
        return [path for paths in self.folders.values() for path in paths]

    @property
    def pictures(self) -> list[Path]:
        """All pictures, those in folders first."""
        return self.inside + self.flat

    def skipped_words(self) -> str | None:
        """What is no picture, counted and named for a person; None where there is nothing such."""
        if not self.skipped:
            return None
        total = len(self.skipped) + len(self.flat) + sum(map(len, self.folders.values()))
        verb = "is no picture" if len(self.skipped) == 1 else "are no pictures"
        return f"{len(self.skipped):,} of {total:,} files in {self.root} {verb}: {some(self.skipped)}"


def some(names: list[str]) -> str:
    """The first few of many names, for a message."""
    return ", ".join(map(shown, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")


def shown(name: str) -> str:
    """A name from a disk or file in a message: cut, and without what moves a terminal's cursor."""
    cut = name[:_LONGEST] + "..." * (len(name) > _LONGEST)
    return cut if cut.isprintable() else ascii(cut)


def list_tree(root: Path) -> Tree:
    """List a folder; links to folders are followed at its top only, so that a link cannot lead in a circle.

    Raises:
        InputError: a folder cannot be read.
    """
    tree = Tree(root)
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise explain_read_error(error, root) from error
    for entry in entries:
        if is_leftover(entry.name):
            tree.skipped.append(entry.name + "/" * entry.is_dir())
        elif entry.is_dir():
            before = len(tree.skipped)
            found = tree.folders[entry.name] = sorted(_walk(entry, tree))
            if not found and len(tree.skipped) == before:
                tree.empty.add(entry.name)
        elif _is_picture(entry):
            tree.flat.append(entry)
        else:
            tree.skipped.append(entry.name)
    return tree


def _walk(top: Path, tree: Tree) -> list[Path]:
    """Pictures at any depth."""

    def fail(error: OSError) -> None:
        raise explain_read_error(error, error.filename or top) from error

    found = []
    for folder, inner, files in os.walk(top, onerror=fail):
        here = Path(folder)
        aside = [name for name in inner if is_leftover(name) or (here / name).is_symlink()]
        inner[:] = sorted(set(inner) - set(aside))
        tree.skipped += [f"{(here / name).relative_to(tree.root)}/" for name in sorted(aside)]
        for name in sorted(files):
            path = here / name
            if not is_leftover(name) and _is_picture(path):
                found.append(path)
            else:
                tree.skipped.append(str(path.relative_to(tree.root)))
    return found


def files_in(path: Path, suffix: str) -> list[Path]:
    """The files of a kind that a path names: itself, or those in a folder; none where there are none."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() == suffix and not is_leftover(file.name))
    return [path] if path.suffix.lower() == suffix else []


def is_leftover(name: str) -> bool:
    """Whether a name is one that systems and archivers leave behind, or hidden."""
    return name.startswith(".") or name.lower() in _LEFTOVERS


def is_picture_name(path: PurePath) -> bool:
    """Whether a name ends as a picture's does."""
    return path.suffix.lower() in SUFFIXES


def _is_picture(path: Path) -> bool:
    return is_picture_name(path) and path.is_file()
