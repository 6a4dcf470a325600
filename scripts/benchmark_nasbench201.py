"""The black-box methods on all architectures of NAS-Bench-201, looked up in a table, against random search.

    python scripts/benchmark_nasbench201.py --table ../shared/reference/nasbench201_12epochs.csv.gz --dataset cifar10

Every method maximises the validation accuracy; what is reported is the best found after 100, 192 and 500 evaluations
(and after --evaluations) and its test accuracy. Repeated candidates count as evaluations. On CIFAR-10 random search,
aging evolution and REINFORCE are compared with known figures. Exit code 0 where every target is reached, 1 where one is
missed, 2 for bad input.
"""

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from joblib import Parallel, delayed

from nas.baselines.evolution import AgingEvolution
from nas.baselines.genetic import Genetic
from nas.baselines.mu_plus_lambda import MuPlusLambda
from nas.baselines.policy import Factorised, LSTMController
from nas.baselines.reinforce import Reinforce
from nas.baselines.strategy import RandomSearch, Scored, Strategy
from nas.baselines.tpe import TPE
from nas.errors import InvalidValue, UnusableInput
from nas.evaluation.table import read_table
from nas.report.tables import comparison_table, mean_and_deviation, print_table
from nas.run.entry_point import BAD_INPUT, FAILED
from nas.run.randomness import Randomness
from nas.signature import Signature
from nas.spaces.nasbench201.choices import architecture_text
from nas.spaces.nasbench201.space import NasBench201

RANDOM = "random"
METHODS: dict[str, Callable[..., Strategy]] = {
    RANDOM: RandomSearch,
    "genetic": Genetic,
    "evolution, aging": lambda **given: AgingEvolution(population=10, sample=3, mutations=1, **given),
    "evolution, mu + lambda": MuPlusLambda,
    "reinforce": lambda **given: Reinforce(
        Factorised(), optimiser="sgd", rate=0.5, baseline_momentum=0.9, normalise=False, entropy_weight=0.0, **given
    ),
    "reinforce, LSTM": lambda **given: Reinforce(LSTMController(), rate=0.03, entropy_weight=0.3, batch=10, **given),
    "tpe": TPE,
}
SLOW = ("tpe",)
COLUMNS = {"ImageNet16-120": "imagenet16"}  # what the literature calls it, and its columns
REPORTED = (100, 192, 500)
BEATEN_AT = (192, 500)
ERRORS_TO_BEAT, ERRORS_TO_AGREE = 2, 3  # standard errors of a difference of means

Spread = tuple[float, float]  # mean and standard deviation
# CIFAR-10 with 200 runs each: evaluations -> (validation, test) of the best found; made elsewhere, as the README beside
# the table says.
REFERENCE_RUNS = 200
REFERENCE: dict[str, dict[int, tuple[Spread, Spread]]] = {
    RANDOM: {
        100: ((83.69, 0.57), (88.08, 0.46)),
        192: ((83.95, 0.41), (88.24, 0.38)),
        500: ((84.29, 0.29), (88.48, 0.34)),
    },
    "evolution, aging": {
        100: ((84.17, 0.65), (88.38, 0.52)),
        192: ((84.54, 0.36), (88.66, 0.35)),
        500: ((84.79, 0.16), (88.88, 0.22)),
    },
    "reinforce": {
        100: ((83.95, 0.47), (88.28, 0.43)),
        192: ((84.35, 0.34), (88.53, 0.34)),
        500: ((84.75, 0.15), (88.85, 0.25)),
    },
}

Table = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Best:
    """The best architecture found so far by its validation accuracy, in per cent."""

    validation: float
    test: float


@dataclass(frozen=True)
class Run:
    """The best after each number of evaluations, and the seconds of processor time that all of it took."""

    best: dict[int, Best]
    seconds: float


def searched(method: str, table: Table, seed: int, budgets: Sequence[int]) -> Run:
    """One run of ``method``, reported after each of the ``budgets``."""
    torch.set_num_threads(1)
    began = time.process_time()
    space = NasBench201(signature=Signature((3, 32, 32), 10))
    strategy = METHODS[method](space=space, generator=Randomness(seed).on_cpu(method))
    best, evaluations, found = Best(-math.inf, -math.inf), 0, {}
    while True:
        scored = []
        for candidate in strategy.ask():
            validation, test = table[architecture_text(candidate.architecture)]
            if validation > best.validation:
                best = Best(validation, test)
            evaluations += 1
            if evaluations in budgets:
                found[evaluations] = best
                if evaluations == max(budgets):
                    return Run(found, time.process_time() - began)
            scored.append(Scored(candidate, validation / 100))
        strategy.tell(scored)


@dataclass(frozen=True)
class Cell:
    """What the runs of one method have found after one number of evaluations, in per cent; the whole runs' seconds."""

    validation: list[float]
    test: list[float]
    seconds: list[float]


def spread(values: Sequence[float]) -> Spread:
    return statistics.fmean(values), statistics.stdev(values)


def standard_errors(one: Spread, runs: int, other: Spread, other_runs: int) -> float:
    """The difference of two means in units of its standard error; infinite where no run differs from another."""
    difference = one[0] - other[0]
    error = math.sqrt(one[1] ** 2 / runs + other[1] ** 2 / other_runs)
    return difference / error if error > 0 else math.copysign(math.inf, difference) if difference else 0.0


