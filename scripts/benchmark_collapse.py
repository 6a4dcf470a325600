"""Which methods keep DARTS from collapsing to skip connections, in the spaces S2 and S3 where it does.

    python scripts/benchmark_collapse.py --seeds 0 1 2 3 4 5 6 7 8 9 --jobs 2
    python scripts/benchmark_collapse.py --methods darts_pt sdarts_rs --spaces darts_s2 --epochs 20 final.epochs=5

Every method is the first-order search of DARTS (``experiment=darts_first_order scale=small``) with settings of its own
and nothing else, so that all have the same supernet, images and epochs: many epochs on few of the embedded images. Of
the found normal cell the skip connections are counted. The found network is trained from fresh weights on the training
images alone, with DARTS's hyperparameters, so that the same cell has the same accuracy whoever found it. FairDARTS is
read off as the others are, two edges per node: its threshold would leave fewer edges to count.

Printed per space: skips, validation and test accuracy (mean ± std over the seeds), seconds of a search, and which
methods have significantly fewer skips than DARTS: a paired permutation test over the seeds, Holm-corrected at 5 %.
Further arguments are settings for all runs. Runs are kept below --folder and are not made again. Exit code 0 where all
runs are done, 1 where one failed, 2 for bad input, 75 where it was stopped: the same command goes on.
"""

import argparse
import math
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cached_runs import CachedRuns, Outcome, Search, Training, candidate_text, composed
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from paired_tests import SIGNIFICANT, compared, holm

import train_search
from nas.errors import InvalidValue, UnusableInput, require
from nas.report.tables import comparison_table, mean_and_deviation, print_table
from nas.run.candidate_file import parse_candidate
from nas.run.entry_point import BAD_INPUT, FAILED
from nas.search.composition import check_composition
from nas.stopping import STOPPED, Stopped

DARTS = "darts"
SPACES = ("darts_s1", "darts_s2", "darts_s3")  # in S4 there is noise, and no skip to count
SETTINGS = (
    "experiment=darts_first_order",
    "scale=small",
    "data.split={train:300,validation:300,test:2000}",
    "training.batch_size=50",
    "space.steps=4",  # eight edges of a normal cell to count skips on
    "space.multiplier=4",
    "space.auxiliary=false",
    "final.epochs=20",
)
PARTIAL = ("space.partial_channels=4", "space.edge_normalisation=true")


def methods(epochs: int) -> dict[str, tuple[str, ...]]:
    """What each sets beside DARTS, for a search of so many epochs; the papers' epochs are shares of theirs here."""
    return {
        DARTS: (),
        "beta_darts": ("regulariser=beta_decay",),
        "darts_minus": ("space.auxiliary_skip=true",),
        "sdarts_rs": ("perturbation=random",),
        "darts_pt": ("discretisation=removal", "discretisation.images=200"),
        "robust_darts_es": (
            "stopping=eigenvalue",
            f"stopping.first_epoch={max(1, epochs // 5)}",
            "stopping.weight_decay=1e-3",
        ),
        "robust_darts_l2": ("hyperparameters.weight_decay.initial=0.0027",),
        "darts_plus": ("stopping=skips",),
        "drnas": ("relaxation=dirichlet",),
        "pc_darts": (*PARTIAL, f"search.warmup_epochs={round(0.3 * epochs)}"),
        "gaea": ("relaxation=simplex", "architecture_optimiser=exponentiated_gradient"),
        "fair_darts": ("relaxation=sigmoid", "regulariser=zero_one"),
    }


@dataclass(frozen=True)
class Found:
    """What one search found, and what became of it."""

    skips: int
    search: Outcome
    retrained: Outcome


@dataclass(frozen=True)
class Benchmark:
    """Searches and trainings on the spaces.

    Args:
        runs: Where they are kept.
        epochs: Of every search.
        overrides: Settings for all of them.
    """

    runs: CachedRuns
    epochs: int
    overrides: tuple[str, ...] = ()

    def settings(self, space: str, method: str | None = None) -> tuple[str, ...]:
        own = () if method is None else methods(self.epochs)[method]
        return (*SETTINGS, f"space={space}", f"search.epochs={self.epochs}", *own, *self.overrides)

    def check(self, space: str, method: str) -> None:
        """Build the parts of a search, see whether they go together, and write nothing.

        Raises:
            InvalidValue, UnusableInput: A setting is not allowed.
            HydraException, OmegaConfBaseException: There is no such setting.
        """
        check_composition(train_search.built_parts(composed(self.settings(space, method), 0), self.runs.folder))

    def found(self, space: str, names: Sequence[str], seed: int) -> Iterator[tuple[str, Found | str]]:
        """By method what it found with a seed, or why it failed."""
        searches = self.runs.outcomes(
            [Search(self.settings(space, name), seed) for name in names], f"{space}, seed {seed}: searches"
        )
        done = [one for one in searches if one.candidate]
        initial = composed(self.settings(space), 0).hyperparameters.weight_decay.initial
        trainings = [
            Training(candidate_text(one.candidate, weight_decay=initial), self.settings(space), seed) for one in done
        ]
        trained = iter(self.runs.outcomes(trainings, f"{space}, seed {seed}: trainings"))
        for name, search in zip(names, searches, strict=True):
            if not search.candidate:
                yield name, search.failure
                continue
            retrained = next(trained)
            yield name, retrained.failure or Found(skips(search), search, retrained)


