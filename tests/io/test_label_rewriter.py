"""A label image that differs in some windows is stored as if it had been written whole."""

import os

import numpy as np
import pytest

from napari_mosaik.core import LabelImage, Lattice
from napari_mosaik.io import files
from napari_mosaik.io.ome_labels import LabelRewriter, LabelWriter, read_labels


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
