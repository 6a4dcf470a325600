"""Training a finished search's supernet on while its architecture is decided, without a trace in the search."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nas.search.checkpointed import CheckpointedSearch
from nas.stopping import StopRequested
from nas.training.schedules import schedule_factor

SLOWER = 0.1  # the learning rate, as a share of the search's (DARTS-PT)


class Tuning:
    """Steps of weights and alpha at a tenth of the search's learning rate and under its schedule.

    Args:
        search: Whose supernet is trained.
        requested: Whether somebody has asked to stop.
    """

    def __init__(self, search: CheckpointedSearch, requested: Callable[[], bool]) -> None:
        self._search, self._requested = search, requested

    def __call__(self, epochs: int, number: int, times: int) -> None:
        """Train for ``epochs``, as the ``number``-th (from 0) of so many ``times``.

        Raises:
            StopRequested: Somebody asked to stop.
        """
        search, steps = self._search, epochs * self._search.steps_per_epoch
        search.supernet.train()
        settings = search.parts.training
        for step in range(steps):
            if self._requested():
                raise StopRequested
            progress = (number * steps + step) / (times * steps)
            factor = schedule_factor(settings.schedule, progress, settings.schedule_end)
            requests = search.bilevel_optimiser.requests(architecture=True, hyperparameters=False)
            training = search.streams["train"].next()
            search.problem.schedule_factor = SLOWER * factor * search.parts.task.rate_factor(training.targets)
            validation = search.streams["validation"].next() if requests else None
            outcome = search.bilevel_optimiser.step(training, validation, requests)
            search.carry_on(outcome)
            search.meter.count_training(search.ranks.count * outcome.samples)

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Let the search be as it was afterwards, where there may be any training.

        What the training has cost stays paid for, unless it was cut short.
        """
        search = self._search
        if search.parts.discretisation.tuning_epochs(search.parts.space) == 0:
            yield
            return
        before = {**copy.deepcopy(search.state_dict()), "step": search.step}
        try:
            yield
        except BaseException:
            search.load_state_dict(before)
            raise
        search.load_state_dict(search.rolled_back(before) | {"reader": search.reader.state_dict()})
