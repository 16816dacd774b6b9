"""Where a Python 3.8 is, which run_on_device.py serves."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def python_38(numpy: bool = True) -> str:
    """A Python 3.8, with numpy if asked for; skips where there is none."""
    places = [os.environ.get("VITRIM_PYTHON38"), shutil.which("python3.8")]
    places += [str(path) for path in sorted(Path.home().glob(".pyenv/versions/3.8*/bin/python"))]
    code = f"import sys{', numpy' if numpy else ''}; assert sys.version_info[:2] == (3, 8)"
    for place in filter(None, places):
        asked = subprocess.run([place, "-c", code], capture_output=True, check=False)
        if asked.returncode == 0:
            return place
    pytest.skip(f"no Python 3.8{' with numpy' if numpy else ''} here (VITRIM_PYTHON38 may name one)")
