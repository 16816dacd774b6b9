"""A command as the call that it stands for: printed as Python, and run with what it can hear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vitrim import api
from vitrim.cli import cli
from vitrim.recipes.tracking import tracker
from vitrim.terminal.call import Call, as_it_is


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (
            ["export", "r.yaml", "-o", "out", "--set", "a.b=1"],
            "api.export('r.yaml', 'out', settings={'a.b': 1}, report=True)",
        ),
        (
            ["export", "r", "-o", "out", "--set", "a.b=x", "--set", "c={d: [1, 2]}", "--set", "e=", "--engine", "skip"],
            "api.export('r', 'out', settings={'a.b': 'x', 'c': {'d': [1, 2]}, 'e': None}, engine='skip', report=True)",
        ),
        (["export", "r", "-o", "out", "--set", "a.b", "--no-report"], "api.export('r', 'out', settings=['a.b'])"),
        (["calibrate", "r.yaml", "-o", "b.json"], "api.calibrate('r.yaml', 'b.json')"),
        (["slim", "r.yaml", "-o", "s.safetensors"], "api.slim('r.yaml', 's.safetensors')"),
        (["check", "out", "--atol", "0.1"], "api.check('out', atol=0.1)"),
        (["bench", "out"], "api.bench('out')"),
        (
            ["bench", "out", "--cuda-graph", "--no-copies", "--energy", "-o", "b.json"],
            "api.bench('out', cuda_graph=True, energy=True, out='b.json')",
        ),
        (["bench", "out", "--runs", "9", "--threads", "2"], "api.bench('out', runs=9, threads=2)"),
        (["bench", "out", "--runtime", "openvino"], "api.bench('out', runtime='openvino')"),
        (["check", "out", "--runtime", "auto"], "api.check('out')"),
        (["check", "out", "--runtime", "onnxruntime"], "api.check('out', runtime='onnxruntime')"),
        (["compare", "a.json", "out"], "api.compare(['a.json', 'out'])"),
        (["build", "out"], "api.build('out')"),
        (["build", "out", "--workspace", "64"], "api.build('out', workspace_mib=64)"),
        (
            ["build", "out", "--no-timing-cache", "--dla-core", "0", "--any-precision"],
            "api.build('out', dla_core=0, timing_cache=False, strict=False)",
        ),
        (
            ["build", "out", "--timing-cache", "t", "--version-compatible", "--hardware-compatible", "ampere_plus"],
            "api.build('out', version_compatible=True, hardware_compatible='ampere_plus', timing_cache='t')",
        ),
        (
            ["build", "out", "--capability", "8.6", "--capability", "12.0"],
            "api.build('out', capabilities=['8.6', '12.0'])",
        ),
        (["doctor"], "api.doctor()"),
        (["lint", "m.onnx"], "api.lint('m.onnx')"),
        (["lint", "m.onnx", "--target", "trt-11"], "api.lint('m.onnx', target='trt-11')"),
        (["lint", "m.onnx", "--target", "a", "--target", "b"], "api.lint('m.onnx', target=['a', 'b'])"),
        (["targets"], "api.targets()"),
        (["methods"], "api.methods()"),
        (["clean"], "api.clean()"),
        (["clean", "out/", "b.json"], "api.clean(['out', 'b.json'])"),
        (["models", "deit"], "api.models('deit')"),
        (["models"], "api.models()"),
        (["recipes"], "api.recipes()"),
        (["recipes", "--schema"], "api.recipe_schema()"),
        (["new", "deit_tiny_patch16_224", "-o", "d.yaml"], "api.new('deit_tiny_patch16_224', out='d.yaml')"),
        (
            ["new", "vit_tiny_patch16_224", "--target", "trt-11", "--precision", "fp16", "--classes", "37"],
            "api.new('vit_tiny_patch16_224', target='trt-11', precision='fp16', classes=37)",
        ),
        (["inspect", "out", "--target", "trt-11"], "api.inspect('out', target='trt-11')"),
    ],
)
def test_print_python_is_the_call(words: list[str], call: str) -> None:
    page = CliRunner().invoke(cli, [*words, "--print-python"])
    assert page.output.strip().splitlines()[-1] == call
    compile(page.output, "printed", "exec")


class Ears:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def stage(self, name: str, cached: bool = False) -> None:
        self.heard.append((name, cached))

    def progress(self, done: int, total: int) -> None:
        self.heard.append((done, total))

    def note(self, text: str) -> None:
        self.heard.append(text)


def draw(result: Any, console: Any) -> None:
    """Nothing is drawn here."""


def test_defaults_and_hidden_options_are_not_printed_but_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def bench(bundle: Path, *, runs: int = 50, threads: int | None = None, secret: int = 0) -> tuple[Any, ...]:
        return bundle, runs, threads, secret

    monkeypatch.setattr(api, "bench", bench)
    call = Call("bench", (Path("a b"),), {"runs": 50, "threads": 3}, draw, hidden={"secret": 7})
    assert call.python() == "from vitrim import api\n\napi.bench('a b', threads=3)"
    assert call.run(Ears()) == (Path("a b"), 50, 3, 7)


def test_a_function_hears_as_much_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    def export(recipe: str, *, listener: Any) -> str:
        listener.note(f"exporting {recipe}")
        return "exported"

    def models(wanted: str, progress: Any) -> str:
        progress(1, 2)
        return wanted

    monkeypatch.setattr(api, "export", export)
    monkeypatch.setattr(api, "models", models)
    monkeypatch.setattr(api, "targets", lambda: "deaf")
    ears = Ears()
    assert Call("export", ("r",), {}, draw).run(ears) == "exported"
    assert Call("models", ("deit",), {}, draw).run(ears) == "deit"
    assert Call("targets", (), {}, draw).run(ears) == "deaf"
    assert ears.heard == ["exporting r", ("models", False), (1, 2)]


def test_a_result_is_its_json_unless_it_is_plain_already() -> None:
    class Result:
        def to_json(self) -> dict[str, int]:
            return {"a": 1}

    assert Call("bench", (), {}, draw).plain(Result()) == {"a": 1}
    assert Call("targets", (), {}, draw, plain=as_it_is).plain([1]) == [1]


def test_a_tracker_hears_what_the_function_says(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kept:
        def __init__(self) -> None:
            self.numbers: list[str] = []

        def metrics(self, values: dict[str, float]) -> None:
            self.numbers += values

        def end(self, error: BaseException | None) -> None:
            self.numbers.append(repr(error))

    def export(recipe: str, *, listener: Any) -> str:
        listener.stage("trace")
        listener.stage("passes", cached=True)
        return recipe

    kept = Kept()
    monkeypatch.setitem(tracker.TRACKERS, "mlflow", lambda: kept)
    monkeypatch.setattr(api, "export", export)
    assert Call("export", ("my.yaml",), {}, draw, tracker="mlflow").run(Ears()) == "my.yaml"
    assert kept.numbers == ["seconds.trace", "None"]
