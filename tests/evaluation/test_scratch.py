"""Candidates trained from scratch: what is counted, in rungs, in parallel, and always the same."""

import gc
import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from nas.candidate import Architecture, Candidate, Hyperparameters
from nas.errors import InvalidValue, UnusableInput
from nas.evaluation.evaluator import SuccessiveHalving
from nas.evaluation.objective import Fixed
from nas.evaluation.scratch import TrainedFromScratch
from nas.evaluation.training_setup import TrainingSetup

CHOSEN = {
    "layer1.filters": "4",
    "layer1.kernel_size": "3",
    "layer2.kind": "max",
    "layer3.type": "dense",
    "layer3.dense.units": "8",
}


def chosen(setup: TrainingSetup, **values: float) -> Candidate:
    options = {choice.name: choice.options[0] for choice in setup.space.choices} | {
        name: option for name, option in CHOSEN.items() if name in {choice.name for choice in setup.space.choices}
    }
    return Candidate(Architecture(setup.space.name, options), Hyperparameters(values))


@pytest.mark.parametrize(("epoch_samples", "passes"), [(0, 1), (250, 3)])
def test_the_cost_is_the_hand_count(setup: TrainingSetup, accuracy: Fixed, epoch_samples: int, passes: int) -> None:
    setup = replace(setup, epoch_samples=epoch_samples)
    evaluator = TrainedFromScratch(2, setup=setup, objective=accuracy)
    candidate = chosen(setup, batch_size=32, learning_rate=0.05)
    (found,) = evaluator.evaluate([candidate])
    trained = 2 * passes * (100 // 32) * 32  # whole batches of two epochs
    assert found.cost.samples == trained + 48
    kernel = int(candidate.architecture["layer1.kernel_size"])
    dense = 4 * 4 * 4 * 8 + 8 * 10 if candidate.architecture["layer3.type"] == "dense" else 4 * 4 * 4 * 10
    per_image = 8 * 8 * 4 * kernel**2 + dense
    assert found.metrics["multiply_adds"] == per_image
    assert found.cost.multiply_adds == per_image * (3 * trained + 48)
    assert found.cost.evaluations == 1
    assert found.cost.seconds > 0
    price = evaluator.price(candidate)
    assert (price.samples, price.multiply_adds) == (found.cost.samples, found.cost.multiply_adds)
    network = setup.space.network(candidate.architecture)
    assert found.metrics["parameters"] == sum(parameter.numel() for parameter in network.parameters())


def test_training_learns_and_uses_the_candidates_hyperparameters(setup: TrainingSetup, accuracy: Fixed) -> None:
    evaluator = TrainedFromScratch(8, setup=setup, objective=accuracy)
    rates = evaluator.evaluate([chosen(setup, learning_rate=rate) for rate in (1e-6, 0.1)])
    assert rates[0].metrics["accuracy"] < 0.3 < 0.5 < rates[1].metrics["accuracy"]
    assert rates[1].metrics["loss"] < math.log(10) - 0.5
    dropouts = evaluator.evaluate([chosen(setup, learning_rate=0.1, dropout=rate) for rate in (0.0, 0.5)])
    assert dropouts[0].metrics["loss"] != dropouts[1].metrics["loss"]


def test_the_same_whatever_the_order_and_the_number_of_jobs(
    setup: TrainingSetup, candidates: list[Candidate], accuracy: Fixed, without_seconds: Callable[[Any], Any]
) -> None:
    torch.manual_seed(1)
    alone = TrainedFromScratch(1, setup=setup, objective=accuracy).evaluate(candidates)
    torch.manual_seed(2)
    backwards = TrainedFromScratch(1, setup=setup, objective=accuracy).evaluate(candidates[::-1])[::-1]
    parallel = TrainedFromScratch(1, jobs=2, setup=setup, objective=accuracy).evaluate(candidates)
    expected = [without_seconds(one) for one in alone]
    assert [without_seconds(one) for one in backwards] == expected
    assert [without_seconds(one) for one in parallel] == expected


def test_the_global_generator_and_the_threads_stay_as_they_were(
    setup: TrainingSetup, candidates: list[Candidate], accuracy: Fixed
) -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    TrainedFromScratch(1, setup=setup, objective=accuracy).evaluate(candidates[:1])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_another_run_seed_gives_another_training(
    make_setup: Callable[..., TrainingSetup], candidates: list[Candidate], accuracy: Fixed
) -> None:
    losses = {
        TrainedFromScratch(1, setup=make_setup(seed), objective=accuracy).evaluate(candidates[:1])[0].metrics["loss"]
        for seed in (0, 1, 2)
    }
    assert len(losses) == 3


class Keep:
    """Keeps what it is told to and remembers what it has seen."""

    def __init__(self, *kept: int) -> None:
        self.kept, self.seen = kept, [dict[int, float]()]

    def survivors(self, rung: int, scores: Mapping[int, float]) -> list[int]:
        assert rung == len(self.seen) - 1
        self.seen.append(dict(scores))
        return list(self.kept)


def test_rungs_keep_the_state_of_a_training(setup: TrainingSetup, candidates: list[Candidate], accuracy: Fixed) -> None:
    whole = TrainedFromScratch(3, setup=setup, objective=accuracy).evaluate(candidates[:3])
    pruner = Keep(0, 2)
    evaluator = TrainedFromScratch(3, [1, 2], setup=setup, objective=accuracy)
    in_rungs = evaluator.evaluate(candidates[:3], pruner)
    for index in (0, 2):
        assert in_rungs[index].metrics == whole[index].metrics
        assert in_rungs[index].cost.samples == whole[index].cost.samples + 2 * 48  # measured at each rung
    assert in_rungs[1].metrics["fidelity"] == pytest.approx(1 / 3)
    assert in_rungs[1].cost.samples < whole[1].cost.samples / 2
    assert [set(scores) for scores in pruner.seen[1:]] == [{0, 1, 2}, {0, 2}]
    parallel = TrainedFromScratch(3, [1, 2], jobs=2, setup=setup, objective=accuracy)
    assert [one.metrics for one in parallel.evaluate(candidates[:3], Keep(0, 2))] == [one.metrics for one in in_rungs]
    assert all(one.cost.samples <= evaluator.price(one.candidate).samples for one in in_rungs)


def test_without_a_pruner_rungs_change_nothing(
    setup: TrainingSetup, candidates: list[Candidate], accuracy: Fixed
) -> None:
    plain = TrainedFromScratch(2, setup=setup, objective=accuracy).evaluate(candidates[:1])
    with_rungs = TrainedFromScratch(2, [1], setup=setup, objective=accuracy).evaluate(candidates[:1])
    assert with_rungs[0].metrics == plain[0].metrics
    assert with_rungs[0].cost.samples == plain[0].cost.samples


def test_halving_keeps_the_best_and_at_least_one() -> None:
    scores = {3: 0.5, 5: 0.9, 7: 0.7, 9: 0.9, 11: -math.inf}
    assert SuccessiveHalving(2).survivors(0, scores) == [5, 9]
    assert SuccessiveHalving(5).survivors(1, scores) == [5]
    assert SuccessiveHalving(100).survivors(0, {4: 0.1}) == [4]


def test_a_diverged_training_is_an_evaluation_with_an_infinite_loss(setup: TrainingSetup) -> None:
    objective = Fixed({"loss": -1.0}, 0.0, {}, space=setup.space)
    evaluator = TrainedFromScratch(2, setup=setup, objective=objective)
    (found,) = evaluator.evaluate([chosen(setup, learning_rate=1e30)])
    assert objective.score(found) == -math.inf
    assert found.cost.samples <= evaluator.price(found.candidate).samples


@pytest.mark.parametrize(("epochs", "rungs"), [(0, []), (2, [2]), (3, [2, 1]), (3, [0])])
def test_impossible_rungs_are_refused(setup: TrainingSetup, accuracy: Fixed, epochs: int, rungs: list[int]) -> None:
    with pytest.raises(InvalidValue):
        TrainedFromScratch(epochs, rungs, setup=setup, objective=accuracy)


def test_ray_is_asked_for_by_name(setup: TrainingSetup, accuracy: Fixed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UnusableInput, match="pip install"):
        TrainedFromScratch(1, backend="ray", setup=setup, objective=accuracy)


def test_what_was_counted_of_a_space_goes_with_it(make_setup: Callable[..., TrainingSetup]) -> None:
    setup = make_setup()
    architecture = setup.space.sample(torch.Generator().manual_seed(0)).architecture
    assert setup.multiply_adds(architecture) == setup.multiply_adds(architecture) > 0
    space = weakref.ref(setup.space)
    del setup
    gc.collect()
    assert space() is None
