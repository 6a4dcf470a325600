"""What a gradient search saves in a checkpoint, and what it returns; its steps are in ``gradient_search``."""

import json
import math
from typing import Any

from torch import Tensor

from nas.bilevel.optimiser import BilevelOptimiser
from nas.bilevel.outcome import Outcome
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Stream
from nas.distributed import Ranks
from nas.evaluation.budget import CostMeter
from nas.hyperparameters.collection import HyperparameterSet
from nas.operations.synchronised import average_running_statistics
from nas.run.checkpoint import is_due
from nas.run.randomness import Randomness
from nas.search.beginning import Beginning
from nas.search.callback import Callback
from nas.search.convergence import Trajectory, nothing_learned
from nas.search.guard import Guard, Interventions
from nas.search.parts import SearchParts, SearchSettings
from nas.search.reader import CandidateReader
from nas.search.readings import Readings
from nas.search.record import SearchRecord
from nas.search.result import SearchResult, unsettled_in_words
from nas.spaces.supernet import Supernet
from nas.training.memory import carry

LEARNED = "means over the last half of the steps"  # see Trajectory.tail_average


class CheckpointedSearch:
    """The state of a search, and the result that is read off it.

    :class:`nas.search.gradient_search.GradientSearch` builds the pieces named here and takes the steps.
    """

    parts: SearchParts
    settings: SearchSettings
    step: int
    supernet: Supernet
    hyperparameters: HyperparameterSet
    randomness: Randomness
    ranks: Ranks
    problem: BilevelProblem
    bilevel_optimiser: BilevelOptimiser
    beginning: Beginning | None
    meter: CostMeter
    guard: Guard
    interventions: Interventions
    trajectory: Trajectory
    reader: CandidateReader
    readings: Readings | None
    record: SearchRecord
    callbacks: dict[str, Callback]
    streams: dict[str, Stream]  # of the training and the validation split

    @property
    def steps_per_epoch(self) -> int:
        return self.streams["train"].steps_per_epoch

    @property
    def _epoch(self) -> int:
        """That of the step taken last."""
        return (self.step - 1) // self.steps_per_epoch

    def carry_on(self, outcome: Outcome) -> None:
        """Where the supernet has a memory, let both splits' next batches begin where those of this step have ended."""
        carry(self.streams["train"], outcome.weight_step.logits)
        if outcome.upper_step is not None:
            carry(self.streams["validation"], outcome.upper_step.report.validation_logits)

    def due(self) -> bool:
        return is_due(self.step, self.settings.checkpoint_every, self.steps_per_epoch)

    def tensors(self) -> dict[str, Tensor]:
        average_running_statistics(self.supernet, self.ranks)
        return {**self.supernet.state_dict(), **dict(self.hyperparameters.named_raw())}

    def rolled_back(self, state: dict[str, Any]) -> dict[str, Any]:
        """Steps that are taken back stay paid for."""
        paid = {name: entry for name, entry in self.meter.state_dict().items() if name != "samples_before"}
        return {**state, "meter": {**state["meter"], **paid}}

    def _stateful(self) -> dict[str, Any]:
        parts = {
            "meter": self.meter,
            "supernet": self.supernet,
            "optimiser": self.problem.optimiser,
            "upper_level": self.bilevel_optimiser,
            "reader": self.reader,
            **{f"{split} stream": stream for split, stream in self.streams.items()},
            "randomness": self.randomness,
            "guard": self.guard,
            **{f"callback {name}": callback for name, callback in self.callbacks.items()},
        }
        return parts if self.parts.objective is None else {**parts, "objective": self.parts.objective}

    def state_dict(self) -> dict[str, Any]:
        # A method of several searches may have made this one's space of that of the run.
        space = {"space": json.dumps(self.parts.space.describe())}
        return space | {name: part.state_dict() for name, part in self._stateful().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])

    # The end.

    def settled(self) -> dict[str, str | None]:
        """Per decision None, or why it cannot be said to have settled."""
        means = self.record.last_means  # after few steps the averages of batch norm are not those of the weights yet
        loss = min(means.get("supernet/validation_loss", 0.0), means.get("validation/loss", math.inf))
        nothing, every = nothing_learned(loss, self.guard.initial_loss), self.settings.hyperparameter_every
        handed_on = self.settings.settled_by == "candidate"
        epochs, ratio = self.settings.settled_epochs, self.settings.settled_ratio
        settled = self.trajectory.settled(epochs, ratio, every, handed_on)
        if self.readings is not None:
            settled["architecture"] = self.readings.unsettled()
        return dict.fromkeys(settled, nothing) if nothing else settled

    def stopped_by(self) -> str | None:
        """Why a stopping rule has ended the search before its last epoch, or None."""
        reason: str | None = getattr(self.callbacks.get("stopping"), "reason", None)
        return reason

    def result(self, record: dict[str, int] | None = None) -> SearchResult:
        """What the search has found until now; ``record`` is where its record ends."""
        settled, interventions = self.settled(), self.interventions.in_words()
        beginning = {} if self.beginning is None else {"begun with": self.beginning.in_words()}
        reason = self.stopped_by()
        stopped = {} if reason is None else {"ended early": f"after epoch {self._epoch + 1}: {reason}"}
        spent, learned = self.meter.spent, self.hyperparameters.learned()
        counts = {"samples": float(spent.samples), "restarts": float(self.guard.restarts)}
        return SearchResult(
            candidate=self.reader.candidate(),
            cost=spent,
            seconds=self.meter.seconds,
            step=self.step,
            epoch=self._epoch,
            metrics={**self.record.last_means, **counts},
            remarks={
                **({"learned": f"{', '.join(learned)}: {LEARNED}"} if learned else {}),
                **self.reader.remarks(),
                **beginning,
                **stopped,
                "not settled": unsettled_in_words(settled),
                "interventions": interventions,
            },
            summary=f"interventions: {interventions}",
            settled=settled,
            trajectory=self.trajectory.recorded(),
            supernet=self.supernet,
            record=record,
        )
