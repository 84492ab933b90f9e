"""Visual QA of a segmentation: a random sample of objects and fields, and the error rates from it.

Detected objects are drawn at random and rated correct or wrong: the share of wrong ones estimates
the false-positive rate among all detected objects.  Missed objects cannot be drawn from the
detected ones, so the reader also counts missed objects in whole fields (tiles) drawn at random.
Both rates come with 95 % confidence intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy  # its parts are loaded on first use
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import InputError

__all__ = [
    "Interval",
    "ObjectRating",
    "OverallRating",
    "QaSample",
    "QaSummary",
    "draw_sample",
    "exact_interval",
    "miss_rate_interval",
    "summarise_qa",
]

OverallRating = Literal["good", "usable", "not usable"]
ObjectRating = Literal["correct", "wrong", "unsure"]
LEVEL = 0.95
"""Confidence level of all intervals."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval; ``low <= estimate <= high``."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class QaSample:
    """The sample in the order of rating: labels of objects, then rows of the tile grid."""

    objects: tuple[int, ...]
    fields: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class QaSummary:
    """The ratings of a visual QA so far.

    Parameters
    ----------
    correct, wrong, unsure
        Number of objects by rating; unsure ones do not enter the rate.
    to_rate, to_search
        Number of objects and fields of the sample that have not been rated yet.
    fields, detected, missed
        Number of fields searched, of objects detected in them, and of objects missed in them.
    false_rate
        Share of detected objects that are wrong; None before the first rating.
    miss_rate
        Share of missed objects among detected and missed ones in the fields; None before the first
        field with an object.  Detected objects count as true here, so the rate is slightly too
        small where many of them are wrong.
    overall_rating, comment
        The reader's rating of the whole segmentation; empty until it is given.
    """

    correct: int
    wrong: int
    unsure: int
    to_rate: int
    to_search: int
    fields: int
    detected: int
    missed: int
    false_rate: Interval | None
    miss_rate: Interval | None
    overall_rating: str
    comment: str


def draw_sample(
    labels: ArrayLike, fields: ArrayLike, n_objects: int, n_fields: int, seed: int
) -> QaSample:
    """A random sample without replacement, the same for the same seed.

    Parameters
    ----------
    labels
        (n,) labels of all objects.
    fields
        (m,) indices of the tiles that may be searched for missed objects.
    n_objects, n_fields
        Count of objects and fields to draw; all where there are fewer.
    seed
        Random seed.

    Raises
    ------
    InputError
        If *n_objects* is below 1 or *n_fields* is negative.
    """
    if n_objects < 1 or n_fields < 0:
        raise InputError(
            f"cannot draw a sample of {n_objects} objects and {n_fields} fields; draw at least "
            "one object"
        )
    rng = np.random.default_rng(seed)
    objects = rng.permutation(np.asarray(labels, np.int64).ravel())[:n_objects]
    tiles = rng.permutation(np.asarray(fields, np.int64).ravel())[:n_fields]
    return QaSample(tuple(objects.tolist()), tuple(tiles.tolist()))


def exact_interval(count: int, total: int) -> Interval:
    """The fraction ``count / total`` with its exact (Clopper-Pearson) 95 % confidence interval.

    Source: Clopper and Pearson 1934, Biometrika.
    """
    if not 0 <= count <= total or total < 1:
        raise InputError(f"{count} of {total} is not a fraction; give 0 <= count <= total")
    tail = (1 - LEVEL) / 2
    low = 0.0 if count == 0 else float(scipy.stats.beta.ppf(tail, count, total - count + 1))
    high = (
        1.0 if count == total else float(scipy.stats.beta.ppf(1 - tail, count + 1, total - count))
    )
    return Interval(count / total, low, high)


def miss_rate_interval(detected: ArrayLike, missed: ArrayLike) -> Interval | None:
    """Fraction of missed objects among detected and missed ones, with its 95 % interval.

    Objects in one field are correlated, so this is the interval of a ratio over fields (linearised
    variance, Student's t); it is never narrower than the exact one for independent objects.

    Parameters
    ----------
    detected, missed
        (n,) counts of detected and of missed objects in each field.

    Returns
    -------
    None where no field holds an object.

    Source: Cochran 1977, Sampling Techniques, section 6.
    """
    missed_counts = np.asarray(missed, float)
    totals = np.asarray(detected, float) + missed_counts
    n, total = totals.size, float(totals.sum())
    if total == 0:
        return None
    rate = float(missed_counts.sum()) / total
    exact = exact_interval(int(missed_counts.sum()), int(total))
    if n < 2:
        return exact
    residuals = missed_counts - rate * totals
    error = float(np.sqrt(n / (n - 1) * (residuals**2).sum())) / total
    reach = float(scipy.stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    low, high = min(exact.low, rate - reach), max(exact.high, rate + reach)
    return Interval(rate, max(0.0, low), min(1.0, high))


def summarise_qa(sample: QaSample, events: Iterable[Mapping[str, Any]]) -> QaSummary:
    """Summary of a visual QA; the last rating of each object and field counts.

    Parameters
    ----------
    sample
        The sample that was drawn; ratings of anything else are ignored.
    events
        In order: ``{"object": label, "rating": ...}``, ``{"field": row, "detected": n,
        "missed": n}`` and ``{"overall_rating": ..., "comment": ...}``.
    """
    rated: dict[int, str] = {}
    searched: dict[int, tuple[int, int]] = {}
    overall, comment = "", ""
    for event in events:
        if event.get("object") in sample.objects:
            rated[int(event["object"])] = str(event["rating"])
        elif event.get("field") in sample.fields:
            searched[int(event["field"])] = (int(event["detected"]), int(event["missed"]))
        elif "overall_rating" in event:
            overall, comment = str(event["overall_rating"]), str(event.get("comment", ""))
    counts = {word: list(rated.values()).count(word) for word in ("correct", "wrong", "unsure")}
    certain = counts["correct"] + counts["wrong"]
    pairs: NDArray[np.int64] = np.array(list(searched.values()), np.int64).reshape(-1, 2)
    return QaSummary(
        correct=counts["correct"],
        wrong=counts["wrong"],
        unsure=counts["unsure"],
        to_rate=len(sample.objects) - len(rated),
        to_search=len(sample.fields) - len(searched),
        fields=len(searched),
        detected=int(pairs[:, 0].sum()),
        missed=int(pairs[:, 1].sum()),
        false_rate=exact_interval(counts["wrong"], certain) if certain else None,
        miss_rate=miss_rate_interval(pairs[:, 0], pairs[:, 1]),
        overall_rating=overall,
        comment=comment,
    )
