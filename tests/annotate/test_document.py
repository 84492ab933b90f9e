"""The annotation document: edits, undo, journal, replay."""

import contextlib
import math
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mosaik.annotate import (
    AnnotationDocument,
    TissueClass,
    compaction,
    open_document,
    stroke_polygon,
)
from napari_mosaik.annotate.state import edit_from
from napari_mosaik.core import InputError
from napari_mosaik.core.journal import JournalPart, annotation_part, journal_of
from napari_mosaik.core.shapes import AnnotatedShape


class Memory:
    """A journal in memory that can be made to fail."""

    def __init__(self):
        self.events = []
        self.full = False

    def append(self, event):
        if self.full:
            raise InputError("disk full")
        self.events.append(event)


def facts(document):
    """Everything that an exact copy must share."""
    snapshot = document.snapshot
    return (
        snapshot.classes,
        [(s.key, s.label, s.colour, shapely.to_wkb(s.geometry)) for s in snapshot.shapes],
        document.count_by_class(),
        document.area_by_class_um2(),
        document.undo_title,
        document.redo_title,
    )


def box(x, y, size=10.0):
    return shapely.box(x, y, x + size, y + size)


def test_areas_and_counts():
    document = AnnotationDocument()
    document.add(box(0, 0), "neoplastic")
    document.add(box(20, 0, 5), "neoplastic")
    document.add(box(40, 0, 2), "background")
    assert document.area_by_class_um2() == {
        "neoplastic": 125.0,
        "non-neoplastic": 0.0,
        "background": 4.0,
    }
    assert document.count_by_class() == {
        "neoplastic": 2,
        "non-neoplastic": 0,
        "background": 1,
    }


def test_every_kind_of_edit_is_undone_and_redone_exactly():
    document = AnnotationDocument()
    states = [facts(document)[:3]]
    first = document.add(box(0, 0), "neoplastic")
    second = document.add(box(5, 5), "non-neoplastic")
    document.add_many([AnnotatedShape("x1", "vein", box(50, 50), "#112233")])
    steps = [
        lambda: document.change_class([first], "background"),
        lambda: document.replace(second, box(6, 6, 20)),
        lambda: document.paint(box(9, 0), "background", into=first),
        lambda: document.erase(box(0, 0, 8)),
        lambda: document.remove(second),
        lambda: document.set_classes((*document.classes, TissueClass("fat", "#fff000"))),
    ]
    for step in steps:
        states.append(facts(document)[:3])
        step()
    states.append(facts(document)[:3])
    while document.undo():
        pass
    assert facts(document)[:3] == states[0]
    assert document.undo_title == ""
    while document.redo():
        pass
    assert facts(document)[:3] == states[-1]
    for state in states[-2:0:-1]:
        document.undo()
        assert facts(document)[:3] == state


def test_a_new_edit_drops_what_could_be_redone():
    document = AnnotationDocument()
    document.add(box(0, 0), "neoplastic")
    document.undo()
    assert document.redo_title == "add"
    document.add(box(9, 9), "neoplastic")
    assert not document.redo()


def test_journal_first_then_screen():
    journal = Memory()
    document = AnnotationDocument(journal=journal)
    seen = []
    document.changed.connect(lambda keys: seen.append((keys, len(journal.events))))
    key = document.add(box(0, 0), "neoplastic")
    assert seen == [((key,), 1)]
    journal.full = True
    before = facts(document)
    with pytest.raises(InputError, match="disk full"):
        document.remove(key)
    with pytest.raises(InputError, match="disk full"):
        document.undo()
    assert facts(document) == before
    assert len(seen) == 1


@contextlib.contextmanager
def opened(root, name="he", **options):
    with JournalPart(root, "Anna", annotation_part(name)) as part:
        yield AnnotationDocument.open(part, name, **options)


