"""The loop around a black-box strategy: what it counts, when it ends, what it writes, and how it goes on."""

import csv
import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.baselines.evolution import AgingEvolution
from nas.baselines.hyperband import Hyperband
from nas.baselines.search import BlackBoxSearch
from nas.baselines.strategy import EncodedStrategy, Scored, Strategy, Vector
from nas.baselines.tpe import TPE
from nas.candidate import Candidate, Hyperparameters, Range
from nas.data.augmentation import Augmentation
from nas.data.pictures.embedded import Digits
from nas.data.stratified_split import SplitSettings
from nas.errors import InvalidValue, RunFailed
from nas.evaluation.budget import Budget
from nas.evaluation.evaluation import Cost, Evaluation
from nas.evaluation.evaluator import Evaluator, Placed, Pruner, SuccessiveHalving
from nas.evaluation.objective import Dynamic, Fixed, Objective
from nas.evaluation.scratch import TrainedFromScratch
from nas.evaluation.training_setup import TrainingSetup
from nas.run.folder import RunFolder
from nas.run.progress import Progress
from nas.run.randomness import Randomness
from nas.run.tracking import TrackingSettings
from nas.spaces.macro.space import Macro
from nas.spaces.space import SearchSpace
from nas.stopping import Stopped
from nas.tasks import Classification
from nas.training.retraining import FinalSettings
from nas.training.settings import TrainingSettings

LAYERS = [{"type": "dense", "units": [2, 3, 4, 5, 6, 7, 8, 9]}]
RANGES = {"learning_rate": Range(1e-3, 0.3, "log")}
QUIET = TrackingSettings(tensorboard=False, console="quiet")


class Listed(EncodedStrategy):
    """Given vectors, or so many random ones, and then no more."""

    def __init__(self, count: int = 0, vectors: Any = (), *, space: SearchSpace, generator: torch.Generator) -> None:
        super().__init__(space=space, generator=generator)
        self.left = [*vectors, *(self.random_vector() for _ in range(count))]

    def propose(self) -> list[Vector]:
        proposed, self.left = self.left, []
        return proposed

    def learn(self, vectors: Sequence[Vector], scores: Sequence[float]) -> None:
        pass


class Drawn(Strategy):
    """Random candidates, two at a time; remembers what it was told."""

    def __init__(self, batch: int = 2, repeat: bool = False, *, space: SearchSpace, generator: torch.Generator) -> None:
        self.space, self.generator, self.batch, self.repeat = space, generator, batch, repeat
        self.pending: list[Candidate] = []
        self.told: list[tuple[str, float]] = []

    def ask(self) -> list[Candidate]:
        if not self.pending:
            drawn = [self.space.sample(self.generator) for _ in range(self.batch)]
            self.pending = [drawn[0]] * self.batch if self.repeat else drawn
        return self.pending

    def tell(self, scored: Sequence[Scored]) -> None:
        assert [one.candidate for one in scored] == self.pending
        self.told += [(one.candidate.fingerprint(), one.score) for one in scored]
        self.pending = []

    def statistics(self) -> dict[str, float]:
        return {"population/diversity": 1.0, "policy/entropy": 0.5}

    def state_dict(self) -> dict[str, Any]:
        return {"told": self.told}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.told = [(name, score) for name, score in state["told"]]


class Widths(Evaluator):
    """The wider the better, at ten samples each; counts what it evaluates."""

    def __init__(self, cacheable: bool = True, stop_after: int | None = None) -> None:
        self.cacheable, self.stop_after = cacheable, stop_after
        self.evaluated: Counter[str] = Counter()

    def evaluate(self, candidates: Sequence[Candidate], pruner: Pruner | None = None) -> list[Evaluation]:
        if self.stop_after is not None and sum(self.evaluated.values()) >= self.stop_after:
            raise KeyboardInterrupt
        self.evaluated.update(candidate.fingerprint() for candidate in candidates)
        return [self._evaluation(candidate) for candidate in candidates]

    def _evaluation(self, candidate: Candidate) -> Evaluation:
        units = int(candidate.architecture["layer1.units"])
        metrics = {"accuracy": units / 10, "loss": -units / 10 - math.log(candidate.hyperparameters["learning_rate"])}
        return Evaluation(candidate, metrics, Cost(10, 100.0, 1, 0.01))

    def price(self, candidate: Candidate) -> Cost:
        return Cost(10, 100.0, 1)


