"""The updating twin as the window shows it: what is read of a case once, rows, words, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_mosaik.core import FloatArray, InputError, palette
from napari_mosaik.core.catalogue import PARAMETERS, PREDICTION, TILES, UPTAKE
from napari_mosaik.dosimetry import NUCLIDES
from napari_mosaik.io.case import Case
from napari_mosaik.twin import predict
from napari_mosaik.twin.chain import CHAIN_REGIONS
from napari_mosaik.twin.identify import PRIOR_ONLY
from napari_mosaik.view.figure import axis_label, new_figure, tidy
from napari_mosaik.view.formatting import count, number
from napari_mosaik.workflow.plans import plan_files, read_plans
from napari_mosaik.workflow.twin import IN_DOUBT_Z, PLAN_SAME, CaseTwin
from napari_mosaik.workflow.virtual_cohort import SIMULATED, PlanCohort, kept_organ_tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "CohortChoice",
    "TwinPicture",
    "cohort_arm_rows",
    "cohort_figure",
    "cohort_pair_rows",
    "cohort_words",
    "day_words",
    "decision_lines",
    "is_prior_only",
    "parameter_strip_figure",
    "read_cohort_choice",
    "read_twin",
    "scan_rows",
    "scan_worth_lines",
    "signed",
    "twin_line",
    "twin_parameter_rows",
    "twin_time_figure",
]

_DAY_H: Final = 24.0
_N_TIMES: Final = 80
_SCAN_CV: Final = 0.08
_LU_177: Final = "Lu-177"
_LABELS: Final = {
    "transfer_per_h": ("Transfer K", "10⁻³/h", 1e3),
    "k32_per_h": ("Internalisation k₃₂", "10⁻³/h", 1e3),
    "k03_per_h": ("Loss k₀₃", "10⁻³/h", 1e3),
    "plasma_start": ("Plasma at injection", "", 1.0),
    "fast_half_life_h": ("Half-life, fast", "h", 1.0),
    "slow_half_life_h": ("Half-life, slow", "h", 1.0),
}
"""Label, unit (that of the scans where there is none) and factor of each parameter."""
_Z90: Final = 1.6448536269514722


@dataclass(frozen=True, slots=True, eq=False)
class TwinPicture:
    """Everything that is shown of the twin of a case.

    Attributes
    ----------
    status
        As `CaseTwin.status`.
    times_h
        (t,) times after injection, h.
    bands
        Of tumour and blood, (3, t) 5 %, median and 95 % of the curve, unit of the scans: of the
        prior, then after each update.
    predictions
        Stored prediction of each scan that was taken in, in order, and of the next one, if any.
    worth
        What one more scan would do, by target; None where no time is left before surgery.
    plans
        Names of the plans of the case.
    surgery_h, now_h
        Times after injection, h; now is the last scan that was taken in.
    """

    status: Mapping[str, Any]
    unit: str
    times_h: FloatArray
    bands: Mapping[str, tuple[FloatArray, ...]]
    predictions: tuple[Mapping[str, Any], ...]
    worth: Mapping[str, Mapping[str, Any] | None]
    plans: tuple[str, ...]
    surgery_h: float
    now_h: float

    @property
    def n_updates(self) -> int:
        """Number of scans that were taken in."""
        return len(self.bands["tumour"]) - 1

    @property
    def has_scans(self) -> bool:
        """Whether the case has a scan that the model describes."""
        return any(row["modelled"] for row in self.status["scans"])

    @property
    def next_scan(self) -> Mapping[str, Any] | None:
        """Time and region of the next scan; None if all were taken in."""
        found: Mapping[str, Any] | None = self.status["next_scan"]
        return found

    @property
    def recovery_of_next(self) -> float | None:
        """Recovery of the slice where it is the next scan; None otherwise, or if not known."""
        time = None if self.next_scan is None else self.next_scan["time_h"]
        rows = self.status["scans"]
        ahead = any(row["from_slice"] and row["time_h"] == time for row in rows)
        found: float | None = self.status["slice_recovery"] if ahead else None
        return found

    @property
    def decisions(self) -> list[Mapping[str, Any]]:
        """The decisions of the record, in order, without what was observed later."""
        return [line for line in self.status["decisions"] if "plan" in line]

    @property
    def awaited(self) -> Mapping[str, Any] | None:
        """The stored prediction of the next scan; None before it was made."""
        return self.predictions[self.n_updates] if len(self.predictions) > self.n_updates else None

    @property
    def doubts(self) -> tuple[str, ...]:
        """Scans further than 3 SD from what was predicted of them."""
        return tuple(self.status["warnings"])


def read_twin(case: Case) -> TwinPicture:
    """Read the twin of a case; raises what `CaseTwin` raises."""
    twin = CaseTwin(case)
    status = twin.status()
    latest = max([twin.surgery_h, *(row["time_h"] for row in status["scans"])])
    times = np.linspace(0.0, 1.04 * latest, _N_TIMES)
    bands: dict[str, list[FloatArray]] = {region: [] for region in CHAIN_REGIONS}
    for n in range(len(twin.updates) + 1):
        posterior = twin.posterior_after(n)
        for region, found in bands.items():
            curve = predict(posterior, times, region)
            found.append(np.stack([curve.low, curve.median, curve.high]))
    predictions = [twin.prediction_before(n) for n in range(len(twin.updates) + 1)]
    targets = {
        "Uptake at surgery": ("uptake", twin.surgery_h),
        "Time integral of 177Lu": ("time_integral", NUCLIDES[_LU_177].half_life_h),
    }
    worth = {title: twin.worth_before_surgery(aim, _SCAN_CV) for title, aim in targets.items()}
    return TwinPicture(
        status,
        twin.unit,
        times,
        {region: tuple(found) for region, found in bands.items()},
        tuple(one for one in predictions if one is not None),
        worth,
        tuple(read_plans(case.root)),
        twin.surgery_h,
        twin.now_h,
    )


def twin_line(case: Case) -> str:
    """How far the twin of a case is; empty where there is no scan."""
    twin = CaseTwin(case)
    n, taken = len(twin.scans), len(twin.updates)
    return f"{taken} of {count(n, 'scan')} taken in" if n else ""


def day_words(time_h: float) -> str:
    """A time after injection, h, as a day: "day 3", "day 13.9"."""
    return f"day {time_h / _DAY_H:.1f}".removesuffix(".0")


def signed(value: float) -> str:
    """A number with its sign and one decimal."""
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def _band_words(median: float, low: float, high: float) -> str:
    digits = [number(value, digits=2) for value in (median, low, high)]
    return f"{digits[0]}\n{digits[1]} to {digits[2]}"


def scan_rows(picture: TwinPicture) -> list[tuple[str, ...]]:
    """One row per scan and region: scan, predicted, observed, z, log score of the whole scan.

    What a scan showed is not listed before it was taken in.
    """
    rows: list[tuple[str, ...]] = []
    predicted = {one["time_h"]: one for one in picture.predictions}
    for update in picture.status["updates"]:
        known = {row["region"]: row for row in predicted[update["time_h"]]["regions"]}
        score = number(update["log_score"], digits=2)
        for one in update["regions"]:
            row = known[one["region"]]
            band = _band_words(row["median"], row["low"], row["high"])
            doubt = "⚠ " if abs(one["z"]) > IN_DOUBT_Z else ""
            name = f"{day_words(update['time_h'])}\n{one['region']}"
            seen = number(one["mean"], digits=2)
            rows.append((name, band, seen, f"{doubt}{signed(one['z'])}", score))
            score = ""
    awaited = picture.awaited
    ahead = [row for row in picture.status["scans"] if row["modelled"] and not row["taken_in"]]
    for one in ahead:
        name = f"{day_words(one['time_h'])}\n{'slice' if one['from_slice'] else one['region']}"
        band = ""
        if awaited is not None and awaited["time_h"] == one["time_h"]:
            row = next(r for r in awaited["regions"] if r["region"] == one["region"])
            band = _band_words(row["median"], row["low"], row["high"])
        rows.append((name, band, "not taken in", "", ""))
    return rows


def twin_parameter_rows(picture: TwinPicture) -> list[tuple[str, ...]]:
    """Parameter with its word, prior and posterior; both as median with the 90 % interval."""
    rows: list[tuple[str, ...]] = []
    for one in picture.status["parameters"]:
        label, unit, factor = _LABELS[one["name"]]
        reach = np.exp(_Z90 * one["prior_sd"])
        middle = factor * one["prior_median"]
        prior = _band_words(middle, middle / reach, middle * reach)
        after = _band_words(*(factor * one[end] for end in ("median", "low", "high")))
        rows.append((f"{label}, {unit or picture.unit}\n{one['word']}", prior, after))
    return rows


def is_prior_only(row: Sequence[str]) -> bool:
    """Whether a row of `twin_parameter_rows` is of a parameter that no scan determines."""
    return row[0].endswith(PRIOR_ONLY)


def scan_worth_lines(picture: TwinPicture) -> list[str]:
    """For each target the time before surgery at which one more scan narrows it most."""
    lines = []
    for title, found in picture.worth.items():
        if found is None:
            lines.append(f"{title}: no time for another scan is left before surgery")
            continue
        best = found["time_h"].index(found["best_time_h"])
        before, after = found["sd_before"][best], found["sd_after"][best]
        lines.append(
            f"{title}: {day_words(found['best_time_h'])} ({found['best_time_h']:g} h); "
            f"SD on the log scale {number(before, digits=2)} → {number(after, digits=2)}"
        )
    return lines


def decision_lines(picture: TwinPicture) -> list[str]:
    """The record: who chose what when, what was predicted, and what was observed later."""
    lines = []
    for place, one in enumerate(picture.decisions, 1):
        text = f"{place} · {one['time'][:16].replace('T', ' ')} UTC · {one['plan']}, "
        text += f"by {one['by']}, after {count(one['n_updates'], 'scan')}"
        text += f". {one['note']}" if one["note"] else ""
        if one.get("plan_now", PLAN_SAME) != PLAN_SAME:
            text += (
                f"\n⚠ The plan '{one['plan']}' is {one['plan_now']}: it is not what was decided on"
            )
        expected = one["predicted"]
        if expected:
            band = _band_words(expected["median"], expected["low"], expected["high"])
            text += f"\nPredicted: {expected['region']}, {day_words(expected['time_h'])}, "
            text += f"{band.replace(chr(10), ' (')}) {expected['unit']}"
        later = [
            line for line in picture.status["decisions"] if line.get("observed_of") == one["time"]
        ]
        if expected and not any("z" in line for line in later):
            text += "\nObserved: not taken in yet"
        for line in later:
            seen = (
                line.get("observed") or f"{number(line['mean'], digits=2)}, z {signed(line['z'])}"
            )
            who = f", {line['time'][:10]}, {line['by']}" if "by" in line else ""
            text += f"\nObserved{who}: {seen}"
        lines.append(text)
    return lines


# --- figures ------------------------------------------------------------------------------------
def twin_time_figure(picture: TwinPicture, shown: int) -> Figure:
    """Time line, curves of tumour and blood after *shown* scans, above ghosts of those before."""
    figure = new_figure(4.4, 4.4)
    figure.set_layout_engine(None)
    figure.subplots_adjust(left=_LEFT, right=0.97, bottom=0.11, top=0.98, hspace=0.08)
    line, *both = figure.subplots(3, 1, sharex=True, height_ratios=[1, 4, 2.6])
    _draw_time_line(line, picture, shown)
    for axes, region in zip(both, picture.bands, strict=True):
        _draw_region(axes, picture, region, shown)
    both[0].legend(fontsize=7, frameon=False, loc="upper left")
    both[-1].set_xlabel(axis_label("Time after injection", "d"))
    return figure


_LEFT: Final = 0.2
"""Left end of the axes, of the width: room for numbers of three digits and the label."""


def _blended(axes: Axes) -> Any:
    """Across the width of the figure and along the height of the axes."""
    from matplotlib.transforms import blended_transform_factory

    figure = axes.get_figure()
    assert figure is not None
    return blended_transform_factory(figure.transFigure, axes.transAxes)


def _draw_region(axes: Axes, picture: TwinPicture, region: str, shown: int) -> None:
    """Curve and band of a region, what was seen of it, and what is predicted of the next scan."""
    tidy(axes, "", f"{region.capitalize()}, {picture.unit}")
    axes.yaxis.set_label_coords(0.055, 0.5, transform=_blended(axes))
    days, bands = picture.times_h / _DAY_H, picture.bands[region]
    if shown:
        low, _, high = bands[shown - 1]
        axes.fill_between(
            days, low, high, color=palette.PALE_LINE, alpha=0.45, lw=0, label="before"
        )
    low, median, high = bands[shown]
    colour = palette.PREDICTED
    axes.fill_between(days, low, high, color=colour, alpha=0.3, lw=0, label="90 %")
    axes.plot(days, median, color=colour, lw=1.6)
    for place, update in enumerate(picture.status["updates"]):
        for one in update["regions"]:
            if one["region"] == region:
                face = palette.MEASURED if place < shown else "none"
                axes.plot(
                    update["time_h"] / _DAY_H, one["mean"], "o", color=palette.MEASURED,
                    markerfacecolor=face, ms=5,
                )  # fmt: skip
    awaited = picture.awaited
    if awaited is not None and shown == picture.n_updates:
        for one in awaited["regions"]:
            if one["region"] == region:
                ends = [[one["median"] - one["low"]], [one["high"] - one["median"]]]
                axes.errorbar(
                    awaited["time_h"] / _DAY_H, one["median"], yerr=ends, fmt="_", color=colour,
                    capsize=4, lw=1.4,
                )  # fmt: skip
    axes.set_ylim(0, _top(picture, region, shown))


def _top(picture: TwinPicture, region: str, shown: int) -> float:
    """Upper end of the axis: the whole band, but no more than five times what was seen."""
    seen = [
        row["mean"] for one in picture.status["updates"] for row in one["regions"]
        if row["region"] == region
    ]  # fmt: skip
    highest = float(picture.bands[region][shown][2].max())
    return 1.08 * (min(highest, 5 * max(seen)) if seen and shown else highest)


def _draw_time_line(axes: Axes, picture: TwinPicture, shown: int) -> None:
    axes.axhline(0, color=palette.GUIDE_LINE, lw=1)
    axes.set_ylim(-1, 1.6)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelbottom=False)
    events = [(0.0, "injection", "v"), (picture.surgery_h, "surgery", "X")]
    for time, words, mark in events:
        axes.plot(time / _DAY_H, 0, mark, color=palette.REFERENCE_LINE, ms=7)
        axes.text(time / _DAY_H, 0.55, words, ha="center", fontsize=7)
    taken = [update["time_h"] for update in picture.status["updates"]]
    for time in sorted({row["time_h"] for row in picture.status["scans"] if row["modelled"]}):
        face = palette.MEASURED if time in taken[:shown] else "none"
        axes.plot(
            time / _DAY_H, 0, "o", color=palette.MEASURED, markerfacecolor=face, ms=6, zorder=3
        )
        if time != picture.surgery_h:
            axes.text(time / _DAY_H, 0.55, day_words(time), ha="center", fontsize=7)
    axes.plot(picture.now_h / _DAY_H, -0.45, "^", color=palette.SELECTED_TILE, ms=6)
    axes.text(picture.now_h / _DAY_H + 0.25, -0.8, "now", fontsize=7)


def parameter_strip_figure(picture: TwinPicture) -> Figure:
    """Prior and posterior of each parameter as bars, on the scale of its prior; grey: prior only.

    A bar is the 90 % interval; the middle line is the median of the prior, and the dotted lines are
    the ends of its interval.
    """
    parameters = picture.status["parameters"]
    figure = new_figure(4.4, 0.5 + 0.3 * len(parameters))
    figure.set_layout_engine(None)
    figure.subplots_adjust(left=0.6, right=0.98, bottom=0.02, top=0.98)
    axes = tidy(figure.add_subplot())
    widest = 1.1
    for place, one in enumerate(parameters):
        reach = max(_Z90 * one["prior_sd"], 1e-9)
        ends = [float(np.log(one[end] / one["prior_median"])) / reach for end in ("low", "high")]
        middle = float(np.log(one["median"] / one["prior_median"])) / reach
        widest = max(widest, *(1.1 * abs(end) for end in ends))
        colour = palette.MISSING_TEXT if one["word"] == PRIOR_ONLY else palette.PREDICTED
        axes.plot([-1, 1], [place, place], color=palette.PALE_LINE, lw=7, solid_capstyle="butt")
        axes.plot(ends, [place, place], color=colour, lw=3.5, solid_capstyle="butt")
        axes.plot(middle, place, "|", color=colour, ms=11, mew=2)
    axes.axvline(0, color=palette.GUIDE_LINE, lw=0.7, zorder=0)
    for end in (-1, 1):
        axes.axvline(end, color=palette.GUIDE_LINE, lw=0.5, ls=":", zorder=0)
    names = [f"{_LABELS[one['name']][0]}: {one['word']}" for one in parameters]
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks([])
    axes.set_xlim(-widest, widest)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.tick_params(length=0)
    return figure


# --- virtual cohort -----------------------------------------------------------------------------
_BINS: Final = 40
_LOG_RATIO: Final = 30.0
_MIN_REACH: Final = 0.05
_NAME: Final = 16


@dataclass(frozen=True, slots=True, eq=False)
class CohortChoice:
    """What a virtual cohort can be made of.

    Attributes
    ----------
    plans
        Names of the plans of the case.
    n_taken
        Number of scans that were taken in.
    nuclides
        Nuclides of the plans.
    organs
        Organs in the table of each nuclide that the case holds.
    has_mass
        Whether a plan states the mass of its antibody.
    problem
        Why no cohort can be simulated although there are plans; empty if one can.
    basis
        All that the outcomes depend on besides the settings; unequal after a change.
    """

    plans: tuple[str, ...]
    n_taken: int
    nuclides: tuple[str, ...]
    organs: Mapping[str, tuple[str, ...]]
    has_mass: bool
    basis: tuple[object, ...]
    problem: str = ""


def read_cohort_choice(case: Case) -> CohortChoice:
    """Read plans and twin of a case; raises what `CaseTwin` raises."""
    files, twin = plan_files(case.root), CaseTwin(case)
    plans, problem = read_plans(case.root), ""
    try:
        organs = kept_organ_tables(case.root)
    except InputError as error:  # they can be given again
        organs, problem = {}, str(error)
    origins = [case.store.origin(one) for one in (UPTAKE, PREDICTION, PARAMETERS, TILES)]
    slide = tuple(None if one is None else one.digest() for one in origins)
    basis = (files, twin.updates, twin.start, case.file.injection, organs, slide)
    nuclides = dict.fromkeys(c.nuclide for plan in plans.values() for c in plan.courses)
    return CohortChoice(
        tuple(plans),
        len(twin.updates),
        tuple(nuclides),
        {name: tuple(table.gy_per_mbq) for name, table in organs.items()},
        any(plan.antibody_mg is not None for plan in plans.values()),
        basis,
        problem,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def cohort_arm_rows(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Arm, outcome (median, 5 to 95 %), responders (share, Wilson interval), patients needed."""
    rows: list[tuple[str, ...]] = []
    for one in document["arms"]:
        ends = f"{_percent(one['responders_low'])} to {_percent(one['responders_high'])}"
        band = _band_words(one["median"], one["low"], one["high"])
        share = f"{_percent(one['responders'])}\n{ends}"
        rows.append((one["arm"], band, share, str(one["patients_needed"])))
    return rows