def test_reopened_from_disk_with_its_history(tmp_path):
    with opened(tmp_path) as document, opened(tmp_path, "caix") as other:
        key = document.add(stroke_polygon([[0, 0], [33.3, 10.1]], 7.7), "neoplastic")
        document.paint(box(5, 5), "neoplastic", into=key)
        document.add(box(0.1, 0.2), "background")
        other.add(box(1, 1), "background")
        document.undo()
        expected = facts(document)
    with opened(tmp_path) as again:
        assert facts(again) == expected
        assert again.redo()
        expected = facts(again)
    assert facts(open_document(journal_of(tmp_path, "Anna")))[:4] == expected[:4]
    assert len(open_document(journal_of(tmp_path, "Anna"), "caix")) == 1


def test_properties_of_every_kind_survive_the_journal(tmp_path):
    properties = {"nan": float("nan"), "long": 2**90, "text": "µ\u2028", "list": [1, {"a": None}]}
    with opened(tmp_path) as document:
        document.add_many([AnnotatedShape("a", "Ball", box(0, 0), "#112233", properties)])
        document.compact()
    for compacted in (True, False):
        copy = AnnotationDocument()
        copy._load(journal_of(tmp_path, "Anna"), compacted=compacted)
        (shape,) = copy.shapes
        assert (shape.key, shape.label, shape.colour) == ("a", "Ball", "#112233")
        assert math.isnan(shape.properties["nan"])
        assert {**shape.properties, "nan": 0} == {**properties, "nan": 0}
        assert copy.classes[-1].name == "Ball"


# --- the compacted state --------------------------------------------------------------------------
def test_a_compacted_document_opens_without_its_history_and_still_unwinds(tmp_path, monkeypatch):
    with opened(tmp_path) as document:
        first = document.add(box(0, 0), "neoplastic")
        document.change_class([first], "background")
        document.compact()
        document.add(box(20, 0), "neoplastic")
        expected = facts(document)
    read = []
    monkeypatch.setattr(
        "napari_mosaik.annotate.document.edit_from",
        lambda event: read.append(event["n"]) or edit_from(event),
    )
    with opened(tmp_path) as document:
        assert facts(document) == expected
        assert read == [3]
        seen = []
        document.changed.connect(seen.append)
        assert [document.undo() for _ in range(4)] == [True, True, True, False]
        assert len(document) == 0
        assert set(seen[1]) == {first}
        assert [document.redo() for _ in range(4)] == [True, True, True, False]
        assert facts(document) == expected
        document.compact()
        assert document.undo()
        expected = facts(document)
    assert facts(open_document(journal_of(tmp_path, "Anna")))[:4] == expected[:4]


def test_the_compacted_state_is_geoparquet(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    with opened(tmp_path) as document:
        document.add(box(0, 0).difference(box(2, 2, 3)), "neoplastic")
        document.add(box(20, 0), "background")
        document.compact()
        path = journal_of(tmp_path, "Anna").path.with_name("annotation-he.parquet")
        table = geopandas.read_parquet(path)
    assert list(table["label"]) == ["neoplastic", "background"]
    assert list(table.geometry.area) == [91.0, 100.0]


def flipped(path):
    """One bit of the geometry is changed."""
    content = bytearray(path.read_bytes())
    content[content.index(b"\x28\xb5\x2f\xfd") + 20] ^= 1  # in the first block of zstd
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path, _: path.write_bytes(b"PAR1 damaged PAR1"),
        lambda path, _: path.unlink(),
        lambda path, _: flipped(path),
        lambda _, patch: patch.setattr(compaction, "FORMAT", 9),
    ],
)
def test_a_compacted_state_that_does_not_stand_for_the_journal_is_not_used(
    tmp_path, spoil, monkeypatch
):
    with opened(tmp_path) as document:
        document.add(box(0, 0), "neoplastic")
        document.add(box(20, 0), "neoplastic")
        document.compact()
        expected = facts(document)
    scan = journal_of(tmp_path, "Anna")
    assert compaction.read_compacted(scan, "he").n == 2
    spoil(scan.path.with_name("annotation-he.parquet"), monkeypatch)
    assert compaction.read_compacted(scan, "he") is None
    assert facts(open_document(scan))[:4] == expected[:4]


