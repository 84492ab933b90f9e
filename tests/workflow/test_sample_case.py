"""The real steps on the tiny sample cohort: cores, kills, cancel while training, classifiers."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import pytest

from napari_mosaik.core import Blocked, Cancelled, InputError
from napari_mosaik.core.catalogue import METRICS, NUCLEI, VESSELS
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.io import Case
from napari_mosaik.workflow import parallel
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.classifier import retrain
from napari_mosaik.workflow.cohort import absent_slides, train_network
from napari_mosaik.workflow.preview import preview
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run, run_until
from napari_mosaik.workflow.steps import step_named


def run_all(case, until=""):
    for _ in run_until(case, read_recipe(case.root), until):
        pass


def content(case):
    """Digest of every stored file but the record of time."""
    return {
        str(path.relative_to(case.root)): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted((case.root / "artifacts").rglob("*"))
        if path.is_file() and path.name != "record.json"
    }


@pytest.fixture(scope="module")
def computed(computed_cohort, tmp_path_factory):
    """A copy of the tiny cohort with all that can be had without a network."""
    return shutil.copytree(computed_cohort, tmp_path_factory.mktemp("computed") / "cohort")


def test_the_table_of_outputs_is_that_of_a_run(computed):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))
    import outputs

    documented = json.loads(outputs.OUTPUTS.read_text("utf-8"))
    found = outputs.described_tables([Case(computed / name) for name in ("A2", "B8", "B11")])
    assert {"vessel_objects", "parameters", "clusters"} <= set(found)
    for name, columns in found.items():
        known = {column["name"]: column["unit"] for column in documented[name]}
        assert {column["name"]: column["unit"] for column in columns}.items() <= known.items()
        assert all(column["about"] for column in columns), name


def test_all_but_the_prediction_is_done(computed):
    for name in ("A2", "B8", "B11"):
        states = case_status(Case(computed / name)).states
        not_done = {step for step, found in states.items() if found.word != "done"}
        assert not_done == {"predict", "input_spread", "review", "dose"}
        assert (
            states["predict"].reason == "no trained model for prediction; train one or choose one"
        )


def test_results_do_not_depend_on_the_number_of_cores(computed, tmp_path):
    shutil.copytree(computed / "A2", tmp_path / "A2")
    shutil.rmtree(tmp_path / "A2" / "artifacts")
    command = [sys.executable, "-m", "napari_mosaik", "run", str(tmp_path / "A2")]
    limits = {"DASK_NUM_WORKERS": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    subprocess.run(command, env=os.environ | limits, check=True, capture_output=True)
    assert content(Case(tmp_path / "A2")) == content(Case(computed / "A2"))


@pytest.mark.parametrize(
    ("step", "slow", "text"),
    [
        ("sensitivity", "workflow.steps.sensitivity.shift_sensitivity", "shifting the PET"),
        ("parameters", "features.vessel_distance_in_tiles", "vessels per tile"),
        ("association", "spatial.associate_table", "correlating parameters with the uptake"),
    ],
)
def test_progress_is_repeated_while_a_table_of_tiles_is_computed(
    computed, tmp_path, monkeypatch, step, slow, text
):
    monkeypatch.setattr(parallel, "_REPORT_S", 0.01)
    case = Case(shutil.copytree(computed / "A2", tmp_path / "A2"))
    module, _, name = f"napari_mosaik.{slow}".rpartition(".")
    go, called, texts = threading.Event(), getattr(import_module(module), name), []

    def waits(*given, **named):
        assert go.wait(60)
        return called(*given, **named)

    monkeypatch.setattr(import_module(module), name, waits)
    before = content(case)
    for progress in run(case, step_named(step), read_recipe(case.root)[step], force=True):
        texts.append(progress.text)
        if texts.count(text) > 20:
            go.set()
    assert go.is_set()
    assert content(case) == before


def test_a_killed_run_ends_as_if_it_had_not_been(computed, tmp_path):
    shutil.copytree(computed / "A2", tmp_path / "A2")
    shutil.rmtree(tmp_path / "A2" / "artifacts")
    case = Case(tmp_path / "A2")
    command = [sys.executable, "-m", "napari_mosaik", "run", str(tmp_path / "A2")]
    for mark in ("scratch/vessels-*", "artifacts/alignment_he", "scratch/nuclei-*"):
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not list(case.root.glob(mark)) and process.poll() is None:
            time.sleep(0.002)  # with cold caches the steps before the mark take minutes
        assert process.poll() is None, f"the run ended before {mark} was seen"
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    run_all(case)
    assert content(case) == content(Case(computed / "A2"))


def test_a_cluster_of_other_processes_gives_the_same(computed, tmp_path):
    from distributed import LocalCluster

    shutil.copytree(computed / "A2", tmp_path / "A2")
    case, folders = Case(tmp_path / "A2"), ("vessels", "vessel_objects")
    before = content(case)
    for folder in folders:
        shutil.rmtree(case.root / "artifacts" / folder)
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as cluster:
        address = cluster.scheduler_address
        for _ in run_until(case, read_recipe(case.root), "vessels", scheduler=address):
            pass
    assert content(case) == before


def test_a_step_is_blocked_for_the_reason_at_its_root(tiny_cohort, tmp_path):
    shutil.copytree(tiny_cohort / "A2", tmp_path / "A2")
    case = Case(tmp_path / "A2")
    case.path(case.file.slides["cd34"].path).unlink()
    states = case_status(case).states
    gone = f"the CD34 slide is not at {case.path(case.file.slides['cd34'].path)}"
    assert {states[name].reason for name in ("vessels", "tiles", "parameters", "review")} == {gone}
    assert states["tile_kinetics"].reason == "'Parameters' is blocked"
    assert states["nuclei"].word == "missing"


def test_an_suv_in_another_unit_than_the_predictor_is_refused_as_soon_as_it_is_set(
    tiny_cohort, tmp_path
):
    shutil.copytree(tiny_cohort / "A2", tmp_path / "A2")
    case, model = Case(tmp_path / "A2"), tmp_path / "A2" / "models" / "m"
    model.mkdir(parents=True)
    (model / "card.json").write_text(json.dumps({"suv_unit": "cm²/mL"}), "utf-8")
    recipe = dict(read_recipe(case.root))
    recipe["predict"] = recipe["predict"].model_copy(update={"model": "m"})
    for kind, refused in (("bsa", False), ("bw", True), ("lbm", True), ("bsa", False)):
        recipe["suv"] = recipe["suv"].model_copy(update={"kind": kind})
        states = case_status(case, recipe).states
        words = "is set to g/mL .suv.kind=.*, but its predictor m predicts cm²/mL: use .*bsa"
        assert (states["suv"].word == "blocked") == refused
        assert all(
            bool(re.search(words, states[name].reason)) == refused for name in ("suv", "uptake")
        )


def test_a_cancelled_training_resumes_to_the_same_model(computed, tmp_path):
    from napari_mosaik.predictor import TrainParams

    shutil.copytree(computed, tmp_path / "cohort")
    cases = [Case(tmp_path / "cohort" / name) for name in ("A2", "B8", "B11")]
    params = TrainParams(epochs=3, threads=1)
    work = train_network(cases, "B11", params)
    for progress in work:
        if "epoch 2" in progress.text:
            break
    work.close()
    assert not (cases[2].root / "models").is_dir() or case_status(cases[2]).states[
        "predict"
    ].word == ("blocked")
    assert list((cases[2].root / "scratch").glob("train-*.pt"))
    resumed = run_to_end(train_network(cases, "B11", params))
    assert run_to_end(train_network(cases, "B11", params)) == resumed
    shutil.rmtree(cases[2].model_folder(resumed))
    assert run_to_end(train_network(cases, "B11", params)) == resumed
    run_all(cases[2])
    assert case_status(cases[2]).states["review"].word == "done"


def test_a_case_that_is_not_ready_is_not_trained_on(tiny_cohort):
    from napari_mosaik.predictor import TrainParams

    cases = [Case(tiny_cohort / name) for name in ("A2", "B11")]
    with pytest.raises(Blocked, match=r"A2 is not ready for training.*napari-mosaik run"):
        run_to_end(train_network(cases, "B11", TrainParams()))
    with pytest.raises(InputError, match="no case 'C1' in the cohort; the cases are: A2, B11"):
        run_to_end(train_network(cases, "C1", TrainParams()))


def test_classifiers_need_shapes_and_a_stain(tiny_cohort):
    with pytest.raises(InputError, match="nothing is annotated on the H&E of B11"):
        run_to_end(retrain([Case(tiny_cohort / "B11")], []))
    with pytest.raises(Blocked, match="--until stain"):
        run_to_end(retrain([Case(tiny_cohort / "A2")], []))
    with pytest.raises(InputError, match="'forest' is not offered; use one of: fast, densenet"):
        run_to_end(retrain([Case(tiny_cohort / "A2")], [], method="forest"))


def test_the_same_shapes_give_the_same_model(computed):
    cases = [Case(computed / name) for name in ("A2", "B8")]
    made = run_to_end(retrain(cases, cases))
    assert made["model"] == read_recipe(cases[0].root)["classes"].model
    assert case_status(cases[0]).states["classes"].word == "done"


@pytest.mark.parametrize(("step", "labels"), [("vessels", VESSELS), ("nuclei", NUCLEI)])
def test_a_preview_finds_in_a_region_what_the_run_found_there(computed, step, labels):
    case = Case(computed / "A2")
    params = read_recipe(case.root)[step]
    whole = case.store.read(labels)
    spacing = whole.lattice.spacing_um[0]
    region = ((300.0, 300.0), (400 * spacing, 350 * spacing))
    found = preview(case, step_named(step), params, region)
    assert found.whole
    here = found.results[labels]
    first = [round(o / spacing) for o in here.lattice.origin_um]
    rows, cols = (slice(f, f + n) for f, n in zip(first, here.lattice.shape, strict=True))
    expected, seen = whole.block(rows, cols), here.array()
    # The preview reads beyond the region, where objects may be cut.
    edge = [round((300.0 - origin) / spacing) for origin in here.lattice.origin_um]
    inner = (slice(edge[0], edge[0] + 400), slice(edge[1], edge[1] + 350))
    assert (expected[inner] > 0).any()
    differ = (expected[inner] > 0) != (seen[inner] > 0)
    assert differ.mean() < 0.002
    before = {path: path.stat().st_mtime_ns for path in case.root.rglob("*")}
    with pytest.raises(Cancelled):
        preview(case, step_named(step), params, region, lambda: True)
    assert {path: path.stat().st_mtime_ns for path in case.root.rglob("*")} == before


def test_a_preview_covers_at_most_its_middle_and_says_what_it_needs(computed, tmp_path):
    case = Case(computed / "A2")
    vessels = step_named("vessels")
    params = vessels.params(spacing_um=0.5)
    extent = 1e5
    found = preview(case, vessels, params, ((-extent, -extent), (2 * extent, 2 * extent)))
    assert not found.whole
    with pytest.raises(InputError, match="has no preview"):
        preview(case, step_named("tiles"), step_named("tiles").params(), ((0, 0), (1, 1)))
    shutil.copytree(computed / "A2", tmp_path / "A2")
    shutil.rmtree(tmp_path / "A2" / "artifacts")
    with pytest.raises(InputError, match=r"needs: .*tissue"):
        preview(Case(tmp_path / "A2"), vessels, params, ((0, 0), (100, 100)))


def without(folder, slide):
    """A cohort whose cases lack a slide, run as far as it goes."""
    cases = []
    for name in ("A2", "B8", "B11"):
        file = folder / name / "case.toml"
        text = re.sub(rf"\[slides\.{slide}\]\n.*?(?=\n\[)", "", file.read_text(), flags=re.DOTALL)
        file.write_text(text)
        cases.append(Case(folder / name))
        run_to_end(run_until(cases[-1], read_recipe(cases[-1].root)))
    return cases


def test_without_caix_curves_and_caix_clusters_are_not_read(computed, tmp_path):
    """A cohort that lacks a slide is trained without what is read off it, and says so."""
    from napari_mosaik.predictor import TrainedModel, TrainParams

    quick = TrainParams(members=1, epochs=1, threads=1, intervals=False)
    shutil.copytree(computed, tmp_path / "cohort")
    lacking = without(tmp_path / "cohort", "caix")
    test = lacking[-1]
    assert absent_slides(lacking) == {"caix": ["A2", "B8", "B11"]}
    model = run_to_end(train_network(lacking, "B11", quick))
    card = TrainedModel.load(test.model_folder(model)).card
    assert card["absent"] == ["caix"]
    assert card["settings"]["without"] == ["temporal"]
    assert not any("caix" in name for name in card["features"])
    warning = "no CAIX slide in A2, B8"
    assert any(text.startswith(warning) for text in card["warnings"])
    run_to_end(run_until(test, read_recipe(test.root)))
    assert case_status(test).states["review"].word == "done"
    assert any(text.startswith(warning) for text in test.store.read(METRICS)["warnings"])
    with pytest.raises(InputError, match="tile by tile needs CAIX, which A2 lacks"):
        run_to_end(train_network(lacking, "B11", TrainParams.preset("paper")))
