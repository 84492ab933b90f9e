"""Commands as a user gives them: help, exit codes, one clear line for what cannot be used."""

import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pydicom
import pytest
import tifffile
import typer

from napari_mosaik.cli import main, side_by_side
from napari_mosaik.cli.app import app
from napari_mosaik.cli.cohort import _error_words
from napari_mosaik.cli.show import Bar, table
from napari_mosaik.core.catalogue import SUV
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.text import typed_numbers
from napari_mosaik.io import Case

COMMANDS = (
    "demo", "sample", "new", "slide", "run", "status", "report", "view", "segment", "suv", "align",
    "kinetics", "annotate", "review-queue", "agreement", "qa", "corrections", "retrain", "train",
    "predict", "set-alignment", "profiles", "pyramid", "relink", "weights", "adjudicate", "correct",
    "models", "update", "worth", "dose", "tile", "invivo", "twin",
)  # fmt: skip


def call(*arguments):
    """Exit code of a command."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code or 0


def told(capsys, *arguments):
    """The one line that a refused command prints."""
    code = call(*arguments)
    lines = capsys.readouterr().err.strip().splitlines()
    error = [line for line in lines if line.startswith("napari-mosaik: ")]
    assert code == 2, lines
    assert len(error) == 1
    assert not any("Traceback" in line for line in lines)
    return error[0]


@pytest.fixture
def case(tiny_cohort, tmp_path):
    shutil.copytree(tiny_cohort / "A2", tmp_path / "A2")
    return tmp_path / "A2"


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb")
    return path


def paths_of(group, before=()):
    """The words of every command and group of the command line."""
    yield before
    for name, command in getattr(group, "commands", {}).items():
        yield from paths_of(command, (*before, name))


EVERY = list(paths_of(typer.main.get_command(app)))


def test_the_commands_are_known():
    assert {path[0] for path in EVERY if path} == set(COMMANDS)


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_the_help_shows_an_example_below_the_usage_that_can_be_typed(path, capsys):
    assert call(*path, "--help") == 0
    text = capsys.readouterr().out
    usage, example = text.index("Usage: napari-mosaik"), text.index("\nExample:\n  napari-mosaik ")
    assert usage < example < text.index("Options:")
    words = shlex.split(text[example:].splitlines()[2])[1:]
    assert tuple(words[: len(path)]) == path
    if len(path) == len(next(p for p in EVERY[::-1] if tuple(words[: len(p)]) == p)):
        options = [word for word in words if word.startswith("--")]
        assert all(re.search(rf"{option}\b", text) for option in options)


HEAVY = {
    *("cv2", "dask", "imagecodecs", "matplotlib", "monai", "napari", "numba", "pandas", "pyarrow"),
    *("qtpy", "scipy.ndimage", "scipy.optimize", "scipy.stats", "skimage", "sklearn", "stardist"),
    *("tifffile", "torch", "zarr"),
}
"""What takes long to load."""
OPENED_SLIDES = {"imagecodecs", "tifffile"}


@pytest.mark.parametrize(
    ("arguments", "code", "needed"),
    [
        (["--help"], 0, set()),
        (["run", "--help"], 0, set()),
        (["status", "CASE"], 0, OPENED_SLIDES),
        (["run", "CASE", "--step", "vessels"], 0, OPENED_SLIDES),
        (["run", "CASE", "--step", "predict"], 2, OPENED_SLIDES),
    ],
    ids=["help", "help of a command", "status", "a step that is done", "a blocked step"],
)
def test_a_command_loads_no_library_that_it_does_not_need(
    request, tmp_path, arguments, code, needed
):
    case = tmp_path / "A2"
    if "CASE" in arguments:
        shutil.copytree(request.getfixturevalue("computed_cohort") / "A2", case)
    given = [str(case) if word == "CASE" else word for word in arguments]
    script = (
        "import sys\nfrom napari_mosaik.cli.app import run_command\n"
        f"code = run_command({given!r})\n"
        f"print(*sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)\nsys.exit(code)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == code, found.stderr
    assert set(found.stderr.splitlines()[-1].split()) <= needed


def test_an_error_that_nothing_measures_is_not_available():
    record = {"suv_norm": {"mae": 0.0571}, "development": False}
    assert _error_words(record) == "0.0571"
    assert _error_words({**record, "development": True}) == "0.0571, optimistic (development case)"
    words = _error_words({"suv_norm": {"mae": None}, "development": False})
    assert words == "not available: no tile is measured and predicted"


def test_a_choice_that_is_not_offered_is_named(capsys):
    assert call("train", "x", "--test", "A2", "--split", "random") == 2
    assert "'random' is not one of 'case', 'patient'" in capsys.readouterr().err


def test_the_options_of_a_record_are_those_of_its_fields(tmp_path, capsys, picture):
    asked = ["new", tmp_path / "B", "--cd34", picture, "--spacing", "1", "--dose-mbq", "37.2"]
    assert call(*asked, "--injected", "2024-03-04T10:30", "--sex", "F") == 0
    written = (tmp_path / "B" / "case.toml").read_text()
    assert "dose_mbq = 37.2" in written
    assert "injected = 2024-03-04" in written
    words = told(capsys, "new", tmp_path / "C", "--cd34", picture, "--injected", "yesterday")
    assert "--injected 'yesterday' is not a date and time" in words
    words = told(capsys, "new", tmp_path / "C", "--cd34", picture, "--dose-mbq", "-3")
    assert "--dose-mbq: -3 MBq is not valid; give more than 0" in words
    assert not (tmp_path / "C").exists()


def test_the_version(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


def test_a_wrong_option_ends_with_2():
    assert call("run", "--stpe", "x") == 2
    assert call("kinetics", "--times-h") == 2


def test_files_that_are_no_slides(tmp_path, capsys, tiny_cohort):
    text = tmp_path / "notes.svs"
    text.write_text("these are notes")
    assert "notes.svs" in told(capsys, "slide", text)
    empty = tmp_path / "empty.tif"
    empty.touch()
    assert "empty" in told(capsys, "slide", empty)
    whole = tiny_cohort / "A2" / "slides" / "he.tif"
    torn = tmp_path / "torn.tif"
    torn.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    assert "torn.tif" in told(capsys, "slide", torn)
    assert "gone.svs" in told(capsys, "new", tmp_path / "c", "--he", tmp_path / "gone.svs")
    assert not (tmp_path / "c").exists()


def test_a_missing_pixel_size_says_how_to_give_it(tmp_path, capsys, picture):
    line = told(capsys, "new", tmp_path / "c", "--he", picture)
    assert "--spacing-he UM" in line
    assert call("new", tmp_path / "c", "--he", picture, "--spacing", "0.5") == 0
    capsys.readouterr()
    assert call("slide", picture, "--spacing", "0.5", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["spacing_um"], record["spacing_source"]) == ([0.5, 0.5], "user")


def test_a_pet_that_is_none(tmp_path, capsys, tiny_cohort):
    text = tmp_path / "pet.dcm"
    text.write_text("no")
    assert "pet.dcm" in told(capsys, "suv", text)
    data = pydicom.dcmread(tiny_cohort / "A2" / "pet" / "slice.dcm")
    data.Modality = "CT"
    data.save_as(tmp_path / "ct.dcm")
    assert "CT" in told(capsys, "suv", tmp_path / "ct.dcm")


def test_an_suv_of_an_image_without_a_header(tmp_path, capsys):
    from tests.io.test_pet_other import VALUES, nifti

    image, mask = nifti(tmp_path / "p.nii.gz"), nifti(tmp_path / "m.nii", (VALUES > 20) * 1)
    assert "give --unit" in told(capsys, "suv", image)
    assert "counts" in told(capsys, "suv", image, "--unit", "counts")
    assert call("suv", image, "--unit", "cm2/mL", "--mask", mask, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["factor"], record["kind"], record["n_voxels"]) == (1.0, "bsa", 3)
    assert (record["maximum"], record["mean"], record["unit"]) == (23.0, 22.0, "cm²/mL")
    given = ["--dose-mbq", 37, "--injected", "2024-03-02T08:30", "--scanned", "2024-03-16T08:30"]
    given += ["--decay-correction", "START", "--weight-kg", 70, "--kind", "bw", "--json"]
    assert "give --nuclide" in told(capsys, "suv", image, "--unit", "Bq/mL", *given)
    given += ["--nuclide", "Zr-89"]
    assert call("suv", image, "--unit", "Bq/mL", "--slice-index", 1, *given) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["factor"] == pytest.approx(70e3 / (37e6 * 2 ** (-336 / 78.41)))
    sources = {term["name"]: term["source"] for term in record["terms"]}
    assert (sources["scanned"], sources["nuclide"], sources["half_life_h"]) == (
        "user", "user", "table",
    )  # fmt: skip


def test_an_suv_with_every_term(tiny_cohort, capsys):
    pet = tiny_cohort / "A2" / "pet" / "slice.dcm"
    assert "height" in told(capsys, "suv", pet, "--weight-kg", 80)
    given = ["--dose-mbq", 37, "--weight-kg", 82, "--height-cm", 178]
    given += ["--injected", "2024-03-04T10:30:00"]
    assert call("suv", pet, *given, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    sources = {term["name"]: term["source"] for term in record["terms"]}
    assert sources["weight_kg"] == "user"
    assert record["maximum"] > record["mean"] > 0
    assert "injected" in told(capsys, "suv", pet, *given[:-1], "yesterday")
    line = told(capsys, "suv", pet, *given[:-1], "2030-01-01T00:00:00")
    assert "after" in line or "before" in line
    assert call("suv", pet, "--kind", "mean") == 2
    assert "'mean' is not one of 'bsa', 'bw', 'lbm'" in capsys.readouterr().err


def test_a_case_is_run_as_far_as_it_goes(case, capsys):
    assert call("run", case, "--until", "vessels", "--json") == 0
    states = json.loads(capsys.readouterr().out)["A2"]["steps"]
    assert states["vessels"]["state"] == "done"
    assert states["nuclei"]["state"] == "missing"
    assert states["classes"]["reason"].startswith("no trained model")
    assert call("run", case, "--set", "vessels.min_area_um2=40", "--step", "vessels", "--json") == 0
    capsys.readouterr()
    assert call("status", case) == 0
    assert "Vessels" in capsys.readouterr().out


def test_a_damaged_result_is_named_and_recomputed(case, capsys):
    call("run", case, "--until", "tiles")
    table = case / "artifacts" / "tiles" / "table.parquet"
    table.write_bytes(table.read_bytes()[:-9])
    capsys.readouterr()
    line = told(capsys, "review-queue", case)
    assert "'tiles'" in line
    assert "--force" in line
    assert call("run", case, "--step", "tiles", "--force") == 0


def test_one_damaged_slide_blocks_its_own_steps_only(case, capsys):
    slide = case / "slides" / "cd34.tif"
    slide.write_bytes(slide.read_bytes()[:20000])
    assert call("run", case, "--until", "stain", "--json") == 0
    states = json.loads(capsys.readouterr().out)["A2"]["steps"]
    assert states["stain"]["state"] == "done"
    assert states["vessels"]["state"] == "blocked"
    assert "cut off" in states["vessels"]["reason"]
    assert "cut off" in told(capsys, "run", case, "--step", "vessels")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--step", "vesels"], "unknown step 'vesels'; did you mean 'vessels'?"),
        (["--until", "predict"], "Prediction cannot run"),
        (["--set", "vessels.closing=1"], "closing"),
        (["--set", "vessels"], "step.setting=value"),
        (["--step", "tiles", "--until", "tiles"], "not both"),
        (["--force"], "--force needs --step"),
    ],
)
def test_wrong_requests_are_told(case, capsys, arguments, words):
    assert words in told(capsys, "run", case, *arguments)


@pytest.mark.parametrize("slip", [("--step", "vesels"), ("--until", "vesels"), ("--set", "a.b=1")])
def test_a_slip_is_told_before_anything_is_shown_or_changed(case, capsys, slip):
    recipe = (case / "recipe.toml").read_bytes()
    assert call("run", case, "--set", "vessels.min_area_um2=41", *slip) == 2
    shown, error = capsys.readouterr()
    assert (shown, error.count("\n")) == ("", 1)
    assert "unknown step" in error
    assert (case / "recipe.toml").read_bytes() == recipe


def test_what_lacks_a_model_names_the_commands_that_give_one(case, capsys):
    adopt = f"or choose one with: napari-mosaik models adopt {case} HASH"
    training = f"train one with: napari-mosaik train {case.parent} --test A2, {adopt}"
    for arguments in (["predict", case], ["run", case, "--step", "predict"]):
        assert training in told(capsys, *arguments)
    line = told(capsys, "run", case, "--until", "classes")
    assert f"train one with: napari-mosaik retrain {case}, {adopt}" in line


def test_an_output_never_replaces_what_is_read(case, tmp_path, capsys):
    slide, reading = case / "slides" / "he.tif", "would replace what is read"
    link = tmp_path / "link.tif"
    link.symlink_to(slide)
    inside = case / "artifacts" / "tiles.csv"
    before = slide.read_bytes()
    for refused in (
        ("segment", "tissue", slide, "--out", slide),
        ("segment", "tissue", slide, "--out", link),
        ("segment", "tissue", slide, "--out", tmp_path / "t.tif", "--table", tmp_path / "t.tif"),
        ("annotate", "export", case, slide),
        ("report", case, "--out", case / "case.toml"),
        ("qa", case, "--csv", case / "recipe.toml"),
        ("twin", case, "curve", "--out", case / "invivo.csv"),
        ("twin", case, "map", "--at-h", "168", "--out", case / "pet" / "slice.dcm"),
        ("annotate", "export", case, inside),
    ):
        assert reading in told(capsys, *refused)
    assert "is a folder" in told(capsys, "annotate", "export", case, tmp_path)
    assert slide.read_bytes() == before
    assert not inside.exists()


def test_brackets_and_colons_in_a_table_are_shown_as_they_are(capsys):
    cells = ("[injection] in case.toml", "case [bold] of :smile:")
    table("Case [red] 1", ("step", "reason"), [cells], words=True)
    out = capsys.readouterr().out
    assert all(text in out for text in ("Case [red] 1", *cells))


def test_counts_are_followed_by_the_number_of_their_noun():
    counted = re.compile(r"\{(len\(|[^{}]*\bn_)[^{}]*\} ([a-z]+ )?[a-z]+[^s\W]s\b")
    found = []
    for path in Path(side_by_side.__file__).parent.glob("*.py"):
        found += [f"{path.name}: {one[0]}" for one in counted.finditer(path.read_text("utf-8"))]
    several = ("{len(found)} cases", "{len(folders)} cases")
    assert [text for text in found if not text.endswith(several)] == []


@pytest.mark.parametrize(
    "command", [("train", "--test", "A2"), ("predict",), ("retrain",), ("run",), ("update",)]
)
def test_a_device_that_is_not_there_is_named_before_anything_is_done(case, capsys, command):
    words = told(capsys, *command, case, "--device", "mps")
    assert "--device mps" in words
    assert "omit --device" in words
    assert call(*command, str(case), "--device", "gpu") == 2
    assert (
        "'gpu' is not one of 'auto', 'cpu', 'cuda', 'cuda-float32', 'mps'"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["scales_um=2,0"], "scales_um = '2,0' is not valid: '0': give more than 0"),
        (["decoder=8,8", "--method", "densenet"], "give 4 values, separated by commas"),
    ],
)
def test_several_values_of_a_setting_are_typed_with_commas(case, capsys, asked, words):
    assert words in told(capsys, "retrain", case, "--set", *asked)


def test_a_wrong_predictor_does_not_get_into_the_recipe(case, capsys):
    recipe = case / "recipe.toml"
    before = recipe.read_text()
    words = told(capsys, "predict", case, "--model", "zzz")
    assert words.endswith("there is no readable predictor in " + str(case / "models" / "zzz"))
    assert recipe.read_text() == before


def test_folders_that_are_no_cases(tmp_path, capsys):
    assert "no case" in told(capsys, "run", tmp_path)
    assert "there is no folder" in told(capsys, "status", tmp_path / "x")
    (tmp_path / "file").touch()
    assert "neither a case" in told(capsys, "status", tmp_path / "file")


def test_annotations_go_out_and_in(case, tmp_path, capsys):
    out = tmp_path / "shapes.geojson"
    assert call("annotate", "export", case, out) == 0
    before = (case / "annotations" / "he.geojson").read_text()
    assert "--replace" in told(capsys, "annotate", "import", case, out)
    assert call("annotate", "import", case, out, "--add") == 0
    after = json.loads((case / "annotations" / "he.geojson").read_text())
    assert len(after["features"]) == len(json.loads(before)["features"])
    assert "no annotations on cd34" in told(
        capsys, "annotate", "export", case, out, "--slide", "cd34"
    )
    assert "two readers" in told(capsys, "agreement", case)


def test_a_picture_is_segmented_outside_a_case(case, tmp_path, capsys):
    out, table = tmp_path / "labels.tif", tmp_path / "objects.csv"
    slide = case / "slides" / "cd34.tif"
    assert call("segment", "vessels", slide, "--out", out, "--table", table, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    labels = tifffile.imread(out)
    assert record["count"] == labels.max() == len(table.read_text().splitlines()) - 1
    assert labels.shape == tifffile.imread(slide).shape[:2]
    assert record["shape"] == list(labels.shape)
    small = tmp_path / "small.tif"
    wanted = ("--label-spacing", 4, "--region", "100,200,401,602")
    assert call("segment", "tissue", slide, "--out", small, *wanted) == 0
    assert tifffile.imread(small).shape == (100, 150)
    capsys.readouterr()
    assert record["stains"]["source"] == "slide"
    assert record["look"]["kind"] == "DAB"
    assert sum(record["left_out"].values()) == 0
    assert record["wall_area_um2"] + record["lumen_area_um2"] == pytest.approx(record["area_um2"])
    he = case / "slides" / "he.tif"
    assert call("segment", "vessels", he, "--out", out) == 0
    assert "looks like an H&E slide" in capsys.readouterr().err
    assert call("segment", "cells", slide, "--out", out) == 2
    assert "'cells' is not one of 'tissue'" in capsys.readouterr().err
    assert "--weights" in told(capsys, "segment", "classes", slide, "--out", out)
    line = told(capsys, "segment", "classes", slide, "--out", out, "--model", case)
    assert "there is no model in" in line
    for region in ("1,2", "nan,0,50,50", "0,0,inf,50"):
        error = told(capsys, "segment", "nuclei", slide, "--out", out, "--region", region)
        assert "row,column,height,width" in error


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        *(
            (words, "--seed", value)
            for value in ("-1", "4294967296")
            for words in ("sample d", "review-queue c", "agreement c", "train c", "twin c cohort")
        ),
        ("kinetics", "--times-h", "72,inf"),
        ("kinetics", "--times-h", "nan"),
        ("run c", "--scheduler", "nonsense"),
        ("train c", "--scheduler", "tcp://computer"),
    ],
)
def test_numbers_that_cannot_be_name_their_option(capsys, command, option, value):
    assert option in told(capsys, *command.split(), f"{option}={value}")


def test_two_slides_are_aligned_outside_a_case(case, capsys):
    slides = case / "slides"
    assert call("align", slides / "cd34.tif", slides / "he.tif", "--kind", "rigid", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert np.array(record["matrix"]).shape == (3, 3)
    assert record["dice"] > 0.9
    assert call("align", slides / "cd34.tif", slides / "he.tif", "--kind", "odd") == 2
    assert "'odd' is not one of 'rigid'" in capsys.readouterr().err


def test_kinetics_at_given_times(capsys, tmp_path):
    model = tmp_path / "model.xml"
    arguments = ("--times-h", "72,120,168", "--set", "k32_per_h=0.3", "--sbml", str(model))
    assert call("kinetics", *arguments, "--json") == 0
    assert 'id="k32" value="0.3"' in model.read_text("utf-8")
    record = json.loads(capsys.readouterr().out)
    assert record["internalised_um"][0] > record["internalised_um"][2] > 0
    assert "--times-h" in told(capsys, "kinetics", "--times-h", "soon")
    assert "k_x" in told(capsys, "kinetics", "--times-h", "1", "--set", "k_x=1")
    assert "not a number" in told(capsys, "kinetics", "--set", "imaging_times=soon")
    assert "ascend" in told(capsys, "kinetics", "--times-h", "72,24")


def test_kinetics_of_table_2_with_its_diagnostics(capsys):
    assert call("kinetics", "--preset", "table2", "--set", "samples=64", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["preset"] == "table2"
    assert record["time_h"] == record["diagnostics"]["patient"]["imaging_h"] == [72, 120, 168, 336]
    patient = {one["name"]: one for one in record["parameters"]["patient"]}
    assert patient["k_a_per_um_h"]["value"] == record["params"]["k_a_per_um_h"] == 3.5e4
    assert patient["antigen_um"]["unit"] == "µM"
    assert "permeability_um_per_s" in {one["name"] for one in record["parameters"]["tile"]}
    for curves in (record, record["curves"]):
        parts = zip(*(curves[f"{n}_um"] for n in ("free", "bound", "internalised")), strict=True)
        assert [sum(p) for p in parts] == pytest.approx(curves["total_um"])
    assert record["curves"]["time_h"][0] == 0
    assert len(record["curves"]["time_h"]) == 48
    sobol = record["diagnostics"]["tile"]["sobol"]
    assert sobol["first"][-1][sobol["names"].index("permeability_um_per_s")] > 0.9


def test_a_setting_of_both_models_changes_both_and_what_fails_is_named(capsys):
    changed = ("--set", "k32_per_h=0.3", "--set", "free_0_um=0", "--surface-density", "0")
    assert call("kinetics", *changed, "--times-h", "0", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    for model in ("patient", "tile"):
        values = {one["name"]: one["value"] for one in record["parameters"][model]}
        assert values["k32_per_h"] == 0.3
    assert "free antibody" in record["diagnostics"]["patient"]["not_available"]
    assert "retains nothing" in record["diagnostics"]["tile"]["not_available"]
    assert call("kinetics", "--set", "samples=16") == 0
    shown = capsys.readouterr().out
    assert "C_tot: prior only" in shown
    assert "Permeability: determined by the images" in shown
    assert "with interactions" in shown


def test_an_internal_error_ends_with_1(case):
    code = (
        "import napari_mosaik.workflow.case_status as c\n"
        "def broken(*a): raise ZeroDivisionError\n"
        "c.case_status = broken\n"
        "from napari_mosaik.cli import main\n"
        f"main(['status', {str(case)!r}])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 1
    assert "ZeroDivisionError" in found.stderr


def test_a_folder_that_cannot_be_written(tmp_path, capsys, monkeypatch, picture):
    def refuse(self, *arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    line = told(capsys, "new", tmp_path / "c", "--he", picture, "--spacing", "0.5")
    assert "choose another folder" in line


@pytest.mark.parametrize("width", ["99", "0", "-1.5", "nan", "inf"])
def test_a_resolution_that_no_scanner_has_is_refused(tiny_cohort, tmp_path, capsys, width):
    pet = tiny_cohort / "A2" / "pet" / "slice.dcm"
    line = told(capsys, "new", tmp_path / "new", "--pet", pet, f"--pet-fwhm={width}")
    assert "--pet-fwhm" in line
    assert ("is not a number" if width in ("nan", "inf") else "0.1 to 20") in line
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("width", ["1.4", "1,4"])
def test_the_resolution_of_the_scanner_is_stored(tiny_cohort, tmp_path, width):
    pet = tiny_cohort / "A2" / "pet" / "slice.dcm"
    assert call("new", tmp_path / "new", "--pet", pet, "--pet-fwhm", width) == 0
    assert "fwhm_mm = 1.4" in (tmp_path / "new" / "case.toml").read_text()


def functions_of(group):
    """The functions of every command of a group."""
    for command in group.registered_commands:
        yield command.name, command.callback
    for inner in group.registered_groups:
        yield from functions_of(inner.typer_instance)


def test_every_number_of_the_command_line_may_have_a_decimal_comma(capsys):
    found = 0
    for name, function in functions_of(app):
        for option in inspect.signature(function, eval_str=True).parameters.values():
            kind, *about = get_args(option.annotation) or (None,)
            if about and float in (kind, *get_args(kind)):
                assert about[0].parser("0,5") == 0.5, (name, option.name)
                with pytest.raises(typer.BadParameter, match="1500"):
                    about[0].parser("1,500")
                found += 1
    assert found > 15
    assert "--surface-density" in told(capsys, "kinetics", "--surface-density=-1")
    for value, words in (("-1", "'-1' is not valid; give 0 or more"), ("x", "a whole number")):
        line = told(capsys, "run", "case", f"--jobs={value}")
        assert "'--jobs'" in line
        assert words in line


@pytest.mark.parametrize(
    ("words", "told_so"),
    [
        ("new c --he a.tif --page-he 0", "'--page-he': '0' is not valid; give 1 or more"),
        ("slide a.tif --page -1", "give 1 or more"),
        ("slide a.tif --spacing 25", "not valid; give a number between"),
        ("status c99", "there is no folder c99"),
        ("profiles --spacing 0.25", "--add NAME"),
        ("segment nuclei a.tif --out s.tif --label-spacing=-1", "--label-spacing is -1 µm"),
        ("relink c HE x", "'source': 'HE' is not one of 'he'"),
        ("twin next-scan c --cv 0", "--cv 0"),
        ("kinetics --times-h=-5", "not -5 h"),
    ],
)
def test_what_is_asked_wrongly_says_how_to_ask(capsys, monkeypatch, tmp_path, words, told_so):
    monkeypatch.chdir(tmp_path)
    assert told_so in told(capsys, *words.split())


def test_numbers_in_a_list_may_have_decimal_commas():
    assert typed_numbers("0, 24,72.5") == typed_numbers("0;24;72,5") == [0, 24, 72.5]
    for text in ("", "1,,2", "1,nan", "0;1,500"):
        with pytest.raises(InputError):
            typed_numbers(text)


def test_a_report_as_pdf(case, tmp_path, capsys):
    assert call("report", case, "--pdf", "--no-open") == 0
    assert (case / "report.pdf").read_bytes().startswith(b"%PDF")
    assert call("report", case, "--out", tmp_path / "A2.pdf", "--no-open") == 0
    assert (tmp_path / "A2.pdf").read_bytes().startswith(b"%PDF")
    capsys.readouterr()
    assert "not 'A2.html'" in told(capsys, "report", case, "--pdf", "--out", tmp_path / "A2.html")


def test_cases_side_by_side_give_what_they_give_one_by_one(computed_cohort, tmp_path, capfd):
    for name in ("A2", "B8"):
        shutil.copytree(computed_cohort / name, tmp_path / name)
    before = Case(tmp_path / "A2").store
    map_before, time_before = before.read(SUV).values[...], before.record(SUV)["time"]
    assert call("run", str(tmp_path), "--step", "suv", "--force", "--jobs", "2") == 0
    after = Case(tmp_path / "A2").store
    np.testing.assert_array_equal(after.read(SUV).values[...], map_before)
    assert after.record(SUV)["time"] != time_before
    shown = capfd.readouterr()
    assert {"A2 · SUV", "B8 · SUV"} <= set(shown.err.splitlines())
    doubts = [line for line in shown.err.splitlines() if "warning: A2, SUV" in line]
    assert len(doubts) == len(set(doubts))
    next((tmp_path / "B8" / "pet").glob("*.dcm")).unlink()
    assert call("run", str(tmp_path), "--step", "suv", "--force", "--jobs", "0") == 2
    lines = capfd.readouterr().err.splitlines()
    assert "A2 · SUV" in lines
    assert "B8" in lines[-1]
    assert "the PET file is not at" in lines[-1]


def test_an_interrupt_stops_the_cases_side_by_side(tmp_path, monkeypatch):
    begun = []

    def started(folder, options, cores):
        script = "import time; time.sleep(300)"
        begun.append(subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE))
        return begun[-1]

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side, "_started", started)
    monkeypatch.setattr(Bar, "show", interrupted)
    with Bar(quiet=True) as bar, pytest.raises(KeyboardInterrupt):
        side_by_side.run_side_by_side([tmp_path / "A", tmp_path / "B"], [], 2, bar)
    assert len(begun) == 2
    assert all(process.poll() is not None for process in begun)
