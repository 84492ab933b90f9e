"""The explorer of the kinetics: sliders, live curves and what the images determine, as records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from napari_mosaik.core import FloatArray, InputError, Params, Table
from napari_mosaik.core.catalogue import KINETICS, TILE_KINETICS
from napari_mosaik.core.text import typed_number
from napari_mosaik.kinetics import DeliveryParams, ImmunokineticParams, parameter_label
from napari_mosaik.view.formatting import number, scaled, share_words, title_of
from napari_mosaik.workflow.kinetics import live_curves_um
from napari_mosaik.workflow.steps import maker_of
from napari_mosaik.workflow.steps.kinetics import EX_VIVO_H, sampling_times_h

__all__ = [
    "MODELS",
    "RESOLVED",
    "KineticModel",
    "SliderSpec",
    "changed_params",
    "concentration",
    "default_density",
    "determined",
    "explorer_curves",
    "finding_lines",
    "parameter_rows",
    "reading_line",
    "share_interval",
    "share_rows",
    "slider_specs",
]

_SPAN = 100.0
"""A slider reaches from the default divided by this to the default times this."""
SURFACE: Final = "surface_density_per_um"
"""The vessel surface, which is measured in each tile and no setting of a step."""
_FIRST = (
    "permeability_um_per_s",
    "k_a_per_um_h",
    "antigen_um",
    "k32_per_h",
    "k03_per_h",
    "free_0_um",
)
_TYPICAL_SURFACE = 0.005
RESOLVED: Final = 1e-7
"""Share of the dose to which the solver keeps the curves: less than that is not a number."""


@dataclass(frozen=True, slots=True)
class SliderSpec:
    """A parameter with its range; the slider is logarithmic where its lowest value is above 0.

    ``first`` ones are those of the equations; the others stand apart.
    """

    name: str
    label: str
    unit: str
    about: str
    low: float
    high: float
    default: float
    first: bool = True

    @property
    def logarithmic(self) -> bool:
        """Whether equal ways on the slider are equal factors."""
        return self.low > 0

    def at(self, share: float) -> float:
        """The value at a place in [0, 1] of the slider, with four significant digits."""
        share = min(1.0, max(0.0, share))
        value = self.low + share * (self.high - self.low)
        if self.logarithmic:
            value = self.low * (self.high / self.low) ** share
        return float(f"{value:.4g}")

    def place(self, value: float) -> float:
        """The place in [0, 1] of a value; its ends for values beyond."""
        if self.logarithmic:
            value = max(value, self.low)
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))

    def check(self, text: str) -> float:
        """A typed value; `InputError` names the parameter and what is wrong."""
        try:
            value = typed_number(text)
        except InputError as error:
            raise InputError(f"{self.label}: {error}") from None
        if value < 0 or (not self.logarithmic and value > self.high):
            top = f" to {self.high:g}" if not self.logarithmic else " or more"
            raise InputError(f"{self.label} = {value:g} is not valid; give 0{top}")
        return value


@dataclass(frozen=True, slots=True)
class KineticModel:
    """A model of the explorer: its title, the step whose settings it has, and what they are."""

    key: str
    title: str
    step: str
    kind: type[Params]


MODELS: Final = (
    KineticModel(
        "patient", "Patient (Table 2 model)", maker_of(KINETICS).name, ImmunokineticParams
    ),
    KineticModel(
        "tile", "Tissue, limited by delivery", maker_of(TILE_KINETICS).name, DeliveryParams
    ),
)


def slider_specs(model: KineticModel, surface_per_um: float = _TYPICAL_SURFACE) -> list[SliderSpec]:
    """The sliders of a model: all its settings that change the curves, and the vessel surface."""
    specs = []
    for name, info in model.kind.model_fields.items():
        idle = model.key == "patient" and name in ("mass_mg", "molar_mass_g_per_mol")
        if info.annotation is not float or idle:
            continue
        label, unit = parameter_label(model.kind, name)
        label = title_of(name).capitalize() if label == name else label
        low, high = info.default / _SPAN, info.default * _SPAN
        for limit in info.metadata:
            if getattr(limit, "le", None) is not None:
                low, high = 0.0, float(limit.le)
                low = 0.01 if name == "interstitial_fraction" else low
        if info.default == 0:
            low, high = 0.0, 0.3
        specs.append(
            SliderSpec(
                name, label, unit, info.description or "", low, high, info.default, name in _FIRST
            )
        )
    if model.key == "tile":
        about = "Vessel perimeter per area of the tissue; the median of the case's tiles."
        ends = _TYPICAL_SURFACE / _SPAN, _TYPICAL_SURFACE * _SPAN
        specs.insert(1, SliderSpec(SURFACE, "Vessel surface", "1/µm", about, *ends, surface_per_um))
    return specs


def default_density(parameters: Table | None) -> float:
    """Median vessel surface of the tiles that have vessels, 1/µm; a typical one without them."""
    name = "vessel_perimeter_density_per_um"
    if parameters is None or name not in parameters:
        return _TYPICAL_SURFACE
    values = np.asarray(parameters[name], float)
    known = values[values > 0]
    return float(f"{np.median(known):.4g}") if known.size else _TYPICAL_SURFACE


def changed_params(
    model: KineticModel, params: Params, values: Mapping[str, float], imaging_times: str
) -> Params:
    """Settings of the model's step with the values and imaging times of the explorer.

    Raises `InputError` for values or times that are not valid.
    """
    own = {name: value for name, value in values.items() if name in type(params).model_fields}
    merged = {**params.model_dump(), **own, "imaging_times": imaging_times}
    return type(params).parse(merged, model.title)


def explorer_curves(
    params: Params, surface_per_um: float
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Times (t,), h, and the free, bound, internalised and total antibody (t,), µM."""
    imaging: tuple[float, ...] = getattr(params, "imaging_h", ())
    times = sampling_times_h(max(EX_VIVO_H, *imaging))[1:]
    curves = live_curves_um(params, times, surface_per_um)
    names = ("free", "bound", "internalised")
    found = dict(zip(names, curves.T, strict=True))
    return times, {**found, "total": curves.sum(axis=1)}


