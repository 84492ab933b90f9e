import errno
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_mosaik.core import InputError, Lattice, MissingPixelSize
from napari_mosaik.io.slide import open_slide
from napari_mosaik.io.slide.read.cache import PixelCache
from napari_mosaik.io.slide.read.tiles import TileReader
from napari_mosaik.io.slide.types.damage import DamageLog, damage_summary
from napari_mosaik.io.slide.types.pixel_size import aperio_facts, ome_spacing_um
from napari_mosaik.io.slide.types.tiles import StoredLevel
from tests.io import slide_formats as make

PIXELS = np.random.default_rng(2).integers(0, 256, (200, 260, 3), np.uint8)
OPTIONS = {"tile": (64, 64), "photometric": "rgb", "compression": "jpeg"}


def slide_file(path, resolution=(20000, 20000), unit="CENTIMETER", **more):
    tifffile.imwrite(
        path, PIXELS, resolution=resolution, resolutionunit=unit, **{**OPTIONS, **more}
    )
    return path


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"this is not a slide at all", "not a slide"), (b"II*\x00", "damaged"),
     (b"II*\x00\xff\xff\xff\x7f" + bytes(64), "damaged")],
)  # fmt: skip
def test_files_that_are_no_slide(tmp_path, content, words):
    path = tmp_path / "x.svs"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        open_slide(path)
    assert "x.svs" in one_sentence(error)


def test_folder_and_missing_file(tmp_path):
    with pytest.raises(InputError, match="folder"):
        open_slide(tmp_path)
    with pytest.raises(InputError, match="no file"):
        open_slide(tmp_path / "absent.svs")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_cut_off_slide(tmp_path, share):
    path = slide_file(tmp_path / "a.tif")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"cut off|damaged") as error:
        open_slide(path)
    one_sentence(error)


def test_corrupt_tile_is_named_by_its_place(tmp_path):
    path = slide_file(tmp_path / "a.tif")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, count = page.dataoffsets[6], page.databytecounts[6]  # row 1, column 1 of 5
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(count))
    with open_slide(path) as slide:
        slide.read_lattice(slide.lattice.crop(slice(0, 60), slice(0, 260)))
        with pytest.raises(InputError, match=r"row 64, column 64 px") as error:
            slide.read_lattice(slide.lattice)
        one_sentence(error)


def test_absurd_sizes_do_not_fill_the_memory(tmp_path):
    path = slide_file(tmp_path / "a.tif", compression=None)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        places = {tag.name: tag.valueoffset for tag in tiff.pages[0].tags}
    for name in ("ImageWidth", "TileWidth"):
        damaged = bytearray(content)
        struct.pack_into("<I", damaged, places[name], 0x7FFFFFF0)
        (tmp_path / "b.tif").write_bytes(damaged)
        with pytest.raises(InputError, match=r"b\.tif") as error:
            open_slide(tmp_path / "b.tif", 0.5)
        one_sentence(error)


