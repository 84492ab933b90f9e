import os

import numpy as np
import pytest
import tifffile

from napari_mosaik.core import InputError
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.io.slide import View, open_slide
from napari_mosaik.io.slide.pyramid import virtual as module
from napari_mosaik.io.slide.pyramid.build import complete_pyramid, has_missing_levels

CM = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}  # 0.5 µm per pixel
SHAPE = (1237, 1811)
LAYOUTS = [
    {"tile": (64, 48)}, {"tile": (256, 256)}, {"rowsperstrip": 7}, {"rowsperstrip": 5000},
]  # fmt: skip


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    """Levels are made below 300 px instead of 4096, so that small pictures need three of them."""
    monkeypatch.setattr(module, "MAX_COARSEST_PX", 80)


def noise(shape=SHAPE, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def halved(pixels, factor):
    """Mean of blocks with white outside, halves rounded up: the definition in whole numbers."""
    pad = [(0, -n % factor) for n in pixels.shape[:2]]
    full = np.pad(pixels, [*pad, (0, 0)], constant_values=255).astype(np.int64)
    h, w = full.shape[0] // factor, full.shape[1] // factor
    area = factor * factor
    sums = full.reshape(h, factor, w, factor, 3).sum((1, 3))
    return ((2 * sums + area) // (2 * area)).astype(np.uint8)


def write(path, pixels, coarser=(), **layout):
    options = {"photometric": "rgb", "compression": "zlib", **layout}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, subifds=len(coarser), **options, **CM)
        for level in coarser:
            tiff.write(level, subfiletype=1, **options)
    return path


def level_pixels(slide, n):
    source, stored = slide.source, slide.source.levels[n]
    (h, w), (th, tw) = stored.shape, stored.tile
    out = np.zeros((h, w, 3), np.uint8)
    for i in range(-(-h // th)):
        for j in range(-(-w // tw)):
            tile = source.tile(n, i, j)
            part = out[i * th : (i + 1) * th, j * tw : (j + 1) * tw]
            part[...] = tile[: part.shape[0], : part.shape[1]]
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
def test_virtual_levels_are_exact_means_of_the_level_below(tmp_path, layout):
    pixels = noise()
    with open_slide(write(tmp_path / "a.tif", pixels, **layout)) as slide:
        assert [level.virtual for level in slide.levels] == [False, True, True, True]
        assert [level.downsample[0] for level in slide.levels] == [1, 4, 16, 64]
        assert has_missing_levels(slide)
        for n in (1, 2, 3):
            pixels = halved(pixels, 4)
            assert slide.levels[n].shape == pixels.shape[:2]
            np.testing.assert_array_equal(level_pixels(slide, n), pixels)


def test_numbers_do_not_depend_on_the_store(tmp_path):
    path = write(tmp_path / "a.tif", noise(), tile=(64, 48))
    with open_slide(path) as plain, open_slide(path, pyramids=tmp_path / "p") as slide:
        before = slide.digest()
        steps = list(iter_of := complete_pyramid(slide, tmp_path / "p"))
        assert iter_of is not None
        assert steps[0].fraction == 0
        assert steps[-1].fraction == 1
        assert not has_missing_levels(slide)
        assert slide.digest() == before == plain.digest()
        with open_slide(path, pyramids=tmp_path / "p") as again:
            assert again.source.store is not None
            assert "stored" in again.properties["pyramid"]
            for n in (1, 2, 3):
                np.testing.assert_array_equal(level_pixels(again, n), level_pixels(plain, n))
            for spacing in (2.0, 5.0, 32.0):
                lattice = plain.working_lattice(spacing)
                np.testing.assert_array_equal(
                    again.read_lattice(lattice).values, plain.read_lattice(lattice).values
                )
            np.testing.assert_array_equal(
                again.thumbnail(41.0).values, plain.thumbnail(41.0).values
            )
    assert [p.suffix for p in (tmp_path / "p").iterdir()] == [".zarr"]


def test_reading_a_virtual_level_is_the_mean_of_its_region(tmp_path):
    """A rectangle that reaches beyond the slide, from the virtual level and from level 0."""
    pixels = noise()
    with open_slide(write(tmp_path / "a.tif", pixels, tile=(64, 48))) as slide:
        whole = slide.working_lattice(2.0)
        wide = type(whole)("slide", (320, 470), whole.spacing_um, (-6.0, -4.0))
        got = slide.read_lattice(wide).values
        canvas = np.full((1280, 1880, 3), 255, np.uint8)
        canvas[12 : 12 + SHAPE[0], 8 : 8 + SHAPE[1]] = pixels[:1268, :1872]
        np.testing.assert_array_equal(got, halved(canvas, 4))


def test_gaps_are_filled_and_good_pyramids_left_alone(tmp_path):
    pixels = noise()
    four, sixteen = halved(pixels, 4), halved(halved(pixels, 4), 4)
    gap = write(tmp_path / "gap.tif", pixels, (sixteen,), tile=(64, 64))
    with open_slide(gap) as slide:
        shapes = [(*level.shape, level.virtual) for level in slide.levels]
        assert shapes[:3] == [
            (*SHAPE, False), (*four.shape[:2], True), (*sixteen.shape[:2], False),
        ]  # fmt: skip
        np.testing.assert_array_equal(level_pixels(slide, 1), four)
    good = write(tmp_path / "good.tif", pixels, (four, sixteen, halved(sixteen, 2)), tile=(64, 64))
    with open_slide(good) as slide:
        assert not any(level.virtual for level in slide.levels)
        assert not has_missing_levels(slide)
        assert run_to_end(complete_pyramid(slide, tmp_path / "none")) is None
        assert not (tmp_path / "none").exists()


def test_cancelled_and_failed_builds_leave_nothing(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", noise(), tile=(64, 48))
    with open_slide(path) as slide:
        work = complete_pyramid(slide, tmp_path / "p")
        next(work)
        next(work)
        work.close()
        assert list((tmp_path / "p").iterdir()) == []
        assert has_missing_levels(slide)
        monkeypatch.setattr("shutil.disk_usage", lambda place: type("U", (), {"free": 1000})())
        with pytest.raises(InputError, match="free some space"):
            run_to_end(complete_pyramid(slide, tmp_path / "p"))


def test_what_a_killed_process_left_is_removed_the_next_day(tmp_path):
    path = write(tmp_path / "a.tif", noise(), tile=(64, 48))
    old, new = tmp_path / "p" / ".x.zarr.1-0.part", tmp_path / "p" / ".x.zarr.2-0.part"
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    with open_slide(path) as slide:
        place = run_to_end(complete_pyramid(slide, tmp_path / "p"))
    assert sorted((tmp_path / "p").iterdir()) == sorted([new, place])


def test_damaged_store_is_made_again_from_the_slide(tmp_path):
    path = write(tmp_path / "a.tif", noise(), tile=(64, 48))
    with open_slide(path) as slide:
        place = run_to_end(complete_pyramid(slide, tmp_path / "p"))
        good = level_pixels(slide, 1)
    chunks = sorted(p for p in (place / "1").rglob("*") if p.is_file() and p.name != "zarr.json")
    content = bytearray(chunks[0].read_bytes())
    content[len(content) // 2] ^= 255
    chunks[0].write_bytes(content)
    with open_slide(path, pyramids=tmp_path / "p") as slide:
        np.testing.assert_array_equal(level_pixels(slide, 1), good)
    (place / "zarr.json").write_text("{}")
    with open_slide(path, pyramids=tmp_path / "p") as slide:
        assert has_missing_levels(slide)
        run_to_end(complete_pyramid(slide, tmp_path / "p"))
        assert not has_missing_levels(slide)


def test_damaged_tile_below_a_virtual_level(tmp_path):
    path = write(tmp_path / "a.tif", noise(), tile=(64, 64), compression="jpeg")
    with tifffile.TiffFile(path) as tiff:
        offset, count = (t[30] for t in (tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts))
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(count))
    with open_slide(path) as slide:
        with pytest.raises(InputError, match="row 64, column 64 px"):
            slide.thumbnail(32.0)
        with pytest.raises(InputError, match="row 64, column 64 px"):
            run_to_end(complete_pyramid(slide, tmp_path / "p"))
    with open_slide(path, damaged="skip") as slide:
        slide.thumbnail(32.0)
        assert [tile.origin_px for tile in slide.damaged] == [(64, 64)]
        assert run_to_end(complete_pyramid(slide, tmp_path / "p")) is None
    assert list((tmp_path / "p").iterdir()) == []


def test_another_process_opens_it_the_same_way(tmp_path):
    import pickle

    path = write(tmp_path / "a.tif", noise(), tile=(64, 48))
    with open_slide(path, 0.25, spacing_source="ruler", pyramids=tmp_path / "p") as slide:
        run_to_end(complete_pyramid(slide, tmp_path / "p"))
        with pickle.loads(pickle.dumps(slide)) as again:
            assert again.spacing_source == "ruler"
            assert again.source.store is not None
            assert again.digest() == slide.digest()


def test_a_pass_over_virtual_levels_reads_the_same(tmp_path):
    path = write(tmp_path / "a.tif", noise(), tile=(64, 48))
    with open_slide(path) as slide:
        blocks = slide.blocks(View(8.0, halo_um=40.0), block_px=32)
        assert slide.source.levels[blocks.level].virtual
        for index in range(len(blocks)):
            (got,) = blocks.read(index)
            want = slide.read_lattice(got.lattice).values
            np.testing.assert_array_equal(got.values, want)
