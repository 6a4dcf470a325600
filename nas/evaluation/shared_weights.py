"""Evaluation inside a supernet: what its weights give with other operation weights than those of its relaxed alphas.

:class:`SharedWeights` evaluates candidates as paths of one supernet (ENAS, Pham et al., 2018, "Efficient Neural
Architecture Search via Parameter Sharing"). Its weights take a few steps along single paths between two evaluations; a
candidate is then measured as it is, with the weights of its path.

Batch norm normalises by each batch's own statistics: its running ones belong to a mixture of paths and fit none.
"""

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nas.candidate import Architecture, Candidate
from nas.data.batches import Batch
from nas.errors import require
from nas.evaluation.evaluation import Cost, Evaluation
from nas.evaluation.evaluator import Evaluator, Pruner, refuse_hyperparameters
from nas.evaluation.network_cost import supernet_multiply_adds
from nas.evaluation.training_setup import TrainingSetup
from nas.operations.stochastic import set_dropouts, without_noise
from nas.relaxations.relaxation import Relaxation
from nas.run.finiteness import NotFinite
from nas.run.folder import RunFolder
from nas.run.randomness import Randomness
from nas.run.tracking import TrackingSettings
from nas.spaces.supernet import Supernet
from nas.tasks import PLAIN_CLASSIFICATION, Task
from nas.training.metrics import Measured, measure, modes_kept
from nas.training.retraining import Retraining
from nas.training.stream import training_stream

RUINED = 2.0  # times the loss of guessing: above it, a candidate's steps have harmed the shared weights


class SharedWeights(Evaluator):
    """Measures candidates with the weights of one supernet. Metrics drift while these learn, so nothing is cached.

    Args:
        weight_steps: Steps of the shared weights per evaluation; they count in the budget.
        paths: ``candidates`` takes these steps along the candidate itself, with its own learning rate and
            regularisation, so that its score shows their effect. ``uniform`` takes each step along a random
            architecture with the configuration's values (Guo et al., 2020, "Single Path One-Shot Neural Architecture
            Search with Uniform Sampling"), so that a candidate's hyperparameters have no effect.
        warmup_steps: Steps along random architectures before the first evaluation.
        finalists: How many of the best candidates are measured again at the end, all with the last weights.
        setup: What candidates are trained on and how. The batch size is always the run's.
        relaxation: The relaxation of the supernet; one-hot weights replace its own.
        randomness: The run's generators.

    Raises:
        InvalidValue: A number is out of bounds, or ``paths=uniform`` meets hyperparameters.
    """

    cacheable = False

    def __init__(
        self,
        weight_steps: int,
        paths: Literal["candidates", "uniform"],
        warmup_steps: int,
        finalists: int,
        *,
        setup: TrainingSetup,
        relaxation: Relaxation,
        randomness: Randomness,
    ) -> None:
        require(weight_steps >= 1, "weight_steps", weight_steps, "it must be at least 1")
        require(warmup_steps >= 0, "warmup_steps", warmup_steps, "it must be at least 0")
        require(finalists >= 1, "finalists", finalists, "it must be at least 1")
        if paths == "uniform":
            refuse_hyperparameters(setup.space, "with paths=uniform the shared weights do not see a candidate's")
        self.weight_steps, self.paths, self.warmup_steps, self.finalists = weight_steps, paths, warmup_steps, finalists
        self.setup, self.randomness = setup, randomness
        relaxation.generator = randomness.on_device("relaxation")
        self.supernet = setup.space.supernet(relaxation).to(randomness.device)
        for alpha in self.supernet.architecture_parameters():
            alpha.requires_grad_(False)
        self.per_image = supernet_multiply_adds(setup.space, relaxation)
        self.network = PathNetwork(self.supernet)
        self.batch_size = min(setup.training.batch_size, len(setup.train))
        self.training = Retraining(
            network=self.network,
            task=setup.task,
            stream=training_stream(setup.train, setup, setup.training.batch_size, setup.augmentation, randomness),
            hyperparameters=setup.held,
            schedule="constant",
            final=replace(setup.final, epochs=1, drop_path_schedule="constant"),
            training=replace(setup.training, cuda_graphs=False),  # every step takes a path of its own
            tracking=TrackingSettings(tensorboard=False, console="quiet"),
            randomness=randomness,
            folder=RunFolder(Path()),  # nothing is written: fit() keeps no record
        )
        self.warm = warmup_steps == 0

    def evaluate(self, candidates: Sequence[Candidate], pruner: Pruner | None = None) -> list[Evaluation]:
        """One after the other, each with the weights that the ones before have trained; a pruner is not asked."""
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

    def price(self, candidate: Candidate) -> Cost:
        return self._price(candidate, self.weight_steps, len(self.setup.validation), 1)

    def reserve(self) -> Cost:
        """The finalists' measurement, and the warm-up before it has happened."""
        return self._cost(0 if self.warm else self.warmup_steps, self.finalists * len(self.setup.validation), 0)

    def state_dict(self) -> dict[str, Any]:
        return {"training": self.training.state_dict(), "warm": self.warm}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.training.load_state_dict(state["training"])
        self.warm = state["warm"]

    def _random_steps(self, count: int) -> int:
        """Take ``count`` steps along random architectures; returns ``count``."""
        generator = self.randomness.on_cpu("paths")
        self._bind(self.setup.held)
        for _ in range(count):
            self._take(self.setup.space.sample(generator).architecture)
            self.training.fit(self.training.step + 1)
        return count

    def _own_steps(self, candidate: Candidate) -> tuple[int, Measured]:
        """Take steps along ``candidate`` and measure it: the number of steps, and the metrics after them.

        Steps that ruin the shared weights are taken back after the measurement; their cost is not.
        """
        network, optimiser = copy.deepcopy((self.network.state_dict(), self.training.optimiser.state_dict()))
        before = self.training.step
        self._bind(self.setup.hyperparameters(candidate))
        self._take(candidate.architecture)
        ruined = False
        try:
            self.training.fit(before + self.weight_steps)
        except NotFinite:
            ruined = True
        measured = self._measured(candidate)
        if ruined or not measured.loss < RUINED * self.setup.task.ignorance:
            self.network.load_state_dict(network)
            self.training.optimiser.load_state_dict(optimiser)
        return self.training.step - before, measured

    def _bind(self, hyperparameters: Mapping[str, float]) -> None:
        self.setup.bind(self.network, hyperparameters)
        set_dropouts(self.network, hyperparameters)
        self.training.hyperparameters = dict(hyperparameters)

    def _take(self, architecture: Architecture) -> None:
        self.network.weights = self.supernet.architecture_weights(architecture)

    def _measured(self, candidate: Candidate) -> Measured:
        self._take(candidate.architecture)
        with batch_statistics(self.network):
            return measure(
                InPresentMode(self.network),
                self.setup.validation_batches(),
                self.setup.task,
                self.setup.device,
            )

    def _evaluation(
        self, candidate: Candidate, measured: Measured, steps: int, evaluations: int, seconds: float
    ) -> Evaluation:
        metrics = self.setup.metrics(candidate.architecture, measured)
        return Evaluation(candidate, metrics, self._price(candidate, steps, measured.samples, evaluations, seconds))

    def _price(self, candidate: Candidate, steps: int, measured: int, evaluations: int, seconds: float = 0.0) -> Cost:
        """The cost of ``steps`` along ``candidate`` and of ``measured`` images; here that of the whole supernet."""
        return self._cost(steps, measured, evaluations, seconds)

    def _cost(self, steps: int, measured: int, evaluations: int, seconds: float = 0.0) -> Cost:
        return Cost.of_passes(self.per_image, steps * self.batch_size, measured, evaluations, seconds)


