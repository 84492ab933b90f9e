"""Cases and cohorts: doubts in the status, moved files, damage, leaks, texts edited by hand."""

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile

from napari_mosaik.cli import main
from napari_mosaik.core import (
    CorruptArtifact,
    InjectionRecord,
    InputError,
    MosaikError,
    Progress,
)
from napari_mosaik.core.catalogue import LANDMARKS, PARAMETERS, PET, SLIDES, STAINING
from napari_mosaik.core.manifest import damaged_files, listed_files
from napari_mosaik.io import Case, PetEntry, find_cases
from napari_mosaik.predictor import TrainedModel, leave_one_case_out, leave_one_patient_out
from napari_mosaik.segment.model_files import read_card, save_weights
from napari_mosaik.view.formatting import STATE_MARKS
from napari_mosaik.workflow.case_status import case_status, cohort_line
from napari_mosaik.workflow.cohort import training_cases
from napari_mosaik.workflow.leaks import refuse_shared_sources
from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe
from napari_mosaik.workflow.run import run_until
from napari_mosaik.workflow.step import Step, StepStatus
from napari_mosaik.workflow.steps import STEPS, step_named
from tests.cli.test_commands import call
from tests.io.test_store import RECORD, values
from tests.workflow.conftest import FIRST, Settings, case, install

__all__ = ["case"]


# --- green without proof --------------------------------------------------------------------------
def doubting(inputs, params):
    yield Progress(0.5, 1)
    inputs.warn("tissue covers 0.1 % of the slide")
    inputs.note(STAINING, {"warnings": ["the stain is faint"]})
    return {FIRST: {"warnings": ["the confidence is low"]}}


def doubtful_steps():
    return (Step("first", "First", "", "", Settings, (PET,), (FIRST,), doubting),)


@pytest.fixture
def doubtful(case, monkeypatch):
    """A case whose only step has run and has doubts."""
    install(monkeypatch, doubtful_steps())
    list(run_until(case, read_recipe(case.root)))
    return case


DOUBTS = ("tissue covers 0.1 % of the slide", "the stain is faint", "the confidence is low")


def test_a_step_with_doubts_is_done_and_not_a_plain_check_mark(doubtful):
    state = case_status(doubtful).states["first"]
    assert (state.word, state.warnings, state.mark) == ("done", DOUBTS, "doubtful")
    assert STATE_MARKS[state.mark][0] == "⚠"
    assert StepStatus("done").mark == "done"
    assert StepStatus("stale", "", DOUBTS).mark == "stale"


