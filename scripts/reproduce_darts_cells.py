"""DARTS cells at a small scale on the 5,000 embedded MNIST images: what the search finds against random genotypes.

    python scripts/reproduce_darts_cells.py --seeds 0 1 2

Every number comes from the two commands a user has, train_search.py and train_final.py, run as they are; this script
only writes the random candidates. Found and random genotypes are trained with the same settings, epochs and images,
few enough that genotypes differ. The test split, 3,000 images, is touched by train_final.py alone.
Runs that are there already are not made again. Exit code 0 where the target is reached, 1 where it is missed.
"""

import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from command_runs import COLUMNS, CommandRuns, Row, conclusion, parsed_arguments

from nas.report.tables import comparison_table, print_table

SEARCH, RANDOM = "first-order search", "random genotypes"
RANDOM_GENOTYPES = 10
SETTINGS = (
    "experiment=darts_first_order",
    "scale=small",
    "data.split.train=1000",
    "data.split.validation=1000",
    "data.split.test=3000",
    "space.final_channels=4",
    "space.final_cells=3",
    "space.auxiliary=false",
    "training.batch_size=32",
    "hyperparameters.learning_rate.initial=0.05",
    "search.epochs=6",
    "search.warmup_epochs=1",
    "final.epochs=3",
)


def measured(runs: CommandRuns, seeds: list[int], jobs: int) -> dict[str, Row]:
    """Both rows of the table, by name."""
    with ThreadPoolExecutor(jobs) as pool:
        searches = {seed: pool.submit(runs.search, SEARCH, seed) for seed in seeds}

        def retrained(seed: int, index: int | None) -> dict[str, Any] | None:
            """The found genotype of ``seed``, or the random one of that index with its hyperparameters."""
            search = searches[seed].result()
            if index is not None:
                candidate = runs.random_candidate(search, seed, index)
                return runs.retrain(candidate, runs.folder / f"random-{index}" / "final", seed)
            candidate = search / "candidate.json"
            return runs.retrain(candidate if candidate.exists() else None, search / "final", seed)

        # In the order of the seeds: what comes first waits for a search that has begun first.
        indices = range(max(RANDOM_GENOTYPES, len(seeds)))
        tasks = [(seed, index) for n, seed in enumerate(seeds) for index in (None, *indices[n :: len(seeds)])]
        results = list(pool.map(lambda task: retrained(*task), tasks))
    found = [result for result, (_, index) in zip(results, tasks, strict=True) if index is None]
    random = [result for result, (_, index) in zip(results, tasks, strict=True) if index is not None]
    return {SEARCH: Row.of(found, [search.result() for search in searches.values()]), RANDOM: Row.of(random, [])}


def report(rows: dict[str, Row], seeds: list[int], failures: list[str]) -> int:
    """Print the table and whether the search is better; returns the exit code."""
    told = f"seeds {' '.join(map(str, seeds))}"
    title = f"DARTS cells on mnist5k, split 1000/1000/3000, retrained on 2000 for 3 epochs, {told}"
    print_table(comparison_table(title, COLUMNS, [row.cells(name) for name, row in rows.items() if row.accuracies]))
    means = {name: statistics.fmean(row.accuracies) for name, row in rows.items() if row.accuracies}
    found, random = means.get(SEARCH, 0.0), means.get(RANDOM, 100.0)
    targets = {f"the search beats the mean random genotype: {found:.2f} against {random:.2f}": found > random}
    return conclusion("DARTS cells", targets, failures)


def main() -> int:
    given = parsed_arguments(__doc__, seeds=(0, 1, 2), folder="runs/darts_cells")
    runs = CommandRuns(given.folder, [*SETTINGS, *given.overrides])
    return report(measured(runs, given.seeds, given.jobs), given.seeds, runs.failures)


if __name__ == "__main__":
    sys.exit(main())
