"""A part of ``benchmark_truth.py``: runs its searches within budgets, and trains what they find."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cached_runs import CachedRuns
from surrogate_optimum import proposals
from truth_report import Found, Score
from truth_runs import COLUMNS, Arm, LiveSearch, Row, Unit, overrides_of

from nas.evaluation.surrogate import Surrogate
from nas.evaluation.truth import Truth

RETRAININGS = 3
DOUBLINGS = 4  # of a black-box search, at most
PROPOSALS, FINALISTS = 24, 4  # of the surrogate's optimum, for the best that is known


@dataclass(frozen=True)
class Budget:
    """So many mean trainings of the truth, in one unit."""

    unit: Unit
    trainings: float

    def limit(self, truth: Truth) -> float:
        return self.trainings * truth.mean_training(COLUMNS[self.unit])

    def __str__(self) -> str:
        return f"{self.trainings:g} trainings in {self.unit.replace('_', '-').replace('seconds', 'processor seconds')}"


def largest(budgets: Sequence[Budget]) -> Budget:
    """The largest in multiply-adds, or in samples or seconds where there are no others: these depend on the machine."""
    units: tuple[Unit, ...] = ("multiply_adds", "samples", "seconds")
    unit = next(unit for unit in units if any(budget.unit == unit for budget in budgets))
    return max((one for one in budgets if one.unit == unit), key=lambda one: one.trainings)


def lengthened(budget: Budget, budgets: Sequence[Budget], doublings: int) -> Budget:
    """What a search gets anew that has not spent ``budget``: the largest of its unit.

    For seconds it is the largest of a unit that can be counted beforehand, doubled so many times.
    """
    if budget.unit != "seconds":
        return largest([one for one in budgets if one.unit == budget.unit])
    most = largest(budgets)
    return Budget(most.unit, 2**doublings * most.trainings)


class Instrument:
    """Runs searches on one truth and trains what they find.

    Args:
        overrides: Those of the truth's configuration, as for ``train_search.py``.
        runs: Where runs are kept.
        known: Whether only runs that are there count.
        variants: Further gradient searches by name.
    """

    def __init__(
        self,
        truth: Truth,
        overrides: tuple[str, ...],
        runs: CachedRuns,
        known: bool = False,
        variants: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.truth, self.overrides, self.runs, self.known = truth, overrides, runs, known
        self.variants = dict(variants or {})

    def search(self, arm: Arm, seed: int, budget: Budget) -> LiveSearch:
        own = overrides_of(arm, self.truth, seed, self.variants)
        limit = budget.limit(self.truth)
        text = f"{int(limit)}" if budget.unit == "samples" else f"{limit:.6g}"
        return LiveSearch((*self.overrides, *own, f"budget.{budget.unit}={text}"), seed)

    def found(self, arms: Sequence[Arm], budgets: Sequence[Budget], seed: int) -> list[Found]:
        """What every arm finds within every budget, each trained anew; an arm that failed or does not fit is absent."""
        results = self._searched(arms, budgets, seed)
        chosen = [
            (arm, budget, found)
            for arm in arms
            for budget in budgets
            if (found := self._within(arm, budget, results)) is not None
        ]
        rows = [
            Row(self.overrides, candidate, 900_000_000 + 10 * seed + repeat)
            for _, _, (candidate, _) in chosen
            for repeat in range(RETRAININGS)
        ]
        trained = self.results(rows, f"seed {seed}: retrainings")
        scored = []
        for place, (arm, budget, (candidate, cost)) in enumerate(chosen):
            own = trained[RETRAININGS * place : RETRAININGS * (place + 1)]
            if all(one is not None for one in own):
                scored.append(Found(arm, str(budget), seed, candidate, cost, Score.of([one for one in own if one])))
        return scored

    def best_known(self, found: Iterable[Found], surrogate: Surrogate) -> tuple[float, float]:
        """The highest mean test accuracy and the lowest mean test loss of anything that was trained three times.

        This pools what all methods found, the truth's repeated candidates, and the four best of what the surrogate
        proposes.
        """
        texts = [json.dumps(one.to_json(), sort_keys=True) for one in proposals(surrogate, PROPOSALS)]
        once = self.results([Row(self.overrides, one, 910_000_000) for one in texts], "the surrogate's proposals")
        ranked = sorted((one["validation_loss"], text) for one, text in zip(once, texts, strict=True) if one)
        seeds = range(910_000_001, 910_000_001 + RETRAININGS)
        again = [Row(self.overrides, text, seed) for _, text in ranked[:FINALISTS] for seed in seeds]
        trained = [one for one in self.results(again, "the best of them") if one is not None]
        scores = [one.score for one in found]
        scores += [Score.of(trained[place : place + RETRAININGS]) for place in range(0, len(trained), RETRAININGS)]
        scores += [Score.of([row.results for row in rows]) for rows in self.truth.repeated().values()]
        return max(one.accuracy for one in scores), min(one.loss for one in scores)

    def evaluations(self, arm: Arm, budgets: Sequence[Budget], seed: int) -> list[Any]:
        """The evaluations of a black-box search, for its anytime curve."""
        (result,) = self.results([self._longest(arm, budgets, seed)], "")
        return [] if result is None else result.get("evaluations", [])

    def _longest(self, arm: Arm, budgets: Sequence[Budget], seed: int) -> LiveSearch:
        return self.search(arm, seed, largest(budgets))

    def _searched(self, arms: Sequence[Arm], budgets: Sequence[Budget], seed: int) -> dict[Any, dict[str, Any] | None]:
        """The results by (arm, budget).

        A black-box search does not depend on its budget, so one goes on until the largest is spent, and is cut. The
        schedules of a gradient search do, and the policy of AutoHAS, so each budget has its own; that for a budget of
        seconds is the longest of them that fits in.
        """
        longest = {arm: self._longest(arm, budgets, seed) for arm in arms if arm.is_cut}
        counted = [budget for budget in budgets if budget.unit != "seconds"] or list(budgets)
        wanted: dict[Any, LiveSearch] = {
            (arm, budget): longest[arm] if arm in longest else self.search(arm, seed, budget)
            for arm in arms
            for budget in (budgets if arm in longest else counted)
        }
        results = self._all(wanted, seed)
        further: dict[Any, LiveSearch] = {}
        for arm in arms:
            for budget in budgets:
                if arm not in longest and (arm, budget) not in results:
                    own = [one for one in (results.get((arm, other)) for other in counted) if one and "cost" in one]
                    fits = [one for one in own if one["cost"]["seconds"] <= budget.limit(self.truth)]
                    if fits:
                        results[arm, budget] = max(fits, key=lambda one: one["cost"]["multiply_adds"])
                    else:
                        further[arm, budget] = self.search(arm, seed, budget)
        results |= self._all(further, seed)
        return self._prolonged(list(longest), budgets, seed, results)

    def _prolonged(
        self, arms: Sequence[Arm], budgets: Sequence[Budget], seed: int, known: Mapping[Any, dict[str, Any] | None]
    ) -> dict[Any, dict[str, Any] | None]:
        """What is ``known``, with longer black-box searches where these have not spent a budget.

        How many processor seconds a search takes is known afterwards, and the clock runs on while others have the
        processor. So a search that has not spent a budget of seconds is made anew, twice as long each time.
        """
        results = dict(known)
        for doublings in range(1, DOUBLINGS + 1):
            wanted = {
                (arm, budget): self.search(arm, seed, lengthened(budget, budgets, doublings))
                for arm, budget in itertools.product(arms, budgets)
                if (newest := results.get((arm, budget))) is not None and not self._reaches(newest, budget)
            }
            results |= self._all(wanted, seed)
        return results

    def _all(self, wanted: Mapping[Any, LiveSearch], seed: int) -> dict[Any, dict[str, Any] | None]:
        results = self.results(list(wanted.values()), f"seed {seed}: searches")
        return dict(zip(wanted, results, strict=True))

    def results(self, runs: Sequence[Any], what: str) -> list[dict[str, Any] | None]:
        if self.known:
            return [self.runs.known(run) for run in runs]
        return list(self.runs.results(runs, what))

    def _reaches(self, result: Mapping[str, Any], budget: Budget) -> bool:
        """Whether a black-box search went on for as long as ``budget`` pays for."""
        limit = budget.limit(self.truth)
        spent = sum(cost[budget.unit] for _, _, cost in result.get("evaluations", []))
        dearest = max((cost[budget.unit] for _, _, cost in result.get("evaluations", [])), default=limit)
        return "failure" in result or spent + dearest >= limit

    def _within(self, arm: Arm, budget: Budget, results: Mapping[Any, Any]) -> tuple[str, dict[str, float]] | None:
        """The candidate (JSON) that a search has found within ``budget``, and what it had spent."""
        result = results.get((arm, budget))
        if result is None or "failure" in result:
            return None
        if not arm.is_cut:
            return json.dumps(result["candidate"], sort_keys=True), result["cost"]
        best, spent = None, dict.fromkeys(COLUMNS, 0.0)
        for candidate, loss, cost in result["evaluations"]:
            total = {unit: spent[unit] + cost[unit] for unit in COLUMNS}
            if total[budget.unit] > budget.limit(self.truth):
                break
            spent = total
            if best is None or loss < best[0]:
                best = loss, candidate
        if best is None:
            return None
        return json.dumps(best[1], sort_keys=True), spent