def told(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    capsys.readouterr()
    code = call(*arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_status_shows_doubts_as_text_and_as_json(doubtful, monkeypatch, capsys):
    monkeypatch.setattr("napari_mosaik.workflow.steps.STEPS", doubtful_steps())
    _, out, _ = told(capsys, "status", doubtful.root)
    assert "⚠ the stain is faint" in out
    _, out, _ = told(capsys, "status", doubtful.root, "--json")
    assert json.loads(out)["B11"]["steps"]["first"] == {
        "state": "done",
        "reason": "",
        "warnings": list(DOUBTS),
    }


# --- leaks ----------------------------------------------------------------------------------------
@pytest.fixture
def cohort(tiny_cohort, tmp_path):
    """A copy of the tiny sample cohort; nothing is computed."""
    shutil.copytree(tiny_cohort, tmp_path / "cohort", ignore=lambda *_: ["truth"])
    return tmp_path / "cohort"


def edited(root, **values):
    """Change texts of a case's ``case.toml``, as an editor would."""
    path = root / "case.toml"
    text = path.read_text("utf-8")
    for key, value in values.items():
        text = re.sub(rf'(?m)^{key} = ".*"$', f'{key} = "{value}"', text)
    path.write_text(text, "utf-8")
    return root


def copied(root, folder, **values):
    """A copy of a case under another folder, name and patient."""
    shutil.copytree(root, root.parent / folder)
    return edited(root.parent / folder, **values)


@pytest.mark.parametrize("split", ["case", "patient"])
def test_the_held_out_slides_under_another_name_are_not_trained_on(cohort, capsys, split):
    copied(cohort / "B11", "C9", name="C9", patient="another patient")
    code, _, err = told(capsys, "train", cohort, "--test", "B11", "--split", split)
    assert code == 2
    assert re.search(r"B11 \(.* C9 \(.* hold the same H&E slide", err)
    assert err.count("\n") == 1


def test_one_shared_slide_or_pet_is_enough_whatever_its_pixel_size(cohort, tmp_path):
    cases = [Case(cohort / name) for name in ("A2", "B11")]
    a2, b11 = cases
    refuse_shared_sources(cases, "no")
    slide = a2.file.slides["caix"].spaced((0.9, 0.9), "user")
    taken = slide.model_copy(update={"path": str(a2.path(slide.path))})
    b11.update(slides={**b11.file.slides, "caix": taken})
    with pytest.raises(InputError, match=r"A2.*B11.*same CAIX slide"):
        refuse_shared_sources(cases, "no")
    with pytest.raises(InputError, match="same CAIX slide"):
        training_cases(cases, "B11", "case")


def test_a_slide_that_is_another_stain_elsewhere_is_the_same_slide(cohort):
    a2, b11 = (Case(cohort / name) for name in ("A2", "B11"))
    taken = a2.file.slides["he"].model_copy(
        update={"path": str(a2.path(a2.file.slides["he"].path))}
    )
    b11.update(slides={**b11.file.slides, "caix": taken})
    with pytest.raises(InputError, match=r"A2 \(.*B11 \(.*hold the same CAIX slide"):
        training_cases([a2, b11], "B11", "case")


def test_the_same_pet_is_found_whatever_file_it_is_in(cohort):
    cases = [Case(cohort / name) for name in ("A2", "B11")]
    a2, b11 = cases
    (path,) = a2.file.pet.paths
    dataset = pydicom.dcmread(a2.path(path))
    dataset.PatientID = "another"
    dataset.save_as(b11.root / "other.dcm")
    b11.update(pet=PetEntry(paths=("other.dcm",)))
    with pytest.raises(InputError, match="same microPET slice"):
        training_cases(cases, "B11", "case")


def test_a_copy_without_its_slides_is_known_by_what_was_measured_on_them(cohort):
    run_to_end_of(Case(cohort / "A2"), "tissue_he")
    copied(cohort / "A2", "C9", name="C9")
    for root in (cohort / "A2", cohort / "C9"):
        Case(root).path(Case(root).file.slides["he"].path).unlink()
    cases = [Case(cohort / name) for name in ("A2", "C9")]
    with pytest.raises(InputError, match="same H&E slide"):
        refuse_shared_sources(cases, "no", [SLIDES["he"]])


def run_to_end_of(case, step):
    for _ in run_until(case, read_recipe(case.root), step):
        pass


def test_a_classifier_is_not_assessed_on_a_copy_of_its_own_slide(cohort, capsys):
    copied(cohort / "A2", "C9", name="C9", patient="another patient")
    code, _, err = told(capsys, "retrain", cohort / "A2", cohort / "C9")
    assert (code, "same H&E slide" in err) == (2, True)


@pytest.mark.parametrize("other", [" p1", "P1", "P1\t", "ｐ1".replace("ｐ", "p")])
def test_pseudonyms_are_compared_without_case_and_blanks(other):
    patients = {"A": "P1", "B": other, "C": "P2"}
    assert leave_one_patient_out(patients, "A").train == ("C",)
    assert leave_one_case_out(patients, "A").shared_patient


def test_pseudonyms_are_compared_as_composed_letters():
    patients = {"A": "M\u00fcller", "B": "mu\u0308ller ", "C": "Möller"}
    assert leave_one_patient_out(patients, "A").train == ("C",)


def test_cases_of_one_name_are_both_shown_and_not_trained_on(cohort, capsys):
    copied(cohort / "B11", "copy of B11")
    code, out, _ = told(capsys, "status", cohort, "--json")
    folders = [entry["folder"] for entry in json.loads(out).values()]
    assert sorted(Path(folder).name for folder in folders) == ["A2", "B11", "B8", "copy of B11"]
    assert code == 0
    code, _, err = told(capsys, "train", cohort, "--test", "B11")
    assert code == 2
    assert {str(cohort / "B11"), str(cohort / "copy of B11")} <= set(re.findall(r"\((.*?)\)", err))


def test_a_cohort_is_sorted_as_people_sort_with_progress_and_what_comes_next(cohort, capsys):
    _, out, _ = told(capsys, "status", cohort)
    table = out[out.index("Cohort") :]
    assert re.findall(r"^ *([AB]\d+) ", table, re.M) == ["A2", "B8", "B11"]
    assert re.search(r"B8 +0 of \d+ +run Tissue", table)


def test_a_case_that_is_named_twice_or_linked_is_one_case(cohort):
    (cohort / "link").symlink_to(cohort / "A2", target_is_directory=True)
    found = find_cases([cohort, cohort / "A2"])
    assert [path.name for path in found] == ["A2", "B11", "B8"]


def test_an_unreadable_case_stops_no_other(cohort, capsys):
    (cohort / "B8" / "case.toml").write_text("name = \n", "utf-8")
    code, out, err = told(capsys, "status", cohort, "--json")
    assert code == 2
    assert sorted(json.loads(out)) == ["A2", "B11"]
    assert re.search(r"B8.case.toml.*line 1", err)


# --- texts that people edit -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tissue_he = 5\n", "tissue_he = 5 is not valid: .* below the heading"),
        ("tissue_he = [1]\n", "tissue_he = .1. is not valid"),
        ('[vessels]\nmin_area_um2 = "x"\n', "step vessels: min_area_um2 = 'x' is not valid"),
        ("[vessels]\nmin_area_um2 = -1\n", "step vessels: min_area_um2 = -1 is not valid"),
        ("[vessels]\nmin_area = 5\n", "no setting 'min_area'; did you mean 'min_area_um2'"),
        ("[vesels]\n", "unknown step 'vesels'; did you mean 'vessels'"),
        ("\n[vessels]\n[vessels]\n", "line 3 is not valid TOML: .*vessels"),
        ("[vessels]\nmin_area_um2 = 5\nmin_area_um2 = 6\n", "line 3 .*'min_area_um2 = 6'"),
        ("[vessels]\nmin_area_um2 = 1,5\n", "line 2 .*'min_area_um2 = 1,5'"),
        ("[vessels\n", "line 1"),
        ("a = " + "[" * 5000, "line 1"),
    ],
)
def test_a_slip_in_the_recipe_is_one_line_with_file_and_key(cohort, capsys, text, words):
    (cohort / "A2" / "recipe.toml").write_text(text, "utf-8")
    for command in ("status", "run"):
        code, _, err = told(capsys, command, cohort / "A2")
        assert (code, err.count("\n")) == (2, 1)
        assert re.search(f"recipe.toml.*{words}", err), err


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_texts_in_the_encodings_of_editors_are_read(case, encoding):
    for name in ("case.toml", "recipe.toml"):
        path = case.root / name
        text = path.read_text("utf-8") if path.exists() else "[vessels]\nmin_area_um2 = 5.0\n"
        path.write_bytes((text + "# Größe\n").encode(encoding))
    assert Case(case.root).name == "B11"
    assert read_recipe(case.root)["vessels"].min_area_um2 == 5