def test_pixels_that_no_slide_has(tmp_path):
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 200).save(tmp_path / "c.png")
    with pytest.raises(InputError, match="8-bit colour"):
        open_slide(tmp_path / "c.png", 0.5)
    tifffile.imwrite(tmp_path / "a.tif", PIXELS.astype(np.uint16), photometric="rgb")
    with pytest.raises(InputError, match="8-bit"):
        open_slide(tmp_path / "a.tif", 0.5)
    five = np.zeros((100, 100, 5), np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", five, photometric="minisblack", planarconfig="contig")
    with pytest.raises(InputError, match="5 channels"):
        open_slide(tmp_path / "b.tif", 0.5)


@pytest.mark.parametrize(
    ("resolution", "unit", "words"),
    [
        ((1, 1), "NONE", "states no pixel size"),
        ((72, 72), "INCH", "352"),
        ((1e7, 1e7), "CENTIMETER", "0.001"),
    ],
)
def test_missing_or_absurd_pixel_size(tmp_path, resolution, unit, words):
    path = slide_file(tmp_path / "a.tif", resolution, unit)
    with pytest.raises(MissingPixelSize, match=words) as error:
        open_slide(path)
    assert "--spacing UM" in one_sentence(error)
    with open_slide(path, 0.5) as slide:
        assert slide.lattice.spacing_um == (0.5, 0.5)


@pytest.mark.parametrize("bad", [0, -1, float("nan"), 1e9, (0.5, 0)])
def test_impossible_user_pixel_size(tmp_path, bad):
    path = slide_file(tmp_path / "a.tif")
    with pytest.raises(InputError, match="not valid"):
        open_slide(path, bad)


def test_magnification_is_no_pixel_size(tmp_path):
    description = "Aperio Image Library v1\n260x200 (64x64) JPEG/RGB|AppMag = 20|Title = Doe"
    path = slide_file(tmp_path / "a.svs", (1, 1), "NONE", description=description, metadata=None)
    with pytest.raises(MissingPixelSize):
        open_slide(path)
    with open_slide(path, 0.5) as slide:
        assert slide.properties["objective"] == "20"
        assert "Doe" not in str(slide.properties)


def test_aperio_and_ome_headers():
    spacing, facts = aperio_facts("Aperio x\n1x1|AppMag = 40|User = me|MPP = 0.2528")
    assert spacing == (0.2528, 0.2528)
    assert facts == {"objective": "40"}
    assert aperio_facts("Aperio|MPP = abc")[0] is None
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels '
        'PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.0005" '
        'PhysicalSizeYUnit="mm"/></Image><Image><Pixels PhysicalSizeX="1"/></Image></OME>'
    )
    assert ome_spacing_um(xml, Path("a.ome.tif"), 0) == pytest.approx((0.5, 0.25))
    assert ome_spacing_um(xml, Path("a.ome.tif"), 1) is None
    assert ome_spacing_um("no xml", Path("a.ome.tif"), 0) is None


def test_label_pictures_are_not_the_slide(tmp_path):
    path = tmp_path / "a.svs"
    label = np.full((400, 500, 3), 7, np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PIXELS, description="Aperio Image\n260x200|MPP = 0.5", metadata=None, **OPTIONS)
        tiff.write(label, description="Aperio Image\nlabel 500x400", metadata=None,
                   photometric="rgb", subfiletype=1)  # fmt: skip
    with open_slide(path) as slide:
        assert slide.lattice.shape == (200, 260)
        assert slide.lattice.spacing_um == (0.5, 0.5)


def corrupt_tile(path, page=0, index=6):
    """Zero the stored bytes of one tile; tile 6 of 5 columns is row 1, column 1."""
    with tifffile.TiffFile(path) as tiff:
        found = tiff.pages[page]
        offset, count = found.dataoffsets[index], found.databytecounts[index]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(count))
    return path


def test_a_corrupt_tile_is_left_out_and_marked_on_request(tmp_path):
    path = corrupt_tile(slide_file(tmp_path / "a.tif", compression="zlib"))
    with open_slide(path, damaged="skip") as slide:
        assert slide.damaged == ()
        pixels = slide.read_lattice(slide.lattice).values
        assert (pixels[64:128, 64:128] == 255).all()
        expected = PIXELS.copy()
        expected[64:128, 64:128] = 255
        np.testing.assert_array_equal(pixels, expected)
        (tile,) = slide.damaged
        assert (tile.level, tile.origin_px, tile.size_px) == (0, (64, 64), (64, 64))
        assert (tile.origin_um, tile.size_um) == ((32.0, 32.0), (32.0, 32.0))
        assert tile.reason
        record = slide.damage_record()
        assert record["count"] == 1
        assert record["area_mm2"] == pytest.approx(32 * 32 / 1e6)
        assert record["tiles"][0]["origin_px"] == [64, 64]
        assert "row 64, column 64 px" in damage_summary(record, "CD34")
        sound = slide.valid_mask(slide.lattice)
        np.testing.assert_array_equal(sound, (expected != 255).any(axis=2) | (PIXELS == 255).all(2))
        coarse = slide.valid_mask(slide.working_lattice(5.0))  # 10 native pixels a sample
        assert (~coarse).sum() == 7 * 7
        assert not coarse[6:13, 6:13].any()
    with pytest.raises(InputError, match="neither 'stop' nor 'skip'"):
        open_slide(path, damaged="maybe")


