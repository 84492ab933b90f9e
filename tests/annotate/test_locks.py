"""A locked annotation, or a locked class, is changed by nothing; both survive a restart."""

import json

import pytest
import shapely

from napari_mosaik.annotate import AnnotationDocument, open_document
from napari_mosaik.core import InputError, Lattice
from napari_mosaik.core.journal import JournalPart, annotation_part, journal_of
from napari_mosaik.io.annotations import read_geojson, write_geojson


def box(x, y, size=100.0):
    return shapely.box(x, y, x + size, y + size)


@pytest.fixture
def document():
    return AnnotationDocument(overlap="new wins")


def test_no_change_reaches_a_locked_shape(document):
    key = document.add(box(0, 0), "neoplastic")
    other = document.add(box(300, 0), "neoplastic")
    document.lock([key], True)
    assert document.undo_title == "lock"
    before = document.shape(key)
    for act in (
        lambda: document.remove(key),
        lambda: document.remove(other, key),
        lambda: document.change_class([key], "background"),
        lambda: document.replace(key, box(5, 5)),
        lambda: document.paint(box(90, 0), "neoplastic", into=key),
        lambda: document.erase(box(50, 50)),
        lambda: document.reshape([document.shape(other)], [key], "merge"),
    ):
        with pytest.raises(InputError, match="annotation is locked; unlock it"):
            act()
        assert document.shape(key) is before
        assert len(document.shapes) == 2
    document.lock([key], False)
    assert not document.shape(key).properties
    document.remove(key)


def test_a_new_shape_is_cut_by_a_locked_one_and_cuts_the_others(document):
    locked = document.add(box(0, 0), "neoplastic")
    free = document.add(box(0, 200), "neoplastic")
    document.lock([locked], True)
    new = document.add(shapely.box(50, 0, 150, 300), "non-neoplastic")
    assert document.shape(locked).geometry.area == 100 * 100
    assert document.shape(new).geometry.area == 100 * 300 - 50 * 100
    assert document.shape(free).geometry.area == 50 * 100
    assert document.spared == 1
    document.add(box(500, 0), "neoplastic")
    assert document.spared == 0
    with pytest.raises(InputError, match="entirely within locked shapes"):
        document.add(box(10, 10, 20), "background")


def test_the_eraser_spares_what_is_locked(document):
    locked, free = document.add(box(0, 0), "neoplastic"), document.add(box(100, 0), "neoplastic")
    document.lock([locked], True)
    document.erase(shapely.box(50, 0, 150, 100))
    assert document.spared == 1
    assert [document.shape(key).geometry.area for key in (locked, free)] == [10000, 5000]


def test_a_locked_class_takes_nothing_and_gives_nothing(document):
    key = document.add(box(0, 0), "neoplastic")
    other = document.add(box(300, 0), "background")
    document.lock_class("neoplastic", True)
    for act in (
        lambda: document.add(box(500, 0), "neoplastic"),
        lambda: document.change_class([other], "neoplastic"),
        lambda: document.remove(key),
        lambda: document.erase(box(0, 0)),
    ):
        with pytest.raises(InputError, match="class 'neoplastic' is locked"):
            act()
    document.undo()
    document.remove(key)


def test_locks_survive_the_journal_undo_and_files(tmp_path):
    with JournalPart(tmp_path, "anna", annotation_part("he")) as journal:
        document = AnnotationDocument.open(journal)
        key = document.add(box(0, 0), "neoplastic")
        document.lock([key], True)
        document.lock_class("background", True)
    again = open_document(journal_of(tmp_path, "anna"))
    assert again.lock_reason(again.shape(key))
    assert [known.locked for known in again.snapshot.classes] == [False, False, True]
    again.undo()
    assert not any(known.locked for known in again.snapshot.classes)

    lattice, path = Lattice("he", (1000, 1000), (0.5, 0.5)), tmp_path / "out.geojson"
    write_geojson(path, again.shapes, lattice)
    (feature,) = json.loads(path.read_text())["features"]
    assert feature["properties"]["isLocked"] is True  # where QuPath looks for it
    other = AnnotationDocument()
    other.add_many(read_geojson(path, lattice))
    with pytest.raises(InputError, match="locked"):
        other.remove(key)