@pytest.mark.parametrize(
    ("slip", "words"),
    [
        ("patien = 'x'\n", "no entry 'patien'; did you mean 'patient'"),
        ("name = 'x'\n", "line 3 is not valid TOML: .*\"name = 'x'\""),
        ("[pet]\npaths = 'a'\n", "pet.paths = 'a' is not valid"),
        ("[slides.he]\npat = 'a'\n", "'slides.he.path' is missing"),
        ("[slides.he]\npath = 'a'\nicc = 'perhaps'\n", "slides.he.icc = 'perhaps' is not valid"),
        ("[slides.hé]\npath = 'a'\n", "hé"),
    ],
)
def test_a_slip_in_the_case_file_is_one_line_with_file_and_key(case, capsys, slip, words):
    (case.root / "case.toml").write_text('name = "B11"\n' + "\n" + slip, "utf-8")
    code, _, err = told(capsys, "status", case.root)
    assert (code, err.count("\n")) == (2, 1)
    assert re.search(f"case.toml.*{words}", err), err


# --- damage ---------------------------------------------------------------------------------------
@pytest.fixture
def stored(case, monkeypatch):
    """A finished case with one result of each kind."""

    def body(inputs, params):
        yield Progress(0.5, 1)
        inputs.warn("faint")
        return values()

    steps = (Step("first", "First", "", "", Settings, (PET,), tuple(values()), body),)
    install(monkeypatch, steps)
    monkeypatch.setattr("napari_mosaik.workflow.steps.STEPS", steps)
    run_to_end_of(case, "")
    return case


def damages(content, rng):
    """The content of a file with a byte changed at some places, cut off, and gone."""
    for place in rng.integers(0, len(content), 6):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        yield bytes(changed)
    yield content[: int(rng.integers(len(content)))]
    yield None


def put(path, content):
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)


