"""The plan of a dose what-if as it is typed: rows of courses and fractions, and assumptions.

Plan ──text_of──► PlanText ──PlanEditor (typed)──► PlanText ──plan_of──► Plan | PlanProblem
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFrame,
    QGridLayout,
    QLabel,
    QLineEdit,
    QSlider,
    QWidget,
)

from napari_mosaik.core import InputError
from napari_mosaik.core.text import typed_number
from napari_mosaik.view.formatting import number
from napari_mosaik.widgets.base.controls import (
    Collapsible,
    button,
    calm_wheel,
    column,
    row,
    shrinkable,
    wrapped_label,
)
from napari_mosaik.widgets.base.form import ParamsForm, field_widget
from napari_mosaik.workflow.plan_presets import PRESETS
from napari_mosaik.workflow.plan_record import (
    ACTIVITY_UNITS,
    NUCLIDE_NAMES,
    Course,
    Plan,
    PlanProblem,
    Spreads,
    activity_doubt,
    has_alpha_particles,
    parse_plan,
)

__all__ = ["PlanEditor", "PlanText", "RowText", "plan_of", "text_of", "unsaved"]

_BEAM: Final = "EBRT"
_UNITS: Final = dict(zip(ACTIVITY_UNITS, ("MBq", "MBq/m²", "GBq"), strict=True))
_ALPHA: Final = ("rbe", "retained")
_TUMOUR: Final = ("within_cv", "tumour_ml", "clonogens")
_MORE: Final = (
    "oxygen_m", "oxygen_m_alpha", "density_g_ml", "clonogens_per_ml", "doubling_days",
    "kick_off_days", "until_days", "antibody_mg", "draws", "seed",
)  # fmt: skip
_FIRST: Final = tuple(
    name
    for name in Plan.model_fields
    if name not in (*_ALPHA, *_TUMOUR, *_MORE)
    and name not in ("name", "courses", "fractions", "spreads", "sources", "limits")
)
_TYPED: Final = {
    "tumour_ml": "mL",
    "clonogens": "",
    "clonogens_per_ml": "1/mL",
    "doubling_days": "d",
    "until_days": "d",
    "antibody_mg": "mg",
}
"""Numbers that are typed as text, as they may be empty or large, with their units."""
_FILES: Final = {
    "shape": {"constant": "constant after a rise", "tile": "curve of each tile"},
    "kernel": {"local": "local", "built-in": "range of the electrons"},
}
_REPAIRS: Final = {
    ((1.0, 1.5),): "half-time 1.5 h",
    ((0.5, 0.5), (0.5, 4.0)): "50 % 0.5 h, 50 % 4 h",
}
_OTHER: Final = "From a file…"
_OF_ROW: Final = r"^\w+\.(\w+) \(entry \d+\) = (.*) is not valid: (.*)"
_CV_STEPS: Final = 50
_WIDE: Final = (70, 74, 34)
_SIGN_PX: Final = 19
"""Widths of amount, unit and day, and of the signs of a row, in the 360 px of the dock."""
_NARROW_BOX: Final = "QComboBox { padding: 2px 0 2px 4px; } QComboBox::drop-down { width: 14px; }"
_ROW_HEADS: Final = (
    ("Course", "Nuclide of an infusion, or external beam radiotherapy (EBRT)"),
    ("Amount", "Activity; for external beam number x Gy, such as 5x2"),
    ("Unit", "MBq/m² is per body surface (Du Bois)"),
    ("Day", "Counted from the first course"),
)


@dataclass(frozen=True, slots=True)
class RowText:
    """One course or a series of fractions as typed."""

    kind: str = "Lu-177"
    amount: str = ""
    unit: str = "MBq"
    day: str = "0"

    @property
    def is_beam(self) -> bool:
        """Whether it is external beam."""
        return self.kind == _BEAM


@dataclass(frozen=True, slots=True)
class PlanText:
    """A plan as typed; ``values`` are its other settings by name, texts where they are typed."""

    name: str
    rows: tuple[RowText, ...] = (RowText(),)
    values: Mapping[str, Any] = field(default_factory=dict)


def text_of(plan: Plan) -> PlanText:
    """A plan as it would be typed."""
    rows = [
        RowText(one.nuclide, _exact(one.activity), one.unit, _exact(one.day))
        for one in plan.courses
    ]
    rows += [
        RowText(_BEAM, f"{one.number}x{_exact(one.dose_gy)}", "Gy", _exact(one.day))
        for one in plan.fractions
    ]
    values = {n: getattr(plan, n) for n in Plan.model_fields}
    for name in ("name", "courses", "fractions"):
        values.pop(name)
    return PlanText(plan.name, tuple(rows), values)


def _exact(value: float) -> str:
    """A number as text that reads back as the same one."""
    return repr(float(value)).removesuffix(".0")


def plan_of(text: PlanText) -> Plan:
    """The plan that was typed; raises `PlanProblem` with its row or setting."""
    courses: list[dict[str, Any]] = []
    fractions: list[dict[str, Any]] = []
    places: dict[str, list[int]] = {"courses": [], "fractions": []}
    for place, one in enumerate(text.rows):
        kind = "fractions" if one.is_beam else "courses"
        places[kind].append(place)
        (fractions if one.is_beam else courses).append(_row_values(one, place))
    values = {**text.values, "name": text.name, "courses": courses, "fractions": fractions}
    for name in _TYPED:
        values[name] = _number_typed(name, values.get(name, Plan.model_fields[name].default))
    try:
        return parse_plan(values, "")
    except PlanProblem as problem:
        known = places.get(problem.entry, [])
        if not 0 <= problem.row < len(known):
            raise
        found = known[problem.row]
        words = re.sub(_OF_ROW, rf"Row {found + 1}, \1 = \2: \3", str(problem))
        raise PlanProblem(words.replace("number =", "fractions ="), problem.entry, found) from None


def _number_typed(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not value.strip():
        return Plan.model_fields[name].default
    try:
        return typed_number(value)
    except InputError as error:
        extra: Any = Plan.model_fields[name].json_schema_extra
        raise PlanProblem(f"{extra['label']}: {error}.", name) from None


def _row_values(one: RowText, place: int) -> dict[str, Any]:
    day = _typed(one.day, place, "day")
    if not one.is_beam:
        amount = _typed(one.amount, place, "activity")
        if not amount > 0:
            raise PlanProblem(
                f"Row {place + 1}: the activity must be above 0 {_UNITS[one.unit]}.",
                "courses",
                place,
            )
        return {"nuclide": one.kind, "activity": amount, "unit": one.unit, "day": day}
    number_of, cross, dose = one.amount.lower().replace("×", "x").partition("x")
    if not cross or not number_of.strip().isdigit():
        given = f"'{one.amount}' is not" if one.amount.strip() else "give the fractions as"
        raise PlanProblem(
            f"Row {place + 1}: {given} number x Gy, such as 5x2 for five times 2 Gy.",
            "fractions",
            place,
        )
    gray = _typed(dose, place, "dose of a fraction")
    return {"number": int(number_of), "dose_gy": gray, "day": day}


def _typed(text: str, place: int, what: str) -> float:
    entry = "courses"
    if not text.strip():
        raise PlanProblem(f"Row {place + 1}: give the {what}.", entry, place)
    try:
        return typed_number(text)
    except InputError as error:
        raise PlanProblem(f"Row {place + 1}, {what}: {error}.", entry, place) from None


class _Row(QWidget):
    """One line of the table: nuclide or beam, amount, unit, day, and what can be done with it."""

    changed = Signal()
    wanted = Signal(str)

    def __init__(self, text: RowText) -> None:
        super().__init__()
        self.kind = shrinkable(QComboBox())
        self.kind.addItems([*NUCLIDE_NAMES, _BEAM])
        self.kind.setMinimumContentsLength(1)
        self.kind.setMinimumWidth(62)
        self.amount = QLineEdit()
        self.unit = QComboBox()
        self.day = QLineEdit()
        for edit, wide in ((self.amount, _WIDE[0]), (self.day, _WIDE[2])):
            edit.setFixedWidth(wide)
        self.unit.setFixedWidth(_WIDE[1])
        for box in (self.kind, self.unit):
            box.setStyleSheet(_NARROW_BOX)
        tips = {"+": "Duplicate this row", "×": "Remove this row"}
        self.copy, self.remove = (
            button(sign, partial(self.wanted.emit, sign), tip) for sign, tip in tips.items()
        )
        for one in (self.copy, self.remove):
            one.setFixedWidth(_SIGN_PX)
            one.setStyleSheet("padding: 1px;")
            one.setAccessibleName(one.toolTip())
        self.setLayout(
            row(self.kind, self.amount, self.unit, self.day, self.copy, self.remove, spacing=2)
        )
        self.show_text(text)
        self.kind.currentTextChanged.connect(self._kind_chosen)
        self.unit.currentTextChanged.connect(lambda _: self.changed.emit())
        for edit in (self.amount, self.day):
            edit.textChanged.connect(lambda _: self.changed.emit())

    def show_text(self, text: RowText) -> None:
        """Show another row, silently."""
        for one in (self.kind, self.amount, self.unit, self.day):
            one.blockSignals(True)
        self._units(text.is_beam)
        self.kind.setCurrentText(text.kind)
        self.amount.setText(text.amount)
        self.unit.setCurrentText(_UNITS.get(text.unit, text.unit))
        self.day.setText(text.day)
        for one in (self.kind, self.amount, self.unit, self.day):
            one.blockSignals(False)

    def _units(self, beam: bool) -> None:
        if (self.unit.count() == 1) != beam or not self.unit.count():
            blocked = self.unit.blockSignals(True)
            self.unit.clear()
            self.unit.addItems(["Gy"] if beam else list(_UNITS.values()))
            self.unit.blockSignals(blocked)
        self.unit.setEnabled(not beam)
        self.amount.setPlaceholderText("5x2" if beam else "")

    def _kind_chosen(self, kind: str) -> None:
        beam = kind == _BEAM
        if beam != (self.unit.count() == 1):
            self._units(beam)
            with QSignalBlocker(self.amount):
                self.amount.clear()  # an activity is not a dose
        self.changed.emit()

    def text(self) -> RowText:
        """The row as typed."""
        unit = {words: unit for unit, words in _UNITS.items()}.get(self.unit.currentText(), "Gy")
        return RowText(self.kind.currentText(), self.amount.text(), unit, self.day.text())


class _Choice(QWidget):
    """A choice of words, or a file of the user."""

    changed = Signal()

    def __init__(self, words: Mapping[str, str], title: str) -> None:
        super().__init__()
        self._words, self._title = words, title
        self.box = shrinkable(QComboBox())
        self.ask: Callable[[], str] = self._ask
        self.setLayout(row(self.box))
        self._value = ""
        self.set_value(next(iter(words)))
        self.box.activated.connect(self._chosen)

    @property
    def value(self) -> str:
        """The word, or the path of the file."""
        return self._value

    def set_value(self, value: str) -> None:
        """Show a word or a file."""
        self._value = value
        with QSignalBlocker(self.box):
            self.box.clear()
            for word, title in self._words.items():
                self.box.addItem(title, word)
            if value not in self._words:
                self.box.addItem(Path(value).name, value)
            self.box.addItem(_OTHER, None)
            self.box.setCurrentIndex(self.box.findData(value))

    def _chosen(self, place: int) -> None:
        value = self.box.itemData(place) or self.ask()
        self.set_value(value or self._value)
        self.changed.emit()

    def _ask(self) -> str:
        return str(QFileDialog.getOpenFileName(self, self._title, "", "CSV (*.csv);;All (*)")[0])


class _RepairChoice(QComboBox):
    """One or two components of repair; another one of a plan's file is kept as it is."""

    def __init__(self) -> None:
        super().__init__()
        shrinkable(self)
        for parts, words in _REPAIRS.items():
            self.addItem(words, parts)

    @property
    def value(self) -> Any:
        """Share and half-time, h, of each component."""
        return self.currentData()

    def set_value(self, parts: Any) -> None:
        """Show components."""
        parts = tuple(tuple(part) for part in parts)
        known = [self.itemData(place) for place in range(self.count())]
        if parts not in known:
            words = ", ".join(f"{100 * share:g} % {half:g} h" for share, half in parts)
            self.addItem(words, parts)
            known.append(parts)
        self.setCurrentIndex(known.index(parts))


