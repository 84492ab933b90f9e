"""An ephemeral case: image files as slides, on which the steps of a case run without a case.

    files ──► `PictureCase` ──► steps (`PictureContext`) ──► results in memory or a temporary folder

Slides are read, and labels written, block by block, as in a case.  `align_pictures` registers two
files: the fixed picture takes the place of the CD34 slide, the moving one that of the H&E slide.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, final

from napari_mosaik.core.artifact import Artifact, Progress, Source
from napari_mosaik.core.catalogue import ALIGNMENT, GIVEN_ALIGNMENT, SLIDES, WARNINGS
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.params import Params
from napari_mosaik.io import open_slide
from napari_mosaik.io.case_file import GivenAlignment
from napari_mosaik.register import transform_of
from napari_mosaik.workflow.block_work import DiskWork
from napari_mosaik.workflow.slide_part import CutSlide
from napari_mosaik.workflow.step import Step
from napari_mosaik.workflow.step_context import NothingBefore
from napari_mosaik.workflow.steps import step_named

if TYPE_CHECKING:
    from napari_mosaik.core.corrections import Correction
    from napari_mosaik.core.pet_records import InjectionRecord, PetImage
    from napari_mosaik.core.shapes import AnnotatedShape
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.io.slide.types.tiles import RegionUm
    from napari_mosaik.register import AlignKind
    from napari_mosaik.segment.stardist import StarDistWeights

__all__ = ["Picture", "PictureCase", "PictureContext", "align_pictures"]

T = TypeVar("T")
_COARSE = 1.5
"""Pictures up to this factor coarser than a step requires are segmented, with a doubt."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file, its pixel size (µm) if the file does not state it, its region and page."""

    path: Path
    spacing_um: float | Sequence[float] | None = None
    region: RegionUm | None = None
    page: int | None = None

    def open(self, frame: str) -> Slide:
        """The file, or the region of it, as a slide."""
        slide = open_slide(self.path, self.spacing_um, frame=frame, page=self.page)
        return slide if self.region is None else CutSlide(slide, self.region)


@dataclass(slots=True)
class PictureCase:
    """Image files as the slides of a case that lasts as long as its folder.

    Parameters
    ----------
    folder
        Folder for working files.
    slides
        Pictures by stain.
    alignments
        Given alignments by frame.
    weights
        Model folder or weights file that was given for the step; None for the default.
    results
        Results by artifact name: those of the steps that have run, and those that are given.
    notes
        What the steps have noted, by step name.
    scheduler
        Address of a dask.distributed scheduler whose workers see the folder; empty for threads.
    """

    folder: Path
    slides: Mapping[str, Picture]
    alignments: Mapping[str, GivenAlignment] = field(default_factory=dict)
    weights: Path | None = None
    results: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
    scheduler: str = ""

    def run(self, name: str, params: Params) -> Generator[Progress, None, None]:
        """Run a step and keep its results."""
        step = step_named(name)
        context = PictureContext(self, step)
        for stain, picture in self.slides.items():
            spacing_um = max(context.spacing_um(stain)) if SLIDES[stain] in step.reads else None
            if spacing_um and (wanted := step.refused_pixel_size(spacing_um)):
                text = f"{picture.path.name}: a pixel size of {spacing_um:.3g} µm; {wanted}"
                if not 1 < spacing_um / (step.coarsest_um or 1) <= _COARSE:
                    raise InputError(text)
                context.warn(text)
        made = yield from step.body(context, params)
        self.results.update({artifact.name: value for artifact, value in made.items()})
        self.notes[name] = context.notes

    def result(self, artifact: Artifact[T]) -> T:
        """A result of a step that has run."""
        value: T = self.results[artifact.name]
        return value


