"""Every format that can be made here, opened by its real reader and compared pixel by pixel."""

import json
import random
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import openslide
import pytest
import tifffile
import zarr

from napari_mosaik.core import InputError, MissingPixelSize
from napari_mosaik.io.slide import open_slide
from tests.io import slide_formats as make

FULL = make.smooth(320, 448)
LEVELS = [FULL, np.ascontiguousarray(FULL[::4, ::4])]
JPEG_ERROR = 8
CM = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}


def pixels_of(path, **options):
    with open_slide(path, **options) as slide:
        return slide.read_lattice(slide.lattice).values


def generic(path, **options):
    with tifffile.TiffWriter(path, **options) as tiff:
        tiff.write(FULL, tile=(64, 64), photometric="rgb", compression="zlib", subifds=1, **CM)
        tiff.write(LEVELS[1], tile=(64, 64), photometric="rgb", compression="zlib", subfiletype=1)
    return path


def ome_tiff(path):
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "axes": "YXS"}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        options = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib"}
        tiff.write(FULL, subifds=1, metadata=size, **options)
        tiff.write(LEVELS[1], subfiletype=1, metadata=None, **options)
    return path


FORMATS = {
    "generic": (lambda p: generic(p / "a.bin"), "tiff", 0),
    "big-endian": (lambda p: generic(p / "a.bin", byteorder=">"), "tiff", 0),
    "BigTIFF": (lambda p: generic(p / "a.bin", bigtiff=True), "tiff", 0),
    "BigTIFF big-endian": (lambda p: generic(p / "a.b", bigtiff=True, byteorder=">"), "tiff", 0),
    "OME-TIFF": (lambda p: ome_tiff(p / "a.ome.tif"), "tiff", 0),
    "SVS JPEG": (lambda p: make.write_svs(p / "a.svs", LEVELS), "tiff", JPEG_ERROR),
    "SVS 33005": (lambda p: make.write_svs(p / "a.s", LEVELS, compression=33005), "tiff", 0),
    "SVS 33003": (lambda p: make.write_svs(p / "a.s", LEVELS, compression=33003), "openslide", 4),
    "Philips": (lambda p: make.write_philips(p / "a.tiff", LEVELS), "openslide", JPEG_ERROR),
    "Leica": (lambda p: make.write_leica(p / "a.scn", LEVELS), "openslide", JPEG_ERROR),
    "Ventana": (lambda p: make.write_ventana(p / "a.bif", LEVELS), "openslide", JPEG_ERROR),
    "Hamamatsu": (lambda p: make.write_ndpi(p / "a.ndpi", LEVELS), "openslide", JPEG_ERROR),
    "MIRAX": (lambda p: make.write_mirax(p / "a.mrxs", FULL), "openslide", JPEG_ERROR),
    "DICOM": (lambda p: make.write_dicom(p / "a", LEVELS)[0], "openslide", 0),
    "DICOM folder": (lambda p: make.write_dicom(p / "a", LEVELS)[0].parent, "openslide", 0),
}


@pytest.mark.parametrize("name", FORMATS)
def test_format(tmp_path, name):
    written, reader, error = FORMATS[name]
    path = written(tmp_path)
    with open_slide(path) as slide:
        assert slide.reader == reader
        assert slide.lattice.shape == (320, 448)
        assert slide.lattice.spacing_um == pytest.approx((0.5, 0.5))
        assert slide.spacing_source == "header"
        got = slide.read_lattice(slide.lattice).values
        assert np.abs(got.astype(int) - FULL).max() <= error
        coarse = slide.read_lattice(slide.working_lattice(2.0)).values
        assert coarse.shape == (80, 112, 3)
        assert np.abs(coarse.astype(int) - LEVELS[1]).mean() < 20
        assert len(slide.digest()) == 32
        facts = f"{slide.properties} {slide.lattice}"
        assert "Doe" not in facts
        assert "4711" not in facts
        with open_slide(path) as again:
            assert again.digest() == slide.digest()


def regions(path, offset=(0, 0)):
    """Whole level 0 by OpenSlide's own Python layer, composited on white by Pillow."""
    with openslide.OpenSlide(path) as slide:
        size = (448, 320)
        picture = slide.read_region((offset[1], offset[0]), 0, size)
    white = np.full((320, 448, 3), 255.0)
    rgba = np.asarray(picture).astype(float)
    alpha = rgba[..., 3:] / 255
    return (rgba[..., :3] * alpha + white * (1 - alpha)).round().astype(np.uint8)


