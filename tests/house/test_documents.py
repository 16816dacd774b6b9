"""What the documents say of the code is true: CONTRIBUTING's method runs, docs/targets.md is the table of data."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from helpers import budget_for, small_vit

from vitrim.exporter.core.targets import HARDWARE, INTEGER_OPERATORS, TARGETS
from vitrim.exporter.pruning import methods
from vitrim.exporter.pruning.vit import PrunedViT

LOWERED = ("LayerNormalization", "Gelu", "Attention", "RMSNormalization")
ROOT = Path(__file__).resolve().parents[2]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_the_contributed_method_works_with_one_registry_line(monkeypatch: pytest.MonkeyPatch) -> None:
    code = blocks("CONTRIBUTING.md", "python")[0]
    assert len(code.splitlines()) <= 30
    module = types.ModuleType(f"{methods.__name__}.longest_values")
    exec(compile(code, "CONTRIBUTING.md", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(methods.METHODS, "longest_values", ("longest_values", "the longest values"))
    model = small_vit()
    pruned = PrunedViT(model, budget_for(model, {1: 9, 2: 5}, "longest_values"))
    with torch.inference_mode():
        trace = pruned.trace(torch.randn(2, 3, 64, 64))
    assert trace.kept[2].shape == (2, 5)
    assert float(trace.gap[1].min()) >= 0


def target_rows() -> list[str]:
    """What docs/targets.md says of every target, from the table of data."""
    rows = []
    for target in TARGETS.values():
        names = ", ".join(f"`{name}`" for name in (target.name, *target.aliases))
        jetsons = ", ".join(f"{name} {major}.{minor}" for name, (major, minor) in target.jetsons)
        lowered = [op for op in LOWERED if op in target.lacks]
        cells = [names, str(target.opset), ", ".join(target.precisions), target.typing, jetsons, ", ".join(lowered)]
        rows.append(f"| {' | '.join(cell or '-' for cell in cells)} |")
    return rows


def test_the_page_of_targets_is_the_table_of_data() -> None:
    page = (ROOT / "docs" / "targets.md").read_text()
    for row in target_rows():
        assert row in page.splitlines(), f"docs/targets.md lacks the line\n{row}"
    for target in TARGETS.values():
        for what, link in target.faults:
            assert f"{what} ({link})" in page
    for name, least, _ in HARDWARE:
        assert name == "fp32" or f"| {name} | {least[0]}.{least[1]} |" in page
    assert all(f"`{op}`" in page for op in INTEGER_OPERATORS)
    assert all(f"`{name}`" in (ROOT / "README.md").read_text() for name in ("trt-10.16", "jetpack-7.2"))


def test_no_machine_path_is_published() -> None:
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in names:
        path = ROOT / name
        if path.suffix in {".md", ".py", ".yaml", ".toml", ".json"} and path.is_file():
            assert "/wo" + "rk/" not in path.read_text(encoding="utf-8"), name
