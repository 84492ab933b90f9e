"""The step *Dose what-if* in a case: its plans as inputs, what it refuses, report and sheet.

python -m pytest tests/workflow/test_dose_step.py
"""

from __future__ import annotations

import json
import math
import shutil
import threading
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CORRECTED_VESSELS,
    DOSE,
    DOSE_RECORD,
    PARAMETERS,
    PREDICTION,
    PREDICTION_RECORD,
    TILES,
    TISSUE,
    UPTAKE,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.progress import of_this_item, run_to_end
from napari_mosaik.dosimetry import NUCLIDES
from napari_mosaik.io import Case
from napari_mosaik.twin.chain import Chain
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.report.dose import (
    dose_figure,
    dose_limitations,
    dose_tables,
    dose_warnings,
)
from napari_mosaik.view.report.validation import case_checks
from napari_mosaik.workflow import parallel
from napari_mosaik.workflow.case_status import case_status, cohort_line
from napari_mosaik.workflow.plan_dose import PlanModel
from napari_mosaik.workflow.plan_facts import PlanFacts
from napari_mosaik.workflow.plan_record import Plan, Spreads
from napari_mosaik.workflow.plans import remove_plan, rename_plan, write_plan
from napari_mosaik.workflow.recipe import read_recipe, write_recipe
from napari_mosaik.workflow.run import run, run_until
from napari_mosaik.workflow.steps import step_named
from napari_mosaik.workflow.twin import CaseTwin
from tests.workflow.test_plan_dose import EXACT, planned


@pytest.fixture
def case(computed_cohort, tmp_path):
    shutil.copytree(computed_cohort / "A2", tmp_path / "A2")
    return Case(tmp_path / "A2")


def quick(name: str, **values: Any) -> Plan:
    return planned(draws=20, **values).model_copy(update={"name": name})


def ran(case: Case) -> list[Progress]:
    seen = []
    recipe = read_recipe(case.root)
    recipe = {**recipe, "dose": recipe["dose"].model_copy(update={"samples": 16})}
    run_to_end(run_until(case, recipe, "dose"), lambda pair: seen.append(pair[1]))
    return seen


@pytest.mark.parametrize(
    ("owner", "slow", "reached"), [(PlanFacts, "suv", 0.0), (PlanModel, "unseen", 0.69)]
)
def test_progress_is_repeated_while_a_plan_begins_and_ends(case, monkeypatch, owner, slow, reached):
    monkeypatch.setattr(parallel, "_REPORT_S", 0.01)
    go, called, texts = threading.Event(), getattr(owner, slow), []

    def waits(*given: Any) -> Any:
        assert go.wait(60)
        return called(*given)

    monkeypatch.setattr(owner, slow, waits)
    write_plan(case.root, quick("A", kernel="built-in"))
    step, recipe = step_named("dose"), read_recipe(case.root)
    params = recipe["dose"].model_copy(update={"samples": 16})
    for progress in run(case, step, params, recipe=recipe):
        if progress.text == "plan A" and progress.fraction >= reached:
            texts.append(progress.text)
        if len(texts) > 20:
            go.set()
    assert go.is_set()


def test_what_a_plan_takes_from_a_case_tells_how_far_it_is(case):
    told: list[float] = []
    plan = quick("A").model_copy(update={"spreads": Spreads()})
    with of_this_item(told.append):
        PlanFacts(inputs_of(case, {}), plan, {})
    assert told == sorted(told)
    assert len(told) > 10
    assert told[-1] == pytest.approx(1.0)


def far_share(case: Case) -> Any:
    """Share of each tile's tissue that 10 mmHg of 40 do not reach, pixel by pixel."""
    from scipy.ndimage import distance_transform_edt

    vessels, tissue = case.store.read(CORRECTED_VESSELS), case.store.read(TISSUE["cd34"])
    lattice, grid = vessels.lattice, case.store.read(TILES)
    step = lattice.spacing_um[0]
    scale = case.store.read(ALIGNMENT["pet"])["scale"]
    far = distance_transform_edt(np.asarray(vessels.values[:]) == 0) * step
    far = far > 0.5 * math.sqrt(2 * 2000 * 40 / 15) * scale
    inside = tissue.onto(lattice).values > 0.5
    found = []
    for top, left in (grid.corners_um - lattice.origin_um) / step:
        rows, columns = (
            slice(max(0, round(at)), max(0, round(at + grid.size_um / step))) for at in (top, left)
        )
        found.append(far[rows, columns][inside[rows, columns]].mean())
    return np.array(found)


