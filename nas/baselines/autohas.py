"""AutoHAS (Dong et al., arXiv 2006.03656): a policy over architectures and hyperparameters, with shared weights.

One step of the search draws a candidate from the policy and lets its hyperparameters move the shared weights along its
architecture, once. What the validation loss is then is the reward, by which REINFORCE moves the policy. That step was a
temporary one: it is taken back. A hyperparameter is drawn among a few basis values, evenly spaced on its scale.
"""

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

from nas.baselines.reinforce import Reinforce
from nas.baselines.search import BlackBoxSearch
from nas.candidate import Candidate, Categorical, Domain, Range
from nas.errors import InvalidValue, require
from nas.evaluation.budget import Budget
from nas.evaluation.evaluation import Cost, Evaluation
from nas.evaluation.evaluator import Pruner
from nas.evaluation.objective import Objective
from nas.evaluation.shared_weights import InPresentMode, SharedWeights, batch_statistics
from nas.evaluation.training_setup import TrainingSetup
from nas.relaxations.relaxation import Relaxation
from nas.run.finiteness import NotFinite
from nas.run.folder import RunFolder
from nas.run.randomness import Randomness
from nas.run.tracking import TrackingSettings
from nas.spaces.space import SearchSpace
from nas.training.metrics import measure


class AutoHAS(BlackBoxSearch):
    """Returns the mode of the policy after ``steps``, or where the budget ends.

    Args:
        strategy: The policy and the rule that moves it; the policy must know its marginals (``Factorised``).
        steps: Of the search: in each a candidate is drawn, and the policy and the shared weights move.
        basis: Values among which a continuous hyperparameter is drawn.
        enqueue: As of :class:`BlackBoxSearch`.

    Raises:
        InvalidValue: A number is out of bounds, or the policy has no marginals.
    """

    def __init__(
        self,
        strategy: Callable[..., Reinforce],
        steps: int,
        basis: int,
        enqueue: Literal["initial"] | None = None,
        *,
        space: SearchSpace,
        setup: TrainingSetup,
        relaxation: Relaxation,
        objective: Objective,
        budget: Budget,
        tracking: TrackingSettings,
        randomness: Randomness,
        folder: RunFolder,
    ) -> None:
        require(steps >= 1, "steps", steps, "it must be at least 1")
        require(basis >= 2, "basis", basis, "it must be at least 2")
        self.steps = steps
        super().__init__(
            strategy,
            patience=steps,  # whatever the scores are, which drift: there is an end
            enqueue=enqueue,
            space=on_basis(space, basis),
            setup=setup,
            evaluator=TemporarySteps(setup=setup, relaxation=relaxation, randomness=randomness),
            objective=objective,
            budget=budget,
            tracking=tracking,
            randomness=randomness,
            folder=folder,
        )
        if not self.strategy.policy.marginals():
            raise InvalidValue("strategy.policy", "this one", "its decisions depend on each other: take Factorised")

    strategy: Reinforce

    def place(self) -> tuple[int, int]:
        return self.step, self.steps

    def finalists(self) -> list[Candidate]:
        """The mode of the policy."""
        rows = self.strategy.policy.marginals()
        mode = [float(max(range(len(row)), key=row.__getitem__)) for row in rows]
        return [self.strategy.decoded(self.strategy.repaired(mode))]

    def _ending(self) -> str | None:
        return f"{self.steps} steps" if self.step >= self.steps else super()._ending()


class TemporarySteps(SharedWeights):
    """Measures what one step with a candidate's hyperparameters makes of the shared weights, and takes it back.

    Then the shared weights take a step of their own along the same architecture, with the configuration's values: no
    candidate's hyperparameters can ruin them. A path is priced as its network alone, although the supernet computes
    more than that.

    Args:
        setup, relaxation, randomness: As of :class:`SharedWeights`.
    """

    def __init__(self, *, setup: TrainingSetup, relaxation: Relaxation, randomness: Randomness) -> None:
        super().__init__(1, "candidates", 0, 1, setup=setup, relaxation=relaxation, randomness=randomness)
        size = min(setup.training.batch_size, len(setup.validation))
        order = randomness.on_cpu("validation order")
        self.judges = setup.validation.stream(size, setup.mean, setup.std, order)
        self.judged = size

    def evaluate(self, candidates: Sequence[Candidate], pruner: Pruner | None = None) -> list[Evaluation]:
        found = []
        for candidate in candidates:
            began = time.perf_counter()
            kept = copy.deepcopy((self.network.state_dict(), self.training.optimiser.state_dict()))
            self._bind(self.setup.hyperparameters(candidate))
            self._take(candidate.architecture)
            self._step()
            with batch_statistics(self.network):
                measured = measure(
                    InPresentMode(self.network), [self.judges.next()], self.setup.task, self.setup.device
                )
            self.network.load_state_dict(kept[0])
            self.training.optimiser.load_state_dict(kept[1])
            self._bind(self.setup.held)
            self._step()
            found.append(self._evaluation(candidate, measured, 2, 0, time.perf_counter() - began))
        return found

    def price(self, candidate: Candidate) -> Cost:
        return self._price(candidate, 2, self.judged, 0)

    def reserve(self) -> Cost:
        """The measurement of the mode at the end, which may be the largest network."""
        return self._cost(0, len(self.setup.validation), 0)

    def _step(self) -> None:
        """One that is not finite is none."""
        with suppress(NotFinite):
            self.training.fit(self.training.step + 1)

    def _price(self, candidate: Candidate, steps: int, measured: int, evaluations: int, seconds: float = 0.0) -> Cost:
        per_image = self.setup.multiply_adds(candidate.architecture)
        return Cost.of_passes(per_image, steps * self.batch_size, measured, evaluations, seconds)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "judges": self.judges.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.judges.load_state_dict(state["judges"])


def on_basis(space: SearchSpace, count: int) -> SearchSpace:
    """``space`` with ``count`` values for each of its continuous hyperparameters, evenly spaced from end to end."""

    def values(domain: Domain) -> Domain:
        if not isinstance(domain, Range):
            return domain
        options = tuple(domain.from_unit(place / (count - 1)) for place in range(count))
        return Categorical(options[0], options)

    joint = copy.copy(space)
    joint.ranges = {name: values(domain) for name, domain in space.ranges.items()}
    return joint
