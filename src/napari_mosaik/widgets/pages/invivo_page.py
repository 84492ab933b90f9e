"""Page *Uptake in vivo*: values of scans of the patient, typed, imported or measured in a series.

A series opens as one transaxial slice that is cropped around the sphere or mask: no face is ever
drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QFrame,
    QLineEdit,
    QSlider,
    QWidget,
)

from napari_mosaik.core import InputError, Progress, palette
from napari_mosaik.core.invivo import INVIVO_UNITS, InvivoValue
from napari_mosaik.core.progress import map_progress
from napari_mosaik.core.text import typed_number
from napari_mosaik.view.invivo import SliceView, invivo_line, invivo_rows, measured_lines
from napari_mosaik.widgets.base.controls import (
    Collapsible,
    button,
    column,
    fill_table,
    row,
    shrinkable,
    table_of,
    wrapped_label,
)
from napari_mosaik.widgets.pages.pages import Page
from napari_mosaik.workflow.invivo import (
    InvivoChange,
    OfferedSeries,
    SphereOfInterest,
    VoiMeasurement,
    add_invivo,
    import_invivo,
    iter_series,
    mask_voxels,
    measure_invivo,
    offered_regions,
    offered_series,
    set_invivo,
    stored_invivo,
    typed_value,
)

if TYPE_CHECKING:
    from napari_mosaik.core.pet_volume import PetVolume
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.base.case_controller import CaseController

__all__ = ["InvivoPage"]

_TITLE = "Uptake in vivo"
_TABLES = "Tables (*.csv *.tsv *.txt);;All files (*)"
_REGIONS = ("tumour", "blood", "liver", "kidney")
_REFERENCES = {
    "as the table states": "", "the injection": "injection", "the start of the scan": "scan",
    "nothing (not corrected)": "none",
}  # fmt: skip
_WORDS = {
    "time_h": "'Time'", "relative_error": "'Relative error'", "same_patient": "'Same patient'",
    "decay_reference": "'Decay-corrected to'", "voxel_sd": "'Spread'", "volume_ml": "'Volume'",
}  # fmt: skip
_PICTURE_PX = 220


class InvivoPage(Page):
    """The values of the open case, and three ways to more of them."""

    def __init__(self, controller: CaseController) -> None:
        super().__init__(_TITLE)
        self._controller = controller
        self.values: tuple[InvivoValue, ...] = ()
        self._before: tuple[InvivoValue, ...] | None = None
        self._volume: PetVolume | None = None
        self._found: VoiMeasurement | None = None
        self._offered: tuple[OfferedSeries, ...] = ()
        self._mask: Path | None = None
        controller.workspace.events.case.connect(self._case_changed)
        self._case_changed()

    # --- building -------------------------------------------------------------------------------
    def make_body(self) -> QWidget:
        """The widgets of the page."""
        body = QFrame()
        body.setFrameShape(QFrame.Shape.StyledPanel)
        tips = ("After the injection", "", "Mean", "Standard error of the mean", "Volume")
        self.table = table_of(("Time", "Region", "Mean", "Error", "Volume"), tips, wide=1)
        self.table.setMinimumHeight(120)
        self.remove = button("Remove", self._remove, "Remove the selected values")
        self.undo = button("Undo", self._undo, "Restores the values before the last change")
        self.message = wrapped_label()
        self.message.hide()
        about = wrapped_label(
            "Mean uptake of a region in each scan of the patient before surgery, with the "
            "standard error of the mean (calibration, noise; not the spread of the voxels). "
            "Only numbers and a hash are kept."
        )
        body.setLayout(
            column(
                about,
                self.table,
                row(self.remove, self.undo, 1),
                self.message,
                Collapsible("Type a value", self._typed_form()),
                Collapsible("Import a table", self._import_form()),
                Collapsible("Measure a series", self._series_form()),
                margin=8,
                spacing=6,
            )
        )
        self.table.itemSelectionChanged.connect(self._enable)
        self._controller.workspace.events.job.connect(self._enable)
        return body

    def _typed_form(self) -> QWidget:
        self.time, self.mean, self.error = QLineEdit(), QLineEdit(), QLineEdit()
        self.region = _regions()
        self.unit = shrinkable(QComboBox())
        self.unit.addItems(INVIVO_UNITS)
        self.add = button("Add", self._add_typed, "Keep the value in the case")
        corrected = wrapped_label("Decay-corrected to the injection, as an SUV is.", small=True)
        return _form(
            ("Time after injection, h", self.time),
            ("Region", self.region),
            ("Mean", self.mean),
            ("Standard error of the mean", self.error),
            ("Unit", self.unit),
            ("", corrected),
            ("", self.add),
        )

    def _import_form(self) -> QWidget:
        self.table_unit = shrinkable(QComboBox())
        self.table_unit.addItem("as the table states", "")
        for unit in (*INVIVO_UNITS, "MBq/mL"):
            self.table_unit.addItem(unit, unit)
        self.reference = shrinkable(QComboBox())
        for words, value in _REFERENCES.items():
            self.reference.addItem(words, value)
        self.relative = QLineEdit()
        self.relative.setPlaceholderText("if the table has no sd, for example 0.05")
        self.choose_table = button("Import…", self._choose_table, "CSV, TSV, or PET-BIDS")
        return _form(
            ("Unit", self.table_unit),
            ("Decay-corrected to", self.reference),
            ("Relative error", self.relative),
            ("", self.choose_table),
        )

    def _series_form(self) -> QWidget:
        self.open_button = button(
            "Open series…", self._choose_series, "The folder of a whole PET series (DICOM)"
        )
        self.open_file = button("File…", self._choose_file, "NIfTI with its sidecar, or Inveon")
        self.same = QCheckBox("Same patient")
        self.same.setToolTip("I confirm that the series is of the patient of this case")
        self.series, self.frame = shrinkable(QComboBox()), shrinkable(QComboBox())
        self.series.setToolTip("PET series of the folder")
        self.frame.setToolTip("Time frame of a dynamic scan, counted from 0")
        self.series.currentIndexChanged.connect(self._offer_frames)
        self.read_button = button("Read", self._read_chosen, "Read this series and time frame")
        self.choice = QWidget()
        self.choice.setLayout(
            column(_form(("Series", self.series), ("Time frame", self.frame)), self.read_button)
        )
        self.mask_button = button(
            "Mask…", self._choose_mask, "DICOM SEG, RTSTRUCT, or labels in NIfTI"
        )
        self.sphere_button = button("Sphere", self._use_sphere, "A sphere instead of the mask")
        self.label = shrinkable(QComboBox())
        self.label.setAccessibleName("Region of the mask")
        self.label.setToolTip("Region of the mask; its name is not kept")
        self.label.currentIndexChanged.connect(self._read_mask)
        self.picture = SlicePicture()
        self.picture.moved.connect(self._place)
        self.level = QSlider(Qt.Orientation.Horizontal)
        self.level.setAccessibleName("Slice of the series")
        self.level.valueChanged.connect(self._scroll)
        self.where = wrapped_label(small=True)
        self.radius, self.fwhm = QLineEdit("15"), QLineEdit("4.6")
        self.radius.editingFinished.connect(self._show_picture)
        self.fwhm.setToolTip("Full width at half maximum of the scanner")
        self.voi_region = _regions()
        self.recover = QCheckBox("Divide by the recovery")
        self.recover.setToolTip(
            "Only where the sphere is the whole object and its neighbourhood is cold"
        )
        self.measure = button("Measure", self._measure, "Mean uptake of the sphere as SUV")
        self.result = wrapped_label()
        self.keep = button("Add to the case", self._keep, "Keep numbers and a hash, no voxel")
        self.opened_part = QWidget()
        form = _form(
            ("Region", self.voi_region),
            ("Radius, mm", self.radius),
            ("Resolution, mm", self.fwhm),
        )
        self.opened_part.setLayout(
            column(
                self.picture,
                self.level,
                self.where,
                form,
                row(self.mask_button, self.label, self.sphere_button, 1),
                self.recover,
                row(self.measure, self.keep, 1),
                self.result,
            )
        )
        whole = QWidget()
        whole.setLayout(
            column(
                row(self.open_button, self.open_file, 1), self.same, self.choice, self.opened_part
            )
        )
        return whole

    # --- showing --------------------------------------------------------------------------------
    def fill(self) -> None:
        """Show the values of the open case."""
        self._show_values()
        self._show_volume()

    def _case_changed(self, *_: object) -> None:
        self._before, self._volume, self._found = None, None, None
        self._offered, self._mask = (), None
        case = self._controller.workspace.case
        self.setEnabled(case is not None)
        self.values = ()
        if self.body is not None:
            self._show_volume()
            self._tell("")
        self._show_values()
        if case is not None:
            self._controller.read_for(case, _TITLE, partial(stored_invivo, case), self._take)

    def _take(self, values: tuple[InvivoValue, ...]) -> None:
        self.values = values
        self._show_values()

    def _show_values(self) -> None:
        self.head.show_state("done" if self.values else "", invivo_line(self.values))
        if self.body is None:
            return
        fill_table(self.table, invivo_rows(self.values))
        for place, one in enumerate(self.values):
            item = self.table.item(place, 2)
            assert item is not None
            item.setToolTip(" · ".join(filter(None, (one.method, one.source))))
        self._enable()

    def _enable(self, *_: object) -> None:
        self.remove.setEnabled(bool(self._selected()))
        self.undo.setEnabled(self._before is not None)
        idle = self._controller.workspace.job is None
        for push in (self.open_button, self.open_file, self.read_button):
            push.setEnabled(idle)
        self.keep.setEnabled(self._found is not None)

    def _tell(self, text: str) -> None:
        self.message.setText(text)
        self.message.setVisible(bool(text))

    def _selected(self) -> list[InvivoValue]:
        rows = {index.row() for index in self.table.selectedIndexes()}
        return [one for place, one in enumerate(self.values) if place in rows]

    # --- changing the values --------------------------------------------------------------------
    def _change(self, work: Callable[[Case], Any], line: Callable[[Any], str]) -> None:
        """Change the values on a thread; what was there before can be brought back."""
        case = self._controller.workspace.case
        if case is None:
            return

        def run() -> tuple[Any, tuple[InvivoValue, ...], tuple[InvivoValue, ...]]:
            before = stored_invivo(case)
            with _in_words():
                made = work(case)
            return made, before, stored_invivo(case)

        def then(
            done: tuple[Any, tuple[InvivoValue, ...], tuple[InvivoValue, ...]],
        ) -> None:
            made, self._before, self.values = done
            self._show_values()
            self._tell(line(made))

        self._controller.read_for(case, _TITLE, run, then)

    def _add_typed(self) -> None:
        try:
            with _in_words():
                value = typed_value(
                    {
                        "time_h": _number("Time", self.time),
                        "region": self.region.currentText(),
                        "mean": _number("Mean", self.mean),
                        "sd": _number("Standard error", self.error),
                        "unit": self.unit.currentText(),
                        "decay_reference": "injection",
                    }
                )
        except InputError as error:
            self._controller.report(error, _TITLE)
            return
        self._change(lambda case: add_invivo(case, [value]), lambda _: f"Added: {value.label}.")

    def _choose_table(self) -> None:
        name = QFileDialog.getOpenFileName(self, "Table of values in vivo", "", _TABLES)[0]
        if name:
            self.import_from(Path(name))

    def import_from(self, path: Path) -> None:
        """Import a table, on a thread."""
        try:
            relative = _number("Relative error", self.relative) if self.relative.text() else None
        except InputError as error:
            self._controller.report(error, _TITLE)
            return
        given = {
            "unit": self.table_unit.currentData(),
            "decay_reference": self.reference.currentData(),
            "relative_error": relative,
        }
        self._change(lambda case: import_invivo(case, path, **given), _imported)

    def _remove(self) -> None:
        gone = self._selected()
        left = [one for one in self.values if one not in gone]
        words = ", ".join(one.label for one in gone)
        self._change(lambda case: set_invivo(case, left), lambda _: f"Removed: {words}.")

    def _undo(self) -> None:
        before = self._before
        if before is not None:
            self._change(lambda case: set_invivo(case, before), lambda _: "Undone.")

    # --- a series -------------------------------------------------------------------------------
    def _choose_series(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of a PET series")
        if folder:
            self.open_series(Path(folder))

    def _choose_file(self) -> None:
        name = QFileDialog.getOpenFileName(self, "PET series in one file")[0]
        if name:
            self.open_series(Path(name))

    def open_series(self, path: Path) -> None:
        """Read a series, on a thread with progress; where there are several, offer them."""

        def steps(case: Case, same: bool) -> Generator[Any, None, Any]:
            yield _TITLE, Progress(0, 1, "looking for series")
            offered = offered_series(path)
            if len(offered) > 1 or offered[0].n_frames > 1:
                return offered
            return (yield from _reading(case, offered[0].files, None, same))

        self._offered = ()
        self._start(steps)

    def _start(self, steps: Callable[[Case, bool], Generator[Any, None, Any]]) -> None:
        case, same = self._controller.workspace.case, self.same.isChecked()
        if case is None:
            return
        job = self._controller.start("Open series", partial(steps, case, same))
        if job is not None:
            job.done.connect(partial(self._opened, case))

    def _opened(self, case: Case, found: PetVolume | tuple[OfferedSeries, ...]) -> None:
        if case is not self._controller.workspace.case:
            return
        self._found, self._mask = None, None
        if isinstance(found, tuple):
            self._offered, self._volume = found, None
            with QSignalBlocker(self.series):
                self.series.clear()
                self.series.addItems([one.title for one in found])
            self._offer_frames()
        else:
            self._volume = found
        self._show_volume()

    def _offer_frames(self, *_: object) -> None:
        """Offer the time frames of the chosen series."""
        if 0 <= self.series.currentIndex() < len(self._offered):
            self.frame.clear()
            n = self._offered[self.series.currentIndex()].n_frames
            self.frame.addItems([str(number) for number in range(n)])

    def _read_chosen(self) -> None:
        chosen = self._offered[self.series.currentIndex()]
        frame = self.frame.currentIndex()
        self._start(lambda case, same: _reading(case, chosen.files, frame, same))

    # --- a mask ---------------------------------------------------------------------------------
    def _choose_mask(self) -> None:
        name = QFileDialog.getOpenFileName(self, "Mask of a region")[0]
        if name:
            self.open_mask(Path(name))

    def open_mask(self, path: Path) -> None:
        """Offer the regions of a mask, read on a thread, and look at the first."""
        case = self._controller.workspace.case
        if case is not None and self._volume is not None:
            then = partial(self._offer_regions, path, self._volume)
            self._controller.read_for(case, _TITLE, partial(offered_regions, path), then)

    def _offer_regions(self, path: Path, volume: PetVolume, regions: Mapping[int, str]) -> None:
        if volume is not self._volume:
            return
        if not regions:
            self._controller.report(InputError(f"{path.name} holds no region"), _TITLE)
            return
        self._mask = path
        with QSignalBlocker(self.label):
            self.label.clear()
            for number, name in sorted(regions.items()):
                self.label.addItem(f"{number} {name}".strip(), number)
        self._read_mask()

    def _read_mask(self, *_: object) -> None:
        """Show the chosen region; what was measured of another one is gone."""
        case, volume, path = self._controller.workspace.case, self._volume, self._mask
        if case is None or volume is None or path is None:
            return
        chosen = (path, self.label.currentData())
        if self.picture.view is not None:
            self.picture.view.mask = None
        self._show_picture()

        def then(voxels: Any) -> None:
            view = self.picture.view
            if view is not None and chosen == (self._mask, self.label.currentData()):
                view.show_mask(voxels)
                with QSignalBlocker(self.level):
                    self.level.setValue(round(view.centre[0]))
                self._show_picture()

        work = partial(mask_voxels, volume, *chosen)
        self._controller.read_for(case, _TITLE, work, then)

    def _use_sphere(self) -> None:
        self._mask = None
        if self.picture.view is not None:
            self.picture.view.mask = None
        self._show_picture()

    def _show_volume(self) -> None:
        volume = self._volume
        several = len(self._offered) > 1 or any(one.n_frames > 1 for one in self._offered)
        self.choice.setVisible(several)
        self.opened_part.setVisible(volume is not None)
        self.result.setText("")
        self.picture.view = None if volume is None else SliceView.of(volume)
        if volume is not None and self.picture.view is not None:
            self.level.blockSignals(True)
            self.level.setRange(0, volume.grid.shape[0] - 1)
            self.level.setValue(round(self.picture.view.centre[0]))
            self.level.blockSignals(False)
        self._show_picture()

    def _scroll(self, place: int) -> None:
        view = self.picture.view
        if view is not None:
            view.centre = (float(place), view.centre[1], view.centre[2])
        self._show_picture()

    def _place(self, vertical: float, across: float) -> None:
        if self.picture.view is not None and self._mask is None:
            self.picture.view.moved(vertical, across)
        self._show_picture()

    def _show_picture(self) -> None:
        view = self.picture.view
        self._found = None
        self.result.setText("")
        masked = self._mask is not None
        for widget in (self.label, self.sphere_button):
            widget.setVisible(masked)
        self.radius.setEnabled(not masked)
        self._enable()
        if view is None:
            return
        try:
            if not masked:
                view.radius_mm = max(_number("Radius", self.radius), 0.1)
        except InputError as error:
            self._controller.report(error, _TITLE)
            return
        x, y, z = view.centre_mm
        slices = view.volume.grid.shape[0]
        self.where.setText(
            f"slice {round(view.centre[0]) + 1} of {slices} · centre x {x:.1f}, y {y:.1f}, "
            f"z {z:.1f} mm" + ("" if masked else " · click to move the sphere")
        )
        self.picture.update()

    def _measure(self) -> None:
        case, volume, view = self._controller.workspace.case, self._volume, self.picture.view
        if case is None or volume is None or view is None:
            return
        try:
            fwhm_mm = _number("Resolution", self.fwhm)
        except InputError as error:
            self._controller.report(error, _TITLE)
            return
        voi = self._mask or SphereOfInterest(view.centre_mm, view.radius_mm)
        label = None if self._mask is None else self.label.currentData()
        region = self.voi_region.currentText()
        recover = self.recover.isChecked()

        def work() -> VoiMeasurement:
            with _in_words():
                return measure_invivo(
                    case,
                    volume,
                    voi,
                    region,
                    label=label,
                    fwhm_mm=fwhm_mm,
                    recovery="mean" if recover else "none",
                )

        looked_at = (volume, voi, label)
        self._controller.read_for(case, _TITLE, work, partial(self._measured, looked_at))

    def _measured(self, looked_at: tuple[Any, ...], found: VoiMeasurement) -> None:
        view = self.picture.view
        if view is None:
            return
        voi = self._mask or SphereOfInterest(view.centre_mm, view.radius_mm)
        label = None if self._mask is None else self.label.currentData()
        if looked_at != (self._volume, voi, label):
            return  # another place or region was chosen meanwhile
        self._found = found
        doubts = [f"⚠ {text}" for text in found.warnings]
        self.result.setText("\n".join([*measured_lines(found), *doubts]))
        self._enable()

    def _keep(self) -> None:
        found = self._found
        if found is not None:
            self._change(
                lambda case: add_invivo(case, [found.value]),
                lambda _: f"Added: {found.value.label}.",
            )


def _reading(
    case: Case, files: Sequence[Path], frame: int | None, same: bool
) -> Generator[Any, None, PetVolume]:
    with _in_words():
        work = iter_series(case, files, frame_index=frame, same_patient=same)
        return (yield from map_progress(work, lambda progress: (_TITLE, progress)))


class SlicePicture(QWidget):
    """A cropped slice with the sphere; a click says where the centre is, in pixels of the slice."""

    moved = Signal(float, float)

    def __init__(self) -> None:
        super().__init__()
        self.view: SliceView | None = None
        self.setFixedHeight(_PICTURE_PX)
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.setAccessibleName("Slice of the series, cropped around the sphere")

    def place(self) -> tuple[QRectF, float, float]:
        """Where the picture lies in the widget, and screen pixels of a row and of a column."""
        assert self.view is not None
        rows, columns = (one.stop - one.start for one in self.view.window)
        _, high, wide = self.view.volume.grid.spacing_mm
        scale = min(self.height() / (rows * high), self.width() / (columns * wide))
        size = (columns * wide * scale, rows * high * scale)
        left, top = (self.width() - size[0]) / 2, (self.height() - size[1]) / 2
        return QRectF(left, top, *size), high * scale, wide * scale

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the slice and the sphere's cut."""
        if self.view is None:
            return
        grey = self.view.grey()
        image = QImage(
            grey.tobytes(),
            grey.shape[1],
            grey.shape[0],
            grey.shape[1],
            QImage.Format.Format_Grayscale8,
        )
        area, tall, wide = self.place()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.drawImage(area, image)
        edge = self.view.masked()
        if edge is not None:
            painter.setBrush(QColor(palette.SELECTED_TILE))
            painter.setPen(Qt.PenStyle.NoPen)
            for at in np.argwhere(edge):
                corner = QPointF(area.left() + at[1] * wide, area.top() + at[0] * tall)
                painter.drawRect(QRectF(corner.x(), corner.y(), wide, tall))
            painter.end()
            return
        row_, column_, half_rows, half_columns = self.view.circle()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(palette.SELECTED_TILE), 2))
        middle = QPointF(area.left() + column_ * wide, area.top() + row_ * tall)
        painter.drawEllipse(middle, half_columns * wide, half_rows * tall)
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Move the sphere to the place of the click."""
        self._ask(event.position())

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Move the sphere along."""
        self._ask(event.position())

    def _ask(self, point: QPointF) -> None:
        if self.view is None:
            return
        area, tall, wide = self.place()
        self.moved.emit((point.y() - area.top()) / tall, (point.x() - area.left()) / wide)


@contextmanager
def _in_words() -> Iterator[None]:
    """Let errors name the fields of the page instead of the arguments of the library."""
    try:
        yield
    except InputError as error:
        text = str(error)
        for name, words in _WORDS.items():
            text = text.replace(name, words)
        raise InputError(text) from error


def _imported(change: InvivoChange) -> str:
    lines = [f"Imported: {invivo_line(change.added)}.", *change.conversions]
    return "\n".join([*lines, *(f"⚠ {text}" for text in change.warnings)])


def _number(name: str, field: QLineEdit) -> float:
    try:
        return typed_number(field.text())
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _regions() -> QComboBox:
    box = shrinkable(QComboBox())
    box.setEditable(True)
    box.addItems(_REGIONS)
    return box


def _form(*fields: tuple[str, QWidget]) -> QWidget:
    widget = QWidget()
    form = QFormLayout(widget)
    form.setContentsMargins(0, 0, 0, 0)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    for label, field in fields:
        if label:
            form.addRow(label, field)
            field.setAccessibleName(label)
        else:
            form.addRow(field)
    return widget
