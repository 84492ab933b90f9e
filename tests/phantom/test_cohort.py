"""The cohort as files: slides, PET, case record, annotations; whole, kept and reproducible."""

import hashlib
import json
import tomllib
from datetime import datetime
from pathlib import Path

import dask
import numpy as np
import openslide
import pydicom
import pytest
import tifffile

from napari_mosaik import phantom
from napari_mosaik.core import InputError, Progress
from napari_mosaik.core.colour import WHITE_INTENSITY
from napari_mosaik.core.frame import Lattice, Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.phantom.cohort import draw_specimen
from napari_mosaik.phantom.physics import patient_activity
from napari_mosaik.phantom.presets import PLANS, random_generator
from napari_mosaik.phantom.render import TILE, render, write_pyramid
from napari_mosaik.phantom.section import mount_section
from napari_mosaik.phantom.truth import grouped_classes

WRITTEN = Path(__file__).parents[2] / "sample_data" / "tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cohort")


@pytest.fixture(scope="module")
def case(folder):
    steps = list(phantom.sample(folder, "tiny", cases=["A2"]))
    assert all(isinstance(step, Progress) for step in steps)
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    return folder / "A2"


@pytest.fixture(scope="module")
def section():
    case = draw_specimen("A3", "tiny", 0)
    pose = case.plan.transform("caix", case.size.extent_um)
    nuclei = case.nuclei("caix")
    rng = random_generator(0, "A3", 4, 2)
    return mount_section(case.anatomy, case.vessels, nuclei, pose, rng, fold=True, pen=True)


@pytest.mark.parametrize("stain", ["he", "cd34", "caix"])
def test_slides_open_with_every_level_and_their_pixel_size(case, stain):
    path = case / "slides" / f"{stain}.tif"
    with openslide.OpenSlide(path) as slide:
        assert slide.detect_format(str(path)) == "generic-tiff"
        assert slide.level_dimensions == ((2400, 2000), (1200, 1000), (600, 500), (300, 250))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(1.0)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(1.0)
        seen = np.asarray(slide.read_region((700, 700), 0, (300, 200)).convert("RGB"))
        coarse = np.asarray(slide.read_region((0, 0), 1, (1200, 1000)).convert("RGB"), float)
        fine = np.asarray(slide.read_region((0, 0), 0, (2400, 2000)).convert("RGB"), float)
    with tifffile.TiffFile(path) as file:
        assert len(file.series) == 1
        assert len(file.series[0].levels) == 4
        np.testing.assert_array_equal(file.pages[0].asarray()[700:900, 700:1000], seen)
    halved = fine.reshape(1000, 2, 1200, 2, 3).mean(axis=(1, 3))
    # JPEG halves the colour's resolution at each level, so equal only on the whole
    assert np.abs(halved - coarse).mean() < 4.5
    assert np.abs((halved - coarse).mean(axis=(0, 1))).max() < 0.6
    assert np.corrcoef(halved.ravel(), coarse.ravel())[0, 1] > 0.97


