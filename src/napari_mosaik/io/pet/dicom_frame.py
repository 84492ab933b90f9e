"""One PET slice in a DICOM file: access to its header items in classic and enhanced files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Frame", "moment"]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
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
        return as_number(self.find(keyword))

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
        if place is None or turn is None or len(place) != 3 or len(turn) != 6:
            return None
        axes = np.asarray(turn, float)
        return float(np.cross(axes[:3], axes[3:]) @ np.asarray(place, float))

    def moment_s(self) -> float:
        """A number that orders the time frames of a dynamic scan."""
        reference = self.number("FrameReferenceTime")
        if reference is not None:
            return reference / 1000
        when = moment(self.find("FrameReferenceDateTime"), None, None)
        if when is not None:
            return (when.replace(tzinfo=None) - datetime(1900, 1, 1)).total_seconds()
        return self.number("TemporalPositionIndex") or 0.0

    def _scopes(self) -> Iterator[Any]:
        """Datasets that may contain an item of this frame, the most specific first."""
        if self.index is not None:
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


def as_number(value: Any) -> float | None:
    """A finite number from a stored value (text, bytes of unknown type, list of one); else None."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").strip(" \x00")
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def moment(date_or_both: Any, time: Any, zone: timezone | None) -> datetime | None:
    """A date with a time of day, or a DICOM date-time, with its own or the given zone.

    None if either is missing: a time of day without a date is not used.
    """
    text = str(date_or_both or "").strip() + str(time or "").strip()
    found = re.fullmatch(r"(\d{8})(\d{2})(\d{2})?(\d{2})?(?:\.(\d{1,6}))?([+-]\d{4})?", text)
    if found is None:
        return None
    day, hour, minute, second, fraction, offset = found.groups()
    try:
        when = datetime.strptime(day + hour + (minute or "00"), "%Y%m%d%H%M")
    except ValueError:
        return None
    part = float(f"0.{fraction}") if fraction else 0.0
    when += timedelta(seconds=int(second or 0) + part)
    own = zone_of(offset)
    if own is not None and zone is not None:
        return when.replace(tzinfo=own).astimezone(zone)
    return when.replace(tzinfo=own or zone)


def zone_of(offset: Any) -> timezone | None:
    """A zone from text such as ``-0500``; None if there is none."""
    found = re.fullmatch(r"([+-])(\d{2})(\d{2})", str(offset or "").strip())
    if found is None:
        return None
    minutes = int(found[2]) * 60 + int(found[3])
    return timezone(timedelta(minutes=-minutes if found[1] == "-" else minutes))
