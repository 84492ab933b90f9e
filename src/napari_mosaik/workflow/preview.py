"""The body of a step run on what is visible, so that a setting can be tuned by eye.

The very body that runs on the whole slide runs on a region of it: its thresholds still come from
the whole slide, its pass over the slide is limited to the region, and its results stay in memory.
Objects that touch the edge of the region are cut there.

What does not change while a setting is moved is kept in a `PreviewMemory` from one preview to the
next: the opened slide, the pixels of the region, the samples over the whole slide.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Artifact, Progress
from napari_mosaik.core.errors import Cancelled, InputError
from napari_mosaik.core.params import Params, digest
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.io.case import Case
from napari_mosaik.workflow.parallel import in_parallel
from napari_mosaik.workflow.preview_memory import KeptPass, PreviewMemory
from napari_mosaik.workflow.step import Step
from napari_mosaik.workflow.step_context import BlockResults, StepContext

if TYPE_CHECKING:
    from napari_mosaik.core.frame import Lattice
    from napari_mosaik.core.raster import Raster
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.io.slide.read.stream import Region, SlideBlocks, View

__all__ = ["MAX_PREVIEW_PX", "Preview", "PreviewMemory", "preview"]

T = TypeVar("T")
MAX_PREVIEW_PX = 1536
"""A preview covers at most this many pixels of the step along each axis."""


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """What a step would find in a region.

    Parameters
    ----------
    results
        By artifact, as the step returns them; label images and tables cover the region alone.
    region
        Origin and size of the region in µm of the slide.
    whole
        Whether all that was asked for is covered; else its middle is.
    """

    results: Mapping[Artifact[Any], object]
    region: Region
    whole: bool


def preview(
    case: Case,
    step: Step[Any],
    params: Params,
    region: Region,
    stop: Callable[[], bool] = lambda: False,
    memory: PreviewMemory | None = None,
) -> Preview:
    """Run a step on a region of its slide with some settings; nothing is stored.

    Parameters
    ----------
    case, step, params
        What is run; the step's `Step.previews` names the slide.
    region
        Origin and size in µm of that slide.
    stop
        Asked after every block; True ends the work.
    memory
        What earlier previews have kept; the result is the same without it.

    Raises
    ------
    InputError
        The step has no preview, or what it needs is not there yet.
    Cancelled
        *stop* said so.
    """
    if not step.previews:
        raise InputError(f"'{step.title}' has no preview; run the step")
    lacking = [entry.about for entry in step.reads if not _there(case, entry)]
    if lacking:
        raise InputError(f"a preview of '{step.title}' needs: {', '.join(lacking)}; run it first")
    absent = [entry.name for entry in step.may_read if not _there(case, entry)]
    region, whole = _middle(case, step, params, region)
    with (
        tempfile.TemporaryDirectory(prefix="mosaik-preview-") as folder,
        PreviewMemory() if memory is None else nullcontext(memory) as kept,
    ):
        kept.keep_for(case, step, absent)
        inputs = _RegionInputs(case, step, Path(folder), region, absent, kept)
        body = step.body(inputs, params)
        try:
            while True:
                if stop():
                    raise Cancelled(f"the preview of '{step.title}' was stopped")
                try:
                    next(body)
                except StopIteration as end:
                    return Preview(end.value, region, whole)
        finally:
            body.close()


def _there(case: Case, entry: Any) -> bool:
    if isinstance(entry, Artifact):
        return case.store.origin(entry) is not None
    return not case.missing_reason(entry)


def _middle(case: Case, step: Step[Any], params: Params, region: Region) -> tuple[Region, bool]:
    """The region, or the largest part of its middle that is not too much work."""
    native = max(case.spacing_um(step.previews))
    spacing_um = getattr(params, "read_spacing_um", getattr(params, "spacing_um", native))
    longest = MAX_PREVIEW_PX * max(native, float(spacing_um))
    origin, size = [*region[0]], [*region[1]]
    for axis in (0, 1):
        if size[axis] > longest:
            origin[axis] += (size[axis] - longest) / 2
            size[axis] = longest
    cut = ((origin[0], origin[1]), (size[0], size[1]))
    return cut, cut == region


class _RegionInputs(StepContext):
    """Inputs whose slide is passed over in a region only, and whose blocks stay in memory."""

    def __init__(
        self,
        case: Case,
        step: Step[Any],
        scratch: Path,
        region: Region,
        absent: Sequence[str],
        memory: PreviewMemory,
    ) -> None:
        super().__init__(case, step, scratch, absent=absent)
        self._region, self._memory = region, memory

    def read(self, artifact: Artifact[T]) -> T:
        value: T = self._memory.get(
            f"read {artifact.name}", lambda: super(_RegionInputs, self).read(artifact)
        )
        return value

    def slide(self, stain: str) -> Slide:
        opened = self._memory.get(f"slide {stain}", lambda: super(_RegionInputs, self).slide(stain))
        return _RegionSlide(opened, self._region, self._memory)  # type: ignore[return-value]

    def cached(
        self, name: str, depends: Any, work: Callable[[], Generator[Progress, None, T]]
    ) -> Generator[Progress, None, T]:
        key = f"cached {name} {digest(depends)}"
        if not self._memory.has(key):
            value = yield from work()
            self._memory.get(key, lambda: value)
        found: T = self._memory.get(key, lambda: None)
        return found

    def working_array(self, name: str, shape: tuple[int, int], dtype: Any) -> Any:
        return np.zeros(shape, dtype)

    def _run(
        self,
        stage: str,
        items: Sequence[T],
        work: Callable[[T], Mapping[str, NDArray[Any]]],
        text: str,
        start: float,
        stop: float,
        begin: Callable[[Sequence[int]], None],
    ) -> Generator[Progress, None, BlockResults]:
        found: list[dict[str, NDArray[Any]]] = [{} for _ in items]

        def one(index: int) -> None:
            found[index] = dict(work(items[index]))

        begin(range(len(items)))
        for done in in_parallel(one, range(len(items))):
            yield Progress(start + (stop - start) * done / len(items), 1.0, text)
        return _HeldBlocks(found)

    def write_labels(
        self,
        labels: LabelImage,
        text: str,
        *,
        name: str = "",
        start: float = 0.0,
        stop: float = 1.0,
    ) -> Generator[Progress, None, LabelImage]:
        yield Progress(start, 1.0, text)
        return LabelImage(labels.array(), labels.lattice, labels.names)


class _HeldBlocks(BlockResults):
    """Results of blocks in memory."""

    def __init__(self, found: list[dict[str, NDArray[Any]]]) -> None:
        super().__init__(Path(), len(found))
        self._found = found

    def load(self, index: int, wanted: Callable[[str], bool]) -> dict[str, NDArray[Any]]:
        return {name: np.asarray(v) for name, v in self._found[index].items() if wanted(name)}


class _RegionSlide:
    """A slide that is passed over in a region; everything else is the whole slide's.

    The memory closes it, so that the next preview finds it open.
    """

    def __init__(self, slide: Slide, region: Region, memory: PreviewMemory) -> None:
        self._slide, self._region, self._memory = slide, region, memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._slide, name)

    def blocks(self, *views: View, block_px: int = 512) -> SlideBlocks:
        """Small blocks, so that all cores have some; their pixels are kept."""
        size = min(block_px, 512)

        def begin() -> Any:
            return KeptPass(self._slide.blocks(*views, block_px=size, region=self._region))

        key = f"pass {views} {size} {self._region}"
        found: SlideBlocks = self._memory.get(key, begin)
        return found

    def read_lattice(self, lattice: Lattice) -> Raster:
        """Pixels of a part of the slide, kept for the samples of another setting."""
        found: Raster = self._memory.get(
            f"pixels {lattice}", lambda: self._slide.read_lattice(lattice)
        )
        return found

    def __enter__(self) -> _RegionSlide:
        return self

    def __exit__(self, *exception: Any) -> None:
        return None