def test_damage_is_found_before_anything_is_read(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PIXELS, subifds=1, resolution=(20000, 20000), resolutionunit="CENTIMETER",
                   **OPTIONS)  # fmt: skip
        tiff.write(PIXELS[::4, ::4], subfiletype=1, **OPTIONS)
    corrupt_tile(path, index=19)  # the last tile, cut off by the edges: 8 x 4 pixels
    with open_slide(path, damaged="skip") as slide:
        assert list(slide.find_damage())[-1] == (22, 22)
        (tile,) = slide.damaged
        assert (tile.origin_px, tile.size_px) == ((192, 256), (8, 4))
    with open_slide(path) as slide, pytest.raises(InputError, match="row 192, column 256 px"):
        list(slide.find_damage())


def test_overlapping_damage_is_counted_once():
    log = DamageLog(
        Lattice("slide", (256, 256), (1.0, 1.0)),
        (StoredLevel((256, 256), (64, 64)), StoredLevel((128, 128), (64, 64))),
    )
    for key in ((1, 0, 0), (0, 0, 1), (0, 3, 3)):
        log.add(key, "spoilt")
    assert [tile.level for tile in log.tiles()] == [0, 0, 1]
    assert log.record()["area_mm2"] == pytest.approx((128**2 + 64**2) / 1e6)
    assert (~log.valid_mask(Lattice("slide", (256, 256), (1.0, 1.0)))).sum() == 128**2 + 64**2


def test_a_slide_that_shrinks_or_vanishes_is_no_damaged_tile(tmp_path):
    path = slide_file(tmp_path / "a.tif")
    content = path.read_bytes()
    with open_slide(path, damaged="skip") as slide:
        path.write_bytes(content[:3000])
        with pytest.raises(InputError, match="changed while it was read") as error:
            slide.read_lattice(slide.lattice)
        one_sentence(error)
        path.unlink()
        with pytest.raises(InputError, match="disappeared"):
            slide.read_lattice(slide.lattice)
        assert slide.damaged == ()


class _Source:
    """A file whose tiles come, or fail, as a test wants."""

    reader = "test"
    levels = (StoredLevel((100, 400), (100, 100)),)
    header_spacing_um = (0.5, 0.5)
    properties: ClassVar[dict[str, str]] = {}

    def __init__(self, path, tile):
        self.path = path
        path.write_bytes(b"something")
        self._tile = tile

    def tile(self, level, row, column):
        return self._tile(column)

    def close(self):
        pass


def test_a_fault_of_the_disk_is_never_taken_for_damage(tmp_path):
    def broken(column):
        raise OSError(errno.EIO, "Input/output error")

    source = _Source(tmp_path / "a.x", broken)
    log = DamageLog(Lattice("slide", (100, 400), (1.0, 1.0)), source.levels)
    reader = TileReader(source, PixelCache(1 << 20), log)
    with pytest.raises(InputError, match=r"Input/output error.*network drive"):
        reader.region(0, 0, 0, 100, 400)
    assert log.tiles() == ()
    reader.close()


