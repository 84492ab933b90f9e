"""Annotations of readers and of other programs: classes, outlines, names, and nothing lost."""

import gzip
import json
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from napari_mosaik.annotate import rectangle_polygon
from napari_mosaik.annotate.foreign import BUILT_IN, is_foreign, proposed_class
from napari_mosaik.cli import main
from napari_mosaik.core import InputError
from napari_mosaik.core.errors import CaseLocked
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.readers import check_reader_name, coded_name, reader_of
from napari_mosaik.io import Case
from napari_mosaik.io.case import create_case
from napari_mosaik.io.case_file import CaseFile, SlideEntry
from napari_mosaik.workflow import classifier
from napari_mosaik.workflow.annotation_import import AnnotationImport
from napari_mosaik.workflow.annotations import (
    OpenAnnotations,
    current_annotations,
    reader_documents,
)
from napari_mosaik.workflow.classifier import retrain
from tests.field.conftest import white_case

SIZE = 2000
FINISHED = SimpleNamespace(states={"stain": SimpleNamespace(word="done")})


@pytest.fixture
def case(tmp_path):
    """A case with a white H&E slide of 2000 x 2000 pixels of 0.5 µm."""
    return white_case(tmp_path, SIZE, 0.5)


def ring(x, y, size=40):
    return [[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]]


def feature(key, label="neoplastic", geometry=None, **properties):
    number = sum(map(ord, key)) % 40
    geometry = geometry or {"type": "Polygon", "coordinates": [ring(45 * number, 100)]}
    properties = {"objectType": "annotation", **properties}
    if label is not None:
        properties["classification"] = {"name": label} if isinstance(label, str) else label
    return {"type": "Feature", "id": key, "geometry": geometry, "properties": properties}