def test_pixels_are_those_of_openslide(tmp_path):
    """Without the detour over Pillow, in tiles and with bounds."""
    for path, offset in (
        (make.write_leica(tmp_path / "a.scn", LEVELS, corner=(20, 40)), (20, 40)),
        (make.write_mirax(tmp_path / "a.mrxs", FULL, margin=(2, 3)), (128, 192)),
        (make.write_ndpi(tmp_path / "a.ndpi", LEVELS), (0, 0)),
        (make.write_philips(tmp_path / "a.tiff", LEVELS), (0, 0)),
    ):
        np.testing.assert_array_equal(pixels_of(path), regions(path, offset))


@pytest.mark.parametrize(("sparse", "compressed"), list(product((False, True), repeat=2)))
def test_dicom_tiles_are_in_their_places(tmp_path, sparse, compressed):
    edge, path = 64, tmp_path / "slide"
    make.write_dicom(path, LEVELS, edge, sparse=sparse, compressed=compressed)
    want = np.zeros((320, 448, 3), np.uint8)
    for number, tile in enumerate(make.tiles_of(FULL, edge)):
        i, j = divmod(number, 7)
        stored = make.unjpeg(make.jpeg(tile, subsampling=1)) if compressed else tile
        want[i * edge : (i + 1) * edge, j * edge : (j + 1) * edge] = stored
    got = pixels_of(path)
    assert np.abs(got.astype(int) - want).max() <= (2 if compressed else 0)
    with open_slide(path) as slide:
        assert [level.shape for level in slide.levels] == [(320, 448), (80, 112)]


def test_bounds_are_the_slide(tmp_path):
    path = make.write_leica(tmp_path / "a.scn", LEVELS, corner=(24, 40), canvas=(400, 600))
    with open_slide(path) as slide:
        assert slide.lattice.shape == (320, 448)
        words = slide.properties["bounds"]
        assert words.startswith("320 x 448 px from row 24, column 40 of 400 x 600 px")
        assert [level.downsample for level in slide.levels] == [(1, 1), (4, 4)]
        coarse = slide.read_lattice(slide.working_lattice(2.0)).values
        with tifffile.TiffFile(path) as tiff:
            stored = tiff.pages[1].asarray()
        assert np.abs(coarse.astype(int) - stored).max() <= 3


def test_ndpi_strips_are_joined_to_tiles(tmp_path):
    wide = make.smooth(512, 2304)
    with open_slide(make.write_ndpi(tmp_path / "a.ndpi", [wide])) as slide:
        tiles = [level.tile for level in slide.source.levels]
        assert tiles[0] == (512, 1024)
        assert all(min(tile) >= 256 and max(tile) <= 1024 for tile in tiles)


def test_many_threads_have_a_handle_each(tmp_path):
    path = make.write_leica(tmp_path / "a.scn", LEVELS)
    with open_slide(path) as slide, ThreadPoolExecutor(6) as pool:
        want = slide.read_lattice(slide.lattice).values
        parts = [slide.lattice.crop(slice(r, r + 32), slice(None)) for r in range(0, 320, 32)] * 3
        for n, got in enumerate(pool.map(lambda part: slide.read_lattice(part).values, parts)):
            top = 32 * (n % 10)
            np.testing.assert_array_equal(got, want[top : top + 32])


def test_a_damaged_tile_does_not_spoil_the_others(tmp_path):
    """An error makes an OpenSlide handle useless; the slide goes on with another one."""
    path = make.write_philips(tmp_path / "a.tiff", LEVELS, edge=256)
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[1], tiff.pages[0].databytecounts[1]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(count))
    with open_slide(path) as slide:
        with pytest.raises(InputError, match="row 0, column 256"):
            slide.read_lattice(slide.lattice)
        part = slide.lattice.crop(slice(256, 320), slice(0, 448))
        got = slide.read_lattice(part).values
        assert np.abs(got.astype(int) - FULL[256:]).mean() < 3
    with open_slide(path, damaged="skip") as slide:
        slide.read_lattice(slide.lattice)
        assert [tile.origin_px for tile in slide.damaged] == [(0, 256)]


