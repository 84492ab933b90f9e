"""A plan of the dose what-if: courses, fractions and assumptions, checked.

A plan is a what-if for research and recommends nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, Self, TypeVar

import tomli_w
from pydantic import ValidationError, field_validator, model_validator

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.text import nearest, typed_number, validation_words
from napari_mosaik.dosimetry import NUCLIDES, nuclide
from napari_mosaik.dosimetry.electrons import BUILT_IN_KERNELS

__all__ = [
    "ACTIVITY_UNITS",
    "NUCLIDE_NAMES",
    "PLAN_KERNELS",
    "PLAN_SHAPES",
    "TWIN_SOURCE",
    "Course",
    "Fractions",
    "Plan",
    "PlanProblem",
    "Spreads",
    "activity_doubt",
    "half_times_as_rates",
    "has_alpha_particles",
    "parse_fractions",
    "parse_plan",
    "plan_warnings",
]

P = TypeVar("P", bound=Params)
ACTIVITY_UNITS: Final = ("MBq", "MBq/m2", "GBq")
NUCLIDE_NAMES: Final = tuple(NUCLIDES)
"""Names of the nuclides of a course."""
ActivityUnit = Literal["MBq", "MBq/m2", "GBq"]
TWIN_SOURCE: Final = "time course of the updating twin"
"""Begin of the source of a plan whose time course is that of the twin."""
_LONGEST_NAME: Final = 40
_DEVICES = {"con", "prn", "aux", "nul", *(f"{p}{n}" for p in ("com", "lpt") for n in range(1, 10))}
PLAN_SHAPES: Final = ("tile", "constant")
PLAN_KERNELS: Final = ("local", "built-in")
"""Words for a time course and a kernel; any other entry is the name of a file."""
_USUAL_ALPHA_MBQ: Final = {"Ac-225": 8.0, "At-211": 350.0}
"""A usual course, MBq: 100 kBq/kg of Ac-225-PSMA-617 (Kratochwil et al. 2016), and the largest
activities of At-211 in trials.  Above three times that the unit is asked for: kBq that were taken
as MBq are a thousand times more, and a course that is planned is not so far above."""
_FAR_ABOVE: Final = 3.0
_LARGEST_MBQ: Final = 1e6
"""No course, and no course per m², has 1 TBq."""
_MIN_BETA_MBQ: Final = 20.0
_SURFACE_M2: Final = 2.0
"""Body surface, m², for the question about units only."""


class PlanProblem(InputError):
    """What is wrong with a plan, in one sentence.

    ``entry`` names the setting and ``row`` counts the course or fraction from 0; "" and -1 where
    several entries do not fit together.
    """

    def __init__(self, sentence: str, entry: str = "", row: int = -1) -> None:
        super().__init__(sentence)
        self.entry, self.row = entry, row


class Course(Params):
    """One infusion: a nuclide, its activity, and the day on which it is given."""

    nuclide: str = setting("Lu-177", "Therapeutic nuclide.", label="Nuclide")
    activity: float = setting(
        0.0, "Activity of this course, in the unit beside it.", label="Activity", ge=0
    )
    unit: ActivityUnit = setting(
        "MBq",
        "Unit of the activity; MBq/m2 is per body surface (Du Bois).",
        label="Unit",
        choices={"MBq": "MBq", "MBq/m2": "MBq/m²", "GBq": "GBq"},
    )
    day: float = setting(
        0.0, "Day of the course, counted from the first one.", unit="d", label="Day", le=3650
    )

    @field_validator("nuclide")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            return nuclide(name).name
        except InputError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.activity > 0:
            raise ValueError(
                f"the course of {self.nuclide} on day {self.day:g} has no activity; give one in "
                f"{', '.join(ACTIVITY_UNITS)}"
            )
        if self.activity_mbq(1.0) > _LARGEST_MBQ:
            raise ValueError(
                f"the course of {self.nuclide} on day {self.day:g} has {self.activity:g} "
                f"{self.unit}, more than {_LARGEST_MBQ:g} MBq; was it in Bq or kBq?"
            )
        if self.day < 0:
            raise ValueError(
                f"the course of {self.nuclide} on day {self.day:g} lies before day 0; count days "
                "from the first course"
            )
        return self

    def activity_mbq(self, surface_m2: float | None = None) -> float:
        """Activity, MBq; of one per body surface with that surface, m², which it then needs."""
        if self.unit != "MBq/m2":
            return self.activity * (1e3 if self.unit == "GBq" else 1.0)
        if surface_m2 is None:
            raise InputError(
                f"{self.activity:g} MBq/m2 of {self.nuclide} need the patient's body surface area"
            )
        return self.activity * surface_m2


class Fractions(Params):
    """External beam: *number* fractions of *dose_gy*, one a day from *day* on."""

    number: int = setting(1, "Number of fractions, one a day.", label="Fractions", ge=1, le=100)
    dose_gy: float = setting(2.0, "Dose of each fraction.", unit="Gy", label="Dose", gt=0, le=60)
    day: float = setting(0.0, "Day of the first fraction.", unit="d", label="First day", le=3650)

    @model_validator(mode="after")
    def _not_before(self) -> Self:
        if self.day < 0:
            raise ValueError(
                f"the first fraction lies on day {self.day:g}, before day 0; count days from the "
                "first course"
            )
        return self

    def __str__(self) -> str:
        return f"{self.number}x{self.dose_gy:g}@{self.day:g}"

    @property
    def times_h(self) -> tuple[float, ...]:
        """Time of each fraction, h from day 0."""
        return tuple(24.0 * (self.day + number) for number in range(self.number))


def parse_fractions(text: str) -> tuple[Fractions, ...]:
    """Fractions as typed, ``5x2@72``: number x Gy @ first day; several with commas between.

    Raises
    ------
    InputError
        For another form, or values that are not possible.
    """
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d+)\s*[x×*]\s*([\d.]+)\s*@\s*(-?[\d.]+)", part)
        if match is None:
            raise InputError(
                f"fractions {part!r} are not of the form 5x2@72 (number x Gy @ first day)"
            )
        number, dose, day = int(match[1]), typed_number(match[2]), typed_number(match[3])
        values = {"number": number, "dose_gy": dose, "day": day}
        found.append(_parsed(Fractions, values, f"fractions {part!r}"))
    return tuple(found)


def _cv(default: float, of: str, label: str) -> Any:
    about = f"Coefficient of variation of {of} over the draws (lognormal); 0: known exactly."
    return setting(default, about, label=label, ge=0, le=1, advanced=True)


class Spreads(Params):
    """How uncertain each assumption is; illustrative, and 0 where a value counts as exact."""

    calibration: float = _cv(0.05, "the calibration of the PET", "Calibration")
    time_course: float = _cv(0.2, "the time-integrated activity for this uptake", "Time course")
    density: float = _cv(0.01, "the density of the tissue", "Density")
    alpha: float = _cv(0.3, "α", "α")
    alpha_beta: float = _cv(0.3, "α/β", "α/β")
    repair: float = _cv(0.3, "the half-times of repair", "Repair")
    rbe: float = _cv(0.2, "the RBE of alpha particles", "RBE")
    oxygen_m: float = _cv(0.1, "the oxygen effect m - 1", "Oxygen effect")
    within: float = _cv(0.3, "the variation within a tile", "Unseen variation")
    uptake: bool = setting(
        True,
        "Draw whole error fields of the predicted uptake, where the predictor was calibrated.",
        label="Error of the predicted uptake",
        advanced=True,
    )


class Plan(Params):
    """One plan of the dose what-if; defaults are illustrative, not specific for ccRCC."""

    name: str = setting("", "Name of the plan; also that of its file.", label="Name")
    courses: tuple[Course, ...] = setting((), "Infusions, in the order of their days.")
    fractions: tuple[Fractions, ...] = setting((), "External beam.")
    uptake: Literal["best", "predicted", "measured"] = setting(
        "best",
        "Uptake that the label follows; best available: the predicted one, else the measured one, "
        "which the PET has blurred.",
        label="Uptake",
        choices={
            "best": "best available",
            "predicted": "predicted",
            "measured": "measured (blurred)",
        },
    )
    shape: str = setting(
        "constant",
        "Time course: 'constant' after a rise, 'tile' for the delivery-limited curve of each tile, "
        "or a CSV file with the header time_h,activity_mbq_ml (and draw_1,draw_2,... for draws of "
        "the curve), decay-corrected, on any scale, or a table like invivo.csv, of which the "
        "tumour is used.",
        label="Time course",
    )
    rise_h: float = setting(
        72.0,
        "Time until which the activity rises linearly from 0; constant (except for decay) "
        "from then on. An assumption.",
        label="Rise",
        unit="h",
        gt=0,
        le=1000,
        only_with={"shape": "constant"},
    )
    kernel: str = setting(
        "local",
        "Where energy is absorbed: 'local' where it is released, 'built-in' by the range of its "
        "electrons, or a CSV file of a radial kernel.",
        label="Kernel",
    )
    oxygen: bool = setting(
        False, "Reduce the effect far from vessels, where oxygen is low.", label="Oxygen"
    )
    oxygen_m: float = setting(
        3.0,
        "Effect of full oxygen on electrons and photons.",
        label="m",
        ge=1,
        le=5,
        advanced=True,
        only_with={"oxygen": True},
    )
    oxygen_m_alpha: float = setting(
        1.15,
        "Effect of full oxygen on alpha particles (1 to 1.3).",
        label="m of alpha particles",
        ge=1,
        le=2,
        advanced=True,
        only_with={"oxygen": True},
    )
    alpha: float = setting(
        0.3, "Linear coefficient of cell kill.", label="α", unit="1/Gy", ge=0, le=5
    )
    beta: float = setting(
        0.03, "Quadratic coefficient of cell kill.", label="β", unit="1/Gy²", ge=0, le=5
    )
    repair: tuple[tuple[float, float], ...] = setting(
        ((1.0, 1.5),),
        "Share and half-time (h) of each component of repair; the shares add up to 1.",
        label="Repair",
    )
    rbe: float = setting(
        5.0, "Factor of α for alpha particles.", label="RBE of alpha particles", ge=0, le=50
    )
    retained: float = setting(
        1.0,
        "Fraction of Bi-213 and its daughters that stays where Ac-225 has decayed.",
        label="Daughters retained",
        ge=0,
        le=1,
    )
    within_cv: float = setting(
        0.0,
        "Coefficient of variation of the dose within a tile, which the PET cannot see; more cells "
        "survive a non-uniform dose.",
        label="Unseen variation (CV)",
        ge=0,
        le=0.5,
    )
    density_g_ml: float = setting(
        1.05, "Density of the tissue.", label="Density", unit="g/mL", gt=0.2, lt=3, advanced=True
    )
    doubling_days: float | None = setting(
        None, "Doubling time of the cells; empty: no proliferation.", label="Doubling time", gt=0
    )
    kick_off_days: float = setting(
        0.0, "Day on which proliferation starts.", label="Kick-off", unit="d", ge=0
    )
    until_days: float | None = setting(
        None,
        "Day on which survival is evaluated; dose counts up to it. Empty: all dose counts.",
        label="Until",
        gt=0,
        le=36500,
    )
    clonogens: float | None = setting(
        None, "Number of clonogenic cells of the tumour.", label="Clonogenic cells", gt=0
    )
    clonogens_per_ml: float = setting(
        1e7,
        "Clonogenic cells per volume (an assumption); needs the volume of the tumour.",
        label="Clonogenic cells per volume",
        unit="1/mL",
        gt=0,
        advanced=True,
    )
    tumour_ml: float | None = setting(
        None, "Neoplastic volume of the whole tumour, from CT or its size.", label="Tumour", gt=0
    )
    antibody_mg: float | None = setting(
        None,
        "Mass of antibody of each course; empty: that of the tracer. Used by the virtual cohort "
        "only, where it occupies antigen.",
        label="Antibody mass",
        gt=0,
        le=1000,
    )
    draws: int = setting(1000, "Number of draws.", label="Draws", ge=20, le=20000)
    seed: int = setting(0, "Random seed; plans with the same seed are compared draw by draw.", ge=0)
    spreads: Spreads = setting(Spreads(), "How uncertain each assumption is.")
    sources: tuple[str, ...] = setting((), "Sources of the plan.")
    limits: tuple[str, ...] = setting((), "Known limits of the plan.")

    @field_validator("name")
    @classmethod
    def _a_file_name(cls, name: str) -> str:
        if problem := _name_problem(name):
            raise ValueError(f"{name[:80]!r} is not a valid plan name: {problem}")
        return name

    @field_validator("repair")
    @classmethod
    def _repairs(cls, parts: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        total = sum(share for share, _ in parts)
        if not parts or any(share < 0 for share, _ in parts) or abs(total - 1) > 1e-9:
            raise ValueError(f"the shares of repair must add up to 1, not {total:g}")
        wrong = [half for _, half in parts if not half > 0]
        if wrong:
            raise ValueError(f"a half-time of repair must be above 0 h, not {wrong[0]:g} h")
        return parts

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.alpha > 0:
            raise ValueError(
                "α = 0 /Gy makes alpha/beta 0, with which there is no BED; give α above 0"
            )
        if not self.courses and not self.fractions:
            raise ValueError(
                f"the plan {self.name!r} has neither a course nor a fraction; give an activity or "
                "fractions such as 5x2@72"
            )
        for before, after in zip(self.courses, self.courses[1:], strict=False):
            if after.day < before.day:
                raise ValueError(
                    f"courses are out of order: day {after.day:g} follows day {before.day:g}; "
                    "list them from the first to the last"
                )
        given: set[tuple[str, float]] = set()
        for course in self.courses:
            if (course.nuclide, course.day) in given:
                raise ValueError(
                    f"two courses of {course.nuclide} on day {course.day:g}: add up their "
                    "activities in one"
                )
            given.add((course.nuclide, course.day))
        if self.doubling_days is not None and self.until_days is None:
            raise ValueError(
                f"a doubling time of {self.doubling_days:g} d needs until_days: the day at which "
                "survival is asked for"
            )
        return self

    @model_validator(mode="after")
    def _has_its_kernels(self) -> Self:
        names = list(dict.fromkeys(course.nuclide for course in self.courses))
        without = [name for name in names if name not in BUILT_IN_KERNELS]
        if self.kernel == "built-in" and without:
            raise ValueError(
                f"there is no built-in kernel of {without[0]}, only of "
                f"{', '.join(BUILT_IN_KERNELS)}; use 'local', right for alpha particles on tiles"
            )
        if "kernel" in self.files and len(names) > 1:
            raise ValueError(
                f"one kernel file does not fit {len(names)} nuclides ({', '.join(names)}); use "
                "'built-in' or 'local'"
            )
        return self

    @property
    def number_of_clonogens(self) -> float | None:
        """Clonogenic cells of the whole tumour; None where neither they nor a volume is given."""
        if self.clonogens is not None:
            return self.clonogens
        return None if self.tumour_ml is None else self.clonogens_per_ml * self.tumour_ml

    @property
    def files(self) -> dict[str, str]:
        """The files that the plan names, by setting: a time course, a kernel."""
        named = {"shape": (self.shape, PLAN_SHAPES), "kernel": (self.kernel, PLAN_KERNELS)}
        return {name: text for name, (text, words) in named.items() if text not in words}

    def text(self) -> str:
        """The text of the plan's file."""
        values = self.model_dump(mode="json", exclude={"name"}, exclude_none=True)
        return str(tomli_w.dumps(values))


