"""Trains random candidates of a joint space and writes what came of them: a truth to measure searches against.

    python scripts/make_truth.py experiment=truth_mnist --rows 450 --repeats 30x3 --jobs 2 --output truth.csv.gz

The other arguments are settings as of ``train_search.py``: they say the space, the data and the ranges of the
hyperparameters (``hyperparameters.<name>.low``, ``high`` and ``cap``). Options are drawn uniformly, hyperparameters
uniformly on their scale, by ``seed``. Each candidate is trained for ``final.epochs`` on the training split alone, as
the retraining trains, and measured on the validation split after every epoch and on the test split at the end.
``--repeats 30x3`` trains 30 of the candidates three times more, with other seeds: this tells the noise.

The first line of the file is its whole configuration as JSON (``nas/evaluation/truth.py``). The rows are the same for
any number of jobs, but for their processor time. A run that was stopped goes on where it was, and a larger --rows takes
over the rows that are there: finished ones are kept in FILE.rows until the file is whole. Exit code 0 where the file is
written, 1 where it could not be, 2 for bad input, 75 where it was stopped.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from configurations import configuration
from hydra.errors import HydraException
from joblib import Parallel, delayed
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import train_search
from nas.candidate import Candidate
from nas.data.dataset import Dataset
from nas.errors import InvalidValue, UnusableInput, require
from nas.evaluation.budget import MEASURED_AT_ONCE
from nas.evaluation.evaluation import Cost
from nas.evaluation.scratch import training_of
from nas.evaluation.training_setup import TrainingSetup
from nas.evaluation.truth import Truth, TruthRow
from nas.run.entry_point import BAD_INPUT, FAILED
from nas.run.randomness import Randomness
from nas.stopping import STOPPED
from nas.training.metrics import Measured, measure

QUIET = ("tracking.console=quiet", "tracking.tensorboard=false", "device=cpu")


@dataclass(frozen=True)
class Problem:
    """What candidates are trained and measured on.

    Attributes:
        configuration: The configuration of ``train_search.py``, resolved.
        setup: Space, training and validation images, settings.
        test: The test images, which no search sees.
    """

    configuration: dict[str, Any]
    setup: TrainingSetup
    test: Dataset

    @property
    def epochs(self) -> int:
        return self.setup.final.epochs


def typed_configuration(overrides: Sequence[str]) -> DictConfig:
    """The configuration of a problem, from overrides that somebody has typed.

    Raises:
        UnusableInput: An override is none; the reason is Hydra's.
    """
    try:
        return configuration("train_search", [*overrides, *QUIET])
    except (HydraException, OmegaConfBaseException) as error:
        raise UnusableInput(" ".join(str(error).split("\n")[0].split())) from error


def problem_of(config: DictConfig) -> Problem:
    """The problem that ``config`` describes.

    Raises:
        InvalidValue, UnusableInput: As ``train_search.py`` would, with the same sentence.
    """
    parts = train_search.built_parts(config, Path("runs"))
    assert parts.setup is not None
    plain: Any = OmegaConf.to_container(config, resolve=True)
    kept = ("data", "space", "hyperparameters", "training", "final", "seed")
    return Problem({name: plain[name] for name in kept}, parts.setup, parts.splits.test)


def trained_row(
    problem: Problem, candidate: Candidate, number: int, repeat: int, seed: int, curve_every: int = 1
) -> TruthRow:
    """Train ``candidate`` from fresh weights on one thread and measure it, on the way after so many epochs each."""
    torch.set_num_threads(1)
    began = time.process_time()
    setup, randomness = problem.setup, Randomness(seed, problem.setup.device)
    training = training_of(setup, candidate, problem.epochs, randomness)
    curve: list[Measured] = []
    measuring = 0.0
    failed = False
    for epoch in [*range(curve_every, problem.epochs, curve_every), problem.epochs]:
        try:
            if not failed:
                training.fit(epoch * training.stream.steps_per_epoch)
        except FloatingPointError:
            failed = True
        looked = time.process_time()
        curve.append(measure(training.network, setup.validation_batches(), setup.task, setup.device))
        measuring += (time.process_time() - looked) if epoch < problem.epochs else 0.0
    seconds = time.process_time() - began - measuring  # the last measurement belongs to the price, the curve does not
    batches = problem.test.evaluation_batches(MEASURED_AT_ONCE, setup.mean, setup.std)
    test, validation = measure(training.network, batches, setup.task, setup.device), curve[-1]
    trained = training.step * min(training.training.batch_size, len(setup.train))
    cost = Cost.of_passes(setup.multiply_adds(candidate.architecture), trained, validation.samples)
    *measured, tested = (setup.metrics(candidate.architecture, one) for one in (*curve, test))
    results = {
        **{f"validation_{name}": measured[-1][name] for name in ("loss", "accuracy")},
        **{f"test_{name}": tested[name] for name in ("loss", "accuracy")},
        "samples": cost.samples,
        "multiply_adds": cost.multiply_adds,
        "parameters": tested["parameters"],
        "cpu_seconds": seconds,
    }
    losses, accuracies = (tuple(one[name] for one in measured) for name in ("loss", "accuracy"))
    return TruthRow(number, repeat, candidate, seed, results, losses, accuracies)


@dataclass(frozen=True)
class Plan:
    """Which trainings make the file.

    Attributes:
        rows: The number of candidates.
        repeated, repeats: So many of them, evenly spread, are trained so many times more.
        seed: Draws the candidates and begins the seeds of their trainings.
    """

    rows: int
    repeated: int
    repeats: int
    seed: int

    def __post_init__(self) -> None:
        require(self.rows >= 2, "--rows", self.rows, "it must be at least 2")
        allowed = f"it must be AxB, A of the {self.rows} candidates B times more, such as 30x3"
        require(0 <= self.repeated <= self.rows and self.repeats >= 0, "--repeats", self.text(), allowed)

    def text(self) -> str:
        return f"{self.repeated}x{self.repeats}"

    def trainings(self, problem: Problem) -> list[tuple[Candidate, int, int, int]]:
        """(candidate, number, repeat, seed) of every row, in the file's order."""
        generator = Randomness(self.seed, torch.device("cpu")).on_cpu("truth")
        candidates = [problem.setup.space.sample(generator) for _ in range(self.rows)]
        step = self.rows / self.repeated if self.repeated else 1.0
        again = {int(place * step) for place in range(self.repeated)}
        return [
            (candidate, number, repeat, self.training_seed(number, repeat))
            for number, candidate in enumerate(candidates)
            for repeat in range(1 + (self.repeats if number in again else 0))
        ]

    def training_seed(self, number: int, repeat: int) -> int:
        return (self.seed + 1) * 10_000_000 + repeat * 100_000 + number


