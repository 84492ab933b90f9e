"""Compute the missing levels of a slide once and store them in the case folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from napari_mosaik.core import InputError
from napari_mosaik.core.artifact import Progress
from napari_mosaik.io.files import remove_tree, saving
from napari_mosaik.io.slide.pyramid.store import PyramidStore
from napari_mosaik.io.slide.pyramid.virtual import VirtualPyramidSource
from napari_mosaik.io.slide.read.slide import SlideImage
from napari_mosaik.io.slide.types.slide import Slide
from napari_mosaik.io.slide.types.tiles import Pixels

__all__ = ["complete_pyramid", "has_missing_levels"]

_DRAFT_AGE_S = 24 * 3600
_Key = tuple[int, int, int]


def has_missing_levels(slide: Slide) -> bool:
    """Whether levels of the slide are computed on the fly that `complete_pyramid` would store."""
    source = slide.source if isinstance(slide, SlideImage) else None
    return isinstance(source, VirtualPyramidSource) and not source.find_store()


def complete_pyramid(
    slide: Slide, folder: Path, threads: int | None = None
) -> Generator[Progress, None, Path | None]:
    """Compute the virtual levels of a slide and store them, all or none.

    Pixels stay the same; coarse views become fast.  The open slide uses the stored levels at once,
    and every later `Case.slide` finds them.

    Parameters
    ----------
    slide
        An open slide.
    folder
        Where pyramids are kept (``Case.pyramids``).
    threads
        Number of threads; None for the number of cores, at most 4.

    Returns
    -------
    Path or None
        The stored pyramid; None if no level is missing, or if damaged tiles were excluded (such a
        pyramid must not represent the whole slide).

    Raises
    ------
    InputError
        If there is not enough disk space, or a tile cannot be decoded.
    """
    source = slide.source if isinstance(slide, SlideImage) else None
    if not isinstance(source, VirtualPyramidSource):
        return None
    place = source.place(folder)
    levels = {n: source.levels[n] for n in source.virtual}
    if PyramidStore.open(place, levels) is None:
        _check_room(slide, folder, sum(a.shape[0] * a.shape[1] * 3 for a in levels.values()))
        with saving("the pyramid", folder):
            _remove_old(folder, place)
            draft = PyramidStore.draft(place, levels)
        try:
            yield from _fill(source, draft, threads or min(4, os.cpu_count() or 1))
            if slide.damaged:
                return None
            with saving("the pyramid", folder):
                draft.finish(place)
        finally:
            if draft.folder.is_dir():
                remove_tree(draft.folder)
    source.expect(folder)
    slide.properties.update(source.properties)
    return place


def _remove_old(folder: Path, place: Path) -> None:
    """Remove a damaged pyramid, and drafts that a process left behind when it was killed."""
    if place.is_dir():
        remove_tree(place)
    for draft in folder.glob(".*.part"):
        if time.time() - draft.stat().st_mtime > _DRAFT_AGE_S:
            remove_tree(draft)


def _check_room(slide: Slide, folder: Path, size: int) -> None:
    with saving("the pyramid", folder):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    if size > free:
        raise InputError(
            f"the missing levels of {slide.path.name} need up to {size / 2**30:.1f} GiB, but "
            f"{folder} has {free / 2**30:.1f} GiB left; free some space"
        )


def _fill(
    source: VirtualPyramidSource, draft: PyramidStore, threads: int
) -> Generator[Progress, None, None]:
    """Make all tiles, finest level first, each from the stored tiles of the level before it."""

    def below(level: int, row: int, column: int) -> Pixels | None:
        if source.levels[level].virtual:
            return draft.tile(level, row, column)
        return source.read_below(level, row, column)

    def make(key: _Key) -> None:
        draft.put(*key, source.made(*key, below))

    keys = {n: list(_tiles(source, n)) for n in source.virtual}
    total, done = sum(map(len, keys.values())), 0
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(threads, "pyramid"))
        for level in source.virtual:
            for first in range(0, len(keys[level]), 2 * threads):
                yield Progress(done, total, "tiles of coarse levels")
                for _ in pool.map(make, keys[level][first : first + 2 * threads]):
                    done += 1
    yield Progress(total, total, "tiles of coarse levels")


def _tiles(source: VirtualPyramidSource, level: int) -> Iterator[_Key]:
    shape, tile = source.levels[level].shape, source.levels[level].tile
    for row in range(-(-shape[0] // tile[0])):
        for column in range(-(-shape[1] // tile[1])):
            yield level, row, column
