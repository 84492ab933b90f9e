"""The widgets of manual alignment; their actions are in `panel`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QFrame, QListWidget, QSlider, QWidget

from napari_mosaik.core.catalogue import ALIGNMENT, STAIN_TITLES
from napari_mosaik.view.formatting import count, number
from napari_mosaik.widgets.align.tool import KEYS
from napari_mosaik.widgets.base.controls import Collapsible, button, column, row, wrapped_label

if TYPE_CHECKING:
    from napari_mosaik.workflow.manual_alignment import ManualAlignment

__all__ = ["TITLES", "AlignForm", "keys_in_words"]

TITLES = {frame: STAIN_TITLES.get(frame, "PET") for frame in ALIGNMENT}
_LOOKS = (("Blend", "blend"), ("Checkerboard", "checkerboard"), ("Outline", "outline"))
_KINDS = (
    ("Similarity (rotation, shift, scale)", "similarity"),
    ("Rigid (rotation, shift)", "rigid"),
    ("Affine", "affine"),
)
_MARK_TIP = (
    "Click a point on the section, then the same point on CD34; each is shown alone for its click"
)


class AlignForm(QFrame):
    """Section, overlay, moves, landmarks, registration error, Accept and Cancel.

    ``asked`` carries the action of a button; ``used`` whether manual alignment is active.
    """

    asked = Signal(str)
    used = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._choosing()
        self._moving()
        self._marking()
        self._ending()
        self._lay_out()

    def _ask(self, what: str) -> Callable[[], None]:
        return lambda: self.asked.emit(what)

    def _choosing(self) -> None:
        self.what = QComboBox()
        for frame, title in TITLES.items():
            self.what.addItem(f"{title} on CD34", frame)
        self.begin = button(
            "Align manually",
            self._ask("start"),
            "Move the section with the mouse, or set landmarks",
        )
        self.automatic = button(
            "Reset to automatic alignment",
            self._ask("reset_alignment"),
            "Discards the given alignment and runs the automatic registration",
        )
        self.said = wrapped_label(small=True)

    def _moving(self) -> None:
        self.look = QComboBox()
        for title, key in _LOOKS:
            self.look.addItem(title, key)
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setValue(50)
        self.opacity.setToolTip("Opacity of the section over CD34")
        self.move_button = button("Move", self._ask("move"), keys_in_words())
        self.move_button.setCheckable(True)
        self.undo_button = button("Undo", self._ask("undo"), "Ctrl+Z")
        self.redo_button = button("Redo", self._ask("redo"), "Ctrl+Shift+Z")
        self.over = button("Flip horizontally", self._ask("turn_over"), "Mirrors the section")
        self.hint = wrapped_label(small=True)
        self.figures = wrapped_label()

    def _marking(self) -> None:
        self.mark_button = button("Landmarks", self._ask("mark"), _MARK_TIP)
        self.mark_button.setCheckable(True)
        self.list = QListWidget()
        self.list.setMaximumHeight(120)
        self.doubts = wrapped_label(small=True)
        self.delete_button = button(
            "Delete", self._ask("delete_mark"), "Deletes the selected landmark"
        )
        self.exchange_button = button(
            "Swap landmark pair",
            self._ask("exchange_marks"),
            "Swaps the two landmarks on CD34 that appear to be interchanged",
        )
        self.kind = QComboBox()
        for title, key in _KINDS:
            self.kind.addItem(title, key)
        self.fit_button = button(
            "Fit to landmarks", self._ask("fit"), "Least-squares fit to all pairs"
        )

    def _ending(self) -> None:
        self.matrix_button = button(
            "Import transform…",
            self._ask("choose_matrix"),
            "Matrix of another program: 3 × 3, (row, column) in µm",
        )
        self.marks_button = button(
            "Import landmarks…",
            self._ask("choose_marks"),
            "Two CSV files with columns X and Y in pixels",
        )
        self.accept_button = button(
            "Accept", self._ask("accept"), "Saves this alignment and updates the registration"
        )
        self.cancel_button = button("Cancel", self._ask("leave"), "Discards the changes")

    def _lay_out(self) -> None:
        self.hand = QWidget()
        marks = Collapsible(
            "Landmarks",
            _framed(
                row(self.mark_button, self.delete_button, self.exchange_button, 1),
                self.list,
                self.doubts,
                row(self.kind, self.fit_button),
            ),
            opened=True,
        )
        self.hand.setLayout(
            column(
                row(self.look, self.opacity),
                row(self.move_button, self.over, self.undo_button, self.redo_button, 1),
                self.hint,
                self.figures,
                marks,
                row(self.matrix_button, self.marks_button, 1),
                row(self.accept_button, self.cancel_button, 1),
            )
        )
        self.setLayout(
            column(
                wrapped_label("Manual alignment", bold=True),
                row(self.what, self.begin, self.automatic, 1),
                self.said,
                self.hand,
                margin=6,
            )
        )

    # --- landmarks ------------------------------------------------------------------------------
    @property
    def frame(self) -> str:
        """The section being aligned: "he", "caix" or "pet"."""
        return str(self.what.currentData())

    def show_marks(self, laying: ManualAlignment | None) -> None:
        """List the landmarks with their residuals and warnings."""
        chosen = self.list.currentRow()
        self.list.clear()
        said: list[str] = []
        if laying is not None:
            residuals = laying.residuals_um()
            for n, residual in enumerate(residuals, 1):
                self.list.addItem(f"{n}: residual {number(residual, 'µm')}")
            if laying.now.unpaired is not None:
                self.list.addItem(f"{len(residuals) + 1}: no partner on CD34 yet")
            self.list.setCurrentRow(min(chosen, self.list.count() - 1))
            doubts = laying.now.landmarks.warnings(self.kind.currentData())
            said = [f"⚠ {text}" for text in doubts]
            if len(residuals):
                middle = number(float(np.median(residuals)), "µm")
                said.append(f"{count(len(residuals), 'pair')}, median residual {middle}")
        self.doubts.setText("\n".join(said))
        self.doubts.setVisible(bool(said))

    def exchanged(self, laying: ManualAlignment | None) -> tuple[int, int] | None:
        """The first two landmarks that appear to be interchanged."""
        if laying is None:
            return None
        for one in laying.now.landmarks.outliers(self.kind.currentData()):
            if one.swapped_with is not None:
                return one.row, one.swapped_with
        return None

    def show_buttons(self, laying: ManualAlignment | None) -> None:
        """Enable the buttons that apply."""
        n = 0 if laying is None else len(laying.now.landmarks)
        self.undo_button.setEnabled(laying is not None and laying.can_undo)
        self.redo_button.setEnabled(laying is not None and laying.can_redo)
        self.delete_button.setEnabled(self.list.currentRow() >= 0)
        self.exchange_button.setEnabled(self.exchanged(laying) is not None)
        self.fit_button.setEnabled(n >= (3 if self.kind.currentData() == "affine" else 2))

    def hint_for(self, mode: str, laying: ManualAlignment | None) -> str:
        """What the mouse does."""
        title = TITLES[self.frame]
        if mode == "move":
            return f"Drag {title} to move it, Shift+drag to rotate it. {keys_in_words()}"
        if mode == "mark":
            waiting = laying is not None and laying.now.unpaired is not None
            target = "the same point on CD34" if waiting else f"a point on {title}"
            return f"Click {target}. Scroll to zoom."
        return "Drag to pan."


def keys_in_words() -> str:
    """The keys of manual alignment as one line."""
    return "Keys: " + "; ".join(f"{keys} {what}" for keys, what in KEYS) + "."


def _framed(*items: Any) -> QWidget:
    widget = QWidget()
    widget.setLayout(column(*items))
    return widget
