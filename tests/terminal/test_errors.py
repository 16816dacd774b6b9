"""What ends a command: one line for a person, JSON for a program, and the exit status."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import click
import pytest
from warm import vitrim

from vitrim.exporter.core.errors import InputError, NotFasterError, ParityError
from vitrim.terminal.errors import explain, report


@pytest.mark.parametrize(
    ("error", "kind", "text", "status"),
    [
        (InputError("bad"), "InputError", "bad", 3),
        (ParityError("off"), "ParityError", "off", 1),
        (NotFasterError("slow"), "NotFasterError", "slow", 2),
        (click.ClickException("no"), "UsageError", "no", 3),
        (KeyboardInterrupt(), "Interrupted", "interrupted; nothing was published", 130),
        (MemoryError(), "OutOfMemory", "out of memory; take a smaller batch or model", 3),
        (OSError(errno.EACCES, "Permission denied", "r.yaml"), "InputError", "cannot use r.yaml: permission denied", 3),
        (OSError(errno.EIO, "Input/output error"), "InputError", "the system refuses: input/output error", 3),
        (
            OSError(errno.ENOSPC, "No space left on device", "b.json"),
            "EnvironmentLackError",
            "cannot write b.json: the disk is full; free some space or choose another output folder",
            3,
        ),
    ],
)
def test_every_error_has_a_kind_words_and_a_status(error: BaseException, kind: str, text: str, status: int) -> None:
    assert explain(error) == (kind, text, status)


def test_what_nobody_foresaw_is_one_line_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyError) as caught:
        {}["x\x1b[31m"]
    assert report(caught.value) == 3
    monkeypatch.setenv("VITRIM_TRACEBACK", "1")
    with pytest.raises(KeyError):
        report(caught.value)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vitrim: a fault of vitrim's own: KeyError in test_errors.py, line ")
    assert "VITRIM_TRACEBACK=1" in line
    assert line.isprintable()


def test_errors_are_json_as_well_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(InputError("a\x1b[31m\nb" + "c" * 9000), as_json=True) == 3
    out, err = capsys.readouterr()
    found = json.loads(out)["error"]
    assert (found["kind"], found["status"]) == ("InputError", 3)
    assert found["message"].startswith(r"a\x1b[31m bccc")
    assert found["message"].endswith("c...")
    assert len(found["message"]) == 2000
    assert err == f"vitrim: {found['message']}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (["check", "none", "--json"], "InputError", "there is no bundle none"),
        (["export", "--json", "nope", "-o", "x"], "InputError", "there is no recipe file nope"),
        (["export", "--json", "--outt", "x"], "UsageError", "export: No such option '--outt'"),
        (["export", "--json"], "UsageError", "export: Missing argument 'RECIPE'; see `vitrim export --help`"),
        (["bench", "x", "--runs", "2", "--json"], "UsageError", "bench: Invalid value for '--runs'"),
        (["nonsense", "--json"], "UsageError", "No such command 'nonsense'; see `vitrim --help`"),
    ],
)
def test_json_of_an_error_is_one_object(tmp_path: Path, words: list[str], kind: str, said: str) -> None:
    done = vitrim(*words, cwd=tmp_path)
    found = json.loads(done.stdout)["error"]
    assert (done.returncode, found["status"], found["kind"]) == (3, 3, kind)
    assert found["message"].startswith(said)
    assert done.stderr == f"vitrim: {found['message']}\n"
    silent = vitrim(*(word for word in words if word != "--json"), cwd=tmp_path)
    assert (silent.stdout, silent.stderr) == ("", done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["export", "a\x1b[31mb", "-o", "x"],
        ["export", "quickstart", "-o", "x", "--set", "a\x1b[31mb=1"],
        ["export", "quickstart", "-o", "x", "--set", "export.target=\u202e"],
        ["export", "quickstart", "-o", "x", "--set", "prune.method=" + "x" * 100_000],
        ["check", "\x1b]0;title\x07"],
        ["lint", "\x9b31m.onnx"],
        ["lint", "x" * 100_000],
        ["bench", "x", "--runs", "\x1b[2J"],
        ["\x1b[31m"],
        ["--\x1b[31m"],
        ["new", "\x1b[31m"],
        ["new", "x" * 100_000],
        ["compare", "\x1b[31m", "b"],
    ],
)
def test_control_characters_and_long_words_never_reach_the_terminal(tmp_path: Path, words: list[str]) -> None:
    done = vitrim(*words, cwd=tmp_path)
    assert done.returncode == 3
    line = done.stderr.removesuffix("\n")
    assert line.isprintable()
    assert line.startswith("vitrim: ")
    assert len(line) < 2100
    assert "fault of vitrim" not in line


@pytest.mark.slow
def test_wrong_names_are_told_before_anything_is_opened(tmp_path: Path) -> None:
    """Not even the stage that opens the model is announced."""
    for setting, said in (
        ("prune.method=tomatoe", "unknown pruning method 'tomatoe'; did you mean tome?"),
        ("prune.preset=evit-07", "prune.preset: there is no preset 'evit-07'; did you mean evit-0.7?"),
        ("prune.parameters.plaice=x", "prune.parameters.plaice is not a known key"),
        ("prune.budget=none.json", "cannot read "),
        ("export.target=jetpack-9", "there is no target 'jetpack-9'"),
        ("precision.name=bf16", "precision.name: ort-cpu takes no bf16 graph"),
    ):
        done = vitrim("calibrate", "quickstart", "-o", "b.json", "--set", setting, cwd=tmp_path)
        assert done.returncode == 3
        assert done.stderr.startswith(f"vitrim: {said}")
        assert len(done.stderr.splitlines()) == 1
