"""Sample cases without slides: their label images are given, and every other step runs on them."""

import hashlib
import json
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from napari_mosaik.core import CorruptArtifact, InputError, Source
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CAIX_CELLS,
    CLASSES,
    CORRECTED_NUCLEI,
    CORRECTED_NUCLEUS_OBJECTS,
    PARAMETERS,
    TILES,
    VESSEL_OBJECTS,
    VESSELS,
)
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.features import measure_objects
from napari_mosaik.io import Case
from napari_mosaik.phantom import cohort as cohort_module
from napari_mosaik.phantom import sample
from napari_mosaik.phantom.given import _painted, _vessels
from napari_mosaik.phantom.objects import VesselTubes
from napari_mosaik.phantom.presets import SIZES, CohortSize
from napari_mosaik.register import transform_of
from napari_mosaik.workflow.case_status import case_status, cohort_line
from napari_mosaik.workflow.corrections import CorrectionLog
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run, run_until
from napari_mosaik.workflow.steps import STEPS, step_named

SMALL = MappingProxyType(
    {**SIZES, "rasters": CohortSize("rasters", (2000.0, 2400.0), 4.0, ("A2",), rendered=False)}
)
LATTICE = Lattice("cd34", (150, 150), (4.0, 4.0))
NEED_SLIDES = {
    step.name
    for step in STEPS
    if any(isinstance(one, Source) and one.kind == "slide" for one in step.reads)
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a small case without slides, as it is written."""
    folder = tmp_path_factory.mktemp("rasters")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort_module, "SIZES", SMALL)
        run_to_end(sample(folder, "rasters", 0))
    return folder / "A2"


@pytest.fixture(scope="module")
def ran(made):
    """The same case after every step that can run; `digests` are those of before."""
    case, before = Case(made), digests(made)
    run_to_end(run_until(case, read_recipe(made)))
    return case, before


def digests(root):
    return {
        path.relative_to(root).as_posix(): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted((root / "artifacts").rglob("*"))
        if path.is_file()
    }


def test_steps_that_need_a_slide_are_given_and_nothing_else_is(made):
    states = case_status(Case(made)).states
    given = {name for name, state in states.items() if state.reason == "given by the sample"}
    assert given == NEED_SLIDES
    assert {states[name].word for name in given} == {"done"}
    assert states["tiles"].word == states["align_pet"].word == "missing"
    assert "next: Tiles" in cohort_line(made)


def test_every_other_step_runs_and_what_was_given_stays(ran):
    case, before = ran
    states = case_status(case).states
    open_ = {name for name, state in states.items() if state.word != "done"}
    assert open_ == {"predict", "input_spread", "review", "dose"}
    after = digests(case.root)
    assert {name: after[name] for name in before} == before
    assert case.store.origin(VESSELS).is_given == "given by the sample"
    assert case.store.origin(TILES).is_given == ""
    assert case.file.pet.fwhm_mm == 1.5
    truth = json.loads((case.root / "truth" / "truth.json").read_text())
    alignment = case.store.read(ALIGNMENT["pet"])
    assert alignment["method"] == "file: given by the sample"
    np.testing.assert_allclose(transform_of(alignment).matrix, truth["transforms"]["pet"]["matrix"])


def test_what_is_measured_on_the_given_objects_is_the_truth(ran):
    case, _ = ran
    truth = pq.read_table(case.root / "truth" / "tiles.parquet").to_pandas()
    grid, table = case.store.read(TILES), case.store.read(PARAMETERS)
    place = {tuple(np.round(c)): i for i, c in enumerate(grid.centres_um)}
    keys = zip(truth.row_um.round(), truth.col_um.round(), strict=True)
    pairs = [(i, place[key]) for i, key in enumerate(keys) if key in place]
    assert len(pairs) > 10
    true, ours = np.array(pairs).T
    for column, known in (
        ("vessel_density_per_mm2", truth.vessel_density_mm2),
        ("neoplastic_fraction", truth.neoplastic_fraction),
        ("caix_h_score", truth.h_score),
    ):
        measured = np.asarray(table[column])[ours]
        assert np.corrcoef(measured, np.asarray(known)[true])[0, 1] > 0.97, column


def test_each_label_lies_where_its_row_says(ran):
    case, _ = ran
    for labels, rows in ((VESSELS, VESSEL_OBJECTS), (CORRECTED_NUCLEI, CORRECTED_NUCLEUS_OBJECTS)):
        image, table = case.store.read(labels), case.store.read(rows)
        values = image.array()
        counts = np.bincount(values.ravel(), minlength=len(table) + 1)
        assert counts[1:].min() >= 1
        assert values.max() == len(table)
        row, col = np.nonzero(values)
        label = values[row, col] - 1
        mean = np.column_stack([np.bincount(label, at) for at in (row, col)]) / counts[1:, None]
        away = np.hypot(*(table.points_um() - 4.0 * (mean + 0.5)).T)
        assert np.median(away) < 1.5
    vessels = case.store.read(VESSEL_OBJECTS)
    painted = np.count_nonzero(case.store.read(VESSELS).array()) * 16.0
    assert painted == pytest.approx(float(vessels["area_um2"].sum()), rel=0.05)
    nuclei = case.store.read(CORRECTED_NUCLEUS_OBJECTS)
    assert 20 < np.median(nuclei["area_um2"]) < 80
    cells = case.store.read(CAIX_CELLS)
    assert set(np.unique(cells["grade"])) <= {0, 1, 2, 3}
    assert cells["grade"][~cells["tumour"]].mean() < 0.1 < cells["grade"][cells["tumour"]].mean()
    codes = np.bincount(case.store.read(CLASSES).array().ravel(), minlength=4)
    assert codes[1] < 0.02 * codes[2:].sum()


def test_the_sizes_of_given_vessels_are_those_of_finely_painted_ones():
    """Straight and bent tubes, painted on pixels of 0.25 µm and measured."""
    line = np.zeros((3, 7, 2)) + 100.0
    line[1, :, 1] += np.linspace(-40, 40, 7)
    line[2, :, 1] += np.linspace(-30, 30, 7)
    line[2, :, 0] += np.array([-12.0, -5.0, 0.0, 2.0, 0.0, -5.0, -12.0])
    line += np.array([0.0, 200.0, 400.0])[:, None, None]
    tubes = VesselTubes(line, np.array([9.0, 5.0, 4.0]), np.full(3, 2.0), np.ones(3, bool))
    _, given = _vessels(SimpleNamespace(lattice=LATTICE.resized), tubes)
    labels, _ = _painted(LATTICE.resized(0.25), line, tubes.outer_um)
    measured = measure_objects(labels.array(), labels.lattice)
    for name in ("row_um", "column_um", "area_um2", "major_axis_um", "minor_axis_um", "solidity"):
        np.testing.assert_allclose(given[name], measured[name], rtol=0.06, err_msg=name)
    np.testing.assert_allclose(given["perimeter_um"], measured["perimeter_um"], rtol=0.06)
    np.testing.assert_allclose(given["eccentricity"][1:], measured["eccentricity"][1:], rtol=0.02)


def test_what_was_given_is_not_computed(ran):
    case, _ = ran
    step = step_named("vessels")
    with pytest.raises(InputError, match="'Vessels' is given by the sample and cannot be computed"):
        run_to_end(run(case, step, read_recipe(case.root)["vessels"], force=True))
    run_to_end(run(case, step, read_recipe(case.root)["vessels"]))  # done already


@pytest.mark.parametrize("what", ["vessels", "nuclei", "tissue_he", "artefacts_caix"])
def test_what_was_given_cannot_be_corrected_without_a_slide(ran, what):
    with pytest.raises(InputError, match="given by the sample, and no slide shows what would be"):
        CorrectionLog(ran[0], what, "anna")


def test_damage_to_what_was_given_is_told(made):
    document = made / "artifacts" / "alignment_he" / "document.json"
    before = document.read_bytes()
    try:
        document.write_bytes(before.replace(b"1.0", b"1.1", 1))
        state = case_status(Case(made)).states["align_he"]
        assert (state.word, state.damaged) == ("blocked", True)
        assert "document.json is changed; it was given by the sample: create that" in state.reason
        with pytest.raises((InputError, CorruptArtifact), match=r"some steps failed.*align"):
            run_to_end(run_until(Case(made), read_recipe(made)))
    finally:
        document.write_bytes(before)