def test_black_padding_is_white(tmp_path):
    pixels = FULL.copy()
    pixels[:100], pixels[:, 400:] = 0, 0  # a scanner's filling: whole tiles, and parts of others
    pixels[200:210, 100:110] = 0  # a black spot within tissue stays
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(64, 64), photometric="rgb",
                     compression="zlib", **CM)  # fmt: skip
    want = pixels.copy()
    want[:100], want[:, 400:] = 255, 255
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.tif"), want)
    path = make.write_ventana(tmp_path / "a.bif", [pixels, pixels[::4, ::4].copy()])
    got = pixels_of(path)
    assert (got[:96, :384] == 255).all()
    assert (got[:, 416:] == 255).all()
    assert got[205, 105].max() < 40


# --- OME-Zarr -------------------------------------------------------------------------------------
def write_zarr(path, version, order="cyx", unit="micrometer", chunks=64, **more):
    """Two levels of FULL with the axes of *order*; more changes the metadata."""
    group = zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for number, pixels in enumerate(more.pop("levels", LEVELS)):
        lead = [a for a in order if a in "tz"]
        stored = pixels[(None,) * len(lead)]
        source = [*lead, "y", "x", "c"]
        stored = stored.transpose([source.index(axis) for axis in order])
        size = tuple(chunks if a in "yx" else 1 for a in order)
        group.create_array(str(number), data=np.ascontiguousarray(stored), chunks=size)
        step = 0.5 * FULL.shape[0] / pixels.shape[0]
        scale = [step if a in "yx" else 1.0 for a in order]
        transforms = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(number), "coordinateTransformations": transforms})
    kinds = {"c": "channel", "t": "time"}
    axes = [{"name": a, "type": kinds.get(a, "space")} for a in order]
    for axis in axes:
        if axis["name"] in "yx" and unit:
            axis["unit"] = unit
    image = {"axes": axes, "datasets": datasets, **more}
    if version == "0.4":
        group.attrs["multiscales"] = [{"version": "0.4", **image}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("order", ["cyx", "tczyx", "czyx", "yxc", "xyc"])
def test_ome_zarr(tmp_path, version, order):
    path = write_zarr(tmp_path / "slide.zarr", version, order)
    with open_slide(path) as slide:
        assert slide.reader == "zarr"
        assert slide.lattice.spacing_um == (0.5, 0.5)
        assert [level.shape for level in slide.levels] == [(320, 448), (80, 112)]
        assert slide.levels[1].downsample == (4, 4)
        assert slide.properties["vendor"] == f"OME-Zarr {version}"
        np.testing.assert_array_equal(slide.read_lattice(slide.lattice).values, FULL)
        coarse = slide.read_lattice(slide.working_lattice(2.0)).values
        np.testing.assert_array_equal(coarse, LEVELS[1])


def test_a_file_of_the_folder_stands_for_it(tmp_path):
    """A file dialog offers files only."""
    for version, name in (("0.4", ".zattrs"), ("0.5", "zarr.json")):
        path = write_zarr(tmp_path / version, version)
        with open_slide(path / name) as slide, open_slide(path) as whole:
            assert slide.path == path
            assert slide.digest() == whole.digest()
        with pytest.raises(InputError, match="0"):
            open_slide(next(p for p in (path / "0").iterdir() if p.name in (".zarray", name)))


def test_ome_zarr_units_and_transformations(tmp_path):
    both = [{"type": "scale", "scale": [1.0, 2.0, 1.0]}]
    path = write_zarr(tmp_path / "a", "0.4", unit="nanometer", coordinateTransformations=both)
    with pytest.raises(MissingPixelSize, match=r"0\.0005"):
        open_slide(path)
    path = write_zarr(tmp_path / "b", "0.5", coordinateTransformations=both)
    with open_slide(path) as slide:
        assert slide.lattice.spacing_um == (1.0, 0.5)
    with pytest.raises(MissingPixelSize, match="states no pixel size"):
        open_slide(write_zarr(tmp_path / "c", "0.5", unit=""))


def test_ome_zarr_reads_single_chunks_and_missing_ones_are_white(tmp_path):
    path = write_zarr(tmp_path / "a", "0.5", "yxc")
    with open_slide(path) as slide:
        before = slide.digest()
    shutil.rmtree(path / "0" / "c" / "2")  # a row of chunks that was never stored
    for chunk in (path / "0" / "c" / "3").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"damaged")
    with open_slide(path) as slide:
        assert slide.digest() != before
        got = slide.read_lattice(slide.lattice.crop(slice(0, 192), slice(0, 448))).values
        np.testing.assert_array_equal(got[:128], FULL[:128])
        assert (got[128:] == 255).all()
        with pytest.raises(InputError, match="row 192, column"):
            slide.read_lattice(slide.lattice)


