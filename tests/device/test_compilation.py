"""Compiled regions: the same numbers, and one compiled function for all regions of a kind.

How many graphs PyTorch makes of a region, and where it breaks them, differs between its versions: no test counts them.
``python scripts/benchmark_step.py --parts compile`` prints both.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from nas.bilevel.exact import Exact
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.hypergradient import Hypergradient
from nas.bilevel.last_step import LastStep
from nas.bilevel.optimiser import BilevelOptimiser
from nas.data.batches import Batch
from nas.device.compilation import compile_regions, regions
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import DropoutRate, DropPathRate, LearningRate, WeightDecay
from nas.hyperparameters.rules import AdamUpdate
from nas.operations.fast import edges, separable
from nas.operations.fast.library import without_kernels
from nas.operations.fast.normalisation import normalised
from nas.operations.stochastic import set_drop_path, set_dropout, set_noise_generator
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Temperature
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Supernet
from nas.tasks import Classification
from nas.training.metrics import measure
from tests.problems import ADAM, batch_for, problem_over

SHAPE, CLASSES = (3, 8, 8), 5
LAYERS: Sequence[Mapping[str, object]] = [
    {"type": "conv", "filters": [2, 4], "kernel_size": [1, 3]},
    {"type": "pool", "pool_size": 2, "kind": ["max", "average"]},
    {"type": "conv", "filters": [2, 4], "kernel_size": 3, "optional": True},
    {"type": "dense", "units": [4, 6]},
]


def darts(implementation: str, cells: int = 2) -> Darts:
    sizes = {"channels": 4, "cells": cells, "steps": 2, "multiplier": 2, "stem_multiplier": 1}
    sizes |= {"final_channels": 4, "final_cells": 3, "auxiliary": True}
    operations = ("none", "skip_connect", "avg_pool_3x3", "dil_conv_3x3")
    return Darts(**sizes, operations=operations, implementation=implementation, signature=Signature(SHAPE, CLASSES))  # type: ignore[arg-type]


def nasbench201(implementation: str) -> NasBench201:
    return NasBench201(4, 1, implementation, signature=Signature(SHAPE, CLASSES))  # type: ignore[arg-type]


def macro(implementation: str) -> Macro:
    return Macro(LAYERS, ["relu"], implementation, signature=Signature(SHAPE, CLASSES))  # type: ignore[arg-type]  # type: ignore[arg-type]


SPACES = {"darts": darts, "nasbench201": nasbench201, "macro": macro}
BOTH = [(name, way) for name in ("darts", "nasbench201") for way in ("plain", "fast")]


@pytest.fixture(autouse=True)
def ahead_of_time(nothing_compiled: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are differentiated as for a compiler, and none is built."""
    compile_with("aot_eager", monkeypatch)


def compile_with(backend: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))


def supernet(space: SearchSpace, dtype: torch.dtype = torch.float64) -> Supernet:
    torch.manual_seed(0)
    made = space.supernet(GumbelSoftmax(Temperature(1.0, 0.2))).to(dtype)
    made.relaxation.generator = torch.Generator().manual_seed(6)
    return made.train()


def batch(seed: int, size: int = 4, dtype: torch.dtype = torch.float64) -> Batch:
    return batch_for(seed, dtype, shape=SHAPE, classes=CLASSES, size=size)


