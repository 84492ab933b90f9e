"""Building blocks of the pages: labels, rows of buttons, boxes, banner, tables, progress bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from qtpy.QtCore import QCoreApplication, QEvent, QLocale, QObject, QPoint, Qt, QTimer, Signal
from qtpy.QtGui import QColor, QFocusEvent, QGuiApplication, QHelpEvent, QKeyEvent, QKeySequence
from qtpy.QtWidgets import (
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QDoubleSpinBox,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLayout,
    QLineEdit,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QScrollBar,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QTabBar,
    QTableWidget,
    QTableWidgetItem,
    QToolButton,
    QToolTip,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import qdebounced, qthrottled

from napari_mosaik.core import palette
from napari_mosaik.view.formatting import duration
from napari_mosaik.widgets.base.case_controller import CaseController
from napari_mosaik.widgets.base.figure_view import theme_colours
from napari_mosaik.widgets.base.worker import Job, Problem, Report
from napari_mosaik.workflow.parallel import compute_devices

__all__ = [
    "ELIDED",
    "SETTLED_MS",
    "Banner",
    "Collapsible",
    "DeviceChoice",
    "JobBar",
    "button",
    "calm_wheel",
    "clear",
    "column",
    "confirmed",
    "fill_table",
    "grey_again",
    "grey_text",
    "read_both_marks",
    "row",
    "scrolled",
    "show_field",
    "show_from_top",
    "shrinkable",
    "table_of",
    "wrapped_label",
]

_STEPS = 1000
SETTLED_MS = 50
"""A page that has just been unfolded has its final size after this."""


class JobBar(QWidget):
    """Shows the running job; hidden while nothing is running."""

    def __init__(self, controller: CaseController, titles: Mapping[str, str]) -> None:
        super().__init__()
        self._controller = controller
        self._titles = titles
        self.text = wrapped_label(small=True)
        self.bar = QProgressBar()
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(10)
        self.bar.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.cancel = button(
            "Cancel", controller.cancel, "Stop the job; unfinished steps store nothing"
        )
        self.pause = button("Pause", self._pause, "Pauses after the current part; nothing is lost")
        bar = row(self.bar, self.pause, self.cancel)
        self.setLayout(column(self.text, bar, margin=4, spacing=2))
        controller.workspace.events.job.connect(self._job_changed)
        self._job_changed(controller.workspace.job)

    def _job_changed(self, job: Job | None, *_: object) -> None:
        self.setVisible(job is not None)
        if job is None:
            return
        self.cancel.setText("Cancel")
        self.cancel.setEnabled(True)
        self.pause.setEnabled(True)
        self._show_paused(job.is_paused)
        self.text.setText(job.title)
        self.bar.setValue(0)
        job.progressed.connect(self._show)
        job.cancelling.connect(self._acknowledge)
        job.paused.connect(self._show_paused)

    def _pause(self) -> None:
        job = self._controller.workspace.job
        if job is not None:
            job.set_paused(not job.is_paused)

    def _show_paused(self, paused: bool) -> None:
        self.pause.setText("Resume" if paused else "Pause")
        if paused:
            self.text.setText("Pausing…")

    def _show(self, report: Report) -> None:
        self.bar.setValue(round(_STEPS * report.fraction))
        parts = [self._titles.get(report.part, report.part)]
        if report.text and report.text != parts[0]:
            parts.append(report.text)
        parts.append(f"{100 * report.fraction:.0f} %")
        job = self._controller.workspace.job
        if job is not None and job.is_paused:
            parts.insert(0, "Paused" if job.is_waiting else "Pausing…")
        elif report.left_s is not None:
            parts.append(f"{duration(report.left_s)} left")
        stopping = job is not None and job.stopping
        self.text.setText("Cancelling…" if stopping else " · ".join(parts))

    def _acknowledge(self) -> None:
        self.cancel.setText("Cancelling…")
        self.cancel.setEnabled(False)
        self.pause.setEnabled(False)
        self.text.setText("Cancelling…")


class DeviceChoice(QWidget):
    """Where networks compute; only devices that torch can use are offered.

    They are looked for when the list is first opened, in the background: that loads torch.
    """

    def __init__(self, controller: CaseController) -> None:
        super().__init__()
        self._controller, self._asked = controller, False
        self.box = QComboBox()
        self.box.setToolTip("Where runs and trainings of networks compute; the record names it")
        self.box.addItem("automatic", "auto")
        self.box.installEventFilter(self)
        self.box.currentIndexChanged.connect(self._choose)
        self.setLayout(row(wrapped_label("Networks compute on", small=True), self.box))

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Look for the devices as soon as somebody turns to the list."""
        kinds = (QEvent.Type.MouseButtonPress, QEvent.Type.KeyPress)
        if event.type() in kinds and not self._asked:
            self._asked = True
            self._controller.read("Devices", compute_devices, self._offer)
        return super().eventFilter(watched, event)

    def _offer(self, names: tuple[str, ...]) -> None:
        for name in names:
            self.box.addItem(_DEVICES[name], name)

    def _choose(self, *_: object) -> None:
        self._controller.workspace.device = self.box.currentData()


