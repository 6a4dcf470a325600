"""What a network would say that knows the training targets and looks at no input."""

from torch import Tensor


def constant_outputs(output: Tensor, targets: Tensor) -> Tensor:
    """``output`` (K,) for each of ``targets`` (N, ...): (N, K)."""
    return output.to(targets.device).expand(len(targets), -1)
