"""A tissue network is fine-tuned on new tiles and known ones, apart from those held out."""

import numpy as np
import pytest
import torch

from napari_mosaik.core import InputError
from napari_mosaik.segment.densenet.network import DenseNetParams
from napari_mosaik.segment.densenet.training import Tiles, TissueTask, apart_from, train_densenet
from tests.segment.test_densenet import few_layers

PARAMS = DenseNetParams(
    epochs=2, batch_size=4, decoder=(8, 8, 8, 8), validation_fraction=0.3, threads=1
)
SIDE = 6


@pytest.fixture(scope="module", autouse=True)
def shallow():
    with few_layers():
        yield


def lattice_of_tiles(changed=(), columns=SIDE, size=64):
    """Tiles side by side on one slide, four to a group; dark ones are neoplastic."""
    rng = np.random.default_rng(0)
    images, codes, groups, places = [], [], [], []
    for row in range(SIDE):
        for col in range(columns):
            code = np.full((size, size), 1 + (row + col) % 2, np.uint8)
            level = np.where(code == 2, 90, 220)[..., None] + rng.normal(0, 8, (size, size, 3))
            if (row, col) in changed:
                code[:, : size // 2] = 3
            images.append(np.clip(level, 0, 255).astype(np.uint8))
            codes.append(code)
            groups.append(f"B11 {row // 2} {col // 2}")
            places.append(f"B11 {row} {col}")
    return Tiles(np.stack(images), np.stack(codes), np.array(groups), np.array(places))


def train(tiles, **options):
    work = train_densenet(tiles, PARAMS, 1, **options)
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


@pytest.fixture(scope="module")
def parent():
    return train(lattice_of_tiles())


def near(one, other):
    _, row, col = one.split()
    _, other_row, other_col = other.split()
    return max(abs(int(row) - int(other_row)), abs(int(col) - int(other_col))) <= 1


def test_no_tile_trains_beside_a_held_out_one_of_parent_or_child(parent):
    split = parent.training["split"]
    tiles = lattice_of_tiles()
    held = [p for p, g in zip(tiles.places, tiles.groups, strict=True) if g in split["held_out"]]
    assert held
    assert split["training_tiles"]
    assert split["left_out"] > 0
    assert not any(near(a, b) for a in split["training_tiles"] for b in held)
    wider = lattice_of_tiles(columns=2 * SIDE)
    task = TissueTask(wider, PARAMS, 5, 3, parent=parent, replay=0.3)
    assert set(split["held_out"]) <= set(wider.groups[task.validation])  # they stay held out
    trained = {*split["training_tiles"], *wider.places[task.train]}
    assert not any(near(a, b) for a in trained for b in wider.places[task.validation])
    rows = np.arange(len(wider.codes))
    assert len(apart_from(rows, ["B11 0 0"], wider)) == len(rows) - 4


def test_new_tiles_are_mixed_with_a_share_of_known_ones(parent):
    digests = set(parent.training["split"]["tile_digests"])
    known = parent.training["split"]["training_tiles"]
    tiles = lattice_of_tiles({tuple(map(int, p.split()[1:])) for p in known[:3]})
    for replay, n_old in ((0.0, 0), (0.25, 1), (0.5, 3)):
        task = TissueTask(tiles, PARAMS, 1, 3, parent=parent, replay=replay)
        new = [tiles.digests()[i] not in digests for i in task.train]
        assert (sum(new), len(new) - sum(new)) == (3, n_old)
    with pytest.raises(InputError, match="nothing to learn"):
        TissueTask(lattice_of_tiles(), PARAMS, 1, 3, parent=parent, replay=0.3)
    with pytest.raises(InputError, match="train a new model"):
        train(tiles, parent=parent, classes=("background", "neoplastic", "necrosis"))


def test_the_child_starts_from_its_parent_and_is_compared_with_it(parent, tmp_path):
    known = parent.training["split"]["training_tiles"]
    tiles = lattice_of_tiles({tuple(map(int, p.split()[1:])) for p in known[:4]})
    task = TissueTask(tiles, PARAMS, 1, 3, parent=parent, replay=0.3)
    for name, value in parent.network.state_dict().items():
        torch.testing.assert_close(task.network.state_dict()[name], value)
    before = {name: value.clone() for name, value in parent.network.state_dict().items()}
    child = train(tiles, parent=parent, replay=0.3, checkpoint=tmp_path / "whole.pt")
    assert all(torch.equal(before[n], v) for n, v in parent.network.state_dict().items())
    record = child.training
    assert record["parent"] == parent.hash != child.hash
    assert record["replay"] == {"share": 0.3, "tiles": 2, "new_tiles": 4}
    assert set(record["split"]["tile_digests"]) > set(parent.training["split"]["tile_digests"])
    score = record["comparison"]
    assert score["n_tiles"] == len(task.validation)
    assert score["difference"] == pytest.approx(score["new"] - score["old"])
    assert record["held_out"]["calibration"]["bins"]

    file = tmp_path / "cut.pt"
    work = train_densenet(tiles, PARAMS, 1, parent=parent, replay=0.3, checkpoint=file)
    while next(work).record is None:
        pass
    work.close()
    again = train(tiles, parent=parent, replay=0.3, checkpoint=file)
    assert again.hash == child.hash
    assert again.training == record