class Search:
    """Whole steps of a search with drop path and dropout; what stands for its schedules moves at every step."""

    def __init__(
        self, network: Supernet, hypergradient: Hypergradient | None = None, learn: str = "", clip: float | None = 5.0
    ) -> None:
        self.supernet = network
        noise = torch.Generator().manual_seed(7)
        set_noise_generator(network, noise)
        self.hyperparameters = HyperparameterSet(
            {
                "learning_rate": LearningRate(0.05, 1e-4, 1.0, "log", "learning_rate" in learn, AdamUpdate(0.1)),
                "weight_decay": WeightDecay(3e-3, 1e-5, 1e-1, "log", False),
                "dropout": DropoutRate(0.2, 0.0, 0.9, "logit", False),
                "drop_path": DropPathRate(0.2, 0.0, 0.6, "logit", False),
            }
        )
        generators = noise, network.relaxation.generator
        self.problem = problem_over(network, self.hyperparameters, clip, generators)  # type: ignore[arg-type]
        self.bilevel = BilevelOptimiser(self.problem, FirstOrder(), hypergradient, ADAM)
        self.bilevel.forget_weights()
        self.learn = bool(learn)

    def step(self, number: int, dtype: torch.dtype = torch.float64) -> None:
        self.problem.schedule_factor = 1 / (1 + number)
        self.supernet.relaxation.advance(number / 10)
        requests = self.bilevel.requests(architecture=True, hyperparameters=self.learn)
        self.bilevel.step(batch(2 * number, dtype=dtype), batch(2 * number + 1, dtype=dtype), requests)

    def state(self) -> dict[str, Tensor]:
        return {**self.supernet.state_dict(), **self.hyperparameters.state_dict()}


def assert_same(found: Search, expected: Search, tolerance: float) -> None:
    for name, entry in expected.state().items():
        torch.testing.assert_close(found.state()[name], entry, atol=tolerance, rtol=tolerance, msg=name)


def compiled_functions(network: nn.Module) -> set[object]:
    return {region.forward.__func__ for region in regions(network)}


