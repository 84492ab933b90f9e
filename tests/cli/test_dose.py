"""The dose of a measured curve on the command line, by a second way and with what is refused."""

import json
import math
import re
import shutil

import numpy as np
import pytest

from napari_mosaik.core.catalogue import DOSE, PARAMETERS, TILES
from napari_mosaik.io import Case
from napari_mosaik.io.pet.nifti import NiftiSeries
from napari_mosaik.workflow.dose_exchange import nifti_bytes
from tests.cli.test_commands import call, told

KEYS = (
    "time_integral_mbq_h_ml", "before_first", "after_last", "dose_gy", "alpha_particle_gy",
    "rbe_weighted_gy", "g", "bed_gy", "eqd2_gy", "ln_survival", "constants", "warnings",
)  # fmt: skip
TIMES, VALUES = [4.0, 24.0, 72.0, 168.0], [0.6, 1.1, 1.3, 1.2]


@pytest.fixture
def case(computed_cohort, tmp_path):
    shutil.copytree(computed_cohort / "A2", tmp_path / "A2")
    return tmp_path / "A2"


LUTETIUM = ("--nuclide", "Lu-177", "--activity-mbq", "7400", "--set", "dose.draws=40")


def test_a_plan_of_a_case_is_kept_shown_and_compared(case, capsys):
    found = document(
        capsys, case, *LUTETIUM, "--courses", "0,84", "--ebrt", "5x2@72", "--plan", "A",
        "--set", "dose.alpha=0.2", "--set", "dose.spreads.alpha=0", "--set", "dose.tumour_ml=1",
    )  # fmt: skip
    assert set(found) == {"case", "plans", "warnings", "limitations"}
    own = found["plans"]["A"]
    assert [course["day"] for course in own["plan"]["courses"]] == [0, 84]
    assert own["plan"]["fractions"] == [{"number": 5, "dose_gy": 2.0, "day": 72.0}]
    assert (own["plan"]["alpha"], own["plan"]["spreads"]["alpha"]) == (0.2, 0.0)
    assert set(own["indices"]) == {"d98_gy", "d50_gy", "d2_gy", "mean_gy", "eud_gy", "tcp"}
    assert "drawn" not in own
    assert {"name": "alpha", "value": 0.2, "source": "given in the plan"} in own["constants"]
    assert document(capsys, case, "--plan", "A") == found
    again = document(capsys, case, *LUTETIUM, "--plan", "B", "--oxygen", "--shape", "tile")
    assert set(again["plans"]) == {"B"}
    pair = document(capsys, case, "--compare", "A", "B")["comparison"]
    assert pair["indices"]["mean_gy"]["median"] < 0
    assert pair["indices"]["mean_gy"]["share_higher"] == 0
    assert call("dose", case) == 0
    text = capsys.readouterr().out
    assert "Plan A: indices" in text
    assert "largest source of uncertainty" in text
    assert "Not a treatment plan" in text


def test_a_what_if_without_a_name_replaces_the_one_before_and_a_named_plan_is_kept(case, capsys):
    given = ("--nuclide", "Lu-177", "--set", "dose.draws=20", "--set", "dose.seed=1")
    means = []
    for activity in ("1000", "2000"):
        found = document(capsys, case, *given, "--activity-mbq", activity)
        means.append(found["plans"]["plan"]["indices"]["mean_gy"]["median"])
    assert means[1] == pytest.approx(2 * means[0])
    named = (*given, "--activity-mbq", "1000", "--plan", "A")
    document(capsys, case, *named)
    document(capsys, case, *named)  # the same once more
    assert call("dose", case, *given, "--activity-mbq", "2000", "--plan", "A") == 2
    assert "has the name 'A' already" in capsys.readouterr().err
    changed = document(capsys, case, "--plan", "A", "--set", "dose.alpha=0.2")["plans"]["A"]["plan"]
    assert (changed["alpha"], changed["courses"][0]["activity"]) == (0.2, 1000)


def test_the_unit_of_an_alpha_emitter_is_asked_for(case, capsys):
    assert (
        call("dose", case, "--nuclide", "225Ac", "--activity-mbq", "8000", "--plan", "A", "--json")
        == 0
    )
    out = capsys.readouterr()
    asked = [text for text in json.loads(out.out)["warnings"] if "in kBq?" in text]
    assert len(asked) == 2
    assert all(text in out.err for text in asked)


