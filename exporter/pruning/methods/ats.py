"""ATS (arXiv 2111.15667) without training: tokens sampled along the sum of their significance, in fixed slots.

The paper's count of survivors varies by image. The static form samples as many levels as a stage has slots; levels that
fall on the same token leave duplicates, which stay in place and are masked out of all later attention and pooling. That
equals ATS run with this limit, not with the authors' 196 levels. Written from the specification.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import costs
from .base import Method, Scores
from .evidence import Evidence
from .ppt import significance
from .selection import Selection


class ATS(Method):
    """Sample tokens along the running sum of their significance."""

    name = "ats"
    about = "tokens sampled along the running sum of their significance, duplicates masked"
    paper = "ATS, ECCV 2022, arXiv 2111.15667"
    reads = "first"
    lengths = True
    masks_duplicates = True
    orders = False

    def score(self, evidence: Evidence, parameters: Method.Parameters) -> Scores:
        """Class attention times value norm, as in PPT."""
        return Scores(significance(evidence))

    def scoring_macs(self, stage: costs.StageSizes, options: Method.StageOptions, parameters: Method.Parameters) -> int:
        """Significance."""
        return costs.significance(stage)

    def select(
        self, evidence: Evidence, keep: int, options: Method.StageOptions, parameters: Method.Parameters
    ) -> Selection:
        """The token nearest to every level of the running sum, in order of place; duplicates stand side by side."""
        prefix, count = evidence.prefix, keep - evidence.prefix
        shares = significance(evidence)
        ranked = shares.topk(shares.shape[1], dim=1, largest=False, sorted=True)
        distance = distances(rescaled(ranked.values.cumsum(dim=1), ranked.values), count)
        places = distance.argmin(dim=2)
        gap = sampling_gap(ranked.values, distance, places)
        if evidence.compares:
            kept = distances(rescaled(sums_up_to_each(shares), shares), count).argmin(dim=2)
        else:
            kept = ranked.indices.gather(1, places)
        front = torch.arange(prefix, device=kept.device).expand(kept.shape[0], -1)
        return Selection(torch.cat([front, kept + prefix], dim=1), gap)


def sums_up_to_each(shares: Tensor) -> Tensor:
    """Sums [batch, patches] of every share and those that rank below it, as running sums of ascending ones have them.

    Of equal shares the first stands lowest.
    """
    own, other = shares.unsqueeze(2), shares.unsqueeze(1)
    places = torch.arange(shares.shape[1], device=shares.device)
    within = (other < own) | ((other == own) & (places <= places.unsqueeze(1)))
    return torch.where(within, other, 0.0).sum(2)


def rescaled(sums: Tensor, shares: Tensor) -> Tensor:
    """Running sums [batch, patches], in any order, rescaled so that the smallest is 0 and the largest 1.

    What has no share at all, as a masked duplicate, is out of every level's reach: no sum of it lies nearer than the
    smallest positive one, but rounding could make it as near.
    """
    first, last = sums.amin(dim=1, keepdim=True), sums.amax(dim=1, keepdim=True)
    return torch.where(shares > 0, (sums - first) / (last - first).clamp_min(1e-12), -1.0)


def distances(sums: Tensor, count: int) -> Tensor:
    """Of `count` levels from every rescaled sum, [batch, levels, patches]."""
    return (sample_levels(sums, count).unsqueeze(2) - sums.unsqueeze(1)).abs()


def sample_levels(sums: Tensor, count: int) -> Tensor:
    """`count` levels [batch, count] from the smallest positive running sum to 1, evenly spaced; a single one is 1."""
    lowest = torch.where(sums > 0, sums, 1.0).amin(dim=1, keepdim=True)
    steps = torch.linspace(0, 1, count, dtype=sums.dtype, device=sums.device) if count > 1 else torch.ones(1)
    return lowest + (1 - lowest) * steps


def sampling_gap(ranked: Tensor, distance: Tensor, places: Tensor) -> Tensor:
    """[batch] how near any choice was: of a level between two sums, and of two neighbours of which one was sampled.

    Both as relative distances of shares: in a sum of many the errors of single ones average out, to a part of
    1 / sqrt(patches) of it.
    """
    if ranked.shape[1] < 2:
        return torch.full_like(ranked[:, 0], float("inf"))
    nearest = distance.topk(2, dim=2, largest=False, sorted=True).values
    between = ((nearest[..., 1] - nearest[..., 0]) * ranked.shape[1] ** 0.5).amin(dim=1)
    sampled = torch.zeros_like(ranked).scatter(1, places, 1.0)
    step = (ranked[:, 1:] - ranked[:, :-1]) / ranked[:, 1:].clamp_min(1e-12)
    apart = torch.where(sampled[:, 1:] != sampled[:, :-1], step, float("inf")).amin(dim=1)
    return torch.minimum(between, apart)
