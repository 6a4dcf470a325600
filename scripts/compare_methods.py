"""Every search method in the same space at one common budget, its winner retrained and tested.

    python scripts/compare_methods.py --data mnist5k --seeds 0 1 2 3 4 5 6 7 8 9 --samples 60000 scale=small

The gradient search (joint, and with fixed hyperparameters) and five competitors search on the same split. Two budgets
are compared: --samples images through a network, and as many multiply-adds as these samples cost the supernet. A
black-box search goes on until the multiply-adds are spent; its winner at --samples is the best it had by then. The
test split is touched by the retraining alone.

Everything is written below --folder: tables.txt, results.csv, tests.csv, anytime.csv and anytime.png beside the run
folders. Runs that are there are not made again, and a run that was stopped goes on. Further arguments are settings for
all runs, such as scale=small or final.epochs=3. Exit code 0 where every run is done, 1 where one failed, 2 for bad
input.
"""

import argparse
import itertools
import json
import math
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from configurations import configuration
from joblib import Parallel, delayed
from omegaconf import DictConfig, OmegaConf
from paired_tests import holm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from command_runs import last_value, recorded_values

import train_final
import train_search
from nas.candidate import Candidate
from nas.configuration import build
from nas.errors import InvalidValue, UnusableInput
from nas.evaluation.evaluation import Cost, EvaluationCache
from nas.evaluation.network_cost import TRAINING_PASS, supernet_multiply_adds
from nas.report.predictions import write_csv
from nas.report.tables import comparison_table, mean_and_deviation, print_table
from nas.run.candidate_file import CandidateFile, read_candidate_file
from nas.run.entry_point import BAD_INPUT, FAILED
from nas.run.folder import RunFolder
from nas.run.recorded import inherited_configuration
from nas.tasks import data_and_task

# What suits a few dozen evaluations; everything else is as in conf/method.
SHORT = "evaluation.epochs=1"
GRADIENT = ("method=gradient", "search.epochs=100000")  # the budget ends it, and its schedules follow the budget
METHODS: dict[str, tuple[str, ...]] = {
    "gradient, joint": GRADIENT,
    "gradient, fixed hyperparameters": (*GRADIENT, "hyperparameters=fixed"),
    "random": ("method=random", SHORT, "method.strategy.batch=4"),
    "genetic": ("method=genetic", SHORT, "method.strategy.population=8", "method.strategy.elite=1"),
    "evolution": ("method=evolution", SHORT, "method.strategy.population=8"),
    "reinforce": ("method=reinforce", SHORT, "method.strategy.rate=0.1", "method.strategy.batch=2"),
    "tpe": ("method=tpe", SHORT, "method.strategy.startup=6"),
}
QUIET = ("tracking.console=quiet", "tracking.tensorboard=false")
SAMPLES, MULTIPLY_ADDS = "samples", "multiply-adds"
CONFIDENCE, SIGNIFICANT = 0.95, 0.05
POINTS = 60  # of each anytime curve


@dataclass(frozen=True)
class Result:
    """The retrained winner of one search at one of the two budgets."""

    budget: str
    method: str
    seed: int
    test_accuracy: float
    parameters: int
    samples: int
    multiply_adds: float
    seconds: float
    evaluations: int


