"""A supernet as a function of its parameters: what a hypergradient differentiates through a weight step."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.operations.memory import Outputs, Remembers, float_at_least
from nas.operations.stochastic import switched_off
from nas.spaces.supernet import Supernet


class FunctionalSupernet:
    """``outputs(parameters, inputs)``; the supernet's own parameters stand in for those that are not given.

    :func:`torch.func.functional_call` does the same. It looks through all modules at every call, which for the
    thousands of a supernet costs as much as some of their arithmetic; here that is done once.

    Args:
        precision: The context in which the supernet computes; logits are float32 at least.
    """

    def __init__(self, supernet: Supernet, precision: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        self.supernet, self.precision = supernet, precision
        self.weights = supernet.named_weight_parameters()
        self.alphas = {f"alpha.{name}": alpha for name, alpha in supernet.alpha.items()}
        self.parameters = self.weights | self.alphas
        # Per parameter the dictionary of its module that holds it, and its key there.
        self._places: dict[str, tuple[dict[str, nn.Parameter | None], str]] = {}
        for name in self.parameters:
            path, _, key = name.rpartition(".")
            self._places[name] = (supernet.get_submodule(path)._parameters, key)
        self._batch_norms = [module for module in supernet.modules() if isinstance(module, _BatchNorm)]

    def outputs(
        self,
        parameters: Mapping[str, Tensor],
        inputs: Tensor,
        operation_weights: Mapping[str, Tensor] | None = None,
        state: Tensor | None = None,
    ) -> Outputs:
        """What the supernet makes of ``inputs``: its logits, and what it remembers if it has a memory.

        Args:
            parameters: Weights and alphas by name; an alpha is ``alpha.<name>``.
            operation_weights: What stands in for the relaxed alphas.
            state: What a memory begins from.
        """
        with self._holding(parameters), self.precision():
            if isinstance(self.supernet, Remembers):
                return self.supernet.recall(inputs, state, operation_weights).float_at_least()
            return float_at_least(self.supernet(inputs, operation_weights))

    def operation_weights(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The relaxed alphas of ``parameters``; one noise sample."""
        with self._holding(parameters):
            return self.supernet.operation_weights()

    @contextmanager
    def _holding(self, parameters: Mapping[str, Tensor]) -> Iterator[None]:
        """Put ``parameters`` into the modules, which need not be leaves there; nothing is copied."""
        for name, parameter in parameters.items():
            held, key = self._places[name]
            held[key] = parameter  # type: ignore[assignment]
        try:
            yield
        finally:
            for name in parameters:
                held, key = self._places[name]
                held[key] = self.parameters[name]

    def evaluating(self) -> AbstractContextManager[None]:
        """A context in which all modules are in evaluation mode: batch norm normalises by its running averages."""
        return switched_off([module for module in self.supernet.modules() if module.training], "training")

    def frozen_averages(self) -> AbstractContextManager[None]:
        """A context in which batch norms that use the batch's statistics leave their running averages alone."""
        tracking = [norm for norm in self._batch_norms if norm.training and norm.track_running_stats]
        return switched_off(tracking, "track_running_stats")
