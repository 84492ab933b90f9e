"""Glass, dust, dark spots, wrong pixel sizes: what is not tissue has no nuclei and no vessels."""

import json

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from napari_mosaik.cli.app import run_command
from napari_mosaik.core.catalogue import NUCLEUS_OBJECTS
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.raster import Raster
from napari_mosaik.core.table import Table
from napari_mosaik.io import Case, open_slide
from napari_mosaik.segment import NucleiParams, VesselParams
from napari_mosaik.segment.plausible import (
    cell_doubts,
    class_doubts,
    column_doubts,
    vessel_doubts,
)
from napari_mosaik.tissue import tissue_mask
from napari_mosaik.tissue.mask import empty_reason
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.preview import preview
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run, run_until
from napari_mosaik.workflow.steps import step_named

PALE, HE, PINK = (220, 218, 229), (180, 120, 170), (214, 170, 200)
DARK = {"brown": (100, 60, 30), "purple": (70, 30, 110), "blood": (170, 40, 50)}


def glass(shape=(300, 400), level=242, noise=1.0, seed=0):
    values = np.random.default_rng(seed).normal(level, noise, shape)
    return np.repeat(values[..., None], 3, axis=2)


def ellipse(shape, centre, radii):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1


def paint(picture, where, colour, texture=4.0, seed=1):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=where.shape), 2)
    picture[where] = np.array(colour, float) + (noise / noise.std() * texture)[where][:, None]
    return picture


def eight_bit(picture):
    return np.clip(picture, 0, 255).astype(np.uint8)


def found(picture, spacing_um=8.0):
    rgb = eight_bit(picture)
    mask = tissue_mask(Raster(rgb, Lattice("he", rgb.shape[:2], (spacing_um, spacing_um))))
    return np.asarray(mask.values, bool)


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


SECTION = ellipse((300, 400), (150, 200), (110, 150))


# --- the mask ---------------------------------------------------------------------------------
@pytest.mark.parametrize("colour", DARK)
@pytest.mark.parametrize("radius", [11, 25, 50, 70])
def test_a_pale_section_is_found_beside_a_dark_spot(colour, radius):
    picture = paint(glass(), SECTION, PALE)
    spot = ellipse(SECTION.shape, (150, 165), (radius, radius * 1.3))
    assert dice(found(paint(picture, spot, DARK[colour])), SECTION) > 0.97


def test_a_pale_section_is_found_beside_a_dark_control_tissue():
    control, section = (ellipse((300, 400), (150, c), (90, 60)) for c in (90, 300))
    picture = paint(paint(glass(), control, DARK["brown"]), section, PALE)
    assert dice(found(picture), control | section) > 0.94


def test_pale_medium_and_dark_parts_of_a_section_are_found():
    picture = paint(glass(), SECTION, PALE)
    picture = paint(picture, ellipse(SECTION.shape, (150, 200), (60, 90)), PINK)
    picture = paint(picture, ellipse(SECTION.shape, (150, 165), (20, 25)), DARK["brown"])
    assert dice(found(picture), SECTION) > 0.97


@pytest.mark.parametrize("level", [242, 200, 140])
def test_the_brightness_of_the_glass_does_not_matter(level):
    darker = np.array(HE) * level / 242
    assert dice(found(paint(glass(level=level), SECTION, darker)), SECTION) > 0.97


@pytest.mark.parametrize("fall", [20, 40, 60])
def test_a_section_is_found_under_uneven_illumination(fall):
    y, x = np.mgrid[-1:1:300j, -1:1:400j]
    picture = paint(glass(), SECTION, HE) - (fall * (x * x + y * y) / 2)[..., None]
    assert dice(found(picture), SECTION) > 0.97


def vignette():
    y, x = np.mgrid[-1:1:300j, -1:1:400j]
    return glass() - (60 * (x * x + y * y) / 2)[..., None]


def ramp():
    return glass() - np.linspace(0, 60, 400)[None, :, None]


def dust(count=200):
    rng, picture = np.random.default_rng(3), glass()
    for _ in range(count):
        spot = ellipse(SECTION.shape, rng.uniform((0, 0), (300, 400)), [rng.uniform(1, 3.5)] * 2)
        picture[spot] = rng.uniform(60, 160)
    return picture


def coverslip():
    picture = glass()
    picture[:, 50:54] = 150
    picture[240:244] = 160
    return picture


def beside_the_coverslip():
    picture = glass()
    picture[:, :60] -= 20
    return picture


def pen(colour):
    picture, (y, x) = glass(), np.mgrid[:300, :400]
    picture[np.abs(x - y - 30) < 40] = colour
    return picture


def padding():
    picture = glass()
    picture[:, :40] = 0
    picture[260:] = 0
    return picture


