"""The cost meter of a black-box search: what its evaluations have cost, and how many more the budget pays for."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nas.candidate import Candidate
from nas.errors import require
from nas.evaluation.budget import Budget
from nas.evaluation.evaluation import Cost, Evaluation
from nas.evaluation.evaluator import Evaluator


class EvaluationMeter:
    """Counts what evaluations cost. A repeated candidate costs one evaluation and no samples, if metrics do not drift.

    Args:
        budget: What the search may spend.
        evaluator: Knows the prices of candidates, and what must be kept back.

    Attributes:
        cost: The cost until now; its seconds are processing time, summed over parallel jobs.
        paid: Fingerprints of the candidates that have been paid for.
        repeats: How many evaluations in a row, up to now, were repetitions.
        seconds: Time on the clock up to the last :meth:`start_clock`, summed over the resumed parts of a run.
    """

    def __init__(self, budget: Budget, evaluator: Evaluator) -> None:
        self.budget, self.evaluator = budget, evaluator
        self.cost, self.paid, self.repeats = Cost(), set[str](), 0
        self.seconds, self._began = 0.0, time.perf_counter()

    def require_one(self, candidate: Candidate) -> None:
        """Check that the budget pays for one evaluation, such as that of ``candidate``.

        Raises:
            InvalidValue: A limit is below the price.
        """
        price = self.evaluator.price(candidate) + self.evaluator.reserve()
        for name, limit in self.budget.limits().items():
            one = getattr(price, name)
            require(one <= limit, f"budget.{name}", limit, f"one evaluation costs up to {one:,.0f}")

    def affordable(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """As many of ``candidates``, from the front, as the budget surely pays for; the clock has no part in it."""
        chosen: list[Candidate] = []
        cost, paid = replace(self.cost + self.evaluator.reserve(), seconds=0.0), set(self.paid)
        for candidate in candidates:
            repeated = self.evaluator.cacheable and candidate.fingerprint() in paid
            cost += Cost(evaluations=1) if repeated else self.evaluator.price(candidate)
            if not self.budget.allows(cost):
                break
            chosen.append(candidate)
            paid.add(candidate.fingerprint())
        return chosen

    def pay(self, evaluations: Sequence[Evaluation]) -> None:
        """Count the costs of ``evaluations``."""
        for evaluation in evaluations:
            fingerprint = evaluation.candidate.fingerprint()
            repeated = self.evaluator.cacheable and fingerprint in self.paid
            self.repeats = self.repeats + 1 if repeated else 0
            self.cost += Cost(evaluations=1) if repeated else evaluation.cost
            self.paid.add(fingerprint)

    @property
    def spent(self) -> Cost:
        """The cost until now, with the seconds on the clock."""
        return replace(self.cost, seconds=self.clock)

    @property
    def clock(self) -> float:
        """Seconds until now."""
        return self.seconds + time.perf_counter() - self._began

    def start_clock(self) -> None:
        """Leave out the time since the clock was last read into :attr:`seconds`."""
        self._began = time.perf_counter()

    def stop_clock(self) -> None:
        """Read the clock into :attr:`seconds`."""
        self.seconds, self._began = self.clock, time.perf_counter()

    def progress(self) -> float:
        """The share of the budget (0 to 1) that is spent together with the evaluator's reserve."""
        return self.budget.progress(self.spent + self.evaluator.reserve())

    def progress_without_clock(self) -> float:
        """As :meth:`progress`, and the same in every run with this seed, unless the clock is the only limit."""
        counted = replace(self.budget, seconds=None)
        return counted.progress(self.cost + self.evaluator.reserve()) if counted.limits() else self.progress()

    def state_dict(self) -> dict[str, Any]:
        cost = vars(self.cost).copy()
        return {"cost": cost, "paid": sorted(self.paid), "repeats": self.repeats, "seconds": self.clock}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cost, self.paid = Cost(**state["cost"]), set(state["paid"])
        self.repeats, self.seconds = state["repeats"], state["seconds"]
