"""The editor of a plan: what is typed, what is wrong and where it is said, and what is asked."""

import pytest
from qtpy.QtCore import Qt

from napari_mosaik.workflow.plan_presets import PRESETS
from napari_mosaik.workflow.plan_record import Course, parse_plan

pytestmark = pytest.mark.gui
PRESET = PRESETS["177Lu-girentuximab phase 1"].plan


@pytest.fixture
def editor(qtbot):
    from napari_mosaik.widgets.pages.plan_editor import PlanEditor, text_of

    made = PlanEditor()
    qtbot.addWidget(made)
    made.show_text(text_of(PRESET), None)
    made.resize(320, 900)
    made.show()
    return made


def typed(qtbot, field, text):
    field.selectAll()
    qtbot.keyClick(field, Qt.Key.Key_Delete)
    qtbot.keyClicks(field, text)


def click(qtbot, push):
    qtbot.waitUntil(lambda: push.height() > 10)  # the page has its layout
    qtbot.mouseClick(push, Qt.MouseButton.LeftButton)


def test_a_plan_is_shown_and_read_back_as_it_was(qtbot, editor):
    from napari_mosaik.widgets.pages.plan_editor import text_of

    assert editor.plan == PRESET
    other = parse_plan(
        {
            "name": "All",
            "courses": [{"nuclide": "Tb-161", "activity": 7399.9999999991, "day": 2.5}],
            "fractions": [{"number": 5, "dose_gy": 2.25, "day": 72}],
            "uptake": "measured",
            "kernel": "built-in",
            "oxygen": True,
            "alpha": 0.123456789012,
            "repair": [[0.25, 0.4], [0.75, 3.0]],
            "within_cv": 0.237,
            "doubling_days": 11.5,
            "until_days": 100,
            "clonogens_per_ml": 3.5e6,
            "tumour_ml": 41.25,
            "spreads": {"alpha": 0.11},
            "limits": ["none is known"],
        }
    )
    editor.show_text(text_of(other), other)
    assert editor.plan == other  # to the last digit, whatever the fields show
    assert editor.sentence == ""


def test_what_is_wrong_stands_below_its_field(qtbot, editor):
    first, second = editor.rows[0], editor.rows[1]
    typed(qtbot, first.amount, "many")
    assert editor.plan is None
    assert "Row 1, activity: 'many' is not a number" in editor.row_problem.text()
    assert editor.row_problem.isVisible()
    typed(qtbot, first.amount, "-5")
    assert "Row 1: the activity must be above 0 MBq/m²" in editor.row_problem.text()
    typed(qtbot, first.amount, "2405")
    assert editor.plan == PRESET
    assert not editor.row_problem.isVisible()
    typed(qtbot, second.day, "300")
    assert "day 168 follows day 300" in editor.row_problem.text()
    typed(qtbot, second.day, "-3")
    assert "day -3 lies before day 0" in editor.row_problem.text()
    typed(qtbot, second.day, "84")
    tumour = editor.fields["tumour_ml"]
    typed(qtbot, tumour.field, "big")
    assert "'big' is not a number" in tumour.problem.text()
    assert not editor.row_problem.isVisible()
    typed(qtbot, tumour.field, "41,5")
    assert editor.plan.tumour_ml == 41.5
    typed(qtbot, editor.fields["doubling_days"].field, "12")
    assert "needs until_days" in editor.fields["doubling_days"].problem.text()
    typed(qtbot, editor.fields["until_days"].field, "90")
    assert editor.plan.doubling_days == 12
    editor.fields["alpha"].field._widget.value = 0
    assert "alpha/beta 0" in editor.fields["alpha"].problem.text()
    typed(qtbot, editor.name, "a.b")
    editor.fields["alpha"].field._widget.value = 0.3
    assert "may not contain '.'" in editor.name_problem.text()


def test_rows_of_another_plan_take_the_place_of_those_before(editor):
    """Making a row takes 10 ms of the window's thread, so those that are there are used again."""
    from napari_mosaik.widgets.pages.plan_editor import text_of

    one = parse_plan({"name": "One", "courses": [{"nuclide": "Tb-161", "activity": 5000}]})
    rows = list(editor.rows)
    editor.show_text(text_of(one), None)
    assert [row.isVisible() for row in rows] == [True, False, False]
    assert (editor.rows, editor.plan) == (rows[:1], one)
    editor.show_text(text_of(PRESET), None)
    assert (editor.rows, editor.plan) == (rows, PRESET)
    assert [row.isVisible() for row in rows] == [True, True, True]
    assert [row.y() for row in rows] == sorted(row.y() for row in rows)


