"""The recurrent cell of DARTS: plain and fast, search and stand-alone, and the exact gradients of a whole step."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from nas.bilevel.exact import Exact
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.errors import InvalidValue
from nas.evaluation.network_cost import BlockCosts, count_multiply_adds, supernet_multiply_adds
from nas.hyperparameters.kinds import Hyperparameter, LayerDropoutRate, LearningRate, MemoryPenalty, WeightDecay
from nas.hyperparameters.rules import AdamUpdate
from nas.operations.fast.library import without_kernels
from nas.operations.locked_dropout import PLACES
from nas.operations.memory import Remembered
from nas.operations.stochastic import set_dropouts
from nas.signature import Signature
from nas.spaces import Recurrent, space_from_description
from nas.spaces.recurrent import network
from nas.spaces.recurrent.genotype import OPERATIONS, RecurrentGenotype
from nas.spaces.recurrent.supernet import RecurrentSupernet
from nas.spaces.supernet import Implementation
from nas.tasks import Language
from tests.problems import problem_over, seeded_supernet

VOCABULARY, LENGTH, ROWS, WIDTH = 7, 4, 5, 3
TEXT = Signature((LENGTH,), VOCABULARY, "sequence", (VOCABULARY,))
STEP, RELATIVE = 1e-4, 1e-6


def space_of(implementation: Implementation = "fast", **settings: Any) -> Recurrent:
    usual = {"width": WIDTH, "final_width": WIDTH, "nodes": 3}
    return Recurrent(**{**usual, **settings}, implementation=implementation, signature=TEXT)


def supernet_of(implementation: Implementation = "fast", **settings: Any) -> tuple[RecurrentSupernet, list[Generator]]:
    supernet, generators = seeded_supernet(space_of(implementation, **settings))
    assert isinstance(supernet, RecurrentSupernet)
    for weight in supernet.weight_parameters():  # larger than at the start, so that every part of the cell counts
        nn.init.normal_(weight, std=0.5)
    return supernet, generators


def batch(seed: int, state: Tensor | None = None) -> Batch:
    tokens = torch.randint(VOCABULARY, (ROWS, LENGTH + 1), generator=Generator().manual_seed(seed))
    return Batch(tokens[:, :-1], tokens[:, 1:], state)


def state_of(seed: int) -> Tensor:
    return torch.randn(ROWS, WIDTH, generator=Generator().manual_seed(seed), dtype=torch.float64)


def loss_of(found: Remembered, targets: Tensor) -> Tensor:
    penalties = {"activation_penalty": 0.3, "temporal_penalty": 0.2}
    return F.cross_entropy(found.logits.flatten(0, 1), targets.flatten()) + found.penalty(penalties)


def test_fast_is_plain_to_the_second_derivative() -> None:
    results: list[list[Tensor]] = []
    for implementation in ("plain", "fast"):
        supernet, generators = supernet_of(implementation, concat=(1, 3))  # type: ignore[arg-type]
        set_dropouts(supernet, {f"dropout_{place}": 0.3 for place in PLACES})
        generators[0].manual_seed(7)
        inputs, targets, state = batch(1, state_of(2))
        found = supernet.recall(inputs, state)
        parameters = list(supernet.parameters())
        gradients = torch.autograd.grad(loss_of(found, targets), parameters, create_graph=True)
        ways = [torch.randn(one.shape, generator=Generator().manual_seed(3)).double() for one in parameters]
        along = torch.stack([(one * way).sum() for one, way in zip(gradients, ways, strict=True)]).sum()
        second = torch.autograd.grad(along, parameters)
        averages = [buffer.double() for buffer in supernet.buffers()]
        passed = found.logits, found.state, found.hidden, found.dropped
        results.append([one.detach() for one in (*passed, *gradients, *second, *averages)])
    for plain, fast in zip(*results, strict=True):
        assert float((plain - fast).abs().max()) < 1e-10 * max(1.0, float(plain.abs().max()))


def test_a_text_in_two_halves_with_its_state_is_the_whole_text() -> None:
    supernet, _ = supernet_of()
    supernet.eval()
    inputs = batch(4).inputs
    whole = supernet.recall(inputs, None)
    first = supernet.recall(inputs[:, :2], None)
    second = supernet.recall(inputs[:, 2:], first.state)
    assert torch.allclose(torch.cat([first.logits, second.logits], 1), whole.logits, atol=1e-12)
    assert torch.allclose(second.state, whole.state, atol=1e-12)
    assert torch.equal(supernet(inputs), whole.logits)


def test_the_search_cell_without_its_batch_norm_is_the_stand_alone_cell() -> None:
    for implementation in ("plain", "fast"):
        supernet, _ = supernet_of(implementation, concat=(1, 3))  # type: ignore[arg-type]
        supernet.network.cell.norm = nn.Identity()
        space = supernet.space
        for seed in range(4):
            architecture = space.sample(Generator().manual_seed(seed)).architecture
            made = space.network(architecture).double()  # type: ignore[attr-defined]
            made.load_state_dict(supernet.inherited_state(architecture))
            inputs, _, state = batch(seed, state_of(seed))
            weights = supernet.architecture_weights(architecture)
            ours, theirs = supernet.recall(inputs, state, weights), made.recall(inputs, state)
            assert torch.allclose(ours.logits, theirs.logits, atol=1e-12)


def every_entry() -> dict[str, Hyperparameter]:
    found: dict[str, Hyperparameter] = {
        "learning_rate": LearningRate(0.5, 1e-3, 50.0, "log", True, AdamUpdate(0.1)),
        "weight_decay": WeightDecay(0.02, 1e-4, 1.0, "log", True, AdamUpdate(0.1)),
        "activation_penalty": MemoryPenalty(0.3, 1e-3, 1.0, "log", True, AdamUpdate(0.1)),
        "temporal_penalty": MemoryPenalty(0.2, 1e-3, 1.0, "log", True, AdamUpdate(0.1)),
    }
    for place in PLACES:
        found[f"dropout_{place}"] = LayerDropoutRate(0.3, 0.0, 0.9, "logit", True, AdamUpdate(0.1), layer=place)
    return found


def text_problem(implementation: Implementation) -> BilevelProblem:
    supernet, generators = supernet_of(implementation, nodes=2)
    task = Language()
    task.signature = TEXT
    return problem_over(supernet, every_entry(), 0.25, generators, momentum=0.0, task=task)


def test_without_kernels_the_fast_cell_gives_the_same() -> None:
    results = []
    for context in (nullcontext, without_kernels):
        supernet, _ = supernet_of()
        with context():
            inputs, targets, state = batch(1, state_of(2))
            parameters = list(supernet.parameters())
            gradients = torch.autograd.grad(loss_of(supernet.recall(inputs, state), targets), parameters)
        results.append(gradients)
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("implementation", ["plain", "fast"])
def test_alpha_and_every_hyperparameter_get_the_exact_gradient_of_the_whole_step(
    implementation: Implementation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against central differences of real steps, clipped, with noise, and from states that are carried on."""
    monkeypatch.setattr(torch, "relu", F.softplus)  # without its kink; the fast cell's is a method
    monkeypatch.setattr(Tensor, "relu", lambda x: F.softplus(x))
    monkeypatch.setitem(network.FUNCTIONS, "relu", F.softplus)
    problem = text_problem(implementation)
    training, validation = batch(11, state_of(12)), batch(13, state_of(14))
    alpha = problem.supernet.alpha["recurrent"]
    way = torch.randn(alpha.shape, generator=Generator().manual_seed(5)).double()
    directions: dict[str, tuple[nn.Parameter, Tensor]] = {"alpha": (alpha, way)}
    directions |= {name: (raw, torch.ones_like(raw)) for name, raw in problem.hyperparameters.named_raw()}
    noise = problem.noise_state()
    targets = [parameter for parameter, _ in directions.values()]
    report = Exact().gradients(problem, training, validation, targets)
    before = {name: entry.clone() for name, entry in problem.supernet.state_dict().items()}

    def loss_after(parameter: nn.Parameter, way: Tensor, shift: float) -> float:
        kept = parameter.detach().clone()
        problem.supernet.load_state_dict(before)
        with torch.no_grad():
            parameter.copy_(kept + shift * way)
        problem.repeat_noise(noise)
        assert float(problem.step(training).norm) > 0.25  # type: ignore[arg-type]
        loss = float(problem.validation_loss(problem.weights(), validation)[0].detach())
        problem.supernet.load_state_dict(before)
        with torch.no_grad():
            parameter.copy_(kept)
        return loss

    for (name, (parameter, way)), gradient in zip(directions.items(), report.gradients, strict=True):
        slopes = [
            (loss_after(parameter, way, step) - loss_after(parameter, way, -step)) / (2 * step)
            for step in (STEP, STEP / 2)
        ]
        expected = (4 * slopes[1] - slopes[0]) / 3  # Richardson: without the error of second order
        ours = float((gradient * way).sum())
        assert ours == pytest.approx(expected, rel=RELATIVE, abs=1e-10), name
        assert abs(ours) > 1e-7, name