def _name_problem(name: str) -> str:
    """Why no plan can have this name; empty if one can."""
    if not name.strip():
        return "it is empty; give one"
    wrong = re.sub(r"[\w -]", "", name)
    if wrong:
        return f"it may not contain {wrong[0]!r}; use letters, digits, spaces, - and _"
    if name != name.strip() or "  " in name:
        return "spaces are allowed between words only, one at a time"
    if len(name) > _LONGEST_NAME:
        return f"it has {len(name)} characters, at most {_LONGEST_NAME} are allowed"
    if name.casefold() in _DEVICES:
        return "Windows reserves this name for a device; choose another"
    return ""


def parse_plan(values: Mapping[str, Any], where: str = "plan") -> Plan:
    """A checked plan of nested values.

    Raises
    ------
    PlanProblem
        One sentence that names the thing, its value and what to do; it begins with *where*, if
        that is not empty.
    """
    return _parsed(Plan, values, where)


def _parsed(kind: type[P], values: Mapping[str, Any], where: str) -> P:
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        place = error.errors()[0]["loc"]
        entry = next((part for part in place if isinstance(part, str)), "")
        row = next((part for part in place if isinstance(part, int)), -1)
        sentence = _sentence(error, kind)
        raise PlanProblem(f"{where}: {sentence}" if where else sentence, entry, row) from None


