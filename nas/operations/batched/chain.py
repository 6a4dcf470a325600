"""The mixed layers of a chain (:mod:`nas.operations.mixed`), each weighted sum in one pass over the images.

Same parameters, same state dict, same random draws, same numbers.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.operations.batched.activation import activated, can_activate
from nas.operations.batched.mixed_pooling import Windows, can_pool, mixed_poolings
from nas.operations.mixed import MixedConvolution, MixedPooling, Weights


class FastConvolution(MixedConvolution):
    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        functions = list(self.activation.options)
        if not can_activate(x, functions):
            return super().forward(x, weights)
        kernel = self.mixed_kernel(weights.get("kernel_size"))
        x = F.conv2d(x, kernel, stride=self.stride, padding=self.largest // 2)
        by_width, by_function = weights.get("filters"), weights.get("activation")
        mask = x.new_ones(x.shape[1]) if by_width is None else by_width @ self.mask.masks
        factors = mask[None] if by_function is None else torch.outer(by_function, mask)
        return self.dropout(activated(x, self.normalisation, factors, functions))


class FastPooling(MixedPooling):
    def __init__(self, sizes: Sequence[int], kinds: Sequence[str], stride: int) -> None:
        super().__init__(sizes, kinds, stride)
        self.windows = Windows(tuple(sizes), tuple(kinds), stride)

    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        if not can_pool(x, self.windows):
            return super().forward(x, weights)
        return mixed_poolings(x, self.joint(weights, x), self.windows)
