"""Vessels corrected by hand on a small slide: record, result, what becomes stale, and back."""

import json
import shutil

import numpy as np
import pytest
import shapely
import shapely.affinity
import tifffile
from scipy import ndimage
from typer.testing import CliRunner

from napari_mosaik.cli import main
from napari_mosaik.cli.app import app
from napari_mosaik.core import CaseLocked, InputError
from napari_mosaik.core.catalogue import (
    ARTEFACT_AREAS,
    ARTEFACT_MASK,
    ARTEFACTS_MANUAL,
    CORRECTED,
    CORRECTED_ARTEFACT_MASK,
    CORRECTED_NUCLEUS_OBJECTS,
    CORRECTED_VESSEL_OBJECTS,
    CORRECTED_VESSELS,
    NUCLEI,
    NUCLEUS_OBJECTS,
    TILES,
    TISSUE,
    VESSEL_OBJECTS,
    VESSELS,
)
from napari_mosaik.core.corrections import Correction
from napari_mosaik.core.journal import journal_line, journal_of
from napari_mosaik.features import measure_objects
from napari_mosaik.io import CaseFile, SlideEntry, create_case
from napari_mosaik.io.case import Case
from napari_mosaik.io.corrections import objects_now
from napari_mosaik.segment.label_editing import MANUAL_CLASS, MANUAL_EDIT
from napari_mosaik.view.report.content import case_report
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.corrections import (
    CorrectionLog,
    CorrectionSession,
    correction_records,
)
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run, run_until
from napari_mosaik.workflow.segmentation_qa import SegmentationQa
from napari_mosaik.workflow.steps import step_named
from napari_mosaik.workflow.steps import tissue as tissue_step
from tests.false_positive_scene import brown_scene


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A case whose vessels are found."""
    root = tmp_path_factory.mktemp("found") / "B1"
    root.mkdir()
    scene = brown_scene(3, shape_um=(600.0, 700.0), n_vessels=20, n_each=0)
    tifffile.imwrite(root / "cd34.tif", scene.image.values, tile=(128, 128), photometric="rgb")
    entry = SlideEntry(path="cd34.tif", spacing_um=(1.0, 1.0), spacing_source="user")
    case = create_case(root, CaseFile(name="B1", slides={"cd34": entry}))
    update(case)
    return root


@pytest.fixture
def case(found, tmp_path):
    return Case(shutil.copytree(found, tmp_path / "B1"))


def update(case):
    for _ in run_until(case, read_recipe(case.root), "correct_vessels"):
        pass


def words(case):
    states = case_status(case).states
    return states["vessels"].word, states["correct_vessels"].word


def numbered(case):
    return case.store.read(CORRECTED_VESSELS).array(), case.store.read(CORRECTED_VESSEL_OBJECTS)


def places(case):
    """A place within each vessel as found, the vessels in the order of their labels."""
    image = case.store.read(VESSELS)
    labels, out = image.array(), []
    for k in range(1, labels.max() + 1):
        depth = ndimage.distance_transform_edt(labels == k)
        index = np.unravel_index(depth.argmax(), labels.shape)
        out.append(tuple(image.lattice.to_um([index])[0]))
    return out


def closest_pair(case):
    points = case.store.read(VESSEL_OBJECTS).points_um()
    apart = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(len(points))
    return np.unravel_index(apart.argmin(), apart.shape)


def test_without_corrections_the_result_is_that_of_the_segmentation(case):
    labels, table = numbered(case)
    np.testing.assert_array_equal(labels, case.store.read(VESSELS).array())
    found = case.store.read(VESSEL_OBJECTS)
    for name in found:
        np.testing.assert_array_equal(table[name], found[name])
    assert set(table[MANUAL_EDIT]) == {""}
    assert objects_now(case.store, "vessels")[0] == VESSELS


def test_corrections_are_kept_applied_and_taken_back(case):
    where = places(case)
    one, other = closest_pair(case)
    rest = [k for k in range(len(where)) if k not in (one, other)]
    large = max(rest, key=lambda k: case.store.read(VESSEL_OBJECTS)["area_um2"][k])
    gone, classed = [k for k in rest if k != large][:2]
    with CorrectionSession(case, "vessels", "anna") as work:
        work.delete(work.select(where[gone]))
        assert work.select(where[gone]) is None
        row, column = where[large]
        work.split(work.select(where[large]), [(row, column - 200), (row, column + 200)])
        work.merge(work.select(where[one]), work.select(where[other]))
        assert work.select(where[one]).edit == "merged"
        work.set_class(work.select(where[classed]), "artery")
        work.set_class(work.select(where[classed]), "vein")
        assert work.undo()
        assert work.redo()
        assert work.select(where[classed]).class_name == "vein"
        assert work.undo()
        assert work.select(where[classed]).class_name == "artery"

    # after a restart all of it is there, undo included; what was found is not touched
    case = Case(case.root)
    assert words(case) == ("done", "stale")
    with CorrectionSession(case, "vessels", "anna") as work:
        assert work.log.redo_title.startswith("class 'vein'")
        assert work.redo()
        assert work.undo()
        assert [c.kind for c in work.log.corrections] == ["delete", "split", "merge", "class"]
        assert work.lost == []
        with pytest.raises(CaseLocked):
            CorrectionLog(case, "vessels", "anna")
    before = case.store.read(VESSELS).array()
    update(case)
    assert words(case) == ("done", "done")
    labels, table = numbered(case)
    np.testing.assert_array_equal(case.store.read(VESSELS).array(), before)
    assert objects_now(case.store, "vessels")[0] == CORRECTED_VESSELS
    assert case.store.record(CORRECTED_VESSELS)[CORRECTED] == {"made": 4, "lost": []}

    # the table belongs to the labels, and made objects are measured as the found ones are
    found = case.store.read(VESSEL_OBJECTS)
    assert len(table) == labels.max()
    lattice = case.store.read(VESSELS).lattice
    again = measure_objects(labels, lattice)
    for name in again:
        np.testing.assert_allclose(table[name], again[name], rtol=1e-9, atol=1e-9, err_msg=name)
    assert not labels[before == gone + 1].any()
    (merged,) = np.flatnonzero(table[MANUAL_EDIT] == "merged")
    parts = np.flatnonzero(table[MANUAL_EDIT] == "split")
    for name in ("area_um2", "wall_area_um2", "lumen_area_um2"):
        assert table[name][merged] == pytest.approx(found[name][[one, other]].sum())
        assert table[name][parts].sum() == pytest.approx(found[name][large])
    (word,) = [str(w) for w in table[MANUAL_CLASS] if w]
    assert word == "artery"

    # everything taken back: the result is that of the segmentation again
    with CorrectionSession(case, "vessels", "anna") as work:
        while work.undo():
            pass
        assert work.log.undo_title == ""
    assert words(case) == ("done", "stale")
    update(case)
    np.testing.assert_array_equal(numbered(case)[0], before)


def test_a_missed_vessel_is_added_measured_and_listed(case):
    image, found = case.store.read(VESSELS), case.store.read(VESSEL_OBJECTS)
    before = image.array()
    # the free place that is farthest from any vessel
    depth = ndimage.distance_transform_edt(before == 0)
    depth[:40], depth[-40:], depth[:, :40], depth[:, -40:] = 0, 0, 0, 0
    index = np.unravel_index(depth.argmax(), depth.shape)
    row, column = image.lattice.to_um([index])[0]
    outline = shapely.Point(column, row).buffer(9)
    far = shapely.affinity.translate(outline, 5000, 0)
    with CorrectionSession(case, "vessels", "anna") as work:
        with pytest.raises(InputError, match="outside the slide"):
            work.add(Correction("add", area_wkt=far.wkt))
        assert work.log.corrections == ()
        work.add(Correction("add", area_wkt=outline.wkt))
        chosen = work.select((row, column))
        assert (chosen.edit, chosen.label) == ("added", len(found) + 1)
        assert work.undo()
        assert work.select((row, column)) is None
        assert work.redo()
        assert work.select((row, column)).area_um2 == pytest.approx(chosen.area_um2)
        work.set_class(work.select((row, column)), "vein")
    assert correction_records(case)[0]["state"] == "not applied yet"
    update(case)
    labels, table = numbered(case)
    assert len(table) == len(found) + 1
    np.testing.assert_array_equal(labels[labels <= len(found)], before[labels <= len(found)])
    assert (table[MANUAL_EDIT][-1], table[MANUAL_CLASS][-1]) == ("added", "vein")
    assert table["area_um2"][-1] == pytest.approx(np.pi * 81, rel=0.03)
    assert all(np.isfinite(table[name][-1]) for name in found)
    again = measure_objects(labels, image.lattice)
    for name in again:
        np.testing.assert_allclose(table[name], again[name], rtol=1e-9, atol=1e-9, err_msg=name)
    result = CliRunner().invoke(app, ["corrections", str(case.root), "--json"])
    (added, _) = json.loads(result.stdout)["corrections"]
    assert (added["kind"], added["state"]) == ("add", "applied")
    assert added["description"].startswith("added, 254 µm² at ")


def test_what_visual_qa_found_becomes_a_list_to_correct(case):
    for _ in run_until(case, read_recipe(case.root), "tiles"):
        pass
    with SegmentationQa(case, "vessels", "anna") as check:
        assert check.to_correct() == []
        first, second, third = check.sample.objects[:3]
        check.rate_object(first, "wrong")
        check.rate_object(second, "wrong")
        check.rate_object(second, "unsure")  # the last rating counts
        check.rate_object(third, "wrong")
        tile, other = check._sessions[-1]["fields"] = [0, 1]  # no tile of this slide is inner
        check.record_missed(tile, 3, 2)
        check.record_missed(other, 3, 0)
        *wrong, missed = check.to_correct()
    with CorrectionSession(case, "vessels", "anna") as work:
        assert [work.select(place.place_um).label for place in wrong] == [first, third]
    grid = case.store.read(TILES)
    assert missed.missed == 2
    np.testing.assert_allclose(missed.place_um, grid.centres_um[tile])
    assert missed.size_um == grid.size_um


def test_undo_before_the_update_leaves_nothing_stale(case):
    with CorrectionSession(case, "vessels", "anna") as work:
        work.delete(work.select(places(case)[0]))
        assert words(case) == ("done", "stale")
        work.undo()
        assert words(case) == ("done", "done")
        with pytest.raises(InputError, match="does not divide"):
            work.split(work.select(places(case)[0]), [(0.0, 0.0), (1.0, 1.0)])
        assert work.log.corrections == ()


def test_what_meets_no_object_any_more_is_reported(case):
    where = places(case)
    with CorrectionSession(case, "vessels", "anna") as work:
        work.set_class(work.select(where[0]), "artery")
    with CorrectionSession(case, "vessels", "ben") as work:
        work.delete(work.select(where[0]))
    # anna classed it first: both hold.  Ben's is then made before hers: hers meets nothing.
    scan = journal_of(case.root, "ben")
    (event,) = scan.events(scan.active("correction:vessels"))
    time = "2000-01-01T00:00:00.000+00:00"
    scan.path.write_bytes(journal_line(0, time, "correction:vessels", event))
    states = {row["reader"]: row["state"] for row in correction_records(case)}
    assert states == {"anna": "not applied yet", "ben": "not applied yet"}
    update(case)
    rows = {row["reader"]: row for row in correction_records(case)}
    assert rows["ben"]["state"] == "applied"
    assert (rows["anna"]["state"], rows["anna"]["why"]) == ("lost", "there is no object any more")
    result = CliRunner().invoke(app, ["corrections", str(case.root), "--json"])
    assert json.loads(result.stdout)["corrections"][1]["state"] == "lost"
    result = CliRunner().invoke(app, ["corrections", str(case.root)])
    assert "lost: there" in " ".join(result.stdout.split())


def test_what_a_damaged_journal_still_holds_is_applied_and_the_damage_is_told(case, capsys):
    with CorrectionSession(case, "vessels", "anna") as work:
        for place in places(case)[:3]:
            work.delete(work.select(place))
    path = journal_of(case.root, "anna").path
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:2], lines[2].replace(b"delete", b"delite"), *lines[3:]]))
    result = CliRunner().invoke(app, ["corrections", str(case.root), "--json"])
    assert len(json.loads(result.stdout)["corrections"]) == 2
    with pytest.raises(SystemExit):
        main(["status", str(case.root)])
    (told,) = capsys.readouterr().err.splitlines()
    assert "damaged: line 3" in told
    assert "1 entry was lost" in told
    assert words(case) == ("done", "stale")
    update(case)
    assert len(correction_records(case)) == 2


def test_a_correction_that_cannot_be_understood_stops_the_step(case):
    with CorrectionLog(case, "vessels", "anna") as log:
        log.part.append({"event": "add", "title": "odd", "correction": {"kind": "paint"}})
    assert words(case) == ("done", "stale")
    with pytest.raises(InputError, match=r"invalid correction|unknown correction 'paint'"):
        update(case)


def test_what_another_view_undid_is_followed(case):
    with (
        CorrectionSession(case, "vessels", "anna") as work,
        CorrectionLog(case, "tissue_cd34", "anna") as mask,
    ):
        place = places(case)[0]
        work.delete(work.select(place))
        mask.add(Correction("cut", area_wkt="POLYGON ((0 0, 9 0, 9 9, 0 0))"))
        assert work.select(place) is None
        assert mask.part.journal.undo_last().part == "correction:tissue_cd34"
        assert work.select(place) is None
        assert mask.part.journal.undo_last().part == "correction:vessels"
        assert work.select(place) is not None
        assert mask.part.journal.redo_last().part == "correction:vessels"
        assert work.select(place) is None
        assert work.undo()
        assert work.select(place) is not None


def test_what_cannot_be_corrected_is_said(case):
    with pytest.raises(InputError, match="'maps' cannot be corrected"):
        CorrectionLog(case, "maps", "anna")
    with pytest.raises(InputError, match="not a valid reader name"):
        CorrectionLog(case, "vessels", "../anna")
    with pytest.raises(InputError, match="has no nuclei yet"):
        CorrectionSession(case, "nuclei", "anna")


def test_tissue_that_is_cut_moves_the_tiles_and_comes_back(case, monkeypatch):
    def no_pass(*_):
        raise AssertionError("the slide need not be judged again")

    def run_tiles():
        for _ in run_until(case, read_recipe(case.root), "tiles"):
            pass
        return len(case.store.read(TILES)), case.store.read(TISSUE["cd34"])

    before, mask = run_tiles()
    height, width = mask.lattice.extent_um
    half = shapely.box(0, 0, width, height / 2).wkt
    with CorrectionLog(case, "tissue_cd34", "anna") as log:
        log.add(Correction("cut", area_wkt=half))
        states = case_status(case).states
        assert states["tissue_cd34"].reason == "changed: manual corrections of the tissue on CD34"
        assert {states[name].word for name in ("tiles", "vessels")} == {"stale"}
        with monkeypatch.context() as patch:
            patch.setattr(tissue_step, "_blurred", no_pass)
            after, cut = run_tiles()
        quality = case.store.read(ARTEFACT_MASK["cd34"]).values
        params = read_recipe(case.root)["tissue_cd34"]
        for _ in run(case, step_named("tissue_cd34"), params, force=True):
            pass
        np.testing.assert_array_equal(case.store.read(TISSUE["cd34"]).values, cut.values)
        np.testing.assert_array_equal(case.store.read(ARTEFACT_MASK["cd34"]).values, quality)
        assert 0 < after < before
        rows = cut.lattice.shape[0]
        assert not cut.values[: rows // 2 - 1].any()
        np.testing.assert_array_equal(cut.values[rows // 2 + 1 :], mask.values[rows // 2 + 1 :])
        assert [row["state"] for row in correction_records(case)] == ["applied"]
        log.undo()
        assert run_tiles()[0] == before


def test_a_place_flagged_by_hand_leaves_every_result_and_comes_back(case, monkeypatch):
    def no_pass(*_):
        raise AssertionError("the slide need not be judged again")

    monkeypatch.setattr(tissue_step, "_blurred", no_pass)
    before, found = case.store.read(TISSUE["cd34"]), case.store.read(ARTEFACT_MASK["cd34"])
    n_before = len(case.store.read(VESSEL_OBJECTS))
    height, width = before.lattice.extent_um
    half = shapely.box(0, 0, width, height / 2).wkt
    with CorrectionLog(case, "artefacts_cd34", "anna") as log:
        log.add(Correction("flag", word="other", area_wkt=half))
        states = case_status(case).states
        why = "changed: manual corrections of the artefacts on CD34"
        assert states["tissue_cd34"].reason == why
        assert states["vessels"].word == "stale"
        (row,) = correction_records(case)
        assert row["description"].startswith("marked as other, 0.211 mm² at 0.150, 0.352 mm")
        update(case)
        now, bad = case.store.read(TISSUE["cd34"]), case.store.read(CORRECTED_ARTEFACT_MASK["cd34"])
        rows = now.lattice.shape[0]
        assert not now.values[: rows // 2 - 1].any()
        np.testing.assert_array_equal(now.values[rows // 2 + 1 :], before.values[rows // 2 + 1 :])
        assert (bad.values[: rows // 2 - 1] == 5).all()
        np.testing.assert_array_equal(case.store.read(ARTEFACT_MASK["cd34"]).values, found.values)
        assert 0 < len(case.store.read(VESSEL_OBJECTS)) < n_before
        record = case.store.record(TISSUE["cd34"])
        by_hand = record[ARTEFACTS_MANUAL]
        assert (by_hand["made"], by_hand["mm2"]["cleared"]) == (1, 0)
        assert by_hand["mm2"]["other"] == pytest.approx(0.211, rel=0.03)
        assert record[ARTEFACT_AREAS]["other"] == by_hand["mm2"]["other"]
        assert correction_records(case)[0]["state"] == "applied"
        result = CliRunner().invoke(app, ["corrections", str(case.root)])
        assert "marked as other" in " ".join(result.stdout.split())

        # tissue that is added by hand does not bring back what a reader flagged; clearing does
        with CorrectionLog(case, "tissue_cd34", "anna") as tissue:
            tissue.add(Correction("add", area_wkt=half))
            update(case)
            assert not case.store.read(TISSUE["cd34"]).values[: rows // 2 - 1].any()
            tissue.undo()
        log.add(Correction("clear", area_wkt=half))
        update(case)
        after, fine = case.store.read(TISSUE["cd34"]).values, found.values == 0
        np.testing.assert_array_equal(after[fine], before.values[fine])
        assert not (before.values & ~after).any()
        assert log.undo().kind == "clear"
        assert log.undo().kind == "flag"
    update(case)
    np.testing.assert_array_equal(case.store.read(TISSUE["cd34"]).values, before.values)
    assert words(case) == ("done", "done")


def test_what_the_program_took_for_bad_is_cleared_by_hand(tmp_path):
    """A blue round of 200 µm counts as pen; a reader says that it is not."""
    root = tmp_path / "B2"
    root.mkdir()
    rows, cols = np.indices((400, 500))
    picture = np.full((400, 500, 3), 240, np.uint8)
    picture[np.hypot(rows - 200, cols - 250) < 180] = (200, 150, 180)
    pen = np.hypot(rows - 200, cols - 250) < 50
    picture[pen] = (20, 60, 200)
    tifffile.imwrite(root / "cd34.tif", picture, tile=(128, 128), photometric="rgb")
    entry = SlideEntry(path="cd34.tif", spacing_um=(4.0, 4.0), spacing_source="user")
    case = create_case(root, CaseFile(name="B2", slides={"cd34": entry}))

    def tissue():
        for _ in run_until(case, read_recipe(case.root), "tissue_cd34"):
            pass
        return case.store.read(TISSUE["cd34"]).values

    before = tissue()
    middle = tuple(n // 2 for n in before.shape)
    assert not before[middle]
    assert case.store.record(TISSUE["cd34"])[ARTEFACT_AREAS]["pen"] > 0.1
    around = shapely.Point(1000, 800).buffer(200).wkt
    with CorrectionLog(case, "artefacts_cd34", "anna") as log:
        log.add(Correction("clear", area_wkt=around))
        after = tissue()
        assert after[middle]
        assert (after & ~before).sum() == pytest.approx(np.pi * 200**2 / 64, rel=0.05)
        assert not (before & ~after).any()
        record = case.store.record(TISSUE["cd34"])
        assert record[ARTEFACTS_MANUAL]["mm2"]["cleared"] == pytest.approx(0.126, rel=0.05)
        assert case.store.read(CORRECTED_ARTEFACT_MASK["cd34"]).values[middle] == 0
        report = case_report(case)
        assert "Artefacts" in report
        assert "detected, cleared manually" in report
        log.undo()
        np.testing.assert_array_equal(tissue(), before)


def test_nuclei_made_by_hand_are_measured_on_the_slide(tiny_cohort, tmp_path):
    case = Case(shutil.copytree(tiny_cohort / "A2", tmp_path / "A2"))
    for until in ("stain", "correct_nuclei"):
        for _ in run_until(case, read_recipe(case.root), until):
            pass
    found, image = case.store.read(NUCLEUS_OBJECTS), case.store.read(NUCLEI)
    labels = image.array()
    points = found.points_um()
    apart = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(len(points))
    one, other = np.unravel_index(apart.argmin(), apart.shape)
    depth = [ndimage.distance_transform_edt(labels == k + 1) for k in (one, other)]
    first, second = (
        image.lattice.to_um([np.unravel_index(d.argmax(), labels.shape)])[0] for d in depth
    )
    with CorrectionSession(case, "nuclei", "anna") as work:
        assert "classical method" in work.select(tuple(first)).method
        work.merge(work.select(tuple(first)), work.select(tuple(second)))
    for _ in run_until(case, read_recipe(case.root), "correct_nuclei"):
        pass
    table = case.store.read(CORRECTED_NUCLEUS_OBJECTS)
    (merged,) = np.flatnonzero(table[MANUAL_EDIT] == "merged")
    assert len(table) == len(found) - 1
    pixels = found["area_um2"][[one, other]]
    for name in ("haematoxylin_od", "row_um", "column_um"):
        mean = (found[name][[one, other]] * pixels).sum() / pixels.sum()
        assert table[name][merged] == pytest.approx(mean, rel=1e-5)
    for name in found:
        assert np.isfinite(table[name][merged]), name
