"""The bilevel problem as the hypergradients see it: losses as functions of given weights, and the weight step.

``min over (alpha, h) of L_val(w*(alpha, h), alpha)`` where ``w*(alpha, h)`` minimises ``L_train(w, alpha, h)`` over w.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from nas.bilevel.hyperparameters import HyperparameterSet
from nas.data.dataset import Batch
from nas.spaces.supernet import Supernet
from nas.training.regularisers import without_noise

Weights = dict[str, Tensor]
Values = Mapping[str, Tensor | float]


class BilevelProblem:
    """A supernet, its weight optimiser and its hyperparameters.

    Args:
        supernet: In training mode while losses are taken, as DARTS has it: batch norm uses the batch's statistics.
        optimiser: SGD over the supernet's weights, with or without momentum; a hypergradient reads its momentum and its
            buffers and changes neither.
        hyperparameters: Learning rate and weight decay of the weight step, and what acts through the training loss.
        gradient_clip: Largest norm of the weights' gradient in the weight step, or None.
        generators: Every source of noise in a forward pass (dropout, relaxation).
    """

    def __init__(
        self,
        supernet: Supernet,
        optimiser: torch.optim.SGD,
        hyperparameters: HyperparameterSet,
        gradient_clip: float | None = None,
        generators: tuple[torch.Generator, ...] = (),
    ) -> None:
        for group in optimiser.param_groups:
            if group["dampening"] or group["nesterov"] or group["maximize"]:
                raise ValueError("the unrolled step is that of plain momentum: no dampening, Nesterov or maximisation")
        self.supernet, self.optimiser, self.hyperparameters = supernet, optimiser, hyperparameters
        self.gradient_clip, self.generators = gradient_clip, generators
        self.schedule_factor = 1.0

    def weights(self) -> Weights:
        """The supernet's weights by name, alpha not among them: the live parameters, not copies."""
        return dict(self.supernet.named_weight_parameters())

    def values(self) -> dict[str, Tensor | float]:
        """Every hyperparameter as it acts now; the learning rate with its schedule's factor."""
        values = self.hyperparameters.values()
        values["learning_rate"] = values["learning_rate"] * self.schedule_factor
        return values

    def noise_state(self) -> list[Tensor]:
        return [generator.get_state() for generator in self.generators]

    def repeat_noise(self, state: list[Tensor]) -> None:
        """Let the next forward pass draw what was drawn after :meth:`noise_state`."""
        for generator, saved in zip(self.generators, state, strict=True):
            generator.set_state(saved)

    def training_loss(self, weights: Weights, batch: Batch, values: Values) -> Tensor:
        """``L_train(weights, alpha, h)`` with dropout and drop path at ``values``."""
        self.hyperparameters.bind(self.supernet, values)
        return F.cross_entropy(self._logits(weights, batch), batch.labels)

    def validation_loss(self, weights: Weights, batch: Batch) -> tuple[Tensor, Tensor]:
        """``L_val(weights, alpha)`` without dropout and drop path, and the logits (batch, classes)."""
        with without_noise(self.supernet):
            logits = self._logits(weights, batch)
        return F.cross_entropy(logits, batch.labels), logits

    def _logits(self, weights: Weights, batch: Batch) -> Tensor:
        # Batch norm writes its running statistics in place: give it copies, so that the supernet's own stay.
        buffers = {name: buffer.clone() for name, buffer in self.supernet.named_buffers()}
        logits = functional_call(self.supernet, {**weights, **buffers}, (batch.images,))
        assert isinstance(logits, Tensor)
        return logits

    def update_direction(self, weights: Weights, gradients: Weights, values: Values, clip: bool = True) -> Weights:
        """``u`` of the weight step ``w' = w - lr * u``: clipping, weight decay and momentum, as torch.optim.SGD has it.

        Differentiable with respect to ``gradients`` and to the weight decay in ``values``.
        """
        if clip and self.gradient_clip is not None:
            norm = global_norm(gradients)
            scale = (self.gradient_clip / (norm + 1e-6)).clamp(max=1.0)
            gradients = {name: gradient * scale for name, gradient in gradients.items()}
        momentum = self.optimiser.param_groups[0]["momentum"]
        direction = {}
        for name, weight in weights.items():
            update = gradients[name] + values["weight_decay"] * weight.detach()
            buffer = self.optimiser.state.get(weight, {}).get("momentum_buffer")
            if momentum and buffer is not None:
                update = update + momentum * buffer
            direction[name] = update.to(weight.dtype)
        return direction

    def moved(self, weights: Weights, update: Weights, values: Values) -> Weights:
        """``w' = w - lr * update``, in the graph of whatever ``update`` and the learning rate depend on."""
        rate = values["learning_rate"]
        moved = {name: (weight.detach() - rate * update[name]).to(weight.dtype) for name, weight in weights.items()}
        # Where nothing on the right is in a graph, w' begins one: the validation gradient is taken at it.
        return {name: weight if weight.requires_grad else weight.requires_grad_() for name, weight in moved.items()}

    def weight_step(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """One SGD step on ``batch``. Returns the loss, the logits and the gradient's norm before clipping, detached."""
        with torch.no_grad():
            values = {name: float(value) for name, value in self.values().items()}
        # A learned rate keeps its relaxed mask here: the hypergradient differentiates what the weights really see.
        shown = {
            name: torch.tensor(value, dtype=torch.float64) if entry.learn and entry.acts_through_loss else value
            for (name, value), entry in zip(values.items(), self.hyperparameters.entries.values(), strict=True)
        }
        self.hyperparameters.bind(self.supernet, shown)
        logits = self.supernet(batch.images)
        loss = F.cross_entropy(logits, batch.labels)
        parameters = self.supernet.weight_parameters()
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.gradient_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.gradient_clip, norm)
        for group in self.optimiser.param_groups:
            group["lr"], group["weight_decay"] = values["learning_rate"], values["weight_decay"]
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return loss.detach(), logits.detach(), norm


def global_norm(tensors: Mapping[str, Tensor]) -> Tensor:
    """The Euclidean norm of all ``tensors`` together, 0-dim, differentiable."""
    # Unlike sqrt(sum of squares), a vector norm has a derivative at zero, and a dead network is no NaN.
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors.values()]))


def as_number(value: Tensor | float) -> float:
    """A hyperparameter's value outside the graph, in full precision."""
    return float(value.detach()) if isinstance(value, Tensor) else value
