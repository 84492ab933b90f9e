"""Atomic writing, digests and locks of files, with clear messages when a file cannot be used."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from platform import node
from typing import Any

from filelock import FileLock, Timeout

from napari_mosaik.core.atomic import atomic_file, flush_to_disk
from napari_mosaik.core.errors import CaseLocked, InputError, MosaikError

__all__ = [
    "in_words",
    "json_ready",
    "link_files",
    "operating_system_message",
    "read_json",
    "remove_tree",
    "saving",
    "unreadable",
    "write_bytes",
    "write_json",
    "write_lock",
]

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EACCES: "permission denied; change the permissions or choose another folder",
    errno.EPERM: "permission denied; change the permissions or choose another folder",
    errno.EROFS: "the disk is read-only; copy the case to a folder that can be written",
}


def operating_system_message(error: OSError) -> str:
    """One sentence for an error of the operating system, with the file if it is known."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return f"{error.filename}: {reason}" if error.filename else reason


@contextlib.contextmanager
def saving(what: str, where: Path) -> Iterator[None]:
    """Convert errors of the operating system while saving into one clear message."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise MosaikError(f"{what} could not be saved in {where}: {reason}.") from error


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file, complete or not at all.

    Without *durable* the function does not wait for the disk; after a power failure the file may
    be empty.
    """
    with saving(path.name, path.parent), atomic_file(path) as scratch, scratch.open("wb") as file:
        file.write(content)
        if durable:
            flush_to_disk(file)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, complete or not at all; NaN becomes null."""
    text = json.dumps(json_ready(value), indent=1, sort_keys=True, allow_nan=False)
    write_bytes(path, text.encode() + b"\n")


def json_ready(value: Any) -> Any:
    """A value as JSON holds it; NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if hasattr(value, "tolist"):
        return json_ready(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def read_json(path: Path) -> Any:
    """Read a JSON file that the program wrote; a missing or damaged one raises `InputError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise unreadable(error, path) from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is damaged, it is no JSON file: {error}") from error


def unreadable(error: OSError, path: Path | str = "") -> InputError:
    """The error for a file that the operating system does not let be read."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return InputError(f"{error.filename or path} cannot be read: {reason}")


def in_words(error: Exception) -> str:
    """The message of an error, also of the operating system, for the user."""
    return str(unreadable(error) if isinstance(error, OSError) else error)


def remove_tree(path: Path) -> None:
    """Delete a folder and its content; a missing folder is not an error."""
    with saving("the removal of old files", path.parent), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def link_files(folder: Path, target: Path, names: Iterable[str]) -> None:
    """Link files of a folder that are never changed in place into another one, which is made.

    They are copied if the file system has no hard links.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        source, copy = f"{folder}{os.sep}{name}", f"{target}{os.sep}{name}"
        try:
            os.link(source, copy)
        except OSError:
            shutil.copy2(source, copy)


@contextlib.contextmanager
def write_lock(folder: Path, what: str = "the case") -> Iterator[None]:
    """Hold the write lock of *folder*; if another process holds it, raise `CaseLocked` at once.

    It is a lock of the operating system (``flock`` or its equivalent), which is released when its
    holder crashes or is killed.  The same thread may acquire it again while it is held.
    """
    lock = FileLock(folder / ".lock", timeout=0, is_singleton=True)
    with saving("the lock", folder):
        try:
            lock.acquire()
        except Timeout:
            raise CaseLocked(
                f"{what} in {folder} is being written by another process{_writer(folder)}; wait "
                "until it ends or close the other window, then try again"
            ) from None
    try:
        with contextlib.suppress(OSError):
            own = f"{Path(sys.argv[0]).name or 'python'}, process {os.getpid()} on {node()}"
            (folder / _WRITER).write_text(own, "utf-8")
        yield
    finally:
        # Of a thread that holds it several times only the outermost holder signs off.
        if lock.lock_counter == 1:
            with contextlib.suppress(OSError):
                (folder / _WRITER).unlink(missing_ok=True)
        lock.release()


_WRITER = ".writer"


def _writer(folder: Path) -> str:
    """Who holds the write lock of *folder*, in brackets; empty if it did not say."""
    try:
        return f" ({(folder / _WRITER).read_text('utf-8')})"
    except (OSError, UnicodeDecodeError):
        return ""