class _CvSlider(QWidget):
    """The unseen variation within a tile, 0 to 0.5, and what it does."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, _CV_STEPS)
        self.slider.setPageStep(10)
        self.slider.setMinimumWidth(60)
        self.reading = QLabel()
        self.reading.setMinimumWidth(34)
        self._value = 0.0
        self.setLayout(row(self.slider, self.reading))
        self.slider.valueChanged.connect(self._slid)
        self.set_value(0.0)

    @property
    def value(self) -> float:
        """The coefficient of variation."""
        return self._value

    def set_value(self, value: float) -> None:
        """Show a coefficient of variation, dimensionless."""
        self._value = value
        with QSignalBlocker(self.slider):
            self.slider.setValue(round(100 * value))
        self.reading.setText(f"{value:g}")

    def _slid(self, place: int) -> None:
        self._value = place / 100
        self.reading.setText(f"{self._value:g}")
        self.changed.emit()


class _Typed(QLineEdit):
    """A number as text; empty: the default."""

    @property
    def value(self) -> str:
        """The text."""
        return self.text()

    def set_value(self, value: Any) -> None:
        """Show a number or a text."""
        text = "" if value is None else value if isinstance(value, str) else _exact(value)
        with QSignalBlocker(self):
            self.setText(text)


class _Plain(QWidget):
    """A field of the house's forms, without its label."""

    changed = Signal()

    def __init__(self, name: str) -> None:
        super().__init__()
        info = Plan.model_fields[name]
        self._widget = field_widget(name, info, info.default)
        self.label = str(self._widget.label)
        native = self._widget.native
        if isinstance(native, QComboBox):
            shrinkable(native)
        if isinstance(native, QCheckBox):
            native.setText("")  # its label stands before it
        self._given: Any = info.default
        self._shown: Any = self._widget.value
        self.setLayout(row(native))
        self._widget.changed.connect(lambda *_: self.changed.emit())

    @property
    def value(self) -> Any:
        """The value."""
        shown = self._widget.value
        return self._given if shown == self._shown else shown

    def set_value(self, value: Any) -> None:
        """Show a value; one with more digits than are shown stays exact until it is edited."""
        with self._widget.changed.blocked():
            self._widget.value = value
        self._given, self._shown = value, self._widget.value