@pytest.mark.parametrize(
    ("name", "implementation"),
    [*BOTH[:-1], pytest.param("nasbench201", "fast", marks=pytest.mark.slow), ("macro", "fast")],
)
def test_a_compiled_search_is_the_same(name: str, implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "nasbench201":
        compile_with("eager", monkeypatch)  # the quicker one
    cells = {"cells": 1} if (name, implementation) == ("darts", "plain") else {}  # the quicker one, too
    with without_kernels():
        compiled, eager = (Search(supernet(SPACES[name](implementation, **cells))) for _ in range(2))
        compile_regions(compiled.supernet)
        assert list(compiled.supernet.state_dict()) == list(eager.supernet.state_dict())
        for search in (compiled, eager):
            for number in range(6):
                search.step(number)
                if number == 3:  # the end of an epoch, with a smaller batch at the end
                    batches = [batch(50 + size, size) for size in (6, 6, 1)]
                    task = Classification.of(Signature(SHAPE, CLASSES))
                    measure(search.supernet, batches, task, torch.device("cpu"))
    assert_same(compiled, eager, 1e-9)


@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
def test_the_implementation_for_a_gpu_is_the_same(precision: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_with("eager", monkeypatch)
    monkeypatch.setattr(edges, "_edge_by_edge", edges._all_at_once)
    monkeypatch.setattr(separable, "separable_in_torch", for_a_gpu)
    lowered = precision == torch.bfloat16
    dtype = torch.float32 if lowered else precision
    with without_kernels():
        compiled, eager = (Search(supernet(darts("fast", 1), dtype)) for _ in range(2))
        compile_regions(compiled.supernet)
        for search in (compiled, eager):
            search.problem.functional.precision = partial(torch.autocast, "cpu", torch.bfloat16, enabled=lowered)
            search.step(0, dtype)
    assert_same(compiled, eager, 1e-2 if lowered else 1e-9)


def for_a_gpu(x: Tensor, layer: separable.Layer, depthwise: Sequence[Tensor], pointwise: Sequence[Tensor]) -> Tensor:
    """:func:`nas.operations.fast.separable.separable_in_torch` as it is anywhere but on a CPU."""
    z = x if layer.statistics is None else normalised(x, layer.statistics)
    return separable._in_two_convolutions(z.relu().permute(0, 1, 4, 2, 3), layer, depthwise, pointwise)


@pytest.mark.parametrize("hypergradient", [LastStep(), Exact()], ids=["last step", "exact"])
def test_a_learned_learning_rate_is_compiled_with(hypergradient: Hypergradient) -> None:
    compiled, eager = (Search(supernet(macro("fast")), hypergradient, "learning_rate") for _ in range(2))
    compile_regions(compiled.supernet)
    for search in (compiled, eager):
        for number in range(3):
            search.step(number)
    assert_same(compiled, eager, 1e-9)


def trained(network: nn.Module, steps: int = 1, rate: float = 0.1) -> list[Tensor]:
    """The logits and the weights' gradients of training passes with noise, whose rate grows."""
    noise = torch.Generator().manual_seed(3)
    set_noise_generator(network.train(), noise)
    found = []
    for number in range(steps):
        set_drop_path(network, number * rate)
        set_dropout(network, number * rate if any(True for _ in regions(network)) else 0.0)
        data = batch(number)
        output = network(data.inputs)
        outputs = output if isinstance(output, tuple) else (output,)
        loss = sum(torch.nn.functional.cross_entropy(one, data.targets) for one in outputs)
        assert isinstance(loss, Tensor)
        found += [*outputs, *torch.autograd.grad(loss, list(network.parameters()), materialize_grads=True)]
    return found


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_a_stand_alone_network_is_the_same_and_shares_its_code_with_others(name: str) -> None:
    torch.manual_seed(0)
    space = SPACES[name]("fast")
    architecture = space.sample(torch.Generator().manual_seed(1)).architecture
    eager = space.network(architecture).double()
    compiled = copy.deepcopy(eager)
    compile_regions(compiled)
    for one, other in zip(trained(compiled, 4), trained(eager, 4), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)
    again = space.network(architecture).double()
    compile_regions(again)
    assert compiled_functions(again) == compiled_functions(compiled)


def test_a_deeper_network_compiles_no_more_functions() -> None:
    made = []
    for cells in (1, 3):
        compile_regions(network := supernet(NasBench201(4, cells, "fast", signature=Signature(SHAPE, CLASSES))))
        made.append(compiled_functions(network))
    assert made[0] == made[1]


def test_a_copy_computes_with_its_own_weights() -> None:
    network = supernet(macro("fast"))
    compile_regions(network)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for weight in twin.weight_parameters():
            weight.add_(0.1)
    plain = supernet(macro("fast"))
    plain.load_state_dict(twin.state_dict())
    for one, other in zip(trained(twin), trained(plain), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


class TellsWhetherCompiled(nn.Module):
    """Adds one where it is compiled."""

    is_region = True

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if torch.compiler.is_compiling() else x


def test_training_passes_are_compiled_and_an_evaluation_is_not() -> None:
    network = nn.Sequential(TellsWhetherCompiled(), nn.Sequential(TellsWhetherCompiled()))
    compile_regions(network)
    assert network.train()(torch.zeros(1)).item() == 2
    assert network.eval()(torch.zeros(1)).item() == 0


def test_regions_do_not_overlap_and_hold_most_of_a_network() -> None:
    for name in SPACES:
        space = SPACES[name]("plain")
        for network in (supernet(space), space.network(space.sample(torch.Generator().manual_seed(1)).architecture)):
            inside = [module for region in regions(network) for module in region.modules()]
            assert len(inside) == len(set(inside))
            convolutions = {module for module in network.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)}
            assert convolutions <= set(inside)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "implementation"), [*BOTH, ("macro", "fast")])
def test_what_inductor_makes_of_it_is_the_same(name: str, implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_with("inductor", monkeypatch)
    with without_kernels():
        compiled, eager = (Search(supernet(SPACES[name](implementation), torch.float32)) for _ in range(2))
        compile_regions(compiled.supernet)
        for search in (compiled, eager):
            for number in range(2):
                search.step(number, torch.float32)
    assert_same(compiled, eager, 1e-4)