def files_in(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def test_a_damaged_byte_in_any_file_of_a_result_is_named_or_harmless(stored):
    rng = np.random.default_rng(1)
    store, known = stored.store, case_status(stored).states["first"]
    assert known.word == "done"
    files = files_in(store.root)
    assert {path.name for path in files} > {"origin.json", "record.json", "zarr.json", "0"}
    for path in files:
        artifact = next(one for one in values() if one.name in path.parts)
        content = path.read_bytes()
        for damaged in damages(content, rng):
            put(path, damaged)
            state = case_status(Case(stored.root)).states["first"]
            if state == known:  # one kind of blank for another, or a byte that nothing reads
                assert store.record(artifact)["warnings"] == ["faint"]
                assert equal(store.read(artifact), values()[artifact])
                continue
            assert (state.word, state.damaged) == ("stale", True)
            assert "damaged" in state.reason
            assert str(path) in state.reason
            reads = store.record if path.name == "record.json" else store.read
            with pytest.raises(CorruptArtifact, match=r"damaged.*" + path.name):
                reads(artifact)
            put(path, content)


def equal(one, other):
    if isinstance(one, dict):
        return one == other
    parts = [getattr(part, "values", part) for part in (one, other)]
    return repr(parts[0]) == repr(parts[1])


def test_a_change_within_one_tick_of_the_clock_is_noticed(tmp_path):
    path, now = tmp_path / "document.json", time.time_ns() + 10**10
    path.write_bytes(b"2.5")
    os.utime(path, ns=(now, now))
    files = listed_files(tmp_path)
    path.write_bytes(b"2.6")
    os.utime(path, ns=(now, now))
    assert list(damaged_files(tmp_path, files)) == [("document.json", "changed")]


def test_run_and_status_name_the_damage_and_run_again_only_when_told(stored, capsys):
    path = stored.store.folder(RECORD) / "document.json"
    path.write_bytes(path.read_bytes().replace(b"2.5", b"2.6"))
    for arguments in ((), ("--until", "first"), ("--step", "first")):
        code, _, err = told(capsys, "run", stored.root, *arguments)
        assert (code, err.count("napari-mosaik: ")) == (2, 1), err
        assert "damaged" in err
        assert str(path) in err
    code, out, _ = told(capsys, "status", stored.root, "--json")
    state = json.loads(out)["B11"]["steps"]["first"]
    assert (code, state["state"], state["warnings"]) == (0, "stale", [])
    assert "damaged" in state["reason"]
    assert told(capsys, "run", stored.root, "--step", "first", "--force")[0] == 0
    assert stored.store.read(RECORD) == values()[RECORD]


def test_the_window_runs_a_damaged_step_again(stored):
    (stored.store.folder(RECORD) / "origin.json").unlink()
    for _ in run_until(stored, read_recipe(stored.root), "first", repair=True):
        pass
    assert case_status(stored).states["first"].word == "done"


@pytest.mark.parametrize(
    ("name", "key"),
    [(f"{one}.json", key) for one, own in (("origin", "files"), ("record", "warnings"))
     for key in ("seal", own)],
)  # fmt: skip
def test_a_lost_entry_of_a_record_is_damage_also_the_seal_itself(stored, name, key):
    path = stored.store.folder(RECORD) / name
    document = json.loads(path.read_text("utf-8"))
    del document[key]
    path.write_text(json.dumps(document), "utf-8")
    state = case_status(Case(stored.root)).states["first"]
    assert (state.word, state.damaged, state.warnings) == ("stale", True, ())
    assert "damaged" in state.reason
    assert str(path) in state.reason


@pytest.mark.parametrize("loss", ["changed", "gone"])
def test_nothing_is_computed_without_classes_whose_model_is_damaged(
    computed_cohort, tmp_path, capsys, loss
):
    shutil.copytree(computed_cohort / "A2", tmp_path / "A2")
    case = Case(tmp_path / "A2")
    model = case.model_folder(read_recipe(case.root)["classes"].model)
    if loss == "gone":
        shutil.rmtree(model)
    else:
        card = model / "card.json"
        card.write_bytes(card.read_bytes().replace(b"1", b"2", 1))
    states = case_status(case).states
    why = "damaged" if loss == "changed" else "is not in the models folder"
    assert [states[name].word for name in ("classes", "parameters", "maps")] == ["blocked"] * 3
    assert why in states["classes"].reason
    assert why in states["parameters"].reason
    before = case.store.origin(PARAMETERS)
    code, _, err = told(capsys, "run", case.root, "--step", "parameters")
    assert (code, why in err) == (2, True)
    assert case.store.origin(PARAMETERS) == before


def refusal(work, *arguments):
    """The message with which something is refused; empty if it is not."""
    try:
        work(*arguments)
    except MosaikError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", ["predictor", "classifier"])
def test_a_damaged_byte_in_any_file_of_a_model_is_named_or_harmless(tmp_path, kind):
    rng = np.random.default_rng(2)
    if kind == "predictor":
        card = {"format": 2, "cases": [], "times": {"seconds": 1.5}}
        folder = TrainedModel({"w": np.arange(6.0)}, card).save(tmp_path)
        load = TrainedModel.load
    else:
        folder = tmp_path / "model"
        essentials = {"model": "fast", "classes": ["a", "b"], "params": {"n": 1}}
        save_weights(folder, {"w": np.arange(6.0)}, essentials, {"cases": ["A2"]})
        load = read_card
    assert len(files_in(folder)) == 3
    for path in files_in(folder):
        content = path.read_bytes()
        for damaged in damages(content, rng):
            put(path, damaged)
            message = refusal(load, folder)
            if message:
                assert "damaged" in message
                assert path.name in message
            else:  # one kind of blank for another
                assert damaged.split() == content.split()
            put(path, content)


# --- moved, copied, renamed -----------------------------------------------------------------------
def picture(path, seed=0, shape=(60, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb")
    return path


def made(capsys, root, *options):
    """A case that the command line has made."""
    code, _, err = told(capsys, "new", root, *options)
    assert code == 0, err
    return Case(root)


def states_of(case):
    return {name: state.word for name, state in case_status(Case(case)).states.items()}


def test_a_case_with_its_slide_inside_is_moved_copied_and_renamed(tmp_path, capsys):
    slide = picture(tmp_path / "B1" / "slides" / "he.tif")
    case = made(capsys, tmp_path / "B1", "--he", slide, "--spacing-he", "0.5")
    assert case.file.slides["he"].path == "slides/he.tif"
    assert str(tmp_path) not in (case.root / "case.toml").read_text("utf-8")
    before = case.digest(SLIDES["he"])
    (tmp_path / "B1").rename(tmp_path / "with blank, Ä and 中")
    moved = Case(tmp_path / "with blank, Ä and 中")
    assert moved.digest(SLIDES["he"]) == before
    assert states_of(moved.root)["tissue_he"] == "missing"


def test_a_cohort_with_its_slides_beside_the_cases_is_moved_as_a_whole(tmp_path, capsys):
    slide = picture(tmp_path / "cohort" / "slides" / "he.tif")
    marks = tmp_path / "cohort" / "marks.csv"
    marks.write_text("X,Y\n1,2\n3,4\n5,6\n", "utf-8")
    root = tmp_path / "cohort" / "B1"
    options = ("--landmarks-he", marks, "--landmarks-cd34", marks)
    case = made(capsys, root, "--he", slide, "--spacing-he", "0.5", *options)
    before = [case.digest(SLIDES["he"]), case.digest(LANDMARKS)]
    (tmp_path / "cohort").rename(tmp_path / "moved")
    moved = Case(tmp_path / "moved" / "B1")
    assert [moved.digest(SLIDES["he"]), moved.digest(LANDMARKS)] == before
    moved.update(patient="p2")  # what is written now holds the new place
    (tmp_path / "moved").rename(tmp_path / "again")
    assert Case(tmp_path / "again" / "B1").digest(SLIDES["he"]) == before[0]
    (tmp_path / "again" / "B1").rename(tmp_path / "alone")  # the case without its slides
    assert states_of(tmp_path / "alone")["tissue_he"] == "blocked"


def test_a_case_is_moved_away_from_its_slides(tmp_path, capsys):
    slide = picture(tmp_path / "archive" / "he.tif")
    case = made(capsys, tmp_path / "B1", "--he", slide, "--spacing-he", "0.5")
    (tmp_path / "far" / "away").mkdir(parents=True)
    case.root.rename(tmp_path / "far" / "away" / "B1")
    assert states_of(tmp_path / "far" / "away" / "B1")["tissue_he"] == "missing"


@pytest.mark.parametrize(
    "text",
    [
        "slides\\\\he.tif",
        ".\\\\slides\\\\he.tif",
        "slides/he.tif",
    ],
)
def test_separators_of_windows_are_read_everywhere(tmp_path, text):
    picture(tmp_path / "B1" / "slides" / "he.tif")
    (tmp_path / "B1" / "case.toml").write_text(f'name = "B1"\n[slides.he]\npath = "{text}"\n')
    assert Case(tmp_path / "B1").missing_reason(SLIDES["he"]) == ""


def test_a_cohort_from_windows_is_read_on_another_system(tmp_path):
    picture(tmp_path / "cohort" / "slides" / "he.tif")
    root = tmp_path / "cohort" / "B1"
    root.mkdir()
    (root / "case.toml").write_text(
        "name = 'B1'\nhome = 'D:\\Study\\cohort\\B1'\n"
        "[slides.he]\npath = 'D:\\Study\\cohort\\slides\\he.tif'\n"
        "[slides.cd34]\npath = 'E:\\other\\cd34.tif'\n",
        "utf-8",
    )
    case = Case(root)
    assert case.missing_reason(SLIDES["he"]) == ""
    assert "E:\\other\\cd34.tif" in case.missing_reason(SLIDES["cd34"])


def test_absolute_paths_of_old_cases_are_read(tmp_path):
    slide = picture(tmp_path / "he.tif")
    (tmp_path / "B1").mkdir()
    (tmp_path / "B1" / "case.toml").write_text(
        f'name = "B1"\n[slides.he]\npath = "{slide}"\nspacing_um = [0.5, 0.5]\n'
        'spacing_source = "user"\n'
    )
    assert states_of(tmp_path / "B1")["tissue_he"] == "missing"


@pytest.mark.realdata
def test_a_sidecar_beside_a_link_belongs_to_the_link(tmp_path, capsys, field_inputs):
    given = field_inputs / "H19_annexed_nifti"
    link = tmp_path / "pet.nii.gz"
    link.symlink_to(given / (given / "pet.nii.gz").read_text("utf-8"))
    shutil.copy(given / "pet.json", tmp_path / "pet.json")
    code, _, err = told(capsys, "suv", link, "--json")
    assert code == 0, err
    case = made(capsys, tmp_path / "B1", "--pet", link, "--pet-slice", 1)
    assert case.file.pet.paths == (str(link),)
    case.update(injection=InjectionRecord())
    assert told(capsys, "run", case.root, "--until", "suv")[0] == 0


def test_a_link_is_kept_as_it_was_given(tmp_path, capsys):
    slide = picture(tmp_path / "store" / "0815")
    (tmp_path / "B1").mkdir()
    (tmp_path / "B1" / "he.tif").symlink_to(slide)
    case = made(capsys, tmp_path / "B1", "--he", tmp_path / "B1" / "he.tif", "--spacing-he", "0.5")
    assert case.file.slides["he"].path == "he.tif"
    (tmp_path / "linked").symlink_to(tmp_path / "B1", target_is_directory=True)
    assert states_of(tmp_path / "linked")["tissue_he"] == "missing"


def test_a_moved_slide_is_relinked_and_another_one_refused(tmp_path, capsys):
    slide = picture(tmp_path / "he.tif")
    case = made(capsys, tmp_path / "B1", "--he", slide, "--spacing-he", "0.5")
    slide.rename(tmp_path / "moved.tif")
    code, out, _ = told(capsys, "status", case.root)
    assert code == 0
    assert f"napari-mosaik relink {case.root} he PATH" in " ".join(out.split())
    other = picture(tmp_path / "other.tif", 1, (60, 81))
    text = (case.root / "case.toml").read_text("utf-8")
    code, _, err = told(capsys, "relink", case.root, "he", other)
    assert code == 2
    assert re.search(r"another H&E slide .*81 x 60 pixels.*80 x 60 pixels", err)
    assert (case.root / "case.toml").read_text("utf-8") == text
    assert told(capsys, "relink", case.root, "he", tmp_path / "moved.tif")[0] == 0
    assert states_of(case.root)["tissue_he"] == "missing"
    for key, place in (("cd34", slide), ("he", tmp_path / "no.tif"), ("pet", slide)):
        assert told(capsys, "relink", case.root, key, place)[0] == 2


def test_the_slide_of_an_old_case_is_known_by_its_results(cohort, capsys):
    run_to_end_of(Case(cohort / "A2"), "tissue_he")
    path = Case(cohort / "A2").path(Case(cohort / "A2").file.slides["he"].path)
    moved = path.rename(cohort / "moved.tif")
    text = (cohort / "A2" / "case.toml").read_text("utf-8")
    (cohort / "A2" / "case.toml").write_text(re.sub(r"(?ms)^\[identity.*?(?=^\[[^i]|\Z)", "", text))
    assert not Case(cohort / "A2").file.identity
    other = Case(cohort / "B8").path(Case(cohort / "B8").file.slides["he"].path)
    code, _, err = told(capsys, "relink", cohort / "A2", "he", other)
    assert (code, "measured on another" in err) == (2, True)
    assert told(capsys, "relink", cohort / "A2", "he", moved)[0] == 0
    assert states_of(cohort / "A2")["tissue_he"] == "done"


def test_a_moved_pet_is_relinked_and_another_one_refused(cohort, capsys):
    a2, b8 = (Case(cohort / name) for name in ("A2", "B8"))
    (path,) = a2.file.pet.paths
    for one in (a2, b8):
        one.update()  # notes what its files are
    (cohort / "scans").mkdir()
    moved = a2.path(path).rename(cohort / "scans" / a2.path(path).name)
    code, _, err = told(capsys, "relink", a2.root, "pet", b8.path(b8.file.pet.paths[0]))
    assert (code, "another microPET slice" in err) == (2, True)
    assert told(capsys, "relink", a2.root, "pet", cohort / "scans")[0] == 0
    assert Case(a2.root).file.pet.paths == (str(moved),)


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".", " ", "a\\b", "CON", "nul.txt", "x" * 200, "a:b", "a\nb", "B1."]
)
def test_a_name_that_no_file_could_bear_is_refused(tmp_path, capsys, name):
    slide = picture(tmp_path / "he.tif")
    options = ("--he", slide, "--spacing-he", "0.5", "--name", name)
    code, _, err = told(capsys, "new", tmp_path / "B1", *options)
    assert (code, err.count("\n")) == (2, 1)
    assert "not a valid case name" in err
    assert not (tmp_path / "B1").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--landmarks-he", "three.csv"), "--landmarks-he needs --landmarks-cd34 as well"),
        (("--landmarks-cd34", "three.csv"), "--landmarks-cd34 needs --landmarks-he"),
        (("--landmarks-he", "none.csv", "--landmarks-cd34", "three.csv"), "none.csv"),
        (("--landmarks-he", "two.csv", "--landmarks-cd34", "three.csv"), "holds 2 .* 3; each"),
        (("--landmarks-he", "text.csv", "--landmarks-cd34", "three.csv"), "columns X and Y"),
    ],
)
def test_landmarks_that_cannot_be_used_are_refused(tmp_path, capsys, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "he.tif")
    (tmp_path / "three.csv").write_text("X,Y\n1,2\n3,4\n5,6\n", "utf-8")
    (tmp_path / "two.csv").write_text("X,Y\n1,2\n3,4\n", "utf-8")
    (tmp_path / "text.csv").write_text("hello\n", "utf-8")
    code, _, err = told(capsys, "new", "B1", "--he", "he.tif", "--spacing-he", "0.5", *options)
    assert (code, err.count("\n")) == (2, 1)
    assert re.search(words, err)


