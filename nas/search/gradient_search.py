"""The gradient search: weights on the training split, architecture and hyperparameters on the validation split."""

import logging
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nas.bilevel.data_parallel import data_parallel
from nas.bilevel.problem import BilevelProblem
from nas.bilevel.upper_level import Intervention, Outcome, UpperLevel, check_reach, differentiates_twice
from nas.candidate import Architecture, Candidate, Hyperparameters
from nas.data.batches import Batch, Stream, first_images, sharded
from nas.device.compilation import compile_regions, what_it_takes
from nas.device.cuda_graphs import cuda_graphed, recording_for
from nas.device.transfer import as_numbers
from nas.distributed import Ranks
from nas.errors import InvalidValue, require
from nas.evaluation.budget import MEASURED_AT_ONCE, CostMeter
from nas.evaluation.network_cost import supernet_multiply_adds
from nas.operations.stochastic import set_noise_generator
from nas.operations.synchronised import synchronise_batch_norm
from nas.run.checkpoint import write_atomically
from nas.run.finiteness import DIVISOR
from nas.run.loop import Loop, Session, Start
from nas.search.callback import Callback, SeenStep
from nas.search.convergence import Trajectory
from nas.search.guard import Finiteness, Guard, Interventions
from nas.search.parts import SearchParts
from nas.search.record import SearchRecord
from nas.search.result import SearchResult, unsettled_in_words
from nas.spaces.supernet import Supernet
from nas.training.metrics import measure
from nas.training.schedules import schedule_factor
from nas.training.sgd import grouped

log = logging.getLogger(__name__)
NOTHING_LEARNED = 0.95  # of the untrained supernet's loss: a validation loss above it tells that nothing was learned
LARGEST_STEP = 6  # forward-backward passes over a batch that no step of the usual strategies goes beyond


