import gc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_mosaik.core import InputError, Lattice, MissingPixelSize
from napari_mosaik.io.slide import open_slide
from napari_mosaik.io.slide.read.resample import area_resample, block_mean

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared beside the checkout")
CM = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}  # 0.5 µm per pixel


def picture(rows=333, columns=419, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)


def mean(pixels, rows, columns):
    """The definition, with whole numbers."""
    h, w = pixels.shape[0] // rows, pixels.shape[1] // columns
    blocks = pixels[: h * rows, : w * columns].reshape(h, rows, w, columns, 3)
    area = rows * columns
    return ((blocks.astype(np.int64).sum((1, 3)) * 2 + area) // (2 * area)).astype(np.uint8)


def pyramid(path, pixels, ratios=(4,), **more):
    options = {"tile": (64, 48), "photometric": "rgb", "compression": "zlib", **more}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, subifds=len(ratios), **options, **CM)
        for k in ratios:
            tiff.write(mean(pixels, k, k), subfiletype=1, **options)
    return path


def test_block_mean_is_the_exact_mean():
    pixels = picture(37, 41)
    for k in ((1, 1), (2, 2), (3, 5), (7, 2), (37, 41)):
        np.testing.assert_array_equal(block_mean(pixels, *k), mean(pixels, *k))
    white = np.full((64, 64, 3), 255, np.uint8)
    assert (block_mean(white, 64, 64) == 255).all()


def test_area_resample_agrees_with_block_mean_and_conserves_the_mean():
    pixels = picture(36, 48)
    whole = area_resample(pixels, (0.0, 0.0), (3.0, 4.0), (12, 12))
    np.testing.assert_array_equal(whole, mean(pixels, 3, 4))
    broken = area_resample(pixels, (0.0, 0.0), (36 / 7, 48 / 5), (7, 5))
    assert abs(broken.mean() - pixels.mean()) < 0.5
    nearest = area_resample(pixels, (0.0, 0.0), (0.5, 0.25), (72, 192))
    np.testing.assert_array_equal(nearest[1::2, 2::4], pixels)


@pytest.mark.parametrize(
    "more",
    [{}, {"tile": None, "rowsperstrip": 7}, {"planarconfig": 2}, {"compression": 33005}],
)
def test_level_zero_pixels_are_the_stored_ones(tmp_path, more):
    pixels = picture()
    stored = np.moveaxis(pixels, 2, 0) if "planarconfig" in more else pixels
    options = {"photometric": "rgb", "compression": "zlib", "tile": (64, 48), **more}
    path = tmp_path / "a.bin"  # the suffix says nothing
    tifffile.imwrite(path, stored, **options, **CM)
    with open_slide(path, frame="he") as slide:
        assert slide.reader == "tiff"
        assert slide.spacing_source == "header"
        assert slide.lattice == Lattice("he", (333, 419), (0.5, 0.5))
        np.testing.assert_array_equal(slide.read_lattice(slide.lattice).values, pixels)


def test_pyramids_in_subifds_and_pages_are_found(tmp_path):
    pixels = picture()
    pyramid(tmp_path / "sub.tif", pixels, (4, 8))
    with tifffile.TiffWriter(tmp_path / "pages.tif", bigtiff=True) as tiff:
        tiff.write(pixels, tile=(64, 64), photometric="rgb", **CM)
        for k in (4, 8):
            tiff.write(mean(pixels, k, k), tile=(64, 64), photometric="rgb", subfiletype=1)
    for name in ("sub.tif", "pages.tif"):
        with open_slide(tmp_path / name) as slide:
            assert [level.shape for level in slide.levels] == [(333, 419), (83, 104), (41, 52)]


def test_coarse_level_is_used_where_it_is_exact(tmp_path):
    pixels = picture()
    marked = pixels.copy()
    path = pyramid(tmp_path / "a.tif", marked, (4,))
    with open_slide(path) as slide:
        lattice = slide.working_lattice(4.0)  # 8 native pixels: twice the stored level of 4
        assert lattice.shape == (333 // 8, 419 // 8)
        assert lattice.spacing_um == (4.0, 4.0)
        twice = mean(mean(pixels, 4, 4), 2, 2)
        np.testing.assert_array_equal(slide.read_lattice(lattice).values, twice)
        odd = slide.working_lattice(1.5)  # 3 native pixels: only level 0 will do
        np.testing.assert_array_equal(slide.read_lattice(odd).values, mean(pixels, 3, 3))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(1, 60), min_size=0, max_size=4), st.integers(0, 9))