def test_the_list_of_a_cohort_names_no_step_that_lacks_its_model(cohort):
    case = Case(cohort / "B8")
    assert cohort_line(case.root).endswith("not run · next: Tissue on H&E")
    done = [
        step for step in STEPS if step.name not in ("classes", "predict", "input_spread", "review")
    ]
    for artifact in (artifact for step in done for artifact in step.writes):
        case.store.folder(artifact).mkdir(parents=True)
        (case.store.folder(artifact) / "origin.json").touch()
    assert cohort_line(case.root).endswith(f"{len(done)} of {len(STEPS)} steps")
    for artifact in step_named("classes").writes:
        case.store.folder(artifact).mkdir(parents=True)
        (case.store.folder(artifact) / "origin.json").touch()
    assert cohort_line(case.root).endswith(f"{len(done) + 1} of {len(STEPS)} steps")
    recipe = changed(read_recipe(case.root), "predict", model="ab" * 16)
    write_recipe(case.root, recipe)
    assert cohort_line(case.root).endswith("next: Prediction")


def test_a_moved_landmark_file_is_relinked(cohort, capsys):
    case = Case(cohort / "B8")
    for name in ("he.csv", "cd34.csv"):
        (case.root / name).write_text("X,Y\n1,2\n30,40\n5,60\n")
    case.update(landmarks={"he": "he.csv", "cd34": "cd34.csv"})
    (case.root / "marks").mkdir()
    (case.root / "he.csv").rename(case.root / "marks" / "new.csv")
    status = json.loads(told(capsys, "status", case.root, "--json")[1])["B8"]
    assert f"relink {case.root} landmarks-he PATH" in " ".join(status["warnings"])
    place = case.root / "marks" / "new.csv"
    assert told(capsys, "relink", case.root, "landmarks-he", place)[0] == 0
    assert Case(case.root).file.landmarks["he"] == "marks/new.csv"
    assert json.loads(told(capsys, "status", case.root, "--json")[1])["B8"]["warnings"] == []
    (case.root / "text.csv").write_text("a\n1\n")
    for key, path, words in (
        ("landmarks-caix", place, "no 'landmarks-caix' to relink; it has: .*landmarks-he"),
        ("landmarks-he", case.root / "none.csv", "no file at"),
        ("landmarks-he", case.root / "text.csv", "columns X and Y"),
    ):
        code, _, err = told(capsys, "relink", case.root, key, path)
        assert code == 2
        assert re.search(words, err)