def written(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def call(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


def imported(capsys, case, path, *options, code=0):
    capsys.readouterr()
    words = ["annotate", "import", str(case.root), str(path), *map(str, options), "--json"]
    assert call(*words) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert "UserWarning" not in err
    return json.loads(out) if code == 0 else err


# --- classes -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("label", "wanted"),
    [
        ("Tumor", "neoplastic"),
        ("Tumor: Positive", "neoplastic"),
        (" NEOPLASTIC ", "neoplastic"),
        ("Non neoplastic", "non-neoplastic"),
        ("Stroma", "non-neoplastic"),
        ("Immune cells", "non-neoplastic"),
        ("Background", "background"),
        *((name, "") for name in ("Necrosis", "Other", "Region*", "Ignore*", "Positive", "")),
        *((name, "") for name in ("Tumors", "Karzinom", "Tumor*")),
        ("Tumor: 1+", "neoplastic"),
        ("Neoplastic: CAIX", "neoplastic"),
        ("Stroma: Immune cells", "non-neoplastic"),
        *((f"Tumor: {part}", "") for part in ("Necrosis", "Stroma", "normal", "Immune cells")),
        ("Stroma: Tumor", ""),
        ("Non-neoplastic: Necrosis", ""),
    ],
)
def test_a_class_of_another_program_stands_for_one_of_ours_or_none(label, wanted):
    assert proposed_class(label, BUILT_IN) == wanted


def test_classes_go_through_a_table(case, tmp_path, capsys):
    path = written(
        tmp_path / "q.geojson",
        feature("a", "Tumor"), feature("b", "Stroma"), feature("c", "Necrosis"),
        feature("d", None), feature("e", "Karzinom"),
    )  # fmt: skip
    record = imported(capsys, case, path, "--map", "karzinom=neoplastic", "--map", "Stroma=")
    assert {row["name"]: row["mapped_to"] for row in record["classes"]} == {
        "Tumor": "neoplastic", "Stroma": "", "Necrosis": "", "": "", "Karzinom": "neoplastic"
    }  # fmt: skip
    assert record["imported"] == 2
    assert sum("excluded" in line for line in record["warnings"]) == 3
    assert {shape.label for shape in case.annotations("he")} == {"neoplastic"}
    assert call("annotate", "import", str(case.root), str(path), "--replace") == 0
    assert "'Tumor' (1 shape, 0.0004 mm²): neoplastic" in capsys.readouterr().out


def test_a_class_that_nobody_declared_is_refused(case, tmp_path, capsys):
    path = written(tmp_path / "q.geojson", feature("a", "Necrosis"))
    assert "did" not in imported(capsys, case, path, "--map", "Necrosis=neoplastc", code=2)
    assert "no class" in imported(capsys, case, path, "--map", "Tumor=neoplastic", code=2)
    assert "so nothing was imported" in imported(capsys, case, path, code=2)
    own = imported(capsys, case, path, "--map", "Necrosis=necrosis", "--own-class", "necrosis")
    assert own["classes"][0]["mapped_to"] == "necrosis"
    assert imported(capsys, case, path, "--add")["imported"] == 0  # known now, and there already


def test_a_foreign_class_in_a_case_does_not_train(case):
    case.annotations_path("he").parent.mkdir()
    written(case.annotations_path("he"), feature("a", "Tumor"), feature("b", "Stroma"))
    with pytest.raises(InputError, match=r"--map 'Stroma=non-neoplastic' --map 'Tumor=neoplastic'"):
        run_to_end(retrain([case], [case]))
    assert is_foreign("Region*")
    assert not is_foreign("necrosis")


def test_cells_are_no_tissue(case, tmp_path, capsys):
    old = feature("PathCellObject")
    del old["properties"]["objectType"]
    path = written(
        tmp_path / "q.geojson",
        feature("a"), feature("b", objectType="cell"), feature("c", objectType="detection"), old,
    )  # fmt: skip
    record = imported(capsys, case, path)
    assert record["imported"] == 1
    assert sum("no annotation of tissue" in line for line in record["warnings"]) == 2
    written(path, feature("b", objectType="tile"))
    assert "nothing changed" in imported(capsys, case, path, code=2)


# --- nothing lost --------------------------------------------------------------------------------
def test_an_import_beside_shapes_needs_replace_or_add(case, tmp_path, capsys):
    first = written(tmp_path / "1.geojson", feature("a"))
    second = written(tmp_path / "2.geojson", feature("b", "background"))
    imported(capsys, case, first, "--reader", "Anna")
    error = imported(capsys, case, second, "--reader", "Anna", code=2)
    assert "--replace" in error
    assert "--add" in error
    assert [shape.key for shape in case.annotations("he")] == ["a"]
    assert imported(capsys, case, second, "--reader", "Anna", "--add")["shapes"] == 2
    record = imported(capsys, case, second, "--reader", "Anna", "--replace")
    assert record["shapes"] == 1
    copy = json.loads(Path(record["copies"][0]).read_text())
    assert {item["id"] for item in copy["features"]} == {"a", "b"}
    error = imported(capsys, case, second, "--reader", "Anna", code=2)
    assert "--replace" in error, "the same shapes once more"
    assert imported(capsys, case, second, "--reader", "Anna", "--replace")["copies"]


@pytest.mark.parametrize(
    "features",
    [[], [feature("p", geometry={"type": "Point", "coordinates": [3, 4]})]],
)
def test_an_import_without_areas_changes_nothing(case, tmp_path, capsys, features):
    imported(capsys, case, written(tmp_path / "1.geojson", feature("a")))
    before = case.annotations_path("he").read_bytes()
    path = written(tmp_path / "2.geojson", *features)
    assert "holds no annotation" in imported(capsys, case, path, "--replace", code=2)
    assert case.annotations_path("he").read_bytes() == before


def test_window_and_command_line_have_one_truth(case, tmp_path, capsys):
    path = written(tmp_path / "1.geojson", feature("a"))
    with OpenAnnotations(case, "Anna") as window:
        window.document.add(rectangle_polygon((500, 500), (550, 550)), "background")
        window.save()
        assert "open in another" in imported(
            capsys, case, path, "--reader", "Anna", "--add", code=2
        )
    imported(capsys, case, path, "--reader", "Anna", "--add")
    with OpenAnnotations(case, "Anna") as window:
        assert len(window.document.shapes) == 2
        window.document.add(rectangle_polygon((700, 700), (750, 750)), "background")
    assert len(current_annotations(case)) == 3  # the window ended before it wrote the file
    assert call("annotate", "export", str(case.root), str(tmp_path / "out.geojson")) == 0
    assert len(json.loads((tmp_path / "out.geojson").read_text())["features"]) == 3


def test_a_file_that_another_program_changed_is_kept(case):
    with OpenAnnotations(case, "Anna") as window:
        window.document.add(rectangle_polygon((500, 500), (550, 550)), "background")
        window.save()
    written(case.annotations_path("he"), feature("z"))
    with OpenAnnotations(case, "Anna") as window:
        window.document.add(rectangle_polygon((700, 700), (750, 750)), "background")
        window.save()
        assert '"z"' in window.kept.read_text()


def test_of_two_saves_the_later_state_stays(case):
    """They are written on threads, whose order nobody knows."""
    with OpenAnnotations(case, "Anna") as window:
        window.document.add(rectangle_polygon((500, 500), (550, 550)), "background")
        earlier = window.state()
        window.document.add(rectangle_polygon((700, 700), (750, 750)), "background")
        later = window.state()
        with ThreadPoolExecutor(2) as pool:
            window._saving.acquire()  # both wait
            saves = [pool.submit(window.save, later), pool.submit(window.save, earlier)]
            assert not any(save.done() for save in saves)
            window._saving.release()
            assert [save.result() for save in saves] == [None, None]
        window.save(earlier)
        assert len(json.loads(case.annotations_path("he").read_text())["features"]) == 2


def test_finish_and_export_of_one_reader(case, tmp_path, capsys):
    imported(capsys, case, written(tmp_path / "1.geojson", feature("a")), "--reader", "李")
    imported(capsys, case, written(tmp_path / "2.geojson", feature("b")), "--reader", "王")
    assert len(case.annotations("he")) == 2
    assert call("annotate", "finish", str(case.root), "--reader", "李", "--json") == 0
    assert json.loads(capsys.readouterr().out)["classes"][0]["shapes"] == 1
    out = tmp_path / "out.geojson"
    assert call("annotate", "export", str(case.root), str(out), "--reader", "王") == 0
    (item,) = json.loads(out.read_text())["features"]
    assert item["properties"]["classification"] == {
        "name": "neoplastic", "color": [213, 94, 0]
    }  # fmt: skip
    assert item["properties"]["reader"] == "王"
    assert call("annotate", "export", str(case.root), str(out), "--reader", "Eve") == 2
    assert call("agreement", str(case.root), "--json") == 2
    assert "王 has not finished" in capsys.readouterr().err


# --- readers -------------------------------------------------------------------------------------
def test_names_that_differ_in_a_letter_have_different_folders(tmp_path):
    names = [
        "Dr. Müller",
        "Dr. Möller",
        "Åsa",
        "Äsa",
        "李",
        "王",
        "anna",
        "Anna",
        "con",
        "runs",
        "a.b",
    ]
    folders = [tmp_path / coded_name(check_reader_name(f" {name} ")) for name in names]
    assert [reader_of(folder) for folder in folders] == names
    assert all(folder.name.isascii() for folder in folders)
    assert len({folder.name.casefold() for folder in folders}) == len(names)
    assert coded_name(check_reader_name("Le\u0301o")) == coded_name("L\u00e9o")
    assert "con" not in {folder.name for folder in folders}


@pytest.mark.parametrize("name", ["", " ", "a\0b", "../a", "x" * 41, "..."])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(InputError, match="not a valid reader name"):
        check_reader_name(name)


def test_a_second_reader_starts_blind(case):
    with OpenAnnotations(case, "Dr. Müller") as one:
        one.document.add(rectangle_polygon((500, 500), (550, 550)), "background")
        one.save()
        with pytest.raises(CaseLocked, match="Müller"):
            OpenAnnotations(case, "Dr. Müller")
        with OpenAnnotations(case, "Dr. Möller") as two:
            assert two.document.shapes == ()
            two.document.add(rectangle_polygon((700, 700), (750, 750)), "background")
            two.save()
    assert set(reader_documents(case)) == {"Dr. Müller", "Dr. Möller"}
    assert len(case.annotations("he")) == 2


# --- files ---------------------------------------------------------------------------------------
BAD = [
    {"type": "Polygon", "coordinates": []},
    {"type": "Polygon", "coordinates": [[[50, 50], [80, 80], [60, 60], [50, 50]]]},
    {"type": "Polygon", "coordinates": [[[1, 1], [2, 2]]]},
    {"type": "Polygon", "coordinates": [[["a", 1], [2, 2], [3, 9]]]},
    {"type": "Polygon", "coordinates": [[[float("nan"), 1], [2, 2], [3, 9]]]},
    {"type": "Polygon", "coordinates": [[[float("inf"), 1], [2, 2], [3, 9]]]},
    {"type": "Ball", "coordinates": [1]},
    {"type": "LineString", "coordinates": [[1, 1], [9, 9]]},
    None,
]


@pytest.mark.parametrize("geometry", BAD)
def test_bad_outlines_among_good_ones_are_named_together(case, tmp_path, capsys, geometry):
    bad = [feature("bad1"), feature("bad2")]
    for item in bad:
        item["geometry"] = geometry
    record = imported(capsys, case, written(tmp_path / "a.geojson", feature("a"), *bad))
    assert record["imported"] == 1
    (line,) = record["warnings"]
    assert "bad1, bad2" in line


@pytest.mark.parametrize(
    ("geometry", "area_px"),
    [
        ({"type": "Polygon", "coordinates": [[[9, 9, 5], [49, 9, 5], [49, 49, 5]]]}, 800),
        ({"type": "MultiPolygon", "coordinates": [[ring(9, 9)], [ring(99, 9)]]}, 3200),
        ({"type": "Polygon", "coordinates": [ring(9, 9), ring(19, 19, 10)]}, 1500),
        ({"type": "Polygon", "coordinates": [[[0, 0], [40, 40], [40, 0], [0, 40], [0, 0]]]}, 800),
        ({"type": "GeometryCollection", "geometries": [
            {"type": "Point", "coordinates": [1, 1]},
            {"type": "Polygon", "coordinates": [ring(9, 9)]}]}, 1600),
        ({"type": "Polygon", "coordinates": [ring(-20, 9)]}, 800),
    ],
)  # fmt: skip
def test_unusual_outlines_are_read(case, tmp_path, capsys, geometry, area_px):
    path = written(tmp_path / "a.geojson", feature("a", geometry=geometry))
    imported(capsys, case, path)
    (shape,) = case.annotations("he")
    assert shape.geometry.area == pytest.approx(area_px * 0.25)


@pytest.mark.parametrize(
    ("rings", "area_px"),
    [
        ([ring(100, 100, 200), ring(150, 150, 50)], 37500),
        ([ring(100, 100, 200)[::-1], ring(150, 150, 50)], 37500),
        ([ring(100, 100, 200), ring(500, 500, 50)], 40000),  # a hole outside
        ([ring(100, 100, 200), ring(250, 150, 100)], 35000),  # half outside
        ([ring(100, 100, 200), ring(150, 150, 100), ring(160, 160, 20)], 30000),
    ],
)
@pytest.mark.parametrize("multi", [False, True])
def test_what_lies_in_a_hole_is_no_tissue(case, tmp_path, rings, area_px, multi):
    """Whatever a hole crosses; the second part of the same class lies elsewhere."""
    geometry = {"type": "Polygon", "coordinates": rings}
    if multi:
        geometry = {"type": "MultiPolygon", "coordinates": [rings, [ring(800, 800, 100)]]}
    (area,) = AnnotationImport(
        case, written(tmp_path / "q.geojson", feature("a", geometry=geometry))
    )._shapes
    assert area.geometry.area == pytest.approx((area_px + 10000 * multi) * 0.25)


SQUARE = {"type": "Polygon", "coordinates": [ring(100, 100, 200)]}  # 40000 pixels, 10000 µm²


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ({"Area µm^2": 10000.0}, ""),
        ({"Area px^2": 40000.0}, ""),
        ({"Length µm": 400.0}, ""),
        ({"Area µm^2": 40000.0}, "its coordinates are µm; export them in pixels"),
        ([{"name": "Area µm^2", "value": 40000.0}], "its coordinates are µm"),
        ({"Area px^2": 640000.0}, "a picture of another resolution"),
        ({"Geometry: Area µm^2": 640000.0}, "a picture of another resolution"),
        ({"Area µm^2": 8464.0}, "check the pixel size of the slide here"),
    ],
)
def test_areas_that_the_file_states_are_those_of_its_outlines(
    case, tmp_path, capsys, measured, said
):
    path = written(tmp_path / "q.geojson", feature("a", geometry=SQUARE, measurements=measured))
    refused = bool(said) and "pixel size" not in said
    record = imported(capsys, case, path, code=2 if refused else 0)
    found = record if refused else " ".join(record["warnings"])
    assert said in found
    assert bool(found) == bool(said)


