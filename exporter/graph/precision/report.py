"""What an export decided about the precision of its graphs, and what it measured on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...core.records import Record, optional
from ...core.targets import Precision


@dataclass(frozen=True)
class PrecisionReport(Record):
    """What lies in a bundle as `precision.json`.

    Attributes:
        asked: the recipe's precision.
        name: what the graphs are in.
        float32_nodes: by graph, nodes that stay in float32.
        speedup_over_fp32, interval: of the pruned graph, with its 95 % interval; None where it was not timed.
        reason: why the graph stays in float32, or why nothing was timed; None where it was kept for its speed.
        not_timed: why not.
        overflowing: by graph, nodes in float32 because their values come near the largest of half precision, with the
            largest of them; see `misfits.Misfits`.
        subnormal: by graph, those whose values come near its smallest, with the smallest of them.
        casts: by graph, how many there are.
        products: matrix products that can be int8.
        equalized: products whose channels were equalized.
        form: of the int8 products: `static` or `dynamic` scales.
        around: what the rest of an int8 graph for OpenVINO is in.
        forms_timed: median milliseconds, by form, or by what is around.
        scan: what the search for the int8 forms found, see `sensitivity.Found`.
        scan_images: on how many images.
    """

    asked: Precision
    name: Precision
    float32_nodes: dict[str, tuple[str, ...]]
    speedup_over_fp32: float | None
    interval: tuple[float, float] | None
    reason: str | None = optional()
    not_timed: str | None = optional()
    overflowing: dict[str, dict[str, float]] | None = optional()
    subnormal: dict[str, dict[str, float]] | None = optional()
    casts: dict[str, int] | None = optional()
    products: int | None = optional()
    equalized: int | None = optional()
    form: str | None = optional()
    around: str | None = optional()
    forms_timed: dict[str, float] | None = optional()
    scan: dict[str, Any] | None = optional()
    scan_images: int | None = optional()

    @property
    def pinned(self) -> tuple[str, ...]:
        """Nodes of any graph that stay in float32, each once."""
        return tuple(sorted({node for nodes in self.float32_nodes.values() for node in nodes}))
