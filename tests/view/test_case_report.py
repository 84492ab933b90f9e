"""The report of a whole case: from nothing computed to everything computed."""

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from napari_mosaik.core import InputError, Origin, Raster, Table, TileGrid
from napari_mosaik.core import catalogue as names
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.io.case import Case, create_case
from napari_mosaik.io.case_file import CaseFile, SlideEntry
from napari_mosaik.kinetics import (
    DeliveryParams,
    ImmunokineticParams,
    PatientPriors,
    TilePriors,
    iter_tile_record,
    patient_record,
)
from napari_mosaik.view.board import HATCHED
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.presentation import report_tables
from napari_mosaik.view.report.content import case_report, gather_report, write_case_report
from napari_mosaik.view.report.figures import map_notes
from napari_mosaik.view.report.html import StepState, build_report, metric_table
from napari_mosaik.view.report.validation import case_checks
from napari_mosaik.view.steps.segmentation import held_out_table
from napari_mosaik.view.tile_data import read_tile_data, summary_of

RNG = np.random.default_rng(4)


@pytest.fixture
def case(tmp_path):
    create_case(tmp_path / "B11", CaseFile(name="B11", patient="patient 2"))
    path = tmp_path / "B11" / "case.toml"
    path.write_text(path.read_text("utf-8").replace('"B11"', '"B11 <b>"'), "utf-8")
    return Case(tmp_path / "B11")


def commit(case, values, step="some_step"):
    with case.writing():
        record = {"version": "0.1.0", "time": "2026-11-21T01:00:00+00:00", "params": {"seed": 7}}
        case.store.commit(Origin(step, 1, "p", ()), values, record)


@cache
def kinetic_records():
    """Diagnostics of Table 2 and of a tile with the default settings."""
    tile = run_to_end(iter_tile_record(DeliveryParams(), TilePriors(), 0.005))
    patient = patient_record(ImmunokineticParams(), PatientPriors())
    return {names.KINETICS_RECORD: patient, names.TILE_KINETICS_RECORD: tile}


