"""The main result on the 5,000 embedded MNIST images: joint search against fixed hyperparameters, random and hand-made.

    python scripts/reproduce_main_result.py --seeds 0 1 2 3 4

Every number comes from the two commands a user has, train_search.py and train_final.py, run as they are; only the
random and the hand-made candidates are written by this script. The test split is touched by train_final.py alone.
Runs that are there already are not made again. Exit code 0 where every target is reached, 1 where one is missed.
"""

import statistics
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from command_runs import COLUMNS, CommandRuns, Row, conclusion, last_value, parsed_arguments

from nas.report.tables import comparison_table, print_table

BAD_START = ("hyperparameters.learning_rate.initial=1e-4", "hyperparameters.dropout.initial=0.8")
SEARCHES: dict[str, tuple[str, ...]] = {
    "joint search": (),
    "joint search, bad start": BAD_START,
    "fixed hyperparameters": ("hyperparameters=fixed",),
    "fixed hyperparameters, bad start": ("hyperparameters=fixed", *BAD_START),
}
RANDOM, HAND_MADE = "random architectures", "hand-made, tuned"
HAND_MADE_LAYERS = [
    {"type": "conv", "filters": 32, "kernel_size": 3},
    {"type": "pool", "pool_size": 2, "kind": "max"},
    {"type": "conv", "filters": 64, "kernel_size": 3},
    {"type": "pool", "pool_size": 2, "kind": "max"},
    {"type": "dense", "units": 256},
]
RANDOM_ARCHITECTURES = 10
TUNING_GRID = [{"learning_rate": rate, "dropout": dropout} for rate in (0.01, 0.03, 0.1) for dropout in (0.2, 0.5)]
TUNING_EPOCHS = 12  # as many as a retraining has
GOAL, BAD_START_MARGIN = 98.2, 1.0  # per cent


def tuned_hand_made(runs: CommandRuns, pool: Executor, seed: int) -> tuple[Path, list[Path]]:
    """The hand-made network with the best of a small grid: trained on the training split, chosen on validation.

    Returns its run folder, and those of the whole grid.
    """
    layers = ",".join("{" + ",".join(f"{key}:{value}" for key, value in one.items()) + "}" for one in HAND_MADE_LAYERS)
    plain = ["hyperparameters=fixed", "hypergradient=none", f"space.layers=[{layers}]", "space.activations=[relu]"]

    def trained(index: int) -> Path:
        # A space without a choice makes train_search.py an ordinary training that ends with a validation pass.
        values = [f"hyperparameters.{name}.initial={value}" for name, value in TUNING_GRID[index].items()]
        settings = [*plain, *values, f"search.epochs={TUNING_EPOCHS}"]
        return runs.search(f"hand-made grid {index}", seed, settings)

    grid = list(pool.map(trained, range(len(TUNING_GRID))))
    scores = [last_value(folder / "metrics.csv", "supernet/validation_accuracy") or -1.0 for folder in grid]
    return grid[max(range(len(scores)), key=scores.__getitem__)], grid


def measured(runs: CommandRuns, seeds: list[int], jobs: int) -> dict[str, Row]:
    """Every row of the table, by name."""
    rows = {}
    with ThreadPoolExecutor(jobs) as pool:

        def searched(name: str, seed: int) -> tuple[dict[str, Any] | None, Path]:
            folder = runs.search(name, seed, SEARCHES[name])
            return runs.retrain(folder, folder / "final", seed), folder

        pending = {name: [pool.submit(searched, name, seed) for seed in seeds] for name in SEARCHES}
        for name, futures in pending.items():
            done = [future.result() for future in futures]
            rows[name] = Row.of([result for result, _ in done], [folder for _, folder in done])

        def random(index: int) -> dict[str, Any] | None:
            seed = seeds[index % len(seeds)]
            candidate = runs.random_candidate(runs.search("joint search", seed), seed, index)
            return runs.retrain(candidate, runs.folder / f"random-{index}" / "final", seed)

        rows[RANDOM] = Row.of(list(pool.map(random, range(max(RANDOM_ARCHITECTURES, len(seeds))))), [])
        hand_made, grid = tuned_hand_made(runs, pool, seeds[0])
        retrained = pool.map(lambda seed: runs.retrain(hand_made, runs.folder / f"hand_made-{seed}", seed), seeds)
        rows[HAND_MADE] = Row.of(list(retrained), grid)
    return rows


def report(rows: dict[str, Row], seeds: list[int], failures: list[str]) -> int:
    """Print the table and the targets; returns the exit code."""
    title = f"mnist5k, split 3000/1000/1000, retrained on 4000, seeds {' '.join(map(str, seeds))}"
    print_table(comparison_table(title, COLUMNS, [row.cells(name) for name, row in rows.items() if row.accuracies]))
    means = {name: statistics.fmean(row.accuracies) for name, row in rows.items() if row.accuracies}
    joint, bad = means.get("joint search", 0.0), means.get("joint search, bad start", 0.0)
    targets = {
        f"the joint search reaches {GOAL} %: {joint:.2f}": joint >= GOAL,
        f"it beats the mean random architecture: {means.get(RANDOM, 0.0):.2f}": joint > means.get(RANDOM, 100.0),
        f"from the bad start it ends within {BAD_START_MARGIN} point: {bad:.2f}": abs(joint - bad) <= BAD_START_MARGIN,
    }
    return conclusion("main result", targets, failures)


def main() -> int:
    given = parsed_arguments(__doc__, seeds=range(5), folder="runs/main_result")
    runs = CommandRuns(given.folder, given.overrides)
    return report(measured(runs, given.seeds, given.jobs), given.seeds, runs.failures)


if __name__ == "__main__":
    sys.exit(main())
