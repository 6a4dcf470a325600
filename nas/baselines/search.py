"""The loop around a black-box strategy: ask, evaluate, score, tell, log, checkpoint, until the budget is spent."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from nas.baselines.strategy import KeepsFiles, Scored, Strategy
from nas.candidate import Candidate
from nas.errors import InvalidValue, UnusableInput, require
from nas.evaluation.budget import Budget
from nas.evaluation.evaluation import Cost, Evaluation, EvaluationCache
from nas.evaluation.evaluator import Drifting, Evaluator, Placed, Pruner
from nas.evaluation.objective import Objective
from nas.evaluation.training_setup import TrainingSetup
from nas.run.checkpoint import fitting
from nas.run.folder import RunFolder
from nas.run.progress import Progress
from nas.run.randomness import Randomness
from nas.run.tracking import Tracker, TrackingSettings
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Supernet
from nas.stopping import Stopped, StopRequest

LINE_EVERY = 20  # evaluations, where nothing better is found
SAVE_EVERY = 5.0  # seconds between checkpoints
LONGEST_IDLE = 1000  # evaluations in a row that were all known already


class BlackBoxSearch:
    """Searches with ``strategy`` what ``evaluator`` measures and ``objective`` scores.

    Never spends more than the budget's samples, multiply-adds and evaluations: a round is cut where the next evaluation
    would not fit, which ends the search. An evaluation that is known already costs no samples and counts as one.

    Args:
        strategy: Made with the space and a generator.
        pruner: Ends the training of candidates that are behind, where the evaluator has rungs.
        patience: Evaluations without a better score after which the search ends; null: only the budget ends it.
        task: What candidates are evaluated on; it knows the values of what they do not carry.
        say: Where one-line notices go.

    Raises:
        InvalidValue: Nothing would end the search, or the budget does not pay for one evaluation.
    """

    def __init__(
        self,
        strategy: Callable[..., Strategy],
        pruner: Pruner | None = None,
        patience: int | None = None,
        *,
        space: SearchSpace,
        task: TrainingSetup,
        evaluator: Evaluator,
        objective: Objective,
        budget: Budget,
        tracking: TrackingSettings,
        randomness: Randomness,
        folder: RunFolder,
        say: Callable[[str], None] = print,
    ) -> None:
        require(patience is None or patience >= 1, "patience", patience, "it must be null or at least 1")
        if not budget.limits() and patience is None:
            raise InvalidValue("budget", None, "something must end the search: budget.evaluations=100, say")
        self.space, self.task, self.evaluator, self.objective = space, task, evaluator, objective
        self.budget, self.tracking, self.randomness, self.folder, self.say = budget, tracking, randomness, folder, say
        self.patience = patience
        self.strategy = strategy(space=space, generator=randomness.on_cpu("strategy"))
        self.pruner = self.strategy if pruner is None and isinstance(self.strategy, Pruner) else pruner
        price = evaluator.price(space.sample(randomness.on_cpu("price"))) + self._reserved
        for name, limit in budget.limits().items():
            one = getattr(price, name)
            require(one <= limit, f"budget.{name}", limit, f"one evaluation costs up to {one:,.0f}")
        self.supernet: Supernet | None = None
        self.step, self.round, self.seconds = 0, 0, 0.0
        self.history: list[Evaluation] = []
        self._scores: list[float] = []
        self._best: int | None = None
        self._best_step, self._idle, self._line_step = 0, 0, 0
        self._finalists_chosen = False
        self._cost = Cost()
        self._paid: set[str] = set()
        self._known = EvaluationCache(folder.path / "evaluations.jsonl")
        self._began = self._saved = time.perf_counter()
        self._tracker_state: dict[str, int] | None = None

    @property
    def spent(self) -> Cost:
        return Cost(self._cost.samples, self._cost.multiply_adds, self._cost.evaluations, self._clock())

    @property
    def best(self) -> Evaluation:
        """The evaluation with the best score under the objective's present weights; pruned ones are second choice."""
        if self._best is None:
            raise UnusableInput("The search has ended before its first evaluation.")
        return self.history[self._best]

    def settled(self) -> dict[str, bool]:
        return {}

    def recorded(self) -> dict[str, list[float]]:
        return {}

    def remarks(self) -> dict[str, str]:
        found = self.best.metrics
        shown = {"best score": f"{self._scores[self._best or 0]:.4f}", "ended": f"{self._reason()}"}
        return {**shown, **({"validation accuracy": f"{100 * found['accuracy']:.2f} %"} if "accuracy" in found else {})}

    def in_words(self) -> str:
        spent = self.spent
        return f"{spent.evaluations} evaluations, {spent.samples:,} samples, {self._reason()}"

    def _reason(self) -> str:
        """Why the search has ended."""
        if self.patience is not None and self.step - self._best_step >= self.patience:
            return f"nothing better in {self.patience} evaluations"
        if self._idle >= LONGEST_IDLE:
            return f"nothing new in {LONGEST_IDLE} evaluations"
        limits = [f"budget.{name}={limit:g}" for name, limit in self.budget.limits().items()]
        return f"the budget is spent ({', '.join(limits)})"

    def final_metrics(self) -> dict[str, float]:
        shown = {f"best/{name}": value for name, value in self.best.metrics.items() if math.isfinite(value)}
        spent = {"samples": float(self.spent.samples), "evaluations": float(self.spent.evaluations)}
        return {"best/score": self._scores[self._best or 0], **shown, **spent}

    def open_tracker(self) -> Tracker:
        return Tracker(self.folder.path, self.tracking, self._tracker_state)

    def candidate(self) -> Candidate:
        """What the search would return now, with every hyperparameter that its training had."""
        found = self.best.candidate
        return Candidate(found.architecture, self.task.hyperparameters(found))

    def search(self) -> Candidate:
        if isinstance(self.strategy, KeepsFiles):
            self.strategy.open(self.folder.path)
        state = self.folder.newest_checkpoint(self.say)
        if state is not None:
            with fitting(state):
                self._load_state(state)
        total = self.budget.evaluations or 100
        with (
            StopRequest() as request,
            Tracker(self.folder.path, self.tracking, state["tracker"] if state else None) as tracker,
            Progress("search", total, self.tracking.console, start=round(self._share() * total)) as progress,
        ):
            self._began = self._saved = time.perf_counter()
            if state is None:
                self._save(tracker)
            while not self._finished():
                asked = self.strategy.ask()
                chosen = self._affordable(asked)
                if not chosen:
                    break
                evaluations = self._evaluated(chosen, request, tracker)
                self._add(evaluations)
                if len(chosen) == len(asked):
                    scores = self._scores[-len(chosen) :]
                    self.strategy.tell([Scored(*pair) for pair in zip(chosen, scores, strict=True)])
                self._end_round(evaluations, tracker, progress)
                progress.update(round(self._share() * total), best=self._scores[self._best or 0])
                if len(chosen) < len(asked):
                    break
                if time.perf_counter() - self._saved > SAVE_EVERY:
                    self._save(tracker)
                if request.requested and not self._finished():
                    self._save(tracker)
                    raise Stopped(self.step, self.folder.path)
            self._choose_among_finalists(tracker)
            self._save(tracker)
            self.seconds, self._began = self._clock(), time.perf_counter()
        return self.candidate()

    def _clock(self) -> float:
        return self.seconds + time.perf_counter() - self._began

    @property
    def _reserved(self) -> Cost:
        return self.evaluator.reserve() if isinstance(self.evaluator, Drifting) else Cost()

    def _share(self) -> float:
        return self.budget.progress(self.spent + self._reserved)

    def _finished(self) -> bool:
        if not self.history:  # even where the clock has run out while the run was prepared, there is one round
            return False
        stagnates = self.patience is not None and self.step - self._best_step >= self.patience
        return self._finalists_chosen or stagnates or self._idle >= LONGEST_IDLE or self._share() >= 1.0

    def _affordable(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """As many of ``candidates``, from the front, as the budget surely pays for."""
        chosen: list[Candidate] = []
        # The clock is looked at between rounds only.
        cost, paid = replace(self.spent + self._reserved, seconds=0.0), set(self._paid)
        for candidate in candidates:
            known = self.evaluator.cacheable and candidate.fingerprint() in paid
            cost += Cost(evaluations=1) if known else self.evaluator.price(candidate)
            if not self.budget.allows(cost):
                break
            chosen.append(candidate)
            paid.add(candidate.fingerprint())
        return chosen

    def _evaluated(self, candidates: Sequence[Candidate], request: StopRequest, tracker: Tracker) -> list[Evaluation]:
        """One evaluation per candidate; those of this round that are made anew are in the cache at once."""
        if not self.evaluator.cacheable:
            return self.evaluator.evaluate(candidates, self.pruner)
        new = {one.fingerprint(): place for place, one in enumerate(candidates) if not self._is_known(one)}
        places = list(new.values())
        missing = [candidates[place] for place in places]
        pruner = None if self.pruner is None else Placed(self.pruner, places)
        batch = len(missing) if pruner is not None else self.evaluator.batch  # rungs compare all of them
        for first in range(0, len(missing), max(batch, 1)):
            if request.requested:  # inside a round: what it has evaluated stays in the cache
                raise Stopped(self.step, self.folder.path)
            self._known.add(self.evaluator.evaluate(missing[first : first + batch], pruner))
        found = [self._known.get(candidate) for candidate in candidates]
        return [evaluation for evaluation in found if evaluation is not None]

    def _is_known(self, candidate: Candidate) -> bool:
        """Whether it needs no evaluation. A pruner has to see all that it sees without an interruption, so that what a
        killed run has left behind its last checkpoint does not count then."""
        fresh = self.pruner is not None and candidate.fingerprint() not in self._paid
        return self._known.get(candidate) is not None and not fresh

    def _add(self, evaluations: Sequence[Evaluation]) -> None:
        for evaluation in evaluations:
            fingerprint = evaluation.candidate.fingerprint()
            known = self.evaluator.cacheable and fingerprint in self._paid
            self._idle = self._idle + 1 if known else 0
            self._cost += Cost(evaluations=1) if known else evaluation.cost
            self._paid.add(fingerprint)
            self.history.append(evaluation)
            self._scores.append(self.objective.score(evaluation))
            self.step += 1
            self._consider(len(self.history) - 1)

    def _consider(self, index: int) -> None:
        """Take evaluation ``index`` as the best if it is: fully trained ones first, then the score."""

        def rank(one: int) -> tuple[float, float]:
            return self.history[one].metrics.get("fidelity", 1.0), self._scores[one]

        if self._best is None or rank(index) > rank(self._best):
            self._best, self._best_step = index, self.step

    def _choose_among_finalists(self, tracker: Tracker) -> None:
        """Where metrics drift: the best of the later half are measured again, and the best of these is the winner."""
        if not isinstance(self.evaluator, Drifting) or self._finalists_chosen or not self.history:
            return
        later = range(len(self.history) // 2, len(self.history))
        best_first = sorted(later, key=lambda index: -self._scores[index])
        candidates = list({self.history[index].candidate: None for index in best_first})[: self.evaluator.finalists]
        again = self.evaluator.measure_again(candidates)
        self._best = None
        for evaluation in again:
            self._cost += evaluation.cost
            self.history.append(evaluation)
            self._scores.append(self.objective.score(evaluation))
            self._consider(len(self.history) - 1)
        self._finalists_chosen = True
        tracker.scalar("best/score", self._scores[self._best or 0], self.step, self.round)
        tracker.scalar("budget/samples", float(self._cost.samples), self.step, self.round)
        tracker.scalar("budget/multiply_adds", self._cost.multiply_adds, self.step, self.round)

    def _end_round(self, evaluations: Sequence[Evaluation], tracker: Tracker, progress: Progress) -> None:
        own = [score for score in self._scores[-len(evaluations) :] if math.isfinite(score)]
        best_before = self._best_step
        scalars: dict[str, float] = {"best/score": self._scores[self._best or 0]}
        scalars |= {f"best/{name}": self.best.metrics[name] for name in sorted(self.best.metrics)}
        scalars |= {"population/size": float(len(evaluations)), "population/failed": float(len(evaluations) - len(own))}
        if own:
            scalars |= {"population/score_mean": statistics.fmean(own), "population/score_std": statistics.pstdev(own)}
        for name, value in self.strategy.statistics().items():
            scalars[name if "/" in name else f"population/{name}"] = value
        spent = self.spent
        scalars |= {
            "budget/samples": float(spent.samples),
            "budget/multiply_adds": spent.multiply_adds,
            "budget/evaluations": float(spent.evaluations),
        }
        for tag, value in scalars.items():
            tracker.scalar(tag, value, self.step, self.round)
        tracker.timing("time/total_seconds", spent.seconds, self.step, self.round)
        tracker.timing("throughput/evaluations_per_second", self.step / max(spent.seconds, 1e-9), self.step, self.round)
        self.round += 1
        if best_before > self._line_step or self.step - self._line_step >= LINE_EVERY:
            self._line_step = self.step
            mean = f"{statistics.fmean(own):.4f}" if own else "-"
            progress.epoch_line(
                f"round {self.round:>4}  evaluations {self.step:>5}  best {scalars['best/score']:.4f}  mean {mean}  "
                f"samples {spent.samples:,}"
            )
        if self.objective.advance(self._share_without_clock(), scalars["best/score"]):
            self._scores = [self.objective.score(evaluation) for evaluation in self.history]
            self._best = None
            for index in range(len(self.history)):
                self._consider(index)

    def _share_without_clock(self) -> float:
        """The spent share of the budget as the objective is told it: the same in every run with this seed."""
        limits = {name: limit for name, limit in self.budget.limits().items() if name != "seconds"}
        return self.budget.progress(self._cost + self._reserved) if limits else self._share()

    def _save(self, tracker: Tracker) -> None:
        self._tracker_state = tracker.state_dict()
        self._saved = time.perf_counter()
        cost = self.spent
        self.folder.checkpoints.save(
            self.step,
            {
                "step": self.step,
                "round": self.round,
                "seconds": cost.seconds,
                "cost": vars(self._cost).copy(),
                "paid": sorted(self._paid),
                "history": [evaluation.to_json() for evaluation in self.history],
                "scores": self._scores,
                "best": self._best,
                "marks": [self._best_step, self._idle, self._line_step],
                "finalists_chosen": self._finalists_chosen,
                "strategy": self.strategy.state_dict(),
                "evaluator": self.evaluator.state_dict(),
                "objective": self.objective.state_dict(),
                "randomness": self.randomness.state_dict(),
                "tracker": self._tracker_state,
            },
        )

    def _load_state(self, state: dict[str, Any]) -> None:
        self.step, self.round, self.seconds = state["step"], state["round"], state["seconds"]
        self._cost, self._paid = Cost(**state["cost"]), set(state["paid"])
        self.history = [Evaluation.from_json(content) for content in state["history"]]
        self._scores, self._best = state["scores"], state["best"]
        self._best_step, self._idle, self._line_step = state["marks"]
        self._finalists_chosen = state["finalists_chosen"]
        self.strategy.load_state_dict(state["strategy"])
        self.evaluator.load_state_dict(state["evaluator"])
        self.objective.load_state_dict(state["objective"])
        self.randomness.load_state_dict(state["randomness"])
