"""Evaluation with shared weights (ENAS, Pham et al., 2018): one supernet whose paths are all candidates.

Between two evaluations the weights take a few steps along single paths; a candidate is then measured as it is, with
the weights of its path.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nas.candidate import Architecture, Candidate
from nas.errors import require
from nas.evaluation.evaluation import Cost, Evaluation
from nas.evaluation.evaluator import Pruner, refuse_hyperparameters
from nas.evaluation.network_cost import TRAINING_PASS, count_parameters, supernet_multiply_adds
from nas.evaluation.task import Task
from nas.operations.stochastic import set_dropouts, without_noise
from nas.relaxations.relaxation import Relaxation
from nas.run.finiteness import NotFinite
from nas.run.folder import RunFolder
from nas.run.randomness import Randomness
from nas.run.tracking import TrackingSettings
from nas.spaces.supernet import Supernet
from nas.training.metrics import ClassificationMetrics, measure
from nas.training.retraining import Retraining

RUINED = 2.0  # times the loss of guessing: above it, a candidate's steps have done the shared weights harm


class PathNetwork(nn.Module):
    """A supernet that computes one architecture at a time, :attr:`weights` being its one-hot weights."""

    def __init__(self, supernet: Supernet) -> None:
        super().__init__()
        self.supernet = supernet
        self.weights: Mapping[str, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        logits = self.supernet(images, self.weights)
        assert isinstance(logits, Tensor)
        return logits


class BatchStatistics(nn.Module):
    """``network`` without its noise, normalised by each batch's own statistics whatever the mode.

    Running statistics are a mixture over all paths and true for none.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.compute: Callable[[Tensor], Tensor] = network.forward  # no submodule: its mode is not this one's

    def forward(self, images: Tensor) -> Tensor:
        return self.compute(images)


