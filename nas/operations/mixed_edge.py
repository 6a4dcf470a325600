"""The mixed operation on an edge of a cell (DARTS, Liu et al., 2019, eq. 2), one operation after the other."""

from collections.abc import Sequence
from functools import reduce
from operator import add

from torch import Tensor, nn

from nas.operations.cell_operations import CELL_OPERATIONS
from nas.operations.stochastic import DropPath


class MixedEdge(nn.Module):
    """``sum over k of weight_k * operation_k(x)``.

    Args:
        names: The operations, in the order of their weights.
        channels: Of input and output.
        stride: Of every operation.
        normalise_pooling: Whether a batch norm without affine parameters follows each pooling operation, as in the
            search network of DARTS; without one a pooling operation would outweigh the normalised ones.
    """

    def __init__(self, names: Sequence[str], channels: int, stride: int, normalise_pooling: bool) -> None:
        super().__init__()
        self.operations = nn.ModuleList()
        for name in names:
            operation = CELL_OPERATIONS[name](channels, stride, False)
            if normalise_pooling and "pool" in name:
                operation = nn.Sequential(operation, nn.BatchNorm2d(channels, affine=False))
            self.operations.append(operation)
        self.drop_path = DropPath()

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """``x`` (batch, channels, H, W), ``weights`` (operations,)."""
        return reduce(
            add, (w * self._path(operation, x) for w, operation in zip(weights, self.operations, strict=True))
        )

    def _path(self, operation: nn.Module, x: Tensor) -> Tensor:
        return x if isinstance(operation, nn.Identity) else self.drop_path(operation(x))
