"""The bilevel problem as the hypergradients see it: losses as functions of given weights, and the weight step.

``min over (alpha, h) of L_val(w*(alpha, h), alpha)`` where ``w*(alpha, h)`` minimises ``L_train(w, alpha, h)`` over w.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.data.batches import Batch
from nas.device.cuda_graphs import Inputs, NewRecording, Numbers, Recorded
from nas.device.transfer import on_device
from nas.distributed import Ranks
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.groups import RATE_FACTORS, group_of, rates
from nas.operations.stochastic import without_noise
from nas.spaces.supernet import Supernet
from nas.training.loss import Values, presented, training_loss
from nas.training.sgd import set_step, take_step

Weights = dict[str, Tensor]
_RELAXED, _VALUE = "relaxed/", "value/"  # before the names of a recording's inputs


class WeightStep(NamedTuple):
    """A weight step that was taken: its loss, the logits, and the gradient's norm before clipping, all detached."""

    loss: Tensor
    logits: Tensor
    norm: Tensor


class RecordedStep(NamedTuple):
    """One whose dependence on hyperparameters is kept.

    Attributes:
        moved: The weights after it, in the graph of the raw hyperparameters.
        length: ``|w' - w|``.
    """

    taken: WeightStep
    moved: Weights
    length: float


class OpenStep(NamedTuple):
    """A weight step that is about to be taken: its loss and, by weight, its gradients, in the graph of the weights and
    the raw hyperparameters, and the logits."""

    loss: Tensor
    logits: Tensor
    gradients: Weights