class SharedWeights:
    """Scores drift as the weights learn: nothing is cached, and the best are measured again at the end.

    Args:
        weight_steps: Steps of the shared weights per evaluation; they count in the budget.
        paths: ``candidates`` takes these steps along the candidate itself, with its own learning rate and
            regularisation, whose effect its score then shows; ``uniform`` takes each along a random architecture with
            the configuration's values (Guo et al., 2020), and a candidate's hyperparameters have no part in it.
        warmup_steps: Steps along random architectures before the first evaluation.
        finalists: How many of the best are measured again, all with the last weights, before one is chosen.
        task: What candidates are evaluated on. The batch size is the run's, whatever a candidate says.
        relaxation: Of the supernet; its weights are replaced by one-hot ones.
        randomness: The run's.
    """

    cacheable = False

    def __init__(
        self,
        weight_steps: int,
        paths: Literal["candidates", "uniform"],
        warmup_steps: int,
        finalists: int,
        *,
        task: Task,
        relaxation: Relaxation,
        randomness: Randomness,
    ) -> None:
        require(weight_steps >= 1, "weight_steps", weight_steps, "it must be at least 1")
        require(warmup_steps >= 0, "warmup_steps", warmup_steps, "it must be at least 0")
        require(finalists >= 1, "finalists", finalists, "it must be at least 1")
        if paths == "uniform":
            refuse_hyperparameters(task.space, "with paths=uniform the shared weights do not see a candidate's")
        self.weight_steps, self.paths, self.warmup_steps, self.finalists = weight_steps, paths, warmup_steps, finalists
        self.task, self.randomness = task, randomness
        self.batch = 1
        relaxation.generator = randomness.on_device("relaxation")
        self.supernet = task.space.supernet(relaxation).to(randomness.device)
        for alpha in self.supernet.architecture_parameters():
            alpha.requires_grad_(False)
        self.per_image = supernet_multiply_adds(task.space, relaxation)
        self.network = PathNetwork(self.supernet)
        stream = task.train.stream(
            task.training.batch_size,
            task.mean,
            task.std,
            randomness.on_cpu("training order"),
            task.augmentation,
            randomness.on_device("augmentation"),
        )
        self.batch_size = min(task.training.batch_size, len(task.train))
        self.training = Retraining(
            network=self.network,
            stream=stream,
            hyperparameters=task.held,
            schedule="constant",
            final=replace(task.final, epochs=1, drop_path_schedule="constant"),
            training=replace(task.training, cuda_graphs=False),  # every step takes a path of its own
            tracking=TrackingSettings(tensorboard=False, console="quiet"),
            randomness=randomness,
            folder=RunFolder(Path()),  # nothing is written: fit() keeps no record
        )
        self.warm = warmup_steps == 0

    def evaluate(self, candidates: Sequence[Candidate], pruner: Pruner | None = None) -> list[Evaluation]:
        """One after the other, each upon what the ones before have taught the weights; a pruner has nothing to end."""
        found = []
        for candidate in candidates:
            began = time.perf_counter()
            steps = 0
            if not self.warm:
                steps += self._random_steps(self.warmup_steps)
                self.warm = True
            if self.paths == "uniform":
                steps += self._random_steps(self.weight_steps)
                measured = self._measured(candidate)
            else:
                taken, measured = self._own_steps(candidate)
                steps += taken
            found.append(self._evaluation(candidate, measured, steps, 1, time.perf_counter() - began))
        return found

    def measure_again(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        """All with the present weights, which take no step."""
        found = []
        for candidate in candidates:
            began = time.perf_counter()
            measured = self._measured(candidate)
            found.append(self._evaluation(candidate, measured, 0, 0, time.perf_counter() - began))
        return found

    def _random_steps(self, count: int) -> int:
        generator = self.randomness.on_cpu("paths")
        self._bind(self.task.held)
        for _ in range(count):
            self._take(self.task.space.sample(generator).architecture)
            self.training.fit(self.training.step + 1)
        return count

    def _own_steps(self, candidate: Candidate) -> tuple[int, ClassificationMetrics]:
        """The steps taken and what they led to; steps that ruin the shared weights are taken back, not their cost."""
        network, optimiser = _copied(self.network.state_dict()), _copied(self.training.optimiser.state_dict())
        before = self.training.step
        self._bind(self.task.hyperparameters(candidate))
        self._take(candidate.architecture)
        ruined = False
        try:
            self.training.fit(before + self.weight_steps)
        except NotFinite:
            ruined = True
        measured = self._measured(candidate)
        if ruined or not measured.loss < RUINED * math.log(self.task.space.classes):
            self.network.load_state_dict(network)
            self.training.optimiser.load_state_dict(optimiser)
        return self.training.step - before, measured

    def _bind(self, hyperparameters: Mapping[str, float]) -> None:
        self.task.bind(self.network, hyperparameters)
        set_dropouts(self.network, hyperparameters)
        self.training.hyperparameters = dict(hyperparameters)

    def _take(self, architecture: Architecture) -> None:
        self.network.weights = self.supernet.architecture_weights(architecture)

    def _measured(self, candidate: Candidate) -> ClassificationMetrics:
        self._take(candidate.architecture)
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        self.network.train()
        with without_noise(self.network):
            metrics = measure(
                BatchStatistics(self.network),
                self.task.validation_batches(),
                self.task.space.classes,
                self.task.device,
            )
        for name, buffer in self.network.named_buffers():
            buffer.copy_(buffers[name])
        return metrics

    def _evaluation(
        self, candidate: Candidate, measured: ClassificationMetrics, steps: int, evaluations: int, seconds: float
    ) -> Evaluation:
        trained = steps * self.batch_size
        with torch.device("meta"):
            network = self.task.space.network(candidate.architecture)
        metrics = {
            "accuracy": measured.accuracy,
            "loss": measured.loss if math.isfinite(measured.loss) else math.inf,
            "macro_f1": measured.macro_f1,
            "macro_recall": measured.macro_recall,
            "parameters": count_parameters(network, self.task.space.input_shape),
            "multiply_adds": self.task.multiply_adds(candidate.architecture),
        }
        return Evaluation(candidate, metrics, self._cost(trained, measured.samples, evaluations, seconds))

    def _cost(self, trained: int, measured: int, evaluations: int, seconds: float = 0.0) -> Cost:
        passes = TRAINING_PASS * trained + measured
        return Cost(trained + measured, self.per_image * passes, evaluations, seconds)

    def price(self, candidate: Candidate) -> Cost:
        return self._cost(self.weight_steps * self.batch_size, len(self.task.validation), 1)

    def reserve(self) -> Cost:
        """The finalists' measurement, and the warm-up as long as it is to come."""
        steps = 0 if self.warm else self.warmup_steps
        return self._cost(steps * self.batch_size, self.finalists * len(self.task.validation), 0)

    def state_dict(self) -> dict[str, Any]:
        return {"training": self.training.state_dict(), "warm": self.warm}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.training.load_state_dict(state["training"])
        self.warm = state["warm"]


def _copied(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: _copied(value) for key, value in state.items()}
    return [_copied(value) for value in state] if isinstance(state, list) else state
