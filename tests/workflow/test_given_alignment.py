"""Given alignments (manual, landmarks, file): the alignment step uses and assesses them."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from napari_mosaik.cli import main
from napari_mosaik.core import InputError, Transform
from napari_mosaik.core.catalogue import ALIGNMENT
from napari_mosaik.io.annotations import read_geojson
from napari_mosaik.io.case import Case
from napari_mosaik.io.case_file import CaseFile
from napari_mosaik.workflow import given_alignment, parallel
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe
from napari_mosaik.workflow.run import run, run_until
from napari_mosaik.workflow.steps import align, step_named

TINY = Path(__file__).parents[2] / "sample_data" / "tiny" / "A2"


def true_map(frame):
    record = json.loads((TINY / "truth" / "truth.json").read_text())["transforms"][frame]
    return Transform(frame, "cd34", np.array(record["matrix"]))


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """The written-out case with everything aligned automatically."""
    folder = shutil.copytree(TINY, tmp_path_factory.mktemp("given_alignment") / "A2")
    case = Case(folder)
    for name in ("align_he", "align_pet"):
        until(case, name)
    return folder


@pytest.fixture
def case(aligned, tmp_path):
    return Case(shutil.copytree(aligned, tmp_path / "A2"))


def until(case, name):
    for _ in run_until(case, read_recipe(case.root), name):
        pass


def called(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code or 0


def test_a_manual_alignment_makes_the_alignment_stale_and_is_used(case):
    automatic = given_alignment.current_transform(case, "he")
    assert automatic is not None
    assert case_status(case).states["align_he"].word == "done"
    moved = automatic.then(Transform.similarity("cd34", "cd34", shift_um=(300.0, 0.0)))
    given_alignment.set_alignment(case, moved, "manual", "dragged")
    again = Case(case.root)
    assert case_status(again).states["align_he"].word == "stale"
    assert np.allclose(given_alignment.current_transform(again, "he").matrix, moved.matrix)
    until(again, "align_he")
    record = again.store.read(ALIGNMENT["he"])
    assert np.allclose(record["matrix_um"], moved.matrix)
    assert record["method"] == "manual: dragged"
    assert record["dice"] < 0.95
    given_alignment.reset_alignment(again, "he")
    until(again, "align_he")
    back = again.store.read(ALIGNMENT["he"])
    assert np.allclose(back["matrix_um"], automatic.matrix, atol=1e-9)


def test_landmarks_fit_and_their_residuals_are_stored(case):
    rng = np.random.default_rng(0)
    moving = rng.uniform(300, 1700, (8, 2))
    fixed = true_map("he").apply(moving) + rng.normal(0, 3, (8, 2))
    fixed[[1, 5]] = fixed[[5, 1]]
    marks = given_alignment.LandmarkPairs(moving, fixed)
    assert {one.row for one in marks.outliers("similarity")} == {1, 5}
    given_alignment.set_alignment_by_landmarks(case, "he", marks, "similarity")
    until(case, "align_he")
    record = case.store.read(ALIGNMENT["he"])
    assert len(record["landmark_residuals_um"]) == 8
    assert any("2 and 6 appear to be swapped" in text for text in record["warnings"])
    assert record["method"] == "landmarks: 8 pairs, similarity"


def test_the_pet_is_aligned_by_a_matrix_and_its_outline_is_compared(case, capsys, tmp_path):
    path = tmp_path / "pet.json"
    path.write_text(json.dumps({"matrix": true_map("pet").matrix.tolist()}))
    assert called("set-alignment", case.root, "pet", "--matrix", path, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["given_alignment"]["source"] == "file"
    again = Case(case.root)
    until(again, "align_pet")
    record = again.store.read(ALIGNMENT["pet"])
    assert np.allclose(record["matrix_um"], true_map("pet").matrix)
    assert record["dice"] > 0.8
    assert record["position_error_um"] > record["local_error_um"] > 0
    assert record["confidence"] < 0.4  # two resolutions across: the PET hardly tells its position
    assert record["method"] == "file: pet.json"


def test_the_command_aligns_by_landmark_files_as_the_window_does(case, capsys, tmp_path):
    points = np.array([[300.0, 400.0], [1500.0, 500.0], [900.0, 1800.0], [1600.0, 1900.0]])
    moved = true_map("he").apply(points)
    files = []
    for name, where in (("he", points), ("cd34", moved)):
        path = tmp_path / f"{name}.csv"
        lines = [f"{n},{x},{y}" for n, (y, x) in enumerate(where)]  # 1 µm per pixel
        path.write_text("\n".join([",X,Y", *lines]))
        files.append(path)
    arguments = ["--landmarks", files[0], "--landmarks-cd34", files[1], "--kind", "similarity"]
    assert called("set-alignment", case.root, "he", *arguments, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert max(told["residuals_um"]) < 1e-6
    window = given_alignment.set_alignment_by_landmarks(
        case, "he", given_alignment.LandmarkPairs(points, moved), "similarity"
    )
    stored = CaseFile.read(case.root / "case.toml").given_alignments["he"]
    assert np.allclose(stored.matrix_um, window.matrix_um)
    assert stored.note == window.note
    assert called("set-alignment", case.root, "he", "--automatic") == 0
    assert Case(case.root).file.given_alignments == {}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("he",), "one of"),
        (("cd34", "--automatic"), "'he', 'caix', 'pet'"),
        (("he", "--landmarks", "x.csv"), "landmarks-cd34"),
        (("he", "--matrix", "none.csv"), "none.csv"),
        (("he", "--automatic", "--matrix", "none.csv"), "one of"),
    ],
)
def test_an_invalid_request_is_refused_in_one_line(case, capsys, arguments, why):
    assert called("set-alignment", case.root, *arguments) == 2
    assert why in capsys.readouterr().err


def test_the_assessment_is_that_of_the_step(case):
    parts = given_alignment.read_assessment_inputs(case, "he")
    right = parts.assess(true_map("he"))
    wrong = parts.assess(
        true_map("he").then(Transform.similarity("cd34", "cd34", shift_um=(250.0, 200.0)))
    )
    assert right.dice > wrong.dice
    assert right.ncc > wrong.ncc
    assert given_alignment.read_assessment_inputs(case, "pet").assess(true_map("pet")).dice > 0.8
    with pytest.raises(InputError, match="cd34"):
        given_alignment.read_assessment_inputs(case, "cd34")


def test_the_assessment_follows_the_settings_of_the_case(case):
    before = given_alignment.read_assessment_inputs(case, "pet")
    write_recipe(case.root, changed(read_recipe(case.root), "align_pet", fwhm_um=2400.0))
    after = given_alignment.read_assessment_inputs(case, "pet")
    assert after.params.fwhm_um == 2400.0
    assert np.asarray(before.fixed.values).sum() != np.asarray(after.fixed.values).sum()


def test_annotations_move_onto_the_reference(case, tmp_path, capsys):
    path = tmp_path / "moved.geojson"
    assert called("annotate", "export", case.root, path, "--on-cd34") == 0
    transform = given_alignment.current_transform(case, "he")
    with case.slide("cd34") as slide:
        moved = {shape.key: shape for shape in read_geojson(path, slide.lattice)}
    shapes = case.annotations("he")
    assert len(moved) == len(shapes) > 0
    for shape in shapes:
        corners = np.array(shape.geometry.exterior.coords)[:, ::-1]  # (row, column)
        there = np.array(moved[shape.key].geometry.exterior.coords)[:, ::-1]
        assert np.allclose(transform.apply(corners), there, atol=0.02)
        area = shape.geometry.area * transform.scale**2
        assert moved[shape.key].geometry.area == pytest.approx(area, rel=1e-3)


def test_progress_is_repeated_while_the_slides_of_a_registration_are_read(
    aligned, tmp_path, monkeypatch
):
    monkeypatch.setattr(parallel, "_REPORT_S", 0.01)
    shutil.copytree(aligned, tmp_path / "A2")
    go, read, texts = threading.Event(), align.density_of, []

    def waits(slide):
        assert go.wait(60)
        return read(slide)

    monkeypatch.setattr(align, "density_of", waits)
    case, step = Case(tmp_path / "A2"), step_named("align_he")
    before = case.store.read(ALIGNMENT["he"])
    for progress in run(case, step, read_recipe(case.root)[step.name], force=True):
        texts.append(progress.text)
        if texts.count("reading the haematoxylin") > 20:
            go.set()
    assert go.is_set()
    assert case.store.read(ALIGNMENT["he"]) == before
