"""Arms of a virtual cohort: outcomes by hand, organs, antibody mass, and what is refused."""

import json
import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from napari_mosaik.cli import main
from napari_mosaik.core import Cancelled, InputError, Origin, Table
from napari_mosaik.core.catalogue import PARAMETERS, TILES, UPTAKE
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.invivo import InvivoValue
from napari_mosaik.core.progress import cancellable, run_to_end
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.io import create_case
from napari_mosaik.io.case_file import CaseFile
from napari_mosaik.twin.chain import Chain
from napari_mosaik.view.twin import cohort_figure
from napari_mosaik.workflow.invivo import add_invivo
from napari_mosaik.workflow.plan_dose import lost_effect
from napari_mosaik.workflow.plan_facts import TileFacts
from napari_mosaik.workflow.plan_presets import ARM_SETS, PRESETS
from napari_mosaik.workflow.plan_record import Course, Fractions, Plan
from napari_mosaik.workflow.plans import add_arms, read_plans, remove_plan, write_plan
from napari_mosaik.workflow.twin import CaseTwin
from napari_mosaik.workflow.virtual_cohort import (
    COHORT_OUTCOMES,
    SIMULATED,
    PatientDoses,
    cohort_document,
    cohort_threshold,
    outcome_kind,
    plan_cohort,
)

INJECTION = {
    "nuclide": "Zr-89", "dose_mbq": 37.6, "injected": "2024-03-04T10:00", "weight_kg": 75.0,
    "height_cm": 178.0, "sex": "M", "antibody_mass_mg": 10.0,
}  # fmt: skip
ONE = Course(nuclide="Lu-177", activity=3000, unit="MBq")
SUV, SHARE = [0.5, 1.5, np.nan, 1.0], [0.2, 0.8, 0.4, 0.0]
"""Uptake and neoplastic share of four tiles, of which two count."""
CELLS = 2e3


@pytest.fixture
def case(tmp_path):
    made = create_case(
        tmp_path / "A2", CaseFile(name="A2", patient="patient 1", injection=INJECTION)
    )
    about = {"unit": "SUVbw", "decay_reference": "injection", "region": "tumour"}
    rows = [(72, 3.4), (120, 3.6), (168, 3.7)]
    add_invivo(made, [InvivoValue(time_h=t, mean=y, sd=0.06 * y, **about) for t, y in rows])
    return made


def give_tiles(case):
    lattice = Lattice("he", (1, 4), spacing_um=(300.0, 300.0))
    grid = TileGrid(lattice, 300.0, np.arange(4), np.ones(4), np.ones(4, bool))
    parameters = Table(
        {"neoplastic_fraction": np.array(SHARE)}, {"neoplastic_fraction": "1"}, {}, "he"
    )
    uptake = Table({"suv": np.array(SUV)}, {"suv": "cm²/mL"}, {}, "he")
    with case.writing():
        for artifact, content in ((TILES, grid), (PARAMETERS, parameters), (UPTAKE, uptake)):
            case.store.commit(Origin(artifact.name, 1, "x", ()), {artifact: content}, {})


def simulated(case, **settings):
    return run_to_end(plan_cohort(CaseTwin(case), **{"n": 40, **settings}))


def call(capsys, *arguments):
    """Exit code and JSON, or the line on standard error, of ``twin cohort``."""
    with pytest.raises(SystemExit) as ended:
        main(["twin", "cohort", *map(str, arguments), "--json"])
    out = capsys.readouterr()
    code = int(ended.value.code or 0)
    return code, json.loads(out.out) if code == 0 else out.err


