"""What a gradient search is put together from: its settings, its parts, and what is built of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch

from nas.bilevel.architecture_optimiser import ArchitectureOptimiser
from nas.bilevel.data_parallel import data_parallel
from nas.bilevel.hypergradient import Hypergradient
from nas.bilevel.perturbation import Perturbation
from nas.bilevel.problem import BilevelProblem
from nas.bilevel.reach import differentiates_twice
from nas.bilevel.regulariser import Regulariser
from nas.candidate import Architecture, Categorical
from nas.data.augmentation import Augmentation
from nas.data.batches import Stream, sharded
from nas.data.data_splits import DataSplits
from nas.data.dataset import Dataset
from nas.device.compilation import compile_regions
from nas.device.cuda_graphs import cuda_graphed, recording_for
from nas.errors import UnusableInput, keys_below, require
from nas.evaluation.budget import Budget, CostMeter, images_to_choose_with
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.network_cost import supernet_multiply_adds
from nas.evaluation.objective import Objective
from nas.evaluation.training_setup import TrainingSetup
from nas.hyperparameters.collection import HyperparameterSet
from nas.operations.stochastic import GaussianNoise, set_noise_generator
from nas.operations.synchronised import synchronise_batch_norm
from nas.relaxations.relaxation import Relaxation
from nas.run.folder import RunFolder
from nas.run.randomness import Randomness
from nas.run.tracking import TrackingSettings
from nas.search.discretisation import Discretisation, Strongest
from nas.search.guard import GuardSettings
from nas.search.resolution import Resolution
from nas.search.shrinking import Mask
from nas.search.stopping_rules import StoppingRule
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Supernet
from nas.tasks import Task
from nas.training.settings import TrainingSettings
from nas.training.stream import training_stream
from nas.training.weight_step import weight_optimiser

LARGEST_STEP = 6  # passes over a batch that are kept back for a step of any hypergradient: the usual ones take no more


@dataclass(frozen=True)
class SearchSettings:
    """How long the search goes and what watches over it.

    A default is what runs did that were recorded before there was such a setting; ``conf/search`` has today's values.

    Args:
        epochs: Passes over the training split.
        warmup_epochs: How many epochs at the start leave alpha alone.
        hyperparameter_every: Weight steps from one step of the hyperparameters to the next.
        stop: ``settled`` ends it as soon as nothing has moved for ``settled_epochs``; ``epochs`` never before the end.
        settled_epochs, settled_ratio: What counts as settled: epochs without a changed choice and without a
            hyperparameter that moved by more than this ratio (``Trajectory.settled``).
        checkpoint_every: Steps from one checkpoint to the next; see :func:`nas.run.checkpoint.is_due`.
        architecture: What moves alpha along its gradient.
        guard: When diverged or dead weights start again.
        from_: The folder of a finished search, whose weights, alpha and hyperparameters this one begins with.
        architecture_every: Weight steps from one step of alpha to the next.
        half_resolution: The share of the search, from its beginning, that sees images averaged over 2x2 pixels. None:
            half of it, where the supernet takes images of any size.
        settled_by: What must stand: alpha and the hyperparameters themselves (``parameters``), or what discretisation
            and averages would make of them at the end of each of these epochs (``candidate``).
        settled_loss: With ``candidate``, two options may take turns if their losses differ by this share at most.
    """

    epochs: int
    warmup_epochs: int
    hyperparameter_every: int
    stop: Literal["epochs", "settled"]
    settled_epochs: int
    settled_ratio: float
    checkpoint_every: int
    architecture: ArchitectureOptimiser
    guard: GuardSettings
    from_: str | None = None
    architecture_every: int = 1
    half_resolution: float | None = 0.0
    settled_by: Literal["parameters", "candidate"] = "parameters"
    settled_loss: float = 0.1

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "epochs", self.epochs, "it must be at least 1")
        inside = 0 <= self.warmup_epochs <= self.epochs
        require(inside, "warmup_epochs", self.warmup_epochs, f"it must be from 0 to epochs={self.epochs}")
        for key, every in (
            ("hyperparameter_every", self.hyperparameter_every),
            ("architecture_every", self.architecture_every),
        ):
            require(every >= 1, key, every, "it must be at least 1")
        share = self.half_resolution
        good = share is None or 0 <= share <= 1
        require(good, "half_resolution", share, "it must be null or a share from 0 to 1")
        require(self.settled_epochs >= 2, "settled_epochs", self.settled_epochs, "it must be at least 2")
        require(self.settled_ratio > 1, "settled_ratio", self.settled_ratio, "it must be above 1")
        require(self.settled_loss >= 0, "settled_loss", self.settled_loss, "it must be a share of at least 0")
        require(self.checkpoint_every >= 1, "checkpoint_every", self.checkpoint_every, "it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class SearchParts:
    """The pieces; a search that consists of several replaces some of them (``dataclasses.replace``).

    Args:
        space: What is searched.
        splits: The data.
        task: What the outputs mean.
        augmentation: What is done to the training images of every batch.
        relaxation: How alpha becomes operation weights.
        architecture_gradient: How alpha gets its gradient; None leaves alpha as it is.
        hyperparameter_gradient: How the learned hyperparameters get theirs; None leaves them as they are.
        hyperparameters: Those that act in a training, learned or not.
        search, training, tracking: The settings of the search, of the weight step, and of what is recorded.
        randomness: The run's generators.
        folder: The run folder.
        categorical: Hyperparameters without a gradient: held at their initial values, which the candidate carries.
        regulariser: What is added to alpha's gradient.
        perturbation: What the weight step does to the operation weights.
        shrinking: Which options are taken away on the way.
        stopping: What may end the search before its last epoch.
        discretisation: Reads the architecture off the supernet at the end; by default what alpha prefers.
        objective: Its expected penalty is added to the validation loss; its metrics have no part in the search.
        budget: Ends the search before its last epoch where the next step would go beyond it.
        setup: What stand-alone networks are trained on.
        evaluator: Measures candidates for a black-box search.
        draw: Makes the figure of an architecture for TensorBoard, at the end of every epoch that changed it.
    """

    space: SearchSpace
    splits: DataSplits
    task: Task
    augmentation: Augmentation
    relaxation: Relaxation
    architecture_gradient: Hypergradient | None
    hyperparameter_gradient: Hypergradient | None
    hyperparameters: HyperparameterSet
    search: SearchSettings
    training: TrainingSettings
    tracking: TrackingSettings
    randomness: Randomness
    folder: RunFolder
    regulariser: Regulariser | None = None
    perturbation: Perturbation | None = None
    shrinking: Mask | None = None
    stopping: StoppingRule | None = None
    discretisation: Discretisation = field(default_factory=Strongest)
    categorical: Mapping[str, Categorical] = field(default_factory=dict)
    objective: Objective | None = None
    budget: Budget = field(default_factory=Budget)
    setup: TrainingSetup | None = None
    evaluator: Evaluator | None = None
    draw: Callable[[Architecture], Any] | None = None


def built_streams(parts: SearchParts, validation: Dataset, resolution: Resolution) -> dict[str, Stream]:
    """The batches of both splits as a step sees them, this rank's share; ``validation`` is on the run's device.

    Raises:
        UnusableInput: A part has a single sample.
    """
    for name, dataset in {"training": parts.splits.train, "validation": validation}.items():
        if len(dataset) < 2:
            raise UnusableInput(
                f"The {name} part of {parts.splits.name} has one sample, and a search needs two at least: give more "
                f"data, or divide them in another way (data.split)."
            )
    splits, randomness, size = parts.splits, parts.randomness, parts.training.batch_size
    train = training_stream(splits.train.to(randomness.device), splits, size, parts.augmentation, randomness)
    order = randomness.on_cpu("validation order")
    upper = validation.stream(size, splits.mean, splits.std, order)
    streams = {"train": train, "validation": upper}
    return {name: resolution.shown(sharded(stream, randomness.ranks)) for name, stream in streams.items()}


def built_meter(parts: SearchParts, most_passes: int, validation: int) -> CostMeter:
    """The cost meter of a search whose upper level takes ``most_passes`` at most, with ``validation`` images.

    Raises:
        InvalidValue: The budget does not pay for one step.
    """
    at_epoch_end = 0 if parts.stopping is None else parts.stopping.most_samples()
    per_image = supernet_multiply_adds(parts.space, parts.relaxation)
    needed = partial(parts.discretisation.images, parts.space)
    epoch = parts.splits.train.samples_of_epoch(parts.splits.epoch_samples)
    each = images_to_choose_with(parts.budget, per_image, needed, validation)
    meter = CostMeter(
        parts.budget,
        per_image,
        step_samples=max(LARGEST_STEP, 1 + most_passes) * parts.training.batch_size + at_epoch_end,
        validation_images=validation,
        choosing_images=needed(each),
        tuning_samples=parts.discretisation.tuning_epochs(parts.space) * (1 + most_passes) * epoch,
        images_per_option=each,
    )
    meter.require_one_step()
    return meter


def built_problem(
    parts: SearchParts, supernet: Supernet, noise: tuple[torch.Generator, torch.Generator]
) -> BilevelProblem:
    """The bilevel problem, with what ranks and CUDA graphs add around it."""
    randomness, training = parts.randomness, parts.training
    if parts.perturbation is not None:
        parts.perturbation.generator = randomness.on_device("perturbation")
    problem = BilevelProblem(
        supernet,
        weight_optimiser(training, supernet.weight_parameters()),
        parts.hyperparameters,
        training.gradient_clip,
        generators=noise,
        precision=partial(training.autocast, randomness.device),
        augmentation=randomness.on_device("learned augmentation"),
        perturbation=parts.perturbation,
        task=parts.task,
    )
    data_parallel(problem, randomness.ranks)
    recording = recording_for(training.cuda_graphs, randomness.device, randomness.ranks)
    cuda_graphed(problem, ("weight_gradients",), recording, problem.generators)
    noise_is_searched = any(isinstance(module, GaussianNoise) for module in supernet.modules())
    cuda_graphed(problem, ("operation_gradients",), recording, problem.generators if noise_is_searched else ())
    return problem


def built_supernet(parts: SearchParts, dropout: torch.Generator, relaxation: torch.Generator) -> Supernet:
    """The supernet on the run's device, its noise drawn from the two generators.

    Raises:
        InvalidValue: A hyperparameter has no effect on it, the discretisation cannot read it, or it cannot be compiled.
    """
    parts.relaxation.generator = relaxation
    supernet = parts.space.supernet(parts.relaxation).to(parts.randomness.device)
    with keys_below("hyperparameters"):
        parts.hyperparameters.require_effect_on(supernet)
    with keys_below("discretisation"):
        parts.discretisation.check(supernet, parts.space)
    set_noise_generator(supernet, dropout)
    parts.randomness.seed_ranks_apart()
    if parts.training.batch_norm == "synchronised":
        synchronise_batch_norm(supernet, parts.randomness.ranks)
    hypergradients = parts.architecture_gradient, parts.hyperparameter_gradient
    bends = parts.stopping is not None and parts.stopping.differentiates_twice
    once = not bends and not differentiates_twice(*hypergradients, parts.hyperparameters)
    if once:
        supernet.expect_first_derivatives_only()
    if parts.training.compile:
        allowed = "torch.compile cannot differentiate twice: take first_order, learn nothing or the rate alone"
        require(once, "training.compile", True, allowed)
        compile_regions(supernet)
    return supernet
