import numpy as np
import pytest
from scipy.stats import sobol_indices, uniform

from napari_mosaik.core import Cancelled, InputError
from napari_mosaik.core.progress import cancellable, run_to_end
from napari_mosaik.kinetics import (
    DeliveryParams,
    ImmunokineticParams,
    PatientPriors,
    TilePriors,
    identifiability,
    iter_sobol,
    iter_tile_record,
    patient_record,
    retained_um,
    sobol,
    solve_immunokinetic,
    solver_checks,
)
from napari_mosaik.kinetics.sensitivity import patient_retained, prior_factors, tile_retained


def ishigami(points, a=7.0, b=0.1):
    x = 2 * np.pi * points.T - np.pi
    return np.stack([np.sin(x[0]) + a * np.sin(x[1]) ** 2 + b * x[2] ** 4 * np.sin(x[0])], axis=1)


def known_indices(a=7.0, b=0.1):
    """Ishigami and Homma 1990: variances in closed form."""
    first = np.array([(1 + b * np.pi**4 / 5) ** 2 / 2, a**2 / 8, 0.0])
    both = b**2 * np.pi**8 * (1 / 18 - 1 / 50)
    variance = first.sum() + both
    return first / variance, (first + np.array([both, 0.0, both])) / variance


def test_indices_of_a_function_whose_indices_are_known():
    first, total = known_indices()
    found = sobol(ishigami, 3, 4096, np.random.default_rng(0))
    np.testing.assert_allclose(found.first[0], first, atol=0.01)
    np.testing.assert_allclose(found.total[0], total, atol=0.01)
    for low, value, high in (
        (found.first_low, first, found.first_high),
        (found.total_low, total, found.total_high),
    ):
        assert (low[0] <= value).all()
        assert (value <= high[0]).all()
        assert (high - low).max() < 0.15
    assert (found.first_high - found.first_low).min() > 1e-3


def test_a_product_of_lognormals_in_closed_form():
    from scipy.special import ndtri

    sd = np.array([0.1, 0.3, 0.5])
    found = sobol(lambda u: np.exp(ndtri(u) @ sd)[:, None], 3, 4096, np.random.default_rng(0))
    whole = np.expm1((sd**2).sum())
    assert found.first[0] == pytest.approx(np.expm1(sd**2) / whole, abs=0.02)
    without = np.expm1((sd**2).sum() - sd**2)
    assert found.total[0] == pytest.approx(1 - without / whole, abs=0.02)


def test_indices_agree_with_those_of_scipy():
    theirs = sobol_indices(
        func=lambda x: ishigami(x.T).T,
        n=4096,
        dists=[uniform(0, 1)] * 3,
        rng=np.random.default_rng(1),
    )
    ours = sobol(ishigami, 3, 4096, np.random.default_rng(2))
    np.testing.assert_allclose(ours.first[0], theirs.first_order, atol=0.02)
    np.testing.assert_allclose(ours.total[0], theirs.total_order, atol=0.02)


def test_indices_of_several_outputs_and_of_one_that_does_not_vary():
    def outputs(points):
        x, y = points.T
        return np.stack([x, x + 3 * y, np.full_like(x, 2.0)], axis=1)

    found = sobol(outputs, 2, 1024, np.random.default_rng(0))
    np.testing.assert_allclose(found.first[:2], [[1, 0], [0.1, 0.9]], atol=0.02)
    np.testing.assert_allclose(found.total[:2], [[1, 0], [0.1, 0.9]], atol=0.02)
    assert np.isnan(found.first[2]).all()
    assert np.isnan(found.total[2]).all()


def test_the_seed_fixes_the_indices_and_bad_counts_are_refused():
    one, two = (sobol(ishigami, 3, 64, np.random.default_rng(5)) for _ in range(2))
    assert one.total_low.tobytes() == two.total_low.tobytes()
    for n in (8, 100):
        with pytest.raises(InputError, match=f"samples = {n}"):
            sobol(ishigami, 3, n, np.random.default_rng(0))
    with cancellable(lambda: True), pytest.raises(Cancelled):
        run_to_end(iter_sobol(ishigami, 3, 64, np.random.default_rng(0)))


