"""Images at half the resolution for the first steps: what is computed, what it costs, and that it can be resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from nas.bilevel.exact import Exact
from nas.bilevel.last_step import LastStep
from nas.data.batches import Batch
from nas.errors import InvalidValue
from nas.evaluation.budget import Budget
from nas.evaluation.network_cost import supernet_multiply_adds
from nas.operations.stochastic import without_noise
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.search.callback import Callback, SeenStep
from nas.search.discretisation import Alone
from nas.search.gradient_search import GradientSearch
from nas.search.resolution import Resolution, halved
from nas.signature import Signature
from nas.spaces.macro.space import Macro
from nas.training.sgd import sgd
from tests.killing import assert_same_bytes, assert_same_results, killed
from tests.problems import CELL_SPACES, batch_for, digits, problem_for, search_parts, seeded_supernet

STEPS = 8  # of the searches here: two epochs of four
LAYERS = [
    {"type": "conv", "filters": [2, 3], "kernel_size": [1, 3]},
    {"type": "conv", "filters": [2, 4], "kernel_size": 3, "optional": True},
    {"type": "dense", "units": [4, 8]},
]


class Seen(Callback):
    """The sides of the images of every step, and whether the upper level had anything to do."""

    def __init__(self) -> None:
        self.sides: list[int] = []
        self.moved: list[set[str]] = []

    def on_step(self, seen: SeenStep) -> None:
        self.sides.append(seen.training.inputs.shape[-1])
        assert (seen.validation is None) == (seen.outcome.upper_step is None)
        if seen.validation is not None:
            assert seen.validation.inputs.shape[-1] == self.sides[-1]
        self.moved.append(set() if seen.outcome.upper_step is None else set(seen.outcome.upper_step.gradient_norms))


def made(path: Path, search: dict[str, Any], **settings: Any) -> tuple[GradientSearch, Seen]:
    splits = digits()
    usual = {
        "space": Macro(LAYERS, ["relu", "tanh"], signature=splits.signature),
        "hyperparameter_gradient": LastStep(),
        "discretisation": Alone(20, types_first=True, sliced=True),
    }
    search_made = GradientSearch(search_parts(path, splits=splits, search=search, **{**usual, **settings}))
    seen = Seen()
    search_made.callbacks["seen"] = seen
    return search_made, seen


def test_halving_averages_squares_and_keeps_the_rest_of_odd_sides() -> None:
    images = torch.arange(15.0).view(1, 1, 3, 5)
    assert torch.equal(halved(images), torch.tensor([[[[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]]]]))


@pytest.mark.parametrize(("share", "small"), [(0.0, 0), (0.6, 5), (1.0, 8)])
def test_the_first_steps_see_small_images(share: float, small: int, tmp_path: Path) -> None:
    search, seen = made(tmp_path, {"half_resolution": share})
    search.search()
    assert seen.sides == [4] * small + [8] * (STEPS - small)


def test_every_pass_is_counted_at_its_price(tmp_path: Path) -> None:
    search, _ = made(tmp_path, {"half_resolution": 0.5, "hyperparameter_every": 2, "architecture_every": 2})
    priced: list[float] = []
    passed = search.meter.count_forward

    def noted(images: int, per_image: float | None = None) -> None:
        if per_image is not None:
            priced.append(images * per_image)
        passed(images, per_image)

    search.meter.count_forward = noted  # type: ignore[method-assign]
    cost = search.search().cost
    space, relaxation = search.parts.space, search.parts.relaxation
    whole, half = supernet_multiply_adds(space, relaxation), supernet_multiply_adds(space, relaxation, (1, 4, 4))
    samples = 4 * 16 + 2 * 16  # of half the steps: every weight step, and an upper step at every second
    assert 0 < half < whole / 2
    assert len(priced) >= len(space.choices)
    assert cost.multiply_adds == 3 * samples * (half + whole) + 2 * 48 * whole + sum(priced)
    assert sum(priced) < (cost.samples - 2 * samples - 2 * 48) * whole


def test_a_weight_step_alone_asks_for_no_validation_batch(tmp_path: Path) -> None:
    search, seen = made(tmp_path, {"hyperparameter_every": 2, "architecture_every": 2})
    search.search()
    both = {"architecture", "learning_rate", "dropout"}
    assert seen.moved == [both, set()] * (STEPS // 2)


def test_alpha_moves_at_every_so_many_steps(tmp_path: Path) -> None:
    search, seen = made(tmp_path, {"hyperparameter_every": 1, "architecture_every": 3, "warmup_epochs": 1})
    search.search()
    assert [number for number, moved in enumerate(seen.moved) if "architecture" in moved] == [6]
    assert all("dropout" in moved for moved in seen.moved)


@pytest.mark.parametrize("step", [2, 6])
def test_a_killed_search_goes_on_to_the_same_bytes(step: int, tmp_path: Path) -> None:
    settings = {"half_resolution": 0.6, "hyperparameter_every": 2, "architecture_every": 2, "checkpoint_every": 1}
    through, _ = made(tmp_path / "through", settings)
    whole = through.search()
    broken, _ = made(tmp_path / "killed", settings)
    with killed(broken.callbacks["trajectory"], "on_step", lambda seen: seen.step == step):  # in the midst of a step
        broken.search()
    resumed, seen = made(tmp_path / "killed", settings)
    assert_same_results(resumed.search(), whole)
    assert seen.sides == [4 if before < 5 else 8 for before in range(step - 1, STEPS)]
    assert_same_bytes(tmp_path / "killed", tmp_path / "through", "metrics.csv", "trajectory.csv")
    assert all(torch.equal(one, through.tensors()[name]) for name, one in resumed.tensors().items())


@pytest.mark.parametrize("factor", [1.0, 1.7])
def test_a_budget_is_kept_and_halved_images_make_it_last_longer(factor: float, tmp_path: Path) -> None:
    least = made(tmp_path / "any", {})[0].meter.least().multiply_adds
    budget = Budget(multiply_adds=factor * least)
    steps = {}
    for share in (0.0, 0.9):
        search, seen = made(tmp_path / str(share), {"epochs": 50, "half_resolution": share}, budget=budget)
        assert search.search().cost.multiply_adds <= factor * least
        steps[share] = len(seen.sides)
        assert sorted(seen.sides) == seen.sides, "the resolution only rises"
    assert steps[0.9] >= steps[0.0] >= 1


@pytest.mark.parametrize("name", CELL_SPACES)
@pytest.mark.parametrize("implementation", ["plain", "fast"])
def test_cells_take_small_images_as_they_are(name: str, implementation: str) -> None:
    space = CELL_SPACES[name](signature=Signature((1, 16, 16), 3), implementation=implementation)
    assert Resolution.of(0.5, space, Softmax(Temperature()))._half_price > 0
    supernet, _ = seeded_supernet(space)
    plain, _ = seeded_supernet(CELL_SPACES[name](signature=Signature((1, 16, 16), 3), implementation="plain"))
    images = halved(torch.randn(4, 1, 16, 16, dtype=torch.float64))
    torch.testing.assert_close(supernet(images), plain(images))


def test_a_network_for_one_size_is_refused_in_one_sentence() -> None:
    class OneSize(Macro):
        def supernet(self, relaxation: Softmax) -> Any:
            supernet = super().supernet(relaxation)
            supernet._flattened = lambda x: x.flatten(1)
            return supernet

    space = OneSize(LAYERS, ["relu"], signature=Signature((1, 8, 8), 3))
    refused = (
        r"search\.half_resolution=0\.5 is not allowed: the supernet of space=macro takes images of 8x8 pixels only"
    )
    with pytest.raises(InvalidValue, match=refused):
        Resolution.of(0.5, space, Softmax(Temperature()))
    assert Resolution.of(None, space, Softmax(Temperature())).share == 0
    any_size = Macro(LAYERS, ["relu"], signature=Signature((1, 8, 8), 3))
    assert Resolution.of(None, any_size, Softmax(Temperature())).share == 0.5


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_from_0_to_1(share: float, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"half_resolution=.* it must be null or a share from 0 to 1"):
        made(tmp_path, {"half_resolution": share})


@pytest.mark.parametrize("shape", [(1, 6, 6), (1, 7, 5)])
@pytest.mark.parametrize("implementation", ["plain", "fast"])
def test_a_chain_repeats_pixels_before_it_is_flattened(shape: tuple[int, int, int], implementation: Any) -> None:
    """Against a chain of one convolution, written down by hand."""
    layers = [{"type": "conv", "filters": 3, "kernel_size": 3, "stride": 2}, {"type": "dense", "units": 4}]
    space = Macro(layers, ["tanh"], implementation, signature=Signature(shape, 2))
    supernet, _ = seeded_supernet(space)
    images = torch.randn(5, *shape, dtype=torch.float64)
    by_name = dict(supernet.named_parameters())

    def normalised(x: Tensor, name: str) -> Tensor:
        return F.batch_norm(x, None, None, by_name[f"{name}.weight"], by_name[f"{name}.bias"], training=True)

    small = halved(images)
    x = F.conv2d(small, by_name["slots.layer1.conv.kernels.3.weight"], stride=2, padding=1)
    x = torch.tanh(normalised(x, "slots.layer1.conv.normalisation"))
    height, width = -(-shape[1] // 2), -(-shape[2] // 2)
    rows = torch.arange(height) * x.shape[2] // height
    columns = torch.arange(width) * x.shape[3] // width
    x = x[:, :, rows][:, :, :, columns].flatten(1) @ by_name["slots.layer2.dense.linear.weight"].T
    x = torch.tanh(normalised(x, "slots.layer2.dense.normalisation"))
    by_hand = F.linear(x, by_name["classifier.weight"], by_name["classifier.bias"])
    torch.testing.assert_close(supernet(small), by_hand)


def test_the_exact_hypergradient_is_that_of_the_small_images() -> None:
    """Of alpha, learning rate and dropout, by central differences of a step on small images, in double precision."""

    def problem_at(shift: dict[str, Tensor]) -> Any:
        problem = problem_for(learned=("learning_rate", "dropout"))
        with torch.no_grad():
            for name, parameter in (dict(problem.supernet.alpha) | problem.hyperparameters.raw).items():
                parameter.add_(shift.get(name, torch.zeros(())))
        return problem

    small = [Batch(halved(batch.inputs), batch.targets) for batch in (batch_for(1), batch_for(2))]

    def loss_after(shift: dict[str, Tensor]) -> float:
        problem = problem_at(shift)
        values = {name: torch.as_tensor(value).detach() for name, value in problem.values().items()}
        weights = {name: weight.detach().requires_grad_() for name, weight in problem.weights().items()}
        training = problem.training_loss(weights, small[0], values)
        gradients = dict(zip(weights, torch.autograd.grad(training, list(weights.values())), strict=True))
        after, _ = sgd({name: one.detach() for name, one in weights.items()}, gradients, {}, values, None)
        with without_noise(problem.supernet):
            logits = functional_call(problem.supernet, after, (small[1].inputs,))
        return float(F.cross_entropy(logits, small[1].targets).detach())

    problem = problem_at({})
    targets = dict(problem.supernet.alpha) | problem.hyperparameters.raw
    report = Exact().gradients(problem, *small, list(targets.values()))
    for (name, target), gradient in zip(targets.items(), report.gradients, strict=True):
        direction = torch.randn(target.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        size = 1e-5
        slope = (loss_after({name: size * direction}) - loss_after({name: -size * direction})) / (2 * size)
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-9), name
