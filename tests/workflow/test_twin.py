"""The twin of a case: predicted before it is taken in, stored for good, and its words."""

import json
import math
import re
import shutil
import struct
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from napari_mosaik.cli import main
from napari_mosaik.core import Cancelled, InputError, Origin, Table
from napari_mosaik.core.catalogue import PARAMETERS, SUV_RECORD, TILES, UPTAKE
from napari_mosaik.core.errors import CorruptArtifact
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.invivo import InvivoValue
from napari_mosaik.core.manifest import sealed
from napari_mosaik.core.progress import cancellable, run_to_end
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.dosimetry import NUCLIDES, RepairState, dose_per_activity_gy
from napari_mosaik.io import Case, create_case
from napari_mosaik.io.case_file import CaseFile
from napari_mosaik.twin import Prior, chain_posterior, patients_needed, predict, wilson_interval
from napari_mosaik.twin.chain import Chain
from napari_mosaik.view.report.content import gather_report
from napari_mosaik.view.twin import decision_lines, read_twin, twin_time_figure
from napari_mosaik.workflow.dose import read_curve, read_time_course
from napari_mosaik.workflow.invivo import add_invivo
from napari_mosaik.workflow.plan_record import Course, Plan
from napari_mosaik.workflow.plans import read_plans, remove_plan, write_plan
from napari_mosaik.workflow.twin import CaseTwin
from napari_mosaik.workflow.virtual_cohort import SIMULATED, PatientDoses

INJECTION = {
    "nuclide": "Zr-89", "dose_mbq": 37.6, "residual_mbq": 0.5, "injected": "2024-03-04T10:00",
    "excised": "2024-03-18T10:00", "weight_kg": 75.0, "height_cm": 178.0, "sex": "M",
}  # fmt: skip
SCANS = [(72, 3.4, 5.0), (120, 3.6, 3.4), (168, 3.7, 2.3)]
FREE = ("transfer_per_h", "k03_per_h", "plasma_start", "fast_half_life_h", "slow_half_life_h")


def value(time_h, region, mean, **more):
    about = {"unit": "SUVbw", "decay_reference": "injection", "sd": 0.06 * mean, **more}
    return InvivoValue(time_h=time_h, region=region, mean=mean, **about)


@pytest.fixture
def case(tmp_path):
    made = create_case(
        tmp_path / "A2", CaseFile(name="A2", patient="patient 1", injection=INJECTION)
    )
    rows = [value(time, "tumour", tumour) for time, tumour, _ in SCANS]
    rows += [value(time, "blood", blood) for time, _, blood in SCANS]
    add_invivo(made, [*rows, value(72, "liver", 4.0)])
    return made


def call(capsys, *arguments):
    """Exit code and JSON, or the line on standard error."""
    with pytest.raises(SystemExit) as ended:
        main(["twin", *map(str, arguments), "--json"])
    out = capsys.readouterr()
    code = int(ended.value.code or 0)
    return code, json.loads(out.out) if code == 0 else out.err


def test_before_the_first_scan_everything_is_prior_only(case, capsys):
    code, document = call(capsys, case.root, "status")
    assert code == 0
    assert [row["name"] for row in document["parameters"]] == list(FREE)
    for row in document["parameters"]:
        assert (row["contraction"], row["word"]) == (0, "prior only")
        assert row["low"] < row["median"] < row["high"]
    assert document["updates_with_new_images"] is False
    assert document["next_scan"] == {"time_h": 72.0, "region": "tumour"}
    assert len(document["scans"]) == 7
    assert not any(row["taken_in"] for row in document["scans"])
    assert document["surface_source"].startswith("assumed")
    assert not (case.root / "twin").exists()
    medians = {row["name"]: row["median"] for row in document["parameters"]}
    assert medians["transfer_per_h"] == pytest.approx(3e-3 * 3600 * 0.005)
    assert medians["plasma_start"] == pytest.approx(75_000 / 3000)


def test_predict_then_update_until_all_are_taken_in(case, capsys):
    code, told = call(capsys, case.root, "predict")
    assert code == 0
    assert (told["time_h"], told["region"]) == (72.0, "tumour")
    assert told["low"] < told["median"] < told["high"]
    assert datetime.fromisoformat(told["stored_at"]).utcoffset().total_seconds() == 0
    assert call(capsys, case.root, "predict")[1] == told
    for time, tumour, _ in SCANS:
        code, taken = call(capsys, case.root, "update")
        assert code == 0
        assert (taken["time_h"], taken["mean"]) == (time, tumour)
        stored = datetime.fromisoformat(taken["prediction"]["stored_at"])
        assert stored <= datetime.fromisoformat(taken["taken_in_at"])
        status = call(capsys, case.root, "status")[1]
        assert status["updates_with_new_images"] is (time > 72)
        assert {row["time_h"] for row in status["scans"] if row["taken_in"]} == {
            t for t, *_ in SCANS if t <= time
        }
    assert taken["prediction"]["low"] < 3.7 < taken["prediction"]["high"]
    words = {row["name"]: row["word"] for row in status["parameters"]}
    assert words["transfer_per_h"] == "identified"
    assert words["k03_per_h"] == "prior only"
    assert status["next_scan"] is None
    code, line = call(capsys, case.root, "update")
    assert code == 2
    assert "all 3 scans of case A2 were taken in" in " ".join(line.split())
    assert call(capsys, case.root, "predict")[0] == 2


