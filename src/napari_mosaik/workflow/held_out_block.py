"""One end of a slide trains, the other tests, and nothing of the test end reaches the training."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mosaik.core.catalogue import PARAMETERS, TILES, UPTAKE
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.io.case import Case
from napari_mosaik.workflow.correlations import proxy_groups
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.steps.spatial import NOT_TESTABLE

if TYPE_CHECKING:
    from napari_mosaik.predictor import TileInputs, TileSplit
    from napari_mosaik.spatial import ProxyChoice

__all__ = ["HeldOutBlock", "cut_block"]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutBlock:
    """The tiles of one case that train, and those that test.

    Parameters
    ----------
    case
        The case.
    split
        Which tiles train and test; those in between do neither.
    guard
        Smallest distance of a test tile from a training tile, tiles.
    full_guard
        The distance at which they share neither windows nor the scanner's blur, tiles.
    """

    case: Case
    split: TileSplit
    guard: int
    full_guard: int

    @property
    def record(self) -> dict[str, Any]:
        """What the card keeps, from which the test tiles are found again."""
        from napari_mosaik.predictor import tiles_digest

        train, test = int(self.split.train.sum()), int(self.split.test.sum())
        return {
            "guard": self.guard,
            "tiles": tiles_digest(self.case.store.read(TILES).cells),
            "n_train": train,
            "n_test": test,
            "n_between": len(self.split.test) - train - test,
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence if training and test tiles see the same tissue."""
        if self.guard >= self.full_guard:
            return ()
        return (
            f"with a guard of {self.guard} tiles training and test tiles share tissue or the "
            f"scanner's blur, so the error is optimistic; {self.full_guard} keep them apart",
        )

    def _uptake(self) -> FloatArray:
        """Measured SUV (n,) of the training tiles, NaN elsewhere; its own unit."""
        suv = np.asarray(self.case.store.read(UPTAKE)["suv"], float)
        return np.where(self.split.train, suv, np.nan)

    def choose_proxies(self, without: Collection[str] = ()) -> ProxyChoice:
        """The proxies that correlate best with the uptake of the training tiles.

        None of the groups *without*.
        """
        from napari_mosaik.spatial import associate_table, choose_proxies

        table, grid = self.case.store.read(PARAMETERS), self.case.store.read(TILES)
        rows = self.split.train
        columns = {name: np.asarray(table[name], float)[rows] for name in table}
        params: Any = read_recipe(self.case.root)["association"]
        found = associate_table(columns, self._uptake()[rows], grid.centres_um[rows], params)
        groups = {name: own for name, own in proxy_groups().items() if name not in without}
        return choose_proxies({self.case.name: found}, groups)

    def masked(self, inputs: TileInputs) -> TileInputs:
        """The inputs of the whole slide with the measured uptake of the training tiles alone.

        The clusters of the uptake are found on those tiles: the clusters of the whole slide carry
        values across the guard.
        """
        from napari_mosaik.spatial import TileGraph, local_moran

        suv = self._uptake()
        params: Any = read_recipe(self.case.root)["uptake_clusters"]
        found = local_moran(suv, TileGraph.moore(self.case.store.read(TILES)), params)
        label = np.where(found.label == NOT_TESTABLE, -1, found.label).astype(np.int8)
        return replace(inputs, suv=suv, pet_label=label)


def cut_block(case: Case, guard: int | None, fwhm_um: float) -> HeldOutBlock:
    """Cut the tiles of a case into a training and a test block.

    Parameters
    ----------
    case
        The case; its tiles and its uptake must be up to date.
    guard
        Smallest distance of a test tile from a training tile, tiles; None for the one at which
        they share neither windows nor blur.
    fwhm_um
        Resolution of the scanner, µm of CD34.

    Raises
    ------
    InputError
        A guard of 0 or 1.
    Blocked
        Too few tiles remain on one side.
    """
    from napari_mosaik.predictor import block_guard, block_split

    grid = case.store.read(TILES)
    full = block_guard(fwhm_um, min(grid.lattice.spacing_um))
    chosen = full if guard is None else guard
    return HeldOutBlock(case, block_split(grid.cells, guard=chosen).require(), chosen, full)
