"""A case: one specimen with its slides, PET, injection record and results, in a folder.

How each kind of source is looked up in a case, and its digest, stand in one class per kind, which
registers itself under the kind of the sources in `napari_mosaik.core.catalogue` ("slide").
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Final, Protocol

from napari_mosaik.core.artifact import Progress, Source
from napari_mosaik.core.catalogue import PET, SLIDES
from napari_mosaik.core.corrections import Correction, digest_of
from napari_mosaik.core.earlier_journals import RUNS
from napari_mosaik.core.errors import InputError, MosaikError
from napari_mosaik.core.journal import annotation_part, correction_part, journals_of
from napari_mosaik.core.manifest import file_digest
from napari_mosaik.core.params import digest
from napari_mosaik.core.pet_records import PetImage
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.core.spacing import SpacingSource
from napari_mosaik.io.case_file import CASE_FILE, CaseFile, Identity, SlideEntry
from napari_mosaik.io.corrections import read_corrections
from napari_mosaik.io.files import read_json, saving, write_bytes, write_json, write_lock
from napari_mosaik.io.seen_uptake import SHOWN, seen_by, steered_by
from napari_mosaik.io.store import CaseStore
from napari_mosaik.io.unread import path_slip

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide

__all__ = [
    "Case",
    "build_missing_levels",
    "create_case",
    "find_cases",
    "stored_path",
]


class Case:
    """An opened case folder: its sources, its settings and its results.

    Any number of processes may read; a process writes only within `writing`.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.file = CaseFile.read(self.root / CASE_FILE)
        self.store = CaseStore(self.root / "artifacts")
        self._new_digests: dict[str, str] = {}

    @property
    def name(self) -> str:
        """Name of the case ("B11")."""
        return self.file.name

    @property
    def patient(self) -> str:
        """Pseudonym of the patient."""
        return self.file.patient

    @property
    def is_development(self) -> bool:
        """Whether its measured uptake has ranked the review, or was shown before a correction."""
        return self.file.development or bool(steered_by(self.root))

    # --- writing --------------------------------------------------------------------------------
    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the write lock of the case; interrupted commits are completed or removed first."""
        with write_lock(self.root, f"case {self.name}"):
            self.store.recover()
            yield
            self._keep_digests()

    def update(self, **changes: Any) -> None:
        """Change fields of ``case.toml``, atomically; what others changed meanwhile is kept."""
        with self.writing():
            now = CaseFile.read(self.root / CASE_FILE)
            changed = self.file.merged(now, changes)
            before, self.file = self.file, now
            try:
                self.file = self._anchored(changed)
                self._identify(now)
                write_bytes(self.root / CASE_FILE, self.file.text().encode())
            except BaseException:
                self.file = before
                raise

    def _anchored(self, file: CaseFile) -> CaseFile:
        """The content with paths as they are stored; a path that leads nowhere stays as it is."""

        def stored(text: str) -> str:
            path = self.path(text)
            return stored_path(self.root, path) if os.path.lexists(path) else text

        anchored = file.moved(stored)
        places = [*anchored.landmarks.values()]
        places += [path for key in (*anchored.slides, "pet") for path in anchored.paths(key)]
        outside = [path for path in places if Path(path).is_absolute()]
        if not all(os.path.lexists(path) for path in outside):
            return anchored  # they may still be found from the old home
        home = str(self.root.absolute()) if outside else ""
        return anchored.model_copy(update={"home": home})

    def _identify(self, before: CaseFile) -> None:
        """Note what each slide and the PET is, where this is not known or its file changed."""
        known = dict(self.file.identity)
        for key in (*self.file.slides, "pet"):
            if key not in known or self.file.shown(key) != before.shown(key):
                known.pop(key, None)
                with contextlib.suppress(MosaikError, OSError):
                    known[key] = self.identity(key)
        self.file = self.file.model_copy(update={"identity": known})

    def identity(self, key: str) -> Identity:
        """What a slide ("he") or the PET ("pet") is, from its files."""
        source = PET if key == "pet" else SLIDES[key]
        if key == "pet":
            shape = self.pet().raster.values.shape
        else:
            with self._opened_as(key, (1.0, 1.0), "user") as slide:
                shape = slide.lattice.shape
        files = [self.path(path) for path in self.file.paths(key)]
        return Identity(
            content=self.content(source),
            shape=(int(shape[0]), int(shape[1])),
            bytes=sum(_size(path) for path in files),
        )

    def log(self, event: str, **details: Any) -> None:
        """Append one line to the journal of runs."""
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **details}
        place = self.root / "journal"
        with saving("the journal", place):
            place.mkdir(exist_ok=True)
            with (place / RUNS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, sort_keys=True) + "\n")

    def note_shown(self, what: str, reader: str = "") -> None:
        """Note, once for each reader, that its measured uptake or errors are shown.

        *reader* is empty for a person without a name.  Where nothing can be written, nothing is
        noted: such a case cannot be corrected either.
        """
        if not self.is_development and reader not in seen_by(self.root):
            entries = {name: scan.next_n for name, scan in journals_of(self.root).items()}
            with contextlib.suppress(MosaikError):
                self.log(SHOWN, reader=reader, what=what, entries=entries)

    # --- sources --------------------------------------------------------------------------------
    def path(self, given: str) -> Path:
        """A path of ``case.toml``: relative to the case folder, or absolute.

        Links are kept: what lies beside a link, such as a sidecar, belongs to it.  Separators of
        Windows are understood everywhere.
        """
        path = self.root.absolute() / given
        if os.path.lexists(path):
            return path
        parsed = PureWindowsPath(given) if "\\" in given else PurePath(given)
        if not parsed.is_absolute():
            return self.root.absolute().joinpath(*parsed.parts)
        home = type(parsed)(self.file.home)
        if self.file.home and parsed.is_relative_to(home.parent):
            moved = self.root.absolute().parent.joinpath(*parsed.relative_to(home.parent).parts)
            if os.path.lexists(moved):
                return moved
        return path

    def slide(self, stain: str) -> Slide:
        """Open one slide; its frame is the stain."""
        entry = self._entry(stain)
        given = entry.spacing_source != "header"
        slide = self._opened_as(stain, entry.spacing_um if given else None, entry.spacing_source)
        found, stored = slide.lattice.spacing_um, entry.spacing_um or slide.lattice.spacing_um
        if not given and any(abs(a - b) > 1e-3 * b for a, b in zip(found, stored, strict=True)):
            slide.close()
            raise InputError(
                f"{self.root / CASE_FILE}: slides.{stain}.spacing_um is {stored[0]:g} x "
                f"{stored[1]:g} µm, but the header of {entry.path} states {found[0]:g} x "
                f'{found[1]:g} µm; remove spacing_um, or write spacing_source = "user" to use it'
            )
        return slide

    def _opened_as(
        self, stain: str, spacing_um: tuple[float, float] | None, source: SpacingSource
    ) -> Slide:
        from napari_mosaik.io.slide import open_slide

        entry = self._entry(stain)
        return open_slide(
            self.path(entry.path),
            spacing_um,
            frame=stain,
            damaged=entry.damaged,
            spacing_source=source,
            icc=entry.icc,
            pyramids=self.pyramids,
            page=entry.page,
        )

    @property
    def pyramids(self) -> Path:
        """Folder of the virtual levels of the slides once they are stored."""
        return self.root / "cache" / "pyramids"

    def _entry(self, stain: str) -> SlideEntry:
        entry = self.file.slide(stain)
        if entry is None:
            raise InputError(f"case {self.name} has no {stain} slide")
        return entry

    def spacing_um(self, stain: str) -> tuple[float, float]:
        """Level-0 pixel size of one slide (row, column), µm."""
        entry = self.file.slide(stain)
        if entry is not None and entry.spacing_um is not None:
            return entry.spacing_um
        with self.slide(stain) as slide:
            return slide.lattice.spacing_um

    def pet(self) -> PetImage:
        """Read the PET slice."""
        from napari_mosaik.io.pet import open_pet

        entry = self.file.pet
        if entry is None:
            raise InputError(f"case {self.name} has no PET")
        return open_pet(
            [self.path(path) for path in entry.paths],
            slice_index=entry.slice_index,
            frame_index=entry.frame_index,
            unit=entry.unit,
        )

    def annotations_path(self, stain: str) -> Path:
        """File of the annotations of a slide (GeoJSON that QuPath reads)."""
        return self.root / "annotations" / f"{stain}.geojson"

    def annotations(self, stain: str, notes: list[str] | None = None) -> tuple[AnnotatedShape, ...]:
        """The shapes annotated on a slide; none when nothing is annotated.

        *notes* receives a sentence for each shape that was repaired or excluded.
        """
        from napari_mosaik.io.annotations import read_geojson

        path = self.annotations_path(stain)
        if not path.is_file():
            return ()
        with self.slide(stain) as slide:
            return read_geojson(path, slide.lattice, notes=notes)

    def corrections(self, what: str) -> tuple[Correction, ...]:
        """The manual corrections of "vessels", "nuclei", "tissue_cd34"... in force, in order."""
        return read_corrections(self.root, what)

    def model_folder(self, model: str) -> Path:
        """Folder of the model with the given hash; it need not exist."""
        return self.root / "models" / model

    # --- availability ---------------------------------------------------------------------------
    def missing_reason(self, source: Source) -> str:
        """Why a source is unavailable ("no PET given"); empty when it is available."""
        return _KINDS[source.kind].missing(self, source)

    def digest(self, source: Source) -> str:
        """Digest of a source's content; empty when it is missing."""
        kind = _KINDS[source.kind]
        return "" if kind.missing(self, source) else kind.digest(self, source)

    def content(self, source: Source) -> str:
        """Digest of what a slide or the PET shows, whatever pixel size, name or unit was given."""
        if source.kind == "pet":
            image = self.pet().raster
            return digest([image.values.shape, hashlib.blake2b(image.values.tobytes()).hexdigest()])
        entry = self._entry(source.key)

        def read() -> str:
            with self._opened_as(source.key, (1.0, 1.0), "user") as slide:
                return slide.digest()

        kind = f"content{':icc' if entry.icc else ''}:{entry.page or ''}"
        return self.cached_digest(self.path(entry.path), kind, read)

    def file_digest(self, path: Path) -> str:
        """Digest of a file, or of all files of a folder."""
        if path.is_dir():
            return digest([self.file_digest(p) for p in sorted(path.iterdir()) if p.is_file()])
        if not path.is_file():
            raise InputError(f"{path} does not exist")
        return self.cached_digest(path, "file", lambda: file_digest(path))

    def cached_digest(self, path: Path, kind: str, compute: Callable[[], str]) -> str:
        """A digest, recomputed only when the size or the modification time of a file differ."""
        key = f"{kind}:{path}:{_stamp(path)}"
        known = _DIGESTS.get(key)
        if known is None:
            known = _DIGESTS[key] = str(compute())
        return known

    def whole_digest(self, path: Path) -> str:
        """Digest of every byte of a slide, so that no changed tile is missed.

        It is kept in the case (``digests.json``, when the case is written next) with size and
        modification time of the files, and computed again where these differ.
        """
        key = f"{path.name}:{_stamp(path)}"
        value, _, check = str(self._kept_digests().get(key, "")).partition(":")
        if not value or check != digest([key, value]):  # unknown, or damaged
            value = _WHOLE.get(f"{path}:{key}") or digest(
                [file_digest(file) for file in _files_of(path)]
            )
            _WHOLE[f"{path}:{key}"] = value
            self._new_digests[key] = f"{value}:{digest([key, value])}"
        return value

    def _kept_digests(self) -> dict[str, Any]:
        try:
            return dict(read_json(self.root / _KEPT_DIGESTS))
        except (InputError, OSError, ValueError, TypeError):
            return {}

    def _keep_digests(self) -> None:
        if self._new_digests:
            kept = dict(list(self._kept_digests().items())[-_MAX_KEPT:]) | self._new_digests
            self._new_digests = {}
            write_json(self.root / _KEPT_DIGESTS, kept)