def test_a_slow_disk_delays_nothing_that_is_there_already(tmp_path):
    go_on, waiting = threading.Event(), threading.Event()

    def slow(column):
        if column == 3:
            waiting.set()
            go_on.wait()
        return np.full((100, 100, 3), column, np.uint8)

    cache = PixelCache(1 << 24)
    reader = TileReader(_Source(tmp_path / "a.x", slow), cache)
    other = TileReader(_Source(tmp_path / "b.x", lambda column: slow(0)), cache)
    reader.region(0, 0, 0, 100, 300)
    with ThreadPoolExecutor(8) as pool:
        stuck = [pool.submit(reader.region, 0, 0, 0, 100, 400) for _ in range(3)]
        waiting.wait()
        assert (reader.region(0, 0, 200, 100, 100) == 2).all()
        assert (other.region(0, 0, 0, 100, 400) == 0).all()
        assert not any(job.done() for job in stuck)
        go_on.set()
        assert all((job.result()[:, 300:] == 3).all() for job in stuck)
    reader.close()
    other.close()


def patched(path, place, form, value):
    """Overwrite one number of a file."""
    with path.open("r+b") as file:
        file.seek(place)
        file.write(struct.pack(form, value))
    return path


def refused(path, words):
    with pytest.raises(InputError, match=words) as error:
        open_slide(path, 0.5)
    assert path.name in one_sentence(error)


def test_directories_that_loop_are_told_at_once(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PIXELS, subifds=1, **OPTIONS)
        tiff.write(PIXELS[::2, ::2], subfiletype=1, **OPTIONS)
        tiff.write(PIXELS, **OPTIONS)
    with tifffile.TiffFile(path) as tiff:
        first, second = tiff.pages[0], tiff.pages[1]
        after = second.offset + 2 + 12 * len(second.tags)
        sub = first.tags["SubIFDs"].valueoffset
        start = first.offset
    content = path.read_bytes()
    refused(patched(path, after, "<I", start), "form a loop")
    path.write_bytes(content)
    refused(patched(path, sub, "<I", start), "form a loop")
    path.write_bytes(content)
    refused(patched(path, sub, "<I", len(content) + 5), "beyond its end")
    path.write_bytes(content)
    refused(patched(path, start, "<H", 60000), "60000 entries")


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_wrong_mark_of_the_byte_order(tmp_path, order):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, byteorder=order, **OPTIONS)
    content = path.read_bytes()
    path.write_bytes((b"MM\x00*" if order == "<" else b"II*\x00") + content[4:])
    refused(path, "header is damaged or cut off")


def test_sizes_that_the_stored_bytes_cannot_hold(tmp_path):
    path = slide_file(tmp_path / "a.tif", tile=None, compression=None, rowsperstrip=200)
    with tifffile.TiffFile(path) as tiff:
        width = tiff.pages.first.tags["ImageWidth"].valueoffset
    refused(patched(path, width, "<H", 60000), "hold 156000 bytes at most")
    bomb = tmp_path / "b.tif"
    tifffile.imwrite(bomb, np.zeros((4096, 4096), np.uint8), tile=(4096, 4096), compression="zlib")
    with tifffile.TiffFile(bomb) as tiff:
        count = tiff.pages.first.tags["TileByteCounts"].valueoffset
    refused(patched(bomb, count, "<I", 9000), "hold 9000 bytes at most")


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "webp"])
def test_a_tile_that_states_a_huge_picture_is_not_decoded(tmp_path, compression):
    path = slide_file(tmp_path / "a.tif", compression=compression)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        offset, count = page.dataoffsets[6], page.databytecounts[6]
    data = path.read_bytes()[offset : offset + count]
    if compression == "jpeg":
        patched(path, offset + data.index(b"\xff\xc0") + 5, ">H", 65000)
    elif compression == "jpeg2000":
        patched(path, offset + data.index(b"\xff\x4f\xff\x51") + 8, ">I", 2**31)
    else:
        assert data[12:16] == b"VP8L"
        patched(path, offset + 21, "<I", 0x0FFFFFFF)
    with open_slide(path, 0.5) as slide, pytest.raises(InputError, match="its data state") as error:
        slide.read_lattice(slide.lattice)
    assert "row 64, column 64 px" in one_sentence(error)