EMPTY = {
    "even": glass(),
    "noise": glass(noise=10, level=225),
    "strong noise": glass(noise=25, level=200),
    "grey": glass(level=150),
    "vignette": vignette(),
    "ramp": ramp(),
    "dust": dust(),
    "coverslip": coverslip(),
    "colour noise": glass() + np.random.default_rng(5).normal(0, 15, (300, 400, 3)),
    "beside the coverslip": beside_the_coverslip(),
    "green pen": pen((20, 90, 40)),
    "black pen": pen((20, 20, 25)),
    "blue pen": pen((30, 40, 190)),
    "red pen": pen((200, 30, 45)),
    "padding": padding(),
}


@pytest.mark.parametrize("kind", EMPTY)
def test_the_mask_of_a_slide_without_tissue_is_refused(kind):
    with pytest.raises(Exception, match="no tissue found"):
        found(EMPTY[kind])


@pytest.mark.realdata
def test_field_report_n2_the_pale_section_is_found(field_inputs):
    with open_slide(field_inputs / "H50_pale_section_brown_spot.jpg", 8.0, frame="he") as slide:
        mask = tissue_mask(slide.thumbnail(8.0))
    section = ellipse((750, 750), (375, 375), (280, 310))
    assert dice(np.asarray(mask.values, bool), section) > 0.97


# --- pictures without a case ------------------------------------------------------------------
def segmented(kind, path, tmp_path, capsys, *options):
    code = run_command(
        ["segment", kind, str(path), "--out", str(tmp_path / "labels.tif"), *options, "--json"]
    )
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if code == 0 else {}, captured.err


def saved(picture, path):
    tifffile.imwrite(path, eight_bit(picture))
    return path


@pytest.mark.parametrize("method", ["stardist", "classical"])
@pytest.mark.parametrize("kind", EMPTY)
def test_a_picture_without_tissue_has_no_nuclei(kind, method, tmp_path, capsys):
    path = saved(EMPTY[kind], tmp_path / "glass.tif")
    options = ("--spacing", "0.5", "--method", method)
    code, record, error = segmented("nuclei", path, tmp_path, capsys, *options)
    assert code == 0
    assert record["count"] == 0
    assert any("no tissue was found" in text for text in record["warnings"])
    assert "warning: no tissue was found" in error
    assert not tifffile.imread(tmp_path / "labels.tif").any()


def test_a_picture_without_tissue_has_no_vessels(tmp_path, capsys):
    path = saved(EMPTY["dust"], tmp_path / "glass.tif")
    _, record, _ = segmented("vessels", path, tmp_path, capsys, "--spacing", "0.5")
    assert record["count"] == 0
    assert any("no tissue was found" in text for text in record["warnings"])


@pytest.mark.realdata
@pytest.mark.parametrize("repeat", [1, 2])
def test_field_report_n1_empty_glass_has_no_nuclei(field_inputs, tmp_path, capsys, repeat):
    from PIL import Image

    with Image.open(field_inputs / "H51_empty_glass.jpg") as picture:
        tiled = np.tile(np.asarray(picture.convert("RGB")), (repeat, repeat, 1))
    path = saved(tiled, tmp_path / "glass.tif")
    _, record, _ = segmented("nuclei", path, tmp_path, capsys, "--spacing", "0.5")
    assert record["count"] == 0
    assert any("no tissue was found" in text for text in record["warnings"])


def tissue_picture(seed=0, nuclei=260, colour=HE):
    """A picture that is full of tissue: pink with dark nuclei of 7 µm at 0.5 µm per pixel."""
    rng = np.random.default_rng(seed)
    picture = paint(glass(), np.ones((300, 400), bool), PINK if colour is HE else colour, 8)
    for _ in range(nuclei):
        picture[ellipse((300, 400), rng.uniform((0, 0), (300, 400)), (7, 6))] = (90, 60, 140)
    return ndimage.gaussian_filter(picture, (1, 1, 0))


@pytest.mark.parametrize("blur", [0, 3])
def test_a_picture_full_of_tissue_is_no_glass(blur):
    rgb = eight_bit(ndimage.gaussian_filter(tissue_picture(), (blur, blur, 0)))
    small = ndimage.uniform_filter(rgb, (8, 8, 0))[4::8, 4::8]
    assert empty_reason(Raster(small, Lattice("he", small.shape[:2], (4.0, 4.0)))) == ""


def test_pale_tissue_and_small_pieces_are_no_glass():
    for where in (SECTION, ellipse((300, 400), (150, 200), (10, 20))):
        rgb = eight_bit(paint(glass(noise=0.3), where, PALE))
        assert empty_reason(Raster(rgb, Lattice("he", rgb.shape[:2], (4.0, 4.0)))) == ""


