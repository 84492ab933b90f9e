"""Independent work items in parallel with dask: on threads, or on a cluster."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.progress import (
    cancellable,
    checkpoint,
    of_this_item,
    run_to_end,
    stop_asked,
)

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = [
    "beside",
    "compute_devices",
    "computing_on",
    "give_back_memory",
    "in_parallel",
    "keep_freed_memory",
    "n_workers",
    "on_one_worker",
    "one_blas_thread",
    "require_address_space",
]

T = TypeVar("T")
_REPORT_S = 0.5
"""After how long progress is reported again while no item ends, s: with `_TELL_S`, within 1 s."""
_TELL_S = 0.25
"""How often that of an item that tells it is reported, s."""
_ASK_S = 0.25
"""How often a computation on a worker asks its scheduler whether it shall stop, s."""
_WORKERS_S = 60.0
"""How long workers of a cluster are waited for, s; they start one after the other on its nodes."""
_CHECK_S = 0.05
"""How often a computation that waits for its threads looks whether it is asked to stop, s."""
_MMAP_THRESHOLD: Final = -3
"""glibc's number for the size from which a block goes back as soon as it is freed."""
_LARGE_KEPT, _LARGE_SHOWN = 2**25, 400_000
"""Bytes: the largest that glibc allows, and half of a decoded tile."""


def n_workers() -> int:
    """Number of threads (count) that this process may use: its share of the cores."""
    from dask.system import CPU_COUNT

    return max(1, int(CPU_COUNT))


def compute_devices() -> tuple[str, ...]:
    """The devices that networks can use on this computer; loads torch."""
    from napari_mosaik.learning.devices import known_devices

    return known_devices()


@contextlib.contextmanager
def computing_on(device: str) -> Iterator[None]:
    """Networks compute on a device ("cpu", "cuda" or "mps") inside the block, in all threads.

    Raises
    ------
    InputError
        torch cannot use that device on this computer.
    """
    from napari_mosaik.learning.devices import preferred_device

    with preferred_device(device):  # type: ignore[arg-type]
        yield


def give_back_memory() -> None:
    """Return what was freed to the system, where its C library keeps it (glibc).

    Large blocks of several threads leave gaps: without this, hundreds of MiB stay with the process.
    """
    import ctypes
    import sys

    if sys.platform == "linux":
        # musl has no such function, and needs none.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: 0)(0)


def keep_freed_memory(keep: bool) -> None:
    """Whether large blocks that were freed stay with the process, where its C library is glibc.

    Kept, they are at hand for the next picture of a network.  In the window on a large slide they
    are gaps between what is shown, 0.15 GiB.
    """
    import ctypes
    import sys

    if sys.platform == "linux":
        tune = getattr(ctypes.CDLL(None), "mallopt", lambda _what, _value: 0)
        tune(_MMAP_THRESHOLD, _LARGE_KEPT if keep else _LARGE_SHOWN)


def require_address_space(gib: float, what: str) -> None:
    """Refuse what would end the process without a word, because its address space is limited.

    Compilers and network libraries abort where memory is refused to them.

    Raises
    ------
    MosaikError
        A limit (``ulimit -v``) leaves less than *gib* GiB for *what*.
    """
    import sys

    if sys.platform != "linux":
        return
    import resource

    from napari_mosaik.core.errors import MosaikError

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if limit != resource.RLIM_INFINITY and limit - used < gib * 2**30:
        raise MosaikError(
            f"the memory limit of this process (ulimit -v, {limit / 2**30:.1f} GiB) leaves too "
            f"little for {what}; allow 4 GiB"
        )


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Linear algebra on one core, so that its last digits do not depend on the number of cores.

    Blocks run in parallel instead; torch has threads of its own and is not affected.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield


def in_parallel(
    work: Callable[[T], object], items: Iterable[T], scheduler: str = "", at_once: int = 0
) -> Iterator[int]:
    """Run *work* on every item; yield the number of finished items (count) after each of them.

    While none ends, the number is repeated once a second, so that whoever waits can show it.
    Threads take the items in an order of their own, at most *at_once* side by side if it is given.
    Closing the iterator waits for the items that are running and starts no other.  With the
    address of a *scheduler*, the items run on a dask.distributed cluster, whose workers must see
    the same files; closing cancels the pending items.
    """
    todo = list(items)
    if scheduler:
        yield from _on_cluster(work, todo, scheduler)
    elif len(todo) == 1:
        checkpoint()
        work(todo[0])
        yield 1
    elif todo:
        yield from _on_threads(work, todo, min(n_workers(), at_once or n_workers()))


def _on_threads(
    work: Callable[[T], object], todo: list[T], n: int, report_s: float | None = None
) -> Iterator[int]:
    from dask.threaded import get

    stopped, asked = threading.Event(), stop_asked()
    done: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def one(index: int) -> None:
        # dask cannot withdraw tasks of a graph that is running: they end here, undone.
        if stopped.is_set():
            return
        try:
            with cancellable(stopped.is_set), cancellable(asked):
                work(todo[index])
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            stopped.set()
            done.put(error)
            return
        done.put(None)

    names = [f"item-{index:09d}" for index in range(len(todo))]
    graph = {name: (one, index) for index, name in enumerate(names)}
    # `get` returns when all items are done.  It has a thread of its own, so that this generator can
    # yield after each item, and be closed, on the thread that drives it.
    runner = threading.Thread(
        target=get, args=(graph, names), kwargs={"num_workers": n}, name="mosaik-blocks"
    )
    runner.start()
    try:
        count = 0
        while count < len(todo):
            ended, error = _next(done, _REPORT_S if report_s is None else report_s)
            if error is not None:
                raise error
            count += ended
            yield count
    finally:
        # Wait for running items: they may write to files that the caller removes next.
        stopped.set()
        runner.join()


def beside(
    work: Callable[[], T], progress: Progress, stop: float | None = None
) -> Generator[Progress, None, T]:
    """Call *work*, which yields no progress, on another thread; its result.

    The *progress* is repeated once a second; it moves on to *stop* (fraction of 1) as soon as the
    work tells by `reach_of_item`.  Closing waits for the next checkpoint of *work*.
    """
    found: list[T] = []
    reached = [0.0]
    start = reported = progress.fraction

    def one(_: None) -> None:
        with of_this_item(partial(reached.__setitem__, 0)):
            found.append(work())

    yield progress
    last = time.monotonic()
    for _ in _on_threads(one, [None], 1, min(_TELL_S, _REPORT_S)):
        share = start if stop is None else start + (stop - start) * reached[0]
        if share > reported or time.monotonic() - last >= _REPORT_S:
            reported, last = share, time.monotonic()
            yield Progress(share, 1, progress.text)
    return found[0]


def _next(
    done: queue.SimpleQueue[Exception | None], within_s: float
) -> tuple[bool, Exception | None]:
    """Whether an item has ended within a time, and its error; raises if asked to stop."""
    began = time.monotonic()
    while time.monotonic() - began < within_s:
        checkpoint()
        with contextlib.suppress(queue.Empty):
            return True, done.get(timeout=_CHECK_S)
    return False, None


def _on_cluster(work: Callable[[T], object], todo: list[T], scheduler: str) -> Iterator[int]:
    from distributed import as_completed

    with _connected(scheduler) as client:
        futures = client.map(_on_worker, todo, work=work, pure=False)
        arriving, done, reported = as_completed(futures), 0, time.monotonic()
        try:
            while done < len(todo):
                checkpoint()
                for future in arriving.next_batch(block=False) or _wait(client, scheduler):
                    _result(future, scheduler)
                    done += 1
                    yield done
                    reported = time.monotonic()
                if time.monotonic() - reported > _REPORT_S and done < len(todo):
                    yield done
                    reported = time.monotonic()
        finally:
            if client.status == "running":
                client.cancel(futures)


