"""Evaluation by ordinary training from fresh weights, for a few epochs, on the training split."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from nas.candidate import Candidate
from nas.data.dataset import DataSource
from nas.errors import require
from nas.evaluation.evaluation import Cost, Evaluation
from nas.evaluation.evaluator import Pruner
from nas.evaluation.network_cost import TRAINING_PASS, count_parameters
from nas.evaluation.objective import Objective
from nas.evaluation.parallel import Jobs
from nas.evaluation.training_setup import TrainingSetup
from nas.run.folder import RunFolder
from nas.run.randomness import Randomness
from nas.run.tracking import TrackingSettings
from nas.training.metrics import measure
from nas.training.retraining import Retraining


class TrainedFromScratch:
    """Trains each candidate with its own hyperparameters and measures it on the whole validation split.

    Args:
        epochs: Of a full training; the learning rate's schedule spans them.
        rungs: Epochs after which a pruner, where the search has one, ends the training of some; the weights of the
            others are kept, nothing is trained twice.
        jobs: Candidates trained at a time.
        backend: See :class:`~nas.evaluation.parallel.Jobs`.
        data: Other images than the run's.
        task: What candidates are trained on.
        objective: Whose number a pruner compares.
    """

    cacheable = True

    def __init__(
        self,
        epochs: int,
        rungs: Sequence[int] = (),
        jobs: int = 1,
        backend: Literal["loky", "ray"] = "loky",
        data: DataSource | None = None,
        *,
        task: TrainingSetup,
        objective: Objective,
    ) -> None:
        require(epochs >= 1, "epochs", epochs, "it must be at least 1")
        rising = all(earlier < later for earlier, later in zip([0, *rungs], [*rungs, epochs], strict=True))
        require(rising, "rungs", list(rungs), f"they must be rising numbers of epochs, from 1 to below epochs={epochs}")
        self.epochs, self.rungs = epochs, (*rungs, epochs)
        self.task = task if data is None else task.on(data)
        self.objective = objective
        self.jobs = Jobs(jobs, backend)
        self.batch = 1 if jobs == 1 else 2 * jobs  # what a stop may have to wait for, against idle processes

    def evaluate(self, candidates: Sequence[Candidate], pruner: Pruner | None = None) -> list[Evaluation]:
        found: list[Evaluation] = []
        progress: dict[int, CandidateTraining] = {index: CandidateTraining() for index in range(len(candidates))}
        running = list(progress)
        for rung, epoch in enumerate(self.rungs if pruner is not None else (self.epochs,)):
            calls = [(self.task, candidates[index], epoch, self.epochs, progress[index]) for index in running]
            progress |= dict(zip(running, self.jobs.map(train, calls), strict=True))
            running = [index for index in running if not progress[index].failed]
            if pruner is not None and epoch < self.epochs and running:
                found = [self._evaluation(candidates[index], progress[index]) for index in running]
                scores = {index: self.objective.score(one) for index, one in zip(running, found, strict=True)}
                kept = pruner.survivors(rung, scores)
                running = [index for index in running if index in kept]
        return [self._evaluation(candidate, progress[index]) for index, candidate in enumerate(candidates)]

    @staticmethod
    def _evaluation(candidate: Candidate, progress: "CandidateTraining") -> Evaluation:
        return Evaluation(candidate, progress.metrics, replace(progress.cost, evaluations=1))

    def price(self, candidate: Candidate) -> Cost:
        training = self.task.training.chosen_by(self.task.hyperparameters(candidate))
        size = min(training.batch_size, len(self.task.train))
        trained = self.epochs * (len(self.task.train) // size) * size
        measured = len(self.rungs) * len(self.task.validation)
        return self._cost(candidate, trained, measured)

    def _cost(self, candidate: Candidate, trained: int, measured: int) -> Cost:
        multiply_adds = self.task.multiply_adds(candidate.architecture) * (TRAINING_PASS * trained + measured)
        return Cost(trained + measured, multiply_adds, 1)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@dataclass(frozen=True)
class CandidateTraining:
    """How far the training of one candidate is: its state, what it measured last and what it has cost."""

    state: Mapping[str, Any] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    failed: bool = False


def train(
    task: TrainingSetup, candidate: Candidate, until_epoch: int, epochs: int, progress: CandidateTraining
) -> CandidateTraining:
    """Go on training ``candidate`` up to ``until_epoch`` of ``epochs`` and measure it."""
    began = time.perf_counter()
    devices = [task.device] if task.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        randomness = Randomness(task.seed_for(candidate), task.device)
        hyperparameters = task.hyperparameters(candidate)
        training = task.training.chosen_by(hyperparameters)
        network = task.space.network(candidate.architecture)
        task.bind(network, hyperparameters)
        retraining = Retraining(
            network=network,
            stream=task.train.stream(
                training.batch_size,
                task.mean,
                task.std,
                randomness.on_cpu("training order"),
                task.augmentation,
                randomness.on_device("augmentation"),
            ),
            hyperparameters=hyperparameters,
            schedule=training.schedule,
            schedule_end=training.schedule_end,
            final=replace(task.final, epochs=epochs),
            training=training,
            tracking=TrackingSettings(tensorboard=False, console="quiet"),
            randomness=randomness,
            folder=RunFolder(Path()),  # nothing is written: fit() keeps no record
        )
        if progress.state is not None:
            retraining.load_state_dict(dict(progress.state))
        before = retraining.step
        failed = False
        try:
            retraining.fit(until_epoch * retraining.stream.steps_per_epoch)
        except FloatingPointError:
            failed = True
        measured = measure(network, task.validation_batches(), task.space.classes, task.device)
        finished = until_epoch == epochs or failed
        state = None if finished else retraining.state_dict()  # here: the global generator's state is part of it
    size = min(training.batch_size, len(task.train))
    trained = (retraining.step - before) * size
    per_image = task.multiply_adds(candidate.architecture)
    seconds = time.perf_counter() - began
    spent = Cost(trained + measured.samples, per_image * (TRAINING_PASS * trained + measured.samples), 0, seconds)
    metrics = {
        "accuracy": measured.accuracy,
        "loss": measured.loss if math.isfinite(measured.loss) else math.inf,
        "macro_f1": measured.macro_f1,
        "macro_recall": measured.macro_recall,
        "parameters": count_parameters(network, task.space.input_shape),
        "multiply_adds": per_image,
        "fidelity": until_epoch / epochs,
    }
    return CandidateTraining(state, metrics, progress.cost + spent, failed)