def test_a_step_gives_the_state_and_the_validation_pass_its_own() -> None:
    problem = text_problem("fast")
    step = problem.step(batch(1, state_of(2)))
    report = Exact().gradients(problem, batch(1), batch(3, state_of(4)), problem.supernet.architecture_parameters())
    for outputs in (step.logits, report.validation_logits):
        assert isinstance(outputs, Remembered)
        assert outputs.state.shape == (ROWS, WIDTH)
        assert not outputs.state.requires_grad


def alphas(rows: Mapping[tuple[int, int], Mapping[str, float]], nodes: int = 3) -> dict[str, dict[str, float]]:
    edges = [(node, source) for node in range(1, nodes + 1) for source in range(node)]
    level = dict.fromkeys(OPERATIONS, 0.2)
    return {f"node{node}.from{source}": {**level, **rows.get((node, source), {})} for node, source in edges}


def test_the_strongest_activation_of_the_strongest_input_is_taken_and_ties_go_to_the_earlier() -> None:
    space = space_of()
    chosen = space.preferred(alphas({(2, 1): {"sigmoid": 0.5, "none": 0.9}, (3, 0): {"none": 0.99}}))
    assert space.genotype(chosen).recurrent == (("tanh", 0), ("sigmoid", 1), ("tanh", 0))
    probabilities = alphas({(2, 1): {"sigmoid": 0.5, "relu": 0.4}, (2, 0): {"identity": 0.3}})
    found = space.preferred(probabilities)
    other = space.runner_up("node2.operation", found, probabilities)
    assert other is not None
    assert (other.option, round(other.margin, 6)) == ("relu", 0.1)
    other = space.runner_up("node2.input", found, probabilities)
    assert other is not None
    assert (other.option, round(other.margin, 6)) == ("0 (identity)", 0.2)
    assert space.genotype(other.architecture).recurrent[1] == ("identity", 0)


