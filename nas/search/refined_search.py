"""The gradient search, and then its hyperparameters go on learning on the network that it found.

What the supernet taught holds for a mixture. In the refinement the stand-alone network starts from fresh weights, as in
the retraining, on the same two splits; alpha is gone, and the hyperparameters move by the same hypergradient under the
same schedule, from where the search has taken them.
"""

from dataclasses import replace

from nas.candidate import Candidate
from nas.errors import require
from nas.evaluation.budget import Budget
from nas.evaluation.evaluation import Cost
from nas.run.tracking import Tracker
from nas.search.discretisation import Strongest
from nas.search.gradient_search import GradientSearch, settled_in_words
from nas.search.guard import SearchDiverged
from nas.search.line_search import Rehearsal
from nas.search.parts import SearchParts
from nas.search.stand_alone import Discretised, refined_from
from nas.spaces.supernet import Supernet
from nas.stopping import Stopped


class RefinedSearch:
    """Two gradient searches in a row: of the space, then of its discretised network, in ``refinement/`` of the folder.

    Args:
        parts: Of both: the budget is that of the two together, the discretisation that of the first.
        refinement_epochs: Of the second one.
        rehearsal: Follows the second one.
    """

    def __init__(self, parts: SearchParts, refinement_epochs: int, rehearsal: Rehearsal | None = None) -> None:
        require(refinement_epochs >= 1, "refinement_epochs", refinement_epochs, "it must be at least 1")
        learned = bool(parts.hyperparameters.learned())
        require(learned, "refinement_epochs", refinement_epochs, "no hyperparameter is learned, take method=gradient")
        self.parts, self.epochs, self.rehearsal, self.say = parts, refinement_epochs, rehearsal, parts.say
        self.first = GradientSearch(parts)
        self.second: GradientSearch | None = None

    def search(self) -> Candidate:
        found, first = self.first.search(), self.first
        left, second = self.parts.budget.without(first.spent), self._second_search(found)
        if left is None or not left.allows(second.meter.least()):
            self.say("too little of the budget is left for the refinement")
            return found
        second.meter.budget = left
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

    def _second_search(self, found: Candidate) -> GradientSearch:
        first, parts = self.first, self.parts
        again = replace(
            parts,
            space=Discretised(first.space, found.architecture),
            hyperparameters=refined_from(first.hyperparameters, found, parts.relaxation, first.space),
            architecture_gradient=None,
            search=replace(parts.search, epochs=self.epochs, warmup_epochs=0),
            randomness=first.randomness.branch("refinement"),
            folder=first.folder.below("refinement"),
            discretisation=Strongest(),
            budget=Budget(),
            draw=None,
        )
        return GradientSearch(again, self.rehearsal)

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