@dataclass(frozen=True)
class Plan:
    """What all runs share."""

    folder: Path
    samples: int
    multiply_adds: float
    overrides: tuple[str, ...]

    def composed(self, name: str, *settings: str) -> DictConfig:
        return configuration(name, [*settings, *self.overrides, *QUIET])

    def run_folder(self, method: str, seed: int) -> Path:
        return self.folder / f"{method.replace(', ', '_').replace(' ', '_')}-{seed}"

    def search(self, method: str, seed: int) -> Path:
        """The run folder of a finished search."""
        path = self.run_folder(method, seed)
        gradient = METHODS[method][0] == GRADIENT[0]
        budget = f"budget.samples={self.samples}" if gradient else f"budget.multiply_adds={self.multiply_adds}"
        settings = [*METHODS[method], budget, "budget.evaluations=null", f"seed={seed}"]
        config = self.composed("train_search", *settings)
        written = path / ".hydra" / "config.yaml"
        if written.exists() and OmegaConf.load(written) != config:
            raise InvalidValue("--folder", self.folder, f"{path} was made with other settings")
        if not (path / "candidate.json").exists():
            written.parent.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(config, written)
            train_search.search(config, path)
        return path

    def retrained(self, run: Path, candidate: Path, seed: int) -> dict[str, Any]:
        """What ``result.json`` of a retraining holds; ``candidate`` is a folder with its ``candidate.json``."""
        result = candidate / "final" / "result.json"
        if not result.exists():
            config = self.composed("train_final", f"candidate={run}", f"seed={seed}")
            settings = inherited_configuration(config, [*self.overrides, *QUIET])
            settings.candidate = str(candidate)
            train_final.retrain(settings, candidate / "final")
        content = json.loads(result.read_text())
        assert isinstance(content, dict)
        return content

    def results(self, method: str, seed: int) -> list[Result] | str:
        """Both budgets' winners of one search; where it failed, why."""
        torch.set_num_threads(1)
        try:
            run = self.search(method, seed)
            found = []
            for budget, (candidate, cost) in self._winners(run).items():
                final = self.retrained(run, candidate, seed)
                spent = cost.samples, cost.multiply_adds, cost.seconds, cost.evaluations
                found.append(Result(budget, method, seed, final["test_accuracy"], final["parameters"], *spent))
            return found
        except (InvalidValue, UnusableInput, FloatingPointError, OSError) as error:
            return f"{method}, seed {seed}: {error}"

    def _winners(self, run: Path) -> dict[str, tuple[Path, Cost]]:
        """Per budget a folder with the winner's ``candidate.json``, and what had been spent."""
        state, _ = RunFolder(run).checkpoints.newest()
        if state is None:
            raise UnusableInput(f"{run} has lost its checkpoints.")
        spent = Cost(
            int(spent_at_the_end(run, "samples")),
            spent_at_the_end(run, "multiply_adds"),
            0,
            float(state["meter"]["seconds"]),
        )
        if not (run / "evaluations.jsonl").exists():
            return {SAMPLES: (run, spent), MULTIPLY_ADDS: (run, spent)}
        whole = read_candidate_file(run / "candidate.json")
        early, cost = self._best_within_samples(run, whole)
        spent = replace(spent, evaluations=int(spent_at_the_end(run, "evaluations")))
        if early == whole.candidate:
            return {SAMPLES: (run, cost), MULTIPLY_ADDS: (run, spent)}
        at_samples = run / "at_samples"
        at_samples.mkdir(exist_ok=True)
        replace(whole, candidate=early).write(at_samples / "candidate.json")
        return {SAMPLES: (at_samples, cost), MULTIPLY_ADDS: (run, spent)}

    def _best_within_samples(self, run: Path, whole: CandidateFile) -> tuple[Candidate, Cost]:
        """What the search would have returned, had --samples been its budget."""
        cost, best = Cost(), None
        for evaluation in EvaluationCache(run / "evaluations.jsonl"):
            if cost.samples + evaluation.cost.samples > self.samples:
                break
            cost += evaluation.cost
            if best is None or evaluation.metrics["accuracy"] > best.metrics["accuracy"]:
                best = evaluation
        if best is None:
            raise InvalidValue("--samples", self.samples, "it does not pay for one evaluation")
        held = {**whole.candidate.hyperparameters, **best.candidate.hyperparameters}
        return Candidate(best.candidate.architecture, type(best.candidate.hyperparameters)(held)), cost

    def curve(self, method: str, seed: int) -> list[tuple[int, float, float]]:
        """(samples, multiply-adds, best validation accuracy so far) along one search."""
        run = self.run_folder(method, seed)
        points: list[tuple[int, float, float]] = []
        best, cost = 0.0, Cost()
        if (run / "evaluations.jsonl").exists():
            for evaluation in EvaluationCache(run / "evaluations.jsonl"):
                cost += evaluation.cost
                best = max(best, evaluation.metrics["accuracy"])
                points.append((cost.samples, cost.multiply_adds, best))
            return points
        tags = ("budget/samples", "budget/multiply_adds", "validation/accuracy")
        columns = [dict(recorded_values(run / "metrics.csv", tag)) for tag in tags]
        for step in sorted(set(columns[0]) & set(columns[1]) & set(columns[2])):
            best = max(best, columns[2][step])
            points.append((int(columns[0][step]), columns[1][step], best))
        return points


