"""The review queue of a case that was run: command line, session, and the page in the window."""

import json
import shutil
import warnings

import pytest

from napari_mosaik.cli import main
from napari_mosaik.core import InputError
from napari_mosaik.io import Case


def told(capsys, *arguments):
    """Exit code, parsed standard output and standard error of a command."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    out, err = capsys.readouterr()
    return ended.value.code or 0, json.loads(out) if out.strip().startswith("{") else out, err


BLIND = (
    "default",
    "uncertainty",
    "disagreement",
    "boundary",
    "rare",
    "cold-among-hot",
    "artefacts",
)


def test_blind_rankings_are_the_same_with_another_pet(own_cohort, capsys):
    case = own_cohort / "B11"
    first = [told(capsys, "review-queue", case, "--ranking", name, "--json") for name in BLIND]
    assert {code for code, _, _ in first} == {0}
    shutil.copy(own_cohort / "B8" / "pet" / "slice.dcm", case / "pet" / "slice.dcm")
    again = [told(capsys, "review-queue", case, "--ranking", name, "--json") for name in BLIND]
    assert first == again
    queue = first[0][1]
    assert set(queue["tiles"][0]) == {"rank", "tile", "score", "reason", "control"}
    assert queue["n"] == len(queue["tiles"]) == len({row["tile"] for row in queue["tiles"]})
    scores = [row["score"] for row in queue["tiles"]]
    assert scores == sorted(scores, reverse=True)
    assert all(row["reason"] for row in queue["tiles"])
    control = [row for row in queue["tiles"] if row["control"]]
    assert len(control) >= 0.05 * queue["n"]
    assert all(0 < row["probability"] <= 1 for row in control)
    assert not queue["development"]
    other = told(capsys, "review-queue", case, "--seed", "5", "--json")[1]
    assert {r["tile"] for r in other["tiles"]} == {r["tile"] for r in queue["tiles"]}
    assert other["tiles"] != queue["tiles"]
    code, _, err = told(capsys, "review-queue", case, "--ranking", "uptake")
    assert code == 2  # the measured uptake is stale: it was that of the other PET
    assert "uptake" in err
    assert not Case(case).file.development


def test_the_ranking_by_uptake_marks_the_case_everywhere(own_cohort, capsys):
    from napari_mosaik.core.catalogue import METRICS
    from napari_mosaik.view.report.content import case_report
    from napari_mosaik.view.tile_data import badge_of, read_tile_data

    case = Case(own_cohort / "B11")
    assert case.store.read(METRICS)["development"] is False
    assert not told(capsys, "predict", case.root, "--json")[1]["development"]
    (own_cohort.parent / "metrics.json").write_text('{"test_case": "B11", "development": false}')
    queue = told(capsys, "review-queue", case.root, "--ranking", "uptake", "--json")[1]
    assert queue["development"]
    assert "measured one" in queue["tiles"][0]["reason"]
    case = Case(case.root)
    assert case.store.read(METRICS)["development"] is True
    assert json.loads((own_cohort.parent / "metrics.json").read_text())["development"] is True
    assert "development = true" in (case.root / "case.toml").read_text()
    _, record, err = told(capsys, "predict", case.root, "--json")
    assert record["development"] is True
    assert "optimistic" in err
    assert "optimistic" in badge_of(read_tile_data(case))
    report = case_report(case)
    assert "development case" in report
    assert "optimistic" in report
    blind = told(capsys, "review-queue", case.root, "--json")  # stays marked
    assert blind[1]["development"]
    assert "optimistic" in blind[2]


def test_what_is_missing_is_said(own_cohort, fresh_case, capsys):
    code, _, err = told(capsys, "review-queue", own_cohort / "B11", "--ranking", "entropy")
    assert code == 2
    assert "boundary" in err
    assert "cold-among-hot" in err
    code, _, err = told(capsys, "review-queue", fresh_case)
    assert code == 2
    assert "no tiles yet" in err
    code, queue, _ = told(capsys, "review-queue", own_cohort / "B8", "--json")  # no predictor
    assert code == 0
    assert any("cold-among-hot" in text and "prediction" in text for text in queue["warnings"])
    code, _, err = told(capsys, "review-queue", own_cohort / "B8", "--ranking", "cold-among-hot")
    assert code == 2
    assert "prediction" in err


def test_a_session_is_on_the_disk_before_it_counts_and_resumes(own_cohort):
    from napari_mosaik.workflow.review_queue import QueueSession

    case = Case(own_cohort / "B11")
    with QueueSession(case, "Åsa") as session:
        tiles = [item.tile for item in session.queue.tiles]
        assert session.next_open() == 0
        session.decide(tiles[0], "accept", 3.0)
        session.decide(tiles[1], "reject", 5.0)
        session.decide(tiles[2], "edit", 10.0)
        session.comment(tiles[1], " fold \n here ")
        assert session.undo() == (f"comment on tile {tiles[1]}", tiles[1])
        assert session.comments == {}
        assert session.undo()[1] == tiles[2]
        assert session.wrong == {tiles[0]: False, tiles[1]: True}
        assert session.seconds == 4.0
        session.set_stop(0.2)
        assert session.next_open(1) == 2
        with pytest.raises(InputError, match="not in the review queue"):
            session.decide(10_000, "accept", 1.0)
        with pytest.raises(InputError, match="accept, reject, edit"):
            session.decide(tiles[0], "maybe", 1.0)
        before = session.rate
    with QueueSession(case, "Åsa") as again:
        assert again.judged == session.judged
        assert again.rate == before
        assert again.stop_below == 0.2
        assert again.undo()[1] == tiles[1]
    with QueueSession(case, "Åsa", seed=3) as other:
        assert other.judged == {}
    with QueueSession(case, "Bo") as other:
        assert other.judged == {}
    with QueueSession(case, "Åsa") as again:
        assert list(again.judged) == [tiles[0]]
        for item in again.queue.tiles:
            again.decide(item.tile, "accept", 1.0)
        assert again.next_open() is None
        assert again.may_stop
        assert again.rate.estimate == again.rate.high == 0.0
        while again.undo()[0]:
            pass
        assert again.judged == {}
        assert not again.may_stop


def test_a_reader_is_blind_until_the_queue_is_finished_or_the_case_marked(own_cohort):
    from napari_mosaik.workflow.review_queue import QueueSession, blind_readers, mark_development

    case = Case(own_cohort / "B11")
    assert blind_readers(case) == set()
    with QueueSession(case, "Åsa") as session:
        assert session.queue.hides_measured
        assert blind_readers(case) == {"Åsa"}
        with pytest.raises(InputError, match="without a decision"):
            session.finish()
    assert blind_readers(case) == {"Åsa"}  # closing ends nothing
    with QueueSession(case, "Åsa", "rare") as session:
        for item in session.queue.tiles:
            session.decide(item.tile, "accept", 1.0)
        assert blind_readers(case) == {"Åsa"}
        session.finish()
        assert session.finished
        assert blind_readers(case) == set()
        with pytest.raises(InputError, match="is finished"):
            session.decide(session.queue.tiles[0].tile, "reject", 1.0)
    with QueueSession(case, "Åsa", "rare") as session:
        assert session.finished
        assert blind_readers(case) == set()
        assert not any("not blind" in text for text in session.warnings)
    with QueueSession(case, "Åsa", "rare", seed=4) as session:  # another queue, after the PET
        assert any("reader Åsa" in text and "not blind" in text for text in session.warnings)
        assert blind_readers(case) == {"Åsa"}
    with QueueSession(case, "Åsa", "rare") as session:  # back in the finished one
        assert session.finished
    mark_development(case)
    assert blind_readers(case) == set()


def correct(case, reader):
    """Annotate: nothing has to run again before a retraining."""
    from shapely import box

    from napari_mosaik.workflow.annotations import OpenAnnotations

    with OpenAnnotations(case, reader) as opened:
        opened.document.add(box(100, 100, 200, 200), "neoplastic")


def test_a_correction_after_the_errors_were_shown_makes_a_development_case(own_cohort, capsys):
    from napari_mosaik.core.catalogue import METRICS
    from napari_mosaik.workflow.case_status import case_status
    from napari_mosaik.workflow.review_queue import QueueSession
    from napari_mosaik.workflow.update import steps_to_update

    case = Case(own_cohort / "B11")
    correct(case, "Anna")
    assert not told(capsys, "predict", case.root, "--json")[1]["development"]  # shows the error
    assert not case.is_development
    with QueueSession(case, "Anna"):  # nothing measured is shown while a blind queue is open
        pass
    correct(case, "Anna")
    assert not Case(case.root).is_development
    correct(case, "Ben")
    assert Case(case.root).is_development
    assert not Case(case.root).file.development
    assert [step.name for step in steps_to_update(case, case_status(case))] == ["review"]
    _, record, err = told(capsys, "predict", case.root, "--json")
    assert record["development"] is True
    assert "shown before a correction" in err
    case = Case(case.root)
    assert case.file.development  # for good, whatever becomes of the journals
    assert case.store.read(METRICS)["development"] is True
    lines = (case.root / "journal" / "runs.jsonl").read_text().splitlines()
    (why,) = [one["reason"] for one in map(json.loads, lines) if one["event"] == "development"]
    assert why == "Ben corrected it after the error of the prediction had been shown to a reader"


@pytest.mark.parametrize("undone", [False, True])
def test_who_saw_the_errors_counts_and_what_was_undone_too(own_cohort, undone):
    from napari_mosaik.io.seen_uptake import seen_by
    from napari_mosaik.workflow.annotations import OpenAnnotations

    case = Case(own_cohort / "B8")
    correct(case, "Anna")
    case.note_shown("the review board", "Anna")
    case.note_shown("the report", "Anna")  # what came first stands
    assert {name: one["what"] for name, one in seen_by(case.root).items()} == {
        "Anna": "the review board"
    }
    with (case.root / "journal" / "runs.jsonl").open("a") as file:
        file.write('{"event": "measured uptake shown", "reader": "Ben"}\nmeasured uptake shown\n')
    correct(case, "Ben")  # another person, who saw nothing
    assert not case.is_development
    if undone:
        with OpenAnnotations(case, "Anna") as opened:
            opened.part.journal.undo_last()
    else:
        correct(case, "Anna")
    assert case.is_development


def test_a_manual_alignment_after_the_errors_makes_a_development_case(own_cohort):
    from napari_mosaik.workflow.given_alignment import (
        current_transform,
        reset_alignment,
        set_alignment,
    )

    case = Case(own_cohort / "B8")
    transform = current_transform(case, "pet")
    set_alignment(case, transform, "manual")
    assert not Case(case.root).is_development
    case.note_shown("the report")
    reset_alignment(case, "pet")
    assert Case(case.root).file.development


# --- the page -------------------------------------------------------------------------------------
@pytest.fixture
def queue(qtbot, dock, opened, own_cohort):
    """The page with the queue of B11 open for the reader Åsa."""
    opened(dock, own_cohort, layers=("H&E", "CD34", "CAIX"))
    qtbot.waitUntil(lambda: dock.workspace.tile_data.grid is not None)
    dock.workspace.reader = "Åsa"
    dock.tabs.setCurrentIndex(dock.review_tab)
    dock.queue_fold.set_open(True)
    start(qtbot, dock.queue)
    activate(dock)
    return dock.queue


def activate(dock):
    """Give the window the keyboard, as a window manager does; the tests run without one."""
    from qtpy.QtWidgets import QApplication

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what replaces it needs a manager
        QApplication.setActiveWindow(dock.viewer.window._qt_window)


def start(qtbot, panel):
    from qtpy.QtCore import Qt

    qtbot.mouseClick(panel.begin, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: panel.session is not None)


def journal(cohort):
    from napari_mosaik.core.journal import REVIEW, journal_of

    scan = journal_of(cohort / "B11", "Åsa")
    return list(scan.events(scan.active(REVIEW)))


@pytest.mark.gui
def test_the_queue_is_walked_with_keys_and_resumes(qtbot, dock, queue, own_cohort):
    import numpy as np
    from qtpy.QtCore import Qt

    from napari_mosaik.widgets.canvas.camera import centre_um

    keys, canvas = Qt.Key, dock.viewer.window._qt_viewer.canvas.native
    tiles = [item.tile for item in queue.session.queue.tiles]
    centres = dock.workspace.tile_data.grid.centres_um
    assert dock.view_tools.quad_view.is_on  # the place in all stains
    np.testing.assert_allclose(centre_um(dock.viewer), centres[tiles[0]], atol=1)
    assert queue.head.text().startswith(f"Tile 1 of {len(tiles)} · 0 judged")
    assert queue.reason.text()

    canvas.setFocus()
    qtbot.keyClick(canvas, keys.Key_A)
    assert [e["decision"] for e in journal(own_cohort) if "decision" in e] == ["accept"]
    assert dock.workspace.tile == tiles[1]
    np.testing.assert_allclose(centre_um(dock.viewer), centres[tiles[1]], atol=1)
    qtbot.keyClick(canvas, keys.Key_R)
    assert queue.session.judged[tiles[1]].decision == "reject"
    assert queue.session.judged[tiles[1]].seconds > 0
    qtbot.keyClick(canvas, keys.Key_N)
    assert dock.workspace.tile == tiles[3]
    qtbot.keyClick(canvas, keys.Key_P)
    qtbot.keyClick(canvas, keys.Key_P)
    assert dock.workspace.tile == tiles[1]
    assert "rejected" in queue.decided.text()
    qtbot.keyClick(canvas, keys.Key_U)
    assert dock.workspace.tile == tiles[1]
    assert list(queue.session.judged) == [tiles[0]]
    assert "No decision yet" in queue.decided.text()

    qtbot.keyClick(canvas, keys.Key_C)  # letters are text now, not decisions
    assert queue.comment.hasFocus()
    qtbot.keyClicks(queue.comment, "near a rupture, uncertain area")
    assert list(queue.session.judged) == [tiles[0]]
    assert dock.workspace.tile == tiles[1]
    qtbot.keyClick(queue.comment, keys.Key_Return)
    assert queue.session.comments == {tiles[1]: "near a rupture, uncertain area"}
    qtbot.keyClick(queue, keys.Key_A)  # the keys of the panel
    assert list(queue.session.judged) == tiles[:2]

    qtbot.mouseClick(queue.close_queue, Qt.MouseButton.LeftButton)
    assert queue.session is None
    qtbot.keyClick(canvas, keys.Key_A)  # means nothing without a queue
    start(qtbot, queue)
    assert dock.workspace.tile == tiles[2]
    assert list(queue.session.judged) == tiles[:2]
    assert "comment" in queue.list.item(1).text()
    queue.stop_below.setValue(20.0)
    assert queue.session.stop_below == pytest.approx(0.2)
    while queue.session.next_open() is not None:
        qtbot.keyClick(canvas, keys.Key_A)
    assert "Every tile has a decision" in queue.gain.text()
    assert "0 % (95 % interval 0 to 0 %)" in queue.rate.text()
    assert f"{len(tiles)} of {len(tiles)} tiles judged" in queue.rate.text()


@pytest.mark.gui
def test_edit_opens_the_annotation_tools_there_and_next_comes_back(qtbot, dock, queue):
    import numpy as np
    from qtpy.QtCore import Qt

    from napari_mosaik.widgets.canvas.camera import centre_um

    canvas = dock.viewer.window._qt_viewer.canvas.native
    tiles = [item.tile for item in queue.session.queue.tiles]
    centre = dock.workspace.tile_data.grid.centres_um[tiles[0]]
    canvas.setFocus()
    qtbot.keyClick(canvas, Qt.Key.Key_E)
    assert queue.session.judged[tiles[0]].decision == "edit"
    qtbot.waitUntil(lambda: dock.annotate.drawing.is_active)
    assert dock.tabs.currentIndex() == dock.annotate_tab
    assert f"Tile {tiles[0]} of the review queue" in dock.annotate.notice.text()
    np.testing.assert_allclose(centre_um(dock.viewer), centre, atol=1)
    qtbot.keyClick(canvas, Qt.Key.Key_A)  # no decision while a tool draws
    assert queue.session.judged[tiles[0]].decision == "edit"
    qtbot.keyClick(canvas, Qt.Key.Key_N)
    assert not dock.annotate.drawing.is_active
    assert dock.tabs.currentIndex() == dock.review_tab
    assert dock.workspace.tile == tiles[1]
    queue.marks.setChecked(True)
    marks = dock.board.layer("Review queue")
    assert len(marks.data) == len(tiles) - 1
    queue.marks.setChecked(False)
    assert dock.board.layer("Review queue") not in dock.viewer.layers
    four = dock.view_tools.quad_view  # each view keeps its slide
    qtbot.waitUntil(lambda: all(one.source in dock.viewer.layers for one in four._copies))


@pytest.mark.gui
def test_ranking_by_measured_uptake_is_asked_for_and_shown(qtbot, dock, queue, monkeypatch):
    from qtpy.QtCore import Qt

    asked = []
    monkeypatch.setattr(queue, "confirm_development", lambda _: bool(asked.append(1)))
    queue.stop()
    queue.ranking.setCurrentText("uptake")
    assert "development case" in queue.about.text()
    qtbot.mouseClick(queue.begin, Qt.MouseButton.LeftButton)
    assert asked == [1]
    assert queue.session is None
    case = dock.workspace.case
    assert not case.file.development
    monkeypatch.setattr(queue, "confirm_development", lambda _: True)
    start(qtbot, queue)
    assert case.file.development
    assert "optimistic" in queue.notice.text()
    qtbot.waitUntil(lambda: "Development case" in dock.review.badge.text())


@pytest.mark.gui
def test_a_class_map_that_is_withheld_is_on_no_layer_and_in_no_line(
    qtbot, dock, opened, own_cohort, monkeypatch
):
    from napari_mosaik.widgets.base import case_controller
    from napari_mosaik.widgets.pages.review import ReportButton
    from napari_mosaik.workflow.annotations import WithheldMap

    why, title = "The class map is hidden from Ben: because", "Tissue classes"
    withheld = WithheldMap({"Anna": "", "Ben": why}, ("Anna",))
    monkeypatch.setattr(case_controller, "withheld_class_map", lambda _: withheld)
    opened(dock, own_cohort)
    space, board, drawing = dock.workspace, dock.board, dock.annotate.drawing
    qtbot.waitUntil(lambda: space.tile_data.grid is not None)
    report = next(iter(dock.findChildren(ReportButton)))

    space.reader = "Anna"  # from whom nothing is hidden
    board.show_steps(("classes",))
    qtbot.waitUntil(lambda: board.layer(title) is not None and board.layer(title).visible)
    assert not drawing.why_not_mode("convert")
    assert report.push.isEnabled()
    assert "neoplastic" in space.tile_data.line(0)
    space.reader = "Ben"
    assert board.layer(title) is None
    assert not [n for n in board.specs if n == title or "eoplastic" in n or "tissue class" in n]
    assert space.results["classes"] == f"{why}."
    assert "neoplastic" not in space.tile_data.line(0)
    assert drawing.why_not_mode("convert") == why
    assert not report.push.isEnabled()
    assert why in report.line.text()
    board.show_steps(("classes",))  # a page cannot bring it back, and says why
    qtbot.waitUntil(lambda: space.problem is not None)
    assert why in space.problem.sentence
    space.reader = "Anna"
    qtbot.waitUntil(lambda: board.layer(title) is not None and board.layer(title).visible)
    assert "neoplastic" in space.tile_data.line(0)
    space.reader = ""  # nobody said who is reading
    assert board.layer(title) is None
    space.reader = "Eve"  # who has just given a name, and drawn nothing
    assert "hidden from Eve" in space.withheld
    assert board.layer(title) is None
    dock.controller.know_blind(frozenset())  # as after a review queue was begun or ended
    assert "hidden from Eve" in space.withheld


@pytest.mark.gui
def test_a_blind_queue_is_blind_on_the_screen_until_the_case_is_marked(
    qtbot, dock, queue, own_cohort, monkeypatch
):
    from qtpy.QtCore import Qt

    case, board, four = dock.workspace.case, dock.board, dock.view_tools.quad_view

    def seen():
        """Everything on the screen that shows or tells the measured uptake."""
        table = dock.inspector.table
        rows = [table.item(n, 0).text() for n in range(table.rowCount())]
        names = [*board.specs, *[layer.name for layer in dock.viewer.layers]]
        told = [*rows, *names, dock.workspace.tile_data.line(dock.workspace.tile)]
        return [text for text in told if "easured" in text or "PET, SUV" in text]

    assert queue.blind.isVisible()
    assert "hidden" in queue.blind.text()
    assert seen() == []
    assert [cell.heading for cell in four._cells][3] == "PET · hidden (blind)"
    assert dock.review.table.isHidden()
    errors = dock.review.worst  # only the selected tile, without a measured value or an error
    assert errors.rowCount() == 1
    assert not any(c.isdigit() for n in (1, 3) for c in errors.item(0, n).text())
    assert "hidden" in dock.review.badge.text()
    assert not dock.review.toggle.isEnabled()
    board.show_steps(("suv",))  # a page cannot bring it back, and says why
    qtbot.waitUntil(lambda: dock.workspace.problem is not None)
    assert "hidden until the review queue" in dock.workspace.problem.sentence
    dock.controller.refresh()
    qtbot.waitUntil(lambda: dock.controller._generation and not dock.controller._tasks)
    assert seen() == []

    monkeypatch.setattr(queue, "confirm_development", lambda _: False)
    qtbot.mouseClick(queue.show_pet, Qt.MouseButton.LeftButton)
    assert seen() == []
    assert not case.file.development
    monkeypatch.setattr(queue, "confirm_development", lambda _: True)
    qtbot.mouseClick(queue.show_pet, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not dock.workspace.blind)
    assert "development = true" in (case.root / "case.toml").read_text()
    assert "the PET was shown" in (case.root / "journal" / "runs.jsonl").read_text()
    qtbot.waitUntil(lambda: four._cells and four._cells[3].base is not None)
    assert any("measured" in text for text in seen())
    assert not queue.show_pet.isVisible()
    qtbot.waitUntil(lambda: "Development case" in dock.review.badge.text())
    queue.stop()
    start(qtbot, queue)
    assert not dock.workspace.blind  # a development case has nothing to hide


@pytest.mark.gui
def test_blindness_outlasts_the_page_and_ends_when_the_queue_is_finished(
    qtbot, dock, queue, own_cohort
):
    from types import SimpleNamespace

    import numpy as np
    from qtpy.QtCore import Qt

    space, page = dock.workspace, dock.pages["Registration"]
    page.set_open(True)
    align = page.panel
    queue.stop()
    assert space.blind
    assert space.tile_data.uptake is None
    assert queue.blind.isVisible()  # closed, the page still says so and offers the way out
    assert "hidden from Åsa" in queue.blind.text()
    assert queue.show_pet.isVisible()
    assert not any(space.results.get(step) for step in ("suv", "uptake", "sensitivity", "review"))
    assert not queue.finish.isVisible()
    for report in (dock.header.report, dock.review.report):
        assert not report.push.isEnabled()
        assert "PET is hidden" in report.line.text()
    align.target.setCurrentIndex(align.target.findData("pet"))
    assert not align.begin.isEnabled()
    assert "hidden" in align.message.text()
    align.start()
    qtbot.waitUntil(lambda: not dock.controller._tasks)
    assert align.alignment is None
    flat = np.ones(space.tile_data.n_tiles)
    record = {"score": {"old": 0.1}, "kind": "predictor"}
    made = SimpleNamespace(record=record, unit="g/mL", maps=(flat, flat))
    model = SimpleNamespace(
        hash="0123456789", record=lambda: {"method": "mosaik", "model": "0123456789"}
    )
    dock.models._compared(space.case, (model, model), made)
    assert "errors are hidden" in dock.models.message.text()
    dock.models.maps.leave()

    space.reader = "Bo"  # who has no blind queue
    assert not space.blind
    assert space.tile_data.uptake is not None
    assert "Measured SUV (body surface)" in dock.board.specs
    assert align.begin.isEnabled()
    space.reader = ""  # nobody said who is looking
    assert space.blind
    space.reader = "Åsa"
    assert space.blind

    start(qtbot, queue)
    assert not queue.finish.isEnabled()
    queue.stop_below.setValue(100.0)
    while not queue.session.may_finish:
        queue.decide("accept")
    qtbot.mouseClick(queue.finish, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not space.blind)
    assert "The queue is finished" in queue.notice.text()
    assert not queue.show_pet.isVisible()
    assert space.tile_data.uptake is not None
    assert not space.case.file.development
    assert journal(own_cohort)[-1]["event"] == "finished"
    start(qtbot, queue)  # what was finished stays so
    assert not queue.buttons["accept"].isEnabled()
    assert not space.blind


@pytest.mark.gui
def test_a_case_with_an_open_blind_queue_is_opened_blind(qtbot, dock, opened, own_cohort):
    from napari_mosaik.workflow.review_queue import QueueSession

    with QueueSession(Case(own_cohort / "B11"), "Åsa"):
        pass
    dock.workspace.reader = "Åsa"
    told = []
    dock.workspace.events.tile_data.connect(lambda data: told.append(data.uptake))
    opened(dock, own_cohort, layers=("H&E",))
    qtbot.waitUntil(lambda: "Tissue classes" in dock.board.specs)
    assert dock.workspace.blind
    assert dock.workspace.tile_data.uptake is None
    assert all(one is None for one in told)
    assert not any("easured" in name for name in dock.board.specs)


@pytest.mark.gui
def test_what_cannot_be_written_is_not_shown(qtbot, dock, queue, monkeypatch):
    def full(*_):
        raise InputError("nothing was changed: the disk is full")

    tile = queue.tile
    monkeypatch.setattr(queue.session.part.journal, "_write", full)
    assert not queue.decide("accept")
    assert queue.tile == tile
    assert queue.session.judged == {}
    assert "No decision yet" in queue.decided.text()
    assert "disk is full" in dock.workspace.problem.sentence


def test_the_window_tells_before_a_correction_that_it_makes_a_development_case(
    qtbot, dock, opened, own_cohort
):
    from qtpy.QtWidgets import QLabel

    from napari_mosaik.view.presentation import shows_pet, specs_of

    opened(dock, own_cohort, layers=("H&E", "CD34", "CAIX"))
    qtbot.waitUntil(lambda: dock.workspace.tile_data.metrics is not None)
    space, layers = dock.workspace, dock.board
    space.reader = "Anna"
    lines = [one for one in dock.findChildren(QLabel) if "development case" in one.text().lower()]
    assert not lines
    (picture,) = [spec for spec in specs_of(space.case, "suv") if shows_pet(spec)]
    layers.put(picture, visible=True)
    qtbot.waitUntil(lambda: "beside the slides" in space.development)
    layers.layer(picture.name).visible = False
    qtbot.waitUntil(lambda: space.development == "")
    dock.tabs.setCurrentIndex(dock.review_tab)  # shows the errors
    qtbot.waitUntil(lambda: "next annotation or correction" in space.development)
    lines = [one.text() for one in dock.findChildren(QLabel)]
    assert sum(f"⚠ {space.development}" == text for text in lines) == 2  # drawing, correcting
    assert not Case(space.case.root).is_development
    correct(space.case, "Anna")
    dock.controller.corrected()
    qtbot.waitUntil(lambda: space.development.startswith("Development case"))
    assert Case(space.case.root).file.development
    qtbot.waitUntil(lambda: "Development case" in dock.review.badge.text())
