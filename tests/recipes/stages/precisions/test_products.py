"""Products that are made once: whose counterparts are whose, what they cost, and NNCF's with or without SmoothQuant."""

from __future__ import annotations

import pytest
from int8_graphs import graphs, job, logits

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.core.fidelity import fidelity
from vitrim.exporter.graph.precision.qdq import quantizable
from vitrim.exporter.graph.precision.sensitivity import Layout
from vitrim.recipes.stages.precisions.around import OPENVINO
from vitrim.recipes.stages.precisions.products import Maker, costs_of, counterparts, smoother


def test_products_stand_for_those_of_the_same_columns() -> None:
    apart = {"kv": 96, "q": 48, "proj": 48, "fc1": 192}
    whole = {"qkv": 144, "o": 48, "up": 192}
    assert counterparts(whole, apart) == {"qkv": ("kv", "q"), "o": ("proj",), "up": ("fc1",)}
    assert counterparts(apart, whole) == {"kv": ("qkv",), "q": ("qkv",), "proj": ("o",), "fc1": ("up",)}
    assert counterparts(apart, apart) == {name: (name,) for name in apart}
    with pytest.raises(UnsupportedError, match="the floor has 1 products to quantize with 144 columns, the pruned"):
        counterparts(apart, {"qkv": 144})


@pytest.mark.slow
def test_costs_grow_with_the_product() -> None:
    model = graphs("ort-cpu", 1.0, 1.0)["pruned"]
    products = quantizable(model)
    costs = costs_of(model, products)
    first, second = costs[products[2]], costs[products[3]]  # 12 rows, 48 x 192 and 192 x 48
    assert (first.floats, second.floats) == pytest.approx((0.01 * 12 * 48 * 192,) * 2)
    assert (first.token, second.token) == pytest.approx((0.37 * 12 * (96 + 192), 0.37 * 12 * (384 + 48)))


def pairs_of(smooth: bool) -> Maker:
    """NNCF's pairs of a graph with a channel that is a thousand times larger than the others."""
    made = job("openvino", tool="nncf")
    model = graphs("openvino", 1e3, 1e-3)["pruned"]
    return Maker(made, model, quantizable(model), OPENVINO.scheme, OPENVINO.write, made.measured, smooth)


@pytest.mark.slow
def test_of_pairs_with_and_without_smoothing_the_nearer_ones_are_taken() -> None:
    plain, smooth = (pairs_of(each) for each in (False, True))
    reference = logits(plain.model)
    kls = [fidelity(reference, logits(make(Layout())), None).kl for make in (plain, smooth)]
    assert min(kls) > 0
    assert kls[0] != kls[1]
    assert smoother(plain, smooth, logits, reference) is (plain, smooth)[kls.index(min(kls))]
    assert smoother(smooth, plain, logits, reference) is (plain, smooth)[kls.index(min(kls))]
