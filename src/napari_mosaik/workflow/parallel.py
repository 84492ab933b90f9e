"""Work over many independent pieces, given to dask: threads here, or a named cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["in_parallel", "n_workers", "one_blas_thread"]

T = TypeVar("T")


def n_workers() -> int:
    """Threads that this process may use at once (its share of the cores)."""
    from dask.system import CPU_COUNT

    return max(1, int(CPU_COUNT))


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Linear algebra on one core, so that its last digits do not depend on how many there are.

    Blocks of work use the other cores; torch has its own threads and is not touched.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield


def in_parallel(
    work: Callable[[T], object], items: Iterable[T], scheduler: str = ""
) -> Iterator[int]:
    """Run *work* on every item; yield the number of finished items after each few.

    With threads the items go in groups of as many as there are cores, so closing the iterator
    stops the computation within one group.  A scheduler's address gives the items to a
    dask.distributed cluster, which must see the same files; closing cancels what is pending.
    """
    todo = list(items)
    if scheduler:
        yield from _on_cluster(work, todo, scheduler)
        return
    from dask.base import compute
    from dask.delayed import delayed

    group = n_workers()
    for first in range(0, len(todo), group):
        pieces = [delayed(work)(item) for item in todo[first : first + group]]
        compute(*pieces, scheduler="threads", num_workers=group)
        yield min(first + group, len(todo))


def _on_cluster(work: Callable[[T], object], todo: list[T], scheduler: str) -> Iterator[int]:
    from distributed import Client, as_completed

    from napari_mosaik.core.errors import MosaikError

    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise MosaikError(
            f"no dask scheduler answers at {scheduler} ({error}); start one with 'dask scheduler', "
            "or leave --scheduler out"
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
    """Work on one item in a cluster's process; what it makes lies in files."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="blas")
    work(item)
