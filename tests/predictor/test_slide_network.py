"""The network over whole slides: each part counts, the blur is the scanner's, members differ."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from napari_mosaik.core import InputError
from napari_mosaik.learning.devices import ComputeDevice
from napari_mosaik.predictor import (
    PARTS,
    NetworkParams,
    SlideNetwork,
    TrainedModel,
    TrainParams,
    attention_maps,
    predict,
    predict_baselines,
    train,
    with_baselines,
)
from napari_mosaik.predictor.metrics import mae
from napari_mosaik.predictor.network import HeterogeneityPart, _window_means
from napari_mosaik.predictor.prediction import member_network
from napari_mosaik.predictor.scene import (
    SlideScene,
    TileLattice,
    code_variability,
    scanner_blur,
)
from napari_mosaik.predictor.surroundings import slide_columns
from napari_mosaik.predictor.training import (
    _class_loss,
    _member_seed,
    _optimiser,
    _SlideTask,
)
from napari_mosaik.predictor.training_set import make_training_set
from tests.predictor.synthetic import make_cohort
from tests.predictor.test_training import finish, same_weights

FWHM_UM = 1500.0
LOSS_CURVE = (0.134456272, 0.124257346, 0.121917769, 0.149719442, 0.114674225, 0.112669068)
WIDTHS_UM = (1457.91008, 1487.65240)
QUICK = TrainParams(
    members=2, epochs=3, threads=1, branch_channels=(4, 8, 8), fusion_width=16, parameter_width=8
)


@pytest.fixture(scope="module")
def model(small_cases) -> TrainedModel:
    return finish(train(small_cases, QUICK, seed=5, fwhm_um=FWHM_UM))


@pytest.fixture
def scene(small_cases) -> SlideScene:
    return SlideScene.of(small_cases[0], FWHM_UM)


def network_of(scene: SlideScene, **settings) -> SlideNetwork:
    params = NetworkParams(**settings)
    network = SlideNetwork(params, scene.curves.shape[1], scene.columns.shape[1], FWHM_UM, seed=1)
    return network.eval()


def test_the_fast_attention_equals_that_over_single_cells(small_cases):
    codes = torch.from_numpy(small_cases[0].codes[:7])
    part = HeterogeneityPart(NetworkParams(code_width=8, proxy_width=16))
    torch.nn.init.normal_(part.proxy, generator=torch.Generator().manual_seed(0))
    onehot = functional.one_hot(codes.long(), 6).float().flatten(2, 3)
    tokens = part.embed(onehot) + part.position + part.proxy[:, None, :]
    score = part.score(tokens) + code_variability(codes)[..., None] * part.variability
    weight = torch.softmax(score, dim=2)
    pooled = torch.einsum("bpth,bptc->bphc", weight, part.value(tokens)).flatten(2)
    proxies = part.to_proxy(torch.cat([pooled, tokens[:, :, 60]], dim=2))
    fused, _ = part.attention(proxies, proxies, proxies)
    expected = part.out(part.norm(proxies + fused).flatten(1))
    torch.testing.assert_close(part(codes), expected, atol=1e-5, rtol=1e-4)


def test_attention_maps_are_softmaxes_by_hand(model, small_cases):
    case, tile = small_cases[1], 3
    found = attention_maps(model, case)
    assert found.proxies == case.proxies
    assert found.within.shape == (len(case), 3, 11, 11)
    for weights, axis in ((found.within.reshape(len(case), 3, -1), 2), (found.across, 2)):
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(axis=axis), 1, atol=1e-6)
    np.testing.assert_allclose(found.shares.sum(axis=1), 1, atol=1e-6)

    def softmax(scores, axis):
        powers = np.exp(scores - scores.max(axis=axis, keepdims=True))
        return powers / powers.sum(axis=axis, keepdims=True)

    within, across = [], []
    for number in range(model.card["settings"]["members"]):
        start = f"{number}.heterogeneity."
        w = {n.removeprefix(start): a for n, a in model.weights.items() if n.startswith(start)}
        position = member_network(model, number).heterogeneity.position.numpy()
        pooled = []
        for proxy in range(3):
            labels = case.codes[tile, proxy]
            padded = np.pad(labels.astype(int), 1, constant_values=-1)
            tokens, varied = [], []
            for row, column in np.ndindex(11, 11):
                around = padded[row : row + 3, column : column + 3]
                varied.append(1 - (around == labels[row, column]).sum() / (around >= 0).sum())
                code = w["embed.weight"][:, labels[row, column]]
                tokens.append(code + position[11 * row + column] + w["proxy"][proxy])
            tokens = np.array(tokens)
            hidden = np.tanh(tokens @ w["score.0.weight"].T + w["score.0.bias"])
            scores = hidden @ w["score.2.weight"].T + w["score.2.bias"]
            weight = softmax(scores + np.outer(varied, w["variability"]), 0)
            within.append(weight.mean(axis=1))
            values = tokens @ w["value.weight"].T + w["value.bias"]
            joined = np.concatenate([(weight.T @ values).ravel(), tokens[60]])
            pooled.append(w["to_proxy.weight"] @ joined + w["to_proxy.bias"])
        width = len(pooled[0])
        both = np.array(pooled) @ w["attention.in_proj_weight"].T + w["attention.in_proj_bias"]
        query, key = both[:, :width].reshape(3, 4, -1), both[:, width : 2 * width].reshape(3, 4, -1)
        scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(width / 4)
        across.append(softmax(scores, 2).mean(axis=0))
    by_hand = np.reshape(within, (-1, 3, 11, 11)).mean(axis=0)
    np.testing.assert_allclose(found.within[tile], by_hand, atol=1e-5)
    np.testing.assert_allclose(found.across[tile], np.mean(across, axis=0), atol=1e-5)
    assert np.ptp(by_hand[0]) > 1e-4  # not a plain mean
    cut = replace(model, card={**model.card, "settings": {
        **model.card["settings"], "without": ["heterogeneity"]}})  # fmt: skip
    with pytest.raises(InputError, match="trained without the cluster maps"):
        attention_maps(cut, case)


def test_variability_is_the_share_of_other_codes_around_a_cell():
    codes = np.zeros((1, 3, 11, 11), np.uint8)
    codes[0, 0, 5, 5] = 3
    found = code_variability(torch.from_numpy(codes)).reshape(3, 11, 11)
    expected = np.zeros((3, 11, 11), np.float32)
    expected[0, 4:7, 4:7] = 1 / 9
    expected[0, 5, 5] = 8 / 9
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    codes[0, 0, 0, 0] = 1  # at the border only the cells that there are count
    found = code_variability(torch.from_numpy(codes)).reshape(3, 11, 11)
    assert float(found[0, 0, 0]) == pytest.approx(3 / 4)


def test_the_blur_is_a_gaussian_cut_at_four_sigma(small_cases):
    case = small_cases[0]
    lattice = TileLattice.of(case, FWHM_UM)
    rng = np.random.default_rng(0)
    source = rng.uniform(0, 2, len(case)).astype(np.float32)
    seen = scanner_blur(torch.from_numpy(source), lattice, torch.tensor(1300.0))
    raster = np.zeros(lattice.shape)
    rows, cols = (axis.numpy() for axis in lattice.cells)
    raster[rows, cols] = source * case.covered
    sigma = 1300.0 / 2.3548200450309493 / np.array(lattice.pitch_um)
    expected = gaussian_filter(raster, sigma, mode="constant", truncate=4.0)[rows, cols]
    np.testing.assert_allclose(seen.numpy(), expected, atol=2e-3)


def test_the_blur_ends_at_four_sigma_also_where_its_window_is_wider():
    n, sigma = 21, 2.1  # tiles
    cells = torch.zeros(n, dtype=torch.long), torch.arange(n)
    lattice = TileLattice(cells, (1, n), torch.ones(n), (300.0, 300.0), (15, 15))
    source = torch.zeros(n)
    source[0] = 1.0
    seen = scanner_blur(source, lattice, torch.tensor(300.0 * sigma * 2.3548200450309493))
    bell = np.exp(-0.5 * (np.arange(-8, 9) / sigma) ** 2)  # 4 sigma are 8.4 tiles
    whole = (bell / bell.sum())[8] * bell[8:] / bell.sum()
    np.testing.assert_allclose(seen[:9].numpy(), whole, rtol=1e-5)
    assert (seen[9:] == 0).all()


def test_a_source_reaches_its_surroundings_and_no_farther(scene):
    network = network_of(scene)
    source = torch.zeros(len(scene.codes))
    source[0] = 1.0
    seen = scanner_blur(source, scene.lattice, network.fwhm_um.detach())
    rows, cols = scene.lattice.cells
    apart = torch.hypot((rows - rows[0]).float(), (cols - cols[0]).float()) * 300.0
    sigma = FWHM_UM / 2.3548
    assert (seen[apart > 4 * sigma * 2**0.5 + 300] == 0).all()
    assert (seen[apart < 2 * sigma] > 0).all()


@pytest.mark.parametrize("part", [*PARTS, "blur"])
def test_each_part_that_is_cut_out_changes_the_output(scene, part):
    with torch.no_grad():
        whole = network_of(scene)(scene).suv_norm
        cut = network_of(scene, without=(part,))(scene).suv_norm
    assert (whole - cut).abs().max() > 1e-4


def test_each_input_reaches_the_output(scene):
    network = network_of(scene)
    codes = (scene.codes + 1) % 5
    changed = {
        "maps": tuple(255 - one for one in scene.maps),
        "codes": codes,
        "curves": scene.curves * 2,
        "columns": scene.columns * 1.5,
        "variability": 1 - scene.variability,
    }
    with torch.no_grad():
        whole = network(scene).suv_norm
        for name, value in changed.items():
            other = network(replace(scene, **{name: value})).suv_norm
            assert (whole - other).abs().max() > 1e-6, name


def test_without_the_blur_a_tile_still_has_the_uptake_of_its_tissue(scene):
    network = network_of(scene, without=("blur",))
    with torch.no_grad():
        found = network(scene)
        torch.testing.assert_close(
            found.suv_norm, found.source * scene.lattice.covered + network.zero_suv
        )
        empty = replace(scene.lattice, covered=torch.zeros_like(scene.lattice.covered))
        assert (network(replace(scene, lattice=empty)).suv_norm == network.zero_suv).all()


def test_scanner_means_are_dropped_in_training_with_the_context(scene):
    """With all of the context dropped only what the tile itself holds is left."""
    network = network_of(scene, context_dropout=1 - 1e-7, dropout=0.0).train()
    half = scene.columns.shape[1] // 2
    own, seen = scene.columns.clone(), scene.columns.clone()
    own[:, :half] += 1.0
    seen[:, half:] += 1.0
    turned = replace(scene, codes=(scene.codes + 1) % 5, variability=1 - scene.variability)

    def source(one):
        network.context.generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            return network(one).source

    first = source(scene)
    assert torch.equal(source(replace(scene, columns=seen)), first)
    assert torch.equal(source(turned), first)
    assert not torch.equal(source(replace(scene, columns=own)), first)


def test_a_missing_parameter_is_the_median_of_the_training_tiles(scene):
    network = network_of(scene)
    network.column_median.copy_(torch.linspace(1.0, 2.0, scene.columns.shape[1]))
    missing, filled = scene.columns.clone(), scene.columns.clone()
    missing[:, 1] = torch.nan
    filled[:, 1] = network.column_median[1]
    with torch.no_grad():
        first = network(replace(scene, columns=missing)).suv_norm
        second = network(replace(scene, columns=filled)).suv_norm
    torch.testing.assert_close(first, second)


def test_what_fills_a_gap_is_the_median_of_the_tiles_that_train(model, small_cases):
    columns = np.concatenate([slide_columns(case, FWHM_UM)[case.measured] for case in small_cases])
    assert np.isnan(columns).any()
    median = model.weights["0.column_median"]
    np.testing.assert_allclose(median, np.nanmedian(columns, axis=0), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("step", [1, 4])
def test_windows_are_pooled_where_they_lie(step):
    features = torch.rand((1, 2, 20, 31), generator=torch.Generator().manual_seed(0))
    corners = torch.tensor([[0, 0], [2, 9], [11, 5]]) * step
    means = _window_means(features, corners, 6 * step, step)
    for mean, (row, col) in zip(means, (corners // step).tolist(), strict=True):
        window = features[0, :, row : row + 6, col : col + 6]
        torch.testing.assert_close(mean, window.mean(dim=(1, 2)))


def test_a_window_between_two_features_begins_at_the_nearer_one_or_the_next():
    features = torch.rand((1, 1, 30, 30), generator=torch.Generator().manual_seed(0))
    means = _window_means(features, torch.tensor([[3, 4], [5, 7], [6, 9]]), 8, 2)
    for mean, (row, col) in zip(means, ((2, 2), (3, 4), (3, 5)), strict=True):
        torch.testing.assert_close(mean[0], features[0, 0, row : row + 4, col : col + 4].mean())


def test_each_tile_counts_as_much_as_any_other(small_cases):
    cases = [small_cases[0], small_cases[1].subset(np.arange(9))]
    data = make_training_set(cases, QUICK, "none")
    scenes = [SlideScene.of(case, FWHM_UM) for case in data.cases]
    task = _SlideTask(data, scenes, QUICK, seed=0)
    assert task.plan(0, 0).max_gradient_norm == 1.0
    task.network.eval()
    squares, parts = [], []
    with torch.no_grad():
        for index, scene in enumerate(scenes):
            (terms,) = task.losses((index, scene), ComputeDevice.cpu(1))
            parts.append(float(terms[1]))
            rows = data.tiles[data.tiles[:, 0] == index, 1]
            own = data.scale.normalise(np.asarray(data.cases[index].suv)[rows], clip=False)
            squares.append((task.network(scene).suv_norm.numpy()[rows] - own) ** 2)
    assert np.mean(parts) == pytest.approx(np.concatenate(squares).mean(), rel=1e-5)


def task_of(cases, **settings) -> _SlideTask:
    params = QUICK.model_copy(update=settings)
    data = make_training_set(cases, params, "none")
    scenes = [SlideScene.of(case, FWHM_UM) for case in data.cases]
    return _SlideTask(data, scenes, params, seed=0)


def test_the_learning_rate_warms_up_and_falls_by_a_cosine(small_cases):
    task = task_of(small_cases[:2], epochs=20)  # 40 steps: a warm-up of 2
    base = task.params.learning_rate
    rates = [task.plan(0, 0).learning_rate(step) for step in range(40)]
    assert rates[:3] == pytest.approx([base / 2, base, base])
    half = 2 + (40 - 2) // 2
    assert rates[half] == pytest.approx(base / 2)
    assert rates[30] == pytest.approx(base * 0.5 * (1 + math.cos(math.pi * 28 / 38)))
    assert (np.diff(rates[2:]) < 0).all()
    constant = task_of(small_cases[:2], schedule="constant")
    assert constant.plan(0, 0).learning_rate(7) == base


def test_the_running_mean_follows_quickly_at_first(small_cases):
    share = task_of(small_cases[:2], ema_decay=0.9).plan(0, 0).mean_share
    assert share(0) == pytest.approx(1 - 1 / 10)
    assert share(20) == pytest.approx(1 - 21 / 30)
    assert share(1000) == pytest.approx(0.1)
    assert task_of(small_cases[:2], ema_decay=0.0).plan(0, 0).mean_share(5) == 1.0


def test_the_loss_of_the_classes_is_weighted_and_skips_tiles_without_one():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.5, 0.5, 0.0], [1.0, 3.0, 0.0], [0.0, 0.0, 9.0]])
    label, weights = torch.tensor([0, 1, 1, -1]), torch.tensor([0.5, 2.0, 0.0])
    log_p = torch.log_softmax(logits, dim=1)
    own = -(0.5 * log_p[0, 0] + 2.0 * log_p[1, 1] + 2.0 * log_p[2, 1]) / 4.5
    torch.testing.assert_close(_class_loss(logits, label, weights), own)
    assert _class_loss(logits, label * 0 - 1, weights) == 0
    assert _class_loss(logits, label * 0 + 2, weights) == 0  # a class that does not count


def test_the_parts_of_the_loss_have_their_weights(small_cases):
    task = task_of(small_cases[:2], alpha=0.3, lambda_=0.6)
    (terms,) = task.losses((0, task.scenes[0]), ComputeDevice.cpu(1))
    total, suv, classes = (float(term.detach()) for term in terms)
    assert suv > 0 < classes
    assert total == pytest.approx(0.6 * suv + 0.3 * classes, rel=1e-5)


def test_the_width_learns_faster_and_does_not_decay(scene):
    network = network_of(scene)
    others, width = _optimiser(network, QUICK).param_groups
    assert [id(p) for p in width["params"]] == [id(network.log_width)]
    assert (width["weight_decay"], width["rate_factor"]) == (0.0, 6.0)
    assert (others["weight_decay"], others.get("rate_factor", 1.0)) == (QUICK.weight_decay, 1.0)


def test_slides_are_turned_in_training_unless_told_otherwise(small_cases):
    def shown(**settings):
        task = task_of(small_cases, **settings)
        found = [one for seed in range(4) for one in task.batches(np.random.default_rng(seed))]
        assert sorted(index for index, _ in found) == sorted([0, 1, 2] * 4)
        return sum(scene is not task.scenes[index] for index, scene in found)

    assert shown() > 6
    assert shown(flip_rotate=False) == 0


def test_each_member_has_a_seed_of_its_own():
    seeds = {_member_seed(seed, number) for seed in (0, 1) for number in range(5)}
    assert len(seeds) == 10
    assert (_member_seed(0, 0), _member_seed(1, 0)) == (0, 1)


def test_the_class_does_not_pull_at_the_uptake(scene):
    """The class head reads the predicted uptake, but only its error moves source and width."""
    network = network_of(scene).train()
    network(scene).logits.square().sum().backward()
    for value in (network.source_head.weight, network.source_head.bias, network.log_width):
        assert value.grad is None or not value.grad.any()
    assert network.class_head.weight.grad[:, -1].any()


def test_a_tile_without_a_curve_is_not_predicted_and_takes_nothing_from_others(model, small_cases):
    case = small_cases[2]
    curves = case.curves.copy()
    curves[[2, 9]] = np.nan
    found = predict(model, replace(case, curves=curves))
    gone = np.isin(np.arange(len(case)), (2, 9))
    for values in (found.suv_norm, found.suv, found.source, found.members[0]):
        np.testing.assert_array_equal(np.isnan(values), gone)
    np.testing.assert_array_equal(found.class_label == -1, gone)


def test_the_class_is_the_most_probable_one_of_the_mean_over_members(model, small_cases):
    scene = SlideScene.of(small_cases[2], FWHM_UM)
    with torch.no_grad():
        each = [
            torch.softmax(member_network(model, number)(scene).logits, dim=1) for number in range(2)
        ]
    assert (each[0] - each[1]).abs().max() > 1e-4
    mean = torch.stack(each).mean(dim=0).numpy()
    found = predict(model, small_cases[2])
    np.testing.assert_allclose(found.class_probability, mean, atol=1e-6)
    np.testing.assert_array_equal(found.class_label, mean.argmax(axis=1))


def test_the_loss_curves_of_both_members_are_known_ones(model):
    """Measured once on this code: a training that learns otherwise has other losses."""
    curve = [entry["loss"] for entry in model.card["history"]]
    assert curve == pytest.approx(LOSS_CURVE, rel=1e-3)
    widths = [entry["learnt_fwhm_um"] for entry in model.card["members"]]
    assert widths == pytest.approx(WIDTHS_UM, rel=1e-4)


def test_gradients_reach_every_parameter(scene):
    network = network_of(scene).train()
    found = network(scene)
    (found.suv_norm.square().sum() + found.logits.square().sum()).backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_turned_slide_is_the_slide_turned(small_cases, scene):
    """Windows of the turned maps are the turned windows; clusters turn with them."""
    for turn in range(8):
        turned = scene.turned(turn)
        for level, window in enumerate(scene.windows):
            for tile in (0, 7):
                row, col = scene.corners[level][tile].tolist()
                own = scene.maps[level][:, row : row + window, col : col + window]
                own = torch.rot90(own, turn % 4, (1, 2))
                row, col = turned.corners[level][tile].tolist()
                other = turned.maps[level][:, row : row + window, col : col + window]
                assert torch.equal(own.flip(2) if turn >= 4 else own, other)
        codes = torch.rot90(scene.codes, turn % 4, (2, 3))
        assert torch.equal(codes.flip(3) if turn >= 4 else codes, turned.codes)


def test_no_normalisation_reaches_over_the_slide(small_cases):
    """A tile far from a change is predicted as before: parameters of one tile reach 4 sigma."""
    case = small_cases[0]
    features = case.features.copy()
    features[0] += 1.0
    before = SlideScene.of(case, FWHM_UM)
    network = network_of(before)
    with torch.no_grad():
        first = network(before)
        second = network(SlideScene.of(replace(case, features=features), FWHM_UM))
    moved = np.flatnonzero((first.source != second.source).numpy())
    apart = np.hypot(*((case.cells - case.cells[0]) * 300.0).T)
    assert len(moved)
    assert apart[moved].max() <= 4 * FWHM_UM / 2.3548 * 2**0.5 + 300


def test_members_differ_and_the_prediction_is_their_mean(model, small_cases):
    found = predict(model, small_cases[2])
    assert found.members.shape == (2, len(small_cases[2]))
    assert (found.members[0] != found.members[1]).any()
    np.testing.assert_allclose(found.suv_norm, found.members.mean(axis=0))
    scene, span = SlideScene.of(small_cases[2], FWHM_UM), model.target.high - model.target.low
    sources = [member_network(model, number)(scene).source for number in range(2)]
    expected = torch.stack(sources).mean(dim=0).detach().numpy() * span
    np.testing.assert_allclose(found.source, expected, rtol=1e-5)
    assert (found.source >= 0).all()
    seeds = [entry["seed"] for entry in model.card["members"]]
    assert seeds[0] == 5
    assert seeds[1] != 5


def test_companions_have_the_weights_of_the_card(model, small_cases):
    names = ("boosting_psf", "source_blur")
    whole = with_baselines(model, small_cases, fwhm_um=FWHM_UM, only=names)
    first, second = (predict_baselines(whole, small_cases[2])[name] for name in names)
    alone = predict(whole, small_cases[2]).suv_norm
    np.testing.assert_array_equal(alone, predict(model, small_cases[2]).suv_norm)
    more = {"companion_weights": {"boosting_psf": 0.1, "source_blur": 0.3}}
    weighted = TrainedModel(whole.weights, {**whole.card, **more})
    both = predict(weighted, small_cases[2]).suv_norm
    np.testing.assert_allclose(both, 0.6 * alone + 0.1 * first + 0.3 * second)
    with pytest.raises(InputError, match="lacks its 'boosting_psf'"):
        predict(TrainedModel(model.weights, {**model.card, **more}), small_cases[2])


def test_equal_seeds_give_equal_bits_and_a_resumed_training_too(model, small_cases, tmp_path):
    file = tmp_path / "checkpoint.pt"
    options = {"seed": 5, "fwhm_um": FWHM_UM, "checkpoint": file}
    steps = train(small_cases[::-1], QUICK, **options)
    for step in steps:
        if step.epoch == 4 and step.record is not None:  # the second network's first epoch
            break
    steps.close()
    steps = train(small_cases, QUICK, **options)
    assert next(steps).epoch == 5
    torch.manual_seed(1)
    again = finish(steps)
    assert again.card["times"]["resumed"]
    assert same_weights(again, model)
    assert again.hash == model.hash


def test_targets_beyond_the_range_are_not_clipped(small_cases):
    suv = np.asarray(small_cases[0].suv).copy()
    suv[np.argmax(suv)] *= 4
    first = finish(train([replace(small_cases[0], suv=suv), *small_cases[1:]], QUICK, seed=5))
    suv = suv.copy()
    suv[np.argmax(suv)] *= 1.1
    scaled = [replace(small_cases[0], suv=suv), *small_cases[1:]]
    second = finish(train(scaled, QUICK, seed=5))
    assert not same_weights(first, second)


def test_no_suv_without_a_source(model, small_cases):
    """Where there is no tissue there is no uptake: SUV 0, below the range of the training."""
    case = small_cases[2]
    empty = replace(case, coverage=np.zeros(len(case)))
    np.testing.assert_allclose(predict(model, empty).suv, 0.0, atol=1e-6)


def test_classes_that_do_not_occur_have_no_probability(small_cases):
    cases = [
        replace(case, pet_label=np.where(case.pet_label > 2, 0, case.pet_label))
        for case in small_cases
    ]
    found = finish(train(cases, QUICK, seed=1))
    assert found.card["classes"] == [0, 1, 2]
    assert any("high-low, low-high" in text for text in found.card["warnings"])
    probability = predict(found, cases[0]).class_probability
    assert (probability[:, 3:] == 0).all()
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-6)


def test_other_tile_parameters_are_named(model, small_cases):
    case = small_cases[2]
    names = ("other", *case.feature_names[1:])
    with pytest.raises(InputError, match=f"lacks the tile parameter '{case.feature_names[0]}'"):
        predict(model, replace(case, feature_names=names))


def test_one_step_of_the_optimiser_by_hand(small_cases):
    """AdamW with decoupled decay, a warm-up of one step, the running mean, per-tile weights."""
    params = QUICK.model_copy(
        update={"members": 1, "epochs": 1, "dropout": 0.0, "context_dropout": 0.0}
    )
    params = params.model_copy(update={"flip_rotate": False, "ema_decay": 0.0, "alpha": 0.0})
    case = small_cases[0]
    trained = finish(train([case], params, seed=3, fwhm_um=FWHM_UM))
    start = finish(
        train([case], params.model_copy(update={"learning_rate": 1e-12}), seed=3, fwhm_um=FWHM_UM)
    )
    network, scene = member_network(start, 0), SlideScene.of(case, FWHM_UM)
    rows = np.flatnonzero(case.measured)
    target = trained.target.normalise(np.asarray(case.suv)[rows], clip=False)
    network.train()
    error = network(scene).suv_norm[torch.from_numpy(rows)] - torch.from_numpy(target)
    (params.lambda_ * error.square().mean()).backward()
    norm = torch.sqrt(
        sum(p.grad.square().sum() for p in network.parameters() if p.grad is not None)
    )
    bias = network.source_head.bias
    gradient = float(bias.grad) * min(1.0, 1.0 / float(norm))
    step = params.learning_rate * gradient / (abs(gradient) + 1e-8)
    decayed = float(bias.detach()) * (1 - params.learning_rate * params.weight_decay)
    assert float(trained.weights["0.source_head.bias"][0]) == pytest.approx(
        decayed - step, abs=1e-6
    )


def test_it_finds_the_width_of_the_scanner_and_beats_the_mean():
    cohort = make_cohort(1, size_um=(3900.0, 5100.0))
    width = 640 * 2.3548
    params = TrainParams(
        members=1,
        epochs=25,
        threads=1,
        with_companions=False,
        without=("spatial", "heterogeneity"),
    )
    found = finish(train(cohort[:-1], params, seed=0, fwhm_um=width * 1.25))
    assert found.card["members"][0]["learnt_fwhm_um"] == pytest.approx(width, rel=0.1)
    test = cohort[-1]
    measured = found.target.normalise(test.suv, clip=False)
    mean = mae(measured, np.full(len(test), found.card["target"]["low"] * 0 + measured.mean()))
    assert mae(measured, predict(found, test).suv_norm) < 0.8 * mean
