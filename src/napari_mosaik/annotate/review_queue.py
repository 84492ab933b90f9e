"""The review queue: tiles in the order in which a reader's attention is worth most.

    signals (n,) ─► ranks ─► weighted mean ─► greedy order, places apart ─► control tiles mixed in
    judgements ─► error rate with interval (inverse-probability weights), expected gain of going on

Everything here is blind to the measured uptake but the signal "uptake", which only the ranking of
that name uses.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.annotate.visual_qa import LEVEL
from napari_mosaik.core import FloatArray, InputError, Params, setting
from napari_mosaik.core.uncertainty import normalised_entropy

__all__ = [
    "DEFAULT_RANKING",
    "ERROR_RANKING",
    "RANKINGS",
    "ErrorRate",
    "QueuedTile",
    "Ranking",
    "ReviewQueueParams",
    "Signal",
    "class_signals",
    "cold_among_hot",
    "draw_queue",
    "error_rate",
    "expected_gain",
    "priorities",
    "ranking_named",
    "spread_order",
    "take_turns",
    "tile_kinds",
]


class ReviewQueueParams(Params):
    """Settings of the review queue."""

    control_share: float = setting(
        0.1, "Share of the tiles that are drawn at random as control sample.", ge=0.05, le=1
    )
    kinds: int = setting(
        10,
        "Kinds of tiles, by what the classifier sees in them, that take turns in the default "
        "ranking; 1 for none. A classifier that is trained on one kind alone knows little of the "
        "others.",
        ge=1,
        le=100,
    )
    apart_um: float = setting(
        150.0,
        "Distance over which a chosen tile lowers the priority of its neighbours, so that "
        "overlapping tiles do not follow one another.",
        unit="µm",
        ge=0,
    )


@dataclass(frozen=True, slots=True)
class Ranking:
    """One way to order the tiles: its name, what it means, and the weights of its signals."""

    name: str
    about: str
    weights: Mapping[str, float]

    @property
    def blind(self) -> bool:
        """Whether it never reads the measured uptake."""
        return ERROR_RANKING not in self.weights


DEFAULT_RANKING: Final = "default"
ERROR_RANKING: Final = "uptake"
"""The only ranking, and signal, that reads the measured uptake."""

RANKINGS: Final = {
    name: Ranking(name, about, weights or {name: 1.0})
    for name, about, weights in (
        (
            DEFAULT_RANKING,
            "Tiles where several signals meet: uncertainty, disagreement, rare class, cold among "
            "hot, artefacts; the kinds of tiles take turns.",
            {
                "uncertainty": 1.0,
                "disagreement": 0.5,
                "rare": 0.5,
                "cold-among-hot": 0.5,
                "artefacts": 0.25,
            },
        ),
        ("uncertainty", "Tiles whose tissue class the classifier is least sure of.", None),
        (
            "disagreement",
            "Tiles where readers, classifier or uptake models contradict one another.",
            None,
        ),
        ("boundary", "Tiles that a boundary between tissue classes crosses.", None),
        ("rare", "Tiles with tissue of a class that is rare in this section.", None),
        (
            "cold-among-hot",
            "Tiles whose predicted uptake is low while that of their neighbours is high.",
            None,
        ),
        ("artefacts", "Tiles with an artefact or damage in them or at their rim.", None),
        (
            ERROR_RANKING,
            "Tiles with the largest difference of predicted and measured uptake; it reads the "
            "measured PET, so the case becomes a development case.",
            None,
        ),
    )
}
"""Every ranking by name.