@pytest.fixture(scope="module")
def setup() -> TrainingSetup:
    source = Digits(SplitSettings(64, 48, 100), Augmentation(0, False, 0))
    splits = source.load()
    return TrainingSetup(
        space=Macro(LAYERS, ["relu"], signature=splits.signature, ranges=RANGES),
        task=Classification().fitted(splits)[0],
        train=splits.train,
        validation=splits.validation,
        mean=splits.mean,
        std=splits.std,
        augmentation=source.augmentation,
        training=TrainingSettings(16, 0.9, 5.0, "cosine"),
        final=FinalSettings(1, "learned", None, 0.0, 0.4, "linear", 100),
        held=Hyperparameters({"learning_rate": 0.05, "weight_decay": 3e-4}),
        bound={},
        seed=0,
        device=torch.device("cpu"),
    )


def searching(
    setup: TrainingSetup,
    folder: Path,
    budget: Budget,
    *,
    strategy: Callable[..., Any] = Drawn,
    evaluator: Any = None,
    objective: Objective | None = None,
    **settings: Any,
) -> BlackBoxSearch:
    return BlackBoxSearch(
        strategy,
        space=setup.space,
        setup=setup,
        evaluator=Widths() if evaluator is None else evaluator,
        objective=objective or Fixed({"accuracy": 1.0}, 0.0, {}, space=setup.space),
        budget=budget,
        tracking=QUIET,
        randomness=Randomness(0),
        folder=RunFolder(folder),
        **settings,
    )


def rows(folder: Path, tag: str) -> list[tuple[int, float]]:
    with open(folder / "metrics.csv", encoding="utf-8", newline="") as file:
        return [(int(row["step"]), float(row["value"])) for row in csv.DictReader(file) if row["tag"] == tag]


@pytest.mark.parametrize(
    ("budget", "evaluations"),
    [
        (Budget(evaluations=6), 6),
        (Budget(evaluations=5), 5),  # the last round is cut
        (Budget(samples=49), 4),
        (Budget(samples=60, evaluations=100), 6),
        (Budget(multiply_adds=350.0, samples=10**9), 3),
    ],
)
def test_no_budget_is_ever_overrun(setup: TrainingSetup, tmp_path: Path, budget: Budget, evaluations: int) -> None:
    evaluator = Widths()
    search = searching(setup, tmp_path, budget, evaluator=evaluator)
    candidate = search.search().candidate
    assert sum(evaluator.evaluated.values()) == evaluations == search.meter.spent.evaluations
    assert (search.meter.spent.samples, search.meter.spent.multiply_adds) == (10 * evaluations, 100.0 * evaluations)
    assert budget.allows(search.meter.spent)
    best = max(search.history.evaluations, key=lambda one: one.metrics["accuracy"])
    assert candidate.architecture == best.candidate.architecture
    assert candidate.hyperparameters["weight_decay"] == 3e-4  # what is not searched is told, too
    assert rows(tmp_path, "budget/samples")[-1] == (evaluations, 10.0 * evaluations)


def test_the_clock_ends_a_search(setup: TrainingSetup, tmp_path: Path) -> None:
    search = searching(setup, tmp_path, Budget(seconds=0.2))
    search.search()
    assert search.meter.spent.seconds >= 0.2
    assert search.meter.spent.evaluations > 0


def test_what_is_known_costs_an_evaluation_and_no_samples(setup: TrainingSetup, tmp_path: Path) -> None:
    evaluator = Widths()

    def repeating(**parts: Any) -> Drawn:
        return Drawn(4, True, **parts)

    search = searching(setup, tmp_path, Budget(evaluations=8), strategy=repeating, evaluator=evaluator)
    search.search()
    assert sorted(evaluator.evaluated.values()) == [1, 1]
    assert (search.meter.spent.samples, search.meter.spent.evaluations) == (20, 8)
    again = searching(setup, tmp_path / "b", Budget(evaluations=8), strategy=repeating, evaluator=Widths(False))
    again.search()
    assert (again.meter.spent.samples, again.meter.spent.evaluations) == (
        80,
        8,
    )  # measured anew


def test_a_method_with_nothing_left_to_propose_ends_a_search(setup: TrainingSetup, tmp_path: Path) -> None:
    search = searching(setup, tmp_path, Budget(evaluations=100), strategy=partial(Listed, count=3))
    result = search.search()
    assert result.remarks["ended"] == "the method has nothing left to propose"
    assert search.step == 3
    again = searching(setup, tmp_path, Budget(evaluations=100), strategy=partial(Listed, count=3))
    assert again.search().candidate == result.candidate
    with pytest.raises(RunFailed, match=r"Listed has proposed no candidate\."):
        searching(setup, tmp_path / "none", Budget(evaluations=100), strategy=partial(Listed, count=0)).search()


