"""What a reader sees: colours that stand out, scales of the tissue, texts inside their boxes."""

from itertools import combinations

import numpy as np
import pytest
import tifffile
from skimage.color import deltaE_ciede2000, rgb2lab

from napari_mosaik.annotate import TissueClass
from napari_mosaik.cli.app import run_command
from napari_mosaik.core import Lattice, Raster, Transform, palette
from napari_mosaik.core.catalogue import SUV, TISSUE
from napari_mosaik.io.case import create_case
from napari_mosaik.io.case_file import CaseFile, SlideEntry
from napari_mosaik.view.layers import OUTLINE, annotation_layer
from napari_mosaik.view.report.html import ReportData, build_report
from napari_mosaik.view.uptake_scale import pet_layers

H_AND_E = {"eosin": (226, 160, 196), "pale": (240, 205, 222), "nuclei": (130, 85, 160)}
DAB = {
    "brown": (139, 90, 43),
    "dark": (90, 55, 30),
    "blue": (150, 160, 200),
    "pale": (230, 220, 215),
}
SEEN_AS = {
    "all colours": np.eye(3),
    "deuteranope": np.array(
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    ),
    "protanope": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
}
"""Machado, Oliveira and Fernandes (2009), severity 1, in linear RGB."""


def _as_seen(rgb, eyes):
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(SEEN_AS[eyes] @ linear, 0, 1)
    return np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)


def _difference(one, other, eyes="all colours"):
    labs = (rgb2lab(_as_seen(np.asarray(c, float), eyes)[None, None])[0, 0] for c in (one, other))
    return float(deltaE_ciede2000(*labs))


def _rgb(colour):
    return np.array(palette.rgba(colour)[:3])


@pytest.mark.parametrize("colour", [*palette.CLASS_COLOURS.values(), palette.NUCLEUS])
@pytest.mark.parametrize("stain", H_AND_E.values())
def test_what_is_drawn_on_h_and_e_stands_out_from_it(colour, stain):
    stain = np.array(stain) / 255
    assert _difference(_rgb(colour), stain) > 20
    assert min(_difference(_rgb(colour), stain, eyes) for eyes in SEEN_AS) > 15


@pytest.mark.parametrize("colour", palette.OWN_CLASS_COLOURS)
@pytest.mark.parametrize("stain", H_AND_E.values())
def test_own_classes_stand_out_from_h_and_e(colour, stain):
    assert _difference(_rgb(colour), np.array(stain) / 255) > 15


@pytest.mark.parametrize("colour", [palette.VESSEL, palette.EXCLUDED])
@pytest.mark.parametrize("stain", DAB.values())
def test_what_is_drawn_on_dab_stands_out_from_it(colour, stain):
    assert _difference(_rgb(colour), np.array(stain) / 255) > 20


@pytest.mark.parametrize("eyes", SEEN_AS)
def test_no_two_classes_look_alike(eyes):
    colours = [*palette.CLASS_COLOURS.values(), *palette.OWN_CLASS_COLOURS]
    for one, other in combinations(colours, 2):
        assert _difference(_rgb(one), _rgb(other), eyes) > 12, (one, other)


@pytest.mark.parametrize("code", [2, 3])
@pytest.mark.parametrize("stain", H_AND_E.values())
def test_a_filled_class_changes_the_colour_of_the_tissue(code, stain):
    stain = np.array(stain) / 255
    assert _difference(0.55 * stain + 0.45 * _rgb(palette.CLASS_COLOURS[code]), stain) > 20


def test_the_outline_of_an_annotation_has_the_colour_of_its_class_and_hides_what_is_below():
    classes = [TissueClass("neoplastic", "#D55E00", "1"), TissueClass("necrosis", "#FFE100", "2")]
    codes = np.zeros((4, 4), np.uint8)
    colours = annotation_layer(codes, Lattice("he", (4, 4), (1.0, 1.0)), classes).style["colormap"]
    for code, known in enumerate(classes, 1):
        assert colours[code + OUTLINE] == palette.rgba(known.colour)
        assert colours[code][:3] == palette.rgba(known.colour)[:3]
        assert colours[code][3] < 0.5


class _Stored:
    """The stored results of a case whose PET has uptake of 1 to 2 on the tissue and 90 beside."""

    unit = "g/mL"

    def __init__(self, registered):
        values = np.full((20, 20), 90.0)
        values[5:15, 5:15] = np.linspace(1, 2, 100).reshape(10, 10)
        tissue = np.zeros((100, 100))
        tissue[25:75, 25:75] = 1
        pet = Lattice("pet", (20, 20), (1000.0, 1000.0))
        self._known = {
            SUV: Raster(values, pet, self.unit),
            TISSUE["cd34"]: Raster(tissue, Lattice("cd34", (100, 100), (200.0, 200.0)), "1"),
        }
        self._transform = Transform.identity("pet", "cd34") if registered else None

    def get(self, artifact):
        return self._known.get(artifact)

    def column(self, artifact, name):
        return None

    def transform(self, frame):
        return self._transform


def test_the_scale_of_the_pet_is_that_of_the_voxels_over_the_tissue():
    [layer] = pet_layers(_Stored(registered=True))
    low, high = layer.style["contrast_limits"]
    assert 1 <= low < 1.05
    assert 1.95 < high <= 2
    assert layer.legend.limits == (low, high)
    assert not layer.legend.note


def test_before_registration_the_scale_of_the_pet_is_that_of_the_slice_and_says_so():
    [layer] = pet_layers(_Stored(registered=False))
    assert layer.style["contrast_limits"][1] == 90
    assert "not registered" in layer.legend.note


@pytest.fixture
def own_case(tmp_path):
    """A case with a white H&E slide and no results."""
    (tmp_path / "B11").mkdir()
    pixels = np.full((512, 512, 3), 240, np.uint8)
    tifffile.imwrite(tmp_path / "B11" / "he.tif", pixels, tile=(256, 256), photometric="rgb")
    slide = SlideEntry(path="he.tif", spacing_um=(0.5, 0.5), spacing_source="user")
    create_case(tmp_path / "B11", CaseFile(name="B11", slides={"he": slide}))
    return tmp_path / "B11"


def test_report_opens_the_file_that_it_names(own_case, tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("webbrowser.open", lambda url: seen.append(url) or len(seen) == 1)
    out = tmp_path / "B 11.html"
    assert run_command(["report", str(own_case), "--out", str(out)]) == 0
    assert seen == []  # not a terminal
    for _ in range(2):
        assert run_command(["report", str(own_case), "--out", str(out), "--open"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [str(out)] * 3
    assert seen == [out.as_uri()] * 2
    assert printed.err == f"napari-mosaik: warning: no browser opened the report; open {out}\n"


def test_the_printed_report_keeps_rows_and_figures_whole_and_tables_within_the_page():
    text = build_report(ReportData("B11"))
    css = text[text.index("@media print") : text.index("</style>")]
    assert "figure, tr, .warning, .short { break-inside: avoid; }" in css
    assert "table" not in css[css.index("figure, tr") :].partition("}")[0]
    assert ".scroll { overflow: visible; }" in css
    assert ".gallery { display: block" in css
    assert "thead { display: table-header-group; }" in css