@pytest.mark.parametrize(("kind", "spacing"), [("nuclei", "5"), ("nuclei", "0.05")])
def test_a_tenfold_wrong_pixel_size_is_refused(kind, spacing, tmp_path, capsys):
    path = saved(tissue_picture(), tmp_path / "he.tif")
    code, _, error = segmented(kind, path, tmp_path, capsys, "--spacing", spacing)
    assert code == 2
    assert f"pixel size of {spacing} µm" in error
    assert not (tmp_path / "labels.tif").exists()


def test_vessels_at_a_tenfold_wrong_pixel_size_are_refused(tmp_path, capsys):
    path = saved(tissue_picture(), tmp_path / "cd34.tif")
    for spacing in ("5", "0.05"):
        assert segmented("vessels", path, tmp_path, capsys, "--spacing", spacing)[0] == 2


# --- implausible results ----------------------------------------------------------------------
def objects(count, area_um2, od=0.6):
    return Table(
        {"area_um2": np.full(count, float(area_um2)), "haematoxylin_od": np.full(count, od)},
        {"area_um2": "µm²", "haematoxylin_od": "OD"},
    )


def test_usual_nuclei_and_vessels_raise_no_doubt():
    assert cell_doubts(objects(2000, 50), 1.0) == []
    assert vessel_doubts(objects(60, 500), 1.0) == []


@pytest.mark.parametrize(
    ("table", "mm2", "words"),
    [
        (objects(0, 50), 1.0, "no nucleus was found"),
        (objects(30, 50), 2.0, "per mm² of tissue"),
        (objects(90_000, 50), 1.0, "per mm² of tissue"),
        (objects(2000, 5), 1.0, "median area"),
        (objects(2000, 5000), 10.0, "median area"),
        (objects(2000, 50, 0.03), 1.0, "hardly stained"),
    ],
)
def test_implausible_nuclei_raise_a_doubt(table, mm2, words):
    (doubt,) = cell_doubts(table, mm2)
    assert words in doubt


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (objects(60, 5), "median area"),
        (objects(5000, 20), "per mm² of tissue"),
        (objects(100, 8000), "cover"),
    ],
)
def test_implausible_vessels_raise_a_doubt(table, words):
    (doubt,) = vessel_doubts(table, 1.0)
    assert words in doubt


def test_a_class_without_area_and_an_empty_parameter_raise_a_doubt():
    assert class_doubts({"neoplastic": 0.0, "background": 1.0})[0].startswith(
        "no tissue was classified as neoplastic"
    )
    table = Table(
        {"full": np.ones(3), "empty": np.full(3, np.nan), "some": np.array([1, np.nan, 2])}
    )
    assert column_doubts(table) == ["no tile has a value of empty"]


# --- a case -----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def he_only(tmp_path_factory):
    """A case of a single H&E slide (1,400 x 1,200 pixels of 0.5 µm) with glass around it."""
    root = tmp_path_factory.mktemp("case") / "H1"
    slide = root.parent / "he.tif"
    rng, shape = np.random.default_rng(2), (1400, 1200)
    section = ellipse(shape, (700, 600), (640, 540))
    picture = paint(glass(shape), section, PINK, 8)
    y, x = np.mgrid[-9:10, -9:10]
    for row, column in rng.uniform((100, 100), (1300, 1100), (3500, 2)).astype(int):
        if section[row, column]:
            a, b = rng.uniform(4, 8, 2)
            spot = (y / a) ** 2 + (x / b) ** 2 < 1
            picture[row - 9 : row + 10, column - 9 : column + 10][spot] = (90, 60, 140)
    picture = ndimage.gaussian_filter(picture, (1, 1, 0))
    tifffile.imwrite(slide, eight_bit(picture), tile=(256, 256), photometric="rgb")
    assert run_command(["new", str(root), "--he", str(slide), "--spacing-he", "0.5"]) == 0
    return root


