"""Neumann series and conjugate gradients against a quadratic that is solved directly."""

import pytest
import torch
from torch import Tensor

from nas.bilevel.by_kind import ByKind
from nas.bilevel.exact import Exact
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.forward_accumulation import ForwardAccumulation
from nas.bilevel.implicit import ConjugateGradient, NeumannSeries
from nas.bilevel.reach import check_reach
from nas.data.batches import Batch
from nas.errors import InvalidValue

SIZE, DECAY = 7, 0.05


class Quadratic:
    """``L_train = w.A.w / 2 - (b + C h).w``, ``L_val = |w - t|^2 / 2 + h.h``, with a weight decay on ``w``."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        root = draw(SIZE, SIZE)
        self.matrix = root @ root.T / SIZE + 0.3 * torch.eye(SIZE, dtype=torch.float64)
        self.offset, self.coupling, self.goal = draw(SIZE), draw(SIZE, 2), draw(SIZE)
        self.hyperparameter = torch.nn.Parameter(draw(2))
        self.raw_decay = torch.nn.Parameter(torch.tensor(DECAY, dtype=torch.float64).log())
        self.parts = [torch.nn.Parameter(part) for part in self.solution().split([3, SIZE - 3])]

    def solution(self) -> Tensor:
        hessian = self.matrix + DECAY * torch.eye(SIZE, dtype=torch.float64)
        return torch.linalg.solve(hessian, self.offset + self.coupling @ self.hyperparameter.detach())

    def weights(self) -> dict[str, Tensor]:
        return {"first": self.parts[0], "second": self.parts[1]}

    def values(self) -> dict[str, Tensor]:
        return {"weight_decay": self.raw_decay.exp()}

    def training_loss(self, weights: dict[str, Tensor], batch: Batch, values: dict[str, Tensor]) -> Tensor:
        w = torch.cat(list(weights.values()))
        return w @ self.matrix @ w / 2 - (self.offset + self.coupling @ self.hyperparameter) @ w

    def validation_loss(self, weights: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        w = torch.cat(list(weights.values()))
        return (w - self.goal).square().sum() / 2 + self.hyperparameter.square().sum(), w

    def through_the_solution(self) -> tuple[Tensor, Tensor]:
        """The gradients by differentiating the closed form of the minimum."""
        h, raw = self.hyperparameter.detach().requires_grad_(), self.raw_decay.detach().requires_grad_()
        hessian = self.matrix + raw.exp() * torch.eye(SIZE, dtype=torch.float64)
        w = torch.linalg.solve(hessian, self.offset + self.coupling @ h)
        loss = (w - self.goal).square().sum() / 2 + h.square().sum()
        return torch.autograd.grad(loss, [h, raw])


def found_by(hypergradient, problem: Quadratic) -> list[Tensor]:
    return hypergradient.gradients(problem, None, None, [problem.hyperparameter, problem.raw_decay]).gradients


@pytest.mark.parametrize(
    "hypergradient",
    [ConjugateGradient(iterations=SIZE, damping=0.0), NeumannSeries(terms=400, step=0.4)],
    ids=["cg", "neumann"],
)
def test_it_is_the_gradient_through_the_directly_solved_minimum(hypergradient):
    problem = Quadratic()
    for found, expected in zip(found_by(hypergradient, problem), problem.through_the_solution(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("terms", [0, 1, 4])
def test_a_short_series_is_the_partial_sum(terms):
    problem = Quadratic()
    hessian = problem.matrix + DECAY * torch.eye(SIZE, dtype=torch.float64)
    shrink = torch.eye(SIZE, dtype=torch.float64) - 0.4 * hessian
    inverse = 0.4 * sum(torch.linalg.matrix_power(shrink, power) for power in range(terms + 1))
    slope = problem.solution() - problem.goal
    expected = 2 * problem.hyperparameter.detach() + slope @ inverse @ problem.coupling
    found, _ = found_by(NeumannSeries(terms, 0.4), problem)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_a_few_iterations_minimise_the_error_over_the_krylov_space(damping):
    problem = Quadratic()
    operator = problem.matrix + damping * torch.eye(SIZE, dtype=torch.float64)
    right = problem.goal
    solution, products = ConjugateGradient(3, damping).solve(lambda vector: [problem.matrix @ vector[0]], [right])
    assert products == 3
    krylov, _ = torch.linalg.qr(torch.stack([right, operator @ right, operator @ operator @ right], 1))
    expected = krylov @ torch.linalg.solve(krylov.T @ operator @ krylov, krylov.T @ right)
    torch.testing.assert_close(solution[0], expected, rtol=1e-8, atol=1e-10)


def test_a_series_that_would_not_converge_ends():
    growing = NeumannSeries(50, 10.0).solve(lambda vector: [2.0 * vector[0]], [torch.ones(3)])
    torch.testing.assert_close(growing[0][0], 10.0 * torch.ones(3))
    assert growing[1] == 1


def test_a_direction_that_bends_downwards_ends_the_iterations():
    solution, products = ConjugateGradient(5, 0.0).solve(lambda vector: [-vector[0]], [torch.ones(3)])
    assert products == 1
    assert torch.equal(solution[0], torch.zeros(3))


@pytest.mark.parametrize("hypergradient", [NeumannSeries(3, 0.05), ConjugateGradient(3)], ids=["neumann", "cg"])
def test_passes_are_counted_and_hyperparameters_of_a_network_are_reached(
    hypergradient, make_problem, make_batch, monkeypatch
):
    problem = make_problem()
    targets = [*problem.supernet.architecture_parameters(), problem.hyperparameters.raw["dropout"]]
    report = hypergradient.gradients(problem, make_batch(10), make_batch(11), targets)
    assert report.passes[1] == 1
    assert 3 <= report.passes[0] <= 5
    assert all(bool(torch.isfinite(gradient).all()) for gradient in report.gradients)
    assert float(report.gradients[-1]) != 0


@pytest.mark.parametrize(
    ("learned", "hypergradient", "sentence"),
    [
        (("learning_rate",), NeumannSeries(), "gives learning_rate, which acts on the weight update, no gradient"),
        (("dropout", "learning_rate"), ConjugateGradient(), "gives learning_rate, which acts on the weight update"),
        (("dropout",), FirstOrder(), "gives dropout, which acts through the training loss, no gradient"),
        (("dropout",), None, "learned hyperparameters need one"),
        (("learning_rate",), ByKind(Exact(), NeumannSeries()), "gives learning_rate, which acts on the weight update"),
    ],
)
def test_what_gets_no_gradient_is_refused_in_a_sentence(learned, hypergradient, sentence, make_problem):
    hyperparameters = make_problem(learned=learned).hyperparameters
    with pytest.raises(InvalidValue, match=sentence) as error:
        check_reach(None, hypergradient, hyperparameters)
    assert str(error.value).startswith("hyperparameters.gradient=")


def test_accumulation_is_refused_for_the_architecture(make_problem):
    with pytest.raises(InvalidValue, match=r"^hypergradient=ForwardAccumulation .* gives the architecture no gradient"):
        check_reach(ForwardAccumulation(), None, make_problem(learned=()).hyperparameters)


def test_what_is_reached_is_accepted(make_problem):
    everything = ("learning_rate", "weight_decay", "dropout")
    for learned, hypergradient in {
        everything: ByKind(NeumannSeries(), Exact()),
        ("weight_decay", "dropout"): ConjugateGradient(),
        ("learning_rate", "dropout"): ForwardAccumulation(),
    }.items():
        check_reach(
            hypergradient if hypergradient == ConjugateGradient() else Exact(),
            hypergradient,
            make_problem(learned=learned).hyperparameters,
        )


def test_by_kind_gives_each_what_its_hypergradient_finds(make_problem, make_batch):
    batches = make_batch(10), make_batch(11)
    together, apart = make_problem(), make_problem()
    raw = together.hyperparameters.raw
    report = ByKind(NeumannSeries(2, 0.05), Exact()).gradients(together, *batches, list(raw.values()))

    first = NeumannSeries(2, 0.05).gradients(apart, *batches, [apart.hyperparameters.raw["dropout"]])
    rates = [apart.hyperparameters.raw[name] for name in ("learning_rate", "weight_decay")]
    second = Exact().gradients(apart, *batches, rates)
    names = ("dropout", "learning_rate", "weight_decay")
    expected = dict(zip(names, [*first.gradients, *second.gradients], strict=True))
    for name, gradient in zip(raw, report.gradients, strict=True):
        assert torch.equal(gradient, expected[name]), name
    assert report.passes == (first.passes[0] + second.passes[0], 2)
    assert report.step_length == second.step_length


def test_by_kind_hands_on_what_a_hypergradient_that_follows_the_steps_needs(make_problem, make_batch):
    problem = make_problem()
    hypergradient = ByKind(Exact(), ForwardAccumulation())
    raw = problem.hyperparameters.raw_parameters()
    assert (hypergradient.needs_graph, ByKind(Exact(), NeumannSeries()).needs_graph) == ("always", "never")
    step = problem.step(make_batch(1), keep_graph=True, second_order=True)
    assert hypergradient.after_weight_step(problem, step, raw) == 2  # learning rate and weight decay
    state = hypergradient.state_dict()
    assert state.keys() == {"loss", "update"}
    assert state["loss"] == {}
    assert set(state["update"]["tangents"]) == {"learning_rate", "weight_decay"}
    other = ByKind(Exact(), ForwardAccumulation())
    other.load_state_dict(state)
    assert other.state_dict()["update"]["age"] == 1
    other.forget()
    assert other.state_dict()["update"]["age"] == 0
