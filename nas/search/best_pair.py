"""The best pair of architecture and hyperparameters that a search has seen: where a restart may go on from."""

import math
from typing import Any

import torch
from torch import Tensor

from nas.hyperparameters.collection import HyperparameterSet
from nas.spaces.supernet import Supernet


class BestPair:
    """Alpha and the raw hyperparameters at the end of the epoch of lowest mean validation loss."""

    def __init__(self) -> None:
        self.loss = math.inf
        self._alpha: dict[str, Tensor] = {}
        self._raw: dict[str, Tensor] = {}

    def see(self, loss: float, supernet: Supernet, hyperparameters: HyperparameterSet) -> None:
        if loss < self.loss:
            self.loss = loss
            self._alpha = {name: alpha.detach().clone() for name, alpha in supernet.alpha.items()}
            self._raw = {name: raw.detach().clone() for name, raw in hyperparameters.named_raw()}

    @torch.no_grad()
    def restore(self, supernet: Supernet, hyperparameters: HyperparameterSet) -> bool:
        """Set both back; whether there was anything to go back to."""
        if math.isinf(self.loss):
            return False
        for name, alpha in supernet.alpha.items():
            alpha.copy_(self._alpha[name])
        for name, raw in hyperparameters.named_raw():
            raw.copy_(self._raw[name])
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss, "alpha": self._alpha, "raw": self._raw}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss, self._alpha, self._raw = state["loss"], state["alpha"], state["raw"]