def test_activity_goes_out_and_a_dose_map_comes_back(case, tmp_path, capsys):
    out = tmp_path / "activity.nii"
    found = document(capsys, case, *LUTETIUM, "--plan", "A", "--activity-map", out)
    stated = json.loads(out.with_suffix(".json").read_text("utf-8"))
    assert found["activity_map"] == stated
    image = NiftiSeries(out).image(0, 0)
    opened = Case(case)
    grid, table = opened.store.read(TILES), opened.store.read(DOSE)
    tia = np.asarray(table["A.tia_mbq_h_ml_50"])
    values = np.asarray(image.raster.values)[grid.cells[:, 0], grid.cells[:, 1]]
    np.testing.assert_allclose(values * 159.5 / math.log(2) / 1e6, tia, rtol=1e-6)
    living = found["plans"]["A"]["constants"]
    scale = next(row["value"] for row in living if row["name"] == "living_scale")
    assert image.raster.lattice.spacing_um == pytest.approx([300 / scale] * 2, rel=1e-6)
    gray = np.asarray(image.raster.values) * 159.5 / math.log(2) / 1e6 * 0.576784 * 0.1479 / 1.05
    back = tmp_path / "dose.nii"
    back.write_bytes(nifti_bytes(1.1 * gray, (0.3 / scale, 0.3 / scale, 0.3)))
    compared = document(capsys, case, "--plan", "A", "--dose-map", back)["dose_map"]
    assert compared["mean_ratio"] == pytest.approx(1.1, rel=0.01)
    assert compared["weight"] == "neoplastic area"
    weight = np.nan_to_num(opened.store.read(PARAMETERS)["neoplastic_fraction"]) * grid.coverage
    dose = np.asarray(table["A.dose_gy_50"])
    mean = np.nansum(dose * weight) / weight[np.isfinite(dose)].sum()
    assert compared["plan"]["mean_gy"] == pytest.approx(mean)
    back.write_bytes(nifti_bytes(gray, (0.3, 0.3, 0.3)))
    assert "give the dose on its voxels" in told(capsys, "dose", case, "--dose-map", back)
    back.write_bytes(nifti_bytes(gray[:-1], (0.3 / scale, 0.3 / scale, 0.3)))
    assert "1 slices of" in told(capsys, "dose", case, "--dose-map", back)
    text = tmp_path / "dose.txt"
    text.write_text("no image")
    error = told(capsys, "dose", case, "--dose-map", text)
    assert "dose.txt cannot be used as a dose map, which is a NIfTI in Gy" in error
    assert "not a .nii file" in told(capsys, "dose", case, "--activity-map", tmp_path / "a.txt")


