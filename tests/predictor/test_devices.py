"""Another device than the CPU: its double computes on the CPU and refuses what a GPU refuses."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from napari_mosaik.core import InputError, MosaikError, Progress
from napari_mosaik.learning.devices import ComputeDevice, preferred_device
from napari_mosaik.predictor import TrainParams, held_out_cases, network_device, predict, train
from napari_mosaik.predictor.prediction import member_network
from napari_mosaik.segment.densenet.network import (
    DenseNetParams,
    DenseNetTissueModel,
    TissueNetwork,
)
from napari_mosaik.segment.stardist import StarDistNuclei, predict_maps
from tests.predictor.test_training import finish
from tests.segment.test_stardist_nuclei import noise, random_weights

AWAY = torch.device("meta")


class Away(torch.Tensor):
    """A tensor on the double: its values are not read but by a transfer."""

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> Away:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=AWAY,
            requires_grad=False,
        )
        made.here = here
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError("outside its mode")


WITHOUT_MEMORY = {"aten::_to_copy", "aten::copy_", "aten::detach"}
CONVOLUTIONS = {"aten::convolution", "aten::conv2d"}


class Double(TorchDispatchMode):
    """Computes for tensors that are away; counts transfers; runs out of memory on request.

    It knows which memory of the CPU is page-locked, and computes convolutions with 16 bit inside
    of `DoubleDevice.halved` as a GPU does: from rounded numbers, with sums of 32 bit.

    Parameters
    ----------
    short_of_memory
        At which operations on the double there is not enough memory, by their number.
    """

    active: ClassVar[list[Double]] = []

    def __init__(self, short_of_memory=()):
        super().__init__()
        self.short_of_memory = set(short_of_memory)
        self.n_operations = 0
        self.there: list[tuple[int, ...]] = []
        self.back: list[tuple[int, ...]] = []
        self.locked: list[torch.Tensor] = []
        self.waiting: list[str] = []
        """Transfers for which the processor waits: of memory that is not locked, or asked for."""
        self.unread: list[tuple[int, ...]] = []
        """What was sent back without waiting, until somebody waits."""
        self.half, self.halved, self.whole = None, 0, 0

    def __enter__(self):
        self.active.append(self)
        return super().__enter__()

    def __exit__(self, *error):
        if self.active and self.active[-1] is self:
            self.active.pop()
        return super().__exit__(*error)

    def _is_locked(self, tensor):
        return any(one.data_ptr() == tensor.data_ptr() for one in self.locked)

    def _halved(self, function, args, kwargs):
        def rounded(x):
            if not isinstance(x, torch.Tensor):
                return x
            return x.to(self.half).float()

        self.halved += 1
        args, kwargs = tree_map(rounded, (args, kwargs))
        return function(*args, **kwargs).to(self.half)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = function._schema.name
        if name in ("aten::pin_memory", "aten::_pin_memory"):
            assert not isinstance(args[0], Away)
            self.locked.append(args[0].clone())
            return self.locked[-1]
        if name == "aten::is_pinned":
            return self._is_locked(args[0])
        is_locked = bool(kwargs.pop("pin_memory", False))
        if name == "aten::copy_" and isinstance(args[1], Away) and not isinstance(args[0], Away):
            assert self._is_locked(args[0])
            self.back.append(tuple(args[0].shape))
            is_queued = (args[2] if len(args) > 2 else False) or kwargs.get("non_blocking")
            (self.unread if is_queued else self.waiting).append(tuple(args[0].shape))
            return args[0].copy_(args[1].here)
        if name in ("aten::to", "aten::cpu", "aten::float"):  # not taken apart without gradients
            with self:
                return function.decompose(*args, **kwargs)
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        is_away = any(isinstance(x, Away) for x in tensors)
        to = kwargs.get("device")
        if name == "aten::_to_copy" and to is not None and not is_away and to == AWAY:
            self.there.append(tuple(tensors[0].shape))
            if not (kwargs.get("non_blocking") and self._is_locked(tensors[0])):
                self.waiting.append(tuple(tensors[0].shape))
        elif name == "aten::_to_copy" and is_away and to is not None and to.type == "cpu":
            self.back.append(tuple(tensors[0].shape))
            self.waiting.append(tuple(tensors[0].shape))
            is_away = False
        elif name == "aten::empty_like" and to is not None and to.type == "cpu":
            is_away = False
        elif is_away and name not in WITHOUT_MEMORY:
            here = [x for x in tensors if not isinstance(x, Away) and x.ndim]
            # A GPU takes indices from the CPU, and nothing else.
            assert not here or name == "aten::index", f"{name} of tensors on two devices"
            self.n_operations += 1
            if self.n_operations in self.short_of_memory:
                raise torch.OutOfMemoryError("CUDA out of memory (for this test)")
        is_away = is_away or to == AWAY
        if to is not None:
            kwargs["device"] = torch.device("cpu")
        args, kwargs = tree_map(lambda x: x.here if isinstance(x, Away) else x, (args, kwargs))
        if is_away and self.half and name in CONVOLUTIONS:
            found = self._halved(function, args, kwargs)
        else:
            self.whole += is_away and name in CONVOLUTIONS
            found = function(*args, **kwargs)
        if is_locked:
            self.locked.append(found)
        if not is_away:
            return found
        known = {id(x.here): x for x in tensors if isinstance(x, Away)}
        return tree_map(
            lambda x: known.get(id(x), Away(x)) if isinstance(x, torch.Tensor) else x, found
        )


@dataclass(slots=True)
class DoubleDevice(ComputeDevice):
    """The double as a GPU."""

    device: torch.device = AWAY
    batch_size: int = 1
    has_gpu: bool = True
    notes: list[str] = field(default_factory=list)
    item: str = "slide"

    @property
    def queues(self):
        return self.device.type == AWAY.type

    def _wait(self):
        Double.active[-1].unread.clear()

    def halved(self):
        return _half(self.inner_type) if self.inner_type != torch.float32 else nullcontext()


@contextmanager
def _half(inner_type):
    double = Double.active[-1]
    double.half = inner_type
    try:
        yield
    finally:
        double.half = None


@pytest.fixture(autouse=True)
def _same_parameters(monkeypatch):
    """Parameters stay the same objects when they move, as on a GPU; it has no 16-bit units."""
    plain = torch.nn.Module.to

    def to(module, *args, **kwargs):
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return plain(module, *args, **kwargs)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (6, 1))


SHORT = TrainParams(epochs=1, members=1, intervals=False, with_companions=False)
TILES = TrainParams.preset("paper").model_copy(
    update={"epochs": 1, "window_px": 40, "validation": "auto", "learning_rate": 1e-3}
)
PER_SLIDE = 3 + 3 + 4 + 3 + 4 + 4
"""Maps, corners, codes to columns, lattice; random masks; rows, targets, labels, class weights."""


def trained(cases, params, device=None, short_of_memory=()):
    """The model, and the double that it was trained on."""
    with Double(short_of_memory) as double:
        return finish(train(cases, params, seed=1, device=device)), double


def assert_alike(one, other):
    for name, values in other.weights.items():
        np.testing.assert_allclose(one.weights[name], values, rtol=2e-3, atol=2e-4, err_msg=name)


@pytest.fixture(scope="module")
def on_cpu(small_cases):
    return finish(train(small_cases[:2], SHORT, seed=1))


def test_a_slide_is_moved_once_in_each_step_and_the_result_is_that_of_the_cpu(small_cases, on_cpu):
    model, double = trained(small_cases[:2], SHORT, DoubleDevice())
    assert_alike(model, on_cpu)
    assert model.card["device"] == "GPU (meta)"
    assert on_cpu.card["device"] == "CPU"
    assert model.card["notes"] == on_cpu.card["notes"] == []
    longer, again = trained(small_cases[:2], SHORT.model_copy(update={"epochs": 2}), DoubleDevice())
    assert len(again.there) - len(double.there) == 2 * PER_SLIDE
    assert len(again.back) == len(double.back)
    assert not np.array_equal(longer.weights["0.fusion.bias"], model.weights["0.fusion.bias"])


def test_a_slide_that_the_gpu_cannot_hold_is_computed_by_the_cpu(small_cases, on_cpu):
    device = DoubleDevice()
    params = SHORT.model_copy(update={"members": 2})
    model, double = trained(small_cases[:2], params, device, short_of_memory=[400])
    assert double.n_operations == 400  # the second network does not try again
    assert device.device.type == "cpu"
    assert model.card["device"] == "CPU"
    (note,) = model.card["notes"]
    assert "memory is not enough for one slide; the CPU computes" in note
    first = {name: v for name, v in model.weights.items() if name.startswith("0.")}
    assert first.keys() == on_cpu.weights.keys()
    assert all(np.isfinite(values).all() for values in model.weights.values())


def test_smaller_batches_of_tiles_give_the_same_training(tile_cases):
    still = TILES.model_copy(update={"dropout": 0.0})
    reference = finish(train(tile_cases, still, seed=1))
    device = DoubleDevice(batch_size=still.batch_size, item="tile")
    model, double = trained(tile_cases, still, device, short_of_memory=[300])
    assert double.n_operations > 3000
    assert device.batch_size == still.batch_size // 2
    assert model.card["device"] == "GPU (meta)"
    assert model.card["notes"] == [
        f"The GPU ran out of memory; batches of {still.batch_size // 2} from here on."
    ]
    assert_alike(model, reference)
    for one, other in zip(model.card["history"], reference.card["history"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["validation_mse"] == pytest.approx(other["validation_mse"], rel=1e-3)


@pytest.mark.parametrize("architecture", ["slide", "tile"])
def test_a_prediction_is_that_of_the_cpu_also_when_the_memory_ends(
    small_cases, tile_cases, on_cpu, architecture
):
    case, model = small_cases[2], on_cpu
    if architecture == "tile":
        case, model = tile_cases[2], finish(train(tile_cases[:2], TILES, seed=1))
    expected = predict(model, case)
    for short, n_notes in ([], 0), ([60], 1):
        device = DoubleDevice(batch_size=1 if architecture == "slide" else 8)
        with Double(short) as double:
            found = predict(model, case, device=device)
        assert double.n_operations >= 60
        assert len(device.notes) == n_notes
        for name in ("suv_norm", "members", "class_probability", "source"):
            values = getattr(found, name), getattr(expected, name)
            np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5)


def test_the_fits_for_the_intervals_compute_where_the_training_does(small_cases, on_cpu):
    device = DoubleDevice()
    with Double() as double:
        work = held_out_cases(
            small_cases[:2], SHORT, on_cpu.target, seed=1, fwhm_um=1500.0, device=device
        )
        assert len(finish(work)) == 2
    windows = tuple(small_cases[0].codes.shape)
    assert double.there.count(windows) == 2  # once to train, once to be predicted


class Half(ComputeDevice):
    """The CPU with 16 bit where a training allows it."""

    def mixed(self):
        return torch.autocast("cpu", torch.bfloat16)


def test_a_training_with_16_bit_keeps_32_where_it_counts(small_cases, on_cpu, monkeypatch):
    seen = []
    plain = torch.nn.functional.mse_loss
    monkeypatch.setattr(
        torch.nn.functional,
        "mse_loss",
        lambda a, b: seen.append((a.dtype, torch.is_autocast_enabled("cpu"))) or plain(a, b),
    )
    model = finish(
        train(small_cases[:2], SHORT, seed=1, device=Half(torch.device("cpu"), 1, False))
    )
    assert seen == [(torch.float32, False)] * 2
    assert {str(v.dtype) for n, v in model.weights.items()} == {"float32"}
    bias = "0.source_head.bias"
    assert not np.array_equal(model.weights[bias], on_cpu.weights[bias])
    np.testing.assert_allclose(model.weights[bias], on_cpu.weights[bias], rtol=0.02)
    case = small_cases[2]
    half = predict(on_cpu, case, device=Half(torch.device("cpu"), 1, False))
    np.testing.assert_array_equal(half.suv_norm, predict(on_cpu, case).suv_norm)


@pytest.mark.parametrize("architecture", ["slide", "tile"])
def test_a_validation_computes_with_all_32_bit(small_cases, tile_cases, architecture):
    learns = []

    class Watched(Half):
        def mixed(self):
            learns.append(torch.is_grad_enabled())
            return super().mixed()

    cases, params = small_cases, SHORT.model_copy(update={"validation": "auto"})
    if architecture == "tile":
        cases, params = tile_cases, TILES
    model = finish(train(cases, params, seed=1, device=Watched(torch.device("cpu"), 8, False)))
    assert model.card["history"][0]["validation_mse"] is not None
    assert learns
    assert all(learns)


def test_no_more_tiles_are_moved_at_once_than_a_batch_has(tile_cases):
    model = finish(train(tile_cases[:2], TILES, seed=1))
    with Double() as double:
        predict(model, tile_cases[2], device=DoubleDevice(batch_size=8))
    windows = [shape for shape in double.there if shape[-2:] == (TILES.window_px,) * 2]
    moved = {shape[0] for shape in windows}
    assert max(moved) == 8


def test_the_gpu_is_taken_where_there_is_one_unless_another_is_asked_for(monkeypatch):
    assert network_device(SHORT).description == "CPU"
    with pytest.raises(InputError, match=r"--device mps: torch .* finds no such device"):
        preferred_device("mps").__enter__()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    one = network_device(SHORT)
    assert (one.device.type, one.has_gpu, one.batch_size, one.item) == ("cuda", True, 1, "slide")
    assert network_device(TILES).batch_size == TILES.batch_size
    with preferred_device("cpu"):
        assert network_device(SHORT).has_gpu is False
        with preferred_device("cuda"):
            assert network_device(SHORT).device.type == "cuda"
        assert ComputeDevice.best(3).device.type == "cpu"
    assert ComputeDevice.best(3).device.type == "cuda"


def test_only_a_lack_of_memory_is_tried_again():
    device = ComputeDevice(torch.device("mps"), 2, has_gpu=True, item="tile")
    fails = iter([RuntimeError("MPS backend out of memory"), torch.OutOfMemoryError("CUDA"), None])

    def compute():
        if error := next(fails):
            raise error
        return device.batch_size, device.device.type

    moves = []
    assert device.with_enough_memory(compute, lambda: moves.append(1)) == (2, "cpu")
    assert len(moves) == 2
    with pytest.raises(ValueError, match="other"):
        device.with_enough_memory(lambda: (_ for _ in ()).throw(ValueError("other")))
    with pytest.raises(RuntimeError, match="shapes"):
        device.with_enough_memory(lambda: (_ for _ in ()).throw(RuntimeError("shapes")))
    with pytest.raises(MosaikError, match="one tile; close other programs"):
        device.with_enough_memory(
            lambda: (_ for _ in ()).throw(RuntimeError("MPS backend out of memory"))
        )


def test_the_networks_of_nuclei_and_tissue_name_where_and_how_precisely_they_compute(monkeypatch):
    rgb, weights = noise((48, 48)), random_weights()
    network = TissueNetwork(3, (8, 8, 8, 8)).eval()
    for made, compute in (
        (
            lambda device: StarDistNuclei(weights, device=device),
            lambda model: model.segment(rgb, 0.5),
        ),
        (
            lambda device: DenseNetTissueModel(network, DenseNetParams(), device=device),
            lambda model: model.predict_block(rgb, 2.0),
        ),
    ):
        here = made(ComputeDevice.cpu(1))
        expected = compute(here)
        assert here.computed_on == {
            "device": "CPU",
            "precision": "32 bit",
            "torch": torch.__version__,
        }
        with Double() as double:
            there = made(DoubleDevice())
            found = compute(there)
            assert there.computed_on["device"] == "GPU (meta)"
            assert there.computed_on["precision"] == "32 bit"
        assert double.n_operations > 20
        assert double.back
        assert double.halved == 0
        np.testing.assert_allclose(found, expected, atol=1e-6)
    half = StarDistNuclei(weights, bfloat16=True, device=ComputeDevice.cpu(1))
    assert half.computed_on["precision"] == "16 bit (bfloat16)"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    record = ComputeDevice(torch.device("cuda"), 1, has_gpu=True).record()
    assert record["device"] == "Some GPU"
    assert set(record) == {"device", "precision", "torch", "cuda", "cudnn"}


TOO_LARGE = "The network's numbers are too large for 16 bit; 32 bit from here on."
TISSUE = TissueNetwork(3, (8, 8, 8, 8)).eval()


@pytest.mark.parametrize("half", [None, torch.float16])
def test_pictures_are_sent_as_8_bit_from_locked_memory_and_nothing_waits_but_for_results(half):
    rgb = noise((80, 96))
    device = DoubleDevice(half=half)
    with Double() as double:
        StarDistNuclei(random_weights(), device=device).segment(rgb, 0.5)
        n_weights = double.there.index((80, 96, 3))
        assert double.waiting == double.there[:n_weights]  # the network itself
        del double.waiting[:]
        model = DenseNetTissueModel(TISSUE, DenseNetParams(), device=DoubleDevice(half=half))
        here = [one.clone() for one in model.network.parameters()]
        model.predict_block(rgb, 2.0)
        model.network.to("cpu")
    assert (1, 80, 96, 3) in double.there
    assert not {(80, 96, 3), (1, 80, 96, 3)} & set(double.waiting)
    assert double.unread == []  # each result is waited for
    assert (20, 24, 3) in double.back
    assert (20, 24, 3) not in double.waiting
    assert len(here) == len(list(TISSUE.parameters()))


def test_a_prediction_waits_for_no_transfer_but_that_of_its_result(small_cases, on_cpu):
    with Double() as double:
        predict(on_cpu, small_cases[2], device=DoubleDevice())
    n_tiles = len(small_cases[2].codes)
    assert (n_tiles, 5) in double.back
    assert double.unread == []
    network = member_network(on_cpu, 0)
    assert set(double.waiting) <= {
        tuple(x.shape) for x in (*network.parameters(), *network.buffers())
    }


def test_features_are_computed_with_16_bit_and_what_is_read_off_them_with_32():
    rgb, weights = noise((80, 96)), random_weights()
    with Double() as double:
        there = StarDistNuclei(weights, device=DoubleDevice(half=torch.float16))
        points, scores, rays = there.candidates(rgb, 0.5)
    assert there.computed_on["precision"] == "16 bit (float16)"
    assert there.provenance["dtype"] == "float16"
    heads = {"prob", "dist"}
    assert double.halved == len(there.network.layers) - len(heads)
    assert double.whole == len(heads)
    assert scores.dtype == rays.dtype == np.float32
    assert len(points) > 10
    image = rgb.astype(np.float32) / 255
    exact = predict_maps(weights.network(), image)
    with Double():
        device = DoubleDevice(half=torch.float16)
        found = predict_maps(weights.network().to(device.device), image, device)
    for mine, other in zip(found, exact, strict=True):
        np.testing.assert_allclose(mine, other, atol=0.01 * np.ptp(other))
        assert not np.array_equal(mine, other)
    with Double() as double:
        model = DenseNetTissueModel(
            TISSUE, DenseNetParams(), device=DoubleDevice(half=torch.float16)
        )
        found = model.predict_block(rgb, 2.0)
        TISSUE.to("cpu")
    assert model.computed_on["precision"] == "16 bit (float16)"
    assert double.halved > 100
    assert double.whole == 0
    here = DenseNetTissueModel(TISSUE, DenseNetParams(), device=ComputeDevice.cpu(1))
    np.testing.assert_allclose(found, here.predict_block(rgb, 2.0), atol=2e-3)


def test_cuda_computes_with_16_bit_where_it_can_unless_all_32_are_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    device = ComputeDevice.best(4)
    assert (device.device.type, device.queues) == ("cuda", True)
    assert device.precision == "16 bit (float16)"
    for inside, inner_type in (device.mixed(), torch.bfloat16), (device.halved(), torch.float16):
        assert isinstance(inside, torch.autocast)
        assert (inside.device, inside.fast_dtype) == ("cuda", inner_type)
    with preferred_device("cuda-float32"):
        whole = ComputeDevice.best(4)
        assert network_device(SHORT).precision == "32 bit"
    assert (whole.device.type, whole.has_gpu, whole.precision) == ("cuda", True, "32 bit")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (6, 1))
    assert device.precision == "32 bit"
    for inside in (device.mixed(), device.halved(), whole.mixed(), whole.halved()):
        assert not isinstance(inside, torch.autocast)


def test_a_network_whose_numbers_are_too_large_for_16_bit_computes_with_32():
    rgb, weights, arrays = noise((80, 96)), random_weights(), {}
    for name, values in weights.arrays.items():  # without a bias: the outputs stay the same
        times = {"layers.conv2d.weight": 2.0**20, "layers.features.weight": 2.0**-20}.get(name, 1)
        arrays[name] = values * np.float32(times)
    expected = StarDistNuclei(weights, device=ComputeDevice.cpu(1)).segment(rgb, 0.5)
    with Double():
        model = StarDistNuclei(
            replace(weights, arrays=arrays), device=DoubleDevice(half=torch.float16)
        )
        np.testing.assert_array_equal(model.segment(rgb, 0.5), expected)
        assert model.notes == (TOO_LARGE,)
        assert model.computed_on["precision"] == "32 bit"
        model.segment(rgb, 0.5)
    assert model.notes == (TOO_LARGE,)
    network = TissueNetwork(3, (8, 8, 8, 8)).eval()
    with torch.no_grad():
        network.head.weight.mul_(1e9)
    models = [
        DenseNetTissueModel(network, DenseNetParams(), device=device)
        for device in (ComputeDevice.cpu(1), DoubleDevice(half=torch.float16))
    ]
    here = models[0].predict_block(rgb, 2.0)
    with Double():
        np.testing.assert_allclose(models[1].predict_block(rgb, 2.0), here, atol=1e-4)
    assert models[1].notes == (TOO_LARGE,)
    assert models[1].computed_on["precision"] == "32 bit"


def test_a_system_that_locks_no_memory_copies_all_the_same(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("CUDA error: OS call failed")

    monkeypatch.setattr(torch.Tensor, "pin_memory", refuse)
    monkeypatch.setattr(torch, "empty_like", refuse)
    values = torch.arange(6.0)
    with Double() as double:
        device = DoubleDevice()
        there = device.put(values)
        assert torch.equal(device.fetch(there), values)
    assert double.waiting == [(6,), (6,)]


def test_on_the_cpu_nothing_is_copied_or_locked():
    device, values = ComputeDevice.cpu(1), torch.arange(6.0)
    with Double() as double:
        assert device.put(values) is values
        assert device.fetch(values) is values
    assert double.locked == []
    assert device.precision == "32 bit"


@pytest.mark.gui
def test_the_window_offers_the_devices_that_are_there_and_its_jobs_compute_on_them(
    qtbot, monkeypatch
):
    from qtpy.QtCore import Qt

    from napari_mosaik.widgets.base.case_controller import CaseController
    from napari_mosaik.widgets.base.controls import DeviceChoice
    from napari_mosaik.widgets.base.workspace import Workspace

    controller, found = CaseController(Workspace()), []
    choice = DeviceChoice(controller)
    qtbot.addWidget(choice)
    offered = lambda: [choice.box.itemData(n) for n in range(choice.box.count())]  # noqa: E731
    assert offered() == ["auto"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def steps():
        found.append(ComputeDevice.best(1).device.type)
        yield "", Progress(1, 1)

    def run():
        job = controller.start("a training", steps)
        with qtbot.waitSignal(job.ended):
            pass

    run()
    qtbot.keyClick(choice.box, Qt.Key.Key_Shift)  # turns to the list
    qtbot.waitUntil(lambda: offered() == ["auto", "cpu", "cuda", "cuda-float32"])
    choice.box.setCurrentIndex(1)
    run()
    assert found == ["cuda", "cpu"]
    assert ComputeDevice.best(1).device.type == "cuda"  # as before the job
