"""Tab Review: predicted against measured uptake beside baselines, and the review queue.

Start ─► `QueueSession` (on a thread) ─► tile shown in all stains ─► decision ─► journal ─► list
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QMessageBox,
    QSlider,
    QTableWidget,
    QWidget,
)

from napari_mosaik.core import MosaikError
from napari_mosaik.core.catalogue import METRICS
from napari_mosaik.view.board import BOARD_TITLES, board_legends
from napari_mosaik.view.formatting import (
    count,
    decision_word,
    gain_line,
    rate_line,
    uptake_name,
)
from napari_mosaik.view.layers import QUEUE_TITLE, queue_layer
from napari_mosaik.view.report.content import write_case_report
from napari_mosaik.view.review_figures import REVIEW_FIGURES, ReviewFigure, tile_near
from napari_mosaik.view.tile_data import (
    badge_of,
    error_row,
    metric_rows,
    reference_rows,
    summary_of,
    tiles_by_error,
)
from napari_mosaik.widgets.base.controls import (
    button,
    clear,
    column,
    confirmed,
    fill_table,
    row,
    shrinkable,
    table_of,
    wrapped_label,
)
from napari_mosaik.widgets.base.figure_view import FigureView
from napari_mosaik.widgets.base.reader import ReaderField, with_reader
from napari_mosaik.widgets.canvas.keys import bind_widget_keys, key_text
from napari_mosaik.widgets.canvas.legend import legend_widget
from napari_mosaik.widgets.canvas.side_by_side import COMPARISONS, ReviewBoard
from napari_mosaik.workflow.review_queue import (
    RANKINGS,
    QueueSession,
    blind_readers,
    mark_development,
)
from napari_mosaik.workflow.steps import maker_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from napari_mosaik.core.journal import JournalChange
    from napari_mosaik.widgets.base.case_controller import CaseController
    from napari_mosaik.widgets.canvas.link import CanvasLink
    from napari_mosaik.workflow.review_queue import Decision

__all__ = ["BoardChoices", "QueuePanel", "ReportButton", "ReviewPanel"]

_TO_BOARD = "Show review board"
WORST = 30
"""So many tiles are listed by their error."""
SCOPE = "queue"
"""Scope of the keys of the review queue in the table of shortcuts."""
_MARKED = 60
"""So many places of the queue are marked on the slide."""


class ReviewPanel(QWidget):
    """Test status, errors, plot and worst tiles; tile, point and row share one selection."""

    def __init__(self, controller: CaseController, layout: ReviewBoard) -> None:
        super().__init__()
        self._controller = controller
        self.side_by_side = layout
        self.badge = wrapped_label(bold=True)
        self.toggle = button(_TO_BOARD, layout.toggle)
        self.toggle.setToolTip("Measured and predicted uptake on the canvas, with linked cameras")
        self.choices = BoardChoices(layout)
        self.report = ReportButton(controller, self.toggle)
        self.summary = wrapped_label(small=True)
        self.table = _table()
        header = self.table.horizontalHeader()
        assert header is not None
        header.sectionResized.connect(self._fit_rows)
        self.kind = shrinkable(QComboBox())
        self.kind.setToolTip("A click on a point selects its tile")
        self.kind.currentIndexChanged.connect(self._plot)
        self.plot = FigureView(self._clicked)
        self.plot.setMinimumHeight(270)
        self.worst = table_of(("Tile", "Measured", "Predicted", "Difference"), ("",) * 4, wide=3)
        self.worst.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.worst.setFixedHeight(176)
        self.worst.itemSelectionChanged.connect(self._row_chosen)
        self._ranked: list[int] = []
        self.change = wrapped_label()
        self.setLayout(
            column(
                self.badge,
                self.report,
                self.choices,
                self.change,
                self.table,
                self.summary,
                self.kind,
                self.plot,
                wrapped_label("Tiles with the largest errors, and the selected one", small=True),
                self.worst,
                1,
                margin=4,
                spacing=6,
            )
        )
        layout.changed.connect(self._layout_changed)
        events = controller.workspace.events
        events.tile_data.connect(self._show)
        events.states.connect(self._show)
        events.tile.connect(self._tile_chosen)
        events.change.connect(self._show_change)
        self._show()
        self._show_change()

    # --- showing --------------------------------------------------------------------------------
    def _layout_changed(self, shown: bool) -> None:
        self.toggle.setText("Back to layers" if shown else _TO_BOARD)
        self.choices.show_choices()

    def _show_change(self, *_: object) -> None:
        change = self._controller.workspace.change
        self.change.setVisible(change is not None)
        self.change.setText("" if change is None else "\n".join(change.lines))

    def _show(self, *_: object) -> None:
        tile_data = self._controller.workspace.tile_data
        ready = tile_data.measured() is not None and tile_data.predicted() is not None
        self.toggle.setEnabled(ready)
        self.choices.show_choices()
        state = self._controller.workspace.states.get(maker_of(METRICS).name)
        stale = state is not None and state.word == "stale"
        prefix = "↻ Stale: computed before the last change\n" if stale else ""
        self.badge.setText(prefix + badge_of(tile_data))
        # The interval takes a line of its own, so that the names of the methods keep their room.
        rows = [
            (*row[:-1], row[-1].replace(" (", "\n(") or "minus network\n(95 % interval)")
            for row in metric_rows(tile_data.metrics or {})
        ]
        self.table.setVisible(bool(rows))
        fill_table(self.table, rows, grey_rows=reference_rows(tile_data.metrics or {}))
        self._fit_rows()
        self.summary.setText(summary_of(tile_data))
        self._offer_figures()
        self._tile_chosen()
        self._tell_seen()

    def showEvent(self, event: Any) -> None:
        """The errors are on the screen."""
        super().showEvent(event)
        self._tell_seen()

    def _tell_seen(self) -> None:
        if self.isVisible() and self._controller.workspace.tile_data.metrics is not None:
            self._controller.saw_measured("the errors of the prediction")

    def _fit_rows(self, *_: object) -> None:
        """Long names of methods take two lines; the table is as high as its rows."""
        self.table.resizeRowsToContents()
        heights = [self.table.rowHeight(row) for row in range(self.table.rowCount())]
        self.table.setFixedHeight(26 + max(22, sum(heights)))

    def _plot(self, *_: object) -> None:
        self.plot.show_when_seen(self._figure)

    def _offer_figures(self) -> None:
        """The figures that the results allow; the one that was shown stays."""
        tile_data = self._controller.workspace.tile_data
        titles = [one.title for one in REVIEW_FIGURES if one.possible(tile_data)]
        if titles == [self.kind.itemText(i) for i in range(self.kind.count())]:
            return
        before = self.kind.currentText()
        blocked = self.kind.blockSignals(True)
        self.kind.clear()
        self.kind.addItems(titles)
        self.kind.setCurrentIndex(max(0, self.kind.findText(before)))
        self.kind.setVisible(bool(titles))
        self.kind.blockSignals(blocked)

    def _chosen_figure(self) -> ReviewFigure | None:
        title = self.kind.currentText()
        return next((one for one in REVIEW_FIGURES if one.title == title), None)

    def _figure(self) -> Figure | None:
        tile_data, tile = self._controller.workspace.tile_data, self._controller.workspace.tile
        chosen = self._chosen_figure()
        if chosen is None:
            return None
        return chosen.draw(tile_data, tile if 0 <= tile < tile_data.n_tiles else None)

    def _tile_chosen(self, *_: object) -> None:
        self._fill_worst()
        self._plot()

    def _fill_worst(self) -> None:
        """The tiles with the largest errors; the selected one among them, or below them."""
        space = self._controller.workspace
        self._ranked = tiles_by_error(space.tile_data, WORST)
        if 0 <= space.tile < space.tile_data.n_tiles and space.tile not in self._ranked:
            self._ranked.append(space.tile)
        blocked = self.worst.blockSignals(True)
        fill_table(self.worst, [error_row(space.tile_data, tile) for tile in self._ranked])
        if space.tile in self._ranked:
            place = self._ranked.index(space.tile)
            self.worst.selectRow(place)
            item = self.worst.item(place, 0)
            assert item is not None
            self.worst.scrollToItem(item)
        else:
            self.worst.clearSelection()
        self.worst.blockSignals(blocked)

    def _row_chosen(self) -> None:
        rows = {index.row() for index in self.worst.selectedIndexes()}
        if rows:
            self._choose(self._ranked[rows.pop()])

    # --- actions --------------------------------------------------------------------------------
    def _choose(self, tile: int) -> None:
        self._controller.workspace.tile = tile

    def _clicked(self, x: float, y: float) -> None:
        chosen = self._chosen_figure()
        if chosen is None:
            return
        tile = tile_near(chosen, self._controller.workspace.tile_data, x, y)
        if tile >= 0:
            self._choose(tile)


class BoardChoices(QWidget):
    """What the review board shows: which maps, in which unit, side by side or one over another."""

    def __init__(self, layout: ReviewBoard) -> None:
        super().__init__()
        self._board = layout
        self.maps = {key: QCheckBox(title) for key, title in BOARD_TITLES.items()}
        places = QGridLayout()
        places.setContentsMargins(0, 0, 0, 0)
        for place, (key, box) in enumerate(self.maps.items()):
            box.clicked.connect(partial(self._chosen, key))
            places.addWidget(box, *divmod(place, 2))
        self.unit = shrinkable(QComboBox())
        self.unit.addItems(["SUV", "normalised, 0 to 1"])
        self.unit.setToolTip("0 and 1 are the ends of the scale of the training tiles")
        self.unit.activated.connect(lambda place: layout.set_normalised(place == 1))
        self.smooth = QCheckBox("smoothed (IDW)")
        self.smooth.setToolTip("Interpolated between the tiles; the errors are those of the tiles")
        self.smooth.clicked.connect(layout.set_smoothed)
        self.comparison = shrinkable(QComboBox())
        self.comparison.addItems(list(COMPARISONS))
        self.comparison.setToolTip("Swipe and flicker compare the first two maps in one view")
        self.comparison.textActivated.connect(layout.compare)
        self.divider = QSlider(Qt.Orientation.Horizontal)
        self.divider.setRange(0, 100)
        self.divider.setToolTip(
            "The first map left of the divider, the second one right of it; the line on the "
            "picture can be dragged, too"
        )
        self.divider.valueChanged.connect(lambda value: layout.set_divider(value / 100))
        self._legends = column(spacing=2)
        self.setLayout(
            column(
                places,
                row(self.unit, self.smooth),
                row(self.comparison, self.divider),
                self._legends,
            )
        )
        layout.rearranged.connect(self.show_choices)
        layout.divided.connect(self._divided)

    def _divided(self) -> None:
        """The handle on the picture was moved."""
        blocked = self.divider.blockSignals(True)
        self.divider.setValue(round(100 * self._board.divider))
        self.divider.blockSignals(blocked)

    def _chosen(self, key: str) -> None:
        """Two maps are needed and four have room: then the box goes back."""
        keys = tuple(name for name, box in self.maps.items() if box.isChecked())
        if 2 <= len(keys) <= 4:
            self._board.choose(keys)
        else:
            self.maps[key].toggle()

    def show_choices(self) -> None:
        """Show what can be chosen, what is chosen, and the scale of each map."""
        board, known = self._board, self._board.maps()
        self.setVisible(board.is_on)
        shown = board.shown() if known else []
        chosen = [key for key in known if key in board.chosen] or [one.key for one in shown]
        for key, box in self.maps.items():
            box.setVisible(key in known)
            box.setChecked(key in chosen)
        self.unit.setItemText(0, uptake_name(board.workspace.tile_data.unit))
        self.unit.setCurrentIndex(int(board.normalised))
        self.smooth.setChecked(board.smoothed)
        self.comparison.setCurrentText(board.comparison)
        self.divider.setVisible(board.comparison == COMPARISONS[1])
        self.divider.setValue(round(100 * board.divider))
        clear(self._legends)
        for legend in board_legends(shown) if board.is_on else []:
            self._legends.addWidget(wrapped_label(legend.title, small=True))
            self._legends.addWidget(legend_widget(legend))


class ReportButton(QWidget):
    """Writes the report of the open case, opens it, and says where it is.

    *before* are buttons on the same row.
    """

    def __init__(self, controller: CaseController, *before: QWidget) -> None:
        super().__init__()
        self._controller = controller
        self.push = button(
            "Write report", self._write, "HTML report with figures, maps and all assumptions"
        )
        self.pdf = button("PDF", partial(self._write, "report.pdf"), "The same report as PDF pages")
        self.line = wrapped_label(small=True)
        self.setLayout(column(row(*before, self.push, self.pdf, 1), self.line, spacing=2))
        events = controller.workspace.events
        for signal in (events.case, events.blind, events.withheld):
            signal.connect(self._show_case)
        self._show_case()

    def _show_case(self, *_: object) -> None:
        space = self._controller.workspace
        for push in (self.push, self.pdf):
            push.setEnabled(space.case is not None and not (space.blind or space.withheld))
        hidden = f"{space.withheld}: no report, it shows the map." if space.withheld else ""
        self._say("No report while the PET is hidden: it shows the PET." if space.blind else hidden)

    def _say(self, text: str) -> None:
        self.line.setText(text)
        self.line.setVisible(bool(text))

    def _write(self, name: str = "report.html") -> None:
        case = self._controller.workspace.case
        if case is not None:
            self._say("Writing the report…")
            work = partial(write_case_report, case, case.root / name)
            self._controller.read_for(case, "Report", work, self._written)

    def _written(self, path: Path) -> None:
        self._controller.saw_measured("the report")
        seen = _open_report(path)
        self._say(f"Report: {path}" if seen else f"⚠ No program opened the report {path}")


def _table() -> QTableWidget:
    tips = (
        "",
        "Mean absolute error",
        "Coefficient of determination",
        "MAE minus that of the network, with its 95 % interval by blocks of tiles: above 0 the "
        "network is better",
    )
    table = table_of(("Method", "MAE", "R²", "Δ MAE"), tips, wide=0)
    table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
    table.setWordWrap(True)
    table.setToolTip(
        "Errors of the normalised SUV over all tiles, not clipped. Grey: knows the measured uptake "
        "of the neighbouring tiles, so it is a reference and no predictor"
    )
    return table


def _open_report(path: Path) -> bool:
    return bool(QDesktopServices.openUrl(QUrl.fromLocalFile(str(path))))


class QueuePanel(QWidget):
    """Leads a reader through the review queue, and records each decision.

    Keys act while the panel has the focus, and on the canvas while the queue is open.  On the
    canvas a drawing tool comes first: then only *Next* goes on with the queue.

    ``wanted`` is emitted when the selected tile is to be shown in all stains, ``to_edit`` when it
    is to be opened in the annotation tools, with a line that says how to go on.
    """

    wanted = Signal()
    to_edit = Signal(str)

    def __init__(self, link: CanvasLink) -> None:
        super().__init__()
        self._link, self._board, self._controller = link, link.board, link.board.controller
        self.session: QueueSession | None = None
        self.place = 0
        self._shown_at = 0.0
        self.ranking = shrinkable(QComboBox())
        self.ranking.addItems(list(RANKINGS))
        self.ranking.currentTextChanged.connect(self._ranking_chosen)
        self.about = wrapped_label(small=True)
        self.reader = ReaderField(self._controller)
        self.begin = button("Start the queue", self.start, "Starts or resumes your review")
        self.finish = button(
            "Finish", self._finish, "Ends the queue: decisions are kept, and the PET is shown"
        )
        self.close_queue = button(
            "Close", self.stop, "Every decision is saved; you can resume later"
        )
        self.head = wrapped_label(bold=True)
        self.blind = wrapped_label(small=True)
        self.show_pet = button(
            "Show the PET",
            self._show_pet,
            "Shows the measured uptake. The case becomes a development case permanently",
        )
        self.reason = wrapped_label()
        self.decided = wrapped_label(small=True)
        actions: dict[str, tuple[str, Callable[[], object], str]] = {
            "previous": ("Previous", partial(self.step, -1), "Shows the previous tile"),
            "next": ("Next", partial(self.step, 1), "Shows the next tile without a decision"),
            "accept": (
                "Accept",
                partial(self.decide, "accept"),
                "This tile is right",
            ),
            "reject": ("Reject", partial(self.decide, "reject"), "Something is wrong here"),
            "edit": ("Edit", self.edit, "Something is wrong: opens the annotation tools here"),
            "comment": ("Comment", self._to_comment, "Goes to the comment; Enter saves it"),
            "undo": ("Undo", self.undo, "Undoes your last action, also while editing"),
        }
        self.buttons = {
            name: button(f"{title} ({key_text(SCOPE, name)})", act, tip)
            for name, (title, act, tip) in actions.items()
        }
        self._actions = {name: act for name, (_, act, _) in actions.items()}
        opened = {name: self._if_open(act) for name, act in self._actions.items()}
        bind_widget_keys(self, SCOPE, opened)
        self.comment = QLineEdit()
        self.comment.setPlaceholderText("Comment on this tile, then Enter")
        self.comment.setMaxLength(500)
        self.comment.returnPressed.connect(self._commented)
        self.rate = wrapped_label(small=True)
        self.gain = wrapped_label(small=True)
        self.stop_below = QDoubleSpinBox()
        self.stop_below.setRange(0, 100)
        self.stop_below.setDecimals(1)
        self.stop_below.setSuffix(" %")
        self.stop_below.setKeyboardTracking(False)
        self.stop_below.setToolTip(
            "Stopping is proposed once the next tiles are expected to be wrong less often"
        )
        self.stop_below.valueChanged.connect(self._stop_changed)
        self.marks = QCheckBox("Mark the next tiles on the slide")
        self.marks.toggled.connect(self._mark)
        self.list = QListWidget()
        self.list.setUniformItemSizes(True)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setTextElideMode(Qt.TextElideMode.ElideRight)  # the tip has all of it
        self.list.setMinimumHeight(110)
        self.list.setMaximumHeight(170)
        self.list.itemClicked.connect(lambda item: self.go(self.list.row(item)))
        self.notice = wrapped_label(small=True)
        self._open = QWidget()
        self._open.setLayout(
            column(
                self.head,
                self.reason,
                self.decided,
                row(self.buttons["accept"], self.buttons["reject"], self.buttons["edit"], 1),
                row(self.buttons["previous"], self.buttons["next"], self.buttons["undo"], 1),
                row(self.comment, self.buttons["comment"]),
                self.list,
                self.marks,
                self.rate,
                self.gain,
                row(QLabel("Propose to stop below"), self.stop_below, 1),
                row(self.finish, self.close_queue, 1),
                1,  # takes the room that the labels would spread over
                spacing=6,
            )
        )
        self._build()

    def _build(self) -> None:
        self._before = QWidget()  # hidden while the queue is open: the dock is short of room
        self._before.setLayout(
            column(
                wrapped_label(
                    "Tiles in the order of their review priority, with random control "
                    "tiles among them. Each decision is saved at once.",
                    small=True,
                ),
                row(QLabel("Rank by"), self.ranking),
                self.about,
                row(QLabel("Reader"), self.reader),
                row(self.begin, 1),
                spacing=6,
            )
        )
        hidden = column(self.blind, row(self.show_pet, 1), spacing=6)
        self.setLayout(column(self._before, self._open, hidden, self.notice, spacing=6))
        events = self._controller.workspace.events
        events.blind.connect(self._show)
        for event in (events.case, events.reader):
            event.connect(self.stop)
        self._controller.committed.connect(self._results_changed)
        self._ranking_chosen()
        self._show()

    # --- beginning and ending -------------------------------------------------------------------
    def start(self) -> None:
        """Ask for the reader where none was given, then make or resume the queue on a thread."""
        self.reader.take()
        with_reader(self._controller, self, self._start)

    def _start(self) -> None:
        space = self._controller.workspace
        case, ranking, reader = space.case, self.ranking.currentText(), space.reader
        if case is None or not self.begin.isEnabled():
            return
        blind = RANKINGS[ranking].blind
        asked = "Ranking by the measured uptake makes"
        if not blind and not case.is_development and not self.confirm_development(asked):
            return
        self.stop()
        self.begin.setEnabled(False)
        self.notice.setText("Ranking the tiles…")

        def work() -> tuple[QueueSession, frozenset[str]]:
            return QueueSession(case, reader, ranking), blind_readers(case)

        def then(made: tuple[QueueSession, frozenset[str]]) -> None:
            session, readers = made
            if case is not space.case:
                session.close()
                return
            self._controller.know_blind(readers)
            if not blind:
                self._controller.refresh()  # the mark of a development case
            self._opened(session)

        task = self._controller.read(QUEUE_TITLE, work, then)
        task.failed.connect(self._not_opened)

    def confirm_development(self, asked: str) -> bool:
        """Ask before the measured uptake is used: it cannot be taken back."""
        return confirmed(
            self,
            "Development case",
            f"{asked} this a development case permanently: its prediction error is labelled "
            "optimistic everywhere. Continue?",
            QMessageBox.StandardButton.Yes,
        )

    def _show_pet(self) -> None:
        """Show the measured uptake after a question; the case is a development case from then on.

        The mark is in the case before anything is shown.
        """
        case, reader = self._controller.workspace.case, self._controller.workspace.reader
        if case is None or not self.confirm_development("Looking at the PET makes"):
            return
        self.show_pet.setEnabled(False)

        def then(_: object) -> None:
            self.show_pet.setEnabled(True)
            self._controller.know_blind(frozenset())
            self._controller.refresh()

        why = f"the PET was shown to {reader or 'a reader'} before the blind review queue was over"
        task = self._controller.read_for(
            case, QUEUE_TITLE, partial(mark_development, case, why), then
        )
        task.failed.connect(lambda _: self.show_pet.setEnabled(True))

    def _finish(self) -> None:
        """End the queue that is done; its reader may see the PET from then on."""
        session, case = self.session, self._controller.workspace.case
        if case is None or not self._written(lambda session: session.finish()):
            return
        assert session is not None
        words = "\n".join(["The queue is finished.", rate_line(session.rate)])
        self.stop()
        self.notice.setText(words)
        self._controller.read_for(
            case, QUEUE_TITLE, partial(blind_readers, case), self._controller.know_blind
        )

    def _not_opened(self, *_: Any) -> None:
        self.notice.setText("")
        self.begin.setEnabled(True)
        self._show()

    def _opened(self, session: QueueSession) -> None:
        self.begin.setEnabled(True)
        self.session = session
        self.notice.setText("\n".join(f"⚠ {text}" for text in session.warnings))
        self.list.clear()
        self.list.addItems([""] * len(session.queue.tiles))
        for place in range(len(session.queue.tiles)):
            self._fill(place)
        self.stop_below.blockSignals(True)
        self.stop_below.setValue(100 * session.stop_below)
        self.stop_below.blockSignals(False)
        self._link.keys.bind(
            SCOPE, {name: partial(self._on_canvas, name) for name in self._actions}
        )
        session.part.follow(self._moved)  # undo is of this thread
        first = session.next_open()
        self.go(0 if first is None else first)

    def stop(self, *_: Any) -> None:
        """Close the queue; every decision stays on record, and what was hidden stays hidden."""
        if self.session is not None:
            self._link.keys.release(SCOPE)
            self.session.close()
        self.session = None
        self.marks.setChecked(False)
        self.notice.setText("")
        self._show()

    def _results_changed(self, _step: str) -> None:
        if self.session is not None:
            self.notice.setText(
                "⚠ Results have changed since this queue was made; start it again for a new order"
            )

    # --- what a reader does ---------------------------------------------------------------------
    def _if_open(self, act: Callable[[], object]) -> Callable[[], None]:
        def acted() -> None:
            if self.session is not None:
                act()

        return acted

    def _on_canvas(self, name: str) -> None:
        """A key on the canvas; while a tool is active only *Next* goes on with the queue."""
        tool = self._link.active_tool
        if tool is not None:
            if name != "next":
                return
            tool.release()
        self._actions[name]()

    @property
    def tile(self) -> int:
        """Index of the tile that is shown; -1 without a queue."""
        return -1 if self.session is None else self.session.queue.tiles[self.place].tile

    def go(self, place: int) -> None:
        """Show one place of the queue in all stains."""
        if self.session is None:
            return
        self.place = place
        self._shown_at = time.monotonic()
        self.comment.setText(self.session.comments.get(self.tile, ""))
        self.list.setCurrentRow(place)
        self._controller.workspace.tile = self.tile
        self._show()
        self.wanted.emit()

    def step(self, by: int) -> None:
        """The tile before, or the next one without a decision (the next one when all have one)."""
        if self.session is None:
            return
        n = len(self.session.queue.tiles)
        place = self.session.next_open(self.place) if by > 0 else None
        self.go(max(0, min(n - 1, self.place + by)) if place is None else place)

    def decide(self, decision: Decision, *, go_on: bool = True) -> bool:
        """Record a decision on the tile that is shown, then show the next one."""
        seconds = time.monotonic() - self._shown_at
        if not self._written(lambda session: session.decide(self.tile, decision, seconds)):
            return False
        if go_on:
            self.step(1)
        return True

    def edit(self) -> None:
        """Record that the tile is wrong, and open the annotation tools on it."""
        if self.decide("edit", go_on=False):
            key = key_text(SCOPE, "next")
            self.to_edit.emit(
                f"Tile {self.tile} of the review queue: correct it, then press {key} on the "
                "picture to continue with the queue."
            )

    def undo(self) -> None:
        """Undo what the reader did last, here or while editing, and show its tile."""
        undone: list[tuple[str, int | None]] = []
        if not self._written(lambda session: undone.append(session.undo())):
            return
        assert self.session is not None
        title, tile = undone[0]
        self.notice.setText(f"Undone: {title}" if title else "There is nothing to undo.")
        place = self._place_of(tile)
        if place is not None:
            self.go(place)

    def _place_of(self, tile: int | None) -> int | None:
        tiles = self.session.queue.tiles if self.session is not None else ()
        return next((n for n, item in enumerate(tiles) if item.tile == tile), None)

    def _moved(self, change: JournalChange) -> None:
        """Show what was undone or redone, here or in another view."""
        place = self._place_of(change.event.get("tile"))
        if change.kind == "append" or self.session is None:
            return
        if place is not None:
            self._fill(place)
        if place == self.place:
            self.comment.setText(self.session.comments.get(self.tile, ""))
        self._show()
        self._mark()

    def _to_comment(self) -> None:
        self.comment.setFocus()
        self.comment.selectAll()

    def _commented(self) -> None:
        text = self.comment.text()
        if self._written(lambda session: session.comment(self.tile, text)):
            self.buttons["next"].setFocus()  # the keys are those of the queue again

    def _stop_changed(self, percent: float) -> None:
        self._written(lambda session: session.set_stop(percent / 100))

    def _written(self, write: Callable[[QueueSession], object]) -> bool:
        """Write to the journal, then show it; an error is shown instead and nothing changes."""
        if self.session is None:
            return False
        try:
            write(self.session)
        except MosaikError as error:
            self._controller.report(error, QUEUE_TITLE)
            return False
        self._fill(self.place)
        self._show()
        self._mark()
        return True

    # --- showing --------------------------------------------------------------------------------
    def _ranking_chosen(self, *_: Any) -> None:
        self.about.setText(RANKINGS[self.ranking.currentText()].about)

    def _fill(self, place: int) -> None:
        """The line of one place in the list."""
        session, line = self.session, self.list.item(place)
        if session is None or line is None:
            return
        item = session.queue.tiles[place]
        judged = session.judged.get(item.tile)
        parts = [f"{item.rank} · tile {item.tile}", decision_word(judged)]
        if judged is not None and item.control:  # told afterwards: it must not sway the reader
            parts.append("control")
        if item.tile in session.comments:
            parts.append("comment")
        line.setText(" · ".join([*filter(None, parts), item.reason]))
        line.setToolTip(item.reason)

    def _show(self) -> None:
        session = self.session
        opened = session is not None
        self._open.setVisible(opened)
        self._before.setVisible(not opened)
        space = self._controller.workspace
        for widget in (self.blind, self.show_pet):
            widget.setVisible(space.blind)
        who = f" from {space.reader}" if space.reader else ""
        self.blind.setText(
            f"The PET, the measured uptake and the errors are hidden{who}, on every page, until "
            "this blind queue is finished. Closing it does not show them."
        )
        if session is None:
            return
        item, n = session.queue.tiles[self.place], len(session.queue.tiles)
        done = len(session.judged)
        pace = "" if session.seconds is None else f" · {session.seconds:.0f} s per tile"
        self.head.setText(f"Tile {item.rank} of {n} · {done} judged{pace}")
        self.reason.setText(f"{item.reason[:1].upper()}{item.reason[1:]}.")
        judged = session.judged.get(item.tile)
        for name in ("accept", "reject", "edit", "undo"):
            self.buttons[name].setEnabled(not session.finished)
        self.stop_below.setEnabled(not session.finished)
        self.finish.setEnabled(session.may_finish and not session.finished)
        words = "No decision yet" if judged is None else f"You: {decision_word(judged)}"
        if judged is not None and item.control:
            words += "; a random control tile"
        self.decided.setText(words)
        self.buttons["previous"].setEnabled(self.place > 0)
        self.rate.setText(rate_line(session.rate))
        self.gain.setText(
            "This queue is finished; with new results a new one begins."
            if session.finished
            else gain_line(session.gain, session.may_stop, n - done)
        )

    def _mark(self, *_: Any) -> None:
        """Rings with their places around the next tiles without a decision."""
        session, grid = self.session, self._controller.workspace.tile_data.grid
        shown = self.marks.isChecked() and session is not None and grid is not None
        items = (
            [item for item in session.queue.tiles if item.tile not in session.judged][:_MARKED]
            if shown and session is not None
            else []
        )
        if items and grid is not None:
            spec = queue_layer(items, grid)
            self._remove(spec.name)  # its texts cannot be replaced
            self._board.put(spec, visible=True)
            self.marks.setText(f"{count(len(items), 'tile')} marked on the slide")
        else:
            self._remove(QUEUE_TITLE)
            self.marks.setText("Mark the next tiles on the slide")

    def _remove(self, name: str) -> None:
        layer = self._board.layer(name)
        if layer is not None and layer in self._board.viewer.layers:
            self._board.viewer.layers.remove(layer)
