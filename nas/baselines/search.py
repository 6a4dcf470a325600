"""The loop around a black-box strategy: ask, evaluate, score, tell, until the budget is spent."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor

from nas.baselines.meter import EvaluationMeter
from nas.baselines.record import History, RoundRecord
from nas.baselines.strategy import Scored, Strategy
from nas.candidate import Candidate
from nas.errors import InvalidValue, RunFailed, require
from nas.evaluation.budget import Budget
from nas.evaluation.evaluation import Evaluation, EvaluationCache
from nas.evaluation.evaluator import Evaluator, Placed, Pruner
from nas.evaluation.objective import Objective
from nas.evaluation.training_setup import TrainingSetup
from nas.run.folder import RunFolder
from nas.run.loop import Loop, Session, Start
from nas.run.randomness import Randomness
from nas.run.tracking import TrackingSettings
from nas.search.result import SearchResult
from nas.spaces.space import SearchSpace
from nas.stopping import Stopped

SAVE_EVERY = 5.0  # seconds between checkpoints
MOST_REPEATS = 1000  # evaluations in a row that were all known already


class BlackBoxSearch:
    """Searches with ``strategy`` for what ``evaluator`` measures and ``objective`` scores.

    It never spends more than the budget's samples, multiply-adds and evaluations: a round is cut where the budget may
    not pay for the next evaluation. The search ends there, or goes on if the strategy takes a part of a round.

    Args:
        strategy: Makes the strategy from the keywords ``space`` and ``generator``.
        pruner: Ends the training of candidates that are behind, if the evaluator has rungs; by default the strategy's.
        patience: The search ends after so many evaluations without a better score; null: only the budget ends it.
        enqueue: ``initial`` gives the first candidate the initial hyperparameters of the configuration, each brought
            into its range; null leaves them to the strategy, like the architecture.
        space: The joint space of architectures and hyperparameters.
        setup: Knows the values of hyperparameters that candidates do not carry.
        evaluator: Turns candidates into evaluations.
        objective: Turns evaluations into scores.
        budget: What the search may spend.
        tracking: What is recorded and shown.
        randomness: The run's generators.
        folder: The run folder.

    Raises:
        InvalidValue: Nothing would end the search, the budget does not pay for one evaluation, or the strategy takes
            no values for its first candidate.
    """

    data_parallel = begins_with_another = False
    rollbacks = 0

    def __init__(
        self,
        strategy: Callable[..., Strategy],
        pruner: Pruner | None = None,
        patience: int | None = None,
        enqueue: Literal["initial"] | None = None,
        *,
        space: SearchSpace,
        setup: TrainingSetup,
        evaluator: Evaluator,
        objective: Objective,
        budget: Budget,
        tracking: TrackingSettings,
        randomness: Randomness,
        folder: RunFolder,
    ) -> None:
        require(patience is None or patience >= 1, "patience", patience, "it must be null or at least 1")
        if not budget.limits() and patience is None:
            raise InvalidValue("budget", None, "something must end the search: budget.evaluations=100, say")
        self.setup, self.evaluator, self.objective, self.patience = setup, evaluator, objective, patience
        self.tracking, self.randomness, self.folder = tracking, randomness, folder
        self.strategy = strategy(space=space, generator=randomness.on_cpu("strategy"))
        if enqueue is not None:
            self.strategy.enqueue({name: setup.held[name] for name in space.ranges if name in setup.held})
        self.pruner = self.strategy.pruner if pruner is None else pruner
        self.meter = EvaluationMeter(budget, evaluator)
        self.meter.require_one(space.sample(randomness.on_cpu("price")))
        self.history = History()
        self.record = RoundRecord(self.history, self.meter, self.strategy)
        self.round, self.exhausted, self.finalists_chosen = 0, False, False
        self.has_all = False  # whether the strategy has nothing left to propose
        self._known = EvaluationCache(folder.path / "evaluations.jsonl")

    def search(self) -> SearchResult:
        """Run to the end, from the newest checkpoint if the run folder has one.

        Raises:
            Stopped: A signal asked to stop.
        """
        self.strategy.open(self.folder.path)
        ranks, task = self.randomness.ranks, self.setup.task
        loop = Loop(self, "search", self.folder, self.tracking, ranks, task=task)
        loop.run()
        self.meter.stop_clock()
        return self.result(loop.tracker_state)

    def begin(self, session: Session, start: Start) -> None:
        self._session, self._saved = session, time.perf_counter()
        self.meter.start_clock()

    def advance(self) -> None:
        """Ask for candidates, evaluate and score those that the budget pays for, tell the strategy, and record it all.

        Raises:
            Stopped: Somebody asked to stop between two evaluations. What was evaluated is kept in
                ``evaluations.jsonl``.
            RunFailed: The strategy has proposed nothing at all.
        """
        asked = self.strategy.ask()
        if not asked:
            if not self.step:
                raise RunFailed(f"{type(self.strategy).__name__} has proposed no candidate.")
            self.has_all = True
            return
        candidates = self.meter.affordable(asked)
        self.exhausted = len(candidates) < (1 if self.strategy.takes_a_part else len(asked))
        if not candidates:
            return
        evaluations = self._evaluated(candidates)
        scores = [self.objective.score(evaluation) for evaluation in evaluations]
        self.meter.pay(evaluations)
        self.history.add(evaluations, scores)
        if not self.exhausted:
            self.strategy.tell([Scored(*pair) for pair in zip(candidates, scores, strict=True)])
        self.record.tell_round(self._session, len(evaluations), self.round)
        self.round += 1
        if self.objective.advance(self.meter.progress_without_clock(), self.history.best_score):
            self.history.rescore([self.objective.score(evaluation) for evaluation in self.history.evaluations])
        self._session.progress.update(self.place()[0], best=self.history.best_score)

    def finished(self) -> bool:
        """Whether the search is over, but for the finalists."""
        return self._ending() is not None

    def due(self) -> bool:
        if time.perf_counter() - self._saved <= SAVE_EVERY:
            return False
        self._saved = time.perf_counter()
        return True

    def end(self) -> None:
        """If metrics drift, measure the best candidates again, all at one time: the best of these is the result."""
        self.record.tell_last(self._session)
        candidates = self.finalists()
        if self.finalists_chosen or not candidates:
            return
        again = self.evaluator.measure_again(candidates)
        self.meter.pay(again)
        self.history.add_final(again, [self.objective.score(evaluation) for evaluation in again])
        self.finalists_chosen = True
        self.record.tell_finalists(self._session.tracker, self.round)

    def finalists(self) -> list[Candidate]:
        return self.history.finalists(self.evaluator.finalists)

    def place(self) -> tuple[int, int]:
        """Evaluations, or per cent of the budget."""
        total = self.meter.budget.evaluations or 100
        return round(self.meter.progress() * total), total

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def rolled_back(self, state: dict[str, Any]) -> dict[str, Any]:
        return state

    def state_dict(self) -> dict[str, Any]:
        """Everything that the search needs to go on, as tensors and plain values."""
        return {
            "round": self.round,
            "exhausted": self.exhausted,
            "finalists_chosen": self.finalists_chosen,
            **{name: part.state_dict() for name, part in self._stateful().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.round, self.exhausted = state["round"], state["exhausted"]
        self.finalists_chosen = state["finalists_chosen"]
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])

    def _stateful(self) -> dict[str, Any]:
        return {
            "meter": self.meter,
            "history": self.history,
            "record": self.record,
            "strategy": self.strategy,
            "evaluator": self.evaluator,
            "objective": self.objective,
            "randomness": self.randomness,
        }

    def _evaluated(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        """One evaluation per candidate. New ones are written to the cache at once, if metrics do not drift."""
        if not self.evaluator.cacheable:
            return self.evaluator.evaluate(candidates, self.pruner)
        new = {one.fingerprint(): place for place, one in enumerate(candidates) if not self._is_known(one)}
        places = list(new.values())
        missing = [candidates[place] for place in places]
        pruner = None if self.pruner is None else Placed(self.pruner, places)
        batch = len(missing) if pruner is not None else self.evaluator.batch  # rungs compare all of them
        for first in range(0, len(missing), max(batch, 1)):
            if self._session.request.requested:
                raise Stopped(self.step, self.folder.path)
            self._known.add(self.evaluator.evaluate(missing[first : first + batch], pruner))
        found = [self._known.get(candidate) for candidate in candidates]
        return [evaluation for evaluation in found if evaluation is not None]

    def _is_known(self, candidate: Candidate) -> bool:
        """Whether ``candidate`` needs no evaluation.

        A pruner must see what it sees without an interruption. So an evaluation that a killed run made after its last
        checkpoint does not count for a search with a pruner.
        """
        fresh = self.pruner is not None and candidate.fingerprint() not in self.meter.paid
        return self._known.get(candidate) is not None and not fresh

    def _ending(self) -> str | None:
        """Why the search is over, in words, or None if it goes on."""
        if self.patience is not None and self.step - self.history.best_step >= self.patience:
            return f"nothing better in {self.patience} evaluations"
        if self.meter.repeats >= MOST_REPEATS:
            return f"nothing new in {MOST_REPEATS} evaluations"
        if self.has_all:
            return "the method has nothing left to propose"
        # There is one round even if the clock ran out while the run was prepared.
        if self.exhausted or (self.step > 0 and self.meter.progress() >= 1.0):
            limits = [f"budget.{name}={limit:g}" for name, limit in self.meter.budget.limits().items()]
            return f"the budget is spent ({', '.join(limits)})"
        return None

    @property
    def step(self) -> int:
        return self.history.step

    def candidate(self) -> Candidate:
        """What the search would return now, with every hyperparameter that its training had."""
        found = self.history.best.candidate
        return Candidate(found.architecture, self.setup.hyperparameters(found))

    def result(self, record: dict[str, int] | None = None) -> SearchResult:
        best, spent, ending = self.history.best.metrics, self.meter.spent, f"{self._ending()}"
        shown = {f"best/{name}": value for name, value in best.items() if math.isfinite(value)}
        counts = {"samples": float(spent.samples), "evaluations": float(spent.evaluations)}
        main = self.setup.task.measures[0]
        measured = {f"validation {main.words}": main.told(best[main.name])} if main.name in best else {}
        many = f"{spent.evaluations} evaluation{'' if spent.evaluations == 1 else 's'}"
        return SearchResult(
            candidate=self.candidate(),
            cost=spent,
            seconds=self.meter.seconds,
            step=self.step,
            epoch=self.round,
            metrics={"best/score": self.history.best_score, **shown, **counts},
            remarks={"best score": f"{self.history.best_score:.4f}", "ended": ending, **measured},
            summary=f"{many}, {spent.samples:,} samples, {ending}",
            record=record,
        )
