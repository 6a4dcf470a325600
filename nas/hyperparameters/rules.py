"""How a raw hyperparameter moves along its hypergradient."""

import logging
import math
from typing import Any, Protocol

import torch
from torch import nn

from nas.errors import require

log = logging.getLogger(__name__)


class Update(Protocol):
    """One rule per hyperparameter; it holds the state of the parameter it was given.

    Attributes:
        rate: How far, about, it moves the raw parameter in one step.
    """

    rate: float

    def step(self, raw: nn.Parameter, norm_product: float) -> None:
        """Move ``raw`` in place by its ``.grad``.

        Args:
            norm_product: ``|dw / draw| * |grad L_val|``, so that the gradient divided by it is the cosine of the angle
                between ``dw / draw`` and the validation gradient; 0 where it is unknown.
        """
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class CosineNormalised:
    """``raw += rate * cos(angle between the negative validation gradient and the weight update)``.

    For the logarithm of a learning rate: its exact hypergradient is ``-lr * grad L_val(w') . u``, and dividing by
    ``lr * |grad L_val(w')| * |u|`` leaves the cosine, which no scale of loss or weights can blow up.
    """

    def __init__(self, rate: float) -> None:
        require(rate > 0 and math.isfinite(rate), "rate", rate, "it must be a number above 0")
        self.rate = rate
        self._has_told = False

    @torch.no_grad()
    def step(self, raw: nn.Parameter, norm_product: float) -> None:
        assert raw.grad is not None
        if norm_product == 0 and not self._has_told and float(raw.grad) != 0:
            self._has_told = True
            log.info(
                "a learning rate (or factor) stays as it is: its hypergradient reports no validation_gradient_norm "
                "or no step_length, which CosineNormalised divides by"
            )
        if norm_product > 0 and math.isfinite(norm_product):
            cosine = (raw.grad / norm_product).clamp(-1.0, 1.0)
            raw.sub_(self.rate * torch.nan_to_num(cosine))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class GradientDescent:
    """``raw -= rate * gradient``: an honest step, as long or short as the gradient; give it a trust region."""

    def __init__(self, rate: float) -> None:
        require(rate > 0 and math.isfinite(rate), "rate", rate, "it must be a number above 0")
        self.rate = rate

    @torch.no_grad()
    def step(self, raw: nn.Parameter, norm_product: float) -> None:
        assert raw.grad is not None
        raw.sub_(self.rate * raw.grad)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class AdamUpdate:
    """Adam (Kingma & Ba, 2015) on the raw parameter; a hypergradient that is not finite moves nothing.

    Its moments are those of one raw parameter: every hyperparameter needs an ``AdamUpdate`` of its own.
    """

    def __init__(self, rate: float, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        require(rate > 0 and math.isfinite(rate), "rate", rate, "it must be a number above 0")
        good = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
        require(good, "betas", list(betas), "it must be two numbers from 0 to below 1")
        self.rate, self.betas = rate, (float(betas[0]), float(betas[1]))
        self._optimiser: torch.optim.Adam | None = None
        self._loaded: dict[str, Any] | None = None

    def step(self, raw: nn.Parameter, norm_product: float) -> None:
        if self._optimiser is None:
            self._optimiser = torch.optim.Adam([raw], lr=self.rate, betas=self.betas)
            if self._loaded:
                self._optimiser.load_state_dict(self._loaded)
        assert raw.grad is not None
        if self._optimiser.param_groups[0]["params"][0] is not raw:
            raise ValueError("an AdamUpdate moves the parameter it was first given, and no other")
        if bool(torch.isfinite(raw.grad).all()):
            self._optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        return self._optimiser.state_dict() if self._optimiser else self._loaded or {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._loaded, self._optimiser = state or None, None
