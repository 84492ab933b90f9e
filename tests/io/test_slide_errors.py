import struct

import numpy as np
import pytest
import tifffile

from napari_mosaik.core import InputError, MissingPixelSize
from napari_mosaik.io.slide import open_slide
from napari_mosaik.io.slide.header import aperio_facts, ome_spacing_um

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
        ((1, 1), "NONE", "does not say"),
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
    with pytest.raises(InputError, match="not possible"):
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
    assert ome_spacing_um(xml, 0) == pytest.approx((0.5, 0.25))
    assert ome_spacing_um(xml, 1) is None
    assert ome_spacing_um("no xml", 0) is None


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
