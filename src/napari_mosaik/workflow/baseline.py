"""The results as they were before the last update of a case, kept until the next one.

    update ──► CASE/update.json: which versions were there before, what was recomputed, how long
                    └── pins these versions in CASE/earlier (`CaseStore.prune`)

The file survives closing the window: `workflow.worth` reads both states from the store.  An update
that was interrupted is not finished in the file, and the next one keeps its before-state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from napari_mosaik.core.artifact import Artifact, defined_artifacts
from napari_mosaik.core.catalogue import (
    CLASS_RECORD,
    CLASSES,
    CLUSTERS,
    METRICS,
    PARAMETERS,
    PREDICTION,
    TILES,
)
from napari_mosaik.core.errors import InputError, MosaikError
from napari_mosaik.core.manifest import read_sealed, sealed
from napari_mosaik.io.case import Case
from napari_mosaik.io.files import write_json

__all__ = ["COMPARED", "LastUpdate", "pinned", "read_baseline", "take_baseline"]

COMPARED: tuple[Artifact[Any], ...] = (
    TILES, CLASSES, CLASS_RECORD, PARAMETERS, CLUSTERS, PREDICTION, METRICS
)  # fmt: skip
"""Results whose state before an update is kept."""
_FILE = "update.json"


@dataclass(frozen=True, slots=True)
class LastUpdate:
    """The state before an update, and what the update did.

    Parameters
    ----------
    before
        Digest of the origin of each compared result that was there, by name.
    done
        Whether the update has ended; the others are those of an update that was interrupted.
    time
        When it began (ISO, UTC).
    n_tiles
        Tiles of which something was recomputed because its input had changed.
    seconds
        Duration.
    steps
        Seconds by step, of those that ran.
    tiles
        Recomputed tiles by step, of the steps that work tile by tile.
    """

    before: Mapping[str, str]
    done: bool = False
    time: str = ""
    n_tiles: int = 0
    seconds: float = 0.0
    steps: Mapping[str, float] = field(default_factory=dict)
    tiles: Mapping[str, int] = field(default_factory=dict)

    def write(self, case: Case) -> None:
        """Store it; the caller holds the write lock of the case."""
        write_json(case.root / _FILE, sealed(asdict(self)))


def read_baseline(case: Case) -> LastUpdate | None:
    """What is known of the last update of a case; None where there was none.

    Raises `InputError` if the file is damaged.
    """
    try:
        return LastUpdate(**read_sealed(case.root / _FILE))
    except FileNotFoundError:
        return None
    except (MosaikError, TypeError) as error:
        raise InputError(
            f"{case.root / _FILE} is damaged; delete it: the next update writes it again"
        ) from error


def take_baseline(case: Case, time: str) -> LastUpdate:
    """The state of now, or that before an update that was interrupted."""
    try:
        last = read_baseline(case)
    except InputError:
        last = None
    if last is not None and not last.done:
        return last
    stored = {artifact.name: case.store.origin(artifact) for artifact in COMPARED}
    before = {name: origin.digest() for name, origin in stored.items() if origin is not None}
    return LastUpdate(before, time=time)


def pinned(case: Case) -> Iterator[tuple[str, str]]:
    """Versions that the last update is compared with, as `CaseStore.prune` takes them."""
    try:
        last = read_baseline(case)
    except InputError:
        return
    known = {artifact.name for artifact in defined_artifacts()}
    if last is not None:
        yield from ((name, digest) for name, digest in last.before.items() if name in known)
