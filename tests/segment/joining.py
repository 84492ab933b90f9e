"""Objects of a mask made through blocks and seams, for comparison with those made at once."""

import numpy as np

from napari_mosaik.segment.run_length import LabelRuns, find_runs
from napari_mosaik.segment.stitch import ObjectStitcher, SeamLabels, holes_to_fill


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


def joined(shape, blocks):
    """The stitcher of blocks given as (window, labels that it owns), after joining them."""
    windows, owned = [window for window, _ in blocks], [labels for _, labels in blocks]

    def load(index):
        return LabelRuns.from_arrays(LabelRuns.of(owned[index]).arrays())

    stitcher = ObjectStitcher(shape, windows, load)
    assert list(stitcher.join()) == list(range(1, len(blocks) + 1))
    return stitcher
