"""vitrim's own sources: which modules one of them runs, and a hash of all of those."""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]  # the package itself


def closure(name: str) -> list[str]:
    """A module and every module of the package that it imports, wherever in it, and so on.

    Imports that only a type checker sees do not count.

    Args:
        name: dotted and below the package, such as `exporter.graph.trace`.
    """
    found = {name}
    waiting = [name]
    while waiting:
        fresh = [other for other in imports_of(waiting.pop()) if other not in found]
        found.update(fresh)
        waiting += fresh
    return sorted(found)


def digest(name: str) -> str:
    """Hex SHA-256 over the sources of a module's `closure`: it changes when any code that the module runs does."""
    whole = hashlib.sha256()
    for module in closure(name):
        whole.update(f"{module}:{_hash_of(module)};".encode())
    return whole.hexdigest()


def path_of(name: str) -> Path:
    """The file of a module, of a package its `__init__.py`; it may not exist."""
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def imports_of(name: str) -> tuple[str, ...]:
    """Modules of the package that one module imports relatively."""
    path = path_of(name)
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    named = []
    for node in _running(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            named += [".".join([*base, *more]) for more in ([], *([alias.name] for alias in node.names))]
    return tuple(sorted({one for one in named if one and path_of(one).is_file()} - {name}))


def _running(node: Any) -> list[Any]:
    """All nodes of a syntax tree but those under `if TYPE_CHECKING`."""
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for other in child.orelse:
                found += [other, *_running(other)]
            continue
        found += [child, *_running(child)]
    return found


@functools.cache
def _hash_of(name: str) -> str:
    return hashlib.sha256(path_of(name).read_bytes()).hexdigest()
