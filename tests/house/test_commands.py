"""Commands that the documents show are run as a reader types them, in an empty folder."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from click.testing import CliRunner
from helpers import small_vit
from torch.utils.data import DataLoader, TensorDataset
from warm import vitrim

from vitrim.calibration.images.generated import write_folder
from vitrim.cli import cli
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.runtime.bundles.verify import verify_bundle
from vitrim.exporter.runtime.tensorrt.rtx_build import by_rtx

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "docs/guide.md", "docs/slimming.md")
FIRST = ".venv/bin/vitrim export quickstart -o out/ --set export.target=trt-rtx"
SETUP = ("python3 -m venv .venv", ".venv/bin/pip install -q '.[export,rtx]'")  # what .ci/run does in its own way
HEAVY = {"export", "calibrate", "slim"}  # commands that open a model and look at images


def bash_parts(document: str) -> list[str]:
    """Every command of a document's bash blocks, without comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / document).read_text("utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line.split(" #")[0] for block in blocks for line in block.splitlines()]
    return [part.strip() for line in lines for part in line.split("&&") if part.strip()]


def chains(document: str) -> list[list[str]]:
    """The `vitrim` commands of a document: those that read what another one wrote go with it, others stand alone."""
    found: list[list[str]] = []
    for command in (part for part in bash_parts(document) if part not in SETUP):
        words = command.split()
        wrote = (chain for chain in found if any(reads(words, output) for one in chain for output in outputs(one)))
        chain = next(wrote, None)
        if chain is None:
            found.append([command])
        else:
            chain.append(command)
    return found


def outputs(command: str) -> list[str]:
    words = command.split()
    return [after for word, after in itertools.pairwise(words) if word == "-o"]


def reads(words: list[str], output: str) -> bool:
    """Whether a command's words name what another one wrote, or something in it."""
    return any(word == output or (output.endswith("/") and word.startswith(output)) for word in words)


def items() -> list[Any]:
    return [
        pytest.param(chain, id=f"{document}: {chain[0]}", marks=[pytest.mark.slow] if is_heavy(chain) else [])
        for document in DOCUMENTS
        for chain in chains(document)
    ]


def is_heavy(chain: list[str]) -> bool:
    return any(HEAVY & set(command.split()) for command in chain)


@pytest.mark.slow
@pytest.mark.parametrize("chain", items())
def test_commands_run(chain: list[str], tmp_path: Path) -> None:
    for command in chain:
        done = vitrim(*shlex.split(command)[1:], cwd=tmp_path)
        # 2 says that this machine did not find the small model's graph faster; the run itself must be whole.
        assert done.returncode in (0, 2), f"{command}\n{done.stdout}\n{done.stderr}"
        if "export quickstart" in command:
            assert re.search(r"top-1\s+│?\s*9[5-9]\.\d %|top-1.*(9[5-9]\.\d|100\.0) %", done.stdout), done.stdout
            assert "Parity: passed" in done.stdout
            assert re.search(r"Speed: \S+ ", done.stdout)
        if command == FIRST:
            assert "onnxruntime-cpu, batch 1" in done.stdout  # timed here, whatever it is for
            assert f"\nReport: {tmp_path / 'out.html'}\n" in done.stdout
            assert "<title>out, vitrim report</title>" in (tmp_path / "out.html").read_text("utf-8")
            engine = tmp_path / "out" / "model.engine"
            assert engine.exists() == (by_rtx.missing() is None)
            assert ("Engine: built" if engine.exists() else "pip install 'vitrim[rtx]'") in done.stdout


def python_blocks() -> list[Any]:
    blocks = []
    for document in DOCUMENTS:
        text = (ROOT / document).read_text("utf-8")
        for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)):
            blocks.append(pytest.param(code, id=f"{document}: {number}"))
    return blocks


@pytest.mark.slow
@pytest.mark.parametrize("code", python_blocks())
def test_python_runs_as_written(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a loader, a folder of photos, and a small model in the place of the one that timm would fetch."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "photos", 10, 0, 64)
    hub = {("deit_tiny_patch16_224", True): small_vit("deit_tiny_patch16_224", depth=3)}
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: hub[name, pretrained])
    draw = torch.Generator().manual_seed(0)
    images, labels = torch.randn(6, 3, 64, 64, generator=draw), torch.randint(0, 7, (6,), generator=draw)
    names: dict[str, Any] = {"loader": DataLoader(TensorDataset(images, labels), batch_size=4)}
    exec(compile(code, "README", "exec"), names)
    model, pruned, bundle = (names[name] for name in ("model", "pruned", "bundle"))
    assert isinstance(pruned, torch.nn.Module)
    assert pruned.budget.gmacs["pruned"] <= 0.65 * pruned.budget.gmacs["dense"]
    assert not model.training
    assert bundle.parity.passed
    assert bundle.bench is None  # a Jetson's graph is timed on the Jetson
    assert bundle.precision.asked == "fp16"
    assert get_target(verify_bundle(tmp_path / "out").target) is get_target("jetpack-6")
    assert bundle.recipe.images.path == str(tmp_path / "photos")


def shell_commands() -> list[Any]:
    """`vitrim` commands of blocks that are not run: they name files of the reader, or take long."""
    found = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        blocks = re.findall(r"^```sh\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE)
        for line in re.split(r"\n|&&", "".join(blocks).replace("\\\n", " ")):
            words = shlex.split(line, comments=True)
            names = [at for at, word in enumerate(words) if word.rpartition("/")[2] == "vitrim"]
            found += [pytest.param(words[at + 1 :], id=f"{path.name}: {line.strip()[:60]}") for at in names[:1]]
    return found


@pytest.mark.parametrize("words", shell_commands())
def test_commands_of_other_blocks_can_be_read(words: list[str]) -> None:
    page = CliRunner().invoke(cli, [*words, "--print-python"])
    assert page.exit_code == 0, page.output
    assert page.output.startswith("from vitrim import api")


def test_every_line_of_a_bash_block_is_run() -> None:
    for document in DOCUMENTS:
        commands = [part for part in bash_parts(document) if part not in SETUP]
        assert commands, f"{document} has no bash block"
        assert all(command.startswith(".venv/bin/vitrim ") for command in commands), document
        assert sorted(command for chain in chains(document) for command in chain) == sorted(commands)


def test_what_reads_an_output_is_run_after_it() -> None:
    assert chains("README.md")[0] == [
        FIRST,
        ".venv/bin/vitrim check out/",
        ".venv/bin/vitrim bench out/",
    ]
    together = next(chain for chain in chains("docs/guide.md") if outputs(chain[0]) == ["b2/"])
    assert [command.split()[1] for command in together] == ["export", "inspect", "lint", "check", "clean"]
    assert any(len(chain) == 1 for chain in chains("docs/guide.md"))


def test_the_first_block_is_the_one_command_and_ci_runs_the_tests() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    language, first = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[0]
    assert (language, first) == ("bash", f"{' && '.join((*SETUP, FIRST))}\n")
    assert "bash .ci/run" in "\n".join(text.splitlines()[:12])
    assert "python -m pytest" in (ROOT / ".ci" / "run").read_text()
