"""Cutting into blocks covers everything once; working files take their room at once."""

import errno
import os
import sys
import threading

import numpy as np
import pytest

from napari_mosaik.core import InputError, LabelImage, Lattice, MosaikError, Progress, Raster
from napari_mosaik.core.blocks import LazyLabels, cut, cut_px
from napari_mosaik.core.progress import checkpoint, reach_of_item, run_to_end
from napari_mosaik.io import ome_labels
from napari_mosaik.io.ome_labels import LabelWriter, read_labels
from napari_mosaik.workflow import parallel
from napari_mosaik.workflow.block_work import DiskWork, _in_work
from napari_mosaik.workflow.parallel import beside, in_parallel
from napari_mosaik.workflow.slide_blocks import (
    blocks_with_tissue,
    resample_mask,
    sample_blocks,
    tissue_areas,
)

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
    found = resample_mask(LATTICE, mask)
    expected = mask.at(LATTICE.centres_um().reshape(-1, 2), outside=0).reshape(LATTICE.shape)
    assert (found == expected.astype(bool)).all()
    kept = blocks_with_tissue(cut(LATTICE, 8, 0.0), mask)
    held = [b.index for b in cut(LATTICE, 8, 0.0) if found[b.rows, b.cols].any()]
    assert [block.index for block in kept] == held
    fine = Raster(rng.random(LATTICE.shape) > 0.5, LATTICE)
    blocks = cut(LATTICE, 24, 0.0)
    areas = [fine.values[block.rows, block.cols].sum() for block in blocks]
    assert tissue_areas(blocks, fine) == pytest.approx(areas)


def test_samples_lie_in_the_tissue_and_spread_over_it():
    mask = Raster(np.zeros((9, 6), bool), Lattice("he", (9, 6), (13.0, 11.0), (110.0, -20.0)))
    mask.values[2:8, 1:5] = True
    blocks = sample_blocks(LATTICE, 5, mask, 12)
    assert 6 <= len(blocks) <= 12
    for block in blocks:
        assert max(block.core.shape) <= 5
    assert len({(b.rows.start, b.cols.start) for b in blocks}) == len(blocks)
    assert sample_blocks(LATTICE, 5, Raster(np.zeros((9, 6), bool), mask.lattice), 12) == []


def test_painted_labels_are_those_of_their_blocks_in_any_window():
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 9, LATTICE.shape).astype(np.int32)
    blocks = cut_px(LATTICE, (17, 11), 0)
    painted = LazyLabels(
        LATTICE.shape, blocks, lambda i: whole[blocks[i].rows, blocks[i].cols], whole.dtype
    )
    for _ in range(30):
        r = sorted(rng.integers(0, LATTICE.shape[0] + 1, 2))
        c = sorted(rng.integers(0, LATTICE.shape[1] + 1, 2))
        window = (slice(*r), slice(*c))
        np.testing.assert_array_equal(painted[window], whole[window])
    np.testing.assert_array_equal(painted[...], whole)


def test_label_images_are_written_in_levels_of_every_second_sample(tmp_path):
    rng = np.random.default_rng(1)
    whole = (rng.random((2300, 1100)) > 0.999).astype(np.int32) * 7
    lattice = Lattice("he", (2300, 1100), (0.5, 0.5))
    writer = LabelWriter(tmp_path / "labels", LabelImage(whole, lattice), "test")
    for level in range(writer.n_levels):
        for window in reversed(writer.windows(level)):
            writer.write(level, window)
    written = writer.finish()
    again = read_labels(tmp_path / "labels")
    for image in (written, again):
        for level, values in enumerate((image.values, *image.levels)):
            np.testing.assert_array_equal(values[...], whole[:: 2**level, :: 2**level])
    assert max(again.levels[-1].shape) <= 512


@pytest.mark.parametrize("stage", ["create_array", "write_chunk", "write_group"])
def test_a_disk_without_room_is_told(tmp_path, monkeypatch, stage):
    def full(*arguments, **more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ome_labels, stage, full)
    image = LabelImage(np.ones((30, 30), np.int32), Lattice("he", (30, 30), (0.5, 0.5)))

    def write():
        writer = LabelWriter(tmp_path / "labels", image, "vessels")
        writer.write(0, (slice(0, 30), slice(0, 30)))
        writer.finish()

    with pytest.raises(MosaikError, match=r"'vessels' could not be saved.*the disk is full"):
        write()