def by_hand(found, plan, *, h=(1.0, 1.0), relative=(0.5, 1.5), weight=(0.2, 0.8)):
    """Tumour control of two tiles, tile by tile, of doses and Q of the tumour's mean."""
    survivors = np.zeros(len(found["q"]))
    for r, w, o in zip(relative, weight, h, strict=True):
        beam = found["fractions"]
        effect = plan.alpha * o * (r * found["electron"] + beam)
        effect = effect + plan.alpha * plan.rbe * r * found["alpha"]
        q = r**2 * found["q_nuclides"] + r * found["q_mixed"]
        q = q + found["q"] - found["q_nuclides"] - found["q_mixed"]
        survivors += w / sum(weight) * np.exp(-(effect + plan.beta * o**2 * q))
    return np.exp(-CELLS * survivors)


def test_tumour_control_is_that_of_the_tiles_by_hand(case):
    give_tiles(case)
    beam = (Fractions(number=3, dose_gy=2.0, day=4),)
    plan = Plan(name="one", courses=(ONE,), fractions=beam, clonogens=CELLS)
    write_plan(case.root, plan)
    cohort = simulated(case)
    arm = PatientDoses(CaseTwin(case), plan, cohort.names)
    found = arm.doses(cohort.draws)
    control = cohort.values["tcp"]["one"]
    assert ((control > 0.01) & (control < 0.99)).sum() >= 3
    np.testing.assert_allclose(control, by_hand(found, plan), rtol=1e-9)
    even = np.exp(-CELLS * np.exp(-plan.alpha * cohort.values["bed"]["one"]))
    assert even.mean() > control.mean() + 0.02  # that of the mean dose is too high
    assert "measured uptake of 2 tiles, neoplastic area" in cohort.patterns["one"]
    assert any("overstated" in text for text in cohort.notes)


def test_tumour_control_of_a_constant_map_follows_from_its_bed(case):
    give_tiles(case)
    grid = Table({"suv": np.full(4, 0.7)}, {"suv": "cm²/mL"}, {}, "he")
    with case.writing():
        case.store.commit(Origin(UPTAKE.name, 2, "y", ()), {UPTAKE: grid}, {})
    plan = Plan(
        name="two", courses=(ONE, Course(nuclide="Ac-225", activity=0.2, unit="MBq")),
        tumour_ml=1e-3, clonogens_per_ml=1e6, doubling_days=20, until_days=60,
    )  # fmt: skip
    write_plan(case.root, plan)
    cohort = simulated(case)
    expected = np.exp(-1e3 * np.exp(-plan.alpha * cohort.values["bed"]["two"]))
    assert cohort.values["alpha"]["two"].min() > 0
    np.testing.assert_allclose(cohort.values["tcp"]["two"], expected, rtol=1e-9)


def test_oxygen_and_unseen_variation_enter_tumour_control(case, monkeypatch):
    give_tiles(case)
    shares = np.zeros((4, lost_effect().size))
    shares[:, 0], shares[:, 6] = [0.75, 0.5, 1, 1], [0.25, 0.5, 0, 0]
    monkeypatch.setattr(TileFacts, "distances", lambda facts: shares)
    plain = Plan(name="plain", courses=(ONE,), clonogens=CELLS)
    oxygen = plain.model_copy(update={"name": "oxygen", "oxygen": True})
    unseen = plain.model_copy(update={"name": "unseen", "within_cv": 0.4})
    for plan in (plain, oxygen, unseen):
        write_plan(case.root, plan)
    cohort = simulated(case)
    found = PatientDoses(CaseTwin(case), plain, cohort.names).doses(cohort.draws)
    h = 1 - (1 - 1 / 3.0) * lost_effect()[[0, 6, 0, 6]]
    parts = {"relative": (0.5, 0.5, 1.5, 1.5), "weight": (0.15, 0.05, 0.4, 0.4), "h": h}
    control = cohort.values["tcp"]
    np.testing.assert_allclose(control["oxygen"], by_hand(found, oxygen, **parts), rtol=1e-9)
    assert (control["oxygen"] <= control["plain"]).all()
    assert cohort.of("tcp").better("plain", "oxygen") > 0.8
    x = np.exp(np.random.default_rng(0).normal(0, math.sqrt(math.log1p(0.16)), 40_000))
    x *= math.exp(-math.log1p(0.16) / 2)
    survivors = np.zeros(5)
    for r, w in ((0.5, 0.2), (1.5, 0.8)):
        dose, q = r * found["electron"][:5, None], r**2 * found["q_nuclides"][:5, None]
        survivors += w * np.exp(-0.3 * dose * x - 0.03 * q * x**2).mean(axis=1)
    np.testing.assert_allclose(control["unseen"][:5], np.exp(-CELLS * survivors), atol=0.02)


