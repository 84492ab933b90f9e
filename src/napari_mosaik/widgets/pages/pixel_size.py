"""Field for the pixel size of a slide: typed, or taken from a scanner profile."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QComboBox, QLineEdit, QWidget

from napari_mosaik.core import InputError
from napari_mosaik.core.spacing import SpacingSource
from napari_mosaik.io.profiles import profile_named, profiles_file, read_profiles
from napari_mosaik.widgets.base.controls import row

__all__ = ["RULER_HINT", "PixelSizeField"]

RULER_HINT = "Or measure a known length on the slide: 'Pixel size calibration' on the tab 'View'."
_TYPED = "manual"
_PROFILE_WIDTH = 150


class PixelSizeField(QWidget):
    """A pixel size in µm, or the name of a scanner profile whose size is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.edit = QLineEdit()
        self.edit.setPlaceholderText("µm/px")
        self.edit.setToolTip(
            "Pixel size in µm, if the file does not state it; row x column if they differ: "
            "0.25x0.26"
        )
        self.profile = QComboBox()
        self.profile.setMaximumWidth(_PROFILE_WIDTH)
        self.profile.setToolTip(
            "Scanner profiles; add one with 'napari-mosaik profiles --add "
            f"NAME --spacing UM' or in {profiles_file()}"
        )
        self.profile.currentIndexChanged.connect(self._chosen)
        self.setLayout(row(self.edit, self.profile, spacing=4))
        self.show_profiles()

    def showEvent(self, event: QShowEvent) -> None:
        """Reload the profiles, which may have changed meanwhile."""
        self.show_profiles()
        super().showEvent(event)

    def show_profiles(self) -> None:
        """List the current profiles; none, and the error as tooltip, if their file is damaged."""
        try:
            names = list(read_profiles())
        except InputError as error:
            names = []
            self.profile.setToolTip(str(error))
        chosen = self.profile.currentText()
        with QSignalBlocker(self.profile):
            self.profile.clear()
            self.profile.addItems([_TYPED, *names])
            self.profile.setCurrentText(chosen if chosen in names else _TYPED)
        self.profile.setVisible(bool(names))
        self._chosen()

    def value(self) -> tuple[tuple[float, float], SpacingSource, str] | None:
        """Pixel size (row, column) in µm, its source, and the profile's name; None if empty."""
        name = self.profile.currentText()
        if self.profile.currentIndex() > 0:
            return profile_named(name).spacing_um, "profile", name
        text = self.edit.text().strip()
        return (sizes_of(text), "user", "") if text else None

    def _chosen(self) -> None:
        typed = self.profile.currentIndex() <= 0
        self.edit.setEnabled(typed)
        if not typed:
            size = profile_named(self.profile.currentText()).spacing_um
            self.edit.setText(" x ".join(f"{s:g}" for s in dict.fromkeys(size)))


def sizes_of(text: str) -> tuple[float, float]:
    """One number or two (row x column); a decimal comma is accepted."""
    try:
        numbers = [float(part.strip().replace(",", ".")) for part in text.lower().split("x")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise InputError(f"pixel size: '{text}' is not one number in µm or two (row x column)")
    if not all(0.01 <= number <= 1000 for number in numbers):
        raise InputError(f"pixel size: {text} µm is outside 0.01 to 1000 µm")
    return numbers[0], numbers[-1]
