"""How well the learned hyperparameters fit the architecture they were learned with, by what is done about the pair.

    python scripts/compare_pair_methods.py --seeds 3

Every method searches ``experiment=few_images`` from two bad starts. What it found is retrained with the hyperparameters
it carries, and judged by the best of four learning rates for the same network, as benchmark_hyperparameters.py does.
Exit code 75 where it was interrupted; the same command goes on.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmark_hyperparameters import DROPOUTS, MACRO, RATES, Benchmark, Scale, learned_values, percents, ratio, start
from cached_runs import CachedRuns, Search

from nas.report.tables import comparison_table, print_table
from nas.stopping import Stopped

FACTORS = ("convolution", "dense", "normalisation")
METHODS = {
    "gradient": ("method=gradient",),
    "tuned": ("method=tuned",),
    "multi_start": ("method=multi_start",),
    "gradient, rate factors": (
        "method=gradient",
        *(f"hyperparameters.rate_factor_{one}.learn=true" for one in FACTORS),
    ),
}
STARTS = ((1e-4, 0.05), (0.5, 0.8))


def compare(benchmark: Benchmark, seeds: list[int]) -> None:
    rows = []
    for name, overrides in METHODS.items():
        runs = [
            Search((*MACRO, *overrides, *start(*one)), benchmark.run_seed(seed, index))
            for index, one in enumerate(STARTS)
            for seed in seeds
        ]
        searches = benchmark.runs.outcomes(runs, name)
        retrained = benchmark.retrained(searches, MACRO)
        found = [one.candidate for one in searches if one.candidate]
        grids = iter(benchmark.grids(found, MACRO, RATES[1:], DROPOUTS[1:2], finalist_count=1))
        bests = [next(grids).retrained.validation_loss if one.candidate else 1.0 for one in searches]
        pairs = list(zip(retrained, bests, strict=True))
        rows.append(
            (
                name,
                learned_values(searches, "learning_rate"),
                learned_values(searches, "dropout"),
                ", ".join(f"{one.validation_loss:.3f}" for one in retrained),
                ", ".join(f"{ratio(one.validation_loss, best):.2f}" for one, best in pairs),
                percents([one.test_accuracy for one in retrained]),
            )
        )
    columns = ("method", "lr", "dropout", "validation loss", "ratio", "test %")
    starts = " and ".join(f"lr {rate:g}, dropout {dropout:g}" for rate, dropout in STARTS)
    print_table(comparison_table(f"The pair, retrained; from {starts}, seeds {seeds}", columns, rows))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3], help="of the searches")
    parser.add_argument("--folder", type=Path, default=Path("runs/compare_pair_methods"), help="kept results")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, one thread each")
    arguments = parser.parse_args()
    nothing = Scale((), (), (), (), (), (), 0, 0)  # the benchmark's own measurements are not made
    benchmark = Benchmark(CachedRuns(arguments.folder, arguments.jobs), nothing, ())
    try:
        compare(benchmark, arguments.seeds)
    except (KeyboardInterrupt, Stopped):
        print(f"interrupted; the same command goes on ({benchmark.runs.computed} runs were added)", file=sys.stderr)
        return 75
    print(f"compared: {', '.join(METHODS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
