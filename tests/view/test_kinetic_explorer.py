import numpy as np
import pytest

from napari_mosaik.core import InputError, Table
from napari_mosaik.kinetics import solve_immunokinetic
from napari_mosaik.view.kinetic_explorer import (
    MODELS,
    SURFACE,
    changed_params,
    concentration,
    default_density,
    determined,
    explorer_curves,
    finding_lines,
    parameter_rows,
    reading_line,
    share_interval,
    share_rows,
    slider_specs,
)
from napari_mosaik.view.plots import LiveCurves
from napari_mosaik.workflow.kinetics import iter_shares, judge_kinetics
from napari_mosaik.workflow.steps import step_named

PATIENT, TILE = MODELS


def settings(model):
    return step_named(model.step).params()


def specs(model):
    return {spec.name: spec for spec in slider_specs(model)}


def test_every_number_that_moves_the_curves_has_a_slider_with_its_unit():
    patient, tile = specs(PATIENT), specs(TILE)
    assert list(patient) == [
        "k_a_per_um_h", "antigen_um", "k32_per_h", "k03_per_h", "free_0_um", "bound_0_um",
        "internalised_0_um",
    ]  # fmt: skip
    assert list(tile)[:2] == ["permeability_um_per_s", SURFACE]
    assert {"plasma_volume_l", "mass_mg", "fast_half_life_h", "interstitial_fraction"} <= set(tile)
    for spec in (*patient.values(), *tile.values()):
        assert spec.low <= spec.default <= spec.high
        assert spec.unit
        assert spec.label[0].isupper() or spec.label[0] in "kC"
    assert patient["k32_per_h"].unit == "1/h"
    assert [spec.name for spec in tile.values() if spec.first] == [
        "permeability_um_per_s", SURFACE, "k_a_per_um_h", "antigen_um", "k32_per_h", "k03_per_h",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["k_a_per_um_h", "fast_fraction", "interstitial_fraction"])
def test_a_place_on_the_slider_is_a_value_and_back(name):
    spec = specs(TILE)[name]
    assert spec.at(0.0) == pytest.approx(spec.low)
    assert spec.at(1.0) == pytest.approx(spec.high)
    assert spec.at(2.0) == spec.at(1.0)
    for share in (0.1, 0.5, 0.9):
        assert spec.place(spec.at(share)) == pytest.approx(share, abs=1e-3)
    assert spec.place(spec.high * 10) == 1.0


def test_a_logarithmic_slider_has_the_default_in_its_middle():
    spec = specs(PATIENT)["k32_per_h"]
    assert spec.logarithmic
    assert spec.at(0.5) == 0.2
    assert spec.place(0.0) == 0.0
    assert not specs(PATIENT)["bound_0_um"].logarithmic


def test_typed_values_are_checked():
    spec = specs(TILE)["antigen_um"]
    assert spec.check("0,5") == 0.5
    assert spec.check("1000") == 1000.0  # beyond the slider
    for text, words in (("much", "C_tot"), ("-1", "or more")):
        with pytest.raises(InputError, match=words):
            spec.check(text)
    with pytest.raises(InputError, match="0 to 1"):
        specs(TILE)["fast_fraction"].check("1.5")


def test_tried_values_become_settings_of_the_step_alone():
    tried = changed_params(TILE, settings(TILE), {"k32_per_h": 0.4, SURFACE: 0.02}, "24, 48")
    assert type(tried) is type(settings(TILE))
    assert tried.k32_per_h == 0.4
    assert tried.imaging_h == (24.0, 48.0)
    assert tried.permeability_um_per_s == settings(TILE).permeability_um_per_s
    with pytest.raises(InputError, match="imaging_times"):
        changed_params(PATIENT, settings(PATIENT), {}, "soon")


def test_live_curves_are_those_of_the_model_and_the_total_is_their_sum():
    times, curves = explorer_curves(settings(PATIENT), 0.0)
    alone = solve_immunokinetic(settings(PATIENT), times)
    np.testing.assert_array_equal(curves["bound"], alone.bound_um)
    np.testing.assert_allclose(
        curves["total"], curves["free"] + curves["bound"] + curves["internalised"]
    )
    assert times[-1] == 336.0
    one, two = (explorer_curves(settings(TILE), s)[1]["total"] for s in (0.002, 0.004))
    np.testing.assert_allclose(two / one, 2.0, rtol=1e-3)
    late = changed_params(PATIENT, settings(PATIENT), {}, "72, 500")
    assert explorer_curves(late, 0.0)[0][-1] == 500.0
    line = reading_line(times, curves, (72.0, 336.0)).replace("\xa0", " ")
    assert line == "Total: 69.2 nM at 72 h, 55.6 nM at 336 h"