def test_no_choice_is_wider_than_its_field(editor):
    from qtpy.QtWidgets import QComboBox

    boxes = editor.findChildren(QComboBox)
    texts = [box.itemText(place) for box in boxes for place in range(box.count())]
    assert "measured (blurred)" in texts
    assert max(len(text) for text in texts) <= 22  # 149 px of the 360 px of the dock


def test_rows_are_added_doubled_sorted_and_removed(qtbot, editor):
    click(qtbot, editor.add_beam)
    assert "give the fractions as number x Gy, such as 5x2" in editor.row_problem.text()
    typed(qtbot, editor.rows[3].amount, "0x2")
    assert "Row 4, fractions = 0: give 1 or more" in editor.row_problem.text()
    typed(qtbot, editor.rows[3].amount, "5x2")
    typed(qtbot, editor.rows[3].day, "72")
    assert [str(one) for one in editor.plan.fractions] == ["5x2@72"]
    click(qtbot, editor.rows[2].copy)
    assert [row.text().day for row in editor.rows] == ["0", "84", "168", "168", "72"]
    assert "Two courses of Lu-177 on day 168" in editor.row_problem.text()
    typed(qtbot, editor.rows[3].day, "30")
    click(qtbot, editor.sort)
    assert [row.text().day for row in editor.rows] == ["0", "30", "72", "84", "168"]
    assert [one.day for one in editor.plan.courses] == [0, 30, 84, 168]
    for _ in range(5):
        click(qtbot, editor.rows[0].remove)
    assert "neither a course nor a fraction" in editor.row_problem.text()
    click(qtbot, editor.add_course)
    qtbot.keyClicks(editor.rows[0].amount, "7,4")  # it has the focus of the keyboard
    editor.rows[0].unit.setCurrentText("GBq")
    assert editor.plan.courses == (Course(activity=7.4, unit="GBq"),)
    editor.rows[0].kind.setCurrentText("EBRT")
    assert editor.rows[0].amount.text() == ""  # an activity is not a dose
    assert "number x Gy" in editor.row_problem.text()


def test_kbq_typed_as_mbq_is_a_question_that_waits_for_an_answer(qtbot, editor):
    row = editor.rows[0]
    editor.rows[0].kind.setCurrentText("Ac-225")
    row.unit.setCurrentText("MBq")
    typed(qtbot, row.amount, "8000")
    assert editor.question.isVisible()
    assert "8000 MBq is more than 3 times a usual course" in editor.question.text.text()
    assert "is the activity in kBq?" in editor.question.text.text()
    assert editor.plan is None  # nothing is saved or computed before there is an answer
    assert "question" in editor.sentence
    assert editor.fields["rbe"].isVisible()
    click(qtbot, editor.question.yes)
    assert row.amount.text() == "8"
    assert editor.plan.courses[0].activity == 8
    assert not editor.question.isVisible()
    typed(qtbot, row.amount, "30")
    click(qtbot, editor.question.no)
    assert editor.plan.courses[0].activity == 30
    typed(qtbot, row.amount, "31")
    assert editor.question.isVisible()  # another activity is another question


def test_the_sources_of_a_regimen_are_shown_and_a_change_of_it_is_told(qtbot, editor):
    assert "Stillebroer et al. 2013" in editor.source.text()
    assert "Muselaers et al. 2016" in editor.source.text()
    assert "bone marrow limited" in editor.source.text()
    assert "Changed" not in editor.source.text()
    typed(qtbot, editor.rows[1].day, "90")
    assert editor.source.text().startswith("⚠ Changed: these rows are no longer the regimen")


def test_a_file_may_take_the_place_of_a_word(qtbot, editor):
    shape = editor.fields["shape"].field
    shape.ask = lambda: "/data/curve.csv"
    shape.box.setCurrentIndex(shape.box.count() - 1)
    shape.box.activated.emit(shape.box.count() - 1)
    assert editor.plan.shape == "/data/curve.csv"
    assert shape.box.currentText() == "curve.csv"
    assert not editor.fields["rise_h"].isVisible()
    shape.ask = lambda: ""  # nothing was chosen: it stays
    shape.box.activated.emit(shape.box.count() - 1)
    assert editor.plan.shape == "/data/curve.csv"
