"""The bilevel problem (DARTS, Liu et al., 2019, eq. 3 and 4, with hyperparameters beside alpha):
``min over (alpha, h) of L_val(w*(alpha, h), alpha)``, where ``w*`` minimises ``L_train(w, alpha, h)``.

``w`` are the supernet's weights, ``alpha`` its architecture parameters, ``h`` the continuous hyperparameters. Here are
the two losses as functions of given weights, and the weight step; what differentiates them is a hypergradient.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nas.bilevel.functional import FunctionalSupernet
from nas.bilevel.perturbation import HeldPerturbation, Perturbation
from nas.bilevel.step import WeightStep, unrolled
from nas.data.batches import Batch
from nas.device.transfer import on_device
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import RATE_FACTORS
from nas.operations.memory import Outputs, logits_of
from nas.operations.stochastic import without_noise
from nas.spaces.supernet import Supernet
from nas.tasks import PLAIN_CLASSIFICATION, Task
from nas.tasks.task import Values
from nas.training.augment import augmented
from nas.training.loss import training_loss
from nas.training.sgd import Weights, set_step, take_step
from nas.training.weight_step import as_function, require_plain


class BilevelProblem:
    """A supernet, its weight optimiser and its hyperparameters.

    Args:
        supernet: In training mode while losses are taken, as DARTS has it: batch norm uses the batch's statistics.
        optimiser: SGD, with or without momentum, or AdamW over the supernet's weights. For rate factors, its parameter
            groups are those of :func:`nas.training.sgd.grouped`.
        hyperparameters: Learning rate and weight decay of the weight step, and what acts through the training loss.
        gradient_clip: Largest norm of the weights' gradient in the weight step, or None.
        generators: Every source of noise in a forward pass (dropout, relaxation).
        augmentation: Where learned cutout and mixup draw from.
        precision: The context in which the supernet computes; losses are float32 at least.
        perturbation: What the training loss does to the operation weights.
        task: What the outputs mean, and so both losses.

    Attributes:
        functional: The supernet as a function of its parameters.
        schedule_factor: What the learning rate is multiplied by at the present step.
        progress: The share of the search that is done, 0 to 1.
        last_step: The weight step taken last, where its graph was kept.
    """

    def __init__(
        self,
        supernet: Supernet,
        optimiser: torch.optim.Optimizer,
        hyperparameters: HyperparameterSet,
        gradient_clip: float | None = None,
        generators: tuple[torch.Generator, ...] = (),
        augmentation: torch.Generator | None = None,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        perturbation: Perturbation | None = None,
        task: Task = PLAIN_CLASSIFICATION,
    ) -> None:
        require_plain(optimiser)
        for group in optimiser.param_groups:
            if "name" not in group and not hyperparameters.entries.keys().isdisjoint(RATE_FACTORS.values()):
                raise ValueError("rate factors need an optimiser over nas.training.sgd.grouped(weights)")
        self.supernet, self.optimiser, self.hyperparameters = supernet, optimiser, hyperparameters
        self.gradient_clip, self.augmentation, self.task = gradient_clip, augmentation, task
        self.generators = generators if augmentation is None else (*generators, augmentation)
        self.functional = FunctionalSupernet(supernet, precision)
        self.schedule_factor, self.progress = 1.0, 0.0
        self.held_perturbation = HeldPerturbation(perturbation, supernet)
        self.last_step: WeightStep | None = None

    def weights(self) -> Weights:
        """The supernet's weights by name, alpha not among them: the live parameters, not copies."""
        return dict(self.functional.weights)

    def values(self, raw: Mapping[str, Tensor] | None = None) -> dict[str, Tensor | float]:
        """Every hyperparameter as it acts now, or would with ``raw``; the learning rate with its schedule's factor."""
        values = self.hyperparameters.values(raw)
        values["learning_rate"] = values["learning_rate"] * self.schedule_factor
        values.setdefault("momentum", self.optimiser.param_groups[0].get("momentum", 0.0))
        # Raw hyperparameters stay on the processor; every weight would send its share of the gradient there.
        return on_device(values, self._device)

    def numbers(self) -> dict[str, float]:
        """:meth:`values` outside the graph, in full precision."""
        numbers = self.hyperparameters.numbers()
        return {**numbers, "learning_rate": numbers["learning_rate"] * self.schedule_factor}

    @property
    def _device(self) -> torch.device:
        return next(iter(self.functional.weights.values())).device

    # The two losses.

    def training_loss(self, weights: Mapping[str, Tensor], batch: Batch, values: Values) -> Tensor:
        """``L_train(weights, alpha, h)``, 0-dim, with dropout and drop path at ``values``; running averages stay."""
        with self.functional.frozen_averages():
            return self.training_pass(weights, batch, values)[0]

    def training_pass(
        self,
        parameters: Mapping[str, Tensor],
        batch: Batch,
        values: Values,
        operation_weights: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Outputs]:
        """The training loss, 0-dim, and the outputs; running averages move.

        Args:
            parameters: Weights, and alphas as ``alpha.<name>``; the supernet's own stand in for the others.
            operation_weights: What stands in for the relaxed and perturbed alphas.
        """
        self.hyperparameters.bind(self.supernet, values)
        if operation_weights is None and self.held_perturbation.perturbation is not None:
            operation_weights = self._perturbed(self.functional.operation_weights(parameters), batch)
        shown = augmented(batch, values, self.augmentation)
        outputs = self.functional.outputs(parameters, shown.inputs, operation_weights, batch.state)
        return training_loss(self.task, outputs, shown, values), outputs

    def validation_loss(
        self,
        parameters: Mapping[str, Tensor],
        batch: Batch,
        operation_weights: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Outputs]:
        """``L_val(weights, alpha)``, 0-dim, without dropout and drop path, and the outputs; arguments as before."""
        with without_noise(self.supernet), self.functional.frozen_averages():
            outputs = self.functional.outputs(parameters, batch.inputs, operation_weights, batch.state)
        return self.task.loss(logits_of(outputs), batch.targets), outputs

    # The weight step.

    def step(self, batch: Batch, keep_graph: bool = False, second_order: bool = False) -> WeightStep:
        """Take one weight step on ``batch``.

        Args:
            keep_graph: Whether ``last_step`` keeps how the weights after the step depend on the hyperparameters.
            second_order: Whether that graph includes how the training gradient depends on the weights and on what acts
                through the training loss: second derivatives. Otherwise the gradient is a constant in it.
        """
        self.held_perturbation.forget()
        if keep_graph:
            # The step changes the live weights and buffers in place; the graph needs them as they were.
            before = {name: weight.detach().clone().requires_grad_() for name, weight in self.weights().items()}
            alphas = {name: alpha.detach() for name, alpha in self.functional.alphas.items()}
            step = self._unrolled(before, alphas, batch, second_order, self.gradient_clip)
            step = replace(step, buffers={name: buffer.clone() for name, buffer in step.buffers.items()})
            kept = {name: gradient.detach().clone() for name, gradient in step.gradients.items()}
            gradients = [kept.get(name) for name in self.functional.weights]
        else:
            relaxed = {name: one.detach() for name, one in self.supernet.operation_weights().items()}
            operation_weights = self._perturbed(relaxed, batch)
            acting = on_device(self.hyperparameters.loss_values(), self._device)
            loss, logits, gradients = self.weight_gradients(batch, operation_weights, acting)
            step = WeightStep(loss.clone(), logits.clone())  # a replayed CUDA graph overwrites both
        set_step(self.optimiser, self.numbers())
        norm = take_step(self.optimiser, list(self.functional.weights.values()), gradients, self.gradient_clip)
        step = replace(step, norm=norm)
        self.held_perturbation.forget()
        self.last_step = step if keep_graph else None
        return step

    def step_ahead(self, batch: Batch, second_order: bool, clip: bool = True) -> WeightStep:
        """``w'`` of eq. 6, the step on ``batch`` as a function of alpha and h; it is not taken, and nothing changes.

        Args:
            second_order: As for :meth:`step`; the training gradient depends on alpha, too.
            clip: Whether the gradient is clipped as the real step's is.
        """
        self.held_perturbation.forget()
        with self.functional.frozen_averages():
            return self._unrolled(self.weights(), {}, batch, second_order, self.gradient_clip if clip else None)

    def _unrolled(
        self, weights: Weights, alphas: Mapping[str, Tensor], batch: Batch, second_order: bool, max_norm: float | None
    ) -> WeightStep:
        def training_pass(weights: Weights, values: Values) -> tuple[Tensor, Outputs]:
            return self.training_pass({**weights, **alphas}, batch, values)

        values = self.values()
        step_function, buffers = as_function(self.optimiser, self.functional.weights, values)
        return unrolled(training_pass, weights, step_function, buffers, values, second_order, max_norm)

    def _perturbed(self, relaxed: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The operation weights with which the weights are trained."""

        def loss(operation_weights: Mapping[str, Tensor]) -> Tensor:
            weights = {name: weight.detach() for name, weight in self.functional.weights.items()}
            with self.functional.evaluating():
                return self.validation_loss(weights, batch, operation_weights)[0]

        return self.held_perturbation.added_to(relaxed, loss, self.progress)

    # What a GPU may record and replay: all that changes from call to call is an argument.

    def weight_gradients(
        self, batch: Batch, operation_weights: Mapping[str, Tensor], values: Values
    ) -> tuple[Tensor, Outputs, list[Tensor | None]]:
        """The training loss, the outputs and the weights' gradients, all detached; running averages move.

        A weight on which the loss does not depend, because its operation was not sampled, has none.

        Args:
            values: Those of the hyperparameters that act through the loss.
        """
        loss, logits = self.training_pass({}, batch, values, operation_weights)
        gradients = torch.autograd.grad(loss, list(self.functional.weights.values()), allow_unused=True)
        return loss.detach(), logits.detach(), list(gradients)

    def operation_gradients(
        self, batch: Batch, operation_weights: Mapping[str, Tensor]
    ) -> tuple[Tensor, Outputs, list[Tensor]]:
        """The validation loss, the outputs and the gradients of ``operation_weights``, all detached."""
        weights = {name: weight.detach() for name, weight in self.weights().items()}  # nothing is kept for them
        loss, logits = self.validation_loss(weights, batch, operation_weights)
        gradients = torch.autograd.grad(loss, list(operation_weights.values()), materialize_grads=True)
        return loss.detach(), logits.detach(), list(gradients)

    # The noise of a pass.

    def noise_state(self) -> list[Tensor]:
        return [generator.get_state() for generator in self.generators]

    def repeat_noise(self, state: list[Tensor]) -> None:
        """Let the next forward pass draw what was drawn after :meth:`noise_state`."""
        for generator, saved in zip(self.generators, state, strict=True):
            generator.set_state(saved)

    def act_through_loss(self, targets: Collection[nn.Parameter]) -> list[nn.Parameter]:
        """Those of ``targets`` (alphas, raw hyperparameters) on which the training loss depends."""
        through = {*self.supernet.architecture_parameters(), *self.hyperparameters.acting_through_loss()}
        return [target for target in targets if target in through]
