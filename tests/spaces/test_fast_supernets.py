"""The fast supernets against the plain ones, in float64: the same parameters, the same draws, the same numbers."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas.bilevel.exact import Exact
from nas.bilevel.finite_difference import FiniteDifference
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.forward_accumulation import ForwardAccumulation
from nas.bilevel.hypergradient import Hypergradient
from nas.bilevel.last_step import LastStep
from nas.bilevel.optimiser import BilevelOptimiser
from nas.data.batches import Batch
from nas.errors import InvalidValue
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import DropoutRate, DropPathRate, LayerDropoutRate, LearningRate, WeightDecay
from nas.hyperparameters.rules import AdamUpdate
from nas.operations.cell_operations import CELL_OPERATIONS
from nas.operations.fast import edges
from nas.operations.fast.library import library, without_kernels
from nas.operations.mixed import ACTIVATIONS
from nas.operations.stochastic import (
    StochasticLayer,
    set_drop_path,
    set_dropout,
    set_layer_dropout,
    set_noise_generator,
)
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Relaxation, Temperature
from nas.relaxations.softmax import Softmax
from nas.signature import Signature
from nas.spaces.darts.choices import OPERATIONS
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.supernet import Implementation, Supernet
from tests.problems import ADAM, batch_for, problem_over

CLASSES, BATCH_SIZE = 5, 4
LOGITS, GRADIENTS = 1e-10, 1e-9
SHAPES = {
    "darts": (3, 8, 8),
    "odd darts": (1, 9, 7),
    "every operation": (2, 5, 5),
    "structured darts": (3, 7, 8),
    "darts by edge": (2, 6, 7),
    "nasbench201": (3, 9, 8),
    "structured nasbench201": (3, 5, 6),
    "macro": (3, 8, 8),
    "odd macro": (2, 9, 7),
}
POOL: dict[str, Any] = {"type": "pool", "pool_size": [2, 3], "kind": ["max", "average"]}
CONVOLUTION: dict[str, Any] = {"type": "conv", "filters": [3, 5], "kernel_size": [3, 5]}
MACROS: dict[str, dict[str, Any]] = {
    "macro": {
        "layers": [
            CONVOLUTION,
            POOL,
            {**CONVOLUTION, "filters": [6, 18], "optional": True},
            {"choose": [{**CONVOLUTION, "stride": 2}, POOL]},
            {"type": "dense", "units": [4, 9]},
        ],
        "activations": ["relu", "sigmoid"],
    },
    "odd macro": {
        "layers": [
            {"choose": [{**CONVOLUTION, "stride": 2, "filters": 7}, {**POOL, "pool_size": [16, 5], "kind": "average"}]},
            {**CONVOLUTION, "filters": [4, 1], "kernel_size": 1, "activations": "relu"},
            {
                "choose": [
                    {**POOL, "pool_size": [3, 5], "stride": 1},
                    {**POOL, "pool_size": 3, "stride": 1},
                    CONVOLUTION,
                ]
            },
            {**POOL, "kind": "max", "stride": 1, "pool_size": 5, "optional": True},
        ],
        "activations": list(ACTIVATIONS),
    },
}
BY_EDGE = {
    "normal": [
        ["skip_connect", "noise"],
        ["none", "sep_conv_3x3"],
        ["max_pool_3x3", "noise"],
        *[["noise", "none"]] * 2,
    ],
    "reduce": [["noise", "sep_conv_3x3"], *[["avg_pool_3x3", "dil_conv_3x3"]] * 3, ["noise", "skip_connect"]],
}
STRUCTURE = {"partial_channels": 2, "auxiliary_skip": True}
WAYS = ("kernels", "stock", "as on a GPU")  # without the kernels a macro space's fast supernet is the plain one
TEMPERATURE = Temperature(0.8, 0.8)
RELAXATIONS: dict[str, Callable[[], Relaxation]] = {
    "softmax": lambda: Softmax(TEMPERATURE),
    "gumbel": lambda: GumbelSoftmax(TEMPERATURE),
    "hard gumbel": lambda: GumbelSoftmax(TEMPERATURE, hard=True),
}


def supernet(name: str, implementation: Implementation, relaxation: str = "softmax") -> Supernet:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"channels": 4, "cells": 3, "steps": 2, "multiplier": 2, "stem_multiplier": 1}
    if name == "odd darts":
        sizes |= {"channels": 5, "cells": 4, "steps": 3}
    if name == "every operation":
        sizes |= {"cells": 2}
    if name == "structured darts":
        sizes |= {**STRUCTURE, "edge_normalisation": True}
    operations = {"every operation": tuple(reversed(CELL_OPERATIONS)), "darts by edge": BY_EDGE}.get(name, OPERATIONS)
    if name in MACROS:
        space: Darts | NasBench201 | Macro = Macro(
            **MACROS[name], implementation=implementation, signature=Signature(SHAPES[name], CLASSES)
        )
    elif name.endswith("nasbench201"):
        more = STRUCTURE if name.startswith("structured") else {}
        space = NasBench201(4, 1, implementation, **more, signature=Signature(SHAPES[name], CLASSES))
    else:
        space = Darts(
            **sizes,
            operations=operations,
            implementation=implementation,
            signature=Signature(SHAPES[name], CLASSES),
        )
    made = space.supernet(RELAXATIONS[relaxation]()).double()
    made.advance(0.3)  # the auxiliary skips have a weight of 0.7
    generator = torch.Generator().manual_seed(5)
    for key, entry in made.state_dict().items():  # as after some training
        if "running" in key:
            entry.uniform_(0.5, 1.5, generator=generator)
    for alpha in made.architecture_parameters():
        nn.init.normal_(alpha, std=0.5, generator=generator)
    made.relaxation.generator = torch.Generator().manual_seed(6)
    set_noise_generator(made, torch.Generator().manual_seed(7))
    return made


def batch(name: str, seed: int, size: int = BATCH_SIZE) -> Batch:
    return batch_for(seed, shape=SHAPES[name], classes=CLASSES, size=size)


def everywhere(cases: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """``cases``, each of which begins with its space, behind the ways of computing that its fast supernet has."""
    return [(way, *case) for case in cases for way in (WAYS[:1] if case[0] in MACROS else WAYS)]


@pytest.fixture
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With the C++ kernels, and without them, as a CPU then computes or as a GPU does."""
    if request.param == "kernels" and library() is None:
        pytest.skip("there is no C++ compiler here")
    if request.param == "as on a GPU":
        monkeypatch.setattr(edges, "_edge_by_edge", edges._all_at_once)
    with nullcontext() if request.param == "kernels" else without_kernels():
        yield


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=0)


