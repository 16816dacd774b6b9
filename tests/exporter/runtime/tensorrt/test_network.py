"""Networks made and changed: their flags by version, what is pinned, what int8 was asked for, what a DLA takes."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
from engine_layers import quantized

from vitrim.exporter.core.errors import InputError, UnsupportedError
from vitrim.exporter.runtime.tensorrt.network import create_network, pin_float32, quantized_layers, use_dla
from vitrim.exporter.runtime.tensorrt.versions import Typing

WEAK, STRONG = Typing(False, False, False, "weak"), Typing(True, False, False, "strong")


def network_of(*layers: Any) -> Any:
    return types.SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)


@pytest.mark.parametrize("version", ["8.5.2", "10.3.0"])
def test_products_of_dequantized_values_are_found_through_transposes(fake_trt: Any, version: str) -> None:
    fake_trt.install(version)
    network = types.SimpleNamespace(layers=quantized(fake_trt.Layer, fake_trt.DataType))
    network.num_layers, network.get_layer = len(network.layers), network.layers.__getitem__
    assert quantized_layers(sys.modules["tensorrt"], network) == {"/blocks.0/mlp/MatMul"}


@pytest.mark.parametrize("kind", ["SHUFFLE", "CAST", "IDENTITY"])
def test_int8_was_asked_for_where_a_pair_feeds_a_product_or_convolution(fake_trt: Any, kind: str) -> None:
    fake_trt.install("10.3.0")
    make, dtype = fake_trt.Layer, fake_trt.DataType
    pair = make("/dq", dtype.FLOAT, kind="DEQUANTIZE")
    first = make("/between_0", dtype.FLOAT, kind=kind).fed(pair)
    between = make("/between", dtype.FLOAT, kind=kind).fed(first)
    conv = make("/stem", dtype.FLOAT, kind="CONVOLUTION").fed(make("/x", dtype.FLOAT, kind="SHAPE"), between)
    norm = make("/norm", dtype.FLOAT, kind="MATRIX").fed(pair)  # takes a pair, but is no product
    behind = make("/mlp", dtype.FLOAT, kind="MATRIX_MULTIPLY").fed(norm)  # a product, but the pair is not its own
    outside = make("/in", dtype.FLOAT, kind="MATRIX_MULTIPLY")
    outside.inputs = [types.SimpleNamespace(name="image"), None]  # made by no layer
    whole = network_of(pair, first, between, conv, norm, behind, outside)
    found = quantized_layers(sys.modules["tensorrt"], whole)
    assert found == {"/stem"}


@pytest.mark.parametrize(
    ("version", "typing", "flags"),
    [
        ("8.5.2", WEAK, 1),
        ("8.6.1", STRONG, 1),  # 8 has no strong typing
        ("10.3.0", WEAK, 0),
        ("10.3.0", STRONG, 2),
        ("11.4.1", STRONG, 2),
    ],
)
def test_a_network_is_explicit_on_8_and_typed_as_it_is_told(
    fake_trt: Any, version: str, typing: Typing, flags: int
) -> None:
    fake_trt.install(version)
    trt = sys.modules["tensorrt"]
    assert create_network(trt, trt.Builder(None), typing).flags == flags


def test_strong_typing_that_became_the_only_way_is_not_asked_for(fake_trt: Any) -> None:
    fake_trt.install("12.0.0")
    trt: Any = sys.modules["tensorrt"]
    trt.NetworkDefinitionCreationFlag = types.SimpleNamespace()
    assert create_network(trt, trt.Builder(None), STRONG).flags == 0


def test_pins_reach_every_layer_of_a_node_and_no_other(fake_trt: Any) -> None:
    fake_trt.install("8.6.1")
    trt: Any = sys.modules["tensorrt"]
    network = trt.Builder(None).create_network(1)
    assert pin_float32(trt, network, {"/blocks.0/norm", "/blocks.0/topk", "/blocks.0/weight"}) == 3
    pinned = {layer.name: (layer.precision, layer.output_types) for layer in network.layers}
    wide = trt.float32
    assert pinned == {
        "/blocks.0/norm": (wide, {0: wide}),
        "/blocks.0/norm_1": (wide, {0: wide}),
        "/blocks.0/topk": (wide, {0: wide}),  # not its indices
        "/blocks.0/weight": (None, {}),  # a constant computes nothing
    }


def test_a_node_whose_own_name_ends_in_a_number_is_pinned_alone(fake_trt: Any) -> None:
    fake_trt.install("8.6.1")
    trt: Any = sys.modules["tensorrt"]
    network = trt.Builder(None).create_network(1)
    assert pin_float32(trt, network, {"/blocks.0/norm_1"}) == 1
    assert [layer.name for layer in network.layers if layer.precision is not None] == ["/blocks.0/norm_1"]


def test_half_is_pinned_and_integers_are_not(fake_trt: Any) -> None:
    fake_trt.install("8.6.1")
    trt, dtype = sys.modules["tensorrt"], fake_trt.DataType
    half, whole = fake_trt.Layer("/half", dtype.HALF), fake_trt.Layer("/whole", dtype.INT32, dtype.INT64)
    none = fake_trt.Layer("/none")
    none.outputs = [None]  # an output that is not used
    assert pin_float32(trt, network_of(half, whole, none), {"/half", "/whole", "/none"}) == 1
    assert (half.precision, whole.precision, none.precision) == (dtype.FLOAT, None, None)


def test_a_node_that_is_not_there_is_named_unless_it_may_miss(fake_trt: Any) -> None:
    fake_trt.install("8.6.1")
    trt: Any = sys.modules["tensorrt"]
    network = trt.Builder(None).create_network(1)
    wanted = {"/blocks.9/norm", "/blocks.8/norm", "/blocks.0/norm"}
    with pytest.raises(InputError) as caught:
        pin_float32(trt, network, wanted)
    assert str(caught.value) == "the graph has no node /blocks.8/norm to keep in float32 (and 1 more)"
    assert pin_float32(trt, network, wanted, may_miss=True) == 2


def test_what_a_dla_does_not_take_goes_to_the_gpu_and_is_named(fake_trt: Any) -> None:
    seen = fake_trt.install("10.3.0")
    trt: Any = sys.modules["tensorrt"]
    builder = trt.Builder(None)
    network = builder.create_network(2)
    seen.on_dla = lambda layer: layer.name.startswith("/blocks.0/norm")
    config = builder.create_builder_config()
    assert use_dla(trt, network, config, 1) == ["/blocks.0/topk"]  # the constant is no layer that runs
    assert (config.default_device_type, config.DLA_core) == ("dla", 1)
    assert "GPU_FALLBACK" in config.flags
    seen.on_dla = lambda layer: layer.type == "CONSTANT"
    with pytest.raises(UnsupportedError) as caught:
        use_dla(trt, network, builder.create_builder_config(), 0)
    assert str(caught.value) == "none of the graph's layers runs on a DLA; build without --dla-core"
