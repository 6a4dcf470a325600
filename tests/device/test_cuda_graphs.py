"""Recorded computations: with recordings that do on a CPU what CUDA graphs do, and on a GPU where there is one."""

import gc
from functools import partial
from typing import Any
from weakref import ref

import pytest
import torch
from torch import Tensor

from nas.data.batches import Batch
from nas.device.cuda_graphs import MOST, WARM_UP, CudaGraphs, Recorded, cuda_graphed, recording_for
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

    def compute(self, inputs: dict[str, Tensor], factor: float = 1.0) -> list[Tensor]:
        if self.function is not None:
            return self.function(inputs["x"])
        x = inputs["x"].detach().requires_grad_()
        y = factor * x * x
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
                value, _ = owner.recorded({"x": x}, kind[2])
                assert torch.equal(value, kind[2] * x * x)
        assert Counting.made == 2
        Counting.made = 0


def test_a_number_that_always_changes_keeps_it_from_being_recorded_and_few_recordings_are_kept():
    owner = Owner()
    for call in range(20):
        value, _ = owner.recorded({"x": torch.ones(2)}, float(call))
        assert value[0] == call
    assert Counting.made == 0
    for factor in range(MOST + 2):
        for _ in range(WARM_UP + 2):
            value, _ = owner.recorded({"x": torch.ones(2)}, float(factor))
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


def test_arguments_and_results_of_any_nesting_keep_their_shape_and_share_no_memory_with_the_caller():
    class Nested:
        def mixed(self, batch: Batch, values: dict[str, Any], scales: tuple[Tensor, ...]) -> dict[str, Any]:
            total = batch.inputs * values["rate"] * values["fixed"] + sum(scales)
            return {"total": total, "nested": (Batch(total + 1, batch.targets + 1), [values["rate"] * 2])}

    owner = Nested()
    recorded = Recorded(owner.mixed, Counting)
    for call in range(WARM_UP + 3):
        batch = Batch(torch.full((2,), float(call)), torch.tensor([call]))
        arguments = batch, {"rate": torch.tensor(call + 1.0), "fixed": 0.5}, (torch.ones(2), torch.tensor(float(call)))
        found, expected = recorded(*arguments), owner.mixed(*arguments)
        assert torch.equal(found["total"], expected["total"])
        made, (rate,) = found["nested"]
        assert isinstance(made, Batch)
        assert torch.equal(made.inputs, expected["nested"][0].inputs)
        assert torch.equal(made.targets, batch.targets + 1)
        assert rate == 2 * (call + 1)
        assert batch.inputs.tolist() == [call, call]  # the recording copies what it is given
    assert Counting.made == 1


def test_what_needs_a_gradient_is_another_kind_and_needs_it_in_the_recording_too():
    class Differentiating:
        def slope(self, x: Tensor) -> Tensor | None:
            return torch.autograd.grad(x.square().sum(), x)[0] if x.requires_grad else None

    owner = Differentiating()
    recorded = Recorded(owner.slope, Counting)
    for call in range(WARM_UP + 2):
        x = torch.full((3,), float(call))
        assert recorded(x) is None
        assert torch.equal(recorded(x.clone().requires_grad_()), 2 * x)
    assert Counting.made == 2


def test_the_methods_named_are_recorded_and_without_recordings_they_always_compute():
    class Owning:
        def one(self, x: Tensor) -> Tensor:
            return x + 1

        def other(self, x: Tensor) -> Tensor:
            return x + 2

    plain, graphed = Owning(), Owning()
    cuda_graphed(plain, ("one", "other"), None)
    cuda_graphed(graphed, ("one",), Counting)
    for call in range(WARM_UP + 2):
        for owner in (plain, graphed):
            assert (owner.one(torch.tensor(call)), owner.other(torch.tensor(call))) == (call + 1, call + 2)
        assert Counting.made == (call >= WARM_UP)
    assert vars(plain) == {}


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