def spent_at_the_end(run: Path, what: str) -> float:
    """The last record of what the search in ``run`` has spent: samples, multiply_adds or evaluations.

    Raises:
        UnusableInput: There is none.
    """
    path, tag = run / "metrics.csv", f"budget/{what}"
    value = last_value(path, tag)
    if value is None:
        raise UnusableInput(f"{path} has no {tag}.")
    return value


def per_image(config: DictConfig) -> float:
    """The multiply-adds of one forward pass of one image through the supernet."""
    _, _, task = data_and_task(config)
    space = build(config.space, "space", signature=task.signature)
    return supernet_multiply_adds(space, build(config.relaxation, "relaxation"))


def half_interval(numbers: Sequence[float]) -> float:
    """Half of the 95 % confidence interval of the mean (Student's t); not a number for a single value."""
    from scipy import stats

    if len(numbers) < 2:
        return math.nan
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(numbers) - 1))
    return quantile * statistics.stdev(numbers) / math.sqrt(len(numbers))


def table(title: str, results: Sequence[Result]) -> Any:
    rows = []
    for method in METHODS:
        own = [result for result in results if result.method == method]
        if not own:
            continue
        accuracies = [100 * result.test_accuracy for result in own]
        mean, half = statistics.fmean(accuracies), half_interval(accuracies)
        means = {
            name: statistics.fmean([float(getattr(result, name)) for result in own])
            for name in ("parameters", "samples", "multiply_adds", "seconds", "evaluations")
        }
        rows.append(
            (
                method,
                str(len(own)),
                mean_and_deviation(accuracies, 2),
                f"{mean - half:.2f} to {mean + half:.2f}" if math.isfinite(half) else "-",
                f"{means['parameters']:,.0f}",
                f"{means['evaluations']:.1f}" if means["evaluations"] else "-",
                f"{means['samples']:,.0f}",
                f"{means['multiply_adds'] / 1e9:,.1f}",
                f"{means['seconds']:.0f}",
            )
        )
    columns = (
        "",
        "runs",
        "test accuracy %",
        "95 % interval",
        "parameters",
        "evaluations",
        "samples",
        "GMAC",
        "seconds",
    )
    return comparison_table(title, columns, rows)


@dataclass(frozen=True)
class PairedTest:
    """A Wilcoxon signed-rank test of two methods over the seeds that both have."""

    budget: str
    first: str
    second: str
    seeds: int
    difference: float
    p: float
    p_holm: float


def paired_tests(budget: str, results: Sequence[Result]) -> list[PairedTest]:
    """All pairs of methods, with Holm's correction for their number."""
    from scipy import stats

    accuracy = {(result.method, result.seed): 100 * result.test_accuracy for result in results}
    found = []
    for first, second in itertools.combinations(METHODS, 2):
        seeds = [seed for method, seed in accuracy if method == first and (second, seed) in accuracy]
        if len(seeds) < 2:
            continue
        differences = [accuracy[first, seed] - accuracy[second, seed] for seed in seeds]
        equal = all(difference == 0 for difference in differences)
        p = 1.0 if equal else float(stats.wilcoxon(differences).pvalue)
        found.append(PairedTest(budget, first, second, len(seeds), statistics.fmean(differences), p, p))
    corrected = holm([test.p for test in found])
    return [replace(test, p_holm=p) for test, p in zip(found, corrected, strict=True)]