def skips(search: Outcome) -> int:
    """The skip connections of the normal cell."""
    found = parse_candidate(search.candidate)
    return len(found.space.skips(found.candidate.architecture))


Results = Mapping[str, Mapping[int, Found]]  # by method and seed


def report(space: str, epochs: int, results: Results) -> None:
    """The table of a space and its sentence; methods without a result have no row."""
    rows = [
        (
            name,
            mean_and_deviation([one.skips for one in found.values()], 2),
            mean_and_deviation([100 * one.retrained.validation_accuracy for one in found.values()], 2),
            mean_and_deviation([100 * one.retrained.test_accuracy for one in found.values()], 2),
            f"{statistics.fmean(one.search.seconds for one in found.values()):.0f}",
            str(len(found)),
        )
        for name, found in results.items()
        if found
    ]
    columns = ("method", "skips", "validation %", "test %", "seconds", "seeds")
    print_table(comparison_table(f"{space}, {epochs} epochs, retrained", columns, rows))
    print(f"{space}: {in_words(results)}\n", flush=True)


def in_words(results: Results) -> str:
    """Which methods have significantly fewer skips than DARTS, and how many seeds it would take where none can."""
    darts = results.get(DARTS, {})
    others = [name for name, found in results.items() if name != DARTS and darts.keys() & found.keys()]
    if not others:
        return "no method can be compared with DARTS"
    comparisons = [
        compared(
            [results[name][seed].skips - darts[seed].skips for seed in sorted(darts.keys() & results[name].keys())]
        )
        for name in others
    ]
    corrected = holm([one.p for one in comparisons])
    fewer = [
        f"{name} ({one.mean:+.1f}, p {p:.3f})"
        for name, one, p in zip(others, comparisons, corrected, strict=True)
        if one.mean < 0 and p < SIGNIFICANT
    ]
    if fewer:
        return f"significantly fewer skips than DARTS have {', '.join(fewer)}"
    needed = 1 + math.floor(1 + math.log2(len(others) / SIGNIFICANT))  # p is at least 2 ** (1 - seeds), times others
    pairs = max(one.pairs for one in comparisons)
    short = f"; {pairs} seed(s) cannot show it for {len(others)} method(s), {needed} can" if pairs < needed else ""
    return f"no method has significantly fewer skips than DARTS{short}"


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = tuple(methods(1))
    parser.add_argument("--methods", nargs="+", default=list(known), metavar="METHOD", help=", ".join(known))
    parser.add_argument("--spaces", nargs="+", default=["darts_s2", "darts_s3"], choices=SPACES)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--epochs", type=int, default=60, help="of every search")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark_collapse"), help="where runs are kept")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, one thread each")
    parser.add_argument("overrides", nargs="*", help="settings for all runs")
    asked, more = parser.parse_known_intermixed_args(arguments)
    if more:
        parser.error(f"there is no {more[0]}")
    return asked


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parsed(arguments)
    benchmark = Benchmark(CachedRuns(asked.folder, asked.jobs), asked.epochs, tuple(asked.overrides))
    try:
        known = methods(1)
        for name in asked.methods:
            require(name in known, "--methods", name, f"it must be one of {', '.join(known)}")
        require(asked.jobs >= 1, "--jobs", asked.jobs, "it must be at least 1")
        require(asked.epochs >= 1, "--epochs", asked.epochs, "it must be at least 1")
        names = list(dict.fromkeys([DARTS, *asked.methods]))  # what the others are compared with is always there
        spaces, seeds = list(dict.fromkeys(asked.spaces)), list(dict.fromkeys(asked.seeds))
        for seed in seeds:
            require(seed >= 0, "--seeds", seed, "it must be at least 0")
        for space in spaces:
            for name in names:
                benchmark.check(space, name)
    except (InvalidValue, UnusableInput, HydraException, OmegaConfBaseException) as error:
        print(f"benchmark_collapse.py: {str(error).splitlines()[0]}", file=sys.stderr)
        return BAD_INPUT
    failures = 0
    try:
        for space in spaces:
            results: dict[str, dict[int, Found]] = {name: {} for name in names}
            for seed in seeds:
                for name, found in benchmark.found(space, names, seed):
                    if isinstance(found, Found):
                        results[name][seed] = found
                    else:
                        failures += 1
                        print(f"failed: {space}, {name}, seed {seed}: {found}", file=sys.stderr)
            report(space, asked.epochs, results)
    except (InvalidValue, UnusableInput) as error:  # what only a search itself can find
        print(f"benchmark_collapse.py: {error}", file=sys.stderr)
        return BAD_INPUT
    except (KeyboardInterrupt, Stopped):
        added = benchmark.runs.computed
        print(f"stopped; the same command goes on ({added} runs were added)", file=sys.stderr)
        return STOPPED
    wanted = len(spaces) * len(names) * len(seeds)
    print(f"collapse: {wanted - failures} of {wanted} searches done and retrained: {asked.folder}")
    return FAILED if failures else 0


if __name__ == "__main__":
    sys.exit(main())
