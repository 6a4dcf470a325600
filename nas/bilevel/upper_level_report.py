"""What a hypergradient tells about its step."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True)
class UpperLevelReport:
    """What an upper-level step saw on its way.

    Attributes:
        validation_loss: Mean cross-entropy of the validation batch, noise off, 0-dim.
        validation_logits: (batch, classes), detached.
        training_loss: Of the training batch at the present weights, where the strategy computed it.
        validation_gradient_norm: ``|grad_w' L_val(w')|``, where computed.
        step_length: ``lr * |u|`` of the unrolled weight step, where there is one.
        sensitivity: ``|dw / draw|`` of a target, where it is not the step's length.
        passes: Forward-backward passes spent on the training and on the validation batch.
    """

    validation_loss: Tensor
    validation_logits: Tensor
    training_loss: Tensor | None = None
    validation_gradient_norm: float = 0.0
    step_length: float = 0.0
    sensitivity: Mapping[nn.Parameter, float] = field(default_factory=dict)
    passes: tuple[int, int] = (0, 1)
