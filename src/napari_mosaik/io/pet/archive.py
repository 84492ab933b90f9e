"""PET files in a ZIP archive, unpacked into a temporary folder for as long as they are read.

    archive ──► `unpacked`: names, sizes, checksums ──► temporary folder ──► readers ──► removed

The archive is the file of the case: its digest identifies the PET, nothing unpacked is kept.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from napari_mosaik.core.errors import InputError

__all__ = ["is_zip", "unpacked"]

_MAX_BYTES: Final = 4 << 30
_MAX_FILES: Final = 20_000
_FAULTS = (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError)


def is_zip(path: Path) -> bool:
    """Whether a file begins as a ZIP archive that holds something."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False


@contextmanager
def unpacked(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """The paths, with a temporary folder of its files in place of each ZIP archive.

    Raises
    ------
    InputError
        An archive is damaged, protected, too large, or names a file outside of itself.
    """
    with ExitStack() as stack:
        given = []
        for path in paths:
            if path.is_file() and is_zip(path):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mosaik-pet-"))
                _unpack(path, Path(folder))
                given.append(Path(folder))
            else:
                given.append(path)
        yield given


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            files = [one for one in archive.infolist() if not one.is_dir()]
            size = sum(one.file_size for one in files)
            if size > _MAX_BYTES or len(files) > _MAX_FILES:
                raise InputError(
                    f"{path.name} unpacks to {len(files)} files of {size / 1e9:.3g} GB "
                    f"({_MAX_FILES} files and {_MAX_BYTES / 1e9:.2g} GB are possible): unpack it, "
                    "and give the folder of the series"
                )
            for one in files:
                target = folder.joinpath(*_parts(path, one.filename))
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(one) as source, target.open("xb") as copy:
                    shutil.copyfileobj(source, copy)
    except _FAULTS as error:
        locked = "password" in str(error) or "encrypted" in str(error)
        why = "protected by a password" if locked else f"damaged or cut off ({error})"
        raise InputError(f"{path.name} cannot be unpacked: it is {why}") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"{path.name} holds two files of one name: unpack it yourself") from error


def _parts(path: Path, name: str) -> tuple[str, ...]:
    """The parts of a file's name in an archive, which must lie within it on every system."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or "/" in parts or ".." in parts or PureWindowsPath(name).drive or "\0" in name:
        raise InputError(f"{path.name} names a file outside of itself ({name[:80]!r})")
    return parts
