"""``invivo.csv`` of a case: uptake of regions in scans of the living patient; and other tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.invivo import InvivoValue, check_invivo_series
from napari_mosaik.core.text import nearest, read_text
from napari_mosaik.io.files import write_bytes

__all__ = [
    "INVIVO_COLUMNS",
    "INVIVO_FILE",
    "MeasuredTable",
    "read_invivo",
    "read_measured_table",
    "write_invivo",
]

INVIVO_FILE: Final = "invivo.csv"
INVIVO_COLUMNS: Final = (
    "time_h", "region", "mean", "sd", "voxel_sd", "volume_ml", "unit", "decay_reference", "source",
    "method",
)  # fmt: skip
_NEEDED: Final = ("time_h", "region", "mean", "sd", "unit", "decay_reference")
_NUMBERS: Final = ("time_h", "mean", "sd", "voxel_sd", "volume_ml")


@dataclass(frozen=True, slots=True)
class MeasuredTable:
    """A table of text cells: names of its columns, and of each row the line and the cells."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_measured_table(path: Path) -> MeasuredTable:
    """Read a table with a header, separated by commas, tabulators or semicolons.

    Raises
    ------
    InputError
        If the file cannot be read, is empty, names a column twice, or a row has other cells than
        the header.
    """
    text = read_text(path).removeprefix("\ufeff")
    head = next((line for line in text.splitlines() if line.strip()), "")
    if not head:
        raise InputError(f"{path} is empty; it needs a line with the names of its columns")
    separator = max("\t;,", key=head.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    columns: tuple[str, ...] = ()
    rows = []
    try:
        for cells in lines:
            plain = [cell.strip() for cell in cells]
            if not any(plain):
                continue
            if not columns:
                columns = tuple(plain)
            elif len(plain) != len(columns):
                raise InputError(
                    f"{path.name}, line {lines.line_num}: {len(plain)} cells under "
                    f"{len(columns)} columns; give one cell for each column"
                )
            else:
                rows.append((lines.line_num, dict(zip(columns, plain, strict=True))))
    except csv.Error as error:
        raise InputError(f"{path.name}, line {lines.line_num}: {error}") from error
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path.name} has two columns '{twice}'; keep one of them")
    return MeasuredTable(path, columns, tuple(rows))


def read_invivo(path: Path) -> tuple[InvivoValue, ...]:
    """The values of ``invivo.csv``, in order of time and region; none if there is no such file.

    Parameters
    ----------
    path
        The file, or the folder of its case.

    Raises
    ------
    InputError
        If a column is missing or unknown, or a value is not a number or impossible; the message
        names the line.
    """
    file = path / INVIVO_FILE if path.is_dir() else path
    if not file.exists():
        return ()
    table = read_measured_table(file)
    absent = [name for name in _NEEDED if name not in table.columns]
    if absent:
        raise InputError(f"{file} has no column {absent[0]}; add it, one cell a row")
    unknown = [name for name in table.columns if name not in INVIVO_COLUMNS]
    if unknown:
        raise InputError(
            f"{file} has a column '{unknown[0][:40]}' that is not known; "
            f"{nearest(unknown[0], INVIVO_COLUMNS)}"
        )
    values = []
    for line, cells in table.rows:
        try:
            values.append(_value(cells))
        except InputError as error:
            raise InputError(f"{file}, line {line}: {error}") from error
    try:
        return check_invivo_series(values)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _value(cells: dict[str, str]) -> InvivoValue:
    numbers = {name: _number(name, cells.get(name, "")) for name in _NUMBERS}
    words = {name: cells.get(name, "") for name in INVIVO_COLUMNS if name not in _NUMBERS}
    for name in ("time_h", "mean", "sd"):
        if numbers[name] is None:
            raise InputError(f"{name} is missing; give a number")
    return InvivoValue(**numbers, **words)  # type: ignore[arg-type]


def _number(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        number = math.nan if "_" in text else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{name} is '{text[:40]}', which is not a number; give one with a point")
    return number


def write_invivo(path: Path, values: Iterable[InvivoValue]) -> tuple[InvivoValue, ...]:
    """Write ``invivo.csv``, whole or not at all, so that reading gives exactly these values.

    Parameters
    ----------
    path
        The file, or the folder of its case.
    values
        The values; they are checked as a series and written in order of time and region.
    """
    checked = check_invivo_series(values)
    file = path / INVIVO_FILE if path.is_dir() else path
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(INVIVO_COLUMNS)
    for one in checked:
        cells = [getattr(one, name) for name in INVIVO_COLUMNS]
        writer.writerow([_cell(cell) for cell in cells])
    write_bytes(file, text.getvalue().encode())
    return checked


def _cell(value: float | str | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else repr(float(value))
