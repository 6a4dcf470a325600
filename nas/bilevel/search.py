"""The gradient search: weights on the training split, architecture and hyperparameters on the validation split."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from nas.atomic_write import write_atomically
from nas.bilevel.best_pair import BestPair
from nas.bilevel.discretisation import Discretisation, Strongest
from nas.bilevel.guard import Guard, GuardSettings, SearchDiverged
from nas.bilevel.hypergradient import RetrospectiveHypergradient, Strategy
from nas.bilevel.hyperparameters import HyperparameterSet, Kind
from nas.bilevel.interventions import Intervention, Interventions
from nas.bilevel.problem import BilevelProblem
from nas.bilevel.rehearsal import Rehearsal, SameLuck, best, in_words, loss
from nas.bilevel.trajectory import Trajectory
from nas.bilevel.upper_level import ArchitectureOptimiser, UpperLevel, UpperLevelOutcome
from nas.candidate import Architecture, Candidate, Categorical, Hyperparameters, Range
from nas.configuration import InvalidValue, require
from nas.data.augmentation import Augmentation
from nas.data.batch import Batch, Stream, first_images
from nas.data.dataset import DataSplits
from nas.evaluation.budget import Budget
from nas.evaluation.evaluation import Cost, Evaluation
from nas.evaluation.network_cost import TRAINING_PASS, supernet_multiply_adds
from nas.evaluation.objective import Objective
from nas.evaluation.scratch import TrainedFromScratch
from nas.evaluation.task import Task
from nas.relaxations.relaxation import Relaxation
from nas.spaces.space import SearchSpace
from nas.training.checkpoint import fitting
from nas.training.finiteness import DIVISOR, NotFinite, Watch, last_good, require_finite
from nas.training.interruption import Stopped, StopRequest, StopRequested
from nas.training.memory import keep_freed_memory
from nas.training.metrics import measure
from nas.training.parameter_groups import grouped
from nas.training.profiling import profiled
from nas.training.progress import Progress
from nas.training.randomness import Randomness
from nas.training.ranks import Ranks, sharded, synchronise_batch_norm
from nas.training.regularisers import set_noise_generator
from nas.training.run_folder import RunFolder
from nas.training.running_means import RunningMeans, accuracy
from nas.training.schedules import schedule_factor
from nas.training.settings import TrainingSettings
from nas.training.tracking import SilentTracker, Tracker, TrackingSettings

NOTHING_LEARNED = 0.95  # of the untrained supernet's loss: a validation loss above it tells that nothing was learned
MEASURED_AT_ONCE = 256  # images
LARGEST_STEP = 6  # forward-backward passes over a batch that no step of the usual strategies goes beyond


@dataclass(frozen=True)
class SearchSettings:
    """How long the search goes and what watches over it.

    Args:
        epochs: Passes over the training split.
        warmup_epochs: Of these, how many at the start leave alpha alone.
        hyperparameter_every: Weight steps from one step of the hyperparameters to the next; alpha moves at each.
        stop: ``settled`` ends it as soon as nothing has moved for ``settled_epochs``; ``epochs`` never before the end.
        settled_epochs, settled_ratio: What counts as settled: epochs without a changed choice and without a
            hyperparameter that moved by more than this ratio (``Trajectory.unsettled``).
        checkpoint_every: Steps from one checkpoint to the next.
    """

    epochs: int
    warmup_epochs: int
    hyperparameter_every: int
    stop: Literal["epochs", "settled"]
    settled_epochs: int
    settled_ratio: float
    checkpoint_every: int
    architecture: ArchitectureOptimiser
    guard: GuardSettings

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "epochs", self.epochs, "it must be at least 1")
        inside = 0 <= self.warmup_epochs <= self.epochs
        require(inside, "warmup_epochs", self.warmup_epochs, f"it must be from 0 to epochs={self.epochs}")
        every = self.hyperparameter_every
        require(every >= 1, "hyperparameter_every", every, "it must be at least 1")
        require(self.settled_epochs >= 2, "settled_epochs", self.settled_epochs, "it must be at least 2")
        require(self.settled_ratio > 1, "settled_ratio", self.settled_ratio, "it must be above 1")
        require(self.checkpoint_every >= 1, "checkpoint_every", self.checkpoint_every, "it must be at least 1")


class GradientSearch:
    """Alternates weight steps with upper-level steps and reads the candidate off at the end.

    Args:
        architecture_gradient: How alpha gets its gradient; None leaves alpha as it is.
        hyperparameter_gradient: How the learned hyperparameters get theirs; None leaves them as they are.
        categorical: Hyperparameters without a gradient: held at their initial values, which the candidate carries.
        discretisation: Reads the architecture off the supernet at the end; by default what alpha prefers.
        objective: Its expected penalty is added to the validation loss; its metrics have no part in the search.
        budget: Ends the search before its last epoch where the next step would go beyond it.
        rehearsal: After the search, tries hyperparameters around the learned ones on the network it found.
        task: What those trainings are made on.
        draw: Makes the figure of an architecture for TensorBoard, at the end of every epoch that changed it.
        say: Where one-line notices go (restarts, a resumed checkpoint).
    """

    def __init__(
        self,
        *,
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
        draw: Callable[[Architecture], Any] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        check_reach(architecture_gradient, hyperparameter_gradient, hyperparameters)
        self.space, self.settings, self.training, self.tracking = space, search, training, tracking
        self.hyperparameters, self.randomness, self.folder, self.say = hyperparameters, randomness, folder, say
        self.ranks = randomness.ranks
        if not self.ranks.is_first:
            self.tracking, self.say = replace(tracking, console="quiet", profiler=False), _unheard
        self._draw = draw
        self._drawn: Architecture | None = None
        self.held = {name: entry.initial for name, entry in (categorical or {}).items()}
        self.budget = budget or Budget()
        self.rehearsal, self.task = rehearsal, task
        if rehearsal is not None:
            try:
                rehearsal.check(self._rehearsed())
            except InvalidValue as error:
                raise error.below("method.rehearsal") from error
        self.trials: list[Evaluation] = []  # the rehearsal's, in order

        noise = randomness.on_device("dropout"), randomness.on_device("relaxation")
        relaxation.generator = noise[1]
        self.supernet = space.supernet(relaxation).to(randomness.device)
        try:
            hyperparameters.require_effect_on(self.supernet)
        except InvalidValue as error:
            raise error.below("hyperparameters") from error
        self.discretisation = discretisation or Strongest()
        try:
            self.discretisation.check(self.supernet, space)
        except InvalidValue as error:
            raise error.below("discretisation") from error
        self.chosen: Architecture | None = None  # at the end
        set_noise_generator(self.supernet, noise[0])
        randomness.part()
        if training.batch_norm == "synchronised":
            synchronise_batch_norm(self.supernet, self.ranks)
        if training.compile:
            learned: list[Kind] = [hyperparameters.entries[name].kind for name in hyperparameters.learned()]
            kinds: tuple[list[Kind], list[Kind]] = ["architecture"], learned
            for strategy, asked in zip((architecture_gradient, hyperparameter_gradient), kinds, strict=True):
                once = strategy is None or not asked or not strategy.differentiates_twice(asked)
                allowed = "torch.compile cannot differentiate twice: take first_order, learn nothing or the rate alone"
                require(once, "training.compile", True, allowed)
            self.supernet.compile()
        self._initial_state = {name: entry.clone() for name, entry in self.supernet.state_dict().items()}
        self.optimiser = torch.optim.SGD(
            grouped(self.supernet.weight_parameters()), lr=0.0, momentum=training.momentum, foreach=True
        )
        self.problem = BilevelProblem(
            self.supernet,
            self.optimiser,
            hyperparameters,
            training.gradient_clip,
            generators=noise,
            precision=partial(training.autocast, randomness.device),
            augmentation=randomness.on_device("learned augmentation"),
            ranks=self.ranks,
        )
        self.objective = objective
        penalty = None if objective is None else objective.expected_penalty
        self.upper_level = UpperLevel(
            self.problem, architecture_gradient, hyperparameter_gradient, search.architecture, penalty
        )
        self.upper_level.expected_penalty()  # an objective that has none says so before anything is written

        train, validation = splits.train.to(randomness.device), splits.validation.to(randomness.device)
        self._streams: dict[str, Stream] = {
            "train": train.stream(
                training.batch_size,
                splits.mean,
                splits.std,
                randomness.on_cpu("training order"),
                augmentation,
                randomness.on_device("augmentation"),
            ),
            "validation": validation.stream(
                training.batch_size, splits.mean, splits.std, randomness.on_cpu("validation order")
            ),
        }
        self._streams = {name: sharded(stream, self.ranks) for name, stream in self._streams.items()}
        self._validation = validation
        self._validation_batches = partial(validation.evaluation_batches, MEASURED_AT_ONCE, splits.mean, splits.std)
        self.guard = Guard(search.guard)
        self.interventions = Interventions(self.say)
        self.best_pair = BestPair()
        self.trajectory = Trajectory(hyperparameters)
        self.means = RunningMeans()
        self.step, self.samples, self.seconds, self.rollbacks = 0, 0, 0.0, 0
        self.watch = Watch()
        self._measured = 0  # of the samples, those that went forward only
        self._per_image = supernet_multiply_adds(space, relaxation)
        self._samples_before, self._epoch_began = 0, time.perf_counter()
        self._last_means: dict[str, float] = {}
        self._tracker_state: dict[str, int] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return self._streams["train"].steps_per_epoch

    @property
    def total_steps(self) -> int:
        return self.settings.epochs * self.steps_per_epoch

    @property
    def spent(self) -> Cost:
        passes = TRAINING_PASS * (self.samples - self._measured) + self._measured
        seconds = self.seconds + time.perf_counter() - self._epoch_began  # the trials' own are among them
        trials = sum((replace(trial.cost, seconds=0.0) for trial in self.trials), Cost())
        return Cost(self.samples, self._per_image * passes, 0, seconds) + trials

    def _reserve(self) -> Cost:
        """What the next step, the measurement at the end and the discretisation may cost."""
        return self._step_and(len(self._validation) + self._images_to_choose())

    def least(self) -> Cost:
        """What a search of one step may cost: the untrained supernet's loss, the step, the measurement at the end."""
        return self._reserve() + self._forward(self._measured_untrained)

    @property
    def _measured_untrained(self) -> int:
        """Images of the untrained supernet's loss."""
        return min(len(self._validation), MEASURED_AT_ONCE)

    def _images_to_choose(self) -> int:
        """What the discretisation passes through the supernet; 0 where the budget would then pay for no step."""
        images = self.discretisation.images(self.space, len(self._validation))
        measured = self._measured_untrained + len(self._validation)
        return images if self.budget.allows(self._step_and(measured + images)) else 0

    def _step_and(self, measured: int) -> Cost:
        """A step, and so many images forward only."""
        step = max(LARGEST_STEP, 1 + self.upper_level.most_passes()) * self.training.batch_size
        return Cost(step, self._per_image * TRAINING_PASS * step) + self._forward(measured)

    def _forward(self, images: int) -> Cost:
        return Cost(images, self._per_image * images)

    def _progress(self) -> float:
        """How much of the search is done: of its epochs, or of its budget where that ends it earlier."""
        known = replace(self.spent, seconds=0.0)  # the clock decides when a search ends, never what it computes
        return max(self.step / self.total_steps, self.budget.progress(known + self._reserve()))

    def candidate(self) -> Candidate:
        """What the search would return now: the best trial where there has been a rehearsal."""
        return best(self.trials).candidate if self.trials else self._found()

    def _found(self) -> Candidate:
        return Candidate(
            self.chosen or self._discretised(), Hyperparameters({**self.trajectory.tail_average(), **self.held})
        )

    def open_tracker(self) -> Tracker:
        """The run's record, opened again after :meth:`search` for what is said at the end."""
        return self._tracker(self._tracker_state)

    def _tracker(self, state: dict[str, int] | None) -> Tracker:
        return Tracker(self.folder.path, self.tracking, state) if self.ranks.is_first else SilentTracker()

    def final_metrics(self) -> dict[str, float]:
        """The last epoch's means, and what the search has spent."""
        return {**self._last_means, "samples": float(self.spent.samples), "restarts": float(self.guard.restarts)}

    def unsettled(self) -> dict[str, str]:
        """Why the architecture or a learned hyperparameter cannot be said to have settled, for those it is true of."""
        settings = self.settings
        against = self.trajectory.unsettled(
            settings.settled_epochs, settings.settled_ratio, settings.hyperparameter_every
        )
        loss = self._last_means.get("supernet/validation_loss", 0.0)
        if loss > NOTHING_LEARNED * self.guard.initial_loss:
            nothing = f"nothing was learned: validation loss {loss:.3g}, {self.guard.initial_loss:.3g} untrained"
            against = dict.fromkeys(("architecture", *self.hyperparameters.learned()), nothing)
        if self.rehearsal is not None and self.trials:
            unfinished = self.rehearsal.unfinished(self._found(), self.trials, self._rehearsed())
            against = {name: reason for name, reason in against.items() if name not in self._rehearsed()}
            against |= dict.fromkeys(unfinished, "its rehearsal ended before it was between worse neighbours")
        return against

    def recorded(self) -> dict[str, list[float]]:
        return self.trajectory.recorded()

    def in_words(self) -> str:
        """How it ended, for the last line."""
        return f"{settled_in_words(self.settled())}, interventions: {self.interventions.in_words()}"

    def remarks(self) -> dict[str, str]:
        """What a reader of the result must know: what has not settled and why, and what had to be held back."""
        against = self.unsettled()
        names = {reason: [name for name in against if against[name] == reason] for reason in against.values()}
        told = "; ".join(f"{', '.join(upon)}: {reason}" for reason, upon in names.items())
        rehearsed = {"rehearsal": in_words(self.trials)} if self.trials else {}
        other = {"chosen (alpha's)": against_alpha} if (against_alpha := self._against_alpha()) else {}
        return {**other, "not settled": told or "nothing", "interventions": self.interventions.in_words(), **rehearsed}

    def settled(self) -> dict[str, bool]:
        against = self.unsettled()
        return {name: name not in against for name in ("architecture", *self.hyperparameters.learned())}

    def search(self) -> Candidate:
        """Run to the end, from the newest checkpoint if the run folder has one.

        Raises:
            Stopped: A signal asked to stop; the checkpoint is written.
            SearchDiverged: The weights could not be kept alive.
            NotFinite: A loss, a gradient or an alpha is not, and neither the guard nor a rollback helps.
        """
        state = self.ranks.share(self.folder.newest_checkpoint(self.say) if self.ranks.is_first else None)
        save = state is None
        while True:
            try:
                return self._search_from(state, save)
            except NotFinite as fault:
                advice = "lower hyperparameters.learning_rate.initial or learn it"
                policy, folder, ranks = self.training.on_non_finite, self.folder, self.ranks
                state = last_good(fault, policy, self.rollbacks, folder, advice, self.say, ranks)
                state["rollbacks"] = self.rollbacks + 1
                spent = {"samples": self.samples, "measured": self._measured, "seconds": self.spent.seconds}
                state |= spent  # steps that are taken back stay paid for
                save = True  # at once, or a kill would undo the rollback

    def _search_from(self, state: dict[str, Any] | None, save: bool) -> Candidate:
        """Go on from ``state``, which is written again where ``save`` says so."""
        if state is not None:
            with fitting(state):
                self._load_state(state)
        self.supernet.train()
        keep_freed_memory()
        with (
            StopRequest() as request,
            self._tracker(state["tracker"] if state else None) as tracker,
            Progress("search", self.total_steps, self.tracking.console, start=self.step) as progress,
            profiled(self.folder.path, self.tracking.profiler) as profiler,
        ):
            self._epoch_began = time.perf_counter()
            if state is None:
                self.upper_level.forget_weights()  # a strategy may have served another search before
                self.guard.begin(self._untrained_loss())
            elif save and "learning_rate" in self.hyperparameters.learned():
                rate = self.hyperparameters.numbers()["learning_rate"] / DIVISOR
                self.hyperparameters.set_value("learning_rate", rate)
            if save:
                self._save(tracker)
            for name, value in self.held.items():
                self.say(f"{name} has no gradient: held at {value:g}")
            while self.step < self.total_steps and not self._may_stop():
                self._one_step(tracker, progress)
                profiler.step()
                if self.step % self.steps_per_epoch == 0:
                    self._end_epoch(tracker, progress)
                if self.ranks.any(request.requested):
                    self._save(tracker)
                    raise Stopped(self.step, self.folder.path)
                if self.step % self.settings.checkpoint_every == 0:
                    self._save(tracker)
            if self.step % self.steps_per_epoch and self.means.means():
                self._end_epoch(tracker, progress)  # the budget has ended the search inside an epoch
            self._end(tracker, request)
            if self.rehearsal is not None:
                self._rehearse(self.rehearsal, tracker, request)
        synchronise_batch_norm(self.supernet, Ranks())
        return self.candidate()

    def _rehearsed(self) -> dict[str, Range]:
        """Where the rehearsal may take each learned hyperparameter."""
        steps = {} if self.rehearsal is None else self.rehearsal.steps
        entries = self.hyperparameters.entries
        learned = [name for name in self.hyperparameters.learned() if name in steps]
        return {name: Range(one.low, one.cap or one.high, one.scale) for name in learned if (one := entries[name])}

    def _rehearse(self, rehearsal: Rehearsal, tracker: Tracker, request: StopRequest) -> None:
        """Train the found network with neighbouring hyperparameters for as long as the budget allows."""
        assert self.task is not None
        assert self.objective is not None
        task = SameLuck.of_task(self.task)
        evaluator = TrainedFromScratch(rehearsal.epochs, task=task, objective=self.objective)
        found, ranges = self._found(), self._rehearsed()
        epoch = (self.step - 1) // self.steps_per_epoch
        while (trial := rehearsal.next(found, self.trials, ranges)) is not None:
            if not self.budget.allows(self.spent + evaluator.price(trial)):
                break
            self.trials += evaluator.evaluate([trial])
            step = self.step + len(self.trials)
            scalars = {f"rehearsal/{name}": trial.hyperparameters[name] for name in ranges}
            scalars |= {"rehearsal/validation_loss": loss(self.trials[-1])}
            scalars |= {"budget/samples": self.spent.samples, "budget/multiply_adds": self.spent.multiply_adds}
            for tag, value in scalars.items():
                tracker.scalar(tag, float(value), step, epoch)
            self._save(tracker)
            if self.ranks.any(request.requested):
                raise Stopped(self.step, self.folder.path)
        if self.trials:
            self.say(f"rehearsed: {in_words(self.trials)}")

    def _end(self, tracker: Tracker, request: StopRequest) -> None:
        """Measure the supernet on the whole validation split and read the architecture off it, once."""
        if "supernet/validation_loss" not in self._last_means:
            # Said again here: a search resumed after its last step has not told the relaxation how far it is.
            self.supernet.relaxation.advance(self._progress())
            batches = self._validation_batches()  # the ranks measure alike, and have to go on alike
            batches = request.until_requested(batches) if self.ranks.count == 1 else batches
            self._average_statistics()
            try:
                metrics = measure(self.supernet, batches, self.space.classes, self.randomness.device)
                self._choose(request, metrics.samples)
            except StopRequested as error:
                self._save(tracker)
                raise Stopped(self.step, self.folder.path) from error
            self.samples += metrics.samples
            self._measured += metrics.samples
            measured = {"supernet/validation_loss": metrics.loss, "supernet/validation_accuracy": metrics.accuracy}
            self._last_means |= measured
            epoch = (self.step - 1) // self.steps_per_epoch
            spent = {"budget/samples": float(self.samples), "budget/multiply_adds": self.spent.multiply_adds}
            for tag, value in (measured | spent).items():
                tracker.scalar(tag, value, self.step, epoch)
            for name in self.trajectory.capped():
                self.interventions.note(Intervention("cap", name), self.step)
            self._record_interventions(tracker, epoch)
        if self.hyperparameters.learned():
            write_atomically(self.folder.path / "trajectory.csv", self.trajectory.table(self.step).encode())
        self._save(tracker)

    def _choose(self, request: StopRequest, measured: int) -> None:
        """Read the architecture off the supernet, for which ``measured`` images have been spent and not yet counted.

        Raises:
            StopRequested: A signal asked to stop.
        """

        def images(most: int) -> Iterable[Batch]:
            some = first_images(self._validation_batches(), most)
            return request.until_requested(some) if self.ranks.count == 1 else some

        self._discretised()  # an alpha that is not finite is named
        passed = self.discretisation.images(self.space, len(self._validation))
        known = replace(self.spent, seconds=0.0)  # as for the progress: the clock decides nothing but the end
        affordable = self._images_to_choose() == passed
        if passed and not (affordable and self.budget.allows(known + self._forward(measured + passed))):
            self.say("the budget is too small for the discretisation: alpha's strongest options are taken")
            self.chosen = self.supernet.discretise()
            return
        self.chosen = self.discretisation.choose(self.supernet, self.space, images)
        self.samples += passed
        self._measured += passed

    def _against_alpha(self) -> str:
        """``layer1.filters 16 (4)``, ...: what was chosen (and what alpha prefers) where the two differ."""
        preferred, chosen = self._discretised(), self.chosen or self._discretised()
        return ", ".join(
            f"{name} {chosen[name]} ({preferred[name]})" for name in preferred if chosen[name] != preferred[name]
        )

    def _may_stop(self) -> bool:
        if not self.budget.allows(self.spent + self._reserve()):
            return True
        at_epoch_end = self.step > 0 and self.step % self.steps_per_epoch == 0
        return self.settings.stop == "settled" and at_epoch_end and all(self.settled().values())

    def _one_step(self, tracker: Tracker, progress: Progress) -> None:
        progress_made = self._progress()
        epoch = self.step // self.steps_per_epoch
        work = self.upper_level.work(
            architecture=epoch >= self.settings.warmup_epochs,
            hyperparameters=self.step % self.settings.hyperparameter_every == 0,
        )
        self.problem.schedule_factor = schedule_factor(
            self.training.schedule, progress_made, self.training.schedule_end
        )
        if "learning_rate" not in self.hyperparameters.learned():
            self.problem.schedule_factor /= DIVISOR**self.rollbacks
        self.supernet.relaxation.advance(progress_made)

        batch = self._streams["train"].next()
        validation = self._streams["validation"].next() if work else None
        done = self.upper_level.alternate(batch, validation, work)
        self.samples += self.ranks.count * done.samples
        outcome, (loss, logits, norm) = done.outcome, done.taken
        if outcome is not None and validation is not None:
            for intervention in outcome.interventions:
                self.interventions.note(intervention, self.step)
            for name, value in outcome.gradient_norms.items():
                self.means.add(f"gradient/{name}", value)
            self.means.add("validation/loss", outcome.report.validation_loss)
            share = accuracy(outcome.report.validation_logits, validation.labels)
            self.means.add("validation/accuracy", self.ranks.average([share])[0])
        self.means.add("gradient/weights", norm)
        self.means.add("train/loss", loss)
        self.means.add("train/accuracy", self.ranks.average([accuracy(logits, batch.labels)])[0])
        self.trajectory.record_step()
        self.step += 1

        numbers = self.hyperparameters.numbers()
        if self.step % self.tracking.log_every == 0:
            self._record_step(tracker, epoch, loss, outcome, numbers)
        seen = [norm, loss] if outcome is None else [norm, loss, outcome.report.validation_loss]
        size, *losses = torch.stack([one.double() for one in seen]).tolist()  # at once: a GPU is waited for
        progress.update(self.step, loss=losses[0], **{name: numbers[name] for name in self.hyperparameters.learned()})
        if self.training.on_non_finite != "restart" or "learning_rate" not in self.hyperparameters.learned():
            self._require_finite(loss, norm, outcome)
        complaint = self.guard.complaint(max(losses) if all(map(math.isfinite, losses)) else math.nan, size)
        if complaint is not None:
            self.interventions.note(Intervention(complaint.kind, "weights"), self.step)
            self._restart(complaint.reason, tracker, epoch)

    def _require_finite(self, loss: Tensor, norm: Tensor, outcome: UpperLevelOutcome | None) -> None:
        """See to it that everything of this step is finite, alpha first: it spoils the rest.

        Raises:
            NotFinite: Something is not.
        """
        alphas = self.supernet.architecture_parameters()
        if alphas and not bool(torch.nn.utils.get_total_norm(alphas).isfinite()):
            try:
                self.supernet.discretise()
            except FloatingPointError as error:
                alpha, _, value = str(error).partition(" is ")
                raise NotFinite(self.step, alpha, value) from error
        if outcome is not None:
            self.watch.look(self.step, {"the validation loss": outcome.report.validation_loss})
            if self.training.on_non_finite != "restart":  # otherwise a hypergradient that is not finite moves nothing
                norms = {f"the gradient of {name}": value for name, value in outcome.gradient_norms.items()}
                self.watch.look(self.step, norms)
        self.watch.look(self.step, {"the training loss": loss, "the gradient of the weights": norm})
        self.watch.check()

    def _record_step(
        self,
        tracker: Tracker,
        epoch: int,
        loss: Tensor,
        outcome: UpperLevelOutcome | None,
        numbers: dict[str, float],
    ) -> None:
        scalars: dict[str, Tensor | float] = {"step/training_loss": loss}
        if outcome is not None:
            scalars["step/validation_loss"] = outcome.report.validation_loss
        scalars |= {f"hyperparameters/{name}": value for name, value in numbers.items()}
        for tag, value in scalars.items():
            tracker.scalar(tag, value, self.step, epoch)

    def _end_epoch(self, tracker: Tracker, progress: Progress) -> None:
        epoch = (self.step - 1) // self.steps_per_epoch
        means = self._last_means = self.means.means()
        self.means.clear()
        self.best_pair.see(means.get("validation/loss", math.inf), self.supernet, self.hyperparameters)
        for tag, value in means.items():
            tracker.scalar(tag, value, self.step, epoch)
        for decision, options in self.supernet.probabilities().items():
            for option, probability in options.items():
                tracker.scalar(f"probability/{decision}/{option}", probability, self.step, epoch)
            tracker.scalar(f"entropy/{decision}", normalised_entropy(options.values()), self.step, epoch)
        tracker.scalar("budget/samples", float(self.samples), self.step, epoch)
        tracker.scalar("budget/multiply_adds", self.spent.multiply_adds, self.step, epoch)
        tracker.scalar("guard/restarts", float(self.guard.restarts), self.step, epoch)
        self._record_interventions(tracker, epoch)
        preferred = self._discretised()
        self.trajectory.record_epoch(preferred)
        if self._draw is not None and self.tracking.tensorboard and preferred != self._drawn:
            self._drawn = preferred
            tracker.figure("architecture/over time", self._draw(preferred), self.step)

        seconds = time.perf_counter() - self._epoch_began
        self._epoch_began = time.perf_counter()
        self.seconds += seconds
        tracker.timing("time/epoch_seconds", seconds, self.step, epoch)
        tracker.timing("time/total_seconds", self.seconds, self.step, epoch)
        samples = (self.samples - self._samples_before) / seconds
        self._samples_before = self.samples
        tracker.timing("throughput/samples_per_second", samples, self.step, epoch)

        numbers = self.hyperparameters.numbers()
        parts = [f"epoch {epoch + 1:>3}/{self.settings.epochs}"]
        parts += [f"{tag} {value:.4f}" for tag, value in means.items() if not tag.startswith("gradient/")]
        parts += [f"{name} {numbers[name]:.3g}" for name in self.hyperparameters.learned()]
        progress.epoch_line("  ".join(parts))

    def _record_interventions(self, tracker: Tracker, epoch: int) -> None:
        for kind, count in self.interventions.by_kind().items():
            tracker.scalar(f"intervention/{kind}", float(count), self.step, epoch)

    def _discretised(self) -> Architecture:
        try:
            return self.supernet.discretise()
        except FloatingPointError as error:
            raise FloatingPointError(f"step {self.step}: {error}") from error

    def _untrained_loss(self) -> float:
        batch = next(self._validation_batches())
        self.samples += len(batch.labels)
        self._measured += len(batch.labels)
        with torch.no_grad():
            loss, _ = self.problem.validation_loss(self.problem.weights(), batch)
        return float(loss)

    def _restart(self, reason: str, tracker: Tracker, epoch: int) -> None:
        """Back to the initial weights at a lower learning rate; alpha stays unless it is not finite, or goes back to
        the best epoch's."""
        if "learning_rate" not in self.hyperparameters.learned():
            self._discretised()  # an alpha that is not finite is named
            raise SearchDiverged(
                f"step {self.step}: {reason}; lower hyperparameters.learning_rate.initial or learn it."
            )
        self.guard.restart(f"step {self.step}: {reason}")
        if self.settings.guard.pair == "best" and self.best_pair.restore(self.supernet, self.hyperparameters):
            self.upper_level.forget()
        rate = self.hyperparameters.numbers()["learning_rate"] / self.settings.guard.divisor
        self.hyperparameters.set_value("learning_rate", rate)
        state = dict(self._initial_state)
        if all(bool(torch.isfinite(alpha).all()) for alpha in self.supernet.architecture_parameters()):
            state |= {f"alpha.{name}": alpha.detach() for name, alpha in self.supernet.alpha.items()}
        else:
            self.upper_level.forget()
        self.supernet.load_state_dict(state)
        self.optimiser.state.clear()
        self.upper_level.forget_weights()
        self.trajectory.forget()
        self.means.clear()  # what the failed weights measured belongs to no mean, least of all a NaN
        self.say(f"step {self.step}: {reason}; the weights start again, learning_rate {rate:.3g}")
        tracker.scalar("guard/restart", float(self.guard.restarts), self.step, epoch)

    def _average_statistics(self) -> None:
        """Give batch norm's running statistics, which the ranks may have gathered apart, the same values everywhere."""
        named = self.supernet.named_buffers()
        self.ranks.average_in_place([buffer for name, buffer in named if "running_" in name])

    def _save(self, tracker: Tracker) -> None:
        self._average_statistics()
        require_finite(self.step, self.supernet.state_dict())
        self.ranks.require_same(self.step, {**self.supernet.state_dict(), **dict(self.hyperparameters.named_raw())})
        self._tracker_state = tracker.state_dict()
        state = self._state(self._tracker_state)
        if self.ranks.is_first:
            self.folder.checkpoints.save(self.step, state)

    def _state(self, tracker: dict[str, int]) -> dict[str, Any]:
        return {
            "step": self.step,
            "ranks": self.ranks.count,
            "rollbacks": self.rollbacks,
            "samples": self.samples,
            "samples_before": self._samples_before,
            "measured": self._measured,
            "objective": {} if self.objective is None else self.objective.state_dict(),
            "seconds": self.seconds + time.perf_counter() - self._epoch_began,
            "supernet": self.supernet.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "upper_level": self.upper_level.state_dict(),
            "streams": {name: stream.state_dict() for name, stream in self._streams.items()},
            "randomness": self.randomness.state_dict(),
            "means": self.means.state_dict(),
            "guard": self.guard.state_dict(),
            "interventions": self.interventions.state_dict(),
            "best_pair": self.best_pair.state_dict(),
            "trajectory": self.trajectory.state_dict(),
            "last_means": self._last_means,
            "chosen": None if self.chosen is None else dict(self.chosen),
            "trials": [trial.to_json() for trial in self.trials],
            "tracker": tracker,
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        self.ranks.require_as_many(state)
        self.step, self.samples, self.seconds = state["step"], state["samples"], state["seconds"]
        self.rollbacks = state.get("rollbacks", 0)
        self._samples_before, self._last_means = state["samples_before"], state["last_means"]
        self._measured = state["measured"]
        chosen = state.get("chosen")
        self.chosen = None if chosen is None else Architecture(self.space.name, chosen)
        self.trials = [Evaluation.from_json(trial) for trial in state["trials"]]
        if self.objective is not None:
            self.objective.load_state_dict(state["objective"])
        self.supernet.load_state_dict(state["supernet"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.upper_level.load_state_dict(state["upper_level"])
        for name, stream in self._streams.items():
            stream.load_state_dict(state["streams"][name])
        self.randomness.load_state_dict(state["randomness"])
        self.means.load_state_dict(state["means"])
        self.guard.load_state_dict(state["guard"])
        self.interventions.load_state_dict(state["interventions"])
        self.best_pair.load_state_dict(state["best_pair"])
        self.trajectory.load_state_dict(state["trajectory"])


def settled_in_words(settled: Mapping[str, bool]) -> str:
    """``not settled: architecture, dropout``, or that everything has."""
    unsettled = [name for name, good in settled.items() if not good]
    return f"not settled: {', '.join(unsettled)}" if unsettled else "everything settled"


def normalised_entropy(probabilities: Iterable[float]) -> float:
    """The entropy as a share of its largest value: 1 where nothing is decided, 0 where all is."""
    values = list(probabilities)
    if len(values) < 2:
        return 0.0
    return -sum(p * math.log(p) for p in values if p > 0) / math.log(len(values))


def check_reach(architecture: Strategy | None, learned: Strategy | None, hyperparameters: HyperparameterSet) -> None:
    """Refuse strategies that give no gradient to what they are to move, or that cannot share a step.

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
        allowed = f"it gives {name}, which acts {where}, no gradient; exact does, and by_kind combines two strategies"
        require(kind in learned.reaches, "hyperparameters.gradient", type(learned).__name__, allowed)
    if architecture is None or not hyperparameters.learned():
        return
    if isinstance(learned, RetrospectiveHypergradient):
        allowed = f"beside {type(learned).__name__}, which looks back, alpha takes first_order or the same"
        require(learned.serves(architecture), "hypergradient", type(architecture).__name__, allowed)
    elif isinstance(architecture, RetrospectiveHypergradient):
        allowed = f"beside hypergradient={type(architecture).__name__}, which looks back, it must be the same"
        require(False, "hyperparameters.gradient", type(learned).__name__, allowed)


def _unheard(notice: str) -> None:
    """What a rank that is not the first has to say is said by the first."""
