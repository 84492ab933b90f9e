"""Labels made block by block equal labels made at once."""

import numpy as np
import pytest
from scipy import ndimage

from napari_mosaik.core import InputError
from napari_mosaik.segment.masks import label_mask
from napari_mosaik.segment.run_length import BlockComponents, find_runs
from napari_mosaik.segment.stitch import SeamLabels, holes_to_fill, windows

from .joining import whole_objects


def blobs(seed, shape=(150, 203), density=0.5, sigma=1.0):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
    return field > np.quantile(field, 1 - density)


def whole(mask):
    """Reference: scipy's labels, renumbered by first pixel."""
    labels, n = ndimage.label(mask, np.ones((3, 3)))
    values, first = np.unique(labels, return_index=True)
    first = first[values > 0]
    order = np.argsort(first)
    table = np.zeros(n + 1, int)
    table[1 + order] = np.arange(1, n + 1)
    return table[labels]


def run(mask, block_px, min_pixels=0):
    blocks = windows(mask.shape, block_px)
    seams = SeamLabels(blocks)
    for index, window in enumerate(blocks):
        seams.put(index, find_runs(mask[window]).objects())
    return whole_objects(mask, blocks, 0, min_pixels), seams.join(min_pixels)


def filled_at_once(mask, max_pixels):
    """Reference: scipy's background, holes at the border left open."""
    holes, n = ndimage.label(~mask)
    size = np.bincount(holes.ravel(), minlength=n + 1)
    border = np.unique(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]))
    small = size <= max_pixels
    small[border] = False
    small[0] = False
    return mask | small[holes]


@pytest.mark.parametrize("block_px", [1, 7, 32, 64, 1000])
@pytest.mark.parametrize(("seed", "density"), [(0, 0.3), (1, 0.5), (2, 0.6)])
def test_any_block_size_gives_the_labels_of_the_whole(seed, density, block_px):
    mask = blobs(seed, density=density)
    labels, counts = run(mask, block_px)
    np.testing.assert_array_equal(labels, whole(mask))
    np.testing.assert_array_equal(counts.pixels, np.bincount(labels.ravel())[1:])
    np.testing.assert_array_equal(labels.ravel()[counts.first], np.arange(1, len(counts) + 1))


def test_a_diagonal_across_a_corner_of_four_blocks_is_one_object():
    for mask in (np.eye(8, dtype=bool), np.eye(8, dtype=bool)[::-1]):
        labels, counts = run(mask, 4)
        assert len(counts) == 1
        assert (labels[mask] == 1).all()


def test_a_spiral_through_many_blocks_is_one_object():
    mask = np.zeros((41, 41), bool)
    for k in range(0, 20, 4):
        mask[k, k : 41 - k] = mask[k : 41 - k, 40 - k] = mask[40 - k, k : 41 - k] = True
        mask[k + 4 : 41 - k, k] = True
        mask[k + 4, k : k + 5] = True
    labels, _ = run(mask, 5)
    np.testing.assert_array_equal(labels, whole(mask))
    assert labels.max() == 1


def test_small_objects_are_dropped_by_their_whole_size_and_numbers_close_up():
    mask = np.zeros((20, 20), bool)
    mask[0, 0] = True
    mask[9, 5:15] = True  # ten pixels, five on either side of a seam
    mask[15:17, 15:17] = True
    labels, counts = run(mask, 10, min_pixels=4)
    assert counts.pixels.tolist() == [10, 4]
    assert labels[0, 0] == 0
    assert set(labels[9, 5:15]) == {1}
    assert labels[15, 15] == 2


def test_blocks_may_come_in_any_order_and_through_files():
    mask = blobs(3)
    reference = whole(mask)
    seams = SeamLabels(windows(mask.shape, 40))
    order = np.random.default_rng(0).permutation(len(seams.windows))
    for i in order:
        arrays = find_runs(mask[seams.windows[i]]).objects().arrays("objects")
        seams.put(i, BlockComponents.from_arrays(arrays, "objects"))
    seams.join()
    padded = np.pad(reference, 1)
    for i in order:
        rows, cols = seams.windows[i]
        labels = find_runs(mask[rows, cols]).painted(seams.numbers(i))
        np.testing.assert_array_equal(labels, reference[rows, cols])
        around = padded[rows.start : rows.stop + 2, cols.start : cols.stop + 2]
        framed = find_runs(mask[rows, cols]).painted(seams.numbers(i), border=1)
        seams.fill_border(i, framed)
        np.testing.assert_array_equal(framed, around)


@pytest.mark.parametrize("block_px", [3, 10, 64, 500])
@pytest.mark.parametrize("max_pixels", [1, 12, 200, 100_000])
def test_holes_across_seams_are_filled_as_if_they_were_whole(block_px, max_pixels):
    for seed, sigma in ((7, 1.0), (8, 2.5)):
        mask = blobs(seed, density=0.6, sigma=sigma)
        expected = whole(filled_at_once(mask, max_pixels))
        found = whole_objects(mask, windows(mask.shape, block_px), max_pixels)
        np.testing.assert_array_equal(found, expected)


def test_a_hole_through_a_corner_gap_stays_open():
    mask = np.ones((9, 9), bool)
    mask[4, 4] = mask[5, 5] = False  # two holes that touch at a corner are two holes
    seams = SeamLabels(windows(mask.shape, 5), holes=True)
    for index, window in enumerate(seams.windows):
        seams.put(index, find_runs(mask[window]).holes())
    fill = holes_to_fill(seams, 1)
    assert [f.tolist() for f in fill] == [[False, True], [False], [False], [False, True]]


def test_an_empty_mask_has_no_objects():
    labels, counts = run(np.zeros((10, 10), bool), 4)
    assert len(counts) == 0
    assert labels.max() == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (57, 64)])
def test_runs_hold_the_objects_and_holes_of_scipy(shape):
    for seed in range(5):
        mask = np.random.default_rng(seed).random(shape) < 0.2 + 0.15 * seed
        runs = find_runs(mask)
        np.testing.assert_array_equal(runs.painted(), whole(mask))
        holes, n = ndimage.label(~mask)
        assert runs.n_holes == n
        parts = runs.holes()
        np.testing.assert_array_equal(parts.pixels, np.bincount(holes.ravel())[1:])
        np.testing.assert_array_equal(parts.edges[0], holes[0])
        np.testing.assert_array_equal(parts.edges[3], holes[:, -1])
        np.testing.assert_array_equal(holes.ravel()[parts.first], np.arange(1, n + 1))
        labels, n_objects = label_mask(mask)
        assert labels.max() == n_objects == runs.n_objects


def test_misuse_is_told():
    seams = SeamLabels(windows((10, 10), 5))
    with pytest.raises(InputError, match="4 of 4 blocks"):
        seams.join()
    with pytest.raises(InputError, match="block 0"):
        seams.put(0, find_runs(np.zeros((4, 5), bool)).objects())
    with pytest.raises(InputError, match="after `join`"):
        seams.numbers(0)
    with pytest.raises(InputError, match="block size"):
        windows((3, 3), 0)
