"""Does DARTS collapse to skip connections in the spaces S2 and S3, and which methods keep it from that?

    python scripts/benchmark_collapse.py --seeds 0 1 2 3 4 5 6 7 8 9 --jobs 2
    python scripts/benchmark_collapse.py --methods darts_pt sdarts_rs --spaces darts_s2 --epochs 20 final.epochs=5

Every method is the first-order search of DARTS (``experiment=darts_first_order scale=small``) with settings of its own
and nothing else, so that all have the same supernet, images and epochs: ten cells of one node, which keeps both of its
edges, on 300 of the embedded images, averaged to 7 x 7 pixels. The weights have twelve times DARTS' learning rate: what
a convolution gives changes from step to step, and what a skip connection gives does not. Of the found normal cell the
skip connections are counted. The found network is trained from fresh weights on 600 images of 14 x 14 pixels that are
neither validated nor tested on, with one learning rate and weight decay for all, so that the same cell has the same
accuracy whoever found it. ``random`` is a cell of the space that was drawn, not searched. FairDARTS is read off as the
others are, two edges per node: its threshold would leave fewer edges to count.

Printed per space: skips, validation and test accuracy (mean ± std over the seeds), seconds of a search; whether DARTS
collapses, beside random cells; which methods have fewer skips than DARTS and which a more accurate network, on average
and significantly: a paired permutation test over the seeds, Holm-corrected at 5 %. Further arguments are settings for
all runs. Runs are kept below --folder and are not made again. Exit code 0 where all runs are done, 1 where one failed,
2 for bad input, 75 where it was stopped: the same command goes on.
"""

import argparse
import io
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from cached_runs import CachedRuns, Outcome, Search, Training, candidate_text, composed
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from paired_tests import SIGNIFICANT, compared, holm

import train_search
from nas.data import Augmentation, Mnist5k, SplitSettings
from nas.data.dataset import ImageDataset
from nas.data.pictures.torchvision_datasets import shrunk
from nas.errors import InvalidValue, UnusableInput, require
from nas.report.tables import comparison_table, mean_and_deviation, print_table
from nas.run.candidate_file import parse_candidate
from nas.run.checkpoint import write_atomically
from nas.run.entry_point import BAD_INPUT, FAILED
from nas.search.composition import check_composition
from nas.stopping import STOPPED, Stopped

DARTS = "darts"
RANDOM = "random"
SPACES = ("darts_s2", "darts_s3")  # S1 has operations for the edges of four nodes; S4 has noise, and no skip to count
# Here DARTS has two skips of two with five of six seeds, in ten CPU seconds; the rest of it: results/one_shot.md.
SETTINGS = (
    "experiment=darts_first_order",
    "scale=small",
    "data=arrays",
    "scale/data=whole",
    "~data.augmentation",
    "data.layout=NHW",
    "data.epoch_samples=0",
    "data.split={train:300,validation:300,test:2000}",
    "training.batch_size=50",
    "hyperparameters.learning_rate.initial=0.3",
    "space.cells=10",
    "space.steps=1",
    "space.multiplier=1",
    "space.auxiliary=false",
    "final.epochs=20",
)
RETRAINING = ("data.split.train=600",)  # more than the search has: 300 tell the cells' networks hardly apart
SEARCHED, RETRAINED = "mnist5k_7x7.npz", "mnist5k_14x14.npz"  # on smaller ones no network is better than another
TRAINED_WITH = {"learning_rate": 0.05, "weight_decay": 3e-4}  # whatever the search had
EPOCHS = 12
# There are 72 steps, in the paper 19,500. So alpha moves a hundred times as fast, and Adam remembers squared gradients
# for a tenth of the time: with 0.999 the large ones of the beginning hold alpha near where it starts, to the end.
ADAM = ("search.architecture.rate=0.03", "search.architecture.betas=[0.5,0.99]")
PARTIAL = ("space.partial_channels=2", "space.edge_normalisation=true")  # of 4 channels; a quarter would be one


def methods(epochs: int) -> dict[str, tuple[str, ...]]:
    """What each sets beside DARTS, for a search of so many epochs; the papers' epochs are shares of theirs here."""
    return {
        DARTS: ADAM,
        "sdarts_rs": (*ADAM, "perturbation=random"),
        "darts_pt": (*ADAM, "discretisation=removal", "discretisation.images=200"),
        "robust_darts_es": (
            *ADAM,
            "stopping=eigenvalue",
            f"stopping.every={max(1, round(2 / 50 * epochs))}",
            f"stopping.first_epoch={max(1, epochs // 5)}",
            "stopping.products=6",
            "stopping.weight_decay=1e-3",
        ),
        "robust_darts_l2": (*ADAM, "hyperparameters.weight_decay.initial=0.0027"),
        "darts_minus": (*ADAM, "space.auxiliary_skip=true"),
        "beta_darts": (*ADAM, "regulariser=beta_decay"),
        "darts_plus": (*ADAM, "stopping=skips"),
        "pc_darts": (*ADAM, *PARTIAL, f"search.warmup_epochs={round(0.3 * epochs)}"),
        "drnas": (*ADAM, "relaxation=dirichlet"),
        "gaea": ("relaxation=simplex", "architecture_optimiser=exponentiated_gradient"),
        "fair_darts": (*ADAM, "relaxation=sigmoid", "regulariser=zero_one"),
    }