def test_a_description_gives_the_space_back_and_a_genotype_its_own_number_of_nodes() -> None:
    space = space_of(concat=(1, 3))
    again = space_from_description(space.describe())
    assert isinstance(again, Recurrent)
    assert (again.settings(), again.signature) == (space.settings(), TEXT)
    enas = RecurrentGenotype((("tanh", 0),) * 11, (2, 5, 6))
    larger = space.for_genotype(enas)
    assert larger.genotype(larger.architecture(enas)) == enas
    assert space.for_genotype(RecurrentGenotype((("tanh", 0),) * 3, (1, 3))) is space


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"nodes": 0}, "nodes"), ({"width": 0}, "width"), ({"concat": (4,)}, "concat"), ({"concat": (1, 1)}, "concat")],
)
def test_impossible_settings(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        space_of(**settings)
    assert refused.value.key == key


def test_images_are_refused_in_words() -> None:
    with pytest.raises(InvalidValue, match="space=macro"):
        Recurrent(signature=Signature((1, 8, 8), 10))


def test_all_cells_cost_the_same() -> None:
    space = space_of()
    costs = BlockCosts("multiply_adds")
    for seed in range(3):
        architecture = space.sample(Generator().manual_seed(seed)).architecture
        counted = count_multiply_adds(space.network(architecture), TEXT)
        assert float(space.expected_cost(space.architecture_weights(architecture), costs)) == counted
    products = LENGTH * (2 * WIDTH * 2 * WIDTH + 3 * WIDTH * 2 * WIDTH + WIDTH * VOCABULARY)
    assert counted == products
    supernet, _ = supernet_of()
    searched = LENGTH * (2 * WIDTH * 2 * WIDTH + 6 * WIDTH * 2 * WIDTH + WIDTH * VOCABULARY)
    assert supernet_multiply_adds(space, supernet.relaxation) == searched