def test_a_damaged_beginning_of_the_journal_is_not_covered_up(tmp_path):
    with opened(tmp_path) as document:
        document.add(box(0, 0), "neoplastic")
        document.add(box(20, 0), "neoplastic")
        document.compact()
    path = journal_of(tmp_path, "Anna").path
    path.write_bytes(path.read_bytes().replace(b"neoplastic", b"neoplastik", 1))
    assert len(open_document(journal_of(tmp_path, "Anna"))) == 1


def test_a_kill_while_the_state_is_compacted_hurts_nothing(tmp_path, monkeypatch):
    def killed(_):
        raise KeyboardInterrupt

    with opened(tmp_path) as document:
        document.add(box(0, 0), "neoplastic")
        document.compact()
        document.add(box(20, 0), "neoplastic")
        expected = facts(document)
        monkeypatch.setattr(compaction, "flush_to_disk", killed)
        with pytest.raises(KeyboardInterrupt):
            document.compact()
    assert facts(open_document(journal_of(tmp_path, "Anna")))[:4] == expected[:4]
    assert not list(tmp_path.glob("readers/*/*.part"))


def test_an_edit_that_was_refused_appears_when_it_is_written_after_all(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    with opened(tmp_path) as document:
        with monkeypatch.context() as context:
            context.setattr(os, "fsync", full)
            with pytest.raises(InputError, match="No space left"):
                document.add(box(0, 0), "neoplastic")
        assert len(document) == 0
        assert document._part.journal.retry() == 1
        assert document.count_by_class()["neoplastic"] == 1
        assert document.undo()
        assert len(document) == 0


actions = st.lists(
    st.tuples(
        st.sampled_from(["add", "paint", "erase", "class", "undo", "redo", "remove"]),
        st.integers(0, 40),
        st.integers(0, 40),
    ),
    max_size=25,
)


@given(actions)
@settings(max_examples=25, deadline=None)
def test_any_history_is_replayed_and_unwound(history):
    with tempfile.TemporaryDirectory() as folder:
        check_history(Path(folder), history)


def check_history(root, history):
    with opened(root, overlap="new wins") as document:
        for number, (action, x, y) in enumerate(history):
            keys = [s.key for s in document.shapes]
            if number == 12:
                document.compact()
            if action == "add":
                document.add(box(x, y), ["neoplastic", "background"][x % 2])
            elif action == "undo":
                document.undo()
            elif action == "redo":
                document.redo()
            elif action == "erase":
                document.erase(box(x, y, 6))
            elif keys and action == "paint":
                document.paint(box(x, y, 4), "neoplastic", into=keys[x % len(keys)])
            elif keys and action == "class":
                document.change_class([keys[y % len(keys)]], "non-neoplastic")
            elif keys:
                document.remove(keys[y % len(keys)])
        expected = facts(document)
        whole = (0.0, 0.0, 100.0, 100.0)
        assert [s.key for s in document.visible(whole)] == [s.key for s in document.shapes]
        areas = dict.fromkeys(document.area_by_class_um2(), 0.0)
        for shape in document.shapes:
            areas[shape.label] += shape.geometry.area
        assert document.area_by_class_um2() == pytest.approx(areas, abs=1e-4)
    with opened(root) as copy:
        assert facts(copy) == expected
        while copy.undo():
            pass
        assert len(copy) == 0


def test_new_wins_and_clip_new_leave_no_overlap_between_classes():
    for overlap in ("new wins", "clip new"):
        document = AnnotationDocument(overlap=overlap)
        first = document.add(box(0, 0), "neoplastic")
        same = document.add(box(8, 0), "neoplastic")
        new = document.add(box(5, 5), "background")
        areas = [document.shape(key).geometry.area for key in (first, same, new)]
        expected = [75.0, 65.0, 100.0] if overlap == "new wins" else [100.0, 100.0, 50.0]
        assert areas == pytest.approx(expected)


def test_a_shape_wholly_covered_is_removed_or_refused():
    document = AnnotationDocument(overlap="new wins")
    small = document.add(box(2, 2, 3), "neoplastic")
    document.add(box(0, 0), "background")
    with pytest.raises(InputError, match="no shape"):
        document.shape(small)
    document.overlap = "clip new"
    with pytest.raises(InputError, match="other classes"):
        document.add(box(2, 2, 3), "neoplastic")


def test_brush_keeps_to_the_class_and_makes_holes():
    document = AnnotationDocument()
    key = document.add(box(0, 0, 30), "neoplastic")
    assert document.paint(box(25, 25), "background", into=key) != key
    document.erase(box(10, 10, 5), keys=[key])
    assert len(document.shape(key).geometry.interiors) == 1
    assert document.shape(key).geometry.area == pytest.approx(900 - 25)
    assert document.at((12.0, 12.0)) is None
    assert document.at((1.0, 29.0)).key == key
    before = document.snapshot
    document.erase(box(500, 500))
    assert document.snapshot is before


def test_a_snapshot_stays_what_it_was():
    document = AnnotationDocument()
    key = document.add(box(0, 0), "neoplastic")
    snapshot = document.snapshot
    document.change_class([key], "background")
    document.remove(key)
    assert [s.label for s in snapshot.shapes] == ["neoplastic"]


def test_what_cannot_be_done_says_so():
    document = AnnotationDocument()
    key = document.add(box(0, 0), "neoplastic")
    for call, words in [
        (lambda: document.add(box(0, 0), "bone"), "no class 'bone'"),
        (lambda: document.change_class([key], "bone"), "no class 'bone'"),
        (lambda: document.remove("gone"), "no shape 'gone'"),
        (lambda: document.set_classes((TissueClass("fat", "#fff"),)), "neoplastic"),
        (lambda: document.set_classes(document.classes * 2), "must be unique"),
        (lambda: document.add(shapely.Polygon([(0, 0), (1, 1), (2, 2)]), "background"), "no area"),
    ]:
        with pytest.raises(InputError, match=words):
            call()
    assert document.undo_title == "add"


def test_index_agrees_with_a_linear_search_while_shapes_change():
    rng = np.random.default_rng(3)
    document = AnnotationDocument()
    document.add_many(
        AnnotatedShape(f"s{i}", "neoplastic", box(*rng.uniform(0, 1000, 2))) for i in range(500)
    )
    for turn in range(400):
        keys = list(document.snapshot.entries)
        kind = turn % 3
        if kind == 0:
            document.add(box(*rng.uniform(0, 1000, 2)), "background")
        elif kind == 1:
            document.remove(keys[int(rng.integers(len(keys)))])
        else:
            document.replace(keys[int(rng.integers(len(keys)))], box(*rng.uniform(0, 1000, 2)))
        if turn % 40 == 0:
            region = box(*rng.uniform(0, 800, 2), 150)
            x0, y0, x1, y1 = region.bounds
            expected = [s.key for s in document.shapes if s.geometry.intersects(region)]
            assert [s.key for s in document.touching(region)] == expected
            assert [s.key for s in document.visible((y0, x0, y1, x1))] == expected


def test_a_stroke_among_five_thousand_shapes_touches_one():
    document = AnnotationDocument(overlap="new wins")
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) * 20
    shapes = [
        AnnotatedShape(
            f"s{i}", "neoplastic", shapely.Polygon(np.add(ring, (i % 100 * 50, i // 100 * 50)))
        )
        for i in range(5000)
    ]
    document.add_many(shapes)
    before = {shape.key: shape.geometry for shape in document.shapes}
    for k in range(30):
        stroke = stroke_polygon([[500.0 + 20 * k, 500.0], [520.0 + 20 * k, 640.0]], 15.0)
        document.paint(stroke, "neoplastic", into="s1010")
    changed = [s.key for s in document.shapes if s.geometry is not before[s.key]]
    assert changed == ["s1010"]
