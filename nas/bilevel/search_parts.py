"""What a gradient search is put together from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nas.bilevel.discretisation import Discretisation, Strongest
from nas.bilevel.hypergradient import Strategy
from nas.bilevel.hyperparameters import HyperparameterSet
from nas.bilevel.search_settings import SearchSettings
from nas.candidate import Architecture, Categorical
from nas.data.augmentation import Augmentation
from nas.data.dataset import DataSplits
from nas.evaluation.budget import Budget
from nas.evaluation.objective import Objective
from nas.evaluation.task import Task
from nas.relaxations.relaxation import Relaxation
from nas.spaces.space import SearchSpace
from nas.training.randomness import Randomness
from nas.training.run_folder import RunFolder
from nas.training.settings import TrainingSettings
from nas.training.tracking import TrackingSettings


@dataclass(frozen=True, kw_only=True)
class SearchParts:
    """The pieces; a search that consists of several replaces some of them (``dataclasses.replace``).

    Args:
        architecture_gradient: How alpha gets its gradient; None leaves alpha as it is.
        hyperparameter_gradient: How the learned hyperparameters get theirs; None leaves them as they are.
        categorical: Hyperparameters without a gradient: held at their initial values, which the candidate carries.
        discretisation: Reads the architecture off the supernet at the end; by default what alpha prefers.
        objective: Its expected penalty is added to the validation loss; its metrics have no part in the search.
        budget: Ends the search before its last epoch where the next step would go beyond it.
        task: What stand-alone networks are trained on.
        draw: Makes the figure of an architecture for TensorBoard, at the end of every epoch that changed it.
        say: Where one-line notices go (restarts, a resumed checkpoint).
    """

    space: SearchSpace
    splits: DataSplits
    augmentation: Augmentation
    relaxation: Relaxation
    architecture_gradient: Strategy | None
    hyperparameter_gradient: Strategy | None
    hyperparameters: HyperparameterSet
    search: SearchSettings
    training: TrainingSettings
    tracking: TrackingSettings
    randomness: Randomness
    folder: RunFolder
    discretisation: Discretisation = field(default_factory=Strongest)
    categorical: Mapping[str, Categorical] = field(default_factory=dict)
    objective: Objective | None = None
    budget: Budget = field(default_factory=Budget)
    task: Task | None = None
    draw: Callable[[Architecture], Any] | None = None
    say: Callable[[str], None] = print
