"""One writer per case: a lock that the operating system releases when its holder dies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from napari_mosaik.core.errors import CaseLocked
from napari_mosaik.io.files import saving

__all__ = ["writer"]


@contextlib.contextmanager
def writer(folder: Path, what: str = "the case") -> Iterator[None]:
    """Hold the write lock of *folder*; when someone else holds it, raise `CaseLocked` at once.

    The lock is the operating system's (``flock`` or its equal), so a crashed or killed holder
    leaves nothing behind.  Within one thread it may be taken again while it is held.
    """
    lock = FileLock(folder / ".lock", timeout=0, is_singleton=True)
    with saving("the lock", folder):
        try:
            lock.acquire()
        except Timeout:
            raise CaseLocked(
                f"{what} in {folder} is being written by another program; wait for it to end or "
                "close the other window, then try again"
            ) from None
    try:
        yield
    finally:
        lock.release()
