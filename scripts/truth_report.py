"""What ``benchmark_truth.py`` prints and writes: regrets, percentiles, paired tests, anytime curves."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from order_statistics import percentile, random_search, worth
from paired_tests import SIGNIFICANT, Comparison, compared, holm
from surrogate_optimum import expected_test_losses
from truth_runs import COLUMNS, Arm

from nas.candidate import Candidate
from nas.evaluation.surrogate import Surrogate
from nas.evaluation.truth import Truth
from nas.report.predictions import write_csv
from nas.report.tables import comparison_table, mean_and_deviation, print_table

DRAWS = (1, 2, 4, 6, 8, 12, 20, 30, 60, 100)  # of random search, whose curve the truth gives exactly
WORST = 10.0  # nats
POINTS = 80  # of an anytime curve


@dataclass(frozen=True)
class Score:
    """What a candidate is worth: means over its trainings.

    Losses are cut at ``WORST``, so that one training that broke off does not make every mean infinite.
    """

    accuracy: float
    loss: float
    validation_loss: float

    @staticmethod
    def of(results: Sequence[Mapping[str, float]]) -> "Score":
        capped = (
            [min(one["test_loss"], WORST) for one in results],
            [min(one["validation_loss"], WORST) for one in results],
        )
        return Score(statistics.fmean(one["test_accuracy"] for one in results), *map(statistics.fmean, capped))


@dataclass(frozen=True)
class Found:
    """What one search found within one budget.

    Attributes:
        candidate: Its JSON text.
        cost: What was spent: samples, multiply_adds, seconds.
    """

    arm: Arm
    budget: str
    seed: int
    candidate: str
    cost: Mapping[str, float]
    score: Score


class Report:
    """The tables.

    Args:
        best: The highest accuracy and the lowest loss known.
    """

    def __init__(self, truth: Truth, found: Sequence[Found], ours: Arm, best: tuple[float, float]) -> None:
        self.truth, self.found, self.ours = truth, found, ours
        self.best_accuracy, self.best_loss = best
        self.ranks = truth.column("validation_loss")
        self.accuracies, self.losses = truth.column("test_accuracy"), truth.column("test_loss")

    def arms(self, budget: str) -> list[Arm]:
        """Best mean accuracy first."""
        present = dict.fromkeys(one.arm for one in self.found if one.budget == budget)
        return sorted(present, key=lambda arm: -self.mean(arm, budget))

    def of(self, arm: Arm, budget: str) -> list[Found]:
        return [one for one in self.found if one.arm == arm and one.budget == budget]

    def mean(self, arm: Arm, budget: str) -> float:
        return statistics.fmean(one.score.accuracy for one in self.of(arm, budget))

    def row(self, arm: Arm, budget: str) -> tuple[str, ...]:
        own = self.of(arm, budget)
        accuracies, losses = [one.score.accuracy for one in own], [one.score.loss for one in own]
        mean, loss = statistics.fmean(accuracies), statistics.fmean(losses)
        ranked = statistics.fmean(percentile(one, self.accuracies) for one in accuracies)
        by_loss = statistics.fmean(percentile(one, self.losses, False) for one in losses)
        needed = worth(self.ranks, self.accuracies, mean), worth(self.ranks, self.losses, loss, False)
        spent = (
            f"{statistics.fmean(one.cost[name] for one in own) / self.truth.mean_training(column):.2f}"
            for name, column in COLUMNS.items()
        )
        return (
            str(arm),
            str(len(own)),
            mean_and_deviation([100 * one for one in accuracies], 2),
            f"{100 * min(accuracies):.2f}",
            mean_and_deviation(losses, 4),
            f"{ranked:.1f} / {by_loss:.1f}",
            f"{100 * (self.best_accuracy - mean):.2f} / {loss - self.best_loss:.4f}",
            " / ".join(">all" if math.isinf(one) else f"{one:.0f}" for one in needed),
            " / ".join(spent),
        )

    def tests(self, budget: str) -> dict[Arm, tuple[Comparison, float, Comparison, float]]:
        """For every other arm: accuracy and loss (ours minus theirs) with Holm's p."""
        mine = {one.seed: one.score for one in self.of(self.ours, budget)}
        others = [arm for arm in self.arms(budget) if arm != self.ours]
        accuracy, loss = [], []
        for arm in others:
            pairs = [(mine[one.seed], one.score) for one in self.of(arm, budget) if one.seed in mine]
            accuracy.append(compared([100 * (own.accuracy - their.accuracy) for own, their in pairs]))
            loss.append(compared([own.loss - their.loss for own, their in pairs]))
        corrected = holm([one.p for one in accuracy]), holm([one.p for one in loss])
        return dict(zip(others, zip(accuracy, corrected[0], loss, corrected[1], strict=True), strict=True))

    def in_words(self, budget: str) -> tuple[str, bool]:
        """Who wins, and whether ours has the highest mean and is ahead of random search with full trainings."""
        arms, tests = self.arms(budget), self.tests(budget)
        best = arms[0]
        if not self.of(self.ours, budget):
            return f"{budget}: {self.ours} has no run", False
        ahead = [arm for arm, (one, p, _, _) in tests.items() if one.mean > 0 and p < SIGNIFICANT]
        behind = [arm for arm, (one, p, _, _) in tests.items() if one.mean < 0 and p < SIGNIFICANT]
        level = [arm for arm in tests if arm not in ahead and arm not in behind]
        parts = [
            f"{what} {', '.join(map(str, those))}"
            for what, those in (("ahead of", ahead), ("behind", behind), ("not told apart from", level))
            if those
        ]
        randoms = [arm for arm in tests if arm.method == "random"]
        first = best.method == self.ours.method  # from whichever start
        reached = first and bool(randoms) and all(arm in ahead for arm in randoms)
        told = "" if best == self.ours else f"; the highest mean has {best}, {100 * self.mean(best, budget):.2f} %"
        return f"{budget}: {self.ours} {100 * self.mean(self.ours, budget):.2f} %, {'; '.join(parts)}{told}", reached