def test_landmarks_that_are_gone_are_not_silently_left_out(cohort):
    case = Case(cohort / "A2")
    for name in ("he.csv", "cd34.csv"):
        (case.root / name).write_text("X,Y\n1,2\n3,4\n5,6\n", "utf-8")
    case.update(landmarks={"he": "he.csv", "cd34": "cd34.csv"})
    run_to_end_of(case, "tissue_he")
    run_to_end_of(case, "tissue_cd34")
    assert case_status(case).states["align_he"].word == "missing"
    (case.root / "he.csv").unlink()
    state = case_status(Case(case.root)).states["align_he"]
    assert state.word == "blocked"
    assert "he.csv" in state.reason


# --- files that may not be read -------------------------------------------------------------------
@pytest.fixture
def forbidden(monkeypatch):
    """A set of paths that may not be read, whoever runs the test."""
    names = set()
    real_open = io.open

    def guarded(real):
        def work(path, *arguments, **options):
            if any(str(path).startswith(name) for name in names):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *arguments, **options)

        return work

    monkeypatch.setattr("io.open", guarded(real_open))
    monkeypatch.setattr("builtins.open", guarded(real_open))
    monkeypatch.setattr("os.scandir", guarded(os.scandir))
    monkeypatch.setattr("os.listdir", guarded(os.listdir))
    return names


