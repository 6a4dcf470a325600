"""The gradient of alpha under Gumbel noise, for the attributes of layers: it sees the loss on the way to the options.

The validation loss bends between the options of a width or a kernel: the first fifth of a width's weight brings most of
what the width is worth, so that the derivative at alpha is flat, or points the other way. The loss that is expected
under noise has the slope of the whole way. Which layer stands at a place is left to the derivative at alpha, which is
right about it where noise is not. Measured in ``scripts/results/truth.md``.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from nas.bilevel.hypergradient import Hypergradient, Report
from nas.bilevel.last_step import LastStep
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.errors import require
from nas.hyperparameters.kinds import Kind
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Relaxation, Temperature
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Supernet


@dataclass(frozen=True)
class Smoothed(Hypergradient):
    """:class:`LastStep`, but for the alphas of attributes: ``grad_alpha L_val(w', softmax(log p(alpha) + g))``.

    ``g`` is Gumbel noise in all attributes at once, drawn by the relaxation's generator at every call, and 0 elsewhere.
    It takes a second pass over the validation batch where alpha is asked for.
    """

    looks_back: ClassVar[bool] = True
    needs_graph: ClassVar[Literal["never", "asked", "always"]] = "asked"

    def check(self, space: SearchSpace, relaxation: Relaxation) -> None:
        allowed = f"it smooths choices of a layer's attributes, and space={space.name} has none: take first_order"
        require(bool(space.attributes()), "hypergradient", type(self).__name__, allowed)
        mixes = relaxation.on_simplex and not relaxation.sampled
        allowed = "hypergradient=smoothed adds noise to weights that mix and add up to 1: take softmax"
        require(mixes, "relaxation", type(relaxation).__name__, allowed)

    def differentiates_twice(self, kinds: Collection[Kind]) -> bool:
        return LastStep().differentiates_twice(kinds)

    def gradients(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> Report:
        smoothed = self._smoothed(problem.supernet)
        alphas = [problem.supernet.alpha[name] for name in smoothed]
        if set(alphas).isdisjoint(targets):
            return LastStep().gradients(problem, training, validation, targets)
        relaxed = problem.supernet.mean_weights() | smoothed
        leaves = {name: weight.detach().requires_grad_() for name, weight in relaxed.items()}
        _, _, at_leaves = problem.operation_gradients(validation, leaves)
        slopes = torch.autograd.grad(list(relaxed.values()), alphas, at_leaves)
        found = dict(zip(alphas, slopes, strict=True))
        # Last: a replayed CUDA graph overwrites what it has given, and these gradients may be a part of it.
        report = LastStep().gradients(problem, training, validation, targets)
        gradients = [found.get(target, plain) for target, plain in zip(targets, report.gradients, strict=True)]
        return replace(report, gradients=gradients, passes=(report.passes[0], report.passes[1] + 1))

    @staticmethod
    def _smoothed(supernet: Supernet) -> dict[str, Tensor]:
        """The weights of all attributes under noise, by the name of their alpha, whose graph they are in."""
        noise, attributes = GumbelSoftmax(Temperature()), supernet.space.attributes()
        noise.generator = supernet.relaxation.generator
        return {
            name: supernet.masked(name, noise(mean.clamp_min(torch.finfo(mean.dtype).tiny).log()))
            for name, mean in supernet.mean_weights().items()
            if all(row in attributes for row, _ in supernet.alpha_rows(name))
        }
