"""The settings of every step become a form that returns them unchanged."""

import pytest

from napari_mosaik.core import InputError, Params, setting
from napari_mosaik.workflow.steps import STEPS

pytestmark = pytest.mark.gui


@pytest.fixture
def alone(qtbot):
    """Makes forms without a window around them, which takes seconds."""
    from napari_mosaik.widgets.base.form import ParamsForm

    def make(params):
        made = ParamsForm(params)
        qtbot.addWidget(made)
        return made

    return make


@pytest.fixture
def form(dock, alone):
    return alone


def test_every_step_has_a_form_that_returns_its_defaults(form):
    for step in STEPS:
        assert form(step.params()).value() == step.params(), step.name


class Sample(Params):
    edge_um: float = setting(0.05, "An edge.", unit="µm", gt=0, le=10)
    count: int = setting(3, "A number.", ge=1, advanced=True)
    limit: float | None = setting(None, "Optional.")


def test_units_limits_reset_and_invalid_values(qtbot, form):
    made = form(Sample())
    edge = made.widget("edge_um")
    assert edge.native.suffix() == " µm"
    assert edge.tooltip == "An edge."
    with qtbot.waitSignal(made.changed) as emitted:
        edge.value = 0.07
    assert emitted.args[0] == Sample(edge_um=0.07)
    made.widget("limit").value = "not a number"
    with pytest.raises(InputError, match="limit"):
        made.value()
    made.widget("limit").value = "2.5"
    assert made.value().limit == 2.5
    made.set_value(Sample())
    assert made.value() == Sample()


class WithModel(Params):
    model: str = setting("", "A model.", model=True)


def test_every_optical_density_names_its_base(form):
    fields = {
        f"{step.name} {name}": made.widget(name).native.suffix()
        for step in STEPS
        for made in [form(step.params())]
        for name, field in step.params.model_fields.items()
        if (field.json_schema_extra or {}).get("unit", "").startswith("OD")
        and hasattr(made.widget(name).native, "suffix")
    }
    assert len(fields) >= 6
    assert set(fields.values()) <= {" OD (natural)", " OD (base 10)"}


def test_a_model_is_offered_by_name_and_keeps_its_hash(form):
    """Forty letters of a hash say nothing: eight are shown until the name is known."""
    hashes = ["0123456789abcdef" * 2, "fedcba9876543210" * 2]
    made = form(WithModel(model=hashes[0]))
    box = made.widget("model").native
    assert box.currentText() == "01234567"
    assert made.value().model == hashes[0]
    said = []
    made.changed.connect(said.append)
    made.offer("model", {hashes[1]: "on B8", hashes[0]: "on A2"})
    assert (box.currentText(), said) == ("on A2", [])
    made.show_value(WithModel(model="77" * 20))
    assert (box.currentText(), made.value().model) == ("77777777", "77" * 20)
    box.setCurrentIndex(box.findText("on B8"))
    assert [one.model for one in said] == [hashes[1]]
    made.set_value(WithModel())
    assert (box.currentText(), made.value().model) == ("none", "")


class Typed(Params):
    area_mm2: float = setting(0.25, "An area.", unit="mm²", ge=0)
    count: int = setting(3, "A number.", ge=1)


@pytest.fixture(params=["English", "German", "French", "Japanese"])
def language(request):
    """The language that Qt takes from the desktop."""
    from qtpy.QtCore import QLocale

    before = QLocale()
    QLocale.setDefault(QLocale(getattr(QLocale.Language, request.param)))
    yield request.param
    QLocale.setDefault(before)


@pytest.mark.parametrize("text", ["1.5", "1,5"])
def test_a_decimal_number_is_read_with_point_and_comma_in_every_language(
    qtbot, language, alone, text
):
    from qtpy.QtWidgets import QApplication

    made = alone(Typed())
    field = made.widget("area_mm2").native
    assert field.text() == "0.25 mm²"
    field.lineEdit().selectAll()
    qtbot.keyClicks(field, text)
    assert (made.value().area_mm2, field.cleanText()) == (1.5, text.replace(",", "."))
    field.setValue(0)
    field.lineEdit().selectAll()
    QApplication.clipboard().setText(f" {text} ")
    _paste(field)
    assert made.value().area_mm2 == 1.5


def _paste(field):
    from qtpy.QtCore import QEvent, Qt
    from qtpy.QtGui import QKeyEvent
    from qtpy.QtWidgets import QApplication

    control = Qt.KeyboardModifier.ControlModifier
    QApplication.sendEvent(field, QKeyEvent(QEvent.Type.KeyPress, Qt.Key.Key_V, control, "\x16"))


@pytest.mark.parametrize("text", ["2.5", "2,5"])
def test_a_whole_number_with_a_mark_does_not_become_ten_times_as_large(
    qtbot, language, alone, text
):
    made = alone(Typed())
    field = made.widget("count").native
    field.lineEdit().selectAll()
    qtbot.keyClicks(field, text)
    assert made.value().count == 2
    field.lineEdit().selectAll()
    field.lineEdit().insert(text)
    assert made.value().count != 25


@pytest.mark.parametrize("language", ["German"], indirect=True)
def test_every_field_of_the_window_shows_a_decimal_point(qtbot, language, dock, opened, cohort):
    from qtpy.QtWidgets import QAbstractSpinBox

    opened(dock, cohort)
    for tab in range(dock.tabs.count()):
        dock.tabs.setCurrentIndex(tab)
    for page in dock._all_pages():
        page.set_open(True)
    assert len(dock.findChildren(QAbstractSpinBox)) > 20
    qtbot.waitUntil(
        lambda: not [one for one in dock.findChildren(QAbstractSpinBox) if _mixes(one.locale())]
    )


def _mixes(locale):
    return locale.decimalPoint() != "." or locale.groupSeparator() in ".,"


def test_no_part_of_a_page_is_a_window_for_a_moment(dock, opened, fresh_case, qapp):
    """A widget that is shown before it has a parent is a window, and flickers on the screen."""
    from qtpy.QtCore import QEvent, QObject

    shown = []

    class Watch(QObject):
        def eventFilter(self, watched, event):
            kind = type(watched)
            alone = event.type() == QEvent.Type.Show and getattr(watched, "isWindow", bool)()
            if alone and not kind.__module__.startswith("napari._qt"):
                shown.append(kind.__name__)
            return False

    watch = Watch()
    opened(dock, fresh_case)
    qapp.installEventFilter(watch)
    try:
        for page in dock._all_pages():
            page.set_open(True)
    finally:
        qapp.removeEventFilter(watch)
    assert set(shown) <= {"QWindow", "QWidgetWindow"}
