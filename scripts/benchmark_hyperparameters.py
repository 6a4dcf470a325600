"""Learned hyperparameters against grids: do they arrive where a grid search would, and what does it cost?

    python scripts/benchmark_hyperparameters.py --quick

Everything runs on mnist5k split 1000 / 1000 / 3000 (conf/experiment/few_images.yaml). Networks are trained on the
training split alone; a grid is judged on the validation split, and the test split only reports. A *ratio* is the
validation loss of a candidate's network over that of its own grid's best, each the median of the same three retraining
seeds; the best is sought among the two cells with the lowest loss at the first of these seeds, so that it is not the
luck of one training. Results are kept in ``--folder``: an interrupted run goes on. Exit code 0 where every target is
reached, 1 where one is missed, 75 where it was interrupted.
"""

import argparse
import math
import os
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cached_runs import CachedRuns, Outcome, Search, Training, candidate_text
from order_statistics import percentile
from scipy import stats

from nas.report.tables import comparison_table, mean_and_deviation, print_table
from nas.spaces.recorded import space_from_description
from nas.stopping import Stopped

MACRO = ("experiment=few_images",)
CNN = (
    *MACRO,
    "space.layers=[{type:conv,filters:16,kernel_size:3,stride:2},{type:conv,filters:32,kernel_size:3,stride:2},"
    "{type:dense,units:128}]",
    "space.activations=[relu]",
    "hypergradient=none",
    "method.doubted=[]",  # what is compared with a grid is the dropout that was learned
    "search.epochs=20",  # long enough to fit the thousand images: less, and dropout would hardly matter
    "final.epochs=20",
)
FIXED = "hyperparameters=fixed"
CNN_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
CNN_DROPOUTS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
RATES, DROPOUTS = (1e-3, 5e-3, 0.02, 0.08, 0.3), (0.0, 0.25, 0.5)
RATE_STARTS, DROPOUT_STARTS = (1e-4, 1e-3, 1e-2, 0.1, 0.5), (0.05, 0.5, 0.9)
JOINT_STARTS = tuple((rate, dropout) for rate in (1e-4, 1e-2, 0.5) for dropout in (0.05, 0.8))
RETRAININGS, FINALISTS = 3, 2
CHANCE = 0.1  # the accuracy of a run that failed
LOST = 0.3  # points that joint learning may lose against the supernet's grid


@dataclass
class Targets:
    """The lines that a reader looks for: what was asked, what came out."""

    lines: list[tuple[bool, str]] = field(default_factory=list)

    def check(self, reached: bool, sentence: str) -> None:
        self.lines.append((reached, sentence))
        print(f"{'reached' if reached else 'MISSED '}  {sentence}", flush=True)

    @property
    def reached(self) -> int:
        return sum(good for good, _ in self.lines)


@dataclass(frozen=True)
class Retrained:
    """Medians over the retraining seeds."""

    validation_loss: float
    validation_accuracy: float
    test_loss: float
    test_accuracy: float

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> "Retrained":
        """A failed training has an infinite loss and the accuracy of guessing."""
        return cls(
            statistics.median(one.validation_loss for one in outcomes),
            statistics.median(max(one.validation_accuracy, CHANCE) for one in outcomes),
            statistics.median(one.test_loss for one in outcomes),
            statistics.median(max(one.test_accuracy, CHANCE) for one in outcomes),
        )


@dataclass(frozen=True)
class Grid:
    """A grid search over one network: a row per learning rate, a column per dropout.

    Attributes:
        cells: One training each, by (learning rate, dropout).
        best: The hyperparameters chosen.
        retrained: What the chosen cell comes to over the retraining seeds.
    """

    cells: Mapping[tuple[float, float], Outcome]
    best: tuple[float, float]
    retrained: Retrained

    @property
    def lowest(self) -> float:
        """The lowest validation loss of any one training: the luckiest cell's, an optimistic bound."""
        return min(one.validation_loss for one in self.cells.values())

    @property
    def samples(self) -> int:
        return sum(one.samples for one in self.cells.values())


def finalists(cells: Mapping[tuple[float, float], Outcome], count: int) -> list[tuple[float, float]]:
    """The cells of lowest validation loss, best first."""
    return sorted(cells, key=lambda cell: cells[cell].validation_loss)[:count]


def ratio(loss: float, best: float) -> float:
    """``loss`` over the grid's best; infinite where the run failed."""
    return loss / best if math.isfinite(loss) else math.inf