_DEVICES = {
    "cpu": "processor (CPU)",
    "cuda": "GPU (CUDA)",
    "cuda-float32": "GPU (CUDA), 32 bit",
    "mps": "GPU (Apple, MPS)",
}


def table_of(
    titles: tuple[str, ...], tips: tuple[str, ...], wide: int = -1, fixed_px: int = 0
) -> QTableWidget:
    """An empty table with column titles and their tooltips; whole rows are selected.

    The column *wide* takes the width that is left; *fixed_px* is the width of the first one.
    """
    table = QTableWidget(0, len(titles))
    for place, (title, tip) in enumerate(zip(titles, tips, strict=True)):
        item = QTableWidgetItem(title)
        item.setToolTip(tip)
        table.setHorizontalHeaderItem(place, item)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    vertical, across = table.verticalHeader(), table.horizontalHeader()
    assert vertical is not None
    assert across is not None
    vertical.setVisible(False)
    vertical.setDefaultSectionSize(21)
    across.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    if wide >= 0:
        across.setSectionResizeMode(wide, QHeaderView.ResizeMode.Stretch)
    if fixed_px:
        across.setSectionResizeMode(0, QHeaderView.ResizeMode.Interactive)
        across.resizeSection(0, fixed_px)
    return table


def fill_table(
    table: QTableWidget,
    rows: Sequence[tuple[str, ...]],
    grey: int = -1,
    grey_rows: Sequence[int] = (),
) -> None:
    """Fill a table with text; the column *grey* and the *grey_rows* are greyed out."""
    table.setRowCount(len(rows))
    for i, texts in enumerate(rows):
        for j, text in enumerate(texts):
            item = QTableWidgetItem(text)
            item.setToolTip(text)
            if j == grey or i in grey_rows:
                item.setForeground(QColor(grey_text()))
            table.setItem(i, j, item)


def grey_text() -> str:
    """Colour of the text of what is not known, readable on the present theme of napari."""
    on_dark, on_light = palette.GREY_TEXTS
    return on_dark if QColor(theme_colours()[1]).lightnessF() < 0.5 else on_light


def grey_again(root: QWidget) -> None:
    """Give the grey texts of tables and labels the grey of another theme."""
    now = grey_text()
    for table in root.findChildren(QTableWidget):
        for place in range(table.rowCount() * table.columnCount()):
            item = table.item(*divmod(place, table.columnCount()))
            if item is not None and item.foreground().color().name().upper() in palette.GREY_TEXTS:
                item.setForeground(QColor(now))
    for label in root.findChildren(QLabel):
        if label.styleSheet().endswith(tuple(f"{grey};" for grey in palette.GREY_TEXTS)):
            label.setStyleSheet(f"color: {now};")


