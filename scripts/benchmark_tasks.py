"""The search on tables, series, fields, masks and texts, beside what simple methods reach on the same parts.

    python scripts/benchmark_tasks.py --tasks tables series --seeds 0 1 2 3 4 --jobs 2
    python scripts/benchmark_tasks.py --tasks language --seeds 0 1 2
    python scripts/benchmark_tasks.py --quick

The data need no network (``task_data.py``). Some are inside packages, which are not imported: without them their rows
are left out, in words. The search is ``train_search.py`` and ``train_final.py`` as somebody types them who says nothing
but where the data are. Of texts the recurrent cell of DARTS is searched, at the size of the LSTM and for as many
tokens. --search-steps and --final-steps ask for other lengths. The simple methods are in ``task_baselines.py``, the
small networks in ``task_networks.py``. Nothing is tuned on a test part.

One table per data set is printed: mean and standard deviation of the main measure over the seeds, and processor time.
The search is *level* with a method where its mean is better, or worse by less than two standard errors of the
difference; it is *ahead* where its mean is better. Exit code 0 where it is level with the small network on every data
set, and ahead of all other methods on half of them at least, 1 where not or where a run failed, 2 for bad input.

Every (data, method, seed) is kept below --folder and not computed again; exit code 75 says that it was stopped, and the
same command goes on. Further arguments, before the others, are settings of the search and the retraining.
"""

import argparse
import hashlib
import math
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cached_runs import COMMON_SOURCES, ROOT, SEARCH_SOURCES, CachedRuns, Run, composed, plain
from configurations import configuration
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from task_baselines import BASELINES, DRAWN, SMALL
from task_data import MEASURES, Problem, digest, problems

import train_final
import train_search
from nas.errors import InvalidValue, RunFailed, UnusableInput, require
from nas.report.outcome import architecture_in_words
from nas.report.tables import comparison_table, mean_and_deviation, print_table
from nas.run.entry_point import BAD_INPUT, FAILED
from nas.stopping import STOPPED, Stopped
from nas.tasks import data_and_task

KINDS = ("tables", "series", "dense", "language")
OURS = "search"
DROPOUTS = {"embedding": 0.2, "cell_x": 0.0, "cell_h": 0.0, "output": 0.2}
LANGUAGE_STEPS = 350, 857  # of the search and the retraining; 857 are the 600,000 tokens that the LSTM sees
SETTINGS = {
    **dict.fromkeys(KINDS, ("method=coarse_to_fine",)),  # goes along with the data on a command line, as the next do
    "tables": ("method=cross_validated", "hyperparameters=table"),
    # The cell and the optimiser of DARTS at the LSTM's size and dropout; nothing is learned beside the cell.
    "language": (
        *("space=recurrent", "space.width=64", "space.final_width=128", "hyperparameters=recurrent"),
        *("training.batch_size=20", "training.momentum=0.0", "training.gradient_clip=0.25"),
        *(f"hyperparameters.dropout_{place}.initial={rate}" for place, rate in DROPOUTS.items()),
    ),
}
QUICK_STEPS = 8
Steps = tuple[int | None, int | None]  # of the search and the retraining; None: as many as the settings have
PARTS = ("task_data.py", "task_baselines.py", "task_networks.py")


@dataclass(frozen=True)
class Simple(Run):
    """A simple method on one data set.

    Attributes:
        settings: Of the data and the task, as typed.
        data: The digest of the files.
    """

    sources = COMMON_SOURCES
    problem: Problem
    settings: tuple[str, ...]
    data: str
    method: str
    seed: int

    def depends_on(self) -> Any:
        return [self.problem.name, self.problem.settings, self.data, self.method, self.seed, hash_of_simple_methods()]

    def computed(self, folder: Path) -> dict[str, Any]:
        _, splits, task = data_and_task(composed(self.settings, 0))
        return {"measures": dict(baselines_of(self.problem)[self.method](task, splits, self.seed))}