def test_tumour_control_needs_cells_and_a_slide(case, capsys):
    write_plan(case.root, Plan(name="one", courses=(ONE,)))
    code, words = call(capsys, case.root, "--outcome", "tcp")
    assert code == 2
    assert "plan 'one' states neither the volume of the tumour nor its number" in words
    write_plan(case.root, Plan(name="one", courses=(ONE,), clonogens=CELLS), replace=True)
    code, words = call(capsys, case.root, "--outcome", "tcp")
    assert code == 2
    assert "no uptake of its tiles, and the tumour control of a mean dose is" in words
    assert call(capsys, case.root)[1]["not_available"]["tcp"] in words
    plan = Plan(name="one", courses=(ONE,), clonogens=CELLS, within_cv=0.3)
    write_plan(case.root, plan, replace=True)
    code, found = call(capsys, case.root, "--outcome", "tcp", "--threshold", "50 %", "--n", 40)
    assert (code, found["unit"], found["threshold"]) == (0, "1", 0.5)
    assert found["patterns"]["one"].startswith("no slide: lognormal differences")
    found = call(capsys, case.root, "--outcome", "tcp", "--n", 40)[1]
    assert (found["threshold"], found["threshold_from"]) == (0.5, "an even chance")


def test_a_smaller_dose_of_an_organ_is_the_better_one(case, tmp_path, capsys):
    three = tuple(ONE.model_copy(update={"day": 84.0 * n}) for n in range(3))
    write_plan(case.root, Plan(name="one", courses=(ONE,)))
    write_plan(case.root, Plan(name="three", courses=three))
    code, words = call(capsys, case.root, "--outcome", "organ:kidney")
    assert code == 2
    assert "the case has no table of organs" in words
    file = tmp_path / "lu.csv"
    file.write_text("organ,mgy_per_mbq,limit_gy,cv\nkidney,1.5,23,0.2\nmarrow,0.1,2,0\n", "utf-8")
    assert "does not say of which nuclide" in call(capsys, case.root, "--organs", file)[1]
    code, found = call(
        capsys, case.root, "--outcome", "organ:kidney", "--organs", f"177Lu={file}", "--n", 200
    )
    assert code == 0
    assert (case.root / "organs" / "Lu-177.csv").read_bytes() == file.read_bytes()
    assert (found["better_is"], found["threshold"]) == ("smaller", 23.0)
    assert found["threshold_from"] == "limit of the organ"
    assert found["better"] == [{"a": "one", "b": "three", "probability": 1.0}]
    one, last = found["arms"]
    assert one["median"] == pytest.approx(4.5, rel=0.06)
    assert last["median"] == pytest.approx(3 * one["median"], rel=1e-12)  # the same patients
    assert one["responders"] == 1.0
    assert math.log(one["high"] / one["low"]) / 3.29 == pytest.approx(0.198, rel=0.25)
    tight = call(capsys, case.root, "--outcome", "organ:kidney", "--threshold", 4.5)[1]
    assert [arm["responders"] for arm in tight["arms"]] == [pytest.approx(0.5, abs=0.1), 0.0]
    marrow = call(capsys, case.root, "--outcome", "organ:marrow", "--plan", "one")[1]
    assert marrow["arms"][0]["low"] == marrow["arms"][0]["high"] == pytest.approx(0.3)
    assert marrow["notes"][0].startswith("Every patient has the outcome 0.3 in every arm")
    assert not any("Every patient has the outcome" in text for text in tight["notes"])
    code, words = call(capsys, case.root, "--outcome", "organ:kidny")
    assert code == 2
    assert "did you mean 'organ:kidney'?" in words
    file.write_text("organ,mgy_per_mbq,limit_gy\n,1,2\n", "utf-8")
    assert (
        "row 1, ',1,2', names no organ" in call(capsys, case.root, "--organs", f"Lu-177={file}")[1]
    )

    # another nuclide has other coefficients, and a beam none
    write_plan(case.root, Plan(name="ac", courses=(Course(nuclide="Ac-225", activity=8),)))
    code, words = call(capsys, case.root, "--outcome", "organ:kidney")
    assert code == 2
    assert "plan 'ac' gives Ac-225, and no table of organs of Ac-225 in this case has" in words
    assert call(capsys, case.root, "--outcome", "organ:kidney", "--plan", "one")[0] == 0
    write_plan(case.root, Plan(name="beam", fractions=(Fractions(number=5, dose_gy=2.0),)))
    chosen = ("--plan", "beam", "--plan", "one")
    assert "an external beam" in call(capsys, case.root, "--outcome", "organ:kidney", *chosen)[1]