def _sentence(error: ValidationError, kind: type[Params]) -> str:
    """The first thing that is wrong with a plan, in words."""
    first = error.errors()[0]
    if first["type"] == "value_error":
        return str(first["msg"]).removeprefix("Value error, ")
    path = [part for part in first["loc"] if not isinstance(part, int)]
    rows = [part + 1 for part in first["loc"] if isinstance(part, int)]
    name = ".".join(map(str, path)) or "value"
    of = f" (entry {rows[0]})" if rows else ""
    if first["type"] == "extra_forbidden":
        tables: dict[str, type[Params]] = {
            "courses": Course,
            "fractions": Fractions,
            "spreads": Spreads,
        }
        known = tables.get(str(path[0]), kind) if len(path) > 1 else kind
        return f"there is no entry '{name}'{of}; {nearest(str(path[-1]), known.model_fields)}"
    given = repr(first.get("input"))[:80]
    return f"{name}{of} = {given} is not valid: {validation_words(first)}"


def has_alpha_particles(name: str) -> bool:
    """Whether the nuclide of that name emits alpha particles."""
    return NUCLIDES[name].alpha_kev > 0


def activity_doubt(course: Course) -> tuple[str, Course] | None:
    """A doubt about the unit of an activity as a question, and the course if the answer is yes.

    kBq typed as MBq of an alpha emitter, GBq typed as MBq of others; None without a doubt.
    """
    mbq = course.activity_mbq(_SURFACE_M2 if course.unit == "MBq/m2" else None)
    asked = f"the course of {course.nuclide} on day {course.day:g}: {course.activity:g} "
    asked += course.unit
    usual = _USUAL_ALPHA_MBQ.get(course.nuclide)
    if usual is not None and mbq > _FAR_ABOVE * usual:
        question = (
            f"{asked} is more than {_FAR_ABOVE:g} times a usual course of this alpha emitter, "
            f"about {usual:g} MBq; is the activity in kBq?"
        )
        return question, course.model_copy(update={"activity": course.activity / 1e3})
    if usual is None and mbq < _MIN_BETA_MBQ and NUCLIDES[course.nuclide].alpha_kev == 0:
        question = f"{asked} is below {_MIN_BETA_MBQ:g} MBq, less than a therapy; is it in GBq?"
        return question, course.model_copy(update={"activity": course.activity * 1e3})
    return None


def plan_warnings(plan: Plan) -> list[str]:
    """Doubts about the activities of a plan: kBq typed as MBq, GBq typed as MBq."""
    return [doubt[0] for doubt in map(activity_doubt, plan.courses) if doubt is not None]


def half_times_as_rates(repair: tuple[tuple[float, float], ...]) -> list[tuple[float, float]]:
    """Share and rate, 1/h, of each component of repair, of shares and half-times, h."""
    return [(share, math.log(2) / half) for share, half in repair]