@pytest.mark.parametrize("what", ["pet", "folder", "he", "result", "recipe", "annotations"])
def test_a_file_that_may_not_be_read_is_named_and_the_other_steps_are_shown(
    cohort, capsys, forbidden, monkeypatch, what
):
    case = Case(cohort / "A2")
    run_to_end_of(case, "tissue_cd34")
    if what == "folder":
        (case.root / "series").mkdir()
        case.path(case.file.pet.paths[0]).rename(case.root / "series" / "0.dcm")
        case.update(pet=PetEntry(paths=("series",)))
    places = {
        "pet": case.path(case.file.paths("pet")[0]),
        "folder": case.root / "series" / "0.dcm",
        "he": case.path(case.file.paths("he")[0]),
        "result": case.root / "artifacts" / "tissue_cd34" / "origin.json",
        "recipe": case.root / "recipe.toml",
        "annotations": case.annotations_path("he"),
    }
    path = places[what]
    forbidden.add(str(path))
    monkeypatch.setattr("napari_mosaik.io.case._DIGESTS", {})  # another process
    monkeypatch.setattr("napari_mosaik.io.store._KNOWN", {})
    code, out, err = told(capsys, "status", case.root, "--json")
    if what == "recipe":
        assert code == 2
        assert re.search(r"recipe\.toml.*[Pp]ermission", err)
        return
    assert code == 0, err
    steps = json.loads(out)["A2"]["steps"]
    refused = [one["reason"] for one in steps.values() if str(path) in one["reason"]]
    assert refused or what == "annotations"
    assert all("permission" in reason.lower() for reason in refused), refused
    if what != "result":
        assert steps["tissue_cd34"]["state"] == "done"


