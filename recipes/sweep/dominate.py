"""When a point need not be looked at further: another one is as fast as this could be, and agrees clearly more."""

from __future__ import annotations

from collections.abc import Sequence

from ...exporter.core.fidelity import Fidelity
from .result import Row

MARGIN = 1.03  # a floor's speed is that of one measurement, and other blocks with as much work differ a little


def dominator(row: Row, finished: Sequence[Row], dense_gmacs: float, timed: bool) -> str | None:
    """What dominates a point, in words; None where nothing is known to.

    A point that is finished dominates another one if its speed, at the slow end of its interval, is more than the other
    could have at best; and if it agrees clearly more on the same images, see `clearly_worse`. Where nothing is timed,
    it must take no more GMACs.

    Args:
        row: a point that was looked at, or of which all answers are known.
        finished: points of which everything was measured.
        dense_gmacs: of the dense model.
        timed: whether points are timed here.
    """
    if row.look is None or row.gmacs is None:
        return None
    most = fastest(row, finished, dense_gmacs) if timed else None
    for other in finished:
        seen = _answers(row, other)
        if seen is None or not clearly_worse(*seen):
            continue
        if other.speed is not None and most is not None and other.speed.interval[0] >= most:
            return f"{other.name}: {other.speed.speedup:.2f} x, this {most:.2f} x at best; {_words(*seen)}"
        if not timed and other.gmacs is not None and other.gmacs <= row.gmacs:
            return f"{other.name}: {other.gmacs:.3f} GMACs, this {row.gmacs:.3f}; {_words(*seen)}"
    return None


def fastest(row: Row, finished: Sequence[Row], dense_gmacs: float) -> float | None:
    """The speed-up that a point could have at best; None where nothing says.

    Its tokens cannot be had faster than by slicing, which was timed for other points in the same precision; and time
    falls no faster than work does.
    """
    assert row.floor_gmacs is not None
    known = [dense_gmacs / row.floor_gmacs] if row.precision == "fp32" else []
    for other in finished:
        if other.speed is not None and other.floor_gmacs is not None and other.precision == row.precision:
            known.append(MARGIN * other.speed.floor * max(1.0, other.floor_gmacs / row.floor_gmacs))
    return min(known, default=None)


def clearly_worse(ours: Fidelity, theirs: Fidelity) -> bool:
    """Whether answers agree less with the dense model than others on the same images, by more than chance may make.

    The agreement is no better, and its interval ends below the others', or the divergence's begins above theirs.
    """
    if ours.agreement > theirs.agreement:
        return False
    if ours.agreement_interval[1] < theirs.agreement_interval[0]:
        return True
    if ours.kl_interval is None or theirs.kl_interval is None:
        return False
    return ours.kl_interval[0] > theirs.kl_interval[1]


def _answers(row: Row, other: Row) -> tuple[Fidelity, Fidelity] | None:
    """Answers of two points on the same images: on all, or on the first few, which are those of float32."""
    if row.answers is not None and other.answers is not None:
        return row.answers, other.answers
    if row.look is None or other.look is None or other.precision not in ("fp32", row.precision):
        return None
    return (row.look, other.look) if row.look.images == other.look.images else None


def _words(ours: Fidelity, theirs: Fidelity) -> str:
    return (
        f"agreement {100 * theirs.agreement:.1f} and {100 * ours.agreement:.1f} %, divergence {theirs.kl:.3f} and "
        f"{ours.kl:.3f} on {ours.images} images"
    )
