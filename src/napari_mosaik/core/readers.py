"""The names of readers, and the files in which each keeps a record of their own.

    Dr. Müller ─► %44.r.%20.%4d.%fc.ller.jsonl

A file name holds small letters and digits of ASCII as they are and everything else as its code, so
two names share a file on no file system, not even on one that ignores case or composes letters.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Final

from napari_mosaik.core.errors import InputError

__all__ = ["check_reader_name", "reader_file", "reader_files", "reader_of"]

RUNS: Final = "runs.jsonl"
"""The journal of runs, which lies beside those of the readers of annotations."""
_LONGEST = 40
_LONGEST_FILE = 240
_ENDING = ".jsonl"
_DEVICES = re.compile(r"(?:con|prn|aux|nul|runs|com\d|lpt\d)(?:\.|$)")
"""Names that Windows or the journal of runs keeps."""


def check_reader_name(name: str) -> str:
    """The name of a reader, with composed letters and single blanks.

    Raises
    ------
    InputError
        If the name holds no letter or digit, is longer than 40 characters, or holds slashes or
        control characters.
    """
    composed = " ".join(unicodedata.normalize("NFC", name).split())
    valid = composed.isprintable() and any(letter.isalnum() for letter in composed)
    valid = valid and not set(composed) & set("/\\")
    if not valid or len(composed) > _LONGEST or len(_coded(composed)) > _LONGEST_FILE:
        raise InputError(
            f"'{name}' is not a valid reader name: give a name or pseudonym of at most "
            f"{_LONGEST} letters, digits and blanks"
        )
    return composed


def reader_file(folder: Path, reader: str) -> Path:
    """The record of a reader in a folder: the one that is there, or the name of a new one.

    Raises
    ------
    InputError
        If the name of the reader is not valid.
    """
    reader = check_reader_name(reader)
    present = reader_files(folder)
    for path in present:
        if reader_of(path) == reader:
            return path
    stem = _coded(reader)
    # A record of an earlier version may be written like this one, but for its capital letters.
    if stem in {path.stem.casefold() for path in present}:
        stem = f"%{ord(stem[0]):x}.{stem[1:]}"
    return folder / f"{stem}{_ENDING}"


def reader_files(folder: Path) -> list[Path]:
    """The records of all readers in a folder, by name."""
    return sorted(path for path in folder.glob(f"*{_ENDING}") if path.name != RUNS)


def reader_of(path: Path) -> str:
    """The name of the reader whose record a file is."""
    stem = path.name.removesuffix(_ENDING)
    name = re.sub(r"%([0-9a-f]{1,5}|10[0-9a-f]{4})\.", lambda found: chr(int(found[1], 16)), stem)
    return unicodedata.normalize("NFC", name)


def _coded(name: str) -> str:
    last = len(name) - 1

    def code(place: int, letter: str) -> str:
        plain = re.fullmatch(r"[a-z0-9_-]", letter) or (letter == "." and 0 < place < last)
        return letter if plain else f"%{ord(letter):x}."

    stem = "".join(code(place, letter) for place, letter in enumerate(name))
    return f"%{ord(stem[0]):x}.{stem[1:]}" if _DEVICES.match(stem) else stem