def test_organs_limit_an_activity(case, tmp_path, capsys):
    file = tmp_path / "organs.csv"
    file.write_text("organ,mgy_per_mbq,limit_gy\nmarrow,0.4,2\nliver,1.0,30\n", "utf-8")
    found = document(capsys, case, *LUTETIUM, "--courses", "0,84", "--organs", file)["organs"]
    assert (found["organ"], found["largest_mbq"]) == ("marrow", pytest.approx(5000))
    assert found["confident_mbq"] == pytest.approx(5000)
    assert found["plan_mbq"] == 14_800
    assert found["organs"][0]["gy"] == pytest.approx(5.92)
    file.write_text(
        "organ,tia_h,s_mgy_per_mbq_h,limit_gy,cv\nmarrow,4,0.1,2,0.3\nliver,2,0.5,30,0.3\n", "utf-8"
    )
    again = document(capsys, case, "--organs", file)["organs"]
    assert again["largest_mbq"] == pytest.approx(5000, rel=0.02)
    assert again["confident_mbq"] < 0.75 * again["largest_mbq"]
    for text, says in (
        ("organ,gy\nliver,1\n", "the header must be"),
        ("organ,mgy_per_mbq,limit_gy\nliver,x,1\n", "row 1"),
        ("organ,mgy_per_mbq,limit_gy\nliver,1,0\n", "limits above 0"),
        ("organ,mgy_per_mbq,limit_gy\nliver,1,1\nliver,1,1\n", "twice"),
    ):
        file.write_text(text, "utf-8")
        assert says in told(capsys, "dose", case, "--organs", file)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "has no plan; give --nuclide"),
        (("--nuclide", "Lu-177"), "needs an activity"),
        (("--activity-mbq", "5"), "needs its nuclide"),
        ((*LUTETIUM, "--activity-mbq-m2", "3"), "not both"),
        ((*LUTETIUM, "--courses", "84,0"), "day 0 follows day 84"),
        (("--nuclide", "Lu-177", "--activity-mbq", "3e9"), "in Bq or kBq?"),
        ((*LUTETIUM, "--courses", "0 84"), "days of the courses"),
        ((*LUTETIUM, "--ebrt", "5x2@-1"), "before day 0"),
        ((*LUTETIUM, "--ebrt", "5x2"), "5x2@72"),
        ((*LUTETIUM, "--set", "dose.alfa=1"), "did you mean 'alpha'"),
        ((*LUTETIUM, "--set", "alpha=1"), "'dose.alpha' and so on"),
        ((*LUTETIUM, "--set", "dose.alpha=0"), "alpha/beta 0"),
        ((*LUTETIUM, "--kernel", "none.csv"), "neither a file nor one of: local, built-in"),
        ((*LUTETIUM, "--shape", "none.csv"), "neither a file nor one of: tile, constant"),
        (("--nuclide", "Xx-1", "--activity-mbq", "5"), "one of: Zr-89"),
        (
            ("--nuclide", "Ac-225", "--activity-mbq", "5", "--kernel", "built-in"),
            "no built-in kernel of Ac-225",
        ),
        (("--plan", "x"), "there is no plan 'x'"),
        (("--preset", "x"), "there is no preset 'x'"),
        (("--compare", "a", "b"), "there is no plan 'a'"),
        (("--tail", "60"), "--tail belongs to --curve"),
        (("--curve", "curve.csv"), "either a case or --curve"),
    ],
)
def test_wrong_input_for_a_case_is_one_line(tiny_cohort, tmp_path, capsys, options, says):
    shutil.copytree(tiny_cohort / "A2", tmp_path / "A2")
    assert says in told(capsys, "dose", tmp_path / "A2", *options)
    assert not list((tmp_path / "A2").glob("plans/*"))


def test_another_plan_of_the_same_name_is_refused(case, capsys):
    assert call("dose", case, *LUTETIUM, "--plan", "A", "--json") == 0
    capsys.readouterr()
    text = told(capsys, "dose", case, *LUTETIUM, "--plan", "a")
    assert "differs from 'a' by case only" in text
    text = told(capsys, "dose", case, *LUTETIUM, "--courses", "7", "--plan", "A")
    assert "a plan has the name 'A' already" in text
    assert call("dose", case, *LUTETIUM, "--courses", "7", "--plan", "A", "--replace") == 0
    capsys.readouterr()
    for activity in ("100", "200"):  # one without a name is not a plan to keep
        found = document(capsys, case, "--nuclide", "Lu-177", "--activity-mbq", activity)
        assert found["plans"]["plan"]["plan"]["courses"][0]["activity"] == float(activity)


def test_a_case_without_a_weight_is_refused(case, capsys):
    file = case / "case.toml"
    file.write_text(re.sub(r"weight_kg = .*\n", "", file.read_text("utf-8")), "utf-8")
    assert "'Body weight'" in told(capsys, "dose", case, *LUTETIUM)
    assert not list(case.glob("plans/*"))


def test_a_refused_plan_leaves_the_plans_as_they_were(case, tmp_path, capsys):
    """A file, a plan of before and its results: a run that is refused changes none of them."""
    assert call("dose", case, *LUTETIUM, "--plan", "A") == 0
    before = {path.name: path.read_bytes() for path in case.glob("plans/*")}
    curve = tmp_path / "late.csv"
    curve.write_text("time_h,activity_mbq_ml\n1,0\n900,0\n901,1\n", "utf-8")
    capsys.readouterr()
    shape = ("--shape", curve, "--plan", "A", "--replace")
    assert "no activity at" in told(capsys, "dose", case, *LUTETIUM, *shape)
    assert {path.name: path.read_bytes() for path in case.glob("plans/*")} == before
    assert set(document(capsys, case)["plans"]) == {"A"}


@pytest.fixture
def curve(tmp_path):
    def write(rows, header="time_h,activity_mbq_ml"):
        path = tmp_path / "curve.csv"
        path.write_text("\n".join([header, *(f"{t},{a}" for t, a in rows)]) + "\n", "utf-8")
        return path

    return write


