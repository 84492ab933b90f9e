"""Inputs of the first hour: what vendors, editors and systems make of slides, PET and cases."""

import json
import os
import re

import numpy as np
import pytest
import shapely.geometry
import tifffile
from PIL import Image
from pydicom.dataset import Dataset

from napari_mosaik.cli import main
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.pet_records import HALF_LIFE_H, canonical_nuclide
from napari_mosaik.io.pet import open_pet, open_pet_slices
from napari_mosaik.workflow.suv import suv_of_files
from tests.field.test_suv import BY_WEIGHT, DICOM_FACTOR, factor, of_dicom
from tests.io.test_pet import PIXELS, dataset, saved

ON_POSIX = pytest.mark.skipif(os.sep != "/", reason="such a path is one of this system")


# --- DICOM ---------------------------------------------------------------------------------------
def code(value="", meaning=""):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SRT", meaning
    return {"RadionuclideCodeSequence": [item]}


@pytest.mark.parametrize(
    ("medicine", "said"),
    [
        (code("C-168A4"), ""),
        (code("63360001"), ""),  # the same by the present codes of SNOMED
        (code("", "Zirkonium-89"), ""),  # as a German workstation writes it
        (code("C-168A4") | {"Radiopharmaceutical": "[89Zr]Zr-girentuximab"}, ""),
        (code("C-111A1"), "78.41 h does not belong to F-18"),
        (code("77004003"), "78.41 h does not belong to F-18"),
        (code("C-111A1", "^89^Zirconium"), "F-18 by the code C-111A1 and Zr-89 by .*give nuclide"),
        (code("C-168A4", "Fluor-18"), "Zr-89 by the code C-168A4 and F-18 by 'Fluor-18'"),
        (code("", "Floor-18"), "78.41 h is that of Zr-89, and the nuclide is 'Floor-18'"),
        (code("C-168A4") | {"Radiopharmaceutical": "18F-FDG"}, "and F-18 by '18F-FDG'"),
        (code() | {"Radiopharmaceutical": "PSMA-1007 F18"}, "does not belong to F-18"),
        (code() | {"Radiopharmaceutical": "PSMA-1007"}, ""),  # names no nuclide
    ],
)
def test_a_nuclide_is_that_of_its_code_and_its_words(tmp_path, medicine, said):
    if not said:
        assert of_dicom(tmp_path, medicine=medicine)["factor"] == pytest.approx(DICOM_FACTOR, 1e-4)
        return
    with pytest.raises(InputError, match=said):
        of_dicom(tmp_path, medicine=medicine)


def test_a_code_without_a_half_life_takes_that_of_the_table(tmp_path):
    path = saved(tmp_path, dataset())
    ds = dataset()
    del ds.RadiopharmaceuticalInformationSequence[0].RadionuclideHalfLife
    ds.RadiopharmaceuticalInformationSequence[0].RadionuclideCodeSequence[0].CodeMeaning = ""
    coded = saved(tmp_path, ds, "coded.dcm")
    whole, found = (suv_of_files([one], "bw", {})["factor"] for one in (path, coded))
    assert found == pytest.approx(whole, rel=1e-4)


def test_the_user_settles_which_nuclide_it_is(tmp_path):
    medicine = code("C-111A1", "^89^Zirconium")
    for given in ({"nuclide": "Zr-89"}, {"half_life_h": HALF_LIFE_H["Zr-89"]}):
        found = of_dicom(tmp_path, given, medicine)
        assert found["factor"] == pytest.approx(DICOM_FACTOR, rel=1e-4)


@pytest.mark.parametrize(
    ("text", "nuclide"),
    [("Zirkonium 89", "Zr-89"), ("Fluor-18", "F-18"), ("^82^Rubidium", "Rb-82"),
     ("64-Kupfer", "Cu-64"), ("Iode-124", "I-124"), ("Galio 68", "Ga-68"),
     ("89Zr-C225", "Zr-89"), ("18F-PSMA-1007", "F-18"), ("177Lu-PSMA-617", "Lu-177")],
)  # fmt: skip
def test_nuclides_in_other_languages(text, nuclide):
    assert canonical_nuclide(text) == nuclide