def test_an_organ_of_two_nuclides_is_the_sum_of_both(case, tmp_path):
    both = (ONE, Course(nuclide="Ac-225", activity=4))
    write_plan(case.root, Plan(name="both", courses=both))
    for name, text in (("Lu-177", "kidney,1,23"), ("Ac-225", "kidney,200,23")):
        file = case.root / "organs" / f"{name}.csv"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"organ,mgy_per_mbq,limit_gy\n{text}\n", "utf-8")
    values = simulated(case).values["organ:kidney"]["both"]
    np.testing.assert_allclose(values, 3000e-3 + 0.8)


def test_a_smaller_mass_of_antibody_leaves_more_antigen(case):
    write_plan(case.root, Plan(name="plain", courses=(ONE,)))
    for mass in (5, 10, 50):
        write_plan(case.root, Plan(name=f"{mass} mg", courses=(ONE,), antibody_mg=mass))
    cohort = simulated(case, antigen_um=0.005)
    dose = cohort.values["electron"]
    np.testing.assert_array_equal(dose["10 mg"], dose["plain"])  # that of the tracer
    assert (dose["5 mg"] > dose["10 mg"]).all()
    assert (dose["50 mg"] < 0.9 * dose["10 mg"]).all()
    much = simulated(case, antigen_um=1e4).values["electron"]
    np.testing.assert_allclose(much["5 mg"], much["50 mg"], rtol=1e-2)


def test_the_antigen_in_the_unit_of_the_scans(case):
    arm = PatientDoses(CaseTwin(case), Plan(name="x", courses=(ONE,)), ["transfer_per_h"])
    um_per_suv = 10e-3 / 150e3 * 1e6 / 75.0  # 10 mg of 150 kg/mol in 75 kg, per L
    assert arm._antigen(10.0) == pytest.approx(0.3662 / um_per_suv)
    assert arm._antigen(5.0) == pytest.approx(2 * arm._antigen(10.0))


