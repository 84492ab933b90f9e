"""Kinetics to be tried: sliders with live curves, and in words what the images determine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent, QShowEvent
from qtpy.QtWidgets import QComboBox, QLabel, QLineEdit, QSizePolicy, QSlider, QWidget
from superqt.utils import qdebounced

from napari_mosaik.core import FloatArray, InputError, MosaikError, Params
from napari_mosaik.view.figure import paint
from napari_mosaik.view.formatting import count, duration, number
from napari_mosaik.view.kinetic_explorer import (
    MODELS,
    SURFACE,
    KineticModel,
    SliderSpec,
    changed_params,
    default_density,
    determined,
    explorer_curves,
    finding_lines,
    parameter_rows,
    reading_line,
    share_rows,
    slider_specs,
)
from napari_mosaik.view.presentation import outdated_by
from napari_mosaik.widgets.base.controls import (
    Collapsible,
    button,
    calm_wheel,
    clear,
    column,
    fill_table,
    grey_text,
    row,
    shrinkable,
    table_of,
    wrapped_label,
)
from napari_mosaik.widgets.base.figure_view import theme_colours
from napari_mosaik.workflow.kinetics import iter_shares, judge_kinetics
from napari_mosaik.workflow.steps import step_named

if TYPE_CHECKING:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from napari_mosaik.view.plots import LiveCurves
    from napari_mosaik.widgets.base.case_controller import CaseController

__all__ = ["KineticsPanel"]

_STEPS = 1000
_CALM_MS = 250
"""What the images determine is judged this long after the last move."""
_PLOT_PX = 210


class _Slider(QWidget):
    """One parameter: label with unit, slider, typed value, reset, and whether it is determined."""

    moved = Signal()
    refused = Signal(str)

    def __init__(self, spec: SliderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.value = spec.default
        ends = f"{number(spec.low, digits=2)} to {number(spec.high, spec.unit, digits=2)}"
        self.title = wrapped_label(f"{spec.label} ({ends})")
        self.verdict = QLabel()
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, _STEPS)
        self.slider.setMinimumWidth(60)
        self.edit = QLineEdit()
        self.edit.setFixedWidth(78)
        self.reset = button("↺", lambda: self.set_value(spec.default), f"Back to {spec.default:g}")
        self.reset.setFixedWidth(28)
        tip = f"{spec.about} The slider covers {ends}; a value beyond can be typed."
        for widget in (self.title, self.slider, self.edit):
            widget.setToolTip(tip)
        self.slider.setAccessibleName(spec.label)
        top = row(self.title, self.verdict, spacing=2)
        top.setStretch(0, 1)
        self.setLayout(
            column(
                top,
                row(self.slider, self.edit, self.reset),
                spacing=0,
            )
        )
        self._show()
        self.slider.valueChanged.connect(self._slid)
        self.edit.editingFinished.connect(self._typed)

    def set_value(self, value: float) -> None:
        """Take a value and tell of it."""
        self.show_value(value)
        self.moved.emit()

    def show_value(self, value: float) -> None:
        """Take a value without telling of it."""
        self.value = value
        self._show()

    def _slid(self, place: int) -> None:
        self.value = self.spec.at(place / _STEPS)
        self.edit.setText(f"{self.value:g}")
        self.moved.emit()

    def _typed(self) -> None:
        if self.edit.text() == f"{self.value:g}":
            return
        try:
            value = self.spec.check(self.edit.text())
        except InputError as error:
            self.edit.setText(f"{self.value:g}")
            self.refused.emit(str(error))
            return
        self.set_value(value)

    def _show(self) -> None:
        with QSignalBlocker(self.slider):
            self.slider.setValue(round(_STEPS * self.spec.place(self.value)))
        self.edit.setText(f"{self.value:g}")

    def show_verdict(self, known: bool | None) -> None:
        """Show whether the images determine it; None where that is not judged."""
        self.verdict.setText("" if known is None else "determined" if known else "prior only")
        colour = f"color: {grey_text()};" if known is False else ""
        if colour != self.title.styleSheet():  # to set it takes Qt a while
            for label in (self.title, self.verdict):
                label.setStyleSheet(colour)


class _LivePlot(QWidget):
    """Curves over a background that is drawn on another thread: the window never waits for it.

    Parameters
    ----------
    read
        Calls a function in the background and passes its result on, as `CaseController.read`.
    """

    def __init__(
        self, read: Callable[[str, Callable[[], Any], Callable[[Any], None]], Any]
    ) -> None:
        super().__init__()
        from napari_mosaik.view.plots import LiveCurves

        self._read = read
        self.curves = LiveCurves()
        paint(self.curves.figure, *theme_colours())
        self._dpi = float(self.curves.figure.dpi)
        self._canvas: FigureCanvasAgg | None = None
        self._background: Any = None
        self._size: object = None
        self._draws = False
        self._image: QImage | None = None
        self.setMinimumHeight(_PLOT_PX)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Show the image; one of another size or of other curves is drawn meanwhile."""
        super().paintEvent(event)
        if self._image is not None:
            painter = QPainter(self)
            painter.drawImage(self.rect(), self._image)
            painter.end()
        if not self._is_current():
            self._draw_all()

    def _look(self) -> tuple[int, int, float]:
        return self.width(), self.height(), self.devicePixelRatioF()

    def _is_current(self) -> bool:
        return self._size == self._look() and self.curves.is_framed

    def _draw_all(self) -> None:
        """Draw the background, which nothing touches meanwhile."""
        if not self._draws:
            self._draws = True
            look = self._look()
            work = partial(_background_of, self.curves, self._dpi, *look)
            self._read("Curves", work, partial(self._drawn, look))

    def _drawn(self, look: object, found: tuple[FigureCanvasAgg, Any]) -> None:
        self._draws, self._size = False, look
        self._canvas, self._background = found
        self._draw_lines()

    def _draw_lines(self) -> None:
        """Draw the lines over the background; draws that again if it is no longer the right one."""
        if self._draws:
            return  # they come when it is there
        if self._canvas is not None:
            self._canvas.restore_region(self._background)  # type: ignore[no-untyped-call]
            for line in self.curves.lines.values():
                self.curves.figure.draw_artist(line)
            wide, high = self._canvas.get_width_height(physical=True)
            pixels = bytes(self._canvas.buffer_rgba())  # type: ignore[no-untyped-call]
            image = QImage(pixels, wide, high, 4 * wide, QImage.Format.Format_RGBA8888)
            self._image = image.copy()  # its own memory
        self.update()

    def show_curves(
        self, times: FloatArray, curves: Mapping[str, FloatArray], imaging: tuple[float, ...]
    ) -> None:
        """Show curves (t,), µM, at times (t,), h, and the imaging times, h."""
        self.curves.show(times, curves, imaging)
        if self.isVisible():
            self._draw_lines()
        else:
            self._size = None


