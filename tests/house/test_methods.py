"""Nothing outside exporter/pruning/methods/ knows a pruning method by its name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from vitrim.exporter.pruning.methods import CLASSES, DEFAULT, FLOOR, METHODS

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "exporter" / "pruning" / "methods"
# The same word for something else: a key of a pass's findings, and where a recipe's weights come from.
OTHER_THINGS = {
    ("exporter/graph/passes/scatter_to_matmul.py", "uniform"),
    ("recipes/schema/sections/inputs.py", "random"),
    ("recipes/schema/load.py", "random"),
    ("recipes/profile/run.py", "random"),  # weights
    ("recipes/pipeline/readme.py", "slice"),  # what a kernel does
    ("exporter/runtime/tensorrt/inventory.py", "slice"),
    ("terminal/screens/kernels.py", "slice"),
    ("exporter/pruning/checkpoints/standins.py", "slice"),  # Python's own
}
ENGLISH = {"random", "uniform", "slice"}  # a text may have these words; alone between quotes they are names


def sources() -> list[Path]:
    folders = [
        path for name in ("exporter", "calibration", "recipes", "terminal") for path in (ROOT / name).rglob("*.py")
    ]
    return sorted(path for path in [*folders, *ROOT.glob("*.py")] if HOME not in path.parents)


def named(text: str) -> Iterator[str]:
    """Methods that some source names: in a text that is no docstring, or by importing their file."""
    tree = ast.parse(text)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and said(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            words = set(re.findall(r"\w+", node.value))
            yield from (name for name in METHODS if name == node.value or (name in words and name not in ENGLISH))
        if isinstance(node, ast.ImportFrom) and "methods" in (node.module or "").split("."):
            last = (node.module or "").split(".")[-1]
            files = {type(method).__module__.split(".")[-1]: name for name, method in METHODS.items()}
            yield from (files[part] for part in (last, *(alias.name for alias in node.names)) if part in files)


def said(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return bool(node.body) and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)


def test_no_method_is_known_by_name_outside_its_home() -> None:
    assert len(sources()) > 100
    found = {(path.relative_to(ROOT).as_posix(), name) for path in sources() for name in named(path.read_text("utf-8"))}
    assert found - OTHER_THINGS == set()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('if method == "ppt": pass', ["ppt"]),
        ('TEMPLATE = """\nmethod: zero_tprune\n"""', ["zero_tprune"]),
        ("from ...exporter.pruning.methods.ppt import significance", ["ppt"]),
        ("from ..pruning.methods import tome", ["tome"]),
        ('x = "slice"', ["slice"]),
        ('x = "a random seed"', []),
        ('"""Such as ppt."""\ndef f():\n    """Like "tome"."""', []),
        ("from ..pruning.methods.base import Method", []),
    ],
)
def test_a_name_would_be_found(text: str, names: list[str]) -> None:
    assert list(named(text)) == names


def test_the_list_is_whole_and_its_two_roles_are_in_it() -> None:
    assert [type(method) for method in METHODS.values()] == list(CLASSES)
    assert (DEFAULT, FLOOR) == ("frugal", "slice")
    assert {DEFAULT, FLOOR} <= set(METHODS)
    titles = [preset.name for method in METHODS.values() for preset in method.presets]
    assert len(titles) == len(set(titles)) == 26
    written = {path.stem for path in HOME.glob("*.py") if re.search(r"^class \w+\(Method\)", path.read_text(), re.M)}
    assert written == {type(method).__module__.split(".")[-1] for method in METHODS.values()}  # none is forgotten