def measured(network: Supernet, data: Batch, rate: Tensor | float) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The logits, the gradient of every parameter and of the rate, and the buffers afterwards."""
    set_drop_path(network, rate)
    set_dropout(network, rate)
    for layer in ("layer1", "layer2", "layer3", "layer5"):
        set_layer_dropout(network, layer, rate)
    logits = network(data.inputs)
    targets = [*network.parameters(), *([rate] if isinstance(rate, Tensor) else [])]
    gradients = torch.autograd.grad(F.cross_entropy(logits, data.targets), targets, materialize_grads=True)
    return logits.detach(), list(gradients), list(network.buffers())


def passed(
    name: str, implementation: Implementation, mode: str, rate: str, relaxation: str
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """:func:`measured` on a supernet in ``mode``."""
    rates: dict[str, Tensor | float] = {"none": 0.0, "fixed": 0.3}
    learned = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    network = supernet(name, implementation, relaxation).train(mode == "training")
    return measured(network, batch(name, 1), rates.get(rate, learned))


@cache  # the plain one computes the same whatever the fast one computes with
def passed_plainly(name: str, mode: str, rate: str, relaxation: str) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    return passed(name, "plain", mode, rate, relaxation)


MODES, RATES = ("training", "evaluation"), ("none", "fixed", "learned")
ONE_STEP = [  # every space sees every relaxation in either mode, and two of them with each rate
    (name, mode, rate, tuple(RELAXATIONS)[(i + j + k) % 3])
    for (i, name), (j, mode), (k, rate) in itertools.product(enumerate(SHAPES), enumerate(MODES), enumerate(RATES))
]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("kernels", "name", "mode", "rate", "relaxation"), everywhere(ONE_STEP), indirect=["kernels"])
def test_logits_gradients_and_statistics_are_those_of_the_plain_one(
    name: str, mode: str, rate: str, relaxation: str
) -> None:
    plain_logits, plain_gradients, plain_buffers = passed_plainly(name, mode, rate, relaxation)
    logits, gradients, buffers = passed(name, "fast", mode, rate, relaxation)
    assert_close([logits], [plain_logits], LOGITS)
    assert_close(gradients, plain_gradients, GRADIENTS)
    assert_close(buffers, plain_buffers, LOGITS)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("kernels", "name"), everywhere([("darts",), ("nasbench201",), ("odd macro",)]), indirect=["kernels"]
)
def test_a_single_image(name: str) -> None:
    data = batch(name, 1, size=1)
    plain, found = (measured(supernet(name, which).train(), data, 0.0) for which in ("plain", "fast"))  # type: ignore[arg-type]
    assert_close([found[0]], [plain[0]], LOGITS)
    assert_close(found[1], plain[1], GRADIENTS)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("kernels", "name"), everywhere([("darts",), ("nasbench201",), ("macro",)]), indirect=["kernels"]
)
def test_one_hot_weights(name: str) -> None:
    plain, fast = (supernet(name, which).eval() for which in ("plain", "fast"))  # type: ignore[arg-type]
    weights = plain.architecture_weights(plain.discretise())  # type: ignore[operator]
    expected, found = (network(batch(name, 1).inputs, weights) for network in (plain, fast))
    assert_close([found], [expected], LOGITS)


class Calls(TorchDispatchMode):
    """The names of PyTorch's operations in the order in which they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), settings: dict[str, Any] | None = None
    ) -> Any:
        self.names.append(str(function))
        return function(*arguments, **(settings or {}))