The boundary is not part of the default: outlines are where readers err most themselves, and tiles
full of them made the retrained classifier worse (study in ``docs/annotation.md``).
"""


def ranking_named(name: str) -> Ranking:
    """The ranking of a name.

    Raises
    ------
    InputError
        For an unknown name, with those that there are.
    """
    if name not in RANKINGS:
        raise InputError(f"there is no ranking '{name}'; use one of: {', '.join(RANKINGS)}")
    return RANKINGS[name]


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """One number per tile, (n,), 0 for nothing to see and NaN for no data, with its reasons.

    ``reason`` says in words what the number of a tile means.
    """

    values: FloatArray
    reason: Callable[[int], str]


def class_signals(probability: ArrayLike, names: Sequence[str]) -> dict[str, Signal]:
    """Uncertainty, boundary and rarity of the tissue classes in each tile.

    Parameters
    ----------
    probability
        (n, p, p, k) class probabilities, fraction, on p x p points of each tile; NaN off tissue.
    names
        Names of the k classes.

    Returns
    -------
    dict
        "uncertainty": mean normalised entropy of the points.  "boundary": share of neighbouring
        points whose classes differ.  "rare": mean self-information of the classes in the tile,
        in bits, without that of the commonest class.
    """
    values = np.asarray(probability, float)
    if values.ndim != 4 or values.shape[3] != len(names):
        raise InputError(
            f"class probabilities have the shape {values.shape}; (tiles, rows, columns, "
            f"{len(names)} classes) is needed"
        )
    known = np.isfinite(values).all(axis=3)
    some = known.any(axis=(1, 2))
    count = np.maximum(known.sum(axis=(1, 2)), 1)
    entropy = np.where(known, normalised_entropy(np.where(known[..., None], values, 1.0)), 0.0)
    uncertainty = np.where(some, entropy.sum(axis=(1, 2)) / count, np.nan)
    top = np.where(known, np.where(known[..., None], values, 0.0).argmax(axis=3), -1)
    pairs, differ = np.zeros(len(values)), np.zeros(len(values))
    for one, other in ((top[:, 1:], top[:, :-1]), (top[:, :, 1:], top[:, :, :-1])):
        both = (one >= 0) & (other >= 0)
        pairs += both.sum(axis=(1, 2))
        differ += (both & (one != other)).sum(axis=(1, 2))
    boundary = np.where(pairs > 0, differ / np.maximum(pairs, 1), np.nan)
    share = np.stack([(top == k).sum(axis=(1, 2)) for k in range(len(names))], axis=1)
    prevalence = share.sum(axis=0) / max(1, share.sum())
    share = share / count[:, None]
    with np.errstate(divide="ignore"):
        surprise = np.where(prevalence > 0, -np.log2(np.where(prevalence > 0, prevalence, 1)), 0)
    surprise -= surprise[prevalence.argmax()] if len(names) else 0.0
    rare = np.where(some, share @ np.maximum(surprise, 0.0), np.nan)

    def uncertain(tile: int) -> str:
        return f"tissue class uncertain (mean uncertainty {100 * uncertainty[tile]:.0f} %)"

    def crossed(tile: int) -> str:
        first, second = (names[k] for k in np.argsort(-share[tile], kind="stable")[:2])
        return f"class boundary in the tile ({first} and {second})"

    def seldom(tile: int) -> str:
        k = int((share[tile] * np.maximum(surprise, 0.0)).argmax())
        return (
            f"{100 * share[tile, k]:.0f} % of the tile is {names[k]}, which is "
            f"{100 * prevalence[k]:.0f} % of the section"
        )

    return {
        "uncertainty": Signal(uncertainty, uncertain),
        "boundary": Signal(boundary, crossed),
        "rare": Signal(rare, seldom),
    }


def cold_among_hot(predicted: ArrayLike, windows: NDArray[np.int64], unit: str) -> Signal:
    """How far the predicted uptake of a tile lies below that of its hot neighbours.

    Parameters
    ----------
    predicted
        (n,) predicted uptake, in *unit*; NaN for none.
    windows
        (n, 3, 3) index of the tiles around each tile, -1 where there is none.
    unit
        Unit of the uptake in the reasons.

    Returns
    -------
    Signal
        The mean of the neighbours minus the tile's own value, in *unit*; 0 where the neighbours are
        not above the median of the case, or not above the tile.
    """
    own = np.asarray(predicted, float)
    around = np.asarray(windows, np.int64).reshape(len(own), 9)
    around = np.delete(around, 4, axis=1)
    values = np.where(around >= 0, np.append(own, np.nan)[around], np.nan)
    known = np.isfinite(values)
    mean = np.where(known, values, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    middle = float(np.median(own[np.isfinite(own)])) if np.isfinite(own).any() else 0.0
    gap = np.where((mean > middle) & known.any(axis=1), np.maximum(mean - own, 0.0), 0.0)
    gap = np.where(np.isfinite(own), gap, np.nan)

    def reason(tile: int) -> str:
        return (
            f"predicted uptake {own[tile]:.3g} {unit}".rstrip()
            + f", but {mean[tile]:.3g} in the tiles around it (cold among hot)"
        )

    return Signal(gap, reason)


def priorities(
    signals: Mapping[str, Signal], ranking: Ranking, n: int
) -> tuple[FloatArray, list[str]]:
    """Review priority (n,), a fraction, and the reason for each of n tiles.

    Each signal becomes average ranks in (0, 1] over the tiles that have it, so that signals of
    different units can be added; 0 stays 0.  The priority is their weighted mean over the signals
    that there are; NaN for a tile that has none.
    """
    used = [(name, weight) for name, weight in ranking.weights.items() if name in signals]
    total = sum(weight for _, weight in used)
    if total <= 0:
        return np.full(n, np.nan), [""] * n
    parts = np.zeros((len(used), n))
    known = np.zeros(n, bool)
    for row, (name, weight) in enumerate(used):
        values = np.asarray(signals[name].values, float)
        if values.shape != (n,):
            raise InputError(
                f"the signal '{name}' has the shape {values.shape}; one value for each of {n} "
                "tiles is needed"
            )
        parts[row] = weight * _ranks(values)
        known |= np.isfinite(values)
    priority = np.where(known, parts.sum(axis=0) / total, np.nan)
    best = parts.argmax(axis=0)
    reasons = [
        signals[used[best[tile]][0]].reason(tile) if priority[tile] > 0 else "nothing conspicuous"
        for tile in range(n)
    ]
    return priority, reasons


def _ranks(values: FloatArray) -> FloatArray:
    """Average ranks divided by their number, in (0, 1]; 0 for NaN and for values of 0."""
    from scipy.stats import rankdata

    ranks = np.zeros(values.shape)
    valid = np.isfinite(values)
    if valid.any():
        ranks[valid] = rankdata(values[valid]) / valid.sum()
    ranks[values == 0] = 0.0
    return ranks


def spread_order(
    priority: ArrayLike, centres_um: ArrayLike, apart_um: float
) -> tuple[NDArray[np.int64], FloatArray]:
    """Greedy order of tiles and their falling scores: each choice lowers what lies near it.

    A tile at the distance d of a chosen one keeps the share 1 - exp(-(d / apart_um)^2 / 2) of its
    priority.  Priorities only ever fall, so the scores fall along the order.  Equal ones go by
    index.

    Parameters
    ----------
    priority
        (n,) review priority, fraction; NaN takes no part.
    centres_um
        (n, 2) tile centres, µm.
    apart_um
        Reach, µm; 0 for none.

    Returns
    -------
    numpy.ndarray, numpy.ndarray
        (m,) index of the tiles in order and (m,) their scores, fraction.
    """
    from scipy.spatial import cKDTree

    value = np.array(priority, float)
    places = np.asarray(centres_um, float).reshape(-1, 2)
    takes_part = np.flatnonzero(np.isfinite(value))
    heap = [(-value[tile], int(tile)) for tile in takes_part]
    heapq.heapify(heap)
    tree = cKDTree(places) if apart_um > 0 and len(places) else None
    waiting = np.isfinite(value)
    order: list[int] = []
    scores: list[float] = []
    while heap:
        score, tile = heapq.heappop(heap)
        if not waiting[tile] or -score != value[tile]:
            continue  # an entry from before its priority fell
        waiting[tile] = False
        order.append(tile)
        scores.append(float(value[tile]))
        if tree is None:
            continue
        near = np.asarray(sorted(tree.query_ball_point(places[tile], 3 * apart_um)), np.int64)
        near = near[waiting[near]]
        distance = np.hypot(*(places[near] - places[tile]).T) / apart_um
        value[near] *= -np.expm1(-(distance**2) / 2)
        for other in near.tolist():
            heapq.heappush(heap, (-value[other], other))
    return np.asarray(order, np.int64), np.asarray(scores, float)


def tile_kinds(
    probability: ArrayLike, takes_part: NDArray[np.bool_], n_kinds: int
) -> NDArray[np.int64]:
    """Kind (n,) of each tile by what the classifier sees in it; -1 where it sees nothing.

    The kinds are k-means clusters of mean and SD of the class probabilities in a tile, each over
    its spread among the tiles.

    Parameters
    ----------
    probability
        (n, p, p, k) class probabilities, fraction, on p x p points of each tile; NaN off tissue.
    takes_part
        (n,) the tiles that are divided.
    n_kinds
        At most so many kinds.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    values = np.asarray(probability, float)
    known = np.isfinite(values).all(axis=3, keepdims=True)
    count = np.maximum(known.sum(axis=(1, 2)), 1)
    mean = np.where(known, values, 0.0).sum(axis=(1, 2)) / count
    apart = np.where(known, values - mean[:, None, None], 0.0)
    looks = np.concatenate([mean, np.sqrt((apart**2).sum(axis=(1, 2)) / count)], axis=1)
    own = np.flatnonzero(takes_part & known.any(axis=(1, 2, 3)))
    kinds = np.full(len(values), -1, np.int64)
    if own.size:
        looks = (looks - looks.mean(axis=0)) / (looks.std(axis=0) + 1e-9)
        different = len(np.unique(looks[own], axis=0))
        model = KMeans(min(n_kinds, different), n_init=2, random_state=0)
        with threadpool_limits(1):  # sums of several threads depend on their number
            kinds[own] = model.fit_predict(looks[own])
    return kinds


