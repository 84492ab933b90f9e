"""Blocks on a cluster of two worker processes: what becomes of them when a part of it fails."""

import os
import signal
import threading
from functools import partial

import dask
import pytest

from napari_mosaik.core import Progress
from napari_mosaik.core.errors import Cancelled, MosaikError
from napari_mosaik.core.progress import cancellable, run_to_end
from napari_mosaik.workflow import parallel
from napari_mosaik.workflow.parallel import in_parallel, on_one_worker


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as made:
        yield made


def held(folder, index):
    """Tell the worker's process and wait for the file `go`; item 0 does so only once."""
    mark = folder / "held"
    if index == 0 and not mark.exists():
        (folder / "new").write_text(str(os.getpid()))
        (folder / "new").rename(mark)
        while not (folder / "go").exists():
            threading.Event().wait(0.01)
    (folder / f"{index}.done").touch()


def test_blocks_of_a_killed_worker_are_done_by_another(cluster, tmp_path):
    work = in_parallel(partial(held, tmp_path), range(6), cluster.scheduler_address)
    mark, counts = tmp_path / "held", [next(work)]
    while not mark.exists():
        counts.append(next(work))
    os.kill(int(mark.read_text()), signal.SIGKILL)
    counts += work
    assert counts[-1] == 6
    assert not (tmp_path / "go").exists()
    assert len(list(tmp_path.glob("*.done"))) == 6


def test_waiting_for_a_cluster_is_told_and_can_be_cancelled(cluster, tmp_path):
    asked = threading.Event()
    work = in_parallel(partial(held, tmp_path), [0], cluster.scheduler_address)
    with cancellable(asked.is_set):
        assert next(work) == 0  # nothing has ended: the number is repeated
        asked.set()
        with pytest.raises(Cancelled):
            next(work)
    (tmp_path / "go").touch()


def endless(folder):
    """Yields until it is closed, and says so."""
    try:
        for turn in range(1, 10**6):
            threading.Event().wait(0.01)
            yield Progress(turn, 10**6, "working")
    finally:
        (folder / "stopped").touch()


def short(value):
    yield Progress(0.5, 1, "half")
    return value, os.getpid()


def test_a_whole_computation_runs_on_a_worker_and_stops_when_it_is_closed(cluster, tmp_path):
    address = cluster.scheduler_address
    value, process = run_to_end(on_one_worker(partial(short, 7), address))
    assert (value, process != os.getpid()) == (7, True)
    work = on_one_worker(partial(endless, tmp_path), address)
    while next(work).text != "working":
        pass
    work.close()
    while not (tmp_path / "stopped").exists():
        threading.Event().wait(0.01)


def test_a_lost_scheduler_is_one_clear_line(tmp_path):
    from distributed import LocalCluster

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}),  # the worker looks for it
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as alone,
    ):
        work = in_parallel(partial(held, tmp_path), [0], alone.scheduler_address)
        assert next(work) == 0
        alone.sync(alone.scheduler.close)
        with pytest.raises(MosaikError, match=r"^the dask scheduler at \S+ is gone; start it"):
            list(work)
        (tmp_path / "go").touch()


def test_a_scheduler_without_workers_is_told(monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(parallel, "_WORKERS_S", 0.0)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as alone,
        pytest.raises(MosaikError, match=r"has no workers; start one with 'dask worker"),
    ):
        list(in_parallel(print, [0], alone.scheduler_address))
