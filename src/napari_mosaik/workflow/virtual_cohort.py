"""Plans of a case as arms of a virtual cohort: the same simulated patients in each of them.

    twin ──draw_patients──► (n, p) ──PatientDoses, one per plan──► outcomes (n,) of every kind

Absorbed dose and BED are those of the tumour's mean.  Tumour control is that of the tiles: each
patient has the pattern of the case's slide, since the control of a mean dose would be too high.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from napari_mosaik.core import Progress
from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.catalogue import PREDICTION, TILES, UPTAKE
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.progress import checkpoint, map_progress
from napari_mosaik.core.text import nearest, typed_number
from napari_mosaik.dosimetry import (
    NUCLIDES,
    dose_per_activity_gy,
    nuclide,
    respond,
    tumour_control,
    uneven_ln_survival,
)
from napari_mosaik.dosimetry.treatment import Infusions, time_form
from napari_mosaik.io.case import Case
from napari_mosaik.io.files import write_bytes
from napari_mosaik.kinetics import DeliveryParams
from napari_mosaik.twin import Cohort, patients_needed
from napari_mosaik.twin.chain import Chain
from napari_mosaik.twin.virtual import draw_patients
from napari_mosaik.workflow.dose_exchange import OrganTable, read_organ_table
from napari_mosaik.workflow.plan_dose import lost_effect
from napari_mosaik.workflow.plan_record import Plan, half_times_as_rates
from napari_mosaik.workflow.plans import read_plans
from napari_mosaik.workflow.twin import CaseTwin

__all__ = [
    "ANTIGEN_UM",
    "COHORT_OUTCOMES",
    "EVEN_CHANCE",
    "ORGAN_PREFIX",
    "PATIENTS_LIMIT",
    "SIMULATED",
    "Cohort",
    "CohortOutcome",
    "PatientDoses",
    "PlanCohort",
    "SlidePattern",
    "cohort_document",
    "cohort_threshold",
    "keep_organ_table",
    "kept_organ_tables",
    "outcome_kind",
    "plan_cohort",
]

T = TypeVar("T")
SIMULATED: Final = "simulated; not evidence"
PATIENTS_LIMIT: Final = 100_000
EVEN_CHANCE: Final = 0.5
"""Tumour control from which a patient responds, where no other is given."""
ORGAN_PREFIX: Final = "organ:"
_GY: Final = "Gy"
_TIMES_H: Final = np.concatenate([[0.0], np.geomspace(0.5, 1500.0, 63)])
_PATIENTS_AT_ONCE: Final = 500
_ELEMENTS_AT_ONCE: Final = 500_000
_UNEVEN_AT_ONCE: Final = 25_000
"""Patients times tiles of one stretch: a fraction of a second, so that Cancel stops it."""
_SAME: Final = 1e-9
_MOLAR_G: Final = DeliveryParams().molar_mass_g_per_mol
ANTIGEN_UM: Final = DeliveryParams().antigen_um
"""Antigen of a tumour, µM, where no other is given (Table 2 of the kinetics)."""


@dataclass(frozen=True, slots=True)
class CohortOutcome:
    """What is asked of an arm: its name, words for it, unit, and which direction is better."""

    name: str
    label: str
    unit: str = _GY
    smaller_is_better: bool = False


COHORT_OUTCOMES: Final[Mapping[str, CohortOutcome]] = {
    one.name: one
    for one in (
        CohortOutcome("bed", "BED of the mean dose"),
        CohortOutcome("electron", "Absorbed dose, electrons and beam"),
        CohortOutcome("alpha", "Absorbed dose, alpha particles"),
        CohortOutcome("tcp", "Tumour control (TCP)", "1"),
    )
}
"""Outcomes by name; that of an organ, ``organ:NAME``, is its absorbed dose."""


# --- organs ---------------------------------------------------------------------------------------
def _organ_folder(root: Path) -> Path:
    return root / "organs"


def keep_organ_table(root: Path, name: str, path: Path) -> OrganTable:
    """Check a table of organs of a nuclide and keep it in the case, ``organs/NUCLIDE.csv``.

    Raises
    ------
    InputError
        For an unknown nuclide, or as `read_organ_table`.
    """
    own, table = nuclide(name).name, read_organ_table(path)
    target = _organ_folder(root) / f"{own}.csv"
    if path.absolute() != target.absolute():
        write_bytes(target, path.read_bytes())
    return table


def kept_organ_tables(root: Path) -> dict[str, OrganTable]:
    """The tables of organs that the case holds, by nuclide.

    Raises
    ------
    InputError
        If a file is not such a table, or is named after no nuclide.
    """
    found = {}
    for path in sorted(_organ_folder(root).glob("*.csv")):
        if path.stem not in NUCLIDES:
            raise InputError(f"{path} is named after no nuclide; {nearest(path.stem, NUCLIDES)}")
        try:
            found[path.stem] = read_organ_table(path)
        except InputError as error:
            raise InputError(
                f"the organs of {path.stem} that the case holds are damaged ({error}): give their "
                "table again"
            ) from None
    return found


# --- the slide ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, eq=False)
class SlidePattern:
    """How uptake and tissue differ within the tumour: t parts of the tiles of a slide.

    Attributes
    ----------
    relative
        (t,) uptake as a multiple of its mean over the slide.
    weight
        (t,) neoplastic tissue of each part, as a share of the tile's area.
    lost
        (t,) share of the oxygen effect that is lost; 0 where the plan does not count it.
    words
        Where it comes from.
    """

    relative: FloatArray
    weight: FloatArray
    lost: FloatArray
    words: str


@dataclass(frozen=True, slots=True)
class _Stored:
    """Results of a case as they are stored."""

    case: Case

    def has(self, entry: Artifact[Any]) -> bool:
        return self.case.store.origin(entry) is not None

    def read(self, artifact: Artifact[T]) -> T:
        return self.case.store.read(artifact)

    def why_not(self, artifact: Artifact[Any]) -> str:
        return ""


def _slide_pattern(case: Case, plan: Plan) -> SlidePattern:
    """The pattern of the case's slide, as the dose what-if takes it for this plan.

    Raises
    ------
    InputError
        If the case lacks the uptake of its tiles or the distances of a plan that counts oxygen.
    """
    from napari_mosaik.workflow.plan_facts import TileFacts

    stored = _Stored(case)
    if not (stored.has(TILES) and (stored.has(PREDICTION) or stored.has(UPTAKE))):
        if plan.within_cv > 0 and not plan.oxygen:
            words = f"no slide: lognormal differences with the plan's CV of {plan.within_cv:g}"
            return SlidePattern(np.ones(1), np.ones(1), np.zeros(1), words)
        raise InputError(
            f"plan '{plan.name}': the case has no uptake of its tiles, and the tumour control of a "
            "mean dose is too high: run the case first, or give the plan an unseen variation (page "
            "'Dose what-if', --set dose.within_cv=0.3)"
        )
    facts = TileFacts(stored, plan)
    suv, _, which = facts.suv()
    weight, tissue = facts.weight()
    lost = np.zeros(1)
    parts = weight[:, None]
    if plan.oxygen:  # each class of distance to a vessel is a part of its own
        lost, parts = lost_effect(), weight[:, None] * np.nan_to_num(facts.distances())
    known = np.isfinite(suv)[:, None] & (parts > 0)
    if not known.any() or not np.nanmean(suv) > 0:
        raise InputError(f"plan '{plan.name}': no tile has both an uptake and neoplastic tissue")
    relative = np.broadcast_to(suv[:, None] / float(np.nanmean(suv)), parts.shape)
    words = f"{which} uptake of {int(known.any(axis=1).sum())} tiles, {tissue}"
    return SlidePattern(
        relative[known], parts[known], np.broadcast_to(lost, parts.shape)[known], words
    )


# --- one plan -------------------------------------------------------------------------------------
class PatientDoses:
    """Dose and response in many patients under one plan.

    Parameters
    ----------
    twin
        Model, unit and injection record.
    plan
        Courses, fractions and radiobiology; the kernel does not enter.
    names
        Free parameters of the patients.
    antigen_um
        Antigen of the tumour, µM; enters where the plan states a mass of antibody.

    Raises
    ------
    InputError
        If a course is per body surface and that is unknown.
    """

    def __init__(
        self, twin: CaseTwin, plan: Plan, names: Sequence[str], antigen_um: float = ANTIGEN_UM
    ) -> None:
        self.plan = plan
        self._chain = Chain(twin.prior, names)
        self._measure = twin.activity_measure(twin.unit)
        record = twin.case.file.injection
        self._tracer_mg = None if record is None else record.antibody_mass_mg
        self._antigen_um = antigen_um
        surface = None
        if any(course.unit == "MBq/m2" for course in plan.courses):
            surface = twin.activity_measure("SUVbsa") / 1e4
        self._names = tuple(dict.fromkeys(course.nuclide for course in plan.courses))
        courses = {
            name: [
                (24 * course.day, course.activity_mbq(surface))
                for course in plan.courses
                if course.nuclide == name
            ]
            for name in self._names
        }
        self.activities_mbq = {name: sum(mbq for _, mbq in own) for name, own in courses.items()}
        infusions = [Infusions(NUCLIDES[name], _TIMES_H, own) for name, own in courses.items()]
        fractions = [(time, group.dose_gy) for group in plan.fractions for time in group.times_h]
        self._until_h = math.inf if plan.until_days is None else 24 * plan.until_days
        self._form = time_form(
            infusions, fractions, half_times_as_rates(plan.repair), self._until_h
        )

    def _curves(self, ln_free: FloatArray) -> FloatArray:
        """(n, t) activity per injected activity and mL, decay-corrected."""
        mass = self.plan.antibody_mg
        if mass is None or mass == self._tracer_mg:
            ln = self._chain.ln_curve(ln_free, _TIMES_H, "tumour")
        else:
            fitted = math.inf if self._tracer_mg is None else self._antigen(self._tracer_mg)
            ln = self._chain.ln_curve_with_antigen(ln_free, _TIMES_H, self._antigen(mass), fitted)
        return np.asarray(np.exp(ln) / self._measure, float)

    def _antigen(self, mass_mg: float) -> float:
        """The antigen in the unit of the scans, if the curve is that of so many mg of antibody."""
        return self._antigen_um * self._measure / (mass_mg * 1e6 / _MOLAR_G)

    def doses(self, ln_free: FloatArray) -> dict[str, FloatArray]:
        """Doses and effective squared dose of patients, of the tumour's mean.

        Parameters
        ----------
        ln_free
            (n, p) ln of the free parameters of the chain.

        Returns
        -------
        dict
            (n,) each: ``electron``, ``alpha`` (Gy), ``fractions`` (Gy), ``q`` (Gy²), and its parts
            of nuclides alone, ``q_nuclides``, and of nuclides with fractions, ``q_mixed``.
        """
        curves = self._curves(ln_free)
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
        alone = np.einsum("nb,bc,nc->n", every, form.square, every)
        mixed = 2 * every @ form.cross
        fractions = np.full(len(curves), form.fractions_gy)
        return {
            "electron": electron, "alpha": alpha, "fractions": fractions,
            "q": alone + mixed + form.fractions_gy2, "q_nuclides": alone, "q_mixed": mixed,
        }  # fmt: skip

    def iter_outcomes(
        self, ln_free: FloatArray, pattern: SlidePattern | None = None
    ) -> Generator[float, None, dict[str, FloatArray]]:
        """Every outcome (n,), Gy or a probability, of patients with (n, p) ln of the parameters.

        Yields the share that is done.  ``tcp`` is there with a *pattern* of the slide only.
        """
        n, parts = len(ln_free), []
        for start in range(0, n, _PATIENTS_AT_ONCE):
            yield start / n
            found = self.doses(ln_free[start : start + _PATIENTS_AT_ONCE])
            own = {
                "bed": self._bed(found),
                "electron": found["electron"] + found["fractions"],
                "alpha": found["alpha"],
            }
            if pattern is not None:
                most = _UNEVEN_AT_ONCE if self.plan.within_cv > 0 else _ELEMENTS_AT_ONCE
                step = max(1, most // pattern.relative.size)
                size = len(found["q"])
                control = []
                for first in range(0, size, step):
                    yield (start + first) / n
                    some = {key: one[first : first + step] for key, one in found.items()}
                    control.append(self._control(some, pattern))
                own["tcp"] = np.concatenate(control)
            parts.append(own)
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def _bed(self, found: Mapping[str, FloatArray]) -> FloatArray:
        """(n,) BED of the tumour's mean dose, Gy."""
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

    def _control(self, found: Mapping[str, FloatArray], pattern: SlidePattern) -> FloatArray:
        """(n,) tumour control: ``exp(-N sum w S)`` over the tiles of the pattern."""
        checkpoint()
        plan, each = self.plan, {key: one[:, None] for key, one in found.items()}
        r = pattern.relative
        h = 1 - (1 - 1 / plan.oxygen_m) * pattern.lost
        h_alpha = 1 - (1 - 1 / plan.oxygen_m_alpha) * pattern.lost
        linear = plan.alpha * r * (each["electron"] * h + plan.rbe * each["alpha"] * h_alpha)
        linear = linear + plan.beta * r * each["q_mixed"] * h**2
        square = plan.beta * r**2 * each["q_nuclides"] * h**2
        beam = plan.alpha * each["fractions"] * h + plan.beta * self._form.fractions_gy2 * h**2
        births = 0.0
        if plan.doubling_days is not None and plan.until_days is not None:
            late = max(0.0, plan.until_days - plan.kick_off_days)
            births = math.log(2) / plan.doubling_days * late
        if plan.within_cv > 0:
            ln_survival = births - beam + uneven_ln_survival(linear, square, plan.within_cv)
        else:
            ln_survival = births - beam - linear - square
        number = plan.number_of_clonogens
        assert number is not None
        control = tumour_control(ln_survival, pattern.weight, clonogens=number)
        return np.asarray(control.probability, float)


