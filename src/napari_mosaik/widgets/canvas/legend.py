"""The legend of all layers of the case: visibility, opacity, colours with units."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QLinearGradient, QPainter, QPixmap, QResizeEvent, QShowEvent
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFrame,
    QLabel,
    QSizePolicy,
    QSlider,
    QStyle,
    QStyleOptionButton,
    QVBoxLayout,
    QWidget,
)

from napari_mosaik.view.formatting import number, title_of
from napari_mosaik.view.presentation import step_views
from napari_mosaik.widgets.base.controls import (
    button,
    calm_wheel,
    column,
    row,
    wrapped_label,
)
from napari_mosaik.widgets.base.gc_tuning import Turns
from napari_mosaik.widgets.canvas.case_layers import CaseLayers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari_mosaik.view.spec import Legend

__all__ = ["Overlays", "legend_widget"]

_AT_ONCE = 2
"""So many rows are built in one turn of the event loop."""
_DELETED_AT_ONCE = 4


class Overlays(QWidget):
    """A row for each layer of the case, slides first, and the choice of a parameter."""

    def __init__(self, board: CaseLayers) -> None:
        super().__init__()
        self._board = board
        self._rows = QVBoxLayout()
        self._rows.setSpacing(2)
        self._built: dict[str, _Row] = {}
        self._headings: dict[str, QLabel] = {}
        self._gone: list[QWidget] = []
        self._turns = Turns(self)
        self._empty = wrapped_label("Layers appear here once a case is open.")
        self._rows.addWidget(self._empty)
        self.choices = {
            step: _Choice(view.choice_title, partial(board.show_choice, step))
            for step, view in step_views().items()
            if view.choice_title
        }
        hint = wrapped_label("Hold H to hide all overlays.", small=True)
        self.setLayout(column(self._rows, *self.choices.values(), hint, 1, margin=4, spacing=6))
        calm_wheel(self)
        board.changed.connect(self._fill)
        board.controller.workspace.events.states.connect(self._mark)
        self._fill()

    def _drop(self, widget: QWidget) -> None:
        """Hide a widget now; `_delete` deletes it."""
        self._rows.removeWidget(widget)
        widget.hide()
        self._gone.append(widget)

    def _mark(self, *_: object) -> None:
        for shown in self._built.values():
            shown.mark()

    def _fill(self) -> None:
        """Build the rows that are new or show another layer; the others stay as they are.

        The first rows are there at once, more of them come in turns of the event loop.
        """
        self._turns.stop()
        work = self._fill_in_turns()
        if next(work, True) is None:
            self._turns.add(work)

    def _delete(self) -> Iterator[None]:
        """Delete the rows that went, some in each turn."""
        while self._gone:
            for _ in range(min(_DELETED_AT_ONCE, len(self._gone))):
                widget = self._gone.pop()
                widget.setParent(None)
                widget.deleteLater()
            if self._gone:
                yield

    def _fill_in_turns(self) -> Iterator[None]:
        sections = self._board.names()
        self._empty.setVisible(not sections)
        self._drop_old(sections)
        place, built = 1, 0
        for section, names in sections.items():
            if section not in self._headings:
                self._headings[section] = wrapped_label(section, bold=True)
            self._place(self._headings[section], place)
            place += 1
            for name in names:
                if self._make_row(name):
                    built += 1
                self._place(self._built[name], place)
                place += 1
                if built == _AT_ONCE:
                    built = 0
                    yield
        for step, choice in self.choices.items():
            choice.offer(self._board.choices.get(step, ()))
        yield from self._delete()

    def _place(self, widget: QWidget, place: int) -> None:
        if self._rows.indexOf(widget) != place:
            self._rows.insertWidget(place, widget)

    def _make_row(self, name: str) -> bool:
        """Make sure that there is a row that shows a layer as it is; whether it was built."""
        former = self._built.get(name)
        if former is not None and former.is_current():
            former.mark()
            return False
        if former is not None:
            former.part()
            self._drop(former)
        self._built[name] = _Row(name, self._board)
        calm_wheel(self._built[name])
        return True

    def _drop_old(self, sections: Mapping[str, Sequence[str]]) -> None:
        names = {name for inside in sections.values() for name in inside}
        for name in [known for known in self._built if known not in names]:
            self._built[name].part()
            self._drop(self._built.pop(name))
        for section in [known for known in self._headings if known not in sections]:
            self._drop(self._headings.pop(section))


class _Choice(QWidget):
    """Choice of the parameter that a step shows."""

    def __init__(self, label: str, show: Any) -> None:
        super().__init__()
        self.box = QComboBox()
        self.box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.box.activated.connect(lambda _: show(self.box.currentData()))
        self._names: tuple[str, ...] = ()
        self.setLayout(row(QLabel(label), self.box))
        self.setVisible(False)

    def offer(self, names: tuple[str, ...]) -> None:
        self.setVisible(bool(names))
        if names == self._names:
            return
        self._names = names
        self.box.clear()
        for name in names:
            self.box.addItem(title_of(name), name)


class _Eye(QCheckBox):
    """Shows or hides a layer; a name without room ends in an ellipsis, the tip has all of it."""

    def __init__(self) -> None:
        super().__init__()
        self._name = ""
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def set_name(self, name: str) -> None:
        self._name = name
        self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._fit()

    def _fit(self) -> None:
        text = self._name
        if self.isVisible():  # before, no layout has given it its width
            text = self.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, self._room())
        self.setText(text.replace("&", "&&"))

    def _room(self) -> int:
        option = QStyleOptionButton()
        self.initStyleOption(option)
        contents = QStyle.SubElement.SE_CheckBoxContents
        return int(self.style().subElementRect(contents, option, self).width())


class _Row(QFrame):
    """One layer: visibility, opacity and the meaning of its colours."""

    def __init__(self, name: str, board: CaseLayers) -> None:
        super().__init__()
        self._name, self._board = name, board
        self._layer = board.layer(name)
        legend = board.legend(name)
        self.eye = _Eye()
        self.eye.clicked.connect(lambda shown: board.set_shown(name, shown))
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setFixedWidth(80)
        self.opacity.setToolTip("Opacity")
        self.opacity.setEnabled(self._layer is not None)
        self.opacity.valueChanged.connect(self._set_opacity)
        self.fill = QCheckBox("fill")
        self.fill.setToolTip("Filled areas or outlines only")
        self.fill.setVisible(_has_outline(self._layer))
        self.fill.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.fill.clicked.connect(self._set_fill)
        self._outline = max(1, getattr(self._layer, "contour", 0))
        self._scaled = legend is not None and legend.limits is not None
        self.scale = ScaleFields(name, board) if self._scaled else None
        self.legend = legend_widget(legend, self.scale) if legend is not None else QWidget()
        self._legend = legend
        head = row(self.eye, self.fill, self.opacity)
        self.setLayout(column(head, self.legend, margin=1, spacing=1))
        for signal in self._signals():
            signal.connect(self._follow)
        self._follow()
        self.mark()

    def mark(self) -> None:
        """Mark an old result and say what changed; show the limits of its colours."""
        if self.scale is not None:
            self.scale.show_limits()
        why = self._board.stale_reason(self._name)
        self.eye.set_name(f"↻ {self._name}" if why else self._name)
        self.eye.setToolTip(f"{self._name}: {f'stale, {why}' if why else 'show or hide'}")

    def is_current(self) -> bool:
        """Whether the row still shows the layer of its name and its colours."""
        board = self._board
        return self._layer is board.layer(self._name) and self._legend == board.legend(self._name)

    def part(self) -> None:
        """Disconnect from the layer, and let go of it."""
        if self.scale is not None:
            self.scale.part()
        for signal in self._signals():
            signal.disconnect(self._follow)
        self._layer = None  # this row is deleted in a later turn

    def _signals(self) -> list[Any]:
        if self._layer is None:
            return []
        events = self._layer.events
        drawn = [events.contour] if _has_outline(self._layer) else []
        return [events.visible, events.opacity, *drawn]

    def _set_fill(self, filled: bool) -> None:
        if self._layer is not None:
            self._layer.contour = 0 if filled else self._outline

    def _set_opacity(self, value: int) -> None:
        if self._layer is not None and value != round(100 * float(self._layer.opacity)):
            self._layer.opacity = value / 100

    def _follow(self, event: Any = None) -> None:
        layer = self._layer
        shown = layer is not None and bool(layer.visible)
        self.eye.setChecked(shown)
        self.legend.setVisible(shown and self._legend is not None)
        self.fill.setChecked(layer is not None and _has_outline(layer) and layer.contour == 0)
        self.opacity.setValue(100 if layer is None else round(100 * float(layer.opacity)))


def _has_outline(layer: Any) -> bool:
    """Whether a layer can be drawn as outlines, as labels can."""
    return hasattr(layer, "contour")


class ScaleFields(QWidget):
    """The colour scale of a map between two fields with its limits."""

    def __init__(self, name: str, board: CaseLayers) -> None:
        super().__init__()
        self._name, self._board = name, board
        legend = board.specs[name].legend
        assert legend is not None
        assert legend.limits is not None
        size = max(map(abs, legend.limits)) or 1.0
        digits = max(0, 2 - math.floor(math.log10(size)))
        self.low, self.high = (_field(digits, size / 50) for _ in range(2))
        self.low.setToolTip("Value of the first colour")
        self.high.setToolTip("Value of the last colour")
        self.reset = button("↺", self._restore, "Back to the 2nd and 98th percentile")
        fields = row(self.low, QLabel("to"), self.high, QLabel(legend.unit), self.reset, 1)
        self.setLayout(column(_scale(legend.colormap), fields, spacing=2))
        for field in (self.low, self.high):
            field.valueChanged.connect(self._change)
        board.scaled.connect(self.show_limits)
        self.show_limits()

    def part(self) -> None:
        """Disconnect from the board."""
        self._board.scaled.disconnect(self.show_limits)

    def show_limits(self) -> None:
        """Show the limits that are in use."""
        spec = self._board.specs.get(self._name)
        if spec is None:
            return  # its row is about to go
        limits = self._board.limits(spec)
        for field, value in zip((self.low, self.high), limits or (0.0, 1.0), strict=True):
            blocked = field.blockSignals(True)
            field.setValue(value)
            field.blockSignals(blocked)
        self.reset.setEnabled(self._board.is_rescaled(self._name))

    def _change(self, *_: Any) -> None:
        low, high = self.low.value(), self.high.value()
        if low < high:
            self._board.set_limits(self._name, (low, high))
        else:
            self.show_limits()

    def _restore(self) -> None:
        self._board.set_limits(self._name, None)


def _field(digits: int, step: float) -> QDoubleSpinBox:
    field = QDoubleSpinBox()
    field.setDecimals(digits)
    field.setRange(-1e6, 1e6)
    field.setSingleStep(step)
    field.setKeyboardTracking(False)
    field.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
    field.setStyleSheet("QAbstractSpinBox { min-width: 36px; padding: 1px 4px; }")
    field.setFixedWidth(62)
    return field


def legend_widget(legend: Legend, scale: QWidget | None = None) -> QWidget:
    """Named colours, or a colour scale with its limits and unit; *scale* replaces the latter."""
    body = QWidget()
    parts: list[Any] = []
    if scale is not None:
        parts.append(scale)
    elif legend.limits is not None:
        low, high = legend.limits
        parts.append(row(QLabel(number(low)), _scale(legend.colormap), _end(high, legend.unit)))
    for text, colour in legend.entries:
        parts.append(row(_swatch(colour), wrapped_label(text, small=True)))
    if legend.note:
        parts.append(wrapped_label(legend.note, small=True))
    layout = column(*parts, spacing=1)
    layout.setContentsMargins(22, 0, 0, 2)
    body.setLayout(layout)
    return body


def _end(value: float, unit: str) -> QLabel:
    return QLabel(number(value, unit))


def _swatch(colour: str) -> QLabel:
    label = QLabel()
    label.setFixedSize(12, 12)
    pixmap = QPixmap(12, 12)
    pixmap.fill(QColor(colour))
    label.setPixmap(pixmap)
    return label


def _scale(colormap: str) -> QLabel:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    label = QLabel()
    pixmap = QPixmap(120, 10)
    painter = QPainter(pixmap)
    gradient = QLinearGradient(0, 0, 120, 0)
    for i in range(11):
        gradient.setColorAt(i / 10, QColor(to_hex(colormaps[colormap](i / 10))))
    painter.fillRect(0, 0, 120, 10, gradient)
    painter.end()
    label.setPixmap(pixmap)
    label.setScaledContents(True)
    label.setFixedHeight(10)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return label
