"""One plan on tiles: against hand formulas, one curve and repair event by event; its draws.

python -m pytest tests/workflow/test_plan_dose.py
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.dosimetry import (
    DoseKernel,
    RepairState,
    dose_per_activity_gy,
    nuclide,
    spread_dose,
    uneven_ln_survival,
)
from napari_mosaik.dosimetry.response import UnevenTable
from napari_mosaik.dosimetry.time_integral import decayed_curve
from napari_mosaik.dosimetry.treatment import Infusions, time_form
from napari_mosaik.workflow.dose import curve_dose
from napari_mosaik.workflow.plan_dose import (
    SOURCE_TITLES,
    PlanModel,
    PlanResult,
    TileUptake,
    compare_plans,
    distance_edges_um,
    drawn_normals,
    iter_plan_dose,
)
from napari_mosaik.workflow.plan_record import Plan, Spreads, parse_plan

EXACT = {
    **{name: 0.0 for name in Spreads.model_fields if name != "uptake"},
    "uptake": False,
}
TIMES = np.array([4.0, 24.0, 72.0, 168.0])


def planned(**values: Any) -> Plan:
    given = {"courses": [{"nuclide": "Lu-177", "activity": 7400.0}], "draws": 40, **values}
    return parse_plan({"name": "A", **given})


def far_from_vessels(distance_um: Any) -> Any:
    """Shares (n, j) of the classes of distance, of the distances (n, pixels) in each tile."""
    edges = distance_edges_um()
    counts = np.stack([np.histogram(row, edges)[0] for row in distance_um])
    return counts / counts.sum(axis=1, keepdims=True)


def tiles(n: int = 6, suv: Any = 20.0, **values: Any) -> TileUptake:
    grid = TileGrid(
        Lattice("cd34", (1, n), (300.0, 300.0)),
        300.0,
        np.arange(n),
        np.ones(n),
        np.ones(n, bool),
    )
    given: dict[str, Any] = {
        "suv": np.broadcast_to(np.asarray(suv, float), n).copy(),
        "errors": None,
        "measure": 75_000.0,
        "surface_m2": 1.9,
        "weight": np.ones(n),
        "distances": far_from_vessels(np.full((n, 1), 60.0)),
        "time_h": np.array([72.0]),
        "shape": np.ones((1, 1)),
        "grid": grid,
        **values,
    }
    return TileUptake(**given)


def dosed(plan: Plan, uptake: TileUptake) -> PlanResult:
    return run_to_end(iter_plan_dose(plan, uptake, sobol_samples=16))


# --- numbers --------------------------------------------------------------------------------------
def test_without_any_spread_a_tile_is_the_hand_formula_and_one_curve(tmp_path):
    plan = planned(spreads=EXACT)
    found = dosed(plan, tiles()).columns
    concentration = 20.0 / 75_000 * 7400  # MBq/mL at injection, had it been there already
    decay = math.log(2) / 159.5
    left = math.exp(-decay * 72)
    hours = 72 * left / 2 + left / decay
    tia = concentration * hours
    gray = tia * 0.576784 * 0.1479 / 1.05
    file = tmp_path / "curve.csv"
    file.write_text(f"time_h,activity_mbq_ml\n72,{concentration!r}\n")
    curve = curve_dose(file, "Lu-177")
    for percent in ("05", "50", "95"):
        assert found[f"tia_mbq_h_ml_{percent}"] == pytest.approx(np.full(6, tia), rel=1e-12)
        assert found[f"dose_gy_{percent}"] == pytest.approx(np.full(6, gray), rel=1e-6)
        for key in ("dose_gy", "bed_gy", "eqd2_gy", "ln_survival", "alpha_particle_gy"):
            assert found[f"{key}_{percent}"] == pytest.approx(np.full(6, curve[key]), rel=1e-9)


def test_courses_fractions_and_curves_of_each_tile_agree_with_repair_event_by_event():
    rng = np.random.default_rng(3)
    shape, suv = rng.uniform(0.2, 2, (6, 4)), rng.uniform(5, 30, 6)
    courses = [
        {"nuclide": "Lu-177", "activity": 7400.0},
        {"nuclide": "Ac-225", "activity": 8.0, "day": 1},
        {"nuclide": "Lu-177", "activity": 5000.0, "day": 56},
    ]
    beam = [{"number": 3, "dose_gy": 2, "day": 2}]
    repair = [[0.6, 0.5], [0.4, 4.0]]
    plan = planned(courses=courses, fractions=beam, repair=repair, spreads=EXACT, density_g_ml=1.04)
    found = dosed(plan, tiles(suv=suv, time_h=TIMES, shape=shape)).columns
    for tile in range(6):
        state = RepairState([(p, math.log(2) / half) for p, half in repair])
        alpha = 0.0
        for course in courses:
            own = nuclide(course["nuclide"])
            values = suv[tile] * shape[tile] / 75_000 * course["activity"]
            curve = decayed_curve(TIMES, values, own.half_life_h)
            per = dose_per_activity_gy(own) / 1.04
            start = 24 * course.get("day", 0)
            state.add_curve(curve.time_h + start, per * curve.activity[0], curve.tail_per_h)
            span = np.trapezoid(curve.activity[0], curve.time_h)
            total = span + curve.activity[0, -1] / curve.tail_per_h
            alpha += total * dose_per_activity_gy(own, part="alpha") / 1.04
        for day in (2, 3, 4):
            state.add_fraction(24 * day, 2.0)
        dose, q = float(state.dose_gy()), float(state.q_gy2())
        killed = 0.3 * (dose + 5 * alpha) + 0.03 * q
        assert found["ln_survival_50"][tile] == pytest.approx(-killed, rel=1e-9)
        assert found["dose_gy_50"][tile] == pytest.approx(dose - 6, rel=1e-9)
        assert found["alpha_particle_gy_50"][tile] == pytest.approx(alpha, rel=1e-9)


def test_a_beam_alone_is_fractions_of_2_gy():
    plan = planned(courses=[], fractions=[{"number": 30, "dose_gy": 2}], spreads=EXACT)
    result = dosed(plan, tiles())
    assert result.columns["eqd2_gy_50"] == pytest.approx(np.full(6, 60.0), rel=1e-4)
    assert result.columns["dose_gy_95"] == pytest.approx(np.zeros(6))
    assert set(result.record["indices"]) == {"eud_gy"}
    assert result.record["fractions_gy"] == 60.0
    assert "tia_mbq_h_ml_50" not in result.columns


def test_doses_of_an_alpha_emitter_stay_apart():
    plan = planned(courses=[{"nuclide": "Ac-225", "activity": 8}], spreads=EXACT)
    result = dosed(plan, tiles())
    ratio = result.columns["alpha_particle_gy_50"] / result.columns["dose_gy_50"]
    assert ratio == pytest.approx(np.full(6, (27_480 + 510) / 690))
    large = planned(courses=[{"nuclide": "Ac-225", "activity": 8000}], spreads=EXACT)
    assert any("in kBq?" in text for text in dosed(large, tiles()).record["warnings"])


def test_the_forms_are_right_between_the_nodes_of_repair():
    plan = planned(fractions=[{"number": 5, "dose_gy": 2, "day": 3}])
    model = PlanModel(plan, tiles())
    factor = np.array([0.63, 1.0, 1.71])
    found = model.protraction(factor)
    mean = float(model.electron_gy[0])
    for value, g in zip(factor, found, strict=True):
        repair = [(1.0, math.log(2) / (1.5 * value))]
        own = Infusions(nuclide("Lu-177"), np.array([72.0]), [(0.0, 7400.0)])
        form = time_form([own], [(24.0 * (3 + n), 2.0) for n in range(5)], repair)
        y = mean / form.until_h[0]
        q = y**2 * form.square[0, 0] + 2 * y * form.cross[0] + form.fractions_gy2
        assert g == pytest.approx(q / (mean + 10) ** 2, rel=1e-4)


def test_dose_counts_until_the_day_that_is_asked_for():
    early = dosed(planned(until_days=7, doubling_days=10, spreads=EXACT), tiles())
    late = dosed(planned(spreads=EXACT), tiles())
    assert (early.columns["dose_gy_50"] < 0.6 * late.columns["dose_gy_50"]).all()
    for percent in ("05", "50"):
        name = f"tia_mbq_h_ml_{percent}"
        assert early.columns[name] == pytest.approx(late.columns[name])  # of all time
    still = dosed(planned(until_days=7, spreads=EXACT), tiles())
    lutetium = nuclide("Lu-177")
    curve = decayed_curve([72.0], [20.0 / 75_000 * 7400], lutetium.half_life_h)
    state = RepairState([(1.0, math.log(2) / 1.5)])
    rate = dose_per_activity_gy(lutetium) / 1.05 * curve.activity[0]
    state.add_curve(curve.time_h, rate, curve.tail_per_h)
    killed = 0.3 * float(state.dose_gy(168.0)) + 0.03 * float(state.q_gy2(168.0))
    assert still.columns["ln_survival_50"] == pytest.approx(np.full(6, -killed), rel=1e-9)
    born = early.columns["ln_survival_50"] - still.columns["ln_survival_50"]
    assert born == pytest.approx(np.full(6, math.log(2) * 0.7))
    assert early.record["time_course"]["critical_time_h"] > 0


# --- draws ----------------------------------------------------------------------------------------
def test_intervals_widen_with_each_spread_and_shares_name_it():
    for name, quantity in (("calibration", "dose_gy"), ("alpha", "ln_survival")):
        widths = []
        for cv in (0.0, 0.1, 0.4):
            plan = planned(spreads={**EXACT, name: cv}, draws=200)
            result = dosed(plan, tiles())
            low, high = (result.columns[f"{quantity}_{p}"][0] for p in ("05", "95"))
            widths.append(high - low)
        assert widths[0] < 1e-9 < widths[1] < 0.5 * widths[2]
        assert result.record["largest_source"] == name
        assert result.record["shares"]["total"]["ln_survival_mean"][name] == pytest.approx(
            1, abs=0.3
        )


def test_each_draw_is_the_product_of_its_factors():
    cvs = {"calibration": 0.1, "time_course": 0.3, "density": 0.2, "alpha": 0.3, "rbe": 0.2}
    plan = planned(spreads={**EXACT, **cvs}, courses=[{"nuclide": "Ac-225", "activity": 8}], beta=0)
    result, exact = (
        dosed(plan, tiles()),
        dosed(plan.model_copy(update={"spreads": Spreads(**EXACT)}), tiles()),
    )
    z = drawn_normals(plan)
    ln = {name: math.sqrt(math.log1p(cv**2)) * z[name] for name, cv in cvs.items()}
    factor = np.exp(ln["calibration"] + ln["time_course"] - ln["density"])
    mean = exact.record["indices"]["mean_gy"]["median"]
    assert result.record["drawn"]["mean_gy"] == pytest.approx(mean * factor, rel=1e-9)
    electron, alpha = (exact.columns[f"{k}_50"][0] for k in ("dose_gy", "alpha_particle_gy"))
    bed = (electron + 5 * np.exp(ln["rbe"]) * alpha) * factor
    low, high = np.percentile(bed, [5, 95])
    assert result.columns["bed_gy_05"][0] == pytest.approx(low, rel=1e-9)
    assert result.columns["bed_gy_95"][0] == pytest.approx(high, rel=1e-9)
    assert result.record["largest_source"] in ("alpha", "time_course")
    killed = np.percentile(bed * 0.3 * np.exp(ln["alpha"]), 95)
    assert result.columns["ln_survival_05"][0] == pytest.approx(-killed, rel=1e-9)


def test_each_draw_has_its_own_time_course_event_by_event():
    rng = np.random.default_rng(5)
    curves = rng.uniform(0.2, 2, (7, 4))
    shape, suv = curves.mean(axis=0, keepdims=True), rng.uniform(5, 30, 6)
    courses = [
        {"nuclide": "Lu-177", "activity": 7400.0},
        {"nuclide": "Ac-225", "activity": 8.0, "day": 1},
    ]
    beam = [{"number": 3, "dose_gy": 2, "day": 2}]
    plan = planned(
        courses=courses, fractions=beam, draws=20, spreads={**EXACT, "repair": 0.3}, until_days=30
    )
    uptake = tiles(suv=suv, time_h=TIMES, shape=shape, curve_draws=curves)
    model = PlanModel(plan, uptake)
    factors = model.factors(drawn_normals(plan), np.arange(20))
    own = {name: values[:, None] for name, values in factors.items()}
    found = model.response(own, np.arange(20), slice(None))
    for draw, tile in ((0, 0), (6, 3), (8, 5)):  # draw 8 has curve 1
        repair = [(1.0, math.log(2) / (1.5 * factors["repair"][draw]))]
        state, alpha, total = RepairState(repair), 0.0, {}
        for course in courses:
            isotope = nuclide(course["nuclide"])
            values = suv[tile] * curves[draw % 7] / 75_000 * course["activity"]
            curve = decayed_curve(TIMES, values, isotope.half_life_h)
            start = 24 * course.get("day", 0)
            rate = dose_per_activity_gy(isotope) / 1.05 * curve.activity[0]
            state.add_curve(curve.time_h + start, rate, curve.tail_per_h)
            tail = curve.activity[0, -1] / curve.tail_per_h
            total[isotope.name] = np.trapezoid(curve.activity[0], curve.time_h) + tail
            gone = tail * math.exp(-curve.tail_per_h * (720.0 - start - curve.time_h[-1]))
            own_alpha = dose_per_activity_gy(isotope, part="alpha") / 1.05
            alpha += (total[isotope.name] - gone) * own_alpha
        for day in (2, 3, 4):
            state.add_fraction(24 * day, 2.0)
        killed = 0.3 * (state.dose_gy(720.0) + 5 * alpha) + 0.03 * state.q_gy2(720.0)
        assert found.electron_gy[draw, tile] == pytest.approx(state.dose_gy(720.0) - 6, rel=1e-9)
        assert found.alpha_particle_gy[draw, tile] == pytest.approx(alpha, rel=1e-9)
        assert found.ln_survival[draw, tile] == pytest.approx(-killed, rel=2e-4)
        for name, hours in total.items():
            seen = getattr(found, f"uptake {name}")[draw, tile] * model.tia[name][tile]
            assert seen == pytest.approx(hours, rel=1e-9)


@pytest.mark.parametrize("nuclides", [("Lu-177",), ("Lu-177", "Ac-225")])
def test_curves_that_are_all_that_of_the_plan_change_nothing(nuclides):
    courses = [{"nuclide": name, "activity": 20.0} for name in nuclides]
    plan = planned(courses=courses, fractions=[{"number": 2, "dose_gy": 2}])
    shape = np.array([[0.5, 1.0, 1.2, 0.9]])
    given = {"suv": np.arange(6) + 1.0, "time_h": TIMES, "shape": shape}
    one = dosed(plan, tiles(**given))
    two = dosed(plan, tiles(**given, curve_draws=np.repeat(shape, 3, axis=0)))
    for name, values in one.columns.items():
        assert two.columns[name] == pytest.approx(values, rel=1e-9), name
    for name, values in one.record["drawn"].items():
        assert two.record["drawn"][name] == pytest.approx(values, rel=1e-7), name


def test_drawn_curves_are_one_share_of_uncertainty():
    curves = np.exp(np.random.default_rng(2).normal(0, 0.4, (256, 1))) * np.ones((1, 4))
    plan = planned(spreads={**EXACT, "alpha": 0.1}, beta=0, draws=256)
    uptake = tiles(time_h=TIMES, shape=np.ones((1, 4)), curve_draws=curves)
    result = run_to_end(iter_plan_dose(plan, uptake, sobol_samples=256))
    shares = result.record["shares"]
    assert shares["sources"] == ["time_course", "alpha"]
    assert shares["total"]["ln_dose_mean"]["time_course"] == pytest.approx(1, abs=0.05)
    ln = np.log(curves[:, 0]), math.log1p(0.1**2)  # -ln S is alpha times the dose
    expected = np.var(np.exp(ln[0])) / np.exp(ln[0]).mean() ** 2
    assert shares["first"]["ln_survival_mean"]["alpha"] == pytest.approx(
        0.01 / (0.01 + expected + 0.01 * expected), abs=0.03
    )
    drawn = np.array(result.record["drawn"]["mean_gy"])
    assert np.var(np.log(drawn)) == pytest.approx(np.var(ln[0]), rel=1e-9)


def test_plans_with_one_seed_are_paired_draw_by_draw():
    one = dosed(planned(seed=4), tiles(suv=np.arange(6) + 1.0))
    two = dosed(
        planned(seed=4, courses=[{"nuclide": "Lu-177", "activity": 14_800.0}]),
        tiles(suv=np.arange(6) + 1.0),
    )
    drawn = [np.array(result.record["drawn"]["mean_gy"]) for result in (one, two)]
    assert drawn[1] == pytest.approx(2 * drawn[0], rel=1e-12)
    records = {
        name: {**result.record, "plan": plan.model_dump(), "uptake": "measured"}
        for name, result, plan in (("A", one, planned(seed=4)), ("B", two, planned(seed=4)))
    }
    compared = compare_plans(records, "A", "B")["indices"]["mean_gy"]
    assert compared["share_higher"] == 1
    assert compared["median"] == pytest.approx(np.median(drawn[0]))
    for wrong, words in (("C", "no plan 'C'"), ("A", "with itself")):
        with pytest.raises(InputError, match=words):
            compare_plans(records, "A", wrong)
    records["B"]["plan"] = planned(seed=5).model_dump()
    with pytest.raises(InputError, match="the same seed and number of draws"):
        compare_plans(records, "A", "B")
    other = dosed(planned(seed=5), tiles(suv=np.arange(6) + 1.0))
    assert not np.allclose(other.record["drawn"]["mean_gy"], drawn[0])
    normals = drawn_normals(planned(seed=4, draws=2000))
    assert list(normals) == list(SOURCE_TITLES)
    assert np.abs(np.corrcoef(list(normals.values())) - np.eye(len(normals))).max() < 0.1


def test_errors_of_the_uptake_are_whole_fields_and_do_not_average_out():
    rng = np.random.default_rng(0)
    common = np.repeat(rng.normal(0, 4, (200, 1)), 6, axis=1)
    alone = rng.normal(0, 4, (200, 6))
    plan = planned(spreads={**EXACT, "uptake": True}, draws=200)
    width = []
    for errors in (common, alone):
        mean = dosed(plan, tiles(errors=errors)).record["indices"]["mean_gy"]
        width.append(mean["high"] - mean["low"])
    assert width[0] > 1.8 * width[1] > 0
    negative = dosed(plan, tiles(errors=np.full((1, 6), -50.0)))
    assert negative.columns["dose_gy_50"] == pytest.approx(np.zeros(6))
    assert negative.columns["tia_mbq_h_ml_50"] == pytest.approx(np.zeros(6))


def test_a_field_without_dose_does_not_take_all_shares_of_its_logarithm():
    errors = np.zeros((10, 6))
    errors[0] = -50.0
    plan = planned(spreads={**EXACT, "uptake": True, "calibration": 0.5}, draws=40)
    result = run_to_end(iter_plan_dose(plan, tiles(errors=errors), sobol_samples=1024))
    for output in ("ln_dose_median", "ln_dose_mean"):
        first = result.record["shares"]["first"][output]
        lost = 0.09 * math.log(100) ** 2  # one field in ten has no dose, which counts as 1 %
        drawn = math.log1p(0.5**2)
        assert first["calibration"] == pytest.approx(drawn / (drawn + lost), abs=0.05)
        assert first["uptake"] == pytest.approx(lost / (drawn + lost), abs=0.05)


def test_what_differs_within_a_tile_lets_more_cells_survive():
    even, uneven = (dosed(planned(within_cv=cv, spreads=EXACT), tiles()) for cv in (0, 0.3))
    a = 0.3 * even.columns["dose_gy_50"]
    b = -even.columns["ln_survival_50"] - a
    exact = uneven_ln_survival(a, b, 0.3)
    assert uneven.columns["ln_survival_50"] == pytest.approx(exact, rel=1e-3)
    rows = uneven.record["unseen_variation"]
    assert [row["cv"] for row in rows] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    eud = [row["eud_gy"] for row in rows]
    assert eud == sorted(eud, reverse=True)
    assert eud[3] == pytest.approx(uneven.record["indices"]["eud_gy"]["median"], rel=1e-3)


def test_the_table_of_uneven_doses_keeps_its_word():
    rng = np.random.default_rng(1)
    effect, share, cv = np.exp(rng.uniform(-6, 4.6, 500)), rng.random(500), rng.uniform(0, 0.5, 500)
    found = UnevenTable().ln_survival(effect * (1 - share), effect * share, cv)
    exact = uneven_ln_survival(effect * (1 - share), effect * share, cv)
    np.testing.assert_allclose(found, exact, rtol=1e-3)
    assert UnevenTable().ln_survival(0.0, 0.0, 0.3) == 0


def test_oxygen_lessens_the_effect_but_not_the_dose():
    plan = planned(oxygen=True, spreads=EXACT)
    half = 0.5 * math.sqrt(2 * 2000 * 40 / 15)  # 10 mmHg of 40
    pixels = ([1.0], [99.0], [half - 0.1, half + 0.1, half - 0.2, half + 0.2])
    shares = [np.repeat(far_from_vessels([row]), 6, axis=0) for row in pixels]
    close, away, both = (dosed(plan, tiles(distances=one)).columns for one in shares)
    assert close["dose_gy_50"] == pytest.approx(away["dose_gy_50"])
    assert (away["ln_survival_50"] > 0.5 * close["ln_survival_50"]).all()
    for found, hypoxic in ((close, 0.0), (away, 1.0), (both, 0.5)):
        assert found["hypoxic_share"] == pytest.approx(np.full(6, hypoxic))


@pytest.mark.parametrize("within_cv", [0.0, 0.2])
@pytest.mark.parametrize("suv", [3.0, 20.0, 100.0])
def test_survival_with_oxygen_is_that_of_every_pixel(suv, within_cv):
    """Every pixel at its own distance; the effect at a mean distance would be too large."""
    rng = np.random.default_rng(2)
    pixels = rng.rayleigh(np.array([[15.0], [30], [45], [60], [90], [200]]), (6, 4000))
    courses = [
        {"nuclide": "Lu-177", "activity": 7400.0},
        {"nuclide": "Ac-225", "activity": 0.5, "day": 1},
    ]
    beam = [{"number": 2, "dose_gy": 2, "day": 3}]
    given = {"courses": courses, "fractions": beam, "within_cv": within_cv, "spreads": EXACT}
    uptake = tiles(suv=suv, distances=far_from_vessels(pixels))
    found = dosed(planned(oxygen=True, **given), uptake).columns["ln_survival_50"]
    plain = dosed(planned(**given), uptake)
    electron, alpha = (plain.columns[f"{k}_50"][0] for k in ("dose_gy", "alpha_particle_gy"))
    model = PlanModel(planned(**given), uptake)
    form, curve = model.forms[0], suv / 75_000 * np.ones(2)
    per = np.array([dose_per_activity_gy(n) / 1.05 for n in ("Lu-177", "Ac-225")])
    alone = curve * per @ form.square @ (curve * per)
    cross = 2 * (curve * per) @ form.cross
    pressure = 40 * np.clip(1 - pixels / math.sqrt(2 * 2000 * 40 / 15), 0, None) ** 2
    h, h_alpha = ((m * pressure + 3) / (m * (pressure + 3)) for m in (3, 1.15))
    linear = 0.3 * (electron * h + 5 * alpha * h_alpha) + 0.03 * cross * h**2
    quadratic = 0.03 * alone * h**2
    fixed = 0.3 * 4 * h + 0.03 * form.fractions_gy2 * h**2
    ln_s = UnevenTable().ln_survival(linear, quadratic, within_cv) - fixed
    expected = np.log(np.mean(np.exp(ln_s), axis=1))
    assert found == pytest.approx(expected, rel=0.012)
    far_beyond = dosed(planned(oxygen=True, **given), tiles(suv=5e4, distances=uptake.distances))
    assert np.isfinite(far_beyond.columns["ln_survival_50"]).all()


def test_without_a_distance_to_a_vessel_there_is_no_response_but_a_dose():
    shares = far_from_vessels(np.full((6, 1), 60.0))
    shares[2] = np.nan
    result = dosed(planned(oxygen=True, spreads=EXACT), tiles(distances=shares))
    assert np.isnan(result.columns["ln_survival_50"]).tolist() == [i == 2 for i in range(6)]
    assert np.isnan(result.columns["hypoxic_share"]).tolist() == [i == 2 for i in range(6)]
    assert np.isfinite(result.columns["dose_gy_50"]).all()
    assert "1 tile has no distance to a vessel and so no response" in result.record["warnings"]


def test_a_kernel_moves_dose_to_the_neighbours_and_asks_about_its_reach():
    plan = planned(
        kernel="built-in", courses=[{"nuclide": "Y-90", "activity": 1000}], spreads=EXACT
    )
    result = dosed(plan, tiles(suv=[0, 0, 20, 0, 0, 0]))
    dose = result.columns["dose_gy_50"]
    assert dose[2] > dose[1] > dose[0] > 0
    assert any("more than half of the specimen" in text for text in result.record["warnings"])
    local = dosed(plan.model_copy(update={"kernel": "local"}), tiles(suv=[0, 0, 20, 0, 0, 0]))
    assert (local.columns["dose_gy_50"] > 0).tolist() == [False, False, True, False, False, False]


def test_a_kernel_acts_at_lengths_of_living_tissue():
    plan = planned(kernel="built-in", spreads=EXACT)
    uptake = tiles(suv=[0, 0, 20, 0, 0, 0], living_scale=0.8)
    local = dosed(plan.model_copy(update={"kernel": "local"}), uptake).columns["dose_gy_50"]
    kernel = DoseKernel.built_in("Lu-177")
    spread = spread_dose(local[None], (375.0, 375.0), kernel, density_g_ml=1.05)
    assert dosed(plan, uptake).columns["dose_gy_50"] == pytest.approx(spread[0], rel=1e-9)


def test_a_kernel_spreads_the_map_of_every_error_field():
    rng = np.random.default_rng(5)
    errors, suv = rng.normal(0, 15, (3, 6)), np.array([2.0, 0, 20, np.nan, 8, 5])
    plan = planned(kernel="built-in", spreads={**EXACT, "uptake": True}, draws=20)
    uptake = tiles(suv=suv, errors=errors)
    local = dosed(plan.model_copy(update={"kernel": "local"}), tiles(suv=1.0)).columns
    per_suv, kernel = local["dose_gy_50"][0], DoseKernel.built_in("Lu-177")
    expected = [
        np.nanmean(spread_dose(per_suv * np.maximum(suv + one, 0)[None], 300, kernel))
        for one in errors
    ]
    result = dosed(plan, uptake)
    drawn = result.record["drawn"]["mean_gy"]
    assert drawn == pytest.approx([expected[draw % 3] for draw in range(20)], rel=1e-5)
    cold = result.columns["dose_gy_50"][1]
    assert cold > 0  # a tile that takes nothing up is hit by its neighbours
    assert np.isnan(result.columns["dose_gy_50"][3])
    model = PlanModel(plan, uptake)  # asked before its fields are spread, it spreads them
    own = {name: value[:, None] for name, value in model.factors(drawn_normals(plan)).items()}
    found = model.response(own, np.arange(20), slice(None))
    assert np.nanmean(found.dose_gy, axis=1) == pytest.approx(drawn, rel=1e-9)


def test_tumour_control_needs_cells_and_an_activity_per_surface_the_surface():
    assert "tcp" not in dosed(planned(), tiles()).record["indices"]
    result = dosed(planned(clonogens_per_ml=1e7, tumour_ml=2), tiles())
    assert 0 <= result.record["indices"]["tcp"]["median"] <= 1
    surface = planned(courses=[{"activity": 2405, "unit": "MBq/m2"}], spreads=EXACT)
    with pytest.raises(InputError, match="body surface"):
        dosed(surface, tiles(surface_m2=None))
    with pytest.raises(InputError, match="no tile has both an uptake and neoplastic"):
        dosed(planned(), tiles(suv=np.nan))


def test_repair_is_verified_by_quadrature_and_a_wrong_form_is_noticed():
    plan = planned(
        courses=[{"nuclide": "Lu-177", "activity": 7400, "day": day} for day in (0, 56)],
        fractions=[{"number": 5, "dose_gy": 2, "day": 57}],
        repair=[[0.6, 0.5], [0.4, 4.0]],
    )
    model = PlanModel(plan, tiles(time_h=TIMES, shape=np.array([[0.5, 1.0, 1.0, 0.9]])))
    assert max(model.verification().values()) < 1e-9
    model._fractions = model._fractions[:-1]  # the quadrature lacks a fraction, the stored form not
    model.forms, model._until_h = model.forms[:1], math.inf
    model._repair = lambda scale: [(0.6, math.log(2) / 0.5), (0.4, math.log(2) / 4)]
    assert model.verification()["repair"] > 1e-3


def test_the_rate_of_the_median_tile_adds_up_to_its_dose():
    plan = planned(fractions=[{"number": 2, "dose_gy": 2, "day": 5}], spreads=EXACT)
    result = dosed(plan, tiles(suv=[1, 2, 3, 4, 5, 6]))
    course = result.record["time_course"]
    area = np.trapezoid(course["electron_gy_h"], course["time_h"])
    assert area == pytest.approx(result.columns["dose_gy_50"][course["tile"]], rel=0.03)
    alpha = planned(courses=[{"nuclide": "Ac-225", "activity": 8}], spreads=EXACT)
    high = dosed(alpha, tiles(suv=[1, 2, 3, 4, 5, 6]))
    rate = high.record["time_course"]
    area = np.trapezoid(rate["alpha_particle_gy_h"], rate["time_h"])
    at = high.columns["alpha_particle_gy_50"][rate["tile"]]
    assert area == pytest.approx(at, rel=0.03)
    peak = np.array(course["unrepaired_gy"])
    assert peak.max() > 2
