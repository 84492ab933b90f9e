"""Sections with several pieces of tissue, such as a control tissue beside the section.

If the whole masks fit badly, each piece is tried by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from itertools import product

import numpy as np
import scipy  # its parts are loaded on first use

from napari_mosaik.core.progress import subprogress
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.alignment import Alignment, AlignmentWarning

__all__ = ["LOW_CONFIDENCE", "align_by_pieces", "pieces_of"]

LOW_CONFIDENCE = 0.4
"""Confidence below which an alignment has to be checked."""
_PIECE_SHARE = 0.15
"""Smallest area of a piece, as a share of the largest."""
_MAX_PIECES = 3
_GOOD_DICE = 0.9


def pieces_of(mask: Raster) -> list[Raster]:
    """The large connected pieces of a (rows, columns) tissue mask, the largest first."""
    labels, _ = scipy.ndimage.label(np.asarray(mask.values, bool), np.ones((3, 3)))
    area = np.bincount(labels.ravel())[1:]
    order = [i for i in np.argsort(-area, kind="stable") if area[i] >= _PIECE_SHARE * area.max()]
    return [Raster(labels == number + 1, mask.lattice) for number in order[:_MAX_PIECES]]


def align_by_pieces(
    moving: Raster,
    fixed: Raster,
    align: Callable[[Raster, Raster], Generator[float, None, Alignment]],
) -> Generator[float, None, Alignment]:
    """Align two (rows, columns) tissue masks, piece by piece if the whole has a low confidence.

    *align* registers one mask to another and yields the fraction done.
    """
    whole = yield from subprogress(align(moving, fixed), 0.0, 0.5)
    parts = pieces_of(moving), pieces_of(fixed)
    counts = [len(pieces) for pieces in parts]
    held = f"the sections hold {counts[0]} and {counts[1]} pieces of tissue (moving, fixed)"
    if max(counts) < 2:
        return whole
    if whole.confidence >= LOW_CONFIDENCE:
        if counts[0] == counts[1] or whole.dice >= _GOOD_DICE:
            return whole
        return _warned(whole, f"{held}: check that those which belong together lie on each other")
    pairs = list(product(*parts))
    tried = []
    for number, (one, other) in enumerate(pairs):
        span = 0.5 + 0.5 * number / len(pairs), 0.5 + 0.5 * (number + 1) / len(pairs)
        tried.append((yield from subprogress(align(one, other), *span)))
    best = max(tried, key=lambda alignment: alignment.confidence)
    found = best.confidence >= LOW_CONFIDENCE
    advice = (
        "one piece of each was aligned: check that they belong together"
        if found
        else "cut the one that does not belong (control tissue?) from its tissue mask, or set "
        "landmarks"
    )
    return _warned(best if found else whole, f"{held}; {advice}")


def _warned(alignment: Alignment, message: str) -> Alignment:
    warning = AlignmentWarning("several_pieces", message)
    return replace(alignment, warnings=(*alignment.warnings, warning))
