"""The shift-sensitivity map: what moving the PET changes, by moving it a second way."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_mosaik.core import Transform
from napari_mosaik.core.catalogue import ALIGNMENT, SUV, TILES, UPTAKE_SENSITIVITY
from napari_mosaik.io.case import Case
from napari_mosaik.uptake import tile_uptake
from napari_mosaik.view.maps import sensitivity_layer
from napari_mosaik.workflow import given_alignment as placing
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run_until

TINY = Path(__file__).parents[2] / "sample_data" / "tiny" / "A2"


def test_the_map_holds_the_greatest_change_of_each_tile(tmp_path):
    case = Case(shutil.copytree(TINY, tmp_path / "A2"))
    record = json.loads((TINY / "truth" / "truth.json").read_text())["transforms"]["pet"]
    placing.set_alignment_by_matrix(case, "pet", record["matrix"], "truth")
    for _ in run_until(case, read_recipe(case.root), "sensitivity"):
        pass
    table = case.store.read(UPTAKE_SENSITIVITY)
    suv, grid = case.store.read(SUV), case.store.read(TILES)
    found = Transform("pet", "cd34", np.array(case.store.read(ALIGNMENT["pet"])["matrix_um"]))
    step = suv.lattice.spacing_um[0] * found.scale
    assert case.store.record(UPTAKE_SENSITIVITY)["shift_um"] == pytest.approx(step)
    still = tile_uptake(suv, grid, found)
    moved = []
    for down, right in ((step, 0), (-step, 0), (0, step), (0, -step)):
        matrix = np.array(found.matrix)
        matrix[:2, 2] += (down, right)
        moved.append(np.abs(tile_uptake(suv, grid, Transform("pet", "cd34", matrix)) - still))
    least = np.nanmax(moved, axis=0)
    change = np.asarray(table["change"])
    known = np.isfinite(change)
    assert known.sum() > 10
    assert (change[known] >= least[known] - 1e-9).all()
    assert np.median(change[known] - least[known]) < 0.2 * np.median(change[known])
    assert table.unit("change") == suv.unit
    assert np.asarray(table["share"])[known] == pytest.approx(change[known] / still[known])
    layer = sensitivity_layer(grid.paint(change, suv.unit))
    assert layer.legend.unit == suv.unit
    assert layer.legend.limits[0] == 0.0