def sentence(budget: str, results: Sequence[Result], tests: Sequence[PairedTest]) -> str:
    """Who wins, plainly."""
    means = {
        method: statistics.fmean([100 * result.test_accuracy for result in results if result.method == method])
        for method in METHODS
        if any(result.method == method for result in results)
    }
    best = max(means, key=means.__getitem__)
    beaten = [
        test.second if test.first == best else test.first
        for test in tests
        if best in (test.first, test.second) and test.p_holm < SIGNIFICANT
    ]
    level = [method for method in means if method != best and method not in beaten]
    told = f"ahead of {', '.join(beaten)}" if beaten else "ahead of none beyond chance"
    rest = f"; not told apart from it: {', '.join(level)}" if level and beaten else ""
    return f"at equal {budget}: {best} has the highest mean, {means[best]:.2f} %, {told} (Holm, 5 %){rest}"


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_csv(path, list(rows[0]) if rows else [], (list(row.values()) for row in rows))


def anytime_rows(plan: Plan, seeds: Iterable[int], done: set[tuple[str, int]]) -> list[dict[str, Any]]:
    """Mean and 95 % band of the best validation accuracy over both budgets, from where every seed has a first value."""
    rows: list[dict[str, Any]] = []
    for axis, (column, limit) in {SAMPLES: (0, plan.samples), MULTIPLY_ADDS: (1, plan.multiply_adds)}.items():
        for method in METHODS:
            curves = [plan.curve(method, seed) for seed in seeds if (method, seed) in done]
            curves = [curve for curve in curves if curve]
            if not curves:
                continue
            for at in np.linspace(limit / POINTS, limit, POINTS):
                reached = [[point[2] for point in curve if point[column] <= at] for curve in curves]
                if all(reached):
                    bests = [100 * best[-1] for best in reached]
                    half = half_interval(bests)
                    mean = statistics.fmean(bests)
                    known = half if math.isfinite(half) else 0.0
                    row = {"axis": axis, "method": method, "at": float(at), "mean": mean}
                    rows.append(row | {"low": mean - known, "high": mean + known, "runs": len(bests)})
    return rows


def draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The anytime curves, one panel per budget."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.6), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for axes, axis in zip(figure.subplots(1, 2, sharey=True), (SAMPLES, MULTIPLY_ADDS), strict=True):
        for number, method in enumerate(METHODS):
            own = [row for row in rows if row["axis"] == axis and row["method"] == method]
            if own:
                at = [row["at"] for row in own]
                axes.plot(at, [row["mean"] for row in own], color=f"C{number}", label=method)
                band = [row["low"] for row in own], [row["high"] for row in own]
                axes.fill_between(at, *band, color=f"C{number}", alpha=0.15, linewidth=0)
        axes.set_xlabel(f"{axis} spent")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("best validation accuracy so far, %\n(gradient: of the supernet)")
    figure.axes[1].legend(fontsize=8)
    figure.savefig(path)


