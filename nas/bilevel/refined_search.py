"""The gradient search, and then its hyperparameters go on learning on the network that it found.

What the supernet taught holds for a mixture. In the refinement the stand-alone network starts from fresh weights, as in
the retraining, on the same two splits; alpha is gone, and the hyperparameters move by the same hypergradient under the
same schedule, from where the search has taken them.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from nas.bilevel.discretisation import Discretisation
from nas.bilevel.guard import SearchDiverged
from nas.bilevel.hypergradient import Strategy
from nas.bilevel.hyperparameters import HyperparameterSet
from nas.bilevel.rehearsal import Rehearsal
from nas.bilevel.search import GradientSearch, SearchSettings, settled_in_words
from nas.bilevel.stand_alone import Discretised, refined_from
from nas.candidate import Candidate, Categorical
from nas.configuration import require
from nas.data.augmentation import Augmentation
from nas.data.dataset import DataSplits
from nas.evaluation.budget import Budget
from nas.evaluation.evaluation import Cost
from nas.evaluation.objective import Objective
from nas.evaluation.task import Task
from nas.relaxations.relaxation import Relaxation
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Supernet
from nas.training.interruption import Stopped
from nas.training.randomness import Randomness
from nas.training.run_folder import RunFolder
from nas.training.settings import TrainingSettings
from nas.training.tracking import Tracker, TrackingSettings


class RefinedSearch:
    """Two gradient searches in a row: of the space, then of its discretised network, in ``refinement/`` of the folder.

    Args:
        refinement_epochs: Of the second one.
        rehearsal: Follows the second one.

    The others are those of :class:`~nas.bilevel.search.GradientSearch`; the budget is that of both together, and the
    discretisation that of the first.
    """

    def __init__(
        self,
        *,
        refinement_epochs: int,
        space: SearchSpace,
        splits: DataSplits,
        augmentation: Augmentation,
        relaxation: Relaxation,
        architecture_gradient: Strategy | None,
        hyperparameter_gradient: Strategy | None,
        hyperparameters: HyperparameterSet,
        search: SearchSettings,
        training: TrainingSettings,
        tracking: TrackingSettings,
        randomness: Randomness,
        folder: RunFolder,
        discretisation: Discretisation | None = None,
        categorical: Mapping[str, Categorical] | None = None,
        objective: Objective | None = None,
        budget: Budget | None = None,
        rehearsal: Rehearsal | None = None,
        task: Task | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        require(refinement_epochs >= 1, "refinement_epochs", refinement_epochs, "it must be at least 1")
        learned = bool(hyperparameters.learned())
        require(learned, "refinement_epochs", refinement_epochs, "no hyperparameter is learned, take method=gradient")
        either = partial(
            GradientSearch,
            splits=splits,
            augmentation=augmentation,
            relaxation=relaxation,
            hyperparameter_gradient=hyperparameter_gradient,
            training=training,
            tracking=tracking,
            categorical=categorical,
            task=task,
            say=say,
        )
        self.first = either(
            space=space,
            architecture_gradient=architecture_gradient,
            hyperparameters=hyperparameters,
            search=search,
            randomness=randomness,
            folder=folder,
            discretisation=discretisation,
            objective=objective,
            budget=budget,
        )
        again = replace(search, epochs=refinement_epochs, warmup_epochs=0)
        self._second = partial(
            either, architecture_gradient=None, search=again, rehearsal=rehearsal, objective=objective
        )
        self.second: GradientSearch | None = None
        self.relaxation, self.budget, self.say = relaxation, budget or Budget(), say

    def search(self) -> Candidate:
        found, first = self.first.search(), self.first
        left = self.budget.without(first.spent)
        second = None if left is None else self._second_search(found, left)
        if left is None or second is None or not left.allows(second.least()):
            self.say("too little of the budget is left for the refinement")
            return found
        self.say(f"refining on the network found: {second.folder.path}")
        try:
            refined = second.search()
        except Stopped as stop:
            raise Stopped(first.step + stop.step, first.folder.path) from stop
        except SearchDiverged as error:
            self.say(f"the refinement is given up, the search's own hyperparameters stand: {error}")
            return found
        self.second = second
        return Candidate(found.architecture, refined.hyperparameters)

    def _second_search(self, found: Candidate, budget: Budget) -> GradientSearch:
        first = self.first
        return self._second(
            space=Discretised(first.space, found.architecture),
            hyperparameters=refined_from(first.hyperparameters, found, self.relaxation, first.space),
            randomness=first.randomness.branch("refinement"),
            folder=first.folder.below("refinement"),
            budget=budget,
        )

    @property
    def supernet(self) -> Supernet | None:
        return self.first.supernet

    @property
    def step(self) -> int:
        return self.first.step

    @property
    def seconds(self) -> float:
        return self.first.seconds + (0.0 if self.second is None else self.second.seconds)

    @property
    def spent(self) -> Cost:
        return self.first.spent + (Cost() if self.second is None else self.second.spent)

    def settled(self) -> dict[str, bool]:
        refined = {} if self.second is None else self.second.settled()
        return self.first.settled() | {name: good for name, good in refined.items() if name != "architecture"}

    def recorded(self) -> dict[str, list[float]]:
        refined = {} if self.second is None else self.second.recorded()
        return refined or self.first.recorded()

    def remarks(self) -> dict[str, str]:
        if self.second is None:
            return self.first.remarks()
        before, after = self.first.candidate().hyperparameters, self.second.candidate().hyperparameters
        moved = ", ".join(f"{name} {before[name]:.3g} to {after[name]:.3g}" for name in self.second.recorded())
        told = {f"{name}, refined": text for name, text in self.second.remarks().items()}
        return {**self.first.remarks(), "refinement": moved, **told}

    def in_words(self) -> str:
        refined = "" if self.second is None else f", in the refinement: {self.second.interventions.in_words()}"
        rest = settled_in_words(self.settled())
        return f"{rest}, interventions: {self.first.interventions.in_words()}{refined}"

    def final_metrics(self) -> dict[str, float]:
        return self.first.final_metrics() | {"samples": float(self.spent.samples)}

    def open_tracker(self) -> Tracker:
        return self.first.open_tracker()
