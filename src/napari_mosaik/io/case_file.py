"""Content of ``case.toml``: slides and their pixel sizes, PET, injection record, landmarks."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.pet_records import InjectionRecord, PetUnit
from napari_mosaik.core.spacing import SpacingSource

__all__ = ["CASE_FILE", "CaseFile", "GivenAlignment", "PetEntry", "SlideEntry"]

CASE_FILE = "case.toml"
Row = tuple[float, float, float]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SlideEntry(_Entry):
    """One slide: its file, its pixel size (row, column), and its damage policy.

    ``spacing_source`` is "header" (the file), "user" (typed), "profile" (of the scanner named by
    ``profile``) or "ruler" (measured in the window).  ``damaged`` is "stop" (a tile that cannot be
    decoded is an error) or "skip" (it is excluded from every result and reported).  ``icc``
    converts the colours to sRGB by the file's colour profile.
    """

    path: str
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

    ``unit`` is set if the files do not state it (NIfTI without a sidecar).
    """

    paths: tuple[str, ...]
    slice_index: int | None = None
    frame_index: int | None = None
    unit: PetUnit | None = None


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


class CaseFile(_Entry):
    """Content of ``case.toml``."""

    format: Literal[1] = 1
    name: str = Field(min_length=1)
    patient: str = "unknown patient"
    slides: dict[Literal["he", "cd34", "caix"], SlideEntry] = Field(default_factory=dict)
    pet: PetEntry | None = None
    injection: InjectionRecord | None = None
    landmarks: dict[str, str] = Field(default_factory=dict)
    given_alignments: dict[Literal["he", "caix", "pet"], GivenAlignment] = Field(
        default_factory=dict
    )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``case.toml``; an invalid file raises `InputError` with a one-line message."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise InputError(
                f"{path.parent} is not a case: it has no {CASE_FILE}. Create one with "
                "'napari-mosaik new'"
            ) from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"{path} is not valid TOML: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(
                f"{path}: {where} = {first.get('input')!r} is not valid: {first['msg']}"
            ) from error

    def slide(self, stain: str) -> SlideEntry | None:
        """The slide of a stain; None when the case has none."""
        slides: Mapping[Any, SlideEntry] = self.slides
        return slides.get(stain)

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

    def text(self) -> str:
        """The file's text."""
        return tomli_w.dumps(_toml_ready(self.values()))


def _toml_ready(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _toml_ready(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_toml_ready(item) for item in value]
    return value
