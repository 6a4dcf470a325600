"""The gradient search: weights on the training split, architecture and hyperparameters on the validation split."""

import logging

import torch

from nas.bilevel.optimiser import BilevelOptimiser
from nas.device.compilation import what_it_takes
from nas.distributed import Ranks
from nas.hyperparameters.collection import Intervention
from nas.operations.synchronised import average_running_statistics, synchronise_batch_norm
from nas.run.finiteness import ROLLBACK_DIVISOR
from nas.run.loop import Loop, Session, Start
from nas.search.beginning import loaded_beginning
from nas.search.callback import Callback, SeenStep, numbers_of
from nas.search.checkpointed import CheckpointedSearch
from nas.search.composition import check_composition
from nas.search.convergence import Trajectory
from nas.search.guard import Finiteness, FreshStart, Guard, Interventions
from nas.search.parts import SearchParts, built_meter, built_problem, built_streams, built_supernet
from nas.search.reader import CandidateReader
from nas.search.readings import Readings
from nas.search.record import SearchRecord
from nas.search.resolution import Resolution
from nas.search.result import SearchResult
from nas.search.shrinking import Shrinker
from nas.search.stopping_callback import StoppingCallback
from nas.search.tuning import Tuning
from nas.training.schedules import schedule_factor

log = logging.getLogger(__name__)


