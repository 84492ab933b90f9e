"""After random corrections an update stores, to the last bit, what a whole run stores."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import shapely

from napari_mosaik.cli.app import run_command
from napari_mosaik.core import InputError
from napari_mosaik.core.catalogue import (
    CLUSTERS,
    CORRECTED_VESSELS,
    OBJECTS,
    PARAMETERS,
    PREDICTION,
    TILES,
    TISSUE,
    VESSEL_OBJECTS,
    VESSELS,
)
from napari_mosaik.core.corrections import Correction
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.table import Table
from napari_mosaik.io import Case
from napari_mosaik.io.store import CaseStore
from napari_mosaik.view.worth import change_layers, worth_lines, worth_rows
from napari_mosaik.workflow.baseline import read_baseline
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.classifier import retrain
from napari_mosaik.workflow.corrections import CorrectionLog, CorrectionSession
from napari_mosaik.workflow.given_alignment import set_alignment_by_matrix
from napari_mosaik.workflow.recipe import read_recipe, write_recipe
from napari_mosaik.workflow.run import run, run_until
from napari_mosaik.workflow.steps import classes as classes_step
from napari_mosaik.workflow.steps import stain as stain_step
from napari_mosaik.workflow.steps import step_named
from napari_mosaik.workflow.update import steps_to_update, update
from napari_mosaik.workflow.worth import _block_interval, worth_of


@pytest.fixture(scope="module")
def computed(tiny_cohort, tmp_path_factory):
    """A tiny case with all but a prediction; its registration is given, which is fast."""
    root = shutil.copytree(tiny_cohort / "A2", tmp_path_factory.mktemp("computed") / "A2")
    case = Case(root)
    truth = json.loads((root / "truth" / "truth.json").read_text("utf-8"))
    for stain in ("he", "cd34", "caix"):
        bring(case, f"tissue_{stain}")
    for frame in ("he", "caix", "pet"):
        matrix = np.array(truth["transforms"][frame]["matrix"])
        set_alignment_by_matrix(case, frame, matrix, "the truth")
    bring(case, "stain")
    run_to_end(retrain([case], [case]))
    bring(case)
    return root


@pytest.fixture
def case(computed, tmp_path):
    return Case(shutil.copytree(computed, tmp_path / "A2"))


def bring(case, until=""):
    for _ in run_until(case, read_recipe(case.root), until):
        pass


def results(case):
    """The bytes of every stored file but records and origins."""
    return {
        path.relative_to(case.root).as_posix(): path.read_bytes()
        for path in sorted((case.root / "artifacts").rglob("*"))
        if path.is_file() and path.name not in ("origin.json", "record.json")
    }


def whole_run(root):
    """The results of the stale steps, each computed without anything of an earlier run."""
    case = Case(root)
    recipe = read_recipe(root)
    for step in steps_to_update(case, case_status(case), everything=True):
        run_to_end(run(case, step, recipe[step.name], recipe=recipe, force=True))
    return results(case)


def correct(case, what, rng):
    """Some random corrections of every kind that a result has."""
    if what in OBJECTS:
        points = case.store.read(OBJECTS[what][0][1]).points_um()
        with CorrectionSession(case, what, "Anna") as session:
            one, two, three, four = (
                session.select(points[k]) for k in rng.choice(len(points), 4, replace=False)
            )
            session.delete(one)
            session.set_class(two, "artery")
            (row, col), reach = three.centroid_um, 40.0
            session.split(three, [(row - reach, col - 0.3), (row + reach, col + 0.3)])
            row, col = four.centroid_um
            size = 4.0 if what == "nuclei" else 9.0
            for angle in rng.permutation(12):
                turn = np.deg2rad(30 * angle)
                x, y = col + 5 * size * np.cos(turn), row + 5 * size * np.sin(turn)
                try:
                    session.add(Correction("add", area_wkt=shapely.Point(x, y).buffer(size).wkt))
                    break
                except InputError:
                    continue
        return
    mask = case.store.read(TISSUE[what.rpartition("_")[2]])
    inside = np.argwhere(mask.values)
    kinds = ("add", "cut") if what.startswith("tissue") else ("flag", "clear")
    with CorrectionLog(case, what, "Anna") as log:
        for kind in kinds:
            ((row, col),) = mask.lattice.to_um([inside[rng.integers(len(inside))]])
            area = shapely.Point(col, row).buffer(rng.uniform(50, 250))
            log.add(Correction(kind, word="fold" if kind == "flag" else "", area_wkt=area.wkt))


@pytest.mark.parametrize(
    ("seed", "what"),
    [
        (1, ("vessels", "nuclei")),
        (3, ("tissue_he",)),
        (4, ("artefacts_cd34", "vessels")),
    ],
)
def test_an_update_equals_a_whole_run_bit_by_bit(case, tmp_path, seed, what):
    rng = np.random.default_rng(seed)
    before = results(case)
    for one in what:
        correct(case, one, rng)
    whole = whole_run(shutil.copytree(case.root, tmp_path / "whole"))
    record = run_to_end(update(case))
    now = results(case)
    assert now != before
    assert [name for name in {*now, *whole} if now.get(name) != whole.get(name)] == []
    assert not steps_to_update(case, case_status(case))
    n_tiles = len(case.store.read(TILES))
    assert 0 < record.n_tiles <= n_tiles
    if set(what) <= set(OBJECTS):
        assert record.n_tiles < n_tiles


def test_several_updates_in_a_row_equal_a_whole_run(case, tmp_path):
    rng = np.random.default_rng(7)
    for what in ("vessels", "nuclei", "vessels"):
        correct(case, what, rng)
        run_to_end(update(case))
    with CorrectionSession(case, "vessels", "Anna") as session:
        assert session.undo()
    # Steps run one by one, some of them twice before those that follow run at all.
    for _ in run_until(case, read_recipe(case.root), "correct_vessels"):
        pass
    correct(case, "vessels", rng)
    root = shutil.copytree(case.root, tmp_path / "whole")
    run_to_end(update(case))
    assert results(case) == whole_run(root)
    kept = {path.parent.name for path in (case.root / "earlier").glob("*/*/record.json")}
    assert CORRECTED_VESSELS.name not in kept  # nothing that is stored was computed from it
    assert kept <= {PARAMETERS.name, CLUSTERS.name}  # what `worth` compares


def test_only_blocks_that_gain_tissue_are_classified(case, tmp_path, monkeypatch):
    """Where the stain fit stays the same, classes of the other blocks are kept."""
    monkeypatch.setattr(stain_step, "SAMPLED_BLOCKS", 1)
    monkeypatch.setattr(classes_step, "BLOCK_PX", 16)  # the slide is small
    recipe = read_recipe(case.root)
    for name in ("stain", "classes"):
        run_to_end(run(case, step_named(name), recipe[name], recipe=recipe, force=True))
    fit = results(case)["artifacts/stain_fit/document.json"]
    height, width = case.store.read(TISSUE["he"]).lattice.extent_um
    corner = shapely.box(width - 350, height - 350, width - 50, height - 50)
    with CorrectionLog(case, "tissue_he", "Anna") as log:
        log.add(Correction("add", area_wkt=corner.wkt))
    root = shutil.copytree(case.root, tmp_path / "whole")
    asked, given = [], classes_step.ClassReader.rgb

    def counted(reader, lattice):
        asked.append(lattice)
        return given(reader, lattice)

    monkeypatch.setattr(classes_step.ClassReader, "rgb", counted)
    bring(case, "classes")
    assert results(case)["artifacts/stain_fit/document.json"] == fit
    again, other = len(asked), Case(root)
    for name in ("tissue_he", "stain", "classes"):
        run_to_end(run(other, step_named(name), recipe[name], recipe=recipe, force=True))
    assert 0 < again < (len(asked) - again) / 4
    made = [results(one) for one in (case, other)]
    for name in ("classes", "class_probability", "class_record"):
        parts = [{k: v for k, v in one.items() if f"/{name}/" in k} for one in made]
        assert parts[0] == parts[1]


KILLED = """
import os, signal, sys
from pathlib import Path
from napari_mosaik.io import Case
from napari_mosaik.io.store import CaseStore
from napari_mosaik.workflow.update import update
root, where = Path(sys.argv[1]), sys.argv[2]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if where == "commit":
    put_aside = CaseStore._put_aside
    def cut(self, folder):
        put_aside(self, folder)
        if folder.name == "parameters":
            die()
    CaseStore._put_aside = cut
