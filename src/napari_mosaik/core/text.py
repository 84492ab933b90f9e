"""Text files as other programs write them: UTF-8 or UTF-16 with or without a mark, Latin-1."""

from __future__ import annotations

import codecs
import math
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from napari_mosaik.core.errors import InputError

__all__ = [
    "counted",
    "decoded",
    "natural_key",
    "nearest",
    "read_text",
    "read_toml",
    "same_words",
    "typed_number",
    "typed_numbers",
    "validation_words",
]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16, so it comes before it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Latin-1 letters (and ° ² ³ µ) among ASCII text, at most two in a row.  Longer runs are letters of
# another script in a code page that nothing states.
_LATIN = re.compile(rb"(?:[\x00-\x7f]|(?<![\x80-\xff]{2})[\xb0\xb2\xb3\xb5\xc0-\xff])*")


def counted(n: int, one: str, many: str = "") -> str:
    """A number with its noun (and verb): "1 tile", "3 tiles"; "1 tile has", "3 tiles have"."""
    return f"{n} {one if n == 1 else many or f'{one}s'}"


def read_text(path: str | Path) -> str:
    """The text of a file, whatever of UTF-8, UTF-16 and UTF-32 it is written in.

    A file in Latin-1 is read where its accented letters stand alone in ASCII text.

    Raises
    ------
    InputError
        If the file cannot be read (with the reason of the operating system), or its encoding is
        none of these.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {(error.strerror or str(error)).lower()}"
        ) from error
    return decoded(content, str(path))


def decoded(content: bytes, name: str) -> str:
    """The text of bytes, as `read_text`; *name* stands in the message of an error."""
    encoding = next((text for mark, text in _MARKS if content.startswith(mark)), "")
    if not encoding and len(content) >= 2 and 0 in content[:2] and content[:2] != b"\0\0":
        encoding = "utf-16-be" if content[0] == 0 else "utf-16-le"
    try:
        return content.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if not encoding and _LATIN.fullmatch(content):
            return content.decode("latin-1")
        raise InputError(
            f"{name} is not text in {encoding or 'UTF-8'} (byte {error.start}); save it as UTF-8"
        ) from error


def read_toml(path: str | Path) -> dict[str, Any]:
    """The values of a TOML file that people edit, in any encoding of `read_text`.

    Raises
    ------
    InputError
        If the file cannot be read or is no TOML; the message names file, line and content.
    """
    text = read_text(path).removeprefix("\ufeff")
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        what, _, place = str(error).partition(" (at ")
        number = re.search(r"line ([0-9]+)", place)
        lines = text.splitlines() or [""]
        at = min(int(number[1]), len(lines)) if number else len(lines)
        line = lines[at - 1].strip()[:80]
        fault = f"{what[:1].lower()}{what[1:]}"
        raise InputError(f"{path}, line {at} is not valid TOML: {fault}: {line!r}") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """What a wrong name may have been meant to be, as the end of a message."""
    names = list(known)
    found = get_close_matches(name, names, 1)
    return f"did you mean '{found[0]}'?" if found else f"choose from: {', '.join(names)}"


def same_words(text: str) -> str:
    """A text for comparison: without differences of case, blanks and composition of letters."""
    composed = unicodedata.normalize("NFC", text).casefold()
    return " ".join(unicodedata.normalize("NFC", composed).split())


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts names as people do: B2 before B11."""
    parts = re.findall(r"[0-9]+|[^0-9]+", same_words(text))
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts)


def typed_number(text: str) -> float:
    """A number as people type it, with a decimal point or a decimal comma.

    Raises
    ------
    InputError
        If it is not a finite number, or its comma may as well separate thousands ("14,689").
    """
    plain = text.strip()
    if re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})+", plain):
        point, whole = plain.replace(",", "."), plain.replace(",", "")
        meant = f"{point} or {whole}" if plain.count(",") == 1 else whole
        raise InputError(f"'{plain}' may be {meant}: write it with a point, or without a comma")
    try:
        number = float(plain.replace(",", ".") if "." not in plain else plain)
    except ValueError:
        number = float("nan")
    if not math.isfinite(number):
        raise InputError(f"'{plain}' is not a number")
    return number


def typed_numbers(text: str) -> list[float]:
    """Numbers with commas between, or semicolons where they have decimal commas: "0,5; 24".

    Raises
    ------
    InputError
        If a part is not a number as `typed_number` reads it.
    """
    return [typed_number(part) for part in text.split(";" if ";" in text else ",")]


_LIMITS = {"gt": "more than {}", "ge": "{} or more", "lt": "less than {}", "le": "{} or less"}
_KINDS = {
    **dict.fromkeys(("float", "finite"), "a number"), "int": "a whole number",
    "bool": "true or false", "string": "a text", "datetime": "a date with a time of day",
    **dict.fromkeys(("list", "tuple"), "a list"), **dict.fromkeys(("dict", "model"), "a table"),
}  # fmt: skip


def validation_words(error: Mapping[str, Any]) -> str:
    """What an error of pydantic's (one of ``errors()``) asks for: "give 0 or more".

    A comma that may separate thousands in a number is named.
    """
    limits, kind = error.get("ctx", {}), str(error["type"]).partition("_")[0]
    for name, words in _LIMITS.items():
        if name in limits:
            limit = limits[name]
            return f"give {words.format(f'{limit:g}' if isinstance(limit, float) else limit)}"
    if "expected" in limits:
        return f"give {limits['expected']}"
    if kind == "float" and isinstance(given := error.get("input"), str):
        try:
            typed_number(given)
        except InputError as ambiguous:
            if "may be" in str(ambiguous):
                return str(ambiguous)
    if kind in _KINDS:
        return f"give {_KINDS[kind]}"
    text = str(error["msg"]).removeprefix("Value error, ")
    return f"{text[:1].lower()}{text[1:]}"
