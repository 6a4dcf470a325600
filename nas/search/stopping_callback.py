"""The callback that asks a stopping rule at the end of every epoch of a search."""

import copy
import logging
from typing import Any

import torch

from nas.bilevel.curvature import alpha_hessian, largest_eigenvalue
from nas.candidate import Architecture
from nas.data.batches import first_images
from nas.search.callback import Callback
from nas.search.checkpointed import CheckpointedSearch
from nas.search.stopping_rules import EndedEpoch, StoppingRule

log = logging.getLogger(__name__)


class StoppingCallback(Callback):
    """Asks a rule, and remembers that it has ended the search.

    Args:
        rule: Copied, so that several searches may be given the same one.
        search: What it watches.

    Attributes:
        reason: Why the search has ended, or None.
    """

    def __init__(self, rule: StoppingRule, search: CheckpointedSearch) -> None:
        self.rule, self._search = copy.deepcopy(rule), search
        self.reason: str | None = None

    def on_epoch(self, step: int, epoch: int, preferred: Architecture) -> None:
        """Ask the rule, unless the budget has cut the epoch short."""
        search = self._search
        if self.reason is not None or step != (epoch + 1) * search.steps_per_epoch:
            return
        ended = EndedEpoch(epoch, preferred, search.supernet, search.parts.space, search.settled, self._eigenvalue)
        self.reason = self.rule.after(ended)
        search.record.tell({f"stopping/{name}": value for name, value in self.rule.numbers().items()}, step, epoch)
        if self.reason is not None:
            log.info(f"the search ends after epoch {epoch + 1}: {self.reason}")

    def _eigenvalue(self, products: int, images: int) -> float:
        """Every rank computes the same images, from the same vector."""
        search = self._search
        value = float("nan")
        for batch in first_images(search.reader.batches(), images):
            product, size = alpha_hessian(search.problem, batch)
            alpha = search.supernet.architecture_parameters()[0]
            start = torch.randn(size, generator=search.randomness.anew("curvature"), dtype=torch.float64)
            value, taken = largest_eigenvalue(product, start.to(alpha), products)
            search.meter.count_training((1 + taken) * len(batch.targets))
            break
        return value

    def forget(self) -> None:
        self.rule.forget()

    def state_dict(self) -> dict[str, Any]:
        return {"reason": self.reason, "rule": self.rule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reason = state["reason"]
        self.rule.load_state_dict(state["rule"])
