"""Pictures outside a case: every kind of segmentation, blank pictures, regions, wrong weights."""

import shutil

import numpy as np
import pytest
from skimage.io import imsave

from napari_mosaik.core import InputError
from napari_mosaik.core.errors import CorruptArtifact
from napari_mosaik.segment import TissueClassParams, train_fast
from napari_mosaik.segment.tissue_classifier import block_features
from napari_mosaik.workflow.picture import segment_picture

PARAMS = TissueClassParams(n_trees=5)
BLANK = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "pink": (230, 150, 190),
}


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
    taught = train_fast(features.reshape(-1, features.shape[2]), labels.ravel(), PARAMS,
                        np.random.default_rng(0))  # fmt: skip
    folder = tmp_path_factory.mktemp("model") / "m"
    taught.save(folder)
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
        assert "left as it is" in found.record["warnings"][0]
    else:
        assert f"no {'vessel' if what == 'vessels' else 'nucleus'} was found" in " ".join(
            found.record["warnings"]
        )


def test_a_region_is_the_same_part_of_the_whole(picture, model):
    whole = segment_picture("classes", picture, 2.0, weights=model)
    part = segment_picture("nuclei", picture, 2.0, region=(80.0, 400.0, 240.0, 240.0))
    assert part.labels.shape == (120, 120)
    assert whole.labels.shape == (60, 80)
    inside = part.table
    assert (np.asarray(inside["row_um"]) >= 80).all()
    assert (np.asarray(inside["column_um"]) <= 640).all()
    with pytest.raises(InputError, match="holds nothing of the slide of 480 x 640 µm"):
        segment_picture("nuclei", picture, 2.0, region=(1000.0, 0.0, 10.0, 10.0))


def test_weights_of_another_kind_and_damaged_ones_are_refused(picture, model, tmp_path):
    with pytest.raises(InputError, match="--weights FOLDER"):
        segment_picture("classes", picture, 2.0)
    with pytest.raises(InputError, match="of the method 'fast', not 'densenet'"):
        segment_picture("classes", picture, 2.0, method="densenet", weights=model)
    with pytest.raises(InputError, match="use one of: fast, densenet"):
        segment_picture("classes", picture, 2.0, method="stardist", weights=model)
    with pytest.raises(InputError, match="have weights"):
        segment_picture("vessels", picture, 2.0, weights=model)
    with pytest.raises(InputError, match="'fast' model"):
        segment_picture("nuclei", picture, 2.0, weights=model)
    other = tmp_path / "other"
    shutil.copytree(model, other)
    file = other / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptArtifact, match="not the one its card describes"):
        segment_picture("classes", picture, 2.0, weights=other)
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(CorruptArtifact, match="cannot be read"):
        segment_picture("classes", picture, 2.0, weights=other)
