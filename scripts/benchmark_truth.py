"""Every method's regret in a joint space whose truth is known.

    python scripts/benchmark_truth.py --truth truth_mnist --methods joint fixed random tpe random_short tpe_short \
        --budgets samples=1.25 multiply_adds=6,20 seconds=4 --seeds 10..29 --jobs 2

A truth is a file that ``make_truth.py`` wrote, or the name of one in ``scripts/truth``. The methods run live on the
problem that it is of: full trainings, short ones (two epochs, under their own schedule), and gradient searches, each
with the prior knowledge that ``truth_runs.py`` describes. Budgets are in mean trainings of the truth. What a search
found is trained three times from fresh seeds, exactly as the truth's rows, and is worth the mean of these.

Printed per budget: test accuracy and loss (mean ± std, worst), the percentile among the random candidates, the regret
against the best that is known, how many full trainings random search needs for the same, what was spent, and paired
permutation tests against ``--ours``, Holm-corrected, with what this number of seeds can tell apart. ``--diagnose`` adds
where the gradient searches lose it (``truth_diagnosis.py``). Tables, results (CSV) and anytime curves (CSV, PNG) go to
--folder. Further gradient searches are named by ``--variant name=override,override``; other arguments are settings of
the problem, needed where the truth's name is not that of an experiment.

Runs are kept below --folder and are not made again; ``--known`` reports on those that are there. Exit code 0 where ours
has the highest mean accuracy at every budget and is significantly ahead of random search with full trainings, 1 where
not, 2 for bad input, 75 where it was stopped: the same command goes on.
"""

import argparse
import itertools
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cached_runs import CachedRuns
from make_truth import QUIET, problem_of, typed_configuration
from surrogate_optimum import proposals
from truth_report import Found, Score, anytime, in_short, print_report
from truth_runs import BLACK_BOXES, COLUMNS, GRADIENTS, PRIORS, Arm, LiveSearch, Row, Unit, arms_of, overrides_of

from nas.errors import InvalidValue, UnusableInput, require
from nas.evaluation.surrogate import Surrogate
from nas.evaluation.truth import Truth, read_truth
from nas.run.entry_point import BAD_INPUT, FAILED
from nas.stopping import STOPPED, Stopped

ROOT = Path(__file__).resolve().parent.parent
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


def parsed_budgets(texts: Sequence[str]) -> list[Budget]:
    """``samples=1.25 multiply_adds=6,20`` as budgets.

    Raises:
        InvalidValue: A text is none.
    """
    found = []
    for text in texts:
        unit, _, numbers = text.partition("=")
        allowed = f"it must be {', '.join(COLUMNS)}, = and numbers of trainings, such as multiply_adds=6,20"
        good = unit in COLUMNS and re.fullmatch(r"\d+(\.\d+)?(,\d+(\.\d+)?)*", numbers) is not None
        require(good, "--budgets", text, allowed)
        for number in numbers.split(","):
            require(float(number) > 0, "--budgets", text, allowed)
            found.append(Budget(unit, float(number)))  # type: ignore[arg-type]
    return list(dict.fromkeys(found))


def parsed_seeds(texts: Sequence[str]) -> list[int]:
    """``10..29 40`` as numbers.

    Raises:
        InvalidValue: A text is none.
    """
    found: list[int] = []
    for text in texts:
        span = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", text)
        good = span is not None and int(span[1]) <= int(span[2] or span[1])
        require(good, "--seeds", text, "it must be a whole number, or two of them such as 10..29")
        assert span is not None
        found += range(int(span[1]), int(span[2] or span[1]) + 1)
    return list(dict.fromkeys(found))


