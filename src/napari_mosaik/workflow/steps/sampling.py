"""Pixels sampled over the tissue of a slide, from which stains and thresholds are estimated."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.blocks import Block
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.raster import Raster
from napari_mosaik.workflow.lazy_labels import resample_mask, sample_blocks

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.workflow.step_context import StepContext

__all__ = ["sample_tissue"]

_BLOCK_PX = 256


def sample_tissue(
    inputs: StepContext,
    slide: Slide,
    lattice: Lattice,
    mask: Raster,
    *,
    n_blocks: int,
    stride: int,
    stage: str = "samples",
    stop: float = 0.05,
    measure: Callable[[Raster], NDArray[Any]] | None = None,
) -> Generator[Progress, None, NDArray[Any]]:
    """Every *stride*-th pixel within the tissue in small blocks spread evenly over it.

    Parameters
    ----------
    inputs, slide
        Of the running step.
    lattice, mask
        Working lattice of the slide; (rows, columns) mask of its tissue, of any pixel size.
    n_blocks, stride
        Maximum number of blocks of 256 x 256 pixels; step between sampled pixels.
    stage, stop
        Name of the stage in the scratch folder; progress at its end (fraction).
    measure
        Values (rows, columns, ...) of a block that are sampled; its 8-bit RGB levels if None.

    Returns
    -------
    numpy.ndarray
        (n, 3) 8-bit levels, or (n, ...) values of *measure*; of length 0 without tissue.
    """

    def sample(block: Block) -> dict[str, NDArray[Any]]:
        image = slide.read_lattice(block.core)
        values = image.values if measure is None else measure(image)
        inside = resample_mask(block.core, mask)[::stride, ::stride]
        return {"values": values[::stride, ::stride][inside]}

    blocks = sample_blocks(lattice, _BLOCK_PX, mask, n_blocks)
    samples = yield from inputs.blocks(stage, blocks, sample, "estimating the stain", stop=stop)
    empty = np.zeros((0, 3), np.uint8) if measure is None else np.zeros(0)
    return np.concatenate([empty, *samples.column("values")])
