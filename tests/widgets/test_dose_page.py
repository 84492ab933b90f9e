"""The page Dose what-if: plans that are kept, computed and compared, and current numbers."""

import json
import re

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox

from napari_mosaik.workflow.plan_record import Course, Plan
from napari_mosaik.workflow.plans import plan_files, read_plans, write_plan

pytestmark = pytest.mark.gui
PAGE = "Dose what-if"


def click(qtbot, push):
    qtbot.waitUntil(lambda: push.height() > 10)  # the page has its layout
    qtbot.mouseClick(push, Qt.MouseButton.LeftButton)


def typed(qtbot, field, text):
    field.selectAll()
    qtbot.keyClick(field, Qt.Key.Key_Delete)
    qtbot.keyClicks(field, text)


def idle(qtbot, dock, panel):
    qtbot.waitUntil(lambda: dock.workspace.job is None and not panel._busy)


@pytest.fixture
def page(qtbot, dock, opened, own_cohort):
    opened(dock, own_cohort / "B11")
    made = dock.pages[PAGE]
    made.set_open(True)
    idle(qtbot, dock, made.panel)
    return made


def new(page, title="177Lu-girentuximab phase 1"):
    """A new plan from the menu, with few draws."""
    actions = page.panel.new.menu().actions()
    next(action for action in actions if action.text() == title).trigger()
    page.panel.editor.fields["draws"].field._widget.value = 40


def run(qtbot, dock, page):
    """Run by the button, to the end."""
    begun = []

    def noted(*_):
        begun.append(dock.workspace.job)

    dock.workspace.events.job.connect(noted)  # a short job may end between two looks
    click(qtbot, page.run_button)
    qtbot.waitUntil(lambda: bool(begun))
    idle(qtbot, dock, page.panel)
    dock.workspace.events.job.disconnect(noted)


def test_plans_are_kept_renamed_and_deleted_and_everything_can_be_undone(
    qtbot, dock, page, monkeypatch
):
    panel, root = page.panel, dock.workspace.case.root
    assert panel.empty.isVisible()
    assert not page.run_button.isEnabled()
    assert "no plan yet" in page.run_button.toolTip()
    assert "Not a treatment plan" in panel.limits.text()
    assert panel.limits.isVisible()
    new(page)
    assert panel.choice.currentText() == "177Lu-girentuximab phase 1 •"
    assert read_plans(root) == {}  # nothing is stored before it is asked for
    assert page.run_button.isEnabled()
    click(qtbot, panel.save)
    idle(qtbot, dock, panel)
    plan = read_plans(root)["177Lu-girentuximab phase 1"]
    assert plan.draws == 40
    assert panel.choice.currentText() == "177Lu-girentuximab phase 1"
    assert not panel.save.isEnabled()

    typed(qtbot, panel.editor.name, "Lutetium")  # another name is a renaming
    typed(qtbot, panel.editor.rows[0].amount, "2400")
    click(qtbot, panel.save)
    idle(qtbot, dock, panel)
    assert list(read_plans(root)) == ["Lutetium"]
    assert panel.choice.currentText() == "Lutetium"
    click(qtbot, panel.copy)
    typed(qtbot, panel.editor.rows[1].day, "soon")
    assert not panel.save.isEnabled()
    assert not page.run_button.isEnabled()
    assert "'soon' is not a number" in page.run_button.toolTip()
    panel._choose(0)
    assert panel.editor.rows[1].day.text() == "84"
    assert "'Lutetium copy'" in panel.why_not()  # what is typed there would not be computed
    panel._choose(1)
    assert panel.editor.rows[1].day.text() == "soon"  # nothing typed is lost
    typed(qtbot, panel.editor.rows[1].day, "90")
    click(qtbot, panel.save)
    idle(qtbot, dock, panel)
    assert list(read_plans(root)) == ["Lutetium", "Lutetium copy"]

    before = plan_files(root)
    asked = []
    monkeypatch.setattr(
        QMessageBox, "question", lambda *a: asked.append(a[2]) or QMessageBox.StandardButton.Cancel
    )
    click(qtbot, panel.remove)
    assert "Delete the plan 'Lutetium copy'" in asked[0]
    assert plan_files(root) == before
    monkeypatch.setattr(QMessageBox, "question", lambda *a: QMessageBox.StandardButton.Ok)
    click(qtbot, panel.remove)
    idle(qtbot, dock, panel)
    assert list(read_plans(root)) == ["Lutetium"]
    click(qtbot, panel.undo)
    idle(qtbot, dock, panel)
    assert plan_files(root) == before
    assert panel.choice.currentText() == "Lutetium copy"
    for _ in range(2):
        click(qtbot, panel.undo)
        idle(qtbot, dock, panel)
    assert list(read_plans(root)) == ["177Lu-girentuximab phase 1"]
    click(qtbot, panel.undo)
    idle(qtbot, dock, panel)
    assert read_plans(root) == {}

    for _ in range(4):
        new(page)
    assert panel.choice.count() == 4
    assert not panel.new.isEnabled()
    assert "At most 4 plans" in panel.new.toolTip()


