"""How each kind of source is looked up in a case: whether it is there, and what it holds.

A kind of source is a class here with the two methods of `SourceKind`, registered under the kind of
the sources in `napari_mosaik.core.catalogue` ("slide" of "slide:he").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from napari_mosaik.core.artifact import Source
from napari_mosaik.core.corrections import digest_of
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.params import digest
from napari_mosaik.io.corrections import correction_journals
from napari_mosaik.io.files import file_digest

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case

__all__ = ["SourceKind", "missing_reason", "source_digest", "source_kind"]


class SourceKind(Protocol):
    """What a case must know of one kind of source."""

    def missing(self, case: Case, source: Source) -> str:
        """Why the source cannot be used ("no PET given"); empty when it is there."""

    def digest(self, case: Case, source: Source) -> str:
        """Digest of the content of a source that is there."""


_KINDS: Final[dict[str, SourceKind]] = {}


def source_kind(name: str) -> Callable[[type[SourceKind]], type[SourceKind]]:
    """Register a class as the kind of the sources called "name" or "name:..."."""

    def register(kind: type[SourceKind]) -> type[SourceKind]:
        _KINDS[name] = kind()
        return kind

    return register


def missing_reason(case: Case, source: Source) -> str:
    """Why a source of a case cannot be used; empty when it is there."""
    return _KINDS[source.kind].missing(case, source)


def source_digest(case: Case, source: Source) -> str:
    """Digest of a source's content; empty when it is missing."""
    kind = _KINDS[source.kind]
    return "" if kind.missing(case, source) else kind.digest(case, source)


@source_kind("slide")
class SlideSource:
    def missing(self, case: Case, source: Source) -> str:
        entry = case.file.slide(source.key)
        if entry is None:
            return f"no {source.about} given"
        if not case.path(entry.path).exists():
            return f"the {source.about} {entry.path} does not exist"
        return ""

    def digest(self, case: Case, source: Source) -> str:
        entry = case.file.slide(source.key)
        assert entry is not None

        def read() -> str:
            with case.slide(source.key) as slide:
                return slide.digest()

        spacing = entry.spacing_um if entry.spacing_source != "header" else None
        kind = f"slide:{source.key}{':icc' if entry.icc else ''}"
        content = case.cached_digest(case.path(entry.path), kind, read)
        return digest([content, spacing, *(["skip"] if entry.damaged == "skip" else [])])


@source_kind("pet")
class PetSource:
    def missing(self, case: Case, source: Source) -> str:
        if case.file.pet is None:
            return "no PET given"
        absent = [path for path in case.file.pet.paths if not case.path(path).exists()]
        return f"the PET file {absent[0]} does not exist" if absent else ""

    def digest(self, case: Case, source: Source) -> str:
        from napari_mosaik.io.pet import companions

        entry = case.file.pet
        assert entry is not None
        paths = [case.path(path) for path in entry.paths]
        files = [case.file_digest(path) for path in (*paths, *companions(paths))]
        unit = () if entry.unit is None else (entry.unit,)
        return digest([files, entry.slice_index, entry.frame_index, *unit])


@source_kind("injection")
class InjectionSource:
    def missing(self, case: Case, source: Source) -> str:
        return "" if case.file.injection else "no injection record given"

    def digest(self, case: Case, source: Source) -> str:
        assert case.file.injection is not None
        return digest(
            case.file.injection.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        )


@source_kind("landmarks")
class LandmarksSource:
    def missing(self, case: Case, source: Source) -> str:
        return "" if case.file.landmarks else "no landmarks given"

    def digest(self, case: Case, source: Source) -> str:
        paths = [case.path(path) for path in case.file.landmarks.values()]
        return digest([dict(case.file.landmarks), [case.file_digest(path) for path in paths]])


@source_kind("given_alignment")
class GivenAlignmentSource:
    def missing(self, case: Case, source: Source) -> str:
        return "" if case.file.given_alignment(source.key) else "no alignment given"

    def digest(self, case: Case, source: Source) -> str:
        entry = case.file.given_alignment(source.key)
        assert entry is not None
        return digest(entry.model_dump(mode="json"))


@source_kind("annotations")
class AnnotationsSource:
    def missing(self, case: Case, source: Source) -> str:
        there = case.annotations_path(source.key).is_file()
        return "" if there else "nothing annotated yet"

    def digest(self, case: Case, source: Source) -> str:
        return case.file_digest(case.annotations_path(source.key))


@source_kind("corrections")
class CorrectionsSource:
    """A damaged journal counts as present, so that the step that reads it reports the damage."""

    def missing(self, case: Case, source: Source) -> str:
        try:
            return "" if case.corrections(source.key) else "no manual corrections"
        except InputError:
            return ""

    def digest(self, case: Case, source: Source) -> str:
        try:
            return digest_of(case.corrections(source.key))
        except InputError:
            journals = correction_journals(case.root, source.key)
            return digest([file_digest(path) for path in journals])