def test_what_is_stored_equals_the_science_on_all_scans(case):
    for _ in SCANS:
        record = CaseTwin(case).take_in_next()
    twin = CaseTwin(case)
    whole = chain_posterior(twin.taken, twin.prior, free=FREE, method="laplace", seed=0)
    assert record["log_evidence"] == whole.log_evidence
    np.testing.assert_array_equal(twin.posterior.draws, whole.draws)
    np.testing.assert_array_equal(twin.posterior.mean, whole.mean)
    scores = [one["log_score"] for one in twin.updates]
    assert sum(scores) == pytest.approx(whole.log_evidence, abs=1e-9)
    before = chain_posterior(twin.taken[:4], twin.prior, free=FREE, method="laplace", seed=0)
    noise = twin.taken[-1].ln_sd
    expected = predict(before, 168, cv=noise)
    stored = json.loads((case.root / "twin/predictions/002_168h.json").read_text("utf-8"))
    assert stored["median"] == pytest.approx(expected.median, rel=1e-9)
    assert (stored["low"], stored["high"]) == pytest.approx((expected.low, expected.high))
    assert len({one["data"] for one in twin.updates}) == 3
    assert len({one["prior"] for one in twin.updates}) == 1


def measured(case, unit="cm²/mL"):
    """Give the case vessels of 0.009 /µm and a slice with a mean SUVbsa of 0.9."""
    table = Table(
        {"vessel_perimeter_density_per_um": np.array([0.006, 0.012, np.nan])},
        {"vessel_perimeter_density_per_um": "1/µm"}, {}, "cd34",
    )  # fmt: skip
    uptake = Table({"suv": np.array([0.8, 1.0, np.nan])}, {"suv": unit}, {}, "cd34")
    with case.writing():
        for artifact, content in (
            (PARAMETERS, table), (UPTAKE, uptake), (SUV_RECORD, {"kind": "bsa"})
        ):  # fmt: skip
            case.store.commit(Origin(artifact.name, 1, "x", ()), {artifact: content}, {})


def test_damaged_parameters_are_no_missing_vessels(case):
    measured(case)
    (file,) = case.store.folder(PARAMETERS).glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(CorruptArtifact):
        _ = CaseTwin(case).prior


def test_the_slice_of_the_specimen_is_the_last_scan_and_vessels_centre_the_prior(case):
    measured(case)
    twin = CaseTwin(case)
    last = twin.scans[-1].main
    assert (last.time_h, last.from_slice) == (336.0, True)
    surface_cm2 = 71.84 * 75**0.425 * 178**0.725
    assert last.mean == pytest.approx(0.9 * 75_000 / surface_cm2, rel=1e-3)
    assert last.ln_sd == pytest.approx(math.sqrt(0.05**2 + 0.05**2 + 0.15**2))
    assert twin.start["surface_density_per_um"] == pytest.approx(0.009)
    assert twin.start["surface_source"] == "this patient's vessels on CD34, 2 tiles"
    assert twin.start["prior"]["transfer_per_h"][0] == pytest.approx(3e-3 * 3600 * 0.009)
    for _ in range(4):
        record = CaseTwin(case).take_in_next()
    assert record["time_h"] == 336.0
    assert record["observations"][-1]["from_slice"] is True


def test_a_slice_whose_uptake_was_not_computed_is_not_used_yet(case, tmp_path):
    assert CaseTwin(case).status()["notes"] == []  # it has no PET
    pet = {"paths": ["pet/slice.dcm"]}
    other = create_case(
        tmp_path / "B8", CaseFile(name="B8", patient="patient 2", injection=INJECTION, pet=pet)
    )
    add_invivo(other, [value(72, "tumour", 3.4)])
    (note,) = CaseTwin(other).status()["notes"]
    assert note.startswith("the slice is not used yet")