# --- all plans ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, eq=False)
class PlanCohort:
    """Outcomes of the same patients under each plan.

    Attributes
    ----------
    names, draws
        (p,) names of the parameters and (n, p) their logarithms, one row a patient.
    values
        (n,) of each arm, by outcome, then by arm.
    missing
        Why an outcome is not there, by its name.
    limits_gy
        Limit of each organ, Gy.
    patterns
        What stands for the differences within the tumour, by arm; empty without tumour control.
    notes
        What the numbers rest on, one sentence each.
    """

    names: tuple[str, ...]
    draws: FloatArray
    values: Mapping[str, Mapping[str, FloatArray]]
    missing: Mapping[str, str]
    limits_gy: Mapping[str, float]
    patterns: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def kinds(self) -> dict[str, CohortOutcome]:
        """The outcomes that are there, by name."""
        return {name: outcome_kind(name) for name in self.values}

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms."""
        return tuple(self.values["bed"])

    def of(self, outcome: str) -> Cohort:
        """One outcome of all arms; raises `InputError` where it is not there, with the reason."""
        if outcome not in self.values:
            _refuse(outcome, self.values, self.missing)
        kind = outcome_kind(outcome)
        return Cohort(self.names, self.draws, self.values[outcome], kind.smaller_is_better)


def outcome_kind(name: str) -> CohortOutcome:
    """Unit, words and direction of an outcome; raises `InputError` for one that cannot be."""
    if name not in COHORT_OUTCOMES and not name.startswith(ORGAN_PREFIX):
        raise InputError(
            f"there is no outcome '{name}'; choose from: {', '.join(COHORT_OUTCOMES)}, organ:NAME"
        )
    if name in COHORT_OUTCOMES:
        return COHORT_OUTCOMES[name]
    organ = name.removeprefix(ORGAN_PREFIX)
    return CohortOutcome(name, f"Absorbed dose, {organ}", _GY, smaller_is_better=True)


def _refuse(name: str, there: Mapping[str, Any], missing: Mapping[str, str]) -> None:
    if name in missing:
        raise InputError(f"{outcome_kind(name).label}: {missing[name]}")
    organs = [one for one in (*there, *missing) if one.startswith(ORGAN_PREFIX)]
    if name.startswith(ORGAN_PREFIX) and not organs:
        raise InputError(
            f"there is no outcome '{name}': the case has no table of organs; give one with "
            "--organs NUCLIDE=FILE.csv, or on the page 'Virtual cohort'"
        )
    raise InputError(f"there is no outcome '{name}'; {nearest(name, [*there, *missing])}")


def plan_cohort(
    twin: CaseTwin,
    *,
    n: int = 400,
    seed: int = 0,
    names: Sequence[str] = (),
    population: bool = False,
    outcome: str = "",
    antigen_um: float = ANTIGEN_UM,
) -> Generator[Progress, None, PlanCohort]:
    """Virtual patients under the plans of a case, with every outcome; reports within each arm.

    Parameters
    ----------
    twin
        The twin of the case; patients are drawn from its posterior, or with *population* (and
        before the first scan) from its prior.
    n, seed
        Number of patients, at most `PATIENTS_LIMIT`, and random seed.
    names
        Plans that are the arms; all of the case if empty.
    outcome
        An outcome that has to be there; empty if any will do.
    antigen_um
        Antigen of the tumour, µM, for plans with a mass of antibody.

    Raises
    ------
    InputError
        If the case has no such plan, *outcome* is not there, or a value is not possible.
    """
    if n > PATIENTS_LIMIT:
        raise InputError(f"{n} patients are too many; at most {PATIENTS_LIMIT} are simulated")
    if not (math.isfinite(antigen_um) and antigen_um > 0):
        raise InputError(f"the antigen must be above 0 µM, not {antigen_um:g} µM")
    plans = _chosen(read_plans(twin.case.root), names, twin.case.name)
    yield Progress(0, len(plans), "patients")
    source = twin.population if population else twin.posterior
    draws = draw_patients(source, n, seed)
    tables = kept_organ_tables(twin.case.root)
    patterns, missing = _patterns(twin.case, plans)
    organs, unknown = _known_organs(plans, tables)
    missing |= unknown
    there = [*(one for one in COHORT_OUTCOMES if one not in missing), *map(_organ, organs)]
    if outcome and outcome not in there:
        _refuse(outcome, dict.fromkeys(there), missing)
    values: dict[str, dict[str, FloatArray]] = {one: {} for one in there}
    normal = {
        organ: np.random.default_rng([seed, 1, place]).standard_normal(n)
        for place, organ in enumerate(organs)
    }
    for place, (name, plan) in enumerate(plans.items()):
        yield Progress(place, len(plans), name)
        arm = PatientDoses(twin, plan, source.names, antigen_um)
        work = arm.iter_outcomes(draws, patterns.get(name) if "tcp" in there else None)
        found = yield from map_progress(work, partial(_progress, place, len(plans), name))
        for organ in organs:
            each = [
                mbq * tables[own].drawn_gy_per_mbq(organ, normal[organ])
                for own, mbq in arm.activities_mbq.items()
            ]
            found[_organ(organ)] = np.sum(each, axis=0)
        for one in there:
            if not np.isfinite(found[one]).all():
                raise InputError(
                    f"plan '{name}': {outcome_kind(one).label} is not finite in some patient"
                )
            values[one][name] = found[one]
    yield Progress(len(plans), len(plans), "")
    return PlanCohort(
        tuple(source.names),
        draws,
        values,
        missing,
        {organ: _smallest_limit(organ, tables) for organ in organs},
        {name: one.words for name, one in patterns.items()} if "tcp" in there else {},
        tuple(_notes(twin, plans, patterns, tables, organs, antigen_um)),
    )


def _progress(place: int, n: int, name: str, share: float) -> Progress:
    return Progress(place + share, n, name)


def _organ(organ: str) -> str:
    return f"{ORGAN_PREFIX}{organ}"


def _chosen(plans: Mapping[str, Plan], names: Sequence[str], case: str) -> dict[str, Plan]:
    if not plans:
        raise InputError(
            f"case {case} has no plans; add one with: napari-mosaik dose CASE --plan NAME, or "
            "arms with: napari-mosaik twin CASE cohort --arms courses"
        )
    for name in names:
        if name not in plans:
            raise InputError(
                f"case {case} has no plan '{name}'; the plans of the case are: {', '.join(plans)}"
            )
    return {name: plans[name] for name in names or plans}


def _patterns(
    case: Case, plans: Mapping[str, Plan]
) -> tuple[dict[str, SlidePattern], dict[str, str]]:
    """The slide for tumour control under each plan, or why there is none."""
    found = {}
    for name, plan in plans.items():
        if plan.number_of_clonogens is None:
            return {}, {
                "tcp": f"plan '{name}' states neither the volume of the tumour nor its number of "
                "clonogenic cells: give it one of them ('Tumour' or 'Clonogenic cells' on the page "
                "'Dose what-if', --set dose.tumour_ml=ML)"
            }
        try:
            found[name] = _slide_pattern(case, plan)
        except InputError as error:
            return {}, {"tcp": str(error)}
    return found, {}


def _known_organs(
    plans: Mapping[str, Plan], tables: Mapping[str, OrganTable]
) -> tuple[list[str], dict[str, str]]:
    """Organs whose dose is known in every arm, and why that of others is not, by outcome."""
    every = sorted({organ for table in tables.values() for organ in table.gy_per_mbq})
    missing = {}
    for organ in every:
        for name, plan in plans.items():
            if plan.fractions:
                missing[_organ(organ)] = (
                    f"plan '{name}' has an external beam, whose dose to organs is not known here: "
                    "exclude that arm"
                )
            for own in dict.fromkeys(course.nuclide for course in plan.courses):
                if own not in tables or organ not in tables[own].gy_per_mbq:
                    missing[_organ(organ)] = (
                        f"plan '{name}' gives {own}, and no table of organs of {own} in this case "
                        f"has {organ}: coefficients do not convert between nuclides"
                    )
    return [organ for organ in every if _organ(organ) not in missing], missing


def _smallest_limit(organ: str, tables: Mapping[str, OrganTable]) -> float:
    return min(t.limits_gy[organ] for t in tables.values() if organ in t.limits_gy)


def _notes(
    twin: CaseTwin,
    plans: Mapping[str, Plan],
    patterns: Mapping[str, SlidePattern],
    tables: Mapping[str, OrganTable],
    organs: Sequence[str],
    antigen_um: float,
) -> list[str]:
    every = list(plans.values())
    notes = [
        "Every arm has the same patients; a therapeutic label is taken to follow the tracer.",
        "Absorbed dose and BED are those of the tumour's mean: differences within the tumour, "
        "which the PET cannot see, reduce the effect of a dose.",
    ]
    if patterns:
        words = list(dict.fromkeys(one.words for one in patterns.values()))
        notes.append(f"Tumour control is that of the tiles of one slide ({'; '.join(words)}).")
        if any(one.startswith("measured") for one in words):
            notes.append("The measured uptake is blurred by the PET: tumour control is overstated.")
    if any(plan.kernel != "local" for plan in every):
        notes.append("The range of the electrons, which a plan asks for, does not enter an arm.")
    if any(plan.oxygen for plan in every):
        notes.append("Oxygen enters tumour control only.")
    if any(plan.antibody_mg is not None for plan in every):
        record = twin.case.file.injection
        mass = None if record is None else record.antibody_mass_mg
        fitted = "taken as far from exhausting it" if mass is None else f"of {mass:g} mg"
        notes.append(
            f"Antibody mass enters by {antigen_um:.3g} µM of antigen, which slows the delivery as "
            f"it is occupied (an assumption); the tracer is {fitted}; each course finds it free."
        )
    if organs:
        notes.append(
            "Doses of organs are activity times your coefficients, the same kind of Gy as there."
        )
        if not any(any(table.cvs.values()) for table in tables.values()):
            notes.append("They have no cv, so every patient has the same dose of an organ.")
    return notes


# --- the report ---------------------------------------------------------------------------------
def cohort_threshold(text: str, kind: CohortOutcome) -> float | None:
    """A threshold as typed, with or without unit: ``20``, ``20 Gy``, ``0.5``, ``50 %``.

    Parameters
    ----------
    text
        Empty for none.
    kind
        The outcome that it is of; per cent are taken for tumour control only.

    Raises
    ------
    InputError
        If it is not a number, in another unit, or no possible outcome.
    """
    typed = text.strip()
    if not typed:
        return None
    form = "20 or 20 Gy" if kind.unit == _GY else "0.5 or 50 %"
    match = re.fullmatch(r"([-+]?[\d.,]+(?:[eE][-+]?\d+)?)\s*(\D*)", typed)
    if match is None:
        raise InputError(f"the threshold '{typed}' is not a number: give it like {form}")
    value, unit = typed_number(match[1]), match[2].strip()
    if unit == "%" and kind.unit != _GY:
        value, unit = value / 100, ""
    if unit not in ("", kind.unit):
        own = _GY if kind.unit == _GY else "a probability without unit"
        raise InputError(
            f"the threshold '{typed}' is in {unit}, but {kind.label} is {own}: give it like {form}"
        )
    return _possible(value, kind)


def _possible(value: float, kind: CohortOutcome) -> float:
    """A threshold that the outcome can have; raises `InputError` for another one."""
    if not math.isfinite(value):
        raise InputError(f"the threshold must be a finite number, not {value:g}")
    if kind.unit != _GY and not 0 <= value <= 1:
        raise InputError(
            f"the threshold {value:g} is not a probability: {kind.label} lies between 0 and 1"
        )
    if kind.unit == _GY and kind.name != "bed" and value < 0:
        raise InputError(f"the threshold {value:g} Gy is negative; no absorbed dose is")
    return value


def cohort_document(
    cohort: PlanCohort,
    *,
    drawn_from: str,
    seed: int,
    outcome: str = "bed",
    threshold: float | None = None,
    half_width: float = 0.05,
) -> dict[str, Any]:
    """The report on the patients of `plan_cohort`.

    Parameters
    ----------
    cohort
        The patients and their outcomes.
    drawn_from, seed, outcome
        Where they come from: 'prior' or 'posterior', random seed, and which outcome is reported.
    threshold
        Outcome from which a patient responds, in its unit, or up to which, where a smaller one is
        better.  If None, the limit of an organ, `EVEN_CHANCE` for tumour control, else the median
        over all arms.
    half_width
        Half width of the interval for which the number of patients is given.

    Raises
    ------
    InputError
        If the outcome is not there, the threshold is not possible, or the half width not between 0
        and 0.5.
    """
    own, kind = cohort.of(outcome), outcome_kind(outcome)
    limit = cohort.limits_gy.get(outcome.removeprefix(ORGAN_PREFIX))
    if threshold is not None:
        bar, bar_from = _possible(float(threshold), kind), "given"
    elif kind.smaller_is_better and limit is not None:
        bar, bar_from = limit, "limit of the organ"
    elif kind.unit != _GY:
        bar, bar_from = EVEN_CHANCE, "an even chance"
    else:
        bar, bar_from = float(np.median(list(own.outcomes.values()))), "median of all arms"
    rows = []
    for name, values in own.outcomes.items():
        share, low, high = own.responders(name, bar)
        rows.append(
            {
                "arm": name, **_summary(values), "responders": share, "responders_low": low,
                "responders_high": high,
                "patients_needed": patients_needed(half_width, share),
                "outcomes": {
                    one: {**_summary(arms[name]), "unit": outcome_kind(one).unit}
                    for one, arms in cohort.values.items()
                },
            }
        )  # fmt: skip
    return {
        "note": SIMULATED,
        "n": len(cohort.draws),
        "seed": seed,
        "drawn_from": drawn_from,
        "outcome": outcome,
        "label": kind.label,
        "unit": kind.unit,
        "better_is": "smaller" if kind.smaller_is_better else "larger",
        "threshold": bar,
        "threshold_from": bar_from,
        "half_width": half_width,
        "arms": rows,
        "better": [
            {"a": a, "b": b, "probability": own.better(a, b)}
            for a, b in itertools.combinations(own.outcomes, 2)
        ],
        "between_patients": [
            {"name": name, "median": float(np.exp(np.median(ln))), "sd_ln": float(ln.std())}
            for name, ln in zip(cohort.names, cohort.draws.T, strict=True)
        ],
        "patterns": dict(cohort.patterns),
        "not_available": dict(cohort.missing),
        "notes": [*_no_difference(own), *cohort.notes],
    }


def _no_difference(cohort: Cohort) -> list[str]:
    """A sentence where every patient of every arm has the same outcome; else none."""
    every = np.concatenate(list(cohort.outcomes.values()))
    if float(np.ptp(every)) > _SAME * max(1.0, float(np.abs(every).max())):
        return []
    words = f"Every patient has the outcome {float(every[0]):.3g} in every arm"
    return [f"{words}: shares and P(A better) are uninformative."]


def _summary(values: FloatArray) -> dict[str, float]:
    low, median, high = np.percentile(values, [5, 50, 95]).tolist()
    return {"mean": float(values.mean()), "median": median, "low": low, "high": high}
