"""Recorded computations: with recordings that do on a CPU what CUDA graphs do, and on a GPU where there is one."""

import pytest
import torch
from torch import Tensor

from nas.configuration import InvalidValue
from nas.training.cuda_graphs import MOST, WARM_UP, CudaRecording, Inputs, Numbers, Recorded, recording_for
from nas.training.entry_point import RunFailed
from nas.training.randomness import Randomness
from nas.training.ranks import Ranks
from tests.cpu_recording import CpuRecording


class Counting(CpuRecording):
    made = 0

    def __init__(self, generators) -> None:
        super().__init__(generators)
        Counting.made += 1


@pytest.fixture(autouse=True)
def counted_anew() -> None:
    Counting.made = 0


def product(inputs: Inputs, numbers: Numbers) -> list[Tensor]:
    x = inputs["x"].detach().requires_grad_()
    y = numbers.get("factor", 1.0) * x * x
    return [y.detach(), *torch.autograd.grad(y.sum(), x)]


def test_it_computes_as_usual_first_and_replays_with_new_inputs_from_then_on():
    recorded = Recorded(product, Counting)
    for call in range(WARM_UP + 4):
        x = torch.full((3,), float(call))
        value, gradient = recorded({"x": x})
        assert Counting.made == (call >= WARM_UP)
        assert torch.equal(value, x * x)
        assert torch.equal(gradient, 2 * x)


def test_another_shape_type_or_number_is_another_kind():
    recorded = Recorded(product, Counting)
    kinds = [(2, torch.float32, 1.0), (3, torch.float32, 1.0), (3, torch.float64, 1.0), (3, torch.float64, 2.0)]
    for call in range(WARM_UP + 2):
        for size, dtype, factor in kinds:
            x = torch.full((size,), 1.0 + call, dtype=dtype)
            value, _ = recorded({"x": x}, {"factor": factor})
            assert torch.equal(value, factor * x * x)
    assert Counting.made == len(kinds)


def test_a_number_that_always_changes_keeps_it_from_being_recorded_and_few_recordings_are_kept():
    recorded = Recorded(product, Counting)
    for call in range(20):
        value, _ = recorded({"x": torch.ones(2)}, {"factor": float(call)})
        assert value[0] == call
    assert Counting.made == 0
    for factor in range(MOST + 2):
        for _ in range(WARM_UP + 2):
            value, _ = recorded({"x": torch.ones(2)}, {"factor": float(factor)})
            assert value[0] == factor
    assert Counting.made == MOST + 2
    assert len(recorded._kept) == MOST


def test_what_is_changed_in_place_is_seen_and_recording_changes_nothing():
    norm = torch.nn.BatchNorm1d(2)
    alone = torch.nn.BatchNorm1d(2)
    generator, twin = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)

    def noisy(layer: torch.nn.Module, source: torch.Generator, x: Tensor) -> list[Tensor]:
        return [layer(x * torch.rand(x.shape, generator=source)).detach()]

    recorded = Recorded(lambda inputs, _: noisy(norm, generator, inputs["x"]), Counting, (generator,))
    for call in range(WARM_UP + 4):
        x = torch.randn(5, 2, generator=torch.Generator().manual_seed(call))
        assert torch.equal(recorded({"x": x})[0], noisy(alone, twin, x)[0])
        assert torch.equal(norm.running_mean, alone.running_mean)
        assert torch.equal(generator.get_state(), twin.get_state())
        with torch.no_grad():
            for layer in (norm, alone):
                layer.weight.mul_(1.1)
    assert Counting.made == 1


def test_without_recordings_it_always_computes():
    recorded = Recorded(product, None)
    for _ in range(WARM_UP + 2):
        assert recorded({"x": torch.ones(2)})[0].tolist() == [1.0, 1.0]


def test_what_cannot_be_recorded_is_told_in_one_sentence():
    def waits(inputs: Inputs, _: Numbers) -> list[Tensor]:
        return [inputs["x"] * float(inputs["x"].sum())]

    recorded = Recorded(waits, CpuRecording)
    for _ in range(WARM_UP):
        recorded({"x": torch.ones(2)})
    with pytest.raises(RunFailed, match=r"^The step cannot be recorded as a CUDA graph \(.*capturing\); set training"):
        recorded({"x": torch.ones(2)})


def test_only_one_process_on_a_gpu_is_recorded():
    assert recording_for(False, Randomness(0)) is None
    with pytest.raises(InvalidValue, match="cuda_graphs=true is not allowed: it needs a GPU, and this run is on cpu"):
        recording_for(True, Randomness(0))
    randomness = Randomness(0)
    randomness.device = torch.device("cuda")
    assert recording_for(True, randomness) is CudaRecording
    randomness.ranks = Ranks(0, 2)
    with pytest.raises(InvalidValue, match="data-parallel"):
        recording_for(True, randomness)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_replays_what_it_would_have_computed():
    device = torch.device("cuda")
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 3).to(device)
    generator, twin = (torch.Generator(device).manual_seed(0) for _ in range(2))

    def gradients(source: torch.Generator, x: Tensor) -> list[Tensor]:
        loss = (layer(x) * torch.rand(1, 4, 1, 1, generator=source, device=device)).square().mean()
        return [loss.detach(), *torch.autograd.grad(loss, list(layer.parameters()))]

    recorded = Recorded(lambda inputs, _: gradients(generator, inputs["x"]), CudaRecording, (generator,))
    for call in range(WARM_UP + 4):
        x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(call)).to(device)
        for one, other in zip(recorded({"x": x}), gradients(twin, x), strict=True):
            torch.testing.assert_close(one, other)
        with torch.no_grad():
            layer.weight.mul_(0.9)
