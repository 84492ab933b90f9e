"""What a running step may use: the inputs that it declared, blocks of work, and room for labels.

`StepContext` is what a step's body sees.  It has three implementations, so that a body runs in
three places without knowing in which:

    `run.CaseContext`              a stored case; finished blocks stay on the disk for a restart
    `preview.RegionContext`        a region of a case's slide; everything stays in memory
    `picture_case.PictureContext`  image files without a case; results go to a temporary folder
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from numpy.typing import NDArray

from napari_mosaik.core.artifact import Artifact, Progress, Source
from napari_mosaik.core.catalogue import (
    CORRECTIONS,
    GIVEN_ALIGNMENT,
    INJECTION,
    PET,
    PLANS,
    SLIDES,
    WARNINGS,
)
from napari_mosaik.core.corrections import Correction
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.pet_records import InjectionRecord, PetImage
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.io.case import Case
from napari_mosaik.io.case_file import GivenAlignment
from napari_mosaik.workflow.leaks import source_contents

if TYPE_CHECKING:
    from napari_mosaik.core.raster import LabelImage, Raster
    from napari_mosaik.core.window import Slices
    from napari_mosaik.io.slide import Slide, SlideBlocks
    from napari_mosaik.segment.stardist import StarDistWeights

__all__ = ["BlockArrays", "BlockResults", "CaseInputs", "NothingBefore", "StepContext"]

T = TypeVar("T")
BlockArrays = Mapping[str, NDArray[Any]]
"""Named arrays, of any shape and unit, that the work on one block returns."""


class BlockResults(Sequence[dict[str, NDArray[Any]]]):
    """The results of all blocks of a stage, in order; each is loaded when it is asked for.

    Parameters
    ----------
    count
        Number of blocks.
    load
        Gives the arrays of one block, by its index, whose names a function accepts.
    """

    def __init__(
        self,
        count: int,
        load: Callable[[int, Callable[[str], bool]], dict[str, NDArray[Any]]],
    ) -> None:
        self._count, self._load = count, load

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> dict[str, NDArray[Any]]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, NDArray[Any]]]: ...
    def __getitem__(
        self, index: int | slice
    ) -> dict[str, NDArray[Any]] | list[dict[str, NDArray[Any]]]:
        if isinstance(index, slice):
            return [self[i] for i in range(self._count)[index]]
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self.load(index, lambda name: True)

    def load(self, index: int, accept: Callable[[str], bool]) -> dict[str, NDArray[Any]]:
        """The arrays of one block whose names are accepted, of the shape and unit they were given.

        The others are not read.
        """
        return self._load(index, accept)

    def starting(self, index: int, prefix: str) -> dict[str, NDArray[Any]]:
        """The arrays of one block whose names start with *prefix*; shape and unit as given."""
        return self.load(index, lambda name: name.startswith(prefix))

    def array(self, index: int, name: str) -> NDArray[Any]:
        """One array of one block, of the shape and unit (such as label or µm) it was given."""
        return self.load(index, lambda stored: stored == name)[name]

    def column(self, name: str) -> list[NDArray[Any]]:
        """One array of each block, of the shape and unit (such as label or µm) it was given."""
        return [self.array(index, name) for index in range(self._count)]


class StepContext(Protocol):
    """What a running step may use; see the module.

    Reading something that the step did not declare is an internal error and raises ``KeyError``:
    the provenance of its results would be incomplete.
    """

    @property
    def case_name(self) -> str:
        """Name of the case."""

    @property
    def patient(self) -> str:
        """Pseudonym of the case's patient."""

    @property
    def scratch(self) -> Path:
        """Folder for working files."""

    def note(self, name: str, value: Any) -> None:
        """Put a JSON-able fact into the record that is stored with the step's results."""

    def warn(self, text: str) -> None:
        """Record a doubt about the results: the step is then marked ⚠ with this sentence, not ✓."""

    def source_contents(self, *sources: Source) -> dict[str, str]:
        """Digest of what each slide and the PET (or some *sources*) shows, by its name.

        For saying whether a model knows the case; no number may depend on it.
        """

    # --- inputs ---------------------------------------------------------------------------------
    def has(self, entry: Artifact[Any] | Source) -> bool:
        """Whether an optional input is available."""

    def why_not(self, artifact: Artifact[Any]) -> str:
        """Why an optional result cannot be made although its model was chosen; empty elsewhere."""

    def read(self, artifact: Artifact[T]) -> T:
        """A result of an earlier step."""

    def record(self, artifact: Artifact[Any]) -> dict[str, Any]:
        """The record that is stored with a result: the settings and notes of its step."""

    def previous_result(self, artifact: Artifact[T], *besides: Artifact[Any] | Source) -> T | None:
        """What this step stored before, if only the given inputs have changed since.

        None where there is no such result.  A step that reuses a part of it finds by
        `previous_input` and `changed_windows` which part an input that has changed concerns, and
        returns exactly what it would compute without it.
        """

    def previous_input(self, artifact: Artifact[T]) -> T | None:
        """An input as it was when the previous result was computed; None where it is not kept."""

    def is_unchanged(self, artifact: Artifact[Any]) -> bool:
        """Whether an input equals its `previous_input`, without reading either."""

    def previous_record(self) -> dict[str, Any]:
        """The record of the previous result, with the notes of its step."""

    def changed_windows(self, artifact: Artifact[LabelImage]) -> list[Slices] | None:
        """Where a label image (rows, columns) differs from its `previous_input`, in pixels.

        None where that is not known.
        """

    def slide(self, stain: str) -> Slide:
        """One slide, opened; the caller closes it."""

    def spacing_um(self, stain: str) -> tuple[float, float]:
        """Level-0 pixel size of a slide (row, column), µm."""

    def pet(self) -> PetImage:
        """The PET slice."""

    def injection(self) -> InjectionRecord:
        """The injection record."""

    def annotations(self, stain: str) -> tuple[AnnotatedShape, ...]:
        """The annotations of a slide."""

    def corrections(self, what: str) -> tuple[Correction, ...]:
        """The manual corrections of a result; empty where there are none."""

    def given_alignment(self, frame: str) -> GivenAlignment | None:
        """The given alignment of a section; None where there is none."""

    def landmark_files(self) -> dict[str, Path]:
        """Landmark files by frame."""

    def plans_root(self) -> Path:
        """Folder of the case whose plans are read (`workflow.plans.read_plans`)."""

    def model_folder(self, model: str) -> Path:
        """Folder of a trained model that the step's settings name."""

    def nuclei_weights(self, digest: str) -> StarDistWeights:
        """Weights of a StarDist network by their digest; the default network if it is empty."""

    # --- work -----------------------------------------------------------------------------------
    def cached(
        self, name: str, depends: Any, work: Callable[[], Generator[Progress, None, T]]
    ) -> Generator[Progress, None, T]:
        """A value that depends on the declared inputs and on *depends* (JSON-able) alone.

        A run computes it; previews keep it, so that changing another setting is fast.
        """

    def blocks(
        self,
        stage: str,
        items: Sequence[T],
        work: Callable[[T], BlockArrays],
        text: str,
        *,
        start: float = 0.0,
        stop: float = 1.0,
    ) -> Generator[Progress, None, BlockResults]:
        """Run *work* on every item in parallel.

        Yields progress from *start* to *stop* (fractions) after each item, which is where a run can
        be cancelled, and returns the results in the order of the items.

        Parameters
        ----------
        stage
            Name of this part of the step, unique within it.
        items
            What is worked on.
        work
            Gives the named arrays of one item; called from several threads, or in other processes.
        text
            What a progress bar shows.
        start, stop
            Fractions of the step that are done before and after.
        """

    def stream(
        self,
        stage: str,
        blocks: SlideBlocks,
        indices: Sequence[int],
        work: Callable[[int, tuple[Raster, ...]], BlockArrays],
        text: str,
        *,
        start: float = 0.0,
        stop: float = 1.0,
        at_once: int = 0,
        weights: Sequence[float] = (),
    ) -> Generator[Progress, None, BlockResults]:
        """One pass over a slide: *work* gets the index of each block and its pixels in all views.

        At most *at_once* blocks are worked on side by side, one for each core if 0.  *weights*
        (count of *indices*) say how long each takes beside the others, for the time left; all the
        same if empty.  Otherwise as `blocks`.
        """

    def write_labels(
        self,
        labels: LabelImage,
        text: str,
        *,
        name: str = "labels",
        start: float = 0.0,
        stop: float = 1.0,
    ) -> Generator[Progress, None, LabelImage]:
        """Write labels (rows, columns) that are computed block by block; returns the written ones.

        A step that writes several label images gives each a *name*.
        """

    def rewrite_labels(
        self,
        before: Artifact[LabelImage],
        labels: LabelImage,
        windows: Sequence[tuple[slice, slice]],
        text: str,
        earlier: Artifact[LabelImage] | None = None,
    ) -> Generator[Progress, None, LabelImage]:
        """Write labels (rows, columns) that differ from stored ones within some windows only.

        *earlier* is a `previous_result` of this step that was edited from the same stored labels:
        what is equal there is not written again.
        """


