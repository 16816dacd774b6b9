"""A finding of `vitrim doctor`, and how what is heavy or may crash is looked at: from a child process. Torch-free."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib import util
from typing import Literal

from ..core.records import Record
from .machine.environment import version as exact_version


@dataclass(frozen=True)
class Check(Record):
    """One finding.

    Attributes:
        name: what was looked at.
        state: `ok`, `problem`, or `info`.
        found: what is there.
        cost: what does not work without it.
        remedy: how to get it.
    """

    name: str
    state: Literal["ok", "problem", "info"]
    found: str
    cost: str = ""
    remedy: str = ""


def run_python(code: str, timeout: float = 120) -> tuple[bool, str]:
    """Run code in a child Python; (worked, last line of what it printed or said)."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {timeout:.0f} s"
    worked = done.returncode == 0
    lines = (done.stdout if worked else done.stderr).strip().splitlines()
    fallback = "" if worked else f"ended with code {done.returncode}"  # a crash says nothing
    return worked, lines[-1][: None if worked else 160] if lines else fallback


def version_of(package: str) -> str | None:
    """Version of a package, under whatever name a distribution brings it."""
    names = (package, package.replace("_", "-"), f"{package}-gpu")
    return next((version for version in map(exact_version, names) if version), None)


def is_there(package: str) -> bool:
    """Whether it can be found; JetPack's packages may come without what pip knows them by."""
    try:
        return version_of(package) is not None or util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
