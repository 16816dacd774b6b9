"""Layouts of checkpoints: what loads is equal to its own model and to timm's loading; what does not is refused."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from checkpoint_layouts import LOADS, REFUSED, SWIN, TINY, Layout, model_of, other, renamed, save

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.checkpoints.layouts import filter_of, fit
from vitrim.exporter.pruning.checkpoints.standins import harmless
from vitrim.exporter.pruning.checkpoints.tensors import Choice, Tensors
from vitrim.exporter.pruning.load import create_model
from vitrim.recipes.schema.load import parse_yaml


def load(layout: Layout, path: Path) -> tuple[Any, str]:
    """The loaded model, and all that was said."""
    said: list[str] = []
    args = {key: value for key, value in layout.arguments.items() if value is not None}
    choice = Choice(**(layout.options or {}))
    model = create_model(layout.name, args=args, checkpoint=path, choice=choice, note=said.append)
    return model, "; ".join(said)


def timm_s_own(layout: Layout, path: Path) -> Any:
    """The model as timm loads it, of a file whose harmless objects it is told of."""
    args = {key: value for key, value in layout.arguments.items() if value is not None}
    with harmless(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of timm's own indexing
        overlay = {"file": str(path), "num_classes": 7}
        return timm.create_model(layout.name, pretrained=True, pretrained_cfg_overlay=overlay, **args)


def logits(model: Any) -> torch.Tensor:
    size = model.patch_embed.img_size
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(images)
    return found


@pytest.mark.parametrize("name", LOADS)
def test_a_layout_loads_and_is_equal_to_its_model_and_to_timm_s_loading(tmp_path: Path, name: str) -> None:
    layout, path = LOADS[name], tmp_path / "w.pth"
    theirs = save(layout, path)
    model, said = load(layout, path)
    assert re.search(layout.said, said) if layout.said else said == ""
    assert said.isprintable()
    if "resampled" not in said:
        assert torch.equal(logits(model), logits(theirs))
    if layout.by_timm:
        assert torch.equal(logits(model), logits(timm_s_own(layout, path)))


@pytest.mark.parametrize("name", REFUSED)
def test_a_layout_is_refused_in_a_line_that_says_why(tmp_path: Path, name: str) -> None:
    save(REFUSED[name], tmp_path / "w.pth")
    with pytest.raises(InputError, match=REFUSED[name].said) as caught:
        load(REFUSED[name], tmp_path / "w.pth")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", [name for name, layout in REFUSED.items() if "num_classes: 0" in layout.said])
def test_a_backbone_gives_features_as_its_refusal_says(tmp_path: Path, name: str) -> None:
    layout, path = REFUSED[name], tmp_path / "w.pth"
    theirs = save(layout, path)
    args = {**layout.arguments, "num_classes": 0, "global_pool": "token"}
    model = create_model(layout.name, args=args, checkpoint=path)
    with torch.inference_mode():
        images = torch.randn(2, 3, *theirs.patch_embed.img_size, generator=torch.Generator().manual_seed(3))
        tokens = theirs.forward_features(images)
    if isinstance(theirs.norm, torch.nn.Identity):  # of a mean; the file's own norm is one of ones
        tokens = torch.nn.functional.layer_norm(tokens, tokens.shape[-1:], eps=model.norm.eps) + 1
    assert torch.allclose(logits(model), tokens[:, 0], atol=1e-5)


RESAMPLED: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("vit_tiny_patch16_224", {}, {"img_size": 64}, "pos_embed"),
    ("vit_tiny_patch16_224", {"img_size": (32, 64)}, {"img_size": 64}, "pos_embed"),
    ("vit_tiny_patch16_224", {}, {"img_size": 16, "patch_size": 8}, "patch_embed.proj.weight"),
    ("flexivit_small", {}, {"img_size": 64}, "pos_embed"),
    ("deit3_small_patch16_224", {}, {"img_size": 64}, "pos_embed"),
    ("vit_small_patch14_reg4_dinov2", {"img_size": 28}, {"img_size": 42}, "pos_embed"),
    ("eva02_tiny_patch14_224", {"img_size": 28}, {"img_size": 42}, "pos_embed"),
    ("beit_base_patch16_224", {}, {"img_size": 64}, "blocks.0.attn.relative_position_bias_table"),
    ("swin_tiny_patch4_window7_224", SWIN, {"window_size": 4}, "layers.0.blocks.0.attn.relative_position_bias_table"),
]


@pytest.mark.parametrize(("name", "args", "theirs", "key"), RESAMPLED)
def test_tables_are_resampled_as_by_timm_with_the_args_that_take_them(
    tmp_path: Path, name: str, args: dict[str, Any], theirs: dict[str, Any], key: str
) -> None:
    path, layout = tmp_path / "w.pth", Layout(lambda state: state, name, args)
    save(Layout(lambda state: state, name, args | theirs), path)
    model, said = load(layout, path)
    before, after = re.findall(rf"timm resampled .*{key} (\(.*?\)) to (\(.*?\))", said)[0]
    assert before != after
    advice = said.partition("model.args: ")[2].partition("}")[0] + "}"
    asked = parse_yaml(f"args: {advice}", "the advice")["args"]
    assert {argument: asked[argument] for argument in theirs} == theirs
    again = timm_s_own(layout, path)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    assert torch.equal(logits(model), logits(again))


def test_the_page_has_a_row_for_every_layout() -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "models.md").read_text().partition("## Hugging Face")[0]
    rows = re.findall(r"^\| (.+?) \| (equal|resampled|refused)", page, re.MULTILINE)
    resampled = [name for name, layout in LOADS.items() if "resampled" in layout.said]
    assert sorted(name for name, what in rows if what != "refused") == sorted(LOADS)
    assert [name for name, what in rows if what == "resampled"] == resampled
    assert sorted(name for name, what in rows if what == "refused") == sorted(REFUSED)


def fitted(held: dict[str, torch.Tensor], place: str = "", **choice: Any) -> Any:
    model = model_of("vit_tiny_patch16_224", **TINY)
    return fit(Tensors(held, place), model, filter_of("vit_tiny_patch16_224"), Choice(**choice), "w.pth")


def test_names_under_one_prefix_are_found_and_several_are_told_apart() -> None:
    state = dict(model_of("vit_tiny_patch16_224", seed=1, **TINY).state_dict())
    one = fitted({**renamed(state, prefix="net.encoder."), "net.loss.weight": torch.ones(1)})
    assert (one.whole, one.prefix, one.outside) == (True, "net.encoder.", ("net.loss.weight",))
    assert all(torch.equal(one.state[key], value) for key, value in state.items())
    both = {**renamed(state, prefix="student."), **renamed(other(state), prefix="teacher.")}
    with pytest.raises(InputError, match=r"models \(student, teacher\); say which, such as model\.state: student"):
        fitted(both)
    assert fitted(both, state="teacher").prefix == "teacher."
    assert fitted(both, "weights", state="weights.student").prefix == "student."
    averaged = {**state, **renamed(other(state), prefix="ema_model.")}
    assert (fitted(averaged).prefix, fitted(averaged, ema=False).prefix) == ("ema_model.", "")
    with pytest.raises(InputError, match=r"model\.state: w\.pth has no such tensors at 'nobody'"):
        fitted(state, state="nobody")


def test_what_a_filter_makes_up_is_missing_unless_it_is_zero() -> None:
    model = model_of("vit_tiny_patch16_224", **TINY)
    state = {key: value for key, value in model.state_dict().items() if key != "head.bias"}
    for made, zeros, missing in (
        (torch.zeros(7), ("head.bias",), ()),
        (torch.full((7,), 1e-6), ("head.bias",), ("head.bias",)),
    ):
        found = fit(Tensors(state), model, lambda held, _, made=made: {**held, "head.bias": made}, Choice(), "w.pth")
        assert (found.zeros, found.missing, found.whole) == (zeros, missing, not missing)


def test_tensors_are_followed_through_a_filter() -> None:
    """A tower beside the model's is told by where its tensors went, not by names."""
    model = model_of("vit_tiny_patch16_224", **TINY)
    state = {f"a.{key}": value for key, value in model.state_dict().items()}
    state["a.blocks.0.attn.qkv.weight"], rest = state["a.blocks.0.attn.qkv.weight"].split((48, 96))
    state |= {"a.qkv": rest, "b.words": torch.ones(3)}

    def join(held: dict[str, torch.Tensor], _: Any) -> dict[str, torch.Tensor]:
        made = {key[2:]: value for key, value in held.items() if key.startswith("a.") and key != "a.qkv"}
        joined = torch.cat([made["blocks.0.attn.qkv.weight"], held["a.qkv"]])
        return made | {"blocks.0.attn.qkv.weight": joined}

    found = fit(Tensors(state), model, join, Choice(), "w.pth")
    assert (found.whole, found.outside, found.resampled, found.unused) == (True, ("b.words",), (), ())
    assert all(type(value) is torch.Tensor for value in found.state.values())
    assert all(torch.equal(found.state[key], value) for key, value in model.state_dict().items())


def test_filters_are_timm_s() -> None:
    assert filter_of("resnet18.a1_in1k") is None
    assert filter_of("vit_tiny_patch16_224.augreg_in21k") is not None