def take_turns(
    order: NDArray[np.int64], scores: FloatArray, kinds: NDArray[np.int64]
) -> tuple[NDArray[np.int64], FloatArray]:
    """The order in rounds with one tile of each kind that is left, and its falling scores.

    Within a kind the order stays; within a round the higher score comes first.

    Parameters
    ----------
    order, scores
        (m,) index of the tiles in order, and their scores, fraction; see `spread_order`.
    kinds
        Kind by index of the tile, label.

    Returns
    -------
    numpy.ndarray, numpy.ndarray
        (m,) index of the tiles and (m,) score, fraction: rounds that are left, and the score
        within the round, over the number of rounds.
    """
    met: dict[int, int] = {}
    turns = np.zeros(len(order), np.int64)
    for place, kind in enumerate(kinds[order].tolist()):
        turns[place] = met[kind] = met.get(kind, -1) + 1
    rounds = int(turns.max(initial=-1)) + 1
    found = (rounds - 1 - turns + scores) / max(rounds, 1)
    places = np.argsort(-found, kind="stable")
    return order[places], np.asarray(found[places], float)


@dataclass(frozen=True, slots=True)
class QueuedTile:
    """One tile of the queue.

    Parameters
    ----------
    rank
        Place in the queue, from 1.
    tile
        Index of the tile.
    score
        Review priority at this place, 0 to 1; it falls along the queue.  A control tile has that of
        its place, because it was put there by chance.
    reason
        What is worth looking at, in words.
    control
        Whether the tile belongs to the random control sample.
    probability
        Probability with which a control tile was drawn; None for the others.
    place
        Place of the tile in the order without control sample, from 0.
    """

    rank: int
    tile: int
    score: float
    reason: str
    control: bool
    probability: float | None
    place: int


