"""Recorded computations: with recordings that do on a CPU what CUDA graphs do, and on a GPU where there is one."""

import gc
from functools import partial
from typing import Any
from weakref import ref

import pytest
import torch
from torch import Tensor

from nas.device.cuda_graphs import MOST, WARM_UP, CudaGraphs, Inputs, Numbers, Recorded, recording_for
from nas.distributed import Ranks
from nas.errors import InvalidValue, RunFailed
from tests.device.cpu_recording import CpuRecording


class Counting(CpuRecording):
    made = 0

    def __init__(self, generators) -> None:
        super().__init__(generators)
        Counting.made += 1


@pytest.fixture(autouse=True)
def counted_anew() -> None:
    Counting.made = 0


class Owner:
    """Has a method to be recorded: ``function``, or the product ``factor * x * x`` and its gradient."""

    def __init__(self, function: Any = None, new_recording: Any = Counting, generators: Any = ()) -> None:
        self.function = function
        self.recorded = Recorded(self.compute, new_recording, generators)

    def compute(self, inputs: Inputs, numbers: Numbers) -> list[Tensor]:
        if self.function is not None:
            return self.function(inputs["x"])
        x = inputs["x"].detach().requires_grad_()
        y = numbers.get("factor", 1.0) * x * x
        return [y.detach(), *torch.autograd.grad(y.sum(), x)]


def test_it_computes_as_usual_first_and_replays_with_new_inputs_from_then_on():
    owner = Owner()
    for call in range(WARM_UP + 4):
        x = torch.full((3,), float(call))
        value, gradient = owner.recorded({"x": x})
        assert Counting.made == (call >= WARM_UP)
        assert torch.equal(value, x * x)
        assert torch.equal(gradient, 2 * x)


def test_another_shape_type_or_number_is_another_kind():
    for size, dtype, factor in [(2, torch.float32, 1.0), (2, torch.float64, 0.5), (2, torch.float32, 2.0)]:
        owner = Owner()
        for call in range(WARM_UP + 2):
            for kind in [(3, torch.float32, 1.0), (size, dtype, factor)]:
                x = torch.full(kind[:1], 1.0 + call, dtype=kind[1])
                value, _ = owner.recorded({"x": x}, {"factor": kind[2]})
                assert torch.equal(value, kind[2] * x * x)
        assert Counting.made == 2
        Counting.made = 0


def test_a_number_that_always_changes_keeps_it_from_being_recorded_and_few_recordings_are_kept():
    owner = Owner()
    for call in range(20):
        value, _ = owner.recorded({"x": torch.ones(2)}, {"factor": float(call)})
        assert value[0] == call
    assert Counting.made == 0
    for factor in range(MOST + 2):
        for _ in range(WARM_UP + 2):
            value, _ = owner.recorded({"x": torch.ones(2)}, {"factor": float(factor)})
            assert value[0] == factor
    assert Counting.made == MOST + 2
    assert len(owner.recorded._kept) == MOST


def test_what_is_changed_in_place_is_seen_and_recording_changes_nothing():
    norm = torch.nn.BatchNorm1d(2)
    alone = torch.nn.BatchNorm1d(2)
    generator, twin = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)

    def noisy(layer: torch.nn.Module, source: torch.Generator, x: Tensor) -> list[Tensor]:
        return [layer(x * torch.rand(x.shape, generator=source)).detach()]

    owner = Owner(partial(noisy, norm, generator), generators=(generator,))
    for call in range(WARM_UP + 4):
        x = torch.randn(5, 2, generator=torch.Generator().manual_seed(call))
        assert torch.equal(owner.recorded({"x": x})[0], noisy(alone, twin, x)[0])
        assert torch.equal(norm.running_mean, alone.running_mean)
        assert torch.equal(generator.get_state(), twin.get_state())
        with torch.no_grad():
            for layer in (norm, alone):
                layer.weight.mul_(1.1)
    assert Counting.made == 1


def test_without_recordings_it_always_computes():
    owner = Owner(new_recording=None)
    for _ in range(WARM_UP + 2):
        assert owner.recorded({"x": torch.ones(2)})[0].tolist() == [1.0, 1.0]


def test_what_cannot_be_recorded_is_told_in_one_sentence():
    class Ending(CpuRecording):
        def record(self, compute: Any) -> Any:
            try:
                return super().record(compute)
            finally:
                raise RuntimeError("and then it cannot be ended")

    owner = Owner(lambda x: [x * float(x.sum())], Ending)
    for _ in range(WARM_UP):
        owner.recorded({"x": torch.ones(2)})
    with pytest.raises(RunFailed, match=r"^The step cannot be recorded as a CUDA graph \(.*capturing\); set training"):
        owner.recorded({"x": torch.ones(2)})


def test_a_method_and_what_it_belongs_to_go_with_their_last_user():
    gc.disable()
    try:
        owner = Owner()
        owner.recorded({"x": torch.ones(2)})
        gone = ref(owner)
        del owner
        assert gone() is None
    finally:
        gc.enable()


def test_only_one_process_on_a_gpu_is_recorded():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert recording_for(False, cpu, Ranks()) is None
    with pytest.raises(InvalidValue, match="cuda_graphs=true is not allowed: it needs a GPU, and this run is on cpu"):
        recording_for(True, cpu, Ranks())
    with pytest.raises(InvalidValue, match="data-parallel"):
        recording_for(True, gpu, Ranks(0, 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_replays_what_it_would_have_computed():
    device = torch.device("cuda")
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 3).to(device)
    generator, twin = (torch.Generator(device).manual_seed(0) for _ in range(2))

    def gradients(source: torch.Generator, x: Tensor) -> list[Tensor]:
        loss = (layer(x) * torch.rand(1, 4, 1, 1, generator=source, device=device)).square().mean()
        return [loss.detach(), *torch.autograd.grad(loss, list(layer.parameters()))]

    owner = Owner(partial(gradients, generator), CudaGraphs(device), (generator,))
    for call in range(WARM_UP + 4):
        x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(call)).to(device)
        for one, other in zip(owner.recorded({"x": x}), gradients(twin, x), strict=True):
            torch.testing.assert_close(one, other)
        with torch.no_grad():
            layer.weight.mul_(0.9)
