import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from napari_mosaik.cli import main
from napari_mosaik.io import Case, CaseFile

PIXELS = np.random.default_rng(6).integers(0, 256, (300, 400, 3), np.uint8)
SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
CM = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}


@pytest.fixture(autouse=True)
def own_config(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_MOSAIK_CONFIG", str(tmp_path / "config"))


def call(capsys, *arguments):
    """Exit code, standard output and error lines of a command."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return end.value.code or 0, out, err.strip().splitlines()


def test_a_slide_is_described(tmp_path, capsys):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, tile=(64, 64), photometric="rgb", **CM)
    code, out, _ = call(capsys, "slide", path)
    assert code == 0
    for words in ("read by tiff", "300 x 400 px", "0.5 x 0.5 µm (from the file's header)",
                  "stored, read in tiles of 64 x 64", "loaded", "colour profile"):  # fmt: skip
        assert words in out
    code, out, _ = call(capsys, "slide", path, "--spacing", "0.25x0.26", "--json")
    record = json.loads(out)
    assert record["spacing_um"] == [0.25, 0.26]
    assert record["spacing_source"] == "user"
    assert record["levels"] == [
        {"shape": [300, 400], "downsample": [1.0, 1.0], "tile": [64, 64], "virtual": False}
    ]
    assert record["properties"]["header_spacing"] == "0.5 x 0.5 µm"


def test_a_slide_without_pixel_size_is_described_and_ends_with_2(tmp_path, capsys):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    for more in ((), ("--json",)):
        code, out, err = call(capsys, "slide", tmp_path / "a.png", *more)
        assert code == 2
        assert len(err) == 1
        assert all(way in err[0] for way in ("--spacing UM", "--profile NAME", "ruler"))
    record = json.loads(out)
    assert record["spacing_um"] is None
    assert record["missing"][0] == "pixel size"


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_what_is_no_slide_is_one_line_and_2(tmp_path, capsys, more):
    (tmp_path / "empty.svs").touch()
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "pet.dcm").write_bytes(bytes(128) + b"DICM" + bytes(50))
    (tmp_path / "image.nii.gz").write_bytes(b"\x1f\x8b" + bytes(50))
    for name, words in (
        ("empty.svs", "empty"),
        ("table.csv", "not a slide"),
        ("folder", "folder"),
        ("pet.dcm", "DICOM"),
        ("image.nii.gz", "gzip"),
        ("gone", "no file"),
    ):
        code, out, err = call(capsys, "slide", tmp_path / name, *more)
        assert (code, out, len(err)) == (2, "", 1), name
        assert words in err[0]


def test_profiles_give_the_pixel_size(tmp_path, capsys):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    stated = tmp_path / "stated.tif"
    tifffile.imwrite(stated, PIXELS, tile=(64, 64), photometric="rgb", **CM)
    assert "no scanner profiles yet" in call(capsys, "profiles")[1]
    assert call(capsys, "profiles", "--add", "lab, 40x", "--from", stated, "--note", "x")[0] == 0
    assert call(capsys, "profiles", "--add", "b", "--spacing", "0,25x0.26")[0] == 0
    listed = json.loads(call(capsys, "profiles", "--json")[1])["profiles"]
    assert listed["lab, 40x"] == {"spacing_um": [0.5, 0.5], "note": "x"}
    assert listed["b"]["spacing_um"] == [0.25, 0.26]
    _, out, _ = call(capsys, "slide", tmp_path / "a.png", "--profile", "b", "--json")
    assert json.loads(out)["spacing_source"] == "profile"
    code, _, err = call(capsys, "slide", tmp_path / "a.png", "--profile", "none such")
    assert code == 2
    assert "'b', 'lab, 40x'" in err[0]
    case = tmp_path / "case"
    new = ("new", case, "--he", tmp_path / "a.png", "--cd34", stated, "--profile", "b")
    assert call(capsys, *new)[0] == 0
    text = (case / "case.toml").read_text()
    assert 'spacing_source = "profile"' in text
    assert 'profile = "b"' in text
    assert 'spacing_source = "header"' in text  # the slide that says its size keeps it
    assert call(capsys, "profiles", "--remove", "b")[0] == 0
    assert "b" not in json.loads(call(capsys, "profiles", "--json")[1])["profiles"]
    assert call(capsys, "profiles", "--add", "c")[0] == 2


def test_label_pictures_are_exported_only_on_request(tmp_path, capsys):
    path, label = tmp_path / "a.svs", np.full((40, 50, 3), 7, np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PIXELS, description="Aperio Image Library v1\n400x300 (64x64) |MPP = 0.5",
                   metadata=None, tile=(64, 64), photometric="rgb", compression="jpeg")  # fmt: skip
        tiff.write(PIXELS[::4, ::4], description="Aperio Image Library v1", metadata=None,
                   photometric="rgb", compression="jpeg")  # fmt: skip
        tiff.write(label, description="Aperio Image Library v1\nlabel 50x40", metadata=None,
                   photometric="rgb", subfiletype=1, compression="lzw")  # fmt: skip
    assert "associated" not in call(capsys, "slide", path, "--json")[1]
    out = tmp_path / "out"
    code, text, err = call(capsys, "slide", path, "--associated", out)
    assert code == 0
    assert "privacy" in err[0]
    assert "a.label.png" in text
    np.testing.assert_array_equal(np.asarray(Image.open(out / "a.label.png")), label)
    assert "already" in call(capsys, "slide", path, "--associated", out)[2][-1]
    Image.fromarray(PIXELS).save(tmp_path / "b.png", dpi=(25400, 25400))
    code, _, err = call(capsys, "slide", tmp_path / "b.png", "--associated", out)
    assert code == 2
    assert "no label" in err[-1]


def test_colours_are_converted_only_with_a_profile(tmp_path, capsys):
    Image.fromarray(PIXELS).save(tmp_path / "b.png", dpi=(25400, 25400))
    code, _, err = call(capsys, "slide", tmp_path / "b.png", "--icc")
    assert code == 2
    assert "no colour profile" in err[0]
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(PIXELS).save(tmp_path / "c.png", dpi=(25400, 25400), icc_profile=srgb)
    new = ("new", tmp_path / "case", "--he", tmp_path / "c.png", "--cd34", tmp_path / "b.png")
    assert "'h&e' is not one of 'he'" in " ".join(call(capsys, *new, "--icc", "h&e")[2])
    assert "no colour profile" in call(capsys, *new, "--icc", "cd34")[2][0]
    assert call(capsys, *new, "--icc", "he")[0] == 0
    slides = CaseFile.read(tmp_path / "case" / "case.toml").slides
    assert [slides[stain].icc for stain in ("he", "cd34")] == [True, False]
    with Case(tmp_path / "case").slide("he") as slide:
        assert "sRGB" in slide.properties["colour"]


def test_missing_levels_are_made_once(tmp_path, capsys, monkeypatch):
    from napari_mosaik.io.slide.pyramid import virtual

    monkeypatch.setattr(virtual, "MAX_COARSEST_PX", 100)
    path, case = tmp_path / "a.tif", tmp_path / "case"
    tifffile.imwrite(path, PIXELS, tile=(64, 64), photometric="rgb", **CM)
    assert call(capsys, "new", case, "--he", path)[0] == 0
    levels = json.loads(call(capsys, "slide", path, "--json")[1])["levels"]
    assert [level["virtual"] for level in levels] == [False, True]
    assert json.loads(call(capsys, "pyramid", case, "--json")[1]) == {"case": {"he": "made"}}
    assert len(list((case / "cache" / "pyramids").iterdir())) == 1
    assert "case he: complete" in call(capsys, "pyramid", case)[1]


@pytest.mark.realdata
@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared beside the checkout")
def test_every_real_file_is_described_or_refused(tmp_path, capsys):
    """Exit code 0 with facts, or 2 with one line; never a fault of the program."""
    sized = {"CMU-1-Small-Region.svs", "InstanSeg_HE_example.ome.tif"}
    for file in sorted(p for p in SHARED.rglob("*") if p.is_file() or p.name == "dicom"):
        code, out, err = call(capsys, "slide", file, "--json")
        assert code == (0 if file.name in sized else 2), file
        assert len(err) == (0 if code == 0 else 1), file
        picture = file.suffix in (".png", ".jpg")
        if code == 0 or picture:
            assert json.loads(out)["levels"], file
