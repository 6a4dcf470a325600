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
from pathlib import Path
from typing import Any

from bench import COLUMNS, Bench, Row, arguments, conclusion

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
    "final.epochs=5",
)


def measured(bench: Bench, seeds: list[int], jobs: int) -> dict[str, Row]:
    """Both rows of the table, by name."""
    with ThreadPoolExecutor(jobs) as pool:

        def retrained(item: tuple[int, Path]) -> dict[str, Any] | None:
            seed, candidate = item
            return bench.retrain(candidate, candidate.parent / "final", seed)

        searches = dict(zip(seeds, pool.map(lambda seed: bench.search(SEARCH, seed), seeds), strict=True))
        found = [(seed, folder / "candidate.json") for seed, folder in searches.items()]
        found = [(seed, file) for seed, file in found if file.exists()]
        random = bench.random_candidates(searches, max(RANDOM_GENOTYPES, len(seeds)))
        results = list(pool.map(retrained, [*found, *random]))
    return {
        SEARCH: Row.of(results[: len(found)], list(searches.values())),
        RANDOM: Row.of(results[len(found) :], []),
    }


def report(rows: dict[str, Row], seeds: list[int], failures: list[str]) -> int:
    """Print the table and whether the search is better; returns the exit code."""
    told = f"seeds {' '.join(map(str, seeds))}"
    title = f"DARTS cells on mnist5k, split 1000/1000/3000, retrained on 2000 for 5 epochs, {told}"
    print_table(comparison_table(title, COLUMNS, [row.cells(name) for name, row in rows.items() if row.accuracies]))
    means = {name: statistics.fmean(row.accuracies) for name, row in rows.items() if row.accuracies}
    found, random = means.get(SEARCH, 0.0), means.get(RANDOM, 100.0)
    targets = {f"the search beats the mean random genotype: {found:.2f} against {random:.2f}": found > random}
    return conclusion("DARTS cells", targets, failures)


def main() -> int:
    given = arguments(__doc__, seeds=(0, 1, 2), folder="runs/darts_cells")
    bench = Bench(given.folder, [*SETTINGS, *given.overrides])
    return report(measured(bench, given.seeds, given.jobs), given.seeds, bench.failures)


if __name__ == "__main__":
    sys.exit(main())
