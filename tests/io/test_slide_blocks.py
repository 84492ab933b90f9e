"""One pass over a slide: the right pixels for every consumer, each tile decoded once."""

import pickle
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile

from napari_mosaik.core import InputError
from napari_mosaik.core.progress import of_this_item
from napari_mosaik.io.slide import View, open_slide
from napari_mosaik.io.slide.read.cache import shared_cache

CM = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}  # 0.5 µm per pixel


@pytest.fixture(params=[{"tile": (64, 48)}, {"tile": None, "rowsperstrip": 7}])
def path(request, tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (417, 533, 3), np.uint8)
    out = tmp_path / "slide.tif"
    tifffile.imwrite(out, pixels, photometric="rgb", compression="zlib", **request.param, **CM)
    return out


def counted(slide, monkeypatch):
    """Count how often every tile is decoded."""
    seen, lock, decode = Counter(), threading.Lock(), slide._tiles.decode

    def count(*key):
        with lock:
            seen[key] += 1
        return decode(*key)

    monkeypatch.setattr(slide._tiles, "decode", count)
    return seen


@pytest.mark.parametrize("block_px", [2048, 37, 64, 200])
@pytest.mark.parametrize(
    "views",
    [
        (View(0.5, halo_um=9.7),),
        (View(1.0, halo_um=4.0), View(2.0), View(0.5, halo_um=1.0)),
        (View(1.5, halo_um=11.0), View(1.0)),
    ],
)
def test_every_view_gets_the_pixels_of_the_slide(path, views, block_px):
    with open_slide(path) as slide:
        blocks = slide.blocks(*views, block_px=block_px)
        covered = [np.zeros(lattice.shape, int) for lattice in blocks.lattices]
        for index in range(len(blocks)):
            for number, raster in enumerate(blocks.read(index)):
                block = blocks.blocks(number)[index]
                covered[number][block.rows, block.cols] += 1
                if min(block.core.shape):
                    expected = slide.read_lattice(block.outer)
                    assert raster.lattice == expected.lattice
                    np.testing.assert_array_equal(raster.values, expected.values)
        assert all((count == 1).all() for count in covered)


def test_a_tile_is_decoded_once_by_several_threads_and_then_forgotten(path, monkeypatch):
    with open_slide(path) as slide:
        blocks = slide.blocks(View(0.5, halo_um=20.0), View(1.0), block_px=50)
        seen = counted(slide, monkeypatch)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(blocks.read, range(len(blocks))))
        stored = slide._source.levels[0]
        n_tiles = -(-stored.shape[0] // stored.tile[0]) * -(-stored.shape[1] // stored.tile[1])
        assert len(seen) == n_tiles
        assert set(seen.values()) == {1}
        assert not blocks._kept


def test_tiles_that_wait_share_memory_apart_from_the_heap(path):
    """Their places are used again, so that the rows of a pass need no more than the first two."""
    with open_slide(path) as slide:
        blocks = slide.blocks(View(0.5, halo_um=3.0), View(1.0), View(0.5), block_px=64)
        shelves, places = set(), set()
        for index in range(len(blocks)):
            blocks.read(index)
            for fine, coarse, same in blocks._kept.values():
                assert same is fine
                for tile in (fine, coarse):
                    shelves.add(id(tile.base))
                    places.add(tile.ctypes.data)
            now = {id(one): one.ctypes.data for kept in blocks._kept.values() for one in kept}
            assert len(set(now.values())) == len(now) >= len(blocks._kept)
        assert len(shelves) == 1
        assert len(places) <= blocks._left.size  # of two for each tile


def test_decoded_tiles_are_forgotten_on_request(path):
    with open_slide(path) as slide:
        first = slide.read((0.0, 0.0), (50.0, 50.0), 0.5).values
        owner = slide._tiles._owner
        assert any(key[0] == owner for key in shared_cache()._values)
        slide.forget_pixels()
        assert not any(key[0] == owner for key in shared_cache()._values)
        np.testing.assert_array_equal(slide.read((0.0, 0.0), (50.0, 50.0), 0.5).values, first)


def test_a_resumed_pass_keeps_only_what_is_still_needed(path, monkeypatch):
    with open_slide(path) as slide:
        blocks = slide.blocks(View(0.5, halo_um=3.0), block_px=64)
        todo = list(range(3, len(blocks), 4))
        blocks.expect(todo)
        seen = counted(slide, monkeypatch)
        for index in todo:
            blocks.read(index)
        assert set(seen.values()) == {1}
        assert not blocks._kept


def test_blocks_follow_the_tiles_of_the_file(tmp_path):
    out = tmp_path / "slide.tif"
    tifffile.imwrite(out, np.zeros((2000, 5000, 3), np.uint8), tile=(256, 240), **CM,
                     photometric="rgb", compression="zlib")  # fmt: skip
    with open_slide(out) as slide:
        for view, step in ((View(0.5), 1), (View(1.0), 2)):
            for block in slide.blocks(view).blocks():
                assert block.rows.start * step % 256 == 0
                assert block.cols.start * step % 240 == 0


def test_a_pass_can_be_sent_to_another_process(path):
    with open_slide(path) as slide:
        blocks = slide.blocks(View(1.0, halo_um=5.0), block_px=80)
        again = pickle.loads(pickle.dumps(blocks))
        with again.slide:
            for index in (0, len(blocks) - 1):
                expected, found = blocks.read(index)[0], again.read(index)[0]
                np.testing.assert_array_equal(found.values, expected.values)
            assert not again._kept


def test_a_pass_without_consumers_is_refused(path):
    with open_slide(path) as slide, pytest.raises(InputError, match="at least one view"):
        slide.blocks()


def test_a_region_is_read_in_the_same_pixels(path):
    with open_slide(path) as slide:
        views = (View(0.5, halo_um=3.0), View(1.5))
        region = ((40.3, 31.7), (71.0, 55.5))
        blocks = slide.blocks(*views, block_px=48, region=region)
        for number, lattice in enumerate(blocks.lattices):
            low, size = lattice.origin_um, lattice.extent_um
            for axis in (0, 1):
                assert 0 <= region[0][axis] - low[axis] < 1.5
                end = low[axis] + size[axis] - region[0][axis] - region[1][axis]
                assert 0 <= end < 1.5
            seen = np.zeros(lattice.shape, int)
            for index in range(len(blocks)):
                block = blocks.blocks(number)[index]
                seen[block.rows, block.cols] += 1
                if min(block.core.shape):
                    raster = blocks.read(index)[number]
                    np.testing.assert_array_equal(
                        raster.values, slide.read_lattice(block.outer).values
                    )
            assert (seen == 1).all()
        with pytest.raises(InputError, match="lies outside the slide"):
            slide.blocks(View(0.5), region=((900.0, 0.0), (10.0, 10.0)))


def test_a_block_tells_how_much_of_it_is_read_where_it_is_asked_to(path):
    told = []
    with open_slide(path) as slide:
        blocks = slide.blocks(View(0.5), block_px=200)
        with of_this_item(told.append):
            blocks.read(0)
            assert told == []
            blocks.told_share = 0.5
            blocks.read(1)
    assert len(told) > 3
    assert told == sorted(told)
    assert told[-1] == 0.5
