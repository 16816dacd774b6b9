"""ToMe, PPT, ToFu and EViT with loops over tokens, straight from their specifications, for one image."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from vitrim.exporter.pruning.methods.selection import Selection

Pairs = list[tuple[int, int]]
# Arguments of helpers.make_evidence.
SIZES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10_000),
        "heads": st.integers(1, 4),
        "patches": st.integers(4, 15),
        "prefix": st.integers(0, 3),
    }
)


def plain_matching(
    keys: np.ndarray, prefix: int, reduction: int, worth: dict[int, float] | None = None
) -> tuple[list[int], Pairs]:
    """[heads, tokens, dim] keys -> positions that stay, in order, and (source, target) positions."""
    mean = keys.mean(axis=0)
    tokens = len(mean)
    group_a = [i for i in range(prefix, tokens) if i % 2 == 0]
    group_b = [i for i in range(prefix, tokens) if i % 2 == 1]

    def cosine(i: int, j: int) -> float:
        return float(mean[i] @ mean[j] / np.linalg.norm(mean[i]) / np.linalg.norm(mean[j]))

    best = {i: max(group_b, key=lambda j, i=i: cosine(i, j)) for i in group_a}
    loss = {i: (1 - cosine(i, best[i])) * (worth[i] if worth else 1.0) for i in group_a}
    merged = sorted(group_a, key=lambda i: loss[i])[:reduction]
    stays = list(range(prefix)) + [i for i in group_a if i not in merged] + group_b
    return stays, [(i, best[i]) for i in merged]


def plain_significance(attention: np.ndarray, values: np.ndarray, prefix: int) -> dict[int, float]:
    """[heads, tokens, tokens] and [heads, tokens, dim] -> share of every patch."""
    heads, tokens, _ = attention.shape
    raw = {}
    for j in range(prefix, tokens):
        length = np.sqrt(sum(float(values[h, j] @ values[h, j]) for h in range(heads)))
        raw[j] = sum(float(attention[h, 0, j]) for h in range(heads)) * length
    total = sum(raw.values())
    return {j: value / total for j, value in raw.items()}


def plain_ppt(
    attention: np.ndarray, keys: np.ndarray, values: np.ndarray, prefix: int, keep: int, threshold: float
) -> tuple[list[int], Pairs]:
    """Prune by significance where it varies by the threshold or more, else pool."""
    shares = plain_significance(attention, values, prefix)
    mean = sum(shares.values()) / len(shares)
    variance = sum((share - mean) ** 2 for share in shares.values()) / (len(shares) - 1)
    if variance < threshold:
        return plain_matching(keys, prefix, keys.shape[1] - keep)
    best = sorted(shares, key=lambda j: -shares[j])[: keep - prefix]
    return [*range(prefix), *best], []


def plain_merge(
    x: np.ndarray, sizes: list[float], stays: list[int], pairs: Pairs, longest: bool = False
) -> tuple[np.ndarray, list[float]]:
    """Average by size, or (`longest`) the mean's direction at the largest norm."""
    rows, left = [], []
    for stay in stays:
        group = [stay] + [source for source, target in pairs if target == stay]
        if longest:
            mean = np.mean([x[i] for i in group], axis=0)
            rows.append(mean / np.linalg.norm(mean) * max(np.linalg.norm(x[i]) for i in group))
            left.append(1.0)
        else:
            total = sum(sizes[i] for i in group)
            rows.append(sum(sizes[i] * x[i] for i in group) / total)
            left.append(total)
    return np.array(rows), left


def plain_fused(x: np.ndarray, attention: np.ndarray, stays: list[int]) -> np.ndarray:
    """EViT's fused token: what goes, summed with its class attention as it is."""
    weights = attention[:, 0].mean(axis=0)
    return sum((weights[j] * x[j] for j in range(len(x)) if j not in stays), np.zeros(x.shape[1]))


def pairs_of(selection: Selection, image: int) -> list[tuple[int, int]]:
    """(source, target) positions in the sequence before."""
    assert selection.merge is not None
    assert selection.kept is not None
    if selection.merge.active is not None and not selection.merge.active[image]:
        return []
    kept = selection.kept[image].tolist()
    targets = [kept[target] for target in selection.merge.target[image].tolist()]
    return list(zip(selection.merge.source[image].tolist(), targets, strict=True))
