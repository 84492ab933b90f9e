"""Numbers and states as text: units, three significant digits, never "None" or "nan"."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, SupportsFloat

from napari_mosaik.features.catalogue import PARAMETERS

if TYPE_CHECKING:
    from napari_mosaik.annotate.review_queue import ErrorRate
    from napari_mosaik.workflow.review_queue import Judgement

__all__ = [
    "NOT_MEASURED",
    "STATE_MARKS",
    "TileReading",
    "count",
    "decision_word",
    "duration",
    "gain_line",
    "heading",
    "number",
    "percent",
    "rate_line",
    "scaled",
    "share_words",
    "short_formula",
    "tile_line",
    "title_of",
    "unit_words",
    "uptake_name",
]

NOT_MEASURED: Final = "not measured"
_THIN: Final = "\N{NARROW NO-BREAK SPACE}"
_SPACE: Final = "\N{NO-BREAK SPACE}"
_SUPERSCRIPT: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

STATE_MARKS: Final[dict[str, tuple[str, str]]] = {
    "done": ("✓", "done"),
    "doubtful": ("⚠", "done, please check"),
    "stale": ("↻", "stale"),
    "missing": ("–", "not run"),
    "running": ("▸", "running"),
    "blocked": ("⊘", "blocked"),
    "failed": ("✗", "failed"),
}
"""Symbol and word of each state of a step, so that it does not depend on colour."""


def number(
    value: SupportsFloat | None, unit: str = "", *, digits: int = 3, missing: str = NOT_MEASURED
) -> str:
    """A number with *digits* significant digits and its unit; *missing* for None, NaN, infinity.

    Integers are given in full.  The unit "1" is dimensionless.
    """
    if value is None or not math.isfinite(float(value)):
        return missing
    exact = isinstance(value, int) or getattr(getattr(value, "dtype", None), "kind", "") in (
        "i",
        "u",
    )
    text = _grouped(f"{int(float(value))}") if exact else _significant(float(value), digits)
    if unit == "°":
        return f"{text}°"
    return text if unit in ("", "1") else f"{text}{_SPACE}{unit_words(unit)}"


_SCALES: Final = {
    "Bq": (("GBq", 1e9), ("MBq", 1e6), ("kBq", 1e3), ("Bq", 1.0)),
    "MBq": (("GBq", 1e3), ("MBq", 1.0), ("kBq", 1e-3), ("Bq", 1e-6)),
    "g": (("kg", 1e3), ("g", 1.0), ("mg", 1e-3)),
    "kg": (("kg", 1.0), ("g", 1e-3), ("mg", 1e-6)),
    "cm²": (("m²", 1e4), ("cm²", 1.0)),
    "µM": (("µM", 1.0), ("nM", 1e-3), ("pM", 1e-6), ("fM", 1e-9)),
}


def scaled(value: float, unit: str) -> tuple[float, str]:
    """A value and its unit with the prefix that suits it: 0.0245 kg is 24.5 g."""
    scales = _SCALES.get(unit, ((unit, 1.0),))
    fits = (one for one in scales if abs(float(f"{value / one[1]:.3g}")) >= 1)
    name, factor = next(fits, scales[-1] if value else (unit, 1.0))
    return value / factor, name


def short_formula(text: str, write: Callable[[float, str], str] = number) -> str:
    """A formula with three significant digits and a suitable prefix for each of its numbers."""
    pattern = r"(?<![\w.])(\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?: (Bq|g|cm²)(?![\w/]))?"
    return re.sub(pattern, lambda found: write(*scaled(float(found[1]), found[2] or "")), text)


def unit_words(unit: str) -> str:
    """A unit in words; of an optical density with its base, "" if dimensionless."""
    words = {"1": "", "OD": "OD (natural)", "OD10": "OD (base 10)"}
    return words.get(unit, unit)


def _significant(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if exponent < -3 or exponent > 6:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        return f"{_minus(mantissa)}{_SPACE}×{_SPACE}10{str(int(power)).translate(_SUPERSCRIPT)}"
    decimals = digits - 1 - exponent
    return _grouped(f"{round(value, decimals):.{max(0, decimals)}f}")


def _grouped(text: str) -> str:
    """Digits grouped in thousands from five digits on, with a true minus sign."""
    whole, dot, rest = text.partition(".")
    bare = whole.lstrip("-")
    if len(bare) > 4:
        bare = f"{int(bare):,}".replace(",", _THIN)
    return _minus(("-" if whole.startswith("-") else "") + bare + dot + rest)


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def percent(fraction: SupportsFloat | None, *, missing: str = NOT_MEASURED) -> str:
    """A fraction in [0, 1] as per cent: "82 %", "0.4 %"."""
    if fraction is None or not math.isfinite(float(fraction)):
        return missing
    value = 100 * float(fraction)
    text = f"{value:.0f}" if abs(value) >= 1 or value == 0 else f"{value:.1f}"
    return f"{_minus(text)}{_SPACE}%"


def share_words(fraction: SupportsFloat | None, *, missing: str = "does not vary") -> str:
    """A share in per cent with three significant digits: "28.3 %", "under 0.001 %"."""
    if fraction is None or not math.isfinite(float(fraction)):
        return missing
    value = 100 * float(fraction)
    return f"under 0.001{_SPACE}%" if 0 < abs(value) < 1e-3 else number(value, "%")


def count(n: int, singular: str, plural: str = "") -> str:
    """A count with its noun: "1 tile", "412 tiles", "no tiles"."""
    many = plural or f"{singular}s"
    if n == 0:
        return f"no {many}"
    return f"{_grouped(str(int(n)))} {singular if n == 1 else many}"


def duration(seconds: float | None) -> str:
    """A duration in seconds as text: "0:41", "12:05", "1 h 05 min"; "unknown" for None."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