_WHOLE: dict[str, str] = {}
_DIGESTS: dict[str, str] = {}
_KEPT_DIGESTS: Final = "digests.json"
_MAX_KEPT: Final = 15
_FOLDER_FORMATS: Final = (".vms", ".vmu", ".dcm")
_INSIDE_ZARR: Final = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


def _files_of(path: Path) -> list[Path]:
    """All files of a slide: of a folder, beside a MIRAX file, in the folder of a DICOM one."""
    if path.name in _INSIDE_ZARR:
        path = path.parent
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if path.suffix.lower() == ".mrxs":
        folders = [place.with_suffix("") for place in (path, path.resolve())]
        folder = next((place for place in folders if place.is_dir()), None)
        return [path, *(_files_of(folder) if folder else [])]
    if path.suffix.lower() in _FOLDER_FORMATS:
        return sorted(file for file in path.parent.iterdir() if file.is_file())
    return [path]


def _stamp(path: Path) -> str:
    """Sizes and modification times of the files of a slide or another source."""
    files = _files_of(path)
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return "{}:{}".format(*stats[0][1:]) if len(stats) == 1 else digest(stats)


def _is_there(path: Path) -> bool:
    """Whether a file exists; one that may not be looked at does, and whoever reads it says so."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a path with a zero byte
        return False
    except OSError:
        return True
    return True


def _size(path: Path) -> int:
    """Size of a file, or of the files of a folder, bytes."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