def test_any_partition_gives_the_same_pixels(tmp_path_factory, k, cuts, margin):
    path = tmp_path_factory.getbasetemp() / "partition.tif"
    if not path.exists():
        pyramid(path, picture(), (4,))
    with open_slide(path) as slide:
        whole = slide.working_lattice(0.5 * k)
        size = whole.spacing_um[0]
        wide = Lattice(
            "slide",
            (whole.shape[0] + 2 * margin, whole.shape[1] + 2 * margin),
            whole.spacing_um,
            (-margin * size, -margin * size),
        )
        once = slide.read_lattice(wide).values
        edges = sorted({0, wide.shape[0], *(c for c in cuts if c < wide.shape[0])})
        parts = [
            slide.read_lattice(wide.crop(slice(a, b), slice(None))).values
            for a, b in pairwise(edges)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), once)
        inner = once[margin : margin + whole.shape[0], margin : margin + whole.shape[1]]
        np.testing.assert_array_equal(inner, slide.read_lattice(whole).values)
        if margin > 1:
            assert (once[: margin - 1] == 255).all()
            assert (once[-(margin - 1) :] == 255).all()


def test_snap_is_the_nearest_whole_multiple(tmp_path):
    path = pyramid(tmp_path / "a.tif", picture(), ())
    with open_slide(path, (0.25, 0.5)) as slide:
        assert slide.spacing_source == "user"
        assert slide.properties["header_spacing"] == "0.5 x 0.5 µm"
        assert slide.nearest_spacing_um(0.1) == (0.25, 0.5)
        assert slide.nearest_spacing_um(1.0) == (1.0, 1.0)
        assert slide.nearest_spacing_um(0.7) == (0.75, 0.5)
        np.testing.assert_array_equal(
            slide.read_lattice(slide.working_lattice(1.0)).values, mean(picture(), 4, 2)
        )
        with pytest.raises(InputError, match="not part of a working lattice"):
            slide.read_lattice(Lattice("slide", (5, 5), (1.0, 1.0), (0.3, 0.0)))
        with pytest.raises(InputError, match="not part of a working lattice"):
            slide.read_lattice(Lattice("slide", (5, 5), (1.1, 1.1)))
        with pytest.raises(InputError, match="'cd34'"):
            slide.read_lattice(Lattice("cd34", (5, 5), (1.0, 1.0)))


def test_read_any_rectangle(tmp_path):
    pixels = picture()
    with open_slide(pyramid(tmp_path / "a.tif", pixels, ())) as slide:
        raster = slide.read((10.0, 20.0), (30.0, 40.0), 1.0)
        assert raster.lattice == Lattice("slide", (30, 40), (1.0, 1.0), (10.0, 20.0))
        np.testing.assert_array_equal(raster.values, mean(pixels[20:80, 40:120], 2, 2))
        outside = slide.read((-10.0, 0.0), (10.0, 10.0), 1.0).values
        assert (outside == 255).all()
        # a sample half inside: half of the first pixel row, half white
        half = slide.read((-0.25, 0.0), (0.5, 0.5), 0.5).values[0, 0]
        np.testing.assert_allclose(half, (pixels[0, 0] + 255.0) / 2, atol=0.51)
        small = slide.thumbnail(20.0)
        assert small.lattice.shape == (9, 11)
        np.testing.assert_allclose(
            small.values[3, 4], pixels[120:160, 160:200].mean((0, 1)), atol=0.51
        )
        with pytest.raises(InputError):
            slide.read((0.0, 0.0), (0.0, 10.0), 1.0)


def test_thumbnail_is_the_same_from_a_pyramid(tmp_path):
    smooth = np.zeros((400, 480, 3), np.uint8)
    smooth[...] = (np.add.outer(np.arange(400), np.arange(480)) / 4)[..., None]
    plain, with_levels = tmp_path / "a.tif", tmp_path / "b.tif"
    pyramid(plain, smooth, ())
    pyramid(with_levels, smooth, (2, 8))
    with open_slide(plain) as one, open_slide(with_levels) as two:
        difference = one.thumbnail(7.3).values.astype(int) - two.thumbnail(7.3).values
        assert np.abs(difference).max() <= 1