class PathNetwork(nn.Module):
    """A supernet that computes one architecture at a time: :attr:`weights` are its one-hot operation weights."""

    def __init__(self, supernet: Supernet) -> None:
        super().__init__()
        self.supernet = supernet
        self.weights: Mapping[str, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        logits = self.supernet(images, self.weights)
        assert isinstance(logits, Tensor)
        return logits


class InPresentMode(nn.Module):
    """Computes ``network`` in the mode that it is in, whatever this module's own mode is."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.compute: Callable[[Tensor], Tensor] = network.forward  # a submodule would follow this module's mode

    def forward(self, images: Tensor) -> Tensor:
        return self.compute(images)


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Within it ``network`` normalises by each batch's own statistics and has no noise; it is left as it was."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with modes_kept(network):
        network.train()
        try:
            with without_noise(network):
                yield
        finally:
            for name, buffer in network.named_buffers():
                buffer.copy_(buffers[name])


@torch.no_grad()
def supernet_metrics(
    supernet: Supernet,
    batches: Iterable[Batch],
    weights: Mapping[str, Tensor],
    task: Task = PLAIN_CLASSIFICATION,
    each: list[Tensor] | None = None,
    measures: bool = False,
) -> dict[str, float]:
    """The ``loss`` of ``supernet`` with operation ``weights``, without noise, and what ``task`` glances at.

    Args:
        supernet: It is left as it was.
        batches: One of a single sample is left out behind others: it has no statistics.
        weights: Named and shaped as the supernet's alphas.
        task: What the outputs mean. Of classification it is the ``accuracy`` that is glanced at.
        each: Takes the losses of each batch's samples, (samples,) in float32 at least.
        measures: Whether the task's measures are taken, too, where what is glanced at is not the main one.
    """
    metrics = task.metrics(next(supernet.parameters()).device) if measures and not task.glances_at_main else None
    loss = glances = 0.0
    samples = counted = 0
    with batch_statistics(supernet):
        for batch in batches:
            if samples and len(batch.targets) == 1:
                continue
            logits = supernet(batch.inputs, weights)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            loss += float(task.reported_loss(logits, batch.targets))
            if each is not None:
                each.append(task.loss(logits, batch.targets, reduction="none").cpu())
            glances += float(task.glance(logits, batch.targets)) * len(batch.targets)
            if metrics is not None:
                metrics.update(logits, batch.targets)
            samples += len(batch.targets)
            counted += task.count(batch.targets)
    measured = {} if metrics is None else metrics.compute()
    return {"loss": loss / counted, task.glanced: glances / samples, **measured}


def relaxed_weights(supernet: Supernet) -> dict[str, Tensor]:
    """The operation weights of every alpha of ``supernet``, without noise."""
    with torch.no_grad():
        return supernet.mean_weights()