def linear(slopes):
    """A model whose logarithm is linear: y(t) = prod p_i ** slopes[i][t]."""

    def retained(varied, time_h):
        logs = sum(
            np.log(np.asarray(v, float))[..., None] * np.asarray(slopes[name])[: time_h.size]
            for name, v in varied.items()
        )
        return np.exp(np.atleast_2d(logs))

    return retained


def test_the_posterior_is_that_of_a_linear_regression():
    slopes = {"a": [1.0, 1.0], "b": [0.0, 0.0], "c": [0.0, -0.5]}
    factors = {"a": 3.0, "b": 3.0, "c": 3.0}
    found = identifiability(linear(slopes), dict.fromkeys("abc", 2.0), factors, [1.0, 2.0], 0.1)
    sd = np.log(3.0) / 1.959964
    s = np.array([slopes[name] for name in "abc"])
    gain = (s * sd**2) @ np.linalg.inv(s.T @ s * sd**2 + 0.01 * np.eye(2))
    after = np.sqrt(np.diag(sd**2 * (np.eye(3) - gain @ s.T)))
    got = [np.log(one.posterior_factor) / 1.959964 for one in found]
    np.testing.assert_allclose(got, after, rtol=1e-6)
    np.testing.assert_allclose([one.sensitivity for one in found], s, atol=1e-9)
    assert [one.determined for one in found] == [True, False, True]
    assert found[1].posterior_factor == pytest.approx(3.0)


def test_a_parameter_counts_as_determined_at_half_its_prior():
    """One image and one parameter: the prior is halved where error = sd / sqrt(3)."""
    sd = np.log(4.0) / 1.959964
    for error, expected in ((0.99 * sd / 3**0.5, True), (1.01 * sd / 3**0.5, False)):
        (one,) = identifiability(linear({"a": [1.0]}), {"a": 1.0}, {"a": 4.0}, [1.0], error)
        assert one.determined is expected


def test_more_images_determine_more():
    model, factors = patient_retained(ImmunokineticParams()), prior_factors(PatientPriors())
    values = {name: getattr(ImmunokineticParams(), name) for name in factors}

    def loss(times, error=0.1):
        found = identifiability(model, values, factors, times, error)
        return {one.name: one for one in found}["k03_per_h"]

    assert not loss([72.0]).determined
    assert loss([72.0, 336.0, 1000.0]).determined
    assert loss([72.0, 336.0], 0.01).posterior_factor < loss([72.0, 336.0]).posterior_factor


def test_the_images_of_table_2_determine_the_amount_alone():
    found = {
        one["name"]: one
        for one in patient_record(ImmunokineticParams(), PatientPriors())["parameters"]
    }
    assert {name for name, one in found.items() if one["determined"]} == {"free_0_um"}
    for name in ("k_a_per_um_h", "antigen_um", "k32_per_h"):
        assert "prior only" in found[name]["sentence"]
    assert found["antigen_um"]["unit"] == "µM"
    assert found["antigen_um"]["label"] == "C_tot"
    t = np.array([72.0, 120.0, 168.0, 336.0])
    np.testing.assert_allclose(found["k03_per_h"]["sensitivity"], -8.33e-4 * t, rtol=0.05)


def test_early_images_determine_internalisation_only_where_it_is_seen():
    """Bound and internalised together follow the loss alone; k32 moves nothing but their ratio."""
    params = ImmunokineticParams(k03_per_h=0.5)
    record = patient_record(params, PatientPriors(imaging_times="1, 3, 8, 20", image_error=0.02))
    found = {one["name"]: one["determined"] for one in record["parameters"]}
    assert found["k32_per_h"]
    assert found["k03_per_h"]
    assert not found["antigen_um"]


