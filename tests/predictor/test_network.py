from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_mosaik.predictor import (
    EarlierPrediction,
    MosaikNetwork,
    NetworkParams,
    TrainParams,
    prediction,
)
from napari_mosaik.predictor.prediction import batch_tensors, infer


def network_of(case, **settings) -> MosaikNetwork:
    torch.manual_seed(0)
    return MosaikNetwork(NetworkParams(**settings), len(case.times_h), seed=1).eval()


@pytest.mark.parametrize("window_px", [40, 80, 160, 200])
def test_shapes_for_every_window_size(window_px):
    network = MosaikNetwork(NetworkParams(window_px=window_px), 5)
    logits, suv = network(
        torch.zeros(2, 3, 4, window_px, window_px, dtype=torch.uint8),
        torch.zeros(2, 3, 11, 11, dtype=torch.uint8),
        torch.zeros(2, 5, 3),
    )
    assert logits.shape == (2, 5)
    assert suv.shape == (2,)
    assert ((suv > 0) & (suv < 1)).all()


def test_parameter_count_by_hand():
    def conv(a, b, k):
        return a * b * k * k + b

    def lstm(a, h):
        return 4 * h * (a + h + 2)

    spatial = 3 * (conv(4, 16, 3) + conv(16, 32, 3) + conv(32, 64, 3)) + conv(192, 128, 1)
    spatial += 2 * (2 * 128 + conv(128, 128, 3) + conv(128, 128, 1)) + 2 * 128
    codes = 6 * 16 + 3 * 16 + (16 * 16 + 16) + (16 * 4 + 4) + 4 + (16 * 16 + 16)
    codes += (5 * 16 * 64 + 64) + (3 * 64 * 64 + 3 * 64) + (64 * 64 + 64) + 2 * 64
    codes += 3 * 64 * 64 + 64
    temporal = lstm(2, 32) + lstm(1, 16) + 48 * 32 + 32
    heads = (128 + 64 + 32) * 128 + 128 + 128 * 5 + 5 + 128 + 1
    paper = TrainParams.preset("paper")
    assert MosaikNetwork(paper, 7).n_parameters == spatial + codes + temporal + heads


def test_same_seed_same_weights_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = MosaikNetwork(NetworkParams(), 4, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    second = MosaikNetwork(NetworkParams(), 4, seed=3)
    other = MosaikNetwork(NetworkParams(), 4, seed=4)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert not torch.equal(first.fusion.weight, other.fusion.weight)


def test_batch_order_and_company_do_not_matter(tile_cases):
    case = tile_cases[0]
    network = network_of(case)
    with torch.no_grad():
        logits, suv = network(*batch_tensors(case, np.arange(12)))
        order = np.random.default_rng(0).permutation(12)
        logits_2, suv_2 = network(*batch_tensors(case, order))
        _, alone = network(*batch_tensors(case, [4]))
    torch.testing.assert_close(suv_2, suv[order], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits_2, logits[order], atol=1e-5, rtol=0)
    torch.testing.assert_close(alone[0], suv[4], atol=1e-5, rtol=0)


def test_shuffling_the_cluster_cells_changes_the_output(tile_cases):
    case = tile_cases[0]
    network = network_of(case)
    windows, codes, curves = batch_tensors(case, np.arange(8))
    order = torch.randperm(121, generator=torch.Generator().manual_seed(0))
    shuffled = codes.flatten(2)[..., order].reshape(codes.shape)
    with torch.no_grad():
        _, suv = network(windows, codes, curves)
        _, other = network(windows, shuffled, curves)
        _, swapped = network(windows, codes[:, [1, 0, 2]], curves)
    assert (suv - other).abs().max() > 1e-4
    assert (suv - swapped).abs().max() > 1e-5


def test_every_part_of_the_input_reaches_the_output(tile_cases):
    case = tile_cases[0]
    network = network_of(case)
    windows, codes, curves = batch_tensors(case, np.arange(4))
    with torch.no_grad():
        _, suv = network(windows, codes, curves)
        for level in range(3):
            changed = windows.clone()
            changed[:, level] = 255 - changed[:, level]
            assert (network(changed, codes, curves)[1] - suv).abs().min() > 1e-5
        for channel in range(3):
            bent = curves.clone()
            bent[..., channel] += 0.5
            assert (network(windows, codes, bent)[1] - suv).abs().min() > 1e-6


def test_a_curve_that_never_varied_carries_no_information(tile_cases):
    case = tile_cases[0]
    network = network_of(case)
    network.curve_sd.zero_()
    windows, codes, curves = batch_tensors(case, np.arange(4))
    with torch.no_grad():
        first = network(windows, codes, curves)
        second = network(windows, codes, torch.rand_like(curves) * 100)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_the_network_can_learn_twelve_tiles_by_heart(tile_cases):
    case = tile_cases[0]
    torch.set_num_threads(1)
    sizes = TrainParams.preset("paper").model_dump() | {"dropout": 0.0}
    params = NetworkParams.parse({name: sizes[name] for name in NetworkParams.model_fields})
    network = MosaikNetwork(params, len(case.times_h), seed=0)
    batch = batch_tensors(case, np.arange(12))
    rng = np.random.default_rng(0)
    target = torch.tensor(rng.uniform(0.1, 0.9, 12), dtype=torch.float32)
    label = torch.tensor(rng.integers(0, 5, 12))
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(150):
        logits, suv = network(*batch)
        mse = torch.nn.functional.mse_loss(suv, target)
        loss = mse + 0.1 * torch.nn.functional.cross_entropy(logits, label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert mse.item() < 1e-3
    assert (logits.argmax(dim=1) == label).all()


def test_batches_without_a_changed_tile_keep_an_earlier_prediction(tile_cases, monkeypatch):
    """Bit by bit what the whole prediction gives; batches with a changed tile run whole."""
    monkeypatch.setattr(prediction, "_CHUNK", 16)
    case, network = tile_cases[0], network_of(tile_cases[0])
    rows = np.arange(len(case))
    assert len(case) > 32
    probability, suv = infer(network, case, rows)
    codes = case.codes.copy()
    codes[20] = 5 - codes[20]  # a tile of the second batch
    changed = rows == 20
    now, asked = replace(case, codes=codes), []
    network.register_forward_hook(lambda _, given, __: asked.append(len(given[0])))
    updated = infer(network, now, rows, EarlierPrediction(suv, probability, changed))
    assert asked == [16]
    whole = infer(network, now, rows)
    np.testing.assert_array_equal(updated[0], whole[0])
    np.testing.assert_array_equal(updated[1], whole[1])
    assert (whole[1][16:32] != suv[16:32]).any()
