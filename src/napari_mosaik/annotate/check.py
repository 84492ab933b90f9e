"""Checking a segmentation by eye: a random sample of objects and fields, and what it says.

Objects that were found are drawn at random and judged right or wrong: the share of wrong ones
estimates the *false* rate among all of them.  What was missed cannot be drawn from what was found,
so the reader also counts missed objects in whole fields (tiles) drawn at random.  Both rates come
with 95 % intervals; who looked, when and at which result is part of the record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from napari_mosaik.core import InputError

__all__ = [
    "CheckSample",
    "CheckSummary",
    "Interval",
    "Verdict",
    "draw_sample",
    "exact_interval",
    "missed_interval",
    "summarise",
]

Verdict = Literal["good", "usable", "not usable"]
Judgement = Literal["right", "wrong", "unsure"]
LEVEL = 0.95
"""Confidence of all intervals."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval; ``low <= estimate <= high``."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CheckSample:
    """What is to be looked at, in this order: labels of objects, then rows of the tile grid."""

    objects: tuple[int, ...]
    fields: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CheckSummary:
    """What a check has found so far.

    Parameters
    ----------
    right, wrong, unsure
        Objects by judgement; those that a reader is unsure of count for neither side.
    to_judge, to_search
        Objects and fields of the sample that nobody has looked at yet.
    fields, found, missed
        Fields searched, objects that had been found in them, objects that the reader misses there.
    false_rate
        Share of found objects that are wrong; None before the first judgement.
    miss_rate
        Share of missed ones among found and missed objects of the fields; None before the first
        field with any object.  Found ones count as true here, which makes it slightly too small
        where many of them are wrong.
    verdict, comment
        The reader's conclusion; empty until it is given.
    """

    right: int
    wrong: int
    unsure: int
    to_judge: int
    to_search: int
    fields: int
    found: int
    missed: int
    false_rate: Interval | None
    miss_rate: Interval | None
    verdict: str
    comment: str


def draw_sample(
    labels: ArrayLike, fields: ArrayLike, n_objects: int, n_fields: int, seed: int
) -> CheckSample:
    """A random sample without replacement, the same for equal seeds.

    Parameters
    ----------
    labels
        (n,) labels of all objects.
    fields
        (m,) rows of the tile grid that may be searched for missed objects.
    n_objects, n_fields
        How many are wanted; all where there are fewer.
    seed
        Of the random order.
    """
    if n_objects < 1 or n_fields < 0:
        raise InputError(
            f"a sample of {n_objects} objects and {n_fields} fields is not possible; give at "
            "least one object"
        )
    rng = np.random.default_rng(seed)
    objects = rng.permutation(np.asarray(labels, np.int64).ravel())[:n_objects]
    tiles = rng.permutation(np.asarray(fields, np.int64).ravel())[:n_fields]
    return CheckSample(tuple(objects.tolist()), tuple(tiles.tolist()))


def exact_interval(count: int, total: int) -> Interval:
    """Share *count* of *total* with its exact (Clopper-Pearson) 95 % interval.

    Source: Clopper and Pearson 1934, Biometrika.
    """
    if not 0 <= count <= total or total < 1:
        raise InputError(f"{count} of {total} is no share")
    tail = (1 - LEVEL) / 2
    low = 0.0 if count == 0 else float(stats.beta.ppf(tail, count, total - count + 1))
    high = 1.0 if count == total else float(stats.beta.ppf(1 - tail, count + 1, total - count))
    return Interval(count / total, low, high)


def missed_interval(found: ArrayLike, missed: ArrayLike) -> Interval | None:
    """Share of missed ones among found and missed objects of fields, with a 95 % interval.

    Objects of one field are alike, so the interval is that of a ratio over fields (linearised
    variance, Student's t) and never narrower than the exact one for independent objects.

    Parameters
    ----------
    found, missed
        (fields,) objects found and objects missed in each field.

    Returns
    -------
    None where no field holds an object.

    Source: Cochran 1977, Sampling Techniques, section 6.
    """
    there = np.asarray(found, float) + np.asarray(missed, float)
    gone = np.asarray(missed, float)
    n, total = there.size, float(there.sum())
    if total == 0:
        return None
    share = float(gone.sum()) / total
    exact = exact_interval(int(gone.sum()), int(total))
    if n < 2:
        return exact
    rest = gone - share * there
    error = float(np.sqrt(n / (n - 1) * (rest**2).sum())) / total
    reach = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    low, high = min(exact.low, share - reach), max(exact.high, share + reach)
    return Interval(share, max(0.0, low), min(1.0, high))


def summarise(sample: CheckSample, events: Iterable[Mapping[str, Any]]) -> CheckSummary:
    """What the events of a check say; the last word on each object and field counts.

    Parameters
    ----------
    sample
        What was drawn; judgements of anything else are left out.
    events
        In order: ``{"object": label, "judgement": ...}``, ``{"field": row, "found": n,
        "missed": n}`` and ``{"verdict": ..., "comment": ...}``.
    """
    judged: dict[int, str] = {}
    searched: dict[int, tuple[int, int]] = {}
    verdict, comment = "", ""
    for event in events:
        if event.get("object") in sample.objects:
            judged[int(event["object"])] = str(event["judgement"])
        elif event.get("field") in sample.fields:
            searched[int(event["field"])] = (int(event["found"]), int(event["missed"]))
        elif "verdict" in event:
            verdict, comment = str(event["verdict"]), str(event.get("comment", ""))
    counts = {word: list(judged.values()).count(word) for word in ("right", "wrong", "unsure")}
    sure = counts["right"] + counts["wrong"]
    pairs: NDArray[np.int64] = np.array(list(searched.values()), np.int64).reshape(-1, 2)
    return CheckSummary(
        counts["right"],
        counts["wrong"],
        counts["unsure"],
        len(sample.objects) - len(judged),
        len(sample.fields) - len(searched),
        len(searched),
        int(pairs[:, 0].sum()),
        int(pairs[:, 1].sum()),
        exact_interval(counts["wrong"], sure) if sure else None,
        missed_interval(pairs[:, 0], pairs[:, 1]),
        verdict,
        comment,
    )
