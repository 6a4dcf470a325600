"""Evaluation by ordinary training from fresh weights, for a few epochs, on the training split.

Candidates can be trained side by side in processes, through joblib.
"""

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from nas.candidate import Candidate
from nas.configuration import optional_module
from nas.data.data_splits import DataSource
from nas.errors import require
from nas.evaluation.evaluation import Cost, Evaluation
from nas.evaluation.evaluator import Evaluator, Pruner
from nas.evaluation.objective import Objective
from nas.evaluation.training_setup import TrainingSetup
from nas.run.folder import RunFolder
from nas.run.randomness import Randomness
from nas.run.tracking import TrackingSettings
from nas.stopping import WARNINGS
from nas.tasks import TaskChoice
from nas.training.metrics import measure
from nas.training.retraining import Retraining
from nas.training.stream import training_stream

Result = TypeVar("Result")


class TrainedFromScratch(Evaluator):
    """Trains each candidate with its own hyperparameters and measures it on the whole validation split.

    Args:
        epochs: Epochs of a full training; the learning rate's schedule spans them.
        rungs: Epochs after which a pruner, if the search has one, ends the training of some candidates. The others
            keep their weights, so nothing is trained twice.
        jobs: Candidates that are trained at a time.
        backend: See :class:`Jobs`.
        data: Data other than the run's.
        task: Their task; by default the run's, for these data.
        setup: What candidates are trained on and how.
        objective: Its score is what a pruner compares.

    Raises:
        InvalidValue: ``epochs``, ``rungs`` or ``jobs`` is out of bounds.
        UnusableInput: Ray is not installed.
    """

    def __init__(
        self,
        epochs: int,
        rungs: Sequence[int] = (),
        jobs: int = 1,
        backend: Literal["loky", "ray"] = "loky",
        data: DataSource | None = None,
        task: TaskChoice | None = None,
        *,
        setup: TrainingSetup,
        objective: Objective,
    ) -> None:
        require(epochs >= 1, "epochs", epochs, "it must be at least 1")
        rising = all(earlier < later for earlier, later in zip([0, *rungs], [*rungs, epochs], strict=True))
        require(rising, "rungs", list(rungs), f"they must be rising numbers of epochs, from 1 to below epochs={epochs}")
        self.epochs, self.rungs = epochs, (*rungs, epochs)
        self.setup = setup if data is None else setup.on(data, task)
        self.objective = objective
        self.jobs = Jobs(jobs, backend)
        self.batch = 1 if jobs == 1 else 2 * jobs  # larger batches leave fewer processes idle, and delay a stop

    def evaluate(self, candidates: Sequence[Candidate], pruner: Pruner | None = None) -> list[Evaluation]:
        progress: dict[int, CandidateTraining] = {index: CandidateTraining() for index in range(len(candidates))}
        running = list(progress)
        for rung, epoch in enumerate(self.rungs if pruner is not None else (self.epochs,)):
            calls = [(self.setup, candidates[index], epoch, self.epochs, progress[index]) for index in running]
            progress |= dict(zip(running, self.jobs.map(train, calls), strict=True))
            running = [index for index in running if not progress[index].failed]
            if pruner is not None and epoch < self.epochs and running:
                scores = {
                    index: self.objective.score(progress[index].evaluation(candidates[index])) for index in running
                }
                kept = pruner.survivors(rung, scores)
                running = [index for index in running if index in kept]
        return [progress[index].evaluation(candidate) for index, candidate in enumerate(candidates)]

    def price(self, candidate: Candidate) -> Cost:
        return self.setup.price(candidate, self.epochs, len(self.rungs))


@dataclass(frozen=True)
class CandidateTraining:
    """How far the training of one candidate is.

    Attributes:
        state: The state of the training, or None before its start and after its end.
        metrics: What was measured last.
        cost: What the training has cost so far, as no evaluation.
        failed: Whether a loss was not finite.
    """

    state: Mapping[str, Any] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    failed: bool = False

    def evaluation(self, candidate: Candidate) -> Evaluation:
        """The evaluation of ``candidate`` if its training ends here."""
        return Evaluation(candidate, self.metrics, replace(self.cost, evaluations=1))