_UNIT_SUFFIXES: Final = (
    "per_mm2",
    "per_um",
    "um2",
    "mm2",
    "um",
    "bits",
    "bit",
    "deg",
    "od10",
)
_SPELLINGS: Final = {
    "caix": "CAIX",
    "suv": "SUV",
    "mvd": "MVD",
    "he": "H&E",
    "cd34": "CD34",
    "pet": "PET",
    "dab": "DAB",
    "od": "OD",
    "idw": "IDW",
}


def title_of(name: str) -> str:
    """The name of a column as text within a sentence.

    "vessel_equivalent_diameter_um" -> "vessel equivalent diameter".  Tile parameters have the
    titles of their catalogue; other names lose the suffix of the unit.
    """
    if name in PARAMETERS:
        title = PARAMETERS[name].title
        return title if title[:2].isupper() else title[:1].lower() + title[1:]
    for suffix in _UNIT_SUFFIXES:
        if name.endswith(f"_{suffix}") and len(name) > len(suffix) + 1:
            name = name[: -len(suffix) - 1]
            break
    words = [_SPELLINGS.get(word.lower(), word) for word in re.split(r"[_\s]+", name) if word]
    return " ".join(words)


_BASELINES: Final = {
    "mean": "training mean",
    "caix_linear": "CAIX, linear",
    "mechanistic": "delivery, linear",
    "source_blur": "source and blur",
    "position": "position only",
    "neighbour_idw": "measured neighbours",
}
_COLUMNS_SEEN: Final = {"": "tile", "psf": "scanner view", "all": "surroundings"}


def baseline_title(name: str) -> str:
    """The name of a baseline as text: "ridge_psf" -> "ridge, scanner view"."""
    if name in _BASELINES:
        return _BASELINES[name]
    method, _, seen = name.partition("_")
    return f"{method}, {_COLUMNS_SEEN[seen]}" if seen in _COLUMNS_SEEN else title_of(name)


