"""Work on the blocks of a slide, and writing labels: on the disk (`DiskWork`) or in memory.

The two classes hold the part of `step_context.StepContext` that does not depend on where the inputs
come from.
"""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.progress import checkpoint, of_this_item
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.io.files import remove_tree, write_bytes
from napari_mosaik.workflow.parallel import give_back_memory, in_parallel
from napari_mosaik.workflow.step_context import BlockArrays, BlockResults

if TYPE_CHECKING:
    from napari_mosaik.core.raster import Raster
    from napari_mosaik.core.window import Slices
    from napari_mosaik.io.ome_labels import LabelWriter
    from napari_mosaik.io.slide import SlideBlocks

__all__ = ["DiskWork", "MemoryWork"]

T = TypeVar("T")


class DiskWork:
    """Work whose finished blocks lie in a folder: a restart with the same folder resumes from them.

    Parameters
    ----------
    scratch
        The folder.
    title
        Title of the label images that are written.
    scheduler
        Address of a dask.distributed scheduler; empty for threads.
    """

    def __init__(self, scratch: Path, title: str, scheduler: str = "") -> None:
        self.scratch, self._title, self._scheduler = scratch, title, scheduler

    def clear(self) -> None:
        """Remove the folder."""
        remove_tree(self.scratch)

    def cached(
        self, name: str, depends: Any, work: Callable[[], Generator[Progress, None, T]]
    ) -> Generator[Progress, None, T]:
        """Compute a value: a run needs it once."""
        return (yield from work())

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
        """Run *work* on every item in parallel; items that are found finished are skipped."""
        run = self._run(stage, items, work, text, start, stop, lambda todo: None)
        return (yield from run)

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
        """One pass over a slide; blocks that are found finished are not read."""

        def one(index: int) -> BlockArrays:
            return work(index, blocks.read(index))

        def begin(todo: Sequence[int]) -> None:
            # Before the first read: tiles wait for the blocks that are expected, so a block that
            # will never be read would keep its tiles in memory.
            blocks.expect(indices[place] for place in todo)

        run = self._run(stage, indices, one, text, start, stop, begin, at_once, weights)
        return (yield from run)

    def _run(
        self,
        stage: str,
        items: Sequence[T],
        work: Callable[[T], BlockArrays],
        text: str,
        start: float,
        stop: float,
        begin: Callable[[Sequence[int]], None],
        at_once: int = 0,
        weights: Sequence[float] = (),
    ) -> Generator[Progress, None, BlockResults]:
        folder = self.scratch / stage
        began, took, parts = dict[int, float](), dict[int, float](), dict[int, float]()

        def file(index: int) -> Path:
            return folder / f"{index:06d}.npz"

        def one(index: int) -> None:
            began[index] = time.monotonic()
            with of_this_item(partial(parts.__setitem__, index)):
                arrays = work(items[index])
            write_bytes(file(index), _packed(arrays), durable=False)
            took[index] = time.monotonic() - began.pop(index)

        def load(index: int, accept: Callable[[str], bool]) -> dict[str, NDArray[Any]]:
            with np.load(file(index), allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files if accept(name)}

        # Files are not flushed one by one, so a power failure may cut one short.  A zip archive
        # ends with its table of contents: a file without it is recomputed.
        todo = [index for index in range(len(items)) if not zipfile.is_zipfile(file(index))]
        give_back_memory()  # what came before the blocks
        begin(todo)
        each = np.array(weights or np.ones(len(items)), float)
        total, left, gone, before = max(each.sum(), 1e-9), each[todo].sum(), 0.0, 0
        found = len(todo) < len(items)
        yield Progress(stop - (stop - start) * left / total, 1.0, text, found=found)
        for done in in_parallel(one, todo, self._scheduler, at_once):
            # Other processes do not tell which items have ended: it is about the first ones.
            ended = list(took)
            now = each[(ended if len(ended) >= done else todo)[:done]].sum()
            in_work, shares = dict(began), dict(parts)
            now += sum(float(each[i]) * shares[i] for i in in_work if i in shares)
            if done == before and ended and not shares:
                now += _in_work(each, in_work, dict(took))
            gone, before = max(gone, now), done
            yield Progress(stop - (stop - start) * (left - gone) / total, 1.0, text)
        return BlockResults(len(items), load)

    def write_labels(
        self,
        labels: LabelImage,
        text: str,
        *,
        name: str = "labels",
        start: float = 0.0,
        stop: float = 1.0,
    ) -> Generator[Progress, None, LabelImage]:
        """Write labels (rows, columns) block by block; the store takes over the written folder.

        Can be cancelled after every block, unlike the commit at the end of a step.
        """
        from napari_mosaik.io.ome_labels import LabelWriter

        folder = self.scratch / f"{name}.ome.zarr"
        remove_tree(folder)
        return (yield from _written(LabelWriter(folder, labels, self._title), text, start, stop))

    def rewritten(
        self,
        stored: Path,
        labels: LabelImage,
        windows: Sequence[Slices],
        text: str,
        earlier: tuple[Path, Sequence[Slices]] | None = None,
    ) -> Generator[Progress, None, LabelImage]:
        """Write labels (rows, columns) that differ from those in a folder within some windows.

        *earlier* is the folder of a result with the same labels but in the windows beside it.
        """
        from napari_mosaik.io.ome_labels import LabelRewriter, labels_in

        folder = self.scratch / "labels.ome.zarr"
        remove_tree(folder)
        known = None if earlier is None else (labels_in(earlier[0]), earlier[1])
        writer = LabelRewriter(folder, labels, self._title, labels_in(stored), windows, known)
        return (yield from _written(writer, text, 0.5, 1.0))


