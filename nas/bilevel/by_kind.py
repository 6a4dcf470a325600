"""One hypergradient for what acts through the training loss, another for what acts on the weight update."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from nas.bilevel.hypergradient import Hypergradient, Report
from nas.bilevel.problem import BilevelProblem
from nas.bilevel.step import WeightStep
from nas.data.batches import Batch
from nas.errors import require
from nas.hyperparameters.kinds import Kind


@dataclass(frozen=True)
class ByKind(Hypergradient):
    """Hypergradients for the learned hyperparameters, each asked only for its own.

    Args:
        loss: For dropout, drop path, label smoothing, cutout, mixup.
        update: For learning rate, rate factors, momentum and weight decay.
    """

    loss: Hypergradient
    update: Hypergradient

    def __post_init__(self) -> None:
        for key, one in (("loss", self.loss), ("update", self.update)):
            require(not one.looks_back, key, type(one).__name__, "it must look ahead, as exact does")

    @property
    def reaches(self) -> frozenset[Kind]:  # type: ignore[override]
        return (self.loss.reaches & {"loss"}) | (self.update.reaches & {"decay", "update"})

    @property
    def takes_basis(self) -> bool:  # type: ignore[override]
        return self.loss.takes_basis and self.update.takes_basis

    @property
    def needs_graph(self) -> Literal["never", "asked", "always"]:  # type: ignore[override]
        return "always" if "always" in (self.loss.needs_graph, self.update.needs_graph) else "never"

    @property
    def of_sgd(self) -> bool:  # type: ignore[override]
        return self.loss.of_sgd or self.update.of_sgd

    def _parts(
        self, problem: BilevelProblem, targets: Sequence[nn.Parameter]
    ) -> list[tuple[Hypergradient, list[nn.Parameter]]]:
        through_loss = problem.act_through_loss(targets)
        rest = [target for target in targets if target not in set(through_loss)]
        parts = (self.loss, through_loss), (self.update, rest)
        return [(one, own) for one, own in parts if own]

    def most_passes(self, targets: int) -> int:
        return self.loss.most_passes(targets) + self.update.most_passes(targets)

    def differentiates_twice(self, kinds: Collection[Kind]) -> bool:
        through_loss = [kind for kind in kinds if kind == "loss"]
        rest = [kind for kind in kinds if kind != "loss"]
        parts = (self.loss, through_loss), (self.update, rest)
        return any(own and one.differentiates_twice(own) for one, own in parts)

    def gradients(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> Report:
        found: dict[nn.Parameter, Tensor] = {}
        reports = []
        for hypergradient, own in self._parts(problem, targets):
            reports.append(hypergradient.gradients(problem, training, validation, own))
            found |= dict(zip(own, reports[-1].gradients, strict=True))
        passes = [sum(report.passes[split] for report in reports) for split in (0, 1)]
        # The last report is the update's: its rules need the cosine that it saw.
        return replace(reports[-1], gradients=[found[target] for target in targets], passes=(passes[0], passes[1]))

    def after_weight_step(self, problem: BilevelProblem, step: WeightStep, targets: Sequence[nn.Parameter]) -> int:
        return sum(one.after_weight_step(problem, step, own) for one, own in self._parts(problem, targets))

    def forget(self) -> None:
        self.loss.forget()
        self.update.forget()

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss.state_dict(), "update": self.update.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss.load_state_dict(state["loss"])
        self.update.load_state_dict(state["update"])