def test_an_antigen_with_an_end_against_an_ode_solver(case):
    twin = CaseTwin(case)
    names = twin.posterior.names
    chain, points = Chain(twin.prior, names), twin.posterior.draws[:4]
    times = np.concatenate([[0.0], np.geomspace(0.5, 1500.0, 63)])
    found = np.exp(chain.ln_curve_with_antigen(points, times, 4.0))
    fixed = dict(zip(twin.prior.names, np.exp(twin.prior.mean), strict=True))
    for row, point in zip(found, points, strict=True):
        p = fixed | dict(zip(names, np.exp(point), strict=True))

        def plasma(t, p=p):
            fast, slow = (2 ** (-t / p[f"{one}_half_life_h"]) for one in ("fast", "slow"))
            return p["plasma_start"] * (0.4 * fast + 0.6 * slow)

        def change(t, y, p=p, plasma=plasma):
            bound = p["transfer_per_h"] * plasma(t) * (1 - y.sum() / 4.0) - p["k32_per_h"] * y[0]
            return [bound, p["k32_per_h"] * y[0] - p["k03_per_h"] * y[1]]

        solved = solve_ivp(change, (0, 1500), [0, 0], "LSODA", times, rtol=1e-9, atol=1e-12)
        expected = 0.95 * solved.y.sum(axis=0) + 0.05 * 0.55 * plasma(times)
        np.testing.assert_allclose(row, expected, rtol=2e-3)
    endless = np.exp(chain.ln_curve_with_antigen(points, times, 1e9))
    np.testing.assert_allclose(endless, np.exp(chain.ln_curve(points, times, "tumour")), rtol=1e-6)
    same = chain.ln_curve_with_antigen(points, times, 4.0, 4.0)
    np.testing.assert_allclose(same, chain.ln_curve(points, times, "tumour"), rtol=1e-12)


def test_a_cohort_reports_and_stops_within_an_arm(case):
    write_plan(case.root, Plan(name="one", courses=(ONE,)))
    seen = []
    run_to_end(plan_cohort(CaseTwin(case), n=3000), seen.append)
    within = [at.fraction for at in seen if 0 < at.fraction < 1]
    assert len(within) >= 5
    assert within == sorted(within)
    twin, calls = CaseTwin(case), []
    names, plan = twin.start["free"], Plan(name="x", courses=(ONE,))

    def asked():
        calls.append(1)
        return len(calls) > 20

    with cancellable(asked), pytest.raises(Cancelled):
        PatientDoses(twin, plan, names)


@pytest.mark.parametrize(
    ("text", "outcome", "says"),
    [
        ("much", "bed", "'much' is not a number"),
        ("20 MBq", "bed", "is in MBq, but BED of the mean dose is Gy"),
        ("50 %", "bed", "is in %"),
        ("20 Gy", "tcp", "is in Gy, but Tumour control"),
        ("20", "tcp", "20 is not a probability"),
        ("-1", "electron", "is negative"),
        ("nan", "bed", "not a number"),
    ],
)
def test_thresholds_that_are_refused(text, outcome, says):
    with pytest.raises(InputError, match=says):
        cohort_threshold(text, outcome_kind(outcome))


def test_thresholds_with_and_without_unit():
    assert cohort_threshold(" ", COHORT_OUTCOMES["bed"]) is None
    assert cohort_threshold("20,5 Gy", COHORT_OUTCOMES["bed"]) == 20.5
    assert cohort_threshold("-3", COHORT_OUTCOMES["bed"]) == -3.0
    assert cohort_threshold("5 %", COHORT_OUTCOMES["tcp"]) == 0.05
    assert cohort_threshold("1e1", outcome_kind("organ:marrow")) == 10.0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--n", "0"), "whole number of 1 or more, not 0"),
        (("--n", "200000"), "200000 patients are too many"),
        (("--seed", "-1"), "--seed"),
        (("--plan", "two"), "has no plan 'two'; the plans of the case are: one"),
        (("--outcome", "suv"), "there is no outcome 'suv'; choose from: bed, electron, alpha, tcp"),
        (("--threshold", "5", "--outcome", "tcp"), "5 is not a probability"),
        (("--half-width", "0.7"), "half width"),
        (("--antigen-um", "0"), "the antigen must be above 0"),
        (("--organs", "Xx-1=a.csv"), "Xx-1"),
    ],
)
def test_cohorts_that_are_refused_in_one_line(case, capsys, arguments, says):
    write_plan(case.root, Plan(name="one", courses=(ONE,)))
    code, words = call(capsys, case.root, *arguments)
    assert code == 2
    assert says in words
    assert words.count("\n") == 1


