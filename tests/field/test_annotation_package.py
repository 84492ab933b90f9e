"""Annotation packages: what they hold, what stays behind, and what is refused."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import uuid
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_mosaik.annotate import TissueClass, rectangle_polygon
from napari_mosaik.cli import main
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.io.case import create_case
from napari_mosaik.io.case_file import CaseFile, SlideEntry
from napari_mosaik.workflow.annotations import OpenAnnotations, reader_documents


def made(folder, name="B1", seed=0, names=("he.tif",)):
    root = folder / name
    root.mkdir()
    pixels = np.random.default_rng(seed).integers(0, 255, (1000, 1000, 3), dtype=np.uint8)
    tifffile.imwrite(root / names[0], pixels, tile=(256, 256), photometric="rgb")
    slide = SlideEntry(path=names[0], spacing_um=(0.5, 0.5), spacing_source="user")
    return create_case(root, CaseFile(name=name, patient="Patient Petra", slides={"he": slide}))


@pytest.fixture
def case(tmp_path):
    return made(tmp_path, "SECRETCASE", names=("SECRETSLIDE.tif",))


@pytest.fixture
def packed(case, tmp_path):
    """A package of three shapes of Dr. Müller."""
    with OpenAnnotations(case, "Dr. Müller") as opened:
        document = opened.document
        document.set_classes((*document.classes, TissueClass("necrosis", "#112233")))
        document.add(rectangle_polygon((100, 100), (200, 200)), "necrosis")
        free = {"description": "SECRETTEXT", "name": "SECRETNAME", "reader": "Dr. Müller"}
        area = rectangle_polygon((300, 300), (400, 400))
        document.add_many([AnnotatedShape("SECRETKEY", "neoplastic", area, "", free)])
        opened.save()
    path = tmp_path / "out.zip"
    assert call("annotate", "package", case.root, path, "--reader", "Dr. Müller") == 0
    return path


def call(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


def files(path):
    with zipfile.ZipFile(path) as packed:
        return {item.filename: packed.read(item) for item in packed.infolist()}


def repacked(path, **changed):
    content = {**files(path), **{key.replace("_", "."): value for key, value in changed.items()}}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in content.items():
            if data is not None:
                packed.writestr(name, data)
    return path


def merged(capsys, case, path, *options, code=0):
    capsys.readouterr()
    assert call("annotate", "merge", case.root, path, *options, "--json") == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return json.loads(out) if code == 0 else err


def areas(case, reader):
    return sorted((s.label, s.geometry.area) for s in reader_documents(case)[reader].shapes)


def test_a_package_holds_shapes_classes_and_a_picture_and_no_name(case, packed):
    held = files(packed)
    assert sorted(held) == ["annotations.geojson", "package.json", "slide.png"]
    about = json.loads(held["package.json"])
    assert about["format"] == 1
    assert "necrosis" in [known["name"] for known in about["classes"]]
    features = json.loads(held["annotations.geojson"])["features"]
    assert all(uuid.UUID(feature["id"]) for feature in features)
    assert Image.open(io.BytesIO(held["slide.png"])).size == (1000, 1000)
    everything = packed.read_bytes() + b"".join(held.values())
    for word in ("SECRET", "Müller", "M\\u00fcller", "Petra", str(case.root.parent)):
        assert word.encode() not in everything


def test_an_edited_package_is_given_to_a_reader_and_comes_back(case, packed, capsys):
    collection = json.loads(files(packed)["annotations.geojson"])
    _, second = collection["features"]
    second["geometry"]["coordinates"] = [[[10, 10], [30, 10], [30, 30], [10, 30], [10, 10]]]
    new = {"type": "Polygon", "coordinates": [[[500, 500], [600, 500], [600, 600], [500, 500]]]}
    properties = {"classification": {"name": "Tumor"}, "description": "mine"}
    collection["features"].append({"type": "Feature", "geometry": new, "properties": properties})
    repacked(packed, annotations_geojson=json.dumps(collection, indent=4).encode())
    record = merged(capsys, case, packed, "--reader", "Ben")
    assert record["imported"] == 3
    assert areas(case, "Ben") == [
        ("necrosis", 10_000.0), ("neoplastic", 100.0), ("neoplastic", 1250.0)
    ]  # fmt: skip
    assert areas(case, "Dr. Müller") == [("necrosis", 10_000.0), ("neoplastic", 10_000.0)]
    assert merged(capsys, case, packed, "--reader", "Ben")["imported"] == 0
    # back to the one who sent it: what has a known identifier takes its place
    assert merged(capsys, case, packed, "--reader", "Dr. Müller")["shapes"] == 4
    with OpenAnnotations(case, "Ben") as opened:
        assert opened.document.undo()
        assert len(opened.document) == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda about: about | {"format": 2}, "newer version"),
        (lambda about: about | {"slide": "0" * 32}, "another slide"),
        (lambda about: about | {"stain": "cd34"}, "no such slide"),
        (lambda about: about | {"format": "x"}, "states no format"),
        (lambda about: about | {"format": True}, "states no format"),
        (lambda about: [about], "states no format"),
        (lambda _: None, "holds no package.json"),
    ],
)
def test_what_does_not_fit_is_refused(case, packed, capsys, change, told):
    about = change(json.loads(files(packed)["package.json"]))
    repacked(packed, package_json=None if about is None else json.dumps(about).encode())
    assert told in merged(capsys, case, packed, "--reader", "Ben", code=2)
    assert "Ben" not in reader_documents(case)


def test_a_package_of_another_case_is_refused(packed, tmp_path, capsys):
    other = made(tmp_path, "other", seed=1)
    assert "another slide" in merged(capsys, other, packed, "--reader", "Ben", code=2)


def zipped(path, **entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in entries.items():
            packed.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("../../evil.geojson", b"{}", "leads out of it"),
        ("/etc/evil.geojson", b"{}", "leads out of it"),
        ("..\\evil.geojson", b"{}", "leads out of it"),
        ("C:/evil.geojson", b"{}", "leads out of it"),
        ("package.json", b"{", "damaged"),
        ("package.json", b" " * (2 << 20), "would unpack to 2 MB"),
        ("second.geojson", b'{"type": "FeatureCollection", "features": []}', "must hold one"),
    ],
)
def test_hostile_zips_are_refused(case, packed, capsys, tmp_path, name, data, told):
    zipped(packed, **{**files(packed), name: data})
    before = {path for path in tmp_path.rglob("*") if "journal" not in str(path)}
    assert told in merged(capsys, case, packed, "--reader", "Ben", code=2)
    assert before >= {p for p in tmp_path.rglob("*.geojson") if "journal" not in str(p)}


def test_a_zip_bomb_is_refused_before_it_is_unpacked(case, packed, capsys):
    repacked(packed, annotations_geojson=b" " * (64 << 20))
    assert "would unpack to 64 MB" in merged(capsys, case, packed, "--reader", "Ben", code=2)


@pytest.mark.parametrize("cut", [10, 200, 2000])
def test_a_damaged_package_is_refused(case, packed, capsys, cut):
    content = bytearray(packed.read_bytes())
    content[cut] ^= 0x55
    packed.write_bytes(content[: len(content) - cut * (cut == 10)])
    capsys.readouterr()
    assert call("annotate", "merge", case.root, packed, "--reader", "Ben") in (0, 2)
    assert "Traceback" not in capsys.readouterr().err
    packed.write_bytes(b"no zip")
    assert "not a readable zip" in merged(capsys, case, packed, "--reader", "Ben", code=2)


def test_the_file_of_the_slide_is_found_in_an_export_of_a_project(case, packed, tmp_path, capsys):
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "project.qpproj").write_text("{}")
    words = ["annotate", "import", case.root, folder, "--reader", "Ben", "--json"]
    assert call(*words) == 2
    assert "QuPath alone reads" in capsys.readouterr().err
    content = files(packed)["annotations.geojson"]
    (folder / "SECRETSLIDE.geojson.gz").write_bytes(gzip.compress(content))
    (folder / "other.geojson").write_bytes(b"{}")
    assert call(*words) == 0
    assert json.loads(capsys.readouterr().out)["imported"] == 1  # necrosis is not a class of ours
    (folder / "SECRETSLIDE.geojson").write_bytes(content)
    assert call(*words) == 2
    assert "must hold one GeoJSON file named like the slide" in capsys.readouterr().err


def test_a_file_that_states_another_slide_is_not_imported(case, packed, tmp_path, capsys):
    """A package, and a file in a project of QuPath; alone, nothing says what it belongs to."""
    other = made(tmp_path, "B2", seed=1)
    necrosis = ("--map", "necrosis=background", "--json")

    def imported(path, where, code):
        capsys.readouterr()
        words = ["annotate", "import", where.root, path, "--reader", "Ben", *necrosis]
        assert call(*words) == code
        return capsys.readouterr().err

    told = imported(packed, other, 2)
    assert "made for another slide" in told
    assert "nothing was imported" in told
    assert not reader_documents(other)
    imported(packed, case, 0)
    folder = tmp_path / "project" / "export"
    folder.mkdir(parents=True)
    (folder / "a.geojson").write_bytes(files(packed)["annotations.geojson"])
    size = {"serverBuilder": {"metadata": {"width": 1000, "height": 2000}}}
    project = json.dumps({"images": [{"imageName": "a.svs", **size}]})
    (folder.parent / "project.qpproj").write_text(project)
    told = imported(folder / "a.geojson", other, 2)
    assert "of 1000 x 2000 pixels; this slide has 1000 x 1000" in told
    alone = tmp_path / "alone" / "export" / "a.geojson"
    alone.parent.mkdir(parents=True)
    alone.write_bytes(files(packed)["annotations.geojson"])
    imported(alone, other, 0)


_KILLED = """
import os, signal, sys
from napari_mosaik.core import journal
from napari_mosaik.workflow import annotations
from napari_mosaik.cli import main

