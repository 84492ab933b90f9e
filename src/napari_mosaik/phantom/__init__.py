"""A synthetic cohort whose tissue, vessels, uptake, misalignment and hot spots are known."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from os import PathLike
from pathlib import Path

from napari_mosaik.core.artifact import Progress
from napari_mosaik.phantom.presets import CASES, SIZES, Size

__all__ = ["CASES", "SIZES", "Size", "sample"]


def sample(
    folder: str | PathLike[str],
    size: str = "quick",
    seed: int = 0,
    cases: Sequence[str] | None = None,
) -> Generator[Progress, None, tuple[Path, ...]]:
    """Make the sample cohort; a generator of progress that returns the cases' folders.

    A case is whole or absent.  Cases that are there already with the same size and seed are kept.

    Parameters
    ----------
    folder
        Where the cases' folders go; made if need be.
    size
        ``"tiny"``, ``"quick"``, ``"full"`` or ``"rasters"``, see `SIZES`.
    seed
        Equal seeds give equal cohorts, on any number of cores.
    cases
        Names from `CASES`; the size's own choice if left out.

    Raises
    ------
    InputError
        For an unknown size or case, a folder that cannot be written, or a case of that name that
        is something else.
    """
    from napari_mosaik.phantom.cohort import build_cohort

    return (yield from build_cohort(Path(folder), size, seed, cases))