class Rows:
    """Finished rows, one JSON line each, beside the file that they will make.

    Raises:
        UnusableInput: The rows that are there belong to another configuration.
    """

    def __init__(self, output: Path, problem: Problem) -> None:
        self.path = output.with_name(f"{output.name}.rows")
        self.found: dict[tuple[int, int], TruthRow] = {}
        header = json.dumps(problem.configuration, sort_keys=True)
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(f"{header}\n", encoding="utf-8")
            return
        first, *lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        if first.rstrip("\n") != header:
            raise UnusableInput(
                f"{self.path} holds rows of another configuration: delete it, or take another --output."
            )
        whole = [line for line in lines if line.endswith("\n")]
        for line in whole:
            content = json.loads(line)
            row = TruthRow(**{**content, "candidate": Candidate.from_json(content["candidate"])})
            self.found[row.number, row.repeat] = replace(
                row, losses=tuple(row.losses), accuracies=tuple(row.accuracies)
            )
        self.path.write_text("".join([first, *whole]), encoding="utf-8")  # without a line that a kill has cut short

    def add(self, row: TruthRow) -> None:
        self.found[row.number, row.repeat] = row
        content = {**vars(row), "candidate": row.candidate.to_json(), "results": dict(row.results)}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")


def made(problem: Problem, plan: Plan, output: Path, jobs: int) -> Truth:
    """Train what is missing, and write the file."""
    rows, trainings = Rows(output, problem), plan.trainings(problem)
    missing = [one for one in trainings if (one[1], one[2]) not in rows.found]
    began = time.monotonic()
    work = (delayed(trained_row)(problem, *one) for one in missing)
    for done, row in enumerate(Parallel(jobs, return_as="generator_unordered", pre_dispatch="2*n_jobs")(work), 1):
        rows.add(row)
        if done % 50 == 0 or done == len(missing):
            took = time.monotonic() - began
            print(f"{done} of {len(missing)} trainings in {took:.0f} s", file=sys.stderr, flush=True)
    truth = Truth(problem.configuration, problem.setup.space, [rows.found[one[1], one[2]] for one in trainings])
    truth.write(output)
    rows.path.unlink()
    return truth


def in_words(truth: Truth) -> str:
    accuracies = sorted(truth.column("test_accuracy"))
    places = {share: accuracies[min(len(accuracies) - 1, int(share * len(accuracies)))] for share in (0.1, 0.5, 0.9)}
    told = ", ".join(f"{100 * share:.0f} %: {100 * value:.2f}" for share, value in places.items())
    return f"{len(truth.rows)} trainings of {len(truth.first)} candidates; test accuracy at {told}, best: " + (
        f"{100 * accuracies[-1]:.2f} %"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=450, help="the number of random candidates")
    parser.add_argument("--repeats", default="30x3", help="AxB: A of them are trained B times more")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, one thread each")
    parser.add_argument("--output", type=Path, required=True, help="the file, .csv or .csv.gz")
    parser.add_argument("overrides", nargs="*", help="settings of train_search.py, such as experiment=truth_mnist")
    arguments, more = parser.parse_known_intermixed_args()
    if more:
        parser.error(f"there is no {more[0]}")
    try:
        repeats = re.fullmatch(r"(\d+)x(\d+)", arguments.repeats)
        require(repeats is not None, "--repeats", arguments.repeats, "it must be AxB, such as 30x3, or 0x0 for none")
        assert repeats is not None
        require(arguments.jobs >= 1, "--jobs", arguments.jobs, "it must be at least 1")
        config = typed_configuration(arguments.overrides)
        problem = problem_of(config)
        plan = Plan(arguments.rows, int(repeats[1]), int(repeats[2]), int(config.seed))
        truth = made(problem, plan, arguments.output, arguments.jobs)
    except (InvalidValue, UnusableInput) as error:
        print(f"make_truth.py: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"make_truth.py: {arguments.output} could not be written ({error.strerror})", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("make_truth.py: stopped; started again, it goes on where it was", file=sys.stderr)
        return STOPPED
    print(f"truth: {in_words(truth)}: {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