def everything(metrics=None, record=None, error_um=60.0):
    lattice = Lattice("cd34", (6, 8), (300.0, 300.0), (50.0, 50.0))
    kept = np.arange(2, 46)
    n = kept.size
    grid = TileGrid(lattice, 400.0, kept, np.ones(n), np.arange(n) % 3 > 0)
    suv = RNG.normal(60, 12, n)
    suv[0] = np.nan
    parameters = {
        "vessel_equivalent_diameter_um": RNG.normal(12, 2, n),
        "nucleus_difference_entropy_bits": np.full(n, np.nan),
        "caix_h_score": RNG.uniform(0, 300, n),
        "neoplastic_fraction": RNG.random(n),
    }
    clusters = {f"{name}.label": RNG.integers(0, 6, n) for name in parameters}
    fine = Lattice("cd34", (36, 48), (50.0, 50.0), (50.0, 50.0))
    tissue = np.zeros(fine.shape, bool)
    tissue[3:-3, 3:-3] = True
    smooth = np.where(tissue, 60.0 + np.arange(48), np.nan)
    alignment = {
        "source": "pet",
        "target": "cd34",
        "matrix_um": np.eye(3).tolist(),
        "dice": 0.97,
        "angle_deg": 12.0,
        "scale": 1.02,
        "ncc": None,
        "method": "outline",
        "warnings": ["nearly round"],
        "landmark_error_um": {"median": error_um},
    }
    time = np.linspace(0, 336, 20)
    association = {
        "parameter": np.array(list(parameters)),
        "n": np.full(4, n - 1),
        **{
            key: np.array([0.4, np.nan, -0.3, 0.1])
            for key in (
                "pearson",
                "spearman",
                "ess_pearson",
                "p_dutilleul_pearson",
                "p_msr_pearson",
            )
        },
    }
    return {
        names.TILES: grid,
        names.UPTAKE: Table({"suv": suv}, {"suv": "cm²/mL"}),
        names.PARAMETERS: Table(parameters, {"vessel_equivalent_diameter_um": "µm"}),
        names.CLUSTERS: Table(clusters),
        names.UPTAKE_CLUSTERS: Table({"suv.label": RNG.integers(0, 6, n)}),
        names.MAPS: Raster(
            np.stack([smooth] * 4, -1).astype(np.float32), fine, "1", tuple(parameters)
        ),
        names.TISSUE["cd34"]: Raster(tissue, fine),
        names.SUV: Raster(
            RNG.normal(60, 5, (8, 9)), Lattice("pet", (8, 9), (400.0, 400.0)), "cm²/mL"
        ),
        names.SUV_RECORD: {
            "kind": "bsa",
            "unit": "cm²/mL",
            "factor": 1.5,
            "terms": [
                {"label": "injected activity", "value": 37.0, "unit": "MBq", "source": "case"},
                {"label": "height", "value": None, "unit": "cm", "source": "missing"},
            ],
            "assumptions": ["times are local"],
            "warnings": ["weights differ"],
        },
        names.ALIGNMENT["pet"]: alignment,
        names.ASSOCIATION: Table(association),
        names.KINETICS: Table(
            {
                "time_h": time,
                **{k: np.exp(-time / 9) / 3 for k in ("free", "bound", "internalised")},
                **{k: np.exp(-time / 9) for k in ("free_um", "bound_um", "internalised_um")},
            },
            {"time_h": "h"},
        ),
        **kinetic_records(),
        names.TILE_KINETICS: Table({"retained": np.ones(n)}, {"retained": "µM"}),
        names.UPTAKE_SENSITIVITY: Table({"change": np.full(n, 2.0)}, {"change": "cm²/mL"}),
        names.PREDICTION: Table({"suv": suv * 0.8 + 10}, {"suv": "cm²/mL"}),
        names.PREDICTION_MAP: Raster(smooth, fine, "cm²/mL"),
        names.PREDICTION_RECORD: {
            "split": "case",
            "training_cases": ["A2", "B8"],
            "shared_patient": True,
            "seen_in_training": False,
            "warnings": ["trained on the CPU"],
            **(record or {}),
        },
        names.METRICS: {
            "suv_norm": {"mse": 0.01, "mae": 0.06, "r2": None},
            "suv_bsa": {"mae": 9.0, "r2": 0.5},
            "baselines": {
                "mean": baseline(0.14, 0.06, 0.10),
                "caix_linear": None,
                "ridge_psf": baseline(0.08, -0.01, 0.05),
                "neighbour_idw": {**baseline(0.01, -0.06, -0.04), "uses_test_pet": True},
            },
            "agreement": {"ccc": 0.7, "bland_altman": {"bias": 0.1}},
            "n_tiles": n - 1,
            "proxies": list(parameters)[:3],
            **(metrics or {}),
        },
    }


def baseline(mae, low, high):
    """The record of a baseline; the limits are those of its MAE minus the network's."""
    difference = {"estimate": (low + high) / 2, "low": low, "high": high}
    errors = {"mse": 0.02, "mae": mae, "r2": 0.4}
    return {**errors, "mae_minus_network": difference, "uses_test_pet": False}


def visible(html):
    return re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))


def test_a_case_without_results_says_so(case):
    html = case_report(case)
    assert "B11 &lt;b&gt;" in html
    assert "not computed yet" not in visible(html)  # that is said inside the picture
    assert {row.status for row in gather_report(case).checks} <= {"not available"}
    assert not re.search(r"\b(nan|None)\b", visible(html))


def test_a_whole_case(case):
    commit(case, everything())
    states = (StepState("Vessels", "stale", "its settings changed"),)
    html = build_report(replace(gather_report(case), states=states))
    text = visible(html)
    for words in (
        "same patient in training",
        "44 tiles",
        "0.0600",
        "baseline: ridge, scanner view",
        " to 0.0500)",
        "Vessel equivalent diameter",
        "nearly round",
        "trained on the CPU",
        "seed",
        "its settings changed",
        "revision 1",
        "injected activity",
        "times are local",
        "weights differ",
    ):
        assert words in text, words
    assert html.count("data:image/png") == 10
    assert not re.search(r"\b(nan|None)\b", text)
    assert "used in training" not in text


def test_the_suffix_chooses_the_kind_of_report(case, tmp_path):
    assert write_case_report(case).name == "report.html"
    pdf = write_case_report(case, tmp_path / "own.PDF")
    assert pdf.read_bytes().startswith(b"%PDF")
    with pytest.raises(InputError, match=r"not 'own\.docx'"):
        write_case_report(case, tmp_path / "own.docx")


def test_intervals_and_gaps_are_reported_where_they_are_known(case):
    known = {
        "intervals": {
            "tile": {"coverage": 0.84, "width": 0.31, "interval_score": 0.4},
            "block": {"coverage": 0.97, "width": 0.52, "interval_score": 0.55},
            "notes": ["no guarantee at case level: 2 calibration cases, 9 needed for 90 %"],
        },
        "n_out_of_range": 3,
        "n_not_predicted": 2,
        "not_predicted": {"no curves": 2},
    }
    commit(case, everything(known))
    data = gather_report(case)
    [row] = [row for row in case_checks(CaseResults(case)) if row.area == "Uncertainty"]
    assert row.status == "pass"
    assert "84" in row.value
    assert "no guarantee" in row.evidence
    titles = [one.title for one in data.metrics]
    said = [one.note for one in data.metrics if "interval" in one.title]
    told = "No guarantee at case level: 2 calibration cases, 9 needed for 90\xa0%."
    assert len(said) == 2
    assert all(text.endswith(f"the lower the better. {told}") for text in said)
    assert "90 % interval for a tile of a new slide, normalised SUV" in titles
    assert ("tiles beyond the training range", "3") in data.summary
    assert ("tiles without prediction", "2 (no curves: 2)") in data.summary
    lines = summary_of(read_tile_data(case))
    assert "holds 84" in lines
    assert "no guarantee at case level" in lines
    known["intervals"]["tile"]["coverage"] = 0.7
    commit(case, everything(known))
    assert status(case, "Uncertainty") == ["fail"]
    commit(case, everything())
    assert status(case, "Uncertainty") == []
    assert "interval" not in summary_of(read_tile_data(case))


def test_what_knows_the_pet_of_the_case_is_grey(case):
    commit(case, everything())
    html = case_report(case)
    assert re.findall(r'<tr class="soft"><td>(.*?)</td>', html) == ["baseline: measured neighbours"]
    tables = [metric_table(one) for one in gather_report(case).metrics]
    grey = [table.rows[place][0] for table in tables for place in table.soft]
    assert grey == ["baseline: measured neighbours"]


def status(case, area):
    return [row.status for row in case_checks(CaseResults(case)) if row.area == area]


def test_checks_pass_and_fail_on_what_was_computed(case):
    commit(case, everything())
    assert status(case, "Validation") == ["pass"]
    assert status(case, "Data") == ["pass", "not available"]
    assert status(case, "Conservation") == ["pass", "pass"]
    assert status(case, "Code verification") == ["pass"]
    assert status(case, "Solution verification") == ["pass"]
    assert status(case, "Sensitivity") == ["pass", "pass"]
    assert status(case, "Identifiability") == ["fail", "fail"]
    assert status(case, "Domain of use") == ["not available"]
    assert status(case, "Uncertainty") == []
    others = {"mean": baseline(0.14, 0.06, 0.10), "ridge": baseline(0.05, -0.02, -0.01)}
    worse = everything({"suv_norm": {"mae": 0.09}, "baselines": others}, error_um=180.0)
    worse[names.PREDICTION] = Table({"suv": np.ones(3)}, {"suv": "cm²/mL"})
    commit(case, worse)
    assert status(case, "Validation") == ["fail"]
    assert status(case, "Data")[0] == "fail"
    assert status(case, "Conservation")[0] == "fail"