def print_report(report: Report, name: str, budgets: Sequence[str], surrogate: Surrogate, folder: Path) -> bool:
    """Print and write all tables. Returns whether ours is first and ahead of random search at every budget."""
    truth = report.truth
    columns = (
        "",
        "seeds",
        "test accuracy %",
        "worst",
        "test loss",
        "percentile acc / loss",
        "regret points / loss",
        "random needs acc / loss",
        "spent samples / MACs / CPU s",
    )
    tables = [random_table(report)]
    told, reached = [], True
    for budget in budgets:
        arms = report.arms(budget)
        if not arms:
            told.append(f"{budget}: no arm has a run")
            reached = False
            continue
        tables.append(comparison_table(f"{name}, at {budget}", columns, [report.row(arm, budget) for arm in arms]))
        tables.append(test_table(report, budget))
        words, good = report.in_words(budget)
        told.append(words)
        reached = reached and good
    folder.mkdir(parents=True, exist_ok=True)
    head = [
        f"{name}: {len(truth.first)} random candidates; one training is {truth.mean_training('samples'):,.0f} samples, "
        f"{truth.mean_training('multiply_adds'):.3g} multiply-adds, {truth.mean_training('cpu_seconds'):.2f} processor "
        "seconds",
        f"best known: accuracy {100 * report.best_accuracy:.2f} %, loss {report.best_loss:.4f}",
        surrogate.quality.in_words(),
    ]
    print("\n".join(head))
    with open(folder / "tables.txt", "w", encoding="utf-8") as file:
        file.write("\n".join(head) + "\n")
        for table in tables:
            print_table(table)
            print_table(table, file)
        file.write("\n".join(told) + "\n")
    print("\n".join(told))
    _write_results(folder / "results.csv", report.found)
    return reached


def _write_results(path: Path, found: Sequence[Found]) -> None:
    scores = ("test_accuracy", "test_loss", "validation_loss")
    names = ["method", "prior", "budget", "seed", *scores, *found[0].cost, "candidate"]
    rows = (
        [one.arm.method, one.arm.prior, one.budget, one.seed, *astuple(one.score), *one.cost.values(), one.candidate]
        for one in found
    )
    write_csv(path, names, rows)


def random_table(report: Report) -> Any:
    """Random search with full trainings in the wide ranges, exactly."""
    ranks, accuracies, losses = report.ranks, report.accuracies, report.losses
    rows = []
    for draws in [one for one in DRAWS if one <= len(ranks)]:
        mean, deviation = random_search(ranks, accuracies, draws)
        loss, spread = random_search(ranks, losses, draws)
        rows.append(
            (
                str(draws),
                f"{100 * mean:.2f} ± {100 * deviation:.2f}",
                f"{loss:.4f} ± {spread:.4f}",
                f"{percentile(mean, accuracies):.1f} / {percentile(loss, losses, False):.1f}",
                f"{100 * (report.best_accuracy - mean):.2f} / {loss - report.best_loss:.4f}",
            )
        )
    columns = ("trainings", "test accuracy %", "test loss", "percentile acc / loss", "regret points / loss")
    return comparison_table("Random search, exactly (winner by validation loss, its own test result)", columns, rows)