def test_folders_that_are_no_slide(tmp_path):
    zarr.create_group(str(tmp_path / "empty.zarr"), zarr_format=3)
    with pytest.raises(InputError, match="without an OME-Zarr image"):
        open_slide(tmp_path / "empty.zarr")
    three = write_zarr(tmp_path / "z", "0.4", levels=[FULL])
    group = zarr.open_group(str(three), mode="a")
    group.attrs["omero"] = {"channels": [{"color": c} for c in ("0000FF", "00FF00", "FF0000")]}
    with pytest.raises(InputError, match="fluorescence"):
        open_slide(three)
    path = write_zarr(tmp_path / "gone", "0.5")
    shutil.rmtree(path / "1")
    with pytest.raises(InputError, match="level '1' is listed"):
        open_slide(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="metadata are damaged"):
        open_slide(path)
    make.write_mirax(tmp_path / "m.mrxs", FULL)
    with pytest.raises(InputError, match=r"give m\.mrxs"):
        open_slide(tmp_path / "m")
    make.write_dicom(tmp_path / "two", [FULL])
    for file in make.write_dicom(tmp_path / "other", [FULL]):
        file.rename(tmp_path / "two" / "second.dcm")
    with pytest.raises(InputError, match="2 DICOM slides"):
        open_slide(tmp_path / "two")


def places(value, before=()):
    """Every place in a JSON document."""
    listed = dict(enumerate(value)) if isinstance(value, list) else value
    for key, inner in listed.items() if isinstance(listed, dict) else ():
        yield (*before, key)
        yield from places(inner, (*before, key))


@pytest.mark.parametrize("seed", range(16))
def test_changed_zarr_metadata_end_in_a_read_or_an_error(tmp_path, seed):
    rng = random.Random(seed)
    folder = write_zarr(tmp_path / "a", "0.4" if seed % 2 else "0.5")
    files = sorted(p for p in folder.rglob("*") if p.name in ("zarr.json", ".zattrs", ".zarray"))
    told = []
    for _ in range(2):
        file = rng.choice(files)
        document = json.loads(file.read_text())
        place = rng.choice(list(places(document)) or [("new",)])
        inner = document
        for key in place[:-1]:
            inner = inner[key]
        values = [None, 0, -1, 1e30, "x", [], {}, [1, 2], 2**40, "uint16", float("nan")]
        inner[place[-1]] = rng.choice(values)
        file.write_text(json.dumps(document))
        try:
            with open_slide(folder, 0.5) as slide:
                slide.digest()
                slide.thumbnail(20.0)
        except InputError as error:
            told.append(str(error))
    assert all(folder.name in text and "\n" not in text for text in told)


# --- colour profiles ------------------------------------------------------------------------------
def profile():
    """The profile of a scanner whose red is sRGB's blue and the reverse."""
    from PIL import ImageCms

    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")


def test_colour_profiles_are_used_on_request(tmp_path):
    from PIL import Image

    icc = profile()
    Image.fromarray(FULL).save(tmp_path / "a.png", icc_profile=icc, dpi=(50800, 50800))
    tifffile.imwrite(tmp_path / "a.tif", FULL, tile=(64, 64), photometric="rgb",
                     compression="zlib", iccprofile=icc, **CM)  # fmt: skip
    swapped = FULL[..., ::-1].astype(int)
    for name in ("a.png", "a.tif"):
        with open_slide(tmp_path / name) as plain, open_slide(tmp_path / name, icc=True) as slide:
            np.testing.assert_array_equal(plain.read_lattice(plain.lattice).values, FULL)
            got = slide.read_lattice(slide.lattice).values.astype(int)
            assert np.abs(got - swapped).mean() < 12
            assert "colour" not in plain.properties
            assert slide.properties["colour"].startswith("converted to sRGB")
            assert slide.digest() != plain.digest()
    tifffile.imwrite(tmp_path / "b.tif", FULL, tile=(64, 64), photometric="rgb", **CM)
    with pytest.raises(InputError, match="no colour profile"):
        open_slide(tmp_path / "b.tif", icc=True)
    tifffile.imwrite(tmp_path / "c.tif", FULL, tile=(64, 64), photometric="rgb",
                     iccprofile=zlib.compress(icc), **CM)  # fmt: skip
    with pytest.raises(InputError, match="cannot be used"):
        open_slide(tmp_path / "c.tif", icc=True)
