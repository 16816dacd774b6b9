"""What lies beside tensors: harmless objects are read as nothing, and everything else is refused by its name."""

from __future__ import annotations

import argparse
import collections
import datetime
import fractions
import functools
import operator
import pathlib
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_layouts import SETTINGS, of_trainer, trainers

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.checkpoints.standins import StandIn, harmless, names_in
from vitrim.exporter.pruning.checkpoints.tensors import read_state_dict

HARMLESS: dict[str, Any] = {
    "arguments": argparse.Namespace(lr=0.1, folder=pathlib.PurePosixPath("/x"), seed=np.int64(3)),
    "a path": pathlib.Path("/x") / "y",
    "a number of NumPy": np.float32(0.5),
    "an array of NumPy": np.arange(6).reshape(2, 3),
    "a random state": np.random.default_rng(0).bit_generator.state,
    "dates": [datetime.datetime(2026, 1, 2), datetime.timedelta(3), datetime.timezone.utc],
    "a default dictionary": collections.defaultdict(list, {"loss": [0.5]}),
    "a queue": collections.deque([1, 2], maxlen=3),
    "a name space": types.SimpleNamespace(lr=0.1),
    "a count": collections.Counter("aab"),
    "a version": torch.__version__,
    "sets": [{1, 2}, frozenset((1, 2))],
    "a class": [int, dict],
    "a large number": 2**70,
}
REFUSED: dict[str, tuple[Any, str]] = {
    "a call that is prepared": (functools.partial(abs, 1), r"functools\.partial|builtins\.abs"),
    "a getter": (operator.itemgetter(1), r"operator\.itemgetter"),
    "a function": (eval, "eval"),
    "a class of its own": (fractions.Fraction(1, 3), r"fractions\.Fraction"),
    "a layer": (torch.nn.Identity(), r"torch\.nn\.modules\.linear\.Identity"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_objects_do_not_stand_in_the_way(tmp_path: Path, kind: str, zipped: bool) -> None:
    held = {"model": {"w": torch.ones(2)}, "beside": HARMLESS[kind]}
    torch.save(held, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert torch.equal(read_state_dict(tmp_path / "w.pth")["w"], torch.ones(2))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_could_run_code_is_refused_by_its_name(tmp_path: Path, kind: str, zipped: bool) -> None:
    what, name = REFUSED[kind]
    torch.save({"w": torch.ones(2), "x": what}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=rf"more than tensors, such as [\w.]*({name}), and loading it could run code"):
        read_state_dict(tmp_path / "w.pth")


def test_settings_of_trainers_need_no_trainer(tmp_path: Path) -> None:
    """Dictionaries of their own class, objects with a state, methods by name; none is imported or made."""
    with trainers() as classes:
        beside = [of_trainer(name, lr=0.1, inner=of_trainer(name, steps=[1, 2])) for name in SETTINGS]
        log = classes["mmengine.logging.history_buffer.HistoryBuffer"]
        torch.save({"model": {"w": torch.ones(2)}, "x": beside, log: log.mean}, tmp_path / "w.pth")
    assert set(SETTINGS) < names_in(tmp_path / "w.pth")
    assert not {"yacs", "yacs.config", "omegaconf"} & sys.modules.keys()
    with harmless(tmp_path / "w.pth"):
        found = torch.load(tmp_path / "w.pth", weights_only=True)
    assert [type(one) for one in found["x"]] == [OrderedDict, StandIn, StandIn, OrderedDict, OrderedDict]
    assert vars(found["x"][1]) == {}
    assert not {"yacs", "yacs.config", "omegaconf"} & sys.modules.keys()


def test_getattr_by_name_reaches_nothing(tmp_path: Path) -> None:
    """mmengine writes methods as getattr(class, name): its stand-in looks nothing up, and cannot be called."""

    class Reached:
        def __reduce__(self) -> Any:
            return getattr, (int, "from_bytes")

        def __call__(self) -> None: ...

    class Called:
        def __reduce__(self) -> Any:
            return Reached(), (b"1", "little")

    torch.save({"w": torch.ones(2), "x": Reached()}, tmp_path / "w.pth")
    with harmless(tmp_path / "w.pth"):
        found = torch.load(tmp_path / "w.pth", weights_only=True)
    assert type(found["x"]) is StandIn
    torch.save({"w": torch.ones(2), "x": Called()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="holds more than tensors, and loading it could run code"):
        read_state_dict(tmp_path / "w.pth")


def test_pytorch_s_list_of_names_is_left_as_it_was(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "x": argparse.Namespace(lr=1)}, tmp_path / "w.pth")
    before = set(torch.serialization.get_safe_globals())
    with torch.serialization.safe_globals([argparse.Namespace]):
        with harmless(tmp_path / "w.pth"):
            found = torch.load(tmp_path / "w.pth", weights_only=True)
        assert found["x"].lr == 1  # a user's own word on a class is kept
        assert set(torch.serialization.get_safe_globals()) == {*before, argparse.Namespace}
    assert set(torch.serialization.get_safe_globals()) == before
