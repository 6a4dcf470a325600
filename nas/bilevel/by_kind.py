"""One strategy for what acts through the training loss, another for what acts on the weight update."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from nas.bilevel.hypergradient import (
    Hypergradient,
    ObservingHypergradient,
    RetrospectiveHypergradient,
    UpperLevelReport,
)
from nas.bilevel.problem import BilevelProblem, OpenStep
from nas.data.batches import Batch
from nas.errors import require
from nas.hyperparameters.kinds import Kind


@dataclass(frozen=True)
class ByKind:
    """Strategies for the learned hyperparameters, each asked only for what is its own.

    Args:
        loss: For dropout, drop path, label smoothing, cutout, mixing.
        update: For learning rate, rate factors, momentum and weight decay.
    """

    loss: Hypergradient
    update: Hypergradient

    def __post_init__(self) -> None:
        for key, strategy in (("loss", self.loss), ("update", self.update)):
            ahead = not isinstance(strategy, RetrospectiveHypergradient)
            require(ahead, key, type(strategy).__name__, "it must look ahead, as exact does")

    @property
    def reaches(self) -> frozenset[Kind]:
        return (self.loss.reaches & {"loss"}) | (self.update.reaches & {"decay", "update"})

    def _parts(
        self, problem: BilevelProblem, targets: Sequence[nn.Parameter]
    ) -> list[tuple[Hypergradient, list[nn.Parameter]]]:
        through_loss = {id(raw) for raw in problem.hyperparameters.acting_through_loss()}
        parts: list[tuple[Hypergradient, list[nn.Parameter]]] = [
            (self.loss, [target for target in targets if id(target) in through_loss]),
            (self.update, [target for target in targets if id(target) not in through_loss]),
        ]
        return [(strategy, own) for strategy, own in parts if own]

    def most_passes(self, targets: int) -> int:
        return self.loss.most_passes(targets) + self.update.most_passes(targets)

    def differentiates_twice(self, kinds: Collection[Kind]) -> bool:
        through_loss = [kind for kind in kinds if kind == "loss"]
        rest = [kind for kind in kinds if kind != "loss"]
        parts = (self.loss, through_loss), (self.update, rest)
        return any(own and strategy.differentiates_twice(own) for strategy, own in parts)

    def __call__(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> UpperLevelReport:
        reports = [strategy(problem, training, validation, own) for strategy, own in self._parts(problem, targets)]
        passes = [sum(report.passes[split] for report in reports) for split in (0, 1)]
        return replace(reports[-1], passes=(passes[0], passes[1]))  # the cosine needs what the update's strategy saw

    def observe(self, problem: BilevelProblem, step: OpenStep, targets: Sequence[nn.Parameter]) -> int:
        parts = self._parts(problem, targets)
        return sum(
            strategy.observe(problem, step, own)
            for strategy, own in parts
            if isinstance(strategy, ObservingHypergradient)
        )

    def _observing(self) -> dict[str, ObservingHypergradient]:
        both = {"loss": self.loss, "update": self.update}
        return {name: strategy for name, strategy in both.items() if isinstance(strategy, ObservingHypergradient)}

    def forget(self) -> None:
        for strategy in self._observing().values():
            strategy.forget()

    def state_dict(self) -> dict[str, Any]:
        return {name: strategy.state_dict() for name, strategy in self._observing().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, strategy in self._observing().items():
            strategy.load_state_dict(state[name])
