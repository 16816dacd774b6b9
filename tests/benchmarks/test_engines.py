"""The whole command in processes of its own, with the stand-in for TensorRT and one for libcudart.

What the stand-ins cannot show is that the real ones take these calls: unverified on a GPU.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import engines
import pytest
from click.testing import CliRunner
from gpu_day.keep import Keep, Outcome
from gpu_day.plan import QUICKSTART, Step, Wanted, plan
from gpu_day.results import Graphs
from standin_bundles import STANDIN, compiled_cudart, make, standin_environment

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.runtime.bench.report import Bench

ASKED = (
    "--models",
    QUICKSTART,
    "--methods",
    "evit",
    "--methods",
    "tome",
    "--precisions",
    "fp16",
    "--batches",
    "2",
    "--rounds",
    "12",
)
BOTH = ("trt-10.3", "trt-rtx")
MACHINE: dict[str, Any] = {"facts": {"tensorrt": "10.7.0"}}


def prepared(work: Path, **changed: Any) -> list[Step]:
    """Bundles of every method for the stand-in, as `prepare` would have left them; the plan of what is asked."""
    steps = plan(Wanted((QUICKSTART,), ("evit", "tome"), ("fp16",), (2,), ("trt-10.3",), rounds=12))
    keep = Keep(work / "steps")
    for step in steps:
        if step.kind == "export":
            make(work / "bundles" / step.case, "fp16", target=step.target, **changed.get(step.method, {}))
            keep.put(Outcome(step, "prepared", 1.0, Graphs({"pruned": "a"}, 0.2, 1.0).to_json()))
    return steps


class Machine:
    """A machine with the stand-ins, without a GPU for PyTorch and without a meter."""

    def __init__(self, scratch: Path, version: str = "10.3.0") -> None:
        self.out = scratch / "engines.md"
        (scratch / "site").mkdir()
        (scratch / "site" / "pynvml.py").write_text("raise ImportError('none')")
        path = os.pathsep.join([str(scratch / "site"), str(STANDIN), os.environ.get("PYTHONPATH", "")])
        standins = standin_environment(compiled_cudart(scratch), scratch, version)
        self.environment = {**os.environ, **standins, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}

    def __call__(self, work: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, engines.__file__, "run", *ASKED, "--targets", "trt-10.3", *arguments]
        command += ["--work", str(work), "--out", str(self.out)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300, check=False)

    def rows(self) -> list[list[str]]:
        lines = [line for line in self.out.read_text().splitlines() if line.startswith("| quickstart")]
        return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_from_engines_to_the_table_with_one_that_is_refused_and_nothing_twice(tmp_path: Path) -> None:
    machine, work = Machine(tmp_path), tmp_path / "work"
    steps = prepared(work, tome={"refused": "no Gelu"})
    done = machine(work)
    assert (done.returncode, done.stderr) == (0, "")
    kinds = [line.partition("-")[0] for line in done.stdout.splitlines() if re.search(r": \d+\.\d s$", line)]
    assert kinds == ["build", "parity", "time", "time", "build", "parity", "time", "time"]
    assert len(re.findall(r"^torch-.* finds no GPU here: check nvidia-smi$", done.stdout, re.MULTILINE)) == 2
    assert f"11 of {len(steps)} steps are done" in done.stdout

    dense, eager, compiled, evit, tome = machine.rows()
    assert [row[3] for row in (dense, evit)] == ["TensorRT 10.3.0"] * 2
    assert (evit[9], evit[10]) == ("100.0% of 4", "cosine 1.00000")
    for cell in (evit[11], evit[15]):
        slow, fast, floor = (float(value) for value in cell.split(" / "))
        assert slow > 1.9  # the dense engine here is the dense bundle's own graph: 2 ms are slept
        assert floor < fast  # 1.5 ms against 2
    assert all(row[-1].endswith("finds no GPU here: check nvidia-smi") for row in (eager, compiled))
    assert dense[-1] == evit[-1]
    assert evit[-1] == "energy: nvidia-ml-py is not installed: pip install nvidia-ml-py"
    kinds_that_lack = r"build, parity, time \(CUDA graph\), time \(plain\): "
    assert re.match(kinds_that_lack + ".*TensorRT 10.3.0 refuses bundles/.*node 7: no Gelu", tome[-1])
    assert tome[6:18] == [""] * 12

    whole = json.loads(machine.out.with_suffix(".json").read_text())
    timed = [one["result"] for one in whole["steps"] if one["step"]["kind"] == "time" and one["result"]]
    assert [set(Bench.from_json(one, "it").distributions) for one in timed[2:]] == [{"dense", "pruned", "floor"}] * 2
    assert [one["environment"]["cuda_graph"] for one in timed] == [True, False, True, False]
    assert [one["environment"]["tensorrt"] for one in timed] == ["10.3.0"] * 4

    builds = (tmp_path / "log.jsonl").read_text()
    again = machine(work)
    assert re.findall(r": \d+\.\d s$", again.stdout, re.MULTILINE) == []
    assert re.findall(r"^build-.*tome.*", again.stdout, re.MULTILINE)  # what failed is tried again
    assert (tmp_path / "log.jsonl").read_text() == builds
    assert f"11 of {len(steps)} steps are done" in again.stdout


def test_targets_are_those_that_engines_are_built_for() -> None:
    assert engines.targets_of((), MACHINE) == ("trt-rtx", "trt-10.3")
    assert engines.targets_of((), {"facts": {"tensorrt": None}}) == ("trt-rtx",)
    assert engines.targets_of(("jetpack-6", "trt-rtx", "trt-10.3"), MACHINE) == BOTH
    with pytest.raises(InputError, match="--targets ort-cpu: there are engines of TensorRT targets alone"):
        engines.targets_of(("ort-cpu",), MACHINE)


def test_weights_are_kept_to_be_carried(tmp_path: Path) -> None:
    file, work = tmp_path / "w.safetensors", tmp_path / "work"
    file.write_bytes(b"first")
    models = ("m", QUICKSTART)
    first = engines.keep_weights(work, (f"m={file}",), models)
    assert first == (("m", hashlib.sha256(b"first").hexdigest()),)
    file.unlink()
    assert engines.keep_weights(work, (), models) == first  # as on the machine that the folder was carried to
    other = tmp_path / "other.pth"
    other.write_bytes(b"second")
    assert engines.keep_weights(work, (f"m={other}",), models) == (("m", hashlib.sha256(b"second").hexdigest()),)
    assert [path.name for path in (work / "weights").iterdir()] == ["m.pth"]
    for text in (f"other={other}", f"{QUICKSTART}={other}", f"m={file}", "m"):
        with pytest.raises(InputError, match="give MODEL=FILE"):
            engines.keep_weights(work, (text,), models)


def test_names_name_files() -> None:
    engines.require_names(("vit_base_patch16_clip_224.openai", "zero_tprune", "fp16"))
    for name in ("../x", "a/b", "", "-x", "hf_hub:a"):
        with pytest.raises(InputError, match="is no name"):
            engines.require_names((QUICKSTART, name))


def test_what_needs_no_gpu_is_prepared() -> None:
    steps = plan(Wanted(("m",), ("evit",), ("fp16",), (1,), BOTH))
    found = {(step.kind, step.target) for step in steps if engines.is_prepared(step)}
    assert found == {("export", "trt-10.3"), ("export", "trt-rtx"), ("build", "trt-rtx")}


def test_a_thing_that_crashes_when_looked_at_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(engines, "FAMILIES", {"tensorrt": engines.FAMILIES["tensorrt"]})
    monkeypatch.setattr(engines, "TORCH", "rtx")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "tensorrt.py").write_text("import os\nos.abort()\n")
    machine = engines.look_around(tmp_path)
    assert machine["facts"]["tensorrt"] is None
    assert machine["runs"]["tensorrt"].startswith("tensorrt cannot be looked at: it was ended by SIGABRT")
    assert machine["runs"]["rtx"] is None or "SIGABRT" not in machine["runs"]["rtx"]
    assert set(machine["facts"]) >= {"gpu", "driver", "tensorrt", "rtx"}


@pytest.mark.parametrize("arguments", [["walk"], ["--batches", "0"], ["--minutes", "0"], ["--rounds", "1"]])
def test_a_wrong_word_is_said_before_anything_is_done(arguments: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(engines.main, [*arguments, "--work", str(tmp_path / "w")])
    assert done.exit_code == click.UsageError.exit_code
    assert not (tmp_path / "w").exists()
