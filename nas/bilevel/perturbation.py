"""Perturbed operation weights in the weight step (Chen & Hsieh, 2020, "Stabilizing Differentiable Architecture Search
via Perturbation-based Regularization").

The weights are trained for all operation weights near those of alpha, so that reading off an architecture, which moves
them far, costs less. The training loss becomes ``L_train(w, p(alpha) + d)`` with ``d`` held constant: for the
adversarial ``d`` that is the gradient of the maximum (Danskin's theorem). The validation loss is not perturbed.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor

from nas.bilevel.architecture_optimiser import weighs_edges
from nas.errors import require
from nas.relaxations.relaxation import Relaxation
from nas.spaces.supernet import Supernet

Weights = dict[str, Tensor]  # of the operations, by the name of their alpha
Loss = Callable[[Mapping[str, Tensor]], Tensor]


class Perturbation(ABC):
    """From operation weights to the ones with which the weights are trained. A new one is a class with two methods.

    Args:
        initial, final: The largest change of a weight, which goes in a straight line from the first to the second over
            the search.

    Attributes:
        generator: The source of its noise; the run sets it before the first use.
        passes: Passes over the training batch that it takes.

    Raises:
        InvalidValue: A change is not a number above 0.
    """

    generator: Generator | None = None
    passes: int = 0

    def __init__(self, initial: float = 0.03, final: float = 0.3) -> None:
        for key, radius in (("initial", initial), ("final", final)):
            require(0 < radius < math.inf, key, radius, "it must be a number above 0")
        self.initial, self.final = initial, final

    def radius(self, progress: float) -> float:
        """The largest change when the share ``progress`` (0 to 1) of the search is done."""
        return self.initial + (self.final - self.initial) * progress

    @abstractmethod
    def __call__(self, weights: Mapping[str, Tensor], loss: Loss, progress: float) -> Weights:
        """``weights`` (each (..., options), detached), perturbed, on the simplex.

        Args:
            loss: The training loss, 0-dim, as a function of the operation weights: without noise, and with batch norm's
                running statistics.
        """

    def check(self, relaxation: Relaxation) -> None:
        """Refuse a relaxation whose weights it cannot perturb.

        Raises:
            InvalidValue: The key is ``relaxation``.
        """
        allowed = "perturbed weights are brought back to the simplex, which those of this relaxation are not on"
        require(relaxation.on_simplex, "relaxation", type(relaxation).__name__, allowed)
        allowed = "a perturbed edge is a mixture, and with relaxation.sampled=true one operation is run alone"
        require(not relaxation.sampled, "relaxation", type(relaxation).__name__, allowed)

    def noise(self, weights: Mapping[str, Tensor], radius: float) -> Weights:
        """Uniform from ``-radius`` to ``radius``."""
        return {name: self._uniform(weight) * (2 * radius) - radius for name, weight in weights.items()}

    def _uniform(self, like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=self.generator, device=like.device, dtype=like.dtype)


class RandomPerturbation(Perturbation):
    """SDARTS-RS: uniform noise."""

    def __call__(self, weights: Mapping[str, Tensor], loss: Loss, progress: float) -> Weights:
        noise = self.noise(weights, self.radius(progress))
        return {name: projected(weight + noise[name]) for name, weight in weights.items()}


class AdversarialPerturbation(Perturbation):
    """SDARTS-ADV: steps along the sign of the gradient, up the training loss, within the radius around the weights.

    A perturbation that has lowered the loss is dropped.

    Args:
        steps: How many, each of length ``2 * radius / steps``.
        random_start: Whether they begin from :class:`RandomPerturbation`.
    """

    def __init__(self, initial: float = 0.03, final: float = 0.3, steps: int = 7, random_start: bool = True) -> None:
        super().__init__(initial, final)
        require(steps >= 1, "steps", steps, "it must be at least 1")
        self.steps, self.random_start = steps, random_start
        self.passes = steps + (2 if random_start else 1)  # with the losses before and after

    def __call__(self, weights: Mapping[str, Tensor], loss: Loss, progress: float) -> Weights:
        radius = self.radius(progress)
        now = dict(weights)
        before = None
        if self.random_start:
            with torch.no_grad():
                before = loss(weights)
            noise = self.noise(weights, radius)
            now = {name: projected(weight + noise[name]) for name, weight in weights.items()}
        for _ in range(self.steps):
            leaves = {name: weight.detach().requires_grad_() for name, weight in now.items()}
            found = loss(leaves)
            before = found.detach() if before is None else before
            slopes = torch.autograd.grad(found, list(leaves.values()), materialize_grads=True)
            for (name, weight), slope in zip(weights.items(), slopes, strict=True):
                moved = now[name] + (2 * radius / self.steps) * slope.sign()
                now[name] = projected(weight + (moved - weight).clamp(-radius, radius))
        with torch.no_grad():
            after = loss(now)
        assert before is not None
        # On the device: no number has to be waited for.
        return {name: torch.where(before > after, weight, now[name]) for name, weight in weights.items()}


class HeldPerturbation:
    """What a perturbation adds to the operation weights: found once per weight step, and held constant during it.

    So all training losses that a hypergradient takes for one step see the same. The weights of edges are left alone,
    and options that have been taken away stay so.

    Args:
        perturbation: None adds nothing.
    """

    def __init__(self, perturbation: Perturbation | None, supernet: Supernet) -> None:
        self.perturbation, self._supernet = perturbation, supernet
        self._held: Weights | None = None
        self._passes = 0

    @property
    def most_passes(self) -> int:
        """Passes over the training batch each time that it is found."""
        return 0 if self.perturbation is None else self.perturbation.passes

    def forget(self) -> None:
        """A new weight step begins, or one has been taken."""
        self._held = None

    def added_to(self, relaxed: Weights, loss: Loss, progress: float) -> Weights:
        """``relaxed + d`` with ``d`` held constant; ``loss`` and ``progress`` as for :class:`Perturbation`."""
        if self.perturbation is None:
            return relaxed
        if self._held is None:
            every = {name: weight.detach() for name, weight in relaxed.items()}
            fixed = {name: every[name] for name in self._supernet.alpha if not weighs_edges(name)}
            moved = self.perturbation(fixed, lambda weights: loss(every | self._kept(weights)), progress)
            self._held = {name: weight - fixed[name] for name, weight in self._kept(moved).items()}
            self._passes += self.perturbation.passes
        return relaxed | {name: relaxed[name] + added for name, added in self._held.items()}

    def _kept(self, weights: Mapping[str, Tensor]) -> Weights:
        return {name: self._supernet.masked(name, weight) for name, weight in weights.items()}

    def pop_passes(self) -> int:
        """The passes over the training batch that were taken since this was last called."""
        passes, self._passes = self._passes, 0
        return passes


def projected(weights: Tensor) -> Tensor:
    """Rows (..., options) cut to 0 and 1 and divided by their sums; one that is all 0 then gets a 1 at its largest."""
    cut = weights.clamp(0, 1)
    largest = torch.zeros_like(cut).scatter_(-1, weights.argmax(-1, keepdim=True), 1.0)
    cut = torch.where(cut.sum(-1, keepdim=True) > 0, cut, largest)
    return cut / cut.sum(-1, keepdim=True)
