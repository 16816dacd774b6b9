"""Which TensorRT a JetPack brings, as data. Torch-free."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class JetPack:
    """One row: JetPack, the L4T releases it covers, and what it brings."""

    name: str
    l4t: tuple[tuple[int, int], tuple[int, int]]
    tensorrt: str
    cuda: str
    target: str


# L4T ranges are inclusive.
TABLE = (
    JetPack("4.6", ((32, 6), (32, 7)), "8.0 to 8.2", "10.2", "none: too old for vitrim's graphs"),
    JetPack("5.0.2", ((35, 1), (35, 1)), "8.4.1", "11.4", "none: update to JetPack 5.1"),
    JetPack("5.1", ((35, 2), (35, 6)), "8.5.2", "11.4", "jetpack-5"),
    JetPack("6.0", ((36, 2), (36, 3)), "8.6.2", "12.2", "jetpack-6.0"),
    JetPack("6.1 and 6.2", ((36, 4), (36, 5)), "10.3", "12.6", "jetpack-6"),
    JetPack("7.0 and 7.1", ((38, 2), (38, 4)), "10.13", "13.0", "jetpack-7"),
    JetPack("7.2", ((39, 2), (39, 9)), "10.16 (11.4.1 from 7.2.2 on)", "13.2", "jetpack-7.2"),
)


def read_l4t(root: Path = Path("/")) -> tuple[int, int] | None:
    """The L4T release of a Jetson, such as (36, 4), from /etc/nv_tegra_release; None elsewhere."""
    try:
        text = (root / "etc" / "nv_tegra_release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"R(\d+).*?REVISION:\s*(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def jetpack_of(l4t: tuple[int, int]) -> JetPack | None:
    """The JetPack of an L4T release; None if the table does not know it."""
    return next((row for row in TABLE if row.l4t[0] <= l4t <= row.l4t[1]), None)


def tensorrt_remedy(reason: str = "", root: Path = Path("/")) -> str:
    """How to get a working TensorRT on this machine.

    Args:
        reason: what the import said.
        root: of the file system, for tests.
    """
    if read_l4t(root) is None:
        return "pip install 'vitrim[tensorrt]'"
    if "libnvdla_compiler" in reason:
        return "JetPack's DLA compiler is missing: sudo apt install nvidia-l4t-dla-compiler"
    return (
        "JetPack brings it: sudo apt install python3-libnvinfer; a virtual environment sees it only when made with "
        "--system-site-packages by the system's own python3"
    )