@pytest.mark.parametrize(
    ("place", "text", "message"),
    [
        ("PatientWeight", "70,0", r"give weight_kg .*states the weight '70,0', which is not a"),
        ("PatientWeight", "70 kg", r"give weight_kg .*'70 kg', which is not a number"),
        ("RadionuclideTotalDose", "37 MBq", r"give dose_mbq .*the dose '37 MBq', which is not a"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.filterwarnings("ignore:A value of type")
def test_a_text_where_a_number_belongs_is_shown_and_asked_for(tmp_path, place, text, message):
    from pydicom import config

    ds = dataset()
    item = ds if place in ds else ds.RadiopharmaceuticalInformationSequence[0]
    del item[place]
    item.add_new(place, "LO", text)
    path = saved(tmp_path, ds)
    assert config.settings.reading_validation_mode == config.WARN
    with pytest.raises(InputError, match=message):
        suv_of_files([path], "bw", {})


@pytest.mark.parametrize(
    "stated", ["20240302083000Z", "2024-03-02T08:30:00", "2024030208", "202403", "yesterday"]
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR DT")
def test_a_moment_of_injection_that_is_incomplete_or_unreadable_is_asked_for(tmp_path, stated):
    with pytest.raises(InputError, match=rf"give injected .*states '{stated}', which is no date"):
        of_dicom(tmp_path, medicine={"RadiopharmaceuticalStartDateTime": stated})


def test_a_series_that_states_the_hour_only_has_no_start(tmp_path):
    with pytest.raises(InputError, match="the start of the scan is missing"):
        of_dicom(tmp_path, SeriesTime="10", AcquisitionTime="10")


def test_weight_and_height_that_are_exchanged_are_asked_for(tmp_path):
    with pytest.raises(InputError, match=r"give weight_kg .*1\.75 kg and 70 m: exchanged\?"):
        of_dicom(tmp_path, PatientWeight=1.75, PatientSize=70)


def test_values_that_begin_above_the_lowest_bit_are_refused(tmp_path):
    high = dataset(PixelRepresentation=0, BitsStored=12, HighBit=15)
    high.PixelData = (PIXELS.astype("<u2") << 4).tobytes()
    with pytest.raises(InputError, match="15 as the highest of 12 stored bits"):
        open_pet(saved(tmp_path, high))
    usual = dataset(PixelRepresentation=0, BitsStored=12, HighBit=11)
    usual.PixelData = PIXELS.astype("<u2").tobytes()
    assert open_pet(saved(tmp_path, usual)).raster.values.max() == PIXELS.max() * 2.5 - 1


def test_a_foreign_word_for_a_nuclide_in_a_sidecar_beside_another_half_life(tmp_path):
    words = {"TracerRadionuclide": "Floor-18", "RadionuclideHalfLife": 78.41 * 3600}
    with pytest.raises(InputError, match="is that of Zr-89, and the nuclide is 'Floor-18'"):
        factor(tmp_path, words)


# --- slides --------------------------------------------------------------------------------------
PICTURE = np.full((600, 700, 3), 240, np.uint8)
PICTURE[100:500, 150:550] = np.random.default_rng(0).integers(90, 200, (400, 400, 3))
CM = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}


def slide_file(path, pixels=PICTURE, **more):
    colour = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(path, pixels, **({"photometric": colour, "metadata": None} | more))
    return path


def told(capsys, *arguments):
    """Exit code, the JSON of the output, and standard error."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return end.value.code or 0, captured.out, captured.err


@pytest.mark.parametrize(
    ("facts", "size"),
    [
        ("MPP = 0.25", 0.25),
        ("MPP = 0,4990", 0.499),  # written where a comma is the decimal sign
        ("MPP = 1,25", 1.25),
        ("MPP = 0.25|MPP = 0.25", 0.25),
        ("MPP = 0.25|MPP = 0.5", None),
        ("MPP = 0", None),
        ("MPP = nan", None),
        ("AppMag = 40", None),
    ],
)
def test_the_pixel_size_of_an_aperio_description(tmp_path, capsys, facts, size):
    text = f"Aperio Image Library v12\r\n700x600 [0,0,700x600] (128x128) JPEG/RGB Q=70|{facts}"
    path = slide_file(tmp_path / "a.svs", description=text, tile=(128, 128))
    code, out, _ = told(capsys, "slide", path, "--json")
    assert json.loads(out)["spacing_um"] == (None if size is None else [size, size])
    assert code == (2 if size is None else 0)


def test_an_aperio_description_beside_other_resolution_tags_is_a_doubt(tmp_path, capsys):
    text = "Aperio Image Library v12\r\n700x600 (128x128) JPEG/RGB Q=70|MPP = 0.25"
    path = slide_file(tmp_path / "a.svs", description=text, tile=(128, 128), **CM)
    _, out, error = told(capsys, "slide", path, "--json")
    assert "description states pixels of 0.25 x 0.25" in error
    assert "resolution tags 0.5 x 0.5" in "".join(json.loads(out)["warnings"])


@pytest.mark.parametrize(
    ("name", "grey"), [("g.tif", True), ("g.png", True), ("c.tif", False), ("c.png", False)]
)
def test_a_grey_picture_is_a_doubt(tmp_path, capsys, name, grey):
    path, pixels = tmp_path / name, PICTURE[..., 0] if grey else PICTURE
    if path.suffix == ".png":
        Image.fromarray(pixels).save(path)
    else:
        slide_file(path, pixels)
    code, out, error = told(capsys, "slide", path, "--spacing", "0.5", "--json")
    assert code == 0
    assert ("the picture is grey" in error) == grey == bool(json.loads(out)["warnings"])


@pytest.mark.parametrize(
    ("name", "start", "words"),
    [
        ("he.tif.lnk", b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0", "a Windows shortcut: give the file"),
        ("he.tif", b"book\0\0\0\0mark", "a macOS alias: give the file"),
        ("._he.tif", b"\0\5\x16\7\0\2\0\0Mac OS X", "macOS writes beside a file"),
        ("he.url", b"[InternetShortcut]\r\nURL=x", "a web shortcut"),
        (".he.tif.icloud", b"bplist00\xd2\1\2", "a placeholder of a file in the cloud: download"),
        ("he.svg", b"<svg xmlns='x'/>", "a vector drawing"),
        ("he.psd", b"8BPS\0\1", "a Photoshop picture"),
    ],
)
def test_what_desktops_and_clouds_leave_in_place_of_a_file_is_named(
    tmp_path, capsys, name, start, words
):
    path = tmp_path / name
    path.write_bytes(start + bytes(900))
    for command in (("slide", path), ("suv", path)):
        code, _, error = told(capsys, *command)
        assert (code, words in error, error.count("\n")) == (2, True, 1)


# --- folders and paths ---------------------------------------------------------------------------
def series(folder, count=3):
    folder.mkdir()
    for place in range(count):
        saved(folder, one_slice(place), f"IM{place}.dcm")
    return folder


def one_slice(place, **more):
    number = {"SOPInstanceUID": f"1.2.3.{place}", "InstanceNumber": place + 1}
    return dataset(ImagePositionPatient=[0, 0, 2.0 * place], **number, **more)


def test_what_systems_leave_in_a_folder_is_no_slice(tmp_path):
    folder = series(tmp_path / "ÄÖ🙂 100% 'x'")
    (folder / "._IM0.dcm").write_bytes(b"\0\5\x16\7" + bytes(200))
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(99))
    (folder / "desktop.ini").write_text("[x]")
    (folder / "VIEWER.EXE").write_bytes(b"MZ" + bytes(500))
    (folder / "IM1 (conflicted copy).dcm").write_bytes((folder / "IM1.dcm").read_bytes())
    (folder / "again").symlink_to(folder)
    assert len(open_pet_slices(folder)) == 3


@pytest.mark.parametrize("change", ["weight", "pixels"])
def test_a_copy_of_an_image_that_differs_is_refused(tmp_path, change):
    folder = series(tmp_path / "series")
    other = one_slice(1, **({"PatientWeight": 80} if change == "weight" else {}))
    if change == "pixels":
        other.PixelData = PIXELS[::-1].tobytes()
    saved(folder, other, "IM1 (1).dcm")
    message = r"IM1 \(1\).dcm and IM1.dcm are one image by their identifier .* and differ; remove"
    with pytest.raises(InputError, match=message):
        open_pet(folder, slice_index=0)


def test_a_copy_with_another_head_of_the_file_is_a_copy(tmp_path):
    folder = series(tmp_path / "series")
    other = one_slice(1)
    other.file_meta.ImplementationVersionName = "ARCHIVE"
    saved(folder, other, "IM1 copy.dcm")
    assert len(open_pet_slices(folder)) == 3


def test_an_empty_slice_of_a_series_is_refused(tmp_path):
    folder = series(tmp_path / "series")
    (folder / "IM2.dcm").write_bytes(b"")
    with pytest.raises(InputError, match=r"IM2.dcm is empty \(0 bytes\): copy the series again"):
        open_pet(folder, slice_index=0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("smb://server/pet", "not read from the network"),
        ("file:///home/a/x", "without 'file://'"),
        ("'/home/a/x'", "remove the quotation marks"),
        ("~/x", "your home folder instead of ~"),
        ("%USERPROFILE%/x", "the value of the variable"),
        ("${DATA}/x", "the value of the variable"),
        ("\u202a/home/a/x", r"an invisible character \(U\+202A\)"),
        ("/home/a/x\u00a0", r"an invisible character \(U\+00A0\)"),
        pytest.param(r"D:\pet\x", "a path of Windows", marks=ON_POSIX),
        pytest.param(r"\\server\share\x", "a path of Windows or of a network", marks=ON_POSIX),
    ],
)
def test_what_is_wrong_with_a_path_is_named_for_every_input(tmp_path, capsys, text, words):
    for command in ("slide", "suv", "status"):
        code, _, error = told(capsys, command, text)
        assert code == 2
        assert re.search(words, error)


@pytest.mark.parametrize("command", ["status", "run", "suv"])
def test_an_empty_argument_is_not_the_present_folder(capsys, monkeypatch, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    code, _, error = told(capsys, command, "")
    assert (code, "an argument is empty; was it to be the value of a variable" in error) == (
        2,
        True,
    )


def test_a_name_of_a_sidecar_with_blanks_counts_once(tmp_path):
    assert factor(tmp_path, {"BodyWeight": None, "BodyWeight ": 69}) == pytest.approx(BY_WEIGHT)
    with pytest.raises(InputError, match="BodyWeight stands twice, as 69 and 70"):
        factor(tmp_path, {"BodyWeight ": 70})


# --- annotations and cases -----------------------------------------------------------------------
@pytest.fixture
def case(tmp_path, capsys):
    path = slide_file(tmp_path / "he.tif", tile=(128, 128), **CM)
    assert told(capsys, "new", tmp_path / "B1", "--he", path)[0] == 0
    return tmp_path / "B1"


def outline(name, x, y, size):
    ring = [[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": name}},
    }


def taken(case, capsys, features, *options):
    """Exit code, standard error, and classes with areas (pixels) that a reader then has."""
    file = case.parent / "drawn.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    arguments = ("annotate", "import", case, file, "--reader", "A", *options)
    code, _, error = told(capsys, *arguments)
    out = case.parent / "out.geojson"
    told(capsys, "annotate", "export", case, out, "--reader", "A")
    shapes = json.loads(out.read_text())["features"] if code == 0 else []
    return (
        code,
        error,
        [
            (shape["properties"]["classification"]["name"], round(shapely_area(shape["geometry"])))
            for shape in shapes
        ],
    )


def shapely_area(geometry):
    return shapely.geometry.shape(geometry).area


def test_an_outline_in_degrees_is_no_tissue(case, capsys):
    small = outline("Tumor", 8.5, 47.3, 0.001)
    code, error, _ = taken(case, capsys, [small])
    assert (code, "smaller than a pixel (degrees? mm?)" in error) == (2, True)
    code, error, shapes = taken(case, capsys, [small, outline("Tumor", 200, 200, 80)])
    assert (code, "and is excluded" in error, shapes) == (0, True, [("neoplastic", 6400)])


def test_a_class_that_is_mapped_to_two_is_refused(case, capsys):
    features = [outline("Foo", 200, 200, 80)]
    two = ("--map", "Foo=neoplastic", "--map", "Foo =non-neoplastic")
    code, error, _ = taken(case, capsys, features, *two)
    assert (code, "--map gives 'Foo ' two classes" in error) == (2, True)
    same = ("--map", "Foo=neoplastic", "--map", "Foo=neoplastic")
    assert taken(case, capsys, features, *same)[2] == [("neoplastic", 6400)]


@pytest.mark.parametrize("name", ["Tumor \U0001f642", "100% Tumor", "a=b", "<b>Tumor</b>"])
def test_names_of_classes_with_any_sign_are_mapped(case, capsys, name):
    features = [outline(name, 200, 200, 80)]
    code, error, shapes = taken(case, capsys, features, "--map", f"{name}=neoplastic")
    assert (code, error, shapes) == (0, "", [("neoplastic", 6400)])


def test_the_file_of_a_case_stands_for_its_folder(case, capsys):
    whole, file = (told(capsys, "status", path) for path in (case, case / "case.toml"))
    assert whole == file
    assert whole[0] == 0


@pytest.mark.parametrize("name", ["B1 (2)", "Case 100% (new)", "B1 'x' \U0001f642", "ä" * 100])
def test_a_case_folder_of_any_name_is_the_same_case(case, capsys, name):
    before = json.loads(told(capsys, "status", case, "--json")[1])["B1"]["steps"]
    moved = case.rename(case.parent / name)
    after = json.loads(told(capsys, "status", moved, "--json")[1])["B1"]["steps"]
    assert {key: one["state"] for key, one in after.items()} == {
        key: one["state"] for key, one in before.items()
    }


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("case (conflicted copy 2024-05-01).toml", "case.toml"),
        ("case-DESKTOP7.toml", "case.toml"),
        ("recipe.sync-conflict-20240501-101112-ABC.toml", "recipe.toml"),
        ("readers/Anna/journal (1).jsonl", "journal.jsonl"),
        ("case-notes.toml", ""),
        ("case.toml.bak", ""),
    ],
)
def test_a_conflict_copy_of_a_folder_in_the_cloud_is_named(case, capsys, name, known):
    (case / name).parent.mkdir(parents=True, exist_ok=True)
    (case / name).write_text("")
    code, out, _ = told(capsys, "status", case, "--json")
    found = [text for text in json.loads(out)["B1"]["warnings"] if "conflict of two" in text]
    assert code == 0
    assert found == [text for text in found if text.startswith(f"{name} seems to be a copy of")]
    assert [f"copy of {known} from" in text for text in found] == [True] * bool(known)