@dataclass(frozen=True)
class Paired:
    """A paired comparison of accuracies in points: mean difference, its 95 % interval, two-sided p-value.

    Neither assumes normal differences, which a failed run would make absurd: the interval is a bootstrap's (BCa), the
    test permutes within pairs (flips the differences' signs), exactly up to 13 pairs.
    """

    pairs: int
    mean: float
    low: float
    high: float
    p: float

    @property
    def won(self) -> bool:
        """Significantly better at 5 %."""
        return self.mean > 0 and self.low > 0 and self.p < 0.05

    def __str__(self) -> str:
        interval = f"95 % interval [{self.low:+.2f}, {self.high:+.2f}]"
        return f"{self.mean:+.2f} points, {interval}, {self.pairs} pairs, p = {self.p:.2g}"


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired:
    """Compare accuracies (0 to 1) pair by pair.

    Raises:
        ValueError: There are fewer than two pairs, or the two lengths differ.
    """
    differences = [100 * (one - other) for one, other in zip(ours, theirs, strict=True)]
    if len(differences) < 2:
        raise ValueError("A paired test needs two pairs or more.")
    mean = statistics.fmean(differences)
    drawn = {"rng": np.random.default_rng(0)}  # the same differences give the same numbers
    flips = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=9999, **drawn)
    if len(set(differences)) == 1:
        return Paired(len(differences), mean, mean, mean, float(flips.pvalue))
    interval = stats.bootstrap((differences,), np.mean, **drawn).confidence_interval
    return Paired(len(differences), mean, float(interval.low), float(interval.high), float(flips.pvalue))


def start(rate: float | None = None, dropout: float | None = None) -> tuple[str, ...]:
    values = {"learning_rate": rate, "dropout": dropout}
    return tuple(f"hyperparameters.{name}.initial={value}" for name, value in values.items() if value is not None)


@dataclass(frozen=True)
class Scale:
    """How much is run."""

    rate_starts: Sequence[float]
    dropout_starts: Sequence[float]
    joint_starts: Sequence[tuple[float, float]]
    cnn_seeds: Sequence[int]
    joint_seeds: Sequence[int]
    supernet_grid: Sequence[tuple[float, float]]
    random_architectures: int
    judged_architectures: int