# --- two windows, a disk that cannot be written ---------------------------------------------------
def test_the_message_of_a_lock_names_the_process_that_holds_it(case, capsys):
    code = (
        "import sys\nfrom napari_mosaik.io import Case\n"
        "with Case(sys.argv[1]).writing():\n print('held', flush=True)\n sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(case.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline().strip() == b"held"
        code, _, err = told(capsys, "run", case.root)
        assert code == 2
        assert f"process {holder.pid} on " in err
    finally:
        holder.communicate()
    assert not (case.root / ".writer").exists()
    case.update(patient="p")


def test_the_status_writes_nothing(cohort, capsys):
    run_to_end_of(Case(cohort / "A2"), "tissue_he")
    before = {path: path.stat().st_mtime_ns for path in (cohort / "A2").rglob("*")}
    assert told(capsys, "status", cohort / "A2")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (cohort / "A2").rglob("*")} == before


def test_a_case_that_cannot_be_written_is_one_clear_line(stored, capsys, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("napari_mosaik.core.atomic.flush_to_disk", refuse)
    monkeypatch.setattr("napari_mosaik.io.files.flush_to_disk", refuse)
    code, _, err = told(capsys, "run", stored.root, "--step", "first", "--force")
    assert (code, err.count("napari-mosaik: ")) == (2, 1)
    assert "the disk is read-only" in err


def test_two_writers_of_one_case_keep_each_other_s_changes(cohort):
    one, other = Case(cohort / "A2"), Case(cohort / "A2")
    he, cd34 = one.file.slides["he"], one.file.slides["cd34"]
    one.update(patient="p9", slides={**one.file.slides, "he": he.spaced((0.9, 0.9), "user")})
    other.update(slides={**other.file.slides, "cd34": cd34.spaced((0.8, 0.8), "user")})
    kept = Case(cohort / "A2").file
    assert kept.patient == "p9"
    assert kept.slides["he"].spacing_um == (0.9, 0.9)
    assert kept.slides["cd34"].spacing_um == (0.8, 0.8)
    assert other.file == kept


# --- values edited by hand ------------------------------------------------------------------------
def test_a_pixel_size_that_contradicts_the_header_is_refused_with_both(cohort, capsys):
    path = cohort / "A2" / "case.toml"
    text = path.read_text("utf-8")
    size = Case(cohort / "A2").file.slides["he"].spacing_um
    path.write_text(text.replace(f"{size[0]}", "0.25", 1), "utf-8")
    assert Case(cohort / "A2").file.slides["he"].spacing_source == "header"
    state = case_status(Case(cohort / "A2")).states["tissue_he"]
    assert state.word == "blocked"
    assert "0.25" in state.reason
    assert f"{size[0]:g} x" in state.reason


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_setting_that_is_no_number_is_refused(cohort, capsys, value):
    (cohort / "A2" / "recipe.toml").write_text(f"[vessels]\nmin_area_um2 = {value}\n", "utf-8")
    code, _, err = told(capsys, "status", cohort / "A2")
    assert code == 2
    assert "min_area_um2" in err


@pytest.mark.parametrize("path", ['""', r'"a\u0000b"', '"' + "x" * 5000 + '"', '"."', '"/"'])
def test_a_path_that_leads_nowhere_blocks_its_steps_only(case, capsys, path):
    text = f'name = "B11"\n[slides.he]\npath = {path}\nspacing_um = [0.5, 0.5]\n'
    (case.root / "case.toml").write_text(text + '[pet]\npaths = ["pet.dcm"]\n', "utf-8")
    code, out, _ = told(capsys, "status", case.root, "--json")
    assert code == 0
    assert json.loads(out)["B11"]["steps"]["tissue_he"]["state"] == "blocked"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--cd34", "he.tif"], "are the same slide; give the slide of each stain"),
        (["--cd34", "copy.tif"], "are the same slide"),
        (["--cd34", "link.tif"], "are the same slide"),
        (["--cd34", "other.tif"], ""),
        (
            ["--injected", "2024-05-13T10:00", "--excised", "2024-05-10T10:00"],
            "--excised .* before",
        ),
        (["--injected", "2024-05-13T10:00", "--excised", "2024-05-23T10:00Z"], "be compared"),
        (["--injected", "2024-05-13T10:00", "--excised", "2024-05-23T10:00"], ""),
    ],
)
def test_one_slide_for_two_stains_and_dates_out_of_order(tmp_path, capsys, more, message):
    pixels = np.full((64, 64, 3), 230, np.uint8)
    for name, value in (("he.tif", 230), ("other.tif", 231)):
        pixels[0] = value
        tifffile.imwrite(tmp_path / name, pixels, photometric="rgb", resolution=(20000, 20000),
                         resolutionunit="CENTIMETER")  # fmt: skip
    shutil.copy(tmp_path / "he.tif", tmp_path / "copy.tif")
    (tmp_path / "link.tif").symlink_to(tmp_path / "he.tif")
    given = [tmp_path / word if word.endswith(".tif") else word for word in more]
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in ("new", tmp_path / "B1", "--he", tmp_path / "he.tif", *given)])
    error = capsys.readouterr().err
    assert (end.value.code or 0) == (2 if message else 0)
    assert re.search(message, error)
    assert (tmp_path / "B1").exists() == (not message)
