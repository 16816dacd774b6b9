"""Blocks, stages and what stands behind a block, in networks that are written down step by step."""

from __future__ import annotations

from vitrim.exporter.core.wiring import Step, wiring_of

WIDE, ROW = (1, 9, 16), (16, 16)


class Steps:
    """Steps by name, in order."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.at: dict[str, int] = {}

    def add(self, name: str, kind: str, *makers: str) -> str:
        shapes = tuple(ROW if self.steps[self.at[one]].kind == "CONSTANT" else WIDE for one in makers)
        self.at[name] = len(self.steps)
        self.steps.append(Step(name, kind, tuple(self.at[one] for one in makers), shapes))
        return name

    def weigh(self, name: str, x: str) -> str:
        return self.add(name, "MATRIX_MULTIPLY", x, self.add(f"{name}.w", "CONSTANT"))

    def attend(self, name: str, x: str, asks: str | None = None) -> str:
        """An attention whose queries may be fewer than its keys."""
        keys = self.weigh(f"{name}.k", x)
        few = x if asks is None else asks
        scores = self.add(f"{name}.softmax", "SOFTMAX", self.weigh(f"{name}.q", few), keys)
        out = self.weigh(f"{name}.proj", self.add(f"{name}.mix", "MATRIX_MULTIPLY", scores, keys))
        return self.add(f"{name}.add", "ELEMENTWISE", few, out)

    def mlp(self, name: str, x: str) -> str:
        return self.add(f"{name}.add", "ELEMENTWISE", x, self.weigh(f"{name}.fc", x))


def test_a_stage_within_a_block_is_not_behind_it() -> None:
    net = Steps()
    net.add("image", "INPUT")
    x = net.attend("a0", net.add("embed", "CONVOLUTION", "image"))
    net.add("rank", "REDUCE", "a0.softmax")
    x = net.mlp("m0", net.add("gather", "GATHER", x, net.add("topk", "TOPK", "rank")))
    net.mlp("m1", net.attend("a1", x))
    found = wiring_of(net.steps)
    assert {found.parts[name] for name in ("rank", "topk", "gather")} == {"stage 0"}
    assert found.behind == frozenset()


def test_keys_of_all_tokens_before_some_go_are_behind_the_block_before() -> None:
    net = Steps()
    net.add("image", "INPUT")
    x = net.add("embed", "CONVOLUTION", "image")
    for block in (0, 1):
        few = net.add(f"few{block}", "SLICE", x)
        x = net.mlp(f"m{block}", net.attend(f"a{block}", x, few))
    found = wiring_of(net.steps)
    assert {name: found.parts[name] for name in ("a0.k", "few0", "a0.q", "a1.k", "few1", "a1.q")} == {
        "a0.k": "embedding",
        "few0": "embedding",
        "a0.q": "block 0",
        "a1.k": "stage 0",
        "few1": "stage 0",
        "a1.q": "block 1",
    }
    assert found.behind == {"a0.k", "few0", "a1.k", "few1"}
    assert found.parts["embed"] == "embedding"


def test_a_network_without_attention_has_no_blocks() -> None:
    net = Steps()
    net.mlp("m", net.add("image", "INPUT"))
    found = wiring_of(net.steps)
    assert (found.parts, found.behind) == ({}, frozenset())
    assert found.products == {"m.fc"}
