"""The widgets of the Align page's panel; what they do is in `align_panel`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QFrame, QListWidget, QSlider, QWidget

from napari_mosaik.view.formatting import count, number
from napari_mosaik.widgets.align.tool import KEYS
from napari_mosaik.widgets.base.controls import Fold, button, column, row, words

if TYPE_CHECKING:
    from napari_mosaik.workflow.manual_alignment import Laying

__all__ = ["TITLES", "AlignForm", "keys_in_words"]

TITLES = {"he": "H&E", "caix": "CAIX", "pet": "PET"}
_LOOKS = (("Blend", "blend"), ("Checkerboard", "checkerboard"), ("Outline", "outline"))
_KINDS = (
    ("turn, shift and scale", "similarity"),
    ("turn and shift", "rigid"),
    ("any affine change", "affine"),
)
_MARK_TIP = (
    "Click a place on the section, then the same place on CD34; each is shown alone for its click"
)


class AlignForm(QFrame):
    """Chooser, overlay, moves, landmarks, figures, Accept and Cancel.

    ``asked`` carries what a button asks for; ``used`` whether a section is laid by hand now.
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
        self.begin = button("Lay by hand", self._ask("start"), "Move it yourself or set landmarks")
        self.automatic = button(
            "Automatic again", self._ask("forget"), "Forget what was given by hand and align anew"
        )
        self.said = words(small=True)

    def _moving(self) -> None:
        self.look = QComboBox()
        for title, key in _LOOKS:
            self.look.addItem(title, key)
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setValue(50)
        self.opacity.setToolTip("How much of the section covers CD34")
        self.move_button = button("Move", self._ask("move"), keys_in_words())
        self.move_button.setCheckable(True)
        self.undo_button = button("Undo", self._ask("undo"), "Ctrl+Z")
        self.redo_button = button("Redo", self._ask("redo"), "Ctrl+Shift+Z")
        self.over = button("Turn over", self._ask("turn_over"), "Left becomes right")
        self.hint = words(small=True)
        self.figures = words()

    def _marking(self) -> None:
        self.mark_button = button("Landmarks", self._ask("mark"), _MARK_TIP)
        self.mark_button.setCheckable(True)
        self.list = QListWidget()
        self.list.setMaximumHeight(120)
        self.doubts = words(small=True)
        self.delete_button = button("Delete", self._ask("delete_mark"), "The chosen landmark")
        self.exchange_button = button(
            "Exchange",
            self._ask("exchange_marks"),
            "Partners of the two that look exchanged",
        )
        self.kind = QComboBox()
        for title, key in _KINDS:
            self.kind.addItem(title, key)
        self.fit_button = button("Lay by landmarks", self._ask("fit"), "Least squares of all pairs")

    def _ending(self) -> None:
        self.matrix_button = button(
            "Matrix…",
            self._ask("choose_matrix"),
            "Map of another program: 3 x 3 in µm",
        )
        self.marks_button = button(
            "Landmark files…",
            self._ask("choose_marks"),
            "Two CSV files: X and Y in pixels",
        )
        self.accept_button = button("Accept", self._ask("accept"), "Store it and align by it")
        self.cancel_button = button("Cancel", self._ask("leave"), "Nothing is changed")

    def _lay_out(self) -> None:
        self.hand = QWidget()
        marks = Fold(
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
                row(words("From files:"), self.matrix_button, self.marks_button),
                row(self.accept_button, self.cancel_button, 1),
            )
        )
        self.setLayout(
            column(
                words("By hand", bold=True),
                row(self.what, self.begin, self.automatic, 1),
                self.said,
                self.hand,
                margin=6,
            )
        )

    # --- landmarks ------------------------------------------------------------------------------
    @property
    def frame(self) -> str:
        """What is laid: "he", "caix" or "pet"."""
        return str(self.what.currentData())

    def show_marks(self, laying: Laying | None) -> None:
        """List the landmarks with their residuals, and what is odd about them."""
        chosen = self.list.currentRow()
        self.list.clear()
        said: list[str] = []
        if laying is not None:
            residuals = laying.residuals_um()
            for n, residual in enumerate(residuals, 1):
                self.list.addItem(f"{n}: {number(residual, 'µm')} apart")
            if laying.now.waiting is not None:
                self.list.addItem(f"{len(residuals) + 1}: not yet on CD34")
            self.list.setCurrentRow(min(chosen, self.list.count() - 1))
            doubts = laying.now.marks.doubts(self.kind.currentData(), self.frame)
            said = [f"⚠ {text}" for text in doubts]
            if len(residuals):
                middle = number(float(np.median(residuals)), "µm")
                said.append(f"{count(len(residuals), 'pair')}, median {middle}")
        self.doubts.setText("\n".join(said))
        self.doubts.setVisible(bool(said))

    def exchanged(self, laying: Laying | None) -> tuple[int, int] | None:
        """The first two landmarks that look exchanged."""
        if laying is None:
            return None
        for one in laying.now.marks.odd(self.kind.currentData(), self.frame):
            if one.exchanged_with is not None:
                return one.row, one.exchanged_with
        return None

    def show_buttons(self, laying: Laying | None) -> None:
        """Enable what can be done."""
        n = 0 if laying is None else len(laying.now.marks)
        self.undo_button.setEnabled(laying is not None and laying.can_undo)
        self.redo_button.setEnabled(laying is not None and laying.can_redo)
        self.delete_button.setEnabled(self.list.currentRow() >= 0)
        self.exchange_button.setEnabled(self.exchanged(laying) is not None)
        self.fit_button.setEnabled(n >= (3 if self.kind.currentData() == "affine" else 2))

    def hint_for(self, mode: str, laying: Laying | None) -> str:
        """What the mouse does next."""
        title = TITLES[self.frame]
        if mode == "move":
            return f"Drag {title}; with Shift it turns. {keys_in_words()}"
        if mode == "mark":
            waiting = laying is not None and laying.now.waiting is not None
            seen = "the same place on CD34" if waiting else f"a place on {title}"
            return f"Click {seen}; the wheel magnifies."
        return "Drag to look around."


def keys_in_words() -> str:
    """What the keys do, in a line."""
    return "Keys: " + "; ".join(f"{keys} {what}" for keys, what in KEYS) + "."


def _framed(*items: Any) -> QWidget:
    widget = QWidget()
    widget.setLayout(column(*items))
    return widget