def _in_work(each: NDArray[np.float64], began: dict[int, float], took: dict[int, float]) -> float:
    """What is done of the items in work, in the unit of their weights *each* (n,), at most 90 %.

    *began* and *took* are in s: when those in work began, and how long those that ended have taken.
    """
    pace = max(sum(took.values()) / max(float(each[list(took)].sum()), 1e-9), 1e-9)
    now = time.monotonic()
    return sum(min(0.9 * float(each[i]), float(now - at) / pace) for i, at in began.items())


def _packed(arrays: BlockArrays) -> bytes:
    """Arrays as NumPy's own compressed file, at the level that takes the least time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(values), allow_pickle=False)
    return buffer.getvalue()


_FEW = 4


def _one_by_one(work: Callable[[T], object], items: Iterable[T]) -> Iterator[int]:
    """As `in_parallel`, on this thread."""
    for count, item in enumerate(items, 1):
        checkpoint()
        work(item)
        yield count


def _written(
    writer: LabelWriter, text: str, start: float, stop: float
) -> Generator[Progress, None, LabelImage]:
    """Write all levels of a (rows, columns) label image; progress from *start* to *stop*."""
    total = sum(len(writer.windows(level)) for level in range(writer.n_levels))
    done = 0
    # Level by level: each is made of the one before it.
    for level in range(writer.n_levels):
        windows = writer.windows(level)
        work = partial(writer.write, level)
        few = len(windows) <= _FEW  # threads would take longer to start than the work
        for count in _one_by_one(work, windows) if few else in_parallel(work, windows):
            yield Progress(start + (stop - start) * (done + count) / total, 1.0, text)
        done += len(windows)
    return writer.finish()


class MemoryWork:
    """Work whose results stay in memory."""

    scratch = Path()

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
        """Run *work* on every item in parallel."""
        results: list[BlockArrays] = [{} for _ in items]

        def one(index: int) -> None:
            results[index] = work(items[index])

        def load(index: int, accept: Callable[[str], bool]) -> dict[str, NDArray[Any]]:
            return {name: np.asarray(v) for name, v in results[index].items() if accept(name)}

        for done in in_parallel(one, range(len(items))):
            yield Progress(start + (stop - start) * done / len(items), 1.0, text)
        return BlockResults(len(items), load)

    def write_labels(
        self,
        labels: LabelImage,
        text: str,
        *,
        name: str = "labels",
        start: float = 0.0,
        stop: float = 1.0,
    ) -> Generator[Progress, None, LabelImage]:
        """The labels (rows, columns) with all values in memory."""
        yield Progress(start, 1.0, text)
        return LabelImage(labels.array(), labels.lattice, labels.names)
