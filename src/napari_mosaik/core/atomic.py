"""Files and folders that appear whole or not at all, whatever interrupts the writing.

    with atomic_file(path) as scratch:      with atomic_folder(path) as scratch:
        scratch.write_bytes(content)            (scratch / "card.json").write_text(text)

The content is written under another name in the same folder, which is renamed at the end.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_file", "atomic_folder", "flush_to_disk", "move_folder", "scratch_path"]

_numbers = itertools.count()


def scratch_path(path: Path) -> Path:
    """A name beside *path* that no other thread or process uses: ``.NAME.PID-N.part``."""
    return path.with_name(f".{path.name}.{os.getpid()}-{next(_numbers)}.part")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give the path to write to; it replaces *path* at the end, unless there was an error."""
    scratch = scratch_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield scratch
        scratch.replace(path)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes *path* at the end, unless there was an error.

    Raises `OSError` where *path* is a folder that holds something.
    """
    scratch = scratch_path(path)
    scratch.mkdir(parents=True)
    try:
        yield scratch
        scratch.replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def flush_to_disk(file: BinaryIO) -> None:
    """Wait until what was written to an open file is on the disk, so that it survives a crash."""
    file.flush()
    os.fsync(file.fileno())


def move_folder(source: Path, target: Path) -> None:
    """Move a folder to a name that is free, also on another file system; it is there whole or not.

    Where it cannot be renamed, its files are copied beside *target*, on the disk before the copy
    gets its name; only then the source goes.  Raises `OSError` where that fails.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with atomic_folder(target) as scratch:
            _copy_to_disk(source, scratch)
        # renamed first: of a folder that is removed halfway, no part may look like the whole
        left = source.rename(scratch_path(source))
        shutil.rmtree(left, ignore_errors=True)


def _copy_to_disk(source: Path, target: Path) -> None:
    """Copy what a folder holds; not by `shutil.copytree`, whose error hides a full disk."""
    for place, folders, names in os.walk(source):
        here = target / Path(place).relative_to(source)
        for name in folders:
            (here / name).mkdir()
        for name in names:
            shutil.copy2(Path(place) / name, here / name)
            with (here / name).open("rb+") as file:
                flush_to_disk(file)