@final
class PictureContext(NothingBefore, DiskWork):
    """A `StepContext` of an ephemeral case: no PET, annotations or corrections."""

    def __init__(self, case: PictureCase, step: Step[Any]) -> None:
        super().__init__(case.folder / step.name, step.name, case.scheduler)
        self._case = case
        self.notes: dict[str, Any] = {}

    @property
    def case_name(self) -> str:
        """Name of the first file."""
        return next(iter(self._case.slides.values())).path.name

    @property
    def patient(self) -> str:
        """No patient is known."""
        return "unknown patient"

    def source_contents(self, *sources: Source) -> dict[str, str]:
        """None: no model knows a picture."""
        return {}

    def note(self, name: str, value: Any) -> None:
        """Put a JSON-able fact into the record of the step."""
        self.notes[name] = value

    def warn(self, text: str) -> None:
        """Record a doubt about the results."""
        self.notes.setdefault(WARNINGS, []).append(text)

    def has(self, entry: Artifact[Any] | Source) -> bool:
        """Whether an optional input is available."""
        if isinstance(entry, Artifact):
            return entry.name in self._case.results
        return any(entry == GIVEN_ALIGNMENT[frame] for frame in self._case.alignments)

    def why_not(self, artifact: Artifact[Any]) -> str:
        """Why an optional result cannot be made: not known."""
        return ""

    def read(self, artifact: Artifact[T]) -> T:
        """A result of an earlier step."""
        return self._case.result(artifact)

    def record(self, artifact: Artifact[Any]) -> dict[str, Any]:
        """The notes of all steps that have run."""
        return {name: value for notes in self._case.notes.values() for name, value in notes.items()}

    def slide(self, stain: str) -> Slide:
        """A picture as a slide, opened; the caller closes it."""
        return self._case.slides[stain].open(stain)

    def spacing_um(self, stain: str) -> tuple[float, float]:
        """Pixel size of a picture (row, column), µm."""
        with self.slide(stain) as slide:
            return slide.lattice.spacing_um

    def pet(self) -> PetImage:
        """There is none: `InputError`."""
        self._without("PET")

    def injection(self) -> InjectionRecord:
        """There is none: `InputError`."""
        self._without("injection record")

    def _without(self, kind: str) -> NoReturn:
        raise InputError(f"a picture without a case has no {kind}")

    def annotations(self, stain: str) -> tuple[AnnotatedShape, ...]:
        """There are none."""
        return ()

    def corrections(self, what: str) -> tuple[Correction, ...]:
        """There are none."""
        return ()

    def given_alignment(self, frame: str) -> GivenAlignment | None:
        """The given alignment of a picture; None where there is none."""
        return self._case.alignments.get(frame)

    def landmark_files(self) -> dict[str, Path]:
        """There are none: landmarks only measure here."""
        return {}

    def plans_root(self) -> Path:
        """There are none: `InputError`."""
        self._without("plan")

    def model_folder(self, model: str) -> Path:
        """The model folder that was given."""
        if self._case.weights is None:
            self._without("trained model")
        return self._case.weights

    def nuclei_weights(self, digest: str) -> StarDistWeights:
        """The weights that were given, or those that come with the program."""
        from napari_mosaik.segment.stardist import embedded_weights, load_stardist

        given = self._case.weights
        return embedded_weights() if given is None else load_stardist(given)


_MOVING, _FIXED = "he", "cd34"
"""The stains whose registration step two pictures go through."""
_CONFIDENT = 0.4
"""Above this confidence a registration tells which landmarks are odd."""


def align_pictures(
    fixed: Path,
    moving: Path,
    spacing_fixed: float | None,
    spacing_moving: float | None,
    landmarks_fixed: Path | None,
    landmarks_moving: Path | None,
    kind: str,
    *,
    by_landmarks: bool = False,
    matrix: Path | None = None,
    order: Literal["rc", "xy"] = "rc",
) -> Generator[Progress, None, dict[str, Any]]:
    """Register two slides by outline and haematoxylin, or assess a given transform.

    Parameters
    ----------
    fixed, moving
        Pictures or slides.
    spacing_fixed, spacing_moving
        Pixel sizes, µm; None where the files state them.
    landmarks_fixed, landmarks_moving
        Landmark files in pixels, or None for both.  They only measure the error, unless
        *by_landmarks* is set.
    kind
        "rigid", "similarity" or "affine".
    by_landmarks
        Fit the landmarks.
    matrix, order
        A file with the transform of another program (3 x 3, µm), assessed and not changed; see
        `read_matrix`.

    Returns
    -------
    dict
        JSON-able: the matrix in µm, the measures of its fit, the errors of the landmarks in µm.

    Raises
    ------
    InputError
        For what cannot be read, lacks its pixel size, or contradicts itself.
    """
    from napari_mosaik.register import AlignParams, read_matrix
    from napari_mosaik.tissue import TissueParams

    params = AlignParams.parse({"kind": kind}, "--kind")
    _check(landmarks_fixed, landmarks_moving, by_landmarks, matrix)
    slides = {
        _FIXED: Picture(fixed, spacing_fixed),
        _MOVING: Picture(moving, spacing_moving),
    }
    lattices = {}
    for stain, picture in slides.items():
        with picture.open(stain) as slide:
            lattices[stain] = slide.lattice
    landmarks = _landmarks(landmarks_moving, landmarks_fixed, lattices[_MOVING], lattices[_FIXED])
    given = {}
    if matrix is not None:
        given[_MOVING] = _given(read_matrix(matrix, order), "file", matrix.name)
    elif by_landmarks and landmarks is not None:
        given[_MOVING] = landmarks.fitted(params.kind)
    with tempfile.TemporaryDirectory(prefix="mosaik-pictures-") as folder:
        case = PictureCase(Path(folder), slides, given)
        for stain, lattice in lattices.items():
            coarse = max(TissueParams().spacing_um, *lattice.spacing_um)
            yield from case.run(f"tissue_{stain}", TissueParams(spacing_um=coarse))
        yield from case.run(f"align_{_MOVING}", params)
    document: dict[str, Any] = case.result(ALIGNMENT[_MOVING])
    record, transform = dict(document), transform_of(document)
    record.update(source="moving", target="fixed", matrix=record.pop("matrix_um"))
    if by_landmarks:
        record["method"] = f"landmarks ({kind})"
    if landmarks is not None:
        confident = not by_landmarks and (record["confidence"] or 0.0) >= _CONFIDENT
        report = landmarks.report(transform, lattices[_FIXED], params.kind, confident)
        messages = report.pop("warnings")
        record["warnings"] = [*record["warnings"], *messages]
        codes = ["landmark_outlier"] * len(messages)
        record["warning_codes"] = [*record["warning_codes"], *codes]
        record.update(report)
    return record


