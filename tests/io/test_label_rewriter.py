"""A label image that differs in some windows is stored as if it had been written whole."""

import os

import numpy as np
import pytest

from napari_mosaik.core import LabelImage, Lattice
from napari_mosaik.core.manifest import listed_files
from napari_mosaik.io import files
from napari_mosaik.io.ome_labels import (
    LabelRewriter,
    LabelWriter,
    differing_windows,
    labels_in,
    read_labels,
)


def written(writer):
    for level in range(writer.n_levels):
        for window in writer.windows(level):
            writer.write(level, window)
    writer.finish()
    return read_labels(writer.place)


def image(values):
    return LabelImage(values, Lattice("he", values.shape, (0.5, 0.5)))


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("shape", [(300, 200), (2300, 3100)])
def test_all_levels_equal_those_of_an_image_written_whole(tmp_path, monkeypatch, shape, links):
    if not links:

        def no_link(*_):
            raise OSError("no links here")

        monkeypatch.setattr(files.os, "link", no_link)
    before = np.zeros(shape, np.int32)
    before[20:280, 10:190] = 7
    before[shape[0] - 90 :, shape[1] - 90 :] = 3
    after = before.copy()
    after[20:100, 10:60] = 0  # empties a part
    windows = [(slice(0, 256), slice(0, 256))]
    if shape[0] > 2000:
        after[1020:1030, 2040:2060] = 9  # across two blocks
        windows.append((slice(1000, 1100), slice(2000, 2100)))
        after[2290:, :5] = 2
        windows.append((slice(2048, 2300), slice(0, 256)))
    written(LabelWriter(tmp_path / "before", image(before), "labels"))
    rewriter = LabelRewriter(
        tmp_path / "after", image(after), "labels", tmp_path / "before", windows
    )
    found = written(rewriter)
    whole = written(LabelWriter(tmp_path / "whole", image(after), "labels"))
    np.testing.assert_array_equal(found.array(), after)
    assert len(found.levels) == len(whole.levels)
    for mine, theirs in zip(found.levels, whole.levels, strict=True):
        np.testing.assert_array_equal(np.asarray(mine[...]), np.asarray(theirs[...]))
    contents = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "after", tmp_path / "whole")
    ]
    assert contents[0] == contents[1]
    np.testing.assert_array_equal(read_labels(tmp_path / "before").array(), before)
    if shape[0] > 2000:
        written_chunks = {(r.start // 1024, c.start // 1024) for r, c in rewriter.windows(0)}
        assert written_chunks == {(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 0)}
        chunk = "0/c/2/3"
        same = os.path.samefile(tmp_path / "before" / chunk, tmp_path / "after" / chunk)
        assert same == links


def test_what_an_earlier_image_has_is_not_written_again(tmp_path):
    """It had one edit that stays, one that is taken back; a third is new."""
    shape = (2300, 3100)
    places = {name: tmp_path / name for name in ("segmented", "earlier", "now", "whole")}
    values = {"segmented": np.zeros(shape, np.int32)}
    values["segmented"][20:2280, 10:3090:7] = 5

    def edited(*windows):
        array = values["segmented"].copy()
        for window in windows:
            array[window] = 0
        return array

    stays, back, new = (
        (slice(r, r + 90), slice(c, c + 90)) for r, c in ((40, 40), (1500, 2100), (100, 1300))
    )
    values |= {"earlier": edited(stays, back), "now": edited(stays, new)}
    written(LabelWriter(labels_in(places["segmented"]), image(values["segmented"]), "labels"))
    for name, windows, earlier in (("earlier", [stays, back], None), ("whole", [stays, new], None)):
        array = image(values["earlier" if name == "earlier" else "now"])
        stored = labels_in(places["segmented"])
        written(LabelRewriter(labels_in(places[name]), array, "labels", stored, windows, earlier))
    found = differing_windows(
        image(values["now"]), [stays, new], listed_files(places["segmented"]),
        read_labels(labels_in(places["earlier"])), listed_files(places["earlier"]),
    )  # fmt: skip
    assert {(r.start // 1024, c.start // 1024) for r, c in found} == {(0, 1), (1, 2)}
    rewriter = LabelRewriter(
        labels_in(places["now"]), image(values["now"]), "labels", labels_in(places["segmented"]),
        [stays, new], (labels_in(places["earlier"]), found),
    )  # fmt: skip
    assert [(r.start, c.start) for r, c in rewriter.windows(0)] == [(0, 1024)]
    np.testing.assert_array_equal(written(rewriter).array(), values["now"])
    assert listed_files(places["now"]) == listed_files(places["whole"])
    kept, stored = "labels.ome.zarr/0/c/0/0", "labels.ome.zarr/0/c/1/2"
    assert os.path.samefile(places["now"] / kept, places["earlier"] / kept)
    assert os.path.samefile(places["now"] / stored, places["segmented"] / stored)


def test_stored_labels_are_read_as_an_array_and_a_changed_chunk_again(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 9, (1300, 2100)).astype(np.int32)
    values[:1024, 1024:2048] = 0  # no file
    stored = written(LabelWriter(tmp_path / "labels", image(values), "labels")).values
    keys = [
        np.s_[5:9, 7:30], np.s_[1000:1100, 1000:2100], np.s_[-5:, -5:], np.s_[3], np.s_[..., 4],
        np.s_[10:20], np.s_[::3, 1], np.s_[40:30, 5:9], np.s_[1290:9999, :], np.s_[7, 8],
    ]  # fmt: skip
    for key in keys:
        np.testing.assert_array_equal(np.asarray(stored[key]), values[key], str(key))
    np.testing.assert_array_equal(np.asarray(stored), values)
    assert (stored.shape, stored.dtype, stored.ndim) == (values.shape, values.dtype, 2)
    chunk = tmp_path / "labels" / "0" / "c" / "0" / "0"
    chunk.write_bytes((tmp_path / "labels" / "0" / "c" / "1" / "0").read_bytes())
    os.utime(chunk, ns=(1, 1))
    assert stored[0, 0] == values[1024, 0]
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(bytes(content))
    with pytest.raises(RuntimeError):
        stored[0:5, 0:5]
