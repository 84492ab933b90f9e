"""Real slides and a real PET slice: as far as they allow, and the reason where they do not."""

from pathlib import Path

import numpy as np
import pytest

from napari_mosaik.cli import main
from napari_mosaik.core.catalogue import ALIGNMENT, NUCLEUS_OBJECTS, SUV, TISSUE
from napari_mosaik.io import Case
from napari_mosaik.workflow.case_status import case_status

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real test files are not beside the checkout"),
]


def call(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code or 0


def made(folder, *arguments):
    """A case of real files after ``new`` and ``run``."""
    assert call("new", folder, *arguments) == 0
    assert call("run", folder) == 0
    return Case(folder)


def done(case):
    return {name for name, state in case_status(case).states.items() if state.word == "done"}


def tissue_mm2(case, stain):
    mask = case.store.read(TISSUE[stain])
    return mask.values.sum() * mask.lattice.sample_area_um2 / 1e6


def test_a_pair_of_kidney_sections(tmp_path, capsys):
    pictures = [
        *("--he", DATA / "registration" / "Rat-Kidney_HE.jpg"),
        *("--cd34", DATA / "registration" / "Rat-Kidney_PanCytokeratin.jpg"),
    ]
    assert call("new", tmp_path / "kidney", *pictures) == 2
    assert "--spacing UM" in capsys.readouterr().err
    case = made(tmp_path / "kidney", *pictures, "--spacing", 5)
    states = case_status(case).states
    assert {"tissue_he", "tissue_cd34", "tiles", "align_he", "stain"} <= done(case)
    assert "pixel size of 5 µm" in states["vessels"].reason
    assert states["uptake"].reason == "no PET given"
    assert states["tile_kinetics"].reason == "'Parameters' is blocked"
    record = case.store.read(ALIGNMENT["he"])
    assert record["dice"] > 0.9
    assert 0.85 < record["scale"] < 1.15
    assert 13 < tissue_mm2(case, "he") < 17


@pytest.mark.parametrize(
    ("name", "fewest"), [("CMU-1-Small-Region.svs", 1000), ("InstanSeg_HE_example.ome.tif", 1000)]
)
def test_one_slide_alone(tmp_path, name, fewest):
    case = made(tmp_path / "one", "--he", DATA / "wsi" / name)
    assert {"tissue_he", "stain", "nuclei"} <= done(case)
    states = case_status(case).states
    assert states["tiles"].reason == "no CD34 slide given"
    assert (
        states["classes"].reason == "no trained model for tissue classes; train one or choose one"
    )
    nuclei = case.store.read(NUCLEUS_OBJECTS)
    assert len(nuclei) > fewest
    assert 10 < np.median(nuclei["area_um2"]) < 120


def test_a_mouse_pet_slice(tmp_path, capsys):
    case = made(tmp_path / "mouse", "--pet", DATA / "pet" / "mouse-inveon-late-slice.dcm")
    assert case_status(case).states["suv"].reason.startswith("no injection record given: ")
    case.update(injection={"dose_mbq": 14.689, "weight_kg": 0.0379})
    assert "height is missing" in case_status(case).states["suv"].reason
    assert call("run", tmp_path / "mouse", "--until", "suv") == 2
    assert "height" in capsys.readouterr().err
    assert call("run", tmp_path / "mouse", "--set", "suv.kind=bw") == 0
    case = Case(tmp_path / "mouse")
    assert "suv" in done(case)
    assert case_status(case).states["uptake"].reason == "no CD34 slide given"
    factor = case.store.read(SUV).values.max() / case.pet().raster.values.max()
    decayed = 14.689e6 * 2 ** (208 / 3600 / 1.8295)
    assert factor == pytest.approx(37.9 / decayed, rel=1e-3)