class NothingBefore:
    """A context without an earlier run, from which nothing can be reused."""

    def previous_result(self, artifact: Artifact[T], *besides: Artifact[Any] | Source) -> T | None:
        """Nothing: there is no earlier run with these settings."""
        return None

    def previous_input(self, artifact: Artifact[T]) -> T | None:
        """Nothing."""
        return None

    def is_unchanged(self, artifact: Artifact[Any]) -> bool:
        """Not known."""
        return False

    def previous_record(self) -> dict[str, Any]:
        """No entries."""
        return {}

    def changed_windows(self, artifact: Artifact[LabelImage]) -> list[Slices] | None:
        """Pixels of a label image (rows, columns) that differ: not known."""
        return None

    def rewrite_labels(
        self: StepContext,
        before: Artifact[LabelImage],
        labels: LabelImage,
        windows: Sequence[Slices],
        text: str,
        earlier: Artifact[LabelImage] | None = None,
    ) -> Generator[Progress, None, LabelImage]:
        """The labels (rows, columns), written whole."""
        return (yield from self.write_labels(labels, text, start=0.5))


class CaseInputs:
    """The declared inputs of a step of a case: what `StepContext` says of each.

    Parameters
    ----------
    case
        The case.
    step
        Name of the step.
    entries
        Inputs that it declares.
    unavailable
        Names of its optional inputs that are not available, with reasons if it is a mapping; what
        an earlier run stored of them is not used.
    """

    def __init__(
        self,
        case: Case,
        step: str,
        entries: Collection[Artifact[Any] | Source],
        unavailable: Collection[str] = (),
    ) -> None:
        self.case, self.step = case, step
        self._declared = {entry.name for entry in entries} - set(unavailable)
        given = unavailable if isinstance(unavailable, Mapping) else dict.fromkeys(unavailable, "")
        self._unavailable: Mapping[str, str] = given
        self.notes: dict[str, Any] = {}

    @property
    def case_name(self) -> str:
        """Name of the case."""
        return self.case.name

    @property
    def patient(self) -> str:
        """Pseudonym of the case's patient."""
        return self.case.patient

    def source_contents(self, *sources: Source) -> dict[str, str]:
        """Digest of what each slide and the PET (or some *sources*) shows, by its name."""
        return source_contents(self.case, *sources)

    def note(self, name: str, value: Any) -> None:
        """Put a JSON-able fact into the record that is stored with the step's results."""
        self.notes[name] = value

    def warn(self, text: str) -> None:
        """Record a doubt about the results."""
        self.notes.setdefault(WARNINGS, []).append(text)

    def check(self, entry: Artifact[Any] | Source) -> None:
        """Raise ``KeyError`` for an input that the step does not declare."""
        if entry.name not in self._declared:
            raise KeyError(f"step '{self.step}' reads '{entry.name}' without declaring it")

    def stored(self, artifact: Artifact[T]) -> T:
        """A result of the case that the step declares."""
        self.check(artifact)
        return self.case.store.read(artifact)

    def opened(self, stain: str) -> Slide:
        """A slide of the case that the step declares, opened."""
        self.check(SLIDES[stain])
        return self.case.slide(stain)

    def has(self, entry: Artifact[Any] | Source) -> bool:
        """Whether an optional input is available."""
        if entry.name in self._unavailable:
            return False
        self.check(entry)
        if isinstance(entry, Source):
            return not self.case.missing_reason(entry)
        return self.case.store.origin(entry) is not None

    def why_not(self, artifact: Artifact[Any]) -> str:
        """Why an optional result cannot be made although its model was chosen; empty elsewhere."""
        return self._unavailable.get(artifact.name, "")

    def record(self, artifact: Artifact[Any]) -> dict[str, Any]:
        """The record that is stored with a result: the settings and notes of its step."""
        self.check(artifact)
        return self.case.store.record(artifact)

    def spacing_um(self, stain: str) -> tuple[float, float]:
        """Level-0 pixel size of a slide (row, column), µm."""
        with self.opened(stain) as slide:
            return slide.lattice.spacing_um

    def pet(self) -> PetImage:
        """The PET slice."""
        self.check(PET)
        return self.case.pet()

    def injection(self) -> InjectionRecord:
        """The injection record."""
        self.check(INJECTION)
        if self.case.file.injection is None:
            raise InputError(f"case {self.case.name} has no injection record")
        return self.case.file.injection

    def annotations(self, stain: str) -> tuple[AnnotatedShape, ...]:
        """The annotations of a slide."""
        self.check(Source(f"annotations:{stain}", ""))
        return self.case.annotations(stain)

    def corrections(self, what: str) -> tuple[Correction, ...]:
        """The manual corrections of a result; empty where there are none."""
        return self.case.corrections(what) if self.has(CORRECTIONS[what]) else ()

    def given_alignment(self, frame: str) -> GivenAlignment | None:
        """The given alignment of a section; None where there is none."""
        if not self.has(GIVEN_ALIGNMENT[frame]):
            return None
        return self.case.file.given_alignment(frame)

    def landmark_files(self) -> dict[str, Path]:
        """Landmark files by frame."""
        return {key: self.case.path(path) for key, path in self.case.file.landmarks.items()}

    def plans_root(self) -> Path:
        """Folder of the case whose plans are read."""
        self.check(PLANS)
        return self.case.root

    def model_folder(self, model: str) -> Path:
        """Folder of a trained model that the step's settings name."""
        return self.case.model_folder(model)

    def nuclei_weights(self, digest: str) -> StarDistWeights:
        """Weights of a StarDist network by their digest; the default network if it is empty."""
        from napari_mosaik.workflow.model_weights import find_weights

        return find_weights(digest)
