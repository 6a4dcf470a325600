"""Neighbours: what is drawn, who leads, what is paid, and a search that ends in such a local search."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import train_search
from nas.candidate import Architecture, Candidate, Hyperparameters, Range
from nas.errors import InvalidValue
from nas.evaluation.evaluation import Cost, Evaluation, EvaluationCache
from nas.search.neighbours import Climb, Neighbourhood
from nas.search.trainings import Trainer
from nas.signature import Signature
from nas.spaces import Macro
from tests.killing import killed_before_a_training

RATE = "learning_rate"
STEPS = {RATE: (2.0, Range(1e-4, 0.5, "log")), "dropout": (0.2, Range(0.0, 0.9, "logit"))}
LAYERS = [
    {"type": "conv", "filters": [2, 4, 8], "kernel_size": [3, 5]},
    {"type": "conv", "filters": [2, 4], "kernel_size": [3, 5], "optional": True},
    {"type": "dense", "units": [8, 16]},
]
SPACE = Macro(LAYERS, ["relu", "sigmoid"], signature=Signature((1, 8, 8), 10))
CONF = Path(__file__).resolve().parents[2] / "conf"
WHOLE, SHORT = 10, 2  # what trainings cost, in samples
Loss = Callable[[Candidate], float]


def start(rate: float = 0.02, dropout: float = 0.3) -> Candidate:
    options = {choice.name: choice.options[0] for choice in SPACE.choices}
    return Candidate(Architecture("macro", options), Hyperparameters({RATE: rate, "dropout": dropout, "momentum": 0.9}))


def drawn(seed: int = 0, steps: dict[str, tuple[float, Range]] = STEPS) -> Neighbourhood:
    return Neighbourhood(SPACE, steps, torch.Generator().manual_seed(seed))


def test_neighbours_differ_in_a_choice_or_two_and_every_third_in_a_hyperparameter() -> None:
    source, centre = drawn(), start()
    for number in range(1, 13):
        one = source.neighbour(centre)
        assert one is not None
        names = [name for name in centre.architecture if one.architecture[name] != centre.architecture[name]]
        values = [name for name in STEPS if one.hyperparameters[name] != centre.hyperparameters[name]]
        if number % 3 == 0:
            assert (len(names), len(values)) == (0, 1)
        else:
            assert len(names) in (1, 2)
            assert values == []
        assert one.hyperparameters["momentum"] == 0.9


def test_nothing_is_drawn_twice_and_the_end_is_told() -> None:
    source, centre = drawn(steps={}), start()
    given = []
    while (one := source.neighbour(centre)) is not None:
        given.append(one)
    networks = {tuple(SPACE.layer_descriptions(one.architecture)) for one in [centre, *given]}
    assert len(networks) == len(given) + 1  # another network each time, whatever options have no effect
    assert len(given) > 20


def test_a_step_ends_at_the_end_of_the_range() -> None:
    source = drawn()
    values = [one.hyperparameters for _ in range(15) if (one := source.neighbour(start(0.5, 0.85))) is not None]
    assert {(one[RATE], round(one["dropout"], 6)) for one in values} == {
        (0.5, 0.85),
        (0.25, 0.85),
        (0.5, 0.9),
        (0.5, 0.65),
    }


@dataclass
class MadeUp:
    """Trainings whose losses are functions of the candidate."""

    short: Loss
    whole: Loss
    budget: int = 10**9
    done: list[Evaluation] = field(default_factory=list)

    @property
    def spent(self) -> int:
        return sum(trial.cost.samples for trial in self.done)

    def affords(self, price: Cost) -> bool:
        return self.spent + price.samples <= self.budget

    def train(self, trainer: Any, candidate: Candidate) -> Evaluation | None:
        price = trainer.price(candidate)
        if not self.affords(price):
            return None
        loss = self.short(candidate) if price.samples == SHORT else self.whole(candidate)
        self.done.append(Evaluation(candidate, {"loss": loss}, price))
        return self.done[-1]

    def wholes(self) -> list[Evaluation]:
        return [trial for trial in self.done if trial.cost.samples == WHOLE]


def climb_of(made_up: MadeUp, trials: int = 1000, tried: int = 6, confirmed: int = 2) -> Climb:
    def trainer(epochs: int) -> Any:  # an epoch costs a sample
        return SimpleNamespace(epochs=epochs, price=lambda _: Cost(epochs, float(epochs), 1))

    rules = SimpleNamespace(tried=tried, confirmed=confirmed, trials=trials, short=trainer(SHORT), whole=trainer(WHOLE))
    rules.longer, rules.between = trainer, range(SHORT + 1, WHOLE + 1)
    return Climb(start(), drawn().neighbour, cast(Any, rules), cast(Any, made_up))


def climbed(made_up: MadeUp, trials: int = 1000, tried: int = 6, confirmed: int = 2) -> Climb:
    climb = climb_of(made_up, trials, tried, confirmed)
    while climb.round():
        pass
    assert len(made_up.done) == len({(one.candidate, one.cost.samples) for one in made_up.done})
    return climb


def distance(candidate: Candidate) -> float:
    """Of the architecture from the one with the widest layers: the choices that differ."""
    wanted = {"layer1.filters": "8", "layer2.filters": "4", "layer3.units": "16", "layer1.activation": "sigmoid"}
    return 1.0 + sum(candidate.architecture[name] != option for name, option in wanted.items())


def test_it_climbs_to_the_optimum() -> None:
    made_up = MadeUp(distance, distance)
    climb = climbed(made_up, trials=150)
    assert distance(climb.lead) == 1.0
    leads = [trial.metrics["loss"] for trial in made_up.wholes()]
    assert leads[0] == distance(start())  # the start is among them, and the first
    assert climb.in_words().endswith("loss 5 -> 1")


def test_only_a_whole_training_takes_the_lead() -> None:
    made_up = MadeUp(distance, lambda candidate: -distance(candidate))  # short trainings mislead
    climb = climbed(made_up, trials=60)
    assert climb.lead == start()
    assert climb.in_words().endswith("the start stays")
    assert len(made_up.wholes()) > 1


def test_where_no_short_training_is_better_no_whole_one_is_made() -> None:
    made_up = MadeUp(lambda candidate: float(candidate != start()), distance)
    assert climbed(made_up, trials=30).lead == start()
    assert made_up.wholes() == []


@pytest.mark.parametrize("budget", [0, 12, 23, 24, 40, 57, 80])
def test_the_budget_is_never_exceeded_and_pays_for_a_contest(budget: int) -> None:
    made_up = MadeUp(distance, distance, budget)
    climb = climbed(made_up, tried=4, confirmed=1)
    assert made_up.spent <= budget
    if budget >= 40:
        assert distance(climb.lead) < distance(start())
        assert budget - made_up.spent < 2 * SHORT + WHOLE + WHOLE  # nothing more could be tried with it


def proposed(made_up: MadeUp, trials: int = 1000) -> Climb:
    climb = climb_of(made_up, trials)
    assert not climb.affords_half_a_round()
    climb.one_proposal(drawn().network)
    return climb


def test_where_no_half_a_round_can_be_paid_for_a_longer_contest_decides_on_one_proposal() -> None:
    made_up = MadeUp(distance, distance, budget=26)
    climb = proposed(made_up)
    *short, first, second = made_up.done
    assert [trial.cost.samples for trial in short] == [SHORT] * 7  # half of the budget, and what rounding leaves of it
    assert {trial.candidate.hyperparameters for trial in short} == {start().hyperparameters}
    assert [trial.cost.samples for trial in (first, second)] == [6, 6]
    assert (first.candidate, second.candidate) == (start(), climb.lead)
    assert distance(climb.lead) == min(trial.metrics["loss"] for trial in short) < distance(start())
    assert climb.in_words() == f"7 short trainings, 2 of 6 epochs: loss 5 -> {distance(climb.lead):g}"


def test_the_start_stays_where_the_contest_does_not_confirm_the_proposal() -> None:
    climb = proposed(MadeUp(distance, lambda candidate: -distance(candidate), budget=24))  # short trainings mislead
    assert climb.lead == start()
    assert climb.in_words().endswith("2 of 6 epochs: the start stays")


def test_where_no_short_training_is_better_there_is_no_contest() -> None:
    made_up = MadeUp(lambda candidate: float(candidate != start()), distance, budget=24)
    assert proposed(made_up).lead == start()
    assert {trial.cost.samples for trial in made_up.done} == {SHORT}


@pytest.mark.parametrize("budget", range(28))
def test_what_is_left_is_never_exceeded_and_not_spent_in_vain(budget: int) -> None:
    made_up = MadeUp(distance, distance, budget)
    climb = proposed(made_up)
    assert made_up.spent <= budget
    if budget < 4 * (SHORT + 1):  # half of it pays for no contest
        assert made_up.done == []
    else:
        assert distance(climb.lead) < distance(start())


@pytest.mark.parametrize("trials", [1, 2, 3, 4, 6])
def test_trials_are_the_most_trainings_of_a_proposal_too(trials: int) -> None:
    made_up = MadeUp(distance, distance, budget=27)
    assert (proposed(made_up, trials).lead != start()) == (trials >= 4)  # a start, a neighbour, and their contest
    assert len(made_up.done) <= trials


def test_a_contest_has_random_numbers_of_its_own_and_the_same_at_every_start(tmp_path: Path) -> None:
    def seeds(*more: str) -> list[int]:
        parts = train_search.built_parts(small_search(*more), tmp_path)
        trainers = [
            Trainer("neighbours_short", 1, parts),
            *(Trainer(name, 2, parts, own_numbers=True) for name in ("neighbours_2_epochs", "neighbours_3_epochs")),
        ]
        return [trainer.from_scratch.setup.seed_for(start()) for trainer in trainers]

    assert seeds() == seeds()
    assert len({*seeds(), *seeds("seed=5")}) == 6


@pytest.mark.parametrize("trials", [1, 2, 5, 9])
def test_trials_are_the_most_trainings(trials: int) -> None:
    made_up = MadeUp(distance, distance)
    climbed(made_up, trials)
    assert len(made_up.done) <= trials


def test_the_best_of_a_round_competes() -> None:
    made_up = MadeUp(distance, distance)
    climbed(made_up, trials=20, tried=5, confirmed=1)
    for before, after in pairwise(made_up.wholes()):
        earlier = made_up.done[: made_up.done.index(after)]
        assert after.metrics["loss"] == min(one.metrics["loss"] for one in earlier if one.cost.samples == SHORT)
        assert after.metrics["loss"] < before.metrics["loss"]


def small_search(*more: str) -> DictConfig:
    overrides = ["experiment=debug", "method=neighbours", "final.epochs=2", "method.short_epochs=1", "search.epochs=1"]
    overrides += ["search.warmup_epochs=0", "hypergradient@hyperparameters.gradient=last_step"]
    overrides += ["data.split={train:64,validation:32,test:300}", "method.tried=4", "method.trials=7"]
    overrides += ["method.inner.trials=2", "method.inner.epochs=1"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        quiet = ("tracking.console=quiet", "tracking.tensorboard=false", "device=cpu")
        return compose("train_search", [*overrides, *more, *quiet])


@pytest.mark.slow
def test_a_search_ends_in_it_and_goes_on_between_two_trainings(tmp_path: Path) -> None:
    whole = killed_before_a_training(lambda folder: train_search.search(small_search(), folder)[0], 5, tmp_path)
    names = ("coarse_to_fine", "neighbours", "neighbours_short")
    kept = {name: list(EvaluationCache(tmp_path / "whole" / f"{name}.jsonl")) for name in names}
    assert len(kept["neighbours_short"]) + len(kept["neighbours"]) in (5, 6, 7)
    assert {"coarse to fine", "neighbours"} <= whole.remarks.keys()
    assert whole.cost.samples > sum(trial.cost.samples for trials in kept.values() for trial in trials)


def test_a_search_ends_in_a_contest_and_goes_on_before_it(tmp_path: Path) -> None:
    overrides = ("method.inner.from_usual=false", "final.epochs=4", "method.trials=60", "budget.samples=1500")
    result = killed_before_a_training(
        lambda folder: train_search.search(small_search(*overrides), folder)[0], 4, tmp_path
    )
    short, longer = (
        list(EvaluationCache(tmp_path / "whole" / f"neighbours_{name}.jsonl")) for name in ("short", "2_epochs")
    )
    assert [len(short), len(longer)] == [3, 2]  # of 96 and 160 samples; the search has left 700
    assert longer[0].candidate == short[0].candidate
    assert result.candidate == min(longer, key=lambda trial: trial.metrics["loss"]).candidate
    assert result.remarks["neighbours"].startswith("3 short trainings, 2 of 2 epochs: ")
    assert result.cost.samples == 1408


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("short_epochs", "2"),
        ("tried", "0"),
        ("confirmed", "5"),
        ("trials", "0"),
        ("steps.learning_rate", "0.5"),
    ],
)
def test_refused_settings(key: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=rf"^method\.{key}={value} is not allowed"):
        train_search.run(small_search(f"method.{key}={value}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