class _Setting(QWidget):
    """Label, field and the sentence below it."""

    def __init__(self, name: str, field_: Any, unit: str = "") -> None:
        super().__init__()
        info = Plan.model_fields[name]
        extra: Any = info.json_schema_extra
        label = getattr(field_, "label", "") or extra["label"]
        self.label = f"{label}{unit}"
        self.field = field_
        self.title = wrapped_label(self.label)
        self.title.setToolTip(info.description or "")
        field_.setToolTip(info.description or "")
        self.problem = wrapped_label(bold=True)
        self.problem.hide()
        self.note = wrapped_label(small=True)
        self.note.hide()
        line = QGridLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.setHorizontalSpacing(6)
        line.addWidget(self.title, 0, 0)
        line.addWidget(field_, 0, 1)
        line.setColumnStretch(0, 3)
        line.setColumnStretch(1, 5)
        self.setLayout(column(line, self.problem, self.note, spacing=1))

    def say(self, text: str) -> None:
        """Show what is wrong, or nothing."""
        self.problem.setText(f"⚠ {text}" if text else "")
        self.problem.setVisible(bool(text))

    def remark(self, text: str) -> None:
        """Show a remark below the field."""
        self.note.setText(text)
        self.note.setVisible(bool(text))


class _Question(QFrame):
    """Whether a typed activity has another unit: it waits for an answer."""

    answered = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.text = wrapped_label(bold=True)
        self.yes = button("Yes", partial(self.answered.emit, True))
        self.no = button("No, MBq is right", partial(self.answered.emit, False))
        self.setLayout(column(self.text, row(self.yes, self.no, 1), margin=4))
        self.hide()

    def ask(self, question: str, other: Course) -> None:
        """Show the question, and what Yes would make of the activity."""
        self.text.setText(f"? {question[:1].upper()}{question[1:]}")
        self.yes.setText(f"Yes: {other.activity:g} {_UNITS[other.unit]}")
        self.show()