def _background_of(
    curves: LiveCurves, dpi: float, width: int, height: int, ratio: float
) -> tuple[FigureCanvasAgg, Any]:
    """Axes, labels and imaging times in that many pixels of the screen, and a copy of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    curves.frame()
    curves.figure.set_dpi(dpi * ratio)
    curves.figure.set_size_inches(max(1, width) / dpi, max(1, height) / dpi)
    canvas = FigureCanvasAgg(curves.figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return canvas, canvas.copy_from_bbox(curves.figure.bbox)  # type: ignore[no-untyped-call]


class KineticsPanel(QWidget):
    """Sliders of a model, its curves, and what images at chosen times determine.

    Nothing is stored before *Use these values*, which changes the settings of the model's step.
    """

    def __init__(self, controller: CaseController) -> None:
        super().__init__()
        self._controller = controller
        self._task: object = None
        self._case: object = None
        self._asked = self._ready = False
        self._start: tuple[dict[str, float], str] = ({}, "")
        self.sliders: dict[str, _Slider] = {}
        self.model_box = QComboBox()
        for model in MODELS:
            self.model_box.addItem(model.title, model)
        shrinkable(self.model_box)
        self.times = QLineEdit()
        self.times.setToolTip(
            "Times of the images after injection, in hours, separated by commas; the curves are "
            "evaluated at these"
        )
        self.plot = _LivePlot(controller.read)
        self.reading = wrapped_label()
        self.problem = wrapped_label(bold=True)
        self._rows, self._more_rows = column(spacing=3), column(spacing=3)
        more = QWidget()
        more.setLayout(self._more_rows)
        self.more = Collapsible("More parameters", more)
        self.use = button("Use these values", self._use, "Change the settings of this step")
        self.back = button("Back to the settings", self._restart, "Discards the trial values")
        self.stale = wrapped_label(small=True)
        self.findings = wrapped_label(small=True)
        self.table = table_of(
            ("Parameter", "Images", "Factor", "Sensitivity"),
            (
                "Grey: not determined by the images, prior only",
                "Determined where the images narrow the prior to half or less",
                "95 % lie between the value divided by and times this factor: prior (illustrative) "
                "and after images at the chosen times",
                "Relative change of the retained antibody per relative change of the parameter",
            ),
            wide=0,
        )
        self.compute = button(
            "Shares of the variance",
            self._share,
            "Sobol indices of permeability, antigen, association and internalisation over their "
            "priors; takes about a second",
        )
        self.shares = table_of(
            ("Parameter", "Alone (95 %)", "Total (95 %)"),
            ("", "Fraction by this parameter alone", "Fraction with all its interactions"),
            wide=0,
        )
        self.shares.hide()
        inner = QWidget()
        inner.setLayout(column(self.findings, self.table, self.compute, self.shares, spacing=4))
        self.fold = Collapsible("Identifiability", inner, opened=True)
        self.setLayout(
            column(
                wrapped_label("Try parameters", bold=True),
                row(QLabel("Model"), self.model_box),
                row(QLabel("Imaging times, h"), self.times),
                self.plot,
                self.reading,
                self.problem,
                self._rows,
                self.more,
                row(self.use, self.back, 1),
                self.stale,
                self.fold,
                spacing=5,
            )
        )
        self.problem.hide()
        self._judge_soon = qdebounced(self._judge, timeout=_CALM_MS, parent=self)
        self.model_box.currentIndexChanged.connect(self._restart)
        self.times.editingFinished.connect(self._changed)
        events = controller.workspace.events
        events.case.connect(self._case_changed)
        events.recipe.connect(self._settings_changed)
        events.states.connect(self._show_stale)
        self._restart()
        self.reading.setText("Preparing the solver (takes longer the first time)…")

    def showEvent(self, event: QShowEvent) -> None:
        """Prepare the solver when the panel is first seen: it may never be."""
        super().showEvent(event)
        if not self._asked:
            self._asked = True
            params, surface = self.tried(), self._surface()
            self._controller.read(
                "Kinetics", lambda: judge_kinetics(params, surface), self._prepared
            )

    def _prepared(self, _record: object) -> None:
        """The solver is compiled: from now on it may be called in the window's own thread."""
        self._ready = True
        self._changed()

    def _case_changed(self, *_: object) -> None:
        """Start again with another case, but not where a field of the same one has changed."""
        case = self._controller.workspace.case
        if case is not self._case or not self.back.isEnabled():
            self._restart()

    # --- what is tried --------------------------------------------------------------------------
    @property
    def model(self) -> KineticModel:
        """The chosen model."""
        model: KineticModel = self.model_box.currentData()
        return model

    def _settings(self) -> Params:
        stored = self._controller.workspace.recipe.get(self.model.step)
        return stored if stored is not None else step_named(self.model.step).params()

    def values(self) -> dict[str, float]:
        """The values of the sliders by name of the parameter, each in its unit."""
        return {name: slider.value for name, slider in self.sliders.items()}

    def tried(self) -> Params:
        """The settings that are tried; `InputError` for imaging times that are not valid."""
        return changed_params(self.model, self._settings(), self.values(), self.times.text())

    def _restart(self, *_: object) -> None:
        """Sliders at the settings of the open case."""
        self._case = self._controller.workspace.case
        settings, tile_data = self._settings(), self._controller.workspace.tile_data
        specs = slider_specs(self.model, default_density(tile_data.parameters))
        if specs != [slider.spec for slider in self.sliders.values()]:
            self._make_sliders(specs)
        for name, slider in self.sliders.items():
            slider.show_value(getattr(settings, name, slider.spec.default))
            slider.show_verdict(None)
        self.times.setText(str(getattr(settings, "imaging_times", "")))
        self.compute.setVisible(SURFACE in self.sliders)
        self.shares.hide()
        self._start = self.values(), self.times.text()
        self._changed()

    def _make_sliders(self, specs: Sequence[SliderSpec]) -> None:
        clear(self._rows)
        clear(self._more_rows)
        self.sliders = {}
        for spec in specs:
            slider = self.sliders[spec.name] = _Slider(spec)
            slider.moved.connect(self._changed)
            slider.refused.connect(self._refuse)
            (self._rows if spec.first else self._more_rows).addWidget(slider)
        calm_wheel(self)

    def _settings_changed(self, *_: object) -> None:
        """Follow settings that were changed elsewhere, but not over what is being tried."""
        if not self.back.isEnabled():
            self._restart()
        else:
            self._show_stale()

    def _refuse(self, text: str) -> None:
        self.problem.setText(f"⚠ {text}")
        self.problem.setVisible(bool(text))

    def _changed(self) -> None:
        changed = (self.values(), self.times.text()) != self._start
        self.use.setEnabled(changed and self._case is not None)
        self.back.setEnabled(changed)
        if not self._ready:
            return
        try:
            params = self.tried()
            times, curves = explorer_curves(params, self._surface())
        except MosaikError as error:
            self._refuse(str(error))
            self.use.setEnabled(False)
            return
        self._refuse("")
        imaging = params.imaging_h  # type: ignore[attr-defined]
        self.plot.show_curves(times, curves, imaging)
        self.reading.setText(reading_line(times, curves, imaging))
        self._judge_soon()

    def _surface(self) -> float:
        slider = self.sliders.get(SURFACE)
        return slider.value if slider is not None else 0.0

    def _show_stale(self, *_: object) -> None:
        """Say what *Use these values* would make stale."""
        case, states = self._controller.workspace.case, self._controller.workspace.states
        if not self.use.isEnabled() or case is None:
            self.stale.setText("Nothing is stored until 'Use these values'.")
            return
        titles, seconds = outdated_by(case, self.model.step, states)
        words = f"'Use these values' makes {count(len(titles), 'finished step')} stale"
        if titles:
            words += f": {', '.join(titles)} (about {duration(seconds)} to run again)"
        self.stale.setText(f"{words}. Until then nothing is stored.")

    def _use(self) -> None:
        try:
            params = self.tried()
        except InputError as error:
            self._refuse(str(error))
            return
        self._controller.set_params(self.model.step, params)
        self._restart()

    # --- what the images determine --------------------------------------------------------------
    def _judge(self) -> None:
        """Judge in the background; a newer answer takes the place of an older one."""
        self._show_stale()
        try:
            params, surface = self.tried(), self._surface()
        except InputError:
            return
        task = self._controller.read(
            "Kinetics",
            lambda: judge_kinetics(params, surface),
            lambda record: self._judged(task, record),
        )
        self._task = task

    def _judged(self, task: object, record: Mapping[str, Any]) -> None:
        if task is not self._task:
            return
        self.findings.setText("\n".join(f"• {line}" for line in finding_lines(record)))
        known = determined(record)
        for name, slider in self.sliders.items():
            slider.show_verdict(known.get(name))
        rows = parameter_rows(record)
        fill_table(self.table, rows)
        for place, yes in enumerate(known.values()):
            for at in range(self.table.columnCount() if not yes else 0):
                item = self.table.item(place, at)
                assert item is not None
                item.setForeground(QColor(grey_text()))
        self.table.setVisible(bool(rows))
        self.table.setFixedHeight(28 + 21 * len(rows))

    def _share(self) -> None:
        """Compute the shares of the variance as a job with progress and Cancel."""
        try:
            params, surface = self.tried(), self._surface()
        except InputError as error:
            self._refuse(str(error))
            return

        job = self._controller.start("Shares of the variance", lambda: iter_shares(params, surface))
        if job is not None:
            job.done.connect(self._show_shares)

    def _show_shares(self, record: Mapping[str, Any]) -> None:
        if "not_available" in record:
            self._refuse(f"Shares of the variance: {record['not_available']}")
            return
        rows = share_rows(record)
        fill_table(self.shares, rows)
        self.shares.setFixedHeight(28 + 21 * len(rows))
        self.shares.setVisible(bool(rows) and SURFACE in self.sliders)
