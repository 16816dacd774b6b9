"""How run_on_device.py is put together: which modules, that all of them run on Python 3.8, and what is refused."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vitrim
from vitrim.exporter.core import layout, sources
from vitrim.exporter.runtime.standalone import pack as standalone

HOME = Path(vitrim.__file__).parent / "exporter"


def run(folder: Path, code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


def test_python_38_can_read_it_and_every_module_in_it() -> None:
    ast.parse(standalone.source(), feature_version=(3, 8))
    names = standalone.modules()
    wanted = {"core.errors", "core.records", "runtime.parity", "runtime.bench.stats", "runtime.bundles.manifest"}
    assert wanted | {"runtime.standalone.main"} <= set(names)
    allowed = {"numpy", "tensorrt", "onnxruntime", "openvino", "pynvml", "polygraphy", *sys.stdlib_module_names}
    for name in names:
        tree = ast.parse(sources.path_of(f"exporter.{name}").read_text(encoding="utf-8"), feature_version=(3, 8))
        for node in ast.walk(tree):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert {one.partition(".")[0] for one in imported} <= allowed, name
            operands = [node.left, node.right] if isinstance(node, ast.BinOp) else []
            operands += [node.value] if isinstance(node, ast.AugAssign) else []
            if isinstance(getattr(node, "op", None), ast.BitOr):  # dicts have it from 3.9 on
                assert not any(isinstance(one, (ast.Dict, ast.DictComp)) for one in operands), (name, node.lineno)
            if isinstance(node, ast.Attribute):
                newer = {"removeprefix", "removesuffix", "is_relative_to", "with_stem", "pairwise"}
                assert node.attr not in newer, (name, node.lineno)


def test_what_a_module_imports_is_there_too() -> None:
    names = standalone.modules()
    assert names == sorted(set(names))
    for name in names:
        file = HOME.joinpath(*name.split(".")).with_suffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                for path in (base, *(base / alias.name for alias in node.names)):
                    if path.with_suffix(".py").is_file():
                        assert ".".join(path.relative_to(HOME).parts) in names, (name, path)
    assert not any(name.startswith(("pruning", "graph")) for name in names)
    assert "runtime.doctor" not in names  # what the entry does not use stays out


def test_the_file_holds_every_module_as_it_is(tmp_path: Path) -> None:
    path = standalone.write(tmp_path)
    assert path == tmp_path / layout.STANDALONE
    text = path.read_text()
    assert text == standalone.source()
    assert text.startswith("#!/usr/bin/env python3\n")
    assert f"by vitrim {vitrim.__version__};" in text.splitlines()[1]
    embedded = {
        ast.literal_eval(node.targets[0].slice): ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript)
    }
    whole = {name: source for name, source in embedded.items() if source}
    assert set(whole) == {f"vitrim_on_device.{name}" for name in standalone.modules()}
    for name, source in whole.items():
        file = HOME.joinpath(*name.split(".")[1:]).with_suffix(".py")
        assert source == file.read_text(), name
    packages = {name for name, source in embedded.items() if not source}
    assert {"vitrim_on_device", "vitrim_on_device.core", "vitrim_on_device.runtime.tensorrt"} <= packages


def test_every_module_in_it_can_be_imported_alone(tmp_path: Path) -> None:
    standalone.write(tmp_path)
    code = "import importlib, run_on_device as r; print(len([importlib.import_module(name) for name in r._SOURCES]))"
    assert int(run(tmp_path, code)) > len(standalone.modules())  # and the packages around them


def test_zip_is_strict_on_a_python_that_lacks_it(tmp_path: Path) -> None:
    standalone.write(tmp_path)
    code = """
from run_on_device import _zip
print(list(_zip([1, 2], "ab", strict=True)), list(_zip([1, 2, 3], "ab")), list(_zip(strict=True)))
for rows in (([1, 2], "abc"), ([1, None, 3], "ab")):
    try:
        print(list(_zip(*rows, strict=True)))
    except ValueError as error:
        print(error)
"""
    refused = "zip() arguments are of different lengths\n"
    assert run(tmp_path, code) == "[(1, 'a'), (2, 'b')] [(1, 'a'), (2, 'b')] []\n" + 2 * refused


def test_a_module_that_cannot_be_embedded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("x = '''text'''\n")
    monkeypatch.setattr(standalone, "path_of", lambda name: tmp_path / "a.py")
    monkeypatch.setattr(standalone, "modules", lambda: ["core.a"])
    with pytest.raises(AssertionError, match="core.a cannot be embedded: it holds three single quotes"):
        standalone.source()


def test_imports_inside_functions_and_of_names_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "runtime/standalone/main": "from ...core import files\nfrom ..a import thing\n",
        "core/files": "import json\n",
        "runtime/a": "def f():\n    from .deep.b import g\n    return g\n",
        "runtime/deep/b": "from ..a import f\n",  # a circle
        "runtime/unused": "",
    }
    for name, text in files.items():
        path = tmp_path / "exporter" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    sources.imports_of.cache_clear()
    try:
        assert standalone.modules() == ["core.files", "runtime.a", "runtime.deep.b", "runtime.standalone.main"]
    finally:
        sources.imports_of.cache_clear()
