"""The vessel step over a slide in blocks equals the picture at once, with what it leaves out."""

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from napari_mosaik.core import Raster
from napari_mosaik.core.catalogue import (
    ARTEFACT_AREAS,
    ARTEFACT_MASK,
    EXCLUDED,
    EXCLUDED_DAB,
    EXCLUDED_DAB_OBJECTS,
    STAINING,
    TISSUE,
    VESSEL_OBJECTS,
    VESSELS,
)
from napari_mosaik.io import CaseFile, SlideEntry, create_case
from napari_mosaik.io.slide.read.slide import SlideImage
from napari_mosaik.segment.false_positives import REASONS
from napari_mosaik.segment.vessel_params import VesselParams
from napari_mosaik.segment.vessels import find_vessels
from napari_mosaik.workflow.recipe import changed, read_recipe
from napari_mosaik.workflow.run import run_until
from napari_mosaik.workflow.slide_blocks import resample_mask
from tests.false_positive_scene import brown_scene


@pytest.fixture(scope="module")
def scene():
    return brown_scene(3, shape_um=(900.0, 1000.0), n_vessels=35, n_each=2)


def make_case(root, rgb):
    root.mkdir()
    tifffile.imwrite(root / "cd34.tif", rgb, tile=(128, 128), photometric="rgb")
    entry = SlideEntry(path="cd34.tif", spacing_um=(1.0, 1.0), spacing_source="user")
    return create_case(root, CaseFile(name="B1", slides={"cd34": entry}))


def run_vessels(case, **settings):
    """The step over all tissue: the planted fold and edge are not to be left out of it."""
    recipe = changed(read_recipe(case.root), "vessels", **settings)
    recipe = changed(recipe, "tissue_cd34", exclude_folds=False, exclude_blur=False)
    for _ in run_until(case, recipe, "vessels"):
        pass
    return case.store


def partial_with(blocks, block_px):
    return lambda slide, *views, **more: blocks(slide, *views, **{**more, "block_px": block_px})


def test_blocks_of_any_size_give_what_the_whole_picture_gives(scene, tmp_path, monkeypatch):
    settings = {"stains": "ruifrok", "threshold": "fixed", "dab_od": 0.5}
    whole, blocks = None, SlideImage.blocks
    for block_px in (150, 400):
        smaller = partial_with(blocks, block_px)
        monkeypatch.setattr(SlideImage, "blocks", smaller)
        case = make_case(tmp_path / str(block_px), scene.image.values)
        store = run_vessels(case, **settings)
        if whole is None:
            mask = store.read(TISSUE["cd34"])
            inside = np.asarray(mask.values, bool)
            away = ndimage.distance_transform_edt(inside, sampling=mask.lattice.spacing_um)
            near = Raster(inside & (away <= VesselParams().edge_um), mask.lattice)
            edge = resample_mask(scene.image.lattice, near)
            whole = find_vessels(scene.image, VesselParams(**settings), edge)
        np.testing.assert_array_equal(store.read(VESSELS).array(), whole.vessels.array())
        np.testing.assert_array_equal(store.read(EXCLUDED_DAB).array(), whole.excluded.array())
        table = store.read(EXCLUDED_DAB_OBJECTS)
        said = [str(reason) for reason in table["reason"]]
        assert said == [REASONS[int(code)] for code in whole.reasons]
        areas = np.bincount(whole.excluded.array().ravel())[1:]
        np.testing.assert_array_equal(table["area_um2"], areas)
        vessels = store.read(VESSEL_OBJECTS)
        areas = np.bincount(whole.vessels.array().ravel())[1:]
        np.testing.assert_array_equal(vessels["area_um2"], areas)
    assert {"edge", "fold", "black", "yellow", "dye"} <= set(said)
    assert whole.vessels.array().max() > 15


def test_the_record_says_stains_source_and_what_was_left_out(scene, tmp_path):
    case = make_case(tmp_path / "a", scene.image.values)
    record = run_vessels(case).record(VESSELS)
    assert record[STAINING]["stains"]["source"] == "slide"
    assert record[STAINING]["look"]["kind"] == "DAB"
    assert sum(record[EXCLUDED].values()) == len(case.store.read(EXCLUDED_DAB_OBJECTS))
    (told,) = record[STAINING]["warnings"]
    n_out, n_all = sum(record[EXCLUDED].values()), scene.vessels.max() + len(scene.kinds)
    assert told.startswith(f"{n_out} of ")
    assert n_out <= n_all


def test_another_stain_in_the_slot_is_said(scene, tmp_path):
    od = -np.log((scene.image.values + 1.0) / 240)
    mix = np.linalg.pinv(np.stack([scene.haematoxylin, scene.dab]))
    pink = np.maximum(od @ mix, 0) @ np.array([scene.haematoxylin, (0.2, 0.8, 0.55)])
    pink += 0.3 * scene.tissue[..., None] * np.array([0.2, 0.8, 0.55])
    rgb = np.clip(np.rint(240 * np.exp(-pink) - 1), 0, 255).astype(np.uint8)
    case = make_case(tmp_path / "a", rgb)
    record = run_vessels(case).record(VESSELS)
    assert record[STAINING]["look"]["kind"] == "H&E"
    assert "looks like an H&E slide" in record[STAINING]["warnings"][0]


def test_a_blurred_place_is_flagged_and_left_out_of_the_tissue(scene, tmp_path):
    rgb = scene.image.values.copy()
    rows, cols = slice(300, 650), slice(350, 700)
    rgb[rows, cols] = ndimage.gaussian_filter(rgb.astype(float), (4, 4, 0))[rows, cols].round()
    case = make_case(tmp_path / "a", rgb)
    for _ in run_until(case, read_recipe(case.root), "tissue_cd34"):
        pass
    quality, mask = (case.store.read(artifact["cd34"]) for artifact in (ARTEFACT_MASK, TISSUE))
    step = round(mask.lattice.spacing_um[0])
    place = [slice(part.start // step + 9, part.stop // step - 9) for part in (rows, cols)]
    blurred = np.asarray(quality.values) == 3
    assert blurred[place[0], place[1]].mean() > 0.8
    assert not blurred[: rows.start // step - 9].any()
    assert not np.asarray(mask.values)[blurred].any()
    areas = case.store.record(TISSUE["cd34"])[ARTEFACT_AREAS]
    assert areas["blur"] == pytest.approx(blurred.sum() * mask.lattice.sample_area_um2 / 1e6)
    recipe = changed(read_recipe(case.root), "tissue_cd34", exclude_blur=False)
    for _ in run_until(case, recipe, "tissue_cd34"):
        pass
    assert np.asarray(case.store.read(TISSUE["cd34"]).values)[blurred].all()