@dataclass(frozen=True)
class Searched(Run):
    """One search with its retraining."""

    sources = (*SEARCH_SOURCES, "report")
    problem: Problem
    settings: tuple[str, ...]
    overrides: tuple[str, ...]
    data: str
    seed: int
    steps: Steps

    def depends_on(self) -> Any:
        settings = plain(
            composed((*fixed_settings(self.problem), *SETTINGS[self.problem.kind], *self.overrides), self.seed)
        )
        return [self.problem.name, settings, self.overrides, self.data, self.seed, self.steps]

    def computed(self, folder: Path) -> dict[str, Any]:
        settings = (*self.settings, *SETTINGS[self.problem.kind], *self.overrides)
        try:
            return self._computed(folder, (*epoch_settings(settings, self.steps), *settings))
        except (RunFailed, FloatingPointError) as error:
            return {"failure": str(error)}

    def _computed(self, folder: Path, settings: tuple[str, ...]) -> dict[str, Any]:
        train_search.run(composed(settings, self.seed), folder)
        found, result = train_final.retrain(final_config(settings, self.seed, folder), folder / "final")
        measures = {name.removeprefix("test_"): value for name, value in result.items() if name.startswith("test_")}
        told = {name: round(value, 4) for name, value in found.candidate.hyperparameters.items()}
        architecture = architecture_in_words(found)
        return {"measures": measures, "architecture": architecture, "hyperparameters": told}


def hash_of_simple_methods() -> str:  # uncached: the jobs' processes are sent it whole, which no cached function can be
    """A hash of the simple methods' own code."""
    return hashlib.sha256(b"".join((ROOT / "scripts" / part).read_bytes() for part in PARTS)).hexdigest()


def baselines_of(problem: Problem) -> Mapping[str, Any]:
    return BASELINES[problem.task if problem.kind == "dense" else problem.kind]


def fixed_settings(problem: Problem) -> tuple[str, ...]:
    """The settings without the folder, which is no matter."""
    return tuple(one.replace("{folder}", "") for one in problem.settings)


def final_config(settings: tuple[str, ...], seed: int, candidate: Path) -> DictConfig:
    quiet = "tracking.console=quiet", "tracking.tensorboard=false", "device=cpu", "final.checkpoint_every=1000000"
    return configuration("train_final", [*quiet, *settings, f"candidate={candidate}", f"seed={seed}"])


def epoch_settings(settings: tuple[str, ...], steps: Steps) -> tuple[str, ...]:
    """As many epochs, of one pass each, as make the steps that are asked for; a seventh of a search is warm-up."""
    if steps == (None, None):
        return ()
    config = composed(settings, 0)
    _, splits, _ = data_and_task(config)
    found = ["data.epoch_samples=0"]
    parts = splits.train, splits.train_and_validation()
    for level, wanted, known in zip(("search", "final"), steps, parts, strict=True):
        if wanted is not None:
            stream = known.stream(config.training.batch_size, splits.mean, splits.std, torch.Generator())
            count = max(2, math.ceil(wanted / stream.steps_per_epoch))
            found += [f"{level}.epochs={count}"]
            found += [f"search.warmup_epochs={max(1, round(count / 7))}"] if level == "search" else []
    return tuple(found)


@dataclass(frozen=True)
class Verdict:
    """How the search does on one data set.

    Attributes:
        level: Whether it is level with the small network.
        ahead: Whether its mean is better than that of every other method.
        best: The best of the others.
    """

    problem: Problem
    level: bool
    ahead: bool
    best: str
    sentence: str


def verdict(problem: Problem, values: Mapping[str, Sequence[float]]) -> Verdict:
    """Compare the search with the others.

    Args:
        values: By method the main measure, one number per seed.
    """
    direction, small = MEASURES[problem.measure], SMALL[problem.kind]
    means = {name: statistics.fmean(of_method) for name, of_method in values.items()}
    others = {name: mean for name, mean in means.items() if name != OURS}
    best = min(others, key=lambda name: direction.gain(0.0, others[name]))
    ahead = direction.better(means[OURS], others[best])
    level = is_level(values[OURS], values[small], direction.lower)
    with_best = is_level(values[OURS], values[best], direction.lower)

    def told(name: str) -> str:
        return f"{name} {direction.scale * means[name]:.{direction.digits}f}"

    against_best = (
        "ahead of all" if ahead else f"level with the best, {told(best)}" if with_best else f"behind {told(best)}"
    )
    gain = direction.better(means[OURS], means[small])
    against_small = "ahead of" if gain else "level with" if level else "behind"
    runner = f" (next {told(best)})" if ahead else ""
    sentence = f"{problem.name}: {told(OURS)}, {against_best}{runner}; {against_small} {told(small)}"
    return Verdict(problem, level, ahead, best, sentence)


