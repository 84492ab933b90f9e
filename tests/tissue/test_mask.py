import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from napari_mosaik.core import InputError, Lattice, Raster
from napari_mosaik.core.colour import DAB, EOSIN, HAEMATOXYLIN
from napari_mosaik.core.otsu import otsu_bin
from napari_mosaik.core.progress import of_this_item
from napari_mosaik.tissue import TissueParams, tissue_mask
from napari_mosaik.tissue.mask import red_marks

GLASS, PINK = (243, 242, 244), (214, 150, 190)
RAW = {"dilation_um": 0, "closing_um": 0, "min_object_mm2": 0, "min_speck_mm2": 0}
PLAIN = {"dilation_um": 0, "closing_um": 0}


def scene(shape=(300, 400), spacing=10.0, seed=0):
    """White glass with a little noise, as a mutable picture, and its coordinates in µm."""
    rng = np.random.default_rng(seed)
    picture = np.clip(rng.normal(GLASS, 2, (*shape, 3)), 0, 255).astype(np.uint8)
    y, x = (np.indices(shape) + 0.5) * spacing
    return picture, y, x, Lattice("he", shape, (spacing, spacing))


def disk(y, x, row, column, radius):
    return np.hypot(y - row, x - column) < radius


def mask_of(picture, lattice, **params):
    return tissue_mask(Raster(picture, lattice), TissueParams(**params)).values


def test_otsu_maximises_the_variance_between_classes():
    rng = np.random.default_rng(3)
    for _ in range(20):
        histogram = rng.integers(0, 50, 64) * (rng.random(64) < 0.4)
        histogram[[5, 60]] += 1
        level = np.repeat(np.arange(64), histogram)

        def between(t, level=level):
            low, high = level[level <= t], level[level > t]
            if low.size == 0 or high.size == 0:
                return -1.0
            return low.size * high.size * (low.mean() - high.mean()) ** 2

        best = max(between(t) for t in range(64))
        assert between(otsu_bin(histogram)) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("radius_um", [3000.0, 7300.0])
def test_the_mask_takes_little_memory_beside_the_picture(radius_um):
    """Of a thumbnail with little tissue, and of one that is full of it, once all is loaded."""
    picture, y, x, lattice = scene((1500, 1500))
    picture[disk(y, x, 7500, 7500, radius_um)] = PINK
    mask_of(picture, lattice)
    tracemalloc.start()
    try:
        mask_of(picture, lattice)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * picture.nbytes


@pytest.mark.parametrize("spacing", [8.0, 16.0])
def test_disk_grows_by_half_the_dilation_at_any_spacing(spacing):
    shape = (int(2400 / spacing), int(3200 / spacing))
    picture, y, x, lattice = scene(shape, spacing)
    picture[disk(y, x, 1200, 1500, 700)] = PINK
    found = mask_of(picture, lattice, dilation_um=100, closing_um=250)
    radius = np.sqrt(found.sum() * lattice.sample_area_um2 / np.pi)
    assert radius == pytest.approx(750, abs=spacing)


def test_closing_joins_gaps_up_to_its_diameter():
    for gap, joined in ((180, True), (320, False)):
        picture, y, x, lattice = scene()
        inside = (y > 500) & (y < 2500) & (x > 500) & (x < 3000)
        picture[inside & (np.abs(x - 1700) > gap / 2)] = PINK
        found = mask_of(picture, lattice, dilation_um=0, closing_um=250)
        assert (ndimage.label(found)[1] == 1) is joined
        assert found[150, 170] == joined


def test_only_small_holes_are_filled_and_small_pieces_dropped():
    picture, y, x, lattice = scene()
    picture[disk(y, x, 1500, 1600, 1200)] = PINK
    picture[disk(y, x, 1500, 1200, 270)] = GLASS  # 0.229 mm²
    picture[disk(y, x, 1500, 2100, 300)] = GLASS  # 0.283 mm²
    picture[disk(y, x, 400, 3600, 150)] = PINK  # 0.071 mm²
    picture[disk(y, x, 2600, 3600, 200)] = PINK  # 0.126 mm²
    found = mask_of(picture, lattice, **PLAIN)
    assert found[150, 120]
    assert not found[150, 210]
    assert not found[40, 360]
    assert found[260, 360]


def test_dust_is_not_joined_into_tissue():
    picture, y, x, lattice = scene()
    picture[disk(y, x, 1500, 1300, 700)] = PINK
    clean = mask_of(picture, lattice)
    rng = np.random.default_rng(4)
    picture[:, 260:][rng.random((300, 140)) < 0.02] = (90, 80, 100)
    np.testing.assert_array_equal(mask_of(picture, lattice), clean)
    assert mask_of(picture, lattice, min_speck_mm2=0)[:, 260:].mean() > 0.5


def test_bay_at_the_edge_of_the_picture_is_no_hole():
    picture, y, x, lattice = scene()
    picture[x < 2000] = PINK
    picture[(y < 200) & (np.abs(x - 1000) < 200)] = GLASS
    assert not mask_of(picture, lattice, **PLAIN)[5, 100]


def test_black_padding_is_background():
    picture, y, x, lattice = scene()
    tissue = disk(y, x, 1500, 1500, 700)
    picture[tissue] = PINK
    want = mask_of(picture, lattice)
    picture[:, 300:] = 0
    picture[:20] = 0
    padded = mask_of(picture, lattice)
    assert not padded[:, 299:].any()
    assert not padded[:20].any()
    np.testing.assert_array_equal(padded[25:290, :290], want[25:290, :290])