def parsed_variants(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``name=override,override`` as gradient searches by name; a comma inside of brackets separates nothing."""
    found = {}
    for text in texts:
        name, _, overrides = text.partition("=")
        allowed = "it must be name=override,override with a name of its own, such as slow=search.epochs=20"
        require(bool(name and overrides) and name not in {**BLACK_BOXES, **GRADIENTS}, "--variant", text, allowed)
        found[name] = tuple(_split(overrides))
    return found


def _split(overrides: str) -> list[str]:
    depth, parts = 0, [""]
    for letter in overrides:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def located(text: str) -> Path:
    """The file of a truth that is named by its path or by its name in ``scripts/truth``."""
    kept = ROOT / "scripts" / "truth" / f"{text}.csv.gz"
    return kept if kept.is_file() else Path(text)


def problem_overrides(truth: Truth, path: Path, given: Sequence[str]) -> tuple[str, ...]:
    """The settings under which the truth's configuration comes out again.

    Raises:
        InvalidValue: They give another one; the first setting that differs is named.
    """
    experiment = path.name.split(".")[0]
    named = (ROOT / "conf" / "experiment" / f"{experiment}.yaml").is_file() and not any(
        one.startswith("experiment=") for one in given
    )
    overrides = (*((f"experiment={experiment}",) if named else ()), *given, *QUIET)
    here = json.loads(json.dumps(problem_of(typed_configuration(overrides)).configuration))
    starts = {f"hyperparameters.{name}.initial" for name in truth.space.ranges}  # a candidate has its own values
    for key, (theirs, ours) in differences(truth.configuration, here).items():
        allowed = f"the truth {path} was made with {key}={theirs}; give the settings it was made with"
        require(key in starts, key, ours, allowed)
    return overrides


def differences(one: Any, other: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """The leaves in which ``other`` differs from ``one``, but for the seed and for how hyperparameters are learned.

    What ``one`` does not have came later than it, with a default that leaves everything as it was.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for name, value in one.items():
            found |= differences(value, other.get(name), f"{key}.{name}" if key else name)
        return found
    learning = re.fullmatch(
        r"seed|hyperparameters\.gradient.*|hyperparameters\.\w+\.(learn|update|trust_region|basis|by)\b.*", key
    )
    return {} if one == other or learning else {key: (one, other)}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", required=True, help="a file of make_truth.py, or the name of one in scripts/truth")
    arms = f"{', '.join([*GRADIENTS, *BLACK_BOXES])}; with every prior, or with one: METHOD@PRIOR"
    parser.add_argument("--methods", nargs="+", default=["joint", *BLACK_BOXES], metavar="METHOD", help=arms)
    parser.add_argument("--priors", nargs="+", default=list(PRIORS), choices=PRIORS)
    parser.add_argument("--variant", action="append", default=[], help="name=override,override: a gradient search")
    parser.add_argument("--ours", default="joint", metavar="METHOD", help="which is tested against all others")
    parser.add_argument("--budgets", nargs="+", default=["samples=1.25", "multiply_adds=6,20", "seconds=4"])
    parser.add_argument("--seeds", nargs="+", default=["10..29"])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--folder", type=Path, help="where runs are kept and results go")
    parser.add_argument("--known", action="store_true", help="report on the runs that are there, make none")
    parser.add_argument("--diagnose", action="store_true", help="where the gradient searches lose it")
    parser.add_argument("overrides", nargs="*", help="settings of the problem")
    parsed, more = parser.parse_known_intermixed_args(arguments)
    if more:
        parser.error(f"there is no {more[0]}")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    try:
        variants = parsed_variants(asked.variant)
        arms = arms_of([*asked.methods, *variants], asked.priors)
        known = {**GRADIENTS, **BLACK_BOXES, **variants}
        for name in asked.methods:
            method, _, prior = name.partition("@")
            allowed = f"it must be one of {', '.join(known)}, or one of them with a prior, such as joint@wide"
            require(method in known and prior in ("", *PRIORS), "--methods", name, allowed)
        present = list(dict.fromkeys(arm.method for arm in arms))
        require(asked.ours in present, "--ours", asked.ours, f"it must be one of {', '.join(present)}")
        require(asked.jobs >= 1, "--jobs", asked.jobs, "it must be at least 1")
        budgets, seeds = parsed_budgets(asked.budgets), parsed_seeds(asked.seeds)
        path = located(asked.truth)
        truth = read_truth(path)
        overrides = problem_overrides(truth, path, asked.overrides)
    except (InvalidValue, UnusableInput) as error:
        print(f"benchmark_truth.py: {error}", file=sys.stderr)
        return BAD_INPUT
    name = path.name.split(".")[0]
    folder = asked.folder or Path("runs") / "benchmark_truth" / name
    runs = CachedRuns(folder / "kept", asked.jobs)
    instrument = Instrument(truth, overrides, runs, asked.known, variants)
    try:
        surrogate = Surrogate(truth)
        found: list[Found] = []
        for seed in seeds:  # by seed, so that an early end is a fair one
            found += instrument.found(arms, budgets, seed)
        if not found:
            print("benchmark_truth.py: there is no run to report on", file=sys.stderr)
            return BAD_INPUT
        best = instrument.best_known(found, surrogate)
        ours = next((arm for arm in arms if arm.method == asked.ours), arms[0])
        reached = print_report(folder, name, truth, surrogate, found, [str(one) for one in budgets], ours, best)
        curves = {
            (arm, seed): instrument.evaluations(arm, budgets, seed) for arm in arms for seed in seeds if arm.is_cut
        }
        anytime(folder, truth, surrogate, curves, found, max(one.trainings for one in budgets))
        if asked.diagnose:
            from truth_diagnosis import diagnose

            diagnose(instrument, surrogate, [arm for arm in arms if arm.is_gradient], budgets, seeds)
    except (KeyboardInterrupt, Stopped):
        print("benchmark_truth.py: stopped; started again, it goes on where it was", file=sys.stderr)
        return STOPPED
    print(in_short(name, found, ours, reached, folder))
    return 0 if reached else FAILED


if __name__ == "__main__":
    sys.exit(main())