def reading_line(
    time_h: FloatArray, curves_um: Mapping[str, FloatArray], imaging_h: Sequence[float]
) -> str:
    """The total antibody at the imaging times, of curves (t,), µM, at times (t,), h."""
    total = np.interp(imaging_h, time_h, curves_um["total"])
    read = (f"{concentration(v)} at {t:g} h" for t, v in zip(imaging_h, total, strict=True))
    return f"Total: {', '.join(read)}"


def concentration(value_um: float, min_um: float = 0.0) -> str:
    """Antibody with a prefix, three significant digits; *min_um* is what the solver resolves."""
    if 0 < value_um < min_um:
        return f"under {number(*scaled(min_um, 'µM'))}"
    return number(*scaled(value_um, "µM"))


def determined(part: Mapping[str, Any]) -> dict[str, bool]:
    """By name of a parameter: whether the images determine it, or it is prior only."""
    return {p["name"]: bool(p["determined"]) for p in part.get("parameters", ())}


def parameter_rows(part: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the table of the parameters: label, verdict, factor before and after, sensitivity."""
    return [
        (
            p["label"],
            "determined" if p["determined"] else "prior only",
            f"{p['prior_factor']:.2g} → {p['posterior_factor']:.2g}",
            _slope(max(p["sensitivity"], key=abs)),
        )
        for p in part.get("parameters", ())
    ]


def _slope(value: float) -> str:
    return "< 0.001" if abs(value) < 1e-3 else number(value, digits=2)


def share_rows(part: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the table of the shares of the variance, with their 95 % intervals."""
    sobol = part.get("sobol")
    if not sobol:
        return []
    return [
        (label, *(share_interval(sobol, kind, place) for kind in ("first", "total")))
        for place, label in enumerate(sobol["labels"])
    ]


def share_interval(sobol: Mapping[str, Any], kind: str, place: int) -> str:
    """A share of the variance ("first" or "total") with its 95 % interval, at the last time."""
    values = [sobol[f"{kind}{end}"][-1][place] for end in ("", "_low", "_high")]
    value, low, high = map(share_words, values)
    alone = None in values or all(text.startswith("under") for text in (value, low, high))
    return value if alone else f"{value} ({low.removesuffix('%').strip()} to {high})"


def finding_lines(part: Mapping[str, Any]) -> list[str]:
    """The diagnostics in words, or why there are none."""
    if "not_available" in part:
        return [f"Not available: {part['not_available']}."]
    return [one["sentence"] for one in part["findings"]]
