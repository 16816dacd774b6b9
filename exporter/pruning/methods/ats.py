"""ATS (arXiv 2111.15667) without training: tokens sampled along the sum of their significance, in fixed slots.

The paper's count of survivors varies by image. The static form samples as many levels as a stage has slots; levels that
fall on the same token leave duplicates, which stay in place and are masked out of all later attention and pooling. That
equals ATS run with this limit, not with the authors' 196 levels. Written from the specification.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Evidence, Method, Scores, Selection
from .ppt import significance
from .ranking import ascending


class ATS(Method):
    """Sample tokens along the running sum of their significance."""

    name = "ats"
    about = "tokens sampled along the running sum of their significance, duplicates masked"
    paper = "ATS, ECCV 2022, arXiv 2111.15667"
    reads = "first"
    masks_duplicates = True

    def score(self, evidence: Evidence, parameters: Method.Parameters) -> Scores:
        """Class attention times value norm, as in PPT."""
        return Scores(significance(evidence))

    def select(
        self, evidence: Evidence, keep: int, options: Method.StageOptions, parameters: Method.Parameters
    ) -> Selection:
        """The token nearest to every level of the running sum, in order of place; duplicates stand side by side."""
        prefix, count = evidence.prefix, keep - evidence.prefix
        shares = significance(evidence)
        ranked = shares.topk(shares.shape[1], dim=1, largest=False, sorted=True)
        sums = cumulative(ranked.values)
        distance = (sample_levels(sums, count).unsqueeze(2) - sums.unsqueeze(1)).abs()  # [batch, levels, patches]
        places = distance.argmin(dim=2)
        kept = ascending(ranked.indices.gather(1, places)) + prefix
        front = torch.arange(prefix, device=kept.device).expand(kept.shape[0], -1)
        return Selection(torch.cat([front, kept], dim=1), sampling_gap(ranked.values, distance, places))


def cumulative(shares: Tensor) -> Tensor:
    """Running sums [batch, patches] of ascending shares, rescaled so that the first is 0 and the last 1."""
    sums = shares.cumsum(dim=1)
    first, last = sums[:, :1], sums[:, -1:]
    return (sums - first) / (last - first).clamp_min(1e-12)


def sample_levels(sums: Tensor, count: int) -> Tensor:
    """`count` levels [batch, count] from the smallest positive running sum to 1, evenly spaced; a single one is 1."""
    lowest = torch.where(sums > 0, sums, 1.0).amin(dim=1, keepdim=True)
    steps = torch.linspace(0, 1, count, dtype=sums.dtype, device=sums.device) if count > 1 else torch.ones(1)
    return lowest + (1 - lowest) * steps


def sampling_gap(ranked: Tensor, distance: Tensor, places: Tensor) -> Tensor:
    """[batch] how near any choice was: of a level between two sums, and of two neighbours of which one was sampled."""
    if ranked.shape[1] < 2:
        return torch.full_like(ranked[:, 0], float("inf"))
    nearest = distance.topk(2, dim=2, largest=False, sorted=True).values
    between = ((nearest[..., 1] - nearest[..., 0]) * ranked.shape[1]).amin(dim=1)  # in mean steps of the sum
    sampled = torch.zeros_like(ranked).scatter(1, places, 1.0)
    step = (ranked[:, 1:] - ranked[:, :-1]) / ranked[:, 1:].clamp_min(1e-12)
    apart = torch.where(sampled[:, 1:] != sampled[:, :-1], step, float("inf")).amin(dim=1)
    return torch.minimum(between, apart)