def is_level(ours: Sequence[float], theirs: Sequence[float], lower: bool) -> bool:
    """Whether the mean of ``ours`` is better, or worse by less than two standard errors of the difference."""
    loss = statistics.fmean(ours) - statistics.fmean(theirs)
    loss = loss if lower else -loss
    variance = sum(statistics.variance(one) / len(one) if len(one) > 1 else 0.0 for one in (ours, theirs))
    return loss <= 0 or loss < 2 * math.sqrt(variance)


class Benchmark:
    """Runs what is asked for and tells it."""

    def __init__(self, runs: CachedRuns, seeds: Sequence[int], steps: Steps, overrides: tuple[str, ...]) -> None:
        self.runs, self.seeds, self.steps, self.overrides = runs, seeds, steps, overrides
        self.failures = 0

    def check(self, problem: Problem) -> None:
        """Refuse what the project would refuse.

        Raises:
            InvalidValue, UnusableInput, HydraException, OmegaConfBaseException: A setting is wrong.
        """
        settings = (*problem.overrides(self.runs.folder / "data"), *SETTINGS[problem.kind], *self.overrides)
        epoch_settings(settings, self.steps_of(problem))

    def steps_of(self, problem: Problem) -> Steps:
        searching, retraining = self.steps
        usual = LANGUAGE_STEPS if problem.kind == "language" else (None, None)
        return searching or usual[0], retraining or usual[1]

    def compared(self, problem: Problem, methods: Sequence[str]) -> Verdict | None:
        """Run the methods on ``problem`` and print their table; None where the search is not among them."""
        data = self.runs.folder / "data"
        settings = problem.overrides(data)
        held = digest(problem.files(data))
        wanted: dict[tuple[str, int], Run] = {}
        for seed in self.seeds:
            for method in methods:
                if method == OURS:
                    wanted[method, seed] = Searched(
                        problem, settings, self.overrides, held, seed, self.steps_of(problem)
                    )
                elif method in DRAWN or seed == self.seeds[0]:
                    wanted[method, seed] = Simple(problem, settings, held, method, seed)
        results = dict(zip(wanted, self.runs.results(list(wanted.values()), problem.name), strict=True))
        values: dict[str, list[float]] = {method: [] for method in methods}
        seconds: dict[str, list[float]] = {method: [] for method in methods}
        for (method, seed), result in results.items():
            if "failure" in result:
                self.failures += 1
                print(f"failed: {problem.name}, {method}, seed {seed}: {result['failure']}", file=sys.stderr)
                continue
            values[method].append(result["measures"][problem.measure])
            seconds[method].append(result["seconds"])
        values = {method: of_method for method, of_method in values.items() if of_method}
        self._print(problem, values, seconds)
        if OURS in values:
            for seed in self.seeds:
                if "architecture" in results[OURS, seed]:
                    print(f"  seed {seed}: {results[OURS, seed]['architecture']}")
        compared = OURS in values and SMALL[problem.kind] in values
        return verdict(problem, values) if compared else None

    def _print(self, problem: Problem, values: Mapping[str, Sequence[float]], seconds: Mapping[str, Any]) -> None:
        direction = MEASURES[problem.measure]
        scaled = {name: [direction.scale * one for one in of_method] for name, of_method in values.items()}
        rows = [
            (
                name,
                str(len(scaled[name])),
                mean_and_deviation(scaled[name], direction.digits),
                f"{statistics.fmean(seconds[name]):.1f}",
            )
            for name in sorted(scaled, key=lambda name: direction.gain(0.0, statistics.fmean(values[name])))
        ]
        print_table(comparison_table(problem.name, ("", "runs", direction.words, "seconds"), rows))


