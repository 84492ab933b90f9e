"""Independent work items in parallel with dask: on threads, or on a cluster."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from napari_mosaik.core.progress import cancellable, checkpoint, stop_asked

__all__ = ["give_back_memory", "in_parallel", "n_workers", "one_blas_thread"]

T = TypeVar("T")
_CHECK_S = 0.05
"""How often a computation that waits for its threads looks whether it is asked to stop, s."""


def n_workers() -> int:
    """Number of threads (count) that this process may use: its share of the cores."""
    from dask.system import CPU_COUNT

    return max(1, int(CPU_COUNT))


def give_back_memory() -> None:
    """Return what was freed to the system, where its C library keeps it (glibc).

    Large blocks of several threads leave gaps: without this, hundreds of MiB stay with the process.
    """
    import ctypes
    import sys

    if sys.platform == "linux":
        # musl has no such function, and needs none.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: 0)(0)


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

    Threads take the items in order, at most *at_once* of them side by side if it is given.
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


def _on_threads(work: Callable[[T], object], todo: list[T], n: int) -> Iterator[int]:
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
        for count in range(1, len(todo) + 1):
            error = _next(done)
            if error is not None:
                raise error
            yield count
    finally:
        # Wait for running items: they may write to files that the caller removes next.
        stopped.set()
        runner.join()


def _next(done: queue.SimpleQueue[Exception | None]) -> Exception | None:
    """What the next finished item says, unless the computation is asked to stop before."""
    while True:
        checkpoint()
        with contextlib.suppress(queue.Empty):
            return done.get(timeout=_CHECK_S)


def _on_cluster(work: Callable[[T], object], todo: list[T], scheduler: str) -> Iterator[int]:
    from distributed import Client, as_completed

    from napari_mosaik.core.errors import MosaikError

    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise MosaikError(
            f"no dask scheduler answers at {scheduler} ({error}); start one with 'dask scheduler', "
            "or run without --scheduler"
        ) from error
    with client:
        futures = client.map(_on_worker, todo, work=work, pure=False)
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                yield done
        finally:
            client.cancel(futures)


def _on_worker(item: T, work: Callable[[T], object]) -> None:
    """Work on one item in a worker process of the cluster; its results are written to files."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="blas")
    work(item)