def square(case, side):
    """A square of tiles of 0.3 mm with an SUVbsa of 0.9."""
    measured(case)
    grid = TileGrid(
        Lattice("cd34", (side, side), (300.0, 300.0)), 300.0, np.arange(side**2), np.ones(side**2),
        np.ones(side**2, bool),
    )  # fmt: skip
    uptake = Table({"suv": np.full(side**2, 0.9)}, {"suv": "cm²/mL"}, {}, "cd34")
    with case.writing():
        for artifact, content in ((TILES, grid), (UPTAKE, uptake)):
            case.store.commit(Origin(artifact.name, 1, "y", ()), {artifact: content}, {})


@pytest.mark.parametrize(("side", "small"), [(5, True), (60, False)])
def test_what_the_pet_of_a_small_slice_loses_is_stated(case, side, small):
    """The PET has 1.5 mm; the share by the error function."""
    square(case, side)
    (note,) = CaseTwin(case).status()["notes"] or [""]
    if not small:
        assert note == ""
        return
    edge, width = 0.3 * side / 2, math.sqrt(2) * 1.5 / 2.35482
    x = 0.3 * (np.arange(side) - (side - 1) / 2)
    seen = [(math.erf((edge - one) / width) + math.erf((edge + one) / width)) / 2 for one in x]
    told = re.search(r"would show (\d+) %", note)
    assert int(told[1]) == pytest.approx(100 * np.mean(seen) ** 2, abs=2)
    assert CaseTwin(case).status()["slice_recovery"] == pytest.approx(np.mean(seen) ** 2, abs=0.02)


def test_the_slice_is_divided_by_its_recovery_only_if_chosen(case, capsys):
    square(case, 5)
    code, line = call(capsys, case.root, "update", "--slice-recovery")
    assert code == 2
    assert "the next scan is at 72 h" in " ".join(line.split())
    assert read_twin(case).recovery_of_next is None  # offered for the slice only
    for _ in SCANS:
        CaseTwin(case).take_in_next()
    assert read_twin(case).recovery_of_next == CaseTwin(case).slice_recovery[0]
    plain = CaseTwin(case)
    before = plain.scans[-1].main
    share, fwhm_mm = plain.slice_recovery
    assert fwhm_mm == 1.5
    assert "taken as measured and may be too low" in plain.notes[0]
    assert call(capsys, case.root, "update", "--slice-recovery")[0] == 0
    twin = CaseTwin(case)
    (taken,) = (row for row in twin.taken if row.from_slice)
    assert taken.mean == pytest.approx(before.mean / share, rel=1e-12)
    assert taken.sd / taken.mean == pytest.approx(before.sd / before.mean)
    assert taken.source.endswith(f"divided by the recovery {share:.3f}")
    assert twin.status()["notes"][0].endswith("its mean was divided by that recovery")


def test_the_uptake_at_another_time_is_written_as_nifti(case, tmp_path, capsys):
    square(case, 5)
    out = tmp_path / "day7.nii"
    code, line = call(capsys, case.root, "map", "--at-h", 168, "--out", out)
    assert code == 2
    assert "no scan of the tumour was taken in" in " ".join(line.split())
    CaseTwin(case).take_in_next()
    code, stated = call(capsys, case.root, "map", "--at-h", 168, "--out", out)
    assert code == 0
    assert json.loads(out.with_suffix(".json").read_text("utf-8")) == stated
    twin = CaseTwin(case)
    chain = Chain(twin.prior, twin.posterior.names)
    ln = chain.ln_curve(twin.posterior.draws, [168.0, 336.0], "tumour")
    ratio = np.percentile(np.exp(ln[:, 0] - ln[:, 1]), [5, 50, 95])
    assert [stated["ratio"][name] for name in ("low", "median", "high")] == pytest.approx(ratio)
    data = out.read_bytes()
    assert struct.unpack_from("<8h", data, 40)[:4] == (3, 5, 5, 1)
    assert np.frombuffer(data, "<f4", offset=352) == pytest.approx(np.full(25, 0.9 * ratio[1]))
    step = 0.3 / 0.886  # living tissue
    assert struct.unpack_from("<4f", data, 76)[1:] == pytest.approx((step, step, step))
    affine = np.array(struct.unpack_from("<12f", data, 280)).reshape(3, 4)
    assert affine @ [2, 1, 0, 1] == pytest.approx([2.5 * step, -1.5 * step, 0])  # column 2, row 1
    assert struct.unpack_from("<h", data, 254) == (2,)
    assert (stated["Units"], stated["uptake"]) == ("cm²/mL", "measured")
    assert call(capsys, case.root, "map", "--at-h", 336, "--out", out)[1]["ratio"]["high"] == 1.0
    assert call(capsys, case.root, "map", "--at-h", 168, "--out", tmp_path / "a.tif")[0] == 2
    assert call(capsys, case.root, "map", "--at-h", "nan", "--out", out)[0] == 2
    for wrong in (-1, 1e9):
        code, line = call(capsys, case.root, "map", "--at-h", wrong, "--out", out)
        assert code == 2
        assert "a time of 0 to 1000 h" in " ".join(line.split())


