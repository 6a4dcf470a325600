"""Which parts go together: what does not is refused before a search begins, in one sentence that says why."""

from nas.bilevel.reach import check_reach
from nas.search.parts import SearchParts


def check_composition(parts: SearchParts) -> None:
    """Let every part look at those that it depends on.

    Raises:
        InvalidValue: Two of them do not go together.
    """
    check_reach(parts.architecture_gradient, parts.hyperparameter_gradient, parts.hyperparameters)
    parts.search.architecture.check(parts.relaxation)
    for part in (parts.regulariser, parts.perturbation):
        if part is not None:
            part.check(parts.relaxation)