for step, progress in update(Case(root)):
    if step.name == where and progress.done > 0:
        die()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_update_is_completed_by_the_next(case, tmp_path):
    correct(case, "vessels", np.random.default_rng(5))
    whole = whole_run(shutil.copytree(case.root, tmp_path / "whole"))
    before = {one.name: case.store.origin(one).digest() for one in (PARAMETERS, CLUSTERS)}
    for where in ("correct_vessels", "commit", "clusters"):
        command = [sys.executable, "-c", KILLED, str(case.root), where]
        killed = subprocess.run(command, capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert read_baseline(case).done is False
    record = run_to_end(update(case))
    assert results(case) == whole
    assert record.done
    assert {name: record.before[name] for name in before} == before
    assert 0 < record.n_tiles < len(case.store.read(TILES))
    assert worth_of(case)["parameters"]["vessel_density_per_mm2"]["n_changed"] > 0


def test_what_a_setting_made_stale_is_left_to_update_all(case):
    correct(case, "vessels", np.random.default_rng(1))
    recipe = dict(read_recipe(case.root))
    recipe["nuclei"] = recipe["nuclei"].model_copy(update={"sensitivity": 1.1})
    with case.writing():
        write_recipe(case.root, recipe)
    names = [step.name for step in steps_to_update(case, case_status(case))]
    assert names == ["correct_vessels"]  # what follows reads the nuclei, too
    run_to_end(update(case))
    states = case_status(case).states
    assert states["correct_vessels"].word == "done"
    assert states["nuclei"].word == states["parameters"].word == "stale"
    run_to_end(update(case, everything=True))
    assert "stale" not in {state.word for state in case_status(case).states.values()}


def test_an_update_looks_at_each_result_once_and_at_what_another_program_stored(case, monkeypatch):
    """Between two steps another program may have stored, or damaged, a result."""
    correct(case, "vessels", np.random.default_rng(2))
    looked, glance = [], CaseStore.glance

    def noted(store, artifact):
        looked.append(artifact.name)
        glance(store, artifact)

    monkeypatch.setattr(CaseStore, "glance", noted)
    kept = case.store.folder(VESSELS)
    shutil.copytree(kept, kept.with_name("copy"))
    replaced = False
    for step, _ in update(case):
        if step.name == "correct_vessels" and not replaced:
            shutil.rmtree(kept)
            replaced = bool(kept.with_name("copy").rename(kept))
    assert replaced
    assert looked.count(TILES.name) == 1
    assert looked.count(VESSELS.name) == 2
    assert not steps_to_update(case, case_status(case))


def test_an_update_without_a_correction_does_nothing(case):
    record = run_to_end(update(case))
    assert (record.n_tiles, dict(record.steps)) == (0, {})
    assert worth_of(case) is None
    assert change_layers(case) == []
    assert worth_lines(None) == ("Nothing to compare yet.",)


def outline(case, stain, *features):
    """A GeoJSON document with level-0 pixels: (key, class, shapely geometry in µm)."""
    with case.slide(stain) as slide:
        lattice = slide.lattice

    def pixels(geometry):
        return shapely.transform(geometry, lambda at: lattice.to_index(at[:, ::-1])[:, ::-1] + 0.5)

    return json.dumps(
        {
            "type": "FeatureCollection",
            "features": [
                {
                    "type": "Feature",
                    "id": key,
                    "geometry": shapely.geometry.mapping(pixels(geometry)),
                    "properties": {"classification": {"name": word}} if word else {},
                }
                for key, word, geometry in features
            ],
        }
    )


def test_corrections_from_a_file_travel_to_the_record_of_their_worth(case, tmp_path, capsys):
    path = tmp_path / "given.geojson"
    points = case.store.read(VESSEL_OBJECTS).points_um()
    with CorrectionSession(case, "vessels", "x") as session:
        found = [session.select(points[k]) for k in range(len(points))]
    solid = [one for one in found if one is not None][:3]
    path.write_text(
        outline(
            case,
            "cd34",
            *((f"v{k}", "", shapely.Point(one.place_um[::-1])) for k, one in enumerate(solid)),
        )
    )
    command = ["correct", str(case.root), str(path), "--what", "vessels", "--reader", "Åsa"]
    assert run_command([*command, "--kind", "remove", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["n"] == 3
    assert told["stale"][:2] == ["correct_vessels", "parameters"]
    assert len(case.corrections("vessels")) == 3

    undo = ["correct", str(case.root), "--undo", "--what", "vessels", "--reader", "Åsa"]
    assert run_command([*undo, "--json"]) == 0  # one file is one entry
    assert json.loads(capsys.readouterr().out)["n"] == 3
    assert case.corrections("vessels") == ()
    assert run_command(undo) == 2
    assert run_command([*command, "--kind", "remove"]) == 0
    capsys.readouterr()

    assert run_command(["update", str(case.root), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["stale"] == []
    assert 0 < record["n_tiles"] == record["tiles"]["parameters"] < len(case.store.read(TILES))
    assert run_command(["worth", str(case.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["worth"] == record["worth"]
    density = record["worth"]["parameters"]["vessel_density_per_mm2"]
    assert density["change"] == pytest.approx(density["after"] - density["before"])
    assert density["change"] < 0
    assert density["n_changed"] > 0
    assert record["worth"]["parameters"]["nucleus_density_per_mm2"]["n_changed"] == 0
    titles = [row.title for row in worth_rows(record["worth"])]
    assert "Vessel density, mean in 1/mm²" in titles
    assert "Change of vessel density" in [layer.name for layer in change_layers(case)]


def test_what_cannot_be_corrected_changes_nothing(case, tmp_path, capsys):
    path = tmp_path / "given.geojson"
    vessel = case.store.read(VESSEL_OBJECTS).points_um()[0][::-1]
    good = ("good", "artery", shapely.Point(vessel).buffer(60))
    nothing = ("nothing", "", shapely.Point(30, 30).buffer(2))
    outside = ("outside", "", shapely.box(-5000, -5000, -4000, -4000))
    line = ("line", "", shapely.LineString([(0, 0), (50, 50)]))
    vast = ("vast", "", shapely.box(100, 100, 2200, 1800))
    for stain, what, kind, features, word in (
        ("cd34", "vessels", "remove", (good, nothing), "nothing: there are no vessels in it"),
        ("cd34", "vessels", "remove", (good, outside), "outside the CD34 slide"),
        ("cd34", "vessels", "add", (good, line), "LineString"),
        ("cd34", "vessels", "add", (vast,), "too large"),
        ("cd34", "vessels", "class", (nothing,), "has no class"),
        ("cd34", "tissue_cd34", "class", (good,), "no class to set"),
        ("cd34", "artefacts_cd34", "add", (good,), "an artefact is one of"),
        ("cd34", "lumens", "add", (good,), "cannot be corrected"),
        ("cd34", "tissue_cd34", "add", (), "no outline"),
    ):
        path.write_text(outline(case, stain, *features))
        command = ["correct", str(case.root), str(path), "--what", what, "--kind", kind]
        assert run_command([*command, "--reader", "Anna"]) == 2, (what, kind)
        assert word in capsys.readouterr().err
    path.write_text("nothing of the kind")
    command = ["correct", str(case.root), str(path), "--what", "vessels", "--reader"]
    assert run_command([*command, "Anna"]) == 2
    assert run_command([*command, ""]) == 2
    assert run_command([*command, "Anna", "--undo"]) == 2
    assert not any(case.corrections(what) for what in ("vessels", "tissue_cd34"))
    assert not steps_to_update(case, case_status(case))


def test_the_interval_of_a_change_by_a_second_computation():
    """Blocks drawn with replacement one by one; a change that is equal everywhere has no width."""
    rng = np.random.default_rng(0)
    cells = np.argwhere(np.ones((24, 20), bool))
    change = rng.normal(0.2, 0.1, len(cells)) + 0.3 * (cells[:, 0] // 6)
    low, high = _block_interval(change, cells, 6)
    block = (cells[:, 0] // 6) * 10 + cells[:, 1] // 6
    groups = [change[block == one] for one in np.unique(block)]
    means = [
        np.concatenate([groups[k] for k in rng.integers(0, len(groups), len(groups))]).mean()
        for _ in range(2000)
    ]
    assert (low, high) == pytest.approx(np.percentile(means, (2.5, 97.5)), abs=0.02)
    assert low < change.mean() < high
    assert _block_interval(np.full(len(cells), 0.5), cells, 6) == (0.5, 0.5)
    assert _block_interval(change[:4], cells[:4], 6) == (None, None)


def test_the_prediction_before_and_after(case):
    """The record of the predicted SUV, from tables that stand in for those of a network."""
    grid = case.store.read(TILES)
    step = step_named("predict")
    suv = np.linspace(0.5, 1.5, len(grid))
    assert set(step.writes) >= {PREDICTION}
    tables = [Table({"suv": suv + more}, {"suv": "g/mL"}) for more in (0.0, 0.25)]
    correct(case, "vessels", np.random.default_rng(2))
    origin = case.store.origin(PARAMETERS)
    with case.writing():
        case.store.commit(origin, {PREDICTION: tables[0]})
    run_to_end(update(case))
    with case.writing():
        case.store.commit(case.store.origin(PARAMETERS), {PREDICTION: tables[1]})
    record = worth_of(case)["prediction"]
    assert record["mean_change"] == pytest.approx(0.25)
    assert record["low"] == pytest.approx(0.25)
    assert record["unit"] == "g/mL"
    assert record["n_changed"] == len(grid)