def test_table(report: Report, budget: str) -> Any:
    rows = []
    for arm, (accuracy, p, loss, q) in report.tests(budget).items():
        rows.append(
            (
                str(arm),
                str(accuracy.pairs),
                f"{accuracy.mean:+.2f}",
                f"{accuracy.p:.4f}",
                f"{p:.4f}",
                f"{accuracy.detectable:.2f} / {accuracy.power:.2f}",
                f"{loss.mean:+.4f}",
                f"{q:.4f}",
                f"{loss.detectable:.4f} / {loss.power:.2f}",
            )
        )
    columns = (
        f"{report.ours} minus",
        "pairs",
        "points",
        "p",
        "p, Holm",
        "shows at 80 % / power",
        "loss",
        "p of loss, Holm",
        "shows / power",
    )
    return comparison_table(f"paired permutation tests at {budget}", columns, rows)


def anytime(
    folder: Path,
    truth: Truth,
    surrogate: Surrogate,
    curves: Mapping[tuple[Arm, int], Sequence[Any]],
    found: Sequence[Found],
    most: float,
) -> None:
    """Regret over multiply-adds: lines of what the surrogate says of each black-box search's best, points measured."""
    unit = truth.mean_training("multiply_adds")
    at = np.geomspace(0.2, max(most, 1.0), POINTS)
    rows: list[dict[str, Any]] = []
    for arm in dict.fromkeys(arm for arm, _ in curves):
        lines = []
        for (other, _), evaluations in curves.items():
            if other == arm and evaluations:
                lines.append(_line(evaluations, unit, at, surrogate))
        if not lines:
            continue
        stacked = np.array(lines)
        for place, spent in enumerate(at):
            known = stacked[:, place][~np.isnan(stacked[:, place])]
            if len(known) == len(lines):
                half = 1.96 * known.std(ddof=1) / math.sqrt(len(known)) if len(known) > 1 else 0.0
                mean = float(known.mean())
                rows.append(
                    {"method": str(arm), "trainings": spent, "loss": mean, "low": mean - half, "high": mean + half}
                )
    if rows:
        write_csv(folder / "anytime.csv", list(rows[0]), [list(row.values()) for row in rows])
    _draw(folder / "anytime.png", rows, found, unit)


def _line(evaluations: Sequence[Any], unit: float, at: np.ndarray, surrogate: Surrogate) -> np.ndarray:
    """The expected test loss of the best so far, at each of ``at`` mean trainings of multiply-adds; NaN before any."""
    best, spent, bests, ends = math.inf, 0.0, [], []
    for candidate, loss, cost in evaluations:
        spent += cost["multiply_adds"] / unit
        if loss < best or not bests:
            best = loss
            bests.append(Candidate.from_json(candidate))
            ends.append(spent)
    expected = expected_test_losses(surrogate, bests)
    places = np.searchsorted(ends, at, side="right") - 1
    return np.where(places >= 0, expected[np.maximum(places, 0)], np.nan)


def _draw(path: Path, rows: Sequence[Mapping[str, Any]], found: Sequence[Found], unit: float) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = list(dict.fromkeys([row["method"] for row in rows]))
    for number, name in enumerate(names):
        own = [row for row in rows if row["method"] == name]
        at, colour = [row["trainings"] for row in own], f"C{number % 10}"
        style = "-" if number < 10 else "--"
        axes.plot(at, [row["loss"] for row in own], style, color=colour, label=name, linewidth=1.2)
        axes.fill_between(at, [row["low"] for row in own], [row["high"] for row in own], color=colour, alpha=0.12, lw=0)
    markers = "o^sDvP*X"
    whole = list(dict.fromkeys(one.arm for one in found if not one.arm.is_cut))
    for number, arm in enumerate(whole):
        own_found = [one for one in found if one.arm == arm]
        groups: dict[str, list[Found]] = {}
        for one in own_found:
            groups.setdefault(one.budget, []).append(one)
        spent = [statistics.fmean(one.cost["multiply_adds"] for one in group) / unit for group in groups.values()]
        losses = [statistics.fmean(one.score.loss for one in group) for group in groups.values()]
        axes.plot(spent, losses, markers[number % len(markers)], color="black", label=f"{arm} (measured)", markersize=5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("multiply-adds spent, in mean trainings")
    axes.set_ylabel("test loss of the best so far\n(lines: by the surrogate; bands: 95 % of the mean)")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=6.5, ncols=2)
    figure.savefig(path)


def last_line(report: Report, name: str, reached: bool, folder: Path) -> str:
    seeds = len({one.seed for one in report.found})
    told = "first and ahead of random search at every budget" if reached else "not first and ahead everywhere"
    if not any(one.arm.method == "random" for one in report.found):
        told = "not compared with random search and its full trainings, of which it must be ahead"
    return f"truth: {name}, {seeds} seeds, {report.ours} {told}: {folder}"
