"""What a step of each hypergradient costs, in plain weight steps.

    python scripts/benchmark_hypergradients.py
    python scripts/benchmark_hypergradients.py space=nasbench201 --repeats 20

A step is an upper-level step and the weight step after it, on the supernet of ``conf/space`` with the data set of
``conf/data``; a plain step is the weight step alone. The two are timed in turns on the same batches, so that a busy
machine slows both, and what is printed is the median of the ratios of neighbours, with their quartiles. Exit code 0.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from configurations import configuration

from nas.bilevel.optimiser import BilevelOptimiser
from nas.bilevel.problem import BilevelProblem
from nas.configuration import build
from nas.data.batches import Stream
from nas.hyperparameters.building import NO_ENTRIES
from nas.hyperparameters.collection import HyperparameterSet
from nas.operations.stochastic import set_noise_generator
from nas.report.tables import comparison_table, print_table
from nas.run.randomness import Randomness
from nas.tasks import data_and_task
from nas.training.sgd import grouped


@dataclass(frozen=True)
class Case:
    """What gets gradients, and how."""

    alpha: str
    hyperparameters: str = "none"
    learned: tuple[str, ...] = ()


RATE, BOTH = ("learning_rate",), ("learning_rate", "dropout")
CASES = {
    "alpha, first order": Case("first_order"),
    "alpha, finite difference": Case("finite_difference"),
    "alpha, exact": Case("exact"),
    "alpha, conjugate gradient": Case("conjugate_gradient"),
    "alpha first order + rate, exact": Case("first_order", "exact", RATE),
    "alpha first order + rate and dropout, exact (the default)": Case("first_order", "exact", BOTH),
    "alpha, rate and dropout, exact together": Case("exact", "exact", BOTH),
    "alpha first order + rate, last step": Case("first_order", "last_step", RATE),
    "alpha first order + rate and dropout, last step": Case("first_order", "last_step", BOTH),
    "alpha first order + rate, forward accumulation": Case("first_order", "forward_accumulation", RATE),
    "alpha first order + rate and dropout, forward accumulation": Case("first_order", "forward_accumulation", BOTH),
    "alpha first order + rate exact, dropout by Neumann": Case("first_order", "by_kind", BOTH),
}


class Bench:
    """A supernet with its batches, as a search has them."""

    def __init__(self, case: Case, overrides: list[str]) -> None:
        learned = [f"hyperparameters.{name}.learn={str(name in case.learned).lower()}" for name in BOTH]
        chosen = [f"hypergradient={case.alpha}", f"hypergradient@hyperparameters.gradient={case.hyperparameters}"]
        config = configuration("train_search", [*chosen, *learned, *overrides])
        randomness = Randomness(0)
        training = build(config.training, "training")
        _, splits, task = data_and_task(config)
        relaxation = build(config.relaxation, "relaxation")
        space = build(config.space, "space", signature=task.signature)
        relaxation.generator = randomness.on_device("relaxation")
        supernet = space.supernet(relaxation).train()
        set_noise_generator(supernet, randomness.on_device("dropout"))
        optimiser = torch.optim.SGD(grouped(supernet.weight_parameters()), lr=0.0, momentum=training.momentum)
        noise = randomness.on_device("dropout"), randomness.on_device("relaxation")
        entries = {name: entry for name, entry in config.hyperparameters.items() if name not in NO_ENTRIES}
        hyperparameters = HyperparameterSet({name: build(entry, str(name)) for name, entry in entries.items()})
        self.problem = BilevelProblem(supernet, optimiser, hyperparameters, training.gradient_clip, noise, task=task)
        of_alpha, of_hyperparameters = (
            None if one._target_ is None else build(one, key)
            for key, one in {"hypergradient": config.hypergradient, "gradient": config.hyperparameters.gradient}.items()
        )
        architecture = build(config.search.architecture, "search.architecture")
        self.bilevel_optimiser = BilevelOptimiser(self.problem, of_alpha, of_hyperparameters, architecture)
        self._streams: list[Stream] = [
            split.stream(training.batch_size, splits.mean, splits.std, randomness.on_cpu(name))
            for name, split in {"training": splits.train, "validation": splits.validation}.items()
        ]

    def ratio(self) -> float:
        """The seconds of one whole step over those of a plain one right after it."""
        training, validation = (stream.next() for stream in self._streams)

        def whole() -> None:
            self.bilevel_optimiser.step(training, validation, self.bilevel_optimiser.requests(True, True))

        return seconds(whole) / seconds(lambda: self.problem.step(training))


def seconds(action: Callable[[], object]) -> float:
    before = time.perf_counter()
    action()
    return time.perf_counter() - before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30, help="pairs of steps per hypergradient (default: 30)")
    parser.add_argument(
        "overrides", nargs="*", help="of the search's configuration: space=darts, training.batch_size=64"
    )
    arguments = parser.parse_args()
    if arguments.repeats < 4:
        parser.error("--repeats must be at least 4")
    benches = {name: Bench(case, arguments.overrides) for name, case in CASES.items()}
    for bench in benches.values():
        for _ in range(3):
            bench.ratio()  # the first ones load kernels and make buffers
    ratios: dict[str, list[float]] = {name: [] for name in benches}
    for _ in range(arguments.repeats):
        for name, bench in benches.items():
            ratios[name].append(bench.ratio())
    rows = []
    for name, found in ratios.items():
        lower, middle, upper = statistics.quantiles(found, n=4)
        rows.append((name, f"{middle:.2f}", f"{lower:.2f} to {upper:.2f}"))
    print_table(comparison_table("a step of the search", ("gradients of", "plain steps", "quartiles"), rows))
    default = statistics.median(ratios["alpha first order + rate and dropout, exact (the default)"])
    print(f"{len(rows)} hypergradients, {arguments.repeats} pairs each; the default step is {default:.2f} plain ones")
    return 0


if __name__ == "__main__":
    sys.exit(main())
