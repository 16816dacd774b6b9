"""What a child process says, and which packages are there."""

from __future__ import annotations

from vitrim.exporter.runtime.finding import is_there, run_python, version_of


def test_child_processes_report_their_last_line() -> None:
    assert run_python("print('a'); print('b')") == (True, "b")
    worked, said = run_python("raise ValueError('broken')")
    assert (worked, said) == (False, "ValueError: broken")
    assert run_python("import time; time.sleep(9)", timeout=0.2)[0] is False
    assert run_python("import os; os._exit(3)") == (False, "ended with code 3")  # as a crash would


def test_a_long_answer_is_whole_and_a_long_fault_is_cut() -> None:
    assert run_python("print('a' * 500)") == (True, "a" * 500)
    worked, said = run_python("raise SystemExit('b' * 500)")
    assert (worked, said) == (False, "b" * 160)


def test_packages_are_found_under_any_of_their_names() -> None:
    assert is_there("numpy")
    assert version_of("onnx_graphsurgeon") == version_of("onnx-graphsurgeon") is not None
    assert not is_there("no_such_package")
    assert version_of("no_such_package") is None
