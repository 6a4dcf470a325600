"""Searches and trainings as values: asked for by their settings, run in parallel processes, kept on disk.

A result is found again only under the same settings, the same sources of what it was computed with and the same
version of PyTorch. An interrupted benchmark that is started again goes on where it was.
"""

import contextlib
import hashlib
import json
import math
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import joblib
import torch
from configurations import configuration
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the entry points lie beside the packages, not in them

import train_search  # noqa: E402
from nas.configuration import build  # noqa: E402
from nas.errors import RunFailed  # noqa: E402
from nas.evaluation.network_cost import TRAINING_PASS, count_multiply_adds, count_parameters  # noqa: E402
from nas.run.candidate_file import read_candidate_file  # noqa: E402
from nas.run.checkpoint import write_atomically  # noqa: E402
from nas.run.folder import RunFolder  # noqa: E402
from nas.run.randomness import Randomness  # noqa: E402
from nas.tasks import data_and_task  # noqa: E402
from nas.training.metrics import measure  # noqa: E402
from nas.training.retraining import Retraining  # noqa: E402
from nas.training.stream import training_stream  # noqa: E402

QUIET = ("tracking.console=quiet", "tracking.tensorboard=false", "search.checkpoint_every=1000000", "device=cpu")
COMMON_SOURCES = (
    *("candidate.py", "configuration.py", "signature.py"),
    *("data", "hyperparameters", "operations", "run", "spaces", "tasks"),
)
TRAINING_SOURCES = (*COMMON_SOURCES, "training")
SPACES = "../conf/space"  # of which a search takes what fits its data, where none is asked for
SEARCH_SOURCES = (*TRAINING_SOURCES, "bilevel", "evaluation", "relaxations", "search", SPACES)


class Run(ABC):
    """Something to compute that is known by what it depends on: a frozen dataclass, so that equal ones are one."""

    sources: ClassVar[tuple[str, ...]]
    """The files and folders that it is computed with, as they lie from ``nas``."""

    @abstractmethod
    def depends_on(self) -> Any:
        """JSON values: all that the result depends on beside the sources."""

    @abstractmethod
    def computed(self, folder: Path) -> dict[str, Any]:
        """The result as JSON values, in this process; ``folder`` is empty and deleted afterwards."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to. Losses and accuracies are those of the trained network, of a search its supernet's.

    Multiply-adds count a forward and backward pass as three forward passes (``nas.evaluation.network_cost``).
    ``candidate`` is what a search found, empty where it failed; ``failure`` says why a run did.
    """

    validation_loss: float = math.inf
    validation_accuracy: float = 0.0
    test_loss: float = math.inf
    test_accuracy: float = 0.0
    samples: int = 0
    multiply_adds: float = 0.0
    parameters: int = 0
    seconds: float = 0.0
    failure: str = ""
    candidate: dict[str, Any] = field(default_factory=dict)

    @property
    def hyperparameters(self) -> dict[str, float]:
        return dict(self.candidate.get("hyperparameters", {}))

    @property
    def settled(self) -> bool:
        return all(self.candidate.get("settled", {}).values())


@cache
def composed(overrides: tuple[str, ...], seed: int) -> DictConfig:
    """The configuration of a quiet search."""
    return configuration("train_search", [*QUIET, *overrides, f"seed={seed}"])


def candidate_text(candidate: Mapping[str, Any], **hyperparameters: float) -> str:
    """A candidate with some of its hyperparameters replaced, and without what is known of its search."""
    kept = ("schema", "data", "space", "architecture", "schedule", "schedule_end")
    values = {**candidate["hyperparameters"], **hyperparameters}
    plain = {name: candidate[name] for name in kept} | {"hyperparameters": values, "settled": {}}
    return json.dumps(plain, sort_keys=True)


@dataclass(frozen=True)
class Search(Run):
    """One run of ``train_search.py``."""

    sources = SEARCH_SOURCES
    overrides: tuple[str, ...]
    seed: int

    def depends_on(self) -> Any:
        return [plain(composed(self.overrides, self.seed)), self.seed]

    def computed(self, folder: Path) -> dict[str, Any]:
        return asdict(outcome_of(searched, self, folder))


@dataclass(frozen=True)
class Training(Run):
    """A candidate's network from fresh weights, on the training split alone.

    ``candidate`` is the text of a ``candidate.json``, whose hyperparameters and schedule it is trained with.
    """

    sources = TRAINING_SOURCES
    candidate: str
    overrides: tuple[str, ...]
    seed: int

    def depends_on(self) -> Any:
        settings = plain(composed(self.overrides, self.seed))
        kept = {group: settings[group] for group in ("data", "training", "final")}  # the others have no part
        return [self.candidate, kept, self.seed]

    def computed(self, folder: Path) -> dict[str, Any]:
        return asdict(outcome_of(trained, self, folder))