def rows(case, area):
    return [row for row in case_checks(CaseResults(case)) if row.area == area]


def changed_record(case, artifact, **values):
    case_values = CaseResults(case).read(artifact)
    commit(case, {artifact: {**case_values, **values}}, "other_step")


def test_rows_on_kinetics_name_what_was_computed(case):
    commit(case, everything())
    patient, tile = rows(case, "Identifiability")
    assert "determined C_free at 0; prior only kₐ, C_tot, k₃₂, k₀₃" in patient.value
    assert "determined Permeability; prior only" in tile.value
    assert "72, 120, 168, 336 h" in patient.value
    assert "10 %" in patient.evidence.replace("\xa0", " ")
    shares, shift = rows(case, "Sensitivity")
    listed = shares.value.replace("\xa0", " ")
    assert "at 336 h, with interactions: Permeability 101 % (9" in listed
    assert "C_tot under 0.001 %, kₐ under 0.001 %" in listed
    assert "2.00\xa0cm²/mL" in shift.value
    (order,) = rows(case, "Code verification")
    assert "(theory 4)" in order.value


@pytest.mark.parametrize(
    ("area", "change"),
    [
        ("Code verification", {"order": 3.0}),
        ("Code verification", {"closed_form": 1e-3}),
        ("Solution verification", {"tolerance": 1e-4}),
        ("Conservation", {"balance": 1e-4}),
    ],
)
def test_a_check_of_the_solver_that_fails_is_no_pass(case, area, change):
    commit(case, everything())
    checks = CaseResults(case).read(names.KINETICS_RECORD)["verification"]
    changed_record(case, names.KINETICS_RECORD, verification={**checks, **change})
    assert status(case, area)[-1] == "fail"


def test_curves_alone_are_a_bound_and_no_pass(case):
    values = everything()
    del values[names.KINETICS_RECORD], values[names.TILE_KINETICS_RECORD]
    commit(case, values)
    for area in ("Code verification", "Solution verification", "Identifiability"):
        assert set(status(case, area)) == {"not available"}
    assert status(case, "Conservation") == ["pass", "not available"]
    assert status(case, "Sensitivity")[0] == "not available"
    assert "run Kinetics again" in rows(case, "Conservation")[-1].evidence


def test_stored_curves_that_exceed_what_was_injected_fail(case):
    values = everything()
    table = values[names.KINETICS]
    doubled = {name: np.asarray(table[name]) * (2 if name == "bound" else 1) for name in table}
    commit(case, {**values, names.KINETICS: Table(doubled, {"time_h": "h"})})
    assert status(case, "Conservation")[-1] == "fail"


def test_what_could_not_be_judged_gives_its_reason(case):
    commit(case, everything())
    commit(case, {names.TILE_KINETICS_RECORD: {"not_available": "no tile has vessels"}}, "b")
    found = rows(case, "Sensitivity")[0]
    assert (found.status, found.evidence) == (
        "not available",
        "delivery per tile: no tile has vessels",
    )


def test_indices_with_wide_intervals_and_a_sensitive_registration_are_no_pass(case):
    values = everything()
    commit(case, values)
    sobol = values[names.TILE_KINETICS_RECORD]["sobol"]
    changed_record(case, names.TILE_KINETICS_RECORD, sobol={**sobol, "total_low": [[0.1] * 4] * 4})
    assert status(case, "Sensitivity") == ["fail", "pass"]
    n = len(values[names.TILES])
    moved = Table({"change": np.full(n, 9.0)}, {"change": "cm²/mL"})
    commit(case, {names.UPTAKE_SENSITIVITY: moved}, "c")
    assert status(case, "Sensitivity") == ["fail", "fail"]


def test_all_parameters_determined_is_a_pass(case):
    commit(case, everything())
    parameters = CaseResults(case).read(names.KINETICS_RECORD)["parameters"]
    known = [{**p, "determined": True} for p in parameters]
    changed_record(case, names.KINETICS_RECORD, parameters=known)
    assert status(case, "Identifiability") == ["pass", "fail"]


