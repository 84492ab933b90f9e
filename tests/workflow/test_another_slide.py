"""A file that states another slide, by identity or size, is asked about before it is imported."""

import json
import zipfile
from types import SimpleNamespace

import pytest

from napari_mosaik.core import Lattice
from napari_mosaik.workflow.annotation_import import another_slide

SLIDE = SimpleNamespace(lattice=Lattice("he", (3000, 2000), (0.5, 0.5)), digest=lambda: "abc")


def packed(folder, **records):
    path = folder / "he.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("he.geojson", "{}")
        for name, record in records.items():
            archive.writestr(name.replace("_", "."), record)
    return path


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"digest": "abc"}, ""),
        ({"digest": "xyz"}, "another slide"),
        ({"slide": "xyz"}, "another slide"),
        ({"slide": {"digest": "xyz"}}, "another slide"),
        ({"format": 1}, ""),
        ([1], ""),
    ],
)
def test_the_identity_in_a_package_is_compared(tmp_path, record, said):
    found = another_slide(packed(tmp_path, package_json=json.dumps(record)), SLIDE)
    assert (said in found) if said else not found


def project(*images):
    return json.dumps({
        "images": [
            {"imageName": name, "serverBuilder": {"metadata": {"width": w, "height": h}}}
            for name, w, h in images
        ]
    })  # fmt: skip


def test_the_size_in_a_project_of_qupath_is_compared(tmp_path):
    right = packed(tmp_path, project_qpproj=project(("he.ndpi", 2000, 3000)))
    assert not another_slide(right, SLIDE)
    wrong = packed(tmp_path, project_qpproj=project(("he.ndpi", 3000, 2000)))
    assert "'he' of 3000 x 2000 pixels; this slide has 2000 x 3000" in another_slide(wrong, SLIDE)
    several = project(("B12.ndpi", 9, 9), ("he.ndpi", 2000, 3000))
    assert not another_slide(packed(tmp_path, project_qpproj=several), SLIDE)
    (tmp_path / "project.qpproj").write_text(project(("he.ndpi", 5, 5)))
    plain = tmp_path / "export" / "he.geojson"
    plain.parent.mkdir()
    plain.write_text("{}")
    assert "of 5 x 5 pixels" in another_slide(plain, SLIDE)


@pytest.mark.parametrize("text", ["", "{", '{"images": [1, {}, {"imageName": 3}]}', "[]"])
def test_a_damaged_record_says_nothing(tmp_path, text):
    assert not another_slide(packed(tmp_path, project_qpproj=text, package_json=text), SLIDE)