# --- sources: whether each kind is there, and what it holds ---------------------------------------
class SourceKind(Protocol):
    """Availability and digest of one kind of source."""

    def missing(self, case: Case, source: Source) -> str:
        """Why the source is unavailable ("no PET given"); empty when it is available."""

    def digest(self, case: Case, source: Source) -> str:
        """Digest of the content of an available source."""


_KINDS: Final[dict[str, SourceKind]] = {}


def source_kind(name: str) -> Callable[[type[SourceKind]], type[SourceKind]]:
    """Register a class as the kind of the sources called "name" or "name:..."."""

    def register(kind: type[SourceKind]) -> type[SourceKind]:
        _KINDS[name] = kind()
        return kind

    return register


@source_kind("slide")
class SlideSource:
    def missing(self, case: Case, source: Source) -> str:
        entry = case.file.slide(source.key)
        if entry is None:
            return f"no {source.about} given"
        if not _is_there(case.path(entry.path)):
            return f"the {source.about} is not at {case.path(entry.path)}"
        return ""

    def digest(self, case: Case, source: Source) -> str:
        entry = case.file.slide(source.key)
        assert entry is not None

        path = case.path(entry.path)

        def read() -> str:
            with case.slide(source.key) as slide:
                return digest([slide.digest(), case.whole_digest(path)])

        spacing = entry.spacing_um if entry.spacing_source != "header" else None
        kind = f"slide:{source.key}{':icc' if entry.icc else ''}:{entry.page or ''}"
        content = case.cached_digest(path, kind, read)
        return digest([content, spacing, *(["skip"] if entry.damaged == "skip" else [])])


