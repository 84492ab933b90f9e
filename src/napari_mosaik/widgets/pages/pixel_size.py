"""The pixel size of a slide as it is given in a form: typed, or copied from a scanner profile."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QComboBox, QLineEdit, QWidget

from napari_mosaik.core import InputError
from napari_mosaik.core.pet_records import SpacingSource
from napari_mosaik.io.profiles import profile_named, profiles_file, read_profiles
from napari_mosaik.widgets.base.controls import row

__all__ = ["RULER_HINT", "PixelSizeField"]

RULER_HINT = (
    "Or measure a known length on the slide: 'Pixel size from a known length' on the tab 'View'."
)
_TYPED = "typed"
_PROFILE_WIDTH = 150


class PixelSizeField(QWidget):
    """A number in µm, or the name of a scanner profile whose number is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.edit = QLineEdit()
        self.edit.setPlaceholderText("µm")
        self.edit.setToolTip(
            "µm per pixel, only if the file does not say; row x column where they differ: 0.25x0.26"
        )
        self.profile = QComboBox()
        self.profile.setMaximumWidth(_PROFILE_WIDTH)
        self.profile.setToolTip(
            "Pixel sizes of scanners that you named; add one with 'napari-mosaik profiles --add "
            f"NAME --spacing UM' or in {profiles_file()}"
        )
        self.profile.currentIndexChanged.connect(self._chosen)
        self.setLayout(row(self.edit, self.profile, spacing=4))
        self.show_profiles()

    def showEvent(self, event: object) -> None:
        """Profiles may have been added meanwhile."""
        self.show_profiles()
        super().showEvent(event)

    def show_profiles(self) -> None:
        """Offer the profiles there are now; a damaged file of profiles offers none and says so."""
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
        """Size (row, column) in µm, who gave it, and the profile's name; None when empty."""
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
    """One number or two (row x column), as typed; a decimal comma is understood."""
    try:
        numbers = [float(part.strip().replace(",", ".")) for part in text.lower().split("x")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise InputError(f"pixel size: '{text}' is not a number in µm (or two: row x column)")
    if not all(0.01 <= number <= 1000 for number in numbers):
        raise InputError(f"a pixel size of {text} µm is not possible")
    return numbers[0], numbers[-1]