def draw_queue(
    order: NDArray[np.int64],
    scores: FloatArray,
    reasons: Sequence[str],
    seed: int,
    control_share: float = 0.1,
) -> list[QueuedTile]:
    """The queue: the tiles in order, with a simple random sample of them at random places.

    The control sample is drawn from all tiles without regard to their order, and one of it stands
    at a random place in each of as many equal stretches of the queue, so that those seen first are
    again a random sample.

    Parameters
    ----------
    order, scores
        (m,) index of the tiles in order, and their scores (fraction); see `spread_order`.
    reasons
        Reason by index of the tile.
    seed
        Random seed of the control sample.
    control_share
        Share of the tiles in the control sample, at least 0.05.
    """
    n = len(order)
    if not n:
        return []
    rng = np.random.default_rng([seed, n])
    size = min(n, max(math.ceil(control_share * n - 1e-9), 1))
    drawn = rng.permutation(n)[:size]  # places in the order; in random order
    edges = np.linspace(0, n, size + 1).round().astype(int)
    slots = [int(rng.integers(low, high)) for low, high in itertools.pairwise(edges)]
    chosen = dict(zip(slots, drawn.tolist(), strict=True))
    control = set(drawn.tolist())
    others = iter([place for place in range(n) if place not in control])
    queue: list[QueuedTile] = []
    places = [chosen[slot] if slot in chosen else next(others) for slot in range(n)]
    score = next((float(scores[p]) for p in places if p not in control), float(scores[0]))
    for slot, place in enumerate(places):
        tile, own = int(order[place]), place in control
        if not own:
            score = float(scores[place])
        queue.append(
            QueuedTile(slot + 1, tile, score, reasons[tile], own, size / n if own else None, place)
        )
    return queue


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """Share of wrong tiles among all tiles of the queue, with its 95 % interval.

    ``estimate`` is None until a control tile beyond the reviewed ones was judged.  ``judged`` of
    ``total`` tiles were judged, ``control`` of them of the control sample.
    """

    estimate: float | None
    low: float
    high: float
    judged: int
    total: int
    control: int


