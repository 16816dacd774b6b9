"""Instructions of a processor that make narrow numbers fast, as Linux names them. Everything is read. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...core.cores import ROOT
from ...core.sysfs import read_text

if TYPE_CHECKING:
    from collections.abc import Sequence

# Linux's flag, the name that people know, and what it is for: x86 under `flags`, Arm under `Features`.
# SVE is for any type; Arm's bf16 is not what OpenVINO computes bf16 by (its CPU documents: bf16 on x86 alone).
_KNOWN: tuple[tuple[str, str, str | None], ...] = (
    ("amx_int8", "AMX-INT8", "int8"),
    ("avx512_vnni", "AVX512-VNNI", "int8"),
    ("avx_vnni", "AVX-VNNI", "int8"),
    ("amx_bf16", "AMX-BF16", "bf16"),
    ("avx512_bf16", "AVX512-BF16", "bf16"),
    ("amx_fp16", "AMX-FP16", "fp16"),
    ("avx512_fp16", "AVX512-FP16", "fp16"),
    ("asimddp", "Arm dotprod", "int8"),
    ("i8mm", "Arm i8mm", "int8"),
    ("asimdhp", "Arm fp16", "fp16"),
    ("bf16", "Arm bf16", None),
    ("sve", "Arm SVE", None),
)
_SLOW = {"int8": "int8 gains little", "bf16": "bf16 is computed in float32", "fp16": "fp16 is computed in float32"}


def instructions(root: Path = ROOT) -> list[str] | None:
    """Those that this processor has, such as `AVX512-BF16`; None where the system does not say.

    Args:
        root: of the file system, for tests.
    """
    flags: set[str] = set()
    said = False
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        key, _, text = line.partition(":")
        if key.strip() in ("flags", "Features"):
            said = True
            flags.update(text.split())
    return [name for flag, name, _ in _KNOWN if flag in flags] if said else None


def fast_precisions(found: Sequence[str]) -> dict[str, list[str]]:
    """By precision narrower than float32, which of some instructions make it fast.

    Args:
        found: see `instructions`.
    """
    return {
        precision: [name for _, name, serves in _KNOWN if serves == precision and name in found] for precision in _SLOW
    }


def for_no_precision(found: Sequence[str]) -> list[str]:
    """Of some instructions, those that are named but make none of vitrim's precisions fast."""
    return [name for _, name, serves in _KNOWN if serves is None and name in found]


def in_words(found: Sequence[str]) -> tuple[str, str]:
    """What instructions bring, and what is not fast for the lack of others; empty where there is nothing to say.

    Args:
        found: see `instructions`.
    """
    by = fast_precisions(found)
    fast = [f"{precision} ({', '.join(names)})" for precision, names in by.items() if names]
    return ", ".join(fast), ", ".join(_SLOW[precision] for precision, names in by.items() if not names)
