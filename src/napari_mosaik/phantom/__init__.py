"""A synthetic cohort with known tissue, vessels, uptake, misalignment and hot spots."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from os import PathLike
from pathlib import Path

from napari_mosaik.core.artifact import Progress
from napari_mosaik.phantom.presets import CASES, SIZES, CohortSize

__all__ = ["CASES", "SIZES", "CohortSize", "sample"]


def sample(
    folder: str | PathLike[str],
    size: str = "quick",
    seed: int = 0,
    cases: Sequence[str] | None = None,
) -> Generator[Progress, None, tuple[Path, ...]]:
    """Make the sample cohort; yields progress and returns the folders of the cases.

    A case is complete or absent.  Existing cases of the same size and seed are not made again.

    Parameters
    ----------
    folder
        Folder for the cases; created if it does not exist.
    size
        ``"tiny"``, ``"quick"``, ``"full"`` or ``"rasters"``, see `SIZES`.
    seed
        Random seed; equal seeds give equal cohorts on any number of cores.
    cases
        Names from `CASES`; those of the size by default.

    Raises
    ------
    InputError
        For an unknown size or case, a folder that cannot be written, or an existing folder of that
        name that is not the same case.
    """
    from napari_mosaik.phantom.cohort import build_cohort

    return (yield from build_cohort(Path(folder), size, seed, cases))
