"""What one step of both levels returns."""

from dataclasses import dataclass

from nas.bilevel.hypergradient import Report
from nas.bilevel.step import WeightStep
from nas.hyperparameters.collection import Intervention


@dataclass(frozen=True)
class UpperStep:
    """A step of the upper level.

    Attributes:
        report: What the last strategy asked found.
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