def test_a_group_of_tiles_shows_the_one_in_its_middle(tmp_path):
    drawn = []

    def draw(origin, shape):
        drawn.append(tuple(side // TILE for side in origin))
        return np.full((*shape, 3), 40 * sum(drawn[-1]), np.uint8)

    list(write_pyramid(tmp_path / "slide.tif", draw, (3 * TILE, 3 * TILE), 1.0, "", group=2))
    assert sorted(drawn) == [(1, 1), (1, 3), (3, 1), (3, 3)]
    picture = tifffile.imread(tmp_path / "slide.tif", level=0)[:: TILE // 2, :: TILE // 2, 0]
    expected = [[80, 80, 160], [80, 80, 160], [160, 160, 240]]
    np.testing.assert_allclose(picture[1::2, 1::2], expected, atol=2)


def test_classes_of_a_grouped_slide_are_those_of_the_tiles_that_are_shown():
    edge, group = TILE * 0.25, 2
    lattice = Lattice("cd34", (64, 96), (8.0, 8.0))
    classes = np.ones(lattice.shape, np.uint8)
    classes[16:32, 16:32] = 2  # the tile that the first group shows
    classes[16:32, 48:56] = 3  # half of the one that the next shows
    shown = grouped_classes(
        Raster(classes, lattice), Transform.identity("cd34", "he"), edge / TILE, group
    )
    assert shown.lattice.frame == "he"
    np.testing.assert_array_equal(shown.values[:32, :32], 2)
    np.testing.assert_array_equal(shown.values[:32, 32:64], 0)
    np.testing.assert_array_equal(shown.values[32:, :64], 1)


def test_the_render_does_not_depend_on_the_blocks(section):
    whole = render(section, (300, 200), (400, 700), 1.0)
    for r, c, h, w in ((300, 200, 400, 700), (437, 200, 60, 333), (301, 651, 399, 249)):
        part = render(section, (r, c), (h, w), 1.0)
        np.testing.assert_array_equal(part, whole[r - 300 : r - 300 + h, c - 200 : c - 200 + w])


def test_finer_pixels_show_the_same_tissue(section):
    coarse = render(section, (400, 500), (300, 300), 1.0).astype(float)
    fine = render(section, (1600, 2000), (1200, 1200), 0.25).astype(float)
    mean = fine.reshape(300, 4, 300, 4, 3).mean(axis=(1, 3))
    assert np.corrcoef(coarse.ravel(), mean.ravel())[0, 1] > 0.95
    assert abs(coarse.mean() - mean.mean()) < 2.0


def test_beyond_the_slide_there_is_empty_glass(section):
    empty = render(section, (-5000, -5000), (64, 64), 1.0)
    assert np.abs(empty.astype(float) - WHITE_INTENSITY).max() < 6


def test_the_same_seed_gives_the_same_bytes_on_any_number_of_threads(case, tmp_path):
    with dask.config.set(num_workers=1):
        list(phantom.sample(tmp_path, "tiny", cases=["A2"]))
    ours = sorted(p.relative_to(case) for p in case.rglob("*") if p.is_file())
    again = tmp_path / "A2"
    assert ours == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    for path in ours:
        assert (case / path).read_bytes() == (again / path).read_bytes(), path


def test_the_pet_is_readable_dicom_with_its_dates(case):
    data = pydicom.dcmread(case / "pet" / "slice.dcm")
    assert (data.Modality, data.Units, data.DecayCorrection) == ("PT", "BQML", "START")
    assert {"ATTN", "DECY"} <= set(data.CorrectedImage)
    drug = data.RadiopharmaceuticalInformationSequence[0]
    injected = datetime.strptime(drug.RadiopharmaceuticalStartDateTime, "%Y%m%d%H%M%S")
    scanned = datetime.strptime(data.SeriesDate + data.SeriesTime, "%Y%m%d%H%M%S")
    assert (scanned - injected).days == 14
    assert float(drug.RadionuclideHalfLife) / 3600 == pytest.approx(78.41, abs=1e-3)
    assert [float(v) for v in data.PixelSpacing] == [0.4, 0.4]
    assert str(data.PatientName) == "PHANTOM"
    assert "PatientBirthDate" not in data
    stored = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
    law = json.loads((case / "truth" / "truth.json").read_text())
    with np.load(case / "truth" / "fields.npz") as fields:
        truth = fields["uptake_g_ml"].max() * law["bq_ml_per_g_ml"]
    assert law["bq_ml_per_g_ml"] == pytest.approx(patient_activity(PLANS["A2"]))
    assert 0.2 * truth < stored.max() < truth


def test_the_case_record_names_files_that_are_there(case):
    record = tomllib.loads((case / "case.toml").read_text())
    assert record["format"] == 1
    assert record["patient"] == "patient 1"
    for slide in record["slides"].values():
        assert (case / slide["path"]).is_file()
        assert slide["spacing_um"] == [1.0, 1.0]
    assert (case / record["pet"]["paths"][0]).is_file()
    assert isinstance(record["injection"]["injected"], datetime)


def test_annotations_are_qupath_features_of_the_three_classes(case):
    record = json.loads((case / "annotations" / "he.geojson").read_text())
    assert record["type"] == "FeatureCollection"
    names = {f["properties"]["classification"]["name"] for f in record["features"]}
    assert names == {"background", "neoplastic", "non-neoplastic"}
    for feature in record["features"]:
        ring = np.array(feature["geometry"]["coordinates"][0])
        np.testing.assert_array_equal(ring[0], ring[-1])
        assert (ring >= 0).all()
        assert (ring <= [2400, 2000]).all()


def test_a_complete_case_is_kept_and_another_is_refused(case, folder):
    before = (case / "case.toml").stat().st_mtime_ns
    assert len(list(phantom.sample(folder, "tiny", cases=["A2"]))) == 1
    assert (case / "case.toml").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="another sample"):
        list(phantom.sample(folder, "tiny", seed=7, cases=["A2"]))


def test_a_cancelled_case_is_absent(tmp_path):
    making = phantom.sample(tmp_path, "tiny", cases=["B8"])
    for _ in range(3):
        next(making)
    making.close()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(InputError, match="no size 'huge'"):
        next(phantom.sample(tmp_path, "huge"))
    with pytest.raises(InputError, match="no case 'C1'"):
        next(phantom.sample(tmp_path, "tiny", cases=["C1"]))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be created"):
        next(phantom.sample(tmp_path / "file" / "below", "tiny"))
    (tmp_path / "A2").mkdir()
    with pytest.raises(InputError, match="not a sample case"):
        next(phantom.sample(tmp_path, "tiny", cases=["A2"]))


def test_the_written_out_case_is_whole_and_small():
    lines = (WRITTEN / "SHA256SUMS").read_text().splitlines()
    listed = dict(reversed(line.split("  ", 1)) for line in lines)
    files = [p for p in WRITTEN.rglob("*") if p.is_file() and p.name != "SHA256SUMS"]
    assert {p.relative_to(WRITTEN).as_posix() for p in files} == set(listed)
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert digest == listed[path.relative_to(WRITTEN).as_posix()], path
    assert sum(p.stat().st_size for p in files) <= 5 * 1024**2


def test_the_written_out_case_can_be_made_again(case):
    """Truth exactly (up to the last digits of a libm), pictures but for the JPEG library's part."""
    old = WRITTEN / "A2"
    for name in ("masks", "fields"):
        with (
            np.load(old / "truth" / f"{name}.npz") as a,
            np.load(case / "truth" / f"{name}.npz") as b,
        ):
            assert set(a) == set(b)
            for key in a:
                np.testing.assert_allclose(a[key].astype(float), b[key].astype(float), rtol=1e-3)
    for text in ("case.toml", "phantom.json", "annotations/he.geojson"):
        assert (old / text).read_text() == (case / text).read_text()
    for stain in ("he", "cd34", "caix"):
        a = tifffile.imread(old / "slides" / f"{stain}.tif").astype(int)
        b = tifffile.imread(case / "slides" / f"{stain}.tif").astype(int)
        assert np.abs(a - b).mean() < 0.5
