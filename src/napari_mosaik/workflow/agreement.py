"""Two readers of a case: agreement, differences and the adjudicated set, once both have finished.

    journals ─► shapes and finished tiles of each reader ─► tiles that both have finished
        ─► `reader_agreement` (kappa, Dice)
        ─► `Comparison` (agreed regions, differences) ─► decisions in the adjudicator's journal
        ─► GeoJSON with `decided_by`

Before both have finished a tile, nothing here shows what either has drawn in it.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from napari_mosaik.annotate import (
    BOTH,
    DEFAULT_CLASSES,
    READING_TILE_UM,
    AnnotationDocument,
    Consensus,
    Difference,
    PairAgreement,
    adjudicated_shapes,
    consensus_of,
    pair_agreement,
    tile_confusion,
)
from napari_mosaik.annotate.brush import Area
from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.readers import check_reader_name
from napari_mosaik.core.shapes import DECIDED_BY
from napari_mosaik.io.annotations import write_geojson
from napari_mosaik.io.case import Case
from napari_mosaik.segment.training_pixels import class_list
from napari_mosaik.workflow.annotations import (
    FinishedTiles,
    decisions,
    finished_tiles,
    readings,
)

__all__ = [
    "Comparison",
    "adjudicate",
    "compare",
    "compared_readers",
    "reader_agreement",
    "readers_state",
]


def reader_agreement(case: Case, stain: str = "he", *, seed: int = 0) -> dict[str, Any]:
    """Kappa with its interval, and Dice per class, of every two readers.

    Compared is what both have drawn in reading tiles that both have finished.

    Raises
    ------
    InputError
        Fewer than two readers, or no two who have finished a tile in common.
    """
    documents = _two_or_more(case, stain)
    finished = finished_tiles(case, stain)
    pairs, missing = _common(documents, finished)
    if not pairs:
        raise InputError(_unfinished(case, missing))
    with case.slide(stain) as slide:
        lattice = slide.lattice
    warnings = [_unfinished(case, missing)] if missing else []
    drawn = [one for document in documents.values() for one in document.shapes if one.label]
    names, found = class_list(drawn), []
    for (one, other), common in pairs.items():
        shapes = documents[one].shapes, documents[other].shapes
        confusion = tile_confusion(*shapes, names, lattice, common.__contains__)
        result = pair_agreement(confusion, names, seed=seed)
        warnings += [f"{one} and {other}: {why}" for why in result.why]
        found.append({"readers": [one, other], **_pair_record(result)})
    complete = [reader for reader in documents if finished.get(reader, FinishedTiles()).complete]
    return {
        "case": case.name, "slide": str(stain), "classes": list(names), "pairs": found,
        "finished": complete, "warnings": warnings,
    }  # fmt: skip


def _pair_record(result: PairAgreement) -> dict[str, Any]:
    """The figures of two readers; None where one is undefined."""
    record = {item.name: getattr(result, item.name) for item in fields(result)}
    del record["why"]
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in record.items()
    }


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Two readers of a slide within the tiles that both have finished.

    Parameters
    ----------
    readers
        Their names.
    consensus
        Agreed regions and differences, µm of the slide.
    colours
        Colour of each class, "#rrggbb".
    """

    case: Case
    stain: str
    readers: tuple[str, str]
    consensus: Consensus
    lattice: Lattice
    colours: dict[str, str]

    def preferred(self, one: Difference, reader: str) -> str:
        """The class of the preferred reader; where they have drawn nothing, the other's."""
        own, other = one.first, one.second
        if reader == self.readers[1]:
            own, other = other, own
        return own or other

    def write(
        self, path: Path, by: str, decided: dict[str, str], prefer: str = ""
    ) -> dict[str, Any]:
        """Write the agreed set: what both agree on, and what *by* has decided.

        *decided* are the decisions by key of the region.  The other differences get the class of
        the reader *prefer*, or are left out where nobody is preferred.  Returns areas and counts.
        """
        left: list[Difference] = []

        def decide(one: Difference) -> tuple[str, str] | None:
            label = decided.get(one.key)
            if label is None and prefer:
                label = self.preferred(one, prefer)
            if label is None:
                left.append(one)
            return None if label is None else (label, by)

        shapes = adjudicated_shapes(self.consensus, self.readers, decide, self.colours)
        write_geojson(path, shapes, self.lattice)
        areas = {True: 0.0, False: 0.0}
        for shape in shapes:
            areas[shape.properties[DECIDED_BY] == BOTH] += shape.geometry.area / 1e6
        return {
            "readers": list(self.readers), "by": by, "prefer": prefer or None,
            "shapes": len(shapes), "agreed_mm2": areas[True], "decided_mm2": areas[False],
            "undecided": len(left),
            "undecided_mm2": sum(one.geometry.area for one in left) / 1e6,
        }  # fmt: skip


def compare(case: Case, stain: str = "he", readers: tuple[str, str] | None = None) -> Comparison:
    """Part what two readers have drawn into agreed regions and differences.

    *readers* may be omitted where there are two.

    Raises
    ------
    InputError
        As `reader_agreement`; also for a reader who has no annotations.
    """
    documents = _two_or_more(case, stain)
    if readers is None:
        if len(documents) > 2:
            raise InputError(
                f"case {case.name} has the readers {', '.join(documents)}; name two of them"
            )
        first, second = documents
        readers = first, second
    for reader in readers:
        _known(case, stain, documents, reader)
    both = {reader: documents[reader] for reader in readers}
    finished = finished_tiles(case, stain)
    pairs, missing = _common(both, finished)
    if not pairs:
        raise InputError(_unfinished(case, missing))
    ((_, common),) = pairs.items()
    with case.slide(stain) as slide:
        lattice = slide.lattice
    drawn = [document.shapes for document in both.values()]
    listed = [known for document in both.values() for known in document.snapshot.classes]
    colours = {known.name: known.colour for known in (*DEFAULT_CLASSES, *listed)}
    parted = consensus_of(drawn[0], drawn[1], _area_of(common, [*drawn[0], *drawn[1]]))
    return Comparison(case, stain, readers, parted, lattice, colours)


