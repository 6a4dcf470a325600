"""Dropout behind the skip connections of a search network (P-DARTS, Chen et al., 2019, section 3.3).

A skip connection lets a young network learn fastest, so that alpha prefers it early. While its output is dropped, the
operations with weights have to do the work.
"""

from torch import Tensor, nn

from nas.operations.cell_operations import MixedEdge
from nas.operations.stochastic import StochasticLayer, keep_mask, refresh_noisy_layers


class SkipDropout(StochasticLayer):
    """The identity while no rate is set; drops single elements. It has a rate of its own and no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return x if self.is_identity() else x * keep_mask(tuple(x.shape), self.rate, x, self.generator)


def add_skip_dropouts(network: nn.Module) -> list[SkipDropout]:
    """Put one in the place of every identity on the mixed edges of ``network``, and return them.

    Skip connections with stride 2 have weights and keep their place. The fast cells draw the noise of their edges state
    by state, the plain ones node by node.
    """
    added = []
    for edge in [module for module in network.modules() if isinstance(module, MixedEdge)]:
        for place, operation in enumerate(edge.operations):
            if type(operation) is nn.Identity:
                edge.operations[place] = SkipDropout()
                added.append(edge.operations[place])
    refresh_noisy_layers(network)
    return [one for one in added if isinstance(one, SkipDropout)]
