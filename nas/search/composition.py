"""Which parts go together: what does not is refused before a search begins, in one sentence that says why."""

import torch
from torch import Tensor

from nas.bilevel.reach import check_reach
from nas.errors import InvalidValue, keys_below, require
from nas.relaxations.relaxation import Relaxation
from nas.search.parts import SearchParts


def check_composition(parts: SearchParts) -> None:
    """Let every part look at those that it depends on.

    Raises:
        InvalidValue: Two of them do not go together.
    """
    _check_optimiser(parts)
    check_reach(parts.architecture_gradient, parts.hyperparameter_gradient, parts.hyperparameters)
    parts.search.architecture.check(parts.relaxation)
    if parts.architecture_gradient is not None:
        parts.architecture_gradient.check(parts.space, parts.relaxation)
    _check_relaxation(parts)
    _check_shrinking(parts)
    _check_discretisation(parts)
    _check_stopping(parts)
    for part in (parts.regulariser, parts.perturbation):
        if part is not None:
            part.check(parts.relaxation)


def _check_optimiser(parts: SearchParts) -> None:
    learned = parts.hyperparameter_gradient if parts.hyperparameters.learned() else None
    named = {"hypergradient": parts.architecture_gradient, "hyperparameters.gradient": learned}
    for key, strategy in named.items():
        good = parts.training.optimiser == "sgd" or strategy is None or not strategy.of_sgd
        allowed = "it is derived for SGD: beside training.optimiser=adamw take first_order, last_step or exact"
        require(good, key, type(strategy).__name__, allowed)


def _check_relaxation(parts: SearchParts) -> None:
    relaxation, training = parts.relaxation, parts.training
    _check_weights(relaxation, parts.architecture_gradient is not None, parts.randomness.device)
    if not relaxation.on_simplex and parts.objective is not None:
        costs = ", ".join(sorted(parts.objective.penalty.shares))
        why = f"a mean cost needs weights that add up to 1, and those of {type(relaxation).__name__} do not"
        require(not costs, "objective.costs", costs, why)
    if relaxation.sampled:
        why = "a sampled relaxation computes other operations at every step: set it to false, or sample nothing"
        require(not training.cuda_graphs, "training.cuda_graphs", True, why)
        require(not training.compile, "training.compile", True, why)
        why = "under torchrun every process would need a gradient of every weight: take the dense gradient"
        require(parts.randomness.ranks.count == 1, "relaxation.sampled", True, why)


def _check_weights(relaxation: Relaxation, moves: bool, device: torch.device) -> None:
    """Refuse a relaxation, of the user's own say, whose weights are not those of alpha's options.

    Args:
        moves: Whether a gradient is to move alpha.
        device: The run's: the relaxation may have tensors there.
    """
    name, alpha = type(relaxation).__name__, _equal_options(device).requires_grad_()
    drawn, _ = _two_samples(relaxation, alpha)
    for what, weights in (("a call", drawn), ("probabilities", relaxation.probabilities(alpha))):
        shape = tuple(weights.shape)
        why = f"{what} gives weights of shape {shape} for an alpha of shape (2, 3), it must be a weight per option"
        require(shape == (2, 3), "relaxation", name, why)
        rows = [[round(one, 4) for one in row] for row in weights.tolist()]
        finite = bool(weights.isfinite().all())
        require(finite, "relaxation", name, f"{what} gives {rows} for equal options, which are not finite")
        summed = not relaxation.on_simplex or bool(((weights.sum(-1) - 1).abs() < 1e-3).all())
        why = f"{what} gives {rows} for equal options: each row must add up to 1, or on_simplex be False"
        require(summed, "relaxation", name, why)
    why = "its weights have no gradient in alpha, which would never move: set hypergradient=none if alpha is to stay"
    require(drawn.requires_grad or not moves, "relaxation", name, why)


def _check_discretisation(parts: SearchParts) -> None:
    criterion = getattr(parts.discretisation, "criterion", "loss")
    allowed = f"task={parts.task.name} has none, take loss"
    require(criterion in ("loss", parts.task.glanced), "discretisation.criterion", criterion, allowed)


def _check_stopping(parts: SearchParts) -> None:
    rule = parts.stopping
    if rule is None:
        return
    with keys_below("stopping"):
        rule.check(parts.space)
    name = type(rule).__name__
    if rule.differentiates_twice and _draws(parts.relaxation, parts.randomness.device):
        why = f"{type(parts.relaxation).__name__} draws its weights: the loss that the search sees has no one curvature"
        raise InvalidValue("stopping", name, f"{why}, take relaxation=softmax")
    if rule.goes_back and parts.discretisation.images(parts.space, 1):
        why = f"{name} may go back to an old alpha, which the last weights were not trained with"
        asked = type(parts.discretisation).__name__
        raise InvalidValue("discretisation", asked, f"{why}: they cannot be asked what an option is worth")


def _check_shrinking(parts: SearchParts) -> None:
    if parts.shrinking is not None:
        with keys_below("shrinking"):
            parts.shrinking.check(parts.space, parts.search.epochs)
    tunes = parts.discretisation.tuning_epochs(parts.space) > 0
    if parts.shrinking is None and not tunes:
        return
    key, name = ("discretisation.tuning", True) if tunes else ("shrinking", type(parts.shrinking).__name__)
    weights, _ = _two_samples(parts.relaxation, _equal_options(parts.randomness.device))
    if bool(((weights == 0) | (weights == 1)).all()):
        why = "with one option per sample, that option may be one that was taken away: take a relaxation that mixes"
        raise InvalidValue(key, name, why)
    if tunes and not parts.relaxation.on_simplex:
        raise InvalidValue(key, name, "what is decided needs a weight of 1, which this relaxation cannot give")


def _draws(relaxation: Relaxation, device: torch.device) -> bool:
    """Whether two calls may give two results."""
    one, other = _two_samples(relaxation, _equal_options(device))
    return not torch.equal(one, other)


def _equal_options(device: torch.device) -> Tensor:
    """An alpha, (2, 3), of two choices between three equal options."""
    return torch.full((2, 3), 1 / 3, device=device)


def _two_samples(relaxation: Relaxation, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """The weights of ``alpha`` (rows, options) twice, from a generator of its own on its device."""
    generator, relaxation.generator = relaxation.generator, torch.Generator(alpha.device).manual_seed(0)
    try:
        with torch.random.fork_rng(devices=[alpha.device] if alpha.is_cuda else []):
            return relaxation(alpha), relaxation(alpha)
    finally:
        relaxation.generator = generator
