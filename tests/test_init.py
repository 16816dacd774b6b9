"""What `import vitrim` promises: names that exist, say what they are, and cost nothing before they are used."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import vitrim

ROOT = Path(vitrim.__file__).parent


@pytest.mark.parametrize("name", vitrim.__all__)
def test_every_name_that_the_package_promises_exists_and_says_what_it_is(name: str) -> None:
    found = getattr(vitrim, name)
    assert callable(found)
    assert found.__name__ == name
    assert found.__module__.startswith("vitrim.")
    assert inspect.cleandoc(vars(found)["__doc__"] if isinstance(found, type) else found.__doc__)
    assert name in dir(vitrim)


def test_type_checkers_see_the_same_names() -> None:
    (block,) = [node for node in ast.parse((ROOT / "__init__.py").read_text()).body if isinstance(node, ast.If)]
    seen = [alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(seen) == vitrim.__all__ == sorted(vitrim.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="^module 'vitrim' has no attribute 'nothing'$"):
        vitrim.nothing  # noqa: B018
    assert {"__version__", "api"} < set(dir(vitrim))


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys, vitrim; print(sorted(name for name in sys.modules if name.startswith('vitrim') or name in "
    code += "('torch', 'numpy', 'timm', 'onnx', 'click', 'pydantic')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['vitrim']"


def test_its_types_ship() -> None:
    assert (ROOT / "py.typed").read_bytes() == b""
