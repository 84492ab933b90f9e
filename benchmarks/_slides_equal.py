"""For the benchmark: the vessels of a streamed pass against those of the whole picture at once.

The stain and the closing are this program's, applied to the whole picture; lumens, objects and
their numbers come from SciPy.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _slides_pass import SPACING_UM, streaming_pass
from numpy.typing import NDArray
from scipy import ndimage

from napari_mosaik.core.catalogue import TISSUE, VESSELS
from napari_mosaik.core.raster import Raster
from napari_mosaik.io import open_slide
from napari_mosaik.io.case import Case
from napari_mosaik.io.slide import SlideBlocks, View
from napari_mosaik.io.slide.read.slide import SlideImage
from napari_mosaik.segment.vessel_params import VesselParams
from napari_mosaik.segment.vessels import pixel_limits, vessel_wall
from napari_mosaik.workflow.slide_blocks import resample_mask

__all__ = ["Equality", "compare_labels"]

BLOCKS_PX = (300, 512, 1024)
THRESHOLD_OD = 0.5

Labels = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Equality:
    """Pixels whose label differs, summed over all block sizes, and what was compared."""

    different: int
    vessels: int
    blocks_px: tuple[int, ...]


def compare_labels(slide: Path, folder: Path) -> Equality:
    """Stream a slide in blocks of several sizes and compare every label with the whole method's."""
    rules = [name for name in VesselParams.model_fields if name.startswith("exclude_")]
    settings = {
        "threshold": "fixed",
        "dab_od": THRESHOLD_OD,
        "spacing_um": SPACING_UM,
        "stains": "ruifrok",
        **dict.fromkeys(rules, False),
    }
    different, whole = 0, None
    for block_px in BLOCKS_PX:
        with _blocks_of(block_px):
            streaming_pass(slide, folder, **settings)
        store = Case(folder).store
        if whole is None:
            whole = _whole(slide, store.read(TISSUE["cd34"]), VesselParams(**settings))
        different += int((store.read(VESSELS).array() != whole).sum())
        shutil.rmtree(folder)
    assert whole is not None
    return Equality(different, int(whole.max()), BLOCKS_PX)


@contextmanager
def _blocks_of(edge_px: int) -> Iterator[None]:
    """Every pass works in blocks of about that edge."""
    usual = SlideImage.blocks

    def blocks(slide: SlideImage, *views: View, **more: Any) -> SlideBlocks:
        return usual(slide, *views, **{**more, "block_px": edge_px})

    SlideImage.blocks = blocks  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        SlideImage.blocks = usual  # type: ignore[method-assign]


def _whole(path: Path, tissue: Raster, params: VesselParams) -> Labels:
    with open_slide(path, frame=tissue.lattice.frame) as slide:
        image = slide.read_lattice(slide.working_lattice(params.spacing_um))
    wall = vessel_wall(image.values, params.spacing_um, params, params.dab_od)
    wall &= resample_mask(image.lattice, tissue)
    most, least = pixel_limits(params, image.lattice.sample_area_um2)
    holes, _ = ndimage.label(~wall)
    small = np.bincount(holes.ravel()) <= most
    small[np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])] = False
    small[0] = True  # the wall itself
    objects, _ = ndimage.label(small[holes], np.ones((3, 3)))
    large = np.bincount(objects.ravel()) >= least
    kept = np.where(large[objects], objects, 0)
    numbers, first = np.unique(kept, return_index=True)
    order = numbers[numbers > 0][np.argsort(first[numbers > 0])]
    table = np.zeros(int(objects.max()) + 1, np.int32)
    table[order] = np.arange(1, order.size + 1)
    return table[kept]
