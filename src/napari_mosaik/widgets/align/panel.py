"""Manual alignment of a section on CD34, with landmarks and registration error."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog
from superqt.utils import qdebounced

from napari_mosaik.core import MosaikError
from napari_mosaik.core.catalogue import ALIGNMENT
from napari_mosaik.view.alignment import alignment_lines
from napari_mosaik.widgets.align.form import TITLES, AlignForm
from napari_mosaik.widgets.align.reading import Reading, read_for_hand, values_judged
from napari_mosaik.widgets.align.tool import AlignTool
from napari_mosaik.widgets.align.view import AlignView
from napari_mosaik.widgets.canvas.active_tool import CanvasTool
from napari_mosaik.workflow.given_alignment import (
    Alignment,
    landmark_pairs_from_files,
    transform_from_file,
)
from napari_mosaik.workflow.manual_alignment import ManualAlignment
from napari_mosaik.workflow.steps import maker_of

if TYPE_CHECKING:
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["AlignPanel"]

WORKING = "Estimating registration error…"
_REST_MS = 250
_DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


class AlignPanel(AlignForm):
    """Aligns H&E, CAIX or the PET manually to CD34; nothing is stored before Accept."""

    def __init__(self, link: CanvasLink) -> None:
        super().__init__()
        self.link, self.controller = link, link.board.controller
        self.tool, self.view = link.tool(AlignTool), AlignView(link.board)
        self.laying: ManualAlignment | None = None
        self.reading: Reading | None = None
        self._asked = 0
        self._assess_soon = qdebounced(self._judge, timeout=_REST_MS, parent=self)
        self._connect()
        self._show()

    def _connect(self) -> None:
        self.asked.connect(self._asked_for)
        self.what.currentIndexChanged.connect(self._other)
        self.look.currentIndexChanged.connect(self._looks)
        self.opacity.valueChanged.connect(self._looks)
        self.list.currentRowChanged.connect(self._show_buttons)
        self.tool.shifted.connect(lambda step, on: self._act("shift", step, continued=on))
        self.tool.turned.connect(
            lambda angle, on: self._act("rotate", angle, self.tool.about_um, continued=on)
        )
        self.tool.clicked.connect(self._clicked)
        self.tool.changed.connect(self._show_tool)
        self.kind.currentIndexChanged.connect(self._show_marks)
        self.tool.edits = self._edits()
        self.controller.workspace.events.case.connect(self._case_changed)
        self.controller.workspace.events.states.connect(self._show)
        self.link.events.active_tool.connect(self._tool_changed)

    def _edits(self) -> dict[str, Callable[[], Any]]:
        """What the keys do, by the actions of the table of shortcuts."""
        edits: dict[str, Callable[[], Any]] = {"undo": self.undo, "redo": self.redo}
        for name, direction in _DIRECTIONS.items():
            for prefix, um in (("", 10.0), ("far ", 100.0)):
                step = (direction[0] * um, direction[1] * um)
                edits[prefix + name] = partial(self._act, "shift", step)
        for name, angle in (("left", 0.5), ("far left", 5.0), ("right", -0.5), ("far right", -5.0)):
            edits[f"rotate {name}"] = partial(self._act_about, "rotate", angle)
        edits["enlarge"] = partial(self._act_about, "scale", 1.01)
        edits["shrink"] = partial(self._act_about, "scale", 1 / 1.01)
        return edits

    def _asked_for(self, what: str) -> None:
        acts: dict[str, Callable[[], Any]] = {
            "start": self.start, "reset_alignment": self.reset_alignment, "accept": self.accept,
            "leave": self.leave, "undo": self.undo, "redo": self.redo,
            "turn_over": self.turn_over, "delete_mark": self.delete_mark,
            "exchange_marks": self.exchange_marks, "fit": self.fit,
            "choose_matrix": self.choose_matrix, "choose_marks": self.choose_marks,
            "move": lambda: self.tool.take("move"), "mark": lambda: self.tool.take("mark"),
        }  # fmt: skip
        acts[what]()

    # --- beginning and ending -------------------------------------------------------------------
    def start(self) -> None:
        """Read the sections in the background, then show the section over CD34."""
        case = self.controller.workspace.case
        if case is None:
            return
        self.leave()
        frame = self.frame
        self.begin.setEnabled(False)
        self.said.setText("Reading the sections…")
        task = self.controller.read("Align", lambda: read_for_hand(case, frame), self._started)
        task.failed.connect(lambda _problem: self._show())

    def _started(self, reading: Reading) -> None:
        self._show()
        if reading.case is not self.controller.workspace.case or reading.frame != self.frame:
            return
        self.reading = reading
        self.laying = ManualAlignment(reading.start, reading.marks)
        self.tool.about_um = reading.middle_um
        self.tool.take("move")  # layouts restore the canvas before the section is drawn on it
        self.view.enter(reading.seen, self.laying.now)
        self._show()
        self._again()

    def leave(self) -> None:
        """Restore the canvas and discard the changes."""
        self._assess_soon.cancel()
        self._asked += 1
        self.tool.release()
        self.view.leave()
        self.laying = self.reading = None
        self._show()

    def accept(self) -> None:
        """Store the alignment in ``case.toml`` and run the alignment step."""
        case, laying = self.controller.workspace.case, self.laying
        if case is None or laying is None:
            return
        entry, frame = laying.entry(), laying.frame
        self.leave()
        self._store({**case.file.given_alignments, frame: entry}, frame)

    def reset_alignment(self) -> None:
        """Discard the given alignment and run the automatic registration."""
        case, frame = self.controller.workspace.case, self.frame
        if case is None:
            return
        self.leave()
        given = {key: one for key, one in case.file.given_alignments.items() if key != frame}
        self._store(given, frame)

    def _store(self, given: dict[str, Any], frame: str) -> None:
        self.controller.update_case(given_alignments=given)
        if self.controller.workspace.problem is None:
            self.controller.run_steps((maker_of(ALIGNMENT[frame]).name,))

    # --- acting ---------------------------------------------------------------------------------
    def _act(self, name: str, *values: Any, **more: Any) -> None:
        if self.laying is None:
            return
        try:
            getattr(self.laying, name)(*values, **more)
        except MosaikError as error:
            self.controller.report(error, "Align")
            return
        self._again()

    def _act_about(self, name: str, value: float) -> None:
        self._act(name, value, self.tool.about_um)

    def undo(self) -> None:
        """Undo the last change."""
        self._act("undo")

    def redo(self) -> None:
        """Redo the last undone change."""
        self._act("redo")

    def turn_over(self) -> None:
        """Flip the section horizontally."""
        self._act("flip_horizontally", self.tool.about_um)

    def _clicked(self, place_um: Any) -> None:
        self._act("add_landmark", place_um)

    def delete_mark(self) -> None:
        """Delete the selected landmark."""
        if self.list.currentRow() >= 0:
            self._act("delete_landmark", self.list.currentRow())

    def exchange_marks(self) -> None:
        """Swap the first two landmarks that appear to be interchanged."""
        pair = self.exchanged(self.laying)
        if pair is not None:
            self._act("swap_landmarks", *pair)

    def fit(self) -> None:
        """Fit the alignment to the landmarks."""
        self._act("fit_to_landmarks", self.kind.currentData())

    def take_matrix(self, path: Path) -> None:
        """Import a matrix file."""
        try:
            transform = transform_from_file(path, self.frame)
        except MosaikError as error:
            self.controller.report(error, "Align")
            return
        self._act("import_transform", transform, "file", path.name)

    def take_marks(self, moving: Path, fixed: Path) -> None:
        """Import landmark files of the section and of CD34."""
        reading = self.reading
        if reading is None:
            return
        try:
            sizes_um = reading.spacing_um, reading.reference_spacing_um
            self._act("set_landmarks", landmark_pairs_from_files(moving, fixed, *sizes_um))
        except MosaikError as error:
            self.controller.report(error, "Align")

    def choose_matrix(self) -> None:
        """Ask for a matrix file."""
        path = QFileDialog.getOpenFileName(
            self, "Transform to CD34 (3 × 3 matrix, row and column in µm)"
        )[0]
        if path:
            self.take_matrix(Path(path))

    def choose_marks(self) -> None:
        """Ask for two landmark files."""
        title = TITLES[self.frame]
        moving = QFileDialog.getOpenFileName(self, f"Landmarks on {title}", "", "CSV (*.csv)")[0]
        if moving:
            fixed = QFileDialog.getOpenFileName(self, "Landmarks on CD34", "", "CSV (*.csv)")[0]
            if fixed:
                self.take_marks(Path(moving), Path(fixed))

    # --- showing --------------------------------------------------------------------------------
    def _again(self) -> None:
        """Draw at once; the figures follow when the hand rests."""
        if self.laying is None:
            return
        self._mark_alone()
        self.view.show(self.laying.now)
        self._show_marks()
        self._asked += 1
        self._assess_soon()

    def _mark_alone(self) -> None:
        waiting = self.laying is not None and self.laying.now.unpaired is not None
        self.view.marking = "" if self.tool.mode != "mark" else "partner" if waiting else "own"

    def _looks(self, *_: Any) -> None:
        self.view.look = self.look.currentData()
        self.view.opacity = self.opacity.value() / 100
        if self.laying is not None:
            self.view.show(self.laying.now)

    def _judge(self) -> None:
        laying, reading = self.laying, self.reading
        if laying is None or reading is None:
            return
        mine, parts, transform = self._asked, reading.parts, laying.now.transform
        self.figures.setText("Comparing the outlines…")
        self.controller.read(
            "Align", lambda: parts.assess(transform), lambda a: self._judged(mine, a)
        )

    def _judged(self, mine: int, found: Alignment) -> None:
        reading = self.reading
        if not self._waits(mine) or reading is None:
            return
        self._tell(found, WORKING if reading.parts.pet is not None else "")
        if reading.parts.pet is not None:
            asked = partial(
                values_judged, reading.parts, found.transform, lambda: self._waits(mine)
            )
            self.controller.read(
                "Align", asked, lambda closely: self._judged_by_values(mine, found, closely)
            )

    def _judged_by_values(self, mine: int, by_outline: Alignment, found: Alignment | str) -> None:
        if not self._waits(mine):
            return
        if isinstance(found, str):
            self._tell(by_outline, f"registration error unknown: {found}")
        else:
            self._tell(found)

    def _waits(self, mine: int) -> bool:
        """Whether the answer to a question is still wanted: nothing was moved since."""
        return mine == self._asked and self.laying is not None

    def _tell(self, found: Alignment, more: str = "") -> None:
        lines = [*alignment_lines(found.to_dict()), *([more] if more else [])]
        self.figures.setText("\n".join(lines))

    def _show(self, *_: Any) -> None:
        case, on = self.controller.workspace.case, self.laying is not None
        self.hand.setVisible(on)
        self.used.emit(on)
        self.begin.setEnabled(case is not None and not on)
        self.automatic.setVisible(
            case is not None and self.frame in case.file.given_alignments and not on
        )
        entry = case.file.given_alignment(self.frame) if case is not None else None
        given = "" if entry is None else f"Given alignment ({entry.source}): {entry.note}"
        self.said.setText("" if on else given)
        self.said.setVisible(bool(self.said.text()))
        if not on:
            self.figures.setText("")
        self._show_tool()
        self._show_marks()

    def _show_tool(self) -> None:
        self.move_button.setChecked(self.tool.mode == "move")
        self.mark_button.setChecked(self.tool.mode == "mark")
        self.hint.setText(self.hint_for(self.tool.mode, self.laying))
        if self.laying is not None:
            self._mark_alone()
            self.view.show(self.laying.now)

    def _show_marks(self, *_: Any) -> None:
        self.show_marks(self.laying)
        self.hint.setText(self.hint_for(self.tool.mode, self.laying))
        self._show_buttons()

    def _show_buttons(self, *_: Any) -> None:
        self.show_buttons(self.laying)

    def _other(self, *_: Any) -> None:
        self.leave()

    def _tool_changed(self, tool: CanvasTool | None) -> None:
        """End the alignment when a tool that needs the canvas for itself becomes active."""
        if self.laying is None or tool is None or tool is self.tool:
            return
        if tool.exclusive:
            self.leave()

    def hideEvent(self, event: Any) -> None:
        """A page that is closed lets the section go; another tab does not."""
        body = self.parentWidget()
        if body is not None and body.isHidden() and self.laying is not None:
            self.leave()
        super().hideEvent(event)

    def _case_changed(self, *_: Any) -> None:
        if self.reading is not None and self.reading.case is not self.controller.workspace.case:
            self.leave()
        self._show()