def test_shares_of_the_slide_are_no_pixels(case, tmp_path, capsys):
    geometry = {"type": "Polygon", "coordinates": [ring(0.1, 0.1, 0.2)]}
    path = written(tmp_path / "q.geojson", feature("a", geometry=geometry))
    assert "fractions of the image size; export pixels" in imported(capsys, case, path, code=2)


@pytest.mark.parametrize(
    ("order", "hidden"), [(("small", "large"), True), (("large", "small"), False)]
)
def test_a_shape_that_a_later_larger_one_covers_is_named(case, tmp_path, capsys, order, hidden):
    """Later shapes count; of one class they may lie on each other."""
    squares = {"small": ("Stroma", ring(200, 200, 50)), "large": ("Tumor", ring(100, 100, 400))}
    features = [
        feature(key, squares[key][0], {"type": "Polygon", "coordinates": [squares[key][1]]})
        for key in order
    ]
    record = imported(capsys, case, written(tmp_path / "q.geojson", *features))
    assert any("counts: small; put the larger" in text for text in record["warnings"]) == hidden
    record = imported(
        capsys, case, tmp_path / "q.geojson", "--replace", "--map", "Stroma=neoplastic"
    )
    assert not any("counts:" in text for text in record["warnings"])


def test_nothing_among_features_is_left_out(case, tmp_path, capsys):
    path = written(tmp_path / "q.geojson", None, feature("a"), None)
    assert imported(capsys, case, path)["imported"] == 1


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"II*\0" + bytes(99), "a picture; turn a label image into annotations in QuPath"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "a picture; turn a label image"),
        (b"\xac\xed\0\5sr" + bytes(99), "a data file of QuPath; open the slide"),
        (b'{"type": "FeatureCollection", "features": [{"ty', "not readable .*; export it again"),
    ],
)
def test_binary_and_torn_files_are_named(case, tmp_path, capsys, content, what):
    path = tmp_path / "q.geojson"
    path.write_bytes(content)
    assert re.search(what, imported(capsys, case, path, code=2))


