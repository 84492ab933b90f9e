"""Run a step on the visible region of a slide, so that its settings can be tuned by eye.

The body that runs on the whole slide runs on a region of it: its thresholds still come from the
whole slide, its pass is limited to the region, and its results stay in memory.  The pass goes a
little beyond the region, on the pixels of the run's own grid, and the objects with their centroid
in the region are kept: they are those of the run.

What does not change while a setting is tuned is kept in a `PreviewMemory` from one preview to the
next: the opened slide, the pixels of the region, values of the whole slide.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Collection, Generator, Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, final

import numpy as np

from napari_mosaik.core.artifact import Artifact, Progress, Source
from napari_mosaik.core.closing import Closing
from napari_mosaik.core.errors import Cancelled, InputError
from napari_mosaik.core.params import Params, digest
from napari_mosaik.core.progress import cancellable, run_to_end
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.core.recent import RecentValues
from napari_mosaik.core.table import Table
from napari_mosaik.io.case import Case
from napari_mosaik.workflow.block_work import MemoryWork
from napari_mosaik.workflow.slide_part import SlidePart
from napari_mosaik.workflow.step import Step
from napari_mosaik.workflow.step_context import (
    BlockArrays,
    BlockResults,
    CaseInputs,
    NothingBefore,
)

if TYPE_CHECKING:
    from napari_mosaik.core.frame import Lattice
    from napari_mosaik.core.raster import Raster
    from napari_mosaik.io.slide import Slide, SlideBlocks
    from napari_mosaik.io.slide.types.tiles import RegionUm, View

__all__ = ["MAX_PREVIEW_PX", "Preview", "PreviewMemory", "RegionUm", "preview"]

T = TypeVar("T")
MAX_PREVIEW_PX = 1536
"""A preview covers at most this many pixels of the step along each axis."""
_GRID_PX = 64
"""Pixels between the places where a region may begin: a multiple of the grid of any network."""
_BLOCK_PX = 512
"""Small blocks, so that all cores have some."""


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """What a step finds in a region.

    Parameters
    ----------
    results
        By artifact, as the step returns them; label images and tables hold the objects with their
        centroid in the region.
    region
        Origin and size (row, column) of the region in µm of the slide.
    whole
        Whether all that was asked for is covered; otherwise its centre is.
    """

    results: Mapping[Artifact[Any], object]
    region: RegionUm
    whole: bool


def preview(
    case: Case,
    step: Step[Any],
    params: Params,
    region: RegionUm,
    stop: Callable[[], bool] = lambda: False,
    memory: PreviewMemory | None = None,
) -> Preview:
    """Run a step on a region of its slide with some settings; nothing is stored.

    Parameters
    ----------
    case, step, params
        What runs; the step's `Step.previews` names the slide.
    region
        Origin and size (row, column) in µm of that slide.
    stop
        Asked after every block; True cancels the preview.
    memory
        What earlier previews have kept; the result is the same without it.

    Raises
    ------
    InputError
        The step has no preview, or an earlier step has to run first.
    Cancelled
        *stop* returned True.
    """
    if not step.previews:
        raise InputError(f"'{step.title}' has no preview; run the step")
    missing = [entry.about for entry in step.reads if not _available(case, entry)]
    if missing:
        raise InputError(f"a preview of '{step.title}' needs: {', '.join(missing)}; run it first")
    unavailable = [entry.name for entry in step.may_read if not _available(case, entry)]
    region, whole = _centre(case, step, params, region)
    with (
        tempfile.TemporaryDirectory(prefix="mosaik-preview-") as folder,
        PreviewMemory() if memory is None else nullcontext(memory) as kept,
    ):
        kept.keep_for(case, step, unavailable)
        slide = kept.slide(step.previews, lambda: case.slide(step.previews))
        around = _around(slide, params, region)
        context = RegionContext(case, step, Path(folder), around, unavailable, kept)
        body = step.body(context, params)

        def check(progress: Progress | None = None) -> None:
            if stop():
                raise Cancelled(f"the preview of '{step.title}' was cancelled")

        check()
        with cancellable(stop):
            results = run_to_end(body, check)
        return Preview(_inside(step, results, region), region, whole)


def _available(case: Case, entry: Artifact[Any] | Source) -> bool:
    if isinstance(entry, Artifact):
        return case.store.origin(entry) is not None
    return not case.missing_reason(entry)


def _centre(case: Case, step: Step[Any], params: Params, region: RegionUm) -> tuple[RegionUm, bool]:
    """The region, or the largest part of its centre that is not too much work."""
    native = max(case.spacing_um(step.previews))
    longest = MAX_PREVIEW_PX * max(native, _read_spacing_um(params, native))
    origin, size = [*region[0]], [*region[1]]
    for axis in (0, 1):
        if size[axis] > longest:
            origin[axis] += (size[axis] - longest) / 2
            size[axis] = longest
    cut = ((origin[0], origin[1]), (size[0], size[1]))
    return cut, cut == region


def _read_spacing_um(params: Params, native_um: float) -> float:
    return float(getattr(params, "read_spacing_um", getattr(params, "spacing_um", native_um)))


def _around(slide: Slide, params: Params, region: RegionUm) -> RegionUm:
    """A region with the margin that its objects need, on the grid that networks have in a run."""
    spacing_um = slide.nearest_spacing_um(_read_spacing_um(params, max(slide.lattice.spacing_um)))
    margin_um = float(getattr(params, "preview_margin_um", 0.0))
    origin, size = [], []
    for axis, pixel_um in enumerate(spacing_um):
        unit, zero = _GRID_PX * pixel_um, slide.lattice.origin_um[axis]
        low = region[0][axis] - margin_um - zero
        high = low + region[1][axis] + 2 * margin_um
        first = max(0, math.floor(low / unit + 1e-6)) * unit
        origin.append(zero + first)
        last = math.ceil(high / unit - 1e-6) * unit
        size.append(min(last, slide.lattice.extent_um[axis]) - first)
    return (origin[0], origin[1]), (size[0], size[1])


def _inside(
    step: Step[Any], results: Mapping[Artifact[Any], Any], region: RegionUm
) -> dict[Artifact[Any], Any]:
    """The objects with their centroid in a region; each table follows the labels of its objects."""
    kept = dict(results)
    low = np.asarray(region[0])
    for image, table in pairwise(step.writes):
        labels, objects = results[image], results[table]
        if isinstance(labels, LabelImage) and isinstance(objects, Table) and len(objects):
            points = objects.points_um()
            rows = np.flatnonzero(((points >= low) & (points < low + region[1])).all(axis=1))
            numbers = np.zeros(len(objects) + 1, labels.values.dtype)
            numbers[rows + 1] = np.arange(1, rows.size + 1)
            kept[image] = LabelImage(numbers[labels.array()], labels.lattice, labels.names)
            kept[table] = objects.rows(rows)
    return kept


@final
class RegionContext(CaseInputs, NothingBefore, MemoryWork):
    """A `StepContext` of a region of a case's slide; what is read once is kept in a memory."""

    def __init__(
        self,
        case: Case,
        step: Step[Any],
        scratch: Path,
        region: RegionUm,
        unavailable: Collection[str],
        memory: PreviewMemory,
    ) -> None:
        super().__init__(case, step.name, (*step.reads, *step.may_read), unavailable)
        self.scratch, self._region, self._memory = scratch, region, memory

    def read(self, artifact: Artifact[T]) -> T:
        """A result of an earlier step."""
        value: T = self._memory.value(("read", artifact.name), lambda: self.stored(artifact))
        return value

    def slide(self, stain: str) -> Slide:
        """One slide, opened; the memory closes it, so that the next preview finds it open."""
        slide = self._memory.slide(stain, lambda: self.opened(stain))
        return _PreviewedSlide(slide, self._region, self._memory)

    def cached(
        self, name: str, depends: Any, work: Callable[[], Generator[Progress, None, T]]
    ) -> Generator[Progress, None, T]:
        """A value that depends on the declared inputs and on *depends* (JSON-able) alone."""
        key = ("cached", name, digest(depends))
        known: list[T] = self._memory.known(key)
        if not known:
            value = yield from work()
            known = [self._memory.value(key, lambda: value)]
        return known[0]

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
        """One pass over the region; blocks that an earlier preview has read are not read again."""
        pixels = self._memory.pixels_of(blocks)
        blocks.expect(index for index in indices if index not in pixels)

        def one(index: int) -> BlockArrays:
            if index not in pixels:
                pixels[index] = blocks.read(index)
            return work(index, pixels[index])

        return (yield from self.blocks(stage, indices, one, text, start=start, stop=stop))