@source_kind("pet")
class PetSource:
    def missing(self, case: Case, source: Source) -> str:
        if case.file.pet is None:
            return "no PET given"
        absent = [path for path in case.file.pet.paths if not _is_there(case.path(path))]
        return f"the PET file is not at {case.path(absent[0])}" if absent else ""

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
        return digest([sorted(case.file.landmarks), [case.file_digest(path) for path in paths]])


@source_kind("given_alignment")
class GivenAlignmentSource:
    def missing(self, case: Case, source: Source) -> str:
        return "" if case.file.given_alignment(source.key) else "no alignment given"

    def digest(self, case: Case, source: Source) -> str:
        entry = case.file.given_alignment(source.key)
        assert entry is not None
        return digest(entry.model_dump(mode="json"))


@source_kind("plans")
class PlansSource:
    """The plans of the dose what-if, with the files that lie beside them."""

    def missing(self, case: Case, source: Source) -> str:
        return "" if self._files(case, "*.toml") else "no plan of a dose what-if given"

    def digest(self, case: Case, source: Source) -> str:
        return digest([[path.name, case.file_digest(path)] for path in self._files(case, "*.*")])

    def _files(self, case: Case, which: str) -> list[Path]:
        found = (case.root / "plans").glob(which)
        return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


@source_kind("development")
class DevelopmentSource:
    def missing(self, case: Case, source: Source) -> str:
        if case.is_development:
            return ""
        return "the measured uptake has neither ranked a review nor been shown before a correction"

    def digest(self, case: Case, source: Source) -> str:
        return digest(["development"])


@source_kind("annotations")
class AnnotationsSource:
    """The journals of the readers, or the file that a case without them was given."""

    def missing(self, case: Case, source: Source) -> str:
        there = case.annotations_path(source.key).is_file()
        there = there or bool(journals_of(case.root, annotation_part(source.key)))
        return "" if there else "nothing annotated yet"

    def digest(self, case: Case, source: Source) -> str:
        part = annotation_part(source.key)
        journals = journals_of(case.root, part)
        if not journals:
            return case.file_digest(case.annotations_path(source.key))
        edits = [
            [reader, [entry.mark for entry in scan.active(part) if entry.title]]
            for reader, scan in journals.items()
        ]
        return digest(edits)


@source_kind("corrections")
class CorrectionsSource:
    """What cannot be understood counts as present, so that the step that reads it reports it."""

    def missing(self, case: Case, source: Source) -> str:
        try:
            return "" if case.corrections(source.key) else "no manual corrections"
        except InputError:
            return ""

    def digest(self, case: Case, source: Source) -> str:
        try:
            return digest_of(case.corrections(source.key))
        except InputError:
            journals = journals_of(case.root, correction_part(source.key))
            return digest([scan.digest() for scan in journals.values()])


