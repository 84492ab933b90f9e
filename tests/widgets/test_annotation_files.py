"""Annotations of another program come in through a table of classes; the reader is asked once."""

import json
import os
import threading

import pytest
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QApplication

from napari_mosaik.annotate import AnnotationDocument, open_document, rectangle_polygon
from napari_mosaik.core.corrections import Correction
from napari_mosaik.core.journal import journal_of
from napari_mosaik.widgets.annotate.import_dialog import ImportDialog
from napari_mosaik.widgets.base.reader import ReaderQuestion
from napari_mosaik.workflow.annotations import OpenAnnotations
from napari_mosaik.workflow.corrections import CorrectionLog

pytestmark = pytest.mark.gui


def a_file(folder, *classes, name="he.geojson", extra=()):
    """GeoJSON with a square of 100 pixels per class."""
    features = [
        {
            "type": "Feature",
            "id": f"s{i}",
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    [[x, 50], [x + 100, 50], [x + 100, 150], [x, 150], [x, 50]]
                    for x in (50 + 120 * i,)
                ][0:1],
            },
            "properties": {"objectType": "annotation", "classification": {"name": label}},
        }
        for i, label in enumerate(classes)
    ]
    path = folder / name
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [*features, *extra]}))
    return path


@pytest.fixture
def case(dock, opened, fresh_case):
    """A case that nobody has annotated, open in the dock."""
    (fresh_case / "annotations" / "he.geojson").unlink(missing_ok=True)
    return opened(dock, fresh_case)


def shown(qtbot, dock, kind=ImportDialog):
    """The dialog of a kind that is open."""
    found = lambda: [one for one in dock.window().findChildren(kind) if one.isVisible()]  # noqa: E731
    qtbot.waitUntil(lambda: bool(found()) or dock.workspace.problem is not None)
    assert dock.workspace.problem is None, dock.workspace.problem
    return found()[0]


def test_each_class_is_mapped_in_a_table_and_the_import_can_be_undone(qtbot, dock, case, tmp_path):
    cell = {"type": "Feature", "id": "c", "geometry": None, "properties": {"objectType": "cell"}}
    names = ("Tumor", "Necrosis", "Ignore*", "stroma")
    dock.annotate.import_file(a_file(tmp_path, *names, extra=[cell]))
    asked = shown(qtbot, dock)
    words = {name: choice.currentText() for name, choice in asked.choices.items()}
    assert words == {
        "Ignore*": "Exclude",
        "Necrosis": "Exclude",
        "Tumor": "neoplastic",
        "stroma": "non-neoplastic",
    }
    assert "cell" in asked.doubts.toPlainText()
    assert asked.summary.text() == "2 shapes imported, 2 excluded."
    necrosis = asked.choices["Necrosis"]
    assert asked.choices["Tumor"].findText("New class: Tumor") < 0
    necrosis.setCurrentText("New class: Necrosis")
    assert asked.summary.text() == "3 shapes imported, 1 excluded."
    assert set(asked.takes) == {""}
    asked.takes[""].click()

    document = dock.annotate.annotation.document
    qtbot.waitUntil(lambda: len(document) == 3)
    counts = document.count_by_class()
    assert (counts["neoplastic"], counts["non-neoplastic"], counts["Necrosis"]) == (1, 1, 1)
    assert "3 annotations imported from he.geojson" in dock.annotate.notice.text()
    qtbot.waitUntil(lambda: len(case.annotations("he")) == 3)  # the file follows the journal
    qtbot.waitUntil(lambda: "Necrosis" in dock.annotate.class_buttons)
    dock.annotate.undo.click()
    assert len(document) == 0
    dock.annotate.redo.click()
    assert len(open_document(journal_of(case.root, "reader"))) == 3


