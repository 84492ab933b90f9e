"""Digests of the files of a folder, so that one damaged byte in any of them is noticed.

A document that holds such digests is sealed by a digest of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from napari_mosaik.core.errors import CorruptArtifact
from napari_mosaik.core.params import digest

__all__ = [
    "SEAL",
    "check_files",
    "damaged_files",
    "file_digest",
    "is_settled",
    "listed_files",
    "read_sealed",
    "sealed",
    "settled",
    "write_files_list",
]

FILES_LIST: Final = "files.json"
SEAL: Final = "seal"
_KNOWN: dict[tuple[str, int, int], str] = {}
_TICK_NS: Final = 20_000_000


def file_digest(path: Path) -> str:
    """Digest of a file's whole content."""
    hasher = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()


def _known_digest(path: str, about: os.stat_result) -> str:
    """Digest of a file, read again only when its size, place on the disk or time changes.

    Its name plays no part where the file system numbers its files: those that were linked or moved
    are known.
    """
    place = f"{about.st_dev}:{about.st_ino}" if about.st_ino else path
    key = (place, about.st_size, about.st_mtime_ns)
    if key not in _KNOWN:
        found = file_digest(Path(path))
        if is_settled(about):
            _KNOWN[key] = found
        return found
    return _KNOWN[key]


def settled(path: str | Path) -> os.stat_result:
    """The entry of a file that was just written, dated back so that a later change shows.

    What is known of its content is kept from now on, not only after the next tick.
    """
    about = os.stat(path)
    if not is_settled(about):
        with contextlib.suppress(OSError):
            os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns - 2 * _TICK_NS))
            about = os.stat(path)
    return about


def is_settled(about: os.stat_result) -> bool:
    """Whether a later change of the file would show in its time.

    Clocks of file systems tick every few milliseconds: two changes within a tick look like one.
    """
    return time.time_ns() - about.st_mtime_ns > _TICK_NS


def listed_files(folder: Path, *but: str) -> dict[str, list[Any]]:
    """Size and digest of every file of a folder, *but* some."""
    files: dict[str, list[Any]] = {}
    root = f"{folder}{os.sep}"
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            key = path.removeprefix(root).replace(os.sep, "/")
            if key not in but:
                about = settled(path)
                files[key] = [about.st_size, _known_digest(path, about)]
    return dict(sorted(files.items()))


def damaged_files(
    folder: Path,
    files: Mapping[str, Any],
    checked_bytes: float = float("inf"),
    *,
    glance: bool = False,
) -> Iterator[tuple[str, str]]:
    """The listed files of a folder that are missing or were changed, and which of the two.

    In a folder of more than *checked_bytes*, image chunks are looked at by their size alone, and
    at a *glance* not at all: they carry checksums of their own.
    """
    small = sum(size for size, _ in files.values()) <= checked_bytes
    root = f"{folder}{os.sep}"  # a case has tens of thousands of files: no `Path` for each
    for key, (size, content) in files.items():
        look_inside = small or "/c/" not in f"/{key}"
        if glance and not look_inside:
            continue
        path = root + key
        try:
            about = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            yield key, "missing"
            continue
        if not stat.S_ISREG(about.st_mode):
            yield key, "missing"
        elif about.st_size != size or (look_inside and _known_digest(path, about) != content):
            yield key, "changed"


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON document with a digest of its content."""
    return {**document, SEAL: digest(dict(document))}


def read_sealed(path: Path) -> dict[str, Any]:
    """The content of a sealed document, without its seal.

    Raises
    ------
    CorruptArtifact
        A byte of the document was changed, its seal is lost, or it is not a document.
    FileNotFoundError
        There is no such file.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        whole = content.pop(SEAL) == digest(content)
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise CorruptArtifact(f"{path} is damaged: its content is not what was written")
    return content


def write_files_list(folder: Path) -> None:
    """List the files of a folder with their digests in it, sealed."""
    text = json.dumps(sealed({"files": listed_files(folder, FILES_LIST)}), indent=1)
    (folder / FILES_LIST).write_text(text + "\n", "utf-8")


def check_files(folder: Path, what: str) -> None:
    """Raise `CorruptArtifact` if a file of a model's folder is not as it was listed.

    A folder without a list is not checked if its ``card.json`` says that it is of a format before
    2, when there were no lists.
    """
    try:
        files = read_sealed(folder / FILES_LIST)["files"]
    except FileNotFoundError:
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            if json.loads((folder / "card.json").read_bytes()).get("format", 1) >= 2:
                raise CorruptArtifact(
                    f"{what} is damaged: {folder / FILES_LIST} is missing (one from elsewhere is "
                    "added with: napari-mosaik models import CASE FOLDER)"
                ) from None
        return
    for key, how in damaged_files(folder, files):
        raise CorruptArtifact(f"{what} is damaged: {folder / key} is {how}")