def report(plan: Plan, results: Sequence[Result], seeds: Sequence[int], title: str) -> None:
    """Print the tables and write the files."""
    by_budget = {budget: [one for one in results if one.budget == budget] for budget in (SAMPLES, MULTIPLY_ADDS)}
    tests = {budget: paired_tests(budget, own) for budget, own in by_budget.items()}
    told = []
    with open(plan.folder / "tables.txt", "w", encoding="utf-8") as file:
        for budget, own in by_budget.items():
            limit = f"{plan.samples:,} samples" if budget == SAMPLES else f"{plan.multiply_adds / 1e9:,.0f} GMAC"
            shown = table(f"{title}, at {limit}", own)
            pairs = comparison_table(
                f"paired Wilcoxon tests at {limit}, Holm-corrected",
                ("", "against", "seeds", "difference %", "p", "p, Holm"),
                [
                    (
                        one.first,
                        one.second,
                        str(one.seeds),
                        f"{round(one.difference, 2) + 0.0:+.2f}",
                        f"{one.p:.3f}",
                        f"{one.p_holm:.3f}",
                    )
                    for one in tests[budget]
                ],
            )
            for each in (shown, pairs):
                print_table(each, file)
            print_table(shown)
            told.append(sentence(budget, own, tests[budget]))
            print(told[-1], file=file)
    print("\n".join(told))
    write_rows(plan.folder / "results.csv", [asdict(one) for one in results])
    write_rows(plan.folder / "tests.csv", [asdict(one) for both in tests.values() for one in both])
    rows = anytime_rows(plan, seeds, {(one.method, one.seed) for one in results})
    write_rows(plan.folder / "anytime.csv", rows)
    draw(plan.folder / "anytime.png", rows)


def parsed() -> tuple[argparse.Namespace, list[str]]:
    """The command line, and the settings for every run that are on it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist5k", help="as in conf/data")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--samples", type=int, default=32_000, help="the common budget of a search")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--jobs", type=int, default=1, help="searches at a time, one thread each")
    parser.add_argument("--folder", type=Path, help="where the runs go, or are")
    parser.add_argument("overrides", nargs="*", help="settings for every run, such as scale=small")
    arguments, more = parser.parse_known_args()
    unknown = [one for one in more if one.startswith("-")]
    if unknown:
        parser.error(f"there is no {unknown[0]}")
    return arguments, [f"data={arguments.data}", *arguments.overrides, *more]


def main() -> int:
    arguments, overrides = parsed()
    seeds = list(dict.fromkeys(arguments.seeds))
    folder = (arguments.folder or Path("runs/compare_methods") / f"{arguments.data}-{arguments.samples}").resolve()
    try:
        if arguments.samples < 1:
            raise InvalidValue("--samples", arguments.samples, "it must be at least 1")
        plan = Plan(folder, arguments.samples, 0.0, tuple(overrides))
        config = plan.composed("train_search")
        common = TRAINING_PASS * per_image(config) * arguments.samples
    except (InvalidValue, UnusableInput) as error:
        print(f"compare_methods.py: {error}", file=sys.stderr)
        return BAD_INPUT
    except Exception as error:  # Hydra's own complaints about an override
        print(f"compare_methods.py: {str(error).splitlines()[0]}", file=sys.stderr)
        return BAD_INPUT
    plan = replace(plan, multiply_adds=common)
    folder.mkdir(parents=True, exist_ok=True)

    work = [(method, seed) for seed in seeds for method in arguments.methods]  # by seed: an early end is a fair one
    done: list[Result] = []
    failures: list[str] = []
    for (method, seed), outcome in zip(work, run_all(plan, work, arguments.jobs), strict=True):
        if isinstance(outcome, str):
            failures.append(outcome)
            print(f"failed: {outcome}", file=sys.stderr)
            continue
        done += outcome
        accuracies = ", ".join(f"{100 * one.test_accuracy:.2f} % at equal {one.budget}" for one in outcome)
        print(f"{len(done) // 2:>3}/{len(work)}  seed {seed}  {method}: {accuracies}", flush=True)
    if done:
        report(plan, done, seeds, f"{arguments.data}, {config.space._target_.rpartition('.')[2]} space")
    print(f"comparison: {len(work) - len(failures)} of {len(work)} searches done, {len(failures)} failed: {folder}")
    return FAILED if failures else 0


def run_all(plan: Plan, work: Sequence[tuple[str, int]], jobs: int) -> Iterable[list[Result] | str]:
    if jobs == 1:
        return (plan.results(method, seed) for method, seed in work)
    found: Iterable[list[Result] | str] = Parallel(n_jobs=jobs, return_as="generator")(
        delayed(plan.results)(method, seed) for method, seed in work
    )
    return found


if __name__ == "__main__":
    sys.exit(main())
