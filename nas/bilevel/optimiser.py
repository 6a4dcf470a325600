"""One step of both levels, Algorithm 1 of DARTS (Liu et al., 2019): the upper one's, and the weight step."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nas.bilevel.architecture_optimiser import ArchitectureOptimiser
from nas.bilevel.hypergradient import Hypergradient
from nas.bilevel.outcome import Outcome, UpperStep, by_target
from nas.bilevel.problem import BilevelProblem
from nas.bilevel.regulariser import Regulariser
from nas.bilevel.step import WeightStep
from nas.data.batches import Batch
from nas.hyperparameters.collection import HyperparameterOptimiser, Intervention

Penalty = Callable[[Mapping[str, Tensor]], Tensor | None]
Requests = list[tuple[Hypergradient, list[nn.Parameter]]]  # which hypergradient is asked, for the gradients of what


class BilevelOptimiser:
    """Moves alpha and the raw hyperparameters along their hypergradients, and the weights along their gradient.

    Args:
        problem: The two losses, and the weights with their optimiser.
        architecture_gradient: How alpha gets its gradient; None leaves alpha as it is.
        hyperparameter_gradient: The same for the learned hyperparameters.
        architecture_optimiser: How alpha moves along its gradient.
        penalty: A function of alpha's probabilities that is added to the validation loss where it is not None.
        regulariser: A function of alpha that is added as well.
    """

    def __init__(
        self,
        problem: BilevelProblem,
        architecture_gradient: Hypergradient | None,
        hyperparameter_gradient: Hypergradient | None,
        architecture_optimiser: ArchitectureOptimiser,
        penalty: Penalty | None = None,
        regulariser: Regulariser | None = None,
    ) -> None:
        self.problem, self.penalty, self.regulariser = problem, penalty, regulariser
        self.alpha = problem.supernet.architecture_parameters()
        self.hyperparameters = problem.hyperparameters
        self.architecture_gradient = architecture_gradient if self.alpha else None
        self.hyperparameter_gradient = hyperparameter_gradient if self.hyperparameters.learned() else None
        both = self.architecture_gradient, self.hyperparameter_gradient
        self.hypergradients = [one for one in both if one is not None]
        self.looks_back = any(one.looks_back for one in self.hypergradients)
        self.alpha_optimiser = architecture_optimiser.over(dict(problem.supernet.alpha.items())) if self.alpha else None
        self.hyperparameter_optimiser = HyperparameterOptimiser(self.hyperparameters)

    def requests(self, architecture: bool, hyperparameters: bool) -> Requests:
        """The hypergradients that a step asks, each with its targets; that of the hyperparameters is the last one.

        Args:
            architecture: Whether alpha moves in this step.
            hyperparameters: Whether the learned hyperparameters do.
        """
        raw = self.hyperparameters.raw_parameters()
        of_alpha = self.architecture_gradient if architecture else None
        of_raw = self.hyperparameter_gradient if hyperparameters else None
        if of_raw is not None and of_alpha is not None and of_raw.serves(of_alpha):
            return [(of_raw, [*self.alpha, *raw])]  # one set of passes for both
        requests: Requests = [] if of_alpha is None else [(of_alpha, self.alpha)]
        return requests if of_raw is None else [*requests, (of_raw, raw)]

    def step(self, training: Batch, validation: Batch | None, requests: Requests) -> Outcome:
        """One step of both levels: alpha and h, then w, as in Algorithm 1; w first where a hypergradient looks back.

        Args:
            validation: None where ``requests`` is empty.
        """
        upper_step: UpperStep | None = None
        if self.looks_back:
            weight_step, further = self.weight_step(training, requests)
        if validation is not None:
            upper_step = self.upper_step(training, validation, requests)
        if not self.looks_back:
            weight_step, further = self.weight_step(training, requests)
        self.problem.last_step = None  # its graph holds a whole pass
        passes = 1 + further + self.problem.held_perturbation.pop_passes()
        samples = len(training.targets) * passes + (0 if upper_step is None else upper_step.samples)
        return Outcome(weight_step, upper_step, samples)

    def weight_step(self, training: Batch, requests: Requests) -> tuple[WeightStep, int]:
        """Take the weight step, with its graph where the hyperparameters' hypergradient needs that.

        Returns:
            The step, and the passes over the training batch that the hypergradient took beside it.
        """
        hypergradient, kinds = self.hyperparameter_gradient, self.hyperparameters.learned_kinds()
        if hypergradient is None:
            return self.problem.step(training), 0
        raw = self.hyperparameters.raw_parameters()
        asked = any(raw[0] in set(targets) for _, targets in requests)  # all of them at once or not at all
        keep = hypergradient.needs_graph == "always" or (hypergradient.needs_graph == "asked" and asked)
        step = self.problem.step(training, keep, keep and hypergradient.differentiates_twice(kinds))
        return step, hypergradient.after_weight_step(self.problem, step, raw)

    def upper_step(self, training: Batch, validation: Batch, requests: Requests) -> UpperStep:
        """Take every gradient of ``requests`` (not empty) at the same alpha and h, then move them."""
        samples = 0
        for hypergradient, targets in requests:
            report = hypergradient.gradients(self.problem, training, validation, targets)
            for target, gradient in by_target(report, targets):
                target.grad = gradient
            samples += report.passes[0] * len(training.targets) + report.passes[1] * len(validation.targets)
            if self.alpha and self.alpha[0] in set(targets):  # alphas are asked for all at once or not at all
                self._add_penalty()
        norms = self._move_architecture()
        # Where hyperparameters have gradients, the report is that of their hypergradient, the last one.
        products = {raw: report.norm_product(raw) for raw in self.hyperparameters.raw_parameters()}
        of_hyperparameters, interventions = self.hyperparameter_optimiser.step(products)
        norms |= of_hyperparameters
        not_finite = [name for name, norm in norms.items() if not math.isfinite(norm)]
        interventions += [Intervention("gradient_not_finite", name) for name in not_finite]
        finite = {name: norm for name, norm in norms.items() if name not in not_finite}
        return UpperStep(report, samples, finite, tuple(interventions))

    def expected_penalty(self) -> Tensor | None:
        """The penalty of the present alpha, 0-dim, in its graph."""
        return None if self.penalty is None or not self.alpha else self.penalty(self.problem.supernet.mean_weights())

    def _add_penalty(self) -> None:
        """Add the gradients of penalty and regulariser to alpha's."""
        supernet, penalty = self.problem.supernet, self.expected_penalty()
        penalties = [] if penalty is None else [penalty]
        if self.regulariser is not None:
            alphas = dict(supernet.alpha.items())
            penalties.append(self.regulariser(alphas, supernet.relaxation, self.problem.progress))
        if not penalties:
            return
        gradients = torch.autograd.grad(penalties, self.alpha, materialize_grads=True)
        for alpha, gradient in zip(self.alpha, gradients, strict=True):
            alpha.grad = gradient if alpha.grad is None else alpha.grad + gradient

    def most_passes(self) -> int:
        """Forward-backward passes over a batch that a step takes at most."""
        targets = len(self.hyperparameters.raw_parameters())
        own = sum(one.most_passes(targets) for one in self.hypergradients)
        # A perturbation is found at most in every hypergradient's step ahead, and in the weight step.
        return own + self.problem.held_perturbation.most_passes * (len(self.hypergradients) + 1)

    def _move_architecture(self) -> dict[str, float]:
        gradients = [alpha.grad for alpha in self.alpha if alpha.grad is not None]
        if not gradients or self.alpha_optimiser is None:
            return {}
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if math.isfinite(norm):
            self.alpha_optimiser.step()
        self.alpha_optimiser.zero_grad(set_to_none=True)
        return {"architecture": norm}

    def forget_weights(self) -> None:
        """The weights have started again: what hypergradients remembered of them is no longer true."""
        for hypergradient in self.hypergradients:
            hypergradient.forget()

    def forget(self) -> None:
        """Drop the optimiser's memory of alpha, after alpha was set back."""
        if self.alpha_optimiser is not None:
            self.alpha_optimiser.state.clear()

    def state_dict(self) -> dict[str, Any]:
        return {
            "architecture": self.alpha_optimiser.state_dict() if self.alpha_optimiser else {},
            "hyperparameters": self.hyperparameter_optimiser.state_dict(),
            "strategies": [one.state_dict() for one in self.hypergradients],  # as checkpoints have called them
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for hypergradient, own in zip(self.hypergradients, state["strategies"], strict=True):
            hypergradient.load_state_dict(own)
        if self.alpha_optimiser is not None:
            self.alpha_optimiser.load_state_dict(state["architecture"])
        self.hyperparameter_optimiser.load_state_dict(state["hyperparameters"])
