"""What a running step may see: the inputs that it declared, and a place for finished blocks."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Artifact, Origin, Progress, Source
from napari_mosaik.core.catalogue import CORRECTIONS, GIVEN_ALIGNMENT, INJECTION, PET, SLIDES
from napari_mosaik.core.corrections import Correction
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.pet_records import InjectionRecord, PetImage
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.io.case import Case, GivenAlignment
from napari_mosaik.io.files import remove_tree, write_bytes
from napari_mosaik.workflow.parallel import in_parallel

if TYPE_CHECKING:
    from napari_mosaik.core.raster import LabelImage, Raster
    from napari_mosaik.io.ome_labels import LabelWriter
    from napari_mosaik.io.slide import Slide, SlideBlocks
    from napari_mosaik.workflow.step import Step

__all__ = ["BlockResults", "StepContext"]

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]


class StepContext:
    """The declared inputs of one run of one step.

    Reading something that the step did not declare is a fault of the program and raises
    ``KeyError``: the record of how a result arose would be incomplete.

    Parameters
    ----------
    case
        The case.
    step
        The step that runs.
    scratch
        Folder for finished blocks, named by the step's origin; removed after the commit.
    scheduler
        Address of a dask.distributed scheduler; empty for threads.
    absent
        Names of optional inputs that cannot be had; what an earlier run stored of them is not used.
    origin
        The origin that the results will have; None where nothing of an earlier run may be used.
    """

    def __init__(
        self,
        case: Case,
        step: Step[Any],
        scratch: Path,
        scheduler: str = "",
        absent: Collection[str] = (),
        origin: Origin | None = None,
    ) -> None:
        self._case, self._origin = case, origin
        entries = (*step.reads, *step.may_read)
        self._declared = {entry.name for entry in entries} - set(absent)
        self._absent = frozenset(absent)
        self._step = step.name
        self.scratch = scratch
        self.scheduler = scheduler
        self.notes: dict[str, Any] = {}

    @property
    def case_name(self) -> str:
        """Name of the case."""
        return self._case.name

    @property
    def patient(self) -> str:
        """Pseudonym of the case's patient."""
        return self._case.patient

    def note(self, name: str, value: Any) -> None:
        """Put a JSON-able fact into the record that is stored with the step's results."""
        self.notes[name] = value

    def _check(self, entry: Artifact[Any] | Source) -> None:
        if entry.name not in self._declared:
            raise KeyError(f"step '{self._step}' reads '{entry.name}' without declaring it")

    def read(self, artifact: Artifact[T]) -> T:
        """A stored result."""
        self._check(artifact)
        return self._case.store.read(artifact)

    def record(self, artifact: Artifact[Any]) -> dict[str, Any]:
        """The record that is stored with a result: the settings and notes of its step."""
        self._check(artifact)
        return self._case.store.record(artifact)

    def previous_result(self, artifact: Artifact[T], *besides: Source) -> T | None:
        """What this step has stored before, if at most some given sources were different then.

        For a result that does not depend on those; None when there is none of that kind.
        """
        stored = self._case.store.origin(artifact)
        if stored is None or self._origin is None:
            return None
        names = {source.name for source in besides}
        before, now = (
            replace(one, inputs=tuple(pair for pair in one.inputs if pair[0] not in names))
            for one in (stored, self._origin)
        )
        return self._case.store.read(artifact) if before == now else None

    def has(self, entry: Artifact[Any] | Source) -> bool:
        """Whether an input that the step may read is there."""
        if entry.name in self._absent:
            return False
        self._check(entry)
        if isinstance(entry, Source):
            return not self._case.missing_reason(entry)
        return self._case.store.origin(entry) is not None

    def slide(self, stain: str) -> Slide:
        """One slide, opened; the caller closes it."""
        self._check(SLIDES[stain])
        return self._case.slide(stain)

    def pet(self) -> PetImage:
        """The PET slice."""
        self._check(PET)
        return self._case.pet()

    def injection(self) -> InjectionRecord:
        """The injection record."""
        self._check(INJECTION)
        if self._case.file.injection is None:
            raise InputError(f"case {self._case.name} has no injection record")
        return self._case.file.injection

    def annotations(self, stain: str) -> tuple[AnnotatedShape, ...]:
        """The shapes drawn on a slide."""
        self._check(Source(f"annotations:{stain}", ""))
        return self._case.annotations(stain)

    def corrections(self, what: str) -> tuple[Correction, ...]:
        """What was corrected by hand; nothing where there are no corrections."""
        source = CORRECTIONS[what]
        return self._case.corrections(what) if self.has(source) else ()

    def given_alignment(self, frame: str) -> GivenAlignment | None:
        """Where a person or another program laid a section; None where nobody did."""
        if not self.has(GIVEN_ALIGNMENT[frame]):
            return None
        return self._case.file.given_alignment(frame)

    def landmark_files(self) -> dict[str, Path]:
        """Landmark files by frame."""
        return {key: self._case.path(path) for key, path in self._case.file.landmarks.items()}

    def spacing_um(self, stain: str) -> tuple[float, float]:
        """Level-0 pixel size of a slide, µm."""
        with self.slide(stain) as slide:
            return slide.lattice.spacing_um

    def model_folder(self, model: str) -> Path:
        """Folder of a model that the step's settings name."""
        return self._case.model_folder(model)

    def cached(
        self, name: str, depends: Any, work: Callable[[], Generator[Progress, None, T]]
    ) -> Generator[Progress, None, T]:
        """A value that depends on the declared inputs and on *depends* (JSON-able) alone.

        A run works it out; previews keep it, so that moving another setting is fast.
        """
        return (yield from work())

    def working_array(self, name: str, shape: tuple[int, int], dtype: Any) -> Any:
        """An array of zeros for the time of the run, on the disk, written in parts."""
        from napari_mosaik.io.ome import CHUNK, create_array

        place = self.scratch / name
        remove_tree(place)
        return create_array(place, shape, dtype, (CHUNK, CHUNK), sparse=True)

    # --- blocks ---------------------------------------------------------------------------------
    def blocks(
        self,
        stage: str,
        items: Sequence[T],
        work: Callable[[T], Arrays],
        text: str,
        *,
        start: float = 0.0,
        stop: float = 1.0,
    ) -> Generator[Progress, None, BlockResults]:
        """Run *work* on every item in parallel; finished items are kept over a restart.

        Yields progress from *start* to *stop* (of 1) after each item, which is where a run can be
        cancelled, and returns the results in the order of the items; they stay on the disk until
        one is asked for.  *work* returns named arrays; a result that is found in the scratch
        folder is not computed again.
        """
        return (yield from self._run(stage, items, work, text, start, stop, lambda todo: None))

    def stream(
        self,
        stage: str,
        blocks: SlideBlocks,
        indices: Sequence[int],
        work: Callable[[int, tuple[Raster, ...]], Arrays],
        text: str,
        *,
        start: float = 0.0,
        stop: float = 1.0,
    ) -> Generator[Progress, None, BlockResults]:
        """One pass over a slide: *work* gets the number of each block and its pixels in all views.

        Otherwise as `blocks`; what an earlier run has finished is neither read nor decoded again.
        """

        def one(index: int) -> Arrays:
            return work(index, blocks.read(index))

        def begin(todo: Sequence[int]) -> None:
            blocks.expect(indices[place] for place in todo)

        return (yield from self._run(stage, indices, one, text, start, stop, begin))

    def _run(
        self,
        stage: str,
        items: Sequence[T],
        work: Callable[[T], Arrays],
        text: str,
        start: float,
        stop: float,
        begin: Callable[[Sequence[int]], None],
    ) -> Generator[Progress, None, BlockResults]:
        kept = BlockResults(self.scratch / stage, len(items))

        def one(index: int) -> None:
            buffer = io.BytesIO()
            arrays: dict[str, Any] = dict(work(items[index]))
            np.savez(buffer, **arrays)
            write_bytes(kept.path(index), buffer.getvalue(), durable=False)

        todo = [index for index in range(len(items)) if not kept.has(index)]
        begin(todo)
        n_before = len(items) - len(todo)
        yield Progress(start + (stop - start) * n_before / max(1, len(items)), 1.0, text)
        for done in in_parallel(one, todo, self.scheduler):
            share = start + (stop - start) * (n_before + done) / len(items)
            yield Progress(share, 1.0, text)
        return kept

    def write_labels(
        self,
        labels: LabelImage,
        text: str,
        *,
        name: str = "labels",
        start: float = 0.0,
        stop: float = 1.0,
    ) -> Generator[Progress, None, LabelImage]:
        """Write a label image that is made block by block; the store takes over what is written.

        Can be cancelled after every block, unlike the commit at the end of a step.  A step that
        writes several label images gives each a *name*.
        """
        from napari_mosaik.io.ome_labels import LabelWriter

        place = self.scratch / f"{name}.ome.zarr"
        remove_tree(place)
        return (yield from self._write(LabelWriter(place, labels, self._step), text, start, stop))

    def rewrite_labels(
        self,
        before: Artifact[LabelImage],
        labels: LabelImage,
        windows: Sequence[tuple[slice, slice]],
        text: str,
    ) -> Generator[Progress, None, LabelImage]:
        """Write a label image that differs from a stored one in some windows only."""
        from napari_mosaik.io.label_rewriter import LabelRewriter, labels_in

        self._check(before)
        place = self.scratch / "labels.ome.zarr"
        remove_tree(place)
        stored = labels_in(self._case.store.folder(before))
        writer = LabelRewriter(place, labels, self._step, stored, windows)
        return (yield from self._write(writer, text, 0.5, 1.0))

    def _write(
        self, writer: LabelWriter, text: str, start: float, stop: float
    ) -> Generator[Progress, None, LabelImage]:
        parts = [(level, w) for level in range(writer.n_levels) for w in writer.windows(level)]
        done = 0
        for level in range(writer.n_levels):
            todo = writer.windows(level)
            for count in in_parallel(partial(writer.write, level), todo):
                yield Progress(start + (stop - start) * (done + count) / len(parts), 1.0, text)
            done += len(todo)
        return writer.finish()

    def clear(self) -> None:
        """Remove the finished blocks."""
        remove_tree(self.scratch)


class BlockResults(Sequence[dict[str, NDArray[Any]]]):
    """The results of all blocks of a stage, in order; each is read when it is asked for."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count

    def path(self, index: int) -> Path:
        """File of one result."""
        return self._folder / f"{index:06d}.npz"

    def has(self, index: int) -> bool:
        """Whether one result is there and whole (a file may be cut off by a power failure)."""
        return zipfile.is_zipfile(self.path(index))

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

    def load(self, index: int, wanted: Callable[[str], bool]) -> dict[str, NDArray[Any]]:
        """The arrays of one block whose names are wanted; the others are not read."""
        with np.load(self.path(index), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files if wanted(name)}

    def starting(self, index: int, prefix: str) -> dict[str, NDArray[Any]]:
        """The arrays of one block whose names start with *prefix*."""
        return self.load(index, lambda name: name.startswith(prefix))

    def array(self, index: int, name: str) -> NDArray[Any]:
        """One array of one block."""
        return self.load(index, lambda found: found == name)[name]

    def column(self, name: str) -> list[NDArray[Any]]:
        """One array of every block."""
        return [self.array(index, name) for index in range(self._count)]