def test_real_numbers_are_brought_to_options_and_places(setup: TrainingSetup) -> None:
    strategy = Listed(vectors=[np.array([9.4, -0.3])], space=setup.space, generator=torch.Generator())
    (candidate,) = strategy.ask()
    assert candidate.architecture["layer1.units"] == "9"
    assert candidate.hyperparameters["learning_rate"] == pytest.approx(1e-3)
    assert strategy.state_dict()["pending"] == [[7.0, -0.3]]
    short = Listed(vectors=[[1.0]], space=setup.space, generator=torch.Generator())
    with pytest.raises(ValueError, match="a vector has 2 finite entries"):
        short.ask()


def test_stagnation_ends_a_search(setup: TrainingSetup, tmp_path: Path) -> None:
    search = searching(setup, tmp_path, Budget(), patience=12)
    search.search()
    scores = [one.metrics["accuracy"] for one in search.history.evaluations]
    first = scores.index(max(scores))
    assert first + 12 < len(scores) <= first + 12 + 2


def test_the_record_has_the_promised_tags(setup: TrainingSetup, tmp_path: Path) -> None:
    search = searching(setup, tmp_path, Budget(evaluations=6))
    search.search()
    scores = [one.metrics["accuracy"] for one in search.history.evaluations]
    assert rows(tmp_path, "best/score") == [(step, max(scores[:step])) for step in (2, 4, 6)]
    assert rows(tmp_path, "population/score_mean")[0][1] == pytest.approx(sum(scores[:2]) / 2)
    assert rows(tmp_path, "population/diversity") == [(2, 1.0), (4, 1.0), (6, 1.0)]
    assert rows(tmp_path, "policy/entropy") == [(2, 0.5), (4, 0.5), (6, 0.5)]
    assert rows(tmp_path, "budget/multiply_adds")[-1] == (6, 600.0)
    written = [json.loads(line) for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()]
    assert [one["metrics"]["accuracy"] for one in written] == scores


