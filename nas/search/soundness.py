"""What does not go together in a gradient search: refused before anything is written, in one sentence that says why."""

from nas.distributed import Ranks
from nas.errors import require
from nas.evaluation.objective import Objective
from nas.relaxations.relaxation import Relaxation
from nas.training.settings import TrainingSettings


def check_relaxation(
    relaxation: Relaxation, objective: Objective | None, training: TrainingSettings, ranks: Ranks
) -> None:
    """Refuse what needs weights that add up to 1, or the same computation at every step, where ``relaxation`` has not.

    Raises:
        InvalidValue: The key is that of the setting which has to give way.
    """
    if not relaxation.on_simplex and objective is not None:
        costs = sorted(objective.penalty.shares)
        why = f"a mean cost needs weights that add up to 1, and those of {type(relaxation).__name__} do not"
        require(not costs, "objective.costs", ", ".join(costs), why)
    if relaxation.sampled:
        why = "a sampled relaxation computes other operations at every step: set it to false, or sample nothing"
        require(not training.cuda_graphs, "training.cuda_graphs", True, why)
        require(not training.compile, "training.compile", True, why)
        why = "under torchrun every process would need a gradient of every weight: take the dense gradient"
        require(ranks.count == 1, "relaxation.sampled", True, why)
