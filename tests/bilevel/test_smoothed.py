"""Alpha's gradient under Gumbel noise, against a plain backward pass through the same noise."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.bilevel import BilevelOptimiser, Exact, FirstOrder, Hypergradient, LastStep, LastStepOrExact, Smoothed
from nas.errors import InvalidValue
from nas.relaxations import GumbelSoftmax, Sigmoid, Temperature
from nas.search.gradient_search import GradientSearch
from nas.signature import Signature
from tests.bilevel.test_last_step import kept_step
from tests.killing import assert_same_bytes, assert_same_results, killed
from tests.problems import ADAM, CELL_SPACES, digits, search_parts

TYPES = {"layer3-type"}  # of the space of the problems: everything else there is an attribute
BOTH = {"architecture_gradient": Smoothed(), "hyperparameter_gradient": Smoothed()}


def expected(supernet, batch, generator: torch.Generator) -> dict[str, Tensor]:
    """The gradients of all alphas; a softmax of temperature 0.9, and noise from ``generator`` for all but the types."""

    def gradients(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        loss = F.cross_entropy(supernet(batch.inputs, weights), batch.targets)
        return dict(zip(alphas, torch.autograd.grad(loss, list(alphas.values()), materialize_grads=True), strict=True))

    alphas = dict(supernet.alpha)
    noisy = {}
    for name, alpha in alphas.items():
        noisy[name] = alpha / 0.9
        if name not in TYPES:
            uniform = torch.rand(alpha.shape, generator=generator, dtype=alpha.dtype)
            noisy[name] = noisy[name] - torch.log(-torch.log(uniform))
    plain = gradients({name: (alpha / 0.9).softmax(-1) for name, alpha in alphas.items()})
    found = gradients({name: one.softmax(-1) for name, one in noisy.items()})
    return {name: plain[name] if name in TYPES else found[name] for name in alphas}


@pytest.mark.parametrize("learned", [True, False])
def test_attributes_get_the_gradient_under_noise_and_types_the_one_without(learned, make_problem, make_batch):
    problem = make_problem(filled=True)
    supernet, generator = problem.supernet, problem.generators[1]
    if learned:
        kept_step(problem, make_batch(10))
    supernet.dropout.eval()  # the validation loss has none
    own = torch.Generator()
    own.set_state(generator.get_state())
    alphas = dict(supernet.alpha)
    targets = [*problem.hyperparameters.raw_parameters(), *alphas.values()] if learned else list(alphas.values())
    report = Smoothed().gradients(problem, make_batch(10), make_batch(11), targets)
    assert report.passes == (0, 2)
    assert set(alphas) > TYPES
    found = dict(zip(alphas, report.gradients[len(targets) - len(alphas) :], strict=True))
    for name, gradient in expected(supernet, make_batch(11), own).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)
    assert torch.equal(generator.get_state(), own.get_state())  # and nothing else was drawn


def test_hyperparameters_get_what_they_get_without_the_noise(make_problem, make_batch):
    reports = []
    for hypergradient in (Smoothed(), LastStep()):
        problem = make_problem(filled=True, clip=0.1)
        kept_step(problem, make_batch(10))
        targets = [*problem.hyperparameters.raw_parameters(), *problem.supernet.architecture_parameters()]
        reports.append(hypergradient.gradients(problem, make_batch(10), make_batch(11), targets))
    ours, plain = reports
    for one, other in zip(ours.gradients[:3], plain.gradients[:3], strict=True):
        assert torch.equal(one, other)
    assert any(not torch.equal(one, other) for one, other in zip(ours.gradients[3:], plain.gradients[3:], strict=True))
    assert torch.equal(ours.validation_loss, plain.validation_loss)
    assert torch.equal(ours.validation_logits, plain.validation_logits)


def test_its_passes_are_counted(make_problem, make_batch):
    problem = make_problem()
    bilevel = BilevelOptimiser(problem, Smoothed(), Smoothed(), ADAM)
    assert [len(bilevel.requests(*asked)) for asked in ((True, True), (True, False), (False, True))] == [1, 1, 1]
    for asked, passes in (((True, True), 3), ((True, False), 3), ((False, True), 2)):
        outcome = bilevel.step(make_batch(10), make_batch(11), bilevel.requests(*asked))
        assert outcome.samples == 8 * passes
        assert outcome.samples <= 8 * (1 + bilevel.most_passes())


def test_what_was_taken_away_stays_away(make_problem, make_batch):
    problem = make_problem()
    kept = torch.tensor([1.0, 0.0])
    problem.supernet.keep("layer4-units", kept)
    seen, original = [], problem.operation_gradients

    def looking(batch, weights):
        seen.append(weights)
        return original(batch, weights)

    problem.operation_gradients = looking
    report = Smoothed().gradients(problem, make_batch(10), make_batch(11), problem.supernet.architecture_parameters())
    assert [one["layer4-units"].tolist() for one in seen] == [[1, 0], [1, 0]]
    assert all(bool(gradient.isfinite().all()) for gradient in report.gradients)


def test_a_killed_search_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """Two epochs of four steps with a checkpoint at every third: the noise after it is drawn again."""

    def made(name: str) -> GradientSearch:
        return GradientSearch(search_parts(tmp_path / name, splits=digits(), search={"architecture_every": 2}, **BOTH))

    whole, broken = made("whole"), made("killed")
    result = whole.search()
    with killed(broken.problem, "step", lambda *_: broken.step == 5):
        broken.search()
    resumed = made("killed")
    assert_same_results(resumed.search(), result)
    assert_same_bytes(tmp_path / "killed", tmp_path / "whole")
    states = [search.supernet.state_dict() for search in (whole, resumed)]
    assert all(torch.equal(entry, states[1][key]) for key, entry in states[0].items())
    # a pass of either batch, half of the steps another for the noise; the validation split before and after
    assert result.cost.samples == 16 * (8 + 8 + 4) + 2 * 48


@pytest.mark.parametrize("space", CELL_SPACES)
def test_a_space_without_attributes_is_refused(space: str, tmp_path: Path) -> None:
    made = CELL_SPACES[space](implementation="fast", signature=Signature((1, 8, 8), 10))
    sentence = rf"^hypergradient=Smoothed is not allowed: .*, and space={space} has none: take first_order\.$"
    with pytest.raises(InvalidValue, match=sentence):
        GradientSearch(search_parts(tmp_path, space=made, **BOTH))


@pytest.mark.parametrize("relaxation", [Sigmoid(), GumbelSoftmax(Temperature(), True, "official", True)])
def test_a_relaxation_whose_weights_do_not_mix_is_refused(relaxation, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="adds noise to weights that mix and add up to 1: take softmax"):
        GradientSearch(search_parts(tmp_path, relaxation=relaxation, **BOTH))


@pytest.mark.parametrize(
    ("architecture", "learned", "sentence"),
    [
        (Smoothed(), LastStep(), "hypergradient=Smoothed is not allowed: beside LastStep, which looks back"),
        (FirstOrder(), Smoothed(), "hypergradient=FirstOrder is not allowed: beside Smoothed, which looks back"),
        (Smoothed(), Exact(), "hyperparameters.gradient=Exact is not allowed: beside hypergradient=Smoothed"),
    ],
)
def test_it_moves_both_or_is_refused(
    architecture: Hypergradient, learned: Hypergradient, sentence: str, tmp_path: Path
) -> None:
    assert LastStepOrExact().suited_to(Smoothed()) == Exact()  # as the default of the hyperparameters is refused, too
    both = {"architecture_gradient": architecture, "hyperparameter_gradient": learned}
    with pytest.raises(InvalidValue, match=sentence):
        GradientSearch(search_parts(tmp_path, **both))
