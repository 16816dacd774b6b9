"""What an installed vitrim holds: every package, and every file that is not Python but is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def tracked() -> list[Path]:
    """Files that git knows, from the root."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(line) for line in listed.stdout.splitlines()]


def test_every_package_is_installed() -> None:
    folders = {path.parent for path in tracked() if path.name == "__init__.py" and path.parts[0] != "tests"}
    names = {".".join(("vitrim", *folder.parts)) for folder in folders}
    assert names == set(SETTINGS["packages"])


def test_every_file_that_is_read_is_installed() -> None:
    wanted = {path for path in tracked() if path.parts[0] == "recipes" and path.suffix != ".py"}
    assert {path.suffix for path in wanted} >= {".yaml", ".json", ".safetensors"}
    installed = {
        found.relative_to(ROOT)
        for package, patterns in SETTINGS["package-data"].items()
        for pattern in patterns
        for found in ROOT.joinpath(*package.split(".")[1:]).glob(pattern)
    }
    assert wanted <= installed
