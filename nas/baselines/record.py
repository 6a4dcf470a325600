"""The record of a black-box search: its evaluations with their scores, and what it tells of them after each round."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from nas.baselines.meter import EvaluationMeter
from nas.baselines.strategy import Strategy
from nas.candidate import Candidate
from nas.errors import UnusableInput
from nas.evaluation.evaluation import Evaluation
from nas.run.loop import Session
from nas.run.tracking import Tracker

LINE_EVERY = 20  # evaluations, where nothing better is found


class History:
    """All evaluations of a search with their scores, and the best of them: fully trained ones first, then the score.

    Attributes:
        evaluations: In their order; the finalists' second measurements come last.
        scores: The objective's score of each, under its present weights.
        step: The number of evaluations without the finalists' second measurements.
        best_step: The step at which the best one last changed, or the scores did.
    """

    def __init__(self) -> None:
        self.evaluations: list[Evaluation] = []
        self.scores: list[float] = []
        self.step, self.best_step = 0, 0
        self._best: int | None = None

    @property
    def best(self) -> Evaluation:
        """The best evaluation.

        Raises:
            UnusableInput: There is no evaluation yet.
        """
        if self._best is None:
            raise UnusableInput("The search has ended before its first evaluation.")
        return self.evaluations[self._best]

    @property
    def best_score(self) -> float:
        """The score of :attr:`best`."""
        return self.scores[self._best or 0]

    def add(self, evaluations: Sequence[Evaluation], scores: Sequence[float]) -> None:
        """Append the evaluations of a round."""
        for evaluation, score in zip(evaluations, scores, strict=True):
            self.step += 1
            self._append(evaluation, score)

    def rescore(self, scores: Sequence[float]) -> None:
        """Replace all scores."""
        self.scores, self._best = list(scores), None
        for index in range(len(self.scores)):
            self._consider(index)

    def finalists(self, count: int) -> list[Candidate]:
        """The ``count`` best candidates of the later half, the best first."""
        later = range(len(self.evaluations) // 2, len(self.evaluations))
        best_first = sorted(later, key=lambda index: -self.scores[index])
        return list({self.evaluations[index].candidate: None for index in best_first})[:count]

    def add_final(self, evaluations: Sequence[Evaluation], scores: Sequence[float]) -> None:
        """Append the finalists' second measurements: the best of these is the best of all."""
        best_step, self._best = self.best_step, None
        for evaluation, score in zip(evaluations, scores, strict=True):
            self._append(evaluation, score)
        self.best_step = best_step

    def _append(self, evaluation: Evaluation, score: float) -> None:
        self.evaluations.append(evaluation)
        self.scores.append(score)
        self._consider(len(self.scores) - 1)

    def _consider(self, index: int) -> None:
        def rank(one: int) -> tuple[float, float]:
            return self.evaluations[one].metrics.get("fidelity", 1.0), self.scores[one]

        if self._best is None or rank(index) > rank(self._best):
            self._best, self.best_step = index, self.step

    def state_dict(self) -> dict[str, Any]:
        return {
            "evaluations": [evaluation.to_json() for evaluation in self.evaluations],
            "scores": self.scores,
            "step": self.step,
            "best_step": self.best_step,
            "best": self._best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.evaluations = [Evaluation.from_json(content) for content in state["evaluations"]]
        self.scores, self._best = state["scores"], state["best"]
        self.step, self.best_step = state["step"], state["best_step"]


class RoundRecord:
    """Writes the curves and the console's lines of a search, the latter where something is better, and at the end.

    Args:
        history: The search's evaluations.
        meter: The search's cost.
        strategy: Its statistics are recorded, too.
    """

    def __init__(self, history: History, meter: EvaluationMeter, strategy: Strategy) -> None:
        self.history, self.meter, self.strategy = history, meter, strategy
        self.line_step = 0
        self._untold = ""  # the line of the last round, where it was not printed

    def tell_round(self, session: Session, evaluations: int, number: int) -> None:
        """Record the last ``evaluations`` of the history as round ``number``."""
        history, step, spent, tracker = self.history, self.history.step, self.meter.spent, session.tracker
        scores = [score for score in history.scores[-evaluations:] if math.isfinite(score)]
        scalars: dict[str, float] = {"best/score": history.best_score}
        scalars |= {f"best/{name}": history.best.metrics[name] for name in sorted(history.best.metrics)}
        scalars |= {"population/size": float(evaluations), "population/failed": float(evaluations - len(scores))}
        if scores:
            scalars["population/score_mean"] = statistics.fmean(scores)
            scalars["population/score_std"] = statistics.pstdev(scores)
        scalars |= self.strategy.statistics()
        scalars |= {
            "budget/samples": float(spent.samples),
            "budget/multiply_adds": spent.multiply_adds,
            "budget/evaluations": float(spent.evaluations),
        }
        tracker.scalars(scalars, step, number)
        tracker.timing("time/total_seconds", spent.seconds, step, number)
        tracker.timing("throughput/evaluations_per_second", step / max(spent.seconds, 1e-9), step, number)
        mean = f"{statistics.fmean(scores):.4f}" if scores else "-"
        self._untold = (
            f"round {number + 1:>4}  evaluations {step:>5}  best {history.best_score:.4f}  mean {mean}  "
            f"samples {spent.samples:,}"
        )
        if history.best_step > self.line_step or step - self.line_step >= LINE_EVERY:
            self.line_step = step
            self.tell_last(session)

    def tell_last(self, session: Session) -> None:
        """Print the line of the last round, where it was not printed."""
        if self._untold:
            session.progress.epoch_line(self._untold)
        self._untold = ""

    def tell_finalists(self, tracker: Tracker, number: int) -> None:
        """Record the best score and the cost after the finalists' second measurement."""
        scalars = {
            "best/score": self.history.best_score,
            "budget/samples": float(self.meter.cost.samples),
            "budget/multiply_adds": self.meter.cost.multiply_adds,
        }
        tracker.scalars(scalars, self.history.step, number)

    def state_dict(self) -> dict[str, Any]:
        return {"line_step": self.line_step, "untold": self._untold}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.line_step, self._untold = state["line_step"], state.get("untold", "")
