"""The training loop: a plain loop gives the same bits, and nothing else decides than its rules."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_mosaik.core import InputError, MosaikError
from napari_mosaik.learning.devices import ComputeDevice
from napari_mosaik.learning.engine import Trainer, TrainingPlan, read_checkpoint

X = torch.linspace(-1, 1, 24).reshape(12, 2)
Y = X @ torch.tensor([[0.5], [-1.5]]) + 0.25


class Line:
    """A line through twelve points, in batches of four; the validation errors are given."""

    def __init__(self, errors=()):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = nn.Linear(2, 1)
        self.errors = iter(errors)
        self.max_images = 4

    def batches(self, rng):
        order = torch.from_numpy(rng.permutation(len(X)))
        yield from order.split(4)

    def losses(self, batch, device):
        for rows in batch.split(device.batch_size):
            if device.has_gpu and len(rows) > self.max_images:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory (for this test)")
            square = functional.mse_loss(self.network(X[rows]), Y[rows], reduction="sum")
            yield square / len(batch), square.detach()

    def validate(self, network, device):
        assert not network.weight.isnan().any()
        return {"mse": next(self.errors)} if self.errors.__length_hint__() else {}


def trainer_of(task, *, device=None, rate=0.1, **plan):
    plan = {"seed": 3, "epochs": 4, "batches": 3, **plan}
    optimiser = torch.optim.Adam(task.network.parameters(), lr=rate)
    return Trainer(task, optimiser, TrainingPlan(**plan), device or ComputeDevice.cpu(4))


def test_a_plain_loop_gives_the_same_bits():
    task = Line()
    trained = trainer_of(
        task, learning_rate=lambda n: 0.1 / (1 + n), mean_share=lambda n: 1 / (2 + n)
    )
    steps = list(trained.run())
    plain = Line().network
    mean = Line().network
    optimiser = torch.optim.Adam(plain.parameters(), lr=0.1)
    number, losses = itertools.count(), []
    for epoch in range(4):
        order = torch.from_numpy(np.random.default_rng([3, epoch]).permutation(12))
        for rows in order.split(4):
            n = next(number)
            optimiser.param_groups[0]["lr"] = 0.1 / (1 + n)
            loss = functional.mse_loss(plain(X[rows]), Y[rows], reduction="sum") / 4
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
            with torch.no_grad():
                for old, new in zip(mean.parameters(), plain.parameters(), strict=True):
                    old.lerp_(new, 1 / (2 + n))
    assert [step.loss for step in steps] == losses
    assert torch.equal(task.network.weight, plain.weight)
    assert torch.equal(trained.weights()["weight"], mean.weight)
    assert [step.record.losses[0] for step in steps if step.record] == [
        float(np.mean(losses[3 * k : 3 * k + 3])) for k in range(4)
    ]


@pytest.mark.parametrize("limit", [None, 0.05, 100.0])
def test_a_large_gradient_is_shortened_and_keeps_its_direction(limit):
    task = Line()
    before = torch.cat([p.detach().clone().flatten() for p in task.network.parameters()])
    optimiser = torch.optim.SGD(task.network.parameters(), lr=0.5)
    plan = TrainingPlan(seed=3, epochs=1, batches=1, max_gradient_norm=limit)
    next(Trainer(task, optimiser, plan, ComputeDevice.cpu(4)).run())
    after = torch.cat([p.detach().flatten() for p in task.network.parameters()])
    plain = Line().network
    rows = next(task.batches(np.random.default_rng([3, 0])))
    (functional.mse_loss(plain(X[rows]), Y[rows], reduction="sum") / 4).backward()
    gradient = torch.cat([p.grad.flatten() for p in plain.parameters()])
    norm = float(gradient.norm())
    assert norm > 0.5
    share = 1.0 if limit is None else min(1.0, limit / norm)
    torch.testing.assert_close(before - after, 0.5 * share * gradient)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_resumed_training_gives_the_same_bits(tmp_path, epochs):
    errors = [3.0, 1.0, 2.0, 1.5]
    whole = trainer_of(Line(errors))
    list(whole.run())
    file = tmp_path / "scratch" / "state.pt"
    first = trainer_of(Line(errors), fingerprint="a")
    for step in first.run(file):
        if step.epoch == epochs and step.record is not None:
            break
    second = trainer_of(Line(errors[epochs:]), fingerprint="a")
    steps = list(second.run(file))
    assert second.resumed
    assert steps[0].epoch == epochs + 1
    assert torch.equal(second.weights()["weight"], whole.weights()["weight"])
    assert second.history == whole.history
    assert second.best_epoch == 2
    other = trainer_of(Line(errors), fingerprint="b")
    assert next(other.run(file)).epoch == 1
    assert not other.resumed
    file.write_bytes(file.read_bytes()[:60])
    assert read_checkpoint(file, "a") is None


def test_the_best_weights_are_kept_and_patience_ends_the_training():
    weights = []

    class Watched(Line):
        def validate(self, network, device):
            weights.append(network.weight.detach().clone())
            return super().validate(network, device)

    errors = [0.5, 0.4, 0.45, 0.41, 0.1]
    trainer = trainer_of(Watched(errors), epochs=9, patience=2)
    steps = list(trainer.run())
    assert steps[-1].epoch == 4
    assert trainer.best_epoch == 2
    assert torch.equal(trainer.weights()["weight"], weights[1])
    assert [record.score for record in trainer.history] == errors[:4]


def test_without_validation_or_on_request_the_last_weights_are_kept():
    for task, plan in ((Line(), {"patience": 1}), (Line([1.0, 2.0, 3.0, 4.0]), {})):
        trainer = trainer_of(task, keep_best=False, **plan)
        assert list(trainer.run())[-1].epoch == 4
        assert trainer.best_epoch == 4
        assert torch.equal(trainer.weights()["weight"], task.network.weight)


def test_smaller_batches_give_the_same_training_when_the_memory_runs_out():
    reference = Line()
    list(trainer_of(reference).run())
    task = Line()
    task.max_images = 1
    device = ComputeDevice(torch.device("cpu"), 4, has_gpu=True)
    steps = list(trainer_of(task, device=device).run())
    torch.testing.assert_close(task.network.weight, reference.network.weight)
    assert "batches of 2" in steps[0].note
    assert "batches of 1" in steps[0].note
    assert not any(step.note for step in steps[1:])
    task.max_images = 0
    steps = list(trainer_of(task, device=device).run())
    assert "the CPU computes" in steps[0].note
    assert (device.has_gpu, device.batch_size) == (False, 4)
    with pytest.raises(MosaikError, match="close other programs"):
        device.reduce_batch_size()


def test_a_loss_that_is_not_finite_is_an_error():
    with pytest.raises(InputError, match="lower the learning rate"):
        list(trainer_of(Line(), rate=1e30, learning_rate=lambda n: 1e30).run())


def test_the_fraction_rises_to_one():
    fractions = [step.fraction for step in trainer_of(Line()).run()]
    assert len(fractions) == 12
    assert np.all(np.diff(fractions) > 0)
    assert fractions[-1] == 1.0


def test_the_running_mean_is_validated_and_the_network_trains_in_training_mode():
    seen, modes = [], []

    class Watched(Line):
        def losses(self, batch, device):
            modes.append(self.network.training)
            yield from super().losses(batch, device)

        def validate(self, network, device):
            seen.append(network.weight.detach().clone())
            self.network.eval()
            network.eval()
            return {"mse": 1.0}

    task = Watched()
    trained = trainer_of(task, epochs=2, mean_share=lambda n: 0.5, keep_best=False)
    list(trained.run())
    assert torch.equal(seen[-1], trained.weights()["weight"])
    assert not torch.equal(seen[-1], task.network.weight)
    assert modes == [True] * 6