# --- pyramid levels -------------------------------------------------------------------------------
def build_missing_levels(
    case: Case, threads: int | None = None
) -> Generator[tuple[str, Progress], None, list[str]]:
    """Build and store the missing pyramid levels, one slide after another.

    Yields the stain and the progress of its slide.  Slides that cannot be opened are skipped:
    whoever reads them reports the error.

    Parameters
    ----------
    case
        The case; levels are stored in ``case.pyramids``.
    threads
        Number of threads; None for the number of cores, at most 4.

    Returns
    -------
    list of str
        Message for each slide whose levels could not be stored.
    """
    from napari_mosaik.io.slide.pyramid.build import complete_pyramid, has_missing_levels

    problems: list[str] = []
    for stain in case.file.slides:
        try:
            with case.slide(stain) as slide:
                if not has_missing_levels(slide):
                    continue
                with contextlib.closing(complete_pyramid(slide, case.pyramids, threads)) as work:
                    for progress in work:
                        yield stain, progress
        except InputError:
            continue
        except MosaikError as error:
            problems.append(str(error))
    return problems


# --- folders --------------------------------------------------------------------------------------
def create_case(root: Path, file: CaseFile) -> Case:
    """Create a case folder; an existing case is left unchanged and raises `InputError`."""
    _check_name(file.name)
    target = root / CASE_FILE
    if target.exists():
        raise InputError(f"{root} already contains a case; choose another folder")
    with saving("the case", root):
        root.mkdir(parents=True, exist_ok=True)
        if not os.access(root, os.W_OK):
            raise MosaikError(f"the folder {root} cannot be written; choose another folder")
    write_bytes(target, file.text().encode())
    case = Case(root)
    case.update()
    return case


_RESERVED = {"con", "prn", "aux", "nul", *(f"{p}{n}" for p in ("com", "lpt") for n in range(1, 10))}
_LONGEST_NAME = 100


def _check_name(name: str) -> None:
    """Raise `InputError` for a name that no file could bear on one of the systems in use."""
    wrong = sorted(set(name) & set('/\\:*?"<>|')) + [c for c in name if not c.isprintable()]
    if not name.strip() or not name.strip("."):
        reason = "it is empty"
    elif wrong:
        reason = f"it may not contain {wrong[0]!r}"
    elif name != name.strip() or name.endswith("."):
        reason = "it may not begin or end with a space, nor end with a full stop"
    elif name.partition(".")[0].casefold() in _RESERVED:
        reason = "Windows keeps this name for a device"
    elif len(name) > _LONGEST_NAME:
        reason = f"it has {len(name)} letters, {_LONGEST_NAME} are possible"
    else:
        return
    raise InputError(
        f"{name[:80]!r} is not a valid case name: {reason}; choose another folder, or give --name"
    )


def stored_path(root: Path, path: Path | str) -> str:
    """How ``case.toml`` names a file: relative to the case folder within it, otherwise absolute.

    A link is named as it was given, never by what it leads to.
    """
    absolute = Path(os.path.normpath(Path(path).expanduser().absolute()))
    for folder in (root.absolute(), root.resolve()):
        if absolute.is_relative_to(folder):
            return absolute.relative_to(folder).as_posix()
    return str(absolute)


def find_cases(paths: Sequence[Path | str]) -> list[Path]:
    """Case folders in *paths*: each path is a case, or a cohort folder that contains cases."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.name == CASE_FILE and path.is_file():
            path = path.parent
        if (path / CASE_FILE).is_file():
            found.append(path)
            continue
        if not path.is_dir():
            if not path.exists():
                slip = path_slip(path) or "; give a case or cohort folder"
                raise InputError(f"there is no folder {path}{slip}")
            raise InputError(f"{path} is neither a case folder nor a cohort folder")
        inside = sorted(p.parent for p in path.glob(f"*/{CASE_FILE}"))
        if not inside:
            raise InputError(
                f"{path} contains no case (no {CASE_FILE}, nor a folder with one). Create one with "
                "'napari-mosaik new' or 'napari-mosaik sample'"
            )
        found += inside
    # A case that is named twice, or by a link beside it, is one case.
    first: dict[Path, Path] = {}
    for path in found:
        first.setdefault(path.resolve(), path)
    return list(first.values())
