"""The DARTS space: two cells, stacked."""

from nas.spaces.darts.space import Darts

__all__ = ["Darts"]
