"""What every supernet offers: relaxed weights, probabilities, discretisation, inherited weights."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from nas.candidate import Architecture
from nas.errors import InvalidValue
from nas.operations.cell_operations import MixedEdge
from nas.relaxations.relaxation import Relaxation

Implementation = Literal["plain", "fast"]


def checked_implementation(implementation: object) -> Implementation:
    """``implementation`` if it is one.

    Raises:
        InvalidValue: It is not.
    """
    if implementation not in ("plain", "fast"):
        raise InvalidValue("implementation", implementation, "it must be plain or fast")
    return "plain" if implementation == "plain" else "fast"


class OwnSpace(Protocol):
    """What a supernet asks of its space (``SearchSpace`` makes supernets, so that it cannot be imported here)."""

    def preferred(self, probabilities: Mapping[str, Mapping[str, float]]) -> Architecture: ...

    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]: ...

    def attributes(self) -> frozenset[str]: ...


class Supernet(nn.Module, ABC):
    """A network whose mixed operations are weighted by ``relaxation(alpha)``.

    It is called as ``supernet(x, weights)``: as in DARTS' code these are the operations' weights, one tensor per alpha.
    Subclasses register their architecture parameters in ``self.alpha`` (name to parameter of shape (..., options)) and
    everything else as ordinary weights, the weight parameters.

    Attributes:
        space: Whose supernet it is; subclasses set it.
    """

    space: OwnSpace

    def __init__(self, relaxation: Relaxation) -> None:
        super().__init__()
        self.relaxation = relaxation
        self.alpha = nn.ParameterDict()
        self.kept = nn.Module()  # its buffers are masks, one per alpha of which options were taken away

    def architecture_parameters(self) -> list[nn.Parameter]:
        return list(self.alpha.values())

    def named_weight_parameters(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.named_parameters() if not name.startswith("alpha.")}

    def weight_parameters(self) -> list[nn.Parameter]:
        return list(self.named_weight_parameters().values())

    def operation_weights(self) -> dict[str, Tensor]:
        """The relaxed weights of every alpha; one noise sample, so call it once per forward pass."""
        return {name: self.masked(name, self.relaxation(alpha)) for name, alpha in self.alpha.items()}

    def mean_weights(self) -> dict[str, Tensor]:
        """The relaxed weights without noise, in the graph of their alphas."""
        return {name: self.masked(name, self.relaxation.probabilities(alpha)) for name, alpha in self.alpha.items()}

    def keep(self, name: str, kept: Tensor | None) -> None:
        """Take options of ``alpha[name]`` away: their weights are 0, and those of the others sum up to 1 again.

        Args:
            kept: Shaped as the alpha, 1 where an option stays and 0 where it goes; a row without options weighs
                nothing. None gives all of them back.
        """
        self.kept._buffers.pop(name, None)
        if kept is not None:
            self.kept.register_buffer(name, kept.to(self.alpha[name]).detach().clone())

    def taken_away(self) -> dict[str, Tensor | None]:
        """Per alpha what :meth:`keep` was last given."""
        return {name: self.kept._buffers.get(name) for name in self.alpha}

    def masked(self, name: str, weights: Tensor) -> Tensor:
        """``weights`` of ``alpha[name]``, 0 where an option was taken away; rows on the simplex sum to 1 again."""
        kept = self.kept._buffers.get(name)
        if kept is None:
            return weights
        weights = weights * kept
        if not self.relaxation.on_simplex:
            return weights
        return weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As PyTorch has it; the options that ``state_dict`` has taken away are taken away here."""
        for name in self.alpha:
            self.keep(name, state_dict.get(f"kept.{name}"))
        return super().load_state_dict(state_dict, strict, assign)

    def advance(self, progress: float) -> None:
        """Follow the search, of which the share ``progress`` (0 to 1) is done."""
        self.relaxation.advance(progress)

    def expect_first_derivatives_only(self) -> None:
        """Compute by what is fastest where nobody takes a second derivative; what it changes is up to the subclass."""

    def scheduled(self) -> dict[str, float]:
        """What :meth:`advance` moves besides the relaxation, by name: what is recorded."""
        return {}

    def _mark_sampled_edges(self) -> None:
        """Let cells compute one operation per edge where the relaxation is sampled; called once they are made."""
        for module in self.modules():
            if isinstance(module, MixedEdge):
                module.sampled = self.relaxation.sampled

    @staticmethod
    def laid_out(x: Tensor, implementation: Implementation) -> Tensor:
        """Inputs in the memory format in which an implementation is fastest; only images have several."""
        return x.contiguous(memory_format=torch.channels_last) if implementation == "fast" and x.dim() == 4 else x

    @torch.no_grad()
    def probabilities(self) -> dict[str, dict[str, float]]:
        """The probability of every option of every row of alpha: what is logged."""
        return self.by_row(self.mean_weights())

    def by_row(self, weights: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
        """By row of alpha the weight of every option in ``weights``, which are named and shaped as the alphas."""
        rows: dict[str, dict[str, float]] = {}
        for name, of_alpha in weights.items():
            values_of_rows = of_alpha.reshape(-1, of_alpha.shape[-1]).tolist()
            for (row, options), values in zip(self.alpha_rows(name), values_of_rows, strict=True):
                rows[row] = dict(zip(options, values, strict=True))
        return rows

    def finite_probabilities(self) -> dict[str, dict[str, float]]:
        """:meth:`probabilities`, to discretise by.

        Raises:
            FloatingPointError: An alpha is not finite.
        """
        for name, alpha in self.alpha.items():
            rows = alpha.detach().reshape(-1, alpha.shape[-1])
            for (row, _), values in zip(self.alpha_rows(name), rows, strict=True):
                if not bool(torch.isfinite(values).all()):
                    raise FloatingPointError(f"alpha of {row} is not finite: {values.tolist()}")
        return self.probabilities()

    @abstractmethod
    def alpha_rows(self, name: str) -> list[tuple[str, tuple[str, ...]]]:
        """The decision's name and its options' labels, for each row of ``self.alpha[name]``."""

    def discretise(self) -> Architecture:
        """The architecture that alpha prefers now.

        Raises:
            FloatingPointError: An alpha is not finite.
        """
        return self.space.preferred(self.finite_probabilities())

    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        """The weights, one tensor per alpha, with which this supernet computes ``architecture``: 1 and 0."""
        like = next(self.parameters())  # a space with nothing to choose has no alpha
        return {name: weight.to(like) for name, weight in self.space.architecture_weights(architecture).items()}

    def inherited_state(self, architecture: Architecture) -> dict[str, Tensor]:
        """A state dict for the space's ``network(architecture)`` with this supernet's weights (copies).

        Raises:
            InvalidValue: The space does not say which are whose.
        """
        raise InvalidValue("supernet", type(self).__name__, "it has no inherited_state(architecture)")
