from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import report_bundles
import sweeps

from vitrim.exporter.core.fidelity import Fidelity
from vitrim.exporter.core.files import sha256
from vitrim.exporter.runtime.bench.compare import read_bench
from vitrim.recipes.evaluation.result import ClassAnswers, Evaluation
from vitrim.recipes.report.page import TEMPLATES, chapter, class_name, percent, render
from vitrim.recipes.report.sources import Sources, read_sources

SECTIONS = ["verdict", "patches", "places", "blocks", "latency", "parity", "precision", "kernels", "repeat", "devices"]
HOSTILE = "<script>alert('x')</script><img src=http://example.com/a.png>{{ 7 * 7 }}\"&"
VOID = {"meta", "link", "img", "br", "hr"}


class Seen(HTMLParser):
    """Tags, attributes and text of a page; what is not closed is an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(*paths: Path, photos: int = 4) -> str:
    sources = read_sources(paths)
    return render(sources, [chapter(at, one, photos) for at, one in enumerate(sources.bundles)], photos)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a bundle, with a benchmark, two evaluations and a sweep beside it."""
    root = tmp_path_factory.mktemp("page")
    labels = ["cat", "x" * 150, HOSTILE]  # which no line breaks by itself
    out = report_bundles.make(root / "out", rung="onnx_" + "x" * 150, labels=labels)
    own, other = report_bundles.evaluation(root / "a", sha256(out / "manifest.json")), report_bundles.evaluation(root)
    shutil.copyfile(out / "bench.json", root / "orin.json")
    return page_of(out, root / "orin.json", own, other, sweeps.folder(root / "sweep"))


def test_every_section_is_there_and_every_link_leads_somewhere(page: str) -> None:
    seen = Seen(page)
    sections = [found["data-section"] for tag, found in seen.tags if tag == "section"]
    assert sections == [*SECTIONS[:-1], "evaluation", "evaluation", "sweep", SECTIONS[-1]]
    names = [found["id"] for _, found in seen.tags if "id" in found]
    assert len(names) == len(set(names))
    links = {str(found["href"])[1:] for tag, found in seen.tags if tag in ("a", "use")}
    assert links <= set(names)
    assert len(links) == 9 + 1 + 4


def test_time_by_block_is_shown_where_it_was_counted_and_else_how_to(page: str, tmp_path: Path) -> None:
    assert "Not counted. On a CPU: vitrim bench out --by-block -o bench.json" in re.sub(r"\s+", " ", Seen(page).text)
    out = report_bundles.make(tmp_path / "out")
    report_bundles.counted(read_bench(out)).write(tmp_path / "here.json")
    text = re.sub(r"\s+", " ", Seen(page_of(out, tmp_path / "here.json")).text)
    assert "Not counted" not in text
    assert "Medians of 20 runs in turns, on a CPU, batch 1: what the kernels took, counted by onnxruntime-cpu" in text
    assert "a whole one took 11.00 ms dense and 9.00 pruned meanwhile." in text
    assert all(words in text for words in ("2.000 → 2.500", "2.000 → 0.500", "0.500 → 0.500"))


def test_figures_are_those_of_the_files(page: str) -> None:
    text = re.sub(r"\s+", " ", Seen(page).text)
    for words in (
        "1.25 x",
        "83.3 %",
        "13.500 GMACs",
        "1 of the bundle's 6 golden photos changed class",
        "block 1: 12 tokens",
        "block 3: 8 tokens",
        "after block 1: 75%",
        "no difference is claimed between orin.json and out",
        "All of the graph computes in fp32",
        "There is no engine: none was built",
        "same: class 1 (" + "x" * 39 + "…), ",
        "Answers on 6 images: evaluation.json",
        "-16.67 points",
        "2 images turned wrong, 1 right",
        "class 0 (cat)320.2500031-67 % class 1 (",
        "vitrim evaluate out --images 'my photos/' --count 6",
        "which is not among the bundles of this report as it was then",
        "class 0320.2500031-67 % class 122",
    ):
        assert words in text


