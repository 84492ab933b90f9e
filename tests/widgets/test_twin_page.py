"""The pages *Updating twin* and *Virtual cohort*: what they show, store and no longer show."""

import json

import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QColor

from napari_mosaik.core.invivo import InvivoValue
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.io import create_case
from napari_mosaik.io.case_file import CaseFile
from napari_mosaik.view.twin import cohort_arm_rows, signed
from napari_mosaik.widgets.base.controls import grey_text
from napari_mosaik.workflow.invivo import add_invivo
from napari_mosaik.workflow.plan_record import Course, Plan
from napari_mosaik.workflow.plans import read_plan, write_plan
from napari_mosaik.workflow.twin import TWIN_LIMITS, CaseTwin
from napari_mosaik.workflow.virtual_cohort import SIMULATED, cohort_document, plan_cohort

pytestmark = pytest.mark.gui
INJECTION = {
    "nuclide": "Zr-89", "dose_mbq": 37.6, "residual_mbq": 0.5, "injected": "2024-03-04T10:00",
    "excised": "2024-03-18T10:00", "weight_kg": 75.0, "height_cm": 178.0, "sex": "M",
}  # fmt: skip
SCANS = [(72, 3.4, 5.0), (120, 3.6, 3.4), (168, 37.0, 2.3)]
"""The last tumour is ten times what it should be."""
FREE = "transfer_per_h,fast_half_life_h"


def drawn(qtbot, dock, view):
    """Scroll to a figure, which is drawn once it is seen, and wait for it."""

    def there():
        dock.page_area.ensureWidgetVisible(view)
        return view.figure is not None

    qtbot.waitUntil(there)


def values():
    about = {"unit": "SUVbw", "decay_reference": "injection"}
    for time, *means in SCANS:
        for region, mean in zip(("tumour", "blood"), means, strict=True):
            yield InvivoValue(time_h=time, region=region, mean=mean, sd=0.06 * mean, **about)


@pytest.fixture
def case(tmp_path):
    return create_case(
        tmp_path / "A2", CaseFile(name="A2", patient="patient 1", injection=INJECTION)
    )


@pytest.fixture
def page(dock, case, opened):
    opened(dock, case.root, "A2", ())
    return dock.twin


def click(qtbot, push):
    qtbot.waitUntil(lambda: push.height() > 10)  # the page has its layout
    assert push.isEnabled()
    qtbot.mouseClick(push, Qt.MouseButton.LeftButton)


def shown(qtbot, dock, page):
    qtbot.waitUntil(lambda: dock.workspace.job is None and page.picture is not None)


def cells(table):
    return [
        [table.item(row, at).text() for at in range(table.columnCount())]
        for row in range(table.rowCount())
    ]


def test_without_scans_the_page_says_what_to_do(qtbot, dock, page):
    page.set_open(True)
    shown(qtbot, dock, page)
    assert page.limits.text() == TWIN_LIMITS
    assert "no scan of tumour or blood in invivo.csv" in page.state.text()
    assert not page.body_part.isVisible()
    assert not page.predict.isEnabled()
    click(qtbot, page.values)
    assert dock.invivo.is_open
    assert not page.is_open
    add_invivo(dock.workspace.case, values())
    page.set_open(True)  # another page may have changed the values
    assert page.picture is None
    shown(qtbot, dock, page)
    assert page.body_part.isVisible()
    assert page.head.line.text() == "0 of 3 scans taken in"
    assert all(row[0].endswith("prior only") for row in cells(page.parameters))
    assert "(4 h)" not in page.worth.text()
    assert page.worth.text().startswith("Uptake at surgery: day 13 (312 h); SD on the log scale ")
    assert "Time integral of 177Lu: day " in page.worth.text()
    add_invivo(dock.workspace.case, [next(values())], replace_same=True)
    (dock.workspace.case.root / "invivo.csv").write_text("nonsense\n", "utf-8")
    page.read()
    qtbot.waitUntil(lambda: "cannot be shown" in page.state.text())
    assert not page.body_part.isVisible()


