"""What lies beside the tensors in a trainer's file, read as nothing at all: none of its code is imported or run.

PyTorch's `weights_only` reader builds tensors, plain containers, and what it is told to by name. It is told of the
settings and counters of well-known trainers here, and for every one of them it gets a stand-in that forgets what it is
given. Names beyond these are refused as ever.
"""

from __future__ import annotations

import contextlib
import pickletools
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

_LOCK = threading.Lock()  # PyTorch has one list of names for all threads


class StandIn:
    """Takes the place of an object, whatever it is made with, and keeps none of it."""

    def __new__(cls, *args: object, **named: object) -> StandIn:
        """Ignore what it is made with."""
        return super().__new__(cls)

    def __init__(self, *args: object, **named: object) -> None:
        """Ignore what it is made with."""

    def __setstate__(self, state: object) -> None:
        """Ignore what it held."""


class ListStandIn:
    """Makes a plain list in place of one of its own class: the reader adds to plain ones alone."""

    def __new__(cls, *args: object, **named: object) -> Any:
        """An empty list."""
        return []


class DictStandIn:
    """Makes a plain dictionary in place of one of its own class: the reader adds to plain ones alone."""

    def __new__(cls, *args: object, **named: object) -> Any:
        """An empty dictionary."""
        return OrderedDict()


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_PLAIN = frozenset((
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *(f"builtins.{name}" for name in ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "range")),
    *(f"builtins.{name}" for name in ("slice", "str", "tuple", "type")),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{name}" for name in ("dtype", "ndarray", "float32", "float64", "int32", "int64", "bool_")),
    "builtins.getattr",  # what mmengine writes for a method; its stand-in looks nothing up
    "decimal.Decimal",
    "torch.torch_version.TorchVersion",
    "typing.Any",
    "uuid.UUID",
))  # fmt: skip
_LISTS = frozenset(("box.box_list.BoxList", "collections.deque"))
_DICTS = frozenset((
    "addict.addict.Dict",
    "box.box.Box",
    "collections.defaultdict",
    "detectron2.config.config.CfgNode",
    "easydict.EasyDict",
    "fvcore.common.config.CfgNode",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "munch.DefaultMunch",
    "munch.Munch",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "yacs.config.CfgNode",
))  # fmt: skip
# Packages of settings, counters and logs; none of theirs is a layer, and a pickled model needs torch.nn besides.
_PACKAGES = frozenset((
    "accelerate", "addict", "box", "detectron2", "easydict", "fvcore", "hydra", "lightning", "lightning_fabric",
    "lightning_utilities", "ml_collections", "mmcls", "mmcv", "mmengine", "mmpretrain", "munch", "omegaconf",
    "pytorch_lightning", "timm", "torchmetrics", "transformers", "wandb", "yacs",
))  # fmt: skip


def names_in(path: Path) -> set[str]:
    """Classes and functions that a PyTorch file names, such as `argparse.Namespace`; nothing of it is loaded.

    Args:
        path: a file of `torch.save`, of the zip layout or the one before it.

    Raises:
        ValueError, EOFError, OSError, zipfile.BadZipFile: it is damaged, or no such file.
    """
    with open(path, "rb") as stream:
        if not zipfile.is_zipfile(stream):
            stream.seek(0)
            return _names(stream, 4)  # a magic number, a version, facts of the system, and what was saved
    with zipfile.ZipFile(path) as archive:
        records = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        with archive.open(records[0] if records else "data.pkl") as stream:
            return _names(stream, 1)


def _names(stream: IO[bytes], pickles: int) -> set[str]:
    return {
        str(value).replace(" ", ".")
        for _ in range(pickles)
        for operation, value, _ in pickletools.genops(stream)
        if operation.name == "GLOBAL"
    }


def _stand_in(name: str) -> type | None:
    """What takes a name's place; None where it is not known to be harmless."""
    if name in _DICTS:
        return DictStandIn
    if name in _LISTS:
        return ListStandIn
    numbers = name.startswith("numpy.dtypes.")
    return StandIn if name in _PLAIN or numbers or name.partition(".")[0] in _PACKAGES else None


@contextlib.contextmanager
def harmless(path: Path) -> Iterator[None]:
    """Within it, `torch.load(path, weights_only=True)` reads stand-ins for what is known to be harmless.

    Args:
        path: a file of `torch.save`; what is no whole one is left for `torch.load` to say.
    """
    try:
        found = names_in(path)
    except (ValueError, KeyError, IndexError, EOFError, OSError, zipfile.BadZipFile, NotImplementedError):
        found = set()
    with _LOCK:
        given = torch.serialization.get_safe_globals()
        taken = {one[1] if isinstance(one, tuple) else f"{one.__module__}.{one.__qualname__}" for one in given}
        names = (found | _PLAIN | _DICTS | _LISTS) - taken
        pairs = [(kind, name) for name in sorted(names) if (kind := _stand_in(name)) is not None]
        with torch.serialization.safe_globals(pairs):  # type: ignore[arg-type]
            yield