def test_many_threads_read_the_same(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    pixels = picture(700, 900)
    path = pyramid(tmp_path / "a.tif", pixels, ())
    with open_slide(path) as slide, ThreadPoolExecutor(8) as pool:
        lattice = slide.working_lattice(1.0)
        parts = [lattice.crop(slice(r, r + 50), slice(None)) for r in range(0, 350, 50)] * 6
        results = list(pool.map(lambda part: slide.read_lattice(part).values, parts))
        np.testing.assert_array_equal(np.concatenate(results[:7]), mean(pixels, 2, 2))
        for i, result in enumerate(results):
            np.testing.assert_array_equal(result, results[i % 7])


def test_colour_kinds(tmp_path):
    grey = picture()[..., 0]
    tifffile.imwrite(tmp_path / "g.tif", grey, tile=(64, 64), photometric="minisblack", **CM)
    with open_slide(tmp_path / "g.tif") as slide:
        got = slide.read_lattice(slide.lattice).values
        np.testing.assert_array_equal(got, np.repeat(grey[..., None], 3, axis=2))
    rgba = np.dstack([picture(), np.zeros((333, 419), np.uint8)])
    rgba[:100, :, 3], rgba[100:200, :, 3] = 255, 51
    options = {"tile": (64, 64), "photometric": "rgb", "extrasamples": ["unassalpha"], **CM}
    tifffile.imwrite(tmp_path / "a.tif", rgba, **options)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    white = rgba[..., :3] * (rgba[..., 3:] / 255.0) + 255 - rgba[..., 3:]
    for name in ("a.tif", "a.png"):
        with open_slide(tmp_path / name, 0.5) as slide:
            got = slide.read_lattice(slide.lattice).values
            np.testing.assert_allclose(got, white, atol=0.51)


def test_digest_follows_pixels_and_spacing(tmp_path):
    pixels = picture()
    a, b = pyramid(tmp_path / "a.tif", pixels), tmp_path / "b.tif"
    b.write_bytes(a.read_bytes())
    changed = pixels.copy()
    changed[200, 200] ^= 1
    c = pyramid(tmp_path / "c.tif", changed)
    digests = []
    for path, spacing in ((a, None), (b, None), (a, 0.5), (a, 0.6), (c, None)):
        with open_slide(path, spacing) as slide:
            digests.append(slide.digest())
    assert digests[0] == digests[1] == digests[2]
    assert len(set(digests)) == 3


def test_pictures(tmp_path):
    pixels = picture(50, 60)
    Image.fromarray(pixels).save(tmp_path / "a.svs", format="PNG")
    with pytest.raises(MissingPixelSize, match="--spacing UM"):
        open_slide(tmp_path / "a.svs")
    with open_slide(tmp_path / "a.svs", 2.0) as slide:
        assert slide.reader == "picture"
        np.testing.assert_array_equal(slide.read_lattice(slide.lattice).values, pixels)
        assert len(slide.digest()) == 32
    Image.fromarray(pixels).save(tmp_path / "b.jpg", dpi=(72, 72))
    with pytest.raises(MissingPixelSize, match="352"):  # 25.4 mm / 72
        open_slide(tmp_path / "b.jpg")


@needs_shared
@pytest.mark.realdata
def test_real_slides_agree_with_openslide():
    import openslide

    from napari_mosaik.io.slide.formats.openslide import OpenSlideSource
    from napari_mosaik.io.slide.read.slide import SlideImage

    path = SHARED / "wsi" / "CMU-1-Small-Region.svs"
    with open_slide(path) as slide, openslide.OpenSlide(path) as other:
        assert slide.lattice.spacing_um == (0.499, 0.499)
        wanted = np.asarray(other.read_region((500, 700), 0, (800, 600)))[..., :3]
        part = slide.lattice.crop(slice(700, 1300), slice(500, 1300))
        np.testing.assert_array_equal(slide.read_lattice(part).values, wanted)
        assert "CPAPERIOCS" not in str(slide.properties)
        with SlideImage(OpenSlideSource(path), (0.499, 0.499), "header", "slide") as through:
            np.testing.assert_array_equal(through.read_lattice(part).values, wanted)
            assert through.digest() == through.digest()
    with open_slide(SHARED / "wsi" / "InstanSeg_HE_example.ome.tif") as slide:
        assert slide.lattice.shape == (1484, 1380)
        assert slide.lattice.spacing_um[0] == pytest.approx(0.5, abs=1e-3)


def test_a_slide_that_nobody_closes_gives_its_file_back(tmp_path):
    path = tmp_path / "slide.tif"
    pyramid(path, np.zeros((64, 64, 3), np.uint8), (2,))
    slide = open_slide(path)
    handle = slide.source._file._handle
    del slide
    gc.collect()
    assert handle.closed
