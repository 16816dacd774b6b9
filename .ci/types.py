"""mypy over the package under its installed name: the repository root is the package, so it needs such a link."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

root = Path(__file__).resolve().parent.parent
with tempfile.TemporaryDirectory() as folder:
    (Path(folder) / "vitrim").symlink_to(root)
    packages = ["vitrim.exporter", "vitrim.calibration", "vitrim.recipes", "vitrim.terminal"]
    modules = ["vitrim.cli", "vitrim.api"]
    command = [sys.executable, "-m", "mypy", "--config-file", str(root / "pyproject.toml")]
    command += [word for name in packages for word in ("-p", name)] + [
        word for name in modules for word in ("-m", name)
    ]
    environment = {**os.environ, "MYPYPATH": folder, "MYPY_CACHE_DIR": str(root / ".mypy_cache")}
    sys.exit(subprocess.run(command, cwd=folder, env=environment, check=False).returncode)
