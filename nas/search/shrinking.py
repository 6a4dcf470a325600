"""Taking options away while a search goes on: the supernet keeps its weights, fewer options share a row of alpha."""

import logging
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from nas.candidate import Architecture
from nas.errors import InvalidValue, require
from nas.search.callback import Callback
from nas.search.discretisation import decided_rows
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Supernet

log = logging.getLogger(__name__)


class Mask:
    """Keeps the strongest options of every row from stage to stage (DrNAS, Chen et al., 2021, section 3.2).

    What goes has alpha 0 and weight 0 from then on, the weights of the others add up to 1 again; it does not come back.
    A row with no more options than are to stay is left alone. DrNAS also widens its network from stage to stage, which
    is not done here.

    Args:
        after: When each further stage begins, as shares of the search's epochs, rounded to whole ones.
        keep: How many options of a row stay then, stage by stage.
        rest: How long alpha rests at the beginning of each further stage, as a share of the search's epochs; at the
            beginning of the search it rests for ``search.warmup_epochs``.
    """

    def __init__(self, after: Sequence[float], keep: Sequence[int], rest: float = 0.0) -> None:
        rising = all(one < other for one, other in pairwise(after))
        good = len(after) > 0 and rising and all(0 < share < 1 for share in after)
        require(good, "after", list(after), "it must be a list of shares between 0 and 1, each above the one before")
        falling = all(one > other for one, other in pairwise(keep))
        good = len(keep) == len(after) and falling and all(number >= 2 for number in keep)
        allowed = (
            f"it must be {len(after)} whole numbers of at least 2, as many as after has, each below the one before"
        )
        require(good, "keep", list(keep), allowed)
        require(0 <= rest < 1, "rest", rest, "it must be a share from 0 to below 1")
        self.after, self.keep, self.rest = tuple(after), tuple(keep), rest

    def beginnings(self, epochs: int) -> list[int]:
        """The epochs, from 0, with which the further stages of so many epochs begin."""
        return [round(share * epochs) for share in self.after]

    def check(self, space: SearchSpace, epochs: int) -> None:
        """Raise ``InvalidValue`` where stages have no epoch, or nothing would go."""
        begin = [0, *self.beginnings(epochs), epochs]
        good = all(one < other for one, other in pairwise(begin))
        require(good, "after", list(self.after), f"of {epochs} epochs, every stage must have one")
        most = max(len(choice.options) for choice in space.choices if choice.name.rpartition(".")[2] != "input")
        if self.keep[0] > most:
            raise InvalidValue("keep", list(self.keep), f"no choice has more than {most} options")

    def rests(self, epoch: int, epochs: int) -> bool:
        """Whether alpha rests in ``epoch`` of ``epochs``."""
        begun = [begin for begin in self.beginnings(epochs) if begin <= epoch]
        return bool(begun) and epoch < begun[-1] + round(self.rest * epochs)

    def kept_after(self, epoch: int, epochs: int) -> int | None:
        """How many options of a row stay at the end of ``epoch``; None where all do that are there."""
        ends = dict(zip(self.beginnings(epochs), self.keep, strict=True))
        return ends.get(epoch + 1)


class Shrinker(Callback):
    """Takes options away at the end of epochs; what is gone is part of the supernet's state."""

    def __init__(self, mask: Mask, supernet: Supernet, space: SearchSpace, epochs: int) -> None:
        self.mask, self.supernet, self.epochs = mask, supernet, epochs
        self.decided = decided_rows(space)

    def on_epoch(self, step: int, epoch: int, preferred: Architecture) -> None:
        keep = self.mask.kept_after(epoch, self.epochs)
        if keep is None:
            return
        for name, alpha in self.supernet.alpha.items():
            rows = [row in self.decided for row, _ in self.supernet.alpha_rows(name)]
            kept = strongest(alpha, self.supernet.mean_weights()[name] > 0, keep)
            kept |= ~torch.tensor(rows, device=kept.device).view(*kept.shape[:-1], 1)
            with torch.no_grad():
                alpha.masked_fill_(~kept, 0.0)
            self.supernet.keep(name, kept)
        log.info(f"after epoch {epoch + 1}, {keep} options of a choice go on")


def strongest(alpha: Tensor, there: Tensor, keep: int) -> Tensor:
    """Which options of each row of ``alpha`` (..., options) are the ``keep`` largest of those that are ``there``.

    Of equals the first stay.
    """
    order = alpha.detach().masked_fill(~there, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    kept = torch.zeros_like(there).scatter_(-1, order[..., :keep], True)
    return kept & there
