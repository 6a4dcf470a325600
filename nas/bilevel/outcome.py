"""What one step of both levels returns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from nas.bilevel.hypergradient import Report
from nas.bilevel.step import WeightStep
from nas.errors import RunFailed
from nas.hyperparameters.collection import Intervention


@dataclass(frozen=True)
class UpperStep:
    """A step of the upper level.

    Attributes:
        report: What the last hypergradient asked found.
        samples: Images that went forward and backward for it, each pass counted.
        gradient_norms: The size of alpha's gradient and of every hyperparameter's; what is not finite is left out.
        interventions: What had to be held back.
    """

    report: Report
    samples: int
    gradient_norms: dict[str, float]
    interventions: tuple[Intervention, ...]


@dataclass(frozen=True)
class Outcome:
    """A step of both levels.

    Attributes:
        weight_step: That of the weights.
        upper_step: That of alpha and the hyperparameters; None where neither was asked for.
        samples: Images that went forward and backward for both.
    """

    weight_step: WeightStep
    upper_step: UpperStep | None
    samples: int


def by_target(report: Report, targets: Sequence[nn.Parameter]) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Each of ``targets`` with its gradient.

    Raises:
        RunFailed: There are more of one than of the other, or a gradient is of another shape or type.
    """
    given, wanted = ([(tuple(one.shape), one.dtype) for one in some] for some in (report.gradients, targets))
    if given != wanted:
        raise RunFailed(f"A hypergradient gives gradients of {given}, and what they are of has {wanted}.")
    return zip(targets, report.gradients, strict=True)
