"""An ephemeral case: image files as slides, on which the steps of a case run without a case.

    files ──► `PictureCase` ──► steps (`PictureContext`) ──► results in memory or a temporary folder

Slides are read, and labels written, block by block, as in a case.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, final

from napari_mosaik.core.artifact import Artifact, Progress, Source
from napari_mosaik.core.catalogue import GIVEN_ALIGNMENT
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.params import Params
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.io import open_slide
from napari_mosaik.io.case import GivenAlignment
from napari_mosaik.workflow.block_work import DiskWork
from napari_mosaik.workflow.slide_part import CutSlide
from napari_mosaik.workflow.step import Step
from napari_mosaik.workflow.steps import step_named

if TYPE_CHECKING:
    from napari_mosaik.core.corrections import Correction
    from napari_mosaik.core.pet_records import InjectionRecord, PetImage
    from napari_mosaik.core.shapes import AnnotatedShape
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.io.slide.types.tiles import RegionUm
    from napari_mosaik.segment.stardist import StarDistWeights

__all__ = ["Picture", "PictureCase", "PictureContext"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file, its pixel size (µm) if the file does not state it, and the region of it."""

    path: Path
    spacing_um: float | None = None
    region: RegionUm | None = None

    def open(self, frame: str) -> Slide:
        """The file, or the region of it, as a slide."""
        slide = open_slide(self.path, self.spacing_um, frame=frame)
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
    """

    folder: Path
    slides: Mapping[str, Picture]
    alignments: Mapping[str, GivenAlignment] = field(default_factory=dict)
    weights: Path | None = None
    results: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, name: str, params: Params) -> Generator[Progress, None, None]:
        """Run a step and keep its results."""
        step = step_named(name)
        context = PictureContext(self, step)
        made = yield from step.body(context, params)
        self.results.update({artifact.name: value for artifact, value in made.items()})
        self.notes[name] = context.notes

    def result(self, artifact: Artifact[T]) -> T:
        """A result of a step that has run."""
        value: T = self.results[artifact.name]
        return value


@final
class PictureContext(DiskWork):
    """A `StepContext` of an ephemeral case: no PET, annotations or corrections."""

    def __init__(self, case: PictureCase, step: Step[Any]) -> None:
        super().__init__(case.folder / step.name, step.name)
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

    def note(self, name: str, value: Any) -> None:
        """Put a JSON-able fact into the record of the step."""
        self.notes[name] = value

    def has(self, entry: Artifact[Any] | Source) -> bool:
        """Whether an optional input is available."""
        if isinstance(entry, Artifact):
            return entry.name in self._case.results
        return any(entry == GIVEN_ALIGNMENT[frame] for frame in self._case.alignments)

    def read(self, artifact: Artifact[T]) -> T:
        """A result of an earlier step."""
        return self._case.result(artifact)

    def record(self, artifact: Artifact[Any]) -> dict[str, Any]:
        """The notes of all steps that have run."""
        return {name: value for notes in self._case.notes.values() for name, value in notes.items()}

    def previous_result(self, artifact: Artifact[T], *besides: Source) -> T | None:
        """Nothing: no step has run before."""
        return None

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

    def rewrite_labels(
        self,
        before: Artifact[LabelImage],
        labels: LabelImage,
        windows: Sequence[tuple[slice, slice]],
        text: str,
    ) -> Generator[Progress, None, LabelImage]:
        """Write labels (rows, columns)."""
        return (yield from self.write_labels(labels, text, start=0.5))