def test_a_scan_is_predicted_taken_in_used_and_recorded(qtbot, dock, page, case):
    add_invivo(case, values())
    write_plan(case.root, Plan(name="One", courses=(Course(activity=7400, unit="MBq"),)))
    write_plan(case.root, Plan(name="Beam", fractions=({"number": 5, "dose_gy": 2},)))
    CaseTwin(case, {"free": FREE}).predict_next()
    page.set_open(True)
    shown(qtbot, dock, page)
    assert not page.predict.isEnabled()  # its prediction is stored
    assert cells(page.scans)[0][2] == "not taken in"
    assert "3.4" not in str(cells(page.scans))  # what it showed is not told before
    page.plan.setCurrentText("One")
    click(qtbot, page.use)
    qtbot.waitUntil(lambda: dock.workspace.problem is not None)
    assert "would be the prior alone" in dock.workspace.problem.sentence
    shown(qtbot, dock, page)

    click(qtbot, page.take)
    assert not page.take.isEnabled()
    shown(qtbot, dock, page)
    (record,) = CaseTwin(case).updates
    assert page.head.line.text() == "1 of 3 scans taken in"
    assert f"z {signed(record['z'])}" in page.message.text()
    seen = {row[0]: row for row in cells(page.scans)}["day 3\ntumour"]
    assert seen[2:4] == ["3.4", signed(record["z"])]
    assert page.shown.count() == 2
    words = [row[0] for row in cells(page.parameters)]
    assert words == ["Transfer K, 10⁻³/h\nidentified", "Half-life, fast, h\nprior only"]
    grey = QColor(grey_text())
    for place, row in enumerate(cells(page.parameters)):
        is_grey = page.parameters.item(place, 2).foreground().color() == grey
        assert is_grey == row[0].endswith("prior only")
    drawn(qtbot, dock, page.curve)
    _, tumour, blood = page.curve.figure.axes
    for axes, scan in ((tumour, SCANS[0][1]), (blood, SCANS[0][2])):
        assert len(axes.collections) == 2  # the band, and the ghost of the one before
        assert [scan] in [line.get_ydata() for line in axes.lines if line.get_marker() == "o"]
    page.shown.setCurrentIndex(0)
    assert page.curve.figure is None  # what is no longer chosen is not shown
    drawn(qtbot, dock, page.curve)
    assert [len(axes.collections) for axes in page.curve.figure.axes] == [0, 1, 1]

    click(qtbot, page.predict)
    shown(qtbot, dock, page)
    stored = json.loads((case.root / "twin/predictions/001_120h.json").read_text("utf-8"))
    assert page.picture.awaited["median"] == stored["median"]
    assert page.state.text().startswith("Next scan: day 5 (120.0 h), predicted 20")

    # the dose
    before = read_plan(case.root, "One")
    page.plan.setCurrentText("One")
    click(qtbot, page.use)
    qtbot.waitUntil(lambda: "CV of" in page.used.text())
    shown(qtbot, dock, page)
    plan = read_plan(case.root, "One")
    assert plan.shape == "One shape.csv"
    assert plan.spreads.time_course == 0
    assert "with 1000 draws" in page.used.text()
    assert plan.sources[-1].startswith("time course of the updating twin after 1 scans")
    write_plan(case.root, plan.model_copy(update={"alpha": 0.2}), replace=True)
    click(qtbot, page.undo)
    qtbot.waitUntil(lambda: dock.workspace.problem is not None)
    assert "plans were changed since" in dock.workspace.problem.sentence
    assert read_plan(case.root, "One").alpha == 0.2
    shown(qtbot, dock, page)
    write_plan(case.root, plan, replace=True)
    click(qtbot, page.undo)
    qtbot.waitUntil(lambda: "as they were" in page.used.text())
    shown(qtbot, dock, page)
    assert read_plan(case.root, "One") == before
    page.plan.setCurrentText("Beam")
    click(qtbot, page.use)
    qtbot.waitUntil(lambda: dock.workspace.problem is not None)
    assert "has fractions only" in dock.workspace.problem.sentence
    shown(qtbot, dock, page)

    # the record
    page.plan.setCurrentText("One")
    page.by.setText("")
    assert not page.decide.isEnabled()
    qtbot.keyClicks(page.by, "Dr A")
    click(qtbot, page.decide)
    qtbot.waitUntil(lambda: "Recorded: 'One'" in page.message.text())
    shown(qtbot, dock, page)
    assert "One, by Dr A, after 1 scan" in page.decisions.text()
    assert "Observed: not taken in yet" in page.decisions.text()
    kept = (case.root / "twin/decisions.jsonl").read_text("utf-8")
    click(qtbot, page.take)
    shown(qtbot, dock, page)
    z = CaseTwin(case).updates[1]["z"]
    assert f"Observed: 3.6, z {signed(z)}" in page.decisions.text()
    qtbot.keyClicks(page.seen, "stable")
    click(qtbot, page.observe)
    qtbot.waitUntil(lambda: "Added to the decision for 'One'" in page.message.text())
    shown(qtbot, dock, page)
    assert "Dr A: stable" in page.decisions.text()
    assert (case.root / "twin/decisions.jsonl").read_text("utf-8").startswith(kept)

    # a scan that is far off is a banner
    assert not page.doubt.isVisible()
    click(qtbot, page.take)
    shown(qtbot, dock, page)
    assert page.doubt.isVisible()
    assert "SD above its prediction" in page.doubt.text()
    assert page.state.text() == "All scans were taken in."
    assert not page.take.isEnabled()

    # nothing is left of it where it is no longer current
    place = case.root / "twin" / "updates" / "002" / "record.json"
    place.write_text(place.read_text("utf-8").replace("37.0", "3.7"), "utf-8")
    page.read()
    assert page.picture is None
    assert not page.doubt.isVisible()
    qtbot.waitUntil(lambda: "cannot be shown" in page.state.text())
    assert not page.body_part.isVisible()