place = sys.argv.pop(1)

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if place == "in the middle of the line":
    def write(self, event, part, of=None):
        line = journal.journal_line(self.scan.free_n, "2026", part, event, of)
        os.write(self._file.fileno(), line[: len(line) // 2])
        kill()
    journal.ReaderJournal._write = write
else:
    annotations._write = kill
main(sys.argv[1:])
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
@pytest.mark.parametrize(
    ("place", "there"), [("in the middle of the line", 0), ("after the journal", 2)]
)
def test_a_merge_that_is_killed_is_whole_or_absent_and_is_repeated(case, packed, place, there):
    words = ["annotate", "merge", str(case.root), str(packed), "--reader", "Ben"]
    with OpenAnnotations(case, "Ben"):  # the journal is there; nothing is drawn
        pass
    ended = subprocess.run([sys.executable, "-c", _KILLED, place, *words], capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    own = reader_documents(case).get("Ben")
    assert (0 if own is None else len(own.shapes)) == there
    assert call(*words) == 0
    assert len(reader_documents(case)["Ben"].shapes) == 2
    assert len(reader_documents(case)["Dr. Müller"].shapes) == 2
    readers = [shape.properties["reader"] for shape in case.annotations("he")]
    assert sorted(readers) == ["Ben", "Ben", "Dr. Müller", "Dr. Müller"]


def test_a_file_that_states_another_slide_corrects_nothing(packed, tmp_path, capsys):
    other = made(tmp_path, "B2", seed=1)
    words = ("correct", other.root, packed, "--what", "tissue_he", "--kind", "remove")
    assert call(*words, "--reader", "Ben") == 2
    told = capsys.readouterr().err
    assert "made for another slide" in told
    assert "nothing was corrected" in told
    assert not (other.root / "readers").exists()
