"""One plan of the dose what-if on the tiles of a case: draws, quantiles, indices, and their causes.

    TileUptake + Plan ──► PlanModel.response (draws x tiles) ──► summarise_draws ──► PlanResult

A draw is one number for each assumption, common to all tiles, and one error field of the uptake.
Each assumption has a random stream of its own, so plans with one seed share their draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.progress import checkpoint, map_progress, run_to_end
from napari_mosaik.core.text import counted, nearest
from napari_mosaik.core.tiles import IntArray, TileGrid
from napari_mosaik.dosimetry import (
    NUCLIDES,
    DoseKernel,
    RepairState,
    dose_per_activity_gy,
    equivalent_uniform_dose,
    iter_summarise_draws,
    oxygen_from_distance,
    tumour_control,
)
from napari_mosaik.dosimetry.kernel import DoseSpread
from napari_mosaik.dosimetry.response import UnevenTable
from napari_mosaik.dosimetry.time_integral import decayed_curve, time_integrated_activity
from napari_mosaik.dosimetry.treatment import Infusions, time_form
from napari_mosaik.kinetics import iter_sobol
from napari_mosaik.workflow.parallel import beside
from napari_mosaik.workflow.plan_record import Plan, Spreads, half_times_as_rates

__all__ = [
    "QUANTILES",
    "SOURCE_TITLES",
    "TILE_QUANTITIES",
    "PlanModel",
    "PlanResult",
    "TileUptake",
    "compare_plans",
    "constant_rows",
    "distance_edges_um",
    "iter_plan_dose",
    "lost_effect",
]

T = TypeVar("T")
QUANTILES: Final = (5, 50, 95)
"""Percentiles of every tile and index: the median and a 90 % interval."""
TILE_QUANTITIES: Final = {
    "tia_mbq_h_ml": ("MBq h/mL", "time-integrated activity"),
    "dose_gy": ("Gy", "absorbed dose of the electrons of the nuclides"),
    "alpha_particle_gy": ("Gy", "absorbed dose of alpha particles and recoiling nuclei"),
    "bed_gy": ("Gy", "biologically effective dose"),
    "eqd2_gy": ("Gy", "dose in fractions of 2 Gy with the same effect"),
    "ln_survival": ("1", "logarithm of the surviving share of cells"),
}
"""Quantities of a tile with unit and meaning, in the order of their columns."""
SOURCE_TITLES: Final = {
    "calibration": "calibration of the PET",
    "uptake": "error of the uptake map",
    "time_course": "time course",
    "density": "density",
    "alpha": "α",
    "alpha_beta": "α/β",
    "repair": "repair",
    "rbe": "RBE of alpha particles",
    "oxygen_m": "oxygen effect",
    "within": "differences within a tile",
}
"""Sources of uncertainty; the order is that of their random streams and never changes."""
HYPOXIC_MMHG: Final = 10.0
NO_CELL_LEFT_GY: Final = 20.0
"""Dose of alpha particles beyond which the unit of the activity is asked for: ln S is -30."""
_HALF_EFFECT_MMHG: Final = 3.0
_REPAIR_NODES: Final = 13
_REPAIR_REACH: Final = 4.5
_SOBOL_TILES: Final = 300
_DISTANCES: Final = 10
_MIN_DOSE: Final = 0.01
_HISTOGRAM: Final = 101
_TIMES: Final = 400
_MAPS_AT_ONCE: Final = 16
"""Maps that are spread together: some 2 MiB each with their waves at 40,000 tiles."""
_UNSEEN: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class TileUptake:
    """What a case says about the uptake of its n tiles.

    Attributes
    ----------
    suv
        (n,) SUV at the time of the measurement; NaN where it is not known.
    errors
        (k, n) errors of whole maps, SUV; draw d has row d modulo k.  None without any.
    measure
        Body measure that turns SUV into activity per injected activity: g or cm².
    surface_m2
        Body surface, m²; None where it is not known.
    weight
        (n,) neoplastic tissue of each tile, as a share of its area.
    distances
        (n, j) share of each tile's tissue in the classes of distance to the nearest vessel whose
        edges are `distance_edges_um`; NaN where it is not known.
    time_h, shape
        (m,) times after injection, h, and (1, m) or (n, m) decay-corrected activity at them, as a
        multiple of that of the measurement.
    grid
        The tiles.
    living_scale
        Length on the section of one length in living tissue.
    curve_draws
        (k, m) draws of a shape that is common to all tiles; draw d has row d modulo k.  None where
        the shape is not drawn.
    """

    suv: FloatArray
    errors: FloatArray | None
    measure: float
    surface_m2: float | None
    weight: FloatArray
    distances: FloatArray
    time_h: FloatArray
    shape: FloatArray
    grid: TileGrid
    living_scale: float = 1.0
    curve_draws: FloatArray | None = None


@dataclass(slots=True, eq=False)
class PlanResult:
    """Columns of a plan (n,) by name, in the units of `TILE_QUANTITIES`, and its record."""

    columns: dict[str, FloatArray]
    units: dict[str, str]
    about: dict[str, str]
    record: dict[str, Any] = field(default_factory=dict)
    constants: list[tuple[str, Any, str]] = field(default_factory=list)


def iter_plan_dose(
    plan: Plan, uptake: TileUptake, kernel_file: Any = None, sobol_samples: int = 1024
) -> Generator[float, None, PlanResult]:
    """Dose and response of all tiles under one plan, with intervals.

    Parameters
    ----------
    plan
        The plan.
    uptake
        The tiles.
    kernel_file
        Path of the kernel, where the plan names a file.
    sobol_samples
        Base samples of the shares of uncertainty, a power of 2.

    Yields
    ------
    float
        Fraction that is done.

    Raises
    ------
    InputError
        If an activity per body surface has no surface, no tile has an uptake and a weight, or the
        kernel does not fit the nuclide.
    """
    model = yield from _beside(partial(PlanModel, plan, uptake, kernel_file), 0.0)
    yield from map_progress(model.iter_spread_errors(), lambda share: 0.15 + 0.07 * share)
    yield 0.22
    n, z = plan.draws, drawn_normals(plan)
    rows = np.arange(n)
    factors = model.factors(z, rows)

    def evaluate(draws: slice, tiles: slice) -> TileResponse:
        own = {name: value[draws, None] for name, value in factors.items()}
        return model.response(own, rows[draws], tiles)

    weight = np.where(np.isfinite(uptake.suv), uptake.weight, 0.0)
    if not (weight > 0).any():
        raise InputError("no tile has both an uptake and neoplastic tissue, so there is no dose")
    summary = yield from map_progress(
        iter_summarise_draws(
            evaluate,
            n,
            weight,
            alpha_per_gy=factors["alpha"],
            beta_per_gy2=factors["beta"],
            clonogens=plan.number_of_clonogens or 1.0,
            g=model.protraction(factors["repair"], factors.get("curve")),
            percent=QUANTILES,
            quantities=model.sorted_quantities,
            histogram=_HISTOGRAM,
        ),
        lambda share: 0.22 + 0.2 * share,
    )
    shares = yield from map_progress(
        model.iter_shares(sobol_samples, plan.seed), lambda share: 0.42 + 0.06 * share
    )

    def finished() -> PlanResult:
        result = model.result(summary.tiles)
        result.constants += model.constants()
        result.record.update(
            model.record(factors, summary),
            shares=shares,
            largest_source=largest_source(shares),
            unseen_variation=model.unseen(),
            time_course=model.time_course(),
            verification=model.verification(),
            warnings=model.doubts(result),
        )
        return result

    return (yield from _beside(finished, 0.48))


def _beside(work: Callable[[], T], share: float) -> Generator[float, None, T]:
    """Call *work*, which tells nothing, on another thread while this share is told."""
    return map_progress(beside(work, Progress(share, 1, "")), lambda progress: progress.fraction)


def drawn_normals(plan: Plan) -> dict[str, FloatArray]:
    """(draws,) standard normal numbers of each source, dimensionless, each of its own stream."""
    return {
        name: np.random.default_rng([plan.seed, place]).standard_normal(plan.draws)
        for place, name in enumerate(SOURCE_TITLES)
    }


def largest_source(shares: Mapping[str, Any]) -> str:
    """The source with the largest total share in the survival of the tissue; empty without one."""
    total = shares.get("total", {}).get("ln_survival_mean", {})
    known = {name: share for name, share in total.items() if math.isfinite(share)}
    return max(known, key=known.__getitem__) if known else ""


class TileResponse:
    """Response of some draws and tiles, (d, t); what is not asked for is not computed.

    Parameters
    ----------
    electron_gy, alpha_particle_gy
        Absorbed dose of the nuclides, Gy.
    uptakes
        Uptake times the factors of calibration and time course, SUV, by `PlanModel.uptake_names`;
        attributes of their names.
    ln_survival
        ln S, without unit.
    alpha, beta
        Coefficients, 1/Gy and 1/Gy².
    """

    def __init__(
        self,
        electron_gy: FloatArray,
        alpha_particle_gy: FloatArray | None,
        uptakes: Mapping[str, FloatArray],
        ln_survival: FloatArray,
        alpha: FloatArray,
        beta: FloatArray,
    ) -> None:
        self.electron_gy, self._high = electron_gy, alpha_particle_gy
        vars(self).update(uptakes)
        self.ln_survival = ln_survival
        self._alpha, self._beta = alpha, beta

    @property
    def alpha_particle_gy(self) -> FloatArray:
        """Absorbed dose of alpha particles and recoil (d, t), Gy."""
        return np.zeros(self.electron_gy.shape) if self._high is None else self._high

    @property
    def dose_gy(self) -> FloatArray:
        """Absorbed dose of the nuclides (d, t), Gy; physical, without the external beam."""
        return self.electron_gy if self._high is None else self.electron_gy + self._high

    @cached_property
    def bed_gy(self) -> FloatArray:
        """Biologically effective dose (d, t), Gy."""
        return np.asarray(-self.ln_survival / self._alpha, float)

    @property
    def eqd2_gy(self) -> FloatArray:
        """Dose in fractions of 2 Gy with the same effect (d, t), Gy."""
        return np.asarray(self.bed_gy / (1 + 2 * self._beta / self._alpha), float)


class PlanModel:
    """Dose and response of tiles as functions of the drawn numbers.

    Parameters
    ----------
    plan, uptake
        The plan, and the n tiles.
    kernel_file
        Path of the kernel, where the plan names a file.
    """

    def __init__(self, plan: Plan, uptake: TileUptake, kernel_file: Any = None) -> None:
        self.plan, self.uptake = plan, uptake
        self.warnings: list[str] = []
        self.names = tuple(dict.fromkeys(course.nuclide for course in plan.courses))
        self._until_h = math.inf if plan.until_days is None else 24 * plan.until_days
        self._infusions = [
            Infusions(
                NUCLIDES[name],
                uptake.time_h,
                [
                    (24 * course.day, course.activity_mbq(uptake.surface_m2))
                    for course in plan.courses
                    if course.nuclide == name
                ],
            )
            for name in self.names
        ]
        self._fractions = [
            (time, group.dose_gy) for group in plan.fractions for time in group.times_h
        ]
        self._log_nodes = self._repair_nodes(plan.spreads)
        self.forms = [
            time_form(self._infusions, self._fractions, self._repair(scale), self._until_h)
            for scale in np.exp(self._log_nodes)
        ]
        self._electron_fields: list[NDArray[np.float32]] = []
        self._doses(kernel_file)
        self._protraction_tables()
        self._curves = _CurveDraws(self) if uptake.curve_draws is not None and self.names else None

    # --- what does not depend on a draw ---------------------------------------------------------
    @staticmethod
    def _repair_nodes(spreads: Spreads) -> FloatArray:
        sd = _log_sd(spreads.repair)
        return np.zeros(1) if sd == 0 else sd * np.linspace(-1, 1, _REPAIR_NODES) * _REPAIR_REACH

    def _repair(self, scale: float) -> list[tuple[float, float]]:
        """Components of repair whose half-times are *scale* times those of the plan."""
        return half_times_as_rates(tuple((p, half * float(scale)) for p, half in self.plan.repair))

    def _doses(self, kernel_file: Any) -> None:
        """Dose of each tile at the median of all draws, and for one SUV more."""
        plan, uptake, form = self.plan, self.uptake, self.forms[0]
        n, m = len(uptake.suv), len(uptake.time_h)
        self.tia: dict[str, FloatArray] = {}
        electron, slope, high = [], [], []
        kernels = self.kernels(kernel_file)
        self._spreads: dict[str, DoseSpread] = {}
        for place, name in enumerate(self.names):
            own = slice(place * m, (place + 1) * m)
            per_suv = np.broadcast_to(uptake.shape @ form.until_h[own] / uptake.measure, n)
            self.tia[name] = np.broadcast_to(uptake.shape @ form.total_h[own] / uptake.measure, n)
            gy = {
                part: dose_per_activity_gy(name, part=part, retained=plan.retained)
                / plan.density_g_ml
                for part in ("electron", "alpha")
            }
            local = per_suv * gy["electron"]
            slope.append(local)
            if kernels[name].reach_um > 0:
                self._spreads[name] = self._spread_of(kernels[name])
            electron.append(self._spread(name, local * uptake.suv))
            high.append(per_suv * gy["alpha"])
        zero = np.zeros(n)
        self.by_nuclide, self.alpha_slopes = electron, high
        self.electron_gy = sum(electron, zero)
        self._slopes = dict(zip(self.names, slope, strict=True))
        self.electron_slope = sum(slope, zero)
        self.alpha_slope = sum(high, zero)
        self.has_alpha = bool((self.alpha_slope > 0).any())
        self._kernels = kernels

    def kernels(self, kernel_file: Any) -> dict[str, DoseKernel]:
        """The kernel of each nuclide."""
        if self.plan.kernel == "built-in":
            return {name: DoseKernel.built_in(name) for name in self.names}
        if self.plan.kernel == "local":
            return {name: DoseKernel.local() for name in self.names}
        if len(self.names) > 1:
            raise InputError(
                f"plan '{self.plan.name}': one kernel file does not fit {len(self.names)} "
                f"nuclides ({', '.join(self.names)}); use 'built-in' or 'local'"
            )
        return {name: DoseKernel.from_file(kernel_file) for name in self.names}

    def _spread_of(self, kernel: DoseKernel) -> DoseSpread:
        """The spread of maps of the tiles' window by a kernel, at lengths of living tissue."""
        grid = self.uptake.grid
        spacing = [step / self.uptake.living_scale for step in grid.lattice.spacing_um]
        shape = np.ptp(grid.cells, axis=0) + 1
        extent = float(min(shape * spacing))
        r90 = kernel.radius_holding_um(0.9) / self.plan.density_g_ml
        if r90 > extent / 2:
            self.warnings.append(
                f"the electrons of {kernel.name} reach {r90 / 1000:.1f} mm (90 % of the energy), "
                f"more than half of the specimen ({extent / 1000:.1f} mm): outside it no activity "
                "is assumed, and the map is taken as uniform in depth"
            )
        density = self.plan.density_g_ml
        return DoseSpread(shape.tolist(), spacing, kernel, density_g_ml=density)

    def _spread(self, name: str, local_gy: FloatArray) -> FloatArray:
        """Dose (..., n), Gy, of local ones by the kernel of a nuclide."""
        spread = self._spreads.get(name)
        if spread is None:
            return local_gy
        cells = self.uptake.grid.cells
        rows, columns = (cells - cells.min(axis=0)).T
        maps = np.full((*local_gy.shape[:-1], *spread.shape), np.nan)
        maps[..., rows, columns] = local_gy
        return np.asarray(spread(maps)[..., rows, columns], float)

    def iter_spread_errors(self) -> Generator[float, None, None]:
        """Spread the map of every error field, where a kernel spreads: each is a map of its own."""
        fields = self.uptake.errors
        if fields is None or not self._spreads or not self.plan.spreads.uptake:
            return
        # one map of all nuclides together, or of each where it has curves of its own
        alone = self._curves is not None
        groups = [[name] for name in self.names] if alone else [list(self.names)]
        found = [np.empty(fields.shape, np.float32) for _ in groups]
        for start in range(0, len(fields), _MAPS_AT_ONCE):
            yield start / len(fields)
            checkpoint()
            here = slice(start, start + _MAPS_AT_ONCE)
            uptake = np.maximum(self.uptake.suv + fields[here], 0.0)
            for part, group in zip(found, groups, strict=True):
                part[here] = sum(self._spread(n, self._slopes[n] * uptake) for n in group)
        self._electron_fields = found

    def _protraction_tables(self) -> None:
        """G of the electrons (nodes, 1 or n), and Q with the fractions per Gy of electrons."""
        uptake, m = self.uptake, len(self.uptake.time_h)
        if not self.names:
            self._g, self._mixed = np.zeros((len(self.forms), 1)), np.zeros((len(self.forms), 1))
            return
        same = len(uptake.shape) == 1 and len(self.names) == 1
        rows: list[FloatArray] = []
        for place in range(len(self.names)):
            own = slice(place * m, (place + 1) * m)
            per_dose = uptake.shape @ self.forms[0].until_h[own]
            with np.errstate(invalid="ignore", divide="ignore"):
                share = np.ones(1) if same else self.by_nuclide[place] / self.electron_gy
                curve = uptake.shape / per_dose[:, None] * share[:, None]
            rows.append(np.nan_to_num(curve))  # of a dose of 1 Gy of all electrons together
        every = np.concatenate(np.broadcast_arrays(*rows), axis=1)
        self._g = np.stack([np.sum(every @ f.square * every, axis=1) for f in self.forms])
        self._mixed = np.stack([every @ f.cross for f in self.forms])

    @property
    def hypoxic_share(self) -> FloatArray:
        """(n,) share of the tissue below 10 mmHg, dimensionless."""
        beyond = distance_edges_um()[:-1] >= _distance_with(HYPOXIC_MMHG)
        return np.asarray(self.uptake.distances[:, beyond].sum(axis=1), float)

    @property
    def uptake_names(self) -> tuple[str, ...]:
        """Names of the drawn uptake, SUV: one for each nuclide where the time course is drawn."""
        return tuple(f"uptake {name}" for name in self.names) if self._curves else ("uptake",)

    @property
    def sorted_quantities(self) -> tuple[str, ...]:
        """Names of the quantities whose quantiles are drawn; Gy, SUV or dimensionless."""
        names = (*self.uptake_names, "dose_gy", "bed_gy", "eqd2_gy", "ln_survival")
        return (*names, "electron_gy", "alpha_particle_gy") if self.has_alpha else names

    # --- draws ----------------------------------------------------------------------------------
    def factors(
        self, z: Mapping[str, FloatArray], rows: IntArray | None = None
    ) -> dict[str, FloatArray]:
        """Drawn values of each assumption (d,) from standard normal numbers (d,) of its source.

        ``activity`` and ``dose`` are factors, ``alpha`` 1/Gy, ``beta`` 1/Gy², ``repair`` the factor
        of the half-times, ``m``, ``m_alpha``, ``rbe`` and ``within`` dimensionless; ``curve`` the
        row of the time course of draws *rows* (d,), where it is drawn and they are given.
        """
        plan, spreads = self.plan, self.plan.spreads

        def factor(name: str) -> FloatArray:
            return np.exp(_log_sd(getattr(spreads, name)) * z[name])

        activity = factor("calibration") * factor("time_course")
        alpha = plan.alpha * factor("alpha")
        ratio = plan.beta / plan.alpha / factor("alpha_beta")
        oxygen = factor("oxygen_m")
        curve = {"curve": rows % self._curves.n} if self._curves and rows is not None else {}
        return {
            **curve,
            "activity": activity,
            "dose": activity / factor("density"),
            "alpha": alpha,
            "beta": alpha * ratio,
            "repair": factor("repair"),
            "rbe": plan.rbe * factor("rbe"),
            "m": 1 + (plan.oxygen_m - 1) * oxygen,
            "m_alpha": 1 + (plan.oxygen_m_alpha - 1) * oxygen,
            "within": np.minimum(plan.within_cv * factor("within"), 0.5),
        }

    def _interpolated(self, table: FloatArray, repair: FloatArray) -> FloatArray:
        """(d, n) values of a table (nodes, n) at factors of the half-times of repair (d, 1)."""
        return table if len(self._log_nodes) == 1 else self._basis(repair) @ table

    def _basis(self, repair: FloatArray) -> FloatArray:
        """(d, nodes) weights, dimensionless, of the nodes at factors of the half-times (d, 1)."""
        if len(self._log_nodes) == 1:
            return np.ones((len(repair), 1))
        from scipy.interpolate import CubicSpline

        at = np.clip(np.log(repair[:, 0]), self._log_nodes[0], self._log_nodes[-1])
        return np.asarray(CubicSpline(self._log_nodes, np.eye(len(self._log_nodes)))(at), float)

    def protraction(self, repair: FloatArray, curve: Any = None) -> FloatArray:
        """(d,) G, dimensionless, of electrons and fractions together at the mean of the tiles.

        *repair* (d,) are the factors of the half-times, *curve* (d,) the rows of drawn curves.
        """
        column = repair[:, None]
        fractions = np.array([[f.fractions_gy2] for f in self.forms])
        known = np.isfinite(self.electron_gy) & (self.uptake.weight > 0)
        weight = np.where(known, self.uptake.weight, 0.0)
        mean = float(np.sum(np.where(known, self.electron_gy, 0.0) * weight) / weight.sum())
        alone = self._interpolated(fractions, column)[:, 0]
        if self._curves is not None and curve is not None:
            share = weight / weight.sum()
            parts = [np.array([np.where(known, one, 0.0) @ share]) for one in self.by_nuclide]
            drawn = self._curves.electrons(parts, curve, self._basis(column))
            dose, g, mixed = (one[:, 0] for one in drawn)
            whole = (dose + self.forms[0].fractions_gy) ** 2
            q = g * dose**2 + 2 * mixed * dose + alone
            return np.clip(np.divide(q, whole, np.ones_like(q), where=whole > 0), 0.0, 1.0)
        table = [
            np.broadcast_to(one, (len(one), len(known))) @ (weight / weight.sum())
            for one in (self._g, self._mixed)
        ]
        g, mixed = (self._interpolated(one[:, None], column)[:, 0] for one in table)
        total = mean + self.forms[0].fractions_gy
        q = g * mean**2 + 2 * mixed * mean + alone
        found = q / total**2 if total > 0 else np.ones(1)
        return np.asarray(np.broadcast_to(np.clip(found, 0.0, 1.0), len(repair)), float)

    def errors(self, rows: IntArray | None, tiles: Any) -> FloatArray | None:
        """(d, t) errors of the uptake of draws (d,), SUV; None where none is drawn."""
        fields = self.uptake.errors
        if fields is None or rows is None or not self.plan.spreads.uptake:
            return None
        return _drawn(fields, rows, tiles)

    def _spread_error(self, rows: IntArray, tiles: Any) -> list[FloatArray]:
        """(d, t) dose of electrons, Gy, of draws (d,) at the median of all but the uptake.

        Of all nuclides together, or of each where the time course is drawn.
        """
        if not self._electron_fields:
            run_to_end(self.iter_spread_errors())
        return [_drawn(one, rows, tiles) for one in self._electron_fields]

    def response(
        self, factors: Mapping[str, FloatArray], rows: IntArray | None, tiles: Any
    ) -> TileResponse:
        """Response (d, t), Gy, of tiles to drawn values (d, 1); *rows* (d,) choose error fields.

        Without *rows* the uptake has no error.
        """
        error = self.errors(rows, tiles)
        suv = self.uptake.suv[tiles]
        uptake = suv if error is None else np.maximum(suv + error, 0.0)
        uptakes = dict.fromkeys(self.uptake_names, factors["activity"] * uptake)
        row = None
        if self._curves is not None and "curve" in factors:
            row = np.asarray(factors["curve"][:, 0], int)
            uptakes = {
                name: factors["activity"] * self._curves.total[row, place, None] * uptake
                for place, name in enumerate(self.uptake_names)
            }
        if error is not None and rows is not None and self._spreads:
            parts = self._spread_error(rows, tiles)
        elif row is not None:
            parts = [one[tiles] for one in self.by_nuclide]
            if error is not None:
                own = zip(parts, self._slopes.values(), strict=True)
                parts = [np.maximum(one + slope[tiles] * error, 0.0) for one, slope in own]
        else:
            electron = self.electron_gy[tiles]
            if error is not None:
                electron = np.maximum(electron + self.electron_slope[tiles] * error, 0.0)
            parts = [electron]
        if self._curves is not None and row is not None:
            electron, g, mixed = self._curves.electrons(parts, row, self._basis(factors["repair"]))
            slopes = self._curves.until[row] @ np.stack(self.alpha_slopes)[:, tiles]
        else:
            electron = sum(parts[1:], parts[0])
            g = self._interpolated(_columns(self._g, tiles), factors["repair"])
            mixed = self._interpolated(_columns(self._mixed, tiles), factors["repair"])
            slopes = self.alpha_slope[tiles]
        electron = factors["dose"] * electron
        high = factors["dose"] * (slopes * uptake) if self.has_alpha else None
        ln_s = self._ln_survival(factors, (electron, g, mixed), high, tiles)
        return TileResponse(electron, high, uptakes, ln_s, factors["alpha"], factors["beta"])

    def _ln_survival(
        self,
        factors: Mapping[str, FloatArray],
        electrons: tuple[FloatArray, FloatArray, FloatArray],
        high: FloatArray | None,
        tiles: Any,
    ) -> FloatArray:
        """(d, t) ln S of doses (d, t), Gy: with oxygen of the mean survival over the distances.

        *electrons* are the dose, its G, and its Q with the fractions per Gy.
        """
        repair, (electron, g, mixed) = factors["repair"], electrons
        if self._fractions:
            beam = self.forms[0].fractions_gy
            alone = self._interpolated(np.array([[f.fractions_gy2] for f in self.forms]), repair)

        def effect(lost: Any) -> tuple[FloatArray, FloatArray]:
            """Effect of nuclides, and of fractions alone, with that share of h lost."""
            h = 1.0 if lost is None else 1 - (1 - 1 / factors["m"]) * lost
            eff = electron * h
            linear, quadratic = eff, g * eff**2
            fixed: FloatArray = np.zeros(())
            if self._fractions:
                fixed = factors["alpha"] * beam * h + factors["beta"] * alone * h**2
                linear = eff + 2 * factors["beta"] / factors["alpha"] * mixed * eff * h
            if high is not None:
                h_alpha = 1.0 if lost is None else 1 - (1 - 1 / factors["m_alpha"]) * lost
                linear = linear + factors["rbe"] * high * h_alpha
            one, two = factors["alpha"] * linear, factors["beta"] * quadratic
            if (factors["within"] > 0).any():
                return -_uneven_table().ln_survival(one, two, factors["within"]), fixed
            return one + two, fixed

        if not self.plan.oxygen:
            killed, fixed = effect(None)
            return np.asarray(self._births() - killed - fixed, float)
        lost, shares = lost_effect(), self.uptake.distances[tiles]
        farthest = shares.shape[1] - 1 - np.argmax(shares[:, ::-1] > 0, axis=1)
        least = sum(effect(lost[farthest]))  # where most survives: no exponential overflows
        survivors = np.zeros(electron.shape)
        for place in np.flatnonzero((shares > 0).any(axis=0)):
            gap = np.minimum(least - sum(effect(lost[place])), 0.0)  # above 0 where there is none
            survivors += shares[:, place] * np.exp(gap)
        with np.errstate(divide="ignore"):
            found = np.where(shares[:, 0] >= 0, np.log(survivors), np.nan)
        return np.asarray(self._births() - least + found, float)

    def _births(self) -> float:
        plan = self.plan
        if plan.doubling_days is None or plan.until_days is None:
            return 0.0
        return math.log(2) / plan.doubling_days * max(0.0, plan.until_days - plan.kick_off_days)

    # --- shares of uncertainty ------------------------------------------------------------------
    @property
    def drawn_sources(self) -> tuple[str, ...]:
        """Names of the sources that have an effect under this plan, in their order."""
        plan, spreads = self.plan, self.plan.spreads
        idle = {
            "uptake": self.uptake.errors is None or not spreads.uptake,
            "rbe": not self.has_alpha,
            "oxygen_m": not plan.oxygen,
            "within": plan.within_cv == 0,
            "alpha_beta": plan.beta == 0,
            "repair": plan.beta == 0,
        }
        by_nuclides = {"calibration", "time_course", "density", "uptake", "within"}
        always = {"uptake", "time_course"} if self._curves else {"uptake"}
        return tuple(
            name
            for name in SOURCE_TITLES
            if not idle.get(name, False)
            and (name in always or getattr(spreads, name) > 0)
            and (self.names or name not in by_nuclides)
        )

    @property
    def median_tile(self) -> int:
        """Index of the tile with the median dose among those with a weight."""
        known = np.flatnonzero(np.isfinite(self.uptake.suv) & (self.uptake.weight > 0))
        dose = self.electron_gy[known] + self.alpha_slope[known] * self.uptake.suv[known]
        return int(known[np.argsort(dose, kind="stable")[known.size // 2]])

    def iter_shares(self, samples: int, seed: int) -> Generator[float, None, dict[str, Any]]:
        """First and total Sobol indices of each source for ln D and -ln S: the median tile, and
        the mean dose and mean survival of at most 300 tiles.  A dose below 1 % of the one at the
        median of all sources counts as 1 %, so that the logarithm of no dose does not count alone.
        """
        from scipy.special import ndtri

        names = self.drawn_sources
        if not names:
            return {"not_available": "nothing is uncertain: every spread is 0"}
        known = np.flatnonzero(np.isfinite(self.uptake.suv) & (self.uptake.weight > 0))
        some = known[np.unique(np.linspace(0, known.size - 1, _SOBOL_TILES).astype(int))]
        tiles = np.concatenate([[self.median_tile], some])
        weight = self.uptake.weight[some] / self.uptake.weight[some].sum()
        fields = self.uptake.errors
        order = None if fields is None else np.argsort(fields[:, some] @ weight, kind="stable")
        outputs = ["ln_survival_median", "ln_survival_mean"]
        if self.names:
            outputs = ["ln_dose_median", "ln_dose_mean", *outputs]

        exact = self.factors(dict.fromkeys(SOURCE_TITLES, np.zeros(1)))
        usual = self.response({k: v[:, None] for k, v in exact.items()}, None, tiles).dose_gy[0]
        least = _MIN_DOSE * np.array([[usual[0]], [usual[1:] @ weight]])
        least = np.maximum(least, np.finfo(float).tiny)

        def function(points: FloatArray) -> FloatArray:
            column = dict(zip(names, points.T, strict=True))
            zero = np.zeros(len(points))
            z = {n: ndtri(column[n]) if n in column else zero for n in SOURCE_TITLES}
            curve = None
            if self._curves is not None:  # a curve, and what is left of the number for its spread
                curve, z["time_course"] = self._curves.place(column["time_course"])
            own = {name: value[:, None] for name, value in self.factors(z, curve).items()}
            rows = None
            if "uptake" in column and order is not None:
                place = (column["uptake"] * len(order)).astype(int)
                rows = order[np.minimum(place, len(order) - 1)]
            found = self.response(own, rows, tiles)
            ln_s = found.ln_survival
            top = ln_s[:, 1:].max(axis=1)
            mean = top + np.log(np.exp(ln_s[:, 1:] - top[:, None]) @ weight)
            columns = [-ln_s[:, 0], -mean]
            if self.names:
                dose = np.stack([found.dose_gy[:, 0], found.dose_gy[:, 1:] @ weight])
                columns = [*np.log(np.maximum(dose, least)), *columns]
            return np.stack(columns, axis=1)

        rng = np.random.default_rng([seed, len(SOURCE_TITLES)])
        indices = yield from iter_sobol(function, len(names), samples, rng)
        return {
            "samples": samples,
            "sources": list(names),
            **{
                kind: {
                    output: dict(zip(names, map(float, getattr(indices, kind)[row]), strict=True))
                    for row, output in enumerate(outputs)
                }
                for kind in ("first", "total", "total_low", "total_high")
            },
        }

    # --- results --------------------------------------------------------------------------------
    def constants(self) -> list[tuple[str, Any, str]]:
        """Name, value and source of what the plan's nuclides and kernel bring with them."""
        rows: list[tuple[str, Any, str]] = []
        for name in self.names:
            own = NUCLIDES[name]
            rows += [
                (f"{name} half_life_h", own.half_life_h, own.source),
                (f"{name} electron_kev", own.electron_kev, own.source),
                (f"{name} alpha_kev", own.alpha_kev, own.source),
                (f"{name} recoil_kev", own.recoil_kev, own.source),
                (f"{name} kernel", self._kernels[name].name, self._kernels[name].source),
            ]
        for course, (start, mbq) in zip(self._courses(), self._starts(), strict=True):
            rows.append((f"{course} mbq", mbq, f"plan, day {start / 24:g}"))
        return rows

    def _courses(self) -> list[str]:
        return [one.nuclide.name for one in self._infusions for _ in one.courses]

    def _starts(self) -> list[tuple[float, float]]:
        return [course for one in self._infusions for course in one.courses]

    def doubts(self, result: PlanResult) -> list[str]:
        """Sentences on what is doubtful about the numbers."""
        found = list(self.warnings)
        most = float(np.nanmax(result.columns["alpha_particle_gy_50"], initial=0.0))
        if most > NO_CELL_LEFT_GY:
            found.append(
                f"alpha particles would give up to {most:.0f} Gy, beyond the {NO_CELL_LEFT_GY:g} "
                "Gy that leave no cell: is the activity in kBq? It was taken as MBq"
            )
        if len(self.uptake.shape) > 1 and any(k.reach_um > 0 for k in self._kernels.values()):
            found.append(
                "with a kernel and a time course of each tile, energy from a neighbour follows "
                "the time course of the tile that absorbs it"
            )
        if self.plan.oxygen:
            unknown = np.isnan(self.uptake.distances[np.isfinite(self.uptake.suv)])
            lost = int(unknown.any(axis=1).sum())
            if lost:
                found.append(
                    f"{counted(lost, 'tile has', 'tiles have')} no distance to a vessel and so no "
                    "response"
                )
        return found

    def result(self, tiles: Mapping[str, FloatArray]) -> PlanResult:
        """Columns of the plan from quantiles (q, n) of what was drawn, in their units."""
        columns, units, about = {}, {}, {}

        def add(name: str, unit: str, words: str, quantiles: FloatArray) -> None:
            for percent, values in zip(QUANTILES, quantiles, strict=True):
                key = f"{name}_{percent:02d}"
                columns[key], units[key] = values, unit
                about[key] = f"{words}, {percent} % of the draws below"

        drawn = self.uptake_names if self._curves else self.uptake_names * len(self.tia)
        for own, (name, per_suv) in zip(drawn, self.tia.items(), strict=True):
            unit, words = TILE_QUANTITIES["tia_mbq_h_ml"]
            key = "tia_mbq_h_ml" if len(self.tia) == 1 else f"tia_mbq_h_ml_{name}"
            add(key, unit, f"{words} of {name}", tiles[own] * per_suv)
        zero = np.where(np.isnan(tiles["ln_survival"][0]), np.nan, 0.0)
        electron = tiles.get("electron_gy", tiles["dose_gy"])
        none = np.broadcast_to(zero, (len(QUANTILES), *zero.shape[-1:]))
        found = {"alpha_particle_gy": none, **tiles, "dose_gy": electron}
        for name, (unit, words) in TILE_QUANTITIES.items():
            if name != "tia_mbq_h_ml":
                add(name, unit, words, found[name])
        columns["hypoxic_share"], units["hypoxic_share"] = self.hypoxic_share, "1"
        about["hypoxic_share"] = (
            f"share of the tissue below {HYPOXIC_MMHG:g} mmHg, from the distance of its pixels to "
            "the nearest vessel"
        )
        return PlanResult(columns, units, about)

    def record(self, factors: Mapping[str, FloatArray], summary: Any) -> dict[str, Any]:
        """Indices with intervals, their draws, and the dose-volume histogram with its band."""
        drawn = {name: np.asarray(values, float) for name, values in summary.indices.items()}
        if self.plan.number_of_clonogens is None:
            drawn.pop("tcp")
        if not self.names:
            drawn = {name: values for name, values in drawn.items() if name in ("eud_gy", "tcp")}
        band = np.percentile(summary.histogram, QUANTILES, axis=0)
        return {
            "indices": {
                name: dict(zip(("low", "median", "high"), _quantiles(values), strict=True))
                for name, values in drawn.items()
            },
            "drawn": {name: values.tolist() for name, values in drawn.items()},
            "histogram": {
                "dose_gy": summary.histogram_gy.tolist(),
                **{
                    name: row.tolist()
                    for name, row in zip(("low", "median", "high"), band, strict=True)
                },
            },
            "protraction": float(
                np.median(self.protraction(factors["repair"], factors.get("curve")))
            ),
            "fractions_gy": self.forms[0].fractions_gy,
        }

    def unseen(self) -> list[dict[str, float | None]]:
        """EUD, Gy, and tumour control at the median of the assumptions, by within-tile CV."""
        exact = self.factors(dict.fromkeys(SOURCE_TITLES, np.zeros(1)))
        own = {name: value[:, None] for name, value in exact.items()}
        weight = np.where(np.isfinite(self.uptake.suv), self.uptake.weight, 0.0)
        number, g = self.plan.number_of_clonogens, self.protraction(np.ones(1))[0]
        rows: list[dict[str, float | None]] = []
        for cv in _UNSEEN if self.names else ():
            found = self.response({**own, "within": np.full((1, 1), cv)}, None, slice(None))
            control = tumour_control(found.ln_survival[0], weight, clonogens=number or 1.0)
            uniform = equivalent_uniform_dose(
                found.ln_survival[0],
                weight,
                alpha_per_gy=self.plan.alpha,
                beta_per_gy2=self.plan.beta,
                g=g,
            )
            tcp = None if number is None else float(control.probability)
            rows.append({"cv": cv, "eud_gy": float(uniform), "tcp": tcp})
        return rows

    def time_course(self) -> dict[str, Any]:
        """Dose rate and unrepaired damage of the tile with the median dose, against time."""
        tile = self.median_tile
        last = max([time for time, _ in self._fractions], default=0.0)
        for one in self._infusions:
            last = max(last, max(start for start, _ in one.courses) + 6 * one.nuclide.half_life_h)
        times = np.unique(np.concatenate([np.linspace(0, last, _TIMES), self._event_times(last)]))
        rate, high = np.zeros(times.size), np.zeros(times.size)
        shape = self._shape_of(tile)
        for place, one in enumerate(self._infusions):
            name = self.names[place]
            gy = self._gy_per_activity(place, tile)
            curve = decayed_curve(one.time_h, shape, one.nuclide.half_life_h)
            per_alpha = dose_per_activity_gy(name, part="alpha", retained=self.plan.retained)
            per_alpha *= self.uptake.suv[tile] / self.uptake.measure / self.plan.density_g_ml
            for start, mbq in one.courses:
                own = mbq * _curve_at(curve, times - start)
                rate, high = rate + gy * own, high + per_alpha * own
        state = self._state(tile, self._repair(1.0))
        found: dict[str, Any] = {
            "tile": tile,
            "time_h": times.tolist(),
            "electron_gy_h": rate.tolist(),
            "alpha_particle_gy_h": high.tolist(),
            "unrepaired_gy": np.asarray(state.unrepaired_gy(times), float).tolist(),
        }
        if self.plan.doubling_days is not None:
            need = math.log(2) / (24 * self.plan.doubling_days)
            above = np.flatnonzero(self.plan.alpha * (rate + self.plan.rbe * high) >= need)
            found["critical_time_h"] = float(times[above[-1]]) if above.size else 0.0
        return found

    def _shape_of(self, tile: int) -> FloatArray:
        """(m,) decay-corrected time course of a tile as a multiple of that of the measurement."""
        return np.asarray(self.uptake.shape[tile if len(self.uptake.shape) > 1 else 0], float)

    def _gy_per_activity(self, place: int, tile: int) -> float:
        """Gy/h of electrons in a tile for each MBq of a nuclide and each unit of its shape."""
        m = len(self.uptake.time_h)
        unit = float(self._shape_of(tile) @ self.forms[0].until_h[place * m : (place + 1) * m])
        return float(self.by_nuclide[place][tile]) / unit if unit > 0 else 0.0

    def _state(self, tile: int, repair: list[tuple[float, float]]) -> RepairState:
        """Courses and fractions of one tile at the median of all draws, event by event."""
        state = RepairState(repair)
        for place, one in enumerate(self._infusions):
            curve = decayed_curve(one.time_h, self._shape_of(tile), one.nuclide.half_life_h)
            rate = self._gy_per_activity(place, tile) * curve.activity[0]
            for start, mbq in one.courses:
                state.add_curve(curve.time_h + start, mbq * rate, curve.tail_per_h)
        for time, dose in self._fractions:
            state.add_fraction(time, dose)
        return state

    def verification(self) -> dict[str, float]:
        """Relative deviations at the tile with the median dose, with all damage repaired.

        ``repair``: Q of the quadratic forms against 2 mu times the integral of U^2 over time, by
        quadrature between the events.  ``integral``: time-integrated activity of the forms against
        that of the curve.
        """
        tile, m = self.median_tile, len(self.uptake.time_h)
        repair = self._repair(1.0)
        form = self.forms[0]
        if len(self.forms) > 1 or math.isfinite(self._until_h):
            form = time_form(self._infusions, self._fractions, repair)
        row = [
            self._gy_per_activity(place, tile) * self._shape_of(tile)
            for place in range(len(self._infusions))
        ]
        curve = np.concatenate(row) if row else np.zeros(0)
        q = curve @ form.square @ curve + 2 * curve @ form.cross + form.fractions_gy2
        times, weights = self._quadrature()
        whole = 0.0
        for share, rate in repair:
            damage = np.asarray(self._state(tile, [(1.0, rate)]).unrepaired_gy(times), float)
            whole += 2 * share * rate * float(weights @ damage**2)
        found = {"repair": float(abs(whole / q - 1) if q > 0 else abs(whole))}
        for place, one in enumerate(self._infusions):
            own = slice(place * m, (place + 1) * m)
            shape, half_life = self._shape_of(tile), one.nuclide.half_life_h
            total = float(time_integrated_activity(one.time_h, shape, half_life).total_h)
            total *= sum(mbq for _, mbq in one.courses)
            gap = abs(float(shape @ form.total_h[own]) / total - 1)
            found["integral"] = max(found.get("integral", 0.0), gap)
        return found

    def _quadrature(self) -> tuple[FloatArray, FloatArray]:
        """Times, h, and weights of Gauss rules on spans that grow from each event."""
        slowest = max(half for _, half in self.plan.repair)
        end = max([time for time, _ in self._fractions], default=0.0) + 60 * slowest
        for one in self._infusions:
            last = max(start for start, _ in one.courses)
            end = max(end, last + one.time_h[-1] + 40 * one.nuclide.half_life_h)
        events = np.unique(np.append(self._event_times(end), 0.0))
        after = np.concatenate([[0.0], np.geomspace(0.02, end, 60)])
        marks = np.unique(np.concatenate([(events[:, None] + after).ravel(), [end]]))
        marks = marks[marks <= end]
        node, weight = np.polynomial.legendre.leggauss(8)
        half, middle = np.diff(marks) / 2, (marks[1:] + marks[:-1]) / 2
        times = middle[:, None] + half[:, None] * node
        return times.ravel(), (half[:, None] * weight).ravel()

    def _event_times(self, last: float) -> FloatArray:
        marks = [time for time, _ in self._fractions]
        for one in self._infusions:
            marks += [start + t for start, _ in one.courses for t in (0.0, *one.time_h)]
        return np.array([mark for mark in marks if mark <= last])


class _CurveDraws:
    """What the drawn time courses of a plan come to, as ratios to its own course.

    Attributes
    ----------
    n
        Number of the curves, k.
    until, total
        (k, N) time-integrated activity of each nuclide until survival is asked for, and of all
        time, as a multiple of that of the plan's course.
    """

    def __init__(self, model: PlanModel) -> None:
        draws, shape = model.uptake.curve_draws, model.uptake.shape[0]
        assert draws is not None
        self.n, m = draws.shape
        own = [slice(place * m, (place + 1) * m) for place in range(len(model.names))]
        first = model.forms[0]
        self.until, self.total = (
            np.stack([draws @ row[one] / (shape @ row[one]) for one in own], axis=1)
            for row in (first.until_h, first.total_h)
        )
        parts = [draws / (shape @ first.until_h[one]) for one in own]  # of 1 Gy of the plan's
        both = list(zip(parts, own, strict=True))
        self._square = np.stack(
            [
                [[np.sum(a @ form.square[i, j] * b, axis=1) for b, j in both] for a, i in both]
                for form in model.forms
            ]
        )
        self._cross = np.stack([[a @ form.cross[i] for a, i in both] for form in model.forms])
        self._order = np.argsort(self.until.mean(axis=1), kind="stable")

    def place(self, share: FloatArray) -> tuple[IntArray, FloatArray]:
        """Curve at numbers (d,) in [0, 1], by time integral, and a normal number of the rest."""
        from scipy.special import ndtri

        at = np.minimum((share * self.n).astype(int), self.n - 1)
        return self._order[at], ndtri(np.clip(share * self.n - at, 1e-9, 1 - 1e-9))

    def electrons(
        self, parts: Sequence[FloatArray], row: IntArray, basis: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Dose, Gy, its G and Q with the fractions per Gy (d, t), of curves *row* (d,).

        *parts* are the doses (t,) or (d, t), Gy, of each nuclide with the plan's course, *basis*
        (d, nodes) the weights of the nodes of repair.
        """
        dose: Any = sum(self.until[row, place, None] * one for place, one in enumerate(parts))
        q = sum(
            np.einsum("dk,kd->d", basis, self._square[:, i, j, row])[:, None] * a * b
            for i, a in enumerate(parts)
            for j, b in enumerate(parts)
        )
        mixed = sum(
            np.einsum("dk,kd->d", basis, self._cross[:, i, row])[:, None] * one
            for i, one in enumerate(parts)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            g, per_gy = q / dose**2, mixed / dose
        return dose, np.nan_to_num(g), np.nan_to_num(per_gy)


_SETTING_SOURCES: Final = {
    "alpha": "illustrative, not specific for ccRCC",
    "beta": "illustrative, not specific for ccRCC",
    "repair": "illustrative, not specific for ccRCC (share, half-time in h)",
    "rbe": "MIRD 22: Sgouros et al. 2010, J Nucl Med 51:311 (3 to 7)",
    "retained": "all daughters stay; assumption",
    "within_cv": "a uniform dose; assumption",
    "density_g_ml": "soft tissue; assumption",
    "oxygen_m": "Alper, Howard-Flanders 1956; Wenzl, Wilkens 2011",
    "oxygen_m_alpha": "1 to 1.3; Wenzl, Wilkens 2011",
    "clonogens": "assumption",
    "clonogens_per_ml": "assumption",
    "tumour_ml": "given",
    "doubling_days": "assumption",
    "kick_off_days": "assumption",
    "until_days": "given",
}


def constant_rows(plan: Plan) -> list[tuple[str, Any, str]]:
    """Name, value and source of each assumption of a plan and of its spread."""
    rows: list[tuple[str, Any, str]] = []
    for name, source in _SETTING_SOURCES.items():
        value, default = getattr(plan, name), type(plan).model_fields[name].default
        if value is None or (name.startswith("oxygen") and not plan.oxygen):
            continue
        rows.append((name, value, source if value == default else "given in the plan"))
    for name, value in plan.spreads:
        default = type(plan.spreads).model_fields[name].default
        source = "illustrative" if value == default else "given in the plan"
        words = "coefficient of variation over the draws" if name != "uptake" else "whether drawn"
        rows.append((f"spread of {name}", value, f"{words}; {source}"))
    return rows


@cache
def _uneven_table() -> UnevenTable:
    return UnevenTable()


def _drawn(fields: NDArray[Any], rows: IntArray, tiles: Any) -> FloatArray:
    """Fields (k, n) of draws (d,) and some tiles, (d, t), in their unit; draw d has row d mod k."""
    return np.asarray(fields[:, tiles][rows % len(fields)], float)


def _columns(table: FloatArray, tiles: Any) -> FloatArray:
    """The tiles (t) of a table (nodes, n), or its one column for all; any unit."""
    return table if table.shape[1] == 1 else table[:, tiles]


def _quantiles(values: FloatArray) -> list[float]:
    return [float(value) for value in np.percentile(values, QUANTILES)]


def _curve_at(curve: Any, after_h: FloatArray) -> FloatArray:
    """Activity of a decayed curve at times after its injection, h; 0 before it."""
    times, values = curve.time_h, curve.activity[0]
    inside = np.interp(after_h, times, values, left=0.0)
    tail = values[-1] * np.exp(-curve.tail_per_h * np.maximum(after_h - times[-1], 0.0))
    return np.asarray(np.where(after_h > times[-1], tail, inside), float)


@cache
def distance_edges_um() -> FloatArray:
    """(j + 1,) edges of the classes of distance to a vessel, µm of living tissue.

    In each but the last one, which has no oxygen, the share of the oxygen effect that is lost rises
    as much; 10 mmHg is an edge.
    """
    grid = np.linspace(0.0, 200.0, 20001)
    lost = _lost_at(grid)
    reach = grid[np.argmax(lost >= 1)]
    even = np.interp(np.linspace(lost[0], 1.0, _DISTANCES + 1), lost, grid)[1:-1]
    return np.array([0.0, *sorted([*even, _distance_with(HYPOXIC_MMHG)]), reach, np.inf])


@cache
def lost_effect() -> FloatArray:
    """(j,) share K/(q + K), dimensionless, of the oxygen effect that is lost in each class."""
    edges = distance_edges_um()
    inside = np.linspace(edges[:-2], edges[1:-1], 101)
    return np.append(np.trapezoid(_lost_at(inside), axis=0) / 100, 1.0)


def _lost_at(distance_um: FloatArray) -> FloatArray:
    pressure = oxygen_from_distance(distance_um)
    return np.asarray(_HALF_EFFECT_MMHG / (pressure + _HALF_EFFECT_MMHG), float)


def _distance_with(pressure_mmhg: float) -> float:
    """Distance from a vessel, µm, with this pressure of oxygen, mmHg, as `oxygen_from_distance`."""
    grid = np.linspace(0.0, 200.0, 20001)
    return float(np.interp(-pressure_mmhg, -oxygen_from_distance(grid), grid))


def _log_sd(cv: float) -> float:
    """SD of the logarithm of a lognormal number with this coefficient of variation."""
    return math.sqrt(math.log1p(cv**2))


def compare_plans(plans: Mapping[str, Any], first: str, second: str) -> dict[str, Any]:
    """Second less first plan, draw by draw: what differs, and in what share of the draws.

    Parameters
    ----------
    plans
        Records of plans by name, as ``plans`` of the stored record.
    first, second
        Names of two of them.

    Returns
    -------
    dict
        By index: ``low``, ``median``, ``high`` of the difference, Gy or dimensionless, and
        ``share_higher``, in how many of the draws the second plan has more.

    Raises
    ------
    InputError
        If a plan is not there, both are one, or their draws are not the same.
    """
    for name in (first, second):
        if name not in plans:
            raise InputError(f"there is no plan {name!r} with results; {nearest(name, plans)}")
    if first == second:
        raise InputError(f"'{first}' is compared with itself; give two plans")
    settings = [(plans[n]["plan"]["seed"], plans[n]["plan"]["draws"]) for n in (first, second)]
    if settings[0] != settings[1]:
        raise InputError(
            f"'{first}' has seed {settings[0][0]} and {settings[0][1]} draws, '{second}' "
            f"{settings[1][0]} and {settings[1][1]}: only equal draws can be compared; give both "
            "plans the same seed and number of draws"
        )
    uptakes = [plans[n]["uptake"] for n in (first, second)]
    if uptakes[0] != uptakes[1]:
        raise InputError(
            f"'{first}' follows the {uptakes[0]} uptake, '{second}' the {uptakes[1]} one; choose "
            "the same for both"
        )
    drawn = [plans[name]["drawn"] for name in (first, second)]
    found: dict[str, Any] = {"first": first, "second": second, "indices": {}}
    for index in (name for name in drawn[0] if name in drawn[1]):
        gap = np.array(drawn[1][index], float) - np.array(drawn[0][index], float)
        low, median, high = _quantiles(gap)
        more = float(np.mean(gap > 0))
        found["indices"][index] = {
            "low": low, "median": median, "high": high, "share_higher": more,
        }  # fmt: skip
    return found