def by_error(baselines: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Names and errors of the baselines, the smallest mean absolute error first."""

    def error(entry: tuple[str, Any]) -> float:
        found = (entry[1] or {}).get("mae")
        return math.inf if found is None else float(found)

    return sorted(baselines.items(), key=error)


def interval(record: Mapping[str, float | None] | None) -> str:
    """An estimate with its interval: "0.012 (0.004 to 0.02)"; empty where there is none."""
    if not record or record.get("estimate") is None:
        return ""
    if record.get("low") is None:
        return number(record["estimate"])
    low, high = number(record["low"]), number(record["high"])
    return f"{number(record['estimate'])} ({low} to {high})"


def heading(name: str) -> str:
    """The name of a column at the start of a line: "Vessel equivalent diameter"."""
    title = title_of(name)
    return title[:1].upper() + title[1:]


def uptake_name(unit: str) -> str:
    """The name of the uptake in a unit: SUV with its normalisation."""
    names = {"cm²/mL": "SUV (body surface)", "g/mL": "SUV (body weight)", "1": "normalised SUV"}
    return names.get(unit, "uptake")


@dataclass(frozen=True, slots=True)
class TileReading:
    """Results of one tile; None: not computed, NaN: not measured."""

    tile: int
    neoplastic: float | None = None
    vessels_per_mm2: float | None = None
    measured: float | None = None
    predicted: float | None = None
    cluster: str = ""
    uptake_name: str = "SUV"


def tile_line(reading: TileReading) -> str:
    """The status line of a tile; results that were not computed are omitted.

    "tile 217 · neoplastic 82 % · 41 vessels/mm² · SUV 3.12 measured, 2.80 predicted (2.1 to 3.6) ·
    cluster: hot".
    """
    parts = [f"tile {reading.tile}"]
    if reading.neoplastic is not None:
        share = percent(reading.neoplastic, missing="")
        parts.append(f"neoplastic {share}" if share else "tissue class not measured")
    if reading.vessels_per_mm2 is not None:
        parts.append(_vessel_words(reading.vessels_per_mm2))
    uptake = _uptake_words(reading)
    if uptake:
        parts.append(uptake)
    if reading.cluster:
        parts.append(f"cluster: {reading.cluster}")
    return " · ".join(parts)


def _vessel_words(density: float) -> str:
    if density == 0:
        return "no vessels in this tile"
    text = number(density, "vessels/mm²", digits=2, missing="")
    return text or "vessels not measured"


def _uptake_words(reading: TileReading) -> str:
    if reading.measured is None and reading.predicted is None:
        return ""
    words = []
    if reading.measured is not None:
        measured = number(reading.measured, missing="")
        words.append(f"{measured} measured" if measured else NOT_MEASURED)
    if reading.predicted is not None:
        predicted = number(reading.predicted, missing="")
        words.append(f"{predicted} predicted" if predicted else "not predicted")
    return f"{reading.uptake_name} " + ", ".join(words)


# --- the review queue ----------------------------------------------------------------------------
_DECISIONS: Final = {"accept": "✓ accepted", "reject": "✗ rejected", "edit": "✎ edited"}


def decision_word(judged: Judgement | None) -> str:
    """The decision on a tile with its mark; empty without one."""
    return "" if judged is None else _DECISIONS[judged.decision]


def rate_line(rate: ErrorRate) -> str:
    """The error rate of all tiles with its interval, and on how many judgements it rests."""
    seen = f"{rate.judged} of {rate.total} tiles judged, {count(rate.control, 'control tile')}"
    low, high = f"{100 * rate.low:.0f}", f"{100 * rate.high:.0f}"
    if rate.estimate is None:
        return f"Tiles with errors in the whole case: unknown ({low} to {high} %); {seen}"
    return (
        f"Tiles with errors in the whole case: {100 * rate.estimate:.0f} % "
        f"(95 % interval {low} to {high} %); {seen}"
    )


def gain_line(gain: float | None, may_stop: bool, left: int) -> str:
    """The expected gain of the next tile, and whether to stop."""
    if not left:
        return "Every tile has a decision."
    if gain is None:
        return "Expected gain: unknown before the first decision"
    line = f"Expected gain: {100 * gain:.0f} % of the tiles that come next have an error"
    return f"✓ You may stop. {line}" if may_stop else line