class GradientSearch:
    """Alternates weight steps with upper-level steps and reads the candidate off at the end.

    Raises:
        InvalidValue: The parts do not go together, or the budget does not pay for one step.
    """

    data_parallel = True

    def __init__(self, parts: SearchParts) -> None:
        check_reach(parts.architecture_gradient, parts.hyperparameter_gradient, parts.hyperparameters)
        self.parts, self.settings, self.training = parts, parts.search, parts.training
        self.hyperparameters, self.randomness = parts.hyperparameters, parts.randomness
        self.ranks = parts.randomness.ranks
        self.step, self.rollbacks = 0, 0
        self.chosen: Architecture | None = None  # at the end

        noise = self.randomness.on_device("dropout"), self.randomness.on_device("relaxation")
        self.supernet = _built_supernet(parts, *noise)
        self._initial_state = {name: entry.clone() for name, entry in self.supernet.state_dict().items()}
        self.optimiser = torch.optim.SGD(
            grouped(self.supernet.weight_parameters()), lr=0.0, momentum=self.training.momentum, foreach=True
        )
        self.problem = _built_problem(parts, self.supernet, self.optimiser, noise)
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
        self.meter = CostMeter(
            parts.budget,
            supernet_multiply_adds(parts.space, parts.relaxation),
            max(LARGEST_STEP, 1 + self.upper_level.most_passes()) * self.training.batch_size,
            len(self._validation),
            parts.discretisation.images(parts.space, len(self._validation)),
        )
        least = self.meter.least()
        for name, limit in parts.budget.limits().items():
            cost = getattr(least, name)
            require(cost <= limit, f"budget.{name}", limit, f"a search of one step costs up to {cost:,.0f}")

        self.learns_rate = "learning_rate" in self.hyperparameters.learned()
        self.interventions = Interventions()
        self.guard = Guard(self.settings.guard, self._restart if self.learns_rate else None, self.interventions)
        self.trajectory = Trajectory(self.hyperparameters)
        draw = parts.draw if parts.tracking.tensorboard and self.ranks.is_first else None
        watched = self.meter, self.guard, self.interventions, self.ranks
        log_every, epochs = parts.tracking.log_every, self.settings.epochs
        self.record = SearchRecord(self.supernet, self.hyperparameters, *watched, log_every, epochs, draw)
        self.callbacks: dict[str, Callback] = {
            "interventions": self.interventions,
            "record": self.record,
            "trajectory": self.trajectory,
            "guard": self.guard,
        }
        if not self._is_guarded:
            gradients = self.training.on_non_finite != "restart"
            self.callbacks["finiteness"] = Finiteness(self.supernet, gradients)

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
        loop = Loop(self, "search", folder, tracking, self.ranks, policy, advice)
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
            self.upper_level.forget_weights()  # a strategy may have served another search before
            self.guard.begin(self._untrained_loss())
        elif start == "rolled back" and self.learns_rate:
            rate = self.hyperparameters.numbers()["learning_rate"] / DIVISOR
            self.hyperparameters.set_value("learning_rate", rate)
        for name, entry in self.parts.categorical.items():
            log.info(f"{name} has no gradient: held at {entry.initial:g}")

    def advance(self) -> None:
        """One step of either level: Algorithm 1 of DARTS (Liu et al., 2019)."""
        self._follow_schedules()
        work = self.upper_level.work(
            architecture=self.step >= self.settings.warmup_epochs * self.steps_per_epoch,
            hyperparameters=self.step % self.settings.hyperparameter_every == 0,
        )
        training = self._streams["train"].next()
        validation = self._streams["validation"].next() if work else None
        outcome = self.upper_level.alternate(training, validation, work)
        self.meter.trained(self.ranks.count * outcome.samples)
        self.step += 1

        hyperparameters, numbers = self.hyperparameters.numbers(), self._numbers(outcome)
        seen = SeenStep(self.step, self._epoch, outcome, training, validation, hyperparameters, numbers)
        # The guard comes last: when it starts the weights again, the others have seen the step that they forget.
        for callback in sorted(self.callbacks.values(), key=lambda one: one is self.guard):
            callback.on_step(seen)
        if self.step % self.steps_per_epoch == 0:
            self._end_epoch()

    def finished(self) -> bool:
        if self.step >= self.total_steps or not self.meter.budget.allows(self.meter.spent + self.meter.reserve()):
            return True
        at_epoch_end = self.step > 0 and self.step % self.steps_per_epoch == 0
        return self.settings.stop == "settled" and at_epoch_end and not any(self.unsettled().values())

    def end(self) -> None:
        """Measure the supernet on the whole validation split and read the architecture off it, once."""
        if self.step % self.steps_per_epoch and self.record.means.means():
            self._end_epoch()  # the budget has ended the search inside an epoch
        if "supernet/validation_loss" not in self.record.last_means:
            # Said again here: a search resumed after its last step has not told the relaxation how far it is.
            self.supernet.relaxation.advance(self._progress())
            self._average_statistics()
            batches = self._until_requested(self._validation_batches())
            metrics = measure(self.supernet, batches, self.parts.space.classes, self.randomness.device)
            self._choose(metrics.samples)
            self.meter.passed(metrics.samples)
            for name in self.trajectory.capped():
                self.interventions.note(Intervention("cap", name), self.step)
            measured = {"supernet/validation_loss": metrics.loss, "supernet/validation_accuracy": metrics.accuracy}
            self.record.tell_end(measured, self.step, self._epoch)
        if self.hyperparameters.learned():
            table = self.trajectory.table(self.step).encode()
            write_atomically(self.parts.folder.path / "trajectory.csv", table)

    def result(self, record: dict[str, int] | None = None) -> SearchResult:
        settled, held = self.unsettled(), self.interventions.in_words()
        against_alpha = self._against_alpha()
        other = {"chosen (alpha's)": against_alpha} if against_alpha else {}
        spent = self.meter.spent
        counts = {"samples": float(spent.samples), "restarts": float(self.guard.restarts)}
        return SearchResult(
            candidate=self.candidate(),
            cost=spent,
            seconds=self.meter.seconds,
            step=self.step,
            epoch=self._epoch,
            metrics={**self.record.last_means, **counts},
            remarks={**other, "not settled": unsettled_in_words(settled), "interventions": held},
            summary=f"interventions: {held}",
            settled=settled,
            trajectory=self.trajectory.recorded(),
            supernet=self.supernet,
            record=record,
        )

    # Steps and epochs.

    @property
    def steps_per_epoch(self) -> int:
        return self._streams["train"].steps_per_epoch

    @property
    def total_steps(self) -> int:
        return self.settings.epochs * self.steps_per_epoch

    @property
    def _epoch(self) -> int:
        """That of the step taken last."""
        return (self.step - 1) // self.steps_per_epoch

    def place(self) -> tuple[int, int]:
        return self.step, self.total_steps

    def due(self) -> bool:
        return self.step % self.settings.checkpoint_every == 0

    def _progress(self) -> float:
        """How much of the search is done: of its epochs, or of its budget where that ends it earlier."""
        return max(self.step / self.total_steps, self.meter.progress())

    def _follow_schedules(self) -> None:
        progress = self._progress()
        factor = schedule_factor(self.training.schedule, progress, self.training.schedule_end)
        self.problem.schedule_factor = factor if self.learns_rate else factor / DIVISOR**self.rollbacks
        self.supernet.relaxation.advance(progress)

    def _end_epoch(self) -> None:
        preferred = self._discretised()
        for callback in self.callbacks.values():
            callback.on_epoch(self.step, self._epoch, preferred)

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

    def _until_requested(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        """``batches``, cut short by a request to stop; the ranks measure alike, and have to go on alike."""
        return self._session.request.until_requested(batches) if self.ranks.count == 1 else batches

    # Health.

    @property
    def _is_guarded(self) -> bool:
        """Whether a number that is not finite has the weights started again."""
        return self.training.on_non_finite == "restart" and self.learns_rate

    def _numbers(self, outcome: Outcome) -> dict[str, float]:
        """What a step tells of its health; what spoils the rest comes first."""
        alphas = [] if self._is_guarded else self.supernet.architecture_parameters()
        measured: dict[str, Tensor] = {"alpha": torch.nn.utils.get_total_norm(alphas)} if alphas else {}
        if outcome.move is not None:
            measured["the validation loss"] = outcome.move.report.validation_loss
        assert outcome.step.norm is not None
        measured |= {"the training loss": outcome.step.loss, "the gradient of the weights": outcome.step.norm}
        return dict(zip(measured, as_numbers(list(measured.values())), strict=True))

    def _untrained_loss(self) -> float:
        batch = next(self._validation_batches())
        self.meter.passed(len(batch.labels))
        with torch.no_grad():
            loss, _ = self.problem.validation_loss(self.problem.weights(), batch)
        return float(loss)

    def _restart(self, reason: str) -> None:
        """Go back to the initial weights at a lower learning rate; alpha stays unless it is not finite."""
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
        for callback in self.callbacks.values():
            callback.forget()
        log.info(f"{reason}; the weights start again, learning_rate {rate:.3g}")
        self.record.tell_restart(self.step, self._epoch)

    def unsettled(self) -> dict[str, str | None]:
        """Per decision why it cannot be said to have settled, or None where it has."""
        settings = self.settings
        against = self.trajectory.unsettled(
            settings.settled_epochs, settings.settled_ratio, settings.hyperparameter_every
        )
        decisions = ("architecture", *self.hyperparameters.learned())
        loss = self.record.last_means.get("supernet/validation_loss", 0.0)
        if loss > NOTHING_LEARNED * self.guard.initial_loss:
            nothing = f"nothing was learned: validation loss {loss:.3g}, {self.guard.initial_loss:.3g} untrained"
            against = dict.fromkeys(decisions, nothing)
        return {name: against.get(name) for name in decisions}

    # The candidate.

    def candidate(self) -> Candidate:
        """What the search would return now."""
        held = {name: entry.initial for name, entry in self.parts.categorical.items()}
        values = Hyperparameters({**self.trajectory.tail_average(), **held})
        return Candidate(self.chosen or self._discretised(), values)

    def _choose(self, measured: int) -> None:
        """Read the architecture off the supernet, for which ``measured`` images have been spent and not yet counted.

        Raises:
            StopRequested: A signal asked to stop.
        """

        def images(most: int) -> Iterable[Batch]:
            return self._until_requested(first_images(self._validation_batches(), most))

        self._discretised()  # an alpha that is not finite is named
        if self.meter.choosing and not self.meter.pays_for_choosing(measured):
            log.info("the budget is too small for the discretisation: alpha's strongest options are taken")
            self.chosen = self.supernet.discretise()
            return
        self.chosen = self.parts.discretisation.choose(self.supernet, self.parts.space, images)
        self.meter.passed(self.meter.choosing)

    def _discretised(self) -> Architecture:
        """The architecture that alpha prefers."""
        try:
            return self.supernet.discretise()
        except FloatingPointError as error:
            raise FloatingPointError(f"step {self.step}: {error}") from error

    def _against_alpha(self) -> str:
        """``layer1.filters 16 (4)``, ...: what was chosen (and what alpha prefers) where the two differ."""
        preferred, chosen = self._discretised(), self.chosen or self._discretised()
        return ", ".join(
            f"{name} {chosen[name]} ({preferred[name]})" for name in preferred if chosen[name] != preferred[name]
        )

    # Checkpoints.

    def _average_statistics(self) -> None:
        """Give batch norm's running averages, which the ranks may have gathered apart, the same values everywhere."""
        named = self.supernet.named_buffers()
        self.ranks.average_in_place([buffer for name, buffer in named if "running_" in name])

    def tensors(self) -> dict[str, Tensor]:
        self._average_statistics()
        return {**self.supernet.state_dict(), **dict(self.hyperparameters.named_raw())}

    def rolled_back(self, state: dict[str, Any]) -> dict[str, Any]:
        """Steps that are taken back stay paid for."""
        paid = {name: entry for name, entry in self.meter.state_dict().items() if name != "samples_before"}
        return {**state, "meter": {**state["meter"], **paid}}

    def state_dict(self) -> dict[str, Any]:
        return {
            "meter": self.meter.state_dict(),
            "objective": {} if self.parts.objective is None else self.parts.objective.state_dict(),
            "supernet": self.supernet.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "upper_level": self.upper_level.state_dict(),
            "streams": {name: stream.state_dict() for name, stream in self._streams.items()},
            "randomness": self.randomness.state_dict(),
            "callbacks": {name: callback.state_dict() for name, callback in self.callbacks.items()},
            "chosen": None if self.chosen is None else dict(self.chosen),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.meter.load_state_dict(state["meter"])
        if self.parts.objective is not None:
            self.parts.objective.load_state_dict(state["objective"])
        self.supernet.load_state_dict(state["supernet"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.upper_level.load_state_dict(state["upper_level"])
        for name, stream in self._streams.items():
            stream.load_state_dict(state["streams"][name])
        self.randomness.load_state_dict(state["randomness"])
        for name, callback in self.callbacks.items():
            callback.load_state_dict(state["callbacks"][name])
        chosen = state["chosen"]
        self.chosen = None if chosen is None else Architecture(self.parts.space.name, chosen)


def _built_problem(
    parts: SearchParts, supernet: Supernet, optimiser: torch.optim.SGD, noise: tuple[torch.Generator, torch.Generator]
) -> BilevelProblem:
    """The bilevel problem, with what ranks and CUDA graphs add around it."""
    randomness, training = parts.randomness, parts.training
    problem = BilevelProblem(
        supernet,
        optimiser,
        parts.hyperparameters,
        training.gradient_clip,
        generators=noise,
        precision=partial(training.autocast, randomness.device),
        augmentation=randomness.on_device("learned augmentation"),
    )
    data_parallel(problem, randomness.ranks)
    recording = recording_for(training.cuda_graphs, randomness.device, randomness.ranks)
    cuda_graphed(problem, ("weight_gradients",), recording, problem.generators)
    cuda_graphed(problem, ("operation_gradients",), recording)
    return problem


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