class Benchmark:
    """All measurements, each one method that prints its table and its targets."""

    def __init__(self, runs: CachedRuns, scale: Scale, overrides: Sequence[str]) -> None:
        self.runs, self.scale = runs, scale
        self.macro, self.cnn = (*MACRO, *overrides), (*CNN, *overrides)
        self.seeds = [1000 + number for number in range(RETRAININGS)]  # of the retrainings
        self.targets = Targets()

    # -- pieces ------------------------------------------------------------------------------------------------------

    def retrained(self, searches: Sequence[Outcome], overrides: tuple[str, ...]) -> list[Retrained]:
        """Every search's candidate from fresh weights, with the hyperparameters it carries."""
        found = [one for one in searches if one.candidate]
        trainings = [Training(candidate_text(one.candidate), overrides, seed) for one in found for seed in self.seeds]
        outcomes = iter(self.runs.outcomes(trainings, "retrainings"))
        failed = [Outcome()] * RETRAININGS
        return [Retrained.of([next(outcomes) for _ in self.seeds] if one.candidate else failed) for one in searches]

    def grids(
        self,
        candidates: Sequence[Mapping[str, Any]],
        overrides: tuple[str, ...],
        rates: Sequence[float],
        dropouts: Sequence[float],
        finalist_count: int = FINALISTS,
    ) -> list[Grid]:
        """A grid search over each candidate's network."""
        places = [(rate, dropout) for rate in rates for dropout in dropouts]

        def trainings(chosen: Sequence[Sequence[tuple[float, float]]], seeds: Sequence[int]) -> list[Training]:
            return [
                Training(candidate_text(candidate, learning_rate=rate, dropout=dropout), overrides, seed)
                for candidate, cells in zip(candidates, chosen, strict=True)
                for rate, dropout in cells
                for seed in seeds
            ]

        outcomes = iter(self.runs.outcomes(trainings([places] * len(candidates), self.seeds[:1]), "grids"))
        cells = [{place: next(outcomes) for place in places} for _ in candidates]
        chosen = [finalists(one, finalist_count) for one in cells]
        outcomes = iter(self.runs.outcomes(trainings(chosen, self.seeds), "grids' finalists"))
        found = []
        for one, best in zip(cells, chosen, strict=True):
            medians = {cell: Retrained.of([next(outcomes) for _ in self.seeds]) for cell in best}
            winner = min(medians, key=lambda cell: medians[cell].validation_loss)
            found.append(Grid(one, winner, medians[winner]))
        return found

    def run_seed(self, seed: int, index: int) -> int:
        """A seed of its own for every (seed, start): pairs must not share their luck."""
        return 100 * seed + index

    # -- measurements ------------------------------------------------------------------------------------------------

    def fixed_cnn(self) -> tuple[Grid, dict[str, Any]]:
        """The grid of the fixed network, the noise floor at its best cell, and whether dropout matters."""
        (plain,) = self.runs.outcomes([Search((*self.cnn, FIXED, "search.epochs=1"), 0)], "the fixed network")
        (grid,) = self.grids([plain.candidate], self.cnn, CNN_RATES, CNN_DROPOUTS)
        rate, dropout = grid.best
        text = candidate_text(plain.candidate, learning_rate=rate, dropout=dropout)
        floor = self.runs.outcomes([Training(text, self.cnn, 2000 + number) for number in range(5)], "noise floor")
        losses = [one.validation_loss for one in floor]
        rows = [
            (
                f"lr {rate:g}, dropout {dropout:g}",
                mean_and_deviation(losses, 4),
                f"{min(losses) / statistics.fmean(losses):.2f} to {max(losses) / statistics.fmean(losses):.2f}",
                mean_and_deviation([one.test_loss for one in floor], 4),
                percents([one.test_accuracy for one in floor]),
            )
        ]
        columns = ("one setting", "validation loss", "over its mean", "test loss", "test accuracy %")
        title = "Noise floor: the fixed network at its grid's best, five seeds"
        print_table(comparison_table(title, columns, rows))
        rows = [
            (f"{rate:g}", *(f"{grid.cells[rate, dropout].validation_loss:.3f}" for dropout in CNN_DROPOUTS))
            for rate in CNN_RATES
        ]
        columns = ("lr", *(f"dropout {dropout:g}" for dropout in CNN_DROPOUTS))
        print_table(comparison_table("Grid of the fixed network: validation loss, one seed", columns, rows))
        return grid, plain.candidate

    def learned_alone(self, grid: Grid, name: str, starts: Sequence[float]) -> None:
        """One hyperparameter learned on the fixed network, the other at the grid's best."""
        rate, dropout = grid.best
        other = "dropout" if name == "learning_rate" else "learning_rate"
        given = start(dropout=dropout) if name == "learning_rate" else start(rate=rate)
        fixed = (f"hyperparameters.{other}.learn=false", *given)
        runs = [
            Search((*self.cnn, *fixed, f"hyperparameters.{name}.initial={value}"), self.run_seed(seed, index))
            for index, value in enumerate(starts)
            for seed in self.scale.cnn_seeds
        ]
        searches = self.runs.outcomes(runs, f"{name} alone")
        retrained = self.retrained(searches, self.cnn)
        ratios = [ratio(one.validation_loss, grid.retrained.validation_loss) for one in retrained]
        per_start = len(self.scale.cnn_seeds)
        rows = []
        for index, value in enumerate(starts):
            chosen = slice(index * per_start, (index + 1) * per_start)
            rows.append(
                (
                    f"{value:g}",
                    learned_values(searches[chosen], name),
                    mean_and_deviation([one.validation_loss for one in searches[chosen]], 3),
                    mean_and_deviation([one.validation_loss for one in retrained[chosen]], 3),
                    ", ".join(f"{one:.2f}" for one in ratios[chosen]),
                    ", ".join(f"{ratio(one.validation_loss, grid.lowest):.2f}" for one in retrained[chosen]),
                    mean_and_deviation([one.test_loss for one in retrained[chosen]], 3),
                    percents([one.test_accuracy for one in retrained[chosen]]),
                    f"{statistics.fmean(one.samples for one in searches[chosen]):,.0f}",
                )
            )
        best = grid.retrained
        shown = f"{rate:g}" if name == "learning_rate" else f"{dropout:g}"
        numbers = (f"{best.validation_loss:.3f}", "1.00", f"{best.validation_loss / grid.lowest:.2f}")
        rows.append(
            ("grid", shown, "-", *numbers, f"{best.test_loss:.3f}", percents([best.test_accuracy]), f"{grid.samples:,}")
        )
        columns = ("start", "learned", "own loss", "retrained", "ratio", "/ lowest", "test loss", "test %", "samples")
        title = f"{name} alone on the fixed network, {other} {fixed[1].partition('=')[2]}, seeds {self.scale.cnn_seeds}"
        print_table(comparison_table(title, columns, rows))
        if name == "learning_rate":
            self._check_rates(ratios, searches)
        else:
            self._check_dropouts(ratios, grid, rate)

    def _check_rates(self, ratios: Sequence[float], searches: Sequence[Outcome]) -> None:
        within, count = sum(one <= 1.25 for one in ratios), len(ratios)
        self.targets.check(
            within == count, f"learning rate alone: ratio at most 1.25 in {within} of {count} (all asked)"
        )
        close = sum(one <= 1.15 for one in ratios)
        needed = math.ceil(count * 8 / 10)
        self.targets.check(close >= needed, f"learning rate alone: at most 1.15 in {close} of {count} ({needed} asked)")
        dead = sum(one.validation_accuracy < 0.5 for one in searches)
        self.targets.check(dead == 0, f"learning rate alone: {dead} starts left dead")

    def _check_dropouts(self, ratios: Sequence[float], grid: Grid, rate: float) -> None:
        row = [grid.cells[rate, dropout].validation_loss for dropout in CNN_DROPOUTS]
        span = max(row) / min(row)
        self.targets.check(span > 1.25, f"dropout matters at lr {rate:g}: worst over best {span:.2f} (above 1.25)")
        close, count = sum(one <= 1.15 for one in ratios), len(ratios)
        needed = math.floor(count * 5 / 6)
        self.targets.check(close >= needed, f"dropout alone: ratio at most 1.15 in {close} of {count} ({needed} asked)")

    def joint(self) -> tuple[list[Outcome], list[Retrained], list[Grid]]:
        """Everything learned together with the architecture, retrained, against the grid of what was found."""
        starts, seeds = self.scale.joint_starts, self.scale.joint_seeds
        searches = self.runs.outcomes(self._joint_runs(()), "joint searches")
        retrained = self.retrained(searches, self.macro)
        grids = self.grids([one.candidate for one in searches if one.candidate], self.macro, RATES, DROPOUTS)
        by_search = iter(grids)
        judged = [next(by_search) if one.candidate else None for one in searches]
        rows, ratios, losses = [], [], []
        for index, (rate, dropout) in enumerate(starts):
            chosen = range(index * len(seeds), (index + 1) * len(seeds))
            pairs = [(retrained[one], judged[one]) for one in chosen]
            each = [
                ratio(one.validation_loss, best.retrained.validation_loss) if best else math.inf for one, best in pairs
            ]
            lost = [100 * (best.retrained.test_accuracy - one.test_accuracy) if best else 100.0 for one, best in pairs]
            ratios.append(each)
            losses.append(statistics.fmean(lost))
            found = [searches[one] for one in chosen]
            rows.append(
                (
                    f"lr {rate:g}, dropout {dropout:g}",
                    learned_values(found, "learning_rate"),
                    learned_values(found, "dropout"),
                    ", ".join(f"{best.best[0]:g}/{best.best[1]:g}" if best else "-" for _, best in pairs),
                    mean_and_deviation([one.validation_loss for one, _ in pairs], 3),
                    ", ".join(f"{one:.2f}" for one in each),
                    mean_and_deviation([one.test_loss for one, _ in pairs], 3),
                    percents([one.test_accuracy for one, _ in pairs]),
                    mean_and_deviation(lost, 2),
                    f"{sum(one.settled for one in found)}/{len(found)}",
                )
            )
        columns = (
            "start",
            "lr",
            "dropout",
            "grid's best",
            "retrained loss",
            "ratio",
            "test loss",
            "test %",
            "points behind",
            "settled",
        )
        print_table(comparison_table(f"Joint search on the macro space, seeds {seeds}", columns, rows))
        self._check_joint(ratios, losses)
        return searches, retrained, grids

    def _check_joint(self, ratios: Sequence[Sequence[float]], losses: Sequence[float]) -> None:
        """Check the ratio of every seed by start, and by start the mean points behind."""
        starts = self.scale.joint_starts
        within = sum(max(each) <= 1.25 for each in ratios)
        medians = sum(statistics.median(each) <= 1.25 for each in ratios)
        runs, count = sum(one <= 1.25 for each in ratios for one in each), sum(map(len, ratios))
        self.targets.check(
            within == len(starts),
            f"joint: ratio at most 1.25 in every seed from {within} of {len(starts)} starts "
            f"(in the median from {medians}; {runs} of {count} runs)",
        )
        good = sum(one <= 1.0 for one in losses)
        needed = math.floor(len(starts) * 5 / 6)
        self.targets.check(
            good >= needed, f"joint: test accuracy within 1.0 point from {good} of {len(starts)} ({needed} asked)"
        )

    def _joint_runs(self, extra: tuple[str, ...]) -> list[Search]:
        return [
            Search((*self.macro, *extra, *start(rate, dropout)), self.run_seed(seed, index))
            for index, (rate, dropout) in enumerate(self.scale.joint_starts)
            for seed in self.scale.joint_seeds
        ]

    def benefit(self, joint: Sequence[Retrained]) -> None:
        """The same searches with fixed hyperparameters: at the same starts, and at the best of the supernet's grid."""
        at_starts = self._joint_runs((FIXED,))
        seed = self.run_seed(self.scale.joint_seeds[0], 99)
        places = list(self.scale.supernet_grid)
        grid = self.runs.outcomes(
            [Search((*self.macro, FIXED, *start(*place)), seed) for place in places], "the supernet's grid"
        )
        rate, dropout = places[min(range(len(places)), key=lambda index: grid[index].validation_loss)]
        at_best = [Search((*self.macro, FIXED, *start(rate, dropout)), one.seed) for one in at_starts]
        rows = [("joint", *numbers(joint), "", "")]
        comparisons = {}
        for name, runs in (("fixed at the start", at_starts), ("fixed at the supernet's best", at_best)):
            searches = self.runs.outcomes(runs, f"searches {name}")
            other = self.retrained(searches, self.macro)
            comparisons[name] = paired(accuracies(joint), accuracies(other))
            failed = sum(not one.candidate for one in searches)
            shown = f"{comparisons[name].mean:+.2f}"
            rows.append((name, *numbers(other), shown, str(failed) if failed else ""))
            if name == "fixed at the start":
                per_start = len(self.scale.joint_seeds)
                for index, (first, second) in enumerate(self.scale.joint_starts):
                    chosen = slice(index * per_start, (index + 1) * per_start)
                    gained = [
                        100 * (one - two)
                        for one, two in zip(accuracies(joint[chosen]), accuracies(other[chosen]), strict=True)
                    ]
                    label = f"  lr {first:g}, dropout {second:g}"
                    rows.append((label, *numbers(other[chosen]), f"{statistics.fmean(gained):+.2f}", ""))
        columns = ("search", "runs", "validation loss", "test loss", "test %", "joint gains", "failed")
        title = f"The benefit; supernet's best: lr {rate:g}, dropout {dropout:g}, of {len(places)} searches"
        print_table(comparison_table(title, columns, rows))
        against_start, against_best = comparisons.values()
        self.targets.check(against_start.won, f"benefit over fixed at the same starts: {against_start}")
        kept = against_best.mean >= -LOST
        self.targets.check(kept, f"benefit over fixed at the supernet's best (not below -{LOST}): {against_best}")

    def architectures(self, searches: Sequence[Outcome]) -> None:
        """The architectures found among random ones of the space, each at its own best learning rate."""
        found = [one.candidate for one in searches if one.candidate][: self.scale.judged_architectures]
        space = space_from_description(found[0]["space"])
        generator = torch.Generator().manual_seed(self.scale.joint_seeds[0])
        drawn = [dict(space.sample(generator).architecture) for _ in range(self.scale.random_architectures)]
        others = [found[0] | {"architecture": architecture} for architecture in drawn]
        grids = self.grids([*found, *others], self.macro, RATES[1:], DROPOUTS[1:2], finalist_count=1)
        ours, theirs = grids[: len(found)], grids[len(found) :]
        places = {
            "validation loss": [
                percentile(-one.retrained.validation_loss, [-other.retrained.validation_loss for other in theirs])
                for one in ours
            ],
            "test accuracy": [
                percentile(one.retrained.test_accuracy, accuracies([other.retrained for other in theirs]))
                for one in ours
            ],
        }
        rows = [
            (f"found ({len(ours)})", *numbers([one.retrained for one in ours])[1:]),
            (f"random ({len(theirs)})", *numbers([one.retrained for one in theirs])[1:]),
        ]
        columns = ("architectures", "validation loss", "test loss", "test %")
        print_table(comparison_table(f"Architectures, each at its best of {len(RATES[1:])} rates", columns, rows))
        shown = ", ".join(f"{mean_and_deviation(values, 0)} by {name}" for name, values in places.items())
        best = statistics.fmean(places["test accuracy"])
        self.targets.check(best >= 90, f"architecture's percentile among random ones (90 asked): {shown}")

    def bill(self, searches: Sequence[Outcome], grids: Sequence[Grid]) -> None:
        """Samples and multiply-adds of one joint search and of the grid of what it found."""
        first = next(one for one in searches if one.candidate)
        (fixed,) = self.runs.outcomes(self._joint_runs((FIXED,))[:1], "the bill")
        training = next(iter(grids[0].cells.values()))
        cells = len(grids[0].cells)
        rows = [
            ("one joint search", f"{first.samples:,}", f"{first.multiply_adds:.3g}"),
            ("one search, hyperparameters fixed", f"{fixed.samples:,}", f"{fixed.multiply_adds:.3g}"),
            ("one training of what was found", f"{training.samples:,}", f"{training.multiply_adds:.3g}"),
            (f"its grid of {cells}", f"{cells * training.samples:,}", f"{cells * training.multiply_adds:.3g}"),
            (f"a grid of {cells} such searches", f"{cells * fixed.samples:,}", f"{cells * fixed.multiply_adds:.3g}"),
        ]
        print_table(comparison_table("The bill", ("", "samples", "multiply-adds"), rows))

    def run(self) -> None:
        grid, _ = self.fixed_cnn()
        self.learned_alone(grid, "learning_rate", self.scale.rate_starts)
        self.learned_alone(grid, "dropout", self.scale.dropout_starts)
        searches, retrained, grids = self.joint()
        self.benefit(retrained)
        self.architectures(searches)
        self.bill(searches, grids)