def test_a_scan_far_from_its_prediction_is_a_warning(case, capsys):
    CaseTwin(case).take_in_next()
    far = [value(120, "tumour", 36.0), value(120, "blood", 3.4)]
    add_invivo(case, far, replace_same=True)
    with pytest.raises(SystemExit):
        main(["twin", str(case.root), "update", "--json"])
    out = capsys.readouterr()
    record = json.loads(out.out)
    assert record["z"] > 3
    assert "SD above its prediction" in record["warnings"][0]
    assert "SD above its prediction" in " ".join(out.err.split())
    assert "SD above its prediction" in CaseTwin(case).status()["warnings"][0]


def test_a_twin_keeps_its_prior_and_what_it_took_in(case):
    CaseTwin(case, {"k03_sd": "0.5"}).predict_next()
    with pytest.raises(InputError, match=r"begun with k03_sd = 0\.5; it cannot continue with 1\.0"):
        CaseTwin(case, {"k03_sd": 1})
    assert CaseTwin(case, {"k03_sd": 0.5}).prior.sd[2] == pytest.approx(0.5)
    CaseTwin(case).take_in_next()
    add_invivo(case, [value(72, "tumour", 9.9)], replace_same=True)
    twin = CaseTwin(case)
    assert 9.9 not in [row["mean"] for row in twin.status()["scans"]]
    assert "72 h was 3.4 ± 0.204 when it was taken in and is 9.9" in twin.status()["warnings"][0]


@pytest.mark.parametrize("kept", ["others", "none", "no table"])
def test_a_scan_that_left_the_table_is_a_doubt(case, capsys, kept):
    CaseTwin(case).take_in_next()
    path = case.root / "invivo.csv"
    head, *rows = path.read_text().splitlines()
    rows = [row for row in rows if not row.startswith("72") and kept == "others"]
    path.write_text("\n".join([head, *rows, ""]))
    if kept == "no table":
        path.unlink()
    with pytest.raises(SystemExit):
        main(["twin", str(case.root), "status", "--json"])
    out = capsys.readouterr()
    words = "the tumour at 72 h was taken in and is no longer in invivo.csv"
    assert any(words in one for one in json.loads(out.out)["warnings"])
    assert words in " ".join(out.err.split())


def test_stored_files_that_were_changed_are_refused(case):
    CaseTwin(case).take_in_next()
    place = case.root / "twin" / "updates" / "000"
    draws = place / "draws.npy"
    content = draws.read_bytes()
    draws.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CorruptArtifact, match=r"draws\.npy is damaged"):
        CaseTwin(case).status()
    draws.write_bytes(content)
    record = place / "record.json"
    record.write_text(record.read_text("utf-8").replace("3.4", "3.5"), "utf-8")
    with pytest.raises(CorruptArtifact, match=r"record\.json is damaged"):
        CaseTwin(case).status()
    record.unlink()
    with pytest.raises(CorruptArtifact, match=r"000.record\.json is missing: restore it"):
        CaseTwin(case).status()


def test_the_twin_of_another_patient_is_refused(case, tmp_path):
    CaseTwin(case).predict_next()
    other = create_case(
        tmp_path / "B8", CaseFile(name="B8", patient="patient 2", injection=INJECTION)
    )
    shutil.copytree(case.root / "twin", other.root / "twin")
    with pytest.raises(InputError, match="is the twin of patient 1, not of patient 2"):
        CaseTwin(Case(other.root))


def test_a_case_without_scans_or_terms(tmp_path, capsys):
    bare = create_case(tmp_path / "C", CaseFile(name="C", patient="p", injection=INJECTION))
    code, document = call(capsys, bare.root, "status")
    assert (code, document["scans"], document["next_scan"]) == (0, [], None)
    code, line = call(capsys, bare.root, "update")
    assert code == 2
    assert "no scan of tumour or blood in invivo.csv" in " ".join(line.split())
    light = create_case(tmp_path / "D", CaseFile(name="D", patient="p"))
    add_invivo(light, [value(72, "tumour", 3.0)])
    code, line = call(capsys, light.root, "status")
    assert code == 2
    assert "give weight_kg" in line
    assert call(capsys, light.root, "status", "--set", "plasma_start=25")[0] == 0
    assert call(capsys, light.root, "status", "--set", "plasma=25")[0] == 2