@pytest.mark.parametrize("evaluations", [6, 10])
def test_the_last_round_is_on_the_console(
    setup: TrainingSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluations: int
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(Progress, "epoch_line", lambda _, text: lines.append(text))
    search = searching(setup, tmp_path, Budget(evaluations=evaluations))
    search.search()
    ends = [int(line.split("evaluations")[1].split()[0]) for line in lines]
    assert ends == sorted(set(ends))
    assert ends[-1] == evaluations
    assert evaluations == 6 or search.history.best_step < evaluations, "it would have been printed anyway"


def interrupted(setup: TrainingSetup, folder: Path, after: int, **settings: Any) -> None:
    search = searching(setup, folder, evaluator=Widths(stop_after=after), **settings)
    with pytest.raises(KeyboardInterrupt):
        search.search()


@pytest.mark.parametrize("after", [1, 4, 5])
def test_a_killed_search_goes_on_as_if_nothing_had_happened(
    setup: TrainingSetup, tmp_path: Path, after: int, caplog: pytest.LogCaptureFixture
) -> None:
    dynamic = {"start": {"accuracy": 1.0}, "end": {"loss": -1.0}, "schedule": "linear", "patience": 1, "step": 0.5}

    def objective() -> Dynamic:
        return Dynamic(**dynamic, cost_weight=0.1, costs={"parameters": 1.0}, space=setup.space)

    budget = Budget(samples=80)
    whole = searching(setup, tmp_path / "whole", budget, objective=objective())
    candidate = whole.search().candidate
    interrupted(setup, tmp_path / "cut", after, budget=budget, objective=objective())
    caplog.set_level(logging.INFO, logger="nas")
    evaluator = Widths()
    resumed = searching(setup, tmp_path / "cut", budget, objective=objective(), evaluator=evaluator)
    assert resumed.search().candidate == candidate
    assert (tmp_path / "cut" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()
    assert sum(evaluator.evaluated.values()) == 8 - after, "what was evaluated before the kill was not lost"
    assert resumed.meter.spent.samples == whole.meter.spent.samples == 80
    assert caplog.messages[0].startswith("resumed at step")
    assert resumed.strategy.told == whole.strategy.told


def test_the_first_candidate_can_have_the_initial_hyperparameters(setup: TrainingSetup, tmp_path: Path) -> None:
    def search(folder: str, stop_after: int | None = None, **settings: Any) -> BlackBoxSearch:
        strategy, evaluator = partial(AgingEvolution, population=3), Widths(stop_after=stop_after)
        budget = Budget(evaluations=9)
        return searching(setup, tmp_path / folder, budget, strategy=strategy, evaluator=evaluator, **settings)

    plain, whole = search("plain"), search("whole", enqueue="initial")
    plain.search()
    candidate = whole.search().candidate
    rates = [one.history.evaluations[0].candidate.hyperparameters["learning_rate"] for one in (plain, whole)]
    assert rates[1] == pytest.approx(0.05) != rates[0]
    for after in (0, 2, 3, 4):  # between the first ask and tell, too
        with pytest.raises(KeyboardInterrupt):
            search(f"cut{after}", after, enqueue="initial").search()
        assert search(f"cut{after}", enqueue="initial").search().candidate == candidate
        for name in ("metrics.csv", "evaluations.jsonl"):
            assert (tmp_path / f"cut{after}" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_strategy_that_takes_no_values_says_so(setup: TrainingSetup, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="enqueue=initial is not allowed: Drawn"):
        searching(setup, tmp_path, Budget(evaluations=1), enqueue="initial")


@pytest.mark.parametrize("budget", [Budget(evaluations=5), Budget(samples=49)])
def test_a_search_that_is_over_stays_over(setup: TrainingSetup, tmp_path: Path, budget: Budget) -> None:
    """As after a kill between the last checkpoint and candidate.json, the last round having been cut."""
    candidate = searching(setup, tmp_path, budget).search().candidate
    record = (tmp_path / "metrics.csv").read_bytes()
    again = searching(setup, tmp_path, budget, evaluator=Widths(stop_after=0))
    result = again.search()
    assert result.candidate == candidate
    assert "the budget is spent" in result.summary
    assert (tmp_path / "metrics.csv").read_bytes() == record


class WidthsInRungs(Widths):
    """Asks the pruner once, halfway."""

    def evaluate(self, candidates: Sequence[Candidate], pruner: Pruner | None = None) -> list[Evaluation]:
        full = super().evaluate(candidates, pruner)
        assert pruner is not None
        kept = pruner.survivors(0, {index: one.metrics["accuracy"] for index, one in enumerate(full)})
        shares = [1.0 if index in kept else 0.5 for index in range(len(full))]
        return [
            replace(one, metrics={**one.metrics, "fidelity": share}) for one, share in zip(full, shares, strict=True)
        ]


@pytest.mark.parametrize(
    "strategy",
    [partial(TPE, startup=4, batch=4, reduction=2, storage="study.journal"), partial(Hyperband, [1], 2)],
    ids=["tpe", "hyperband"],
)
def test_a_killed_search_prunes_as_if_nothing_had_happened(
    strategy: Callable[..., Strategy], setup: TrainingSetup, tmp_path: Path
) -> None:
    """The strategy's pruner sees the same whether or not the killed run had evaluated some of it before."""

    def search(folder: str, stop_after: int | None = None) -> BlackBoxSearch:
        evaluator = WidthsInRungs(stop_after=stop_after)
        return searching(setup, tmp_path / folder, Budget(evaluations=16), strategy=strategy, evaluator=evaluator)

    whole = search("whole")
    candidate = whole.search().candidate
    with pytest.raises(KeyboardInterrupt):
        search("cut", stop_after=8).search()
    resumed = search("cut")
    assert resumed.search().candidate == candidate
    assert resumed.strategy.state_dict() == whole.strategy.state_dict()
    assert sum(one.metrics["fidelity"] < 1 for one in whole.history.evaluations) > 0
    assert (tmp_path / "cut" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


def test_brackets_go_on_until_the_budget_does_not_pay_for_one_training(setup: TrainingSetup, tmp_path: Path) -> None:
    """Three full trainings' price: three candidates, of which one goes on, then the two that are paid for at most."""
    objective = Fixed({"accuracy": 1.0}, 0.0, {}, space=setup.space)
    evaluator = TrainedFromScratch(2, [1], setup=setup, objective=objective)
    price = evaluator.price(setup.space.sample(Randomness(0).on_cpu("any"))).samples
    assert price == 2 * 64 + 2 * 48
    search = searching(
        setup, tmp_path, Budget(samples=3 * price), strategy=partial(Hyperband, [1], 2), evaluator=evaluator
    )
    search.search()
    shares = [one.metrics["fidelity"] for one in search.history.evaluations]
    assert sorted(shares[:3]) == [0.5, 0.5, 1.0]
    assert shares[3:] == [1.0]
    assert 2 * price < search.meter.spent.samples <= 3 * price
    assert [step for step, _ in rows(tmp_path, "best/score")] == [3, 4]


def test_a_pruner_sees_the_places_of_a_whole_batch() -> None:
    halving = Placed(SuccessiveHalving(2.0), places=[1, 4, 5])
    assert halving.survivors(0, {0: 0.1, 1: 0.9, 2: 0.5}) == SuccessiveHalving(2.0).survivors(
        0, {0: 0.1, 1: 0.9, 2: 0.5}
    )

    class Odd:
        def survivors(self, rung: int, scores: Mapping[int, float]) -> list[int]:
            return [key for key in scores if key % 2]

    assert Placed(Odd(), places=[1, 4, 5]).survivors(0, {0: 0.0, 1: 0.0, 2: 0.0}) == [0, 2]


def test_a_last_line_that_was_cut_short_is_evaluated_again(setup: TrainingSetup, tmp_path: Path) -> None:
    whole = searching(setup, tmp_path / "whole", Budget(evaluations=4))
    whole.search()
    interrupted(setup, tmp_path / "cut", 3, budget=Budget(evaluations=4))
    path = tmp_path / "cut" / "evaluations.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    resumed = searching(setup, tmp_path / "cut", Budget(evaluations=4))
    resumed.search()
    lines = (tmp_path / "whole" / "evaluations.jsonl").read_text().splitlines()
    assert path.read_text().splitlines() == lines


def test_asked_to_stop_it_says_where_it_is(
    setup: TrainingSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked:
        requested = True

        def __enter__(self) -> "Asked":
            return self

        def __exit__(self, *details: object) -> None: ...

    whole = searching(setup, tmp_path / "whole", Budget(evaluations=6)).search().candidate
    with monkeypatch.context() as patch:
        patch.setattr("nas.run.loop.StopRequest", Asked)
        with pytest.raises(Stopped):
            searching(setup, tmp_path / "cut", Budget(evaluations=6)).search()
    assert searching(setup, tmp_path / "cut", Budget(evaluations=6)).search().candidate == whole


def test_a_dynamic_objective_compares_all_under_its_present_weights(setup: TrainingSetup, tmp_path: Path) -> None:
    objective = Dynamic(
        {"accuracy": 1.0}, {"accuracy": -1.0}, "linear", 1, 0.5, cost_weight=0.0, costs={}, space=setup.space
    )
    search = searching(setup, tmp_path, Budget(evaluations=8), objective=objective)
    found = search.search().candidate
    assert objective.position == 1.0
    units = [int(one.candidate.architecture["layer1.units"]) for one in search.history.evaluations]
    assert int(found.architecture["layer1.units"]) == min(units)


def test_one_that_was_pruned_is_no_winner_beside_one_that_was_not(setup: TrainingSetup, tmp_path: Path) -> None:
    class Pruned(Widths):
        def _evaluation(self, candidate: Candidate) -> Evaluation:
            found = super()._evaluation(candidate)
            fidelity = 0.5 if found.metrics["accuracy"] > 0.5 else 1.0
            return Evaluation(candidate, {**found.metrics, "fidelity": fidelity}, found.cost)

    search = searching(setup, tmp_path, Budget(evaluations=20), evaluator=Pruned())
    search.search()
    assert search.history.best.metrics["fidelity"] == 1.0
    assert max(one.metrics["accuracy"] for one in search.history.evaluations) > search.history.best.metrics["accuracy"]


def test_without_an_end_or_money_for_one_evaluation_it_does_not_start(setup: TrainingSetup, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="budget"):
        searching(setup, tmp_path, Budget())
    with pytest.raises(InvalidValue, match=r"budget\.samples=9 .* one evaluation costs up to 10"):
        searching(setup, tmp_path, Budget(samples=9))
    with pytest.raises(InvalidValue, match="patience"):
        searching(setup, tmp_path, Budget(evaluations=1), patience=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("strategy", "rungs", "epochs"), [(Drawn, [], 1), (partial(Hyperband, [1], 2), [1], 2)], ids=["drawn", "hyperband"]
)
def test_jobs_change_nothing_that_is_written(
    strategy: Callable[..., Strategy], rungs: list[int], epochs: int, setup: TrainingSetup, tmp_path: Path
) -> None:
    found = []
    for jobs in (1, 2):
        objective = Fixed({"accuracy": 1.0}, 0.0, {}, space=setup.space)
        evaluator = TrainedFromScratch(epochs, rungs, jobs, setup=setup, objective=objective)
        budget = Budget(evaluations=5)
        search = searching(setup, tmp_path / str(jobs), budget, strategy=strategy, evaluator=evaluator)
        found.append(search.search().candidate)
    assert found[0] == found[1]
    assert (tmp_path / "1" / "metrics.csv").read_bytes() == (tmp_path / "2" / "metrics.csv").read_bytes()