def accuracies(results: Iterable[Retrained]) -> list[float]:
    return [one.test_accuracy for one in results]


def percents(values: Sequence[float]) -> str:
    return mean_and_deviation([100 * value for value in values], 2)


def numbers(results: Sequence[Retrained]) -> tuple[str, str, str, str]:
    """How many, and the means of what they came to."""
    return (
        str(len(results)),
        mean_and_deviation([one.validation_loss for one in results], 3),
        mean_and_deviation([one.test_loss for one in results], 3),
        percents(accuracies(results)),
    )


def learned_values(searches: Sequence[Outcome], name: str) -> str:
    return ", ".join(f"{one.hyperparameters[name]:.2g}" if one.candidate else "failed" for one in searches)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", help="of the searches (default 0 1 2; 0 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="fewer seeds and starts, the same lines")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark_hyperparameters"), help="kept results")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, one thread each")
    parser.add_argument("overrides", nargs="*", help="settings for every run, such as search.epochs=2")
    arguments = parser.parse_args()
    seeds = list(dict.fromkeys(arguments.seeds or ([0, 1] if arguments.quick else [0, 1, 2])))
    scale = Scale(
        rate_starts=RATE_STARTS,
        dropout_starts=DROPOUT_STARTS,
        joint_starts=JOINT_STARTS,
        cnn_seeds=seeds[: 1 if arguments.quick else 2],
        joint_seeds=seeds,
        supernet_grid=[
            (rate, dropout)
            for rate in (RATES[1:4] if arguments.quick else RATES)
            for dropout in (DROPOUTS[:2] if arguments.quick else DROPOUTS)
        ],
        random_architectures=10 if arguments.quick else 20,
        judged_architectures=3 if arguments.quick else 18,
    )
    benchmark = Benchmark(CachedRuns(arguments.folder, arguments.jobs), scale, arguments.overrides)
    try:
        benchmark.run()
    except (KeyboardInterrupt, Stopped):
        print(f"interrupted; the same command goes on ({benchmark.runs.computed} runs were added)", file=sys.stderr)
        return 75
    targets = benchmark.targets
    print(f"hyperparameters: {targets.reached} of {len(targets.lines)} targets reached")
    return 0 if targets.reached == len(targets.lines) else 1


if __name__ == "__main__":
    sys.exit(main())