def test_finished_blocks_are_packed_and_read_back(tmp_path):
    work = DiskWork(tmp_path, "labels")
    arrays = {"runs": np.arange(40_000) // 40, "none": np.zeros((0, 3))}
    results = run_to_end(work.blocks("stage", [0, 1], lambda item: arrays, "working"))
    assert sum(file.stat().st_size for file in (tmp_path / "stage").iterdir()) < 40_000
    for name, values in results.starting(1, "").items():
        np.testing.assert_array_equal(values, arrays[name], strict=True)
    assert set(results.starting(1, "")) == set(arrays)


def test_progress_follows_the_weights_of_the_blocks_and_what_was_finished_before(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(parallel, "_REPORT_S", 600.0)  # nothing is told while a block takes long

    class Blocks:
        def expect(self, indices):
            self.expected = list(indices)

        def read(self, index):
            return (index,)

    blocks, weights = Blocks(), (1.0, 2.0, 3.0, 4.0)
    for kept in ((), (1, 3)):
        for number in set(range(4)) - set(kept):
            (tmp_path / "stage" / f"{number:06d}.npz").unlink(missing_ok=True)
        begun = []

        def note(index, _, begun=begun):
            begun.append(index)
            return {"index": np.array(index)}

        work = DiskWork(tmp_path, "labels").stream(
            "stage", blocks, range(4), note, "", at_once=1, weights=weights
        )
        reports = list(work)
        assert [one.found for one in reports] == [bool(kept)] + [False] * (len(reports) - 1)
        shares = [progress.fraction for progress in reports]
        assert shares[0] == pytest.approx(sum(weights[index] for index in kept) / 10)
        assert np.diff(shares) == pytest.approx([weights[index] / 10 for index in begun])
        assert sorted(begun) == sorted(set(range(4)) - set(kept))


def test_an_item_in_work_counts_by_what_it_tells_of_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "_REPORT_S", 0.01)
    halfway, go = threading.Event(), threading.Event()

    def work(item):
        reach_of_item(0.5)
        if item == 1:
            halfway.set()
            assert go.wait(30)
        return {"item": np.array(item)}

    shares, run = [], DiskWork(tmp_path, "labels").blocks("stage", [0, 1], work, "")
    for progress in run:
        shares.append(progress.fraction)
        if halfway.is_set() and progress.fraction == 0.75:
            go.set()
    assert 0.75 in shares  # of two items one has ended and one is half done
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_work_beside_repeats_its_progress_and_gives_its_result(monkeypatch):
    monkeypatch.setattr(parallel, "_REPORT_S", 0.01)
    go, progress = threading.Event(), Progress(0.2, 1, "looking")

    def work():
        assert go.wait(30)
        return threading.current_thread() is not threading.main_thread()

    run = beside(work, progress)
    assert [next(run) for _ in range(3)] == [progress] * 3
    go.set()
    assert run_to_end(run) is True

    def refuse():
        raise InputError("upside down")

    with pytest.raises(InputError, match="upside down"):
        run_to_end(beside(refuse, progress))

    def endless():
        go.set()
        while True:
            checkpoint()

    go.clear()
    run = beside(endless, progress)
    next(run)
    next(run)
    assert go.wait(30)
    run.close()  # comes back: the thread has stopped at its checkpoint


def test_work_beside_is_told_within_a_second_though_it_is_looked_at_now_and_then(monkeypatch):
    now = [0.0]

    def looks(one, items, n, every_s):
        for _ in range(40):
            now[0] += every_s + parallel._CHECK_S
            yield 0
        one(*items)

    monkeypatch.setattr(parallel, "_on_threads", looks)
    monkeypatch.setattr(parallel.time, "monotonic", lambda: now[0])
    told = [now[0] for _ in beside(lambda: None, Progress(0.2, 1, "looking"))]
    # A library that is being loaded holds the interpreter for 0.1 to 0.3 s more.
    assert max(np.diff(told)) <= 0.7
    assert len(told) > 10


def test_work_beside_moves_its_progress_by_what_it_tells(monkeypatch):
    monkeypatch.setattr(parallel, "_REPORT_S", 0.01)
    go, shares = threading.Event(), []

    def work():
        reach_of_item(0.5)
        assert go.wait(30)
        return "found"

    run = beside(work, Progress(0.2, 1, "looking"), 0.6)
    while 0.4 not in shares:
        shares.append(round(next(run).fraction, 9))
    go.set()
    assert shares[0] == 0.2
    assert run_to_end(run) == "found"


def test_items_in_work_count_by_the_pace_of_those_that_ended(monkeypatch):
    monkeypatch.setattr("napari_mosaik.workflow.block_work.time.monotonic", lambda: 100.0)
    each, took = np.array([2.0, 4.0, 10.0]), {0: 6.0}  # 3 s for each unit
    assert _in_work(each, {1: 97.0}, took) == pytest.approx(1.0)
    assert _in_work(each, {1: 97.0, 2: 94.0}, took) == pytest.approx(3.0)
    assert _in_work(each, {1: 0.0}, took) == pytest.approx(3.6)


def test_parallel_work_is_counted_stopped_and_its_error_told(monkeypatch):
    monkeypatch.setattr(parallel, "_REPORT_S", 600.0)  # no number is repeated while none ends
    done = []
    assert list(in_parallel(done.append, range(20))) == list(range(1, 21))
    assert sorted(done) == list(range(20))
    assert list(in_parallel(done.append, [])) == []

    begun = []
    work = in_parallel(begun.append, range(10_000))
    next(work)
    work.close()
    assert len(begun) < 10_000

    def fail(item):
        if item == 3:
            raise InputError("item 3 is wrong")

    with pytest.raises(InputError, match="item 3"):
        list(in_parallel(fail, range(1000)))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_an_address_space_that_is_too_small_is_refused_before_a_library_aborts(monkeypatch):
    import resource

    def limited(gib):
        limit = resource.RLIM_INFINITY if gib is None else int(gib * 2**30)
        monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, limit))

    limited(1.0)
    words = r"ulimit -v, 1.0 GiB\) leaves too little for the network library; allow 4 GiB"
    with pytest.raises(MosaikError, match=words):
        parallel.require_address_space(1.0, "the network library")
    limited(None)
    parallel.require_address_space(1.0, "the network library")
    limited(1000)
    parallel.require_address_space(1.0, "the network library")


@pytest.mark.skipif(sys.platform != "linux", reason="it is a matter of glibc")
def test_large_blocks_go_back_at_once_unless_a_step_runs():
    import ctypes
    import subprocess

    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("only glibc from 2.33 on tells its blocks")
    code = """
import ctypes
import numpy as np
from napari_mosaik.workflow.parallel import keep_freed_memory

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

tell = ctypes.CDLL(None).mallinfo2
tell.restype = Info
for keep in (False, True, False):
    keep_freed_memory(keep)
    before = tell().hblks
    tile = np.ones(1_000_000, np.uint8)
    print(tell().hblks - before)
    del tile
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["1", "0", "1"]