def test_an_early_scan_frees_the_internalisation(case):
    add_invivo(case, [value(6, "tumour", 1.0)])
    assert "k32_per_h" in CaseTwin(case).start["free"]
    assert CaseTwin(case, {"free": "transfer_per_h"}).start["free"] == ["transfer_per_h"]


def test_identify_and_the_scan_that_is_worth_most(case, capsys):
    code, nothing = call(capsys, case.root, "identify")
    assert code == 0
    assert nothing["singular_values"] == [0.0] * 5
    assert {row["word"] for row in nothing["rows"]} == {"prior only"}
    CaseTwin(case).take_in_next()
    found = call(capsys, case.root, "identify")[1]
    assert found["singular_values"][1] > found["singular_values"][2] == 0
    times = ("--times", "24,240,336")
    code, worth = call(capsys, case.root, "next-scan", *times)
    assert code == 0
    assert worth["target"] == ["uptake", 336.0]
    assert worth["time_h"] == [24.0, 240.0, 336.0]
    assert worth["best_time_h"] == 336.0
    assert len(worth["sd_before"]) == len(worth["sd_after"]) == 3
    assert all(a < b for a, b in zip(worth["sd_after"], worth["sd_before"], strict=True))
    ta = call(capsys, case.root, "next-scan", *times, "--target", "time_integral:159.5")[1]
    assert ta["sd_before"] != worth["sd_before"]
    assert call(capsys, case.root, "next-scan", "--target", "dose:3")[0] == 2
    assert call(capsys, case.root, "next-scan", "--times", "soon")[0] == 2


def test_decisions_are_only_added(case, capsys):
    for name, n in (("one course", 1), ("two courses", 2)):
        courses = tuple(Course(activity=3700, unit="MBq", day=84.0 * place) for place in range(n))
        write_plan(case.root, Plan(name=name, courses=courses))
    code, first = call(capsys, case.root, "decide", "--plan", "one course", "--by", "reader 1")
    assert code == 0
    assert first["predicted"]["time_h"] == 72.0
    CaseTwin(case).take_in_next()
    call(capsys, case.root, "decide", "--plan", "two courses", "--by", "reader 1")
    place = case.root / "twin" / "decisions.jsonl"
    lines = [json.loads(line) for line in place.read_text("utf-8").splitlines()]
    assert [line.get("plan") for line in lines] == ["one course", None, "two courses"]
    assert [line.get("n_updates") for line in lines] == [0, None, 1]
    assert lines[1]["observed_of"] == lines[0]["time"]
    assert (lines[1]["plan_was"], lines[1]["mean"]) == ("one course", 3.4)
    assert lines[1]["z"] == CaseTwin(case).updates[0]["z"]
    assert len(CaseTwin(case).status()["decisions"]) == 3
    assert call(capsys, case.root, "decide", "--plan", " ", "--by", "x")[0] == 2
    place.write_text(place.read_text("utf-8").replace("two courses", "no courses"), "utf-8")
    with pytest.raises(CorruptArtifact, match="line 3, is damaged"):
        CaseTwin(case).decisions()

    # lines that are doubled, moved, cut out or cut off
    def damage_of(*kept):
        place.write_text("".join(f"{json.dumps(line)}\n" for line in kept), "utf-8")
        with pytest.raises(CorruptArtifact) as found:
            CaseTwin(case).decisions()
        return str(found.value).partition("decisions.jsonl")[2]

    one, two, three = lines
    assert (one["line"], one["before"], three["line"]) == (1, "", 3)
    assert (two["before"], three["before"]) == (one["seal"], two["seal"])
    assert "line 4, is damaged: lines are missing before it, or it was" in damage_of(*lines, three)
    assert ", line 1, is damaged" in damage_of(two, three)
    assert ", line 2, is damaged" in damage_of(one, three)
    assert ", line 1, is damaged" in damage_of(two, one, three)
    assert "it had 3 lines, of which the last are missing" in damage_of(one, two)
    with pytest.raises(CorruptArtifact, match="the last are missing"):  # nothing is taken in
        CaseTwin(case).take_in_next()
    assert len(CaseTwin(case).updates) == 1
    end = place.with_name("decisions_end.json")
    end.unlink()
    assert " may lack lines: decisions_end.json is missing" in damage_of(*lines)

    # a record of an earlier version, to which lines are added
    left = ("line", "before", "seal")
    old = [sealed({k: v for k, v in line.items() if k not in left}) for line in lines]
    assert ", line 3, is damaged" in damage_of(old[0], old[1], old[1])
    place.write_text("".join(f"{json.dumps(line)}\n" for line in old).rstrip(), "utf-8")
    CaseTwin(case).observe(2, "reader 1", "stable")
    found = CaseTwin(case).decisions()
    assert [line["time"] for line in found] == [line["time"] for line in [*old, found[3]]]
    assert not any({"line", "before"} & set(line) for line in found)
    assert "it had 4 lines" in damage_of(*old)


