"""Objects edited by hand: in patches as on the whole image, and found again at their places."""

import numpy as np
import pytest
import shapely
from scipy import ndimage

from napari_mosaik.core import InputError, Lattice
from napari_mosaik.core.corrections import Correction
from napari_mosaik.features import measure_objects
from napari_mosaik.segment import label_editing as editing
from napari_mosaik.segment.label_editing import ObjectEditor, apply_corrections

SPACING = (0.5, 0.5)


def blobs(seed=0, shape=(300, 340), n=60):
    """Round objects of several sizes, each connected."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    rows, cols = np.indices(shape)
    for _ in range(n):
        row, col, radius = *(rng.random(2) * shape), rng.uniform(2, 12)
        mask |= (rows - row) ** 2 + (cols - col) ** 2 < radius**2
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    return labels.astype(np.int32)


@pytest.fixture
def labels():
    return blobs()


def editor_of(labels):
    lattice = Lattice("cd34", labels.shape, SPACING, (1000.0, 2000.0))
    return ObjectEditor(labels, lattice, measure_objects(labels, lattice))


def place_of(editor, label):
    """A place within an object and its centroid and area."""
    (rows, cols), mask = editor.mask(label)
    inside = np.argwhere(mask)
    index = inside[len(inside) // 2] + (rows.start, cols.start)
    place = tuple(editor.lattice.to_um([index])[0])
    centroid = tuple(editor.lattice.to_um([inside.mean(0) + np.array([rows.start, cols.start])])[0])
    return place, centroid, mask.sum() * editor.lattice.sample_area_um2


def correction(editor, kind, *labels, **more):
    places, centroids, areas = zip(*(place_of(editor, label) for label in labels), strict=True)
    return Correction(kind, places, centroids, areas, **more)


def across(editor, label):
    """A horizontal line through the middle of an object, from outside to outside."""
    (rows, cols), _ = editor.mask(label)
    middle = (rows.start + rows.stop) // 2
    return editor.lattice.to_um([(middle, cols.start - 3), (middle, cols.stop + 3)])


def test_an_object_is_read_whole_and_its_surroundings_only(labels):
    asked = []

    class Watched:
        shape, dtype = labels.shape, labels.dtype

        def __getitem__(self, key):
            asked.append(labels[key].size)
            return labels[key]

    lattice = Lattice("cd34", labels.shape, SPACING)
    editor = ObjectEditor(Watched(), lattice, measure_objects(labels, lattice))
    for label in range(1, labels.max() + 1):
        window, mask = editor.mask(label)
        expected = ndimage.find_objects(labels)[label - 1]
        assert window == expected
        np.testing.assert_array_equal(mask, labels[expected] == label)
    assert np.median(asked) < labels.size / 50


def test_edits_in_small_patches_equal_those_on_the_whole_image(labels, monkeypatch):
    n = int(labels.max())
    results = []
    for patch in (16, 1000):
        monkeypatch.setattr(editing, "_PATCH", patch)
        editor = editor_of(labels)
        large = int(np.argmax(np.bincount(labels.ravel())[1:])) + 1
        others = [k for k in range(1, n + 1) if k != large]
        corrections = [
            correction(editor, "delete", others[0]),
            correction(editor, "split", large, line_um=tuple(map(tuple, across(editor, large)))),
            correction(editor, "merge", others[3], others[4]),
            correction(editor, "class", others[5], word="artery"),
            correction(editor, "delete", n if n != large else n - 1),
        ]
        assert apply_corrections(editor, corrections) == [""] * 5
        edited = editor.compact()
        results.append((editor[:, :], edited))
    (image, edited), (whole, edited_whole) = results
    np.testing.assert_array_equal(image, whole)
    np.testing.assert_array_equal(edited.rows, edited_whole.rows)

    # a second way: every object of the result is known, and nothing else has changed
    for label, row in enumerate(edited.rows, 1):
        if row >= 0:
            np.testing.assert_array_equal(image == label, labels == row + 1)
    made = {
        how: [k for k, (_, h) in edited.made.items() if h == how] for how in ("merged", "split")
    }
    np.testing.assert_array_equal(np.isin(image, made["split"]), labels == large)
    np.testing.assert_array_equal(
        np.isin(image, made["merged"]), np.isin(labels, (others[3], others[4]))
    )
    assert len(made["merged"]) == 1
    assert len(made["split"]) >= 2
    assert sorted(np.unique(image)) == list(range(n - 4 + len(made["split"]) + 1))
    (classed,) = edited.words
    assert edited.rows[classed - 1] == others[5] - 1
    outside = np.ones(labels.shape, bool)
    for window in edited.windows:
        outside[window] = False
    np.testing.assert_array_equal(image[outside], labels[outside])


def drawn(row_um, column_um, radius_um):
    """A round object of a slide that begins at (1000, 2000) µm, drawn by hand."""
    return Correction(
        "add", area_wkt=shapely.Point(2000 + column_um, 1000 + row_um).buffer(radius_um).wkt
    )


def test_a_drawn_object_gets_the_next_label_and_takes_nothing_of_others(monkeypatch):
    before = np.zeros((300, 340), np.int32)
    before[100:120, 100:120], before[250:260, 20:30] = 1, 2
    results = []
    for patch in (16, 1000):
        monkeypatch.setattr(editing, "_PATCH", patch)
        editor = editor_of(before)
        assert apply_corrections(editor, [drawn(80, 80, 7), drawn(52, 62, 6)]) == ["", ""]
        assert editor.at((1080, 2080)) == 3
        assert editor.how(3) == "added"
        edited = editor.compact()
        after = editor[0:300, 0:340]
        np.testing.assert_array_equal(after[before > 0], before[before > 0])
        np.testing.assert_array_equal(edited.rows, [0, 1, -1, -1])
        assert (after == 3).sum() / 4 == pytest.approx(np.pi * 49, rel=0.02)
        assert 0 < (after == 4).sum() / 4 < np.pi * 36 - 5  # the rest belongs to object 1
        results.append(after)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    ("place", "what", "why"),
    [
        ((-20, 50, 8), "vessels", "outside the slide"),
        ((50, 168, 8), "vessels", ""),  # at the edge: what lies beyond is cut away
        ((50, 180, 12), "vessels", "outside the slide"),
        ((55, 55, 4), "vessels", "most of the outline lies on an object"),
        ((80, 80, 1), "vessels", "too small; vessels have 10 to"),
        ((80, 80, 1000), "vessels", "too large; vessels have 10 to 1,000,000"),
        ((80, 80, 40), "nuclei", "too large; nuclei have 5 to 2,000"),
    ],
)
def test_an_implausible_outline_is_refused(place, what, why):
    before = np.zeros((300, 340), np.int32)
    before[100:120, 100:120] = 1
    lattice = Lattice("cd34", before.shape, SPACING, (1000.0, 2000.0))
    editor = ObjectEditor(before, lattice, measure_objects(before, lattice), what)
    (found,) = apply_corrections(editor, [drawn(*place)])
    assert why in found
    assert bool(found) == bool(why)
    assert (editor.compact().rows.size == 1) == bool(why)


def test_a_drawn_object_is_undone_and_an_empty_segmentation_takes_one():
    before = np.zeros((300, 340), np.int32)
    editor = editor_of(before)
    state = editor.state()
    label = editor.add(drawn(80, 80, 7))
    editor.restore(state)
    assert editor.at((1080, 2080)) == 0
    label = editor.add(drawn(80, 80, 7))
    window, mask = editor.mask(label)
    found = measure_objects(before, editor.lattice)
    row = measure_objects(mask.astype(np.int32), editor.lattice.crop(*window), n_labels=1)
    table = editing.corrected_table(found, editor.compact(), {label: row})
    assert len(table) == 1
    assert table["area_um2"][0] == pytest.approx(np.pi * 49, rel=0.02)
    assert list(table[editing.MANUAL_EDIT]) == ["added"]


def test_measurements_that_nobody_corrected_are_not_copied(labels):
    editor = editor_of(labels)
    table = editor.compact()
    found = measure_objects(labels, editor.lattice)
    same = editing.corrected_table(found, table, {})
    assert all(same[name] is found[name] for name in found)
    assert set(same[editing.MANUAL_EDIT]) == {""}


def test_what_cannot_be_done_changes_nothing_and_is_said(labels):
    editor = editor_of(labels)
    before = editor[:, :]
    with pytest.raises(InputError, match="does not divide"):
        editor.split(1, editor.lattice.to_um([(0, 0), (0, 1)]))
    with pytest.raises(InputError, match="same object"):
        editor.merge(1, 1)
    with pytest.raises(InputError, match="100 µm apart"):
        editor.merge(1, int(labels.max()))
    with pytest.raises(InputError, match="no object 0"):
        editor.delete(0)
    np.testing.assert_array_equal(editor[:, :], before)
    assert editor.compact().windows == []


def test_corrections_meet_moved_numbers_and_say_what_they_do_not_meet(labels):
    first = editor_of(labels)
    chosen = [correction(first, "delete", k) for k in (2, 5, 9)]
    # found again: object 5 is gone, object 9 has grown to several times its size, numbers differ
    again = labels.copy()
    again[labels == 5] = 0
    (rows, cols), _ = first.mask(9)
    grown = np.zeros(labels.shape, bool)
    grown[max(0, rows.start - 9) : rows.stop + 9, max(0, cols.start - 9) : cols.stop + 9] = True
    again[grown] = 9
    numbers = np.unique(again)
    again = np.searchsorted(numbers, again).astype(np.int32)
    again = np.where(again > 0, again.max() + 1 - again, 0).astype(np.int32)
    second = editor_of(again)
    said = apply_corrections(second, chosen)
    assert said[0] == ""
    assert not second[:, :][labels == 2].any()
    assert said[1] == "there is no object any more"
    assert "instead of" in said[2]


def test_labels_and_table_of_two_results_are_noticed(labels):
    lattice = Lattice("cd34", labels.shape, SPACING)
    editor = ObjectEditor(blobs(1), lattice, measure_objects(labels, lattice))
    with pytest.raises(InputError, match="pixels in the image"):
        editor.mask(1)