def error_rate(queue: Sequence[QueuedTile], wrong: Mapping[int, bool]) -> ErrorRate:
    """Estimate the share of wrong tiles from the judgements so far, without bias.

    The tiles that the order put first and that were judged one after the other are known, and count
    with the weight 1.  The rest of the order is known from its control tiles alone, which count
    with the inverse of their probability there (number of control tiles judged in the rest over
    number of tiles in the rest).  Control tiles among the first that were not reached yet are a
    random part of those, and are counted in the same way.  For a given length of the review
    the estimate is unbiased over the random choice of the control sample (Horvitz and Thompson
    1952, J Am Stat Assoc 47:663).  The interval is exact for sampling without replacement
    (hypergeometric); where two parts are sampled, each has half of the error probability.

    Parameters
    ----------
    queue
        See `draw_queue`.
    wrong
        By index of the tile: whether its judgement was that something is wrong.
    """
    n = len(queue)
    by_place = sorted(queue, key=lambda item: item.place)
    judged_control = [item for item in queue if item.control and item.tile in wrong]
    judged = sum(item.tile in wrong for item in queue)
    border = -1  # place of the last tile up to which all but control tiles were judged
    for item in by_place:
        if not item.control:
            if item.tile not in wrong:
                break
            border = item.place
    # The tile at the border is known; whether one before it is a control tile is chance.
    known = int(wrong[by_place[border].tile]) if border >= 0 else 0
    first = [item for item in by_place[: max(border, 0)] if item.tile in wrong]
    rest = [item for item in judged_control if item.place > border]
    parts = [
        (max(border, 0), len(first), sum(wrong[item.tile] for item in first)),
        (n - border - 1, len(rest), sum(wrong[item.tile] for item in rest)),
    ]
    sampled = [size for size, seen, _ in parts if seen < size]
    tail = (1 - LEVEL) / 2 / max(1, len(sampled))
    low = high = float(known)
    estimate: float | None = float(known)
    for size, seen, bad in parts:
        bounds = _hypergeometric(size, seen, bad, tail)
        low, high = low + bounds[0], high + bounds[1]
        if size and not seen:
            estimate = None
        elif size and estimate is not None:
            estimate += bad * size / seen
    share = max(1, n)
    return ErrorRate(
        None if estimate is None or not n else estimate / share,
        low / share,
        high / share,
        judged,
        n,
        len(judged_control),
    )


def _hypergeometric(size: int, seen: int, bad: int, tail: float) -> tuple[int, int]:
    """Lowest and highest number of bad ones among *size*, of which *seen* held *bad*."""
    from scipy.stats import hypergeom

    if seen >= size:
        return bad, bad
    if not seen:
        return 0, size
    possible = np.arange(bad, size - (seen - bad) + 1)
    at_least = hypergeom.sf(bad - 1, size, possible, seen)
    at_most = hypergeom.cdf(bad, size, possible, seen)
    kept = possible[(at_least > tail) & (at_most > tail)]
    return int(kept.min()), int(kept.max())


RECENT = 20
"""The expected gain is that of so many tiles before."""


def expected_gain(queue: Sequence[QueuedTile], wrong: Mapping[int, bool]) -> float | None:
    """Probability that the next tile of the queue is wrong; None before any was judged.

    The scores fall along the queue, so the tiles judged last resemble those that come next: of the
    last `RECENT` judged tiles other than control tiles, (wrong + 1/2) / (judged + 1), which is the
    posterior mean of a share with Jeffreys' prior.
    """
    last = [item for item in queue if not item.control and item.tile in wrong][-RECENT:]
    if not last:
        return None
    return (sum(wrong[item.tile] for item in last) + 0.5) / (len(last) + 1)
