"""Labels on the canvas: outlines near, density far away, only the pieces in view."""

import numpy as np
import pytest
from scipy import ndimage as ndi

from napari_mosaik.core import LabelImage, Lattice
from napari_mosaik.view import layers
from napari_mosaik.view.label_levels import (
    INSIDE,
    OUTLINE,
    LabelLevels,
    object_density,
    outline_codes,
)

SHAPE = (3000, 4100)


class Counted:
    """An array that counts how often it is read, and how many pixels."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.reads, self.pixels = 0, 0

    def __getitem__(self, key):
        found = self.values[key]
        self.reads, self.pixels = self.reads + 1, self.pixels + found.size
        return found


def labels(spacing=0.5, n_levels=5):
    """Squares of 20 px every 50 px, numbered from 1, with all their levels."""
    down, across = np.indices((SHAPE[0] // 50, SHAPE[1] // 50))
    numbers = (down * down.shape[1] + across + 1).astype(np.int32)
    whole = np.kron(numbers, np.pad(np.ones((20, 20), np.int32), ((15, 15), (15, 15))))
    levels = [Counted(whole[:: 2**k, :: 2**k]) for k in range(n_levels)]
    lattice = Lattice("he", whole.shape, (spacing, spacing), (100.0, -40.0))
    return LabelImage(levels[0], lattice, levels=tuple(levels[1:])), numbers


def centres_um(image, numbers):
    index = np.stack(np.indices(numbers.shape), -1).reshape(-1, 2) * 50 + 24.5
    return image.lattice.to_um(index)


def all_read(levels, level, rows, cols):
    found = {piece: levels.read(piece) for piece in levels.pieces(level, rows, cols)}
    return levels.compose(level, rows, cols, found.get)


@pytest.mark.parametrize("width", [1, 2])
def test_the_outline_is_the_one_that_napari_draws(width):
    from napari.layers.labels._labels_utils import get_contours

    rng = np.random.default_rng(3)
    image = ndi.grey_dilation(
        np.where(rng.random((80, 90)) > 0.98, rng.integers(1, 99, (80, 90)), 0), (9, 7)
    )
    image[[0, 1, 2, -3, -2, -1]] = image[:, [0, 1, 2, -3, -2, -1]] = 0
    if width == 2:  # the outline of a mask
        image = (image > 0).astype(int)
    codes = outline_codes(image, width)
    assert ((codes == OUTLINE) == (get_contours(image, width, 0) > 0)).all()
    assert ((codes > 0) == (image > 0)).all()


def test_a_part_of_a_level_needs_only_the_pieces_that_it_touches():
    image, _ = labels()
    levels = LabelLevels(image)
    image.values.reads = image.values.pixels = 0
    rows, cols = slice(1000, 1300), slice(2000, 2600)
    codes, missing = levels.compose(0, rows, cols, lambda _: None)
    assert not codes.any()
    assert sorted(missing) == [(0, i, j) for i in (0, 1) for j in (1, 2)]
    assert image.values.reads == 0  # nothing is read in the window's thread
    codes, missing = all_read(levels, 0, rows, cols)
    assert not missing
    assert (codes == outline_codes(image.values.values)[rows, cols]).mean() > 0.999
    assert image.values.pixels <= 4 * 1024**2 + 4


def test_what_was_not_read_yet_is_shown_from_a_coarser_level():
    image, _ = labels()
    levels = LabelLevels(image)
    rows, cols = slice(900, 1200), slice(100, 400)
    coarse = {
        piece: levels.read(piece) for piece in levels.pieces(2, slice(0, 750), slice(0, 1000))
    }
    codes, missing = levels.compose(0, rows, cols, coarse.get)
    assert len(missing) == 2
    truth = image.values.values[rows, cols] > 0
    assert ((codes > 0) == truth).mean() > 0.9
    assert truth.any()


def test_far_away_the_density_is_shown_and_no_label_is_read():
    image, numbers = labels()
    spec = layers.nuclei_layer(image, None, centres_um(image, numbers))
    levels = spec.objects
    for array in levels.arrays:
        array.reads = 0
    first = levels.density.first
    assert image.lattice.spacing_um[0] * 2**first == 4.0
    for level in range(first, 5):
        middle = [slice(size // 2 - 20, size // 2 + 20) for size in levels.shapes[level]]
        codes, missing = levels.compose(level, *middle, lambda _: None)
        assert not missing
        # 1 in 25 µm x 25 µm is 1600 per mm²
        assert set(np.unique(codes)) == {levels.density.code(2)}
        assert not levels.around(level, *middle)
    assert sum(array.reads for array in levels.arrays) == 0
    near, missing = levels.compose(first - 1, slice(10, 60), slice(10, 60), lambda _: None)
    assert missing
    assert not near.any()


def test_the_legend_says_what_the_colours_mean_with_their_unit():
    image, numbers = labels()
    spec = layers.nuclei_layer(image, None, centres_um(image, numbers))
    words = [text for text, _ in spec.legend.entries]
    assert words[0] == "nucleus"
    assert words[3] == "1000 to 2000 per mm²"
    assert len(words) == 7
    assert spec.legend.note.startswith("zoomed out: nuclei per mm²")
    code = spec.objects.density.code(2)
    red, green, blue = (round(255 * part) for part in spec.style["colormap"][code][:3])
    assert spec.legend.entries[3][1] == f"#{red:02x}{green:02x}{blue:02x}"
    assert [text for text, _ in layers.nuclei_layer(image).legend.entries] == ["nucleus"]


def test_a_density_counts_each_object_once_in_its_square():
    lattice = Lattice("he", (4096, 4096), (1.0, 1.0))
    points = [[1000.0, 1000.0]] * 3 + [[3000.0, 2000.0]] + [[-900.0, 50.0]]
    found = object_density(points, lattice, 6, from_um=4, window_um=160, bounds=(50, 100))
    assert (found.level, found.first, found.window_um) == (5, 2, 160)
    # 3 in 0.0256 mm² are 117 per mm², 1 is 39
    assert (found.codes == found.code(2)).sum() == (found.codes == found.code(0)).sum() == 25
    assert found.codes.astype(bool).sum() == 50
    rows, cols = np.nonzero(found.codes == found.code(2))
    assert abs(rows.mean() * 32 - 1000) <= 16
    assert abs(cols.mean() * 32 - 1000) <= 16


def test_levels_that_are_all_near_show_no_density():
    lattice = Lattice("he", (400, 400), (0.5, 0.5))
    assert object_density([[5, 5]], lattice, 2, from_um=4, window_um=160, bounds=(1,)) is None


def test_a_label_is_found_under_its_pixel():
    image, numbers = labels()
    levels = LabelLevels(image)
    assert levels.label_at(0, 50 + 20, 100 + 20) == numbers[1, 2]
    assert levels.label_at(1, 25 + 10, 50 + 10) == numbers[1, 2]
    assert levels.label_at(0, 0, 0) == 0
    assert INSIDE != OUTLINE