def test_a_plan_is_an_input_and_a_changed_one_makes_only_its_results_again(case, monkeypatch):
    state = case_status(case).states["dose"]
    assert (state.word, state.reason) == ("blocked", "no plan of a dose what-if given")
    assert "dose" not in case_status(case).next_step.lower()
    assert "Dose" not in cohort_line(case.root)
    write_plan(case.root, quick("A"))
    write_plan(case.root, quick("B", kernel="built-in", shape="tile", oxygen=True))
    write_plan(case.root, quick("C", spreads=EXACT))
    assert case_status(case).states["dose"].word == "missing"
    ran(case)
    table, record = case.store.read(DOSE), case.store.read(DOSE_RECORD)
    assert set(record["plans"]) == {"A", "B", "C"}
    assert table.unit("A.dose_gy_50") == "Gy"
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "docs")
    import outputs

    documented = json.loads(outputs.OUTPUTS.read_text("utf-8"))["dose"]
    assert all(column in documented for column in outputs.columns_of_plans(table))
    assert all(table.about[name] for name in table)
    own = record["plans"]["A"]
    assert own["uptake"] == "measured"
    assert own["weight"] == "neoplastic area"
    share = np.asarray(case.store.read(PARAMETERS)["neoplastic_fraction"])
    weight = np.nan_to_num(share) * case.store.read(TILES).coverage
    dose = np.asarray(table["C.dose_gy_50"])
    mean = np.nansum(dose * weight) / weight[np.isfinite(dose)].sum()
    assert record["plans"]["C"]["indices"]["mean_gy"]["median"] == pytest.approx(mean, rel=1e-6)
    assert {"name", "value", "source"} == set(own["constants"][0])
    assert len(record["limitations"]) == 5
    assert max(own["verification"].values()) < 1e-9
    np.testing.assert_allclose(table["A.hypoxic_share"], far_share(case), atol=0.03)
    shown = CaseResults(case)
    tables = {one.title.partition(": ")[2]: one for one in dose_tables(shown)}
    assert tables["plans"].rows[0][:2] == ("A", "day 0: 7400 MBq Lu-177")
    assert [row[:2] for row in tables["indices"].rows][:2] == [("A", "D98"), ("A", "D50")]
    words = "illustrative, not specific for ccRCC"
    assert ("all", "alpha", "0.3", words) in tables["constants"].rows
    assert ("Lu-177 electron_kev", "147.9") in [row[1:3] for row in tables["constants"].rows]
    assert dose_limitations(shown) == tuple(record["limitations"])
    assert any("blurred by the PET" in text for text in dose_warnings(shown))
    assert dose_figure(shown) is not None
    rows = [row for row in case_checks(shown) if "dose" in row.value]
    assert {(row.area, row.status) for row in rows} >= {
        ("Code verification", "pass"),
        ("Uncertainty", "not available"),
        ("Validation", "not available"),
    }
    write_plan(case.root, quick("B", alpha=0.2), replace=True)
    recipe = read_recipe(case.root)
    recipe = {**recipe, "dose": recipe["dose"].model_copy(update={"samples": 16})}
    state = case_status(case, recipe).states["dose"]
    assert (state.word, state.reason) == ("stale", "changed: plan of the dose what-if")
    texts = [progress.text for progress in ran(case)]
    assert texts.count("plan A") == 1 < texts.count("plan B")
    after = case.store.read(DOSE)
    np.testing.assert_array_equal(after["A.bed_gy_50"], table["A.bed_gy_50"])
    assert not np.array_equal(after["B.ln_survival_50"], table["B.ln_survival_50"])
    remove_plan(case.root, "B")
    remove_plan(case.root, "C")
    rename_plan(case.root, "A", "C")
    assert [progress.text for progress in ran(case)].count("plan C") == 1
    last = case.store.read(DOSE)
    assert {name.split(".")[0] for name in last} == {"C"}
    np.testing.assert_array_equal(last["C.bed_gy_50"], table["A.bed_gy_50"])
    assert case.store.read(DOSE_RECORD)["plans"]["C"]["plan"]["name"] == "C"


def test_the_dose_has_the_draws_of_the_twin_jointly(case):
    twin = CaseTwin(case)
    twin.take_in_next()
    twin.take_in_next()
    exact = dict.fromkeys((name for name in Spreads.model_fields if name != "uptake"), 0.0)
    spreads = {**exact, "time_course": 0.2, "uptake": False}
    write_plan(case.root, planned(draws=400, spreads=spreads))
    twin.use_in_plan("A")
    ran(case)
    record = case.store.read(DOSE_RECORD)["plans"]["A"]
    (words,) = record["plan"]["sources"]
    assert words.startswith("time course of the updating twin after 2 scans")
    assert record["time_course_shape"]["from"] == words
    assert record["time_course_shape"]["n_draws"] == 400
    row = {"name": "time_course_draws", "value": 400, "source": words}
    assert row in record["constants"]
    assert record["shares"]["sources"] == ["time_course"]
    # the closed form of the chain, draw by draw, and its variance
    chain, draws = Chain(twin.prior, twin.posterior.names), twin.posterior.draws[:400]
    hours = chain.ln_integral(draws, NUCLIDES["Lu-177"].half_life_h)
    ratio = np.exp(hours - chain.ln_curve(draws, [twin.surgery_h], "tumour")[:, 0])
    dose = np.array(record["drawn"]["mean_gy"])
    assert dose / dose.mean() == pytest.approx(ratio / ratio.mean(), rel=0.02)
    assert np.var(dose) / dose.mean() ** 2 == pytest.approx(
        np.var(ratio) / ratio.mean() ** 2, rel=0.03
    )
    tile = case.store.read(DOSE)["A.dose_gy_95"] / case.store.read(DOSE)["A.dose_gy_50"]
    expected = np.percentile(ratio, 95) / np.percentile(ratio, 50)
    assert np.nanmedian(tile) == pytest.approx(expected, rel=0.02)