def document(capsys, *arguments):
    assert call("dose", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def stepped(half_life, tail, kev):
    """Integral, dose and G by small steps through the curve."""
    h = 0.005
    t = np.arange(0, 40 * tail, h) + h / 2
    decayed = np.array(VALUES) * 2 ** (-np.array(TIMES) / half_life)
    activity = np.interp(t, [0, *TIMES], [0, *decayed])
    late = t > TIMES[-1]
    activity[late] = decayed[-1] * 2 ** (-(t[late] - TIMES[-1]) / tail)
    rate = activity / 1.05 * kev * 1e3 * 1.602176634e-19 * 3.6e12
    from scipy.signal import lfilter

    left = math.exp(-math.log(2) / 1.5 * h)
    damage = lfilter([h], [1, -left], rate) - rate * h / 2
    dose = rate.sum() * h
    return activity.sum() * h, dose, 2 * (rate * damage).sum() * h / dose**2


def test_the_document_by_small_steps(curve, capsys):
    found = document(
        capsys, "--curve", curve(zip(TIMES, VALUES, strict=True)), "--nuclide", "177Lu",
        "--tail", "60", "--set", "dose.alpha=0.2", "--set", "dose.beta=0.05",
    )  # fmt: skip
    assert tuple(found) == KEYS
    total, dose, g = stepped(159.5, 60, 147.9)
    assert found["time_integral_mbq_h_ml"] == pytest.approx(total, rel=1e-5)
    assert found["dose_gy"] == found["rbe_weighted_gy"] == pytest.approx(dose, rel=1e-5)
    assert found["g"] == pytest.approx(g, rel=1e-3)
    bed = dose * (1 + g * dose * 0.05 / 0.2)
    assert found["bed_gy"] == pytest.approx(bed, rel=1e-4)
    assert found["eqd2_gy"] == pytest.approx(bed / (1 + 2 * 0.05 / 0.2), rel=1e-4)
    assert found["ln_survival"] == pytest.approx(-0.2 * bed, rel=1e-4)
    assert found["before_first"] == pytest.approx(
        2 * VALUES[0] * 2 ** (-4 / 159.5) / total, rel=1e-5
    )
    tail = VALUES[-1] * 2 ** (-168 / 159.5) * 60 / math.log(2)
    assert found["after_last"] == pytest.approx(tail / total, rel=1e-5)
    assert found["alpha_particle_gy"] == 0
    assert found["warnings"] == []
    constants = {row["name"]: row for row in found["constants"]}
    assert all(set(row) == {"name", "value", "source"} for row in found["constants"])
    assert constants["half_life_h"]["value"] == 159.5
    assert "ICRP" in constants["electron_kev"]["source"]
    assert constants["dose.alpha"] == {"name": "dose.alpha", "value": 0.2, "source": "given"}


def test_one_value_at_time_0_is_a_curve_of_decay_alone(curve, capsys):
    found = document(capsys, "--curve", curve([(0, 1)]), "--nuclide", "Lu-177")
    decay, repair = math.log(2) / 159.5, math.log(2) / 1.5
    dose = 0.576784 * 0.1479 / 1.05 / decay
    assert found["time_integral_mbq_h_ml"] == pytest.approx(1 / decay)
    assert (found["before_first"], found["after_last"]) == (0, 1)
    assert found["g"] == pytest.approx(decay / (decay + repair))
    killed = 0.3 * dose + 0.03 * dose**2 * decay / (decay + repair)
    assert found["ln_survival"] == pytest.approx(-killed, rel=1e-6)


def test_alpha_particles_and_the_question_for_the_unit(curve, capsys):
    file = curve(zip(TIMES, VALUES, strict=True))
    assert call("dose", "--curve", file, "--nuclide", "Ac-225", "--json") == 0
    out = capsys.readouterr()
    found = json.loads(out.out)
    assert found["alpha_particle_gy"] / found["dose_gy"] == pytest.approx(27990 / 690)
    assert found["rbe_weighted_gy"] == pytest.approx(
        found["dose_gy"] + 5 * found["alpha_particle_gy"]
    )
    assert len(found["warnings"]) == 1
    assert "kBq/mL?" in found["warnings"][0]
    assert found["warnings"][0] in out.err
    small = curve(zip(TIMES, np.array(VALUES) / 1000, strict=True))
    assert document(capsys, "--curve", small, "--nuclide", "Ac-225")["warnings"] == []


def test_what_the_pet_cannot_see_lets_more_cells_survive(curve, capsys):
    file = curve(zip(TIMES, VALUES, strict=True))
    even, uneven = (
        document(capsys, "--curve", file, "--nuclide", "Lu-177", "--set", f"dose.within_cv={cv}")
        for cv in (0, 0.3)
    )
    assert uneven["dose_gy"] == even["dose_gy"]
    assert uneven["ln_survival"] > even["ln_survival"]
    sd = math.sqrt(math.log1p(0.3**2))
    x = np.exp(sd * np.random.default_rng(0).standard_normal(400_000) - sd**2 / 2)
    d, q = even["dose_gy"], even["g"] * even["dose_gy"] ** 2
    drawn = math.log(np.exp(-0.3 * d * x - 0.03 * q * x**2).mean())
    assert uneven["ln_survival"] == pytest.approx(drawn, rel=0.01)
    assert uneven["bed_gy"] == pytest.approx(-uneven["ln_survival"] / 0.3)
    assert uneven["eqd2_gy"] == pytest.approx(uneven["bed_gy"] / 1.2)


def test_the_text_says_that_it_is_no_plan(curve, capsys):
    file = curve(zip(TIMES, VALUES, strict=True))
    assert call("dose", "--curve", file, "--nuclide", "Lu-177") == 0
    text = capsys.readouterr().out
    assert "absorbed dose of electrons, Gy" in text
    assert "Not a treatment plan" in text


@pytest.mark.parametrize(
    ("rows", "header", "more", "says"),
    [
        ([(4, 1)], None, ["--nuclide", "Xx-1"], "nuclide 'Xx-1' is not known; one of: Zr-89"),
        ([(4, 1)], "time_h,activity_kbq_ml", [], "the header must be time_h,activity_mbq_ml"),
        ([], None, [], "a header but no times"),
        ([(24, 1), (4, 1)], None, [], "curve.csv: times must ascend, but 4 h follows 24 h"),
        ([(-4, 1)], None, [], "times must be 0 h or more"),
        ([(4, -1)], None, [], "activities must be 0 or more"),
        ([(4, "x")], None, [], "row 1, '4,x', is not a number"),
        ([(4, "1,2")], None, [], "is not a time and an activity"),
        ([(4, "nan")], None, [], "is not a time and an activity"),
        ([(4, 0), (24, 0)], None, [], "no activity, so there is no dose"),
        ([(4, 1e-300)], None, [], "curve.csv: activities up to 1e-300 MBq/mL give a dose of"),
        ([(4, 1e300)], None, [], "curve.csv: activities up to 1e+300 MBq/mL give a dose of"),
        ([(4, 1), (4, 1)], None, [], "times must ascend, but 4 h follows 4 h"),
        ([(4, 2), (24, 1)], None, ["--tail", "0"], "must be a number above 0, not 0 h"),
        ([(4, 1), (24, 2)], None, ["--tail", "60"], "still rises has no effective half-life"),
        ([(4, 2), (24, 1)], None, ["--tail", "200"], "longer than the physical one"),
        ([(4, 2), (24, 1)], None, ["--tail", "effective"], "neither 'physical' nor"),
        ([(4, 1)], None, ["--set", "dose.alpha=0"], "alpha = '0' is not valid"),
        ([(4, 1)], None, ["--set", "dose.gamma=1"], "there is no setting 'gamma'"),
        ([(4, 1)], None, ["--set", "alpha=1"], "they begin with 'dose.'"),
    ],
)
def test_what_is_refused(curve, capsys, rows, header, more, says):
    file = curve(rows, header or "time_h,activity_mbq_ml")
    nuclide = [] if "--nuclide" in more else ["--nuclide", "Lu-177"]
    assert says in told(capsys, "dose", "--curve", file, *nuclide, *more, "--json")


def test_a_missing_file_and_a_missing_option(tmp_path, capsys):
    assert "cannot be read" in told(
        capsys, "dose", "--curve", tmp_path / "no.csv", "--nuclide", "Lu-177"
    )
    assert "--curve" in told(capsys, "dose", "--nuclide", "Lu-177")