@pytest.mark.parametrize("name", MACROS)
def test_without_the_kernels_the_fast_macro_space_runs_the_code_of_the_plain_one(name: str) -> None:
    def calls(implementation: Implementation) -> list[str]:
        network = supernet(name, implementation).train()
        with Calls() as seen:
            measured(network, batch(name, 1), 0.3)
        return seen.names

    with without_kernels():
        plain = calls("plain")
        assert calls("fast") == plain
    assert library() is None or calls("fast") != plain


def searched(
    name: str, implementation: Implementation, hypergradient: Hypergradient, steps: int, relaxation: str = "softmax"
) -> dict[str, Tensor]:
    """Where whole steps of a search lead that learns alpha, and the hyperparameters where it can.

    The supernet's state, the raw hyperparameters and the last validation loss; the last step's gradients, those of the
    weights after clipping; the logits in evaluation mode.
    """
    network = supernet(name, implementation, relaxation).train()
    learn = "update" in hypergradient.reaches
    hyperparameters = HyperparameterSet(
        {
            "learning_rate": LearningRate(0.05, 1e-4, 1.0, "log", learn, AdamUpdate(0.1)),
            "weight_decay": WeightDecay(3e-3, 1e-5, 1e-1, "log", learn, AdamUpdate(0.1)),
            "dropout": DropoutRate(0.2, 0.0, 0.9, "logit", learn, AdamUpdate(0.1)),
            # The macro space drops no paths: its layers follow one another, and a dropped one would leave nothing.
            "drop_path": DropPathRate(0.2, 0.0, 0.6, "logit", learn and name not in MACROS, AdamUpdate(0.1)),
            "dropout_layer3": LayerDropoutRate(
                0.2, 0.0, 0.9, "logit", learn and name in MACROS, AdamUpdate(0.1), layer="layer3"
            ),
        }
    )
    noise = next(layer.generator for layer in network.modules() if isinstance(layer, StochasticLayer))
    problem = problem_over(network, hyperparameters, 5.0, (noise, network.relaxation.generator))  # type: ignore[arg-type]
    alpha = hypergradient if "architecture" in hypergradient.reaches else FirstOrder()
    bilevel = BilevelOptimiser(problem, alpha, hypergradient if learn else None, ADAM)
    bilevel.forget_weights()
    gradients: dict[str, Tensor] = {}

    def keep_gradients(moving: torch.optim.Optimizer, *_: Any) -> None:
        moved = [one for group in moving.param_groups for one in group["params"]]
        gradients.update({f"gradient of {names[one]}": one.grad.clone() for one in moved})

    names = {parameter: name for name, parameter in network.named_parameters()}
    for moving in (problem.optimiser, bilevel.alpha_optimiser):
        assert moving is not None
        moving.register_step_pre_hook(keep_gradients)
    for step in range(steps):
        training, validation = batch(name, 2 * step), batch(name, 2 * step + 1)
        done = bilevel.step(training, validation, bilevel.requests(architecture=True, hyperparameters=learn))
    assert done.upper_step is not None
    with torch.no_grad():
        logits = network.eval()(validation.inputs)
    state = {**network.state_dict(), **hyperparameters.state_dict()}
    assert len(gradients) == len(names)
    return {**state, **gradients, "loss": done.upper_step.report.validation_loss, "logits": logits}


