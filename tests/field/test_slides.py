"""Slides as scanners, converters and people leave them."""

import json
import os
import shutil

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image, ImageOps

from napari_mosaik.cli import main
from napari_mosaik.core.catalogue import SLIDES
from napari_mosaik.core.errors import InputError, MissingPixelSize
from napari_mosaik.core.spacing import typed_spacing
from napari_mosaik.io import Case, CaseFile, create_case, open_slide
from napari_mosaik.io.case_file import SlideEntry
from napari_mosaik.workflow.case_status import case_status
from tests.field.test_cases import run_to_end_of

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 255, (96, 128, 3), np.uint8)
OTHER = RNG.integers(0, 255, (60, 80, 3), np.uint8)


def told(capsys, *arguments):
    """Exit code, output and errors of a command."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return end.value.code or 0, captured.out, captured.err


def refused(capsys, *arguments):
    """The one line of a refused command."""
    code, _, error = told(capsys, *arguments)
    assert (code, error.count("\n")) == (2, 1), error
    return error


# --- the pixel size of this picture ---------------------------------------------------------------
OME = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid}">{images}</OME>'
IMAGE = (
    '<Image ID="Image:{n}"><Pixels ID="Pixels:{n}" DimensionOrder="XYCZT" Type="uint8" '
    'SizeX="{x}" SizeY="{y}" SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="{size}" '
    'PhysicalSizeY="{size}"><Channel ID="Channel:{n}:0" SamplesPerPixel="3"/>{data}'
    "</Pixels></Image>"
)
DATA = '<TiffData IFD="{ifd}" PlaneCount="1">{uuid}</TiffData>'
UUID = '<UUID FileName="{name}">{uuid}</UUID>'


def image(n, pixels, size, data):
    return IMAGE.format(n=n, y=pixels.shape[0], x=pixels.shape[1], size=size, data=data)


def fileset(folder):
    """Two files that each describe both images: x_s0 with 8 µm, x_s1 with 0.5 µm."""
    names = {"x_s0.ome.tif": "urn:uuid:0", "x_s1.ome.tif": "urn:uuid:1"}
    images = "".join(
        image(n, pixels, size, DATA.format(ifd=0, uuid=UUID.format(name=name, uuid=uuid)))
        for n, (pixels, size, (name, uuid)) in enumerate(
            zip((OTHER, PIXELS), (8.0, 0.5), names.items(), strict=True)
        )
    )
    for (name, uuid), pixels in zip(names.items(), (OTHER, PIXELS), strict=True):
        tifffile.imwrite(
            folder / name,
            pixels,
            photometric="rgb",
            tile=(32, 32),
            compression="zlib",
            description=OME.format(uuid=uuid, images=images),
            metadata=None,
        )
    return folder / "x_s0.ome.tif", folder / "x_s1.ome.tif"


def whole(path, spacing=None):
    with open_slide(path, spacing) as slide:
        return slide.lattice.spacing_um, slide.read_lattice(slide.lattice).values


def test_each_file_of_an_ome_set_is_its_own_picture(tmp_path):
    for path, pixels, size in zip(fileset(tmp_path), (OTHER, PIXELS), (8.0, 0.5), strict=True):
        spacing, values = whole(path)
        assert spacing == (size, size)
        np.testing.assert_array_equal(values, pixels)


def test_the_second_file_of_an_ome_set_alone_or_renamed(tmp_path):
    _, second = fileset(tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("x_s1.ome.tif", "renamed.tif"):
        spacing, values = whole(shutil.copy(second, alone / name))
        assert spacing == (0.5, 0.5)
        np.testing.assert_array_equal(values, PIXELS)


def test_a_file_that_is_described_elsewhere(tmp_path):
    """BinaryOnly: the metadata file beside it states the size; without it nobody does."""
    companion = OME.format(
        uuid="urn:uuid:c",
        images=image(
            0, PIXELS, 0.25, DATA.format(ifd=0, uuid=UUID.format(name="a.ome.tif", uuid="u"))
        ),
    )
    (tmp_path / "set.companion.ome").write_text(companion)
    binary = '<BinaryOnly MetadataFile="set.companion.ome" UUID="urn:uuid:c"/>'
    path = tmp_path / "a.ome.tif"
    description = OME.format(uuid="u", images=binary)
    tifffile.imwrite(path, PIXELS, photometric="rgb", description=description, metadata=None)
    assert whole(path)[0] == (0.25, 0.25)
    (tmp_path / "set.companion.ome").unlink()
    with pytest.raises(MissingPixelSize):
        open_slide(path)


def ome_zarr(path, transforms, own=None, unit="micrometer"):
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    group.create_array("0", data=PIXELS.transpose(2, 0, 1), chunks=(3, 64, 64))
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": unit} for name in "yx"]
    dataset = {"path": "0"} | ({} if own is None else {"coordinateTransformations": own})
    entry = {"version": "0.4", "axes": axes, "datasets": [dataset]}
    if transforms is not None:
        entry["coordinateTransformations"] = transforms
    group.attrs["multiscales"] = [entry]
    return path


SCALE = [{"type": "scale", "scale": [1, 0.5, 0.5]}]


@pytest.mark.parametrize(
    ("transforms", "own", "unit", "size"),
    [
        (None, SCALE, "micrometer", 0.5),
        (SCALE, None, "micrometer", 0.5),
        (SCALE, SCALE, "micrometer", 0.25),
        (None, [{"type": "scale", "scale": [1, 500, 500]}], "nanometer", 0.5),
        (None, None, "micrometer", None),
        ([], [], "micrometer", None),
        (None, [{"type": "identity"}], "micrometer", None),
        (None, [{"type": "translation", "translation": [0, 1, 1]}], "micrometer", None),
        (None, SCALE, "pixel", None),
        (None, SCALE, None, None),
    ],
)
def test_an_ome_zarr_states_a_size_by_scale_and_unit(tmp_path, transforms, own, unit, size):
    path = ome_zarr(tmp_path / "a.zarr", transforms, own, unit)
    if size is None:
        with pytest.raises(MissingPixelSize):
            open_slide(path)
    else:
        assert whole(path)[0] == (size, size)


@pytest.mark.parametrize("dpi", [72, 96, 300])
def test_the_resolution_of_a_screen_is_no_pixel_size(tmp_path, dpi):
    Image.fromarray(PIXELS).save(tmp_path / "a.tif", dpi=(dpi, dpi))
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", dpi=(dpi, dpi))
    for name in ("a.tif", "a.jpg"):
        with pytest.raises(MissingPixelSize):
            open_slide(tmp_path / name)


# --- typed pixel sizes ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("0.25", (0.25, 0.25)),
        ("0,25", (0.25, 0.25)),
        ("0.25x0.26", (0.25, 0.26)),
        ("0,25 x 0,26", (0.25, 0.26)),
        ("0.25 µm", (0.25, 0.25)),
        ("0.25um/px", (0.25, 0.25)),
        ("20", (20, 20)),
    ],
)
def test_pixel_sizes_as_people_type_them(text, sizes):
    assert typed_spacing(text) == sizes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("250", "did you mean 0.25 µm (250 nm)?"),
        ("250x260", "did you mean 0.25 x 0.26 µm"),
        ("25", "give a number between 0.05 and 20 µm"),
        ("0.01", "give a number between 0.05 and 20 µm"),
        ("0", "not valid"),
        ("-1", "not valid"),
        ("inf", "is not valid"),
        ("nan", "is not valid"),
        ("1x2x3", "is not valid; give µm"),
        ("a", "is not valid"),
        ("40x", "is not valid"),
    ],
)
def test_impossible_pixel_sizes_are_refused_everywhere(tmp_path, capsys, text, words):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    for command in (
        ("slide", path, "--spacing", text),
        ("new", tmp_path / "c", "--he", path, "--spacing-he", text),
        ("new", tmp_path / "c", "--he", path, "--spacing", text),
        ("segment", "nuclei", path, "--spacing", text, "--out", tmp_path / "o.tif"),
        ("align", path, path, "--spacing-fixed", text),
        ("profiles", "--add", "x", "--spacing", text),
    ):
        assert words in refused(capsys, *command)
    assert not (tmp_path / "c").exists()


def test_a_pixel_size_of_case_toml_is_checked_too(tmp_path, capsys):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    assert told(capsys, "new", tmp_path / "c", "--he", path, "--spacing-he", "0,25x0,26")[0] == 0
    toml = tmp_path / "c" / "case.toml"
    assert Case(tmp_path / "c").spacing_um("he") == (0.25, 0.26)
    toml.write_text(toml.read_text("utf-8").replace("0.25,", "250.0,"), "utf-8")
    _, out, _ = told(capsys, "status", tmp_path / "c", "--json")
    states = json.loads(out)["c"]["steps"]
    assert states["tissue_he"]["state"] == "blocked"
    assert "250 x 0.26 µm is not valid" in states["tissue_he"]["reason"]


# --- files that are not the slide -----------------------------------------------------------------
def test_a_mirax_slide_without_its_folder_is_not_its_thumbnail(tmp_path, capsys):
    Image.fromarray(PIXELS).save(tmp_path / "slide.jpg")
    (tmp_path / "slide.jpg").rename(tmp_path / "slide.mrxs")
    line = refused(capsys, "slide", tmp_path / "slide.mrxs", "--spacing", "0.25")
    assert "its folder slide is missing beside it; copy both" in line
    link = tmp_path / "link.mrxs"
    link.symlink_to(tmp_path / "slide.mrxs")
    assert "its folder link is missing" in refused(capsys, "slide", link, "--spacing", "0.25")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.svs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("a.svs", b"<!DOCTYPE html>\n<html><body>404</body>", "a web page"),
        ("a.svs", b"  <html>", "a web page"),
        ("a.svs", b"", "empty"),
        ("a.svs", bytes(500), "filled with zeros"),
        ("a.zip", b"PK\x03\x04" + bytes(50), "a ZIP archive: unpack it"),
        ("a.qpproj", b"{}" + bytes(0), "a QuPath project: give the slide"),
        ("a.vsi", b"xyz" * 50, "an Olympus VSI slide"),
        ("a.pdf", b"%PDF-1.4", "a PDF document"),
    ],
)
def test_what_is_no_slide_is_named(tmp_path, capsys, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert words in refused(capsys, "slide", tmp_path / name)


@pytest.mark.parametrize(
    ("typed", "hint"), [("250", "did you mean 0.25 µm"), ("30", ""), ("25000", "")]
)
def test_nanometres_are_recognised_where_they_are_plausible(typed, hint):
    with pytest.raises(InputError, match="is not valid") as error:
        typed_spacing(typed)
    assert ("did you mean" in str(error.value)) == bool(hint)
    assert hint in str(error.value)


@pytest.mark.parametrize("ratio", [2.5, 1 / 2.5])
def test_a_ratio_of_the_edges_beyond_two_is_asked_for(tmp_path, ratio):
    resolution = (1e4 / 0.5, 1e4 / (0.5 * ratio))
    tifffile.imwrite(
        tmp_path / "a.tif", PIXELS, photometric="rgb", resolution=resolution, resolutionunit=3
    )
    with pytest.raises(MissingPixelSize, match="far from square"):
        open_slide(tmp_path / "a.tif")


def test_pages_and_channels_are_named(tmp_path, capsys):
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([PIXELS] * 3), photometric="rgb")
    assert "holds 3 pages of 96 x 128 pixels" in refused(capsys, "slide", tmp_path / "pages.tif")
    tifffile.imwrite(tmp_path / "channels.tif", PIXELS[None, ..., 0].repeat(5, 0))
    assert "5 channels" in refused(capsys, "slide", tmp_path / "channels.tif")


def test_the_page_of_a_stack_is_chosen(tmp_path, capsys):
    """By --page and --page-he; in a case for every command. Another page is another slide."""
    stack = np.stack([PIXELS, 255 - PIXELS, PIXELS // 2])
    path = tmp_path / "pages.tif"
    tifffile.imwrite(path, stack, photometric="rgb")
    assert "give --page (1 to 3)" in refused(capsys, "slide", path)
    assert "give --page (1 to 3)" in refused(
        capsys, "segment", "tissue", path, "--spacing", "0.5", "--out", tmp_path / "a.tif"
    )
    for page in (1, 2, 3):
        with open_slide(path, 0.5, page=page) as slide:
            np.testing.assert_array_equal(slide.thumbnail(0.5).values, stack[page - 1])
    assert "has no page 4; it has 3" in refused(capsys, "slide", path, "--page", "4")
    options = ("new", tmp_path / "B1", "--he", path, "--spacing", "0.5")
    assert "give --page-he (1 to 3)" in refused(capsys, *options)
    assert told(capsys, *options, "--page-he", "2")[0] == 0
    case = Case(tmp_path / "B1")
    with case.slide("he") as slide:
        np.testing.assert_array_equal(slide.thumbnail(0.5).values, stack[1])
    digest, known = case.digest(SLIDES["he"]), case.identity("he")
    case.update(slides={"he": case.file.slides["he"].model_copy(update={"page": 3})})
    assert case.digest(SLIDES["he"]) != digest
    assert case.file.identity["he"].content != known.content
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    assert "has no pages" in refused(
        capsys, "slide", tmp_path / "a.png", "--page", "1", "--spacing", "0.5"
    )


@pytest.mark.parametrize("suffix", [".svs", ".ndpi", ".bif", ".NDPI"])
def test_a_picture_is_not_the_slide_that_its_name_promises(tmp_path, capsys, suffix):
    Image.fromarray(PIXELS).save(tmp_path / f"a{suffix}", "JPEG")
    assert "only a JPEG picture" in refused(
        capsys, "slide", tmp_path / f"a{suffix}", "--spacing", "0.5"
    )


def test_the_overview_in_a_vsi_file_is_not_the_slide(tmp_path, capsys):
    tifffile.imwrite(tmp_path / "a.vsi", PIXELS, photometric="rgb")
    error = refused(capsys, "slide", tmp_path / "a.vsi", "--spacing", "0.5")
    assert "an Olympus VSI slide" in error


def stack(axes):
    return {"photometric": "minisblack", "metadata": {"axes": axes}}


@pytest.mark.parametrize("axes", ["ZYX", "TYX"])
def test_three_grey_planes_are_not_red_green_and_blue(tmp_path, capsys, axes):
    tifffile.imwrite(tmp_path / "z.ome.tif", PIXELS[None, ..., 0].repeat(3, 0), **stack(axes))
    error = refused(capsys, "slide", tmp_path / "z.ome.tif", "--spacing", "0.5")
    assert "holds 3 pages" in error


def test_three_grey_channels_are_a_doubt(tmp_path):
    tifffile.imwrite(tmp_path / "c.ome.tif", PIXELS[None, ..., 0].repeat(3, 0), **stack("CYX"))
    with open_slide(tmp_path / "c.ome.tif", 0.5) as slide:
        assert "three grey channels" in slide.properties["warning"]


def test_colours_for_printing_are_refused(tmp_path, capsys):
    Image.fromarray(PIXELS).convert("CMYK").save(tmp_path / "a.jpg")
    four = np.dstack([PIXELS, PIXELS[..., 0]])
    tifffile.imwrite(tmp_path / "a.tif", four, photometric="separated")
    tifffile.imwrite(tmp_path / "lab.tif", PIXELS, photometric="cielab")
    for name in ("a.jpg", "a.tif", "lab.tif"):
        assert "colours" in refused(capsys, "slide", tmp_path / name, "--spacing", "0.5")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_upright_as_its_exif_data_state(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    with open_slide(tmp_path / "a.png", 1.0) as slide:
        assert slide.lattice.shape == upright.shape[:2]
        whole = slide.read((0, 0), slide.lattice.extent_um, 1.0).values
    np.testing.assert_array_equal(whole, upright)


@pytest.mark.parametrize(
    ("objective", "size", "asked", "doubted"),
    [(20, 0.499, False, False), (40, 0.25, False, False), (40, 0.5, False, True),
     (20, 0.25, False, True), (20, 4.99, True, False), (40, 10, True, False)],
)  # fmt: skip
def test_a_pixel_size_beside_its_objective(tmp_path, capsys, objective, size, asked, doubted):
    path = tmp_path / "a.svs"
    text = f"Aperio Image Library v1\r\n|AppMag = {objective}|MPP = {size}"
    tifffile.imwrite(path, PIXELS, tile=(64, 64), description=text, metadata=None)
    code, out, error = told(capsys, "slide", path, "--json")
    assert code == (2 if asked else 0)
    assert ("contradict" in error) == asked
    warnings = json.loads(out)["warnings"]
    assert [text for text in warnings if "do not fit" in text] == warnings
    assert bool(warnings) == doubted
    assert ("do not fit" in error) == doubted


@pytest.mark.parametrize(
    ("per_cm", "doubted"), [(20000, False), (21000, False), (40000, True), (28.35, False)]
)
def test_ome_xml_beside_the_resolution_tags(tmp_path, capsys, per_cm, doubted):
    size = {f"PhysicalSize{axis}": 0.5 for axis in "XY"}
    size |= {f"{name}Unit": "µm" for name in size}
    path, tags = tmp_path / "a.ome.tif", {"resolution": (per_cm, per_cm), "resolutionunit": 3}
    tifffile.imwrite(path, PIXELS, ome=True, photometric="rgb", metadata=size, **tags)
    code, out, error = told(capsys, "slide", path, "--json")
    record = json.loads(out)
    assert (code, record["spacing_um"]) == (0, [0.5, 0.5])
    assert bool(record["warnings"]) == ("0.25 x 0.25" in error) == doubted


@pytest.mark.parametrize(
    ("description", "size"),
    [
        ("640x512 [0,0 640x512] (256x256)", 0.5),
        ("46920x33014 [42673,5576 640x512] (256x256) JPEG/RGB Q=30", 0.5),  # a region
        ("46920x33014 [42673,5576,640x512] (256x256)", 0.5),
        ("640x512 (64x64);Aperio Image Library v10\n46920x33014 [0,0 4x4] -> 2x2", 0.5),
        ("1280x1024 [0,0 1280x1024] (256x256) -> 640x512", None),  # scaled by ImageScope
        ("1280x1024 -> 640x512 - ", None),
        ("2560x2048 [0,0 2560x2048] (256x256)", None),  # a level of it, saved with its description
        ("", 0.5),
    ],
)
def test_the_pixel_size_of_a_description_is_that_of_its_picture(tmp_path, description, size):
    """Programs keep the description, and so its pixel size, when they scale the picture."""
    text = f"Aperio Image Library v11.2.1\n{description}|AppMag = 20|MPP = 0.5"
    pixels = np.full((512, 640, 3), 240, np.uint8)
    path = tmp_path / "a.svs"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), description=text,
                     metadata=None)  # fmt: skip
    if size is None:
        with pytest.raises(MissingPixelSize):
            open_slide(path)
    else:
        with open_slide(path) as slide:
            assert slide.lattice.spacing_um == (size, size)


PER_CM = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}


@pytest.mark.parametrize("ome", [False, True])
@pytest.mark.parametrize(
    ("second", "copy"),
    [((512, 640), False), ((400, 600), False), ((256, 320), True), ((100, 130), True)],
)
def test_two_sections_in_one_file_are_asked_for(tmp_path, capsys, ome, second, copy):
    """The largest alone would be a part of the scan; a smaller copy is a level, a tiny one none."""
    path = tmp_path / ("a.ome.tif" if ome else "a.tif")
    with tifffile.TiffWriter(path, ome=ome) as tiff:
        for shape in ((512, 640), second):
            tiff.write(np.full((*shape, 3), 200, np.uint8), photometric="rgb", tile=(128, 128),
                       metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
                       **PER_CM)  # fmt: skip
    code, out, error = told(capsys, "slide", path, "--json")
    assert code == (0 if copy else 2)
    if not copy:
        listed = f"1 (512 x 640 pixels), 2 ({second[0]} x {second[1]} pixels)"
        assert f"holds 2 pictures, and a slide is one: give --page: {listed}" in error
        code, out, _ = told(capsys, "slide", path, "--page", "2", "--json")
        assert json.loads(out)["shape"] == list(second)


@pytest.mark.parametrize(("typed", "doubt"), [("0.25", True), ("0.52", False)])
def test_a_typed_pixel_size_beside_that_of_the_header(tmp_path, capsys, typed, doubt):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((64, 64, 3), 200, np.uint8), photometric="rgb", **PER_CM)
    code, out, error = told(capsys, "slide", path, "--spacing", typed, "--json")
    assert code == 0
    record = json.loads(out)
    assert record["spacing_um"][0] == float(typed)
    assert any("the header states 0.5 x 0.5 µm" in text for text in record["warnings"]) == doubt
    assert ("the header states 0.5" in error) == doubt


def test_pixels_far_from_square_are_asked_for(tmp_path):
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 2.5}
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PIXELS, photometric="rgb", metadata={"axes": "YXS", **sizes})
    with pytest.raises(MissingPixelSize, match="far from square"):
        open_slide(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("'{}'", "quotation marks"), ('"{}"', "quotation marks"), ("{} ", "ends with a space"),
        ("file://{}", "without 'file://'"), ("https://x.org/a.svs", "download it"),
    ],
)  # fmt: skip
def test_paths_as_people_paste_them(tmp_path, capsys, text, words):
    assert words in refused(capsys, "slide", text.format(tmp_path / "a.svs"))


# --- the identity of a slide ----------------------------------------------------------------------
@pytest.fixture
def case(tmp_path):
    """A case with one slide, a TIFF of a single strip, and its tissue mask."""
    path = tmp_path / "he.tif"
    pixels = np.full((1200, 1200, 3), 240, np.uint8)
    pixels[200:900, 200:900] = (180, 90, 150)
    tifffile.imwrite(path, pixels, photometric="rgb", rowsperstrip=1200)
    file = CaseFile.model_validate(
        {
            "name": "A",
            "patient": "p",
            "slides": {"he": SlideEntry(path=str(path)).spaced((2, 2), "user", "")},
        }
    )
    made = create_case(tmp_path / "A", file)
    run_to_end_of(made, "tissue_he")
    return made


def word(case):
    return case_status(Case(case.root)).states["tissue_he"].word


def changed(path, offset=-1000):
    """One byte near the end of a file is another one; size and name stay."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(bytes(data))


