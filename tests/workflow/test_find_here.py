"""Missed vessels and nuclei are looked for again in a small area, and offered as corrections."""

import shutil

import numpy as np
import pytest
import shapely

from napari_mosaik.core import InputError
from napari_mosaik.core.catalogue import (
    CORRECTED_NUCLEUS_OBJECTS,
    CORRECTED_VESSEL_OBJECTS,
    NUCLEUS_OBJECTS,
    OBJECTS,
    VESSEL_OBJECTS,
)
from napari_mosaik.io import Case
from napari_mosaik.workflow.corrections import CorrectionSession
from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe
from napari_mosaik.workflow.run import run_until

CASES = {
    "vessels": (VESSEL_OBJECTS, CORRECTED_VESSEL_OBJECTS, {"threshold": "fixed", "dab_od": 1.5}),
    "nuclei": (NUCLEUS_OBJECTS, CORRECTED_NUCLEUS_OBJECTS, {"sensitivity": 0.75}),
}


def run(case, until, **settings):
    if settings:
        recipe = changed(read_recipe(case.root), until, **settings)
        write_recipe(case.root, recipe)
    for _ in run_until(case, read_recipe(case.root), until):
        pass


@pytest.fixture(scope="module")
def segmented(tiny_cohort, tmp_path_factory):
    """A case with its vessels and nuclei."""
    root = shutil.copytree(tiny_cohort / "B8", tmp_path_factory.mktemp("find") / "B8")
    case = Case(root)
    for what in CASES:
        run(case, what)
    return root


def far_from(points, others):
    """The index of the point that is farthest from the nearest of the others."""
    gaps = np.linalg.norm(points[:, None] - others[None], axis=2).min(axis=1)
    return int(gaps.argmax())


@pytest.mark.parametrize("what", CASES)
def test_a_missed_object_is_found_offered_added_and_measured(segmented, tmp_path, what):
    found, corrected, strict = CASES[what]
    case = Case(shutil.copytree(segmented, tmp_path / "B8"))
    before = case.store.read(found)
    run(case, what, **strict)
    now = case.store.read(found)
    assert 0 < len(now) < len(before)
    missed = far_from(before.points_um(), now.points_um())
    row, column = before.points_um()[missed]
    size = float(np.sqrt(before["area_um2"][missed]))
    place = shapely.box(column - size, row - size, column + size, row + size)
    with CorrectionSession(case, what, "reader") as session:
        session.find(place)
        assert session.log.corrections == ()  # offered, not recorded
        assert session.select((row, column)) is None
        offered = [shapely.from_wkt(one.area_wkt) for one in session.found]
        assert min(one.distance(shapely.Point(column, row)) for one in offered) < size / 2
        session.take_found()
        n = len(session.log.corrections)
        assert n == len(offered)
        inside = offered[0].representative_point()
        assert session.select((inside.y, inside.x)).edit == "added"
        with pytest.raises(InputError, match="nothing more is found here"):
            session.find(place)
        assert session.found == []
    run(case, f"correct_{what}")
    table = case.store.read(corrected)
    assert len(table) == len(now) + n
    distance = np.linalg.norm(table.points_um() - (row, column), axis=1)
    nearest = int(distance.argmin())
    assert distance[nearest] < size
    assert table["manual_edit"][nearest] == "added"


def test_what_was_found_can_be_discarded(segmented, tmp_path):
    case = Case(shutil.copytree(segmented, tmp_path / "B8"))
    run(case, "vessels", threshold="fixed", dab_od=1.5)
    labels, _ = OBJECTS["vessels"][0]
    height, width = case.store.read(labels).lattice.extent_um
    middle = shapely.box(width / 2 - 400, height / 2 - 400, width / 2 + 400, height / 2 + 400)
    with CorrectionSession(case, "vessels", "reader") as session:
        with pytest.raises(InputError, match="too large to search"):
            session.find(shapely.box(0, 0, width, height))
        session.find(middle)
        assert len(session.found) > 1
        session.take_found(False)
        assert (session.found, session.log.corrections) == ([], ())
    run(case, "vessels", method="hsv")
    with (
        CorrectionSession(case, "vessels", "reader") as session,
        pytest.raises(InputError, match="this method has no threshold"),
    ):
        session.find(shapely.box(0, 0, 100, 100))
