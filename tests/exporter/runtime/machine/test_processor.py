"""Instructions of a processor, as Linux names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitrim.exporter.runtime.machine.processor import fast_precisions, for_no_precision, in_words, instructions

SAPPHIRE_RAPIDS = "flags\t\t: fpu avx2 avx512f avx_vnni avx512_bf16 avx512_vnni amx_bf16 avx512_fp16 amx_tile amx_int8"
ZEN_5 = "flags\t\t: fpu avx2 avx512f avx_vnni avx512_bf16 avx512_vnni"
SKYLAKE = "flags\t\t: fpu avx2"
GRAVITON_3 = "Features\t: fp asimd fphp asimdhp asimddp sve i8mm bf16"


def machine(root: Path, cpuinfo: str) -> Path:
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text(f"processor\t: 0\n{cpuinfo}\n\nprocessor\t: 1\n{cpuinfo}\n")
    return root


@pytest.mark.parametrize(
    ("cpuinfo", "int8", "bf16", "fp16", "others"),
    [
        (
            SAPPHIRE_RAPIDS,
            ["AMX-INT8", "AVX512-VNNI", "AVX-VNNI"],
            ["AMX-BF16", "AVX512-BF16"],
            ["AVX512-FP16"],
            [],
        ),
        (ZEN_5, ["AVX512-VNNI", "AVX-VNNI"], ["AVX512-BF16"], [], []),
        (SKYLAKE, [], [], [], []),
        (GRAVITON_3, ["Arm dotprod", "Arm i8mm"], [], ["Arm fp16"], ["Arm bf16", "Arm SVE"]),
    ],
)
def test_each_precision_is_fast_by_its_own(
    tmp_path: Path, cpuinfo: str, int8: list[str], bf16: list[str], fp16: list[str], others: list[str]
) -> None:
    found = instructions(machine(tmp_path, cpuinfo))
    assert found is not None
    assert fast_precisions(found) == {"int8": int8, "bf16": bf16, "fp16": fp16}
    assert for_no_precision(found) == others


def test_without_any_the_words_say_what_is_computed_in_float32(tmp_path: Path) -> None:
    assert in_words(instructions(machine(tmp_path, SKYLAKE)) or []) == (
        "",
        "int8 gains little, bf16 is computed in float32, fp16 is computed in float32",
    )
    assert in_words(["AMX-INT8", "AMX-BF16"]) == ("int8 (AMX-INT8), bf16 (AMX-BF16)", "fp16 is computed in float32")


def test_a_system_that_does_not_say_is_not_one_without(tmp_path: Path) -> None:
    assert instructions(tmp_path) is None
    assert instructions(machine(tmp_path, "BogoMIPS: 2")) is None
