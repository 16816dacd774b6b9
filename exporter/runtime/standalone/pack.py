"""run_on_device.py: the torch-free runtime as one file that needs no vitrim, only Python 3.8, numpy and a runtime.

It is not written but put together from the package's own modules, as they are, so its numbers and verdicts are theirs.
"""

from __future__ import annotations

from pathlib import Path

from .... import __version__
from ...core import layout
from ...core.sources import closure, path_of

_ENTRY = "runtime.standalone.main"

_HEAD = '''#!/usr/bin/env python3
"""Builds, checks and times this bundle on the machine it lies on, by vitrim {version}; vitrim itself is not needed.

    python3 out/run_on_device.py info      what machine this is
    python3 out/run_on_device.py build     build model.engine with this machine's TensorRT, and prove it
    python3 out/run_on_device.py check     the files against their hashes, engine or graph against PyTorch's outputs
    python3 out/run_on_device.py bench     dense, pruned and floor, interleaved; -o bench.json keeps the result
    python3 out/run_on_device.py table     of a folder of `vitrim profile --pack`: what tokens cost; -o table.json

It takes Python 3.8 or newer, numpy, and what the target names: CUDA's runtime library and TensorRT 8.5 to 11 or
TensorRT for RTX; or openvino or onnxruntime, for which nothing is built. It changes no clocks and goes to no network.
Below are the modules of vitrim that do it, as they are in the package, each as text that Python imports.
"""

import sys

# Python looks for modules first in the folder of the script that it runs, where a numpy.py or json.py would be run
# before any hash is looked at. So that folder goes from the path before anything else is imported; `sys` and the
# system's module are part of Python itself.
_system = __import__("nt" if "nt" in sys.builtin_module_names else "posix")


def _same(entry, folder):
    try:
        one, other = _system.stat(entry or "."), _system.stat(folder or ".")
    except (OSError, ValueError, TypeError):
        return False
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


_cut = max(__file__.rfind("/"), __file__.rfind(chr(92)))
_first = sys.path[:1] if __name__ == "__main__" and not getattr(sys.flags, "safe_path", sys.flags.isolated) else []
_homes = [__file__[: _cut + 1], *_first]  # by a link, and of the file itself
sys.path = [entry for entry in sys.path if not any(_same(entry, home) for home in _homes)]

import builtins
import functools
import importlib.abc
import importlib.util
import itertools
from pathlib import Path

_SOURCES = {{}}
'''

_TAIL = '''

def _zip(*iterables, strict=False):
    """zip with `strict`, which Python 3.8 and 3.9 lack."""
    if not strict:
        return builtins.zip(*iterables)
    return _zip_strict(iterables)


def _zip_strict(iterables):
    nothing = object()
    for row in itertools.zip_longest(*iterables, fillvalue=nothing):
        if any(value is nothing for value in row):
            raise ValueError("zip() arguments are of different lengths")
        yield row


class _Embedded(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports the modules of `_SOURCES`."""

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name in _SOURCES else None

    def is_package(self, name):
        return any(other.startswith(name + ".") for other in _SOURCES)

    def get_source(self, name):
        return _SOURCES[name]

    def exec_module(self, module):
        if sys.version_info < (3, 10):
            module.zip = _zip
        super().exec_module(module)


if sys.version_info < (3, 9):
    functools.cache = functools.lru_cache(maxsize=None)
sys.meta_path.insert(0, _Embedded())

if __name__ == "__main__":
    from {entry} import main

    sys.exit(main(sys.argv[1:], Path(__file__).resolve().parent))
'''
_PACKAGE = "vitrim_on_device"


def source() -> str:
    """The text of run_on_device.py."""
    parts = [_HEAD.format(version=__version__)]
    names = modules()
    packages = {name.rpartition(".")[0] for name in names}
    for package in sorted({"", *packages, *(name.rpartition(".")[0] for name in packages)}):
        parts.append(f'_SOURCES["{".".join(filter(None, (_PACKAGE, package)))}"] = ""\n')
    for name in names:
        text = path_of(f"exporter.{name}").read_text(encoding="utf-8")
        assert "'''" not in text, f"{name} cannot be embedded: it holds three single quotes"
        line = f"# {'-' * 12} {name} {'-' * (100 - len(name))}"
        parts.append(f"{line}\n_SOURCES[\"{_PACKAGE}.{name}\"] = r'''{text}'''\n")
    return "\n".join(parts) + _TAIL.replace("{entry}", f"{_PACKAGE}.{_ENTRY}")


def modules() -> list[str]:
    """Names below `exporter` of every module that the entry imports, itself and what those import included."""
    found = closure(f"exporter.{_ENTRY}")
    return [name.partition(".")[2] for name in found if path_of(name).name != "__init__.py"]


def write(folder: Path) -> Path:
    """Write run_on_device.py into a bundle that is being made.

    Returns:
        the file.
    """
    path = folder / layout.STANDALONE
    path.write_text(source(), encoding="utf-8")
    return path