def test_a_single_he_slide_goes_as_far_as_it_can(he_only, capsys):
    assert run_command(["run", str(he_only), "--json"]) == 0
    capsys.readouterr()
    assert run_command(["status", str(he_only), "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)["H1"]["steps"]
    done = {name for name, one in steps.items() if one["state"] == "done"}
    assert done >= {"tissue_he", "stain", "nuclei", "correct_nuclei"}
    blocked = {name: one["reason"] for name, one in steps.items() if one["state"] == "blocked"}
    assert blocked["vessels"] == "no CD34 slide given"
    assert blocked["suv"] == "no PET given"
    assert "train one" in blocked["classes"]
    assert done | set(blocked) == set(steps)
    assert run_command(["report", str(he_only)]) == 0


def test_a_retrained_class_without_area_says_so(he_only, tmp_path, capsys):
    """A class that was drawn on glass is trained and gets no area: its step is not a plain ✓."""
    picture = tifffile.imread(he_only.parent / "he.tif")
    picture[1250:1350, 20:120] = (60, 160, 170)  # a turquoise drop on the glass
    slide, root = tmp_path / "he.tif", tmp_path / "H1"
    tifffile.imwrite(slide, picture, tile=(256, 256), photometric="rgb")
    assert run_command(["new", str(root), "--he", str(slide), "--spacing-he", "0.5"]) == 0

    def box(key, label, left, top, size):
        right, bottom = left + size, top + size
        ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        properties = {"objectType": "annotation", "classification": {"name": label}}
        return {"type": "Feature", "id": key, "geometry": geometry, "properties": properties}

    shapes = [
        box("a", "neoplastic", 300, 500, 250),
        box("b", "non-neoplastic", 650, 700, 250),
        box("c", "background", 5, 5, 90),
        box("d", "mucus", 25, 1255, 90),
    ]
    path = tmp_path / "drawn.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": shapes}))
    command = ["annotate", "import", str(root), str(path), "--reader", "anna"]
    assert run_command([*command, "--map", "mucus=mucus", "--own-class", "mucus"]) == 0
    tight = ["--set", "tissue_he.closing_um=0", "--set", "tissue_he.dilation_um=0"]
    assert run_command(["run", str(root), "--until", "stain", *tight]) == 0
    assert run_command(["retrain", str(root)]) == 0
    capsys.readouterr()
    assert run_command(["run", str(root), "--until", "classes", "--json"]) == 0
    out, error = capsys.readouterr()
    state = json.loads(out)["H1"]["steps"]["classes"]
    assert state["state"] == "done"
    assert any("no tissue was classified as background" in text for text in state["warnings"])
    assert "warning: H1, Tissue classes: no tissue was classified as background" in error
    assert case_status(Case(root)).states["classes"].mark == "doubtful"


@pytest.mark.parametrize("method", ["stardist", "classical"])
@pytest.mark.parametrize("corner", [(203.0, 171.0), (310.0, 240.0)])
def test_a_preview_of_nuclei_is_the_run(he_only, method, corner):
    step = step_named("nuclei")
    case = Case(he_only)
    recipe = read_recipe(case.root)
    params = recipe["nuclei"].model_copy(update={"method": method})
    for _ in run_until(case, recipe, "stain"):
        pass
    run_to_end(run(case, step, params, force=True))
    shown = preview(case, step, params, (corner, (150.0, 190.0))).results[NUCLEUS_OBJECTS]
    whole = case.store.read(NUCLEUS_OBJECTS)
    points, low, size = whole.points_um(), np.array(corner), np.array([150.0, 190.0])
    inside = ((points >= low) & (points < low + size)).all(axis=1)
    assert np.count_nonzero(inside) > 40
    key = np.lexsort(points[inside].T), np.lexsort(shown.points_um().T)
    np.testing.assert_allclose(points[inside][key[0]], shown.points_um()[key[1]], atol=0.5)
    areas = whole["area_um2"][inside][key[0]], shown["area_um2"][key[1]]
    assert np.mean(areas[0] == areas[1]) > 0.98  # where blocks meet, overlaps are drawn once


# --- settings ---------------------------------------------------------------------------------
def test_settings_without_effect_are_known_and_zero_is_the_networks_own():
    from napari_mosaik.segment.stardist import embedded_weights

    network = NucleiParams()
    assert {"spacing_um", "sensitivity", "min_area_um2"} <= network.without_effect()
    assert not {"method", "weights", "probability"} & network.without_effect()
    classical = NucleiParams(method="classical")
    assert classical.without_effect() == {"weights", "probability"}
    own = embedded_weights().prob_threshold
    assert network.lowest_in_words() == {"probability": f"the network's own ({own:g})"}
    assert NucleiParams(weights="ab12").lowest_in_words() == {"probability": "the network's own"}
    assert {"dab_od", "dab_vector"} <= VesselParams().without_effect()
    fixed = VesselParams(threshold="fixed", stains="manual").without_effect()
    assert not {"dab_od", "dab_vector"} & fixed


@pytest.mark.gui
def test_the_form_disables_settings_without_effect(qtbot):
    from napari_mosaik.widgets.base.form import ParamsForm

    form = ParamsForm(NucleiParams())
    qtbot.addWidget(form)
    assert form.widget("probability").native.text() == "the network's own (0.65)"
    assert form.widget("probability").enabled
    assert not form.widget("sensitivity").enabled
    form.widget("method").value = "classical"
    assert not form.widget("probability").enabled
    assert form.widget("sensitivity").enabled
