"""The gradient search: weights on the training split, architecture and hyperparameters on the validation split."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nas.bilevel.problem import BilevelProblem
from nas.bilevel.reach import check_reach, differentiates_twice
from nas.bilevel.upper_level import Alternation, Intervention, UpperLevel
from nas.candidate import Architecture, Candidate, Hyperparameters, Range
from nas.data.batch import Batch, Stream, first_images
from nas.data.sharding import sharded
from nas.device.compilation import compile_regions, what_it_takes
from nas.device.cuda_graphs import recording_for
from nas.device.transfer import as_numbers, keep_freed_memory
from nas.distributed import Ranks
from nas.errors import InvalidValue, require
from nas.evaluation.budget import MEASURED_AT_ONCE, CostMeter
from nas.evaluation.evaluation import Cost, Evaluation
from nas.evaluation.network_cost import supernet_multiply_adds
from nas.evaluation.scratch import TrainedFromScratch
from nas.operations.stochastic import set_noise_generator
from nas.operations.synchronised import synchronise_batch_norm
from nas.run.atomic_write import write_atomically
from nas.run.checkpoint import fitting
from nas.run.profiling import profiled
from nas.run.progress import Progress
from nas.run.tracking import SilentTracker, Tracker
from nas.search.best_pair import BestPair
from nas.search.convergence import Trajectory
from nas.search.guard import Guard, Interventions, SearchDiverged
from nas.search.line_search import Rehearsal, SameLuck, best, in_words, loss
from nas.search.parts import SearchParts
from nas.search.record import SearchRecord
from nas.spaces.supernet import Supernet
from nas.stopping import Stopped, StopRequest, StopRequested
from nas.training.finiteness import DIVISOR, NotFinite, last_good, require_finite
from nas.training.metrics import measure
from nas.training.schedules import schedule_factor
from nas.training.sgd import grouped

NOTHING_LEARNED = 0.95  # of the untrained supernet's loss: a validation loss above it tells that nothing was learned
LARGEST_STEP = 6  # forward-backward passes over a batch that no step of the usual strategies goes beyond


class GradientSearch:
    """Alternates weight steps with upper-level steps and reads the candidate off at the end.

    Args:
        parts: What it is put together from.
        rehearsal: After the search, tries hyperparameters around the learned ones on the network it found.

    Raises:
        InvalidValue: The parts do not go together, or the budget does not pay for one step.
    """

    def __init__(self, parts: SearchParts, rehearsal: Rehearsal | None = None) -> None:
        check_reach(parts.architecture_gradient, parts.hyperparameter_gradient, parts.hyperparameters)
        if not parts.randomness.ranks.is_first:
            quiet = replace(parts.tracking, console="quiet", profiler=False)
            parts = replace(parts, tracking=quiet, draw=None, say=lambda notice: None)  # the first rank says it
        self.parts, self.rehearsal = parts, rehearsal
        self.space, self.folder, self.randomness = parts.space, parts.folder, parts.randomness
        self.settings, self.training, self.hyperparameters = parts.search, parts.training, parts.hyperparameters
        self.ranks, self.say = parts.randomness.ranks, parts.say
        self.held = {name: entry.initial for name, entry in parts.categorical.items()}
        if rehearsal is not None:
            try:
                rehearsal.check(self._rehearsed())
            except InvalidValue as error:
                raise error.below("method.rehearsal") from error
        self.trials: list[Evaluation] = []  # the rehearsal's, in order
        self.chosen: Architecture | None = None  # at the end

        noise = self.randomness.on_device("dropout"), self.randomness.on_device("relaxation")
        self.supernet = _built_supernet(parts, *noise)
        self._initial_state = {name: entry.clone() for name, entry in self.supernet.state_dict().items()}
        self.optimiser = torch.optim.SGD(
            grouped(self.supernet.weight_parameters()), lr=0.0, momentum=self.training.momentum, foreach=True
        )
        self.problem = BilevelProblem(
            self.supernet,
            self.optimiser,
            self.hyperparameters,
            self.training.gradient_clip,
            generators=noise,
            precision=partial(self.training.autocast, self.randomness.device),
            augmentation=self.randomness.on_device("learned augmentation"),
            ranks=self.ranks,
            new_recording=recording_for(self.training.cuda_graphs, self.randomness.device, self.randomness.ranks),
        )
        self.upper_level = UpperLevel(
            self.problem,
            parts.architecture_gradient,
            parts.hyperparameter_gradient,
            self.settings.architecture,
            None if parts.objective is None else parts.objective.expected_penalty,
        )
        self.upper_level.expected_penalty()  # an objective that has none says so before anything is written

        splits = parts.splits
        self._validation = splits.validation.to(self.randomness.device)
        self._validation_batches = partial(
            self._validation.evaluation_batches, MEASURED_AT_ONCE, splits.mean, splits.std
        )
        self._streams = self._sharded_streams()
        self.guard = Guard(self.settings.guard)
        self.interventions = Interventions(self.say)
        self.best_pair = BestPair()
        self.trajectory = Trajectory(self.hyperparameters)
        self.meter = CostMeter(
            parts.budget,
            supernet_multiply_adds(self.space, parts.relaxation),
            max(LARGEST_STEP, 1 + self.upper_level.most_passes()) * self.training.batch_size,
            len(self._validation),
            parts.discretisation.images(self.space, len(self._validation)),
        )
        least = self.meter.least()
        for name, limit in parts.budget.limits().items():
            cost = getattr(least, name)
            require(cost <= limit, f"budget.{name}", limit, f"a search of one step costs up to {cost:,.0f}")
        draw = parts.draw if parts.tracking.tensorboard else None
        watched = self.meter, self.guard, self.interventions, self.ranks
        self.record = SearchRecord(self.supernet, self.hyperparameters, *watched, draw)
        self.step, self.rollbacks = 0, 0
        self._tracker_state: dict[str, int] | None = None

    def _sharded_streams(self) -> dict[str, Stream]:
        splits, randomness, size = self.parts.splits, self.randomness, self.training.batch_size
        train = splits.train.to(randomness.device).stream(
            size,
            splits.mean,
            splits.std,
            randomness.on_cpu("training order"),
            self.parts.augmentation,
            randomness.on_device("augmentation"),
        )
        order = randomness.on_cpu("validation order")
        validation = self._validation.stream(size, splits.mean, splits.std, order)
        return {"train": sharded(train, self.ranks), "validation": sharded(validation, self.ranks)}

    @property
    def steps_per_epoch(self) -> int:
        return self._streams["train"].steps_per_epoch

    @property
    def total_steps(self) -> int:
        return self.settings.epochs * self.steps_per_epoch

    @property
    def seconds(self) -> float:
        return self.meter.seconds

    @property
    def spent(self) -> Cost:
        return self.meter.spent + self._of_trials()

    def _of_trials(self) -> Cost:
        """What the rehearsal has cost; its seconds are on the clock already."""
        return sum((replace(trial.cost, seconds=0.0) for trial in self.trials), Cost())

    def _progress(self) -> float:
        """How much of the search is done: of its epochs, or of its budget where that ends it earlier."""
        return max(self.step / self.total_steps, self.meter.progress())

    @property
    def _epoch(self) -> int:
        """That of the step taken last."""
        return (self.step - 1) // self.steps_per_epoch

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
        return Tracker(self.folder.path, self.parts.tracking, state) if self.ranks.is_first else SilentTracker()

    def final_metrics(self) -> dict[str, float]:
        """The last epoch's means, and what the search has spent."""
        return {**self.record.last_means, "samples": float(self.spent.samples), "restarts": float(self.guard.restarts)}

    def unsettled(self) -> dict[str, str]:
        """Why the architecture or a learned hyperparameter cannot be said to have settled, for those it is true of."""
        settings = self.settings
        against = self.trajectory.unsettled(
            settings.settled_epochs, settings.settled_ratio, settings.hyperparameter_every
        )
        loss = self.record.last_means.get("supernet/validation_loss", 0.0)
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
        if self.training.compile:
            self.say(what_it_takes())
        save = state is None
        while True:
            try:
                return self._search_from(state, save)
            except NotFinite as fault:
                advice = "lower hyperparameters.learning_rate.initial or learn it"
                policy, folder, ranks = self.training.on_non_finite, self.folder, self.ranks
                state = last_good(fault, policy, self.rollbacks, folder, advice, self.say, ranks)
                state["rollbacks"] = self.rollbacks + 1
                paid = {name: entry for name, entry in self.meter.state_dict().items() if name != "samples_before"}
                state |= paid  # steps that are taken back stay paid for
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
            Progress("search", self.total_steps, self.parts.tracking.console, start=self.step) as progress,
            profiled(self.folder.path, self.parts.tracking.profiler) as profiler,
        ):
            self.meter.begin_epoch()
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
            if self.step % self.steps_per_epoch and self.record.means.means():
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
        task, objective = self.parts.task, self.parts.objective
        assert task is not None
        assert objective is not None
        evaluator = TrainedFromScratch(rehearsal.epochs, task=SameLuck.of_task(task), objective=objective)
        found, ranges = self._found(), self._rehearsed()
        while (trial := rehearsal.next(found, self.trials, ranges)) is not None:
            if not self.meter.budget.allows(self.spent + evaluator.price(trial)):
                break
            self.trials += evaluator.evaluate([trial])
            step = self.step + len(self.trials)
            scalars = {f"rehearsal/{name}": trial.hyperparameters[name] for name in ranges}
            scalars |= {"rehearsal/validation_loss": loss(self.trials[-1])}
            tracker.scalars(scalars, step, self._epoch)
            self.record.tell_spent(tracker, self.spent, step, self._epoch)
            self._save(tracker)
            if self.ranks.any(request.requested):
                raise Stopped(self.step, self.folder.path)
        if self.trials:
            self.say(f"rehearsed: {in_words(self.trials)}")

    def _end(self, tracker: Tracker, request: StopRequest) -> None:
        """Measure the supernet on the whole validation split and read the architecture off it, once."""
        if "supernet/validation_loss" not in self.record.last_means:
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
            self.meter.passed(metrics.samples)
            measured = {"supernet/validation_loss": metrics.loss, "supernet/validation_accuracy": metrics.accuracy}
            self.record.last_means |= measured
            tracker.scalars(measured, self.step, self._epoch)
            self.record.tell_spent(tracker, self.meter.spent, self.step, self._epoch)
            for name in self.trajectory.capped():
                self.interventions.note(Intervention("cap", name), self.step)
            self.record.tell_interventions(tracker, self.step, self._epoch)
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
        if self.meter.choosing and not self.meter.pays_for_choosing(measured):
            self.say("the budget is too small for the discretisation: alpha's strongest options are taken")
            self.chosen = self.supernet.discretise()
            return
        self.chosen = self.parts.discretisation.choose(self.supernet, self.space, images)
        self.meter.passed(self.meter.choosing)

    def _against_alpha(self) -> str:
        """``layer1.filters 16 (4)``, ...: what was chosen (and what alpha prefers) where the two differ."""
        preferred, chosen = self._discretised(), self.chosen or self._discretised()
        return ", ".join(
            f"{name} {chosen[name]} ({preferred[name]})" for name in preferred if chosen[name] != preferred[name]
        )

    def _may_stop(self) -> bool:
        if not self.meter.budget.allows(self.spent + self.meter.reserve()):
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
        self.meter.trained(self.ranks.count * done.samples)
        for intervention in done.outcome.interventions if done.outcome is not None else ():
            self.interventions.note(intervention, self.step)
        self.record.see(done, batch, validation)
        self.trajectory.record_step()
        self.step += 1

        numbers = self.hyperparameters.numbers()
        if self.step % self.parts.tracking.log_every == 0:
            self.record.tell_step(tracker, done, numbers, self.step, epoch)
        guarded = self.training.on_non_finite == "restart" and "learning_rate" in self.hyperparameters.learned()
        measured = self._measured(done, with_alpha=not guarded)
        seen = dict(zip(measured, as_numbers(list(measured.values())), strict=True))
        learned = {name: numbers[name] for name in self.hyperparameters.learned()}
        progress.update(self.step, loss=seen["the training loss"], **learned)
        if not guarded:
            self._require_finite(seen, done)
        losses = [value for name, value in seen.items() if name.endswith("loss")]
        worst = max(losses) if all(map(math.isfinite, losses)) else math.nan
        complaint = self.guard.complaint(worst, seen["the gradient of the weights"])
        if complaint is not None:
            self.interventions.note(Intervention(complaint.kind, "weights"), self.step)
            self._restart(complaint.reason, tracker, epoch)

    def _measured(self, done: Alternation, with_alpha: bool) -> dict[str, Tensor]:
        """What a step tells of its health, 0-dim; what spoils the rest comes first."""
        alphas = self.supernet.architecture_parameters() if with_alpha else []
        measured = {"alpha": torch.nn.utils.get_total_norm(alphas)} if alphas else {}
        if done.outcome is not None:
            measured["the validation loss"] = done.outcome.report.validation_loss
        return {**measured, "the training loss": done.taken.loss, "the gradient of the weights": done.taken.norm}

    def _require_finite(self, seen: Mapping[str, float], done: Alternation) -> None:
        """See to it that everything of this step is finite.

        Raises:
            NotFinite: Something is not.
        """
        if not math.isfinite(seen.get("alpha", 0.0)):
            try:
                self.supernet.discretise()
            except FloatingPointError as error:
                alpha, _, values = str(error).partition(" is ")
                raise NotFinite(self.step, alpha, values) from error
        quantities = {name: value for name, value in seen.items() if name != "alpha"}
        if done.outcome is not None and self.training.on_non_finite != "restart":
            # Otherwise a hypergradient that is not finite moves nothing.
            quantities |= {f"the gradient of {name}": norm for name, norm in done.outcome.gradient_norms.items()}
        for name, value in quantities.items():
            if not math.isfinite(value):
                raise NotFinite(self.step, name, value)

    def _end_epoch(self, tracker: Tracker, progress: Progress) -> None:
        loss = self.record.means.means().get("validation/loss", math.inf)
        self.best_pair.see(loss, self.supernet, self.hyperparameters)
        preferred = self._discretised()
        self.record.tell_epoch(tracker, progress, preferred, self.step, self._epoch, self.settings.epochs)
        self.trajectory.record_epoch(preferred)

    def _discretised(self) -> Architecture:
        try:
            return self.supernet.discretise()
        except FloatingPointError as error:
            raise FloatingPointError(f"step {self.step}: {error}") from error

    def _untrained_loss(self) -> float:
        batch = next(self._validation_batches())
        self.meter.passed(len(batch.labels))
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
        self.record.means.clear()  # what the failed weights measured belongs to no mean, least of all a NaN
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
            **self.meter.state_dict(),
            "objective": {} if self.parts.objective is None else self.parts.objective.state_dict(),
            "supernet": self.supernet.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "upper_level": self.upper_level.state_dict(),
            "streams": {name: stream.state_dict() for name, stream in self._streams.items()},
            "randomness": self.randomness.state_dict(),
            "means": self.record.means.state_dict(),
            "guard": self.guard.state_dict(),
            "interventions": self.interventions.state_dict(),
            "best_pair": self.best_pair.state_dict(),
            "trajectory": self.trajectory.state_dict(),
            "last_means": self.record.last_means,
            "chosen": None if self.chosen is None else dict(self.chosen),
            "trials": [trial.to_json() for trial in self.trials],
            "tracker": tracker,
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        self.ranks.require_as_many(state)
        self.step, self.rollbacks = state["step"], state.get("rollbacks", 0)
        self.meter.load_state_dict(state)
        chosen = state.get("chosen")
        self.chosen = None if chosen is None else Architecture(self.space.name, chosen)
        self.trials = [Evaluation.from_json(trial) for trial in state["trials"]]
        if self.parts.objective is not None:
            self.parts.objective.load_state_dict(state["objective"])
        self.supernet.load_state_dict(state["supernet"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.upper_level.load_state_dict(state["upper_level"])
        for name, stream in self._streams.items():
            stream.load_state_dict(state["streams"][name])
        self.randomness.load_state_dict(state["randomness"])
        self.record.means.load_state_dict(state["means"])
        self.record.last_means = state["last_means"]
        self.guard.load_state_dict(state["guard"])
        self.interventions.load_state_dict(state["interventions"])
        self.best_pair.load_state_dict(state["best_pair"])
        self.trajectory.load_state_dict(state["trajectory"])


def settled_in_words(settled: Mapping[str, bool]) -> str:
    """``not settled: architecture, dropout``, or that everything has."""
    unsettled = [name for name, good in settled.items() if not good]
    return f"not settled: {', '.join(unsettled)}" if unsettled else "everything settled"


def _built_supernet(parts: SearchParts, dropout: torch.Generator, relaxation: torch.Generator) -> Supernet:
    """The supernet on the run's device, its noise drawn from the two generators.

    Raises:
        InvalidValue: A hyperparameter has no effect on it, the discretisation cannot read it, or it cannot be compiled.
    """
    parts.relaxation.generator = relaxation
    supernet = parts.space.supernet(parts.relaxation).to(parts.randomness.device)
    try:
        parts.hyperparameters.require_effect_on(supernet)
    except InvalidValue as error:
        raise error.below("hyperparameters") from error
    try:
        parts.discretisation.check(supernet, parts.space)
    except InvalidValue as error:
        raise error.below("discretisation") from error
    set_noise_generator(supernet, dropout)
    parts.randomness.part()
    if parts.training.batch_norm == "synchronised":
        synchronise_batch_norm(supernet, parts.randomness.ranks)
    if parts.training.compile:
        strategies = parts.architecture_gradient, parts.hyperparameter_gradient
        once = not differentiates_twice(*strategies, parts.hyperparameters)
        allowed = "torch.compile cannot differentiate twice: take first_order, learn nothing or the rate alone"
        require(once, "training.compile", True, allowed)
        compile_regions(supernet)
    return supernet