class GradientSearch(CheckpointedSearch):
    """Alternates weight steps with upper-level steps and reads the candidate off at the end.

    Raises:
        InvalidValue: The parts do not go together, or the budget does not pay for one step.
    """

    data_parallel = begins_with_another = True

    def __init__(self, parts: SearchParts) -> None:
        check_composition(parts)
        self.parts, self.settings, self.training = parts, parts.search, parts.training
        self.hyperparameters, self.randomness = parts.hyperparameters, parts.randomness
        self.ranks = parts.randomness.ranks
        self.step, self.rollbacks = 0, 0

        noise = self.randomness.on_device("dropout"), self.randomness.on_device("relaxation")
        self.supernet = built_supernet(parts, *noise)
        self.beginning = loaded_beginning(parts, self.supernet)
        self.problem = built_problem(parts, self.supernet, noise)
        self.bilevel_optimiser = BilevelOptimiser(
            self.problem,
            parts.architecture_gradient,
            parts.hyperparameter_gradient,
            self.settings.architecture,
            None if parts.objective is None else parts.objective.expected_penalty,
            parts.regulariser,
        )
        self.bilevel_optimiser.expected_penalty()  # an objective that has none says so before anything is written

        validation = parts.splits.validation.to(self.randomness.device)
        self.resolution = Resolution.of(self.settings.half_resolution, parts.space, parts.relaxation)
        self.streams = built_streams(parts, validation, self.resolution)
        self.meter = built_meter(parts, self.bilevel_optimiser.most_passes(), len(validation))

        self.learns_rate = "learning_rate" in self.hyperparameters.learned()
        self.interventions = Interventions()
        self.trajectory = Trajectory(self.hyperparameters)
        self.reader = CandidateReader(parts, self.supernet, self.trajectory, self.meter, validation)
        self.fresh_start = FreshStart(self.bilevel_optimiser)
        self.guard = Guard(self.settings.guard, self._restart if self.learns_rate else None, self.interventions)
        self.record = SearchRecord(parts, self.supernet, self.meter, self.guard, self.interventions)
        self.callbacks: dict[str, Callback] = {
            "interventions": self.interventions,
            "record": self.record,
            "trajectory": self.trajectory,
        }
        if not self._is_guarded:
            self.callbacks["finiteness"] = Finiteness(self.supernet, self.training.on_non_finite != "restart")
        self.readings = Readings.of(parts, self.reader)
        if self.readings is not None:
            self.callbacks["readings"] = self.readings
        if parts.shrinking is not None:
            self.callbacks["shrinking"] = Shrinker(parts.shrinking, self.supernet, parts.space, self.settings.epochs)
        if parts.stopping is not None:
            self.callbacks["stopping"] = StoppingCallback(parts.stopping, self)

    # The search, from top to bottom.

    def search(self) -> SearchResult:
        """Run to the end, from the newest checkpoint if the run folder has one.

        Raises:
            Stopped: A signal asked to stop; the checkpoint is written.
            SearchDiverged: The weights could not be kept alive.
            NotFinite: A loss, a gradient or an alpha is not, and neither the guard nor a rollback helps.
        """
        advice = "lower hyperparameters.learning_rate.initial or learn it"
        policy, folder, tracking = self.training.on_non_finite, self.parts.folder, self.parts.tracking
        loop = Loop(self, "search", folder, tracking, self.ranks, policy, advice, self.parts.task)
        loop.run()
        synchronise_batch_norm(self.supernet, Ranks())
        return self.result(loop.tracker_state)

    def begin(self, session: Session, start: Start) -> None:
        self._session = session
        self.record.open(session)
        self.supernet.train()
        if self.training.compile:
            log.info(what_it_takes())
        self.meter.begin_epoch()
        if start == "fresh":
            self.bilevel_optimiser.forget_weights()  # a hypergradient may have served another search before
            if self.beginning is not None:
                self.beginning.keep(self.parts)
            self.guard.begin(self._initial_loss())
        elif start == "rolled back" and self.learns_rate:
            rate = self.hyperparameters.numbers()["learning_rate"] / ROLLBACK_DIVISOR
            self.hyperparameters.set_value("learning_rate", rate)
        for name, entry in self.parts.categorical.items():
            log.info(f"{name} has no gradient: held at {entry.initial:g}")

    def advance(self) -> None:
        """One step of both levels: Algorithm 1 of DARTS (Liu et al., 2019)."""
        self._follow_schedules()
        requests = self.bilevel_optimiser.requests(
            architecture=self.alpha_moves(),
            hyperparameters=self.step % self.settings.hyperparameter_every == 0,
        )
        training = self.streams["train"].next()
        validation = self.streams["validation"].next() if requests else None
        self.problem.schedule_factor *= self.parts.task.rate_factor(training.targets)
        outcome = self.bilevel_optimiser.step(training, validation, requests)
        self.carry_on(outcome)
        self.meter.count_training(self.ranks.count * outcome.samples, self.resolution.per_image)
        self.step += 1

        alphas = [] if self._is_guarded else self.supernet.architecture_parameters()
        hyperparameters, numbers = self.hyperparameters.numbers(), numbers_of(outcome, alphas)
        seen = SeenStep(self.step, self._epoch, outcome, training, validation, hyperparameters, numbers)
        # The guard comes last: when it starts the weights again, the others have seen the step that they forget.
        for callback in (*self.callbacks.values(), self.guard):
            callback.on_step(seen)
        if self.step % self.steps_per_epoch == 0:
            self._end_epoch()

    def finished(self) -> bool:
        if self.step >= self.total_steps or not self.meter.budget.allows(self.meter.spent + self.meter.reserve()):
            return True
        at_epoch_end = self.step > 0 and self.step % self.steps_per_epoch == 0
        settled = self.settings.stop == "settled" and at_epoch_end and not any(self.settled().values())
        return settled or self.stopped_by() is not None

    def end(self) -> None:
        """Measure the supernet on the whole validation split and read the architecture off it, once."""
        if self.step % self.steps_per_epoch and self.record.means.means():
            self._end_epoch()  # the budget has ended the search inside an epoch
        if "supernet/validation_loss" not in self.record.last_means:  # where it is, the checkpoint had it
            # Said again here: a search resumed after its last step has not told the relaxation how far it is.
            self.supernet.advance(self._progress())
            self.resolution.advance(1.0)
            average_running_statistics(self.supernet, self.ranks)
            # Ranks have to go on alike, so that a request to stop cuts nothing short where there are several.
            watched = self._session.request.until_requested if self.ranks.count == 1 else iter
            tuning = Tuning(self, lambda: self.ranks.count == 1 and self._session.request.requested)
            with tuning.undone():
                measured = self.reader.measure_and_choose(watched, tuning)
            if self.readings is not None:
                self.readings.note(self.step)
            for name in self.trajectory.capped():
                self.interventions.note(Intervention("cap", name), self.step)
            self.record.tell_end(measured, self.step, self._epoch)
        if self.hyperparameters.learned() and self.ranks.is_first:
            self.trajectory.write(self.parts.folder.path / "trajectory.csv", self.step)

    # Steps and epochs.

    def alpha_moves(self) -> bool:
        """Whether alpha takes part in the next step: every so often, and not while the search, or a stage, warms up."""
        epoch, shrinking = self.step // self.steps_per_epoch, self.parts.shrinking
        rests = shrinking is not None and shrinking.rests(epoch, self.settings.epochs)
        due = self.step % self.settings.architecture_every == 0
        return due and epoch >= self.settings.warmup_epochs and not rests

    @property
    def total_steps(self) -> int:
        return self.settings.epochs * self.steps_per_epoch

    def place(self) -> tuple[int, int]:
        return self.step, self.total_steps

    def _progress(self) -> float:
        """How much of the search is done: of its epochs, or of its budget where that ends it earlier."""
        return max(self.step / self.total_steps, self.meter.progress())

    def _follow_schedules(self) -> None:
        progress = self.problem.progress = self.hyperparameters.progress = self._progress()
        factor = schedule_factor(self.training.schedule, progress, self.training.schedule_end)
        self.problem.schedule_factor = factor if self.learns_rate else factor / ROLLBACK_DIVISOR**self.rollbacks
        self.supernet.advance(progress)
        self.resolution.advance(progress)

    def _end_epoch(self) -> None:
        preferred = self.supernet.discretise()
        for callback in self.callbacks.values():
            callback.on_epoch(self.step, self._epoch, preferred)

    # Health.

    @property
    def _is_guarded(self) -> bool:
        """Whether a number that is not finite has the weights started again."""
        return self.training.on_non_finite == "restart" and self.learns_rate

    @torch.no_grad()
    def _initial_loss(self) -> float:
        """The validation loss of the untrained supernet: a search that has learned is below it."""
        if self.beginning is not None:
            return self.beginning.initial_loss
        batch = next(self.reader.batches())
        self.meter.count_forward(len(batch.targets))
        return float(self.problem.validation_loss(self.problem.weights(), batch)[0])

    def _restart(self, reason: str) -> None:
        """Go back to the initial weights at a lower learning rate."""
        rate = self.fresh_start.go_back(self.settings.guard.divisor)
        for callback in (*self.callbacks.values(), self.guard):
            callback.forget()
        for stream in self.streams.values():
            stream.carry(None)
        log.info(f"{reason}; the weights start again, learning_rate {rate:.3g}")
        self.record.tell_restart(self.step, self._epoch)
