"""What stands in ``case.toml``: slides and their pixel sizes, PET, injection record, landmarks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.pet_records import InjectionRecord, PetUnit
from napari_mosaik.core.spacing import SpacingSource
from napari_mosaik.core.text import nearest, read_toml, validation_words

__all__ = ["CASE_FILE", "CaseFile", "GivenAlignment", "Identity", "PetEntry", "SlideEntry"]

CASE_FILE = "case.toml"
Row = tuple[float, float, float]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SlideEntry(_Entry):
    """One slide: its file, its pixel size (row, column), and its damage policy.

    ``spacing_source`` is "header" (the file), "user" (typed), "profile" (of the scanner named by
    ``profile``) or "ruler" (measured in the window).  ``damaged`` is "stop" (a tile that cannot be
    decoded is an error) or "skip" (it is excluded from every result and reported).  ``icc``
    converts the colours to sRGB by the file's colour profile.  ``page`` is the page of a TIFF file
    that holds several pictures, counted from 1.
    """

    path: str
    page: int | None = Field(None, ge=1)
    spacing_um: tuple[float, float] | None = None
    spacing_source: SpacingSource = "header"
    profile: str = ""
    damaged: Literal["stop", "skip"] = "stop"
    icc: bool = False

    def spaced(
        self, spacing_um: tuple[float, float], source: SpacingSource, profile: str = ""
    ) -> Self:
        """The same slide with another pixel size."""
        changed = {"spacing_um": spacing_um, "spacing_source": source, "profile": profile}
        return self.model_copy(update=changed)


class PetEntry(_Entry):
    """The PET slice: its files; a frame or slice number where the files hold several.

    ``unit`` is set if the files do not state it (NIfTI without a sidecar).  ``fwhm_mm`` is the
    resolution of the scanner (full width at half maximum), which no file states.
    """

    paths: tuple[str, ...]
    slice_index: int | None = None
    frame_index: int | None = None
    unit: PetUnit | None = None
    fwhm_mm: float | None = Field(default=None, ge=0.1, le=20.0)


class GivenAlignment(_Entry):
    """The alignment of a section or the PET to CD34 that a person or another program gave.

    ``matrix_um`` acts on (row, column, 1) in µm, from the section to CD34.  ``source`` is "manual"
    (moved in the window), "landmarks" or "file"; ``note`` adds details.  ``landmarks_um`` and
    ``reference_landmarks_um`` are landmarks (row, column) on the section and their partners on
    CD34.
    """

    matrix_um: tuple[Row, Row, Row]
    source: Literal["manual", "landmarks", "file"]
    note: str = ""
    landmarks_um: tuple[tuple[float, float], ...] = ()
    reference_landmarks_um: tuple[tuple[float, float], ...] = ()


class Identity(_Entry):
    """What a slide or PET is, wherever it lies: it is recognised by this after it was moved.

    ``content`` is a digest of what it shows, ``shape`` its pixels (rows, columns), ``bytes`` the
    size of its files.
    """

    content: str
    shape: tuple[int, int]
    bytes: int

    def __str__(self) -> str:
        rows, columns = self.shape
        return f"{columns} x {rows} pixels, {self.bytes} bytes, content {self.content[:12]}"


class CaseFile(_Entry):
    """Content of ``case.toml``.

    Paths within the case folder are relative to it, others absolute.  ``home`` is where the case
    folder was when a path outside of it was stored: if the folder around it is moved as a whole,
    files within that folder are found again.  ``development`` is set once the measured uptake has
    ranked tiles for review or steered corrections: prediction errors are optimistic from then on.
    """

    format: Literal[1] = 1
    name: str = Field(min_length=1)
    patient: str = "unknown patient"
    slides: dict[Literal["he", "cd34", "caix"], SlideEntry] = Field(default_factory=dict)
    pet: PetEntry | None = None
    injection: InjectionRecord | None = None
    landmarks: dict[str, str] = Field(default_factory=dict)
    home: str = ""
    development: bool = False
    identity: dict[str, Identity] = Field(default_factory=dict)
    given_alignments: dict[Literal["he", "caix", "pet"], GivenAlignment] = Field(
        default_factory=dict
    )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``case.toml``; an invalid file raises `InputError` with a one-line message."""
        if not os.path.lexists(path):
            raise InputError(
                f"{path.parent} is not a case: it has no {CASE_FILE}. Create one with "
                "'napari-mosaik new'"
            )
        try:
            return cls.model_validate(read_toml(path))
        except ValidationError as error:
            raise InputError(f"{path}: {_first_fault(error, cls)}") from error

    def slide(self, stain: str) -> SlideEntry | None:
        """The slide of a stain; None when the case has none."""
        slides: Mapping[Any, SlideEntry] = self.slides
        return slides.get(stain)

    def paths(self, key: str) -> tuple[str, ...]:
        """The files of a slide ("he") or of the PET ("pet"); none where none is given."""
        if key == "pet":
            return () if self.pet is None else self.pet.paths
        entry = self.slide(key)
        return () if entry is None else (entry.path,)

    def shown(self, key: str) -> Any:
        """What of an entry decides on what a slide ("he") or the PET ("pet") shows."""
        entry = self.slide(key)
        return self.pet if entry is None else (entry.path, entry.icc, entry.page)

    def moved(self, new: Callable[[str], str]) -> Self:
        """The same content with other paths."""
        slides = {
            key: entry.model_copy(update={"path": new(entry.path)})
            for key, entry in self.slides.items()
        }
        pet = self.pet
        if pet is not None:
            pet = pet.model_copy(update={"paths": tuple(map(new, pet.paths))})
        marks = {key: new(path) for key, path in self.landmarks.items()}
        return self.model_copy(update={"slides": slides, "pet": pet, "landmarks": marks})

    def given_alignment(self, frame: str) -> GivenAlignment | None:
        """The given alignment of a section or the PET; None when there is none."""
        given: Mapping[Any, GivenAlignment] = self.given_alignments
        return given.get(frame)

    def values(self) -> dict[str, Any]:
        """All fields; of the injection only the given ones, because the PET may state others."""
        given = None
        if self.injection is not None:
            given = self.injection.model_dump(exclude_unset=True, exclude_none=True)
        return {**self.model_dump(exclude={"injection"}), "injection": given}

    def merged(self, now: Self, changes: Mapping[str, Any]) -> Self:
        """*now* with changes that were made to this content; of a table only what differs.

        Raises `InputError` if a value is not valid.
        """
        own = {
            name: _merged(getattr(self, name), getattr(now, name), value)
            for name, value in changes.items()
        }
        try:
            return self.model_validate({**now.values(), **own})
        except ValidationError as error:
            raise InputError(_first_fault(error, type(self))) from error

    def text(self) -> str:
        """The file's text."""
        return tomli_w.dumps(_toml_ready(self.values()))


