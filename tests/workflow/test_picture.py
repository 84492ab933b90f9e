"""Pictures outside a case: every kind of segmentation, blank pictures, regions, wrong weights."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from napari_mosaik.core import InputError, LabelImage, Lattice, Table
from napari_mosaik.core.errors import CorruptArtifact
from napari_mosaik.core.manifest import write_files_list
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.segment import TissueClassParams, train_fast
from napari_mosaik.segment.tissue_classifier import block_features
from napari_mosaik.workflow.segment_picture import labels_on
from napari_mosaik.workflow.segment_picture import segment_picture as iter_segment_picture

PARAMS = TissueClassParams(n_trees=5)
BLANK = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "pink": (230, 150, 190),
}


def segment_picture(what, path, *arguments, **options):
    """Segment a picture and read the label image that was written."""
    out = path.with_name(f"{path.stem}-labels.tif")
    found = run_to_end(iter_segment_picture(what, path, out, *arguments, **options))
    return Written(tifffile.imread(out), out, found.table, found.record)


@dataclass
class Written:
    labels: np.ndarray
    path: Path
    table: Table
    record: dict


def tissue_picture(seed=0, shape=(240, 320)):
    """Left: blank glass; middle: eosin; right: eosin with dark nuclei."""
    rng = np.random.default_rng(seed)
    rgb = np.full((*shape, 3), 244.0)
    rgb[:, 80:] = (222, 150, 190)
    rows, cols = np.indices(shape)
    dots = (rows % 14 - 7) ** 2 + (cols % 14 - 7) ** 2 < 16
    rgb[dots & (cols >= 200)] = (88, 62, 140)
    codes = np.digitize(cols, (80, 200)) + 1
    codes = np.array([1, 3, 2])[codes - 1]
    return np.clip(rgb + rng.normal(0, 4, rgb.shape), 0, 255).astype(np.uint8), codes


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    rgb, codes = tissue_picture()
    features = block_features(rgb, 2.0, PARAMS)
    labels = codes[1::4, 1::4]
    trained = train_fast(features.reshape(-1, features.shape[2]), labels.ravel(), PARAMS,
                        np.random.default_rng(0))  # fmt: skip
    folder = tmp_path_factory.mktemp("model") / "m"
    trained.save(folder)
    return folder


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    imsave(path, tissue_picture(1)[0], check_contrast=False)
    return path


def weights_of(what, model):
    return {"weights": model} if what == "classes" else {}


@pytest.mark.parametrize("what", ["tissue", "vessels", "nuclei", "classes"])
def test_every_record_says_method_weights_count_and_areas(what, picture, model):
    found = segment_picture(what, picture, 2.0, **weights_of(what, model))
    record = found.record
    assert {"method", "weights", "count", "area_um2", "spacing_um", "shape", "warnings"} <= set(
        record
    )
    assert record["what"] == what
    assert list(found.labels.shape) == record["shape"]
    assert (record["weights"] is None) == (what in ("tissue", "vessels"))
    if what == "classes":
        assert record["count"] == 3
        assert sum(record["area_um2"].values()) == pytest.approx(240 * 320 * 4)
        assert 0 <= record["mean_uncertainty"] <= 1
    else:
        assert record["count"] == len(found.table)
        assert record["area_um2"] == pytest.approx(np.sum(found.table["area_um2"]))


@pytest.mark.parametrize("name", BLANK)
@pytest.mark.parametrize("what", ["tissue", "vessels", "nuclei", "classes"])
def test_blank_pictures_have_a_clear_answer(what, name, tmp_path, model):
    path = tmp_path / "blank.png"
    imsave(path, np.full((160, 200, 3), BLANK[name], np.uint8), check_contrast=False)
    if what == "tissue":
        with pytest.raises(InputError, match="no tissue found: the slide has one colour only"):
            segment_picture(what, path, 1.0)
        return
    found = segment_picture(what, path, 1.0, **weights_of(what, model))
    if what in ("vessels", "nuclei"):
        assert found.record["count"] == 0
        assert found.record["area_um2"] == 0
    if what == "classes":
        assert found.record["count"] == 1
        assert "not normalised" in found.record["warnings"][0]
    else:
        assert f"no {'vessel' if what == 'vessels' else 'nucleus'} was found" in " ".join(
            found.record["warnings"]
        )


def test_a_region_is_the_same_part_of_the_whole(picture, model):
    whole = segment_picture("classes", picture, 2.0, weights=model)
    part = segment_picture("nuclei", picture, 2.0, region=((80.0, 400.0), (240.0, 240.0)))
    assert part.labels.shape == (120, 120)
    assert whole.labels.shape == (240, 320)
    inside = part.table
    assert (np.asarray(inside["row_um"]) >= 80).all()
    assert (np.asarray(inside["column_um"]) <= 640).all()
    with pytest.raises(InputError, match="does not overlap the slide of 480 x 640 µm"):
        segment_picture("nuclei", picture, 2.0, region=((1000.0, 0.0), (10.0, 10.0)))


def test_weights_of_another_kind_and_damaged_ones_are_refused(picture, model, tmp_path):
    with pytest.raises(InputError, match="--weights FOLDER"):
        segment_picture("classes", picture, 2.0)
    with pytest.raises(InputError, match="of the method 'fast', not 'densenet'"):
        segment_picture("classes", picture, 2.0, method="densenet", weights=model)
    with pytest.raises(InputError, match="use one of: fast, densenet"):
        segment_picture("classes", picture, 2.0, method="stardist", weights=model)
    with pytest.raises(InputError, match=r"only nuclei.* take --weights"):
        segment_picture("vessels", picture, 2.0, weights=model)
    with pytest.raises(InputError, match="'fast' model"):
        segment_picture("nuclei", picture, 2.0, weights=model)
    other = tmp_path / "other"
    shutil.copytree(model, other)
    file = other / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptArtifact, match="is damaged"):
        segment_picture("classes", picture, 2.0, weights=other)
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(CorruptArtifact, match="is damaged"):
        segment_picture("classes", picture, 2.0, weights=other)
    (other / "card.json").write_text('{"kind": "mosaik", "classes": [0, 1]}')
    write_files_list(other)
    with pytest.raises(InputError, match="predicts uptake; it cannot segment"):
        segment_picture("classes", picture, 2.0, weights=other)
    (other / "card.json").write_text('{"classes": [0, 1]}')
    write_files_list(other)
    file.write_bytes((model / "weights.safetensors").read_bytes())
    write_files_list(other)
    with pytest.raises(CorruptArtifact, match=r"card\.json has no 'model'"):
        segment_picture("classes", picture, 2.0, weights=other)


KINDS = ["tissue", "vessels", "nuclei", "classes"]


def write_picture(path, rgb, spacing_um):
    """A TIFF file that states its pixel size (row, column), µm."""
    tifffile.imwrite(
        path, rgb, photometric="rgb", resolutionunit="CENTIMETER",
        resolution=(1e4 / spacing_um[1], 1e4 / spacing_um[0]),
    )  # fmt: skip
    return path


def stained_picture(what, spacing_um, shape_um=(420.0, 500.0)):
    """One object of the kind at known places (µm): its mask, and the picture."""
    shape = tuple(round(length / step) for length, step in zip(shape_um, spacing_um, strict=True))
    rng = np.random.default_rng(5)
    row, col = ((np.indices(shape).transpose(1, 2, 0) + 0.5) * spacing_um).transpose(2, 0, 1)
    glass = what in ("tissue", "classes")
    rgb = np.full((*shape, 3), 244.0 if glass else (222, 170, 205) if what == "nuclei" else 235.0)
    if glass:
        mask = (row > 130) & (row < 350) & (col > 140)
        rgb[mask] = (222, 150, 190)
    elif what == "nuclei":
        mask = (row % 42 - 21) ** 2 + (col % 50 - 25) ** 2 < 36
        rgb[mask] = (88, 62, 140)
    else:
        distance = np.sqrt((row % 84 - 42) ** 2 + (col % 100 - 50) ** 2)
        mask = distance < 22
        rgb[mask & (distance > 12)] = (120, 75, 45)
        rgb[(row % 21 - 10) ** 2 + (col % 25 - 12) ** 2 < 9] = (110, 110, 170)
    return np.clip(rgb + rng.normal(0, 3, rgb.shape), 0, 255).astype(np.uint8), mask


@pytest.fixture(scope="module")
def eosin_model(tmp_path_factory):
    """Class 2 is glass, class 1 eosin; reads pixels of 2 µm."""
    rgb, mask = stained_picture("classes", (2.0, 2.0))
    features = block_features(rgb[:208, :248], 2.0, PARAMS)
    codes = np.where(mask, 1, 2)[1:208:4, 1:248:4]
    trained = train_fast(features.reshape(-1, features.shape[2]), codes.ravel(), PARAMS,
                        np.random.default_rng(0))  # fmt: skip
    folder = tmp_path_factory.mktemp("eosin") / "m"
    trained.save(folder)
    return folder


@pytest.mark.parametrize(
    "spacing_um", [(0.25, 0.25), (0.5, 0.5), (1.0, 1.0), (0.37, 0.37), (0.5, 0.8)]
)
@pytest.mark.parametrize("what", KINDS)
def test_labels_lie_on_the_picture_pixel_by_pixel(what, spacing_um, tmp_path, eosin_model):
    rgb, mask = stained_picture(what, spacing_um)
    path = write_picture(tmp_path / "picture.tif", rgb, spacing_um)
    weights = eosin_model if what == "classes" else None
    method = {"nuclei": "classical"}.get(what, "")
    found = segment_picture(what, path, method=method, weights=weights)
    assert found.labels.shape == mask.shape
    assert found.record["shape"] == list(mask.shape)
    assert found.record["spacing_um"] == pytest.approx(spacing_um, rel=1e-5)
    labelled = found.labels == 1 if what == "classes" else found.labels > 0
    overlap = 2 * (labelled & mask).sum() / (labelled.sum() + mask.sum())
    assert overlap > {"tissue": 0.8, "classes": 0.9, "nuclei": 0.85, "vessels": 0.85}[what]
    for axis in (0, 1):  # the objects lie where they are, not half a picture away
        index = np.indices(mask.shape)[axis]
        shift_um = (index[labelled].mean() - index[mask].mean()) * spacing_um[axis]
        assert abs(shift_um) < {"tissue": 20, "classes": 6}.get(what, 1.5)
    with tifffile.TiffFile(found.path) as file:
        page = file.pages[0]
        per_cm = [page.tags[f"{axis}Resolution"].value for axis in "YX"]
        assert page.tags["ResolutionUnit"].value.name == "CENTIMETER"
    assert [1e4 * d / n for n, d in per_cm] == pytest.approx(spacing_um, rel=1e-5)


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("label_um", [0.25, 1.0, 3.0, 0.37])
def test_label_spacing_gives_another_size_on_request(what, label_um, tmp_path, eosin_model):
    rgb, mask = stained_picture(what, (0.5, 0.8))
    path = write_picture(tmp_path / "picture.tif", rgb, (0.5, 0.8))
    weights = eosin_model if what == "classes" else None
    method = {"nuclei": "classical"}.get(what, "")
    options = {"method": method, "weights": weights}
    found = segment_picture(what, path, label_spacing_um=label_um, **options)
    size = (mask.shape[0] * 0.5, mask.shape[1] * 0.8)
    shape = tuple(round(length / label_um) for length in size)
    assert found.labels.shape == shape
    assert found.record["spacing_um"] == pytest.approx([size[0] / shape[0], size[1] / shape[1]])
    same = segment_picture(what, path, **options)
    assert same.record["count"] == found.record["count"]
    for name in same.table:
        np.testing.assert_array_equal(same.table[name], found.table[name])
    rows, cols = (
        ((np.arange(n) + 0.5) * length / n / step).astype(int)
        for n, length, step in zip(shape, size, (0.5, 0.8), strict=True)
    )
    differ = (found.labels != same.labels[np.ix_(rows, cols)]).mean()
    assert differ < (0.02 if what in ("tissue", "classes") else 0.06)


def test_a_region_is_labelled_pixel_by_pixel(tmp_path):
    rgb, mask = stained_picture("nuclei", (0.25, 0.25))
    path = write_picture(tmp_path / "picture.tif", rgb, (0.25, 0.25))
    region = ((100.25, 200.5), (126.0, 150.25))
    part = segment_picture("nuclei", path, method="classical", region=region)
    cut = mask[401 : 401 + 504, 802 : 802 + 601]
    assert part.labels.shape == cut.shape
    assert 2 * ((part.labels > 0) & cut).sum() / ((part.labels > 0).sum() + cut.sum()) > 0.85
    small = segment_picture("nuclei", path, method="classical", region=region, label_spacing_um=1.0)
    assert small.labels.shape == (126, 150)
    with pytest.raises(InputError, match="give more than 0"):
        segment_picture("nuclei", path, label_spacing_um=-1.0)


def test_the_nearest_label_is_that_of_the_pixel_that_holds_the_centre():
    rng = np.random.default_rng(2)
    image = LabelImage(
        rng.integers(0, 9, (37, 53)).astype(np.int32), Lattice("he", (37, 53), (0.74, 0.9), (3, 5))
    )
    target = Lattice("he", (90, 70), (0.37, 0.61), (2.5, 5.2))
    found = labels_on(image, target)
    for row in range(90):
        for col in range(70):
            y, x = target.to_um((row, col))
            i = int(np.clip(np.floor((y - 3) / 0.74 + 1e-6), 0, 36))
            j = int(np.clip(np.floor((x - 5) / 0.9 + 1e-6), 0, 52))
            assert found[row, col] == image.values[i, j]