def cohort_pair_rows(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Two arms, share of the same patients in which the first is better."""
    return [
        (f"A: {one['a']}\nB: {one['b']}", f"{one['probability']:.3f}") for one in document["better"]
    ]


def cohort_words(document: Mapping[str, Any]) -> list[str]:
    """What a cohort was drawn from, what a responder is, and what the numbers rest on."""
    unit = "" if document["unit"] == "1" else document["unit"]
    side = "Within: at most" if document["better_is"] == "smaller" else "Responders: at least"
    bar = f"{side} {number(document['threshold'], unit)} ({document['threshold_from']})"
    spread = ", ".join(
        f"{_LABELS[one['name']][0]} {number(one['sd_ln'], digits=2)}"
        for one in document["between_patients"]
    )
    return [
        f"{bar}; better is {document['better_is']}.",
        f"n: patients for a half width of {document['half_width']:g}.",
        f"Between the patients, SD of ln: {spread}.",
        *document["notes"],
    ]


def cohort_figure(cohort: PlanCohort, document: Mapping[str, Any]) -> Figure:
    """A histogram of the outcome of each arm, its median and 5 to 95 %, with the watermark."""
    arms = cohort.values[document["outcome"]]
    figure = new_figure(4.4, 1.0 + 0.75 * len(arms))
    label = axis_label(document["label"], document["unit"])
    axes = tidy(figure.add_subplot(), label)
    bar = document["threshold"]
    edges, is_log = _edges(list(arms.values()), bar)
    if is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    for place, (values, row) in enumerate(zip(arms.values(), document["arms"], strict=True)):
        counts = np.histogram(values, edges)[0]
        heights = place - 0.62 * counts / max(1, counts.max())
        axes.stairs(heights, edges, baseline=place, fill=True, color=palette.PREDICTED, alpha=0.45)
        below = place + 0.14
        axes.plot([row["low"], row["high"]], [below, below], color=palette.PREDICTED, lw=2)
        axes.plot(row["median"], below, "|", color=palette.PREDICTED, ms=11, mew=2.5)
    axes.axvline(bar, color=palette.REFERENCE_LINE, lw=1, ls="--")
    axes.set_yticks(range(len(arms)), [_short(name) for name in arms])
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(len(arms) - 0.6, -0.75)
    axes.spines[["left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.text(
        0.5, 0.5, SIMULATED, transform=axes.transAxes, ha="center", va="center", rotation=12,
        fontsize=12, alpha=0.35, zorder=6,
    )  # fmt: skip
    return figure


def _edges(arms: Sequence[FloatArray], bar: float) -> tuple[FloatArray, bool]:
    """Edges of the bins of all arms, and whether they are logarithmic: where arms are far apart."""
    every = np.concatenate(arms)
    ends = [float(np.percentile(values, 99)) for values in arms]
    low, high = min(bar, float(every.min())), max(bar, *ends)
    if low > 0 and high > _LOG_RATIO * low:
        reach = np.log(high / low)
        return np.exp(
            np.linspace(np.log(low) - 0.03 * reach, np.log(high) + 0.03 * reach, _BINS + 1)
        ), True
    reach = max(high - low, _MIN_REACH * max(abs(high), 1.0))
    return np.linspace(low - 0.03 * reach, high + 0.03 * reach, _BINS + 1), False


def _short(name: str) -> str:
    """A name in at most two lines."""
    return "\n".join(wrap(name, _NAME, max_lines=2, placeholder="…"))