def test_arms_that_are_far_apart_are_drawn_on_a_logarithmic_axis(case):
    write_plan(case.root, Plan(name="one", courses=(ONE,)))
    much = ONE.model_copy(update={"activity": 3e5})
    write_plan(case.root, Plan(name="much", courses=(much,)))
    cohort = simulated(case)

    def drawn(threshold):
        told = {"drawn_from": "prior", "seed": 0, "outcome": "electron", "threshold": threshold}
        (axes,) = cohort_figure(cohort, cohort_document(cohort, **told)).axes
        return axes

    assert drawn(10.0).get_xscale() == "log"
    axes = drawn(0.0)
    assert axes.get_xscale() == "linear"
    assert [text.get_text() for text in axes.texts] == [SIMULATED]
    counted = drawn(10.0).patches
    assert len(counted) == 2


def test_the_document_names_the_direction(case):
    write_plan(case.root, Plan(name="one", courses=(ONE,)))
    cohort = simulated(case)
    document = cohort_document(cohort, drawn_from="prior", seed=0, outcome="electron")
    assert (document["better_is"], document["threshold_from"]) == ("larger", "median of all arms")
    assert document["better"] == []  # one arm
    assert document["arms"][0]["responders"] == 0.5
    with pytest.raises(InputError, match="Tumour control"):
        cohort.of("tcp")


def test_preset_arms_are_plans_with_their_sources(case, capsys):
    code, words = call(capsys, case.root, "--arms", "dose")
    assert (code, "choose from: mass, courses, nuclide" in words) == (2, True)
    own = Plan(name="own", courses=(ONE,), tumour_ml=0.001)
    write_plan(case.root, own)
    code, found = call(capsys, case.root, "--arms", "courses", "--n", 40)
    names = ["177Lu one course", "177Lu three courses"]
    assert (code, [arm["arm"] for arm in found["arms"]]) == (0, names)
    one, three = (read_plans(case.root)[name] for name in names)
    assert [course.activity for course in three.courses] == [2405, 2405 * 0.75, 2405 * 0.75**2]
    assert three.courses[0] == one.courses[0]
    assert one.tumour_ml == 0.001  # that of the plans that are there
    assert "Stillebroer et al. 2013" in one.sources[1]
    medians = [arm["outcomes"]["electron"]["median"] for arm in found["arms"]]
    assert medians[1] / medians[0] == pytest.approx(1 + 0.75 + 0.75**2)

    # they are plans like others: what was changed stays, and at most four are kept
    write_plan(case.root, one.model_copy(update={"alpha": 0.2}), replace=True)
    assert add_arms(case.root, "courses") == tuple(names)
    assert read_plans(case.root)[names[0]].alpha == 0.2
    code, words = call(capsys, case.root, "--arms", "nuclide")
    assert code == 2
    assert (
        "would make 5 plans, at most 4 are kept; remove some of: 177Lu three courses, own" in words
    )
    assert len(read_plans(case.root)) == 3
    remove_plan(case.root, "own")
    code, found = call(capsys, case.root, "--arms", "nuclide", "--outcome", "alpha", "--n", 40)
    lutetium, actinium, both = (arm["median"] for arm in found["arms"])
    assert lutetium == 0
    assert both == pytest.approx(actinium / 2)


def test_every_preset_arm_can_be_told_from_the_others(case):
    names = {name for _, arms in ARM_SETS.values() for name in arms}
    assert names < set(PRESETS)
    assert len({preset.plan.sources for preset in PRESETS.values()}) == len(PRESETS)
    masses = [PRESETS[name].plan.antibody_mg for name in ARM_SETS["mass"][1]]
    assert masses == [5.0, 10.0]
    add_arms(case.root, "mass")
    cohort = simulated(case, antigen_um=0.01)
    assert cohort.of("electron").better("177Lu 5 mg", "177Lu 10 mg") == 1.0
    assert any("0.01 µM of antigen" in text for text in cohort.notes)