def test_one_changed_byte_makes_the_results_stale(case, tmp_path):
    assert word(case) == "done"
    changed(tmp_path / "he.tif")
    assert word(case) == "stale"


def test_a_copy_with_another_time_is_the_same_slide(case, tmp_path):
    os.utime(tmp_path / "he.tif", ns=(1, 1_000_000_000))
    assert word(case) == "done"


def test_the_digest_is_kept_and_a_damaged_entry_is_computed_again(case, tmp_path, monkeypatch):
    kept = json.loads((case.root / "digests.json").read_text("utf-8"))
    assert len(kept) == 1
    from napari_mosaik.io import case as module

    read = []
    original = module.file_digest
    monkeypatch.setattr(module, "file_digest", lambda path: read.append(path) or original(path))
    for cache in (module._DIGESTS, module._WHOLE):
        monkeypatch.setattr(module, (cache is module._WHOLE and "_WHOLE") or "_DIGESTS", {})
    assert word(case) == "done"
    assert tmp_path / "he.tif" not in read
    (case.root / "digests.json").write_text(json.dumps({k: "0" + v for k, v in kept.items()}))
    for name in ("_DIGESTS", "_WHOLE"):
        monkeypatch.setattr(module, name, {})
    assert word(case) == "done"
    assert tmp_path / "he.tif" in read