def test_far_outside_the_slide(case, tmp_path, capsys):
    far = feature("far", geometry={"type": "Polygon", "coordinates": [ring(41000, 22000)]})
    error = imported(capsys, case, written(tmp_path / "a.geojson", far), code=2)
    assert "x = 41000, y = 22000" in error
    assert "µm" in error
    record = imported(
        capsys, case, written(tmp_path / "a.geojson", far, feature("a"), feature("b"))
    )
    assert record["imported"] == 2
    assert "far" in record["warnings"][0]


@pytest.mark.parametrize(
    ("label", "wanted"),
    [(["Tumor", "Positive"], "neoplastic"), (5, ""), (True, ""), ({"names": ["Tumor"]},
     "neoplastic"), ({}, ""), ([1], ""), ({"name": None}, "")],
)  # fmt: skip
def test_classifications_of_any_kind(case, tmp_path, capsys, label, wanted):
    odd = feature("odd", None, classification=label)
    record = imported(
        capsys, case, written(tmp_path / "a.geojson", feature("a", "background"), odd)
    )
    assert {row["mapped_to"] for row in record["classes"]} == {"background", wanted}


@pytest.mark.parametrize(
    "pack",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("latin-1"),
        lambda text: gzip.compress(text.encode()),
        lambda text: "\n".join(map(json.dumps, json.loads(text)["features"])).encode(),
        lambda text: json.dumps(json.loads(text)["features"]).encode(),
        lambda text: json.dumps(json.loads(text)["features"][0]).encode(),
    ],
)
def test_encodings_and_packings(case, tmp_path, capsys, pack):
    path = written(tmp_path / "a.geojson", feature("a", "Übergang"))
    text = json.dumps(json.loads(path.read_text()), ensure_ascii=False)
    path.write_bytes(pack(text))
    assert imported(capsys, case, path, "--map", "Übergang=background")["imported"] == 1


