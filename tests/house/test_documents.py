"""What the documents say of the code is true: CONTRIBUTING's method runs, docs/targets.md is the table of data."""

from __future__ import annotations

import json
import re
import subprocess
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import budget_for, small_vit

from vitrim import api
from vitrim.calibration.tokens.cost import dense_plan, model_macs
from vitrim.calibration.tokens.rules import default_rule
from vitrim.calibration.tokens.solve import from_target
from vitrim.exporter.core.operators import INTEGER_OPERATORS
from vitrim.exporter.core.targets import HARDWARE, TARGETS
from vitrim.exporter.pruning import methods
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.vit import PrunedViT

LOWERED = ("LayerNormalization", "Gelu", "Attention", "RMSNormalization")
ROOT = Path(__file__).resolve().parents[2]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_the_contributed_method_works_with_its_class_in_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    code = blocks("CONTRIBUTING.md", "python")[0]
    assert len(code.splitlines()) <= 30
    module = types.ModuleType("longest_values")
    exec(compile(code, "CONTRIBUTING.md", "exec"), module.__dict__)
    monkeypatch.setitem(methods.METHODS, "longest_values", module.LongestValues())
    model = small_vit()
    pruned = PrunedViT(model, budget_for(model, {1: 9, 2: 5}, "longest_values"))
    with torch.inference_mode():
        trace = pruned.trace(torch.randn(2, 3, 64, 64))
    assert trace.kept[2].shape == (2, 5)
    assert float(trace.gap[1].min()) >= 0
    shape = describe(model)
    macs = 0.7 * model_macs(shape, dense_plan(shape))
    budget = from_target(shape, "longest_values", {}, macs, default_rule(shape, "longest_values", {}))
    assert 0.65 * budget.gmacs["dense"] < budget.total_gmacs <= macs / 1e9
    (entry,) = [row for row in api.methods() if row["name"] == "longest_values"]
    assert (entry["about"], entry["merges"]) == ("the patches with the longest values stay", False)


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


def section(page: str, heading: str) -> str:
    """The text under a second-level heading."""
    found = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert found, f"docs/methods.md lacks the heading\n## {heading}"
    return found[1]


def key_rows(fields: list[dict[str, Any]]) -> list[str]:
    """Lines of a table of parameters."""
    return [
        f"| `{field['name']}` | {field['values']} | `{json.dumps(field['default'])}` | {field['meaning']} |"
        for field in fields
    ]


def test_the_page_of_methods_is_what_their_classes_say() -> None:
    page, listed = (ROOT / "docs" / "methods.md").read_text(), api.methods()
    common = [field for field in listed[0]["parameters"] if all(field in row["parameters"] for row in listed)]
    wanted = [("Methods", line) for line in key_rows(common)]
    for row in listed:
        name, tokens = row["name"], "merged" if row["merges"] else "dropped"
        wanted.append(("Methods", f"| [`{name}`](#{name}) | {tokens} | {row['about']} | {row['paper'] or '-'} |"))
        own = [field for field in row["parameters"] if field not in common]
        wanted += [(name, line) for line in key_rows(own + row["stage"])]
    for where, line in wanted:
        part = page.partition("\n## ")[0] if where == "Methods" else section(page, where)
        assert line in part.splitlines(), f"docs/methods.md lacks under {where} the line\n{line}"
    for row in listed:
        text = section(page, row["name"])
        assert all(f"`{preset}`" in text for preset in row["presets"])
        stated = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
        assert set(stated) <= {field["name"] for field in row["parameters"] + row["stage"]}  # and nothing that is gone
    assert f"a recipe gets `{methods.DEFAULT}`" in page


def test_no_machine_path_is_published() -> None:
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in names:
        path = ROOT / name
        if path.suffix in {".md", ".py", ".yaml", ".toml", ".json"} and path.is_file():
            assert "/wo" + "rk/" not in path.read_text(encoding="utf-8"), name