def wrapped_label(text: str = "", *, bold: bool = False, small: bool = False) -> QLabel:
    """A label with word wrap and selectable text."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    font = label.font()
    font.setBold(bold)
    if small and font.pointSizeF() > 0:
        font.setPointSizeF(font.pointSizeF() * 0.9)
    label.setFont(font)
    return label


def button(text: str, act: Callable[[], object], tip: str = "") -> QPushButton:
    """A push button."""
    push = QPushButton(text)
    push.setToolTip(tip)
    push.clicked.connect(lambda _checked=False: act())
    return push


def row(*widgets: QWidget | int, spacing: int = 4) -> QHBoxLayout:
    """Widgets side by side; a number adds a stretch."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(spacing)
    for widget in widgets:
        if isinstance(widget, int):
            layout.addStretch(widget)
        else:
            layout.addWidget(widget)
    return layout


def column(*items: QWidget | QLayout | int, margin: int = 0, spacing: int = 4) -> QVBoxLayout:
    """Widgets and layouts stacked vertically; a number adds a stretch."""
    layout = QVBoxLayout()
    layout.setContentsMargins(margin, margin, margin, margin)
    layout.setSpacing(spacing)
    for item in items:
        if isinstance(item, int):
            layout.addStretch(item)
        elif isinstance(item, QLayout):
            layout.addLayout(item)
        else:
            layout.addWidget(item)
    return layout


def clear(layout: QLayout) -> None:
    """Remove everything from a layout."""
    while layout.count():
        item = layout.takeAt(0)
        if item is not None and (widget := item.widget()) is not None:
            widget.setParent(None)
            widget.deleteLater()
        elif item is not None and (inner := item.layout()) is not None:
            clear(inner)


class _CalmWheel(QObject):
    """Leaves the mouse wheel to scrolling until somebody turns to a field, by a click or a key.

    The focus alone does not tell: when the field that has it is hidden, as that of a page that is
    closed, Qt hands it to the next one, which nobody has touched.
    """

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        kind = event.type()
        if kind not in _TELLING:
            return False
        field = watched.parent() if isinstance(watched, QLineEdit) else watched
        if not isinstance(field, QWidget):
            return False
        if kind == QEvent.Type.Wheel:
            if watched is field and not (field.hasFocus() and field.property(_TOUCHED)):
                event.ignore()  # Qt offers it to the parent, in the end to the page
                return True
        elif (
            not isinstance(event, QFocusEvent) or event.reason() == Qt.FocusReason.MouseFocusReason
        ):
            field.setProperty(_TOUCHED, kind != QEvent.Type.FocusOut)
        elif kind == QEvent.Type.FocusOut and event.reason() not in _COMES_BACK:
            field.setProperty(_TOUCHED, False)
        return False


_TELLING = {
    QEvent.Type.Wheel,
    QEvent.Type.FocusIn,
    QEvent.Type.FocusOut,
    QEvent.Type.MouseButtonPress,
    QEvent.Type.KeyPress,
}
_COMES_BACK = (Qt.FocusReason.PopupFocusReason, Qt.FocusReason.ActiveWindowFocusReason)
_FIELDS = (QAbstractSpinBox, QComboBox, QAbstractSlider, QTabBar)
_CALM, _TOUCHED = "mosaik_calm_wheel", "mosaik_touched"


def calm_wheel(root: QWidget) -> None:
    """Let the wheel scroll the page, and change no field inside *root* that nobody turned to.

    Fields of numbers are read as `read_both_marks` says.
    """
    guard = root.findChild(_CalmWheel) or _CalmWheel(root)
    for field in (one for kind in _FIELDS for one in root.findChildren(kind)):
        if not isinstance(field, QScrollBar) and not field.property(_CALM):
            field.setProperty(_CALM, True)
            if isinstance(field, QAbstractSpinBox):
                read_both_marks(field)
            for part in (field, *field.findChildren(QLineEdit)):
                part.installEventFilter(guard)
            if field.focusPolicy() == Qt.FocusPolicy.WheelFocus:
                field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)