def outcome_of(run: Callable[[Any, Path], Outcome], what: Run, folder: Path) -> Outcome:
    """What ``run`` makes of ``what``; that it failed is a result like any other: these settings do not work."""
    try:
        return run(what, folder)
    except (RunFailed, FloatingPointError) as error:
        return Outcome(failure=str(error))


class CachedRuns:
    """Runs into ``folder``, ``jobs`` at a time with one thread each."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.folder, self.jobs = folder, jobs
        self.computed = 0

    def outcomes(self, runs: Sequence[Run], what: str) -> list[Outcome]:
        """One outcome per search or training, see :meth:`results`."""
        return [Outcome(**one) for one in self.results(runs, what)]

    def results(self, runs: Sequence[Run], what: str) -> list[dict[str, Any]]:
        """One result per run, in order; those not yet known are computed now, with a line about it on stderr."""
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [run for run in dict.fromkeys(runs) if not self._path(run).exists()]
        if missing:
            began = time.monotonic()
            tasks = [joblib.delayed(compute)(run, self._path(run)) for run in missing]
            for _ in joblib.Parallel(self.jobs, return_as="generator_unordered", pre_dispatch="all")(tasks):
                self.computed += 1
            print(f"{what}: {len(missing)} of {len(runs)} runs in {time.monotonic() - began:.0f} s", file=sys.stderr)
        return [json.loads(self._path(run).read_text()) for run in runs]

    def known(self, run: Run) -> dict[str, Any] | None:
        """The result of ``run`` if it is there."""
        path = self._path(run)
        return json.loads(path.read_text()) if path.exists() else None

    def _path(self, run: Run) -> Path:
        key = json.dumps([type(run).__name__, run.depends_on(), sources(run.sources), torch.__version__])
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


@cache
def sources(parts: tuple[str, ...]) -> str:
    """A hash of the code and the settings in ``parts`` of ``nas``."""
    paths: list[Path] = []
    for part in (ROOT / "nas" / one for one in parts):
        paths += sorted(path for path in part.rglob("*") if path.suffix in (".py", ".yaml")) or [part]
    content = b"".join(path.read_bytes() for path in [*paths, Path(__file__)])
    return hashlib.sha256(content).hexdigest()


def plain(config: DictConfig) -> Any:
    return OmegaConf.to_container(config, resolve=True)


def compute(run: Run, path: Path) -> None:
    """Compute it, in this process, and write its result to ``path``, with the seconds that it took."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, contextlib.redirect_stdout(sys.stderr):
        found = run.computed(Path(folder)) | {"seconds": time.perf_counter() - began}
    write_atomically(path, json.dumps(found).encode())


def searched(run: Search, folder: Path) -> Outcome:
    config = composed(run.overrides, run.seed)
    with contextlib.redirect_stdout(None):
        train_search.run(config, folder)
    last: dict[str, float] = {}
    for line in (folder / "metrics.csv").read_text().splitlines()[1:]:
        _, _, tag, value = line.split(",")
        last[tag] = float(value)
    return Outcome(
        validation_loss=last["supernet/validation_loss"],
        validation_accuracy=last["supernet/validation_accuracy"],
        samples=int(last["budget/samples"]),
        multiply_adds=last["budget/multiply_adds"],
        candidate=json.loads((folder / "candidate.json").read_text()),
    )


def trained(run: Training, folder: Path) -> Outcome:
    config = composed(run.overrides, run.seed)
    file = folder / "candidate.json"
    file.write_text(run.candidate)
    found = read_candidate_file(file)
    randomness = Randomness(run.seed)
    source, splits, task = data_and_task(config)
    training = build(config.training, "training")
    network = found.space.network(found.candidate.architecture)
    retraining = Retraining(
        network=network,
        task=task,
        stream=training_stream(splits.train, splits, training.batch_size, source.augmentation, randomness),
        hyperparameters=found.candidate.hyperparameters,
        schedule=found.schedule,
        schedule_end=found.schedule_end,
        final=build(config.final, "final"),
        training=training,
        tracking=build(config.tracking, "tracking"),
        randomness=randomness,
        folder=RunFolder(folder),
    )
    retraining.train()
    validation, test = (
        measure(network, split.evaluation_batches(256, splits.mean, splits.std), task, randomness.device)
        for split in (splits.validation, splits.test)
    )
    trained_on = retraining.total_steps * training.batch_size
    per_image = count_multiply_adds(network, task.signature)
    return Outcome(
        validation_loss=finite(validation.loss),
        validation_accuracy=validation["accuracy"],
        test_loss=finite(test.loss),
        test_accuracy=test["accuracy"],
        samples=trained_on + validation.samples,
        multiply_adds=per_image * (TRAINING_PASS * trained_on + validation.samples),
        parameters=int(count_parameters(network, task.signature)),
    )


def finite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf
