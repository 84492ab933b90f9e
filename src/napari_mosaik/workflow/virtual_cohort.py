"""Plans of a case as arms of a virtual cohort: the same simulated patients in each of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from napari_mosaik.core import Progress
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.core.text import nearest
from napari_mosaik.dosimetry import NUCLIDES, dose_per_activity_gy, respond
from napari_mosaik.dosimetry.treatment import Infusions, time_form
from napari_mosaik.twin import Cohort, patients_needed, virtual_cohort
from napari_mosaik.twin.chain import Chain
from napari_mosaik.workflow.plans import Plan, half_times_as_rates, read_plans
from napari_mosaik.workflow.twin import CaseTwin

__all__ = [
    "COHORT_OUTCOMES",
    "SIMULATED",
    "Cohort",
    "PatientDoses",
    "cohort_document",
    "plan_cohort",
]

SIMULATED: Final = "simulated; not evidence"
COHORT_OUTCOMES: Final = ("bed", "electron", "alpha")
"""BED, or the absorbed dose of electrons or of alpha particles, all Gy, of the tumour's mean."""
_TIMES_H: Final = np.concatenate([[0.0], np.geomspace(0.5, 1500.0, 63)])


class PatientDoses:
    """Dose and response of the tumour's mean in many patients under one plan.

    Parameters
    ----------
    twin
        Model, unit and injection record.
    plan
        Courses, fractions and radiobiology; kernel, oxygen and differences within the tumour do
        not enter a mean.

    Raises
    ------
    InputError
        If a course is per body surface and that is unknown.
    """

    def __init__(self, twin: CaseTwin, plan: Plan, names: Sequence[str]) -> None:
        self.plan = plan
        self._chain = Chain(twin.prior, names)
        self._measure = twin.activity_measure(twin.unit)
        surface = None
        if any(course.unit == "MBq/m2" for course in plan.courses):
            surface = twin.activity_measure("SUVbsa") / 1e4
        self._names = tuple(dict.fromkeys(course.nuclide for course in plan.courses))
        infusions = [
            Infusions(
                NUCLIDES[name],
                _TIMES_H,
                [
                    (24 * course.day, course.activity_mbq(surface))
                    for course in plan.courses
                    if course.nuclide == name
                ],
            )
            for name in self._names
        ]
        fractions = [(time, group.dose_gy) for group in plan.fractions for time in group.times_h]
        self._until_h = math.inf if plan.until_days is None else 24 * plan.until_days
        self._form = time_form(
            infusions, fractions, half_times_as_rates(plan.repair), self._until_h
        )

    def doses(self, ln_free: FloatArray) -> dict[str, FloatArray]:
        """Doses and effective squared dose of patients.

        Parameters
        ----------
        ln_free
            (n, p) ln of the free parameters of the chain.

        Returns
        -------
        dict
            (n,) each: ``electron``, ``alpha`` (Gy), ``fractions`` (Gy), ``q`` (Gy²).
        """
        curves = np.exp(self._chain.ln_curve(ln_free, _TIMES_H, "tumour")) / self._measure
        form, m = self._form, _TIMES_H.size
        electron, alpha = np.zeros(len(curves)), np.zeros(len(curves))
        rows = []
        for place, name in enumerate(self._names):
            per_mbq = curves @ form.until_h[place * m : (place + 1) * m]
            gy = {
                part: dose_per_activity_gy(name, part=part, retained=self.plan.retained)
                / self.plan.density_g_ml
                for part in ("electron", "alpha")
            }
            electron += per_mbq * gy["electron"]
            alpha += per_mbq * gy["alpha"]
            rows.append(curves * gy["electron"])
        every = np.concatenate(rows, axis=1) if rows else np.zeros((len(curves), 0))
        q = np.einsum("nb,bc,nc->n", every, form.square, every)
        q = q + 2 * every @ form.cross + form.fractions_gy2
        fractions = np.full(len(curves), form.fractions_gy)
        return {"electron": electron, "alpha": alpha, "fractions": fractions, "q": q}

    def outcome(self, which: str, ln_free: FloatArray) -> FloatArray:
        """(n,) outcome, Gy, of patients with (n, p) ln of the free parameters."""
        checkpoint()
        found = self.doses(ln_free)
        if which == "alpha":
            return found["alpha"]
        if which == "electron":
            return found["electron"] + found["fractions"]
        plan = self.plan
        end = self._until_h if math.isfinite(self._until_h) else 0.0
        doubling = math.inf if plan.doubling_days is None else 24 * plan.doubling_days
        response = respond(
            found["electron"] + found["fractions"],
            found["q"],
            alpha_per_gy=plan.alpha,
            beta_per_gy2=plan.beta,
            alpha_particle_gy=found["alpha"],
            rbe=plan.rbe,
            time_h=end,
            kick_off_h=24 * plan.kick_off_days,
            doubling_time_h=doubling,
        )
        return np.asarray(response.bed_gy, float)


def plan_cohort(
    twin: CaseTwin,
    *,
    n: int = 400,
    seed: int = 0,
    names: Sequence[str] = (),
    outcome: str = "bed",
    population: bool = False,
) -> Generator[Progress, None, Cohort]:
    """Virtual patients under the plans of a case; reports each arm.

    Parameters
    ----------
    twin
        The twin of the case; patients are drawn from its posterior, or with *population* (and
        before the first scan) from its prior.
    n, seed
        Number of patients and random seed.
    names
        Plans that are the arms; all of the case if empty.
    outcome
        One of `COHORT_OUTCOMES`, Gy.

    Raises
    ------
    InputError
        If the case has no such plan, or a value is not possible.
    """
    if outcome not in COHORT_OUTCOMES:
        raise InputError(f"there is no outcome '{outcome}'; {nearest(outcome, COHORT_OUTCOMES)}")
    plans = _chosen(read_plans(twin.case.root), names, twin.case.name)
    yield Progress(0, len(plans), "patients")
    source = twin.population if population else twin.posterior
    doses = {name: PatientDoses(twin, plan, source.names) for name, plan in plans.items()}
    outcomes: dict[str, FloatArray] = {}
    for name, arm in doses.items():
        yield Progress(len(outcomes), len(plans), name)
        # the same seed: the same patients
        cohort = virtual_cohort(source, {name: partial(arm.outcome, outcome)}, n, seed)
        outcomes.update(cohort.outcomes)
    yield Progress(len(plans), len(plans), "")
    return Cohort(cohort.names, cohort.draws, outcomes)


def cohort_document(
    cohort: Cohort,
    *,
    drawn_from: str,
    seed: int,
    outcome: str,
    threshold: float | None = None,
    half_width: float = 0.05,
) -> dict[str, Any]:
    """What is told of the patients of `plan_cohort`.

    Parameters
    ----------
    cohort
        The patients and their outcomes, Gy.
    drawn_from, seed, outcome
        Where they come from: 'prior' or 'posterior', random seed, one of `COHORT_OUTCOMES`.
    threshold
        Outcome from which a patient responds, Gy; the median over all arms if None.
    half_width
        Half width of the interval for which the number of patients is given.

    Raises
    ------
    InputError
        If the threshold is not finite, or the half width not between 0 and 0.5.
    """
    every = np.concatenate(list(cohort.outcomes.values()))
    bar = float(np.median(every)) if threshold is None else float(threshold)
    rows = []
    for name, values in cohort.outcomes.items():
        share, low, high = cohort.responders(name, bar)
        five, median, ninety_five = np.percentile(values, [5, 50, 95]).tolist()
        rows.append(
            {
                "arm": name, "mean": float(values.mean()), "median": median, "low": five,
                "high": ninety_five, "responders": share, "responders_low": low,
                "responders_high": high,
                "patients_needed": patients_needed(half_width, share),
            }
        )  # fmt: skip
    return {
        "note": SIMULATED,
        "n": len(cohort.draws),
        "seed": seed,
        "drawn_from": drawn_from,
        "outcome": outcome,
        "unit": "Gy",
        "threshold": bar,
        "half_width": half_width,
        "arms": rows,
        "better": [
            {"a": a, "b": b, "probability": cohort.better(a, b)}
            for a, b in itertools.combinations(cohort.outcomes, 2)
        ],
        "notes": [
            "Every arm has the same patients; a therapeutic label is taken to follow the tracer.",
            "Differences within the tumour, which the PET cannot see, lessen the effect of a dose.",
        ],
    }


def _chosen(plans: Mapping[str, Plan], names: Sequence[str], case: str) -> dict[str, Plan]:
    if not plans:
        raise InputError(
            f"case {case} has no plans; add one with: napari-mosaik dose CASE --plan NAME"
        )
    for name in names:
        if name not in plans:
            raise InputError(f"case {case} has no plan '{name}'; {nearest(name, plans)}")
    return {name: plans[name] for name in names or plans}