def test_a_piece_that_is_said_to_be_huge_is_not_read(tmp_path):
    path = slide_file(tmp_path / "a.tif", bigtiff=True)
    path.write_bytes(path.read_bytes() + bytes(200_000))
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages.first.tags
        counts, offsets = tags["TileByteCounts"], tags["TileOffsets"]
    content = path.read_bytes()
    size = counts.valuebytecount // counts.count
    form = {2: "<H", 4: "<I", 8: "<Q"}[size]
    if size > 2:
        patched(path, counts.valueoffset + 6 * size, form, 150_000)
        with open_slide(path, 0.5) as slide, pytest.raises(InputError, match="150000 bytes"):
            slide.read_lattice(slide.lattice)
    path.write_bytes(content)
    refused(patched(path, offsets.valueoffset + 6 * 8, "<Q", 2**63 - 10), "cut off|damaged")


def test_what_is_left_of_a_cut_off_slide_is_read_on_request(tmp_path):
    path = slide_file(tmp_path / "a.tif", compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        last = tiff.pages.first.dataoffsets[-1]
    path.write_bytes(path.read_bytes()[: last + 10])
    refused(path, r"1 of 20 pieces .* --damaged skip")
    with open_slide(path, damaged="skip") as slide:
        slide.digest()
        pixels = slide.read_lattice(slide.lattice).values
        expected = PIXELS.copy()
        expected[192:, 256:] = 255
        np.testing.assert_array_equal(pixels, expected)
        (tile,) = slide.damaged
        assert "beyond the end" in tile.reason


def test_a_scan_of_a_slow_disk_can_be_cancelled(tmp_path):
    tried = []

    def slow(column):
        tried.append(column)
        return np.zeros((100, 100, 3), np.uint8)

    source = _Source(tmp_path / "a.x", slow)
    source.levels = (StoredLevel((100, 100_000), (100, 100)),)
    reader = TileReader(source, PixelCache(1 << 20))
    scan = reader.scan()
    done, total = next(scan)
    assert total == 1000
    scan.close()
    assert len(tried) == done <= 64
    reader.close()


def test_levels_that_a_cut_off_slide_lost_are_made_again_on_request(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PIXELS, **{**OPTIONS, "compression": "zlib"})
        tiff.write(PIXELS[::2, ::2], subfiletype=1, **OPTIONS)
    with tifffile.TiffFile(path) as tiff:
        second = tiff.pages[1].offset
    path.write_bytes(path.read_bytes()[:second])
    refused(path, "beyond its end")
    with open_slide(path, 0.5, damaged="skip") as slide:
        np.testing.assert_array_equal(slide.read_lattice(slide.lattice).values, PIXELS)
        assert slide.damaged == ()


@pytest.mark.parametrize(
    ("name", "page", "tag", "value", "words"),
    [
        ("a.tiff", 0, "TileLength", 0x7FFFFFFF, "tiles state 2147483647 x 64"),
        ("a.ndpi", 1, "ImageLength", 0x7FFFFFFF, "2147483647 x 160 pixels"),
        ("b.svs", 0, "ImageLength", 8, "a level of 128 x 160 pixels in a slide of 8 x 320"),
        ("a.bif", 0, "ImageLength", 8, "a slide of 256 x 320 pixels but contains an image"),
    ],
)
def test_what_openslide_would_end_the_program_for(tmp_path, name, page, tag, value, words):
    full = make.smooth(256, 320)
    levels = [full, full[::2, ::2].copy(), full[::4, ::4].copy()]
    path = tmp_path / name
    {
        "a.tiff": make.write_philips,
        "a.ndpi": make.write_ndpi,
        "b.svs": partial(make.write_svs, compression=33003),
        "a.bif": make.write_ventana,
    }[name](path, levels)
    open_slide(path, 0.5).close()
    with tifffile.TiffFile(path) as tiff:
        pages = [p for p in tiff.pages if p.imagewidth == (320, 160)[page]]
        place = pages[0].tags[tag]
    patched(path, place.valueoffset, "<H" if place.dtype == 3 else "<I", value & 0x7FFFFFFF)
    refused(path, words)
