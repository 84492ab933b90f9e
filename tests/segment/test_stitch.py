"""Labels made block by block equal labels made at once."""

import numpy as np
import pytest
from scipy import ndimage

from napari_mosaik.core import InputError
from napari_mosaik.segment.masks import label_mask
from napari_mosaik.segment.stitch import SeamLabels, label_blocks


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
    out = np.zeros(mask.shape, np.int32)
    *_, counts = label_blocks(mask, out, block_px, min_pixels)
    return out, counts


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


def test_blocks_may_come_in_any_order_and_marked_pixels_are_counted():
    mask, marked = blobs(3), blobs(4, density=0.7)
    reference = whole(mask)
    seams = SeamLabels(mask.shape, 40)
    order = np.random.default_rng(0).permutation(len(seams.windows))
    provisional = {i: seams.add(i, mask[seams.windows[i]], marked[seams.windows[i]]) for i in order}
    counts = seams.join()
    for i in order:
        np.testing.assert_array_equal(seams.relabel(i, provisional[i]), reference[seams.windows[i]])
    expected = np.bincount(reference[marked], minlength=reference.max() + 1)[1:]
    np.testing.assert_array_equal(counts.marked, expected)


def test_every_block_yields_so_that_work_can_stop():
    mask = blobs(5)
    yields = list(label_blocks(mask, np.zeros(mask.shape, np.int32), 50))
    assert len(yields) == 2 * 3 * 5 + 1
    assert all(item is None for item in yields[:-1])


def test_an_empty_mask_has_no_objects():
    labels, counts = run(np.zeros((10, 10), bool), 4)
    assert len(counts) == 0
    assert labels.max() == 0


def test_four_connected_labels_equal_scipy():
    mask = blobs(6, density=0.6, sigma=0.6)
    labels, n = label_mask(mask, False)
    reference, m = ndimage.label(mask)
    assert n == m
    np.testing.assert_array_equal(labels, reference)


def test_misuse_is_told():
    seams = SeamLabels((10, 10), 5)
    with pytest.raises(InputError, match="4 of 4 blocks"):
        seams.join()
    with pytest.raises(InputError, match="block 0"):
        seams.add(0, np.zeros((4, 5), bool))
    with pytest.raises(InputError, match="joined"):
        seams.relabel(0, np.zeros((5, 5), np.int32))
    with pytest.raises(InputError, match="does not fit"):
        next(label_blocks(np.zeros((3, 3), bool), np.zeros((3, 4), np.int32)))
