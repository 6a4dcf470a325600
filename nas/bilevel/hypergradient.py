"""The seam of every hypergradient: what it must compute, and what else it may say of itself."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from nas.bilevel.problem import BilevelProblem
from nas.bilevel.step import WeightStep
from nas.data.batches import Batch
from nas.hyperparameters.kinds import Kind
from nas.operations.memory import Outputs
from nas.relaxations.relaxation import Relaxation
from nas.spaces.space import SearchSpace


@dataclass(frozen=True)
class Report:
    """What a hypergradient found on its way.

    Attributes:
        gradients: Those of the validation loss, one per target and shaped like it.
        validation_loss: Mean loss of the validation batch, noise off, 0-dim.
        validation_logits: (batch, classes), detached; with all that a memory gives, where the network has one.
        training_loss: The training batch's loss at the present weights, where the hypergradient computed it.
        validation_gradient_norm: ``|grad_w' L_val(w')|``, where computed.
        step_length: ``|w' - w|`` of the weight step that was differentiated, where there is one.
        sensitivity: ``|dw / draw|`` of a target, where it is not the step's length.
        passes: Forward-backward passes spent on the training and on the validation batch.
    """

    gradients: Sequence[Tensor]
    validation_loss: Tensor
    validation_logits: Outputs
    training_loss: Tensor | None = None
    validation_gradient_norm: float = 0.0
    step_length: float = 0.0
    sensitivity: Mapping[nn.Parameter, float] = field(default_factory=dict)
    passes: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        if any(gradient is None for gradient in self.gradients):  # alpha would never move, and nothing would say so
            raise TypeError("Report.gradients has a None: without a gradient a target gets zeros (materialize_grads)")

    def norm_product(self, target: nn.Parameter) -> float:
        """``|dw / draw| * |grad L_val|``, by which a hyperparameter's gradient is divided to be a cosine."""
        return self.sensitivity.get(target, self.step_length) * self.validation_gradient_norm


class Hypergradient(ABC):
    """How alpha, or the raw hyperparameters, get the gradient of the validation loss.

    A new one is a class with :meth:`gradients`; everything else here has a default. One without a state is a frozen
    dataclass: two that are equal share their passes.

    Attributes:
        reaches: What it can give a gradient to.
        looks_back: Whether it differentiates the weight step that has just been taken (``problem.last_step``): the
            weights then move before it is asked. Otherwise it is asked before the weight step.
        takes_basis: Whether a hyperparameter may be a mixture of a basis, with several raw parameters.
        needs_graph: The weight steps whose graph it needs: ``never``; ``asked``, those of the steps in which it is
            asked for the hyperparameters; ``always``.
        of_sgd: Whether it is derived for the step of SGD alone.
    """

    reaches: ClassVar[frozenset[Kind]] = frozenset({"architecture", "loss", "decay", "update"})
    looks_back: ClassVar[bool] = False
    takes_basis: ClassVar[bool] = True
    needs_graph: ClassVar[Literal["never", "asked", "always"]] = "never"
    of_sgd: ClassVar[bool] = False

    def suited_to(self, architecture: "Hypergradient | None") -> "Hypergradient":
        """What moves the hyperparameters where alpha has ``architecture``: this one, unless a subclass says another."""
        return self

    def check(self, space: SearchSpace, relaxation: Relaxation) -> None:  # noqa: B027 - most suit all
        """Raise ``InvalidValue`` where it gives the alphas of ``space`` no gradient."""

    @abstractmethod
    def gradients(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> Report:
        """The gradients of ``L_val`` with respect to ``targets``, alphas and raw hyperparameters.

        Weights, buffers (batch norm's running averages included) and optimiser state stay bit for bit as they were.
        """

    def most_passes(self, targets: int) -> int:
        """Forward-backward passes over a batch that a step with so many targets takes at most."""
        return 2

    def differentiates_twice(self, kinds: Collection[Kind]) -> bool:
        """Whether targets of these kinds take second derivatives of the network."""
        return True

    def serves(self, other: "Hypergradient") -> bool:
        """Whether alpha gets from its passes what ``other`` would give it."""
        return self == other

    def after_weight_step(self, problem: BilevelProblem, step: WeightStep, targets: Sequence[nn.Parameter]) -> int:
        """See the weight step that was just taken, with its graph where :attr:`needs_graph` says so.

        Args:
            targets: What :meth:`gradients` will be asked for.

        Returns:
            Forward-backward passes over the training batch that were spent beside the step's own.
        """
        return 0

    def forget(self) -> None:  # noqa: B027 - one without a memory has nothing to forget
        """The weights have started again: what was remembered of them is no longer true."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - as above
        pass
