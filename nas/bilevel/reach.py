"""Which hypergradient may move what, refused before a search begins, and which derivatives a search takes."""

from nas.bilevel.hypergradient import Hypergradient
from nas.errors import InvalidValue, require
from nas.hyperparameters.collection import HyperparameterSet


def check_reach(
    architecture: Hypergradient | None, learned: Hypergradient | None, hyperparameters: HyperparameterSet
) -> None:
    """Refuse hypergradients that give no gradient to what they are to move, or that cannot share a step.

    Raises:
        InvalidValue: The key is ``hypergradient`` or ``hyperparameters.gradient``.
    """
    if architecture is not None:
        able = "architecture" in architecture.reaches
        allowed = "it gives the architecture no gradient, take first_order or exact"
        require(able, "hypergradient", type(architecture).__name__, allowed)
    for name in hyperparameters.learned():
        kind = hyperparameters.entries[name].kind
        if learned is None:
            raise InvalidValue(
                "hyperparameters.gradient", None, "learned hyperparameters need one: exact is a good one"
            )
        where = "through the training loss" if kind == "loss" else "on the weight update"
        allowed = f"it gives {name}, which acts {where}, no gradient; exact does, and by_kind combines two"
        require(kind in learned.reaches, "hyperparameters.gradient", type(learned).__name__, allowed)
        good = hyperparameters.entries[name].basis is None or learned.takes_basis
        allowed = f"it follows one number per hyperparameter, and {name} has a basis: take exact or last_step"
        require(good, "hyperparameters.gradient", type(learned).__name__, allowed)
    if architecture is None or learned is None or not hyperparameters.learned():
        return
    if learned.looks_back:
        beside = f"beside {type(learned).__name__}, which looks back"
        allowed = f"{beside}, alpha takes the same, or first_order beside last_step"
        require(learned.serves(architecture), "hypergradient", type(architecture).__name__, allowed)
    elif architecture.looks_back:
        allowed = f"beside hypergradient={type(architecture).__name__}, which looks back, it must be the same"
        require(False, "hyperparameters.gradient", type(learned).__name__, allowed)


def differentiates_twice(
    architecture: Hypergradient | None, learned: Hypergradient | None, hyperparameters: HyperparameterSet
) -> bool:
    """Whether the search needs second derivatives of the supernet."""
    kinds = hyperparameters.learned_kinds()
    of_alpha = architecture is not None and architecture.differentiates_twice(["architecture"])
    return of_alpha or (learned is not None and bool(kinds) and learned.differentiates_twice(kinds))