def test_zip(case, tmp_path, capsys):
    plain = written(tmp_path / "a.geojson", feature("a"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.write(plain, "he.geojson")
    assert imported(capsys, case, tmp_path / "a.zip")["imported"] == 1
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.write(plain, "he.geojson")
        packed.write(plain, "cd34.geojson")
    assert "must hold one" in imported(capsys, case, tmp_path / "a.zip", code=2)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("package.json", '{"format": 1}')
        packed.writestr("slide.png", b"")
    assert "a.zip holds no GeoJSON file" in imported(capsys, case, tmp_path / "a.zip", code=2)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('<?xml version="1.0"?><Annotations MicronsPerPixel="0.25"/>', "ImageScope"),
        ("<ASAP_Annotations><Annotations/></ASAP_Annotations>", "ASAP"),
        ('{"shapes": [], "imagePath": "a.png"}', "LabelMe"),
        ('{"images": [], "annotations": [], "categories": []}', "COCO"),
        ("POLYGON ((0 0, 1 0, 1 1, 0 0))", "WKT"),
        ("version https://git-lfs.github.com/spec/v1", "Git LFS"),
        ("index,shape-type,vertex-index,axis-0,axis-1", "napari"),
        ("", "empty"),
    ],
)
def test_other_formats_are_named(case, tmp_path, capsys, text, what):
    (tmp_path / "a.geojson").write_text(text)
    assert what in imported(capsys, case, tmp_path / "a.geojson", code=2)