HYPERGRADIENTS = {
    "first order": FirstOrder,
    "finite difference": FiniteDifference,
    "exact": Exact,
    "joint": LastStep,
    "accumulation": ForwardAccumulation,
}
QUICK = [  # every space, hypergradient and relaxation at least once
    ("darts", "first order", "hard gumbel"),
    ("darts", "exact", "softmax"),
    ("darts", "joint", "gumbel"),
    ("structured darts", "exact", "softmax"),
    ("structured nasbench201", "first order", "gumbel"),
    ("nasbench201", "exact", "hard gumbel"),
    ("nasbench201", "joint", "softmax"),
    ("macro", "finite difference", "hard gumbel"),
    ("macro", "exact", "softmax"),
    ("macro", "joint", "gumbel"),
    ("macro", "accumulation", "softmax"),
]
STRUCTURED = [case for case in QUICK if case[0].startswith("structured")]
ALL = everywhere([*itertools.product(("darts", "nasbench201", "macro"), HYPERGRADIENTS, RELAXATIONS), *STRUCTURED])


@cache
def searched_plainly(name: str, hypergradient: str, steps: int, relaxation: str) -> dict[str, Tensor]:
    return searched(name, "plain", HYPERGRADIENTS[hypergradient](), steps, relaxation)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("kernels", "name", "hypergradient", "relaxation", "steps"),
    [
        *((*case, 4) for case in everywhere(QUICK)),
        *(pytest.param(*case, 10, marks=pytest.mark.slow) for case in ALL),
    ],
    indirect=["kernels"],
)
def test_whole_steps(name: str, hypergradient: str, relaxation: str, steps: int) -> None:
    plain = searched_plainly(name, hypergradient, steps, relaxation)
    fast = searched(name, "fast", HYPERGRADIENTS[hypergradient](), steps, relaxation)
    for entry, expected in plain.items():
        tolerance = LOGITS if entry == "logits" else GRADIENTS
        error = float((fast[entry] - expected).abs().max())
        assert error <= tolerance, f"{entry}: {error:.1e}"


def test_both_have_one_state_dict() -> None:
    for name in SHAPES:
        plain, fast = supernet(name, "plain"), supernet(name, "fast")
        assert list(plain.state_dict()) == list(fast.state_dict())
        fast.load_state_dict(plain.state_dict())


@pytest.mark.parametrize("name", MACROS)
def test_both_hand_down_the_same_weights(name: str) -> None:
    plain, fast = supernet(name, "plain"), supernet(name, "fast")
    architecture = plain.discretise()
    assert fast.discretise() == architecture
    expected, found = plain.inherited_state(architecture), fast.inherited_state(architecture)
    assert list(found) == list(expected)
    assert_close(list(found.values()), list(expected.values()), 0.0)


def test_other_implementations_are_refused() -> None:
    with pytest.raises(InvalidValue, match="implementation"):
        NasBench201(4, 1, "quick", signature=Signature((3, 8, 8), 2))  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="implementation"):
        Darts(implementation=1, signature=Signature((3, 8, 8), 2))  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="implementation"):
        Macro(**MACROS["macro"], implementation="quick", signature=Signature((3, 8, 8), 2))  # type: ignore[arg-type]
