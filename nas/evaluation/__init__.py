"""What a candidate is worth and what finding out may cost: evaluators, objectives, budgets."""

from nas.evaluation.budget import Budget
from nas.evaluation.evaluation import Cost, Evaluation
from nas.evaluation.evaluator import Evaluator, Pruner, SuccessiveHalving
from nas.evaluation.multi_task import EveryTask, MultiTask, TaskWeight
from nas.evaluation.objective import Dynamic, Fixed, Objective, TaskScore
from nas.evaluation.scratch import TrainedFromScratch
from nas.evaluation.shared_weights import SharedWeights
from nas.evaluation.surrogate_lookup import SurrogateLookup
from nas.evaluation.table import TableLookup

__all__ = [
    "Budget",
    "Cost",
    "Dynamic",
    "Evaluation",
    "Evaluator",
    "EveryTask",
    "Fixed",
    "MultiTask",
    "Objective",
    "Pruner",
    "SharedWeights",
    "SuccessiveHalving",
    "SurrogateLookup",
    "TableLookup",
    "TaskScore",
    "TaskWeight",
    "TrainedFromScratch",
]
