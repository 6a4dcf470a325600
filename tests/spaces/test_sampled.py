"""Supernets that compute one sampled operation per edge, against the dense ones, in float64."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.bilevel.exact import Exact
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.forward_accumulation import ForwardAccumulation
from nas.bilevel.hypergradient import Hypergradient
from nas.bilevel.implicit import NeumannSeries
from nas.bilevel.last_step import LastStep
from nas.bilevel.optimiser import BilevelOptimiser
from nas.errors import InvalidValue
from nas.evaluation.network_cost import supernet_multiply_adds
from nas.operations.cell_operations import MixedEdge
from nas.operations.fast.library import library, without_kernels
from nas.operations.sampled import chosen_columns
from nas.operations.stochastic import set_drop_path, set_noise_generator
from nas.relaxations.dirichlet import Dirichlet
from nas.relaxations.gumbel_softmax import Gradient, GumbelSoftmax
from nas.relaxations.relaxation import Relaxation, Temperature
from nas.relaxations.sigmoid import Sigmoid
from nas.relaxations.softmax import Softmax
from nas.signature import Signature
from nas.spaces.macro.space import Macro
from nas.spaces.supernet import Supernet
from tests.problems import ADAM, CELL_SPACES, SEARCHED_LAYERS, batch_for, entries, problem_over

SHAPE, CLASSES = (1, 8, 8), 3
PARTIAL = {"channels": 4, "partial_channels": 2}
DATA = [batch_for(seed, shape=SHAPE, classes=CLASSES, size=4) for seed in range(6)]


def gumbel(gradient: Gradient, sampled: bool) -> GumbelSoftmax:
    return GumbelSoftmax(Temperature(0.9, 0.9), True, gradient, sampled)


def supernet(name: str, relaxation: Relaxation, seed: int = 0, **settings: Any) -> Supernet:
    torch.manual_seed(0)
    made = CELL_SPACES[name](**{"implementation": "plain"} | settings, signature=Signature(SHAPE, CLASSES))
    relaxation.generator = torch.Generator().manual_seed(seed)
    found = made.supernet(relaxation).double().train()
    set_noise_generator(found, torch.Generator().manual_seed(7))
    for alpha in found.architecture_parameters():
        torch.nn.init.normal_(alpha, std=0.5)
    return found


def measured(network: Supernet) -> tuple[Tensor, dict[str, Tensor | None]]:
    """The logits, and the gradient of every parameter that has one."""
    logits = network(DATA[0].inputs)
    named = dict(network.named_parameters())
    found = torch.autograd.grad(F.cross_entropy(logits, DATA[0].targets), list(named.values()), allow_unused=True)
    return logits, dict(zip(named, found, strict=True))


def assert_same(one: dict[str, Tensor | None], other: dict[str, Tensor | None]) -> None:
    assert {name for name, entry in one.items() if entry is None} == {
        name for name, entry in other.items() if entry is None
    }
    for name, entry in one.items():
        if entry is not None:
            torch.testing.assert_close(other[name], entry, atol=1e-10, rtol=0, msg=name)


def chosen(network: Supernet, relaxation: Relaxation, seed: int) -> list[int]:
    relaxation.generator = torch.Generator().manual_seed(seed)
    return [column for weights in network.operation_weights().values() for column in chosen_columns(weights) or []]


@pytest.mark.parametrize("name", CELL_SPACES)
@pytest.mark.parametrize("seed", [0, 1])
def test_it_gives_the_chosen_outputs_gradient_and_none_to_what_is_not_run(name: str, seed: int) -> None:
    dense, sampled = (supernet(name, gumbel("chosen_only", way), seed) for way in (False, True))
    (logits, gradients), (found, own) = measured(dense), measured(sampled)
    torch.testing.assert_close(found, logits, atol=1e-10, rtol=0)
    idle = {key for key, entry in own.items() if entry is None}
    assert idle
    assert all(not bool(gradients[key].any()) for key in idle)  # type: ignore[union-attr]
    assert_same(
        {key: entry for key, entry in gradients.items() if key not in idle},
        {key: entry for key, entry in own.items() if key not in idle},
    )


def test_the_official_gradient_takes_an_output_of_one_for_what_is_not_run() -> None:
    """Against a dense edge whose operations that are not chosen are replaced by ones."""
    torch.manual_seed(0)
    edge = MixedEdge(["skip_connect", "avg_pool_3x3", "nor_conv_1x1"], 2, 1, False).double()
    x, upstream = torch.randn(2, 2, 4, 4, dtype=torch.float64), torch.randn(2, 2, 4, 4, dtype=torch.float64)
    weights = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
    edge.sampled = True
    found = torch.autograd.grad((edge(x, weights) * upstream).sum(), weights)[0]
    outputs = [torch.ones_like(x), edge.operations[1](x), torch.ones_like(x)]
    torch.testing.assert_close(found, torch.stack([(one * upstream).sum() for one in outputs]))


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("gradient", ["official", "chosen_only"])
@pytest.mark.parametrize(("name", "settings"), [("darts", {}), ("nasbench201", {}), ("darts", PARTIAL)])
def test_the_fast_supernet_is_the_plain_one(
    name: str, settings: dict[str, Any], gradient: Gradient, kernels: bool
) -> None:
    if kernels and library() is None:
        pytest.skip("there is no C++ compiler here")
    results = []
    for implementation in ("plain", "fast"):
        network = supernet(name, gumbel(gradient, True), 3, implementation=implementation, **settings)
        set_drop_path(network, 0.3)
        if kernels or implementation == "plain":
            results.append(measured(network))
        else:
            with without_kernels():
                results.append(measured(network))
    torch.testing.assert_close(results[1][0], results[0][0], atol=1e-10, rtol=0)
    assert_same(results[0][1], results[1][1])


@pytest.mark.parametrize("relaxation", [Dirichlet, Sigmoid])
def test_the_fast_supernet_is_the_plain_one_under_other_relaxations(relaxation: type[Relaxation]) -> None:
    plain, fast = (measured(supernet("darts", relaxation(), 1, implementation=way)) for way in ("plain", "fast"))
    torch.testing.assert_close(fast[0], plain[0], atol=1e-10, rtol=0)
    assert_same(plain[1], fast[1])


def test_soft_weights_are_computed_whole() -> None:
    """An evaluation may ask for a mixture; no row of it is one-hot."""
    networks = [
        supernet("nasbench201", relaxation) for relaxation in (gumbel("official", True), Softmax(Temperature()))
    ]
    weights = networks[1].mean_weights()
    expected, found = (network(DATA[0].inputs, weights) for network in networks)
    assert torch.equal(expected, found)


def searched(implementation: str, hypergradient: Hypergradient, steps: int = 3) -> dict[str, Tensor]:
    network = supernet("nasbench201", gumbel("official", True), 2, implementation=implementation)
    noise = [torch.Generator().manual_seed(7), network.relaxation.generator]
    set_noise_generator(network, noise[0])  # type: ignore[arg-type]
    problem = problem_over(network, entries(("learning_rate", "dropout")), 1.0, noise)  # type: ignore[arg-type]
    alpha = hypergradient if "architecture" in hypergradient.reaches else FirstOrder()
    hypergradient.forget()
    bilevel = BilevelOptimiser(problem, alpha, hypergradient if "update" in hypergradient.reaches else Exact(), ADAM)
    for step in range(steps):
        bilevel.step(DATA[2 * step % 6], DATA[(2 * step + 1) % 6], bilevel.requests(True, True))
    return {**network.state_dict(), **problem.hyperparameters.state_dict()}


@pytest.mark.parametrize("hypergradient", [Exact(), LastStep(), ForwardAccumulation(), NeumannSeries(2)])
def test_whole_steps_beside_learned_hyperparameters(hypergradient: Hypergradient) -> None:
    plain, fast = (searched(way, hypergradient) for way in ("plain", "fast"))
    for name, expected in plain.items():
        torch.testing.assert_close(fast[name], expected, atol=1e-9, rtol=0, msg=name)
        assert bool(expected.isfinite().all())


def test_a_weight_step_leaves_alone_what_was_not_run() -> None:
    network = supernet("nasbench201", gumbel("official", True))
    problem = problem_over(network, entries(()), 1.0, [network.relaxation.generator])  # type: ignore[list-item]
    for _ in range(2):  # with a momentum from the first one
        before = {name: entry.detach().clone() for name, entry in network.named_parameters()}
        noise = problem.noise_state()
        columns = chosen_columns(network.operation_weights()["cell"])
        problem.repeat_noise(noise)
        problem.step(DATA[0])
        moved = {name for name, entry in network.named_parameters() if not torch.equal(entry, before[name])}
        of_edges = {name for name in before if ".operations." in name}
        run = {name for name in of_edges for row in [name.split(".")] if columns[int(row[3])] == int(row[5])}  # type: ignore[index]
        assert moved & of_edges <= run
        assert moved


@pytest.mark.parametrize("relaxation", [gumbel("official", True), gumbel("chosen_only", True), Dirichlet(), Sigmoid()])
def test_exact_is_the_derivative_of_the_whole_step(relaxation: Relaxation) -> None:
    """The step is written down here, and PyTorch differentiates it; weights that were not run do not move."""
    network = supernet("nasbench201", relaxation, 4)
    hyperparameters = {name: entry for name, entry in entries(()).items() if name != "dropout"}
    problem = problem_over(network, hyperparameters, None, [relaxation.generator], momentum=0.0)  # type: ignore[list-item]
    alpha = network.alpha["cell"]
    noise = problem.noise_state()
    (found,) = Exact().gradients(problem, DATA[0], DATA[1], [alpha]).gradients
    problem.repeat_noise(noise)
    weights, numbers = problem.weights(), problem.numbers()
    loss = F.cross_entropy(network(DATA[0].inputs), DATA[0].targets)
    slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
    after = {
        name: weight
        if slope is None
        else weight - numbers["learning_rate"] * (slope + numbers["weight_decay"] * weight)
        for (name, weight), slope in zip(weights.items(), slopes, strict=True)
    }
    logits = torch.func.functional_call(network, after, (DATA[1].inputs,))
    (expected,) = torch.autograd.grad(F.cross_entropy(logits, DATA[1].targets), [alpha])
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-6)
    assert float(found.norm()) > 1e-6


@pytest.mark.parametrize("name", CELL_SPACES)
def test_its_cost_is_the_mean_over_the_operations_of_every_edge(name: str) -> None:
    """Fixed parts count once, and a K-th of what the operations cost together."""
    space = CELL_SPACES[name](implementation="plain", signature=Signature(SHAPE, CLASSES))
    dense = supernet_multiply_adds(space, Softmax(Temperature()))
    sampled = supernet_multiply_adds(space, gumbel("official", True))
    with torch.device("meta"):
        network = space.supernet(Softmax(Temperature()))
    options = next(iter(network.alpha.values())).shape[-1]
    for edge in network.modules():
        if isinstance(edge, MixedEdge):
            edge.forward = lambda x, weights, edge=edge: x[:, :, :: edge.stride, :: edge.stride]  # type: ignore[method-assign]
    fixed = _multiply_adds(network, SHAPE)
    assert sampled == pytest.approx(fixed + (dense - fixed) / options, rel=1e-9)


def _multiply_adds(network: Supernet, shape: Sequence[int]) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        weights = {name: alpha.detach() for name, alpha in network.alpha.items()}
        network.eval()(torch.zeros(1, *shape, device="meta"), weights)
    return counter.get_total_flops() / 2


def test_the_macro_space_refuses_what_its_layers_cannot_take() -> None:
    space = Macro(SEARCHED_LAYERS, ["relu"], signature=Signature(SHAPE, CLASSES))
    with pytest.raises(InvalidValue, match=r"relaxation\.sampled=true is not allowed: the options of a layer"):
        space.supernet(gumbel("official", True))
    with pytest.raises(InvalidValue, match=r"relaxation=Sigmoid is not allowed: the mask of layer1\.filters adds up"):
        space.supernet(Sigmoid())
    layers = [{"type": "conv", "filters": 4, "kernel_size": [1, 3]}]
    Macro(layers, ["relu"], signature=Signature(SHAPE, CLASSES)).supernet(Sigmoid())
