import pytest

from napari_mosaik.core import InputError
from napari_mosaik.kinetics import (
    DeliveryParams,
    ImmunokineticParams,
    delivery_findings,
    kinetic_findings,
    retained_um,
    solve_immunokinetic,
)


def named(findings):
    return {finding.name: finding for finding in findings}


def test_table_2_carries_no_antigen_signal():
    found = named(kinetic_findings())
    assert found["antigen_excess"].value == pytest.approx(0.3662 / 0.0732)
    change = found["retained_change_antigen_20_fold_lower"]
    assert 0 < change.value < 0.01
    assert "no detectable antigen signal" in change.sentence
    assert "its sign is reversed" in change.sentence
    assert abs(found["retained_change_binding_rate_10_fold"].value) < 1e-4
    assert "cannot be identified" in found["retained_change_binding_rate_10_fold"].sentence
    assert found["free_and_bound_at_imaging"].value < 1e-5


def test_volume_implied_by_the_mass():
    found = named(kinetic_findings(ImmunokineticParams(mass_mg=10.0)))
    assert found["implied_volume"].value == pytest.approx(10e-3 / 150e3 / 7.32e-8 * 1e3)
    assert "10 mg" in found["implied_volume"].sentence


def test_binding_time_is_when_one_percent_is_free():
    seconds = named(kinetic_findings())["time_to_bind_99_percent"].value
    free = solve_immunokinetic(time_h=[seconds / 3600]).free_um[0]
    assert free == pytest.approx(0.01 * 0.0732, rel=0.1)


def test_verdicts_follow_the_numbers():
    slow = ImmunokineticParams(k_a_per_um_h=0.01, recycling=False)
    found = named(kinetic_findings(slow))
    assert "depend on the antigen" in found["retained_change_antigen_20_fold_lower"].sentence
    assert "can be identified" in found["retained_change_binding_rate_10_fold"].sentence
    assert "within 336 h" in found["time_to_bind_99_percent"].sentence


def test_delivery_dominates_until_antigen_is_scarce():
    found = named(delivery_findings())
    assert found["uptake_per_doubled_vessels"].value == pytest.approx(2.0, abs=0.01)
    share = found["antigen_share_for_10_percent_loss"].value
    assert 1e-3 < share < 0.05
    params = DeliveryParams(solver="ode")
    less = params.model_copy(update={"antigen_um": params.antigen_um * share})
    ratio = retained_um([0.005], [1.0], less)[0] / retained_um([0.005], [1.0], params)[0]
    assert ratio == pytest.approx(0.9, abs=0.01)


def test_nothing_to_analyse_is_refused():
    with pytest.raises(InputError):
        kinetic_findings(ImmunokineticParams(free_0_um=0.0))
    with pytest.raises(InputError):
        delivery_findings(DeliveryParams(permeability_um_per_s=0.0))
