"""The settings of every step become a form that returns them unchanged."""

import pytest

from napari_mosaik.core import InputError, Params, setting
from napari_mosaik.workflow.steps import STEPS

pytestmark = pytest.mark.gui


@pytest.fixture
def form(qtbot, dock):
    from napari_mosaik.widgets.base.form import ParamsForm

    def make(params):
        made = ParamsForm(params)
        qtbot.addWidget(made)
        return made

    return make


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