def test_the_report_lists_the_kinetic_parameters_and_shares(case):
    commit(case, everything())
    tables = {table.title: table for table in report_tables(CaseResults(case))}
    parameters = {row[0]: row[1:] for row in tables["Kinetic parameters"].rows}
    assert len(parameters) == 10
    assert parameters["C_tot (patient)"][:3] == ("µM", 0.3662, 5.0)
    assert parameters["C_tot (patient)"][-1] == "prior only"
    assert parameters["Permeability (delivery per tile)"][-1] == "determined"
    shares = {row[0]: row[1:] for row in tables["Sensitivity of the delivery"].rows}
    assert [text.replace("\xa0", " ") for text in shares["Permeability"]][:1] == ["100 %"]
    assert shares["C_tot"][3].replace("\xa0", " ") == "under 0.001 %"
    assert "1024 samples" in tables["Sensitivity of the delivery"].note


def test_not_distinguishable_from_the_training_mean_is_no_pass(case):
    row = everything({"baselines": {"mean": baseline(0.07, -0.01, 0.03)}})
    commit(case, row)
    found = next(row for row in case_checks(CaseResults(case)) if row.area == "Validation")
    assert found.status == "fail"
    assert "not distinguishable from training mean" in found.value


def test_a_case_of_the_training_set_proves_nothing(case):
    commit(case, everything(record={"seen_in_training": True}))
    assert status(case, "Validation") == ["not available"]
    text = visible(case_report(case))
    assert "used in training" in text
    assert "do not apply to new cases" in text


def test_measured_map_is_placed_on_the_section_and_cut_to_its_tissue(case):
    values = everything()
    commit(case, values)
    results = CaseResults(case)
    like = values[names.PREDICTION_MAP]
    moved = results.onto_tissue(values[names.SUV], "pet", like)
    assert moved.lattice == like.lattice
    assert np.isnan(moved.values[0, 0])
    # µm (525, 775) of the PET is voxel (1, 1) under the identity
    assert moved.values[9, 14] == values[names.SUV].values[1, 1]


def test_pixel_sizes_and_who_gave_them_are_checked(tmp_path):
    entry = SlideEntry(path="gone.svs", spacing_um=(0.5, 0.52), spacing_source="ruler")
    sized = create_case(tmp_path / "a", CaseFile(name="A", slides={"he": entry}))
    (row,) = case_checks(CaseResults(sized))
    assert row.status == "pass"
    assert "H&E 0.500 x 0.520 µm (ruler calibration)" in row.value
    entry = SlideEntry(path="gone.svs")
    lost = create_case(tmp_path / "b", CaseFile(name="B", slides={"he": entry}))
    (row,) = case_checks(CaseResults(lost))
    assert row.status == "fail"
    assert "gone.svs" in row.value


def test_scores_of_the_tissue_classifier_stand_in_the_report():
    scores = {"dice": 0.9, "iou": 0.8, "precision": 0.7, "recall": 0.6, "accuracy": 0.99}
    absent = dict.fromkeys(scores)
    classes = {"neoplastic": scores, "necrosis": absent}
    table = held_out_table({"held_out": {"classes": classes, "overall": 0.875}})
    assert table.rows == (
        ("neoplastic", 0.9, 0.8, 0.7, 0.6, 0.99),
        ("necrosis", None, None, None, None, None),
    )
    assert table.columns[-1] == "one against rest"
    assert "0.875 of their pixels" in table.note
    assert "flatters" in table.note
    assert held_out_table({"held_out": None}) is None
    assert held_out_table(None) is None


def test_the_caption_of_the_maps_says_once_what_is_hatched():
    notes = [
        "",
        "not measured; a fit",
        f"width; {HATCHED}",
        HATCHED,
        f"not measured; a fit; {HATCHED}",
    ]
    assert map_notes(notes) == ["not measured; a fit", "width", HATCHED]
    assert map_notes(["", "width"]) == ["width"]
