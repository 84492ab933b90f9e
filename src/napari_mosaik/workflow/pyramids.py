"""Build the missing pyramid levels of all slides of a case."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.errors import InputError, MosaikError
from napari_mosaik.io.case import Case
from napari_mosaik.io.slide.pyramid.build import complete_pyramid, has_missing_levels

__all__ = ["build_missing_levels"]


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
    problems: list[str] = []
    for stain in case.file.slides:
        try:
            with case.slide(stain) as slide:
                if not has_missing_levels(slide):
                    continue
                with closing(complete_pyramid(slide, case.pyramids, threads)) as work:
                    for progress in work:
                        yield stain, progress
        except InputError:
            continue
        except MosaikError as error:
            problems.append(str(error))
    return problems