def test_delivery_is_determined_by_the_permeability():
    record = run_to_end(iter_tile_record(DeliveryParams(), TilePriors(samples=128), 0.005))
    shares = dict(zip(record["sobol"]["names"], record["sobol"]["total"][-1], strict=True))
    assert list(shares) == ["permeability_um_per_s", "antigen_um", "k_a_per_um_h", "k32_per_h"]
    assert shares["permeability_um_per_s"] == pytest.approx(1.0, abs=0.1)
    assert max(v for k, v in shares.items() if k != "permeability_um_per_s") < 0.01
    found = {one["name"]: one["determined"] for one in record["parameters"]}
    assert found["permeability_um_per_s"]
    assert not found["antigen_um"]
    assert record["closed_form_difference"] < 1e-3
    assert record["imaging_h"] == [72.0, 120.0, 168.0, 336.0]


def test_where_antigen_is_scarce_it_takes_a_share_of_the_variance():
    scarce = DeliveryParams(antigen_um=2e-3)
    record = run_to_end(iter_tile_record(scarce, TilePriors(samples=128), 0.005))
    shares = dict(zip(record["sobol"]["names"], record["sobol"]["first"][-1], strict=True))
    assert shares["antigen_um"] > 0.2
    assert record["closed_form_difference"] > 0.1


def test_the_models_vary_what_they_are_asked_to():
    times = np.array([72.0, 336.0])
    rates = {"k32_per_h": [0.1, 0.3], "antigen_um": [0.3, 0.01]}
    got = patient_retained(ImmunokineticParams())(rates, times)
    for row, k32, antigen in zip(got, *rates.values(), strict=True):
        alone = solve_immunokinetic(ImmunokineticParams(k32_per_h=k32, antigen_um=antigen), times)
        np.testing.assert_allclose(row, alone.retained_um, rtol=1e-9)
    walls = {"permeability_um_per_s": [1e-3, 6e-3]}
    params = DeliveryParams(solver="ode", isotropic_vessels=True)
    got = tile_retained(params, 0.004)(walls, times)[:, 1]
    alone = [
        retained_um([0.004], [1.0], params.model_copy(update={"permeability_um_per_s": p}))[0]
        for p in walls["permeability_um_per_s"]
    ]
    np.testing.assert_allclose(got, alone, rtol=1e-9)


@pytest.mark.parametrize(
    ("text", "times"),
    [("72, 120", (72.0, 120.0)), ("336;72,5", (5.0, 72.0, 336.0)), ("24 , 24", (24.0,))],
)
def test_imaging_times_are_a_sorted_list(text, times):
    assert PatientPriors(imaging_times=text).imaging_h == times


@pytest.mark.parametrize("text", ["", "soon", "0, 72", "-3", "inf"])
def test_bad_imaging_times_are_refused(text):
    with pytest.raises(InputError, match="imaging_times"):
        PatientPriors.parse({"imaging_times": text})
    with pytest.raises(InputError, match="power of 2"):
        TilePriors.parse({"samples": 1000})


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(InputError, match="nothing to analyse"):
        patient_record(ImmunokineticParams(free_0_um=0.0), PatientPriors())
    with pytest.raises(InputError, match="nothing is retained"):
        patient_record(ImmunokineticParams(antigen_um=0.0), PatientPriors())
    with pytest.raises(InputError, match="'a' is 0"):
        identifiability(linear({"a": [1.0]}), {"a": 0.0}, {"a": 2.0}, [1.0], 0.1)


def test_a_parameter_that_is_zero_is_not_judged():
    names = [
        p["name"]
        for p in patient_record(ImmunokineticParams(k03_per_h=0.0), PatientPriors())["parameters"]
    ]
    assert "k03_per_h" not in names
    assert "k32_per_h" in names


def test_the_solver_is_checked_against_a_closed_form():
    checks = solver_checks()
    assert checks["order"] == pytest.approx(4.0, abs=0.1)
    assert checks["closed_form"] < 1e-7
    assert 0 < checks["tolerance"] < 1e-6
    assert checks["balance"] < 1e-12


def test_the_checks_notice_a_solver_that_is_wrong(monkeypatch):
    from napari_mosaik.kinetics import diagnostics

    right = diagnostics.solve_rows
    monkeypatch.setattr(diagnostics, "solve_rows", lambda *a, **k: right(*a, **k) * 1.001)
    checks = solver_checks()
    assert checks["closed_form"] > 1e-6
    assert checks["balance"] > 1e-4