def _check(
    landmarks_fixed: Path | None,
    landmarks_moving: Path | None,
    by_landmarks: bool,
    matrix: Path | None,
) -> None:
    """Refuse what contradicts itself."""
    if (landmarks_fixed is None) != (landmarks_moving is None):
        raise InputError("give landmarks of both pictures, or of neither")
    if by_landmarks and (landmarks_fixed is None or matrix is not None):
        raise InputError("--by-landmarks needs landmarks of both pictures and no --matrix")


def _given(
    matrix_um: FloatArray, source: Literal["landmarks", "file"], note: str = ""
) -> GivenAlignment:
    rows: Any = tuple(tuple(float(value) for value in row) for row in matrix_um)
    return GivenAlignment(matrix_um=rows, source=source, note=note)


@dataclass(frozen=True, slots=True, eq=False)
class _Landmarks:
    """Landmark pairs (n, 2) of two pictures in µm, with their names."""

    moving_um: FloatArray
    fixed_um: FloatArray
    names: list[str]
    warnings: list[str]

    def fitted(self, kind: AlignKind) -> GivenAlignment:
        """The transform that fits them best."""
        from napari_mosaik.register import fit_landmarks

        fit = fit_landmarks(self.moving_um, self.fixed_um, kind, _MOVING, _FIXED)
        return _given(fit.matrix, "landmarks")

    def report(
        self, transform: Transform, lattice: Lattice, kind: AlignKind, confident: bool
    ) -> dict[str, Any]:
        """Errors before and after (µm), the residual of each pair, and the outliers among them."""
        from napari_mosaik.register import (
            find_landmark_outliers,
            fit_landmarks_robustly,
            landmark_errors_um,
            landmark_quality,
            outlier_messages,
        )

        n, reference = len(self.names), transform
        quality = landmark_quality(self.moving_um, self.fixed_um, transform, lattice)
        residuals = landmark_errors_um(self.moving_um, self.fixed_um, transform)
        if not confident and n >= 5:
            reference = fit_landmarks_robustly(
                self.moving_um, self.fixed_um, kind, transform.source, transform.target
            )
        outliers = find_landmark_outliers(self.moving_um, self.fixed_um, reference)
        return {
            "landmark_error_um": {
                "before": {**quality["before_um"], "n": n},
                "after": {**quality["tre_um"], "n": n},
            },
            "landmark_rtre": quality["rtre"],
            "robustness": quality["robustness"],
            "landmarks": [
                {"name": name, "residual_um": float(error)}
                for name, error in zip(self.names, residuals, strict=True)
            ],
            "suspects": [
                {
                    "name": self.names[one.row],
                    "residual_um": one.residual_um,
                    "swapped_with": None
                    if one.swapped_with is None
                    else self.names[one.swapped_with],
                }
                for one in outliers
            ],
            "warnings": [*self.warnings, *outlier_messages(outliers, self.names)],
        }


def _landmarks(
    moving: Path | None, fixed: Path | None, moving_lattice: Lattice, fixed_lattice: Lattice
) -> _Landmarks | None:
    from napari_mosaik.register import check_partners, landmark_names, read_landmarks

    if moving is None or fixed is None:
        return None
    check_partners(moving, fixed)
    points = [
        read_landmarks(path, lattice.spacing_um)
        for path, lattice in ((moving, moving_lattice), (fixed, fixed_lattice))
    ]
    n = min(map(len, points))
    if n == 0:
        raise InputError(f"{moving if not len(points[0]) else fixed} contains no landmark")
    warnings = [
        f"{path.name}: {outside} of {len(found)} landmarks lie outside the picture; are they in "
        "pixels of its full resolution?"
        for path, found, lattice in zip(
            (moving, fixed), points, (moving_lattice, fixed_lattice), strict=True
        )
        if (outside := int(((found < 0) | (found > lattice.extent_um)).any(axis=1).sum()))
    ]
    if len(points[0]) != len(points[1]):
        warnings += [f"{len(points[0])} and {len(points[1])} landmarks: the first {n} were paired"]
    return _Landmarks(points[0][:n], points[1][:n], landmark_names(fixed)[:n], warnings)