def test_a_decision_is_of_a_plan_of_the_case_and_keeps_its_content(case, capsys):
    def decide(name):
        return call(capsys, case.root, "decide", "--plan", name, "--by", "Dr A")

    code, words = decide("One")
    assert code == 2
    assert "there is no plan 'One'; the case has no plan" in words
    curve = case.root.parent / "curve.csv"
    curve.write_text("time_h,activity_mbq_ml\n24,1\n96,2\n", "utf-8")
    first = Plan(name="One", courses=(Course(activity=3700, unit="MBq"),), shape=str(curve))
    write_plan(case.root, first)
    write_plan(case.root, Plan(name="Beam", fractions=({"number": 5, "dose_gy": 2},)))
    code, words = decide("Tow")
    assert code == 2
    assert "there is no plan 'Tow'; the plans of the case are: Beam, One" in words
    assert not (case.root / "twin").exists()  # nothing was predicted for it
    assert decide("One")[0] == 0
    CaseTwin(case).take_in_next()

    def now():
        return [line["plan_now"] for line in CaseTwin(case).status()["decisions"] if "plan" in line]

    kept = (case.root / "twin" / "decisions.jsonl").read_bytes()
    assert now() == ["as decided"]
    curve.write_text("time_h,activity_mbq_ml\n24,1\n96,3\n", "utf-8")
    write_plan(case.root, first, replace=True)  # the same text, another curve
    assert now() == ["changed since"]
    (line,) = decision_lines(read_twin(case))
    assert "⚠ The plan 'One' is changed since: it is not what was decided on" in line
    curve.write_text("time_h,activity_mbq_ml\n24,1\n96,2\n", "utf-8")
    write_plan(case.root, first, replace=True)
    assert now() == ["as decided"]
    remove_plan(case.root, "One")
    assert now() == ["no longer there"]
    assert (case.root / "twin" / "decisions.jsonl").read_bytes() == kept


def plans(case):
    """One course, the same again, three courses and an alpha emitter."""
    course = Course(nuclide="Lu-177", activity=3000, unit="MBq")
    three = tuple(course.model_copy(update={"day": 70.0 * n}) for n in range(3))
    alpha = Course(nuclide="Ac-225", activity=8, unit="MBq")
    for name, courses in {
        "one": (course,), "same": (course,), "three": three, "alpha": (alpha,)
    }.items():  # fmt: skip
        write_plan(case.root, Plan(name=name, courses=courses))


def test_the_dose_of_a_patient_is_that_of_the_integral_of_its_curve(case):
    plans(case)
    twin = CaseTwin(case)
    posterior = twin.posterior
    points = posterior.draws[:50]
    chain, half_life_h = Chain(twin.prior, posterior.names), NUCLIDES["Lu-177"].half_life_h
    ln_hours = chain.ln_integral(points, half_life_h)
    per_mbq = dose_per_activity_gy("Lu-177") / 1.05
    expected = 3000 * np.exp(ln_hours) / 75_000 * per_mbq
    found = read_plans(case.root)
    one = PatientDoses(twin, found["one"], posterior.names).doses(points)
    np.testing.assert_allclose(one["electron"], expected, rtol=5e-3)
    assert (one["alpha"] == 0).all()
    times = np.linspace(0, 1500, 1501)
    rate = 3000 * np.exp(chain.ln_curve(points, times, "tumour")) / 75_000 * per_mbq
    state = RepairState([(1.0, math.log(2) / 1.5)])
    state.add_curve(times, rate * 2 ** (-times / half_life_h), math.log(2) / half_life_h)
    np.testing.assert_allclose(one["q"], state.q_gy2(), rtol=0.02)
    three = PatientDoses(twin, found["three"], posterior.names).doses(points)
    np.testing.assert_allclose(three["electron"], 3 * one["electron"], rtol=1e-9)
    np.testing.assert_allclose(three["q"], 3 * one["q"], rtol=0.02)  # 70 days apart: repaired
    assert (PatientDoses(twin, found["alpha"], posterior.names).doses(points)["alpha"] > 0).all()


