"""Previews that share a memory find what previews without one find, setting after setting."""

import numpy as np
import pytest
import tifffile

from napari_mosaik.core.corrections import Correction
from napari_mosaik.io import CaseFile, SlideEntry, create_case
from napari_mosaik.workflow.corrections import CorrectionLog
from napari_mosaik.workflow.preview import PreviewMemory, preview
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run_until
from napari_mosaik.workflow.steps import step_named
from tests.false_positive_scene import brown_scene

REGION = ((40.0, 60.0), (420.0, 500.0))
MOVED = {
    "vessels": (
        {},
        {"min_area_um2": 60.0},
        {"threshold": "fixed", "dab_od": 0.4},
        {"stains": "ruifrok"},
        {"edge_um": 30.0},
        {"spacing_um": 2.0},
        {},
    ),
    "nuclei": (
        {},
        {"min_area_um2": 30.0},
        {"sensitivity": 2.0},
        {"smoothing_um": 1.0},
        {"separation_um": 6.0},
        {},
    ),
}


@pytest.fixture
def case(tmp_path):
    """One picture as CD34 and as H&E slide, with its tissue found."""
    root = tmp_path / "B1"
    root.mkdir()
    scene = brown_scene(3, shape_um=(600.0, 700.0), n_vessels=20, n_each=1)
    slides = {}
    for stain in ("cd34", "he"):
        tifffile.imwrite(root / f"{stain}.tif", scene.image.values, tile=(128, 128),
                         photometric="rgb")  # fmt: skip
        slides[stain] = SlideEntry(
            path=f"{stain}.tif", spacing_um=(1.0, 1.0), spacing_source="user"
        )
    made = create_case(root, CaseFile(name="B1", slides=slides))
    tissue(made)
    return made


def tissue(case):
    for stain in ("cd34", "he"):
        for _ in run_until(case, read_recipe(case.root), f"tissue_{stain}"):
            pass


def found(case, name, params, memory=None):
    result = preview(case, step_named(name), params, REGION, memory=memory)
    labels, table = (result.results[a] for a in step_named(name).writes[:2])
    return labels.array(), table


@pytest.mark.parametrize("name", list(MOVED))
def test_what_is_kept_changes_nothing(case, name, monkeypatch):
    params = read_recipe(case.root)[name]
    opened, open_slide = [], type(case).slide
    monkeypatch.setattr(
        type(case), "slide", lambda self, stain: (opened.append(stain), open_slide(self, stain))[1]
    )
    with PreviewMemory() as memory:
        for change in MOVED[name]:
            moved = params.model_copy(update=change)
            before = len(opened)
            labels, table = found(case, name, moved, memory)
            assert len(opened) - before <= (not before)  # opened by the first preview alone
            alone, alone_table = found(case, name, moved)
            np.testing.assert_array_equal(labels, alone)
            assert labels.max() > 5
            for column in table:
                np.testing.assert_array_equal(table[column], alone_table[column])
                break


def test_what_has_changed_is_not_taken_from_the_memory(case):
    params = read_recipe(case.root)["vessels"]
    with PreviewMemory() as memory:
        before, _ = found(case, "vessels", params, memory)
        with CorrectionLog(case, "tissue_cd34", "anna") as log:
            half = "POLYGON ((0 0, 350 0, 350 600, 0 600, 0 0))"
            log.add(Correction("cut", area_wkt=half))
        tissue(case)
        after, _ = found(case, "vessels", params, memory)
        assert after.max() < before.max()
        np.testing.assert_array_equal(after, found(case, "vessels", params)[0])
        nuclei, _ = found(case, "nuclei", read_recipe(case.root)["nuclei"], memory)
        assert nuclei.max() > 5
