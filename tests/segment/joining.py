"""Objects of a mask made through blocks and seams, for comparison with those made at once."""

import numpy as np

from napari_mosaik.segment.run_length import find_runs
from napari_mosaik.segment.stitch import SeamLabels, holes_to_fill


def whole_objects(mask, blocks, max_hole=0, min_pixels=0):
    """Objects of a mask in memory, worked in blocks; (rows, columns), whatever the blocks.

    Holes of at most *max_hole* pixels are filled first, then objects below *min_pixels* dropped.
    """
    holes, objects = SeamLabels(blocks, holes=True), SeamLabels(blocks)
    filled = np.array(mask, bool)
    if max_hole > 0:
        for index, window in enumerate(blocks):
            holes.put(index, find_runs(mask[window]).holes())
        for index, fill in enumerate(holes_to_fill(holes, max_hole)):
            filled[blocks[index]] = find_runs(mask[blocks[index]]).filled(fill)
    for index, window in enumerate(blocks):
        objects.put(index, find_runs(filled[window]).objects())
    objects.join(min_pixels)
    out = np.zeros(mask.shape, np.int32)
    for index, window in enumerate(blocks):
        out[window] = find_runs(filled[window]).painted(objects.numbers(index))
    return out