def test_nothing_is_loaded_and_nothing_runs(page: str) -> None:
    seen = Seen(page)
    for tag, found in seen.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img")
        assert not [key for key in found if key.startswith("on")]
        for key in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert str(found.get(key, "#")).startswith(("#", "data:image/jpeg;base64,"))
    style = (TEMPLATES / "report.css").read_text("utf-8")
    assert not re.search(r"url\(|@import|expression", style)
    policy = next(found["content"] for tag, found in seen.tags if found.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_every_picture_says_what_it_shows(page: str) -> None:
    drawn = re.findall(r"<svg (.*?)>(.{0,9})", page)
    shown = [rest for attributes, rest in drawn if "aria-hidden" not in attributes]
    assert len(shown) == 4 * 3 + 2 + 6 + 4 + 1  # cells, maps, charts, those of evaluations, the sweep's picture
    assert all(rest.startswith("<title>") for rest in shown)
    assert all('role="img"' in attributes for attributes, _ in drawn if "aria-hidden" not in attributes)
    assert not re.search(r"<title>\s*</title>", page)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    name = "<b onclick=alert(1)>&'\""
    words = {"name": HOSTILE, "command": HOSTILE, "rung": HOSTILE, "recipe": f"</pre>{HOSTILE}\n"}
    found = page_of(report_bundles.make(tmp_path / name, **words))
    test_nothing_is_loaded_and_nothing_runs(found)
    text = Seen(found).text
    assert text.count(HOSTILE) >= 4
    assert name in text
    assert "49" not in re.sub(HOSTILE, "", re.findall(r"<h2>How to repeat.*?</pre>", found, re.DOTALL)[0])


def test_private_photos_stay_out(tmp_path: Path) -> None:
    seen = report_bundles.evaluation(tmp_path)
    assert "secret.png" in page_of(seen)
    found = page_of(report_bundles.make(tmp_path / "out"), photos=0)
    assert "data:image" not in found
    assert "secret.png" not in page_of(seen, photos=0)
    assert "Photos were left out of this report as asked. Of 6 golden photos 1 changed class." in Seen(found).text
    assert [one["data-section"] for tag, one in Seen(found).tags if tag == "section"] == SECTIONS


def test_a_bundle_that_lacks_much_still_has_every_section(tmp_path: Path) -> None:
    sources = read_sources([report_bundles.make(tmp_path / "out")])
    facts = replace(sources.bundles[0], budget=None, bench=None, fidelity=None, recipe="")
    bare = Sources((facts,), {}, None)
    seen = Seen(render(bare, [chapter(0, facts, 4)], 4))
    assert [one["data-section"] for tag, one in seen.tags if tag == "section"] == SECTIONS
    for words in ("This plan chooses no patches.", "not timed", "Nothing was timed yet."):
        assert words in seen.text


def test_a_benchmark_alone_is_a_page(tmp_path: Path) -> None:
    seen = Seen(page_of(report_bundles.make(tmp_path / "out") / "bench.json"))
    assert [one["data-section"] for tag, one in seen.tags if tag == "section"] == ["devices"]
    assert "One machine timed it: a CPU, onnxruntime-cpu." in seen.text


def contrast(one: str, other: str) -> float:
    """WCAG's, of two colours such as #ffffff."""

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_can_be_told_apart(theme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", (TEMPLATES / "report.css").read_text("utf-8"), re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", blocks[theme]))
    for ground in ("paper", "card"):
        for text in ("ink", "soft", "good", "bad", "link"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    methods = [f"k{at}" for at in range(9)]
    for drawn in ("dense", "pruned", "floor", "other", "bar", "stage", "good", "bad", *methods):
        assert contrast(colours[drawn], colours["paper"]) >= 3, drawn


LOOK = """
<!doctype html><meta charset="utf-8"><pre id="found"></pre>
WINDOWS
<script>
const light = c => c.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0)
const parts = text => text.match(/[\\d.]+/g).map(Number)
const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => p - q); return (y + .05) / (x + .05) }
onload = () => {
  found.textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, view = frame.contentWindow
    page.querySelectorAll("details").forEach(one => one.open = true)
    let worst = 99, texts = 0
    for (const one of page.querySelectorAll("body *")) {
      if (![...one.childNodes].some(node => node.nodeType == 3 && node.data.trim()) || one.tagName == "title") continue
      let ground = one
      const style = view.getComputedStyle(one), back = of => parts(view.getComputedStyle(of).backgroundColor)
      while (ground.parentElement && back(ground)[3] === 0) ground = ground.parentElement
      const colour = one.namespaceURI.endsWith("svg") ? style.fill : style.color
      worst = Math.min(worst, ratio(parts(colour).slice(0, 3), back(ground).slice(0, 3)))
      texts++
    }
    const root = page.documentElement, ground = view.getComputedStyle(page.body).backgroundColor
    const loaded = view.performance.getEntriesByType("resource").filter(one => !one.name.startsWith("data:")).length
    return {width: root.clientWidth, content: root.scrollWidth, worst, texts, ground, loaded}
  }))
}
</script>
"""


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "ground"), [(1, "rgb(255, 255, 255)"), (0, "rgb(20, 23, 26)")])
def test_a_browser_shows_it_whole(page: str, scheme: int, ground: str, tmp_path: Path) -> None:
    """At the widths of a telephone and of a large screen, light and dark."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    frames = (
        f'<iframe width="{width}" height="900" frameborder="0" srcdoc="{html.escape(page)}"></iframe>'
        for width in (360, 1600)
    )
    (tmp_path / "look.html").write_text(LOOK.replace("WINDOWS", "".join(frames)))
    options = ["--headless", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    options += [f"--blink-settings=preferredColorScheme={scheme}", "--dump-dom", (tmp_path / "look.html").as_uri()]
    done = subprocess.run([browser, *options], capture_output=True, text=True, timeout=120, check=False)
    told = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told is not None, done.stderr[-2000:]
    seen = json.loads(html.unescape(told[1]))
    assert [one["width"] for one in seen] == [360, 1600]
    for one in seen:
        assert one["content"] <= one["width"]
        assert one["worst"] >= 4.5
        assert one["texts"] > 100
        assert (one["loaded"], one["ground"]) == (0, ground)


def test_an_evaluation_alone_without_labels_is_a_page(tmp_path: Path) -> None:
    path = report_bundles.evaluation(tmp_path)
    whole = Evaluation.read(path, "evaluation")
    seen = Fidelity(6, 5 / 6, 0.25)
    rows = tuple(ClassAnswers(one.index, one.images, one.agreeing, one.kl) for one in whole.classes)
    replace(whole, answers=seen, by="dense answer", classes=rows, moved=()).write(path)
    text = re.sub(r"\s+", " ", Seen(page_of(path)).text)
    assert "The images have no labels" in text
    assert "Top-1" not in text
    assert "class 0320.25000 class" in text
    steady = replace(whole, classes=rows[1:])
    steady.write(path)
    assert "No class lost anything." in Seen(page_of(path)).text


def test_a_class_has_its_name_where_there_is_one() -> None:
    assert class_name(1, None) == class_name(1, ["cat"]) == "class 1"
    assert class_name(-1, ["cat"]) == "class -1"
    assert class_name(0, ["a\x1bb"]) == "class 0 (a\\x1bb)"


def test_percent() -> None:
    assert percent(0.1234) == "12.3 %"
