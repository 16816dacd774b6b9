"""A caller's own loader as a source."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import small_vit
from torch.utils.data import DataLoader, TensorDataset

from vitrim.calibration.images.loader import from_loader, split_batch
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.load import preprocessing

PREPROCESS = preprocessing(small_vit())


@pytest.mark.slow
def test_a_data_loader_is_a_source() -> None:
    images, labels = torch.randn(10, 3, 64, 64), torch.arange(10)
    source = from_loader(DataLoader(TensorDataset(images, labels), batch_size=4), PREPROCESS, 7)
    assert len(source) == 7
    np.testing.assert_array_equal(source.read(6), images[6].numpy())
    assert source.labels is not None
    assert source.labels.tolist() == list(range(7))
    assert source.names[:2] == ["loader[0]", "loader[1]"]


def test_any_iterable_of_tensors_is_a_source() -> None:
    images = torch.randn(5, 3, 64, 64, requires_grad=True)
    for given in (list(images), [images[:3], images[3:]], (image.detach().numpy() for image in images)):
        source = from_loader(given, PREPROCESS)
        assert len(source) == 5
        assert source.labels is None
        np.testing.assert_array_equal(source.read(4), images[4].detach().numpy())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "the loader gave no images"),
        ([torch.zeros(0, 3, 64, 64)], "the loader gave no images"),
        ([torch.full((1, 3, 64, 64), float("nan"))], "the tensor holds NaN or Inf"),
        ([torch.randint(0, 256, (2, 3, 64, 64)).float()], "the tensor holds values that look like pixels of 0 to 255"),
        ([torch.randint(0, 256, (3, 64, 64)).double()], "look like pixels of 0 to 255"),
        ([torch.zeros(1, 64, 64, 3)], "the channels come last here"),
        ([torch.zeros(1, 3, 64, 64, device="meta")], "got a Tensor that cannot be read as an array"),
        ([torch.zeros(1, 3, 64, 64).to_sparse()], "got a Tensor that cannot be read as an array"),
        ([{"image": torch.zeros(1, 3, 64, 64)}], r"got object \[\]"),
        (["a.jpg"], "got <U5"),
        ([[[1, 2], [3]]], "got a list that cannot be read as an array"),
        (7, "images is a int; give a path, a DataLoader or an iterable of tensors"),
        ([torch.zeros(1, 3, 32, 64)], r"got float32 \[1, 3, 32, 64\], but the model takes float32 \[n, 3, 64, 64\]"),
        ([torch.zeros(1, 3, 64, 64, dtype=torch.uint8)], r"got uint8 \[1, 3, 64, 64\]"),
        ([torch.zeros(64, 64)], r"got float32 \[64, 64\]"),
    ],
)
def test_what_is_no_input_of_the_model_is_refused(given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_loader(given, PREPROCESS)


def test_labels_that_are_none_are_left_out_with_a_reason() -> None:
    images = torch.zeros(2, 3, 64, 64)
    for labels, said in (
        (torch.tensor([1.5, 2.5]), r"a batch's second part is float32 [2], not one integer an image"),
        (torch.tensor([1, 2, 3]), r"a batch's second part is int64 [3], not one integer an image"),
        (torch.eye(2, dtype=torch.int64), r"a batch's second part is int64 [2, 2], not one integer an image"),
        (["a.jpg", "b.jpg"], "a batch's second part is a list, no tensor of integers"),
        ({"label": 1}, "a batch's second part is a dict, no tensor of integers"),
    ):
        assert split_batch((images, labels), PREPROCESS)[1:] == (None, said)
    assert split_batch((images, None), PREPROCESS)[1:] == (None, None)
    assert split_batch((images, torch.tensor([[1], [2]])), PREPROCESS)[1] is not None
    assert split_batch((images[0], 3), PREPROCESS)[1] is not None
    found = split_batch([images, torch.tensor([1, 2], dtype=torch.int32), "more"], PREPROCESS)[1]
    assert found is not None
    assert found.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("labels", "said"),
    [([0, 7], "reaches from 0 to 7, but the model's classes are 0 to 6"), ([-1, 3], "reaches from -1 to 3"),
     ([1, 7], r"do they count from 1\?")],
)  # fmt: skip
def test_labels_that_are_no_classes_are_refused(labels: list[int], said: str) -> None:
    batch = (torch.zeros(2, 3, 64, 64), torch.tensor(labels))
    with pytest.raises(InputError, match=rf"^images: the loader's labels {said}|{said}"):
        split_batch(batch, PREPROCESS, 7)
    assert split_batch(batch, PREPROCESS)[1] is not None  # of a model whose classes are not known


def test_what_is_odd_about_a_loader_is_heard() -> None:
    heard: list[str] = []
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    source = from_loader([(images[:2], ["a", "b"]), (images[2:], ["c", "d"])], PREPROCESS, note=heard.append)
    assert source.labels is None
    assert heard == [
        "no labels from the loader: a batch's second part is a list, no tensor of integers",
        "images of the loader: all values lie from 0 to 1, where the model's inputs lie from -1.00 to 1.00; subtract "
        "the mean and divide by the deviation if that was not done",
    ]
    heard.clear()
    normalized = 2 * images - 1
    mixed = from_loader([(normalized[:2], torch.tensor([1, 2])), normalized[2:]], PREPROCESS, note=heard.append)
    assert mixed.labels is None
    assert heard == ["no labels from the loader: only 1 of 2 batches have any"]
    heard.clear()
    # one bright batch says nothing, where the others have dark pixels
    from_loader([images, normalized], PREPROCESS, note=heard.append)
    assert heard == []


def test_half_precisions_are_read() -> None:
    images = 2 * torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 1
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        found, labels, odd = split_batch(images.to(dtype), PREPROCESS)
        assert (found.dtype, labels, odd) == (np.float32, None, None)
        np.testing.assert_allclose(found, images.numpy(), atol=0.01)