def test_shapes_of_the_reader_are_replaced_with_a_copy_or_added_to(qtbot, dock, case, tmp_path):
    dock.show_annotate()
    panel = dock.annotate
    document = panel.annotation.document
    panel.drawing.commit(rectangle_polygon((10.0, 10.0), (20.0, 20.0)))
    panel.import_file(a_file(tmp_path, "Tumor"))
    asked = shown(qtbot, dock)
    assert set(asked.takes) == {"replace", "add"}
    asked.cancel.click()
    assert len(document) == 1

    panel.import_file(a_file(tmp_path, "Tumor"))
    shown(qtbot, dock).takes["add"].click()
    qtbot.waitUntil(lambda: len(document) == 2)
    panel.import_file(a_file(tmp_path, "Stroma", name="other.geojson"))
    shown(qtbot, dock).takes["replace"].click()
    qtbot.waitUntil(lambda: [s.label for s in document.shapes] == ["non-neoplastic"])
    copy = next((case.root / "annotations").glob("he-*.geojson"))
    assert str(copy) in panel.notice.text()
    assert len(json.loads(copy.read_text())["features"]) == 2
    panel.undo.click()
    assert len(document) == 2


def test_annotations_of_another_slide_are_asked_for(qtbot, dock, case, tmp_path):
    with case.slide("he") as slide:
        columns = slide.lattice.shape[1]
    far = [[[columns + x, 9], [columns + x + 9, 9], [columns + x, 99], [columns + x, 9]]
           for x in (10, 200)]  # fmt: skip
    extra = [
        {"type": "Feature", "id": f"far{i}", "properties": {"classification": {"name": "Tumor"}},
         "geometry": {"type": "Polygon", "coordinates": [ring]}}
        for i, ring in enumerate(far)
    ]  # fmt: skip
    dock.annotate.import_file(a_file(tmp_path, "Tumor", extra=extra))
    asked = shown(qtbot, dock)
    assert "2 of 3 shapes lie outside" in asked.other_slide.text()
    assert not asked.takes[""].isEnabled()
    asked.right_slide.setChecked(True)
    asked.takes[""].click()
    document = dock.annotate.annotation.document
    qtbot.waitUntil(lambda: len(document.shapes) == 1)


def test_nothing_can_be_imported_while_every_class_is_excluded(qtbot, dock, case, tmp_path):
    dock.annotate.import_file(a_file(tmp_path, "Ignore*"))
    asked = shown(qtbot, dock)
    assert not asked.takes[""].isEnabled()
    assert "Choose a class" in asked.summary.text()
    asked.cancel.click()


def test_a_file_that_cannot_be_read_is_named_and_nothing_is_asked(qtbot, dock, case, tmp_path):
    path = tmp_path / "points.geojson"
    path.write_text('{"type": "FeatureCollection", "features": []}')
    dock.annotate.import_file(path)
    qtbot.waitUntil(lambda: dock.workspace.problem is not None)
    assert "points.geojson" in dock.workspace.problem.sentence
    assert not dock.window().findChildren(ImportDialog)
    assert not dock.annotate.notice.isVisible()


def test_an_export_holds_what_the_reader_has_drawn(qtbot, dock, case, tmp_path):
    dock.show_annotate()
    dock.annotate.drawing.commit(rectangle_polygon((10.0, 10.0), (200.0, 200.0)))
    path = tmp_path / "out.geojson"
    dock.annotate.annotation.export(path)
    qtbot.waitUntil(lambda: "1 annotation exported" in dock.annotate.notice.text())
    (feature,) = json.loads(path.read_text())["features"]
    assert feature["properties"]["classification"]["name"] == "neoplastic"


def test_a_copy_of_a_file_that_another_program_changed_is_named(qtbot, dock, case):
    dock.show_annotate()
    annotation = dock.annotate.annotation
    dock.annotate.drawing.commit(rectangle_polygon((10.0, 10.0), (200.0, 200.0)))
    annotation.save()
    assert not annotation._save_soon._hasPendingEmission  # what was due is saved now
    file = case.annotations_path("he")
    qtbot.waitUntil(lambda: file.is_file() and annotation.saved_words == "Saved")
    qtbot.waitUntil(lambda: not dock.controller._tasks)
    file.write_text('{"type": "FeatureCollection", "features": []}')
    annotation.save()
    qtbot.waitUntil(lambda: "its file is kept" in dock.annotate.notice.text())
    assert str(next(file.parent.glob("he-*.geojson"))) in dock.annotate.notice.text()


