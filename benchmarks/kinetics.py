"""Many sets of kinetic parameters: ours against a loop over scipy.integrate.odeint.

python benchmarks/kinetics.py [--sets 10000] [--loop 1000] [--times 72 120 168 336] [--seed 0]
                            [--json] [--window]

The sets are spread around the paper's Table 2 (SD 1 of the natural logarithm of every rate and
concentration).  The loop is timed on the first ``--loop`` sets, in blocks between those of ours,
and scaled to all; both use one core.  The deviations of both are from ours at a tolerance of
1e-12, which agrees with Radau at 1e-12: relative for internalised, in µM for free and bound.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.integrate import odeint

from napari_mosaik.kinetics import ROW, kinetic_rows, solve_rows

TABLE_2 = {
    "k_a_per_um_h": 3.5e4,
    "antigen_um": 0.3662,
    "k32_per_h": 0.2,
    "k03_per_h": 8.33e-4,
    "free_0_um": 0.0732,
}
BAR = 10.0


def parameter_sets(n, seed):
    """Rows around Table 2."""
    rng = np.random.default_rng(seed)
    return kinetic_rows({k: v * np.exp(rng.normal(size=n)) for k, v in TABLE_2.items()})


def by_odeint(rows, times):
    """The loop that a reader would write: LSODA at the tolerances of the specification."""
    out = []
    at = np.concatenate([[0.0], times])
    start = ROW.index("free_0_um")
    for ka, total, k32, k03, free in rows[:, [0, 1, 2, 3, start]].tolist():

        def slopes(y, _t, ka=ka, total=total, k32=k32, k03=k03):
            binding, taken = ka * (total - y[1]) * y[0], k32 * y[1]
            return [-binding, binding - taken, taken - k03 * y[2]]

        solved = odeint(slopes, [free, 0.0, 0.0], at, rtol=1e-8, atol=1e-12, mxstep=100_000)
        out.append(solved[1:])
    return np.array(out)


def deviations(curves, exact):
    """Largest deviation of internalised (relative), bound and free antibody (µM)."""
    gap = np.abs(curves - exact)
    return {
        "internalised_relative": float(np.max(gap[..., 2] / exact[..., 2])),
        "bound_um": float(gap[..., 1].max()),
        "free_um": float(gap[..., 0].max()),
    }


def measured(n_sets, n_loop, times, seed):
    """Seconds, ratio and deviations of both."""
    rows = parameter_sets(n_sets, seed)
    solve_rows(rows[:2], times)  # compiled before the clock starts
    ours, theirs, own, loop = [], [], 0.0, 0.0
    for some, few in zip(np.array_split(rows, 10), np.array_split(rows[:n_loop], 10), strict=True):
        begin = time.process_time()
        ours.append(solve_rows(some, times)[..., :3])
        between = time.process_time()
        theirs.append(by_odeint(few, times))
        own += between - begin
        loop += time.process_time() - between
    exact = solve_rows(rows[:n_loop], times, tolerance=1e-12)[..., :3]
    curves = np.concatenate(ours)
    loop *= n_sets / n_loop
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda part: solve_rows(part, times), np.array_split(rows, 16)))
    return {
        "sets": n_sets,
        "times_h": list(times),
        "timed_in_loop": n_loop,
        "batched_s": own,
        "odeint_loop_s": loop,
        "ratio": loop / own,
        "bar": BAR,
        "equal_bits_on_4_threads": np.concatenate(parts)[..., :3].tobytes() == curves.tobytes(),
        "batched_deviation": deviations(curves[:n_loop], exact),
        "odeint_deviation": deviations(np.concatenate(theirs), exact),
    }


def redraw_ms(slider="k32_per_h", moves=100):
    """Processor time of the window's thread and clock, ms, from a move to the painted curves."""
    from qtpy.QtWidgets import QApplication

    app = QApplication.instance() or QApplication([])
    from napari_mosaik.widgets.base.case_controller import CaseController
    from napari_mosaik.widgets.base.workspace import Workspace
    from napari_mosaik.widgets.pages.kinetics_panel import KineticsPanel

    controller = CaseController(Workspace())
    panel = KineticsPanel(controller)
    panel.resize(340, 1200)
    panel.show()
    while not panel.table.rowCount():
        app.processEvents()
        time.sleep(0.01)
    busy, clock = [], []
    for place in np.linspace(300, 700, moves).astype(int):
        begin = time.perf_counter(), time.thread_time()
        panel.sliders[slider].slider.setValue(int(place))
        panel.plot.canvas.repaint()
        clock.append(1e3 * (time.perf_counter() - begin[0]))
        busy.append(1e3 * (time.thread_time() - begin[1]))
    controller.close()
    shares = (50, 95, 100)
    return {
        name: dict(zip(("median", "p95", "max"), np.percentile(values, shares), strict=True))
        for name, values in (("processor_ms", busy), ("clock_ms", clock))
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sets", type=int, default=10_000)
    parser.add_argument("--loop", type=int, default=1_000, help="sets on which the loop is timed")
    parser.add_argument("--times", type=float, nargs="+", default=[72, 120, 168, 336])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--window", action="store_true", help="time the sliders of the page alone")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if not 10 <= given.loop <= given.sets:
        parser.error("--loop: give at least 10 sets and at most --sets")
    if given.window:
        print(json.dumps(redraw_ms(), indent=2))
        return
    found = measured(given.sets, given.loop, np.array(given.times), given.seed)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['sets']} parameter sets at {', '.join(f'{t:g}' for t in given.times)} h")
    loop = f"odeint loop {found['odeint_loop_s']:.2f} s (from {given.loop} sets)"
    print(f"batched {found['batched_s']:.2f} s, {loop}: ratio {found['ratio']:.1f} (bar {BAR:g})")
    for name in ("batched", "odeint"):
        gaps = ", ".join(f"{k} {v:.1e}" for k, v in found[f"{name}_deviation"].items())
        print(f"{name}: largest deviation {gaps}")
    print(f"equal bits on 4 threads: {found['equal_bits_on_4_threads']}")


if __name__ == "__main__":
    main()
