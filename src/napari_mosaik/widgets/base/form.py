"""Forms for the settings of steps: one magicgui widget for each field of a `Params` class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, cast, get_args, get_origin

from magicgui.widgets import Container, create_widget
from magicgui.widgets.bases import ValueWidget, Widget
from pydantic.fields import FieldInfo
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QAbstractSpinBox, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_mosaik.core import InputError, Params
from napari_mosaik.view.formatting import title_of, unit_words
from napari_mosaik.widgets.base.controls import calm_wheel, shrinkable

__all__ = ["ParamsForm", "field_widget"]

_MAX_DECIMALS = 9
_SHORT = 8
"""Letters of the hash of a model that are shown."""
_VECTOR_DECIMALS = 3
"""The same for all components of a vector."""
_NARROW = "QAbstractSpinBox { min-width: 36px; padding: 1px 4px; }"


class ParamsForm(QWidget):
    """Edits one `Params` value; ``changed`` carries each new valid value.

    Advanced fields are hidden below "More…".  An invalid value is reported below the form, and
    nothing is emitted until it is corrected.  ``confirm`` is asked before *Back to defaults*.
    *open_all* shows the advanced fields at once.
    """

    changed = Signal(object)

    def __init__(
        self, params: Params, parent: QWidget | None = None, *, open_all: bool = False
    ) -> None:
        super().__init__(parent)
        self._kind = type(params)
        self._quiet = False
        self.confirm: Callable[[], bool] = lambda: True
        self._containers: list[Container[Any]] = []
        fields = self._kind.model_fields
        self._widgets = {
            name: field_widget(name, info, getattr(params, name)) for name, info in fields.items()
        }
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        plain = [n for n in fields if open_all or not _extra(fields[n]).get("advanced")]
        hidden = [n for n in fields if n not in plain]
        layout.addWidget(self._container(plain))
        self._more = self._container(hidden)
        self._more.setVisible(False)
        self._toggle = QPushButton("More…")
        self._toggle.setCheckable(True)
        self._toggle.toggled.connect(self._open_more)
        layout.addWidget(self._toggle)
        self._toggle.setVisible(bool(hidden))  # a window of its own for a moment, if done before
        layout.addWidget(self._more)
        self._reset = QPushButton("Back to defaults")
        self._reset.setToolTip("Set all fields of this form to their defaults")
        self._reset.clicked.connect(self._back_to_defaults)
        layout.addWidget(self._reset)
        self._reset.setVisible(bool(fields))
        self._error = QLabel()
        self._error.setWordWrap(True)
        self._error.setVisible(False)
        layout.addWidget(self._error)
        self._mark(params)
        calm_wheel(self)

    def _container(self, names: list[str]) -> QWidget:
        box: Container[Any] = Container(
            widgets=[self._widgets[n] for n in names], layout="vertical", labels=True
        )
        box.margins = (0, 0, 0, 0)
        box.changed.connect(self._edited)
        self._containers.append(box)  # its native widget alone would not keep it alive
        native = box.native
        assert isinstance(native, QWidget)
        native.setParent(self)
        return native

    def _open_more(self, shown: bool) -> None:
        self._more.setVisible(shown)
        self._toggle.setText("Fewer" if shown else "More…")

    def _back_to_defaults(self) -> None:
        if self.confirm():
            self.set_value(self._kind())

    def value(self) -> Params:
        """Current settings; an invalid value raises `InputError`."""
        values = {
            name: None if _is_empty(info, self._widgets[name].value) else self._widgets[name].value
            for name, info in self._kind.model_fields.items()
        }
        return self._kind.parse(values, "this form")

    def set_value(self, params: Params) -> None:
        """Show other settings and emit ``changed`` once."""
        self._quiet = True
        for name, widget in self._widgets.items():
            widget.value = _shown(getattr(params, name), widget)
        self._quiet = False
        self._edited()

    def show_value(self, params: Params) -> None:
        """Show other settings without emitting ``changed``."""
        self._quiet = True
        for name, widget in self._widgets.items():
            value = _shown(getattr(params, name), widget)
            if widget.value != value:
                widget.value = value
        self._quiet = False
        self._mark(params)

    def offer(self, name: str, choices: Mapping[str, str]) -> None:
        """Offer values of a setting that names a model, each with its words."""
        widget = cast("Any", self._widgets[name])
        used = widget.value
        known = {"": "none", **({used: used[:_SHORT]} if used else {}), **choices}
        if {value: text for text, value in _listed(widget)} != known:
            self._quiet = True
            widget.choices = [(text, value) for value, text in known.items()]
            widget.value = used
            self._quiet = False

    def widget(self, name: str) -> ValueWidget[Any]:
        """The magicgui widget of one field."""
        return self._widgets[name]

    def _edited(self, *_: object) -> None:
        if self._quiet:
            return
        try:
            value = self.value()
        except InputError as error:
            self._error.setText(f"⚠ {error}")
            self._error.setVisible(True)
            return
        self._error.setVisible(False)
        self._mark(value)
        self.changed.emit(value)

    def _mark(self, value: Params) -> None:
        self._reset.setEnabled(value != self._kind())
        idle = value.without_effect()
        for name, widget in self._widgets.items():
            widget.enabled = name not in idle
        for name, words in value.lowest_in_words().items():
            self._widgets[name].native.setSpecialValueText(words)


def field_widget(name: str, info: FieldInfo, value: Any) -> ValueWidget[Any]:
    """The magicgui widget of one field, with its limits, unit, label and tooltip."""
    extra = _extra(info)
    options: dict[str, Any] = {"tooltip": info.description or ""}
    annotation, optional = _plain_type(info.annotation)
    options |= _number_options(info, annotation, value)
    if get_origin(annotation) is Literal:
        titles = extra.get("choices", {})
        options["choices"] = [
            (_choice_title(titles, choice), choice) for choice in get_args(annotation)
        ]
        annotation = None
    label = extra.get("label") or title_of(name)
    if label[1:2].isalnum():  # a symbol such as α or m keeps its case
        label = label[:1].upper() + label[1:]
    if extra.get("model"):
        options["choices"] = [("none", ""), *([(value[:_SHORT], value)] if value else [])]
        annotation = None
    if optional:
        annotation, value = str, "" if value is None else str(value)
        options = {"tooltip": f"{options['tooltip']} Leave empty if unknown."}
    widget = create_widget(
        value=value, annotation=annotation, name=name, label=label, options=options
    )
    if extra.get("model"):
        shrinkable(widget.native)
    if isinstance(value, tuple):  # a vector: one spin box for each component
        for child, part in zip(cast("Iterable[Widget]", widget), value, strict=True):
            _set_unit_and_decimals(child, "", part, _VECTOR_DECIMALS)
            child.native.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
            child.native.setStyleSheet(_NARROW)  # three beside a label, in the width of the dock
    else:
        _set_unit_and_decimals(widget, extra.get("unit", ""), value)
    return cast("ValueWidget[Any]", widget)


def _listed(box: Any) -> list[tuple[str, Any]]:
    """Words and value of each entry of a combo box."""
    native = box.native
    return [(native.itemText(row), native.itemData(row)) for row in range(native.count())]


def _shown(value: Any, widget: ValueWidget[Any]) -> Any:
    """The value as its widget expects it: optional ones are edited as text, a model is listed."""
    choices = getattr(widget, "choices", None)
    if choices is not None and value not in choices:
        cast("Any", widget).choices = [*_listed(widget), (str(value)[:_SHORT], value)]
    if isinstance(widget.value, str) and not isinstance(value, str):
        return "" if value is None else str(value)
    return value


def _is_empty(info: FieldInfo, value: object) -> bool:
    return isinstance(value, str) and not value.strip() and _plain_type(info.annotation)[1]


def _choice_title(titles: Mapping[Any, str], choice: object) -> str:
    return titles.get(str(choice), titles.get(choice, "")) or str(choice).replace("_", " ")


def _extra(info: FieldInfo) -> dict[str, Any]:
    extra = info.json_schema_extra
    return dict(extra) if isinstance(extra, dict) else {}


def _plain_type(annotation: Any) -> tuple[Any, bool]:
    """The type without ``None``, and whether None is allowed."""
    options = [a for a in get_args(annotation) if a is not type(None)]
    if type(None) in get_args(annotation) and len(options) == 1:
        return options[0], True
    return annotation, False


def _number_options(info: FieldInfo, annotation: Any, value: Any) -> dict[str, Any]:
    if annotation not in (int, float):
        return {}
    low, high = -1e12, 1e12
    if annotation is int:
        low, high = -(2**31) + 1, 2**31 - 1
    step = _step(value) if annotation is float else 1
    for limit in info.metadata:
        low = max(low, getattr(limit, "ge", low), _inside(limit, "gt", annotation, step))
        high = min(high, getattr(limit, "le", high), _inside(limit, "lt", annotation, -step))
    return {"min": low, "max": high, "step": step}


def _inside(limit: object, name: str, annotation: Any, step: float) -> float:
    """The nearest value that an exclusive limit allows (the class checks it exactly)."""
    value = getattr(limit, name, None)
    if value is None:
        return -math.inf if step > 0 else math.inf
    if annotation is int:
        return float(value + (1 if step > 0 else -1))
    return float(value)


def _step(value: float | None) -> float:
    """Step of a spin box: a tenth of the leading digit, 0.05 -> 0.001, 400 -> 10."""
    if not value or not math.isfinite(value):
        return 0.1
    return float(10.0 ** (math.floor(math.log10(abs(value))) - 1))


def _set_unit_and_decimals(widget: Widget, unit: str, value: Any, decimals: int = 1) -> None:
    """Set the unit suffix and enough decimals."""
    native = widget.native
    if hasattr(native, "setDecimals") and isinstance(value, float):
        text = f"{value:.12g}"
        digits = len(format(float(text), f".{_MAX_DECIMALS}f").rstrip("0").partition(".")[2])
        small = max(0, -math.floor(math.log10(_step(value)))) if value else 2
        native.setDecimals(min(_MAX_DECIMALS, max(digits, small, decimals)))
        widget.value = value  # type: ignore[attr-defined]  # rounded to fewer decimals before
    unit = unit_words(unit) if unit in ("OD", "OD10") else unit  # with the base
    if unit and unit != "1":
        if hasattr(native, "setSuffix"):
            native.setSuffix(unit if unit == "°" else f" {unit}")
        else:
            widget.label = f"{widget.label}, {unit}"
    native.setMinimumWidth(60)