# --- field reports -------------------------------------------------------------------------------
@pytest.fixture
def field_case(field_inputs, tmp_path):
    root = tmp_path / "F"
    root.mkdir()
    slide = SlideEntry(
        path=str(field_inputs / "annotated_slide.tif"), spacing_um=(0.5, 0.5), spacing_source="user"
    )
    return Case(create_case(root, CaseFile(name="F", slides={"he": slide})).root)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "options", "code", "told"),
    [
        ("H29_qupath_cells.geojson", (), 2, "no annotation of tissue"),
        ("H30_only_points.geojson", (), 2, "has no area"),
        ("H32_empty_polygon.geojson", (), 0, "bbbb"),
        ("H33_sliver_without_area.geojson", (), 0, "dddd"),
        ("H34_far_outside_the_slide.geojson", (), 2, "outside"),
        ("H35_classification_is_a_list.geojson", (), 0, ""),
        ("H36_qupath_compressed.geojson.zip", (), 0, ""),
        ("H37_latin1_class.geojson", ("--map", "Nekrose/Übergang=background"), 0, ""),
    ],
)
def test_inputs_of_the_field_reports(field_case, field_inputs, capsys, name, options, code, told):
    found = imported(capsys, field_case, field_inputs / name, *options, code=code)
    if code == 0:
        assert found["imported"] > 0
        assert {s.label for s in field_case.annotations("he")} <= set(BUILT_IN)
        found = " ".join(found["warnings"])
    assert told in found


@pytest.mark.realdata
def test_the_classes_of_qupath_are_mapped(case, field_inputs, capsys):
    record = imported(capsys, case, field_inputs / "H28_qupath_tumor_stroma.geojson")
    assert {row["name"]: row["mapped_to"] for row in record["classes"]} == {
        "Tumor": "neoplastic",
        "Stroma": "non-neoplastic",
    }


def test_the_readers_who_train_are_chosen_by_name(case, monkeypatch):
    for name, label in (("Anna", "neoplastic"), ("Ben", "non-neoplastic"), ("Eve", "neoplastic")):
        with OpenAnnotations(case, name) as opened:
            opened.document.add(rectangle_polygon((10.0, 10.0), (50.0, 50.0)), label)
            opened.document.add(rectangle_polygon((60.0, 60.0), (90.0, 90.0)), "background")
            opened.save()
    seen = []

    def learned(task, params):
        seen.append(task)
        raise InputError("far enough")
        yield

    monkeypatch.setattr(classifier, "case_status", lambda _: FINISHED)
    monkeypatch.setitem(classifier._METHODS, "fast", learned)
    for readers in ((), ("Ben",), ("Eve", "Anna")):
        with pytest.raises(InputError, match="far enough"):
            run_to_end(retrain([case], [case], readers=readers))
    everybody, ben, both = seen
    assert everybody.readers == ("Anna", "Ben", "Eve")
    assert ben.readers == ("Ben",)
    assert {shape.label for shape in ben.annotated[0][1]} == {"non-neoplastic", "background"}
    assert ben.record()["readers"] == ["Ben"]
    assert list(ben.record()["journal"]["B1"]) == ["Ben"]
    assert both.readers == ("Anna", "Eve")
    assert len({task.fingerprint for task in seen}) == 3
    with pytest.raises(InputError, match=r"reader Zoe has no annotations.*are: Anna, Ben, Eve"):
        run_to_end(retrain([case], [case], readers=["Anna", "Zoe"]))
