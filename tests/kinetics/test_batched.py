from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.integrate import odeint

from napari_mosaik.core import Cancelled, InputError
from napari_mosaik.core.errors import SolverError
from napari_mosaik.core.progress import cancellable
from napari_mosaik.kinetics import ImmunokineticParams, kinetic_rows, solve_rows
from napari_mosaik.kinetics.batched import ROW, solve_in_steps

TABLE_2 = {
    "k_a_per_um_h": 3.5e4,
    "antigen_um": 0.3662,
    "k32_per_h": 0.2,
    "k03_per_h": 8.33e-4,
    "free_0_um": 0.0732,
}
SUPPLY = {
    "transfer_per_h": 0.054,
    "interstitial_fraction": 0.3,
    "plasma_1_um": 8.9,
    "plasma_1_per_h": 0.058,
    "plasma_2_um": 13.3,
    "plasma_2_per_h": 0.0077,
}
TIMES = np.array([0.0, 1e-4, 0.01, 1.0, 24.0, 72.0, 168.0, 336.0])


def spread(n, seed=0, sd=1.0, **given):
    """Sets around Table 2, log-normal with this SD of the logarithm."""
    rng = np.random.default_rng(seed)
    return kinetic_rows({k: v * np.exp(rng.normal(0, sd, n)) for k, v in (TABLE_2 | given).items()})


def by_odeint(row, times):
    """The same equations written again, by LSODA at tight tolerances."""
    p = dict(zip(ROW, row, strict=True))
    once = p["antigen_um"] - p["bound_0_um"] - p["free_0_um"]

    def slopes(y, t):
        free, bound, inside = y
        plasma = p["plasma_1_um"] * np.exp(-p["plasma_1_per_h"] * t)
        plasma += p["plasma_2_um"] * np.exp(-p["plasma_2_per_h"] * t)
        sites = p["antigen_um"] - bound if p["recycling"] else once + free
        binding = p["k_a_per_um_h"] * sites * free
        supply = p["transfer_per_h"] * (plasma - free / p["interstitial_fraction"])
        taken = p["k32_per_h"] * bound
        return [supply - binding, binding - taken, taken - p["k03_per_h"] * inside]

    start = [p["free_0_um"], p["bound_0_um"], p["internalised_0_um"]]
    return odeint(slopes, start, times, rtol=1e-11, atol=1e-15, mxstep=10**6)


@pytest.mark.parametrize("given", [{}, SUPPLY, {"recycling": 0.0}, {"bound_0_um": 1e-3}])
def test_every_row_is_that_of_odeint(given):
    rows = spread(12, **given)
    got = solve_rows(rows, TIMES)
    for row, curves in zip(rows, got, strict=True):
        expected = by_odeint(row, TIMES)
        np.testing.assert_allclose(curves[:, 2], expected[:, 2], rtol=1e-6, atol=1e-11)
        np.testing.assert_allclose(curves[:, :2], expected[:, :2], rtol=1e-6, atol=2e-8)