def write_images(folder: Path) -> None:
    """The 5,000 embedded images at a quarter and at half of their size, as files in ``folder``."""
    splits = Mnist5k(SplitSettings(3000, 1000, 1000), Augmentation(0, False, 0)).load()
    together = splits.train_and_validation().joined(splits.test)
    assert isinstance(together, ImageDataset)
    folder.mkdir(parents=True, exist_ok=True)
    for name, factor in {SEARCHED: 4, RETRAINED: 2}.items():
        images = shrunk(together, factor)
        content = io.BytesIO()
        np.savez(content, x=images.images[:, 0].numpy(), y=images.labels.numpy())
        write_atomically(folder / name, content.getvalue())


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
        images: The folder of :func:`write_images`.
        epochs: Of every search.
        overrides: Settings for all of them.
    """

    runs: CachedRuns
    images: Path
    epochs: int
    overrides: tuple[str, ...] = ()

    def settings(self, space: str, method: str | None = None) -> tuple[str, ...]:
        """Of a method's searches; without one, of the trainings."""
        own, file = (RETRAINING, RETRAINED) if method is None else (methods(self.epochs)[method], SEARCHED)
        common = (*SETTINGS, f"data.file={self.images / file}", f"space={space}", f"search.epochs={self.epochs}")
        return (*common, *own, *self.overrides)

    def check(self, space: str, method: str) -> None:
        """Build the parts of a search, see whether they go together, and write nothing.

        Raises:
            InvalidValue, UnusableInput: A setting is not allowed.
            HydraException, OmegaConfBaseException: There is no such setting.
        """
        check_composition(train_search.built_parts(composed(self.settings(space, method), 0), self.runs.folder))

    def found(self, space: str, names: Sequence[str], seed: int) -> Iterator[tuple[str, Found | str]]:
        """By method what it found with a seed, or why it failed; DARTS is among them."""
        searching = [name for name in names if name != RANDOM]
        runs = [Search(self.settings(space, name), seed) for name in searching]
        outcomes = self.runs.outcomes(runs, f"{space}, seed {seed}: searches")
        searches = dict(zip(searching, outcomes, strict=True))
        if RANDOM in names:
            searches[RANDOM] = drawn(searches[DARTS], seed)
        trainings = {
            name: Training(candidate_text(one.candidate, **TRAINED_WITH), self.settings(space), seed)
            for name, one in searches.items()
            if one.candidate
        }
        trained = self.runs.outcomes(list(trainings.values()), f"{space}, seed {seed}: trainings")
        retrained = dict(zip(trainings, trained, strict=True))
        for name, search in searches.items():
            if not search.candidate:
                yield name, search.failure
            else:
                yield name, retrained[name].failure or Found(skips(search), search, retrained[name])


def drawn(search: Outcome, seed: int) -> Outcome:
    """A random architecture in the place of the one that ``search`` found."""
    if not search.candidate:
        return search
    space = parse_candidate(search.candidate).space
    architecture = space.sample(torch.Generator().manual_seed(seed)).architecture
    return Outcome(candidate={**search.candidate, "architecture": dict(architecture)})


def skips(search: Outcome) -> int:
    """The skip connections of the normal cell."""
    found = parse_candidate(search.candidate)
    return len(found.space.skips(found.candidate.architecture))


Results = Mapping[str, Mapping[int, Found]]  # by method and seed


def report(space: str, epochs: int, results: Results) -> None:
    """The table of a space and its sentences; methods without a result have no row."""
    rows = [
        (
            name,
            mean_and_deviation([one.skips for one in found.values()], 2),
            mean_and_deviation([100 * one.retrained.validation_accuracy for one in found.values()], 2),
            mean_and_deviation([accuracy(one) for one in found.values()], 2),
            f"{statistics.fmean(one.search.seconds for one in found.values()):.0f}",
            str(len(found)),
        )
        for name, found in results.items()
        if found
    ]
    columns = ("method", "skips", "validation %", "test %", "seconds", "seeds")
    print_table(comparison_table(f"{space}, {epochs} epochs, retrained", columns, rows))
    for sentence in in_words(results):
        print(f"{space}: {sentence}")
    print(flush=True)


def accuracy(one: Found) -> float:
    return 100 * one.retrained.test_accuracy


def in_words(results: Results) -> list[str]:
    """Whether DARTS collapses; what has fewer skips than it; what is more accurate."""
    searched = [name for name in results if name not in (DARTS, RANDOM) and shared(results, name)]
    said = [collapse(results)] if shared(results, RANDOM) else []
    if not searched:
        return [*said, "no method can be compared with DARTS"]
    fewer = differing(results, searched, lambda one: float(one.skips), -1, "fewer skips than DARTS")
    return [*said, fewer, differing(results, searched, accuracy, 1, "a higher test accuracy than DARTS")]