def _first_fault(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first thing that is wrong with the values of a ``case.toml``, in words."""
    first = error.errors()[0]
    *table, key = (str(part) for part in first["loc"])
    where = ".".join([*table, key])
    if first["type"] == "extra_forbidden":
        known = _fields(kind, table)
        return f"there is no entry '{where}'; {nearest(key, known)}"
    if first["type"] == "missing":
        return f"the entry '{where}' is missing"
    return f"{where} = {repr(first.get('input'))[:80]} is not valid: {validation_words(first)}"


def _fields(kind: Any, table: Sequence[str]) -> list[str]:
    """Names of the entries of a table of ``case.toml``."""
    kinds = {"slides": SlideEntry, "pet": PetEntry, "injection": InjectionRecord}
    kinds |= {"given_alignments": GivenAlignment}
    return list((kinds.get(table[0], kind) if table else kind).model_fields)


def _merged(seen: Any, now: Any, new: Any) -> Any:
    """A changed field; of a table only the entries that differ from those that were *seen*."""
    if not isinstance(seen, Mapping) or not isinstance(new, Mapping):
        return new
    kept = {key: value for key, value in now.items() if key in new or key not in seen}
    return kept | {key: value for key, value in new.items() if seen.get(key) != value}


def _toml_ready(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _toml_ready(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_toml_ready(item) for item in value]
    return value