class _DecimalMark(QObject):
    """Reads a comma as a decimal point, typed or pasted; a whole number ends before either."""

    def __init__(self, field: QAbstractSpinBox) -> None:
        super().__init__(field)
        self._ended = False

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() in (QEvent.Type.FocusOut, QEvent.Type.MouseButtonPress):
            self._ended = False
        if event.type() != QEvent.Type.KeyPress:
            return False
        press, field = cast("QKeyEvent", event), cast("QAbstractSpinBox", watched)
        if isinstance(field, QDoubleSpinBox):
            return self._typed(press, field)
        return self._ends(press, field)

    def _typed(self, press: QKeyEvent, field: QDoubleSpinBox) -> bool:
        if press.text() == ",":
            point = QKeyEvent(press.type(), Qt.Key.Key_Period, press.modifiers(), ".")
            QCoreApplication.sendEvent(field, point)
        elif press.matches(QKeySequence.StandardKey.Paste):
            text = QGuiApplication.clipboard().text().strip()
            field.lineEdit().insert(text.replace(",", "."))
        else:
            return False
        return True

    def _ends(self, press: QKeyEvent, field: QAbstractSpinBox) -> bool:
        """Take no digit after a mark: 2.5 is refused, and would be read as 25."""
        if press.text() and press.text() in ".,":
            self._ended = True
            place = field.mapToGlobal(field.rect().bottomLeft())
            QToolTip.showText(place, "A whole number is needed here", field)
            return True
        self._ended = self._ended and press.text().isdigit()
        return self._ended


def read_both_marks(field: QAbstractSpinBox) -> None:
    """Show a decimal point in whatever language, as all texts do; read a comma as one, too.

    Qt takes the mark that its language does not use as one between thousands and drops it: 0.3
    typed in German became 3, and 0,3 in English.
    """
    field.setLocale(_NUMBERS)
    field.installEventFilter(_DecimalMark(field))


_NUMBERS: Final = QLocale(QLocale.Language.German, QLocale.Country.Switzerland)
"""Has a decimal point, and neither point nor comma between thousands."""

_CALM_MS = 250


class _Scrolled(QScrollArea):
    """Resizes its content when text wraps or parts of it appear, which Qt alone may omit."""

    def __init__(self, widget: QWidget) -> None:
        super().__init__()
        self._fit_soon = qdebounced(self._fit, timeout=0, parent=self)
        # at once, but not for each of many changes: to look at all fields of a tab takes 10 ms
        self._calm_soon = qthrottled(self._calm, timeout=_CALM_MS, leading=True, parent=self)
        calm_wheel(widget)
        self.setWidget(widget)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() in (QEvent.Type.LayoutRequest, QEvent.Type.Show):
            self._fit_soon()
        return bool(super().eventFilter(watched, event))

    def _fit(self) -> None:
        content = self.widget()
        if content is None:
            return
        self._calm_soon()
        if content.heightForWidth(content.width()) > content.height():
            QCoreApplication.sendEvent(self, QEvent(QEvent.Type.LayoutRequest))

    def _calm(self) -> None:
        content = self.widget()
        if content is not None:
            calm_wheel(content)  # fields that came since


ELIDED = "mosaik_elided"
"""Property of a combo box whose text lacks its middle where it has no room."""


def shrinkable(box: QComboBox) -> QComboBox:
    """Let a combo box be narrower than its longest item, so that it does not widen the dock.

    What has no room then lacks its middle: names of models end with the cases that they were
    trained on.  The tooltip has it whole.
    """
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    box.view().setTextElideMode(Qt.TextElideMode.ElideMiddle)
    box.installEventFilter(_Middle(box))
    box.setProperty(ELIDED, True)
    return box


class _Middle(QObject):
    """Draws a combo box with the beginning and the end of its text."""

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        box = cast("QComboBox", watched)
        if event.type() == QEvent.Type.Paint and not box.isEditable():
            self._draw(box)
            return True
        if event.type() == QEvent.Type.ToolTip and self._shown(box) != box.currentText():
            words = "\n".join(filter(None, (box.currentText(), box.toolTip())))
            QToolTip.showText(cast("QHelpEvent", event).globalPos(), words, box)
            return True
        return False

    def _shown(self, box: QComboBox) -> str:
        option = QStyleOptionComboBox()
        box.initStyleOption(option)
        kind, part = QStyle.ComplexControl.CC_ComboBox, QStyle.SubControl.SC_ComboBoxEditField
        room = box.style().subControlRect(kind, option, part, box).width() - _MARGIN_PX
        middle = Qt.TextElideMode.ElideMiddle
        return box.fontMetrics().elidedText(box.currentText(), middle, room)

    def _draw(self, box: QComboBox) -> None:
        option, painter = QStyleOptionComboBox(), QStylePainter(box)
        box.initStyleOption(option)
        option.currentText = self._shown(box)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
        painter.end()