def readers_state(case: Case, stain: str = "he") -> dict[str, FinishedTiles | None]:
    """The readers of a slide with the tiles that each has finished; None for none."""
    finished = finished_tiles(case, stain)
    return {reader: finished.get(reader) for reader in readings(case, stain)}


def compared_readers(
    case: Case, readers: tuple[str, str], stain: str = "he"
) -> Generator[Progress, None, tuple[dict[str, Any], Comparison, dict[str, dict[str, str]]]]:
    """The figures of two readers with their warnings, their differences, and what was decided."""
    yield Progress(0.0, 1, "comparing pixels")
    whole = reader_agreement(case, stain)
    pair = next((one for one in whole["pairs"] if set(one["readers"]) == set(readers)), None)
    if pair is None:
        raise InputError(f"{readers[0]} and {readers[1]} have finished no tile in common yet")
    yield Progress(0.5, 1, "parting agreed regions and differences")
    found = compare(case, stain, readers)
    prefix = "{} and {}: ".format(*pair["readers"])
    why = [text.removeprefix(prefix) for text in whole["warnings"] if text.startswith(prefix)]
    yield Progress(0.9, 1, "reading decisions")
    return {**pair, "warnings": why}, found, decisions(case, stain)


def adjudicate(
    case: Case, path: Path, *, prefer: str, by: str, other: str = "", stain: str = "he"
) -> dict[str, Any]:
    """Write the set on which two readers agree, and where they differ the preferred class.

    What *by* has decided in the window comes first.

    Parameters
    ----------
    case, stain
        The case, and the annotated slide.
    path
        GeoJSON file to write.
    prefer, other
        The reader who is preferred, and the other; the latter may be omitted where there are two.
    by
        Name of the adjudicator.

    Raises
    ------
    InputError
        As `compare`.
    """
    by, prefer = check_reader_name(by), check_reader_name(prefer)
    if by.casefold() == BOTH:
        raise InputError(f"'{by}' is reserved for what both agree on; give another name")
    documents = _two_or_more(case, stain)
    _known(case, stain, documents, prefer)
    others = [check_reader_name(other)] if other else [r for r in documents if r != prefer]
    if len(others) > 1:
        raise InputError(
            f"case {case.name} has the readers {', '.join(documents)}; "
            f"name the reader to compare {prefer} with: --other"
        )
    if others == [prefer]:
        raise InputError(f"reader {prefer} cannot be compared with themselves; give another reader")
    found = compare(case, stain, (prefer, others[0]))
    record = found.write(path, by, decisions(case, stain).get(by, {}), prefer)
    case.log("adjudicate", slide=str(stain), **record)
    warnings = [f"{prefer} and {others[0]} have drawn nothing in tiles that both have finished"]
    return {
        "case": case.name, "slide": str(stain), **record, "file": str(path),
        "warnings": [] if record["shapes"] else warnings,
    }  # fmt: skip


def _two_or_more(case: Case, stain: str) -> dict[str, AnnotationDocument]:
    documents = readings(case, stain)
    if len(documents) < 2:
        names = ", ".join(documents) or "none"
        raise InputError(
            f"agreement needs annotations of two readers on {stain} of case {case.name}; "
            f"so far: {names}"
        )
    return documents


def _known(case: Case, stain: str, documents: dict[str, AnnotationDocument], reader: str) -> None:
    if reader not in documents:
        raise InputError(
            f"reader {reader} has no annotations on {stain} of case {case.name}; "
            f"readers: {', '.join(documents)}"
        )


def _common(
    documents: Iterable[str], finished: dict[str, FinishedTiles]
) -> tuple[dict[tuple[str, str], FinishedTiles], list[str]]:
    """The tiles that each two readers have finished, and who has not finished what another has."""
    pairs: dict[tuple[str, str], FinishedTiles] = {}
    missing: list[str] = []
    for one, other in combinations(documents, 2):
        states = [finished.get(reader, FinishedTiles()) for reader in (one, other)]
        common = states[0].common(states[1])
        if common.any:
            pairs[one, other] = common
        else:
            incomplete = [r for r, state in zip((one, other), states, strict=True) if not state.any]
            missing += incomplete or [one, other]
    return pairs, list(dict.fromkeys(missing))


def _unfinished(case: Case, missing: list[str]) -> str:
    """Who has to finish before readers can be compared."""
    have = "has" if len(missing) == 1 else "have"
    commands = "; ".join(
        f"napari-mosaik annotate finish {case.root} --reader '{reader}'" for reader in missing
    )
    return (
        f"case {case.name}: {' and '.join(missing)} {have} not finished the same tiles as another "
        f"reader, and until then each sees only their own marks; when all is read: {commands}"
    )


def _area_of(common: FinishedTiles, shapes: Iterable[Any]) -> Area | None:
    """The area of the common tiles in µm, as far as there are shapes; None for everything."""
    if common.complete:
        return None
    corners = np.array(sorted(common.tiles), float)[:, ::-1] * READING_TILE_UM
    listed: Any = shapely.union_all(
        shapely.box(corners[:, 0], corners[:, 1], *(corners + READING_TILE_UM).T)
    )
    whole = shapely.box(*shapely.total_bounds([one.geometry for one in shapes]))
    area: Area = shapely.difference(whole, listed) if common.whole else listed
    return area