@final
class _PreviewedSlide(SlidePart):
    """A slide that is passed over in a region; its pixels are kept in a memory."""

    def __init__(self, slide: Slide, region: RegionUm, memory: PreviewMemory) -> None:
        super().__init__(slide, region)
        self._memory = memory

    def blocks(
        self, *views: View, block_px: int = 2048, region: RegionUm | None = None
    ) -> SlideBlocks:
        """One pass over the region; the same one as in the last preview of it."""
        size, part = min(block_px, _BLOCK_PX), region or self._region
        return self._memory.blocks(
            (views, size, part), lambda: self._slide.blocks(*views, block_px=size, region=part)
        )

    def read_lattice(self, lattice: Lattice) -> Raster:
        """The exact 8-bit pixels (rows, columns, 3) of a part of a working lattice (µm)."""
        raster: Raster = self._memory.value(
            ("pixels", lattice), lambda: self._slide.read_lattice(lattice)
        )
        return raster

    def close(self) -> None:
        """The memory closes the slide."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """The blocks of a region, and the pixels of those that were read, by index."""

    blocks: SlideBlocks
    pixels: dict[int, tuple[Raster, ...]] = field(default_factory=dict)


class PreviewMemory(Closing):
    """What previews of one step of a case keep from one to the next.

    It is emptied when another step is previewed, or when what the step reads has changed.
    """

    _MAX_VALUES, _MAX_PASSES, _MAX_SLIDES = 600, 2, 8

    def __init__(self) -> None:
        self._values: RecentValues[Any] = RecentValues(self._MAX_VALUES)
        self._passes: RecentValues[_Pass] = RecentValues(self._MAX_PASSES)
        self._slides: RecentValues[Slide] = RecentValues(self._MAX_SLIDES)
        self._stamp: tuple[Any, ...] = ()

    def keep_for(self, case: Case, step: Step[Any], unavailable: Collection[str] = ()) -> None:
        """Forget what was kept for other inputs."""
        entries = [e for e in (*step.reads, *step.may_read) if e.name not in unavailable]
        stamp = (str(case.root), step.name, *((e.name, _content(case, e)) for e in entries))
        if stamp != self._stamp:
            self.close()
            self._stamp = stamp

    def known(self, key: tuple[Hashable, ...]) -> list[Any]:
        """The value under a key, in a list; an empty list where there is none."""
        return self._values.known(key)

    def value(self, key: tuple[Hashable, ...], make: Callable[[], Any]) -> Any:
        """A stored result, some pixels or a computed value."""
        return self._values.get_or_make(key, make)

    def slide(self, stain: str, open_it: Callable[[], Slide]) -> Slide:
        """An opened slide."""
        return self._slides.get_or_make(stain, open_it)

    def blocks(self, key: Hashable, make: Callable[[], SlideBlocks]) -> SlideBlocks:
        """The blocks of a pass over a region."""
        return self._passes.get_or_make(key, lambda: _Pass(make())).blocks

    def pixels_of(self, blocks: SlideBlocks) -> dict[int, tuple[Raster, ...]]:
        """The pixels of the blocks of a pass that were read, by index; to be added to."""
        for kept in self._passes.values():
            if kept.blocks is blocks:
                return kept.pixels
        return {}

    def close(self) -> None:
        """Forget everything and close the slides."""
        self._values.clear()
        self._passes.clear()
        for slide in self._slides.clear():
            slide.close()
        self._stamp = ()


def _content(case: Case, entry: Artifact[Any] | Source) -> str:
    """Digest of a source or stored result."""
    if isinstance(entry, Artifact):
        origin = case.store.origin(entry)
        return "" if origin is None else origin.digest()
    return case.digest(entry)