def targets(cells: Mapping[tuple[str, int], Cell], dataset: str) -> dict[str, bool]:
    """What must hold, in words, and whether it does."""
    found = {}
    for method, budget in cells:
        if method != RANDOM and budget in BEATEN_AT:
            ours, theirs = cells[method, budget].validation, cells[RANDOM, budget].validation
            errors = standard_errors(spread(ours), len(ours), spread(theirs), len(theirs))
            sentence = f"{method} beats random search after {budget} evaluations by {errors:.1f} standard errors"
            found[f"{sentence} (at least {ERRORS_TO_BEAT})"] = errors >= ERRORS_TO_BEAT
    if dataset != "cifar10":
        return found
    for method, known in REFERENCE.items():
        for budget, spreads in known.items():
            cell = cells[method, budget]
            for split, values, reference in zip(
                ("validation", "test"), (cell.validation, cell.test), spreads, strict=True
            ):
                errors = standard_errors(spread(values), len(values), reference, REFERENCE_RUNS)
                good = abs(errors) <= ERRORS_TO_AGREE if method == RANDOM else errors >= -ERRORS_TO_AGREE
                limits = f"within {ERRORS_TO_AGREE}" if method == RANDOM else f"at least -{ERRORS_TO_AGREE}"
                sentence = f"{method} agrees with {reference[0]:.2f} % {split} after {budget} evaluations"
                found[f"{sentence}: {errors:+.1f} standard errors ({limits})"] = good
    return found


def report(cells: Mapping[tuple[str, int], Cell], table: Table, dataset: str) -> int:
    """Print a table for each number of evaluations, the targets and a summary; returns the exit code."""
    optimum, best_test = (max(column) for column in zip(*table.values(), strict=True))
    columns = ("", "runs", "validation %", "regret", "test %", "test regret", "seconds per run")
    for budget in sorted({budget for _, budget in cells}):
        rows = []
        for method in METHODS:
            cell = cells[method, budget]
            regrets = [optimum - value for value in cell.validation], [best_test - value for value in cell.test]
            rows.append(
                (
                    method,
                    str(len(cell.validation)),
                    mean_and_deviation(cell.validation, 2),
                    mean_and_deviation(regrets[0], 2),
                    mean_and_deviation(cell.test, 2),
                    mean_and_deviation(regrets[1], 2),
                    f"{statistics.fmean(cell.seconds):.2f}",
                )
            )
        title = (
            f"{dataset}, best after {budget} evaluations (optimum: validation {optimum:.3f}, best test {best_test:.3f})"
        )
        print_table(comparison_table(title, columns, rows))
    outcome = targets(cells, dataset)
    for sentence, reached in outcome.items():
        print(f"{'reached' if reached else 'MISSED '}  {sentence}")
    print(f"nasbench201 {dataset}: {sum(outcome.values())} of {len(outcome)} targets reached")
    return 0 if all(outcome.values()) else FAILED


def measured(table: Table, runs: Mapping[str, int], budgets: Sequence[int], jobs: int) -> dict[tuple[str, int], Cell]:
    """Every method's runs, with the seeds 0, 1, ..."""
    tasks = [(method, seed) for method, count in runs.items() for seed in range(count)]
    tasks.sort(key=lambda task: task[0] in SLOW, reverse=True)  # the long ones first
    parallel = Parallel(n_jobs=jobs, batch_size=5)
    found = parallel(delayed(searched)(method, table, seed, budgets) for method, seed in tasks)
    by_task: dict[tuple[str, int], Run] = dict(zip(tasks, found, strict=True))
    cells = {}
    for method, count in runs.items():
        for budget in budgets:
            done = [by_task[method, seed] for seed in range(count)]
            best = [run.best[budget] for run in done]
            seconds = [run.seconds for run in done]
            cells[method, budget] = Cell([one.validation for one in best], [one.test for one in best], seconds)
    return cells


def main(arguments_given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--table", type=Path, required=True, help="CSV: arch, <dataset>_valid, <dataset>_test in per cent"
    )
    parser.add_argument("--dataset", default="cifar10", help="cifar10, cifar100 or imagenet16 (ImageNet16-120)")
    parser.add_argument("--evaluations", type=int, default=192, help="report after so many, besides 100, 192 and 500")
    parser.add_argument("--runs", type=int, default=200, help="of each method")
    parser.add_argument("--tpe-runs", type=int, default=30, help="of TPE at most, since it is a hundred times slower")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    arguments = parser.parse_args(arguments_given)
    for name in ("evaluations", "runs", "tpe_runs", "jobs"):
        least = 2 if name.endswith("runs") else 1
        if getattr(arguments, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, not {getattr(arguments, name)}")
    began = time.perf_counter()
    try:
        dataset = COLUMNS.get(arguments.dataset, arguments.dataset)
        table = read_table(arguments.table, dataset)
        runs = {
            method: min(arguments.runs, arguments.tpe_runs) if method in SLOW else arguments.runs for method in METHODS
        }
        budgets = sorted({*REPORTED, arguments.evaluations})
        cells = measured(table, runs, budgets, arguments.jobs)
    except (InvalidValue, UnusableInput) as error:
        print(f"benchmark_nasbench201.py: {error}", file=sys.stderr)
        return BAD_INPUT
    spent = sum(sum(cell.seconds) for (_, budget), cell in cells.items() if budget == max(budgets))
    elapsed = f"{time.perf_counter() - began:.0f} s, {spent:.0f} s of processor time"
    print(f"{sum(runs.values())} runs of {max(budgets)} evaluations in {elapsed}")
    return report(cells, table, dataset)


if __name__ == "__main__":
    sys.exit(main())