def test_a_changed_chunk_of_an_ome_zarr_makes_the_results_stale(tmp_path):
    path = tmp_path / "a.zarr"
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    pixels = np.full((3, 640, 640), 240, np.uint8)
    pixels[:, 100:500, 100:500] = np.array([180, 90, 150])[:, None, None]
    array = group.create_array("0", data=pixels, chunks=(3, 8, 8))
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 2, 2]}]}
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [dataset]}]
    file = CaseFile.model_validate(
        {"name": "A", "patient": "p", "slides": {"he": {"path": str(path)}}}
    )
    made = create_case(tmp_path / "A", file)
    run_to_end_of(made, "tissue_he")
    assert word(made) == "done"
    array[:, 313, 317] = 7
    assert word(made) == "stale"


# --- the reported files ---------------------------------------------------------------------------
@pytest.mark.realdata
def test_reported_sizes(field_inputs):
    assert whole(field_inputs / "H21_split_ome_compressed" / "x_s1.ome.tif")[0] == (0.5, 0.5)
    assert whole(field_inputs / "H22_second_of_two_files.ome.tif")[0] == (0.5, 0.5)
    with pytest.raises(MissingPixelSize):
        open_slide(field_inputs / "H24_no_transformation.zarr")


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("H23_mrxs_without_folder/slide.mrxs", "its folder slide is missing"),
        ("H25_three_pages.tif", "holds 3 pages"),
        ("H26_git_lfs_pointer.svs", "a Git LFS pointer"),
    ],
)
def test_reported_files_are_named(field_inputs, name, words):
    with pytest.raises(InputError, match=words):
        open_slide(field_inputs / name, 0.25)
