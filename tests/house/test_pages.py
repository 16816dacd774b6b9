"""Pages that a newcomer can read: short, in plain words, with links that lead somewhere and measured numbers."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
READ = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]
MORE = ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "benchmarks/README.md", "recipes/quickstart/README.md"]
LONGEST_README, LONGEST_LINE = 900, 120
# Words for which the field has plainer ones: also, say, has no, per token, per block.
UNPLAIN = (
    r"\bbesides\b", r"\bl" r"acks?\b", r"\btold\b", r"\ba scale an? (tensor|token|channel)", r"\bone line a block",
    r"\bjoules an image", r"\ban? mask a class",
)  # fmt: skip


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def prose(text: str) -> list[str]:
    """Lines that are neither code, nor of a table, nor a picture."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [line for line in text.splitlines() if not line.startswith(("|", "    ", "!["))]


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", without_code, re.MULTILINE)}


def test_readme_is_short() -> None:
    words = len(text_of("README.md").split())
    assert 300 < words < LONGEST_README


@pytest.mark.parametrize("name", READ)
def test_lines_are_short_and_words_plain(name: str) -> None:
    lines = prose(text_of(name))
    assert len(lines) > 10
    assert [line for line in lines if len(line) > LONGEST_LINE] == []
    assert [line for line in lines for word in UNPLAIN if re.search(word, line)] == []


@pytest.mark.parametrize("name", [*READ, *MORE])
def test_links_lead_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(name)):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), f"{name} links to {link}, which does not exist"
        assert not anchor or anchor in anchors(target.read_text("utf-8")), f"{name}: {link} names no heading"


def test_every_page_is_reached_from_readme() -> None:
    linked = set(re.findall(r"\]\((docs/\w+\.md)[)#]", text_of("README.md")))
    assert linked == set(READ) - {"README.md"}


def test_numbers_in_readme_were_measured() -> None:
    measured = "\n".join(path.read_text("utf-8") for path in (ROOT / "benchmarks" / "results").glob("*.md"))
    rows = [line for line in text_of("README.md").splitlines() if line.startswith("| `ort-cpu`")]
    assert len(rows) >= 3
    for row in rows:
        speed, agreement = (cell.strip().replace(" % ", " ") for cell in row.split("|")[3:5])
        assert re.match(r"1\.\d{3}", speed), row
        assert re.fullmatch(r"\d\d\.\d \(\d\d\.\d to \d\d\.\d\)", agreement), row
        apart = re.sub(r"(\S+) \((.*)\)", r"\1 | \2", speed)  # a table may have the interval in a column of its own
        both = [line for line in measured.splitlines() if f"| {speed} |" in line or f"| {apart} |" in line]
        assert both, f"no row of benchmarks/results has the speed-up {speed}"
        assert f"| {agreement} |" in measured, f"no row of benchmarks/results has the agreement {agreement}"


def test_python_of_the_pages_can_be_read() -> None:
    for name in ("README.md", "docs/guide.md"):
        code = re.findall(r"^```python\n(.*?)^```", text_of(name), re.DOTALL | re.MULTILINE)
        assert len(code) == 1
        called = {node.func.attr for node in ast.walk(ast.parse(code[0])) if is_call_of(node, "vitrim")}
        assert called == {"prune", "evaluate", "export"}


def is_call_of(node: ast.AST, module: str) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    return isinstance(node.func.value, ast.Name) and node.func.value.id == module


def test_every_paper_that_is_named_can_be_cited() -> None:
    sources = [path for part in ("exporter", "calibration", "docs") for path in (ROOT / part).rglob("*.[pm][yd]")]
    named = {paper for path in sources for paper in re.findall(r"arXiv[ :](\d{4}\.\d{5})", path.read_text("utf-8"))}
    cited = set(re.findall(r"arxiv\.org/abs/(\d{4}\.\d{5})", text_of("CITATION.cff")))
    assert len(named) >= 7
    assert named <= cited