def test_tiles_that_a_shift_moves_off_the_pet_are_counted(case, monkeypatch):
    from napari_mosaik.workflow import plan_facts

    true = plan_facts.tile_uptake

    def cut(*arguments):
        values = np.array(true(*arguments), float)
        values[:2] = np.nan
        return values

    monkeypatch.setattr(plan_facts, "tile_uptake", cut)
    write_plan(case.root, quick("A"))
    ran(case)
    words = case.store.read(DOSE_RECORD)["plans"]["A"]["warnings"]
    told = "2 tiles leave the PET in some of its shifts; there their uptake counts as measured"
    assert any(text.startswith(told) for text in words)


@pytest.mark.parametrize(
    ("removed", "plan", "words"),
    [
        ("weight_kg", quick("A"), "weight is missing; give weight_kg"),
        ("height_cm", quick("A"), "height is missing; give height_cm"),
        ("injected", quick("A", shape="tile"), "give injected with date and time"),
    ],
)
def test_what_a_plan_lacks_of_the_patient_is_named(case, removed, plan, words, monkeypatch):
    monkeypatch.setattr(PlanFacts, "_terms", lambda facts: {})
    with pytest.raises(InputError, match=words):
        PlanFacts(inputs_of(case, {removed: None}), plan, {})


def inputs_of(case: Case, injection: Any, more: Any = ()) -> Any:
    """The inputs of the step, with other terms of the injection and *more* results."""
    stored = dict(more)
    return SimpleNamespace(
        read=lambda artifact: stored.get(artifact) or case.store.read(artifact),
        record=case.store.record,
        has=lambda artifact: artifact in stored or case.store.origin(artifact) is not None,
        injection=lambda: case.file.injection.model_copy(update=injection),
        why_not=lambda artifact: "",
    )


def test_the_time_course_of_a_tile_is_1_at_the_excision(case, monkeypatch):
    monkeypatch.setattr(PlanFacts, "_terms", lambda facts: {})
    injected = case.file.injection.injected
    times = {"excised": injected + timedelta(hours=100), "scanned": injected + timedelta(hours=150)}
    facts = PlanFacts(inputs_of(case, times), quick("A", shape="tile"), {})
    assert facts.record["time_course_shape"]["uptake_at_h"] == pytest.approx(100)
    uptake = facts.uptake
    at = np.array([np.interp(100, [0, *uptake.time_h], [0, *row]) for row in uptake.shape])
    np.testing.assert_allclose(at, 1, atol=1e-9)


def test_errors_of_a_prediction_are_fields_of_its_calibration_in_suv(case):
    fields = {"sd": 0.05, "case_sd": 0.02, "length_um": 800.0}
    record = {"intervals": {"fields": fields}, "target": {"low": 1.0, "high": 5.0}}
    more = {PREDICTION: case.store.read(UPTAKE), PREDICTION_RECORD: record}
    plan = quick("A").model_copy(update={"draws": 400, "spreads": Spreads()})
    facts = PlanFacts(inputs_of(case, {}, more), plan, {})
    assert facts.record["uptake"] == "predicted"
    errors = facts.uptake.errors
    assert errors is not None
    assert errors.shape == (400, len(case.store.read(TILES)))
    assert errors.std() == pytest.approx(4 * math.hypot(0.05, 0.02), rel=0.1)


def test_an_old_predictor_does_not_keep_the_measured_uptake_from_its_dose(case):
    model = "0" * 32
    folder = case.root / "models" / model
    folder.mkdir(parents=True)
    (folder / "card.json").write_text('{"format": 1}')
    recipe = read_recipe(case.root)
    write_recipe(
        case.root, {**recipe, "predict": recipe["predict"].model_copy(update={"model": model})}
    )
    state = case_status(case).states["predict"]
    assert state.word == "blocked"
    assert "another version of this program (format 1, not 5); train it again" in state.reason
    write_plan(case.root, quick("A"))
    ran(case)
    own = case.store.read(DOSE_RECORD)["plans"]["A"]
    assert own["uptake"] == "measured"
    told = "there is no prediction, so the measured uptake counts: the predictor 000000000000 was"
    assert any(text.startswith(told) for text in own["warnings"])


def test_a_plan_that_cannot_be_read_blocks_its_step_with_a_sentence(case):
    (case.root / "plans").mkdir()
    (case.root / "plans" / "A.toml").write_text("alpha = 0\n[[courses]]\nactivity = 5\n")
    state = case_status(case).states["dose"]
    assert state.word == "blocked"
    assert "alpha/beta 0" in state.reason
    assert step_named("dose").optional