def collapse(results: Results) -> str:
    """Whether DARTS has more skips than random cells, and lower accuracies, both significantly."""
    seeds = shared(results, RANDOM)
    pairs = [(results[DARTS][seed], results[RANDOM][seed]) for seed in seeds]
    more = compared([found.skips - drawn.skips for found, drawn in pairs])
    higher = compared([accuracy(found) - accuracy(drawn) for found, drawn in pairs])
    p_skips, p_accuracy = holm([more.p, higher.p])
    if not more.mean > 0 > higher.mean:
        verdict = "DARTS does not collapse"
    elif max(p_skips, p_accuracy) < SIGNIFICANT:
        verdict = "DARTS collapses"
    else:
        verdict = "DARTS leans to a collapse that is not significant"
    return (
        f"{verdict}: beside random cells {more.mean:+.2f} skips (p {p_skips:.3f}) and {higher.mean:+.2f} points "
        f"(p {p_accuracy:.3f})"
    )


def differing(results: Results, names: Sequence[str], of: Callable[[Found], float], sign: int, what: str) -> str:
    """Which of ``names`` differ from DARTS in the direction of ``sign``, on average and significantly.

    It says how many seeds it would take where so few cannot show it.
    """
    comparisons = [
        compared([of(results[name][seed]) - of(results[DARTS][seed]) for seed in shared(results, name)])
        for name in names
    ]
    tested = list(zip(names, comparisons, holm([one.p for one in comparisons]), strict=True))
    better = sorted((row for row in tested if sign * row[1].mean > 0), key=lambda row: -sign * row[1].mean)
    shown = [f"{name} ({one.mean:+.1f}, p {p:.3f})" for name, one, p in better]
    on_average = f"on average {', '.join(shown)}" if better else "none on average"
    significant = [name for name, _, p in better if p < SIGNIFICANT]
    needed = 1 + math.floor(1 + math.log2(len(names) / SIGNIFICANT))  # p is at least 2 ** (1 - seeds), times others
    pairs = max(one.pairs for one in comparisons)
    short = f" ({pairs} seed(s) cannot show it for {len(names)} method(s), {needed} can)" if pairs < needed else ""
    return f"{what}: {on_average}; significantly {', '.join(significant) or 'none'}{short}"


def shared(results: Results, name: str) -> list[int]:
    """The seeds that a method shares with DARTS."""
    return sorted(results.get(DARTS, {}).keys() & results.get(name, {}).keys())


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = (*methods(1), RANDOM)
    parser.add_argument("--methods", nargs="+", default=list(known), metavar="METHOD", help=", ".join(known))
    parser.add_argument("--spaces", nargs="+", default=["darts_s2", "darts_s3"], choices=SPACES)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of every search")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark_collapse"), help="where runs are kept")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, one thread each")
    parser.add_argument("overrides", nargs="*", help="settings for all runs")
    asked, more = parser.parse_known_intermixed_args(arguments)
    if more:
        parser.error(f"there is no {more[0]}")
    return asked


def require_possible(asked: argparse.Namespace) -> None:
    """Refuse methods that are not known, and numbers that are too small.

    Raises:
        InvalidValue: There are such ones.
    """
    known = (*methods(1), RANDOM)
    for name in asked.methods:
        require(name in known, "--methods", name, f"it must be one of {', '.join(known)}")
    require(asked.jobs >= 1, "--jobs", asked.jobs, "it must be at least 1")
    require(asked.epochs >= 1, "--epochs", asked.epochs, "it must be at least 1")
    for seed in asked.seeds:
        require(seed >= 0, "--seeds", seed, "it must be at least 0")


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parsed(arguments)
    runs = CachedRuns(asked.folder, asked.jobs)
    benchmark = Benchmark(runs, asked.folder, asked.epochs, tuple(asked.overrides))
    names = list(dict.fromkeys([DARTS, *asked.methods]))  # what the others are compared with is always there
    spaces, seeds = list(dict.fromkeys(asked.spaces)), list(dict.fromkeys(asked.seeds))
    try:
        require_possible(asked)
        with tempfile.TemporaryDirectory() as folder:
            write_images(Path(folder))
            trial = replace(benchmark, images=Path(folder))
            for space, name in product(spaces, [name for name in names if name != RANDOM]):
                trial.check(space, name)
    except (InvalidValue, UnusableInput, HydraException, OmegaConfBaseException) as error:
        print(f"benchmark_collapse.py: {str(error).splitlines()[0]}", file=sys.stderr)
        return BAD_INPUT
    write_images(asked.folder)
    failures = 0
    try:
        for space in spaces:
            results: dict[str, dict[int, Found]] = {name: {} for name in names}
            for seed, (name, found) in ((own, one) for own in seeds for one in benchmark.found(space, names, own)):
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
