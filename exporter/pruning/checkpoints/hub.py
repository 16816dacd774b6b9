"""Where a checkpoint lies: a file, a folder of a model, or a name on the Hugging Face hub, fetched once and kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import EnvironmentLackError, InputError, excerpt
from ...core.files import sha256
from ...core.inputs import InputKind, read_bytes

CONFIG = "config.json"
_IMAGES = ("preprocessor_config.json", "processor_config.json")
# In a folder, the first of these that is there.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_NAME = re.compile(r"^hf[-_]hub:(?P<repository>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?$")


@dataclass(frozen=True)
class Place:
    """Files of a checkpoint.

    Attributes:
        weights: one, or the parts of one.
        config: what lies beside them as config.json; None where nothing does.
        images: likewise preprocessor_config.json.
        named: whether the folder was named, not a file.
        folder: that they lie in.
    """

    weights: tuple[Path, ...]
    config: dict[str, Any] | None
    images: dict[str, Any] | None
    named: bool
    folder: Path


def is_hub_name(text: str) -> bool:
    """Whether a text is a name on the hub, such as `hf-hub:timm/vit_tiny_patch16_224@main`, not a path."""
    return text.startswith(("hf-hub:", "hf_hub:"))


def locate(checkpoint: str | os.PathLike[str], note: Callable[[str], None] = lambda text: None) -> Place:
    """Find a checkpoint's files, and read what lies beside them.

    Args:
        checkpoint: a file, a folder, or a name on the hub (`hf-hub:OWNER/NAME@REVISION`).
        note: hears which revision was taken where none is pinned.

    Raises:
        InputError: there is nothing such, or what lies beside it is damaged.
        EnvironmentLackError: the hub cannot be reached, and the cache has it not.
    """
    text = os.fspath(checkpoint)
    if is_hub_name(text):
        return _in_folder(_fetch(text, note))
    path = Path(text)
    if not os.path.lexists(path):
        raise InputError(f"model.checkpoint: there is no file {excerpt(text, 300)}")
    if path.is_dir() and any((path / name).is_file() for name in _WEIGHTS):
        return _in_folder(path)
    parts = _parts(path) if path.name.endswith(".index.json") else (path,)
    return Place(parts, *_beside(path.parent), False, path.parent)


def _in_folder(folder: Path) -> Place:
    found = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise InputError(f"{folder} holds none of {', '.join(_WEIGHTS)}; save the model again")
    parts = _parts(found) if found.name.endswith(".index.json") else (found,)
    return Place(parts, *_beside(folder), True, folder)


def _beside(folder: Path) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """What config.json and preprocessor_config.json of a folder hold."""
    images = next((read for name in _IMAGES if (read := _read(folder / name)) is not None), None)
    if images is not None and isinstance(images.get("image_processor"), dict):
        images = images["image_processor"]
    return _read(folder / CONFIG), images


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        data = json.loads(read_bytes(path, InputKind.JSON))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON; fetch it again") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} is no JSON object; fetch it again")
    return data


def digest(checkpoint: str | os.PathLike[str]) -> str | None:
    """Hex SHA-256 of a checkpoint: of the file, or over the names and hashes of a folder's files; None of the hub's.

    Raises:
        InputError: see `locate`.
    """
    text = os.fspath(checkpoint)
    if is_hub_name(text) or not os.path.exists(text):
        return None
    if os.path.isfile(text) and not text.endswith(".index.json"):
        return sha256(text)
    place = locate(text)
    files = [*place.weights, *(place.folder / name for name in (CONFIG, *_IMAGES) if (place.folder / name).is_file())]
    listed = "".join(f"{file.name}:{sha256(file)};" for file in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def _parts(index: Path) -> tuple[Path, ...]:
    """The files that an index of a checkpoint names, all beside it."""
    listed = (_read(index) or {}).get("weight_map")
    names = sorted({str(name) for name in listed.values()}) if isinstance(listed, dict) else []
    if not names or any(os.path.basename(name) != name for name in names):
        raise InputError(f"{index} names no files beside it in its weight_map; fetch it again")
    lacking = [name for name in names if not (index.parent / name).is_file()]
    if lacking:
        raise InputError(f"{index} names {excerpt(lacking[0], 80)}, which is not beside it; fetch it")
    return tuple(index.parent / name for name in names)


def _fetch(text: str, note: Callable[[str], None]) -> Path:
    """The folder in the hub's cache with a model's files."""
    found = _NAME.match(text)
    if found is None:
        raise InputError(f"model: {excerpt(text, 100)} is no name on the hub; write hf-hub:OWNER/NAME@REVISION")
    repository, revision = found["repository"], found["revision"]
    taken = next((path for name in _WEIGHTS if (path := _file(repository, name, revision))), None)
    if taken is None:
        raise InputError(f"model: {repository} on the hub holds none of {', '.join(_WEIGHTS)}; name another")
    folder = taken.parent
    pinned = revision or folder.name  # the hub may move on meanwhile
    if taken.name.endswith(".index.json"):
        listed = (_read(taken) or {}).get("weight_map")
        for name in sorted(set(listed.values())) if isinstance(listed, dict) else ():
            _file(repository, str(name), pinned)
    for name in (CONFIG, *_IMAGES):
        _file(repository, name, pinned)
    if revision is None:
        note(f"{text}: revision {folder.name} is taken; pin it: hf-hub:{repository}@{folder.name}")
    return folder


def _file(repository: str, name: str, revision: str | None) -> Path | None:
    """A file of the hub, fetched or from the cache; None where the repository has no such file."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    shown = f"{repository}@{revision}" if revision else repository
    try:
        return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
    except LocalEntryNotFoundError as error:
        if _cached(repository, revision, name):
            return None
        raise _unreachable(shown, error) from error
    except EntryNotFoundError:
        return None
    except HFValidationError as error:
        raise InputError(f"model: {excerpt(shown, 100)} is no name on the hub; write hf-hub:OWNER/NAME") from error
    except Exception as error:  # the hub's clients raise what they please
        raise _unreachable(shown, error) from error


def _cached(repository: str, revision: str | None, name: str) -> bool:
    """Whether the cache has a file of a revision, or any other of it: then it has not this one."""
    import huggingface_hub

    for other in (*_WEIGHTS, CONFIG, *_IMAGES):
        if other != name and isinstance(
            huggingface_hub.try_to_load_from_cache(repository, other, revision=revision), str
        ):
            return True
    return False


def _unreachable(shown: str, error: Exception) -> EnvironmentLackError:
    reason = excerpt(" ".join(str(error).split()), 160) or type(error).__name__
    return EnvironmentLackError(
        f"cannot fetch {shown} from the hub ({reason}); download its folder elsewhere and give model: "
        "{checkpoint: FOLDER}"
    )
