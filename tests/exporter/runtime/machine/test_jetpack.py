"""Which JetPack a Jetson has, what it brings, and how a missing TensorRT comes onto it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.runtime.machine.jetpack import TABLE, jetpack_of, read_l4t, tensorrt_remedy

RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8\n"


def jetson(root: Path, text: str) -> Path:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc" / "nv_tegra_release").write_text(text)
    return root


def test_l4t_and_jetpack(tmp_path: Path) -> None:
    assert read_l4t(tmp_path) is None
    assert read_l4t(jetson(tmp_path, RELEASE)) == (36, 4)
    row = jetpack_of((36, 4))
    assert row is not None
    assert (row.tensorrt, row.target) == ("10.3", "jetpack-6")
    assert jetpack_of((99, 0)) is None


@pytest.mark.parametrize(
    ("l4t", "target"), [((35, 4), (8, 5)), ((36, 3), (8, 6)), ((36, 5), (10, 3)), ((38, 4), (10, 13))]
)
def test_the_table_names_targets_that_exist(l4t: tuple[int, int], target: tuple[int, int]) -> None:
    row = jetpack_of(l4t)
    assert row is not None
    assert get_target(row.target).tensorrt == target


def test_every_jetpack_has_a_target_of_its_tensorrt() -> None:
    for row in TABLE:
        if not row.target.startswith("none"):
            version = get_target(row.target).tensorrt
            assert version is not None
            least = [int(part) for part in row.tensorrt.split()[0].split(".")[:2]]
            assert version <= tuple(least)  # JetPack 7.2 takes what 7.0 takes


@pytest.mark.parametrize(
    ("text", "l4t"),
    [
        ("# R32 (release), REVISION: 7.1, GCID: 1\n", (32, 7)),
        ("# R35 (release), REVISION:4.1\n", (35, 4)),
        ("# R38 (release), REVISION: 12.0, GCID: 1, BOARD: generic\n", (38, 12)),
        ("# R36 (release)\n", None),
        ("", None),
        ("\xff\xfe nonsense", None),
    ],
)
def test_the_release_file_is_read_as_nvidia_writes_it(tmp_path: Path, text: str, l4t: tuple[int, int] | None) -> None:
    assert read_l4t(jetson(tmp_path, text)) == l4t


def test_a_release_file_in_no_encoding_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nv_tegra_release").write_bytes(b"\xff\xfe# R36 (release), REVISION: 4.0\n")
    assert read_l4t(tmp_path) == (36, 4)


@pytest.mark.parametrize(
    ("l4t", "name"),
    [
        ((32, 5), None),
        ((32, 6), "4.6"),
        ((32, 7), "4.6"),
        ((35, 1), "5.0.2"),
        ((35, 2), "5.1"),
        ((35, 6), "5.1"),
        ((35, 7), None),
        ((36, 1), None),
        ((36, 3), "6.0"),
        ((36, 4), "6.1 and 6.2"),
        ((36, 5), "6.1 and 6.2"),
        ((37, 0), None),
        ((38, 2), "7.0 and 7.1"),
        ((39, 2), "7.2"),
    ],
)
def test_releases_at_the_ends_of_a_range(l4t: tuple[int, int], name: str | None) -> None:
    row = jetpack_of(l4t)
    assert (None if row is None else row.name) == name


def test_ranges_ascend_and_do_not_overlap() -> None:
    ends = [end for row in TABLE for end in row.l4t]
    assert ends == sorted(ends)
    assert all(earlier.l4t[1] < later.l4t[0] for earlier, later in itertools.pairwise(TABLE))


def test_the_remedy_goes_by_the_machine_and_the_reason(tmp_path: Path) -> None:
    reason = "libnvdla_compiler.so: cannot open shared object file"
    assert tensorrt_remedy("No module named 'tensorrt'", tmp_path) == "pip install 'vitrim[tensorrt]'"
    assert tensorrt_remedy(reason, tmp_path) == "pip install 'vitrim[tensorrt]'"
    jetson(tmp_path, RELEASE)
    assert tensorrt_remedy(reason, tmp_path) == (
        "JetPack's DLA compiler is missing: sudo apt install nvidia-l4t-dla-compiler"
    )
    assert tensorrt_remedy("No module named 'tensorrt'", tmp_path) == (
        "JetPack brings it: sudo apt install python3-libnvinfer; a virtual environment sees it only when made with "
        "--system-site-packages by the system's own python3"
    )
