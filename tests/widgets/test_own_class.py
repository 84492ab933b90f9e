"""A class of the user's own is added in the annotate dock, drawn and undone."""

import pytest

from napari_mosaik.annotate import rectangle_polygon

pytestmark = pytest.mark.gui


def test_a_class_is_added_chosen_and_drawn(qtbot, dock, opened, own_cohort):
    opened(dock, own_cohort, layers=("H&E",))
    dock.show_annotate()
    panel = dock.annotate
    document = panel.annotation.document
    panel.new_class.setText("necrosis")
    panel.new_class.returnPressed.emit()
    assert [known.name for known in document.classes][-1] == "necrosis"
    assert document.classes[-1].key == "4"
    assert panel.new_class.text() == ""
    assert panel.drawing.label == "necrosis"
    assert panel.class_buttons["necrosis"].isChecked()
    panel.drawing.commit(rectangle_polygon((100.0, 100.0), (400.0, 400.0)))
    assert document.count_by_class()["necrosis"] == 1
    qtbot.waitUntil(lambda: "Annotations" in dock.viewer.layers, timeout=10_000)

    panel.new_class.setText("necrosis")
    panel.new_class.returnPressed.emit()
    assert "must be unique" in panel.hint.text()


def test_another_word_for_a_class_is_not_a_class(dock, opened, own_cohort):
    opened(dock, own_cohort, layers=("H&E",))
    dock.show_annotate()
    panel = dock.annotate
    before = panel.annotation.document.classes
    panel.new_class.setText("Tumor")
    panel.new_class.returnPressed.emit()
    assert "another word for 'neoplastic'" in panel.hint.text()
    assert panel.annotation.document.classes == before


def test_the_reader_is_the_same_everywhere(dock):
    dock.correct.reader.setText("Dr. Müller")
    dock.correct.reader.editingFinished.emit()
    assert dock.annotate.reader.text() == dock.visual_qa.reader.text() == "Dr. Müller"
