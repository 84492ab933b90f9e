"""Manual correction of vessels, nuclei, tissue masks and artefacts, with undo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QComboBox, QLabel, QListWidget, QListWidgetItem, QWidget

from napari_mosaik.core import MosaikError, palette
from napari_mosaik.core.catalogue import REFERENCE, VESSELS
from napari_mosaik.core.corrections import CORRECTED_FRAMES, describe_correction
from napari_mosaik.core.journal import JournalChange, ReaderJournal
from napari_mosaik.view.case_results import transform_to_reference
from napari_mosaik.view.formatting import count, duration
from napari_mosaik.view.layers import LAYER_TITLES
from napari_mosaik.view.objects import (
    CorrectionState,
    area_lines,
    correction_state,
    object_lines,
    outline_lines,
)
from napari_mosaik.widgets.base.controls import button, column, row, wrapped_label
from napari_mosaik.widgets.base.reader import ReaderField, development_line, with_reader
from napari_mosaik.widgets.canvas.active_tool import ToolMode
from napari_mosaik.widgets.canvas.camera import look_at
from napari_mosaik.widgets.canvas.keys import CANVAS, key_text
from napari_mosaik.widgets.canvas.link import square_lines
from napari_mosaik.widgets.canvas.path_tool import PathTool
from napari_mosaik.workflow.corrections import open_corrections, outlined_correction

if TYPE_CHECKING:
    from napari_mosaik.core import Transform
    from napari_mosaik.widgets.canvas.link import CanvasLink
    from napari_mosaik.workflow.corrections import CorrectionLog, CorrectionSession, SelectedObject
    from napari_mosaik.workflow.segmentation_qa import PlaceToCorrect

__all__ = ["CHOSEN", "FOUND", "GONE", "MADE", "SOUGHT", "CorrectPanel"]

CHOICES = {
    LAYER_TITLES[what]: what for what in sorted(CORRECTED_FRAMES, key=list(LAYER_TITLES).index)
}
"""What can be corrected: title, which is also the name of its layer, and name."""
CHOSEN, MADE, GONE = "Selected object", "Edited manually", "Removed manually"
SOUGHT, FOUND = "Tile with missed objects", "Found here"
_SUGGESTED = ("", "artery", "vein", "tumour", "immune", "not sure")
_VIEW = 10.0
"""The picture is about this many objects wide."""
_TOOLS = {"tissue": ("add", "cut"), "artefacts": ("flag", "clear")}
"""The tools of each kind of mask; objects have the others."""
_START = {
    "": f"Choose 'Select object' (key {key_text(CANVAS, 'correct')}), then click an object; "
    "'Add missed object' to draw one, 'Find here' to search an area again.",
    "tissue": "Choose 'Add to tissue mask' or 'Remove from tissue mask'.",
    "artefacts": "Choose the artefact type and 'Mark artefact', or 'Clear artefact'.",
}


class CorrectTool(PathTool):
    """Clicks on objects, lines across them, and outlines of regions."""

    name = "correction"
    modes = {  # noqa: RUF012
        "select": ToolMode("Select object", "Click an object. Drag to pan.", pans=True),
        "merge": ToolMode("Merge", "Click the object to merge with.", pans=True),
        "draw": ToolMode("Add missed object", "Drag around an object that has no outline."),
        "find": ToolMode(
            "Find here",
            "Drag around an area with missed objects; it is searched with a lower threshold.",
        ),
        "split": ToolMode("Split", "Drag a line across the object, from outside to outside."),
        "add": ToolMode("Add to tissue mask", "Drag around tissue that is missing from the mask."),
        "cut": ToolMode(
            "Remove from tissue mask", "Drag around the region to remove from the tissue mask."
        ),
        "flag": ToolMode(
            "Mark artefact",
            "Drag around the artefact; it is excluded from the tissue and from all measurements.",
        ),
        "clear": ToolMode(
            "Clear artefact", "Drag around a region that was wrongly marked as artefact."
        ),
    }

    def __init__(self, link: CanvasLink) -> None:
        super().__init__(link)
        self.edits: dict[str, Callable[[], Any]] = {}
        """What its keys do beside ending it."""

    def actions(self) -> Mapping[str, Callable[[], Any]]:
        """Keys of the edits, and Escape."""
        return {**self.edits, "end": self.release}


class CorrectPanel(QWidget):
    """The selected object with its measurements, the tools, and the list of corrections."""

    def __init__(self, link: CanvasLink) -> None:
        super().__init__()
        self._link, self._board, self._controller = link, link.board, link.board.controller
        self.tool = link.tool(CorrectTool)
        self.session: CorrectionSession | CorrectionLog | None = None
        self.selected: SelectedObject | None = None
        self._transform: Transform | None = None
        self._busy = False
        self._early: list[Callable[[], None]] = []
        """What was clicked or drawn before the record was open."""
        self._waiting: list[tuple[Callable[[Any], Any], Any]] = []
        """What came while a correction was being stored."""
        self._state: CorrectionState | None = None
        self._places: list[PlaceToCorrect] = []
        self._place = 0
        self.previous = button("Previous", lambda: self._visit(self._place - 1))
        self.next = button("Next", lambda: self._visit(self._place + 1))
        self.place_line = wrapped_label()
        self._walk = _group(row(self.previous, self.next, self.place_line))
        self.target = QComboBox()
        self.target.addItems(list(CHOICES))
        self.reader = ReaderField(self._controller)
        self.buttons = {
            name: button(mode.title, partial(self.toggle, name), mode.hint)
            for name, mode in CorrectTool.modes.items()
        }
        from napari_mosaik.workflow.corrections import ARTEFACT_TYPES

        self.kind = QComboBox()
        self.kind.addItems(ARTEFACT_TYPES)
        self.kind.setToolTip("Artefact type")
        self.card = wrapped_label()
        self.delete = button("Delete", self.remove, "Key Delete")
        self.word = QComboBox()
        self.word.setEditable(True)
        self.word.addItems(list(_SUGGESTED))
        self.set_word = button("Set class", self._set_class, "Any word; empty clears the class")
        self.take = button("Add", lambda: self._take_found(True), "Add what was found here")
        self.drop = button("Discard", lambda: self._take_found(False))
        self.offer = wrapped_label()
        self._found = _group(row(self.offer, self.take, self.drop))
        self.undo = button("Undo", lambda: self._move(ReaderJournal.undo_last), "Ctrl+Z")
        self.redo = button("Redo", lambda: self._move(ReaderJournal.redo_last), "Ctrl+Shift+Z")
        self.update_button = button("Update here", self._controller.update)
        self.update_all = button("Update all", lambda: self._controller.update(everything=True))
        self.changed = wrapped_label(small=True)
        self.hint, self.counted = wrapped_label(small=True), wrapped_label(small=True)
        self.list = QListWidget()
        self.list.setMaximumHeight(130)
        self.list.setWordWrap(True)
        self.list.itemActivated.connect(self._look)
        self.list.itemClicked.connect(self._look)
        self.tool.edits = {
            "delete": self.remove,
            "undo": self.undo.click,
            "redo": self.redo.click,
        }
        self._build()
        self._connect()
        self._show()

    def _build(self) -> None:
        self._objects = _group(
            column(
                self.card,
                row(self.delete, self.buttons["split"], self.buttons["merge"], 1),
                row(QLabel("Class"), self.word, self.set_word),
            )
        )
        self.setLayout(
            column(
                wrapped_label(
                    "Correct errors of the segmentation. Each correction is saved at once and "
                    "takes effect with the next update; the automatic result is kept.",
                    small=True,
                ),
                row(self.target, QLabel("Reader"), self.reader),
                development_line(self._controller),
                row(*(self.buttons[name] for name in ("select", "draw", "add", "cut")), 1),
                row(self.buttons["find"], 1),
                self._found,
                row(self.kind, self.buttons["flag"], self.buttons["clear"], 1),
                self._walk,
                self.hint,
                self._objects,
                row(self.undo, self.redo, 1),
                self.counted,
                self.list,
                row(self.update_button, self.update_all, 1),
                self.changed,
                spacing=6,
            )
        )

    def _connect(self) -> None:
        self.target.currentTextChanged.connect(self.stop)
        self.tool.changed.connect(self._show)
        self.tool.clicked.connect(self._clicked)
        self.tool.drawn.connect(self._drawn)
        self._controller.committed.connect(self._committed)
        events = self._controller.workspace.events
        events.case.connect(self.stop)
        events.reader.connect(self._reader_given)
        for signal in (events.states, events.job, events.waiting, events.change):
            signal.connect(self._show)
        self._link.keys.bind(CANVAS, {"correct": lambda: self.toggle(self._tools()[0])})

    # --- beginning and ending -------------------------------------------------------------------
    @property
    def name(self) -> str:
        """What is corrected: "vessels", "nuclei", "tissue_cd34"..."""
        return CHOICES[self.target.currentText()]

    def _mask(self) -> str:
        """The kind of mask that is corrected: "tissue", "artefacts", or empty for objects."""
        kind = self.name.partition("_")[0]
        return kind if kind in _TOOLS else ""

    def _tools(self) -> tuple[str, ...]:
        return _TOOLS.get(self._mask(), ("select", "draw", "find", "split", "merge"))

    def toggle(self, mode: str) -> None:
        """Start a tool, or end it when it is active."""
        if mode in ("split", "merge") and self.selected is None:
            return
        if mode not in self._tools():
            return
        if self.tool.mode == mode:
            if mode in ("split", "merge"):
                self.tool.take("select")
            else:
                self.tool.release()
            return
        if self.session is None:
            self.start(mode)
        else:
            self.tool.take(mode)

    def start(self, mode: str = "select") -> None:
        """Ask for the reader where none was given, then open the record and start the tool."""
        self.reader.take()
        with_reader(self._controller, self, partial(self._start, mode))

    def _start(self, mode: str) -> None:
        case = self._controller.workspace.case
        if case is None or self._busy:
            return
        target, frame = self.name, CORRECTED_FRAMES[self.name]
        reader = self._controller.workspace.reader
        self.tool.take(mode)  # at once: what is drawn before the record is open is kept
        self._board.show_slide(frame)
        self._busy = True

        def work() -> Any:
            session = open_corrections(case, target, reader)
            return (
                case,
                session,
                transform_to_reference(case, frame),
                correction_state(session, None),
            )

        task = self._controller.read("Correction", work, self._opened)
        task.failed.connect(self._not_opened)

    def _not_opened(self, *_: Any) -> None:
        self._busy = False
        self.stop()

    def _opened(self, answer: tuple[Any, ...]) -> None:
        self._busy = False
        case, session, self._transform, state = answer
        if case is not self._controller.workspace.case or session.log.what != self.name:
            session.close()
            return
        self.session = session
        session.log.part.follow(self._followed)  # undo is of this thread
        self._board.set_shown(LAYER_TITLES[self.name], True)
        self._show_state(state)
        early, self._early = self._early, []
        for act in early:
            act()

    def _unlock(self, *_: Any) -> None:
        self._busy = False
        self._next()

    def stop(self, *_: Any) -> None:
        """End the tool and close the record; all corrections are kept."""
        self.tool.release()
        if self.session is not None:
            self.session.close()
        self.session, self.selected, self._state = None, None, None
        self._early.clear()
        self._waiting.clear()
        self._places = []
        for name in (CHOSEN, MADE, GONE, SOUGHT, FOUND):
            self.tool.lines.hide(name)
        self._show()

    def shut(self) -> None:
        """Leave the viewer as it was found; called when the window closes."""
        self.stop()

    def _reader_given(self, name: str) -> None:
        if self.session is not None and name != self.session.log.reader:
            self.stop()

    def _committed(self, step: str) -> None:
        """The segmentation was run again: open the record on the new result."""
        if self.session is not None and step == self.name:
            mode = self.tool.mode
            self.stop()
            self.start(mode)

    # --- acting ---------------------------------------------------------------------------------
    def _clicked(self, place: Any) -> None:
        if self.session is None:
            self._early.append(partial(self._clicked, place))
            return
        at = self._on_section([place])[0]
        if self.tool.mode == "merge" and self.selected is not None:
            one = self.selected
            self._act(lambda session: session.merge_with(one, at))
        elif self.tool.mode == "select":
            self._act(lambda session: None, at)

    def _drawn(self, path: Any) -> None:
        if self.session is None:
            self._early.append(partial(self._drawn, path))
            return
        points, mode, chosen = self._on_section(path), self.tool.mode, self.selected
        if mode == "split" and chosen is not None:
            self._act(lambda session: session.split(chosen, points))
        elif mode == "find":
            self.hint.setText("Looking…")
            self._act(lambda session: session.find_inside(points))
        elif mode in self._tools():
            word = self.kind.currentText() if mode == "flag" else ""
            middle = tuple(np.mean(points, axis=0)) if mode == "draw" else None
            self._act(lambda session: session.add(outlined_correction(mode, points, word)), middle)

    # --- what visual QA found -------------------------------------------------------------------
    def correct_these(self, title: str, places: list[PlaceToCorrect]) -> None:
        """Lead through places in the objects with this title, one after the other."""
        if self.session is None or self.target.currentText() != title:
            self.stop()
            self.target.setCurrentText(title)
            self.start()
        self._places = places
        self._visit(0)

    def _visit(self, number: int) -> None:
        """Show one of the places, and select its object or take the tool that adds one."""
        if self.session is None:
            self._early.append(partial(self._visit, number))
            return
        if not 0 <= number < len(self._places):
            return
        self._place, to = number, self._places[number]
        where = np.array([to.place_um])
        if to.frame != REFERENCE and self._transform is not None:
            where = self._transform.apply(where)
        wide = to.size_um * (1.6 if to.missed else _VIEW)
        look_at(self.tool.viewer, where[0], min(self.tool.viewer.canvas.size) / wide)
        square = square_lines(where[0], to.size_um) if to.missed else ()
        self.tool.lines.show(SOUGHT, square, palette.TISSUE, 2.0)
        self.tool.take("draw" if to.missed else "select")
        self.selected = None
        self._act(lambda session: None, None if to.missed else to.place_um)

    def _take_found(self, wanted: bool) -> None:
        """Add what was found, or forget it."""
        self._act(lambda session: session.take_found(wanted))

    def remove(self) -> None:
        """Delete the selected object."""
        chosen = self.selected
        if chosen is not None:
            self._act(lambda session: session.delete(chosen))

    def _set_class(self) -> None:
        chosen, word = self.selected, self.word.currentText()
        if chosen is not None:
            self._act(lambda session: session.set_class(chosen, word), chosen.place_um)

    def _move(self, move: Callable[[ReaderJournal], Any]) -> None:
        """Undo or redo what the reader did last, here or in another view."""
        if self.session is None:
            return
        try:
            move(self.session.log.part.journal)
        except MosaikError as error:
            self._controller.report(error, "Correction")

    def _followed(self, change: JournalChange) -> None:
        """Show what was undone or redone; an own correction is shown already."""
        if change.kind != "append":
            self._act(lambda session: None)

    def _act(self, act: Callable[[Any], Any], at: Any = None) -> None:
        """Change the session in the background, then select the object at a position."""
        session = self.session
        if session is None:
            return
        if self._busy:
            self._waiting.append((act, at))
            return
        self._busy = True
        kept = self.selected.place_um if self.selected is not None and at is None else at

        def work() -> CorrectionState:
            try:
                act(session)
                return correction_state(session, kept)
            except MosaikError as error:
                return correction_state(session, kept, str(error))

        task = self._controller.read("Correction", work, self._acted)
        task.failed.connect(self._unlock)

    def _acted(self, state: CorrectionState) -> None:
        self._busy = False
        if self.session is None:
            return
        if self._state is not None and state.corrections != self._state.corrections:
            self._controller.corrected()
            self._controller.refresh()
            self._board.show_by_hand()
        if self.tool.mode in ("split", "merge") and not state.failed:
            self.tool.take("select")
        self._show_state(state)
        self._next()

    def _next(self) -> None:
        """Do what came meanwhile."""
        if self._waiting and not self._busy:
            self._act(*self._waiting.pop(0))

    def _on_section(self, points: Any) -> Any:
        """Positions on the reference section as (row, column) on the section of the objects, µm."""
        found = np.asarray(points, float)
        if self._transform is not None:
            found = self._transform.inverse().apply(found)
        return [(float(row), float(col)) for row, col in found]

    # --- showing --------------------------------------------------------------------------------
    def _show_state(self, state: CorrectionState) -> None:
        self._state, self.selected = state, state.selected
        outline = np.zeros((0, 2, 2))
        if state.selected is not None:
            outline = outline_lines(state.selected.mask, state.selected.lattice)
            self.word.setCurrentText(state.selected.class_name)
        found = np.concatenate(
            [np.zeros((0, 2, 2)), *(area_lines(one.area_wkt) for one in state.found)]
        )
        for name, lines, colour, width in (
            (MADE, state.made, palette.TISSUE, 2.0),
            (GONE, state.gone, palette.REMOVED_OBJECT, 4.0),
            (FOUND, found, palette.SELECTED_OBJECT, 3.0),
            (CHOSEN, outline, palette.SELECTED_OBJECT, 5.0),
        ):
            self.tool.lines.show(name, self._to_reference(lines), colour, width)
        self.tool.lines.bring_up(CHOSEN)
        self.list.clear()
        for number, one in reversed([*enumerate(state.corrections)]):
            lost = f"  ⚠ {state.lost[number]}" if number in state.lost else ""
            item = QListWidgetItem(f"{describe_correction(one)} ({one.reader}){lost}")
            item.setData(256, one)
            self.list.addItem(item)
        self._show()

    def _to_reference(self, lines: Any) -> Any:
        if self._transform is None or not len(lines):
            return lines
        starts = self._transform.apply(lines[:, 0])
        return np.stack([starts, self._transform.apply(lines.sum(axis=1)) - starts], axis=1)

    def _look(self, item: QListWidgetItem) -> None:
        one = item.data(256)
        place = one.places_um[0] if one.places_um else area_lines(one.area_wkt)[0, 0]
        if self._transform is not None:
            place = self._transform.apply([place])[0]
        look_at(self.tool.viewer, place)

    def _show(self, *_: Any) -> None:
        space, mode, state = self._controller.workspace, self.tool.mode, self._state
        mask, tools = self._mask(), self._tools()
        for name, made in self.buttons.items():
            made.setVisible(name in tools)
            made.setCheckable(True)
            made.setChecked(mode == name)
            made.setEnabled(space.case is not None)
        self.kind.setVisible("flag" in tools)
        n, many = len(self._places), self.target.currentText().lower()
        self._walk.setVisible(n > 0 and self.session is not None)
        self.previous.setEnabled(self._place > 0)
        self.next.setEnabled(self._place < n - 1)
        if n:
            missed = self._places[self._place].missed
            what = f"a tile with {missed} missed {many}" if missed else "judged wrong"
            self.place_line.setText(f"{self._place + 1} of {n}: {what}")
        self._objects.setVisible(self.selected is not None)
        n_found = 0 if state is None else len(state.found)
        self._found.setVisible(n_found > 0)
        self.offer.setText(f"{n_found} found with a lower threshold" if n_found else "")
        self.card.setText(self._card())
        hint = self.tool.hint or _START[mask]
        self.hint.setText(f"⚠ {state.failed}" if state is not None and state.failed else hint)
        self.undo.setEnabled(state is not None and bool(state.undo))
        self.redo.setEnabled(state is not None and bool(state.redo))
        self.undo.setToolTip(f"Ctrl+Z. {state.undo}" if state and state.undo else "Ctrl+Z")
        self.redo.setToolTip(
            f"Ctrl+Shift+Z. {state.redo}" if state and state.redo else "Ctrl+Shift+Z"
        )
        self.counted.setVisible(state is not None)
        self.list.setVisible(state is not None and bool(state.corrections))
        if state is not None:
            lost = f", {len(state.lost)} without an object" if state.lost else ""
            self.counted.setText(f"{count(len(state.corrections), 'correction')}{lost}")
        waiting = space.waiting
        for made, titles, seconds, what in (
            (self.update_button, waiting.here, waiting.here_s, "the corrections have changed"),
            (self.update_all, waiting.everything, waiting.everything_s, "is missing or stale"),
        ):
            made.setEnabled(bool(titles) and space.job is None)
            made.setToolTip(
                f"Recomputes what {what}, about {duration(seconds)}: {', '.join(titles)}"
                if titles
                else "Everything is up to date"
            )
        expected = [
            f"{made.text()}: {count(len(titles), 'step')}, about {duration(seconds)}."
            for made, titles, seconds in (
                (self.update_button, waiting.here, waiting.here_s),
                (self.update_all, waiting.everything, waiting.everything_s),
            )
            if titles
        ]
        lines = space.change.lines if space.change is not None else ()
        self.changed.setText("\n".join([*expected, *lines]))
        self.changed.setVisible(bool(expected or lines))

    def _card(self) -> str:
        chosen = self.selected
        if chosen is None:
            return ""
        centre = np.array([chosen.centroid_um])
        if self._transform is not None:
            centre = self._transform.apply(centre)
        tile = self._controller.workspace.tile_data.tile_at(
            (float(centre[0, 0]), float(centre[0, 1]))
        )
        one = "Vessel" if self.name == VESSELS.name else "Nucleus"
        lines = [f"{one}, {f'tile {tile}' if tile >= 0 else 'outside the tiles'}"]
        lines += [f"{title}: {value}" for title, value in object_lines(chosen.measurements)]
        if chosen.edit:
            lines.append(f"{chosen.edit} manually; stain is measured with the update")
        lines.append(f"method: {chosen.method}")
        return "\n".join(lines)


def _group(layout: Any) -> QWidget:
    made = QWidget()
    made.setLayout(layout)
    return made