def test_free_antibody_that_runs_out_does_not_become_negative():
    """Antigen is exhausted for hours; a long step beyond that meets an impossible solution."""
    rows = spread(3000, seed=1, sd=2.0)
    rows = rows[rows[:, ROW.index("antigen_um")] < rows[:, ROW.index("free_0_um")]]
    once, often = (
        solve_rows(rows, [336.0])[:, -1],
        solve_rows(rows, np.linspace(0, 336, 200))[:, -1],
    )
    np.testing.assert_allclose(once, often, rtol=0, atol=1e-6)
    loose = solve_rows(rows, [336.0], tolerance=1e-6)[:, -1]  # its longer steps meet it more often
    np.testing.assert_allclose(loose, often, rtol=0, atol=1e-5)
    for row, end in list(zip(rows, once, strict=True))[:40]:
        expected = by_odeint(row, [0.0, 336.0])[-1]
        np.testing.assert_allclose(end[:3], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("given", [{}, SUPPLY, {"recycling": 0.0}])
def test_what_left_and_entered_closes_the_balance(given):
    rows = spread(20, **given)
    got = solve_rows(rows, TIMES)
    amount = rows[:, ROW.index("free_0_um")][:, None]
    np.testing.assert_allclose(got.sum(axis=2), np.broadcast_to(amount, got.shape[:2]), rtol=1e-9)
    assert (got[..., :3] >= 0).all()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_bits_do_not_depend_on_threads_or_on_the_other_rows(threads):
    rows = spread(300, **SUPPLY)
    together = solve_rows(rows, TIMES)
    parts = np.array_split(rows, 7)
    with ThreadPoolExecutor(threads) as pool:
        apart = list(pool.map(lambda part: solve_rows(part, TIMES), parts))
    assert np.concatenate(apart).tobytes() == together.tobytes()
    assert solve_rows(rows[117:118], TIMES).tobytes() == together[117].tobytes()


def test_the_error_of_equal_steps_falls_with_the_fourth_power():
    row = kinetic_rows(TABLE_2 | {"k32_per_h": 0.0, "k03_per_h": 0.0})[0]
    a0, total, ka, end = 0.0732, 0.3662, 3.5e4, 2e-4
    decay = np.exp(-ka * (total - a0) * end)
    exact = a0 * (total - a0) * decay / (total - a0 * decay)
    errors = [abs(solve_in_steps(row, end, n)[0] - exact) for n in (16, 32, 64)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, 4.0, atol=0.15)


def test_the_supply_enters_with_the_fourth_order_too():
    """Without antigen, free antibody is a sum of exponentials."""
    row = kinetic_rows(SUPPLY | {"plasma_1_per_h": 0.58, "plasma_2_um": 0.0})[0]
    k, wash, loss, end = 0.054, 0.054 / 0.3, 0.58, 6.0
    exact = k * 8.9 * (np.exp(-loss * end) - np.exp(-wash * end)) / (wash - loss)
    errors = [abs(solve_in_steps(row, end, n)[0] - exact) for n in (4, 8, 16)]
    np.testing.assert_allclose(np.log2(np.array(errors[:-1]) / errors[1:]), 4.0, atol=0.35)


def test_a_smaller_tolerance_gives_a_smaller_error():
    rows = spread(30)
    exact = solve_rows(rows, TIMES, tolerance=1e-12)
    errors = [np.abs(solve_rows(rows, TIMES, tolerance=t) - exact).max() for t in (1e-5, 1e-8)]
    assert errors[1] < 1e-2 * errors[0]


def test_columns_are_filled_in_and_checked():
    rows = kinetic_rows({"antigen_um": [0.1, 0.2], "k32_per_h": 0.3})
    assert rows.shape == (2, len(ROW))
    assert rows[:, ROW.index("interstitial_fraction")].tolist() == [1, 1]
    assert rows[:, ROW.index("recycling")].tolist() == [1, 1]
    assert rows[:, ROW.index("free_0_um")].tolist() == [0, 0]
    for values, words in (
        ({"k32_per_h": [0.1, -0.2]}, "k32_per_h = -0.2"),
        ({"antigen_um": np.nan}, "antigen_um = nan"),
        ({"interstitial_fraction": 0.0}, "interstitial_fraction = 0"),
        ({"k32_per_h": [0.1, 0.2], "k03_per_h": [1, 2, 3]}, "one length"),
        ({"bound_0_um": 0.2, "antigen_um": 0.1}, "exceeds the antigen"),
    ):
        with pytest.raises(InputError, match=words):
            kinetic_rows(values)


def test_a_row_that_cannot_be_solved_is_named():
    rows = kinetic_rows(TABLE_2 | {"k_a_per_um_h": [3.5e4, 1e308]})
    with pytest.raises(SolverError, match=r"k_a_per_um_h = 1e\+308.*check rates"):
        solve_rows(rows, [1.0])


def test_a_long_batch_can_be_stopped():
    with cancellable(lambda: True), pytest.raises(Cancelled):
        solve_rows(spread(3), [1.0])


def test_one_patient_is_one_row():
    from napari_mosaik.kinetics import solve_immunokinetic

    one = solve_immunokinetic(ImmunokineticParams(), TIMES).stack()
    assert one.tobytes() == solve_rows(kinetic_rows(TABLE_2), TIMES)[0, :, :3].tobytes()
