"""Which parts go together: what does not is refused before a search begins, in one sentence that says why."""

from functools import partial

import torch
from torch import Tensor

from nas.bilevel.reach import check_reach
from nas.configuration import asked
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
    for key, hypergradient in named.items():
        good = parts.training.optimiser == "sgd" or hypergradient is None or not hypergradient.of_sgd
        allowed = "it is derived for SGD: beside training.optimiser=adamw take first_order, last_step or exact"
        require(good, key, type(hypergradient).__name__, allowed)


def _check_relaxation(parts: SearchParts) -> None:
    relaxation, training = parts.relaxation, parts.training
    for alpha in _equal_options(parts):
        _check_weights(relaxation, parts.architecture_gradient is not None, alpha.requires_grad_())
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


def _check_weights(relaxation: Relaxation, moves: bool, alpha: Tensor) -> None:
    """Refuse a relaxation, of the user's own say, whose weights are not those of alpha's options.

    Args:
        moves: Whether a gradient is to move alpha.
        alpha: One of equal options.
    """
    name, of = type(relaxation).__name__, f"an alpha of shape {tuple(alpha.shape)}"
    drawn, _ = asked("relaxation", name, f"call with {of}", partial(_two_samples, relaxation, alpha))
    mean = asked("relaxation", name, f"probabilities of {of}", partial(relaxation.probabilities, alpha))
    for what, weights in (("a call", drawn), ("probabilities", mean)):
        shape = tuple(weights.shape)
        why = f"{what} gives weights of shape {shape} for {of}, it must be a weight per option"
        require(shape == alpha.shape, "relaxation", name, why)
        rows = [[round(one, 4) for one in row] for row in weights.reshape(-1, shape[-1])[:2].tolist()]
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
    if rule.differentiates_twice and any(_draws(parts.relaxation, alpha) for alpha in _equal_options(parts)):
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
    samples = [_two_samples(parts.relaxation, alpha)[0] for alpha in _equal_options(parts)]
    if samples and all(bool(((weights == 0) | (weights == 1)).all()) for weights in samples):
        why = "with one option per sample, that option may be one that was taken away: take a relaxation that mixes"
        raise InvalidValue(key, name, why)
    if tunes and not parts.relaxation.on_simplex:
        raise InvalidValue(key, name, "what is decided needs a weight of 1, which this relaxation cannot give")


def _draws(relaxation: Relaxation, alpha: Tensor) -> bool:
    """Whether two calls may give two results."""
    one, other = _two_samples(relaxation, alpha)
    return not torch.equal(one, other)


def _equal_options(parts: SearchParts) -> list[Tensor]:
    """An alpha of equal options for each shape, (..., options), that those of the space have, on the run's device."""
    space, generator = parts.space, torch.Generator().manual_seed(0)
    weights = space.architecture_weights(space.sample(generator).architecture).values()
    shapes = dict.fromkeys(tuple(one.shape) for one in weights if one.dim() and one.shape[-1] > 1)
    return [torch.full(shape, 1 / shape[-1], device=parts.randomness.device) for shape in shapes]


def _two_samples(relaxation: Relaxation, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """The weights of ``alpha`` (rows, options) twice, from a generator of its own on its device."""
    generator, relaxation.generator = relaxation.generator, torch.Generator(alpha.device).manual_seed(0)
    try:
        with torch.random.fork_rng(devices=[alpha.device] if alpha.is_cuda else []):
            return relaxation(alpha), relaxation(alpha)
    finally:
        relaxation.generator = generator
