"""The settings of the weight step, shared by the search and the retraining."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from nas.errors import require
from nas.run.finiteness import OnNonFinite
from nas.training.averaging import AveragingKind
from nas.training.schedules import Schedule


@dataclass(frozen=True)
class TrainingSettings:
    """How weights are trained.

    Args:
        batch_size: Samples per step.
        momentum: The momentum of SGD; AdamW has ``betas`` instead.
        gradient_clip: Largest norm of the gradient, or null for no clipping.
        schedule: How the learning rate changes over the epochs, in the search as in the retraining.
        schedule_end: The share of the base that a cosine or exponential schedule has come down to at the end.
        on_non_finite: What a loss, gradient or alpha that is NaN or infinite leads to. ``stop`` ends the run,
            ``rollback`` takes it back to the last checkpoint and on at a lower learning rate; ``restart`` leaves it to
            the guard of a search that learns its learning rate, and is ``stop`` elsewhere.
        compile: Whether training passes go through ``torch.compile``, region by region
            (:mod:`nas.device.compilation`): for GPUs; the first steps of the first run take minutes.
        cuda_graphs: Whether a GPU records the kernels of a step and replays them (:mod:`nas.device.cuda_graphs`).
        precision: How networks compute in training: ``bfloat16`` by autocast; parameters, alpha too, losses and
            evaluations stay float32.
        batch_norm: In a data-parallel run ``synchronised`` takes the statistics of the joint batch, so that the run
            computes what one process would; ``per_rank`` those of each process's share, which needs no messages.
        keep_checkpoints: How many of the newest stay on the disk; the older ones are for when the newest is damaged.
        deterministic: Whether only deterministic algorithms are used, where PyTorch has them; what has none is named.
        averaging: ``non_monotone`` holds the validation split out of a retraining, and goes on with averaged SGD once
            its loss there no longer falls (:mod:`nas.training.averaging`).
        optimiser: ``sgd`` with momentum, or ``adamw`` (:mod:`nas.training.adamw`), in the search as in the retraining.
        betas: How much of AdamW's averages of gradients and of their squares stays from step to step.
        epsilon: What is added to AdamW's denominator.
    """

    batch_size: int
    momentum: float
    gradient_clip: float | None
    schedule: Schedule
    schedule_end: float = 0.0
    on_non_finite: OnNonFinite = "restart"
    compile: bool = False
    cuda_graphs: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    batch_norm: Literal["synchronised", "per_rank"] = "synchronised"
    keep_checkpoints: int = 2
    deterministic: bool = False
    averaging: AveragingKind = "none"
    optimiser: Literal["sgd", "adamw"] = "sgd"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        require(self.batch_size >= 2, "batch_size", self.batch_size, "it must be at least 2 (batch norm needs it)")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "it must be a number from 0 to below 1")
        clip = self.gradient_clip
        good = clip is None or (clip > 0 and math.isfinite(clip))
        require(good, "gradient_clip", clip, "it must be null or a number above 0")
        end = self.schedule_end
        require(0 <= end <= 1, "schedule_end", end, "it must be a number from 0 to 1")
        require(self.keep_checkpoints >= 1, "keep_checkpoints", self.keep_checkpoints, "it must be at least 1")
        good = all(0 <= beta < 1 for beta in self.betas)
        require(good, "betas", list(self.betas), "each must be a number from 0 to below 1")
        good = self.epsilon > 0 and math.isfinite(self.epsilon)
        require(good, "epsilon", self.epsilon, "it must be a number above 0")
        good = self.optimiser == "sgd" or self.averaging == "none"
        require(good, "averaging", self.averaging, "it goes on from SGD: take optimiser=sgd, or averaging=none")
        good = self.schedule != "exponential" or end > 0
        require(good, "schedule_end", end, "an exponential schedule never comes down to 0: it must be above 0")

    @property
    def absent_hyperparameters(self) -> tuple[str, ...]:
        """The hyperparameters that the optimiser does not have."""
        return () if self.optimiser == "sgd" else ("momentum",)

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which a network computes."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def chosen_by(self, hyperparameters: Mapping[str, float]) -> "TrainingSettings":
        """These settings with the batch size that a candidate's ``hyperparameters`` carry, if they carry one.

        Raises:
            InvalidValue: It is no whole number, or below 2.
        """
        size = hyperparameters.get("batch_size", self.batch_size)
        require(float(size).is_integer(), "batch_size", size, "it must be a whole number")
        return replace(self, batch_size=int(size))