def test_a_cohort_has_the_same_patients_in_every_arm(case, capsys):
    assert "no plans" in call(capsys, case.root, "cohort")[1]
    plans(case)
    code, found = call(capsys, case.root, "cohort", "--n", "80", "--threshold", "20 Gy")
    assert code == 0
    assert [found[key] for key in ("n", "drawn_from", "note")] == [80, "prior", SIMULATED]
    pairs = {(one["a"], one["b"]): one["probability"] for one in found["better"]}
    assert pairs["one", "same"] == 0.5
    assert pairs["one", "three"] == 0.0
    arms = {row["arm"]: row for row in found["arms"]}
    assert arms["three"]["median"] > 2.5 * arms["one"]["median"]
    low, high = wilson_interval(round(80 * arms["one"]["responders"]), 80)
    assert (arms["one"]["responders_low"], arms["one"]["responders_high"]) == (low, high)
    assert arms["one"]["patients_needed"] == patients_needed(0.05, arms["one"]["responders"])
    assert [one["name"] for one in found["between_patients"]] == list(FREE)
    assert found["between_patients"][0]["sd_ln"] == pytest.approx(1.5, rel=0.2)
    chosen = ("--plan", "one", "--outcome", "electron", "--n", "80")
    some = call(capsys, case.root, "cohort", *chosen)[1]
    assert [row["arm"] for row in some["arms"]] == ["one"]
    assert some["arms"][0]["median"] < arms["one"]["median"]
    assert some["arms"][0]["median"] == arms["one"]["outcomes"]["electron"]["median"]
    CaseTwin(case).take_in_next()
    after = call(capsys, case.root, "cohort", "--plan", "one")[1]
    assert (after["drawn_from"], after["n"]) == ("posterior", 400)
    before = call(capsys, case.root, "cohort", "--plan", "one", "--n", "80", "--population")[1]
    assert before["arms"][0]["high"] == arms["one"]["high"] > 5 * after["arms"][0]["high"]


def test_the_prior_that_is_stored_is_that_of_the_settings(case):
    CaseTwin(case, {"transfer_sd": 0.5, "slow_half_life_h": 100}).predict_next()
    stored = json.loads((case.root / "twin" / "prior.json").read_text("utf-8"))
    prior = CaseTwin(case).prior
    assert isinstance(prior, Prior)
    assert stored["prior"]["slow_half_life_h"] == [100.0, 0.3]
    assert prior.sd[0] == 0.5
    assert stored["settings"]["transfer_sd"] == 0.5


def test_the_time_course_is_a_shape_for_the_dose(case, tmp_path, capsys):
    for _ in SCANS:
        CaseTwin(case).take_in_next()
    out = tmp_path / "curve.csv"
    code, found = call(capsys, case.root, "curve", "--out", out, "--nuclide", "Lu-177")
    assert code == 0
    times, levels = read_curve(out)
    assert times == found["time_h"]
    assert levels == found["activity_mbq_ml"]
    place = times.index(min(times, key=lambda time: abs(time - 168)))
    assert found["low"][place] < found["median"][place] < found["high"][place]
    assert levels[place] == pytest.approx(found["median"][place] * 37.1 / 75_000)
    twin = CaseTwin(case)
    chain, draws = Chain(twin.prior, twin.posterior.names), twin.posterior.draws
    ln = chain.ln_integral(draws, 159.5) - chain.ln_curve(draws, [336.0], "tumour")[:, 0]
    ratios = np.exp(ln)
    assert found["time_course_cv"] == pytest.approx(ratios.std() / ratios.mean(), rel=0.1)
    assert found["uptake_at_h"] == 336.0


def test_the_report_is_that_of_a_twin_after_two_scans(case):
    assert not any("twin" in row.value for row in gather_report(case).checks)
    CaseTwin(case).take_in_next()
    one = gather_report(case)
    assert not one.updates_with_new_images
    add_invivo(case, [value(120, "tumour", 36.0)], replace_same=True)
    CaseTwin(case).take_in_next()
    two = gather_report(case)
    assert two.updates_with_new_images
    tables = {table.title: table for table in two.tables}
    scans = tables["Updating twin: scans"].rows
    assert [row[0] for row in scans] == ["72", "120"]
    stored = json.loads((case.root / "twin/predictions/001_120h.json").read_text("utf-8"))
    assert scans[1][2:6] == (stored["median"], stored["low"], stored["high"], 36.0)
    words = {row[0]: row[-1] for row in tables["Updating twin: parameters"].rows}
    assert words["k03_per_h"] == "prior only"
    assert any("SD above its prediction" in text for text in two.warnings)
    assert any("prior only" in text for text in two.limitations)
    checks = {(row.area, row.status) for row in two.checks if row.value.startswith("twin: ")}
    assert ("Code verification", "pass") in checks
    assert ("Uncertainty", "pass") in checks
    assert ("Validation", "fail") in checks
    assert ("Identifiability", "fail") in checks
    assert any("twin" in figure.title for figure in two.figures)