def default_steps(level: int) -> str:
    """The default of ``--search-steps`` (0) or ``--final-steps`` (1)."""
    return f"by default those of conf, for language {LANGUAGE_STEPS[level]}"


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [problem.name for problem in problems()]
    parser.add_argument("--tasks", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--data", nargs="+", default=names, metavar="NAME", help=f"of these only: {', '.join(names)}")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="these only, such as search MLP")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--search-steps", type=int, help=default_steps(0))
    parser.add_argument("--final-steps", type=int, help=default_steps(1))
    parser.add_argument("--quick", action="store_true", help=f"one seed, {QUICK_STEPS} steps: whether it runs at all")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark_tasks"), help="where runs are kept")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, one thread each")
    parser.add_argument("overrides", nargs="*", help="settings of every search and retraining")
    asked, more = parser.parse_known_intermixed_args(arguments)
    if more:
        parser.error(f"there is no {more[0]}")
    return asked


def available(asked: argparse.Namespace) -> list[Problem]:
    """The data sets that are asked for and can be had; one line says which others not, and why."""
    known = problems()
    for name in asked.data:
        require(
            name in {one.name for one in known},
            "--data",
            name,
            f"it must be one of {', '.join(one.name for one in known)}",
        )
    wanted = [problem for problem in known if problem.kind in asked.tasks and problem.name in asked.data]
    for problem in wanted:
        if problem.lacking:
            print(f"left out: {problem.name}: {problem.lacking}", file=sys.stderr)
    found = [problem for problem in wanted if not problem.lacking]
    require(bool(found), "--data", " ".join(asked.data), "none of them is there and among the --tasks")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parsed(arguments)
    verdicts: list[Verdict] = []
    runs = CachedRuns(asked.folder.resolve(), asked.jobs)
    try:
        for key in ("jobs", "search_steps", "final_steps"):
            value = getattr(asked, key)
            require(value is None or value >= 1, f"--{key.replace('_', '-')}", value, "it must be at least 1")
        for seed in asked.seeds:
            require(seed >= 0, "--seeds", seed, "it must be at least 0")
        seeds = asked.seeds[:1] if asked.quick else list(dict.fromkeys(asked.seeds))
        steps = (QUICK_STEPS,) * 2 if asked.quick else (asked.search_steps, asked.final_steps)
        benchmark = Benchmark(runs, seeds, steps, tuple(asked.overrides))
        todo = {problem: methods_of(problem, asked.methods) for problem in available(asked)}
        for problem in todo:
            benchmark.check(problem)
        for problem, methods in todo.items():
            found = benchmark.compared(problem, methods)
            if found is not None:
                verdicts.append(found)
                print(found.sentence, flush=True)
    except (InvalidValue, UnusableInput, HydraException, OmegaConfBaseException) as error:
        print(f"benchmark_tasks.py: {str(error).splitlines()[0]}", file=sys.stderr)
        return BAD_INPUT
    except (KeyboardInterrupt, Stopped):
        print(f"stopped; the same command goes on ({runs.computed} runs were added)", file=sys.stderr)
        return STOPPED
    level, ahead = sum(one.level for one in verdicts), sum(one.ahead for one in verdicts)
    reached = level == len(verdicts) and 2 * ahead >= len(verdicts) and not benchmark.failures
    print(
        f"tasks: the search is level with the small network on {level} of {len(verdicts)} data sets and ahead of all "
        f"methods on {ahead}; {benchmark.failures} runs failed: {asked.folder}"
    )
    return 0 if reached else FAILED


def methods_of(problem: Problem, asked: Sequence[str] | None) -> list[str]:
    own = [*baselines_of(problem), OURS]
    if asked is None:
        return own
    known = {OURS, *(name for of_kind in BASELINES.values() for name in of_kind)}
    for name in asked:
        require(name in known, "--methods", name, f"it must be one of {', '.join(sorted(known))}")
    return [name for name in own if name in asked]


if __name__ == "__main__":
    sys.exit(main())
