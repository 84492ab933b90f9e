"""Stains picked from a slide of known stains fill the settings; the run uses and records them."""

import numpy as np
import pytest
import shapely
import tifffile

from napari_mosaik.core import InputError
from napari_mosaik.core.catalogue import STAINING, VESSELS
from napari_mosaik.core.colour import DAB, HAEMATOXYLIN
from napari_mosaik.io import CaseFile, SlideEntry, create_case
from napari_mosaik.segment import VesselParams
from napari_mosaik.workflow.picking import UNTIL_RUN, pick_vessel_stain, stains_in_use
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run_until

BLUE = np.add(HAEMATOXYLIN, (0.08, -0.05, 0.05))
BROWN = np.add(DAB, (-0.06, 0.04, 0.03))
ROWS, COLS = np.indices((500, 600))


def degrees(one, other):
    one, other = (np.asarray(v, float) / np.linalg.norm(v) for v in (one, other))
    return np.degrees(np.arccos(min(1.0, one @ other)))


@pytest.fixture
def case(tmp_path):
    """A slide at 0.5 µm: pale stroma, a blue round at (110, 90), a brown ring at (160, 200) µm."""
    rng = np.random.default_rng(0)
    pale = 0.5 * (np.hypot(ROWS - 250, COLS - 300) < 240)
    blue = np.hypot(ROWS - 220, COLS - 180) < 30
    away = np.hypot(ROWS - 320, COLS - 400)
    brown = (away < 80) & (away > 20)
    od = np.where(brown, 0, pale + 1.0 * blue)[..., None] * BLUE / np.linalg.norm(BLUE)
    od = od + (1.2 * brown)[..., None] * BROWN / np.linalg.norm(BROWN)
    levels = 240 * np.exp(-od) - 1 + rng.normal(0, 2, od.shape)
    picture = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    root = tmp_path / "B1"
    root.mkdir()
    tifffile.imwrite(root / "cd34.tif", picture, tile=(128, 128), photometric="rgb")
    entry = SlideEntry(path="cd34.tif", spacing_um=(0.5, 0.5), spacing_source="user")
    return create_case(root, CaseFile(name="B1", slides={"cd34": entry}))


def run_vessels(case, params):
    recipe = read_recipe(case.root)
    small = recipe["tissue_cd34"].model_copy(update={"min_object_mm2": 0.01})
    for _ in run_until(case, {**recipe, "tissue_cd34": small, "vessels": params}, "vessels"):
        pass
    return case.store.record(VESSELS)[STAINING]["stains"]


def ring(row_um, column_um, radius_um):
    around = shapely.Point(column_um, row_um).buffer(radius_um)
    return shapely.get_coordinates(around)[:, ::-1]


def test_a_click_and_a_drag_give_the_colours_that_were_painted(case):
    first = pick_vessel_stain(case, "haematoxylin", [(110, 90)], VesselParams())
    assert first.params.stains == "manual"
    assert degrees(first.params.haematoxylin_vector, BLUE) < 0.3
    assert first.other == UNTIL_RUN
    assert degrees(first.params.dab_vector, DAB) < 0.1
    second = pick_vessel_stain(case, "dab", ring(160, 200, 25), first.params)
    assert degrees(second.params.dab_vector, BROWN) < 0.5
    assert second.params.haematoxylin_vector == first.params.haematoxylin_vector
    assert second.other == "set manually"
    assert second.picked.share == pytest.approx(1 - (10 / 25) ** 2, abs=0.03)  # lumen left out
    stains = run_vessels(case, second.params)
    assert stains["source"] == "manual"
    assert degrees(stains["dab"], BROWN) < 0.5
    again = VesselParams.parse(second.params.model_dump(mode="json"))
    assert again == second.params


def test_the_other_stain_is_the_slides_own_where_it_was_so_until_now(case):
    assert stains_in_use(case, VesselParams())[1] == UNTIL_RUN
    assert stains_in_use(case, VesselParams(stains="ruifrok"))[1] == "Ruifrok and Johnston's"
    own = run_vessels(case, VesselParams())
    assert own["source"] == "slide"
    found = pick_vessel_stain(case, "dab", [(160, 215)], VesselParams())
    assert found.other == "estimated from this slide"
    np.testing.assert_allclose(found.params.haematoxylin_vector, own["haematoxylin"], atol=6e-4)


@pytest.mark.parametrize(
    ("stain", "place", "said"),
    [
        ("dab", [(5, 5)], "this area is blank"),
        ("dab", [(-100, -100)], "this area is blank"),
        ("dab", [(110, 90)], "this area is blue, not brown"),
        ("haematoxylin", [(160, 215)], "this area is brown, not blue"),
        ("dab", ring(300, 300, 251), "this area is 502 µm wide; drag around a pure area"),
    ],
)
def test_a_wrong_place_is_refused_and_the_settings_stay(case, stain, place, said):
    with pytest.raises(InputError, match=said):
        pick_vessel_stain(case, stain, place, VesselParams())


def test_two_nearly_equal_stains_are_refused(case):
    near = tuple(0.8 * BLUE + 0.3 * BROWN)
    params = VesselParams(stains="manual", dab_vector=near)
    with pytest.raises(InputError, match="vectors are only 11° apart"):
        pick_vessel_stain(case, "haematoxylin", [(110, 90)], params)


def test_a_click_on_the_class_map_gives_exactly_its_connected_pixels():
    from types import SimpleNamespace

    from scipy.ndimage import label

    from napari_mosaik.core import InputError, LabelImage, Lattice
    from napari_mosaik.core.rasterise import rasterise
    from napari_mosaik.core.shapes import AnnotatedShape
    from napari_mosaik.workflow.picking import predicted_region

    codes = np.random.default_rng(3).integers(0, 4, (40, 30)).astype(np.uint8)
    codes[10:20, 5:25] = 2
    lattice = Lattice("he", codes.shape, (8.0, 8.0), (3.0, 5.0))
    image = LabelImage(codes, lattice, {0: "not classified", 2: "necrosis"})
    store = SimpleNamespace(origin=lambda _: "there", read=lambda _: image)
    case = SimpleNamespace(name="B1", store=store)
    at = (3.0 + 8.0 * 14.2, 5.0 + 8.0 * 11.9)
    name, area = predicted_region(case, at)
    parts, _ = label(codes == 2)
    drawn = rasterise([AnnotatedShape("a", name, area)], lattice, {"necrosis": 1})
    assert (drawn.astype(bool) == (parts == parts[14, 11])).all()
    assert area.area == 64.0 * drawn.sum()

    row, column = np.argwhere(codes == 0)[0]
    for place in (lattice.to_um([(row, column)])[0], (-50.0, 10.0), (5000.0, 5.0)):
        with pytest.raises(InputError, match="no class there"):
            predicted_region(case, tuple(place))
    with pytest.raises(InputError, match="B1 has no map of the tissue classes"):
        predicted_region(
            SimpleNamespace(name="B1", store=SimpleNamespace(origin=lambda _: None)), at
        )
