"""What is added to the validation loss so that alpha stays, or becomes, of a certain kind."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from nas.bilevel.architecture_optimiser import weighs_edges
from nas.errors import require
from nas.relaxations.dirichlet import Dirichlet, concentration
from nas.relaxations.relaxation import Relaxation
from nas.relaxations.simplex import Simplex


class Regulariser(ABC):
    """``weight * value(alphas)``; its gradient is added to alpha's, whatever the hypergradient.

    A new one is one class with :meth:`value`.

    Args:
        initial, final: The weight, which goes in a straight line from the first to the second over the search.

    Raises:
        InvalidValue: A weight is not finite.
    """

    def __init__(self, initial: float, final: float) -> None:
        for key, weight in (("initial", initial), ("final", final)):
            require(math.isfinite(weight), key, weight, "it must be a finite number")
        self.initial, self.final = initial, final

    def __call__(self, alphas: Mapping[str, Tensor], relaxation: Relaxation, progress: float) -> Tensor:
        """What is added, 0-dim, in the graph of ``alphas``.

        Args:
            alphas: By name, each (..., options); those that weigh edges are left alone.
            progress: The share of the search that is done, 0 to 1.
        """
        operations = {name: alpha for name, alpha in alphas.items() if not weighs_edges(name)}
        return self.weight(progress) * self.value(operations, relaxation)

    def weight(self, progress: float) -> float:
        """What the value is multiplied by when the share ``progress`` (0 to 1) of the search is done."""
        return self.initial + (self.final - self.initial) * progress

    @abstractmethod
    def value(self, alphas: Mapping[str, Tensor], relaxation: Relaxation) -> Tensor:
        """The regulariser at weight 1, 0-dim."""

    def check(self, relaxation: Relaxation) -> None:  # noqa: B027 - most go with every relaxation
        """Refuse a relaxation for which it means nothing.

        Raises:
            InvalidValue: The key is ``relaxation``.
        """


class BetaDecay(Regulariser):
    """The mean of ``logsumexp(alpha)`` over all rows (Ye et al., 2022, "beta-DARTS", eq. 13).

    Its gradient pulls the logits of a row down in proportion to their weights, so that no weight runs away.
    """

    def __init__(self, initial: float = 0.0, final: float = 50.0) -> None:
        super().__init__(initial, final)

    def value(self, alphas: Mapping[str, Tensor], relaxation: Relaxation) -> Tensor:
        return torch.cat([alpha.logsumexp(-1).flatten() for alpha in alphas.values()]).mean()

    def check(self, relaxation: Relaxation) -> None:
        allowed = "beta decay pulls at the logits of a softmax, take softmax or gumbel_softmax"
        good = relaxation.on_simplex and not isinstance(relaxation, Dirichlet | Simplex)
        require(good, "relaxation", type(relaxation).__name__, allowed)


class ZeroOne(Regulariser):
    """``-mean((p - 1/2)^2)`` over all weights, or ``-mean(|p - 1/2|)`` (Chu et al., 2020, "Fair DARTS", section 3.3).

    The paper has the square (``l2``) at weight 10 beside ``relaxation=sigmoid``. Under a softmax it moves several
    options of a row up together.

    Args:
        norm: ``l2`` or ``l1``.
    """

    def __init__(self, initial: float = 10.0, final: float = 10.0, norm: Literal["l1", "l2"] = "l2") -> None:
        super().__init__(initial, final)
        self.norm = norm

    def value(self, alphas: Mapping[str, Tensor], relaxation: Relaxation) -> Tensor:
        weights = torch.cat([relaxation.probabilities(alpha).flatten() for alpha in alphas.values()])
        distance = weights - 0.5
        return -(distance.square() if self.norm == "l2" else distance.abs()).mean()


class DirichletKL(Regulariser):
    """The divergence of DrNAS's distributions from the uniform one, ``sum over rows of KL(Dir(c) || Dir(1))``.

    Chen et al., 2021, "DrNAS", eq. 6. Their code's default is Adam's weight decay on alpha instead.
    """

    def __init__(self, initial: float = 1e-3, final: float = 1e-3) -> None:
        super().__init__(initial, final)

    def value(self, alphas: Mapping[str, Tensor], relaxation: Relaxation) -> Tensor:
        return torch.stack([self._divergence(concentration(alpha)) for alpha in alphas.values()]).sum()

    @staticmethod
    def _divergence(parameters: Tensor) -> Tensor:
        total, options = parameters.sum(-1), parameters.shape[-1]
        towards = (parameters - 1) * (parameters.digamma() - total.digamma().unsqueeze(-1))
        rows = total.lgamma() - parameters.lgamma().sum(-1) - math.lgamma(options) + towards.sum(-1)
        return rows.sum()

    def check(self, relaxation: Relaxation) -> None:
        allowed = "dirichlet_kl measures a Dirichlet distribution, take dirichlet"
        require(isinstance(relaxation, Dirichlet), "relaxation", type(relaxation).__name__, allowed)


class Entropy(Regulariser):
    """``sum over rows of sum p log(K p)``, the divergence from equal weights of the K options of a row.

    A weight above 0 holds the weights together, one below 0 drives them apart. Li et al., 2021, "Geometry-Aware
    Gradient Algorithms for NAS", appendix C, have it at 0.01.
    """

    def __init__(self, initial: float = 0.01, final: float = 0.01) -> None:
        super().__init__(initial, final)

    def value(self, alphas: Mapping[str, Tensor], relaxation: Relaxation) -> Tensor:
        weights = [relaxation.probabilities(alpha) for alpha in alphas.values()]
        return torch.stack([(torch.xlogy(p, p) + p * math.log(p.shape[-1])).sum() for p in weights]).sum()

    def check(self, relaxation: Relaxation) -> None:
        allowed = "entropy is that of weights that add up to 1, take softmax, dirichlet or simplex"
        require(relaxation.on_simplex, "relaxation", type(relaxation).__name__, allowed)