def on_one_worker(
    work: Callable[[], Generator[Progress, None, T]], scheduler: str
) -> Generator[Progress, None, T]:
    """A whole computation on one worker of a dask.distributed cluster, with its progress.

    Closing it asks the worker to stop.  A worker that is lost is replaced by another, where the
    computation begins again, from what it has stored.

    Raises
    ------
    MosaikError
        There is no scheduler at the address, it has no workers, or it is lost on the way.
    """
    from distributed import Event

    with _connected(scheduler) as client:
        topic, reports = f"mosaik-{uuid.uuid4().hex}", [Progress(0, 1, "waiting for a worker")]
        client.subscribe_topic(
            topic, lambda event: reports.append(Progress(event[1][0], 1, event[1][1]))
        )
        stop = Event(topic, client)
        future = client.submit(_driven, work, topic, pure=False)
        try:
            while not future.done():
                checkpoint()
                del reports[:-1]
                yield reports[0]
                _wait(client, scheduler)
            found: T = _result(future, scheduler)
            return found
        finally:
            if client.status == "running" and not future.done():
                stop.set()
                client.cancel(future)


def _driven(work: Callable[[], Generator[Progress, None, T]], topic: str) -> T:
    """Drive a computation in a worker process; tell its progress, and stop when asked to."""
    from distributed import Event, get_worker

    worker, stop = get_worker(), Event(topic)
    looked, is_set = time.monotonic(), False

    def asked() -> bool:
        nonlocal looked, is_set
        if not is_set and time.monotonic() - looked > _ASK_S:
            is_set, looked = bool(stop.is_set()), time.monotonic()
        return is_set

    def tell(progress: Progress) -> None:
        checkpoint()
        worker.log_event(topic, [progress.fraction, progress.text])

    with cancellable(asked):
        return run_to_end(work(), tell)


@contextlib.contextmanager
def _connected(scheduler: str) -> Iterator[Client]:
    """A client of the scheduler at an address, which has workers."""
    from distributed import Client

    from napari_mosaik.core.errors import MosaikError

    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise MosaikError(
            f"no dask scheduler answers at {scheduler} ({error}); start one with 'dask scheduler', "
            "or run without --scheduler"
        ) from error
    # What becomes of the connection is told by one line, not by tracebacks of the library.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    with client:
        _wait_for_workers(client, scheduler)
        yield client


def _wait_for_workers(client: Client, scheduler: str) -> None:
    """Raise `MosaikError` where nobody would ever do the work."""
    from napari_mosaik.core.errors import MosaikError

    began = time.monotonic()
    while not client.scheduler_info()["workers"]:
        checkpoint()
        if time.monotonic() - began > _WORKERS_S:
            raise MosaikError(
                f"the dask scheduler at {scheduler} has no workers; start one with 'dask worker "
                f"{scheduler}', or run without --scheduler"
            )
        _wait(client, scheduler)


def _wait(client: Client, scheduler: str) -> list[Future]:
    """Wait for workers, unless the scheduler is gone; nothing has arrived."""
    if client.status != "running":
        raise _scheduler_lost(scheduler)
    time.sleep(_CHECK_S)
    return []


def _result(future: Future, scheduler: str) -> Any:
    """What a worker gives back; raises what went wrong there.

    What a killed worker had to do was given to the others before.
    """
    from concurrent.futures import CancelledError

    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    from napari_mosaik.core.errors import MosaikError

    try:
        return future.result()
    except KilledWorker as error:
        raise MosaikError(
            f"workers of the cluster at {scheduler} died repeatedly on the same block; give "
            "them more memory, or run without --scheduler (finished blocks are kept)"
        ) from error
    except (CancelledError, CommClosedError) as error:
        raise _scheduler_lost(scheduler) from error


def _scheduler_lost(scheduler: str) -> Exception:
    from napari_mosaik.core.errors import MosaikError

    return MosaikError(
        f"the dask scheduler at {scheduler} is gone; start it again with 'dask scheduler' and give "
        "the same command, or run without --scheduler (finished blocks are kept)"
    )


def _on_worker(item: T, work: Callable[[T], object]) -> None:
    """Work on one item in a worker process of the cluster; its results are written to files."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="blas")
    work(item)
