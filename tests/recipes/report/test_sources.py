from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import report_bundles
import sweeps

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.files import sha256
from vitrim.exporter.runtime.bench.compare import read_bench
from vitrim.exporter.runtime.bundles.manifest import SizeEntry
from vitrim.recipes.report.sources import read_bundle, read_sources

ROOT = Path(__file__).parents[3]


def test_bundles_and_benchmarks_are_told_apart_and_compared(tmp_path: Path) -> None:
    out = report_bundles.make(tmp_path / "out")
    shutil.copyfile(out / "bench.json", tmp_path / "orin.json")
    found = read_sources([out, tmp_path / "orin.json"])
    assert [one.name for one in found.bundles] == ["out"]
    assert list(found.benches) == ["out", "orin.json"]
    assert found.comparison is not None
    assert len(found.comparison.pairs) == 1
    only = read_sources([tmp_path / "orin.json"])
    assert (only.bundles, list(only.benches), only.comparison) == ((), ["orin.json"], None)


def test_of_a_bundle_of_several_image_sizes_it_is_said_which_one_is_shown(tmp_path: Path) -> None:
    facts = read_bundle(report_bundles.make(tmp_path / "out"))
    assert not [line for line in facts.promises if "size" in line]
    several = replace(facts.manifest, preprocess={"input_size": [3, 64, 64]}, sizes={"48x80": SizeEntry()})
    said = "Image size 64x64; of its further sizes (48x80) nothing is shown"
    assert replace(facts, manifest=several).promises == [said, *facts.promises]


def test_a_sweep_is_told_from_a_bundle_by_its_journal(tmp_path: Path) -> None:
    place = sweeps.folder(tmp_path / "s")
    other = sweeps.folder(tmp_path / "b" / "s")
    assert read_sources([place, other]).sweeps == {"s": sweeps.sweep(), str(other): sweeps.sweep()}
    (place / "sweep.json").write_text('{"format": "vitrim-sweep/1"}')
    with pytest.raises(InputError, match=r"sweep.json"):
        read_sources([place])


def test_an_evaluation_is_told_from_a_benchmark_and_finds_its_bundle(tmp_path: Path) -> None:
    out = report_bundles.make(tmp_path / "out", labels=["cat", "dog", "great\nwhite"])
    first = report_bundles.evaluation(tmp_path / "a", sha256(out / "manifest.json"))
    second = report_bundles.evaluation(tmp_path / "b")
    found = read_sources([out, first, out / "bench.json", second])
    assert list(found.evaluations) == ["evaluation.json", str(second)]
    assert list(found.benches) == ["out", "bench.json"]
    assert [found.evaluated(one) is not None for one in found.evaluations.values()] == [True, False]
    assert found.bundles[0].labels == ["cat", "dog", "great white"]
    first.write_text(first.read_text().replace("evaluation/1", "evaluation/9"))
    with pytest.raises(InputError, match="has the format 'vitrim-evaluation/9'"):
        read_sources([first])


def test_what_is_neither_or_damaged_is_refused(tmp_path: Path) -> None:
    out = report_bundles.make(tmp_path / "out")
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"no": "benchmark"}))
    for paths, words in (([], "name a bundle"), ([other], "is no benchmark"), ([tmp_path], "is not a bundle")):
        with pytest.raises(InputError, match=words):
            read_sources(paths)
    (out / "budget.json").write_text("{}")
    with pytest.raises(InputError, match=r"budget.json is not the file that was published"):
        read_sources([out])


@pytest.mark.slow
def test_a_report_needs_neither_torch_nor_onnx(tmp_path: Path) -> None:
    report_bundles.make(tmp_path / "out")
    code = (
        "import sys; sys.modules |= dict.fromkeys(('torch', 'timm', 'onnx', 'matplotlib'))\n"
        "from vitrim import api; print(api.report(['out'], 'r.html').photos)"
    )
    paths = [str(Path(path).resolve()) for path in sys.path if path]
    code = f"import sys; sys.path[:] = {paths!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("6\n", "")


def test_time_by_block_is_a_bundle_s_where_its_own_graphs_were_counted(tmp_path: Path) -> None:
    out = report_bundles.make(tmp_path / "out")
    bare = read_sources([out])
    assert bare.counted(bare.bundles[0]) == []
    plain = report_bundles.counted(read_bench(out))
    plain.write(tmp_path / "here.json")
    assert plain.bundle is not None
    replace(plain, bundle=replace(plain.bundle, graph_sha256="0" * 64)).write(tmp_path / "other.json")
    found = read_sources([out, tmp_path / "here.json", tmp_path / "other.json"])
    assert found.counted(found.bundles[0]) == [plain]
