"""Where a study is kept: a journal that several processes append to, or a database."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...exporter.core.errors import EnvironmentLackError, InputError, VitrimError, excerpt
from ...exporter.core.files import explain_os_error


def is_url(storage: str) -> bool:
    """Whether a storage is a database's URL, and no path."""
    return "://" in storage


def need_optuna() -> Any:
    """Optuna.

    Raises:
        EnvironmentLackError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise EnvironmentLackError(
            "optuna is not installed, which prune.search.by: optuna needs: pip install 'vitrim[search]'"
        ) from error
    return optuna


def open_storage(storage: str | None) -> Any:
    """Optuna's storage.

    Args:
        storage: a path, a URL, or None for the memory of this process.

    Raises:
        InputError: a file there is no journal of a search.
        EnvironmentLackError: it cannot be opened.
    """
    optuna = need_optuna()
    if storage is None:
        return optuna.storages.InMemoryStorage()
    try:
        if is_url(storage):
            return optuna.storages.RDBStorage(storage)
        return _journal(Path(storage))
    except VitrimError:
        raise
    except OSError as error:
        raise explain_os_error(error, storage) from error
    except Exception as error:
        if is_url(storage):  # its text may hold a password
            reason = type(error).__name__
            raise EnvironmentLackError(
                f"prune.search.storage: the database does not open ({reason}); write it as sqlite:///FILE or "
                "postgresql://USER:PASSWORD@HOST/NAME, with its driver installed"
            ) from error
        raise InputError(
            f"{storage} is damaged ({excerpt(str(error), 100)}); name another prune.search.storage, or remove the file"
        ) from error


def _journal(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileOpenLock(str(path))
    if path.exists():
        lock.acquire()
        try:
            cut_torn(path)
        finally:
            lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock))


def cut_torn(path: Path) -> None:
    """Cut off a last line that a crash of the machine left torn; what would follow it could not be read.

    Raises:
        InputError: the file is no journal of Optuna's.
    """
    text = path.read_bytes()
    whole, newline, torn = text.rpartition(b"\n")
    first = whole.partition(b"\n")[0]
    if text and not (_is_entry(first) if newline else torn.startswith(b'{"op_code"')):
        raise InputError(f"{path} is no journal of a search; name another prune.search.storage")
    if torn:
        os.truncate(path, len(text) - len(torn))


def _is_entry(line: bytes) -> bool:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "op_code" in found
