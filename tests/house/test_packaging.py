"""What an installed vitrim holds: every package, and every file that is not Python but is read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
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


def test_the_types_ship() -> None:
    assert "py.typed" in SETTINGS["package-data"]["vitrim"]
    assert Path("py.typed") in tracked()


def brought(extra: str) -> set[str]:
    """Distributions that an extra names, its own extras followed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: set[str] = set()
    for line in [*project["dependencies"], *project["optional-dependencies"][extra]]:
        own = re.fullmatch(r"vitrim\[([\w,]+)\]", line)
        found |= set().union(*map(brought, own[1].split(","))) if own else {re.match(r"[\w-]+", line)[0]}  # type: ignore[index]
    return found


def test_a_device_needs_no_torch() -> None:
    heavy = {"torch", "timm", "onnx", "onnxscript", "onnx-graphsurgeon", "matplotlib"}
    assert brought("device") == {"click", "numpy", "pydantic", "pyyaml", "rich", "onnxruntime", "polygraphy"}
    assert not (brought("tensorrt") | brought("energy")) & heavy
    assert "nvidia-ml-py" in brought("tensorrt")
    assert heavy <= brought("export")  # the question can be answered with no


@pytest.mark.parametrize(
    ("system", "machine", "there"),
    [
        ("linux", "x86_64", True),
        ("linux", "aarch64", True),
        ("win32", "AMD64", True),
        ("darwin", "arm64", False),
        ("darwin", "x86_64", False),
    ],
)
def test_rtx_installs_everywhere_and_brings_something_where_there_are_wheels(
    system: str, machine: str, there: bool
) -> None:
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["rtx"]
    assert "tensorrt-rtx-cu13" in brought("rtx") & brought("dev")
    here = {"sys_platform": system, "platform_machine": machine}
    markers = [Requirement(line).marker for line in lines]
    assert any(marker is None or marker.evaluate(here) for marker in markers) is there


def test_modelopt_comes_with_its_own_onnxruntime() -> None:
    assert not {"onnxruntime", "onnxruntime-gpu"} & brought("modelopt")  # two in one folder overwrite each other
    assert {"torch", "timm", "nvidia-modelopt"} <= brought("modelopt")


def test_ci_runs_on_every_python_that_the_package_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    matrix = re.search(r"python: \[(.*)\]", workflow)
    assert matrix
    assert re.findall(r"3\.\d+", matrix[1]) == named
    assert project["requires-python"] == f">={named[0]}"
    assert "bash .ci/run" in workflow


def test_containers_install_extras_that_there_are() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    for path in (ROOT / "examples" / "docker").glob("*.Dockerfile"):
        text = path.read_text()
        named = set(re.findall(r"/src\[([^\]]+)\]", text)) | set(re.findall(r"EXTRA=(\w+)", text))
        used = {extra for group in named for extra in group.replace("${EXTRA}", "export").split(",")}
        assert used
        assert used <= extras
        assert all((ROOT / name).exists() for name in re.findall(r"/src/(\S+\.py)", text))