def simulated(qtbot, dock, page):
    qtbot.waitUntil(lambda: dock.workspace.job is None and page.choice is not None)


def test_plans_are_arms_of_a_virtual_cohort(qtbot, dock, case, opened):
    opened(dock, case.root, "A2", ())
    page = dock.simulated
    page.set_open(True)
    simulated(qtbot, dock, page)
    assert "no dose plan yet" in page.state.text()
    assert "choose preset arms" in page.state.text()
    assert page.plans.isVisible()
    assert not page.run.isEnabled()
    course = Course(activity=3700, unit="MBq")
    add_invivo(case, values())
    write_plan(case.root, Plan(name="One", courses=(course,)))
    more = course.model_copy(update={"activity": 7400})
    write_plan(case.root, Plan(name="Two", courses=(more,)))
    page.read()
    simulated(qtbot, dock, page)
    assert page.state.text().startswith("No scan was taken in, so there is no posterior")
    assert not page.run.isEnabled()
    CaseTwin(case, {"free": FREE}).take_in_next()
    page.read()
    simulated(qtbot, dock, page)
    assert not page.results.isVisible()
    page.n.setValue(80)
    page.threshold.setText("20")
    click(qtbot, page.run)
    assert page.state.text() == "Simulating…"
    assert page.stop.isVisible()
    simulated(qtbot, dock, page)
    assert page.state.text() == "80 simulated patients from the posterior."
    assert page.mark.isVisible()
    assert SIMULATED in page.mark.text()
    work = plan_cohort(CaseTwin(case), n=80)
    cohort = run_to_end(work)
    document = cohort_document(
        cohort, drawn_from="posterior", seed=0, outcome="bed", threshold=20.0
    )
    assert [tuple(row) for row in cells(page.outcomes)] == cohort_arm_rows(document)
    assert cells(page.better) == [["A: One\nB: Two", "0.000"]]
    drawn(qtbot, dock, page.figure)
    texts = page.figure.figure.axes[0].texts
    assert [text.get_text() for text in texts] == [SIMULATED]

    # the bar may be moved without another run; one that is not a number is told
    page.threshold.setText("")
    assert "\n" in cells(page.outcomes)[0][2]
    assert cells(page.outcomes) != [list(row) for row in cohort_arm_rows(document)]
    page.threshold.setText("much")
    assert "'much' is not a number" in page.state.text()
    assert not page.results.isVisible()
    page.threshold.setText("20")
    assert page.results.isVisible()

    # another outcome of the same patients needs no other run, and has its own threshold and unit
    page.outcome.setCurrentIndex(page.outcome.findData("electron"))
    assert page.results.isVisible()
    assert page.threshold.text() == ""
    document = cohort_document(cohort, drawn_from="posterior", seed=0, outcome="electron")
    assert [tuple(row) for row in cells(page.outcomes)] == cohort_arm_rows(document)
    page.outcome.setCurrentIndex(page.outcome.findData("tcp"))
    assert page.threshold_label.text() == "Threshold, 0 to 1"
    assert not page.results.isVisible()
    assert "'One' states neither the volume of the tumour nor its number" in page.state.text()
    page.outcome.setCurrentIndex(page.outcome.findData("bed"))
    assert page.threshold.text() == "20"
    assert page.threshold_label.text() == "Threshold, Gy"
    assert page.results.isVisible()

    # your table of organs: a smaller dose is the better one
    file = case.root.parent / "lu.csv"
    file.write_text("organ,mgy_per_mbq\nkidney,1\n", "utf-8")
    page.ask_file = lambda: str(file)
    (action,) = page.organs.menu().actions()
    assert action.text() == "Lu-177: no table yet"
    action.trigger()
    qtbot.waitUntil(lambda: "the header must be" in page.message.text())
    file.write_text("organ,mgy_per_mbq,limit_gy\nkidney,1,5\n", "utf-8")
    action.trigger()
    qtbot.waitUntil(lambda: page.outcome.findData("organ:kidney") > 0)
    simulated(qtbot, dock, page)
    assert page.state.text() == "Plans or twin were changed since the last run: run it again."
    click(qtbot, page.run)
    simulated(qtbot, dock, page)
    page.outcome.setCurrentIndex(page.outcome.findData("organ:kidney"))
    assert cells(page.better) == [["A: One\nB: Two", "1.000"]]
    assert "at most 5.00\N{NO-BREAK SPACE}Gy (limit of the organ)" in page.about.text()
    assert page.organs.menu().actions()[0].text() == "Lu-177: kidney"
    kept_table = case.root / "organs" / "Lu-177.csv"
    kept_table.write_text("nonsense\n", "utf-8")
    page.read()
    simulated(qtbot, dock, page)
    assert "the organs of Lu-177 that the case holds are damaged" in page.state.text()
    assert not page.run.isEnabled()
    page.organs.menu().actions()[0].trigger()  # they can be given again
    qtbot.waitUntil(lambda: page.outcome.findData("organ:kidney") > 0 and page.choice is not None)
    page.outcome.setCurrentIndex(page.outcome.findData("bed"))
    assert page.results.isVisible()

    # other settings, other plans: the numbers are gone at once
    page.seed.setValue(1)
    assert not page.results.isVisible()
    assert page.figure.figure is None
    assert page.state.text() == "The settings were changed: run it again."
    page.seed.setValue(0)
    assert page.results.isVisible()
    write_plan(case.root, Plan(name="One", courses=(course,), alpha=0.2), replace=True)
    page.read()
    assert not page.results.isVisible()
    simulated(qtbot, dock, page)
    assert page.state.text() == "Plans or twin were changed since the last run: run it again."
    assert not page.results.isVisible()
    assert page.mark.isVisible()

    # one arm; what is stopped leaves no numbers
    qtbot.mouseClick(page.arms["One"], Qt.MouseButton.LeftButton, pos=QPoint(8, 8))
    assert not page.arms["One"].isChecked()
    click(qtbot, page.run)
    click(qtbot, page.stop)
    simulated(qtbot, dock, page)
    assert not page.results.isVisible()
    assert page.state.text() == "Cancelled: run it again."
    click(qtbot, page.run)
    simulated(qtbot, dock, page)
    assert [row[0] for row in cells(page.outcomes)] == ["Two"]
    assert not page.better.isVisible()
    mass, _, _ = page.presets.menu().actions()
    assert "Merkx et al. 2021" in mass.toolTip()
    mass.trigger()
    qtbot.waitUntil(lambda: "177Lu 10 mg" in page.arms)
    simulated(qtbot, dock, page)
    assert page.mass.isVisible()  # the antigen enters
    assert read_plan(case.root, "177Lu 5 mg").antibody_mg == 5.0
    assert "Arms: 177Lu 5 mg, 177Lu 10 mg." in page.message.text()
    for name in ("177Lu 5 mg", "177Lu 10 mg"):
        page.arms[name].setChecked(False)
    page.arms["Two"].setChecked(False)
    assert page.state.text() == "Choose at least one plan: each chosen plan is an arm."
    assert not page.run.isEnabled()