def test_the_vessel_surface_is_the_median_of_the_tiles_that_have_vessels():
    table = Table({"vessel_perimeter_density_per_um": np.array([0.0, np.nan, 0.004, 0.008, 0.006])})
    assert default_density(table) == 0.006
    assert default_density(None) == 0.005


def test_what_the_images_do_not_determine_is_told_in_words():
    record = judge_kinetics(settings(PATIENT), 0.0)
    known = determined(record)
    assert known["free_0_um"]
    assert not known["antigen_um"]
    rows = {row[0]: row for row in parameter_rows(record)}
    assert rows["C_tot"] == ("C_tot", "prior only", "5 → 5", "< 0.001")
    assert rows["C_free at 0"][1:] == ("determined", "2 → 1.2", "1.0")
    assert any("no detectable antigen signal" in line for line in finding_lines(record))
    nothing = judge_kinetics(settings(PATIENT).model_copy(update={"antigen_um": 0.0}), 0.0)
    assert "Not available: " in finding_lines(nothing)[0]
    assert parameter_rows(nothing) == []
    assert share_rows(record) == []


def test_shares_of_the_variance_have_their_intervals():
    few = settings(TILE).model_copy(update={"samples": 32})
    work = iter_shares(few, 0.005)
    seen = []
    while True:
        try:
            seen.append(next(work))
        except StopIteration as end:
            record = end.value
            break
    assert {name for name, _ in seen} == {TILE.step}
    rows = share_rows(record)
    assert rows[0][0] == "Permeability"
    shares = {"first": [[1.0, -6.4e-6, None]], "total": [[0.9666, 3e-8, None]]}
    shares |= {f"{kind}_low": [[0.95, -2.68e-5, None]] for kind in ("first", "total")}
    shares |= {"first_high": [[1.0661, 9e-6, None]], "total_high": [[1.0661, 9e-6, None]]}
    assert share_interval(
        {f"first{end}": [[1.0]] for end in ("", "_low", "_high")}, "first", 0
    ) == ("100\xa0% (100 to 100\xa0%)")
    shown = share_rows({"sobol": {**shares, "labels": ["a", "b", "c"]}})
    assert [[cell.replace("\xa0", " ") for cell in row] for row in shown] == [
        ["a", "100 % (95.0 to 107 %)", "96.7 % (95.0 to 107 %)"],
        ["b", *2 * ["under 0.001 % (−0.00268 to under 0.001 %)"]],
        ["c", "does not vary", "does not vary"],
    ]
    assert rows[1][2].replace("\xa0", " ") == "under 0.001 %"
    assert len(rows) == 4


def test_antibody_has_a_prefix_and_no_digits_that_the_solver_does_not_have():
    def shown(*values):
        return concentration(*values).replace("\xa0", " ")

    assert shown(0.0692) == "69.2 nM"
    assert shown(4.08e-8) == "40.8 fM"
    assert shown(2.8e-12, 7.32e-9) == "under 7.32 fM"
    assert shown(0.0, 7.32e-9) == "0 µM"
    assert shown(1.5) == "1.50 µM"


def test_the_background_changes_only_with_its_limits():
    live = LiveCurves()
    times, curves = explorer_curves(settings(PATIENT), 0.0)
    live.show(times, curves, (72.0,))
    assert not live.is_framed
    live.frame()
    assert live.is_framed
    slower = changed_params(PATIENT, settings(PATIENT), {"k32_per_h": 0.1}, "72")
    _, other = explorer_curves(slower, 0.0)
    live.show(times, other, (72.0,))
    assert live.is_framed
    np.testing.assert_array_equal(live.lines["total"].get_ydata(), other["total"])
    live.show(times, other, (72.0, 120.0))
    assert not live.is_framed
    live.frame()
    live.show(times, {k: 100 * v for k, v in other.items()}, (72.0, 120.0))
    assert not live.is_framed
    live.frame()
    low, high = live.figure.axes[0].get_ylim()
    assert low < 1e-5 < 7.32 < high
    assert np.isnan(live.lines["free"].get_ydata()).any()
