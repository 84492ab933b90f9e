"""Cutting into blocks covers everything once; working files take their room at once."""

import errno
import os

import numpy as np
import pytest

from napari_mosaik.core import Lattice, MosaikError, Raster
from napari_mosaik.core.blocks import cut
from napari_mosaik.workflow.steps.blocks import scratch_array, tissue_in, with_tissue

LATTICE = Lattice("he", (70, 45), (2.0, 2.0), (100.0, -30.0))


def test_cores_cover_every_sample_once_and_lie_within_their_margin():
    count = np.zeros(LATTICE.shape, int)
    centres = LATTICE.centres_um()
    for block in cut(LATTICE, 32, 7.0):
        count[block.rows, block.cols] += 1
        assert block.margin == 4
        core = block.outer.centres_um()[block.inner]
        assert np.allclose(core, centres[block.rows, block.cols])
        assert np.allclose(core, block.core.centres_um())
    assert (count == 1).all()


def test_tissue_is_looked_up_where_it_lies():
    rng = np.random.default_rng(3)
    mask = Raster(rng.random((9, 6)) > 0.5, Lattice("he", (9, 6), (13.0, 11.0), (110.0, -20.0)))
    found = tissue_in(LATTICE, mask)
    expected = mask.at(LATTICE.centres_um().reshape(-1, 2), outside=0).reshape(LATTICE.shape)
    assert (found == expected.astype(bool)).all()
    kept = with_tissue(cut(LATTICE, 8, 0.0), mask)
    held = [b.index for b in cut(LATTICE, 8, 0.0) if found[b.rows, b.cols].any()]
    assert [block.index for block in kept] == held


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve room")
def test_a_working_file_is_zero_and_holds_its_room(tmp_path):
    array = scratch_array(tmp_path / "scratch", "labels", (300, 200), np.int32)
    assert array.shape == (300, 200)
    assert not array.any()
    path = tmp_path / "scratch" / "labels.npy"
    assert path.stat().st_blocks * 512 >= array.nbytes


def test_a_working_file_that_does_not_fit_is_told(tmp_path, monkeypatch):
    def full(handle, start, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(MosaikError, match=r"a working file could not be saved.*the disk is full"):
        scratch_array(tmp_path, "labels", (300, 200), np.int32)
