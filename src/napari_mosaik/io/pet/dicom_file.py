"""One DICOM file: whether it is one, its header, and the items of each image in it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.io.unread import unread_file

__all__ = [
    "DicomFrame",
    "dicom_header",
    "dicom_modality",
    "dicom_moment",
    "dicom_zone",
    "in_dicom",
    "item_number",
    "starts_as_dicom",
]


_SKEW = 0.01
"""Deviation from a rotation that rounding of the stated directions explains."""


@contextmanager
def in_dicom(path: Path) -> Iterator[None]:
    """Silence pydicom's warnings; an item that it cannot read is a damaged header."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (InputError, OSError):
            raise
        except Exception as error:
            raise InputError(f"{path.name}: the DICOM header is damaged ({error})") from error


def starts_as_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do, with or without the preamble."""
    with path.open("rb") as handle:
        start = handle.read(132)
    if start[128:] == b"DICM":
        return True
    # Without a preamble: the first element is of group 2 or 8, with an explicit or implicit VR.
    group, vr, length = start[:2], start[4:6], int.from_bytes(start[4:8], "little")
    is_element = start[2:4] <= b"\x20\x00" and (re.fullmatch(rb"[A-Z]{2}", vr) or length < 128)
    return group in (b"\x02\x00", b"\x08\x00") and bool(is_element) and len(start) == 132


def dicom_modality(dataset: Any) -> str:
    """What a header states as modality, "PT" for PET; empty where it states none."""
    return str(dataset.get("Modality", "")).strip().upper()


def dicom_header(path: Path) -> Any:
    """The header of a file, without its pixels."""
    import pydicom

    if not starts_as_dicom(path):
        what = unread_file(path) or "not a DICOM file"
        raise InputError(f"{path.name} cannot be used as PET: it is {what}")
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except OSError:
        raise
    except Exception as error:
        raise InputError(f"{path.name}: the DICOM header is damaged ({error})") from error
    return dataset


@dataclass(frozen=True, slots=True, eq=False)
class DicomFrame:
    """One image of a file: ``index`` is its number in a multi-frame file, else None."""

    path: Path
    dataset: Any
    index: int | None

    def find(self, keyword: str) -> Any:
        """An item's value from the frame's own groups, the shared ones or the file; else None."""
        for scope in self._scopes():
            if keyword in scope and scope[keyword].value not in (None, ""):
                return scope[keyword].value
        return None

    def number(self, keyword: str) -> float | None:
        """An item as a finite number, None if there is none."""
        return item_number(self.find(keyword))

    def text(self, keyword: str) -> str:
        """An item as upper-case text, empty if there is none."""
        value = self.find(keyword)
        return "" if value is None else str(value).strip().upper()

    def texts(self, keyword: str) -> tuple[str, ...]:
        """An item of one or several values as upper-case texts."""
        value = self.find(keyword)
        if value is None:
            return ()
        parts = [value] if isinstance(value, str) else value
        return tuple(str(part).strip().upper() for part in parts)

    def first(self, keyword: str) -> Any:
        """First item of a sequence, None if there is none."""
        sequence = self.find(keyword)
        return sequence[0] if sequence is not None and len(sequence) else None

    def private(self, group: int, creator: str, element: int) -> Any:
        """A private item of a manufacturer, by the name of its creator."""
        for scope in self._scopes():
            try:
                return scope.private_block(group, creator)[element].value
            except KeyError:
                continue
        return None

    def position_mm(self) -> float | None:
        """Position of the slice along its normal."""
        place, turn = self.find("ImagePositionPatient"), self.find("ImageOrientationPatient")
        if self.index is not None and "PerFrameFunctionalGroupsSequence" not in self.dataset:
            return None  # a classic multi-frame file states the position of its first frame only
        if place is None or turn is None or len(place) != 3 or len(turn) != 6:
            return None
        axes = np.asarray(turn, float)
        skew = np.abs([axes[:3] @ axes[:3] - 1, axes[3:] @ axes[3:] - 1, axes[:3] @ axes[3:]])
        if skew.max() > _SKEW:
            raise InputError(
                f"{self.path.name} states an orientation of its slice that is not a rotation"
            )
        return float(np.cross(axes[:3], axes[3:]) @ np.asarray(place, float))

    def axes(self) -> FloatArray | None:
        """Directions (6,) of the rows and columns, dimensionless; None if they are not stated."""
        turn = self.find("ImageOrientationPatient")
        return np.asarray(turn, float) if turn is not None and len(turn) == 6 else None

    def identity(self) -> tuple[str, int | None]:
        """What copies of one image share."""
        return str(self.dataset.get("SOPInstanceUID", self.path)), self.index

    def moment_s(self) -> float:
        """A number that orders the time frames of a dynamic scan."""
        reference = self.number("FrameReferenceTime")
        if reference is not None:
            return reference / 1000
        when = dicom_moment(self.find("FrameReferenceDateTime"), None, None)
        if when is not None:
            return (when.replace(tzinfo=None) - datetime(1900, 1, 1)).total_seconds()
        return self.number("TemporalPositionIndex") or 0.0

    def _scopes(self) -> Iterator[Any]:
        """Datasets that may contain an item of this frame, the most specific first."""
        if self.index is not None and "PerFrameFunctionalGroupsSequence" in self.dataset:
            groups = self.dataset.get("PerFrameFunctionalGroupsSequence") or []
            if self.index < len(groups):
                yield from _items(groups[self.index])
            for shared in self.dataset.get("SharedFunctionalGroupsSequence") or []:
                yield from _items(shared)
        yield self.dataset


def _items(group: Any) -> Iterator[Any]:
    for element in group:
        if element.VR == "SQ":
            yield from element.value


def item_number(value: Any) -> float | None:
    """A finite number from a stored value (text, bytes of unknown type, list of one); else None."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").strip(" \x00")
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def dicom_moment(date_or_both: Any, time: Any, zone: timezone | None) -> datetime | None:
    """A date with a time of day, or a DICOM date-time, with its own or the given zone.

    None if either is missing, or the minute: a time of day without a date is not used.
    """
    day, clock = str(date_or_both or "").strip(), str(time or "").strip()
    if re.fullmatch(r"\d{4}\.\d\d\.\d\d", day):  # as before 1993
        day = day.replace(".", "")
    text = day + re.sub(r"(?<=\d):(?=\d\d)", "", clock)
    found = re.fullmatch(r"(\d{8})(\d{2})(\d{2})(\d{2})?(?:\.(\d{1,9}))?([+-]\d{4})?", text)
    if found is None:
        return None
    day, hour, minute, second, fraction, offset = found.groups()
    try:
        when = datetime.strptime(day + hour + minute, "%Y%m%d%H%M")
    except ValueError:
        return None
    part = float(f"0.{fraction}") if fraction else 0.0
    when += timedelta(seconds=int(second or 0) + part)
    own = dicom_zone(offset)
    if own is not None and zone is not None:
        return when.replace(tzinfo=own).astimezone(zone)
    return when.replace(tzinfo=own or zone)


def dicom_zone(offset: Any) -> timezone | None:
    """A zone from text such as ``-0500``; None if there is none."""
    found = re.fullmatch(r"([+-])(\d{2})(\d{2})", str(offset or "").strip())
    if found is None:
        return None
    minutes = int(found[2]) * 60 + int(found[3])
    return timezone(timedelta(minutes=-minutes if found[1] == "-" else minutes))
