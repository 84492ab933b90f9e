"""The live prediction follows the annotations, keeps features, and stores nothing."""

import shutil

import numpy as np
import pytest
import shapely

from napari_mosaik.core import Cancelled, InputError
from napari_mosaik.core.catalogue import SLIDES
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.io import Case
from napari_mosaik.workflow import live_classes
from napari_mosaik.workflow.live_classes import LiveClasses
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run_until


@pytest.fixture(scope="module")
def case(tiny_cohort, tmp_path_factory):
    made = Case(shutil.copytree(tiny_cohort / "B8", tmp_path_factory.mktemp("live") / "B8"))
    with pytest.raises(InputError, match="run the first steps"):
        LiveClasses(made).predict(made.annotations("he"), ((0, 0), (500, 500)))
    run_to_end(run_until(made, read_recipe(made.root), "stain"))
    return made


@pytest.fixture
def live(case):
    made = LiveClasses(case)
    yield made
    made.close()


def everything(case):
    with case.slide("he") as slide:
        return (0.0, 0.0), slide.lattice.extent_um


def test_it_follows_the_strokes_and_reads_the_slide_once(case, live, monkeypatch):
    shapes, region = case.annotations("he"), everything(case)
    before = sorted(path.name for path in case.root.rglob("*"))
    first = live.predict(shapes, region)
    assert first.whole
    assert set(np.unique(first.classes.array())) == {0, 1, 2, 3}
    area = shapely.box(*[800, 800, 1100, 1100])
    stroke = AnnotatedShape("stroke", "necrosis", area)

    def read_again(*_):
        raise AssertionError("the features of a block were computed twice")

    monkeypatch.setattr("napari_mosaik.segment.tissue_classifier.block_features", read_again)
    second = live.predict((*shapes, stroke), region)
    code = {name: code for code, name in second.classes.names.items()}["necrosis"]
    lattice = second.classes.lattice
    row, col = np.mgrid[: lattice.shape[0], : lattice.shape[1]]
    y, x = lattice.to_um(np.stack([row.ravel(), col.ravel()], 1)).T
    inside = shapely.contains_xy(area, x, y).reshape(lattice.shape)
    found = second.classes.array()
    assert (found[inside & (found > 0)] == code).mean() > 0.8
    again = live.predict(shapes, region)
    np.testing.assert_array_equal(again.classes.array(), first.classes.array())
    assert sorted(path.name for path in case.root.rglob("*")) == before


def test_one_class_is_not_enough_and_a_newer_request_stops_it(case, live):
    shapes = [shape for shape in case.annotations("he") if shape.label == "neoplastic"]
    with pytest.raises(InputError, match="draw two classes"):
        live.predict(shapes, everything(case))
    with pytest.raises(InputError, match="draw two classes"):
        live.predict((), everything(case))
    with pytest.raises(Cancelled):
        live.predict(case.annotations("he"), everything(case), stop=lambda: True)


def test_a_large_view_is_classified_in_its_middle_with_wider_pixels(case, live, monkeypatch):
    fine = live.predict(case.annotations("he"), everything(case)).classes
    monkeypatch.setattr(live_classes, "MAX_PIXELS", 5_000)
    coarse = live.predict(case.annotations("he"), everything(case)).classes
    step = round(coarse.lattice.spacing_um[0] / 8)
    assert coarse.array().size <= 5_000 < fine.array().size
    both = fine.array()[::step, ::step]
    known = (both > 0) & (coarse.array() > 0)
    np.testing.assert_array_equal(coarse.array()[known], both[known])
    monkeypatch.setattr(live_classes, "MAX_SIDE", 1)
    part = live.predict(case.annotations("he"), everything(case))
    assert not part.whole
    assert part.classes.lattice.extent_um[0] <= 128 * 8
    assert SLIDES["he"].key == part.classes.lattice.frame


def test_the_same_slide_in_another_case_does_not_train(case, tiny_cohort, tmp_path):
    """A reader does not profit from what another one has drawn there."""
    copy = Case(shutil.copytree(case.root, tmp_path / "B9"))
    copy.update(name="B9")
    live = LiveClasses(case, [case.root, copy.root])
    live.read_others()
    assert live._foreign == []
    live.close()