@pytest.mark.parametrize("act", ["draw", "correct", "rate"])
def test_the_reader_is_asked_once_and_is_the_same_everywhere(qtbot, dock, opened, own_cohort, act):
    opened(dock, own_cohort)
    dock.workspace.reader = ""
    begin = {
        "draw": dock.show_annotate,
        "correct": dock.correct.start,
        "rate": dock.visual_qa.start,
    }[act]
    begin()
    asked = shown(qtbot, dock, ReaderQuestion)
    assert dock.canvas.active_tool is None
    asked.name.setCurrentText("  ")
    asked.accept()
    assert "not a valid reader name" in asked.why.text()
    asked.name.setCurrentText("Dr. Müller")
    asked.accept()
    assert dock.workspace.reader == dock.annotate.reader.text() == dock.visual_qa.reader.text()
    session = {
        "draw": lambda: dock.annotate.annotation.document,
        "correct": lambda: dock.correct.session,
        "rate": lambda: dock.visual_qa.session,
    }[act]
    qtbot.waitUntil(lambda: session() is not None)
    QApplication.processEvents()
    dock.show_annotate()
    dock.correct.start()
    assert not [one for one in dock.window().findChildren(ReaderQuestion) if one.isVisible()]
    qtbot.waitUntil(lambda: dock.correct.session is not None)


def test_who_does_not_say_who_reads_does_not_draw(qtbot, dock, case):
    dock.workspace.reader = ""
    dock.show_annotate()
    shown(qtbot, dock, ReaderQuestion).reject()
    assert dock.annotate.annotation.document is None
    assert dock.canvas.active_tool is None


def test_the_window_says_whose_annotations_train_and_lets_choose(qtbot, dock, case, monkeypatch):
    dock.show_annotate()
    panel, asked = dock.annotate, []
    square = rectangle_polygon((10.0, 10.0), (200.0, 200.0))
    panel.drawing.commit(square)
    panel.annotation.save()
    qtbot.waitUntil(lambda: "annotations of reader reader." in panel.whose_line.text())
    assert panel.whose.isHidden()  # there is nothing to choose
    qtbot.waitUntil(lambda: not dock.controller._tasks)  # an older answer may come after a newer
    with OpenAnnotations(case, "Ben") as opened:
        opened.document.add(square, "neoplastic")
    panel.annotation.save()
    qtbot.waitUntil(lambda: "the readers Ben, reader." in panel.whose_line.text())
    panel.whose.setCurrentText("Only Ben")
    assert "annotations of reader Ben." in panel.whose_line.text()
    monkeypatch.setattr(panel.annotation, "retrain", asked.append)
    panel.retrain.click()
    panel.annotation.save()  # the choice is kept
    qtbot.waitUntil(lambda: not dock.controller._tasks)
    panel.retrain.click()
    assert [list(readers) for readers in asked] == [["Ben"], ["Ben"]]


def test_a_second_reader_starts_blind(dock, case):
    dock.show_annotate()
    dock.annotate.drawing.commit(rectangle_polygon((10.0, 10.0), (200.0, 200.0)))
    dock.annotate.reader.setText("王")
    dock.annotate.reader.editingFinished.emit()
    assert len(dock.annotate.annotation.document.snapshot) == 0
    assert dock.correct.reader.text() == "王"