class PlanEditor(QWidget):
    """Edits one plan; ``changed`` is emitted after every edit.

    ``plan`` is the plan that was typed, None while something is wrong or a question is open.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.plan: Plan | None = None
        self.sentence = ""
        self._answered: set[Course] = set()
        self._asked: tuple[int, Course, Course] | None = None
        self._last = ""
        self._quiet = False
        self._other: dict[str, Any] = {}
        self.rows: list[_Row] = []
        self._spare: list[_Row] = []
        self.name = QLineEdit()
        self.name.setToolTip("Type another name and save to rename the plan")
        self.name_problem = wrapped_label(bold=True)
        self._rows = column(spacing=2)
        self.row_problem = wrapped_label(bold=True)
        self.question = _Question()
        self.question.answered.connect(self._answer)
        self.add_course = button("Add course", partial(self._add, RowText()))
        self.add_beam = button(
            "Add fractions",
            partial(self._add, RowText(_BEAM, "", "Gy")),
            "External beam radiotherapy (EBRT)",
        )
        self.sort = button("Sort by day", self._sort, "Rows in the order of their days")
        self.source = wrapped_label(small=True)
        self.fields: dict[str, _Setting] = {}
        for name in (*_FIRST, *_ALPHA, *_TUMOUR, *_MORE):
            self.fields[name] = self._setting(name)
        self.spreads = ParamsForm(Spreads(), open_all=True)
        self.spreads.changed.connect(lambda _: self._edited("spreads"))
        more = QWidget()
        more.setLayout(column(*(self.fields[name] for name in _MORE), spacing=2))
        self.more = Collapsible("More settings", more)
        self.spread_fold = Collapsible("How uncertain each assumption is", self.spreads)
        heads = row(spacing=2)
        for (title, tip), wide in zip(
            _ROW_HEADS, (0, *_WIDE[:2], _WIDE[2] + 4 + 2 * _SIGN_PX), strict=True
        ):
            head = QLabel(title)
            head.setToolTip(tip)
            if wide:
                head.setFixedWidth(wide)
            heads.addWidget(head, 0 if wide else 1)
        first = [self.fields[name] for name in (*_FIRST, *_ALPHA, *_TUMOUR)]
        self.setLayout(
            column(
                row(QLabel("Name"), self.name),
                self.name_problem,
                heads,
                self._rows,
                self.row_problem,
                self.question,
                row(self.add_course, self.add_beam, self.sort, 1),
                self.source,
                *first,
                self.more,
                self.spread_fold,
                spacing=4,
            )
        )
        self.name.textChanged.connect(lambda _: self._edited("name"))
        calm_wheel(self)

    def _setting(self, name: str) -> _Setting:
        extra: Any = Plan.model_fields[name].json_schema_extra
        own: Any
        if name in _FILES:
            own = _Choice(_FILES[name], f"{extra['label']}: CSV file")
        elif name == "repair":
            own = _RepairChoice()
        elif name == "within_cv":
            own = _CvSlider()
        elif name in _TYPED:
            own = _Typed()
        else:
            own = _Plain(name)
        signal = getattr(
            own,
            {_RepairChoice: "currentIndexChanged", _Typed: "textChanged"}.get(type(own), "changed"),
        )
        signal.connect(lambda *_: self._edited(name))
        return _Setting(name, own, f", {_TYPED[name]}" if _TYPED.get(name) else "")

    # --- what is shown --------------------------------------------------------------------------
    def show_text(self, text: PlanText, stored: Plan | None) -> None:
        """Show a plan as typed; about activities that are stored nobody is asked again."""
        self._quiet = True
        self._answered = set(stored.courses) if stored is not None else set()
        self._last = ""
        self.name.setText(text.name)
        self._show_rows(text.rows)
        self._other = {n: v for n, v in text.values.items() if n not in self.fields}
        values = {**{n: Plan.model_fields[n].default for n in self.fields}, **text.values}
        for name, one in self.fields.items():
            one.field.set_value(values[name])
        self.spreads.show_value(text.values.get("spreads") or Spreads())
        self._quiet = False
        self._judge()

    def text(self) -> PlanText:
        """The plan as typed."""
        values = {**self._other, **{name: one.field.value for name, one in self.fields.items()}}
        try:
            values["spreads"] = self.spreads.value()
        except InputError:  # its own form names what is wrong, and keeps the value before
            values.setdefault("spreads", Spreads())
        rows = tuple(one.text() for one in self.rows)
        return PlanText(self.name.text(), rows, values)

    def _show_rows(self, texts: tuple[RowText, ...]) -> None:
        while len(self.rows) > len(texts):  # kept for the next plan: a row takes 10 ms to make
            gone = self.rows.pop()
            gone.hide()
            self._spare.append(gone)
        while self._spare and len(self.rows) < len(texts):
            self.rows.append(self._spare.pop())
            self.rows[-1].show()
        for one, text in zip(self.rows, texts, strict=False):
            one.show_text(text)
        for text in texts[len(self.rows) :]:
            one = _Row(text)
            one.changed.connect(lambda: self._edited("courses"))
            one.wanted.connect(partial(self._row_wanted, one))
            self._rows.addWidget(one)
            self.rows.append(one)
            calm_wheel(self)

    # --- rows -----------------------------------------------------------------------------------
    def _add(self, text: RowText) -> None:
        self._set_rows((*(one.text() for one in self.rows), text))
        self.rows[-1].amount.setFocus()

    def _set_rows(self, texts: tuple[RowText, ...]) -> None:
        self._show_rows(texts)
        self._edited("courses")

    def _row_wanted(self, one: _Row, sign: str) -> None:
        texts, place = [known.text() for known in self.rows], self.rows.index(one)
        if sign == "×":
            del texts[place]
        else:
            texts.insert(place + 1, texts[place])
        self._set_rows(tuple(texts))

    def _sort(self) -> None:
        def day(text: RowText) -> float:
            try:
                return typed_number(text.day)
            except InputError:
                return float("inf")

        self._set_rows(tuple(sorted((one.text() for one in self.rows), key=day)))

    # --- judging --------------------------------------------------------------------------------
    def _edited(self, what: str) -> None:
        if not self._quiet:
            self._last = what
            self._judge()
            self.changed.emit()

    def _judge(self) -> None:
        """Say under the field what is wrong, and ask where a unit is doubtful."""
        text = self.text()
        problem: PlanProblem | None = None
        self.plan, self._asked = None, None
        try:
            plan = plan_of(text)
        except PlanProblem as found:
            problem = found
        else:
            self._asked = self._doubt(plan)
            self.plan = plan if self._asked is None else None
        self._show_problem(problem)
        self.question.setVisible(self._asked is not None)
        if self._asked is not None:
            doubt = activity_doubt(self._asked[1])
            assert doubt is not None
            self.question.ask(*doubt)
            self.sentence = "Answer the question about the unit of an activity first."
        self._show_source(text)
        self._show_idle(text)

    def _doubt(self, plan: Plan) -> tuple[int, Course, Course] | None:
        """Row, course and the course that may be meant, for the first one without an answer."""
        places = [place for place, one in enumerate(self.rows) if not one.text().is_beam]
        for place, course in zip(places, plan.courses, strict=True):
            doubt = activity_doubt(course)
            if doubt is not None and course not in self._answered:
                return place, course, doubt[1]
        return None

    def _answer(self, yes: bool) -> None:
        if self._asked is None:
            return
        place, course, other = self._asked
        if yes:
            self.rows[place].amount.setText(_exact(other.activity))
            self._answered.add(other)
        else:
            self._answered.add(course)
        self._judge()
        self.changed.emit()

    def _show_problem(self, problem: PlanProblem | None) -> None:
        """The sentence below the field that it is about, else below the one edited last."""
        words = "" if problem is None else str(problem)
        entry = "" if problem is None else problem.entry or self._last or "courses"
        if words and entry in self.fields:
            words = words.replace(f"{entry} =", f"{self.fields[entry].label}:", 1)
        if words:
            words = words[:1].upper() + words[1:]
        self.sentence = words
        for name, one in self.fields.items():
            one.say(words if name == entry else "")
        elsewhere = entry not in self.fields and entry != "name"
        for label, shown in ((self.name_problem, entry == "name"), (self.row_problem, elsewhere)):
            label.setText(f"⚠ {words}" if words and shown else "")
            label.setVisible(bool(words and shown))

    def _show_source(self, text: PlanText) -> None:
        """Where the plan comes from, and whether its rows are still those of the source."""
        lines = [f"Source: {one}." for one in text.values.get("sources", ())]
        lines += [f"Known limit: {one}." for one in text.values.get("limits", ())]
        for preset in PRESETS.values():
            if lines and preset.plan.sources == text.values.get("sources"):
                same = text.rows == text_of(preset.plan).rows
                first = f"{preset.title}: {preset.about}."
                if not same:
                    first = f"⚠ Changed: these rows are no longer the regimen {preset.title}."
                lines.insert(0, first)
        self.source.setText("\n".join(lines))
        self.source.setVisible(bool(lines))

    def _show_idle(self, text: PlanText) -> None:
        """Hide what has no effect on this plan."""
        alpha = any(not one.is_beam and has_alpha_particles(one.kind) for one in text.rows)
        for name in _ALPHA:
            self.fields[name].setVisible(alpha)
        self.fields["rise_h"].setVisible(text.values["shape"] == "constant")
        for name in ("oxygen_m", "oxygen_m_alpha"):
            self.fields[name].setEnabled(bool(text.values["oxygen"]))
        self.sort.setEnabled(len(text.rows) > 1)
        ratio = text.values["alpha"] / text.values["beta"] if text.values["beta"] else None
        words = "no quadratic effect" if ratio is None else f"α/β {number(ratio, 'Gy')}"
        self.fields["beta"].remark(f"{words}; illustrative, not specific for ccRCC")


def unsaved(text: PlanText, stored: Plan | None) -> bool:
    """Whether what is typed differs from the stored plan."""
    if stored is None:
        return True
    try:
        return plan_of(text) != stored
    except PlanProblem:
        return True