class BilevelProblem:
    """A supernet, its weight optimiser and its hyperparameters.

    Args:
        supernet: In training mode while losses are taken, as DARTS has it: batch norm uses the batch's statistics.
        optimiser: SGD over the supernet's weights, with or without momentum; a hypergradient reads its momentum and its
            buffers and changes neither. For rate factors, its parameter groups are those of
            ``nas.training.sgd``.
        hyperparameters: Learning rate and weight decay of the weight step, and what acts through the training loss.
        gradient_clip: Largest norm of the weights' gradient in the weight step, or None.
        generators: Every source of noise in a forward pass (dropout, relaxation).
        augmentation: Where learned cutout and mixing draw from.
        precision: The context in which the supernet computes; losses are float32 at least.
        ranks: Those over which the batches are spread.
        new_recording: How the gradients of a weight step, and alpha's first-order gradient, are recorded; by default
            not at all.
    """

    def __init__(
        self,
        supernet: Supernet,
        optimiser: torch.optim.SGD,
        hyperparameters: HyperparameterSet,
        gradient_clip: float | None = None,
        generators: tuple[torch.Generator, ...] = (),
        augmentation: torch.Generator | None = None,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        ranks: Ranks | None = None,
        new_recording: NewRecording | None = None,
    ) -> None:
        for group in optimiser.param_groups:
            if group["dampening"] or group["nesterov"] or group["maximize"]:
                raise ValueError("the unrolled step is that of plain momentum: no dampening, Nesterov or maximisation")
            if "name" not in group and not hyperparameters.entries.keys().isdisjoint(RATE_FACTORS.values()):
                raise ValueError("rate factors need an optimiser over nas.training.sgd.grouped(weights)")
        self.supernet, self.optimiser, self.hyperparameters = supernet, optimiser, hyperparameters
        self.gradient_clip, self.augmentation = gradient_clip, augmentation
        self.generators = generators if augmentation is None else (*generators, augmentation)
        self.ranks = Ranks() if ranks is None else ranks
        self.schedule_factor = 1.0
        self._precision = precision
        # Looking through thousands of modules at every step would cost as much as some of their arithmetic.
        self._weights = supernet.named_weight_parameters()
        self._parameters = self._weights | {f"alpha.{name}": alpha for name, alpha in supernet.alpha.items()}
        self._places = _places(supernet, self._parameters)
        self._norms = [module for module in supernet.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        self._weight_gradients = Recorded(self._gradients_of_weights, new_recording, self.generators)
        self._relaxed_gradients = Recorded(self._gradients_of_relaxed, new_recording)

    def weights(self) -> Weights:
        """The supernet's weights by name, alpha not among them: the live parameters, not copies."""
        return dict(self._weights)

    def values(self, raw: Mapping[str, Tensor] | None = None) -> dict[str, Tensor | float]:
        """Every hyperparameter as it acts now, or would with ``raw``; the learning rate with its schedule's factor."""
        values = self.hyperparameters.values(raw)
        values["learning_rate"] = values["learning_rate"] * self.schedule_factor
        # Raw hyperparameters stay on the processor; every weight would send its share of the gradient there.
        return on_device(values, self._device)

    @property
    def _device(self) -> torch.device:
        return next(iter(self._weights.values())).device

    def numbers(self) -> dict[str, float]:
        """:meth:`values` outside the graph, in full precision."""
        numbers = self.hyperparameters.numbers()
        return {**numbers, "learning_rate": numbers["learning_rate"] * self.schedule_factor}

    def noise_state(self) -> list[Tensor]:
        return [generator.get_state() for generator in self.generators]

    def repeat_noise(self, state: list[Tensor]) -> None:
        """Let the next forward pass draw what was drawn after :meth:`noise_state`."""
        for generator, saved in zip(self.generators, state, strict=True):
            generator.set_state(saved)

    def training_loss(self, weights: Weights, batch: Batch, values: Values) -> Tensor:
        """``L_train(weights, alpha, h)`` with dropout and drop path at ``values``."""
        with self._without_running_averages():
            return self._training_pass(weights, batch, values)[0]

    def _training_pass(self, weights: Weights, batch: Batch, values: Values) -> tuple[Tensor, Tensor]:
        """The training loss and the logits with ``weights``, alpha possibly among them."""
        tensors, values = self._of_all_ranks(weights, values)
        with self._computing_with(tensors):
            loss, logits = self._loss_and_logits(batch, values)
        return self.ranks.average([loss])[0], logits

    def _loss_and_logits(
        self, batch: Batch, values: Values, relaxed: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """This rank's training loss with the weights that the supernet holds, and the logits."""
        self.hyperparameters.bind(self.supernet, values)
        shown = presented(batch, values, self.augmentation)
        logits = self._supernet_logits(shown.images, relaxed)
        return training_loss(logits, shown, values.get("label_smoothing", 0.0)), logits

    def validation_loss(self, weights: Weights, batch: Batch) -> tuple[Tensor, Tensor]:
        """``L_val(weights, alpha)`` without dropout and drop path, and the logits (batch, classes)."""
        tensors, _ = self._of_all_ranks(weights, {})
        loss, logits = self._validation_pass(tensors, batch)
        return self.ranks.average([loss])[0], logits

    def _validation_pass(
        self, weights: Weights, batch: Batch, relaxed: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """This rank's validation loss and the logits."""
        with without_noise(self.supernet), self._without_running_averages(), self._computing_with(weights):
            logits = self._supernet_logits(batch.images, relaxed)
        return F.cross_entropy(logits, batch.labels), logits

    def first_order(self, batch: Batch, alphas: Sequence[nn.Parameter]) -> tuple[list[Tensor], Tensor, Tensor]:
        """``grad_alpha L_val(w, alpha)`` at the weights as they are, with the loss and the logits, all detached."""
        # What lies between alpha and the mixed operations' weights is tiny, may be noisy, and cools down from step to
        # step: it stays out of the recording.
        relaxed = self.supernet.operation_weights()
        leaves = {_RELAXED + name: weight.detach().requires_grad_() for name, weight in relaxed.items()}
        loss, logits, *found = self._relaxed_gradients({"images": batch.images, "labels": batch.labels, **leaves})
        loss, *found = self.ranks.average([loss, *found])
        gradients = torch.autograd.grad(list(relaxed.values()), alphas, found, materialize_grads=True)
        return list(gradients), loss.clone(), logits.clone()

    def _gradients_of_relaxed(self, inputs: Inputs, _: Numbers) -> list[Tensor]:
        """The validation loss and the logits of ``images`` and ``labels``, and the loss's gradients with respect to the
        mixed operations' weights among the inputs."""
        weights = {name: weight.detach() for name, weight in self._weights.items()}  # nothing is kept for them
        relaxed = _named(inputs, _RELAXED)
        loss, logits = self._validation_pass(weights, Batch(inputs["images"], inputs["labels"]), relaxed)
        gradients = torch.autograd.grad(loss, list(relaxed.values()), materialize_grads=True)
        return [loss.detach(), logits.detach(), *gradients]

    def _of_all_ranks(self, weights: Weights, values: Values) -> tuple[Weights, Values]:
        """What a loss depends on, such that its gradients, and theirs in turn, are those of the joint batch.

        In a data-parallel run that makes every hypergradient's training gradient an average before ``w'`` is formed
        from it, and its validation gradient one before it meets the Hessian. In one process nothing is changed.
        """
        if self.ranks.count == 1:
            return weights, values
        alphas = {name: alpha for name, alpha in self._parameters.items() if name not in self._weights}
        learned = {f"value.{name}": value for name, value in values.items() if isinstance(value, Tensor)}
        tensors = self.ranks.with_average_gradients({**alphas, **weights, **learned})
        return (
            {name: tensors[name] for name in {**alphas, **weights}},
            {name: tensors.get(f"value.{name}", value) for name, value in values.items()},
        )

    def _supernet_logits(self, images: Tensor, relaxed: Mapping[str, Tensor] | None = None) -> Tensor:
        with self._precision():
            logits: Tensor = self.supernet(images, relaxed)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    @contextmanager
    def _computing_with(self, weights: Weights) -> Iterator[None]:
        """Within it the supernet's modules hold ``weights``, alpha possibly among them; nothing is copied."""
        for name, weight in weights.items():
            parameters, key = self._places[name]
            parameters[key] = weight  # type: ignore[assignment]
        try:
            yield
        finally:
            for name in weights:
                parameters, key = self._places[name]
                parameters[key] = self._parameters[name]

    @contextmanager
    def _without_running_averages(self) -> Iterator[None]:
        """Within it batch norms that use the batch's statistics leave the running ones alone."""
        tracking = [norm for norm in self._norms if norm.training and norm.track_running_stats]
        for norm in tracking:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm in tracking:
                norm.track_running_stats = True

    def update_direction(self, weights: Weights, gradients: Weights, values: Values, clip: bool = True) -> Weights:
        """``u`` of the weight step ``w' = w - lr * u``: clipping, weight decay and momentum, as torch.optim.SGD has it.

        Differentiable with respect to ``gradients`` and to the weight decay and momentum in ``values``.
        """
        if clip:
            gradients = self.clipped(gradients)
        momentum = self.momentum(values)
        direction = {}
        for name, weight in weights.items():
            update = gradients[name] + values["weight_decay"] * weight.detach()
            if (buffer := self.momentum_buffer(name, momentum)) is not None:
                update = update + momentum * buffer
            direction[name] = update.to(weight.dtype)
        return direction

    def clipped(self, gradients: Weights) -> Weights:
        """``gradients`` scaled down to the clip's norm, differentiably; they themselves without a clip."""
        if self.gradient_clip is None:
            return gradients
        scale = (self.gradient_clip / (global_norm(gradients) + 1e-6)).clamp(max=1.0)
        return {name: gradient * scale for name, gradient in gradients.items()}

    def momentum_buffer(self, name: str, momentum: Tensor | float) -> Tensor | None:
        """The buffer of the weight ``name``; None at the first step and without momentum."""
        used = isinstance(momentum, Tensor) or momentum > 0
        state = self.optimiser.state.get(self._weights[name], {})
        buffer: Tensor | None = state.get("momentum_buffer") if used else None
        # A learned momentum's graph keeps it, and a step changes the optimiser's own in place.
        return buffer.clone() if buffer is not None and isinstance(momentum, Tensor) else buffer

    def momentum(self, values: Values) -> Tensor | float:
        """Among the hyperparameters, or else the optimiser's own."""
        own: float = self.optimiser.param_groups[0]["momentum"]
        return values.get("momentum", own)

    def step_length(self, update: Weights) -> float:
        """``|w' - w|``."""
        rate = {group: float(value) for group, value in rates(self.numbers()).items()}
        if len(set(rate.values())) == 1:
            return rate["convolution"] * float(global_norm(update).detach())
        return float(global_norm({name: rate[group_of(entry)] * entry for name, entry in update.items()}).detach())

    def moved(self, weights: Weights, update: Weights, values: Values) -> Weights:
        """``w' = w - lr * update``, in the graph of whatever ``update`` and the learning rate depend on."""
        rate = rates(values)
        moved = {
            name: (weight.detach() - rate[group_of(weight)] * update[name]).to(weight.dtype)
            for name, weight in weights.items()
        }
        # Where nothing on the right is in a graph, w' begins one: the validation gradient is taken at it.
        return {name: weight if weight.requires_grad else weight.requires_grad_() for name, weight in moved.items()}

    def weight_step(self, batch: Batch) -> WeightStep:
        """One SGD step on ``batch``."""
        values = self.numbers()
        inputs = {"images": batch.images, "labels": batch.labels}
        inputs |= {_RELAXED + name: weight.detach() for name, weight in self.supernet.operation_weights().items()}
        numbers = {}
        for name, value in on_device(self.hyperparameters.shown(values), self._device).items():
            if isinstance(value, Tensor):
                inputs[_VALUE + name] = value
            elif self.hyperparameters.entries[name].acts_through_loss:
                numbers[name] = value
        loss, logits, *gradients = self._weight_gradients(inputs, numbers)
        parameters = list(self._weights.values())
        loss, *gradients = self.ranks.average([loss, *gradients])
        set_step(self.optimiser, values)
        norm = take_step(self.optimiser, parameters, gradients, self.gradient_clip)
        return WeightStep(loss.clone(), logits.clone(), norm)

    def _gradients_of_weights(self, inputs: Inputs, numbers: Numbers) -> list[Tensor]:
        """The training loss and the logits of ``images`` and ``labels``, and the loss's gradients with respect to the
        weights; the running statistics move.

        Args:
            numbers: The values of the hyperparameters that act through the loss and are not among the inputs.
        """
        seen: dict[str, Tensor | float] = {**_named(inputs, _VALUE), **numbers}
        batch = Batch(inputs["images"], inputs["labels"])
        loss, logits = self._loss_and_logits(batch, seen, _named(inputs, _RELAXED))
        return [loss.detach(), logits.detach(), *torch.autograd.grad(loss, list(self._weights.values()))]

    def open_step(self, batch: Batch) -> OpenStep:
        """The pass of :meth:`weight_step`; the step itself is :meth:`close_step`'s."""
        live = self.weights()
        loss, logits = self._training_pass(live | self._fixed_alphas(), batch, self.values())
        found = torch.autograd.grad(loss, list(live.values()), create_graph=True)
        return OpenStep(loss, logits, dict(zip(live, found, strict=True)))

    def close_step(self, step: OpenStep) -> WeightStep:
        gradients = [step.gradients[name].detach() for name in self._weights]
        set_step(self.optimiser, self.numbers())
        norm = take_step(self.optimiser, list(self._weights.values()), gradients, self.gradient_clip)
        return WeightStep(step.loss.detach(), step.logits.detach(), norm)

    def _fixed_alphas(self) -> Weights:
        """For a step of the weights, whose graph alpha has no part in."""
        return {name: one.detach() for name, one in self._parameters.items() if name not in self._weights}

    def recorded_step(self, batch: Batch, targets: Sequence[nn.Parameter]) -> RecordedStep:
        """:meth:`weight_step`, and how the weights that it leaves behind depend on ``targets``, raw hyperparameters."""
        values = self.values()
        # The step changes the live weights in place; the graph needs them as they were.
        before = {name: weight.detach().clone().requires_grad_() for name, weight in self._weights.items()}
        through_loss = set(self.hyperparameters.acting_through_loss())
        twice = any(target in through_loss for target in targets)
        loss, logits = self._training_pass(before | self._fixed_alphas(), batch, values)
        found = torch.autograd.grad(loss, list(before.values()), create_graph=twice)
        norm = torch.nn.utils.get_total_norm([gradient.detach() for gradient in found], foreach=True)
        gradients = self.clipped(dict(zip(before, found, strict=True)))
        update = self.update_direction(before, gradients, values, clip=False)
        moved, length = self.moved(before, update, values), self.step_length(update)
        for name, weight in self._weights.items():
            weight.grad = gradients[name].detach()
        set_step(self.optimiser, self.numbers())
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return RecordedStep(WeightStep(loss.detach(), logits.detach(), norm), moved, length)


def _named(inputs: Inputs, prefix: str) -> Weights:
    """Those of ``inputs`` whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): one for name, one in inputs.items() if name.startswith(prefix)}


def _places(module: nn.Module, names: Iterable[str]) -> dict[str, tuple[dict[str, nn.Parameter | None], str]]:
    """Per parameter the dictionary that holds it in its module, and its key there."""
    places = {}
    for name in names:
        path, _, key = name.rpartition(".")
        places[name] = (module.get_submodule(path)._parameters, key)
    return places


def global_norm(tensors: Mapping[str, Tensor]) -> Tensor:
    """The Euclidean norm of all ``tensors`` together, 0-dim, differentiable."""
    # Unlike sqrt(sum of squares), a vector norm has a derivative at zero, and a dead network is no NaN.
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors.values()]))