def test_the_verification_notices_a_wrong_posterior(monkeypatch):
    from napari_mosaik.twin import verification as module
    from napari_mosaik.workflow.twin import _observation

    rows = [_observation(value(time, "tumour", mean)) for time, mean, _ in SCANS]
    right = module.verified_by_lines(rows)
    assert right["sequential_gap"] <= module.SEQUENTIAL_LIMIT
    assert right["rank_gap"] <= module.RANK_LIMIT
    original = module.predict_scan

    def too_sure(posterior, time_h, *arguments, **options):
        found = original(posterior, time_h, *arguments, **options)
        return replace(found, draws=found.median * (found.draws / found.median) ** 0.5)

    monkeypatch.setattr(module, "predict_scan", too_sure)
    assert run_to_end(module._iter_rank_gap()) > module.RANK_LIMIT


def test_a_scan_is_taken_in_with_progress_and_stops_within_the_profile(case):
    seen = []
    run_to_end(CaseTwin(case).iter_take_in_next(), seen.append)
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 0.99
    texts = [progress.text for progress in seen]
    assert "posterior" in texts
    assert texts.count("identifiability") > 2
    before = sorted(path.name for path in (case.root / "twin").rglob("*"))
    checks = iter(range(10**6))
    for stop in ("posterior", "identifiability"):
        work, asked = CaseTwin(case).iter_take_in_next(), []

        def follow(progress, asked=asked, stop=stop):
            if progress.text == stop:
                asked.append(next(checks))

        with pytest.raises(Cancelled), cancellable(lambda asked=asked: bool(asked)):
            run_to_end(work, follow)
        assert len(asked) == 1  # not one step more
    left = sorted(path.name for path in (case.root / "twin").rglob("*"))
    assert [name for name in left if name not in before] == ["001_120h.json"]


def test_a_plan_gets_the_time_course_and_the_record_its_observations(case, capsys):
    write_plan(case.root, Plan(name="One", courses=(Course(activity=7.4, unit="GBq"),)))
    twin = CaseTwin(case, {"free": "transfer_per_h,slow_half_life_h"})
    with pytest.raises(InputError, match="would be the prior alone"):
        twin.use_in_plan("One")
    twin.decide("One", "Dr A")
    twin.take_in_next()
    assert [line.get("mean") for line in CaseTwin(case).decisions()] == [None, 3.4]
    code, made = call(capsys, case.root, "use-in-dose", "--plan", "One")
    assert (code, made["before"]) == (0, "constant")
    plan = read_plans(case.root)["One"]
    course = CaseTwin(case).time_course(NUCLIDES["Lu-177"].half_life_h)
    assert plan.spreads.time_course == 0  # the draws hold it
    assert made["time_course_cv"] == course["time_course_cv"]
    file = case.root / "plans" / plan.shape
    times, values, drawn = read_time_course(file)
    assert (times, values) == (course["time_h"], course["activity_mbq_ml"])
    assert drawn.shape == (made["n_draws"], len(times)) == (1000, len(times))
    seen = predict(CaseTwin(case).posterior, times).draws[:1000] * 37.1 / 75_000
    assert drawn == pytest.approx(seen, rel=1e-7)
    before = file.read_bytes()
    CaseTwin(case).use_in_plan("One")
    assert file.read_bytes() == before
    (source,) = read_plans(case.root)["One"].sources  # the former one is not kept
    assert source.startswith("time course of the updating twin after 1 scans, data ")
    assert source.endswith(", 1000 draws, seed 0")

    assert call(capsys, case.root, "observe", "--decision", 2, "--by", "B", "--text", "x")[0] == 2
    observed = ("observe", "--decision", 1, "--by", "Dr B", "--text", "stable")
    assert call(capsys, case.root, *observed)[0] == 0
    first, _, last = CaseTwin(case).decisions()
    assert (last["observed"], last["observed_of"]) == ("stable", first["time"])
    place = case.root / "twin" / "decisions.jsonl"
    place.write_text(place.read_text("utf-8").replace("stable", "better"), "utf-8")
    with pytest.raises(CorruptArtifact, match="line 3, is damaged"):
        CaseTwin(case).decisions()
    place.write_text("", "utf-8")
    with pytest.raises(CorruptArtifact, match="damaged: it holds no decision"):
        CaseTwin(case).status()


def test_the_labels_of_the_curves_fit_into_a_narrow_dock(case):
    figure = twin_time_figure(read_twin(case), 0)
    figure.set_size_inches(2.9, 4.4)
    figure.canvas.draw()
    for axes in figure.axes[1:]:
        label = axes.yaxis.label.get_window_extent()
        numbers = [one.get_window_extent().x0 for one in axes.get_yticklabels() if one.get_text()]
        assert 0 <= label.x0 < label.x1 < min(numbers)
