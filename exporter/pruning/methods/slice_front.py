"""Control: the first tokens stay, `x[:, :k]`. No plan can run faster; its latency is the floor of every plan."""

from __future__ import annotations

from .base import Method
from .evidence import Evidence
from .selection import Selection


class Slice(Method):
    """Keep the first tokens."""

    name = "slice"
    about = "control: the first tokens, at no cost; the floor of every token plan"

    def select(
        self, evidence: Evidence, keep: int, options: Method.StageOptions, parameters: Method.Parameters
    ) -> Selection:
        """Say "the first `keep` tokens" by naming none."""
        return Selection(None)
