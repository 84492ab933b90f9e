"""The names of readers, and the folder in which each keeps a record of their own.

    Dr. Müller ─► %44.r.%20.%4d.%fc.ller

A folder name holds small letters and digits of ASCII as they are and everything else as its code,
so two names share a folder on no file system, not even on one that ignores case or composes
letters.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Final

from napari_mosaik.core.errors import InputError

__all__ = ["check_reader_name", "coded_name", "reader_of"]

_LONGEST = 40
_LONGEST_FILE = 240
_DEVICES: Final = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)")
"""Names that Windows keeps."""


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
    if not valid or len(composed) > _LONGEST or len(coded_name(composed)) > _LONGEST_FILE:
        raise InputError(
            f"'{name}' is not a valid reader name: give a name or pseudonym of at most "
            f"{_LONGEST} letters, digits and spaces"
        )
    return composed


def reader_of(folder: Path) -> str:
    """The name of the reader whose folder it is."""
    name = re.sub(
        r"%([0-9a-f]{1,5}|10[0-9a-f]{4})\.", lambda found: chr(int(found[1], 16)), folder.name
    )
    return unicodedata.normalize("NFC", name)


def coded_name(name: str) -> str:
    """The name of the folder of a reader."""
    last = len(name) - 1

    def code(place: int, letter: str) -> str:
        plain = re.fullmatch(r"[a-z0-9_-]", letter) or (letter == "." and 0 < place < last)
        return letter if plain else f"%{ord(letter):x}."

    stem = "".join(code(place, letter) for place, letter in enumerate(name))
    return f"%{ord(stem[0]):x}.{stem[1:]}" if _DEVICES.match(stem) else stem