def training_of(setup: TrainingSetup, candidate: Candidate, epochs: int, randomness: Randomness) -> Retraining:
    """The training of ``candidate`` from fresh weights, which the global generator draws now; it keeps no record."""
    hyperparameters = setup.hyperparameters(candidate)
    training = setup.training.chosen_by(hyperparameters)
    network = setup.space.network(candidate.architecture)
    setup.bind(network, hyperparameters)
    return Retraining(
        network=network,
        task=setup.task,
        stream=training_stream(setup.train, setup, training.batch_size, setup.augmentation, randomness),
        hyperparameters=hyperparameters,
        schedule=training.schedule,
        schedule_end=training.schedule_end,
        final=replace(setup.final, epochs=epochs),
        training=training,
        tracking=TrackingSettings(tensorboard=False, console="quiet"),
        randomness=randomness,
        folder=RunFolder(Path()),  # nothing is written: fit() keeps no record
    )


def train(
    setup: TrainingSetup, candidate: Candidate, until_epoch: int, epochs: int, progress: CandidateTraining
) -> CandidateTraining:
    """Continue the training of ``candidate`` up to ``until_epoch`` of ``epochs`` and measure the network."""
    began = time.perf_counter()
    devices = [setup.device] if setup.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        randomness = Randomness(setup.seed_for(candidate), setup.device)
        retraining = training_of(setup, candidate, epochs, randomness)
        if progress.state is not None:
            retraining.load_state_dict(dict(progress.state))
        before = retraining.step
        failed = False
        try:
            retraining.fit(until_epoch * retraining.stream.steps_per_epoch)
        except FloatingPointError:
            failed = True
        measured = measure(retraining.network, setup.validation_batches(), setup.task, setup.device)
        finished = until_epoch == epochs or failed
        state = None if finished else retraining.state_dict()  # here: the global generator's state is part of it
    trained = (retraining.step - before) * min(retraining.training.batch_size, len(setup.train))
    metrics = {**setup.metrics(candidate.architecture, measured), "fidelity": until_epoch / epochs}
    seconds = time.perf_counter() - began
    spent = Cost.of_passes(metrics["multiply_adds"], trained, measured.samples, seconds=seconds)
    return CandidateTraining(state, metrics, progress.cost + spent, failed)


@dataclass(frozen=True)
class Jobs:
    """Parallel processes. Every call computes on one thread, so that sums do not depend on the number of jobs.

    Args:
        jobs: The number of processes; with 1 this process does the work.
        backend: ``loky`` starts processes on this machine, ``ray`` uses those of a Ray cluster.

    Raises:
        InvalidValue: ``jobs`` is below 1.
        UnusableInput: Ray is not installed.
    """

    jobs: int = 1
    backend: Literal["loky", "ray"] = "loky"

    def __post_init__(self) -> None:
        require(self.jobs >= 1, "jobs", self.jobs, "it must be at least 1")
        if self.backend == "ray":
            optional_module("ray.util.joblib", "cluster").register_ray()

    def map(self, work: Callable[..., Result], calls: Sequence[tuple[Any, ...]]) -> list[Result]:
        """``work(*arguments)`` for each ``arguments`` in ``calls``, in their order."""
        if self.jobs == 1 or len(calls) == 1:
            return [_on_one_thread(work, *arguments) for arguments in calls]
        from joblib import Parallel, delayed

        found: list[Result] = Parallel(n_jobs=self.jobs, backend=self.backend)(
            delayed(_in_a_worker)(work, *arguments) for arguments in calls
        )
        return found


def _on_one_thread(work: Callable[..., Result], *arguments: Any) -> Result:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work(*arguments)
    finally:
        torch.set_num_threads(threads)


def _in_a_worker(work: Callable[..., Result], *arguments: Any) -> Result:
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *WARNINGS):  # they reach every process: only the run's own may react
            signal.signal(number, signal.SIG_IGN)
    return _on_one_thread(work, *arguments)