def test_a_plan_is_computed_shown_and_no_longer_shown_when_it_is_not_current(
    qtbot, dock, page, tmp_path
):
    panel, view = page.panel, page.panel.results
    case, board = dock.workspace.case, dock.board
    page.sections["dose"].form.widget("samples").value = 16
    new(page)
    assert "No result" in view.state.text()
    run(qtbot, dock, page)  # saves it first
    qtbot.waitUntil(lambda: view.plan_dose is not None)
    assert list(read_plans(case.root)) == ["177Lu-girentuximab phase 1"]
    first = view.plan_dose
    assert view.state.text() == "Results of '177Lu-girentuximab phase 1'"
    titles = [view.table.item(row, 0).text() for row in range(view.table.rowCount())]
    assert titles == ["D98, Gy", "D50, Gy", "D2, Gy", "Mean, Gy", "EUD, Gy"]
    middle = first.record["indices"]["d50_gy"]["median"]
    assert view.table.item(1, 1).text().startswith(f"{middle:.3g}"[:3])
    assert view.source.text().startswith("Largest source of uncertainty: ")
    assert "overstate tumour control" in view.limits.text()
    assert "instead of" in panel.editor.fields["within_cv"].note.text()

    # the maps, the line under the mouse
    qtbot.waitUntil(lambda: board.layer("Absorbed dose") is not None)
    assert board.layer("Absorbed dose").visible
    for title in ("BED", "Survival (log10)", "Width of the 90 % interval"):
        assert title in board.specs
    tile = first.record["time_course"]["tile"]
    gray = float(first.column("dose_gy_50")[tile])
    assert view.reading(tile).startswith(f"{gray:.2g}\N{NO-BREAK SPACE}Gy (")
    assert view.reading(tile).endswith("hypoxic")
    grid = dock.workspace.tile_data.grid
    dock.viewer.cursor.position = tuple(grid.centres_um[tile])
    dock.canvas._read()
    words = re.sub("\xa0*\n", " · ", dock.viewer.canvas.overlays.text.text)
    assert words.startswith(f"tile {tile} · ")
    assert view.reading(tile) in words

    # a second plan: one colour scale, the difference draw by draw, side by side
    click(qtbot, panel.copy)
    typed(qtbot, panel.editor.rows[0].amount, "4810")
    assert "No result of this plan yet" in view.state.text()
    assert not view._numbers.isVisible()
    run(qtbot, dock, page)
    qtbot.waitUntil(lambda: view.plan_dose is not None)
    assert view.plan_dose.name == "177Lu-girentuximab phase 1 copy"
    np.testing.assert_array_equal(
        view.results.plans[first.name].column("bed_gy_50"), first.column("bed_gy_50")
    )
    view.beside.setCurrentIndex(1)
    assert view.table.item(1, 2).text().startswith(f"{middle:.3g}"[:3])
    assert not view.table.item(1, 3).text().startswith(("0", "not"))
    shown = "Absorbed dose · 177Lu-girentuximab phase 1 copy"
    qtbot.waitUntil(lambda: board.layer(shown) is not None)
    assert board.layer("Absorbed dose") is None  # that of one plan alone has another scale
    click(qtbot, view.side)
    assert view.maps.is_on
    maps = view.maps._maps()
    assert tuple(maps[0].contrast_limits) == tuple(maps[1].contrast_limits)
    assert float(np.nanmax(maps[0].data)) > 1.2 * float(np.nanmax(maps[1].data))
    assert maps[0].contrast_limits[1] >= np.nanpercentile(maps[0].data, 95)
    click(qtbot, view.side)
    assert not view.maps.is_on

    # export
    view.ask_folder = lambda: str(tmp_path)
    click(qtbot, view.export)
    qtbot.waitUntil(lambda: view.exported.text().startswith("Written"))
    folder = tmp_path / "B11 177Lu-girentuximab phase 1 copy"
    lines = (folder / "tiles.csv").read_text("utf-8").splitlines()
    assert lines[0] == "# case B11, plan 177Lu-girentuximab phase 1 copy"
    assert "Not a treatment plan" in lines[1]
    head = next(place for place, line in enumerate(lines) if not line.startswith("#"))
    assert lines[head].startswith("tile,row_um,column_um,tia_mbq_h_ml_05 [MBq h/mL]")
    assert len(lines) - head - 1 == len(grid)
    names = {path.name for path in folder.iterdir()}
    assert {"Absorbed dose.ome.zarr", "BED.ome.zarr", "record.json", "activity.nii"} <= names
    record = json.loads((folder / "record.json").read_text("utf-8"))
    assert record["limitations"]
    assert record["indices"] == view.plan_dose.record["indices"]
    click(qtbot, view.export)
    qtbot.waitUntil(lambda: "exists already" in view.exported.text())

    # while the uptake is hidden from the reader, so is what was computed from it
    dock.workspace.blind = True
    assert "hidden until the blind review queue" in view.state.text()
    assert not view._numbers.isVisible()
    assert view.reading(tile) == ""
    dock.workspace.blind = False
    qtbot.waitUntil(lambda: view.plan_dose is not None)
    assert view.table.isVisible()

    # files of other programs: the activity as if it were a dose, and a table of organs
    view.ask_file = lambda kind: str(folder / "activity.nii")
    click(qtbot, view.monte_carlo)
    qtbot.waitUntil(lambda: "Ratio of the means" in view.compared.text())
    assert view.compared.text().startswith(f"activity.nii, {len(grid)} tiles")
    table = tmp_path / "organs.csv"
    table.write_text("organ,mgy_per_mbq,limit_gy\nkidney,0.5,23\n", "utf-8")
    view.ask_file = lambda kind: str(table)
    click(qtbot, view.organs)
    qtbot.waitUntil(lambda: "kidney" in view.compared.text())
    assert "no recommendation" in view.compared.text()
    table.write_text("organ\nkidney\n", "utf-8")
    click(qtbot, view.organs)
    qtbot.waitUntil(lambda: "the header must be" in view.compared.text())

    # what is typed is not in the numbers; what is saved makes them stale; a failed run has none
    panel.editor.fields["within_cv"].field.slider.setValue(30)
    assert "what you changed since is not in them" in view.state.text()
    assert "CV 0.3" in panel.editor.fields["within_cv"].note.text()
    wrong = tmp_path / "curve.csv"
    wrong.write_text("hours,activity\n1,2\n", "utf-8")
    shape = panel.editor.fields["shape"].field
    shape.set_value(str(wrong))
    shape.changed.emit()
    click(qtbot, panel.save)
    qtbot.waitUntil(lambda: "time_h,activity_mbq_ml" in panel.message.text())  # refused at once
    assert view.plan_dose is not None
    wrong.write_text("time_h,activity_mbq_ml\n4,1\n400,2\n", "utf-8")
    click(qtbot, panel.save)
    idle(qtbot, dock, panel)
    assert panel.message.text().endswith("saved. Undo takes it back.")
    qtbot.waitUntil(lambda: "No current result" in view.state.text())
    assert view.plan_dose is None
    assert not view._numbers.isVisible()
    assert view.reading(tile) == ""
    assert not any(layer.visible for name, layer in board.present().items() if "dose" in name)
    kept = next((case.root / "plans").glob("*shape.csv"))
    kept.write_text("hours,activity\n1,2\n", "utf-8")
    run(qtbot, dock, page)
    qtbot.waitUntil(lambda: "the last run failed" in view.state.text())
    assert "time_h,activity_mbq_ml" in view.state.text()
    assert not view._numbers.isVisible()


def test_a_plan_of_another_program_can_be_run_when_the_page_is_opened_again(qtbot, dock, page):
    panel, root = page.panel, dock.workspace.case.root
    idle(qtbot, dock, panel)
    page.set_open(False)
    write_plan(root, Plan(name="theirs", courses=(Course(activity=7400),)))
    page.set_open(True)
    qtbot.waitUntil(lambda: list(panel.plans) == ["theirs"])
    qtbot.waitUntil(page.run_button.isEnabled)


def test_a_plan_that_another_program_changed_is_not_written_over(qtbot, dock, page):
    panel, root = page.panel, dock.workspace.case.root
    new(page)
    click(qtbot, panel.save)
    idle(qtbot, dock, panel)
    stored = next(iter(read_plans(root).values()))
    theirs = stored.model_copy(update={"alpha": 0.2})
    write_plan(root, theirs, replace=True)
    typed(qtbot, panel.editor.rows[0].amount, "1000")
    click(qtbot, panel.save)
    qtbot.waitUntil(lambda: "changed by another program" in panel.message.text())
    assert read_plans(root)[stored.name] == theirs
    click(qtbot, panel.discard)
    idle(qtbot, dock, panel)
    assert panel.editor.plan == theirs
    (root / "plans" / "X.toml").write_text("alpha = 'much'\n", "utf-8")
    panel.read()
    qtbot.waitUntil(lambda: "X.toml" in panel.message.text())