@pytest.mark.parametrize(
    "ink",
    [
        *((20, 60, 170), (25, 25, 190), (20, 120, 60), (15, 150, 160), (22, 20, 24)),
        *((190, 30, 45), (237, 28, 36), (225, 75, 80)),
    ],
)
def test_pen_marks_are_left_out(ink):
    picture, y, x, lattice = scene()
    tissue = disk(y, x, 1500, 1300, 700)
    picture[tissue] = PINK
    clean = mask_of(picture, lattice)
    pen = (np.abs(y - 0.5 * x - 1200) < 90) & (x > 2400)
    picture[pen] = ink
    found = mask_of(picture, lattice)
    assert not found[pen].any()
    np.testing.assert_array_equal(found[:, :220], clean[:, :220])
    assert mask_of(picture, lattice, exclude_ink=False)[pen].all()


def test_red_within_tissue_stays_and_is_named():
    """Packed red cells have the red of a pen; only what lies on glass is taken for one."""
    picture, y, x, lattice = scene()
    tissue = disk(y, x, 1500, 1300, 700)
    picture[tissue] = PINK
    blood, pen = disk(y, x, 1500, 1300, 200), (np.abs(x - 2500) < 60) & (y > 500) & (y < 2500)
    picture[blood | pen] = (205, 45, 60)
    found = mask_of(picture, lattice)
    assert found[blood].all()
    assert not found[pen].any()
    marks, unsure = red_marks(picture, lattice.spacing_um)
    assert marks[pen].all()
    assert not marks[blood].any()
    np.testing.assert_array_equal(unsure, blood)


@pytest.mark.parametrize(
    "amounts", [(1.5, 0, 0), (0.5, 1.2, 0), (1, 0, 2.0), (0.3, 0, 3.0), (0.1, 0.6, 0)]
)
def test_no_stain_is_taken_for_ink(amounts):
    vectors = np.array([HAEMATOXYLIN, EOSIN, DAB])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    colour = np.rint(240 * np.exp(-np.array(amounts) @ vectors)).astype(np.uint8)
    picture, y, x, lattice = scene()
    tissue = disk(y, x, 1500, 1500, 800)
    picture[tissue] = colour
    assert mask_of(picture, lattice)[tissue].all()


def test_dark_background_and_picture_full_of_tissue():
    picture, y, x, lattice = scene()
    inside = disk(y, x, 1500, 1500, 700)
    dark = np.full_like(picture, 12)
    dark[inside] = 180
    np.testing.assert_array_equal(mask_of(dark, lattice, exclude_ink=False, **PLAIN), inside)
    rng = np.random.default_rng(5)
    full = np.where(rng.random((300, 400, 1)) < 0.5, PINK, (150, 90, 160)).astype(np.uint8)
    assert mask_of(full, lattice).all()
    # tissue that reaches the frame everywhere, with a lumen of glass
    full[disk(y, x, 1500, 1500, 900)] = GLASS
    found = mask_of(full, lattice, **PLAIN)
    assert found[0].all()
    assert not found[150, 150]


def test_strong_stain_does_not_hide_pale_tissue():
    picture, y, x, lattice = scene()
    inside = disk(y, x, 1500, 1500, 900)
    rng = np.random.default_rng(1)
    picture[inside] = np.clip(rng.normal((205, 208, 222), 5, (inside.sum(), 3)), 0, 255)
    brown = inside & (rng.random(inside.shape) < 0.35)
    picture[brown] = (110, 72, 50)
    np.testing.assert_array_equal(mask_of(picture, lattice, **PLAIN), inside)
    hidden = mask_of(picture, lattice, pale_tissue=False, max_hole_mm2=0, **RAW)
    assert hidden.sum() < 0.6 * inside.sum()


def test_blank_slides_are_refused():
    picture, y, x, lattice = scene()
    for blank in (picture, np.full_like(picture, 255), np.zeros_like(picture)):
        with pytest.raises(InputError, match="no tissue found"):
            mask_of(blank, lattice)
    picture[disk(y, x, 1500, 1500, 60)] = PINK
    with pytest.raises(InputError, match=r"no fragment reaches 0\.1 mm²"):
        mask_of(picture, lattice)
    with pytest.raises(InputError, match="8-bit RGB"):
        mask_of(picture[..., 0], lattice)


SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


@pytest.mark.realdata
@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared beside the checkout")
@pytest.mark.parametrize("stain", ["HE", "PanCytokeratin"])
def test_real_landmarks_lie_in_one_piece_of_tissue(stain):
    from PIL import Image

    folder = SHARED / "registration"
    pixels = np.asarray(Image.open(folder / f"Rat-Kidney_{stain}.jpg"))
    found = tissue_mask(Raster(pixels, Lattice(stain, pixels.shape[:2], (10.0, 10.0)))).values
    labels, _ = ndimage.label(found)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    points = np.loadtxt(
        folder / f"Rat-Kidney_{stain}.csv", delimiter=",", skiprows=1, usecols=(1, 2)
    )
    at = labels[points[:, 1].astype(int), points[:, 0].astype(int)]
    assert (at == sizes.argmax()).mean() > 0.92
    assert sizes.max() > 0.97 * sizes.sum()
    assert found.mean() < 0.75


def test_the_tissue_mask_tells_how_far_it_is():
    rgb = np.full((240, 240, 3), 240, np.uint8)
    rgb[40:120, 40:120], rgb[150:200, 60:160] = (180, 90, 150), (170, 100, 160)
    told = []
    with of_this_item(told.append):
        tissue = tissue_mask(Raster(rgb, Lattice("he", (240, 240), (8.0, 8.0), (0.0, 0.0))))
    assert tissue.values.any()
    assert len(told) >= 9
    assert told == sorted(told)
    assert 0 < told[0] < told[-1] < 1
