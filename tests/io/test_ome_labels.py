"""Chunks that are written past zarr are the very files that zarr writes."""

import numpy as np
import pytest

from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.io.ome import CHUNK, create_array, write_chunk
from napari_mosaik.io.ome_labels import LabelWriter, read_labels


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_chunk_has_the_bytes_that_zarr_writes(tmp_path):
    values = np.random.default_rng(0).integers(0, 9, (8, 12)).astype(np.int32)
    values[4:, :4] = 0
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        array = create_array(folder, values.shape, values.dtype, (4, 4), sparse=True)
    array[...] = values
    for i in range(2):
        for j in range(3):
            write_chunk(ours, (i, j), values[4 * i : 4 * i + 4, 4 * j : 4 * j + 4])
    assert files(ours) == files(theirs)
    assert "c/1/0" not in files(ours)


@pytest.mark.parametrize("shape", [(3, 5), (CHUNK, 700), (2 * CHUNK + 1, 3 * CHUNK - 7)])
def test_every_level_holds_every_second_sample_of_the_one_before(tmp_path, shape):
    values = np.zeros(shape, np.int32)
    values[::3, ::2] = np.random.default_rng(1).integers(0, 5, values[::3, ::2].shape)
    values[:, shape[1] // 2 :] = 0
    place = tmp_path / "labels"
    writer = LabelWriter(place, LabelImage(values, Lattice("he", shape, (0.5, 0.5))), "test")
    for level in range(writer.n_levels):
        for window in reversed(writer.windows(level)):
            writer.write(level, window)
    writer.finish()
    stored = read_labels(place)
    expected = values
    for array in (stored.values, *stored.levels):
        np.testing.assert_array_equal(np.asarray(array[...]), expected)
        expected = expected[::2, ::2]


def test_napari_shows_the_levels_of_a_stored_image(tmp_path):
    from napari.layers import Labels

    shape = (2 * CHUNK + 1, 3 * CHUNK - 7)
    values = np.zeros(shape, np.int32)
    values[: CHUNK + 3] = 4
    place = tmp_path / "labels"
    writer = LabelWriter(place, LabelImage(values, Lattice("he", shape, (0.5, 0.5))), "test")
    for level in range(writer.n_levels):
        for window in writer.windows(level):
            writer.write(level, window)
    writer.finish()
    stored = read_labels(place)
    layer = Labels([stored.values, *stored.levels], multiscale=True)
    assert layer.get_value((2.0, 5.0), world=True)[1] == 4
    assert np.unique(layer._slice.image.raw).tolist() == [0, 4]
