"""Cancel reaches into every loop: what computes stops at its next checkpoint, on every thread."""

import threading

import numpy as np
import pytest

from napari_mosaik.core.errors import Cancelled
from napari_mosaik.core.progress import cancellable, checkpoint, run_to_end, stop_asked
from napari_mosaik.segment import ClassicalNuclei
from napari_mosaik.workflow.parallel import in_parallel


class Asked:
    """Asks to stop from the *count*-th question on."""

    def __init__(self, count):
        self.count = count

    def __call__(self):
        self.count -= 1
        return self.count < 0


def test_a_checkpoint_stops_only_what_was_asked_to_stop():
    checkpoint()
    with cancellable(lambda: False):
        checkpoint()
        with pytest.raises(Cancelled), cancellable(lambda: True):
            checkpoint()
        checkpoint()
    with cancellable(lambda: True), cancellable(lambda: False), pytest.raises(Cancelled):
        checkpoint()
    assert not stop_asked()()


def test_cancel_reaches_the_threads_that_work_and_ends_them():
    asked, working, released = threading.Event(), threading.Event(), []

    def work(_):
        working.set()
        while True:
            checkpoint()
            asked.wait(0.001)

    def drive():
        with cancellable(asked.is_set):
            try:
                run_to_end(in_parallel(work, range(4)))
            except Cancelled:
                released.append(True)

    thread = threading.Thread(target=drive)
    thread.start()
    assert working.wait(30)
    asked.set()
    thread.join(30)
    assert released == [True]
    assert not thread.is_alive()


def test_closing_the_computation_stops_its_threads_at_their_checkpoints():
    working, ended = threading.Event(), []

    def work(number):
        if number == 0:
            return
        working.set()
        try:
            while True:
                checkpoint()
        except Cancelled:
            ended.append(number)
            raise

    items = in_parallel(work, range(2))
    assert next(items) == 1
    assert working.wait(30)
    items.close()
    assert ended == [1]


def test_an_error_of_one_item_ends_the_others():
    def work(number):
        if number == 0:
            raise ValueError("broken")
        while True:
            checkpoint()

    with pytest.raises(ValueError, match="broken"):
        run_to_end(in_parallel(work, range(2)))


RGB = np.random.default_rng(0).integers(60, 255, (160, 160, 3)).astype(np.uint8)


def stops(work):
    """Whether *work* stops in the middle when it is asked to."""
    with pytest.raises(Cancelled), cancellable(Asked(1)):
        work()


def test_the_nuclei_methods_stop_within_a_block():
    from napari_mosaik.segment.stardist import StarDistNuclei, embedded_weights

    network = StarDistNuclei(embedded_weights())
    stops(lambda: network.segment(RGB, 0.5))
    stops(lambda: ClassicalNuclei().segment(RGB, 0.5))


def test_the_networks_stop_between_their_layers():
    import torch
    from torch import nn

    from napari_mosaik.learning.devices import stoppable

    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    stoppable(network)
    stops(lambda: network(torch.zeros(1, 2)))
    assert network(torch.zeros(1, 2)).shape == (1, 2)