_MARGIN_PX = 4
"""Left and right of the text in a combo box, together."""


def scrolled(widget: QWidget) -> QScrollArea:
    """The widget in an area that scrolls vertically only."""
    area = _Scrolled(widget)
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    return area


def show_from_top(area: QScrollArea, part: QWidget) -> None:
    """Scroll as little as shows a part of a scrolled area; its top where all of it has no room.

    Qt's `ensureWidgetVisible` shows the middle of what is too high.
    """
    bar, content = area.verticalScrollBar(), area.widget()
    assert content is not None
    top = part.mapTo(content, QPoint(0, 0)).y()
    lowest = top + part.height() - area.viewport().height()
    bar.setValue(min(top, max(bar.value(), lowest)))


def show_field(field: QWidget) -> None:
    """Give a field the focus and scroll to it, once the page around it has its new size."""

    def show() -> None:
        parent = field.parentWidget()
        while parent is not None and not isinstance(parent, QScrollArea):
            parent = parent.parentWidget()
        if parent is not None:
            parent.ensureWidgetVisible(field)
        field.setFocus(Qt.FocusReason.OtherFocusReason)

    timer = QTimer(field)
    timer.setSingleShot(True)
    timer.timeout.connect(show)
    timer.start(SETTLED_MS)


class Collapsible(QWidget):
    """A heading that shows or hides the widget below it.

    superqt's ``QCollapsible`` fixes the height of its content at the size hint and so clips
    wrapped labels; this one leaves the height to the layout.
    """

    toggled = Signal(bool)

    def __init__(self, title: str, body: QWidget, *, opened: bool = False) -> None:
        super().__init__()
        self.body = body
        self._head = QToolButton()
        self._head.setText(title)
        self._head.setCheckable(True)
        self._head.setAutoRaise(True)
        self._head.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._head.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._head.toggled.connect(self._open)
        self.setLayout(column(self._head, body, spacing=2))
        self._head.setChecked(opened)
        self._open(opened)

    def set_open(self, opened: bool) -> None:
        """Show or hide the body."""
        self._head.setChecked(opened)

    def _open(self, opened: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow
        self._head.setArrowType(arrow)
        self.body.setVisible(opened)
        self.toggled.emit(opened)


class Banner(QFrame):
    """The last error in one sentence; its technical details can be copied."""

    dismissed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("mosaik-banner")
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._details = ""
        self.title = wrapped_label(bold=True)
        self.sentence = wrapped_label()
        self.copy = button(
            "Copy details", self._copy, "Copy the technical details for a bug report"
        )
        close = button("Dismiss", self.dismissed.emit)
        self.setLayout(column(self.title, self.sentence, row(self.copy, close, 1), margin=6))
        self.show_problem(None)

    def show_problem(self, problem: Problem | None) -> None:
        """Show a problem, or hide when there is none."""
        self.setVisible(problem is not None)
        if problem is None:
            return
        self._details = problem.details or problem.sentence
        self.title.setText(f"⚠ {problem.action}" if problem.action else "⚠ Error")
        self.sentence.setText(problem.sentence)
        self.copy.setText("Copy details")

    def _copy(self) -> None:
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self._details)
        self.copy.setText("Copied")


def confirmed(
    parent: QWidget,
    title: str,
    question: str,
    yes: QMessageBox.StandardButton = QMessageBox.StandardButton.Ok,
) -> bool:
    """Ask a question whose answer is *yes*, or Cancel, which is the default."""
    cancel = QMessageBox.StandardButton.Cancel
    return bool(QMessageBox.question(parent, title, question, yes | cancel, cancel) == yes)