def test_a_new_class_is_drawn_in_its_colour_though_the_layer_was_there(qtbot, dock, case, tmp_path):
    dock.show_annotate()
    dock.annotate.drawing.commit(rectangle_polygon((10.0, 10.0), (200.0, 200.0)))
    qtbot.waitUntil(lambda: "Annotations" in dock.viewer.layers)
    dock.annotate.import_file(a_file(tmp_path, "Necrosis"))
    asked = shown(qtbot, dock)
    asked.choices["Necrosis"].setCurrentText("New class: Necrosis")
    asked.takes["add"].click()
    layer = dock.viewer.layers["Annotations"]
    qtbot.waitUntil(lambda: 4 in layer.data)
    colours = layer.colormap.map(4)
    assert colours.any()
    assert tuple(colours) != tuple(layer.colormap.map(1))


def test_doubts_of_a_retraining_are_listed(qtbot, dock, case, tmp_path):
    annotation = dock.annotate.annotation
    dock.show_annotate()
    training = {"n_shapes": 2, "n_cases": 1, "readers": ["Anna", "Ben"],
                "warnings": ["nothing is annotated as 'neoplastic'"]}  # fmt: skip
    annotation._retrained(training)
    told = dock.annotate.change.text()
    assert told.startswith("Trained on 2 annotations of Anna and Ben in 1 case.")
    assert "⚠ nothing is annotated as 'neoplastic'" in dock.annotate.change.text()


def test_a_file_dropped_on_the_dock_leads_to_the_same_table(qtbot, dock, case, tmp_path):
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(a_file(tmp_path, "Tumor", name="A.GeoJSON")))])
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    dock.dropEvent(QDropEvent(QPointF(9, 9), Qt.DropAction.CopyAction, data, left, none))
    asked = shown(qtbot, dock)
    assert asked.choices["Tumor"].currentText() == "neoplastic"
    assert dock.tabs.currentIndex() == dock.annotate_tab
    asked.cancel.click()


def test_a_refused_edit_is_kept_and_written_again(qtbot, dock, case, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    dock.show_annotate()
    panel = dock.annotate
    document = panel.annotation.document
    assert panel.again.isHidden()
    with monkeypatch.context() as context:
        context.setattr(os, "fsync", full)
        panel.drawing.commit(rectangle_polygon((10.0, 10.0), (200.0, 200.0)))
    assert "No space left" in panel.hint.text()
    assert len(document) == 0
    assert not panel.again.isHidden()
    assert not panel.elsewhere.isHidden()
    panel.again.click()
    assert len(document) == 1
    assert panel.again.isHidden()
    assert "1 edit written" in panel.notice.text()
    assert panel.undo.isEnabled()


def test_undo_goes_through_what_was_done_in_other_views(qtbot, dock, case):
    dock.show_annotate()
    panel = dock.annotate
    panel.drawing.commit(rectangle_polygon((10.0, 10.0), (200.0, 200.0)))
    with CorrectionLog(case, "tissue_he", panel.reader.text()) as log:
        log.add(Correction("cut", area_wkt="POLYGON ((0 0, 100 0, 100 100, 0 0))"))
        panel.undo.click()
        assert "Undone in another view: removed from the tissue" in panel.notice.text()
        assert log.corrections == ()
        assert len(panel.annotation.document) == 1
        panel.undo.click()
        assert len(panel.annotation.document) == 0
        panel.redo.click()
        panel.redo.click()
        assert len(log.corrections) == len(panel.annotation.document) == 1


def test_an_import_is_written_on_a_thread(qtbot, dock, case, tmp_path, monkeypatch):
    threads = []
    record = AnnotationDocument.record
    monkeypatch.setattr(
        AnnotationDocument,
        "record",
        lambda self, edit: threads.append(threading.current_thread()) or record(self, edit),
    )
    dock.show_annotate()
    dock.annotate.import_file(a_file(tmp_path, "Tumor", "Stroma"))
    shown(qtbot, dock).takes[""].click()
    document = dock.annotate.annotation.document
    qtbot.waitUntil(lambda: len(document) == 2)
    assert threads != [threading.main_thread()]
    qtbot.waitUntil(lambda: "2 annotations imported" in dock.annotate.notice.text())
    dock.annotate.undo.click()
    assert len(document) == 0
